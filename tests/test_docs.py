"""The documents keep up with the code: every example is applied, every list is complete."""

import re
from pathlib import Path

import pytest
import yaml

from secret_manager_controller.errors import Reason
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.spec import parse_spec

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def manifests():
    """Yield every SecretManagerConfig that a page or an example file shows."""
    sources = {
        str(page.relative_to(ROOT)): re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL) for page in PAGES
    }
    sources |= {str(path.relative_to(ROOT)): [path.read_text()] for path in ROOT.glob("examples/manifests/*.yaml")}
    for place, blocks in sources.items():
        for manifest in (m for block in blocks for m in yaml.safe_load_all(block)):
            if isinstance(manifest, dict) and manifest.get("kind") == "SecretManagerConfig":
                yield pytest.param(manifest, id=f"{place}: {manifest['metadata']['name']}")


MANIFESTS = list(manifests())


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_every_manifest_that_is_shown_is_valid(manifest):
    assert manifest["apiVersion"] == f"{GROUP}/v1"
    assert parse_spec(manifest).secrets.environment


@pytest.mark.real
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_api_server_takes_every_manifest_that_is_shown(manifest, smc_plane):
    namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    path = f"/apis/{GROUP}/v1/namespaces/{namespace}/secretmanagerconfigs/{name}"
    smc_plane.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    query = "?dryRun=All&fieldManager=docs&fieldValidation=Strict"
    status, answer = smc_plane.request(
        "PATCH", path + query, body=manifest, content_type="application/apply-patch+yaml"
    )
    assert status in (200, 201), answer


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_line_in_the_operations_page(reason):
    assert re.search(rf"^\| `{reason}` \| .+ \|", OPERATIONS, re.MULTILINE)


def test_every_metric_has_its_line_in_the_operations_page(served_families):
    told = set(re.findall(r"`(secret_manager_\w+)", OPERATIONS))
    served = set()
    for family in served_families:
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        served.add(family.name + suffix)
    assert served == told


def test_every_setting_has_its_line_in_the_operations_page():
    source = (ROOT / "operator/secret_manager_controller/controller/settings.py").read_text()
    read = set(re.findall(r'env\.get\("([A-Z_]+)"\)|_number\(env, "([A-Z_]+)"', source))
    for name in {first or second for first, second in read}:
        assert f"`{name}`" in OPERATIONS, name


def test_every_test_that_the_security_page_names_exists():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text())
    assert len(named) > 30
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"


def test_every_row_of_the_threat_model_has_a_proof_that_exists():
    page = (ROOT / "docs" / "threat-model.md").read_text()
    rows = re.findall(r"^\| \d+ \|.*$", page, re.MULTILINE)
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        proofs = re.findall(r"`(tests/[\w/.-]+)(?:::(\w+))?`", row.split("|")[4])
        assert proofs, row
        for file, name in proofs:
            assert (ROOT / file).exists(), file
            assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


def test_every_make_target_that_is_mentioned_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = {
        name for page in PAGES for name in re.findall(r"(?:`|^    )make ([a-z0-9-]+)", page.read_text(), re.MULTILINE)
    }
    assert mentioned
    assert mentioned <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_nothing_names_a_host_of_a_registry_or_a_path_of_this_machine():
    for path in (*ROOT.glob("requirements/*"), *ROOT.glob("tools/**/*"), ROOT / "Makefile", ROOT / "pyproject.toml"):
        if path.is_file():
            text = path.read_text(errors="replace")
            assert "--index-url" not in text, path
            assert "--find-links" not in text.replace("--no-emit-find-links", ""), path


CONTROLLER = ROOT / "operator" / "secret_manager_controller"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def modules(directory):
    return {f"{p.name}/" if p.is_dir() else p.name for p in directory.iterdir() if not p.name.startswith("__")}


def test_the_architecture_page_shows_each_package_and_module_of_the_controller_and_no_other():
    told = re.findall(r"^      (\w+(?:/|\.py)) ", ARCHITECTURE, re.MULTILINE)
    assert sorted(told) == sorted(modules(CONTROLLER))


def test_the_architecture_page_shows_where_each_module_of_the_controller_package_belongs():
    _, table = ARCHITECTURE.split("## From an event to a reconcile")
    assert set(re.findall(r"`(\w+\.py)`", table)) - {"errors.py"} == modules(CONTROLLER / "controller")


def test_each_module_that_the_architecture_page_names_with_its_package_exists():
    assert [
        path for path in re.findall(r"`(\w+/\w+(?:\.py)?)`", ARCHITECTURE) if not (CONTROLLER / path).exists()
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_can_be_reached_from_the_readme():
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            ahead += [
                (page.parent / link).resolve() for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
            ]
    assert [str(page.relative_to(ROOT)) for page in {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")} - seen] == []
