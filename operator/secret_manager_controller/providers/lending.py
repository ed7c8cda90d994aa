"""Lends what several providers use together, such as a connection: made for the first, closed with the last."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """Something that is closed in the end."""

    async def aclose(self) -> None:
        """Release what it holds."""
        ...


T = TypeVar("T", bound=Closable)


class Lender(Generic[T]):
    """What is lent, and to how many. For one event loop at a time."""

    def __init__(self) -> None:
        self._lent: dict[Hashable, tuple[T, int]] = {}

    def enter(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the thing of that key, made now if nobody has it."""
        thing, users = self._lent.get(key) or (make(), 0)
        self._lent[key] = (thing, users + 1)
        return thing

    async def leave(self, key: Hashable) -> None:
        """Give it back; the last one closes it."""
        thing, users = self._lent.pop(key)
        if users > 1:
            self._lent[key] = (thing, users - 1)
        else:
            await thing.aclose()
