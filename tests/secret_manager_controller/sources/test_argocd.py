"""Applications: which source is read, and a commit's way from a Git server to a tree."""

import asyncio
import os
from dataclasses import dataclass

import pytest

from secret_manager_controller.errors import AccessDenied, PermanentError, Reason, RetryableError
from secret_manager_controller.sources.argocd import ArgoSource, git_target, slim_application
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.git.login import GitLogin
from secret_manager_controller.sources.git.repositories import GitRepositories
from secret_manager_controller.sources.protocol import RevisionReplaced
from secret_manager_controller.sources.tarstream import ArchiveLimits
from secret_manager_controller.testing.gitserver import GitServer

GIT = {"repoURL": "https://git.example/org/repo", "path": "apps/x", "targetRevision": "main"}
CHART = {"repoURL": "https://charts.example", "chart": "nginx", "targetRevision": "1.0.0"}
OCI = {"repoURL": "oci://registry.example/chart", "path": "."}
REF = {"repoURL": "https://git.example/org/values", "ref": "values"}
OF = "Application argocd/app"


def application(*sources, source=None, sync=None, **spec):
    given = (
        {"project": "default"}
        | ({"sources": list(sources)} if sources else {})
        | ({"source": source} if source else {})
    )
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"namespace": "argocd", "name": "app"},
        "spec": given | spec,
        "status": {"sync": {"status": "Synced", "revision": sync, "comparedTo": {"destination": {}}}, "health": {}},
    }


def target(body, source_name=None):
    """Return what is read from Git, of the whole object and of what the watch keeps of it."""
    whole = git_target(body, source_name=source_name, of=OF)
    assert git_target(slim_application(body), source_name=source_name, of=OF) == whole
    return whole


@pytest.mark.parametrize(
    ("body", "name", "url"),
    [
        pytest.param(application(source=GIT), None, GIT["repoURL"], id="one"),
        pytest.param(application(source={"repoURL": GIT["repoURL"]}), None, GIT["repoURL"], id="one-without-path"),
        pytest.param(application(CHART, REF, GIT), None, GIT["repoURL"], id="first-with-a-path"),
        pytest.param(application(OCI, GIT), None, GIT["repoURL"], id="not-oci"),
        pytest.param(application(GIT | {"name": "a"}, REF | {"name": "b"}), "b", REF["repoURL"], id="by-name"),
        pytest.param(application(GIT, source=CHART), None, GIT["repoURL"], id="sources-win"),
        pytest.param(application(REF), None, REF["repoURL"], id="only-one-of-several"),
    ],
)
def test_the_source_in_git_is_read(body, name, url):
    assert target(body, name).remote.url == url


@pytest.mark.parametrize(
    ("body", "name", "told"),
    [
        pytest.param(application(source=CHART), None, "has only a Helm chart as its source", id="helm"),
        pytest.param(application(source=OCI), None, "has only an OCI artifact as its source", id="oci"),
        pytest.param(application(CHART, OCI), None, "has only a Helm chart and an OCI artifact as its source", id="both"),
        pytest.param(application(), None, "has no source; give it", id="none"),
        pytest.param(application(sourceHydrator={"drySource": GIT}), None, "hydrates its source", id="hydrator"),
        pytest.param(application(REF, REF), None, "has no source with a path in Git; name one", id="no-path"),
        pytest.param(application(GIT), "x", r"has no source named 'x' \(none has a name\)", id="no-names"),
        pytest.param(application(GIT | {"name": "a"}), "x", r"has no source named 'x' \('a'\)", id="another-name"),
        pytest.param(application(CHART | {"name": "a"}), "a", "has a Helm chart as its source 'a'", id="named-chart"),
        pytest.param(application(source=GIT | {"repoURL": "file:///etc"}), None, "its scheme is 'file'", id="file"),
        pytest.param(application(source=GIT | {"repoURL": "ext::sh -c x"}), None, "it has no scheme", id="ext"),
        pytest.param(application(source=GIT | {"targetRevision": "--upload-pack=x"}), None, "no name of a branch", id="option"),
        pytest.param(application(source=GIT | {"targetRevision": "x" * 300}), None, "no name of a branch", id="long"),
    ],
)  # fmt: skip
def test_what_is_not_in_git_is_told_precisely(body, name, told):
    with pytest.raises(PermanentError, match=told) as caught:
        target(body, name)
    assert Reason.SOURCE_UNSUPPORTED is caught.value.reason
    assert OF in caught.value.message


