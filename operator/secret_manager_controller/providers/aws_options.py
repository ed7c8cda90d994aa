"""What an object declares beside the values of its secrets in AWS; what it does not declare is not managed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

AWS_OWN_KEY = "alias/aws/secretsmanager"
"""The key that AWS encrypts with where none is named; its answers leave it out."""


@dataclass(frozen=True, slots=True)
class AwsDeclared:
    """What every secret of an object is to have; None is not managed.

    Attributes:
        tags: beside the owner mark; other tags stay.
        kms_key_id: a key's id or ARN, or an alias or its ARN.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    kms_key_id: str | None = None

    def of_new(self) -> dict[str, Any]:
        """Return what a CreateSecret has of it beside tags."""
        found = {"Description": self.description, "KmsKeyId": self.kms_key_id}
        return {name: value for name, value in found.items() if value is not None}

    def differing(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an UpdateSecret is to change of a secret as AWS describes it."""
        changes: dict[str, Any] = {}
        if self.description is not None and self.description != entry.get("Description", ""):
            changes["Description"] = self.description
        if self.kms_key_id is not None and not _same_key(self.kms_key_id, entry.get("KmsKeyId") or AWS_OWN_KEY):
            changes["KmsKeyId"] = self.kms_key_id
        return changes

    def missing_tags(self, entry: Mapping[str, Any]) -> dict[str, str]:
        """Return the declared tags that a secret lacks, or has with another value."""
        present = {tag["Key"]: tag["Value"] for tag in entry.get("Tags") or []}
        return {key: value for key, value in self.tags.items() if present.get(key) != value}

    def differs(self, entry: Mapping[str, Any]) -> bool:
        """Tell whether a secret is other than declared."""
        return bool(self.missing_tags(entry) or self.differing(entry))


def _same_key(declared: str, present: str) -> bool:
    """Tell whether two names may be one key's. An alias cannot be told from the key that it stands for."""
    one, other = (name.rpartition(":key/")[2].rpartition("key/")[2] for name in (declared, present))
    aliases = ["alias/" in name for name in (one, other)]
    if all(aliases):
        return one.rpartition("alias/")[2] == other.rpartition("alias/")[2]
    if any(aliases):
        # AWS tells its own key by no name at all, and another by the one that it was given or by the key's ARN.
        return present.rpartition("alias/")[2] != AWS_OWN_KEY.rpartition("alias/")[2]
    return one == other
