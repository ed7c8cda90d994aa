"""Which revisions were applied, in the order in which they came first: what tells that a source went back.

A revision's name says nothing of its age, and an artifact holds no history. What was applied before something newer is
known to be older, though: a rolled-back branch, a tag that was moved back, a registry that serves an old image.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_HISTORY = 20
"""Revisions that are remembered: a month of daily changes, in 1 KiB of status."""

History = tuple[str, ...]
"""Applied revisions, the one that came first at the front."""


def went_back(history: Sequence[str], *, applied: str | None, revision: str | None) -> bool:
    """Tell whether a revision was applied before the one that is applied now had come."""
    if revision is None or applied is None or revision not in history or applied not in history:
        return False
    return history.index(revision) < history.index(applied)


def remembered(history: History, revision: str | None) -> History:
    """Return the history with a revision that was applied; one that is in it keeps its place."""
    if revision is None or revision in history:
        return history
    return (*history, revision)[-MAX_HISTORY:]
