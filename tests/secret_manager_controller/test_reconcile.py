"""The steps strung together, with a store in memory and plain files as the source."""

import asyncio
import dataclasses
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.decrypt.decryptor import Decryptor
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.errors import AccessDenied, PermanentError, Reason, RetryableError
from secret_manager_controller.grants import Mode, Tenancy
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.policy import parse_policy
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.model.spec import parse_spec
from secret_manager_controller.reconcile import Looks, Reconciler
from secret_manager_controller.render.kustomize import Kustomize
from secret_manager_controller.render.renderer import Renderer
from secret_manager_controller.request import Progress, Request
from secret_manager_controller.sources.protocol import RevisionReplaced
from secret_manager_controller.sources.tree import SnapshotTree
from secret_manager_controller.testing.store import FakeProvider, FakeStore
from secret_manager_controller.tracing import reconcile_span

ME = OwnerMark("cluster-1", "team-a/idam")
ANOTHER = OwnerMark("cluster-1", "team-b/other")
PROFILE = "idam/deployment-configuration/profiles/dev"


REPO = {"namespace": "flux-system", "name": "repo"}
AWS_STORE = {"aws": {"region": "eu-central-1"}}


def policy(**grants):
    return parse_policy({"metadata": {"name": "p"}, "spec": {"namespaces": {"names": ["team-a"]}, **grants}})


class NoKey(Decryptor):
    """A decryptor to which everything is encrypted for somebody else."""

    def read(self, data, **_):
        raise RetryableError(Reason.KEY_UNAVAILABLE, "no key")


class Source:
    """A directory whose revision is set by hand."""

    def __init__(self, root):
        self.root = root
        self.fetches = 0
        self.fresh = 0
        self.replaced = []
        self.error = None
        self.commit("1")

    def commit(self, number):
        self.revision = Revision(f"main@sha1:{number * 8}", f"sha256:{number}", "http://source.invalid")

    async def resolve(self, ref, *, fresh=False):
        self.fresh += fresh
        assert (ref.kind, ref.namespace, ref.name) == ("GitRepository", "flux-system", "repo")
        if self.error:
            raise self.error
        return self.revision

    @asynccontextmanager
    async def fetch(self, ref, revision):
        self.fetches += 1
        if self.replaced:
            self.replaced.pop()(revision)
        yield SnapshotTree(revision=revision, root=self.root)


class World:
    """One object, its source and its store; `reconcile` keeps what status would."""

    def __init__(self, root):
        self.root = root
        self.now = 1000.0
        self.source = Source(root)
        self.store = FakeStore()
        self.dead = set()
        self.key_namespaces = None
        decryptor = Decryptor(HashKey(b"k" * 32))
        self.policies = []
        self.reconciler = Reconciler(
            source=self.source,
            keys=self,
            stores=self,
            owners=self,
            renderer=Renderer(decryptor, Kustomize(decryptor)),
            cluster="cluster-1",
            tenancy=Tenancy(controller_namespace="microscaler-system"),
            policies=self,
            looks=Looks(lambda: self.now),
        )
        self.request = None
        self.spec()

    def isolate(self, **grants):
        """Switch to mode isolated, with one policy for the object's namespace."""
        tenancy = Tenancy(controller_namespace="microscaler-system", mode=Mode.ISOLATED)
        self.reconciler = dataclasses.replace(self.reconciler, tenancy=tenancy)
        self.policies = [policy(**grants)]

    def spec(self, **changes):
        body = {
            "sourceRef": {"name": "repo", "namespace": "flux-system"},
            "provider": {"type": "aws", "aws": {"region": "eu-central-1"}},
            "secrets": {"environment": "dev"},
        } | changes
        generation = 1 if self.request is None else self.request.generation + 1
        inventory = {} if self.request is None else self.request.inventory
        keys = () if self.request is None else (self.request.settled_key, self.request.inputs_key)
        self.request = Request("team-a", "idam", generation, parse_spec({"spec": body}), inventory, *keys)

    def files(self, **env):
        path = self.root / PROFILE / "application.secrets.env"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key}={value}\n" for key, value in env.items()))

    async def of(self, namespace):
        assert namespace == "team-a"
        return self.policies

    async def find(self, namespaces):
        self.key_namespaces = namespaces
        return KeyRing.parse(())

    async def open(self, spec, grants):
        return FakeProvider(self.store), "aws/eu-central-1"

    async def living(self, marks):
        return frozenset(marks) - self.dead

    async def reconcile(self, fence=None):
        self.store.clear_calls()
        progress = Progress()
        report = await self.reconciler.reconcile(self.request, fence or SoleMemberFence(), progress)
        keys = {"settled_key": progress.settled_key, "inputs_key": progress.inputs_key or self.request.inputs_key}
        if report is not None and not report.complete:
            keys = dict.fromkeys(keys)
        inventory = self.request.inventory if report is None else report.inventory
        self.request = dataclasses.replace(self.request, inventory=inventory, **keys)
        return report

    def calls(self):
        return [call.operation for call in self.store.calls]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def test_a_request_is_confirmed_before_the_store_is_changed_and_not_for_a_look(world):
    asked = []

    async def confirm():
        asked.append(world.store.values())
        if len(asked) == 2:
            raise OwnershipLost("it is out of date")

    async def reconcile():
        return await world.reconciler.reconcile(world.request, SoleMemberFence(), Progress(), confirm=confirm)

    world.files(URL="u")
    await reconcile()
    assert asked == [{}]
    await world.reconcile()  # Settles it.
    assert await reconcile() is None
    assert len(asked) == 1
    world.files(URL="v")
    world.source.commit("2")
    with pytest.raises(OwnershipLost):
        await reconcile()
    assert world.store.values() == {"idam-URL": b"u"}


