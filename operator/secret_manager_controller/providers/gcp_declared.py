"""What an object declares beside its values: labels, and the keys that new versions are encrypted with.

What it does not declare is not managed. Where a secret is kept is decided when it is made: Google moves none.
"""

from __future__ import annotations

from collections.abc import Mapping

from secret_manager_controller.providers.gcp_api import Message
from secret_manager_controller.providers.gcp_login import GcpReplication
from secret_manager_controller.providers.gcp_marks import LABELS

_ANYWHERE = ""
"""The place of a secret whose places Google chooses."""


class Declared:
    """What one object declares.

    Args:
        labels: of every secret, beside the owner mark's, which count where they are the same.
        replication: where new global secrets are kept, and their keys; None lets Google choose.
        regional: whether secrets are regional ones, which have no replication.
    """

    def __init__(self, *, labels: Mapping[str, str] | None, replication: GcpReplication | None, regional: bool) -> None:
        self._labels = {key: value for key, value in (labels or {}).items() if key not in LABELS}
        self._replication = None if regional else replication or GcpReplication()

    def of_new(self) -> dict[str, object]:
        """Return the fields of a secret that is to be made."""
        fields: dict[str, object] = {"labels": dict(self._labels)}
        if self._replication is not None:
            fields["replication"] = _policy(self._replication)
        return fields

    def differs(self, secret: Message) -> bool:
        """Tell whether a secret has another label or key than is declared."""
        return not self._labels.items() <= dict(secret.labels).items() or bool(self._other_keys(secret))

    def over(self, secret: Message) -> dict[str, object]:
        """Return the fields of a secret that are to be written: what is declared, over what stands there."""
        fields: dict[str, object] = {"labels": dict(secret.labels) | self._labels}
        if keys := self._other_keys(secret):
            replication = type(secret.replication)()
            replication.CopyFrom(secret.replication)
            for place, holder in _places(replication).items():
                if place in keys:
                    holder.customer_managed_encryption.kms_key_name = keys[place]
            fields["replication"] = replication
        return fields

    def _other_keys(self, secret: Message) -> Mapping[str, str]:
        """Return the declared keys that a secret does not have, by place; those of other places are not its own."""
        places = _places(secret.replication)
        return {
            place: key
            for place, key in _keys(self._replication).items()
            if place in places and places[place].customer_managed_encryption.kms_key_name != key
        }


def _policy(replication: GcpReplication) -> Mapping[str, object]:
    def encryption(key: str | None) -> Mapping[str, object]:
        return {} if key is None else {"customer_managed_encryption": {"kms_key_name": key}}

    if not replication.replicas:
        return {"automatic": encryption(replication.kms_key)}
    replicas = [{"location": location, **encryption(key)} for location, key in replication.replicas]
    return {"user_managed": {"replicas": replicas}}


def _keys(replication: GcpReplication | None) -> Mapping[str, str]:
    if replication is None:
        return {}
    places = replication.replicas or ((_ANYWHERE, replication.kms_key),)
    return {place: key for place, key in places if key is not None}


def _places(replication: Message) -> Mapping[str, Message]:
    """Return what holds the key of each place."""
    match replication.WhichOneof("replication"):
        case "automatic":
            return {_ANYWHERE: replication.automatic}
        case "user_managed":
            return {replica.location: replica for replica in replication.user_managed.replicas}
        case _:
            return {}
