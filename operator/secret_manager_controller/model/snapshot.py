"""Revisions and snapshots: one state of a source, by name and as a read-only tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Revision:
    """One state of a source, as the source publishes it.

    Attributes:
        revision: what people call it, e.g. `main@sha1:6f1c…`.
        digest: the artifact's checksum, e.g. `sha256:9b74…`; names the content.
        url: where the artifact is.
    """

    revision: str
    digest: str
    url: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The content of one revision. Everything under `root` was checked: regular files and directories only."""

    revision: Revision
    root: Path
