"""Step 1 of a reconcile: from a stored object to its spec, or to a sentence that says what to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from secret_manager_controller.errors import ConfigError, foreign
from secret_manager_controller.model.spec.base import RULE_ERROR, Block
from secret_manager_controller.model.spec.spec import Spec

B = TypeVar("B", bound=Block)

TOLD_FAULTS = 5
"""So many faults are told at once: enough to mend most specs in one go, few enough to read in a condition."""

_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    RULE_ERROR: lambda context: str(context["message"]),
    "missing": lambda _: "is required; set it",
    "enum": lambda context: f"must be {context['expected']}",
    "string_type": lambda _: "must be a string; put what looks like a number or a boolean into quotes",
    "bool_type": lambda _: "must be true or false, without quotes",
    "int_type": lambda _: "must be a whole number, without quotes",
    "model_type": lambda _: "must be an object with fields",
    "mapping_type": lambda _: "must be an object with fields",
    "tuple_type": lambda _: "must be a list",
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
    "string_too_long": lambda context: f"must have at most {context['max_length']} characters",
    "string_too_short": lambda context: f"must have at least {context['min_length']} characters",
    "too_long": lambda context: f"must have at most {context['max_length']} entries",
    "too_short": lambda context: f"must have at least {context['min_length']} entries",
    "greater_than_equal": lambda context: f"must be at least {context['ge']}",
    "less_than_equal": lambda context: f"must be at most {context['le']}",
}
"""What a pydantic error means to people, by its type. None of them repeats the value, which may be a secret."""


class _Object(Block):
    """The part of an object that users write; gives the paths of faults their `spec.`."""

    spec: Spec


def parse_spec(body: Mapping[str, Any]) -> Spec:
    """Read the spec of an object.

    Defaults are filled in as the API server does it, so that an object parses that was stored before a default
    existed, or never was stored. Unknown fields are ignored, and null counts as absent, as it does there.

    Args:
        body: the whole object.

    Raises:
        ConfigError: InvalidSpec; the message names the fields by their paths and says what mends them.
    """
    return read_block(_Object, {"spec": body.get("spec")}).spec


def read_block(model: type[B], document: Mapping[str, Any]) -> B:
    """Read a block as the API server would.

    Raises:
        ConfigError: InvalidSpec; see `parse_spec`.
    """
    try:
        return model.model_validate(_without_nulls(document))
    except ValidationError as error:
        faults = [_told(detail) for detail in error.errors(include_url=False, include_input=False)]
        more = [f"and {len(faults) - TOLD_FAULTS} more"] if len(faults) > TOLD_FAULTS else []
        # What was refused hangs on the cause and may be a secret, so the cause is dropped.
        raise ConfigError("; ".join([*faults[:TOLD_FAULTS], *more])) from None


def _told(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    field = context.get("field")
    path = [*detail["loc"], *([] if field is None else [field])]
    told = _TEXTS.get(detail["type"])
    return f"{_joined(path)} {detail['msg'] if told is None else told(context)}"


def _joined(path: list[int | str]) -> str:
    text = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in path)
    return foreign(text.removeprefix("."))


def _without_nulls(value: Any) -> Any:
    """Return a copy without the nulls in objects, which the API server drops; in a list they are left to be refused."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
