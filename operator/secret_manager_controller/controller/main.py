"""The controller process: wires the parts, runs them, stops them in order."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from controller_telemetry.export import Tracers, without_ambient_settings
from controller_telemetry.logs import configure_logging
from lease_sharding.assign import shard_of
from lease_sharding.client import ApiServer as LeaseServer
from lease_sharding.client import HttpLeaseClient
from lease_sharding.errors import LeaseShardingError
from lease_sharding.member import Member
from secret_manager_controller import __version__
from secret_manager_controller.controller.cache import ObjectCache
from secret_manager_controller.controller.copies import ObjectCopies
from secret_manager_controller.controller.dispatch import Dispatcher
from secret_manager_controller.controller.git_logins import GitLogins
from secret_manager_controller.controller.http import serve
from secret_manager_controller.controller.informer import Informer, KopfInformer
from secret_manager_controller.controller.keys import KeyRings, load_hash_key
from secret_manager_controller.controller.keywait import KeyWaiters
from secret_manager_controller.controller.kinds import Kinds, served_kinds
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.owners import ClusterOwners
from secret_manager_controller.controller.ownership import OwnedWork
from secret_manager_controller.controller.policies import PolicyBook, PolicyStatusWriter
from secret_manager_controller.controller.queue import QueueClosed, WorkQueue
from secret_manager_controller.controller.secrets import SecretReader
from secret_manager_controller.controller.settings import LONGEST_EFFECT, Settings, SettingsError
from secret_manager_controller.controller.shard_metrics import ShardCollector
from secret_manager_controller.controller.stores import CachedStores
from secret_manager_controller.controller.sweep import KindInstalled, Sweeper
from secret_manager_controller.controller.trace_metrics import TraceCollector
from secret_manager_controller.controller.traces import ObjectTraces
from secret_manager_controller.controller.watched_sources import WatchedSources
from secret_manager_controller.controller.worker import Worker
from secret_manager_controller.decrypt.decryptor import Decryptor
from secret_manager_controller.decrypt.pgp import sweep_gpg_homes
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.kube import (
    LEASE_GROUP,
    NAMESPACES,
    SECRET_MANAGER_CONFIGS,
    SECRET_MANAGER_POLICIES,
    ApiServer,
    KubeClient,
    KubeConfigError,
    KubeError,
    ResourcePath,
)
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.spec import SourceKind
from secret_manager_controller.providers.budget import SHARED_BUDGETS
from secret_manager_controller.reconcile import NoPolicies, Reconciler
from secret_manager_controller.render.kustomize import Kustomize, sweep_builds
from secret_manager_controller.render.renderer import Renderer
from secret_manager_controller.render.sandbox import Limits
from secret_manager_controller.sources.argocd import ArgoSource
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.flux import FluxSource
from secret_manager_controller.sources.git.private import sweep_private_directories
from secret_manager_controller.sources.git.repositories import GitRepositories
from secret_manager_controller.sources.kinds import SourceOfKind
from secret_manager_controller.tenancy import Mode, Tenancy
from secret_manager_controller.unwrapping import DataKeyFinder

logger = logging.getLogger("secret_manager_controller.controller.main")  # `__main__` when run by -m.

QUIET_LOGGERS = ("kopf", "botocore", "urllib3", "asyncio")
SILENT_LOGGERS = ("opentelemetry",)
"""It tells each batch that is refused with the address; `controller_telemetry.export` tells when that changes."""
KOPF_RECORD_ATTRIBUTES = ("settings", "k8s_ref", "k8s_skip")
"""What kopf hangs on its log records: whole settings, and references that our own fields repeat."""

LEFT_TO_OTHERS = 4
"""One of so many workers is left to the objects of other accounts when one account's take long."""
TRACES_END_TIMEOUT = 1.5
"""Seconds that traces may take to be sent at the end; with gRPC's own end it is less than 2."""
INFORMER_STOP_TIMEOUT = 5.0
"""Seconds that the watches may take to close; nothing depends on them any more."""


class StartupError(Exception):
    """The controller cannot start; the message says what to mend."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The wired parts of one process."""

    queue: WorkQueue
    worker: Worker
    dispatcher: Dispatcher
    sweeper: Sweeper
    member: Member
    work: OwnedWork
    metrics: Metrics
    kinds: Kinds
    waiting: KeyWaiters
    policy_statuses: PolicyStatusWriter | None


