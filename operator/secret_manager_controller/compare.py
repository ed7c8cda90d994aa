"""Compare stored values with Git's, reading as few of them as possible."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Collection, Mapping

from secret_manager_controller.model.desired import DesiredState
from secret_manager_controller.model.observed import RemoteSecret
from secret_manager_controller.model.plan import Verdict
from secret_manager_controller.model.secret import SecretName, SecretValue, Version
from secret_manager_controller.providers.protocol import Provider

REMEMBERED_VERSIONS = 100_000
"""Most versions remembered by one process; about 20 MB."""


class VersionMemory:
    """Remembers, for versions that this process wrote or read, an HMAC of their value.

    A store's version is immutable, so its value needs no second read: a file that was encrypted anew with the same
    values makes no call, and a changed value makes no read before its write. The key is random, lives as long as the
    process and is never published, so neither are the HMACs.
    """

    def __init__(self, *, capacity: int = REMEMBERED_VERSIONS) -> None:
        self._key = secrets.token_bytes(32)
        self._capacity = capacity
        self._digests: OrderedDict[tuple[str, SecretName, Version], bytes] = OrderedDict()

    def remember(self, store: str, name: SecretName, version: Version, value: SecretValue) -> None:
        """Note the value of a version that was just written or read; `store` keeps two stores' versions apart."""
        key = (store, name, version)
        self._digests[key] = self._digest(value)
        self._digests.move_to_end(key)
        if len(self._digests) > self._capacity:
            self._digests.popitem(last=False)

    def forget(self, store: str, name: SecretName, version: Version) -> None:
        """Forget a version that turned out not to be the current one, so that the next look reads the store."""
        self._digests.pop((store, name, version), None)

    def equals(self, store: str, name: SecretName, version: Version, value: SecretValue) -> bool | None:
        """Tell whether a version holds `value`, or None if this process has not seen the version."""
        digest = self._digests.get((store, name, version))
        return None if digest is None else hmac.compare_digest(digest, self._digest(value))

    def _digest(self, value: SecretValue) -> bytes:
        return hmac.new(self._key, value.expose(), hashlib.sha256).digest()


async def compare(
    remotes: Collection[RemoteSecret],
    desired: DesiredState,
    *,
    provider: Provider,
    store: str,
    memory: VersionMemory,
    remembered_ok: Collection[SecretName],
) -> Mapping[SecretName, Verdict]:
    """Return a verdict for each of the secrets; one that vanished has none.

    Args:
        remotes: the secrets to compare, as observed.
        desired: Git's wish, for at least their names.
        provider: where to read what is not remembered.
        store: the store's name in `memory`.
        memory: the versions that this process knows.
        remembered_ok: names whose observed version is the recorded one. For the others the version moved, which a
            stale listing can feign, so they are always read: the read confirms.
    """
    verdicts: dict[SecretName, Verdict] = {}
    to_read: list[RemoteSecret] = []
    for remote in remotes:
        known = None
        if remote.version is not None and remote.name in remembered_ok:
            known = memory.equals(store, remote.name, remote.version, desired.secrets[remote.name].value)
        if known is None or remote.version is None:
            to_read.append(remote)
        else:
            verdicts[remote.name] = Verdict(remote.version, equal=known)
    for name, read in (await provider.read(to_read) if to_read else {}).items():
        memory.remember(store, name, read.version, read.value)
        verdicts[name] = Verdict(read.version, equal=read.value == desired.secrets[name].value)
    return verdicts
