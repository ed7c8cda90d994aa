"""kopf as an informer and nothing more: it lists, watches and reconnects; we remember, queue and reconcile.

Why so little of kopf: its change-detecting handlers, timers, daemons and finalizers patch the objects, and two replicas
whose filters differ patch against each other without end; `on.event` handlers that return nothing write nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import kopf

from secret_manager_controller.kube import GIT_REPOSITORIES, SECRET_MANAGER_CONFIGS, ApiServer, ResourcePath

Body = Mapping[str, Any]


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


class Informer(Protocol):
    """Lists and watches the cluster until told to stop."""

    async def run(self, sink: ChangeSink, *, started: asyncio.Event, stop: asyncio.Event) -> None:
        """Report to `sink` until `stop` is set; `started` is set once the watches are being opened.

        Returning or raising before `stop` is set means that the watch is lost for good: the process should restart.
        """
        ...


class KopfInformer:
    """An informer on `kopf.operator`, with a registry of its own and all of kopf's writing switched off."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    async def run(self, sink: ChangeSink, *, started: asyncio.Event, stop: asyncio.Event) -> None:
        """See `Informer.run`."""
        await kopf.operator(
            registry=self._registry(sink),
            settings=informer_settings(),
            standalone=True,
            clusterwide=True,
            ready_flag=started,
            stop_flag=stop,
        )

    def _registry(self, sink: ChangeSink) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return connection_info(self._server)

        # The handlers return None: kopf would patch any other result into the object's status.
        @kopf.on.event(*_selector(SECRET_MANAGER_CONFIGS), registry=registry)
        async def on_object(type: str | None, body: Body, **_: Any) -> None:  # noqa: A002 - kopf passes it by this name.
            sink.object_deleted(body) if type == "DELETED" else sink.object_seen(body)

        @kopf.on.event(*_selector(GIT_REPOSITORIES), registry=registry)
        async def on_git_repository(type: str | None, body: Body, **_: Any) -> None:  # noqa: A002 - likewise.
            report = sink.source_deleted if type == "DELETED" else sink.source_seen
            report("GitRepository", body)

        return registry


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