@asynccontextmanager
async def wired(settings: Settings, server: ApiServer) -> AsyncIterator[Parts]:
    """Make every part, and release what they hold at the end.

    Raises:
        StartupError: the API server refuses what every start needs, or the cache's directory cannot be used.
    """
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(
            KubeClient(server, user_agent=f"secret-manager-controller/{__version__}")
        )
        isolated, book = settings.tenancy_mode is Mode.ISOLATED, PolicyBook(kube)
        cluster, hash_key, kinds = await read_cluster(kube, settings, book)
        for sweep in (sweep_gpg_homes, sweep_builds, sweep_private_directories):  # What a killed predecessor left.
            await asyncio.to_thread(sweep)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        try:
            snapshots = SnapshotCache(settings.cache_directory)
            stack.push_async_callback(snapshots.aclose)
            git_directory = settings.cache_directory / "git"
            repositories = GitRepositories(git_directory, clock=loop.time, refresh=settings.git_refresh)
            stack.push_async_callback(repositories.aclose)
        except (OSError, RuntimeError) as error:
            raise StartupError(f"cannot start: CACHE_DIRECTORY cannot be used: {error}") from error
        shard_of_namespace = functools.partial(shard_of, shards=settings.sharding.shards)
        metrics, cache, copies = Metrics(), ObjectCache(shard_of_namespace), ObjectCopies()
        queue = WorkQueue(clock=loop.time, lane_of=cache.lane_of, lane_width=lane_width(settings.workers))
        sources = WatchedSources(kube, kinds)
        reader = SecretReader(kube, clock=loop.time)
        tenancy, policies = tenancy_of(settings, os.environ), book if isolated else NoPolicies()
        traces = stack.enter_context(object_traces(reader, metrics))

        def distrust() -> None:
            sources.distrust()
            repositories.distrust()

        work = OwnedWork(cache=cache, queue=queue, metrics=metrics, distrust=distrust, dropped=traces.release)
        leases = await stack.enter_async_context(lease_client(settings, server))
        member = Member(client=leases, settings=settings.sharding, member=settings.replica, handler=work)
        SHARED_BUDGETS.share(lambda: live_members(member))
        stores = CachedStores(reader, os.environ, metrics.record_call)
        stack.push_async_callback(stores.aclose)
        keys = KeyRings(reader)
        waiting = KeyWaiters(keys, queue.add)
        decryptor = Decryptor(hash_key)
        flux = FluxSource(
            read_object=sources.read, session=session, cache=snapshots, allowed_hosts=settings.artifact_hosts
        )
        argo = ArgoSource(
            read_object=sources.read,
            logins=GitLogins(kube, reader, session, clock=loop.time, now=time.time),
            repositories=repositories,
            cache=snapshots,
        )
        limits = Limits(seconds=settings.kustomize_timeout, memory=settings.kustomize_memory)
        kustomize = Kustomize(decryptor, binary=settings.kustomize_binary, limits=limits)
        reconciler = Reconciler(
            source=SourceOfKind({SourceKind.APPLICATION: argo}, default=flux),
            keys=keys,
            stores=stores,
            owners=ClusterOwners(kube, cluster),
            renderer=Renderer(decryptor, kustomize),
            cluster=cluster,
            tenancy=tenancy,
            policies=policies,
            data_keys=DataKeyFinder(settings.kms_keys),
        )
        dispatcher = Dispatcher(
            cache=cache,
            copies=copies,
            sources=sources,
            policies=book,
            queue=queue,
            owns=work.owns,
            gone=functools.partial(gone, metrics=metrics, traces=traces),
        )
        metrics.queue_depth.set_function(lambda: len(queue))
        metrics.registry.register(ShardCollector(member=member, cache=cache, queue=queue))
        worker = Worker(
            kube=kube,
            reconciler=reconciler,
            queue=queue,
            copies=copies,
            metrics=metrics,
            traces=traces,
            gone=dispatcher.forget,
            waiting=waiting,
        )
        sweeper = Sweeper(kube, dispatcher, kinds, book if isolated else None)
        statuses = PolicyStatusWriter(kube, book, lambda: cache) if isolated else None
        yield Parts(queue, worker, dispatcher, sweeper, member, work, metrics, kinds, waiting, statuses)


