"""The CustomResourceDefinitions and their documentation, derived from the models of spec and status.

`make generate` writes them: `python -m secret_manager_controller.crd [KIND] [--docs]`.

What a structural schema may hold is in
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import Field

from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.policy import PolicySpec, PolicyStatus
from secret_manager_controller.model.spec import Spec
from secret_manager_controller.model.spec.base import Block
from secret_manager_controller.model.status_schema import StatusSchema

VERSION = "v1"

Schema = dict[str, Any]
Columns = tuple[dict[str, Any], ...]

_REFERENCE = "#/$defs/"
_RULES = "x-kubernetes-validations"
_WIDTH = 120  # Of a line, as everywhere in this repository.


class SecretManagerConfig(Block):
    """Keeps secrets of a cloud store equal to SOPS-encrypted files in Git."""

    spec: Spec = Field(description="What to keep equal: a directory of encrypted files, and a store.")
    status: StatusSchema | None = Field(
        default=None, description="What the controller found and did; written by it alone."
    )


class SecretManagerPolicy(Block):
    """Lets namespaces refer to what is outside of them, and write to stores, in mode isolated."""

    spec: PolicySpec = Field(description="Whom the policy is for, and what it grants.")
    status: PolicyStatus | None = Field(
        default=None, description="Whom the policy is for now; written by the controller."
    )


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path} | ({"priority": 1} if wide else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of our API group.

    Attributes:
        model: the whole object.
        columns: what `kubectl get` shows, and with `-o wide`.
        example: a manifest, without its apiVersion and kind.
        remark: what else a reader of the documentation should know.
    """

    name: str
    plural: str
    singular: str
    short_name: str
    categories: tuple[str, ...] = ()
    scope: str
    model: type[Block]
    columns: Columns
    example: str
    remark: str


CONFIG = Kind(
    name="SecretManagerConfig",
    plural="secretmanagerconfigs",
    singular="secretmanagerconfig",
    short_name="smc",
    categories=("gitops",),
    scope="Namespaced",
    model=SecretManagerConfig,
    columns=(
        _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        _column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        _column("Source", ".spec.sourceRef.name"),
        _column("Revision", ".status.lastAppliedRevision"),
        _column("Secrets", ".status.secretsSynced", kind="integer"),
        _column("Age", ".metadata.creationTimestamp", kind="date"),
        _column("Environment", ".spec.secrets.environment", wide=True),
        _column("Provider", ".spec.provider.type", wide=True),
        _column("Last Reconcile", ".status.lastReconcileTime", kind="date", wide=True),
        _column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
    ),
    example="""\
metadata:
  name: my-service-secrets
  namespace: my-team
spec:
  sourceRef:
    name: my-repo
    namespace: flux-system
  provider:
    type: aws
    aws:
      region: eu-central-1
  secrets:
    environment: dev
    basePath: microservices""",
    remark="""\
The API server drops unknown fields and refuses wrong ones.""",
)
POLICY = Kind(
    name="SecretManagerPolicy",
    plural="secretmanagerpolicies",
    singular="secretmanagerpolicy",
    short_name="smp",
    scope="Cluster",
    model=SecretManagerPolicy,
    columns=(
        _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        _column("Namespaces", ".status.matchedNamespaces", kind="integer"),
        _column("Objects", ".status.objects", kind="integer"),
        _column("Age", ".metadata.creationTimestamp", kind="date"),
        _column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
    ),
    example="""\
metadata:
  name: team-a
spec:
  namespaces:
    names: [team-a]
  sources:
    - namespace: flux-system
      name: services
      paths: [microservices/team-a]
  stores:
    - aws:
        region: eu-central-1
        roleArns: [arn:aws:iam::123456789012:role/team-a-secrets]
      namePrefixes: [team-a-]""",
    remark="""\
It counts in mode `isolated` only, where whatever is outside of an object's own namespace needs a grant; see
[tenancy](tenancy.md). Policies add up; a change takes effect at once.""",
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (CONFIG, POLICY)}