def replaced(world, number):
    """Return what happens at a fetch whose artifact is replaced meanwhile, by that of a commit."""

    def fail(revision):
        world.source.commit(number)
        raise RevisionReplaced(Reason.DIGEST_MISMATCH, "it was replaced")

    return fail


async def test_an_artifact_that_was_replaced_while_it_was_fetched_is_fetched_anew(world):
    world.files(URL="u")
    world.source.replaced = [replaced(world, "2")]
    progress = Progress()
    report = await world.reconciler.reconcile(world.request, SoleMemberFence(), progress)
    assert (report.created, progress.revision) == (("idam-URL",), "main@sha1:22222222")
    assert (world.source.fetches, world.source.fresh) == (2, 1)


async def test_an_artifact_that_is_replaced_again_and_again_is_left_to_the_queue(world):
    world.files(URL="u")
    world.source.replaced = [replaced(world, "3"), replaced(world, "2")]
    with pytest.raises(RevisionReplaced):
        await world.reconcile()
    assert (world.source.fetches, world.store.values()) == (2, {})


async def test_an_artifact_that_the_source_still_publishes_as_it_was_is_not_fetched_twice(world):
    world.source.replaced = [replaced(world, "1")]
    with pytest.raises(RevisionReplaced):
        await world.reconcile()
    assert world.source.fetches == 1


async def test_a_verified_source_that_goes_back_is_held_until_it_is_confirmed(world):
    world.files(URL="old")
    world.spec(requireVerifiedSource=True)
    old = world.source.revision.revision
    world.request = dataclasses.replace(world.request, history=(old, "newer"), applied="newer")
    with pytest.raises(PermanentError, match="confirm-rollback=") as caught:
        await world.reconcile()
    assert caught.value.reason is Reason.REVISION_WENT_BACK
    assert (world.store.values(), world.source.fetches) == ({}, 0)
    world.request = dataclasses.replace(world.request, confirm_rollback=old)
    assert (await world.reconcile()).complete


async def test_another_source_may_go_back_and_is_only_told(world):
    world.files(URL="old")
    history = (world.source.revision.revision, "newer")
    world.request = dataclasses.replace(world.request, history=history, applied="newer")
    assert (await world.reconcile()).complete


async def test_secrets_are_created_with_our_mark_and_then_nothing_is_done_or_read(world):
    world.files(URL="u", KEY="k")
    report = await world.reconcile()
    assert (report.created, report.complete) == (("idam-KEY", "idam-URL"), True)
    assert world.store.values() == {"idam-KEY": b"k", "idam-URL": b"u"}
    assert world.store.mark("idam-KEY") == ME
    assert await world.reconcile() is None
    assert (world.calls(), world.source.fetches) == (["observe"], 1)
    assert world.key_namespaces == ("team-a", "microscaler-system")


