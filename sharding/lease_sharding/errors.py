"""Everything that can go wrong.

    LeaseShardingError
    ├── SettingsError         durations or names that cannot work; says which, and what would
    ├── ShardCountMismatch    the group's claims were made for another number of shards
    └── ApiError              the API server refused, or did not answer
        └── Conflict          it is not as it was when it was read: written, created or deleted since

`fence.OwnershipLost` is not one of them: it tells an event, not a fault.
"""

from __future__ import annotations

FOREIGN_TEXT_LIMIT = 256  # Enough for a reason; a server's whole answer never reaches a message.


def foreign(text: object) -> str:
    """Return text from outside without control characters, cut to 256 characters."""
    told = "".join(character if character.isprintable() else " " for character in str(text))
    return told if len(told) <= FOREIGN_TEXT_LIMIT else told[: FOREIGN_TEXT_LIMIT - 1] + "…"


class LeaseShardingError(Exception):
    """The root of what this package raises."""


class SettingsError(LeaseShardingError):
    """The settings contradict each other, or one of them is out of range."""


class ShardCountMismatch(LeaseShardingError):  # noqa: N818 - it tells a state of the cluster.
    """Another shard count is in force. Two counts at one time would give one key to two members."""


class ApiError(LeaseShardingError):
    """A call to the API server failed.

    Attributes:
        status: the HTTP status; 0 where no answer came.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def unknown(self) -> bool:
        """Whether a write may have happened all the same, now or a little later."""
        return self.status == 0 or self.status >= 500


class Conflict(ApiError):  # noqa: N818 - what HTTP and Kubernetes call it.
    """A write did not happen, since the Lease is not as it was read."""
