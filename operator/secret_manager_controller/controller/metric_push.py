"""Metrics by OTLP, where the standard variables ask for it: the registry that /metrics serves is read now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry

from controller_telemetry.metric_export import MetricPusher
from secret_manager_controller.controller.traces import Environment, Signal, default_settings

DEFAULT_INTERVAL: Final = 60_000
"""Milliseconds. https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/"""
LEAST_INTERVAL: Final = 1_000
END_TIMEOUT: Final = 0.5
"""Seconds for the last reading; what traces may take comes on top, and both together are less than 2."""


@asynccontextmanager
async def pushed(registry: CollectorRegistry, environment: Environment) -> AsyncIterator[None]:
    """Send the registry's series while the context lasts, and once at its end.

    They are sent where `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` says, or to the endpoint of everything if
    `OTEL_METRICS_EXPORTER` is `otlp`: that one may be a backend of traces alone.

    Raises:
        ValueError: a variable holds what cannot be used.
    """
    interval = interval_of(environment)
    wanted = environment.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") or environment.get("OTEL_METRICS_EXPORTER")
    settings = default_settings(environment, Signal.METRICS) if wanted else None
    if settings is None:
        yield
        return
    pusher = MetricPusher(settings.destination, dict(settings.resource))
    # On this loop, which changes what the collectors read.
    pushing = asyncio.create_task(_push(pusher, registry, interval), name="metrics-push")
    try:
        yield
    finally:
        pushing.cancel()
        pusher.push(registry.collect())
        await asyncio.to_thread(pusher.shutdown, END_TIMEOUT)


def interval_of(environment: Environment) -> float:
    """Return the seconds between two readings.

    Raises:
        ValueError: `OTEL_METRIC_EXPORT_INTERVAL` is no such number.
    """
    raw = environment.get("OTEL_METRIC_EXPORT_INTERVAL") or str(DEFAULT_INTERVAL)
    if not raw.isdecimal() or int(raw) < LEAST_INTERVAL:
        raise ValueError(f"OTEL_METRIC_EXPORT_INTERVAL={raw!r}: expected milliseconds, {LEAST_INTERVAL} at least")
    return int(raw) / 1000


async def _push(pusher: MetricPusher, registry: CollectorRegistry, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        pusher.push(registry.collect())