async def test_one_changed_value_is_one_look_and_one_write_without_a_read(world):
    world.files(URL="u", KEY="k")
    await world.reconcile()
    world.files(URL="u", KEY="k2")
    world.source.commit("2")
    assert (await world.reconcile()).updated == ("idam-KEY",)
    assert world.calls() == ["observe", "update"]
    assert world.store.values()["idam-KEY"] == b"k2"


async def test_a_new_revision_that_changes_nothing_writes_nothing_and_settles(world):
    world.files(URL="u")
    await world.reconcile()
    world.source.commit("2")
    assert (await world.reconcile(), world.calls()) == (None, [])
    assert await world.reconcile() is None
    assert (world.calls(), world.source.fetches) == (["observe"], 2)


async def test_a_commit_of_others_does_not_put_off_the_look_at_the_store(world):
    """However often somebody commits: drift is found within the interval."""
    world.files(URL="u")
    await world.reconcile()
    world.store.put_by_hand("idam-URL", b"by hand")
    world.source.commit("2")
    assert (await world.reconcile(), world.calls()) == (None, [])
    world.now += 299
    world.source.commit("3")
    assert (await world.reconcile(), world.calls()) == (None, [])
    world.now += 2
    world.source.commit("4")
    assert (await world.reconcile()).updated == ("idam-URL",)


async def test_who_asks_for_a_reconcile_gets_a_look_at_the_store(world):
    world.files(URL="u")
    await world.reconcile()
    world.source.commit("2")
    world.request = dataclasses.replace(world.request, look=True)
    assert (await world.reconcile(), world.calls()) == (None, ["observe"])


async def test_other_keys_or_another_spec_are_worked_out_anew_though_the_files_are_the_same(world):
    world.files(URL="u")
    await world.reconcile()
    world.source.commit("2")
    world.spec(prune=True)
    assert (await world.reconcile()).complete
    assert world.calls() == ["observe"]


async def test_a_restarted_controller_reads_what_its_predecessor_did_not_record(world):
    """After a crash between the write and the status nothing is written twice."""
    world.files(URL="u", KEY="k")
    await world.reconcile()
    world.request = dataclasses.replace(world.request, inventory={}, settled_key=None, inputs_key=None)
    world.reconciler = dataclasses.replace(world.reconciler, memory=type(world.reconciler.memory)())
    report = await world.reconcile()
    assert (report.changed, world.calls()) == (False, ["observe", "read"])
    assert world.store.versions("idam-KEY") == 1


async def test_a_value_changed_by_hand_is_put_back(world):
    world.files(URL="u")
    await world.reconcile()
    world.store.put_by_hand("idam-URL", b"by hand")
    assert (await world.reconcile()).updated == ("idam-URL",)
    assert world.calls() == ["observe", "read", "update"]
    assert world.store.values() == {"idam-URL": b"u"}


async def test_a_to_b_to_a_arrives_as_a(world):
    for number, value in enumerate("aba"):
        world.files(KEY=value)
        world.source.commit(str(number))
        await world.reconcile()
        assert world.store.values() == {"idam-KEY": value.encode()}
    assert world.store.versions("idam-KEY") == 3


async def test_a_secret_deleted_by_hand_comes_back(world):
    world.files(URL="u")
    await world.reconcile()
    world.store.destroy("idam-URL")
    assert (await world.reconcile()).created == ("idam-URL",)


async def test_what_left_git_goes_with_prune_and_stays_without(world):
    world.files(URL="u", KEY="k")
    await world.reconcile()
    world.files(URL="u")
    world.source.commit("2")
    assert (await world.reconcile()).orphans == ("idam-KEY",)
    world.spec(prune=True)
    assert (await world.reconcile()).pruned == ("idam-KEY",)
    assert world.store.values() == {"idam-URL": b"u"}


async def test_many_leave_only_with_a_confirmation_of_the_very_revision(world):
    world.files(**{f"K{number}": "v" for number in range(8)})
    world.spec(prune=True)
    await world.reconcile()
    world.files(K0="v")
    world.source.commit("2")
    assert len((await world.reconcile()).held) == 7
    world.request = dataclasses.replace(world.request, confirm_prune="main@sha1:other")
    assert len((await world.reconcile()).held) == 7
    world.request = dataclasses.replace(world.request, confirm_prune=world.source.revision.revision)
    assert len((await world.reconcile()).pruned) == 7


