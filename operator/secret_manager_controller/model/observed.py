"""What a store holds, as far as planning needs it: versions and owner marks, never values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.model.secret import SecretName, SecretValue, Version


@dataclass(frozen=True, slots=True, order=True)
class OwnerMark:
    """Who manages a stored secret; written to it as labels or tags.

    Attributes:
        cluster: the cluster id: kube-system's UID, or the operator's setting.
        owner: `namespace/name` of the SecretManagerConfig (a hash of it where a store's labels are too short).
    """

    cluster: str
    owner: str


class RemoteState(enum.Enum):
    """Whether a stored secret can be used."""

    ACTIVE = "active"
    DELETION_SCHEDULED = "deletion scheduled"


@dataclass(frozen=True, slots=True)
class RemoteSecret:
    """One secret of a store, without its value.

    Attributes:
        version: the current version, or None where the secret has no usable one: such a secret is never "synced".
        mark: our owner mark if the secret carries one, whoever wrote it.
        options_differ: whether what stands beside the value (tags, a content type) is other than the object declares;
            what it does not declare is not managed, and never differs.
    """

    name: SecretName
    version: Version | None
    mark: OwnerMark | None
    state: RemoteState = RemoteState.ACTIVE
    options_differ: bool = False


@dataclass(frozen=True, slots=True)
class RemoteValue:
    """A value as read from the store, with the version that it belongs to: the confirmation of a listing."""

    version: Version
    value: SecretValue


@dataclass(frozen=True, slots=True)
class ObservedState:
    """The secrets that exist, by name. A name that was asked for and is not here does not exist, confirmed."""

    secrets: Mapping[SecretName, RemoteSecret]
