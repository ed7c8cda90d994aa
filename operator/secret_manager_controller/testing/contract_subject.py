"""What the provider contract needs of the provider and of its store; see `contract`."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import pytest

from lease_sharding.fence import Fence, OwnershipLost, SoleMemberFence
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import OwnerMark, RemoteSecret
from secret_manager_controller.model.secret import SecretName, SecretValue, Version, hash_ciphertext
from secret_manager_controller.providers.protocol import Provider

ME = OwnerMark("cluster-a", "team-a/app")
NEIGHBOUR = OwnerMark("cluster-a", "team-a/app-2")
"""Another owner, whose name begins with ours."""
STRANGER = OwnerMark("cluster-b", "team-a/app")
"""Our namesake in another cluster."""
REVISION = "main@sha1:" + "6f1c" * 10

LABEL, DECLARED = "team", "blue"
"""What `Subject.declaring` declares of every secret."""

MANY_ATTEMPTS = 10  # More than any provider makes of one request.

VALUES = {
    "one byte": b"x",
    "text": b"s3cr3t",
    "several lines, the last without an end": b"a\r\nb\nc",
    "surrounding blanks": b"  s3cr3t \n",
    "a byte order mark": b"\xef\xbb\xbfs3cr3t",
    "umlauts and emoji": "grün🔑".encode(),
    "JSON": b'{"user": "a", "password": "\\u0000"}',
}
BINARY_VALUES = {"not UTF-8": bytes(range(256)), "a zero byte": b"a\0b"}


class Lacks(enum.Enum):
    """What a store may be unable to do."""

    BINARY = enum.auto()
    """Hold a value that is not text."""
    RECOVERY = enum.auto()
    """Restore a secret that was deleted."""
    EMPTY = enum.auto()
    """Hold a secret without a version."""
    COMPARE_AND_SWAP = enum.auto()
    """Refuse a write over a version that is not current any more."""
    FAULTS = enum.auto()
    """Fail on demand: a real cloud."""


class StoreControl(Protocol):
    """What the suite does to the store behind the provider's back."""

    def values(self) -> Mapping[str, bytes]:
        """Return the current value of each usable secret."""
        ...

    def versions(self, name: str) -> int:
        """Return how many versions a secret has."""
        ...

    def mark(self, name: str) -> OwnerMark | None:
        """Return a secret's owner mark."""
        ...

    def labels(self, name: str) -> Mapping[str, str]:
        """Return a secret's labels or tags."""
        ...

    def set_label(self, name: str, key: str, value: str) -> None:
        """Write one of them as a person would, on the version that is current."""
        ...

    def put_by_hand(self, name: str, value: bytes, *, mark: OwnerMark | None = None) -> object:
        """Write a value as a person would, with a mark where the secret is new."""
        ...

    def create_empty(self, name: str, *, mark: OwnerMark | None = None) -> None:
        """Create a secret without a version."""
        ...

    def schedule_deletion(self, name: str) -> None:
        """Delete a secret so that it can be restored."""
        ...

    def destroy(self, name: str) -> None:
        """Delete a secret for good."""
        ...

    def writes(self) -> Sequence[object]:
        """Return the requests for a change that arrived, in order."""
        ...

    def fail_requests(self, request: str, *, times: int, commit: bool) -> None:
        """Answer the next requests with an error that passes; with `commit`, after carrying them out."""
        ...

    def clear_faults(self) -> None:
        """Let nothing go wrong any more."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tested.

    Attributes:
        provider: with short waits between attempts.
        store: the store that it writes to.
        requests: for create, update, adopt and delete the requests for a change that one call makes, in order.
        largest: most bytes of a value.
        page: most secrets that the store lists at once.
        lacks: what the store cannot do.
        declaring: a provider for the same store whose object declares the label or tag `LABEL`; None where a provider
            knows no options.
    """

    provider: Provider
    store: StoreControl
    requests: Mapping[str, Sequence[str]]
    largest: int = 65_536
    page: int = 100
    lacks: frozenset[Lacks] = frozenset()
    declaring: Provider | None = None

    def optioned(self) -> Subject:
        """Return the same with the provider that declares a label; skip the case where there is none."""
        if self.declaring is None:
            pytest.skip("this provider knows no options")
        return replace(self, provider=self.declaring)

    def needs(self, *capabilities: Lacks) -> None:
        """Skip the case where the store lacks one of the capabilities."""
        for capability in self.lacks.intersection(capabilities):
            pytest.skip(f"this store lacks {capability.name}")

    async def look(self, name: str) -> RemoteSecret:
        """Return a secret as the provider sees it."""
        observed = await self.provider.observe([SecretName(name)], mark=ME)
        return observed.secrets[SecretName(name)]

    async def write(self, name: str, value: bytes, *, current: RemoteSecret | None = None) -> Version:
        """Create or update a secret of ours."""
        secret, fence = desired(name, value), SoleMemberFence()
        if current is None:
            return await self.provider.create(secret, mark=ME, revision=REVISION, fence=fence)
        return await self.provider.update(secret, current=current, mark=ME, revision=REVISION, fence=fence)

    async def call(self, method: str, name: str, fence: Fence) -> None:
        """Make one write to a secret that `prepare` prepared."""
        provider, secret, gone = self.provider, desired(name, b"new"), RemoteSecret(SecretName(name), None, ME)
        current = gone if method == "create" else await self.look(name)
        match method:
            case "create":
                await provider.create(secret, mark=ME, revision=REVISION, fence=fence)
            case "update":
                await provider.update(secret, current=current, mark=ME, revision=REVISION, fence=fence)
            case "adopt":
                await provider.adopt(current, mark=ME, fence=fence)
            case "delete":
                await provider.delete(current, fence=fence)

    def prepare(self, method: str, name: str) -> int:
        """Put the secret there that a write needs; return how many requests for a change were made so far."""
        if method != "create":
            self.store.put_by_hand(name, b"old", mark=None if method == "adopt" else ME)
        return len(self.store.writes())


@dataclass(slots=True)
class CountingFence:
    """Lets so many checks pass, then is closed; remembers the margins that it was asked for."""

    allowed: int
    margins: list[float] = field(default_factory=list)

    def check(self, margin: float) -> None:
        """Count, and refuse what is beyond."""
        self.margins.append(margin)
        if len(self.margins) > self.allowed:
            raise OwnershipLost("the test closed the fence")


def desired(name: str, value: bytes) -> DesiredSecret:
    """Return a secret of Git whose encrypted input stands for its value."""
    return DesiredSecret(SecretName(name), SecretValue(value), hash_ciphertext(name.encode(), value))
