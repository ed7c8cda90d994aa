"""From a file's recipients and a key ring to the file's data key.

What a KMS unwraps is in the ring before anything is decrypted: nothing here asks anybody.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

from secret_manager_controller.decrypt import age, openpgp, pgp, shamir
from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.decrypt.metadata import Metadata, WrappedKey
from secret_manager_controller.decrypt.refusal import RefusedError, failed
from secret_manager_controller.errors import Reason, foreign

SHOWN_NAMES = 6
"""How many recipients or keys a message lists before it says how many more there are."""

MAX_GPG_RUNS = 8
"""How often GnuPG is started for one file; a key ring's keys are rarely in a file more than once."""

KMS_KINDS = frozenset({"kms", "gcp_kms", "azure_kv", "hc_vault", "hckms"})
"""Recipients that a service unwraps for."""

_CacheKey: TypeAlias = tuple[bytes, bytes]


class DataKeyCache:
    """Unwrapped data keys in memory, the least recently used dropped first. Thread-safe.

    A key is found by what was wrapped and by the key ring's seal, so that nobody gets one without
    the private key that unwraps it. Nothing expires: a wrapped key is immutable.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._keys: OrderedDict[_CacheKey, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, wrapped: str, seal: bytes) -> bytes | None:
        """Return an unwrapped key."""
        key = self._key(wrapped, seal)
        with self._lock:
            if key in self._keys:
                self._keys.move_to_end(key)
            return self._keys.get(key)

    def put(self, wrapped: str, seal: bytes, plaintext: bytes) -> None:
        """Keep an unwrapped key."""
        with self._lock:
            self._keys[self._key(wrapped, seal)] = plaintext
            while len(self._keys) > self._size:
                self._keys.popitem(last=False)

    @staticmethod
    def _key(wrapped: str, seal: bytes) -> _CacheKey:
        return hashlib.sha256(wrapped.encode()).digest(), seal


class DataKeys:
    """Unwraps data keys: by what a KMS has unwrapped, then age, then PGP, as sops does by default; by others never.

    Args:
        gpg: the GnuPG program.
        cache_size: how many unwrapped keys are kept.
    """

    def __init__(self, *, gpg: str, cache_size: int) -> None:
        self._gpg = gpg
        self._cache = DataKeyCache(cache_size)

    def unwrap(self, metadata: Metadata, keys: KeyRing) -> bytes:
        """Return the data key of a file.

        Raises:
            RefusedError: KeyUnavailable (retryable) if there is no key at all and one would do;
                DecryptionFailed if the keys are not the file's.
        """
        if not keys and not keys.refused and any(_usable(entry) for group in metadata.groups for entry in group):
            raise _no_keys(metadata, keys)
        attempt = _Attempt(keys, self._gpg, self._cache)
        parts: list[bytes] = []
        for group in metadata.groups:
            part = attempt.group(group)
            if part is not None:
                parts.append(part)
            if len(parts) == metadata.threshold:
                break
        if len(parts) < metadata.threshold:
            raise _not_for_us(metadata, keys, attempt.problems, len(parts))
        if len(metadata.groups) == 1:
            return parts[0]
        combined = shamir.combine(parts)
        if combined is None:
            raise failed("the parts of its data key do not fit together: its SOPS metadata was changed")
        return combined


class _Attempt:
    """One file's unwrapping; collects why entries that should have fitted did not."""

    def __init__(self, keys: KeyRing, gpg: str, cache: DataKeyCache) -> None:
        self.problems: list[str] = []
        self._keys = keys
        self._seal = keys.seal
        self._gpg = gpg
        self._cache = cache
        self._recipients = {identity.recipient for identity in keys.age}
        self._gpg_runs = 0

    def group(self, entries: Sequence[WrappedKey]) -> bytes | None:
        """Return the part that a key group's entries hold."""
        for entry in entries:
            part = self._keys.data_keys.get(entry.wrapped) or self._cache.get(entry.wrapped, self._seal)
            if part is not None:
                return part
        for entry in sorted(entries, key=self._rank):
            part = self._entry(entry)
            if part is not None:
                self._cache.put(entry.wrapped, self._seal, part)
                return part
        return None

    def _rank(self, entry: WrappedKey) -> int:
        """Order entries: those named for our age keys, other age entries, PGP, the rest."""
        if entry.kind == "age":
            return 0 if entry.recipient in self._recipients else 1
        return 2 if entry.kind == "pgp" else 3

    def _entry(self, entry: WrappedKey) -> bytes | None:
        if entry.kind == "age" and self._keys.age:
            part = age.unwrap(entry.wrapped, self._keys.age)
            if part is None and entry.recipient in self._recipients:
                self._problem(entry, "does not decrypt: it was changed after it was encrypted")
            return part
        if entry.kind == "pgp" and self._keys.pgp:
            return self._pgp(entry)
        return None

    def _pgp(self, entry: WrappedKey) -> bytes | None:
        try:
            (message,) = openpgp.dearmor(entry.wrapped, openpgp.MESSAGE_BLOCK)
            wanted = set(openpgp.recipients(message))
        except (openpgp.MalformedError, ValueError):
            self._problem(entry, "is no armored PGP message")
            return None
        hidden = openpgp.ANY_KEY_ID in wanted
        fitting = [key for key in self._keys.pgp if hidden or wanted & key.key_ids]
        if not fitting:
            return None
        self._gpg_runs += 1
        if self._gpg_runs > MAX_GPG_RUNS:
            self._problem(entry, f"is not tried: {MAX_GPG_RUNS} others for the same keys failed")
            return None
        try:
            part = pgp.unwrap(message, fitting, gpg=self._gpg)
        except pgp.GpgError as error:
            self._problem(entry, str(error))
            return None
        if part is None and not hidden:
            self._problem(entry, "does not decrypt: it was changed after it was encrypted")
        return part

    def _problem(self, entry: WrappedKey, what: str) -> None:
        self.problems.append(f"the data key for {entry.label} {what}")


