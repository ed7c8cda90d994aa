"""What we write beside a value in AWS: the owner mark as tags, and the revision inside the version's id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import OwnerMark
from secret_manager_controller.model.secret import Version

MANAGED_BY_TAG = "managed-by"
MANAGED_BY = "secret-manager-controller"
CLUSTER_TAG = "secret-management.microscaler.io/cluster"
OWNER_TAG = "secret-management.microscaler.io/owner"

MAX_TAG_VALUE = 256
VERSION_LENGTH = 64  # A ClientRequestToken, which becomes the version's id, has 32 to 64 characters.
REVISION_LENGTH = 12  # As many as people and tools show of a commit.

# What both a tag and a filter of ListSecrets can hold; a filter that begins with "!" would be a negation.
_TAG_VALUE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9 :_@/+=.-]*")
_COMMIT = re.compile(r"(?:^|[:@/])([0-9a-f]{64}|[0-9a-f]{40})$")


def tags_of(mark: OwnerMark) -> list[dict[str, str]]:
    """Return the tags that say who manages a secret.

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
    tags = {MANAGED_BY_TAG: MANAGED_BY, CLUSTER_TAG: mark.cluster, OWNER_TAG: mark.owner}
    return [{"Key": key, "Value": value} for key, value in tags.items()]


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
    """Return the id of the version that a write makes: the same for the same write, another for any other.

    Its first 12 digits are those of the commit. The rest depends on the version that is replaced, so that a value which
    comes back (A→B→A) makes a new version; a repetition after a lost answer does not. No part depends on the value.

    Args:
        secret: what is written.
        previous: the current version, or None for the first one.
        mark: who writes.
        revision: the source revision, e.g. `main@sha1:6f1c…`.
        attempt: tells apart ids for one write, where the first is taken by a version with another value.
    """
    parts = (secret.name, secret.source_hash, previous or "create", mark.cluster, mark.owner, str(attempt))
    framed = b"".join(len(data).to_bytes(4, "big") + data for data in (part.encode() for part in parts))
    digits = f"{_short(revision)}-{hashlib.sha256(framed).hexdigest()}"
    return Version(digits[:VERSION_LENGTH])


def _short(revision: str) -> str:
    commit = _COMMIT.search(revision)
    digits = commit.group(1) if commit else hashlib.sha256(revision.encode()).hexdigest()
    return digits[:REVISION_LENGTH]
