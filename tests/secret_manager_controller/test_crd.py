"""The CRD as a document: structural, complete, and the same as the one in the chart and in the docs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from secret_manager_controller.crd import as_markdown, as_yaml, custom_resource_definition, open_api_schema
from secret_manager_controller.model.status import Condition, Status

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "secret-manager-controller" / "crds" / "secretmanagerconfigs.yaml"
DOCS = ROOT / "docs" / "crd.md"

# What JSONSchemaProps of apiextensions v1 has, as far as we use it.
KEYWORDS = {
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
}


def nodes(schema, path=""):
    """Yield the path and the schema of every field, outer ones first."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}".removeprefix("."))
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from nodes(schema[name], f"{path}[]")


@pytest.mark.parametrize(
    ("file", "arguments", "output"), [(CHART, [], as_yaml), (DOCS, ["--docs"], as_markdown)], ids=["chart", "docs"]
)
def test_the_committed_file_is_what_the_models_say(file, arguments, output):
    command = " ".join(["python -m secret_manager_controller.crd", *arguments])
    assert file.read_text() == output(), f"out of date: run {command} > {file.relative_to(ROOT)}"


@pytest.mark.parametrize(("arguments", "output"), [([], as_yaml), (["--docs"], as_markdown)], ids=["yaml", "docs"])
def test_the_command_prints_it(arguments, output):
    command = [sys.executable, "-m", "secret_manager_controller.crd", *arguments]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == output()


def test_the_yaml_is_the_document_and_has_no_anchors():
    assert yaml.safe_load(as_yaml()) == custom_resource_definition()
    assert "&id" not in as_yaml()


def test_the_schema_is_structural_and_every_field_is_described():
    for path, schema in nodes(open_api_schema()):
        assert schema.keys() <= KEYWORDS, path
        assert schema["type"] in {"object", "array", "string", "boolean", "integer"}, path
        if path not in {"apiVersion", "kind", "metadata"} and not path.endswith("[]"):
            assert schema["description"].endswith("."), path


def test_everything_that_a_rule_may_look_at_is_bounded():
    """The API server estimates the cost of a rule from these limits and refuses a CRD whose rules may cost too much."""
    for path, schema in nodes(open_api_schema()["properties"]["spec"]):
        match schema:
            case {"type": "string"} if "enum" not in schema and path != "otel.apiKey":
                assert "maxLength" in schema, path
            case {"type": "array"}:
                assert "maxItems" in schema, path
            case {"additionalProperties": _}:
                assert "maxProperties" in schema, path


def test_every_rule_blames_a_field_that_exists():
    rules = [
        (path, schema, rule)
        for path, schema in nodes(open_api_schema())
        for rule in schema.get("x-kubernetes-validations", ())
    ]
    assert len(rules) > 30
    for path, schema, rule in rules:
        assert rule["message"], path
        if "fieldPath" in rule:
            assert rule["fieldPath"].removeprefix(".") in schema["properties"], path


def test_the_status_that_is_written_is_in_the_schema():
    schema = open_api_schema()["properties"]["status"]["properties"]
    status = Status(conditions=(Condition("Ready", "True", "Reason", "message", 1, "2026-01-02T03:04:05Z"),)).as_json()
    assert status.keys() == schema.keys()
    assert status["conditions"][0].keys() == schema["conditions"]["items"]["properties"].keys()


def test_the_docs_tell_every_field():
    docs = as_markdown()
    for path, _ in nodes(open_api_schema()):
        name = path.rpartition(".")[2].removesuffix("[]")
        if name:
            assert f"`{name}`" in docs or path in {"apiVersion", "kind", "metadata"}, path