@contextmanager
def object_traces(reader: SecretReader, metrics: Metrics) -> Iterator[ObjectTraces]:
    """Make what tells where traces go, and send at the end what is still queued.

    Raises:
        StartupError: an `OTEL_*` variable cannot be used.
    """
    tracers = Tracers()
    agent = {name: os.environ[name] for name in ("DD_AGENT_HOST",) if name in os.environ}
    try:
        traces = ObjectTraces(tracers, reader, without_ambient_settings(os.environ) | agent)
    except ValueError as error:
        raise StartupError(f"cannot start: {error}") from error
    metrics.registry.register(TraceCollector(tracers))
    try:
        yield traces
    finally:
        tracers.shutdown(TRACES_END_TIMEOUT)


def gone(key: str, *, metrics: Metrics, traces: ObjectTraces) -> None:
    """Forget what is told of an object that does not exist any more."""
    metrics.set_managed(key, 0)
    traces.release(key)


def lease_client(settings: Settings, server: ApiServer) -> HttpLeaseClient:
    """Return the client of the group's Leases, which are in the controller's namespace."""
    return HttpLeaseClient(
        LeaseServer(server.url, server.tls(), server.authorization),
        namespace=settings.namespace,
        group=LEASE_GROUP,
        request_timeout=settings.sharding.request_timeout,
        user_agent=f"secret-manager-controller/{__version__}",
    )


async def run(settings: Settings, server: ApiServer, informer: Informer, stop: asyncio.Event) -> None:
    """Run the controller until `stop` is set, then stop it gracefully.

    Raises:
        StartupError: it cannot start.
        WatchLost: the informer ended by itself; the process should restart.
    """
    asyncio.get_running_loop().set_exception_handler(log_unhandled)
    async with wired(settings, server) as parts, AsyncExitStack() as stack:
        background: list[asyncio.Task[None]] = []
        endpoints = serve(
            host=settings.metrics_host,
            port=settings.metrics_port,
            registry=parts.metrics.registry,
            healthy=lambda: next((f"the {task.get_name()} has ended" for task in background if task.done()), None),
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


async def check_installed(kube: KubeClient, resource: ResourcePath) -> None:
    """Raise `KubeError` if a kind that we work on is not installed: the watch of it would be silent for ever."""
    if await kube.get(f"{resource.url()}?limit=1") is None:
        raise KubeError(404, f"the CustomResourceDefinition {resource.plural}.{resource.group} is not installed")


async def read_cluster(kube: KubeClient, settings: Settings, book: PolicyBook) -> tuple[str, HashKey, Kinds]:
    """Return the cluster's id, its HMAC key and the kinds of sources that it serves; in mode isolated fill the book.

    Raises:
        StartupError: the API server refuses what every start needs.
    """
    try:
        await check_installed(kube, SECRET_MANAGER_CONFIGS)
        if settings.tenancy_mode is Mode.ISOLATED:
            await check_installed(kube, SECRET_MANAGER_POLICIES)
            await book.load()
        cluster = settings.cluster_id or await cluster_id(kube)
        return cluster, await load_hash_key(kube, settings.namespace), await served_kinds(kube)
    except (KubeError, ControllerError) as error:
        raise StartupError(f"cannot start: {error.message}") from error


def tenancy_of(settings: Settings, environment: Mapping[str, str]) -> Tenancy:
    """Return what is set for all objects; the account of the controller's own role is a part of its ARN."""
    role = environment.get("AWS_ROLE_ARN", "").split(":")
    return Tenancy(
        controller_namespace=settings.namespace,
        mode=settings.tenancy_mode,
        controller_account=role[4] if len(role) > 5 else None,
        git_hosts=settings.git_hosts,
    )


async def cluster_id(kube: KubeClient) -> str:
    """Return kube-system's UID, which identifies a cluster for its lifetime."""
    body = await kube.get(NAMESPACES.url(name="kube-system"))
    if body is None:
        raise KubeError(404, "namespace kube-system does not exist; set CLUSTER_ID")
    return str(body["metadata"]["uid"])


def live_members(member: Member) -> int:
    """Return how many replicas share the stores' quotas, this one among them."""
    return max(sum(row.session is not None for row in member.snapshot().members), 1)


def lane_width(workers: int) -> int:
    """Return how many workers one store's account may occupy: the others' objects are left some."""
    return max(workers - max(workers // LEFT_TO_OTHERS, 1), 1)


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
        informer = KopfInformer(server, policies=settings.tenancy_mode is Mode.ISOLATED)
        asyncio.run(run(settings, server, informer, asyncio.Event()))
    except (KubeConfigError, StartupError, WatchLost) as error:
        sys.exit(_told(error, code=1))


def _told(error: Exception, *, code: int) -> int:
    sys.stderr.write(f"secret-manager-controller: {error}\n")
    return code


if __name__ == "__main__":
    main()
