"""kopf as an informer: settings, handlers that return nothing, and a loop of its own."""

import asyncio
import threading

import kopf
import pytest
from kopf._core.intents import causes
from kubernetes.client import Configuration

from secret_manager_controller.controller import informer as informer_module
from secret_manager_controller.controller.informer import (
    KopfInformer,
    WatchesEnded,
    connection_info,
    informer_settings,
)
from secret_manager_controller.kube import GIT_REPOSITORIES, ApiServer, ResourcePath

KINDS = {"GitRepository": GIT_REPOSITORIES, "Bucket": ResourcePath(GIT_REPOSITORIES.group, "v1beta2", "buckets")}
OBJECT = {"metadata": {"namespace": "team-a", "name": "idam"}}


def server(**attributes):
    configuration = Configuration()
    configuration.host = "https://api.example:6443"
    for name, value in attributes.items():
        setattr(configuration, name, value)
    return ApiServer(configuration)


class Sink:
    """Notes what it hears and in which thread, and returns something, as no handler may."""

    def __init__(self):
        self.heard = []

    def _note(self, *what):
        self.heard.append((*what, threading.current_thread() is threading.main_thread()))
        return "a result that kopf would patch into the object"

    def object_seen(self, body):
        return self._note("object seen", body["metadata"]["name"])

    def object_deleted(self, body):
        return self._note("object deleted", body["metadata"]["name"])

    def source_seen(self, kind, body):
        return self._note(f"{kind} seen", body["metadata"]["name"])

    def source_deleted(self, kind, body):
        return self._note(f"{kind} deleted", body["metadata"]["name"])

    def policy_seen(self, body):
        return self._note("policy seen", body["metadata"]["name"])

    def policy_deleted(self, body):
        return self._note("policy deleted", body["metadata"]["name"])

    def namespace_seen(self, body):
        return self._note("namespace seen", body["metadata"]["name"])

    def namespace_deleted(self, body):
        return self._note("namespace deleted", body["metadata"]["name"])


@pytest.fixture
def operated(monkeypatch):
    """Return a function that runs the informer with another `kopf.operator`."""

    async def run(operator, sink=None, *, stop=None, started=None, policies=False):
        monkeypatch.setattr(informer_module.kopf, "operator", operator)
        informer = KopfInformer(server(), policies=policies)
        await informer.run(
            sink or Sink(), kinds=KINDS, started=started or asyncio.Event(), stop=stop or asyncio.Event()
        )

    return run


async def call_all(registry):
    """Call every handler as kopf does, for each kind of event; return what they returned."""
    return [
        await handler.fn(type=kind, body=OBJECT, event={}, logger=None, extra="kopf passes a lot")
        for handler in registry._watching.get_all_handlers()
        for kind in (None, "ADDED", "MODIFIED", "DELETED")
    ]


async def test_handlers_report_what_they_see_in_our_loop_and_return_nothing(operated):
    sink, returned = Sink(), []

    async def operator(*, registry, **_):
        returned.extend(await call_all(registry))

    await operated(operator, sink)
    await asyncio.sleep(0)
    assert returned == [None] * 12
    assert sink.heard == [
        ("object seen", "idam", True),
        ("object seen", "idam", True),
        ("object seen", "idam", True),
        ("object deleted", "idam", True),
        ("GitRepository seen", "idam", True),
        ("GitRepository seen", "idam", True),
        ("GitRepository seen", "idam", True),
        ("GitRepository deleted", "idam", True),
        ("Bucket seen", "idam", True),
        ("Bucket seen", "idam", True),
        ("Bucket seen", "idam", True),
        ("Bucket deleted", "idam", True),
    ]


async def test_policies_and_namespaces_are_watched_where_they_count(operated):
    sink, returned = Sink(), []

    async def operator(*, registry, **_):
        returned.extend(await call_all(registry))

    await operated(operator, sink, policies=True)
    await asyncio.sleep(0)
    assert set(returned) == {None}
    assert [what for what, _, _ in sink.heard[-8:]] == [
        *["policy seen"] * 3,
        "policy deleted",
        *["namespace seen"] * 3,
        "namespace deleted",
    ]


