"""What rendering is given: a source's files (`sources.tree.SnapshotTree`), and a reader of documents (`decrypt`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from secret_manager_controller.decrypt import Document, Format

ReadDocument = Callable[[bytes, Format, str], Document]
"""Reads one file, SOPS-encrypted or not: its content, its format, and its path for messages."""


class Tree(Protocol):
    """The files of one revision, by paths relative to its root."""

    def read_file(self, path: str) -> bytes | None:
        """Return a regular file's content, or None if there is no such path."""
        ...

    def list_dir(self, path: str) -> Mapping[str, bool] | None:
        """Return the names in a directory in order, each with whether it is a directory; None if there is none."""
        ...
