"""What every source offers: a revision for a reference, and the revision's files for as long as they are read."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.tree import SnapshotTree


class SourceReference(Protocol):
    """The part of `spec.sourceRef` that sources read, with its namespace filled in."""

    @property
    def kind(self) -> str:
        """The source's kind, e.g. `GitRepository`."""
        ...

    @property
    def namespace(self) -> str:
        """The source's namespace."""
        ...

    @property
    def name(self) -> str:
        """The source's name."""
        ...


class Source(Protocol):
    """Where Git content comes from."""

    async def resolve(self, ref: SourceReference) -> Revision:
        """Return the revision that the source publishes now.

        Raises:
            RetryableError: SourceNotFound, SourceNotReady.
            PermanentError: the source publishes what this version cannot read.
        """
        ...

    def fetch(self, revision: Revision) -> AbstractAsyncContextManager[SnapshotTree]:
        """Lease the files of a revision: `async with source.fetch(revision) as tree`.

        The files stay where they are until the block is left, whatever else is fetched meanwhile.

        Raises:
            RetryableError: FetchFailed, DigestMismatch.
            PermanentError: InvalidArchive, FetchFailed.
            AccessDenied: the artifact's host is not an allowed one.
        """
        ...