def custom_resource_definition(kind: Kind = CONFIG) -> dict[str, Any]:
    """Return the CustomResourceDefinition as the API server takes it."""
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.singular,
        "shortNames": [kind.short_name],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names | ({"categories": list(kind.categories)} if kind.categories else {}),
            "scope": kind.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(kind.columns),
                    "schema": {"openAPIV3Schema": open_api_schema(kind)},
                },
            ],
        },
    }


def open_api_schema(kind: Kind = CONFIG) -> Schema:
    """Return the structural schema of a whole object."""
    schema = kind.model.model_json_schema(by_alias=True, mode="validation")
    whole = _structural(schema, schema["$defs"])
    # The API server knows these three itself and adds to them; naming them shows them in `kubectl explain`.
    known = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    return whole | {"properties": known | whole["properties"]}


def _structural(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return a pydantic JSON schema without references, titles and unions with null, its fields in a fixed order."""
    flat = _flattened(schema, definitions)
    for name in ("items", "additionalProperties"):
        if name in flat:
            flat[name] = _structural(flat[name], definitions)
    if "properties" in flat:
        flat["properties"] = {name: _structural(inner, definitions) for name, inner in flat["properties"].items()}
    return {name: flat[name] for name in sorted(flat, key=_place)}


def _flattened(schema: Schema, definitions: Mapping[str, Schema]) -> Schema:
    """Return one level of a schema, with what it refers to in its place; what stands beside a reference wins."""
    inner: Schema = {}
    if (reference := schema.get("$ref")) is not None:
        inner = _flattened(definitions[reference.removeprefix(_REFERENCE)], definitions)
    elif (alternatives := schema.get("anyOf")) is not None:
        inner = _flattened(_not_null(alternatives), definitions)
    left_out = {"$defs", "$ref", "anyOf", "title"} | ({"default"} if schema.get("default") in (None, []) else set())
    return inner | {name: value for name, value in schema.items() if name not in left_out}


def _not_null(alternatives: Sequence[Schema]) -> Schema:
    """Return the one alternative to null: to pydantic an absent field is null; the API server drops nulls by itself."""
    [one] = [alternative for alternative in alternatives if alternative != {"type": "null"}]
    return one


def _place(name: str) -> tuple[int, str]:
    """Return where a keyword stands: short ones that say the most first, then by name, what has depth last."""
    first, last = ("description", "type", "format", "enum", "default"), ("items", "properties", "additionalProperties")
    if name in first:
        return first.index(name) - len(first), name
    return last.index(name) + 1 if name in last else 0, name


class _Dumper(yaml.SafeDumper):
    """Writes every part in full: anchors are valid YAML, but a CRD is also read by people and by other tools."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's signature.
        return True


def command(kind: Kind, *options: str) -> str:
    """Return the command that prints a kind's definition or documentation."""
    which = [] if kind is CONFIG else [kind.name]
    return " ".join(["python -m secret_manager_controller.crd", *which, *options])


def as_yaml(kind: Kind = CONFIG) -> str:
    """Return the CustomResourceDefinition as the chart holds it."""
    document = custom_resource_definition(kind)
    header = f"# Generated by `{command(kind)}`; change the models instead.\n"
    return header + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


def as_markdown(kind: Kind = CONFIG) -> str:
    """Return the reference of all fields, a table a block, each block once."""
    schema = kind.model.model_json_schema(by_alias=True, mode="validation")
    definitions = schema["$defs"]
    paths: dict[str, str] = {}
    for path, name in _walk("", schema, definitions):
        paths.setdefault(name, path)
    sections = [_section(path, definitions[name], definitions, paths) for name, path in paths.items()]
    return "\n\n".join([_docs_header(kind), _columns_table(kind), *sections]) + "\n"


def _docs_header(kind: Kind) -> str:
    scope = "namespaced" if kind.scope == "Namespaced" else "cluster-scoped"
    categories = "".join(f", category `{category}`" for category in kind.categories)
    return f"""\
<!-- Generated by `{command(kind, "--docs")}`; change the models instead. -->

# {kind.name}

`{kind.plural}.{GROUP}/{VERSION}`, {scope}; short name `{kind.short_name}`{categories}.

```yaml
apiVersion: {GROUP}/{VERSION}
kind: {kind.name}
{kind.example}
```

{kind.remark}"""


def _walk(path: str, block: Schema, definitions: Mapping[str, Schema]) -> Iterator[tuple[str, str]]:
    """Yield path and definition of every block below one, outer ones first."""
    for field, schema in block["properties"].items():
        reference, is_list = _reference(schema)
        if reference is None or "properties" not in definitions[reference]:
            continue
        below = f"{path}.{field}".removeprefix(".") + ("[]" if is_list else "")
        yield below, reference
        yield from _walk(below, definitions[reference], definitions)


def _reference(schema: Schema) -> tuple[str | None, bool]:
    """Return the definition that a field refers to, if any, and whether it holds a list of them."""
    if "anyOf" in schema:
        schema = _not_null(schema["anyOf"])
    is_list = "items" in schema
    reference = schema.get("items", schema).get("$ref")
    return (None if reference is None else reference.removeprefix(_REFERENCE)), is_list


def _section(path: str, block: Schema, definitions: Mapping[str, Schema], paths: Mapping[str, str]) -> str:
    required = block.get("required", ())
    rows = [
        (
            f"`{field}`",
            _type_told(schema, definitions, paths),
            "**required**" if field in required else _default_told(schema),
            _flattened(schema, definitions)["description"],
        )
        for field, schema in block["properties"].items()
    ]
    parts = [f"## `{path}`", block["description"], _table(("Field", "Type", "Default", "Meaning"), rows)]
    if rules := [f"- {rule}" for rule in _rules_told(block, definitions)]:
        parts.append("\n".join(["What the API server says of mistakes:", "", *rules]))
    return "\n\n".join(parts)


def _type_told(schema: Schema, definitions: Mapping[str, Schema], paths: Mapping[str, str]) -> str:
    reference, is_list = _reference(schema)
    flat = _flattened(schema, definitions)
    if reference is not None and reference in paths:
        # GitHub's anchor of a heading is its text without punctuation, in lower case.
        anchor = "".join(character for character in paths[reference] if character.isalnum()).lower()
        return f"[{'list of objects' if is_list else 'object'}](#{anchor})" + _limits_told(flat)
    if "enum" in flat:
        return ", ".join(f"`{value}`" for value in flat["enum"])
    if "additionalProperties" in flat:
        return "map of strings" + _limits_told(flat)
    return str(flat.get("format", flat["type"])) + _limits_told(flat)


def _limits_told(flat: Schema) -> str:
    low = flat.get("minimum", flat.get("minItems"))
    high = flat.get("maximum", flat.get("maxItems", flat.get("maxProperties")))
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at most {high}" if high is not None else ""


def _default_told(schema: Schema) -> str:
    default = schema.get("default")
    return "" if default in (None, []) else f"`{json.dumps(default)}`" if isinstance(default, bool) else f"`{default}`"


def _rules_told(block: Schema, definitions: Mapping[str, Schema]) -> Iterator[str]:
    for field, schema in block["properties"].items():
        reference, _ = _reference(schema)
        # The rules of an inner block stand in its own section.
        if reference is None:
            for rule in _flattened(schema, definitions).get(_RULES, ()):
                yield f"`{field}` {rule['message']}."
    for rule in block.get(_RULES, ()):
        field = rule.get("fieldPath", "").removeprefix(".")
        yield f"`{field}` {rule['message']}." if field else f"It {rule['message']}."


def _columns_table(kind: Kind) -> str:
    rows = [
        (column["name"], f"`{column['jsonPath']}`".replace("|", r"\|"), "yes" if "priority" in column else "")
        for column in kind.columns
    ]
    return f"## `kubectl get {kind.short_name}`\n\n" + _table(("Column", "From", "Only with `-o wide`"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a CustomResourceDefinition, or its documentation."""
    parser = argparse.ArgumentParser(prog="python -m secret_manager_controller.crd", description=main.__doc__)
    parser.add_argument("kind", nargs="?", choices=KINDS, default=CONFIG.name, help="the kind; %(default)s by default")
    parser.add_argument("--docs", action="store_true", help="print the documentation of all fields, as Markdown")
    options = parser.parse_args(arguments)
    sys.stdout.write((as_markdown if options.docs else as_yaml)(KINDS[options.kind]))


if __name__ == "__main__":
    main()