async def test_only_event_handlers_are_registered_and_none_that_changes_objects(operated):
    seen = []

    async def operator(*, registry, **_):
        for kind in ("_indexing", "_spawning", "_changing", "_webhooks"):
            seen.extend(getattr(registry, kind).get_all_handlers())
        seen.append(len(registry._watching.get_all_handlers()))

    await operated(operator)
    assert seen == [3]


async def test_kopf_has_a_loop_of_its_own_whose_end_cancels_nothing_of_ours(operated):
    """`kopf.operator` cancels all tasks of its loop when it ends, and takes the signals of the main thread."""
    ours = asyncio.create_task(asyncio.sleep(3600))

    async def operator(**_):
        assert threading.current_thread() is not threading.main_thread()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    with pytest.raises(WatchesEnded):
        await operated(operator)
    assert not ours.done()
    ours.cancel()


async def test_an_operator_whose_watches_have_ended_is_not_waited_for(operated, monkeypatch):
    """Seen with kopf 1.45 after 401: a watcher ignores that it is cancelled, and the operator waits for it for ever."""
    monkeypatch.setattr(informer_module, "END_TIMEOUT", 0.1)
    release = threading.Event()

    async def operator(*, registry, **_):
        for handler in registry._activities.get_all_handlers():
            if handler.activity is causes.Activity.CLEANUP:
                await handler.fn()
        await asyncio.to_thread(release.wait)

    with pytest.raises(WatchesEnded, match="did not end in"):
        await operated(operator)
    release.set()


async def test_an_operator_that_fails_is_raised(operated):
    async def operator(**_):
        raise kopf.PermanentError("lost")

    with pytest.raises(kopf.PermanentError):
        await operated(operator)


async def test_it_tells_when_it_has_started_and_ends_when_told(operated):
    stop, started = asyncio.Event(), asyncio.Event()

    async def operator(*, ready_flag, stop_flag, **_):
        ready_flag.set()
        await stop_flag.wait()

    running = asyncio.create_task(operated(operator, stop=stop, started=started))
    await started.wait()
    assert not running.done()
    stop.set()
    await running


async def test_a_stop_before_the_start_ends_it_too(operated):
    stop = asyncio.Event()
    stop.set()

    async def operator(*, stop_flag, **_):
        await stop_flag.wait()

    await operated(operator, stop=stop)


async def test_who_stops_waiting_ends_it(operated):
    ended = threading.Event()

    async def operator(*, ready_flag, stop_flag, **_):
        ready_flag.set()
        await stop_flag.wait()
        ended.set()

    started = asyncio.Event()
    running = asyncio.create_task(operated(operator, started=started))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(ended.wait, 5)


def test_the_settings_switch_off_all_that_writes_or_grows():
    settings = informer_settings()
    assert settings.posting.enabled is False
    assert settings.scanning.disabled is True
    assert settings.queueing.idle_timeout == 0.1
    assert settings.queueing.worker_limit is None
    assert settings.watching.chunk_size == 500
    assert settings.networking.request_timeout == 30
    assert settings.process.ultimate_exiting_timeout is None


async def test_it_runs_standalone_over_all_namespaces(operated):
    told = {}

    async def operator(**options):
        told.update(options)

    await operated(operator)
    assert (told["standalone"], told["clusterwide"]) == (True, True)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param({"api_key": {"authorization": "Bearer t0ken"}}, {"scheme": "Bearer", "token": "t0ken"}, id="token"),
        pytest.param({}, {"scheme": None, "token": None, "insecure": False}, id="nothing"),
        pytest.param({"verify_ssl": False}, {"insecure": True}, id="insecure"),
        pytest.param({"ssl_ca_cert": "/ca", "cert_file": "/c", "key_file": "/k"},
                     {"ca_path": "/ca", "certificate_path": "/c", "private_key_path": "/k"}, id="certificate"),
    ],
)  # fmt: skip
def test_kopf_logs_in_as_we_do(attributes, expected):
    info = connection_info(server(**attributes))
    assert info.server == "https://api.example:6443"
    assert {name: getattr(info, name) for name in expected} == expected
