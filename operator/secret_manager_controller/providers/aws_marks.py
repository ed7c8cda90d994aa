"""What we write beside a value in AWS: the owner mark as tags, and the revision inside the version's id."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import Version
from secret_manager_controller.providers.writes import write_id

MANAGED_BY_TAG = "managed-by"
MANAGED_BY = "secret-manager-controller"
CLUSTER_TAG = "secret-management.microscaler.io/cluster"
OWNER_TAG = "secret-management.microscaler.io/owner"

MAX_TAG_VALUE = 256

# What both a tag and a filter of ListSecrets can hold; a filter that begins with "!" would be a negation.
_TAG_VALUE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9 :_@/+=.-]*")


def tags_of(mark: OwnerMark, *, beside: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Return the tags that say who manages a secret, and others beside them.

    Raises:
        PermanentError: StoreRefused: a tag cannot hold the mark.
    """
    for part, mend in ((mark.cluster, "set another cluster id"), (mark.owner, "give the object a shorter name")):
        if len(part) > MAX_TAG_VALUE or not _TAG_VALUE.fullmatch(part):
            raise PermanentError(
                Reason.STORE_REFUSED,
                f"{foreign(repr(part))} cannot be an AWS tag, which holds {MAX_TAG_VALUE} of the characters "
                f"A-Za-z0-9 :_@/+=.-; {mend}",
            )
    tags = {**(beside or {}), MANAGED_BY_TAG: MANAGED_BY, CLUSTER_TAG: mark.cluster, OWNER_TAG: mark.owner}
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def filters_of(cluster: str | None, owner: str | None) -> list[dict[str, object]]:
    """Return ListSecrets' filters for what an owner manages, for what all owners of a cluster do, or for all."""
    if cluster is None:
        return []
    key, value = (CLUSTER_TAG, cluster) if owner is None else (OWNER_TAG, owner)
    # Filters are combined with AND, but each may be met by another tag of the secret.
    return [{"Key": "tag-key", "Values": [key]}, {"Key": "tag-value", "Values": [value]}]


def mark_of(tags: Sequence[Mapping[str, str]]) -> OwnerMark | None:
    """Return the owner mark among a secret's tags, whoever wrote it."""
    found = {tag["Key"]: tag["Value"] for tag in tags}
    cluster, owner = found.get(CLUSTER_TAG), found.get(OWNER_TAG)
    if found.get(MANAGED_BY_TAG) != MANAGED_BY or cluster is None or owner is None:
        return None
    return OwnerMark(cluster, owner)


def version_of(
    secret: DesiredSecret, *, previous: Version | None, mark: OwnerMark, revision: str, attempt: int = 0
) -> Version:
    """Return the id of the version that a write makes; see `write_id`.

    Args:
        secret: what is written.
        previous: the current version, or None for the first one.
        mark: who writes.
        revision: the source revision, e.g. `main@sha1:6f1c…`.
        attempt: tells apart ids for one write, where the first is taken by a version with another value.
    """
    return Version(write_id(secret, previous=previous or "create", mark=mark, revision=revision, attempt=attempt))
