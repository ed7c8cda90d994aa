"""kopf as an informer and nothing more: it lists, watches and reconnects; we remember, queue and reconcile.

Why so little of kopf: its change-detecting handlers, timers, daemons and finalizers patch the objects, and two replicas
whose filters differ patch against each other without end; `on.event` handlers that return nothing write nothing.

It has a thread and an event loop of its own: when it ends, by itself too, it cancels every task of its loop, and in the
main thread it takes SIGTERM for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

import kopf

from secret_manager_controller.controller.handover import LoopCalls
from secret_manager_controller.controller.heartbeat import Heartbeat
from secret_manager_controller.controller.kinds import Kinds
from secret_manager_controller.kube import (
    NAMESPACES,
    SECRET_MANAGER_CONFIGS,
    SECRET_MANAGER_POLICIES,
    ApiServer,
    ResourcePath,
)

Body = Mapping[str, Any]

END_TIMEOUT = 8.0
"""Seconds that kopf may take to end once its watches have; it waits 5 for stray tasks by itself."""


class ChangeSink(Protocol):
    """Hears of every object that was listed or changed."""

    def object_seen(self, body: Body) -> None:
        """Take note of a SecretManagerConfig as it is now."""
        ...

    def object_deleted(self, body: Body) -> None:
        """Take note that a SecretManagerConfig is gone."""
        ...

    def source_seen(self, kind: str, body: Body) -> None:
        """Take note of a source as it is now."""
        ...

    def source_deleted(self, kind: str, body: Body) -> None:
        """Take note that a source is gone."""
        ...

    def policy_seen(self, body: Body) -> None:
        """Take note of a SecretManagerPolicy as it is now."""
        ...

    def policy_deleted(self, body: Body) -> None:
        """Take note that a SecretManagerPolicy is gone."""
        ...

    def namespace_seen(self, body: Body) -> None:
        """Take note of a Namespace as it is now."""
        ...

    def namespace_deleted(self, body: Body) -> None:
        """Take note that a Namespace is gone."""
        ...


class Informer(Protocol):
    """Lists and watches the cluster until told to stop.

    Attributes:
        heartbeat: of the event loop that watches.
    """

    heartbeat: Heartbeat

    async def run(self, sink: ChangeSink, *, kinds: Kinds, started: asyncio.Event, stop: asyncio.Event) -> None:
        """Report to `sink` until `stop` is set; `started` is set once the watches are being opened.

        Watched are SecretManagerConfigs and sources of these kinds.

        Returning or raising before `stop` is set means that the watch is lost for good: the process should restart.
        """
        ...


class KopfInformer:
    """An informer on `kopf.operator`, with a registry of its own and all of kopf's writing switched off."""

    def __init__(self, server: ApiServer, *, policies: bool) -> None:
        """Make an informer.

        Args:
            server: the API server.
            policies: whether policies and namespaces are watched too, as mode isolated needs it.
        """
        self.heartbeat = Heartbeat("event loop of the watches")
        self._server = server
        self._policies = policies

    async def run(self, sink: ChangeSink, *, kinds: Kinds, started: asyncio.Event, stop: asyncio.Event) -> None:
        """See `Informer.run`; the sink and `started` are called in the caller's loop."""
        operator, here = _OperatorThread(self.heartbeat), LoopCalls(asyncio.get_running_loop()).make
        registry = self._registry(sink, kinds, here)
        ended = asyncio.wrap_future(operator.start(registry, ready=lambda: here(started.set)))
        stopping = asyncio.create_task(stop.wait())
        first: list[asyncio.Future[Any]] = [ended, stopping]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            operator.stop()
            await ended
        finally:
            operator.stop()
            stopping.cancel()

    def _registry(self, sink: ChangeSink, kinds: Kinds, here: Callable[..., None]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return connection_info(self._server)

        # The handlers return None: kopf would patch any other result into the object's status.
        @kopf.on.event(*_selector(SECRET_MANAGER_CONFIGS), registry=registry)
        async def on_object(type: str | None, body: Body, **_: Any) -> None:  # noqa: A002 - kopf passes it by this name.
            here(sink.object_deleted if type == "DELETED" else sink.object_seen, body)

        for kind, path in kinds.items():
            kopf.on.event(*_selector(path), registry=registry, id=f"on-{kind}")(_source_handler(kind, sink, here))

        if self._policies:

            @kopf.on.event(*_selector(SECRET_MANAGER_POLICIES), registry=registry)
            async def on_policy(type: str | None, body: Body, **_: Any) -> None:  # noqa: A002 - likewise.
                here(sink.policy_deleted if type == "DELETED" else sink.policy_seen, body)

            @kopf.on.event(*_selector(NAMESPACES), registry=registry)
            async def on_namespace(type: str | None, body: Body, **_: Any) -> None:  # noqa: A002 - likewise.
                here(sink.namespace_deleted if type == "DELETED" else sink.namespace_seen, body)

        return registry


def _source_handler(kind: str, sink: ChangeSink, here: Callable[..., None]) -> Callable[..., Coroutine[Any, Any, None]]:
    async def on_source(type: str | None, body: Body, **_: Any) -> None:  # noqa: A002 - kopf passes it by this name.
        here(sink.source_deleted if type == "DELETED" else sink.source_seen, kind, body)

    return on_source


class WatchesEnded(Exception):  # noqa: N818 - it tells an event.
    """kopf has ended its watches and hangs in its own end, as it does when one of them ignores that it is cancelled."""


class _OperatorThread:
    """`kopf.operator` in a daemon thread, so that not even a hanging one keeps the process alive."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._wanted = threading.Event()
        self._result: Future[None] = Future()

    def start(self, registry: kopf.OperatorRegistry, *, ready: Callable[[], None]) -> Future[None]:
        """Start the thread; return what is done when the operator has ended."""
        self._result.set_running_or_notify_cancel()  # Who gives up waiting does not cancel it.

        def work() -> None:
            # It would warn at every start that it cannot take the signals, which is one reason for the thread.
            logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
            try:
                asyncio.run(self._operate(registry, ready))
            except BaseException as error:  # noqa: BLE001 - told to who waits.
                self._tell(error)
            self._tell(None)

        threading.Thread(target=work, name="kopf", daemon=True).start()
        return self._result

    def stop(self) -> None:
        """Let it end; more than once is fine."""
        self._wanted.set()
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # It has ended.
                loop.call_soon_threadsafe(self._stop.set)

    async def _operate(self, registry: kopf.OperatorRegistry, ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        if self._wanted.is_set():  # Before there was a loop to be told in.
            self._stop.set()
        opening, ending = asyncio.Event(), asyncio.Event()

        @kopf.on.cleanup(registry=registry)
        async def on_end(**_: Any) -> None:
            ending.set()

        operator = asyncio.ensure_future(
            kopf.operator(
                registry=registry,
                settings=informer_settings(),
                standalone=True,
                clusterwide=True,
                ready_flag=opening,
                stop_flag=self._stop,
            )
        )
        announcing = asyncio.create_task(_announce(opening, ready))
        beating = asyncio.create_task(self._heartbeat.run())
        closing = asyncio.create_task(ending.wait())
        first: list[asyncio.Future[Any]] = [operator, closing]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([operator], timeout=END_TIMEOUT)
        announcing.cancel()
        beating.cancel()
        closing.cancel()
        # It is told from here: if kopf hangs, so does the end of this loop.
        self._tell(operator.exception() if operator.done() else WatchesEnded(f"kopf did not end in {END_TIMEOUT:g} s"))

    def _tell(self, error: BaseException | None) -> None:
        """Tell how it ended; the first time counts."""
        if self._result.done():
            return
        if isinstance(error, asyncio.CancelledError):  # As a result, it would look like a cancellation of the waiter.
            error = WatchesEnded("kopf cancelled the loop that it runs in")
        self._result.set_result(None) if error is None else self._result.set_exception(error)


async def _announce(opening: asyncio.Event, ready: Callable[[], None]) -> None:
    await opening.wait()
    ready()


def informer_settings() -> kopf.OperatorSettings:
    """Return kopf's settings for listing and watching only."""
    settings = kopf.OperatorSettings()
    settings.process.ultimate_exiting_timeout = None  # The process ends by our own bounded stop.
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.queueing.idle_timeout = 0.1  # Workers of quiet objects end soon: 10,000 of them took 120 MB.
    settings.queueing.worker_limit = None
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    return settings


def connection_info(server: ApiServer) -> kopf.ConnectionInfo:
    """Return kopf's form of a login; kopf asks again when the API server answers 401."""
    configuration = server.configuration
    scheme, _, token = (server.authorization() or "").partition(" ")
    return kopf.ConnectionInfo(
        server=server.url,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


def _selector(resource: ResourcePath) -> tuple[str, str, str]:
    return resource.group, resource.version, resource.plural
