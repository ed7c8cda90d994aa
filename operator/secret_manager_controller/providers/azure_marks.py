"""What we write beside a value in Azure, and what tells one version of a secret from another without reading it.

**Tags belong to a version.** Each version has its own, and a new one takes none over, so every write carries the mark
again, and whatever else stood there. A person who writes a value by hand writes a version without our mark: that is
drift, and no reason to give the secret up, so the mark of the version before it counts (`inherited_mark`). A version
that was *edited* and has no mark is another matter: there somebody may have removed it.

**Versions.** A listing tells the attributes and tags of each secret's current version, but not that version's id
(https://learn.microsoft.com/rest/api/keyvault/secrets/get-secrets/get-secrets); only requests for the one secret tell
it. So our `Version` is made of what a listing tells and no later change alters: the second in which the version was
created, and the id of the write that made it, which is one of the tags. Two versions of ours differ in the write's id.
A version by hand has none, or has copied ours and another second. Two by hand, made in one second, are told apart by
waiting: a value that was created just now is read once more when its second is over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from azure.keyvault.secrets import SecretProperties

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import Version
from secret_manager_controller.providers.writes import REVISION_LENGTH, WRITE_ID_LENGTH

MANAGED_BY_TAG = "managed-by"
MANAGED_BY = "secret-manager-controller"
# Azure Resource Manager, which can show these tags too, allows no slash in their names.
CLUSTER_TAG = f"{GROUP}_cluster"
OWNER_TAG = f"{GROUP}_owner"
WRITE_TAG = f"{GROUP}_write"
"""The id of the write that made the version: it begins with the commit."""
OURS = frozenset({MANAGED_BY_TAG, CLUSTER_TAG, OWNER_TAG, WRITE_TAG})

MAX_TAGS = 15
MAX_TAG_VALUE = 256

_WRITE_ID = re.compile(rf"[0-9a-f]{{{REVISION_LENGTH}}}-[0-9a-f]{{{WRITE_ID_LENGTH - REVISION_LENGTH - 1}}}")


@dataclass(frozen=True, slots=True)
class Seen:
    """A version, as far as planning needs it.

    Attributes:
        name: of the secret, as it was first written.
        created: the second in which the version was made.
        edited: whether its attributes or tags were changed later.
        write: the id of the write that made it, if it is one of ours.
        content_type: empty where there is none.
        expires: seconds since the epoch, or None.
    """

    name: str
    created: int
    edited: bool
    enabled: bool
    mark: OwnerMark | None
    write: str | None
    content_type: str = ""
    expires: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, properties: SecretProperties) -> Self:
        """Return what the SDK's properties say."""
        tags, created = properties.tags or {}, _seconds(properties.created_on)
        write = tags.get(WRITE_TAG, "")
        return cls(
            name=properties.name or "",
            created=created,
            edited=_seconds(properties.updated_on) > created,
            enabled=properties.enabled is not False,
            mark=mark_of(tags),
            write=write if _WRITE_ID.fullmatch(write) else None,
            content_type=properties.content_type or "",
            expires=None if properties.expires_on is None else _seconds(properties.expires_on),
            tags=tags,
        )

    @property
    def key(self) -> str:
        """The name as Azure compares it."""
        return self.name.lower()

    @property
    def version(self) -> Version | None:
        """The version, or None where its value cannot be read."""
        if not self.enabled:
            return None
        return Version(str(self.created) if self.write is None else f"{self.created}-{self.write}")


def mark_of(tags: Mapping[str, str]) -> OwnerMark | None:
    """Return the owner mark among a version's tags, whoever wrote it."""
    cluster, owner = tags.get(CLUSTER_TAG), tags.get(OWNER_TAG)
    if tags.get(MANAGED_BY_TAG) != MANAGED_BY or not cluster or not owner:
        return None
    return OwnerMark(cluster, owner)


def inherited_mark(current: Seen, versions: Iterable[Seen]) -> OwnerMark | None:
    """Return whose a secret is whose current version carries no mark.

    Versions that were written by hand leave it to the one before them. One that was edited since may have carried a
    mark that somebody removed: then the secret is nobody's.

    Args:
        current: the current version.
        versions: all of them, in any order.
    """
    older = (version for version in versions if version.created <= current.created)
    for version in (current, *sorted(older, key=lambda version: version.created, reverse=True)):
        if version.mark is not None or version.edited:
            return version.mark
    return None


def tags_of(mark: OwnerMark, *, write: str | None, beside: Mapping[str, str] | None) -> dict[str, str]:
    """Return a version's tags: who manages the secret, which write made the version, and what else stood there.

    Args:
        mark: who manages the secret.
        write: the id of the write, or None to leave that tag as it stands.
        beside: the tags that are there, or that the version before has, with those that the object declares.

    Raises:
        PermanentError: StoreRefused: there is no room for them.
    """
    for part, mend in ((mark.cluster, "set another cluster id"), (mark.owner, "give the object a shorter name")):
        if not 0 < len(part) <= MAX_TAG_VALUE:
            message = f"{foreign(repr(part))} cannot be an Azure tag, which has 1 to {MAX_TAG_VALUE} characters; {mend}"
            raise PermanentError(Reason.STORE_REFUSED, message)
    kept = {key: value for key, value in (beside or {}).items() if key not in OURS or (key == WRITE_TAG and not write)}
    tags = kept | {MANAGED_BY_TAG: MANAGED_BY, CLUSTER_TAG: mark.cluster, OWNER_TAG: mark.owner}
    if write is not None:
        tags[WRITE_TAG] = write
    if len(tags) > MAX_TAGS:
        message = (
            f"the secret has too many tags: with those of the owner mark there are {len(tags)}, and Azure allows "
            f"{MAX_TAGS}; remove some from its current version, or from spec.provider.azure.tags"
        )
        raise PermanentError(Reason.STORE_REFUSED, message)
    return tags


def _seconds(instant: datetime | None) -> int:
    return 0 if instant is None else int(instant.timestamp())
