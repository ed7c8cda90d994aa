"""One source for all kinds: each reference goes to the source of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.protocol import Source, SourceReference
from secret_manager_controller.sources.tree import SnapshotTree


class SourceOfKind:
    """`Source` that hands on to others.

    Args:
        sources: by kind.
        default: for every other kind.
    """

    def __init__(self, sources: Mapping[str, Source], *, default: Source) -> None:
        self._sources = sources
        self._default = default

    async def resolve(self, ref: SourceReference, *, fresh: bool = False) -> Revision:
        """See `Source.resolve`."""
        return await self._of(ref).resolve(ref, fresh=fresh)

    def fetch(self, ref: SourceReference, revision: Revision) -> AbstractAsyncContextManager[SnapshotTree]:
        """See `Source.fetch`."""
        return self._of(ref).fetch(ref, revision)

    def _of(self, ref: SourceReference) -> Source:
        return self._sources.get(ref.kind, self._default)
