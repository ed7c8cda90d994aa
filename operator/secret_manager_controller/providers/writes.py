"""The identity of a write: what makes a repetition the same write, and any other another one."""

from __future__ import annotations

import hashlib
import re

from secret_manager_controller.model.desired import DesiredSecret
from secret_manager_controller.model.observed import OwnerMark

WRITE_ID_LENGTH = 64  # A ClientRequestToken of AWS, which becomes the version's id, has 32 to 64 characters.
REVISION_LENGTH = 12  # As many as people and tools show of a commit.

_COMMIT = re.compile(r"(?:^|[:@/])([0-9a-f]{64}|[0-9a-f]{40})$")


def write_id(secret: DesiredSecret, *, previous: str, mark: OwnerMark, revision: str, attempt: int = 0) -> str:
    """Return the id of a write: the same for the same write, another for any other.

    Its first 12 digits are those of the commit. The rest depends on the version that is replaced, so that a value which
    comes back (A→B→A) is a new write; a repetition after a lost answer is not. No part depends on the value.

    Args:
        secret: what is written.
        previous: the current version, or what stands for the first write of all.
        mark: who writes.
        revision: the source revision, e.g. `main@sha1:6f1c…`.
        attempt: tells apart ids for one write, where the first is taken.
    """
    parts = (secret.name, secret.source_hash, previous, mark.cluster, mark.owner, str(attempt))
    framed = b"".join(len(data).to_bytes(4, "big") + data for data in (part.encode() for part in parts))
    digits = f"{_short(revision)}-{hashlib.sha256(framed).hexdigest()}"
    return digits[:WRITE_ID_LENGTH]


def _short(revision: str) -> str:
    commit = _COMMIT.search(revision)
    digits = commit.group(1) if commit else hashlib.sha256(revision.encode()).hexdigest()
    return digits[:REVISION_LENGTH]