@pytest.mark.parametrize("broken", ["empty", "missing", "undecodable", "source"])
async def test_a_broken_source_deletes_nothing(world, broken):
    world.spec(prune=True)
    world.files(URL="u")
    await world.reconcile()
    world.source.commit("2")
    path = world.root / PROFILE / "application.secrets.env"
    match broken:
        case "empty":
            path.write_text("")
        case "missing":
            path.unlink()
        case "undecodable":
            path.write_bytes(b"URL=\xff\n")
        case "source":
            world.source.error = RetryableError(Reason.SOURCE_NOT_READY, "not ready")
    with pytest.raises((PermanentError, RetryableError)):
        await world.reconcile()
    assert world.store.values() == {"idam-URL": b"u"}
    assert world.store.writes() == []


async def test_a_foreign_secret_is_a_conflict_and_the_others_are_synced(world):
    world.files(URL="u", KEY="k")
    world.store.put_by_hand("idam-KEY", b"theirs", mark=ANOTHER)
    report = await world.reconcile()
    assert ([c.name for c in report.conflicts], report.created, report.complete) == (["idam-KEY"], ("idam-URL",), False)
    assert world.store.values()["idam-KEY"] == b"theirs"
    world.spec(adoption="Adopt")
    assert len((await world.reconcile()).conflicts) == 1
    world.dead = {ANOTHER}
    report = await world.reconcile()
    assert (report.adopted, report.complete) == (("idam-KEY",), True)
    assert (world.store.values()["idam-KEY"], world.store.mark("idam-KEY")) == (b"k", ME)


async def test_create_only_leaves_values_and_replace_later_repairs_them(world):
    world.files(KEY="k")
    world.spec(updatePolicy="CreateOnly")
    await world.reconcile()
    world.store.put_by_hand("idam-KEY", b"by hand")
    assert await world.reconcile() is None
    world.files(KEY="k2")
    world.source.commit("2")
    assert not (await world.reconcile()).changed
    assert world.store.values() == {"idam-KEY": b"by hand"}
    world.spec(updatePolicy="Replace")
    assert (await world.reconcile()).updated == ("idam-KEY",)
    assert world.store.values() == {"idam-KEY": b"k2"}


async def test_partial_success_is_not_settled_and_the_retry_writes_the_rest(world):
    world.files(A="1", B="2")
    world.store.fail("create", PermanentError(Reason.STORE_ACCESS_DENIED, "denied"))
    assert (await world.reconcile()).synced == 1
    assert world.request.settled_key is None
    report = await world.reconcile()
    assert (report.synced, report.complete, len(report.created)) == (2, True, 1)


async def test_a_changed_spec_is_worked_out_anew(world):
    world.files(KEY="k")
    await world.reconcile()
    world.spec(secrets={"environment": "dev", "suffix": "v2"})
    assert (await world.reconcile()).created == ("idam-KEY-v2",)


async def test_a_foreign_credential_secret_is_denied_before_anything_is_read(world):
    world.isolate(stores=[AWS_STORE], sources=[REPO])
    auth = {"authType": "AccessKeys", "secretName": "keys", "secretNamespace": "team-b"}
    world.spec(provider={"type": "aws", "aws": {"region": "eu-central-1", "auth": auth}})
    with pytest.raises(AccessDenied, match="secretNamespace"):
        await world.reconcile()
    assert (world.key_namespaces, world.calls()) == (None, [])


async def test_names_outside_of_the_grant_reach_no_store(world):
    world.isolate(stores=[AWS_STORE | {"namePrefixes": ["team-a-"]}], sources=[REPO])
    world.files(URL="u")
    with pytest.raises(AccessDenied, match="idam-URL"):
        await world.reconcile()
    assert world.calls() == []


