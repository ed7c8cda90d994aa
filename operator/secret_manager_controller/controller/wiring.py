"""How the parts of the process are put together."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp

from controller_telemetry.export import Tracers, without_ambient_settings
from lease_sharding.assign import shard_of
from lease_sharding.client import ApiServer as LeaseServer
from lease_sharding.client import HttpLeaseClient
from lease_sharding.member import Member
from secret_manager_controller import __version__
from secret_manager_controller.controller.cache import ObjectCache
from secret_manager_controller.controller.copies import ObjectCopies
from secret_manager_controller.controller.dispatch import Dispatcher
from secret_manager_controller.controller.git_logins import GitLogins
from secret_manager_controller.controller.keys import KeyRings
from secret_manager_controller.controller.keywait import KeyWaiters
from secret_manager_controller.controller.kinds import Kinds
from secret_manager_controller.controller.metric_push import pushed
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.object_metrics import ObjectCollector
from secret_manager_controller.controller.owners import ClusterOwners
from secret_manager_controller.controller.ownership import OwnedWork
from secret_manager_controller.controller.policies import PolicyBook, PolicyStatusWriter
from secret_manager_controller.controller.queue import Widths, WorkQueue
from secret_manager_controller.controller.secrets import SecretReader
from secret_manager_controller.controller.settings import Settings
from secret_manager_controller.controller.shard_metrics import ShardCollector
from secret_manager_controller.controller.startup import StartupError, read_cluster
from secret_manager_controller.controller.stores import CachedStores
from secret_manager_controller.controller.sweep import Sweeper
from secret_manager_controller.controller.trace_metrics import TraceCollector
from secret_manager_controller.controller.traces import Environment, ObjectTraces
from secret_manager_controller.controller.watch_progress import WatchProgress
from secret_manager_controller.controller.watched_sources import WatchedSources
from secret_manager_controller.controller.worker import Worker
from secret_manager_controller.decrypt.decryptor import Decryptor
from secret_manager_controller.decrypt.pgp import sweep_gpg_homes
from secret_manager_controller.grants import Mode, Tenancy
from secret_manager_controller.kube import (
    LEASE_GROUP,
    ApiServer,
    KubeClient,
)
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.spec import SourceKind
from secret_manager_controller.providers.budget import SHARED_BUDGETS
from secret_manager_controller.reconcile import NoPolicies, Policies, Reconciler
from secret_manager_controller.render.kustomize import Kustomize, sweep_builds
from secret_manager_controller.render.renderer import Renderer
from secret_manager_controller.render.sandbox import Limits
from secret_manager_controller.sources.argocd import ArgoSource
from secret_manager_controller.sources.cache import SnapshotCache
from secret_manager_controller.sources.flux import FluxSource
from secret_manager_controller.sources.git.private import sweep_private_directories
from secret_manager_controller.sources.git.repositories import GitRepositories
from secret_manager_controller.sources.kinds import SourceOfKind
from secret_manager_controller.unwrapping import DataKeyFinder

LEFT_TO_OTHERS, LEFT_TO_OTHER_KINDS = 4, 8
"""One of so many workers is left to others when the objects of one account, of one kind of store, take long."""
TRACES_END_TIMEOUT = 1.0
"""Seconds that traces may take to be sent at the end; the interpreter takes up to another to free what was not."""


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
    progress: WatchProgress
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
        await asyncio.to_thread(remove_leftovers)
        cache = ObjectCache(functools.partial(shard_of, shards=settings.sharding.shards))
        metrics, copies = Metrics(), ObjectCopies()
        queue = WorkQueue(clock=loop.time, lane_of=cache.lane_of, widths=widths_of(settings.workers))
        reader = SecretReader(kube, clock=loop.time)
        sources = await stack.enter_async_context(opened_sources(settings, kube, kinds, reader))
        telemetry = without_ambient_settings(os.environ)
        traces = stack.enter_context(object_traces(reader, metrics, telemetry))
        work = OwnedWork(cache=cache, queue=queue, metrics=metrics, distrust=sources.distrust, dropped=traces.release)
        member = await stack.enter_async_context(member_of(settings, server, work))
        stores = CachedStores(reader, os.environ, metrics.record_call)
        stack.push_async_callback(stores.aclose)
        keys = KeyRings(reader)
        waiting = KeyWaiters(keys, queue.add)
        owners, policies = ClusterOwners(kube, cluster), book if isolated else NoPolicies()
        reconciler = reconciler_of(
            settings, sources, owners, keys=keys, stores=stores, hash_key=hash_key, policies=policies
        )
        progress = WatchProgress(loop.time)
        dispatcher = Dispatcher(
            cache=cache,
            copies=copies,
            sources=sources.watched,
            policies=book,
            progress=progress,
            queue=queue,
            owns=work.owns,
            gone=functools.partial(gone, metrics=metrics, traces=traces),
        )
        metrics.queue_depth.set_function(lambda: len(queue))
        metrics.registry.register(ShardCollector(member=member, cache=cache, queue=queue))
        told = objects_told(settings, metrics, cache=cache, sources=sources, progress=progress, work=work)
        metrics.registry.register(told)
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
        await stack.enter_async_context(metric_push(metrics, telemetry))
        sweeper = Sweeper(kube, dispatcher, kinds, book if isolated else None)
        statuses = PolicyStatusWriter(kube, book, lambda: cache) if isolated else None
        yield Parts(queue, worker, dispatcher, sweeper, member, work, metrics, kinds, waiting, progress, statuses)


def objects_told(
    settings: Settings,
    metrics: Metrics,
    *,
    cache: ObjectCache,
    sources: Sources,
    progress: WatchProgress,
    work: OwnedWork,
) -> ObjectCollector:
    """Return what tells of this replica's objects."""
    return ObjectCollector(
        reasons=metrics.reasons,
        cache=cache,
        sources=sources.watched,
        progress=progress,
        owns=work.owns,
        per_object=settings.metrics_per_object,
    )


