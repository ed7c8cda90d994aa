"""What an object declares of its secrets in Azure beside their values. What it does not declare is not managed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The settings of an installation without Azure do not import its SDK.
    from azure.keyvault.secrets import SecretProperties

    from secret_manager_controller.providers.azure_marks import Seen


@dataclass(frozen=True, slots=True)
class AzureDeclared:
    """What every secret of an object has.

    Attributes:
        content_type: None where it is not managed; empty for none at all.
        expires: seconds since the epoch, or None where it is not managed.
        tags: some of the secret's tags, none of them a part of the owner mark.
    """

    content_type: str | None = None
    expires: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def differs(self, seen: Seen) -> bool:
        """Tell whether a version has something else than is declared."""
        return (
            (self.content_type is not None and self.content_type != seen.content_type)
            or (self.expires is not None and self.expires != seen.expires)
            or not self.tags.items() <= seen.tags.items()
        )

    def changes(self) -> dict[str, Any]:
        """Return the SDK's arguments for what is declared beside the tags."""
        changes: dict[str, Any] = {}
        if self.content_type is not None:
            changes["content_type"] = self.content_type
        if self.expires is not None:
            changes["expires_on"] = datetime.fromtimestamp(self.expires, UTC)
        return changes

    def beside(self, before: SecretProperties | None) -> dict[str, Any]:
        """Return the SDK's arguments for a new version beside its tags: what is declared, and what the last one has."""
        if before is None:
            return self.changes()
        kept = {name: getattr(before, name) for name in ("content_type", "not_before", "expires_on")}
        return kept | self.changes()
