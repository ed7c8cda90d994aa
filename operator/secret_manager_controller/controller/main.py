"""The controller process: runs the wired parts, and stops them in order."""

from __future__ import annotations

import asyncio
import functools
import logging
import resource
import signal
import sys
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from controller_telemetry.logs import configure_logging
from lease_sharding.errors import LeaseShardingError
from secret_manager_controller import __version__
from secret_manager_controller.controller.heartbeat import Heartbeat, watched
from secret_manager_controller.controller.http import serve
from secret_manager_controller.controller.informer import Informer, KopfInformer
from secret_manager_controller.controller.queue import QueueClosed
from secret_manager_controller.controller.settings import LONGEST_EFFECT, Settings, SettingsError
from secret_manager_controller.controller.startup import StartupError
from secret_manager_controller.controller.sweep import KindInstalled
from secret_manager_controller.controller.wiring import Parts, wired
from secret_manager_controller.grants import Mode
from secret_manager_controller.kube import (
    ApiServer,
    KubeConfigError,
)

logger = logging.getLogger("secret_manager_controller.controller.main")  # `__main__` when run by -m.

QUIET_LOGGERS = ("kopf", "botocore", "urllib3", "asyncio")
SILENT_LOGGERS = ("opentelemetry",)
"""It tells each batch that is refused with the address; `controller_telemetry.export` tells when that changes."""
KOPF_RECORD_ATTRIBUTES = ("settings", "k8s_ref", "k8s_skip")
"""What kopf hangs on its log records: whole settings, and references that our own fields repeat."""

INFORMER_STOP_TIMEOUT = 5.0
"""Seconds that the watches may take to close; nothing depends on them any more."""


async def run(settings: Settings, server: ApiServer, informer: Informer, stop: asyncio.Event) -> None:
    """Run the controller until `stop` is set, then stop it gracefully.

    Raises:
        StartupError: it cannot start.
        WatchLost: the informer ended by itself; the process should restart.
    """
    asyncio.get_running_loop().set_exception_handler(log_unhandled)
    async with wired(settings, server) as parts, AsyncExitStack() as stack:
        background: list[asyncio.Task[None]] = []
        heartbeat = Heartbeat("event loop")
        stack.enter_context(watched(heartbeat, informer.heartbeat))
        endpoints = serve(
            host=settings.metrics_host,
            port=settings.metrics_port,
            registry=parts.metrics.registry,
            healthy=lambda: unhealthy(parts, informer, background),
            ready=lambda: unready(parts),
        )
        try:
            port = await stack.enter_async_context(endpoints)
        except OSError as error:
            where = f"METRICS_HOST {settings.metrics_host}, METRICS_PORT {settings.metrics_port}"
            raise StartupError(f"cannot start: {where} cannot be listened on: {error.strerror}") from error
        started, informer_stop = asyncio.Event(), asyncio.Event()
        watch = informer.run(parts.dispatcher, kinds=parts.kinds, started=started, stop=informer_stop)
        background.append(asyncio.create_task(watch, name="informer"))
        sweeps = parts.sweeper.run(settings.sweep_interval, started=started)
        background.append(asyncio.create_task(sweeps, name="sweeper"))
        background.append(asyncio.create_task(_take_part(parts), name="membership"))
        background.append(asyncio.create_task(parts.waiting.run(), name="key watch"))
        background.append(asyncio.create_task(heartbeat.run(), name="heartbeat"))
        if parts.policy_statuses is not None:
            statuses = parts.policy_statuses.run(caught_up=parts.sweeper.caught_up)
            background.append(asyncio.create_task(statuses, name="policy-statuses"))
        workers = [asyncio.create_task(_work(parts), name=f"worker-{number}") for number in range(settings.workers)]
        logger.info(
            "Started",
            extra={"version": __version__, "port": port, "workers": settings.workers, "replica": settings.replica},
        )
        install_signal_handlers(stop)
        await _first_of(stop, background)
        failed = None if stop.is_set() else failure_of(*background)
        logger.info("Stopping", extra={"grace_s": settings.shutdown_grace})
        await _hand_over(parts, workers)
        informer_stop.set()
        for task in background[1:]:
            task.cancel()
        await asyncio.wait(background, timeout=INFORMER_STOP_TIMEOUT)
        if failed is not None:
            raise failed


