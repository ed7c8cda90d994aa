"""The CRD as a document: structural, complete, and the same as the one in the chart and in the docs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from secret_manager_controller.crd import (
    CONFIG,
    KINDS,
    POLICY,
    as_markdown,
    as_yaml,
    custom_resource_definition,
    open_api_schema,
)
from secret_manager_controller.model.status import Condition, Status

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "secret-manager-controller" / "files" / "crds"
KIND_IDS = list(KINDS)
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KIND_IDS)
DOCS = {CONFIG.name: ROOT / "docs" / "crd.md", POLICY.name: ROOT / "docs" / "policy.md"}

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


@EACH_KIND
def test_the_committed_files_are_what_the_models_say(kind):
    for file, output in ((CHART / f"{kind.plural}.yaml", as_yaml), (DOCS[kind.name], as_markdown)):
        assert file.read_text() == output(kind), f"{file.relative_to(ROOT)} is out of date: run make generate"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ([], as_yaml(CONFIG)),
        (["--docs"], as_markdown(CONFIG)),
        (["SecretManagerPolicy"], as_yaml(POLICY)),
        (["SecretManagerPolicy", "--docs"], as_markdown(POLICY)),
    ],
    ids=["yaml", "docs", "policy yaml", "policy docs"],
)
def test_the_command_prints_it(arguments, output):
    command = [sys.executable, "-m", "secret_manager_controller.crd", *arguments]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == output


@EACH_KIND
def test_the_yaml_is_the_document_and_has_no_anchors(kind):
    assert yaml.safe_load(as_yaml(kind)) == custom_resource_definition(kind)
    assert "&id" not in as_yaml(kind)


@EACH_KIND
def test_the_schema_is_structural_and_every_field_is_described(kind):
    for path, schema in nodes(open_api_schema(kind)):
        assert schema.keys() <= KEYWORDS, path
        assert schema["type"] in {"object", "array", "string", "boolean", "integer"}, path
        if path not in {"apiVersion", "kind", "metadata"} and not path.endswith("[]"):
            assert schema["description"].endswith("."), path


@EACH_KIND
def test_everything_that_a_rule_may_look_at_is_bounded(kind):
    """The API server estimates the cost of a rule from these limits and refuses a CRD whose rules may cost too much."""
    for path, schema in nodes(open_api_schema(kind)["properties"]["spec"]):
        match schema:
            case {"type": "string"} if "enum" not in schema and path != "otel.apiKey":
                assert "maxLength" in schema, path
            case {"type": "array"}:
                assert "maxItems" in schema, path
            case {"additionalProperties": _}:
                assert "maxProperties" in schema, path


@EACH_KIND
def test_every_rule_blames_a_field_that_exists(kind):
    rules = [
        (path, schema, rule)
        for path, schema in nodes(open_api_schema(kind))
        for rule in schema.get("x-kubernetes-validations", ())
    ]
    assert len(rules) >= (30 if kind is CONFIG else 5)
    for path, schema, rule in rules:
        assert rule["message"], path
        if "fieldPath" in rule:
            assert rule["fieldPath"].removeprefix(".") in schema["properties"], path


def test_the_status_that_is_written_is_in_the_schema():
    schema = open_api_schema()["properties"]["status"]["properties"]
    status = Status(conditions=(Condition("Ready", "True", "Reason", "message", 1, "2026-01-02T03:04:05Z"),)).as_json()
    assert status.keys() == schema.keys()
    assert status["conditions"][0].keys() == schema["conditions"]["items"]["properties"].keys()


@EACH_KIND
def test_the_docs_tell_every_field(kind):
    docs = as_markdown(kind)
    for path, _ in nodes(open_api_schema(kind)):
        name = path.rpartition(".")[2].removesuffix("[]")
        if name:
            assert f"`{name}`" in docs or path in {"apiVersion", "kind", "metadata"}, path
