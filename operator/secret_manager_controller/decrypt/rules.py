"""Which values of a SOPS file are encrypted, by the file's own rule.

A file has at most one of six rules, and without one `unencrypted_suffix: _unencrypted`; sops 3.13
refuses two (`ToInternal` in stores/stores.go). A rule looks at every key on a value's path, never at
list indices.

The two rules about comments are told by the value's form instead: `ENC[…]` is decrypted, anything
else is not. Comments are not authenticated, so whoever could change a value's form could as well
change the comment; by form, every file that `sops` writes reads the same, however it was reformatted
since. What stands unencrypted is reported as such in either case.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from functools import cache

import re2

from secret_manager_controller.decrypt.refusal import invalid
from secret_manager_controller.errors import foreign

DEFAULT_UNENCRYPTED_SUFFIX = "_unencrypted"

RULE_FIELDS = (
    "unencrypted_suffix",
    "encrypted_suffix",
    "unencrypted_regex",
    "encrypted_regex",
    "unencrypted_comment_regex",
    "encrypted_comment_regex",
)

REGEX_MEMORY = 1 << 20
"""Bytes that RE2 may spend on one expression of a file; sops' own examples need a few hundred."""


class Expectation(enum.Enum):
    """What a rule says of one value."""

    ENCRYPTED = enum.auto()
    READABLE = enum.auto()
    BY_FORM = enum.auto()


class Rule:
    """One file's rule. Verdicts on keys are kept for the life of the object: one file.

    Raises:
        RefusedError: there are several rules, or the expression is not valid RE2.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        given = [(name, fields[name]) for name in RULE_FIELDS if fields.get(name)]
        if len(given) > 1:
            names = " and ".join(name for name, _ in given)
            raise invalid(f"its SOPS metadata has {names}; a file has one such rule")
        self.name, argument = given[0] if given else ("unencrypted_suffix", "")
        self._by_form = self.name.endswith("_comment_regex")
        self._encrypts = self.name.startswith("encrypted_")
        matches = self._matcher(argument or DEFAULT_UNENCRYPTED_SUFFIX)
        self._matches = cache(matches)

    def _matcher(self, argument: str) -> Callable[[str], bool]:
        if self.name.endswith("_suffix"):
            return lambda key: key.endswith(argument)
        options = re2.Options()
        options.max_mem = REGEX_MEMORY
        options.log_errors = False
        options.never_capture = True
        try:
            expression = re2.compile(argument, options)
        except re2.error:
            expression = None
        if expression is None:
            raise invalid(f"`{self.name}` in its SOPS metadata is no RE2 expression: {foreign(argument)}")
        return lambda key: expression.search(key) is not None

    def expects(self, keys: Iterable[str]) -> Expectation:
        """Return what the value under these keys, from the root, has to be."""
        if self._by_form:
            return Expectation.BY_FORM
        encrypted = any(map(self._matches, keys)) is self._encrypts
        return Expectation.ENCRYPTED if encrypted else Expectation.READABLE
