"""Builds that are asked for at the same time are one: objects that send a directory to several stores share it.

What a build yields is plaintext, so it is kept for a moment only: as long as the objects that a commit has queued
take to come by. It is in memory, in types that do not print; a timer drops it, whether anybody asks or not. A key of
the cache holds the seal of the key ring, so that nobody gets a build without the keys that it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from secret_manager_controller.model.plaintext import Plaintext

KEEP_SECONDS = 10.0
"""A commit's objects are queued at once, and 16 are worked on at a time."""
MAX_KEPT_BYTES = 8 << 20
"""Of plaintext that nobody waits for; what would pass it is not kept."""

Later = Callable[[float, Callable[[], None]], object]


@dataclass(slots=True, eq=False)
class _Build:
    task: asyncio.Task[Plaintext]
    kept: int = 0


class BuildCache:
    """Shares builds by a key that tells everything that decides them. For one event loop.

    Args:
        later: calls a function after so many seconds; the loop's `call_later` by default.
    """

    def __init__(self, later: Later | None = None) -> None:
        self._later = later
        self._builds: dict[bytes, _Build] = {}

    def __len__(self) -> int:
        """Return how many builds are under way or kept."""
        return len(self._builds)

    def __contains__(self, key: bytes) -> bool:
        """Tell whether a build is under way or kept."""
        return key in self._builds

    async def get(self, key: bytes, build: Callable[[], Awaitable[Plaintext]]) -> Plaintext:
        """Return what `build` yields, or what it yielded a moment ago for the same key. Failures are not kept."""
        shared = self._builds.get(key)
        if shared is None:
            shared = self._builds[key] = _Build(asyncio.ensure_future(_run(build)))
            started = shared
            shared.task.add_done_callback(lambda _: self._ended(key, started))
        # Shielded: one of several who wait may be cancelled without the others losing what they wait for.
        return await asyncio.shield(shared.task)

    def clear(self) -> None:
        """Drop what is kept; what is under way ends for those who wait for it."""
        self._builds.clear()

    def _ended(self, key: bytes, build: _Build) -> None:
        task = build.task
        if self._builds.get(key) is not build:
            return
        if task.cancelled() or task.exception() is not None:
            del self._builds[key]
            return
        size = _size(task.result())
        if sum(other.kept for other in self._builds.values()) + size > MAX_KEPT_BYTES:
            del self._builds[key]
            return
        build.kept = size
        later = self._later or asyncio.get_running_loop().call_later
        later(KEEP_SECONDS, lambda: self._drop(key, build))

    def _drop(self, key: bytes, build: _Build) -> None:
        if self._builds.get(key) is build:
            del self._builds[key]


async def _run(build: Callable[[], Awaitable[Plaintext]]) -> Plaintext:
    return await build()


def _size(plaintext: Plaintext) -> int:
    return sum(len(entry.value) for service in plaintext.services for entry in service.entries)
