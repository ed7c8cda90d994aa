"""Data keys that only a KMS unwraps: asked for before anything is decrypted, with the object's own login to its store.

The metadata of a SOPS file is foreign: whoever writes to Git chooses which key, role or address stands there. So a KMS
is asked about keys that the administrator has allowed, by their full ids, and about nothing else; an entry with a field
that is not known is not asked about at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from secret_manager_controller.decrypt import KeyRing, WrappedKey
from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.providers.aws_login import KEY_ARN
from secret_manager_controller.providers.azure_login import AZURE_KEY
from secret_manager_controller.providers.calls import together
from secret_manager_controller.providers.gcp_login import GCP_KEY
from secret_manager_controller.providers.protocol import KeyService

KEEP_SECONDS = 900.0
"""How long an unwrapped data key is kept: so long a right that was withdrawn still works."""
MAX_KEPT = 4096
"""For each login."""
MAX_REQUESTS = 64
"""Wrapped keys of one object that a KMS is asked about."""

ANY_NAMESPACE = ""

_KINDS = {"kms": "aws", "gcp_kms": "gcp", "azure_kv": "azure"}
"""Which store's login could ask."""


@dataclass(frozen=True, slots=True)
class AllowedKeys:
    """The KMS keys that the administrator allows.

    Attributes:
        keys: pairs of a namespace, or `ANY_NAMESPACE`, and a key's full id; see `ids_of`.
    """

    keys: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> AllowedKeys:
        """Read what `SOPS_KMS_KEYS` holds: keys, separated by commas, each perhaps as `namespace=key`.

        Raises:
            ValueError: an entry is no key that this version can ask about.
        """
        keys = set()
        for entry in filter(None, map(str.strip, text.split(","))):
            namespace, equals, key = entry.rpartition("=")
            known = any(form.fullmatch(key) for form in (KEY_ARN, GCP_KEY, AZURE_KEY))
            if not known or (equals and not namespace):
                expected = (
                    "expected the ARN of an AWS KMS key, projects/…/cryptoKeys/…, "
                    "https://<vault>.<domain>/keys/<name>, or one of these behind namespace="
                )
                raise ValueError(f"{foreign(entry)!r}: {expected}")
            keys.add((namespace, key))
        return cls(frozenset(keys))

    def allow(self, key: str, *, namespace: str) -> bool:
        """Tell whether an object of a namespace may use a key."""
        return any((whose, each) in self.keys for whose in (ANY_NAMESPACE, namespace) for each in ids_of(key))


def ids_of(key: str) -> frozenset[str]:
    """Return the ids that allow a key: its own and, for a version of a key of Azure, that of all its versions."""
    azure = AZURE_KEY.fullmatch(key)
    return frozenset({key} if azure is None else {key, azure["key"]})


class DataKeyFinder:
    """Asks KMS for the data keys that an object needs. For one event loop.

    Args:
        allowed: what may be asked about.
        clock: seconds that only grow.
    """

    def __init__(self, allowed: AllowedKeys, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = allowed
        self._clock = clock
        self._kept: WeakKeyDictionary[KeyService, OrderedDict[bytes, tuple[float, bytes]]] = WeakKeyDictionary()

    async def extended(
        self,
        keys: KeyRing,
        wanted: Iterable[WrappedKey],
        *,
        service: KeyService | None,
        namespace: str,
        granted: Collection[str] | None = None,
    ) -> KeyRing:
        """Return a ring that has the data keys too, or tells why they could not be unwrapped.

        Args:
            keys: the ring.
            wanted: entries that the ring does not open.
            service: the KMS that the object's login may ask, if there is one.
            namespace: the object's.
            granted: the keys that policies grant, in place of those that are allowed; None where no policy counts.

        Raises:
            RetryableError: KeyUnavailable: the KMS does not answer.
            PermanentError: DecryptionFailed: more keys than one object may ask about.
        """
        asked: dict[str, WrappedKey] = {}
        refused: dict[str, str] = {}
        for entry in wanted:
            why = self._why_not(entry, service, namespace, granted)
            if why is None:
                asked[entry.wrapped] = entry
            else:
                refused[entry.label] = why
        if len(asked) > MAX_REQUESTS:
            message = f"its files have {len(asked)} data keys that a KMS has to unwrap; at most {MAX_REQUESTS} are"
            raise PermanentError(Reason.DECRYPTION_FAILED, message)
        if not asked and not refused:
            return keys
        found: dict[str, bytes] = {}
        if service is not None:
            outcomes = await together(self._unwrapped(service, entry) for entry in asked.values())
            for entry, outcome in zip(asked.values(), outcomes, strict=True):
                if isinstance(outcome, str):
                    refused[entry.label] = outcome
                else:
                    found[entry.wrapped] = outcome
        return dataclasses.replace(keys, data_keys=found, refused=refused)

    def _why_not(
        self, entry: WrappedKey, service: KeyService | None, namespace: str, granted: Collection[str] | None
    ) -> str | None:
        """Return why an entry is not asked about, as a sentence's end; None if it is."""
        if entry.kind not in _KINDS:
            return "is of a kind that this controller does not use"
        if granted is None and not self._allowed.allow(entry.recipient, namespace=namespace):
            return "is not allowed: add its id to SOPS_KMS_KEYS of the controller"
        if granted is not None and ids_of(entry.recipient).isdisjoint(granted):
            return f"is not granted: have its id added to spec.kmsKeys of a SecretManagerPolicy for {namespace!r}"
        if service is None or service.kind != entry.kind:
            return f"is not asked: only the KMS of the object's own store is, with its login, and this is {entry.kind}"
        if entry.details:
            names = ", ".join(name for name, _ in entry.details)
            return f"is not asked: its entry has {names}, which this controller does not use; encrypt without"
        if any(value == "?" for _, value in entry.context):
            return "is not asked: its encryption context is not made of texts"
        return None

    async def _unwrapped(self, service: KeyService, entry: WrappedKey) -> bytes | str:
        kept = self._kept.setdefault(service, OrderedDict())
        name = hashlib.sha256(repr((entry.recipient, entry.wrapped, entry.context)).encode()).digest()
        since, key = kept.get(name, (float("-inf"), b""))
        if self._clock() - since < KEEP_SECONDS:
            return key
        context: Mapping[str, str] = dict(entry.context)
        try:
            key = await service.unwrap(entry.recipient, entry.wrapped, context)
        except PermanentError as error:
            return error.message
        kept[name] = (self._clock(), key)
        kept.move_to_end(name)
        if len(kept) > MAX_KEPT:
            kept.popitem(last=False)
        return key
