"""Each alert asks for series that are served, and has a page that says what to do."""

import re
from pathlib import Path

import pytest
import yaml

from controller_telemetry.export import Tracers
from lease_sharding.member import Member
from lease_sharding.settings import Settings
from secret_manager_controller.controller.cache import ObjectCache
from secret_manager_controller.controller.metrics import Metrics
from secret_manager_controller.controller.queue import WorkQueue
from secret_manager_controller.controller.shard_metrics import ShardCollector
from secret_manager_controller.controller.trace_metrics import TraceCollector

ROOT = Path(__file__).parents[2]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "helm/secret-manager-controller/files/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def served():
    """Return the labels of every series that is served, by its name."""
    member = Member(client=None, settings=Settings(group="g", shards=1), member="m", handler=None)
    metrics = Metrics()
    queue = WorkQueue(clock=lambda: 0.0)
    metrics.registry.register(ShardCollector(member=member, cache=ObjectCache(len), queue=queue))
    metrics.registry.register(TraceCollector(Tracers()))
    return {family.name + ("_total" if family.type == "counter" else "") for family in metrics.registry.collect()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_served_and_has_a_page(served, rule):
    names = set(re.findall(r"secret_manager_\w+", rule["expr"]))
    assert names
    assert names <= served
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor == rule["alert"].lower()
    assert f"## {rule['alert']}\n" in (ROOT / page).read_text()
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_every_page_is_an_alerts():
    pages = set(re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE))
    assert pages == {rule["alert"] for rule in RULES}
