"""What a listing showed, found by name and by mark: one object's share takes no longer where others have thousands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Generic, TypeVar

from secret_manager_controller.model.observed import OwnerMark

K = TypeVar("K", bound=str)
T = TypeVar("T")


class Listed(Generic[K, T]):
    """The secrets of one listing, indexed when they are first asked for.

    Args:
        secrets: in any order; of one name, the last counts.
        name_of: tells a secret's name.
        mark_of: tells its mark, None of one without.
    """

    def __init__(
        self,
        secrets: Sequence[T],
        *,
        name_of: Callable[[T], K],
        mark_of: Callable[[T], OwnerMark | None],
    ) -> None:
        self.secrets = secrets
        self._name_of = name_of
        self._mark_of = mark_of

    def of(self, mark: OwnerMark, names: Collection[K]) -> dict[K, T]:
        """Return the secrets that carry a mark, and those of the named ones that were listed."""
        found = {name: self._by_name[name] for name in names if name in self._by_name}
        return found | {name: self._by_name[name] for name in self._by_mark.get(mark, ())}

    @functools.cached_property
    def _by_name(self) -> Mapping[K, T]:
        return {self._name_of(secret): secret for secret in self.secrets}

    @functools.cached_property
    def _by_mark(self) -> Mapping[OwnerMark, Sequence[K]]:
        names: dict[OwnerMark, list[K]] = {}
        for name, secret in self._by_name.items():
            if (mark := self._mark_of(secret)) is not None:
                names.setdefault(mark, []).append(name)
        return names
