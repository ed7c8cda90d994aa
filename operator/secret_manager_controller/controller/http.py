"""The endpoints of METRICS_PORT: /metrics, /healthz and /readyz."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Probe = Callable[[], str | None]
"""Returns None if all is well, else a sentence that says what is not."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serve(
    *, host: str, port: int, registry: CollectorRegistry, healthy: Probe, ready: Probe
) -> AsyncIterator[int]:
    """Serve the endpoints while the context lasts; yields the port, which matters for `port=0`.

    They answer from the controller's own event loop: if that hangs, so do they, and the kubelet restarts the pod.
    """
    app = web.Application()
    app.router.add_get("/metrics", _metrics(registry))
    app.router.add_get("/healthz", _probe(healthy))
    app.router.add_get("/readyz", _probe(ready))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _metrics(registry: CollectorRegistry) -> _Handler:
    async def handler(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    return handler


def _probe(check: Probe) -> _Handler:
    async def handler(_: web.Request) -> web.Response:
        problem = check()
        return web.Response(status=200 if problem is None else 503, text=(problem or "ok") + "\n")

    return handler