def remove_leftovers() -> None:
    """Remove what a killed predecessor left."""
    for sweep in (sweep_gpg_homes, sweep_builds, sweep_private_directories):
        sweep()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where snapshots come from.

    Attributes:
        watched: the source objects, as the watch shows them.
        repositories: clones of what Applications refer to.
        of_kinds: the source of each kind of object.
    """

    watched: WatchedSources
    repositories: GitRepositories
    of_kinds: SourceOfKind

    def distrust(self) -> None:
        """Ask anew for all that is known."""
        self.watched.distrust()
        self.repositories.distrust()


@asynccontextmanager
async def opened_sources(
    settings: Settings, kube: KubeClient, kinds: Kinds, reader: SecretReader
) -> AsyncIterator[Sources]:
    """Make the sources, and remove what they keep at the end.

    Raises:
        StartupError: the cache's directory cannot be used.
    """
    clock = asyncio.get_running_loop().time
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        try:
            snapshots = SnapshotCache(settings.cache_directory)
            stack.push_async_callback(snapshots.aclose)
            repositories = GitRepositories(settings.cache_directory / "git", clock=clock, refresh=settings.git_refresh)
            stack.push_async_callback(repositories.aclose)
        except (OSError, RuntimeError) as error:
            raise StartupError(f"cannot start: CACHE_DIRECTORY cannot be used: {error}") from error
        watched = WatchedSources(kube, kinds)
        flux = FluxSource(
            read_object=watched.read, session=session, cache=snapshots, allowed_hosts=settings.artifact_hosts
        )
        argo = ArgoSource(
            read_object=watched.read,
            logins=GitLogins(kube, reader, session, clock=clock, now=time.time),
            repositories=repositories,
            cache=snapshots,
        )
        yield Sources(watched, repositories, SourceOfKind({SourceKind.APPLICATION: argo}, default=flux))


def reconciler_of(
    settings: Settings,
    sources: Sources,
    owners: ClusterOwners,
    *,
    keys: KeyRings,
    stores: CachedStores,
    hash_key: HashKey,
    policies: Policies,
) -> Reconciler:
    """Return what drives the stores of all objects towards Git."""
    return Reconciler(
        source=sources.of_kinds,
        keys=keys,
        stores=stores,
        owners=owners,
        renderer=renderer_of(settings, hash_key),
        cluster=owners.cluster,
        tenancy=tenancy_of(settings, os.environ),
        policies=policies,
        data_keys=DataKeyFinder(settings.kms_keys),
    )


def renderer_of(settings: Settings, hash_key: HashKey) -> Renderer:
    """Return what makes keys and values of a snapshot."""
    decryptor = Decryptor(hash_key)
    limits = Limits(seconds=settings.kustomize_timeout, memory=settings.kustomize_memory)
    return Renderer(decryptor, Kustomize(decryptor, binary=settings.kustomize_binary, limits=limits))


@contextmanager
def object_traces(reader: SecretReader, metrics: Metrics, telemetry: Environment) -> Iterator[ObjectTraces]:
    """Make what tells where traces go, and send at the end what is still queued.

    Args:
        reader: reads Secrets.
        metrics: told what becomes of spans.
        telemetry: the controller's `OTEL_*` variables.

    Raises:
        StartupError: an `OTEL_*` variable cannot be used.
    """
    tracers = Tracers()
    agent = {name: os.environ[name] for name in ("DD_AGENT_HOST",) if name in os.environ}
    try:
        traces = ObjectTraces(tracers, reader, {**telemetry, **agent})
    except ValueError as error:
        raise StartupError(f"cannot start: {error}") from error
    metrics.registry.register(TraceCollector(tracers))
    try:
        yield traces
    finally:
        tracers.shutdown(TRACES_END_TIMEOUT)


@asynccontextmanager
async def metric_push(metrics: Metrics, telemetry: Environment) -> AsyncIterator[None]:
    """Send metrics by OTLP too, where the `OTEL_*` variables ask for it.

    Raises:
        StartupError: one of them cannot be used.
    """
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(pushed(metrics.registry, telemetry))
        except ValueError as error:
            raise StartupError(f"cannot start: {error}") from error
        yield


def gone(key: str, *, metrics: Metrics, traces: ObjectTraces) -> None:
    """Forget what is told of an object that does not exist any more."""
    metrics.forget(key)
    traces.release(key)


@asynccontextmanager
async def member_of(settings: Settings, server: ApiServer, work: OwnedWork) -> AsyncIterator[Member]:
    """Make this replica's member of the group, whose Leases are in the controller's namespace."""
    client = HttpLeaseClient(
        LeaseServer(server.url, server.tls(), server.authorization),
        namespace=settings.namespace,
        group=LEASE_GROUP,
        request_timeout=settings.sharding.request_timeout,
        user_agent=f"secret-manager-controller/{__version__}",
    )
    async with client as leases:
        member = Member(client=leases, settings=settings.sharding, member=settings.replica, handler=work)
        SHARED_BUDGETS.share(lambda: live_members(member))
        yield member


def tenancy_of(settings: Settings, environment: Mapping[str, str]) -> Tenancy:
    """Return what is set for all objects; the account of the controller's own role is a part of its ARN."""
    role = environment.get("AWS_ROLE_ARN", "").split(":")
    return Tenancy(
        controller_namespace=settings.namespace,
        mode=settings.tenancy_mode,
        controller_account=role[4] if len(role) > 5 else None,
        git_hosts=settings.git_hosts,
    )


def live_members(member: Member) -> int:
    """Return how many replicas share the stores' quotas, this one among them."""
    return max(sum(row.session is not None for row in member.snapshot().members), 1)


def widths_of(workers: int) -> Widths:
    """Return how many workers one store's account, and one kind of store, may occupy: the others are left some.

    Objects with many logins to a cloud that is down would else occupy all of them until the first requests time out.
    """
    lane, kind = (max(workers - max(workers // share, 1), 1) for share in (LEFT_TO_OTHERS, LEFT_TO_OTHER_KINDS))
    return Widths(lane=lane, kind=kind)
