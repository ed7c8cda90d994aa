"""Flattened metadata."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.formats.flat import unflatten
from secret_manager_controller.decrypt.refusal import RefusedError

NAMES = st.sampled_from(["a", "b_c", "mac", "enc", "x1"])
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        st.text(),
        lambda inner: st.dictionaries(NAMES, inner, min_size=1) | st.lists(inner, min_size=1),
        max_leaves=20,
    ),
)


def flatten(node: Any, prefix: str = "") -> dict[str, str]:
    if isinstance(node, str):
        return {prefix: node}
    flat: dict[str, str] = {}
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        kind = "map" if isinstance(node, dict) else "list"
        flat |= flatten(child, f"{prefix}__{kind}_{key}" if prefix else str(key))
    return flat


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_what_is_flattened_comes_back(tree: dict[str, Any]) -> None:
    assert tree == unflatten(flatten(tree))


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"a": "1", "a__map_b": "2"}, "`a__map_b` contradicts"),
        ({"a__map_b": "2", "a": "1"}, "`a` contradicts"),
        ({"a__map_b": "1", "a__list_0": "2"}, "`a__list_0` contradicts"),
        ({"a__list_0": "1", "a__map_b": "2"}, "`a__map_b` contradicts"),
        ({"a__list_1": "1"}, "has gaps"),
        ({"a__list_0": "1", "a__list_2": "1"}, "has gaps"),
        ({"a__list_00": "1"}, "has no list index"),
        ({"a__list_x": "1"}, "has no list index"),
        ({"a__list_99999": "1"}, "has no list index"),
        ({"a__list_-1": "1"}, "has no list index"),
    ],
)
def test_contradictions_are_refused(flat: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        unflatten(flat)


def test_a_name_of_many_steps_is_cut() -> None:
    nested = unflatten({"a" + "__map_b" * 2000: "x"})
    depth = 0
    while isinstance(nested, dict):
        (nested,) = nested.values()  # type: ignore[assignment] # A walk down, to the leaf.
        depth += 1
    assert depth < 40
