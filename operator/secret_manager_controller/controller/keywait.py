"""Objects that cannot decrypt, reconciled as soon as the keys that they would use have changed.

Secrets are not watched: that would take the right to read all of them. For who decrypts well a changed key matters at
the next change of a file, which reads it anyway. Who does not is worth a look every few seconds, one for all objects of
a namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from secret_manager_controller.controller.secrets import SECRET_TTL
from secret_manager_controller.errors import ControllerError, Reason
from secret_manager_controller.reconcile import Keys
from secret_manager_controller.request import Progress

LOOK_INTERVAL = SECRET_TTL
"""Seconds between two looks: sooner, what is kept of a Secret would be looked at again."""

_KEY_REASONS = frozenset({Reason.KEY_UNAVAILABLE, Reason.DECRYPTION_FAILED})


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Where an object's keys are looked for, and what was there when it failed."""

    namespaces: tuple[str, ...]
    state: str


class KeyWaiters:
    """Who waits for other keys.

    Args:
        keys: where keys come from.
        queue: takes the request key of an object whose keys have changed.
    """

    def __init__(self, keys: Keys, queue: Callable[[str], None]) -> None:
        self._keys = keys
        self._queue = queue
        self._waiting: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        """Return how many objects wait."""
        return len(self._waiting)

    def note(self, key: str, problem: ControllerError | None, progress: Progress) -> None:
        """Take note of how an object's reconcile ended: whether other keys could help it."""
        if problem is None or problem.reason not in _KEY_REASONS or not progress.key_namespaces:
            self._waiting.pop(key, None)
            return
        state = progress.keys.id if progress.keys is not None else problem.message
        self._waiting[key] = _Waiting(progress.key_namespaces, state)

    def forget(self, key: str) -> None:
        """Forget an object that is gone."""
        self._waiting.pop(key, None)

    async def look(self) -> None:
        """Queue every object whose keys are others than when it failed; it is noted anew if it fails again."""
        states: dict[tuple[str, ...], str] = {}
        for key, waiting in list(self._waiting.items()):
            if waiting.namespaces not in states:
                states[waiting.namespaces] = await self._state(waiting.namespaces)
            state = states[waiting.namespaces]
            if state != waiting.state and self._waiting.pop(key, None) is not None:
                self._queue(key)

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            await self.look()

    async def _state(self, namespaces: tuple[str, ...]) -> str:
        try:
            return (await self._keys.find(namespaces)).id
        except ControllerError as error:
            return error.message
