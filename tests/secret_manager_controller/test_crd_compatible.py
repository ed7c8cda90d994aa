"""Objects that an older release took are taken by this one: recorded fields stay, keep their type, and are not demanded."""

import os
from pathlib import Path

import pytest

from secret_manager_controller.crd import KINDS, custom_resource_definition

GOLDEN = Path(__file__).parent / "golden"


def fields(schema, path=""):
    """Yield each field as `path type`, and `path type required` where its parent demands it."""
    required = schema.get("required", ())
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}".removeprefix(".")
        demanded = " required" if name in required else ""
        yield f"{here} {inner.get('type', 'any')}{demanded}"
        yield from fields(inner, here)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from fields(schema[key], f"{path}[]")


def released(kind):
    (version,) = custom_resource_definition(kind)["spec"]["versions"]
    return version["name"], sorted(fields(version["schema"]["openAPIV3Schema"]))


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_what_was_released_is_still_taken(kind):
    """UPDATE_GOLDEN=1 records this release's fields; a line that goes is an incompatible change."""
    version, now = released(kind)
    file = GOLDEN / f"{kind.plural}-{version}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text("\n".join(now) + "\n")
    recorded = file.read_text().splitlines()
    assert len(recorded) > 20
    loosened = {line.removesuffix(" required") for line in now}
    assert [line for line in recorded if line not in now and line not in loosened] == []
    demanded = {line for line in now if line.endswith(" required")}
    known = {line.removesuffix(" required") for line in recorded}
    newly = {
        line for line in demanded - set(recorded) if line.removesuffix(" required") in known or parent_of(line, known)
    }
    assert newly == set()


def parent_of(line, known):
    """Tell whether a field's parent was there before, so that objects of the older release have it without the field."""
    parent = line.partition(" ")[0].rpartition(".")[0]
    return any(each.partition(" ")[0] == parent.removesuffix("[]") for each in known)


def test_a_removed_a_retyped_and_a_newly_demanded_field_are_each_found():
    schema = {"properties": {"spec": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}}}
    assert list(fields(schema)) == ["spec object", "spec.a string required"]
    assert parent_of("spec.b string required", {"spec object"})
    assert not parent_of("spec.new.b string required", {"spec object"})