def needed_of_kms(metadata: Metadata, keys: KeyRing) -> tuple[WrappedKey, ...]:
    """Return the entries that only a KMS can unwrap, of a file that the keys at hand do not seem to open."""
    recipients = {identity.recipient for identity in keys.age}
    key_ids = {key_id for key in keys.pgp for key_id in key.key_ids}
    names = {key.fingerprint for key in keys.pgp}

    def ours(entry: WrappedKey) -> bool:
        if entry.kind == "pgp":
            name = entry.recipient.upper()
            return name in names or name[-16:] in key_ids
        return entry.kind == "age" and entry.recipient in recipients

    opened = sum(any(map(ours, group)) for group in metadata.groups)
    if opened >= metadata.threshold:
        return ()
    return tuple(
        entry for group in metadata.groups if not any(map(ours, group)) for entry in group if entry.kind in KMS_KINDS
    )


def _usable(entry: WrappedKey) -> bool:
    return entry.kind == "pgp" or (entry.kind == "age" and age.kind_of(entry.recipient) is None)


def _no_keys(metadata: Metadata, keys: KeyRing) -> RefusedError:
    message = f"it is encrypted for {_recipients(metadata)}, and there is no SOPS key; create the Secret that holds one"
    if keys.unreadable:
        where = " and ".join(map(repr, keys.unreadable))
        message += f", or let the controller read it: it may not `get` the key Secrets of namespace {where}"
    return RefusedError(Reason.KEY_UNAVAILABLE, message, retryable=True)


def _not_for_us(metadata: Metadata, keys: KeyRing, problems: Sequence[str], parts: int) -> RefusedError:
    if problems:
        return failed(_listed(problems, "; "))
    entries = [entry for group in metadata.groups for entry in group]
    message = f"it is encrypted for {_recipients(metadata)}; "
    refused = {entry.label: keys.refused[entry.label] for entry in entries if entry.label in keys.refused}
    if refused:
        return failed(message + "; ".join(f"{label} {why}" for label, why in list(refused.items())[:SHOWN_NAMES]))
    if not any(map(_usable, entries)):
        return failed(f"{message}this controller has age and PGP keys only")
    if metadata.threshold > 1:
        message += f"{metadata.threshold} of its {len(metadata.groups)} key groups are needed, "
        message += f"and the keys here open {parts}; "
    return failed(f"{message}the keys here are {_listed(keys.public_names)}")


def _recipients(metadata: Metadata) -> str:
    names = []
    for entry in (entry for group in metadata.groups for entry in group):
        other = age.kind_of(entry.recipient) if entry.kind == "age" else None
        names.append(f"{entry.label} ({other})" if other else entry.label)
    return _listed(list(dict.fromkeys(names)))


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(map(foreign, names[:SHOWN_NAMES]))
    more = len(names) - SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
