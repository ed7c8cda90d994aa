"""What every source offers: a revision for a reference, and the revision's files for as long as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from secret_manager_controller.errors import RetryableError
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.tree import SnapshotTree


class SecretReference(Protocol):
    """A Secret that may be read."""

    @property
    def namespace(self) -> str:
        """The Secret's namespace."""
        ...

    @property
    def name(self) -> str:
        """The Secret's name."""
        ...


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

    @property
    def require_verified(self) -> bool:
        """Whether only a revision will do whose signature the source has verified."""
        ...

    @property
    def artifact_hosts(self) -> tuple[str, ...]:
        """Hosts that its files may be fetched from beside the controller's own."""
        ...

    @property
    def git_hosts(self) -> tuple[str, ...] | None:
        """Hosts that an Application's repository may be on; None for any."""
        ...

    @property
    def source_name(self) -> str | None:
        """Which of an Application's sources to read."""
        ...

    @property
    def git_credentials(self) -> SecretReference | None:
        """The Secret with the login to an Application's repository, if not Argo CD's own."""
        ...


class ReadObject(Protocol):
    """Reads a source's object."""

    async def __call__(self, reference: SourceReference, *, fresh: bool = False) -> Mapping[str, Any] | None:
        """Return the object, or None if there is none; `fresh` as the API server has it now."""
        ...


class RevisionReplaced(RetryableError):  # noqa: N818 - it tells what happened.
    """What was to be fetched is not there any more, or is not what was published: the source may have a newer one."""


class Source(Protocol):
    """Where Git content comes from."""

    async def resolve(self, ref: SourceReference, *, fresh: bool = False) -> Revision:
        """Return the revision that the source publishes now.

        Args:
            ref: which source.
            fresh: ask the source itself, not what is remembered of it.

        Raises:
            RetryableError: SourceNotFound, SourceNotReady.
            PermanentError: the source publishes what this version cannot read; SourceNotVerified.
            AccessDenied: its repository's host is not an allowed one.
        """
        ...

    def fetch(self, ref: SourceReference, revision: Revision) -> AbstractAsyncContextManager[SnapshotTree]:
        """Lease the files of a revision that `ref` was resolved to: `async with source.fetch(ref, revision) as tree`.

        The files stay where they are until the block is left, whatever else is fetched meanwhile.

        Raises:
            RevisionReplaced: FetchFailed or DigestMismatch; resolving it afresh may give another revision.
            RetryableError: FetchFailed.
            PermanentError: InvalidArchive, FetchFailed.
            AccessDenied: the artifact's host is not an allowed one.
        """
        ...