@pytest.mark.parametrize(
    "body", [{}, {"spec": None}, {"spec": {"sources": "x", "source": [1]}}, {"spec": {"source": 1}}]
)
def test_a_malformed_application_is_one_without_a_source(body):
    with pytest.raises(PermanentError):
        target(body)


# --- from Git to a tree


@dataclass(frozen=True)
class Ref:
    kind: str = "Application"
    namespace: str = "argocd"
    name: str = "app"
    require_verified: bool = False
    git_hosts: tuple[str, ...] | None = None
    source_name: str | None = None
    git_credentials: None = None


class World:
    """One Application on a repository of a real server, and the logins that there are."""

    def __init__(self, server, source, clock):
        self.server = server
        self.source = source
        self.clock = clock
        self.login = GitLogin(ca=server.ca)
        self.repository = server.create("org/repo")
        self.body = None
        self.projects = []

    def application(self, revision="main", **options):
        git = GIT | {"repoURL": self.server.url("org/repo"), "targetRevision": revision}
        self.body = application(source=git, **options)

    async def read(self, reference, *, fresh=False):
        return self.body

    async def find(self, ref, remote, *, project):
        self.projects.append(project)
        return self.login

    async def read_file(self, path, ref=None):
        revision = await self.source.resolve(ref or Ref())
        async with self.source.fetch(ref or Ref(), revision) as tree:
            return tree.read_file(path)


@pytest.fixture
async def world(tmp_path):
    now = [1000.0]
    cache = SnapshotCache(tmp_path / "cache", limits=ArchiveLimits(entries=50, total_bytes=2**20))
    (tmp_path / "private").mkdir()
    repositories = GitRepositories(tmp_path / "git", clock=lambda: now[0], refresh=60, base=tmp_path / "private")
    with GitServer(tmp_path / "server") as server:
        made = World(server, None, now)
        made.source = ArgoSource(read_object=made.read, logins=made, repositories=repositories, cache=cache)
        yield made
    await repositories.aclose()
    await cache.aclose()


async def test_a_commit_becomes_a_tree(world):
    commit = world.repository.commit({"apps/x/a.env": "A=1\n", "elsewhere/b": "b"})
    world.application()
    revision = await world.source.resolve(Ref())
    assert revision.revision == f"main@sha1:{commit}"
    async with world.source.fetch(Ref(), revision) as tree:
        assert tree.read_file("apps/x/a.env") == b"A=1\n"
        assert tree.read_file("elsewhere/b") == b"b"  # The whole repository, whatever the Application's own path.
    assert set(world.projects) == {"default"}


async def test_a_server_that_is_not_allowed_sees_no_request_and_its_login_is_not_looked_for(world):
    """Whoever may write an Application must not choose what the controller connects to."""
    world.repository.commit({"a": "1"})
    world.application()
    revision = await world.source.resolve(Ref(git_hosts=("127.0.0.1",)))
    world.server.requests.clear()
    world.projects.clear()
    for hosts in (), ("git.example",):
        elsewhere = Ref(git_hosts=hosts)
        with pytest.raises(AccessDenied, match=r"Application argocd/app is on the host '127\.0\.0\.1'"):
            await world.source.resolve(elsewhere)
        with pytest.raises(AccessDenied):
            async with world.source.fetch(elsewhere, revision):
                pass
    assert (world.server.requests, world.projects) == ([], [])


@pytest.mark.parametrize("kind", ["branch", "tag", "annotated", "commit", "HEAD", "none", "range"])
async def test_every_kind_of_target_is_found(world, kind):
    old = world.repository.commit({"a": "old"})
    world.repository.tag("v1.2.0", annotated=kind == "annotated")
    world.repository.commit({"a": "new"})
    world.repository.git("branch", "feature/x")
    world.repository.push("feature/x")
    targets = {
        "branch": "feature/x",
        "tag": "v1.2.0",
        "annotated": "v1.2.0",
        "commit": old,
        "HEAD": "HEAD",
        "none": None,
        "range": "^1",
    }
    world.application(targets[kind])
    expected = b"new" if kind in {"branch", "HEAD", "none"} else b"old"
    assert await world.read_file("a") == expected


async def test_a_thousand_objects_are_one_listing_and_one_fetch(world):
    world.repository.commit({"a": "1"})
    world.application()
    assert await asyncio.gather(*[world.read_file("a") for _ in range(1000)]) == [b"1"] * 1000
    assert len(world.server.requests) == 4  # Two to list, two to fetch.


