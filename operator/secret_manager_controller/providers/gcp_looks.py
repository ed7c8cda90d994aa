"""Which version each secret has: looked up one by one, since no listing tells it, and not more often than allowed.

A secret's resource does not show its newest version, and its etag does not move with it
(https://cloud.google.com/secret-manager/docs/etags). GetSecretVersion tells it without the value, and is a read, of
which a project has 600 a minute. Where that does not suffice, the versions that were looked up longest ago come first,
and the others are told as they were last seen: a drift is found later then, and nothing is ever written for it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.model.secret import SecretName, Version
from secret_manager_controller.providers.calls import together

PATIENCE = 10.0
"""Seconds that a pass waits for look-ups of versions that were seen before: a change in Git waits for them, too."""
COLD_PATIENCE = 120.0
"""Seconds that it waits for those that never were: then it fails, and the next one goes on where it stopped."""
BELIEVED_FOR = 3600.0
"""Seconds after which a version that was seen is looked up, or the pass fails: so a spent quota shows."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest version of a secret, as it was last seen.

    Attributes:
        number: 0 where there is none.
        enabled: whether its value can be read.
        at: when, by the monotonic clock.
    """

    number: int
    enabled: bool
    at: float

    @property
    def version(self) -> Version | None:
        """The current version, or None where there is no usable one."""
        return Version(str(self.number)) if self.enabled else None


Look = Callable[[SecretName, float], Awaitable[tuple[int, bool]]]
"""Looks up the newest version of a secret, waiting so many seconds for the budget: its number, and whether it is
enabled."""


class VersionLooks:
    """The versions of one provider's secrets.

    Args:
        look: makes one look-up; raises RetryableError (RateLimited) where it is not allowed now.
        clock: seconds that only grow.
    """

    def __init__(self, look: Look, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._seen: dict[SecretName, Seen] = {}

    async def of(self, names: Collection[SecretName]) -> Mapping[SecretName, Seen]:
        """Return the versions of secrets that exist.

        Raises:
            RetryableError: RateLimited: the quota does not allow to look up what has to be.
        """
        began = self._clock()
        ordered = sorted(names, key=lambda name: self._seen[name].at if name in self._seen else -1.0)
        looks = dict(zip(ordered, await together(self._one(name, began) for name in ordered), strict=True))
        # Raised only now, so that the next pass goes on where this one stopped.
        if (refused := next((look for look in looks.values() if isinstance(look, RetryableError)), None)) is not None:
            raise refused
        return {name: look for name, look in looks.items() if isinstance(look, Seen)}

    def note(self, name: SecretName, number: int, *, enabled: bool = True) -> Seen:
        """Remember a version that was written, read or looked up."""
        self._seen[name] = seen = Seen(number, enabled, self._clock())
        return seen

    def number(self, name: SecretName) -> int:
        """Return the newest version's number as it was last seen; 0 where it never was."""
        seen = self._seen.get(name)
        return 0 if seen is None else seen.number

    def forget(self, name: SecretName) -> None:
        """Forget a secret that is gone."""
        self._seen.pop(name, None)

    async def _one(self, name: SecretName, began: float) -> Seen | RetryableError:
        before = self._seen.get(name)
        believed = before is not None and began - before.at < BELIEVED_FOR
        patience = PATIENCE if believed else COLD_PATIENCE
        try:
            number, enabled = await self._look(name, max(0.0, began + patience - self._clock()))
        except RetryableError as error:
            if error.reason is not Reason.RATE_LIMITED:
                raise
            return before if before is not None and believed else error
        return self.note(name, number, enabled=enabled)
