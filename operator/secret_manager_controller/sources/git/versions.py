"""Semantic versions and their ranges, as Argo CD reads them in `targetRevision` (Masterminds/semver, version 3).

No library in Python has that syntax, and the one for npm's takes 2.0.0-rc.1 for less than 2.0.0 where no pre-release
was asked for. What a range without a pre-release never means is a pre-release.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

MAX_RANGE = 256
_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_PRE = r"(?:-(?P<pre>[0-9A-Za-z-]{1,64}(?:\.[0-9A-Za-z-]{1,64}){0,8}))?(?:\+[0-9A-Za-z.-]{1,64})?"
_VERSION = re.compile(rf"v?(?P<major>{_NUMBER})(?:\.(?P<minor>{_NUMBER}))?(?:\.(?P<patch>{_NUMBER}))?{_PRE}")
_PART = rf"(?:{_NUMBER}|[xX*])"
_COMPARATOR = re.compile(
    rf"(?P<operator>=<|=>|<=|>=|!=|~>|[=<>~^]?) *"
    rf"v?(?P<major>{_PART})(?:\.(?P<minor>{_PART}))?(?:\.(?P<patch>{_PART}))?{_PRE}"
)
_HYPHEN = re.compile(r"(\S+) +- +(\S+)")

Parts = tuple[int, ...]


@dataclass(frozen=True)
class Version:
    """A version; `precedence` orders as https://semver.org, 11, says."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    @cached_property
    def precedence(self) -> tuple[object, ...]:
        """What compares as the version does: a release comes after its pre-releases."""
        words = self.pre.split(".") if self.pre else ()
        ordered = tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in words)
        return self.major, self.minor, self.patch, not self.pre, ordered


def parse_version(text: str) -> Version | None:
    """Return the version that a tag names: `v1.2` is 1.2.0; None if it names none."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    return _filled([int(match[part] or 0) for part in ("major", "minor", "patch")], match["pre"] or "")


def newest_in(wanted: str, tags: Iterable[str]) -> str | None:
    """Return the tag with the highest version in a range: `1.2.*`, `~1.2`, `^1`, `>=1 <2`, `1.0 - 1.5`, `1 || 3`.

    None where the text is no range, or no tag is in it.
    """
    matches = _range(wanted) if len(wanted) <= MAX_RANGE else None
    if matches is None:
        return None
    versions = ((version, tag) for tag in tags if (version := parse_version(tag)) is not None)
    found = [(version.precedence, tag) for version, tag in versions if matches(version)]
    return max(found)[1] if found else None


def _range(text: str) -> Callable[[Version], bool] | None:
    alternatives: list[list[Callable[[Version], bool]]] = []
    for alternative in text.split("||"):
        rest = _HYPHEN.sub(r">=\1 <=\2", alternative.strip()).replace(",", " ").strip()
        comparators: list[Callable[[Version], bool]] = []
        while rest:
            match = _COMPARATOR.match(rest)
            if match is None or rest[match.end() : match.end() + 1].strip():
                return None
            comparators.append(_comparator(match))
            rest = rest[match.end() :].strip()
        if not comparators:
            return None
        alternatives.append(comparators)
    return lambda version: any(all(holds(version) for holds in comparators) for comparators in alternatives)


def _comparator(match: re.Match[str]) -> Callable[[Version], bool]:
    given: list[int] = []
    for part in ("major", "minor", "patch"):
        if not (match[part] or "").isdigit():  # Everything behind a wildcard is one.
            break
        given.append(int(match[part]))
    pre = match["pre"] or ""
    low = _filled(given, pre)
    holds = _bounds(match["operator"], tuple(given), low)
    return lambda version: not (version.pre and not pre) and holds(version.precedence)


def _bounds(operator: str, given: Parts, low: Version) -> Callable[[tuple[object, ...]], bool]:
    """Return what the precedence of a version has to be; a version given in part stands for all that it begins."""
    least, whole = low.precedence, len(given) == 3
    behind = _next(given, len(given) - 1)  # The first that does not begin with what is given.

    def below(end: tuple[object, ...] | None) -> Callable[[tuple[object, ...]], bool]:
        return lambda v: v >= least and (end is None or v < end)

    match operator:
        case ">":
            return (lambda v: v > least) if whole else (lambda v: behind is not None and v >= behind)
        case ">=" | "=>":
            return lambda v: v >= least
        case "<":
            return lambda v: v < least
        case "<=" | "=<":
            return (lambda v: v <= least) if whole else (lambda v: behind is None or v < behind)
        case "!=":
            return (lambda v: v != least) if whole else (lambda v: v < least or (behind is not None and v >= behind))
        case "~" | "~>":
            return below(_next(given, min(1, len(given) - 1)))
        case "^":
            return below(_next(given, next((at for at, part in enumerate(given) if part), len(given) - 1)))
        case _:
            return (lambda v: v == least) if whole else below(behind)


def _next(given: Parts, at: int) -> tuple[object, ...] | None:
    """Return the precedence from which on a part is a higher one, its pre-releases left out; None without a part."""
    if at < 0:
        return None
    return _filled((*given[:at], given[at] + 1), "0").precedence


def _filled(given: Sequence[int], pre: str) -> Version:
    major, minor, patch = (*given, 0, 0, 0)[:3]
    return Version(major, minor, patch, pre)
