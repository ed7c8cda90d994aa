"""A real Prometheus scrapes three real replicas under load: what it can be asked, and what disappears."""

import json
from pathlib import Path

import pytest

from controller_telemetry.testing import OtlpBackend
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS
from secret_manager_controller.testing import prometheus
from secret_manager_controller.testing.replicas import SHARDS, SHORT_SESSIONS, Replicas
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE
from secret_manager_controller.testing.tenants import ENV
from secret_manager_controller.testing.workload import Workload

DASHBOARD = Path(__file__).parents[2] / "helm/secret-manager-controller/files/dashboards/secret-manager-controller.json"
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']}: {target['legendFormat']}")
    for panel in json.loads(DASHBOARD.read_text())["panels"]
    for target in panel["targets"]
]
NOBODY = "http://127.0.0.1:9"  # Traces are recorded, and go nowhere.


class Scraped:
    """Replicas under load, and the Prometheus that scrapes them."""

    def __init__(self, stack, replicas, prometheus, otlp):
        self.stack = stack
        self.replicas = replicas
        self.prometheus = prometheus
        self.otlp = otlp

    def start(self):
        """Start a replica and return it when each has its share and all are scraped."""
        replica = self.replicas.start(
            OTEL_EXPORTER_OTLP_ENDPOINT=NOBODY,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{self.otlp.url}/v1/metrics",
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="http/protobuf",
            OTEL_METRIC_EXPORT_INTERVAL="1000",
        )
        self.stack.wait("its port", lambda: replica.controller.port)
        self.scrape()
        return replica

    def scrape(self):
        ports = {replica.name: replica.controller.port for replica in self.replicas.living()}
        self.prometheus.scrape(ports, namespace=CONTROLLER_NAMESPACE)

    def wait(self, expression, value):
        """Wait until a query has a value; None for no series."""
        self.stack.wait(f"{expression} to be {value}", lambda: self.prometheus.value(expression) == value)

    def objects(self):
        return len(self.stack.get(SECRET_MANAGER_CONFIGS.url())["items"])


@pytest.fixture(scope="module")
def scraped(stack, tool):
    """Run three replicas with objects that change all the time, one that cannot be ready, and Prometheus."""
    stack.delete_leases()
    stack.free_shards(SHARDS)
    workload = Workload(stack, namespaces=12, label="scraped")
    broken = workload.tenants.pop()  # Nothing changes it any more.
    try:
        with (
            Replicas(stack, **SHORT_SESSIONS) as replicas,
            prometheus.running(tool("prometheus")) as asked,
            OtlpBackend() as otlp,
        ):
            scraped = Scraped(stack, replicas, asked, otlp)
            for _ in range(3):
                scraped.start()
            replicas.wait_balanced()
            workload.settle()
            broken.commit({ENV: "no assignment"})
            broken.ready(reason="InvalidDocument")
            with workload.running(every=0.2):
                yield scraped
    finally:
        for tenant in (*workload.tenants, broken):
            tenant.remove()
        stack.delete_leases()
        stack.free_shards(SHARDS)


def test_every_replica_is_scraped(scraped):
    scraped.wait('sum(up{job="controller"})', 3)


def test_the_shards_of_all_replicas_hold_every_object_once(scraped):
    scraped.wait("sum(secret_manager_shard_objects)", scraped.objects())
    scraped.wait("count(secret_manager_shard_objects)", SHARDS)
    scraped.wait("sum(secret_manager_objects_not_ready)", 1)


@pytest.mark.parametrize("expression", QUERIES)
def test_no_panel_of_the_dashboard_is_empty_under_load(scraped, expression):
    chosen = {"$namespace": CONTROLLER_NAMESPACE, "$replica": ".*", "$__rate_interval": "30s"}
    for variable, value in chosen.items():
        expression = expression.replace(variable, value)
    assert scraped.stack.wait(expression, lambda: scraped.prometheus.query(expression))


def test_no_label_names_an_object_or_a_secret(scraped):
    ours = {"shard", "reason", "provider", "operation", "code", "kind", "outcome", "version", "le"}
    targets = {"__name__", "instance", "job", "namespace", "pod"}
    assert scraped.prometheus.labels('{__name__=~"secret_manager_.+"}') == ours | targets


@pytest.mark.parametrize("what", ["reconciliation", "provider_operation"])
def test_a_latency_leads_to_its_trace(scraped, what):
    selector = f"secret_manager_{what}_duration_seconds_bucket"
    found = scraped.stack.wait("an exemplar", lambda: scraped.prometheus.exemplars(selector))
    assert all(len(labels["trace_id"]) == 32 for labels in found)


def test_the_same_series_arrive_by_otlp(scraped, served_families):
    suffixes = {"counter": "_total", "info": "_info"}
    served = {family.name + suffixes.get(family.type, "") for family in served_families}
    switched_on = {"secret_manager_object_ready"}
    scraped.stack.wait("every series", lambda: set(scraped.otlp.metrics) == served - switched_on)


def test_series_of_shards_disappear_from_who_hands_them_over(scraped):
    """A fourth replica gets some of each other's shards, and nobody tells of a shard of somebody else's."""
    scraped.start()
    scraped.replicas.wait_balanced()
    scraped.wait('count(secret_manager_shard_objects{pod="member-4"})', SHARDS / 4)
    for by_shard in ("shard_objects", "shard_queue_depth", "shard_reconcile_duration_seconds_count"):
        scraped.wait(f"max(count by (shard) (secret_manager_{by_shard}))", 1)
    scraped.wait("sum(secret_manager_shard_objects)", scraped.objects())
    scraped.wait("sum(secret_manager_objects_not_ready)", 1)


def test_series_of_a_replica_that_ends_disappear(scraped):
    *others, last = scraped.replicas.living()
    assert last.stop() == 0
    scraped.replicas.wait_balanced(*others)
    scraped.scrape()
    scraped.wait(f'count(secret_manager_shard_objects{{pod="{last.name}"}})', None)
    scraped.wait("sum(secret_manager_shard_objects)", scraped.objects())
