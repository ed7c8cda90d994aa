"""What the blocks of the spec are made of: a frozen base model, rules, and constrained texts.

Every rule stands here once in two languages: CEL, which the API server runs, and Python, which `parse_spec` runs for
objects that never met the API server (`msmctl plan --file`). A test compares the two on a real API server.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

RULE_ERROR = "rule"
"""The type of the pydantic errors that rules raise; their context holds `message` and perhaps `field`."""

T = TypeVar("T")

FromJson = Annotated[T, Strict(False)]
"""A type that JSON spells differently: an enum as its text, a tuple as an array. All else is taken strictly."""


class Why(enum.StrEnum):
    """How the API server introduces a rule's message; it repeats the refused value only for `INVALID`."""

    INVALID = "FieldValueInvalid"
    REQUIRED = "FieldValueRequired"
    FORBIDDEN = "FieldValueForbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One condition on a block or a text; as `Annotated` metadata or in a block's `RULES`.

    Attributes:
        cel: the condition in the API server's language, `self` being the value.
        holds: the same condition in ours.
        message: what is wrong and what mends it, to stand after the field's path.
        why: how the API server introduces the message.
        field: the field of the block that is to blame, as the block spells it; None for the value itself.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    why: Why = Why.INVALID
    field: str | None = None

    @classmethod
    def match(cls, pattern: str, message: str, *, why: Why = Why.INVALID) -> Self:
        """Return a rule for texts that match an RE2 pattern as a whole; says more than the schema's `pattern` does."""
        matched = re.compile(pattern).fullmatch
        return cls(
            cel=f"self.matches(r'^{pattern}$')",
            holds=lambda text: matched(text) is not None,
            message=message,
            why=why,
        )

    @classmethod
    def refuse(cls, pattern: str, message: str) -> Self:
        """Return a rule for texts that must not contain what an RE2 pattern finds."""
        found = re.compile(pattern).search
        return cls(cel=f"!self.matches(r'{pattern}')", holds=lambda text: found(text) is None, message=message)

    def as_schema(self) -> dict[str, Any]:
        """Return the rule as an item of `x-kubernetes-validations`."""
        schema: dict[str, Any] = {"rule": self.cel, "message": self.message}
        if self.why is not Why.INVALID:
            schema["reason"] = str(self.why)
        if self.field is not None:
            schema["fieldPath"] = f".{self.field}"
        return schema

    def check(self, value: T) -> T:
        """Return the value, or raise the error that pydantic reports."""
        if not self.holds(value):
            raise PydanticCustomError(RULE_ERROR, "{message}", {"message": self.message, "field": self.field})
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return add_rules(handler(core), (self,))


def add_rules(schema: dict[str, Any], rules: Iterable[Rule]) -> dict[str, Any]:
    """Return a JSON schema with more rules in it."""
    added = [*schema.get("x-kubernetes-validations", ()), *(rule.as_schema() for rule in rules)]
    return schema | ({"x-kubernetes-validations": added} if added else {})


class Block(BaseModel):
    """One object of the CRD: read strictly, immutable, with rules over its fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="ignore",  # The API server prunes unknown fields; an object from a newer version must still be read.
        frozen=True,
        hide_input_in_errors=True,  # An inline API key must not get into the text of an exception.
        strict=True,
    )

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.RULES:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        definition = handler.resolve_ref_schema(schema)
        definition.update(add_rules(definition, cls.RULES))
        return schema


def text(pattern: str | None = None, *, longest: int, shortest: int = 0) -> StringConstraints:
    """Return limits of a text, in characters; every text that a rule sees needs one for the rule's cost estimate.

    Args:
        pattern: what the whole text matches, in the syntax that RE2 and Rust's regex crate share. Of the shared syntax,
            named classes such as digits are left out: to Rust they are Unicode's.
        longest: most characters.
        shortest: fewest characters.
    """
    return StringConstraints(pattern=pattern, max_length=longest, min_length=shortest or None)


_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
ObjectName = Annotated[str, text(rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$", longest=253)]
NamespaceName = Annotated[str, text(f"^{_DNS_LABEL}$", longest=63)]
# https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data
DataKey = Annotated[str, text("^[-._a-zA-Z0-9]+$", longest=253)]

RelativePath = Annotated[
    str,
    text(r"^[^\\\x00-\x1f\x7f]+$", longest=1024),
    Rule.refuse("^/", "must be relative to the source's root: remove the leading '/'"),
    Rule.refuse(r"(^|/)\.\.(/|$)", "must stay inside the source: remove '..'"),
    Rule.refuse(r"//|/\.(/|$)", "must not have an empty name or '.' inside: write each directory once"),
]
