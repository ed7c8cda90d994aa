"""The policies as the watch shows them, whom a change concerns, and the status that is written."""

from datetime import UTC, datetime

import pytest

from secret_manager_controller.controller.policies import PolicyBook, PolicyStatusWriter
from secret_manager_controller.errors import RetryableError
from secret_manager_controller.kube import NAMESPACES, SECRET_MANAGER_POLICIES, KubeError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def policy(name="p", *, names=("team-a",), selector=None, generation=1, **grants):
    namespaces = {"names": list(names)} | ({"selector": {"matchLabels": selector}} if selector else {})
    return {
        "metadata": {"name": name, "generation": generation, "resourceVersion": "1"},
        "spec": {"namespaces": namespaces, **grants},
    }


def namespace(name, **labels):
    return {"metadata": {"name": name, "labels": labels}}


@pytest.fixture
def book(kube):
    book = PolicyBook(kube)
    for name in ("team-a", "team-b"):
        book.put_namespace(namespace(name, tenant=name))
    return book


async def names_of(book, namespace):
    return [policy.name for policy in await book.of(namespace)]


async def test_a_policy_counts_from_the_moment_that_it_is_seen_until_it_is_gone(book):
    assert book.put(policy()) == {"team-a"}
    assert (await names_of(book, "team-a"), await names_of(book, "team-b")) == (["p"], [])
    assert book.remove("p") == {"team-a"}
    assert await names_of(book, "team-a") == []


async def test_a_change_concerns_who_had_it_and_who_gets_it_and_no_change_nobody(book):
    book.put(policy())
    assert book.put(policy(generation=2)) == frozenset()
    assert book.put(policy(names=["team-b"])) == {"team-a", "team-b"}


async def test_a_malformed_policy_grants_nothing_more(book):
    book.put(policy())
    broken = policy() | {"spec": {"namespaces": {}}}
    assert book.put(broken) == {"team-a"}
    assert await names_of(book, "team-a") == []


async def test_labels_put_a_namespace_under_policies(book):
    book.put(policy(names=(), selector={"tenant": "team-b"}))
    assert await names_of(book, "team-b") == ["p"]
    assert book.put_namespace(namespace("team-b", tenant="other")) is True
    assert await names_of(book, "team-b") == []
    assert book.put_namespace(namespace("team-b", tenant="other", more="x")) is False


async def test_a_namespace_that_the_watch_has_not_shown_is_read_once(kube, book):
    kube.put(NAMESPACES.url(name="new"), **namespace("new", tenant="team-b"))
    book.put(policy(names=(), selector={"tenant": "team-b"}))
    assert (await names_of(book, "new"), await names_of(book, "new")) == (["p"], ["p"])
    assert kube.done("get") == [NAMESPACES.url(name="new")]


async def test_labels_that_cannot_be_read_deny_nothing_for_good(kube, book):
    def refuse(verb, path):
        raise KubeError(503, "later")

    kube.refuse = refuse
    with pytest.raises(RetryableError, match="namespace 'new'"):
        await book.of("new")


async def test_everything_is_loaded_before_the_watch_says_anything(kube):
    kube.put(SECRET_MANAGER_POLICIES.url(name="p"), **policy(names=(), selector={"tenant": "a"}))
    kube.put(NAMESPACES.url(name="x"), **namespace("x", tenant="a"))
    book = PolicyBook(kube)
    await book.load()
    assert await names_of(book, "x") == ["p"]
    assert kube.done("get") == []


async def test_the_status_tells_whom_it_is_for_and_is_written_once(kube, book):
    body = kube.put(SECRET_MANAGER_POLICIES.url(name="p"), **policy(names=["team-a", "team-b", "not-there"]))
    book.put(body)
    writer = PolicyStatusWriter(kube, book, lambda: ["team-a/x", "team-a/y", "team-b/z", "other/w"], now=lambda: NOW)
    await writer.write()
    stored = kube.objects[SECRET_MANAGER_POLICIES.url(name="p")]
    status = stored["status"]
    assert (status["matchedNamespaces"], status["namespaces"], status["objects"]) == (2, ["team-a", "team-b"], 3)
    assert [(c["type"], c["status"], c["lastTransitionTime"]) for c in status["conditions"]] == [
        ("Ready", "True", "2026-01-02T03:04:05Z")
    ]
    book.put(stored)
    await writer.write()
    assert len(kube.done("patch")) == 1


async def test_a_malformed_policy_says_so(kube, book):
    book.put(kube.put(SECRET_MANAGER_POLICIES.url(name="p"), **(policy() | {"spec": {"namespaces": {}}})))
    await PolicyStatusWriter(kube, book, list, now=lambda: NOW).write()
    (condition,) = kube.objects[SECRET_MANAGER_POLICIES.url(name="p")]["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "InvalidSpec")
    assert "spec.namespaces must have names or a selector" in condition["message"]


@pytest.mark.parametrize(("status", "told"), [(409, 0), (404, 0), (403, 1)])
async def test_a_status_that_cannot_be_written_ends_nothing(kube, book, caplog, status, told):
    def refuse(verb, path):
        raise KubeError(status, "no")

    book.put(policy())
    kube.refuse = refuse
    await PolicyStatusWriter(kube, book, list, now=lambda: NOW).write()
    assert [record.getMessage() for record in caplog.records] == ["Policy status not written"] * told