class WatchLost(Exception):  # noqa: N818 - it tells an event.
    """The informer ended although nobody asked it to: e.g. the API server failed for a minute."""


def unhealthy(parts: Parts, informer: Informer, background: Iterable[asyncio.Task[None]]) -> str | None:
    """Return why the process should be restarted, or None if it need not."""
    ended = next((f"the {task.get_name()} has ended" for task in background if task.done()), None)
    return ended or informer.heartbeat.stuck() or parts.progress.stalled()


def unready(parts: Parts) -> str | None:
    """Return why the replica is not ready, or None if it is."""
    if not parts.sweeper.caught_up.is_set():
        return "the first listing is not complete"
    return None if parts.member.session_id is not None else "there is no session: the Leases cannot be written"


async def _take_part(parts: Parts) -> None:
    """Be a member from when the cache has caught up: a shard that is gained is then known whole."""
    await parts.sweeper.caught_up.wait()
    await parts.member.run()


async def _work(parts: Parts) -> None:
    while True:
        try:
            key = await parts.queue.get()
        except QueueClosed:
            return
        try:
            await parts.work.turn(key, functools.partial(parts.worker.process, key))
        finally:
            parts.queue.done(key)


def failure_of(*tasks: asyncio.Task[None]) -> WatchLost:
    """Return what is told of the first task that ended although it should run as long as the process."""
    ended = next(task for task in tasks if task.done())
    error = ended.exception()
    by_itself = f"the {ended.get_name()} ended by itself ({type(error).__name__})"
    tells = isinstance(error, KindInstalled | LeaseShardingError)
    failure = WatchLost(str(error) if tells else by_itself)
    failure.__cause__ = error
    return failure


async def _first_of(stop: asyncio.Event, background: list[asyncio.Task[None]]) -> None:
    """Wait for the stop signal or the end of a task."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()


def install_signal_handlers(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def log_unhandled(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log what nobody awaited by its type: asyncio's own text quotes the exception, and so whatever it holds."""
    error, task = context.get("exception"), context.get("future")
    name = task.get_name() if isinstance(task, asyncio.Task) else None
    logger.error("Unhandled error", extra={"error_type": type(error).__name__, "task": name})


async def _hand_over(parts: Parts, workers: list[asyncio.Task[None]]) -> None:
    """Drain and release every shard, cutting off what takes too long, then end the workers."""
    await parts.member.stop()
    parts.queue.close()
    _, late = await asyncio.wait(workers, timeout=LONGEST_EFFECT)  # What was cut off ends with its request.
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


def main() -> None:
    """Run until SIGTERM or SIGINT; exit code 1 if it cannot start or loses the watch, 2 for a wrong setting."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.exit(_told(error, code=2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # A core dump would hold every key and value.
    configure_logging(settings.log_level, style=settings.log_format, quiet=QUIET_LOGGERS, hidden=KOPF_RECORD_ATTRIBUTES)
    for name in SILENT_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        server = ApiServer.load()
        check_direct(server)
        informer = KopfInformer(server, policies=settings.tenancy_mode is Mode.ISOLATED)
        asyncio.run(run(settings, server, informer, asyncio.Event()))
    except (KubeConfigError, StartupError, WatchLost) as error:
        sys.exit(_told(error, code=1))


def check_direct(server: ApiServer) -> None:
    """Refuse a kubeconfig whose way to the API server the watches could not take.

    Raises:
        KubeConfigError: it names a proxy, or a server name of its own.
    """
    for field, value in (("proxy-url", server.proxy), ("tls-server-name", server.server_name)):
        if value is not None:
            told = "watches reach the API server directly and under its own name"
            raise KubeConfigError(f"the kubeconfig has a {field}, which msmctl alone can use: {told}; remove it")


def _told(error: Exception, *, code: int) -> int:
    sys.stderr.write(f"secret-manager-controller: {error}\n")
    return code


if __name__ == "__main__":
    main()
