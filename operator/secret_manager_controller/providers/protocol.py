"""The seam between planning and the stores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from lease_sharding.fence import Fence
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import (
    ObservedState,
    OwnerMark,
    RemoteSecret,
    RemoteValue,
)
from secret_manager_controller.model.secret import SecretName, Version

CallObserver = Callable[[str, str, str, float], None]
"""Told of every request to a store, retries included: the provider, the API's name of the operation, `OK` or the error
code, and the seconds that it took. It is called on the event loop."""


class KeyService(Protocol):
    """A cloud's KMS, asked with the login of one provider.

    Attributes:
        kind: the recipients that it unwraps for, by the field of SOPS' metadata, e.g. `kms`.
    """

    @property
    def kind(self) -> str:
        """See the class."""
        ...

    async def unwrap(self, key: str, wrapped: str, context: Mapping[str, str]) -> bytes:
        """Return what a key has encrypted.

        Args:
            key: the key's id, in full: it says where the service is.
            wrapped: the ciphertext as SOPS writes it.
            context: what was encrypted with it as additional data.

        Raises:
            RetryableError: the service does not answer, or asks for fewer requests.
            PermanentError: it refuses; a sentence's end that says why.
        """
        ...


class Provider(Protocol):
    """One login to one store. Shared by all objects that use it; safe for concurrent calls.

    Every method raises `RetryableError` or `PermanentError` with a message for people, after its own bounded retries.
    A mutating method checks the fence before **each** request that it makes, retries included, with a margin of at
    least that request's time-out, and so may raise `OwnershipLost`. Every write is idempotent: repeated after a lost
    answer it makes no second version.
    """

    async def observe(
        self, names: Collection[SecretName], *, mark: OwnerMark, since: float | None = None
    ) -> ObservedState:
        """Look at the named secrets and at all that carry `mark`, without reading a value; tell whose options differ.

        A name that is missing from the answer does not exist: where the store's listing may be stale, that is
        confirmed on the one secret.

        Args:
            names: what to look at, owned or not.
            mark: whose secrets to look at beside them.
            since: by the monotonic clock: what was seen at that moment or later will do, so that objects may share a
                look. Without it the look is a new one.
        """
        ...

    async def read(self, secrets: Collection[RemoteSecret]) -> Mapping[SecretName, RemoteValue]:
        """Read the current values, each with its version. A secret that is gone or has no value is left out."""
        ...

    async def create(self, secret: DesiredSecret, *, mark: OwnerMark, revision: str, fence: Fence) -> Version:
        """Create a secret with its value and mark.

        Raises:
            PermanentError: Conflict: the name exists (someone was faster, or the listing was stale).
        """
        ...

    async def update(
        self,
        secret: DesiredSecret,
        *,
        current: RemoteSecret,
        mark: OwnerMark,
        revision: str,
        fence: Fence,
    ) -> Version:
        """Write a new version over `current.version` (and restore the secret first if its deletion is scheduled).

        Raises:
            RetryableError: StoreChanged: `current.version` is not the current one any more; nothing was changed.
        """
        ...

    async def adopt(self, current: RemoteSecret, *, mark: OwnerMark, fence: Fence) -> None:
        """Put our mark and the options that the object declares on an existing secret; its value stays as it is.

        So it is called for a secret of ours whose options differ as well. `create` and `update` write the options too.
        """
        ...

    async def delete(self, current: RemoteSecret, *, fence: Fence) -> None:
        """Delete a secret, softly where the store can. A secret that is gone already is fine."""
        ...

    @property
    def key_service(self) -> KeyService | None:
        """The KMS that the login may ask; None where there is none for this kind of store."""
        ...

    async def aclose(self) -> None:
        """Release connections and threads."""
        ...
