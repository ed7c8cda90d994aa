"""The controller's metrics, under the names that the older implementation documented and the provider-neutral ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

from controller_telemetry.spans import trace_id
from secret_manager_controller import __version__

RECONCILE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds: a store call takes 5 ms to the 10 s of its time-out."""


class Metrics:
    """All series of one process, in a registry of its own. No label carries an object's or a secret's name."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # It has no types; the series would double all others.
        self.registry = CollectorRegistry()
        operation = ("provider", "operation", "code")
        self.reconciliations = Counter(
            "secret_manager_reconciliations", "Reconciliations, whatever their outcome.", registry=self.registry
        )
        self.reconciliation_errors = Counter(
            "secret_manager_reconciliation_errors",
            "Reconciliations that left an object not ready.",
            ["reason"],
            registry=self.registry,
        )
        self.reconciliation_duration = Histogram(
            "secret_manager_reconciliation_duration_seconds",
            "How long a reconciliation took.",
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.secrets_synced = Counter(
            "secret_manager_secrets_synced", "Secrets found or made equal to Git.", registry=self.registry
        )
        self.secrets_updated = Counter(
            "secret_manager_secrets_updated", "Secrets overwritten from Git.", registry=self.registry
        )
        self.secrets_managed = Gauge(
            "secret_manager_secrets_managed", "Secrets being managed now.", registry=self.registry
        )
        self.provider_operations = Counter(
            "secret_manager_provider_operations", "Requests to a store.", operation, registry=self.registry
        )
        self.provider_operation_duration = Histogram(
            "secret_manager_provider_operation_duration_seconds",
            "How long a request to a store took.",
            operation,
            buckets=CALL_BUCKETS,
            registry=self.registry,
        )
        self.gcp_operations = Counter(
            "secret_manager_gcp_operations", "Requests to Google Secret Manager.", registry=self.registry
        )
        self.gcp_operation_duration = Histogram(
            "secret_manager_gcp_operation_duration_seconds",
            "How long a request to Google Secret Manager took.",
            buckets=CALL_BUCKETS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "secret_manager_queue_depth", "Objects that wait to be reconciled now.", registry=self.registry
        )
        self.shard_reconcile_duration = Histogram(
            "secret_manager_shard_reconcile_duration_seconds",
            "How long the reconciliations of a shard took that this replica owns.",
            ["shard"],
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        Info("secret_manager_build", "The version that runs.", registry=self.registry).info({"version": __version__})
        self.drift_repaired = Counter(
            "secret_manager_drift_repaired",
            "Secrets written although neither Git nor the object had changed.",
            registry=self.registry,
        )
        self.reasons: dict[str, str] = {}
        """The reason of the Ready condition of each object that was reconciled here."""
        self._managed: dict[str, int] = {}

    def record_call(self, provider: str, operation: str, code: str, seconds: float) -> None:
        """Count one request to a store."""
        self.provider_operations.labels(provider, operation, code).inc()
        exemplar = exemplar_of(trace_id())
        self.provider_operation_duration.labels(provider, operation, code).observe(seconds, exemplar)
        if provider == "gcp":
            self.gcp_operations.inc()
            self.gcp_operation_duration.observe(seconds, exemplar)

    def set_managed(self, key: str, secrets: int) -> None:
        """Note how many secrets an object manages; 0 forgets the object."""
        self.secrets_managed.inc(secrets - self._managed.pop(key, 0))
        if secrets:
            self._managed[key] = secrets

    def forget(self, key: str) -> None:
        """Forget an object that is gone or not worked on here any more."""
        self.set_managed(key, 0)
        self.reasons.pop(key, None)

    def forget_shard(self, shard: int, keys: Iterable[str]) -> None:
        """Drop the series of a shard that is lost, and what its objects added to others."""
        for key in keys:
            self.forget(key)
        with contextlib.suppress(KeyError):  # Nothing was reconciled there.
            self.shard_reconcile_duration.remove(str(shard))


def exemplar_of(trace: str | None) -> dict[str, str] | None:
    """Return what leads from a sample to its trace, where one is recorded; only OpenMetrics tells it."""
    return None if trace is None else {"trace_id": trace}
