"""SOPS metadata in formats without nesting: `age__list_0__map_enc`.

Source: stores/flatten.go of getsops/sops. `__map_` precedes a key, `__list_` an index.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from secret_manager_controller.decrypt.document import MAX_DEPTH, MAX_NODES
from secret_manager_controller.decrypt.refusal import RefusedError, invalid
from secret_manager_controller.decrypt.scalars import Node
from secret_manager_controller.errors import foreign

_STEP = re.compile(r"__(map|list)_")
_INDEX = re.compile(r"0|[1-9][0-9]{0,3}")


def unflatten(flat: Mapping[str, Node]) -> dict[str, Node]:
    """Return the nested form of flattened metadata.

    Raises:
        RefusedError: a name is malformed, two names contradict each other, or a list has gaps.
    """
    root: dict[str | int, object] = {}
    for name, value in flat.items():
        path = _path(name)
        branch = root
        for step, following in itertools.pairwise(path):
            child = branch.setdefault(step, {})
            if not isinstance(child, dict) or type(next(iter(child), following)) is not type(following):
                raise _contradiction(name)
            branch = child
        if path[-1] in branch:
            raise _contradiction(name)
        branch[path[-1]] = value
    nested = _nested(root)
    assert isinstance(nested, dict)  # The first step of every path is a key.
    return nested


def _contradiction(name: str) -> RefusedError:
    return invalid(f"`{foreign(name)}` contradicts another field of its SOPS metadata")


def _path(name: str) -> list[str | int]:
    first, *rest = _STEP.split(name, maxsplit=MAX_DEPTH)
    path: list[str | int] = [first]
    for kind, step in zip(rest[::2], rest[1::2], strict=True):
        if kind == "map":
            path.append(step)
        elif _INDEX.fullmatch(step) and int(step) < MAX_NODES:
            path.append(int(step))
        else:
            raise invalid(f"`{foreign(name)}` in its SOPS metadata has no list index")
    return path


def _nested(branch: object) -> Node:
    if not isinstance(branch, dict):
        assert branch is None or isinstance(branch, str)
        return branch
    if not isinstance(next(iter(branch), ""), int):
        return {str(key): _nested(value) for key, value in branch.items()}
    if set(branch) != set(range(len(branch))):
        raise invalid("a list in its SOPS metadata has gaps")
    return [_nested(branch[index]) for index in range(len(branch))]
