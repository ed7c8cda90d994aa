"""What we write beside a value in Google Secret Manager: the owner mark, and the write that is under way or was done.

Labels can be filtered by but hold little; annotations hold readable text but cannot be filtered by. So the mark stands
in both, hashed where a label cannot hold it, and counts only where they agree.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.observed import OwnerMark

MANAGED_BY_LABEL = "managed-by"
MANAGED_BY = "secret-manager-controller"
CLUSTER_LABEL = "smc_cluster"
OWNER_LABEL = "smc_owner"
LABELS = frozenset({MANAGED_BY_LABEL, CLUSTER_LABEL, OWNER_LABEL})

# An annotation's key holds no slash.
CLUSTER_ANNOTATION = f"{GROUP}_cluster"
OWNER_ANNOTATION = f"{GROUP}_owner"
WRITE_ANNOTATION = f"{GROUP}_write"
"""The id of the last write and of who made it: it begins with the commit."""
KEPT_ANNOTATION = f"{GROUP}_kept-versions"
"""How many versions a secret was brought down to, so that a listing tells whether `keepVersions` is enforced."""

MAX_PART = 1024  # Characters; all annotations of a secret together have 16 KiB.
HASH_LENGTH = 40  # Hex digits, 160 bits: as many as a commit has.

# https://cloud.google.com/resource-manager/docs/labels-overview#requirements; what does not begin with a letter is
# hashed too, so that no value is ever taken for a number or a negation in a filter.
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_HASHED = re.compile(r"h-[0-9a-f]{40}")


def labels_of(mark: OwnerMark) -> dict[str, str]:
    """Return the labels that say who manages a secret."""
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        CLUSTER_LABEL: label_value(mark.cluster),
        OWNER_LABEL: label_value(mark.owner),
    }


def annotations_of(mark: OwnerMark, *, write: str | None = None) -> dict[str, str]:
    """Return the annotations that say who manages a secret, and which write it had last.

    Raises:
        PermanentError: StoreRefused: an annotation cannot hold the mark.
    """
    for part, mend in ((mark.cluster, "set another cluster id"), (mark.owner, "give the object a shorter name")):
        if not 0 < len(part) <= MAX_PART:
            message = f"{foreign(repr(part))} cannot be an owner mark, which has 1 to {MAX_PART} characters; {mend}"
            raise PermanentError(Reason.STORE_REFUSED, message)
    found = {CLUSTER_ANNOTATION: mark.cluster, OWNER_ANNOTATION: mark.owner}
    return found if write is None else found | {WRITE_ANNOTATION: write}


def mark_of(labels: Mapping[str, str], annotations: Mapping[str, str]) -> OwnerMark | None:
    """Return a secret's owner mark, whoever wrote it; None where labels and annotations do not agree."""
    cluster, owner = annotations.get(CLUSTER_ANNOTATION), annotations.get(OWNER_ANNOTATION)
    if cluster is None or owner is None:
        return None
    mark = OwnerMark(cluster, owner)
    return mark if labels_of(mark).items() <= dict(labels).items() else None


def filter_of(cluster: str, owner: str | None) -> str:
    """Return the filter of ListSecrets for what an owner manages, or for what all owners of a cluster do."""
    parts = [f"labels.{CLUSTER_LABEL}={label_value(cluster)}"]
    if owner is not None:
        parts.append(f"labels.{OWNER_LABEL}={label_value(owner)}")
    return " AND ".join(parts)


def label_value(text: str) -> str:
    """Return the label that stands for a text: the text where a label can hold it, a hash elsewhere."""
    if _LABEL.fullmatch(text) and not _HASHED.fullmatch(text):
        return text
    return f"h-{hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]}"