async def test_a_policy_that_is_taken_away_stops_the_next_reconcile_and_the_clean_up_and_deletes_nothing(world):
    world.isolate(stores=[AWS_STORE], sources=[REPO])
    world.files(URL="u")
    await world.reconcile()
    assert await world.reconcile() is None
    for left in ([], [policy(stores=[AWS_STORE | {"namePrefixes": ["other-"]}], sources=[REPO])]):
        world.policies = left
        with pytest.raises(AccessDenied):
            await world.reconcile()
        with pytest.raises(AccessDenied):
            await world.reconciler.cleanup(world.request, SoleMemberFence())
        assert (world.calls(), world.store.values()) == ([], {"idam-URL": b"u"})


async def test_only_the_granted_directories_of_a_source_are_shown(world):
    world.isolate(stores=[AWS_STORE], sources=[REPO | {"paths": ["idam"]}])
    world.spec(secrets={"environment": "dev", "basePath": "idam"})
    world.files(URL="u")
    await world.reconcile()
    world.isolate(stores=[AWS_STORE], sources=[REPO | {"paths": ["idam/elsewhere"]}])
    with pytest.raises(AccessDenied, match="directory 'idam'"):
        await world.reconcile()


async def test_a_missing_key_tells_which_grant_would_lend_the_controllers(world):
    world.isolate(stores=[AWS_STORE], sources=[REPO])
    decryptor = NoKey(HashKey(b"k" * 32))
    renderer = Renderer(decryptor, Kustomize(decryptor))
    world.reconciler = dataclasses.replace(world.reconciler, renderer=renderer)
    world.files(URL="u")
    with pytest.raises(
        RetryableError, match=r"no key; make a key Secret in namespace 'team-a', or have controllerKeys"
    ):
        await world.reconcile()
    assert world.key_namespaces == ("team-a",)


async def test_cleanup_deletes_what_is_ours_and_nothing_else(world):
    world.files(URL="u", KEY="k")
    await world.reconcile()
    world.store.put_by_hand("unrelated", b"x")
    world.store.put_by_hand("idam-other", b"x", mark=ANOTHER)
    report = await world.reconciler.cleanup(world.request, SoleMemberFence())
    assert report.pruned == ("idam-KEY", "idam-URL")
    assert world.store.values() == {"unrelated": b"x", "idam-other": b"x"}


async def test_a_lost_fence_writes_nothing(world):
    world.files(URL="u")
    fence = SoleMemberFence()
    fence.revoke()
    with pytest.raises(OwnershipLost):
        await world.reconcile(fence)
    assert world.store.values() == {}


async def test_many_objects_share_one_reconciler(tmp_path):
    worlds = [World(tmp_path / str(number)) for number in range(5)]
    for number, world in enumerate(worlds):
        world.files(KEY=str(number))
        world.request = dataclasses.replace(world.request, name=f"idam-{number}")
    await asyncio.gather(*(world.reconcile() for world in worlds))
    assert [world.store.values()["idam-KEY"] for world in worlds] == [b"0", b"1", b"2", b"3", b"4"]


async def spans_of(world, *, names=False):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with reconcile_span(tracer, "reconcile", {}, parent=None, link=None, record_names=names):
        await world.reconcile()
    return exporter.get_finished_spans()


async def test_each_step_is_a_span(world):
    world.files(A="1", B="2")
    spans = await spans_of(world)
    assert [span.name for span in spans] == [
        *("resolve", "fetch", "decrypt", "render", "observe", "plan", "write", "write", "apply", "reconcile"),
    ]
    apply = spans[-2]
    assert dict(apply.attributes) == {"secret_manager.store": "aws/eu-central-1", "secret_manager.changes": 2}
    assert [span.parent.span_id == apply.context.span_id for span in spans if span.name == "write"] == [True, True]
    assert [span.name for span in await spans_of(world)] == ["resolve", "observe", "reconcile"]


@pytest.mark.parametrize("names", [True, False])
async def test_a_span_names_a_secret_only_where_the_object_wants_it_and_never_tells_a_value(world, names):
    world.files(TOKEN="canary-value-51")
    spans = await spans_of(world, names=names)
    (write,) = [span for span in spans if span.name == "write"]
    assert write.attributes["secret_manager.action"] == "create"
    assert ("secret_manager.secret" in write.attributes) is names
    told = "".join(span.to_json() for span in spans)
    assert ("TOKEN" in told, "canary-value-51" in told) == (names, False)
