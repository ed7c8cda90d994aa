"""Each alert asks for series that are served, and has a page that says what to do."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "helm/secret-manager-controller/files/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.fixture(scope="module")
def served(served_families):
    """Return the names of all series but histograms'."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in served_families}


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


CASES = ROOT / "tests/helm/alerts_test.yaml"


@pytest.mark.parametrize("fires", [True, False], ids=["fires", "does not fire"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_case_in_which_it(rule, fires):
    """Without one that it keeps quiet in, an alert that always fires would pass."""
    cases = [case for group in yaml.safe_load(CASES.read_text())["tests"] for case in group["alert_rule_test"]]
    mine = [case for case in cases if case["alertname"] == rule["alert"]]
    assert [case for case in mine if bool(case["exp_alerts"]) is fires]


def test_the_alerts_fire_when_they_should_and_only_then(tool):
    ran = subprocess.run(
        [tool("promtool"), "test", "rules", str(CASES)], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_finds_no_fault_in_the_rules(tool):
    rules = ROOT / "helm/secret-manager-controller/files/alerts.yaml"
    ran = subprocess.run(
        [tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(rules)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
