"""The filters of ListSecrets and ListSecretVersions: AIP-160, as far as Secret Manager documents it.

https://cloud.google.com/secret-manager/docs/filtering and https://google.aip.dev/160: terms are `field=value`,
`field!=value`, `field:value` (contains, or has where the value is `*`) and comparisons of times; they are combined with
AND (or nothing), OR (which binds more tightly), NOT (or `-`) and parentheses.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

Fields = Mapping[str, str]
"""What can be filtered by: `name`, `labels.team`, `state`, `create_time`, … in their textual form."""
Filter = Callable[[Fields], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<paren>[()])|(?P<word>AND|OR|NOT)(?![\w.])|(?P<minus>-)(?=[a-zA-Z(])"
    r"|(?P<field>[A-Za-z][\w.-]*)\s*(?P<op><=|>=|!=|=|:|<|>)\s*(?:\"(?P<quoted>[^\"]*)\"|(?P<value>[^\s()\"]+)))"
)
_COMPARE: Mapping[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class FilterError(ValueError):
    """A filter that cannot be read."""


def parse(text: str) -> Filter:
    """Return what tells whether a resource matches; an empty filter matches everything.

    Raises:
        FilterError: it cannot be read.
    """
    if not text.strip():
        return lambda _: True
    parser = _Parser(text)
    found = parser.conjunction()
    if parser.peek() is not None:
        raise FilterError(f"unexpected {parser.peek()!r}")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0

    def peek(self) -> str | Filter | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def conjunction(self) -> Filter:
        parts = [self._disjunction()]
        while self.peek() not in {None, ")"}:
            self._skip("AND")
            parts.append(self._disjunction())
        return lambda fields: all(part(fields) for part in parts)

    def _disjunction(self) -> Filter:
        parts = [self._term()]
        while self._skip("OR"):
            parts.append(self._term())
        return lambda fields: any(part(fields) for part in parts)

    def _term(self) -> Filter:
        if self._skip("NOT"):
            negated = self._term()
            return lambda fields: not negated(fields)
        if self._skip("("):
            inner = self.conjunction()
            if not self._skip(")"):
                raise FilterError("a parenthesis is not closed")
            return inner
        token = self.peek()
        if token is None or isinstance(token, str):
            raise FilterError(f"a term is missing at {token!r}")
        self._at += 1
        return token

    def _skip(self, expected: str) -> bool:
        if self.peek() != expected:
            return False
        self._at += 1
        return True


def _tokens(text: str) -> list[str | Filter]:
    found: list[str | Filter] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise FilterError(f"cannot read {text[at : at + 20]!r}")
        at = match.end()
        if match["field"]:
            value = match["value"] if match["quoted"] is None else match["quoted"]
            found.append(_comparison(match["field"], match["op"], value))
        else:
            found.append("NOT" if match["minus"] else match["paren"] or match["word"])
    return found


def _comparison(field: str, op: str, value: str) -> Filter:
    def contains(fields: Fields) -> bool:
        held = fields.get(field)
        return held is not None and (value == "*" or value.lower() in held.lower())

    if op == ":":
        return contains
    compare = _COMPARE[op]
    # A field that is missing equals nothing, and so differs from everything.
    return lambda fields: compare(fields[field], value) if field in fields else op == "!="