async def test_a_new_revision_is_seen_when_argo_cd_has_seen_it_or_after_a_while(world):
    first = world.repository.commit({"a": "1"})
    world.application(sync=first)
    assert await world.read_file("a") == b"1"
    second = world.repository.commit({"a": "2"})
    assert await world.read_file("a") == b"1"
    world.clock[0] += 1
    world.application(sync=second)
    assert await world.read_file("a") == b"2"
    world.repository.commit({"a": "3"})
    world.clock[0] += 61
    assert await world.read_file("a") == b"3"


async def test_what_argo_cd_has_seen_is_news_to_each_login(world):
    logins = [GitLogin(identity=name, ca=world.server.ca) for name in ("team-a", "team-b")]

    async def read_by_each():
        found = []
        for world.login in logins:
            found.append(await world.read_file("a"))
        return found

    world.application(sync=world.repository.commit({"a": "1"}))
    assert await read_by_each() == [b"1", b"1"]
    world.clock[0] += 1
    world.application(sync=world.repository.commit({"a": "2"}))
    assert await read_by_each() == [b"2", b"2"]


async def test_a_deleted_branch_a_lost_repository_and_a_force_push(world):
    world.repository.commit({"a": "1"})
    world.application("feature")
    with pytest.raises(PermanentError, match="no branch, tag or matching version") as caught:
        await world.source.resolve(Ref())
    assert Reason.REVISION_NOT_FOUND is caught.value.reason
    world.application()
    world.repository.git("commit", "--quiet", "--amend", "--message=another")
    world.repository.push("main", force=True)
    world.clock[0] += 61
    revision = await world.source.resolve(Ref())
    assert revision.revision == f"main@sha1:{world.repository.head()}"
    world.repository.remove()
    with pytest.raises(PermanentError, match="no such repository"):
        async with world.source.fetch(Ref(), revision):
            pass


async def test_a_commit_is_no_password_to_the_cache(world):
    """Who knows a private repository's commit gets nothing without a login, although it lies here."""
    commit = world.repository.commit({"a": "private"})
    world.server.authorization = world.server.basic("me", "secret")
    world.application(commit)
    anonymous = world.login
    world.login = GitLogin(identity="mine", username="me", password=b"secret", ca=world.server.ca)
    assert await world.read_file("a") == b"private"
    world.login = anonymous
    with pytest.raises(PermanentError) as caught:
        await world.read_file("a")
    assert Reason.CREDENTIALS_UNAVAILABLE is caught.value.reason


async def test_a_login_that_changes_between_the_two_steps_is_resolved_afresh(world):
    world.repository.commit({"a": "1"})
    world.application()
    revision = await world.source.resolve(Ref())
    world.login = GitLogin(identity="another", ca=world.server.ca)
    with pytest.raises(RevisionReplaced):
        async with world.source.fetch(Ref(), revision):
            pass


async def test_an_application_that_does_not_exist_is_waited_for(world):
    with pytest.raises(RetryableError, match="Application argocd/app does not exist") as caught:
        await world.source.resolve(Ref())
    assert Reason.SOURCE_NOT_FOUND is caught.value.reason


async def test_an_application_verifies_nothing(world):
    world.application("a" * 40)
    with pytest.raises(PermanentError, match="tells nothing of signatures") as caught:
        await world.source.resolve(Ref(require_verified=True))
    assert Reason.SOURCE_NOT_VERIFIED is caught.value.reason


# --- a tree is held to what holds for archives


async def invalid(world, told):
    world.application()
    with pytest.raises(PermanentError, match=told) as caught:
        await world.read_file("a")
    assert Reason.INVALID_ARCHIVE is caught.value.reason


async def test_too_many_files_are_refused(world):
    world.repository.commit({f"f{number}": "" for number in range(60)})
    await invalid(world, "more than 50 entries")


async def test_too_many_bytes_are_refused(world):
    world.repository.commit({"big": os.urandom(2**20)})
    await invalid(world, "unpacks to more than 1 MiB")


async def test_deep_nesting_is_refused(world):
    world.repository.commit({"/".join("d" * 40) + "/x": "1"})
    await invalid(world, "directories deep")


async def test_a_link_out_of_the_tree_is_refused_and_one_inside_is_not_followed(world):
    (world.repository.work / "inside").symlink_to("a")
    world.repository.commit({"a": "1"})
    world.application()
    assert await world.read_file("a") == b"1"
    with pytest.raises(PermanentError, match="symbolic link"):
        await world.read_file("inside")
    (world.repository.work / "outside").symlink_to("../../etc/passwd")
    world.repository.commit({})
    world.clock[0] += 61
    await invalid(world, "symbolic link out of its root")
