"""What an object owns in the store, as its status records it: the memory of the drift rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.model.observed import ObservedState, OwnerMark, RemoteState
from secret_manager_controller.model.secret import SecretName, SourceHash, Version

MAX_SECRETS = 2_000
"""Most secrets an object may manage: at about 180 bytes each its status stays well below etcd's 1.5 MB."""


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One secret as it was last known to equal Git: which input made which version."""

    name: SecretName
    version: Version
    source_hash: SourceHash


Inventory = Mapping[SecretName, InventoryEntry]


def settled(inventory: Inventory, observed: ObservedState, *, me: OwnerMark, ignore_versions: bool = False) -> bool:
    """Tell whether the store still holds exactly what was recorded, so that no value needs to be read.

    Args:
        inventory: what status records; it may be empty, which is never settled.
        observed: the store now, for at least the inventory's names.
        me: our mark; a secret that lost it is not settled, nor is one whose options differ.
        ignore_versions: for `updatePolicy: CreateOnly`, where a changed value is left alone.
    """
    return bool(inventory) and all(
        (remote := observed.secrets.get(entry.name)) is not None
        and remote.state is RemoteState.ACTIVE
        and remote.mark == me
        and remote.version is not None
        and not remote.options_differ
        and (ignore_versions or remote.version == entry.version)
        for entry in inventory.values()
    )
