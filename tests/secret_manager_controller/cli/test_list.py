"""`msmctl list`."""

import json

import pytest
import yaml

from secret_manager_controller.cli import cluster
from secret_manager_controller.cli.view import age_of

REFERENCE_HEADER = "NAME                          NAMESPACE            READY           SECRETS SYNCED"
REFERENCE_ROWS = [
    ["idam-dev-secrets", "pricewhisperer", "True", "5"],
    ["idam-prd-secrets", "pricewhisperer", "True", "5"],
]


@pytest.fixture
def two(api, reference_object):
    """Store the two objects of the reference's example."""
    for name in ("idam-dev-secrets", "idam-prd-secrets"):
        reference_object["metadata"] |= {"name": name}
        api.put(reference_object)
    return api


def test_prints_the_references_header_to_the_byte_and_its_rows_below(two, msmctl):
    result = msmctl("list")
    header, *rows = result.stdout.splitlines()
    assert header == REFERENCE_HEADER
    assert [row.split() for row in rows] == REFERENCE_ROWS
    assert {row.index("True") for row in rows} == {header.index("READY")}
    assert (result.stderr, result.exit_code) == ("", 0)


def test_lists_one_namespace(two, msmctl, reference_object):
    reference_object["metadata"] |= {"name": "other", "namespace": "elsewhere"}
    two.put(reference_object)
    assert [row.split()[0] for row in msmctl("list", "-N", "elsewhere").stdout.splitlines()] == ["NAME", "other"]
    assert len(msmctl("list").stdout.splitlines()) == 4


def test_wide_adds_reason_source_revision_and_age(two, msmctl, reference_object):
    reference_object["spec"]["suspend"] = True
    reference_object["status"]["lastAppliedRevision"] = f"main@sha1:{'0123456789abcdef' * 2}01234567"
    two.put(reference_object)
    header, first, second = msmctl("list", "-o", "wide").stdout.splitlines()
    assert header.split()[-4:] == ["REASON", "SOURCE", "REVISION", "AGE"]
    assert first.split()[4:] == ["ReconciliationSucceeded", "GitRepository/pricewhisperer-manifests", "0s"]
    assert second.split()[4:6] == ["Suspended", "GitRepository/pricewhisperer-manifests"]
    assert second.split()[6] == "main@sha1:0123456789ab"


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
        (172_799, "47h"),
        (172_800, "2d"),
    ],
)
def test_shows_ages_as_kubectl_does(seconds, age):
    body = {"metadata": {"creationTimestamp": "1970-01-02T00:00:00Z"}}
    assert age_of(body, now=86_400 + seconds) == age


@pytest.mark.parametrize("created", [None, 5, "yesterday"])
def test_shows_an_age_that_nobody_knows_as_such(created):
    assert age_of({"metadata": {"creationTimestamp": created}}, now=0) == "<unknown>"


def test_shows_objects_without_or_with_a_broken_status(api, msmctl, reference_object):
    for name, status in (("none", None), ("text", "broken"), ("list", []), ("odd", {"conditions": {"a": 1}})):
        reference_object["metadata"] |= {"name": name}
        reference_object["status"] = status
        api.put(reference_object)
    rows = [row.split()[2:5] for row in msmctl("list", "-o", "wide").stdout.splitlines()[1:]]
    assert rows == [["Unknown", "0", "NotReconciled"]] * 4


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_prints_a_list_of_objects(two, msmctl, output, parse):
    document = parse(msmctl("list", "-o", output).stdout)
    assert (document["apiVersion"], document["kind"]) == ("v1", "List")
    assert document["items"] == list(two.objects.values())


@pytest.mark.parametrize(
    ("arguments", "where"), [((), "any namespace"), (("-N", "empty"), "namespace 'empty'")], ids=["all", "one"]
)
def test_says_on_stderr_that_there_is_nothing(msmctl, arguments, where):
    result = msmctl("list", *arguments)
    assert (result.stdout, result.stderr) == ("", f"note: no SecretManagerConfigs in {where}\n")
    assert result.exit_code == 0


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_prints_an_empty_list_as_a_document(msmctl, output):
    assert yaml.safe_load(msmctl("list", "-o", output).stdout)["items"] == []


def test_reads_page_by_page(two, msmctl, monkeypatch):
    monkeypatch.setattr(cluster, "LIST_CHUNK", 1)
    assert len(msmctl("list").stdout.splitlines()) == 3
    assert [path.partition("?")[2] for _, path in two.requests] == ["limit=1", "limit=1&continue=1"]


def test_begins_anew_when_the_continue_token_has_expired(two, msmctl, monkeypatch, refuse):
    monkeypatch.setattr(cluster, "LIST_CHUNK", 1)
    expired = []

    def expire(_, path):
        if "continue" in path and not expired:
            expired.append(path)
            raise refuse(410, "The provided continue parameter is too old")

    two.before = expire
    assert len(msmctl("list").stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("status", "message", "mend"),
    [
        (401, "Unauthorized", "the login was refused: log in anew, or use another --context"),
        (403, "forbidden", "have the verb list on secretmanagerconfigs.secret-management.microscaler.io granted"),
        (404, "gone", "install the controller and its CRD first"),
        (410, "too old", "try again"),
        (500, "etcd\x1b[2J is away", "try again"),
    ],
)
def test_tells_a_refusal_in_one_line_with_what_mends_it(api, msmctl, refuse, status, message, mend):
    def fail(*_):
        raise refuse(status, message)

    api.before = fail
    result = msmctl("list")
    assert result.stderr.startswith("Error: Failed to list SecretManagerConfigs: ")
    assert mend in result.stderr
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr
    assert (result.stdout, result.exit_code) == ("", 1)
