"""From `targetRevision` to a commit, by the refs that a repository has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.sources.git.versions import newest_in

Refs = Mapping[str, str]
"""Commits by ref, as `git ls-remote` tells them: `HEAD`, `refs/heads/main`, `refs/tags/v1`, with tags peeled."""

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ABBREVIATED = re.compile(r"[0-9a-f]{7,39}")
MAX_TARGET = 256


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit and what it was found by: a branch's or tag's name, HEAD, or nothing but itself."""

    id: str
    name: str = ""

    def __str__(self) -> str:
        algorithm = "sha1" if len(self.id) == 40 else "sha256"
        return f"{self.name}{'@' if self.name else ''}{algorithm}:{self.id}"


def full_commit(target: str) -> Commit | None:
    """Return the commit that a target names in full, which needs no refs."""
    return Commit(target.lower()) if COMMIT.fullmatch(target.lower()) else None


def find_commit(target: str, refs: Refs, *, of: str) -> Commit:
    """Return the commit of a target: HEAD, a branch, a tag, a ref's full name or a range of semantic versions.

    A branch wins over a tag of its name, and both over a range, as in Argo CD.

    Raises:
        PermanentError: RevisionNotFound, SourceUnsupported for an abbreviated commit.
    """
    for ref in (target, f"refs/heads/{target}", f"refs/tags/{target}"):
        if ref in refs and (ref == "HEAD" or ref.startswith("refs/")):
            return Commit(refs[ref], ref.removeprefix("refs/heads/").removeprefix("refs/tags/"))
    tags = (ref.removeprefix("refs/tags/") for ref in refs if ref.startswith("refs/tags/"))
    if (tag := newest_in(target, tags)) is not None:
        return Commit(refs[f"refs/tags/{tag}"], tag)
    shown = foreign(target)
    if _ABBREVIATED.fullmatch(target):
        message = f"{of} has targetRevision {shown!r}, an abbreviated commit; give all of its 40 digits"
        raise PermanentError(Reason.SOURCE_UNSUPPORTED, message)
    message = (
        f"{of} has targetRevision {shown!r}, which is no branch, tag or matching version of its repository now; "
        "nothing is changed in the store until it is there again or targetRevision is corrected"
    )
    raise PermanentError(Reason.REVISION_NOT_FOUND, message)
