"""The dashboard asks for series that are served; tests/e2e/test_prometheus.py runs its queries."""

import json
import re
from pathlib import Path

import pytest

DASHBOARD = json.loads(
    (
        Path(__file__).parents[2] / "helm/secret-manager-controller/files/dashboards/secret-manager-controller.json"
    ).read_text()
)
SUFFIXES = {"counter": ("_total",), "info": ("_info",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}


@pytest.fixture(scope="module")
def served(served_families):
    return {family.name + suffix for family in served_families for suffix in SUFFIXES[family.type]}


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_is_served_of_the_chosen_replicas(served, panel):
    assert panel["targets"]
    for target in panel["targets"]:
        assert set(re.findall(r"secret_manager_\w+", target["expr"])) <= served
        selectors = re.findall(r"secret_manager_\w+(\{[^}]*\})?", target["expr"])
        assert selectors
        assert set(selectors) == {'{namespace=~"$namespace",pod=~"$replica"}'}


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} <= set(range(24))


def test_it_can_be_narrowed_to_a_namespace_and_a_replica():
    assert [each["name"] for each in DASHBOARD["templating"]["list"]] == ["datasource", "namespace", "replica"]
