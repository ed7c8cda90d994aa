"""What a reconcile is asked for, how far it came, and what tells that nothing has changed since. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from secret_manager_controller.decrypt.keyring import KeyRing
from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.grants import Grants
from secret_manager_controller.model.annotations import CONFIRM_ROLLBACK
from secret_manager_controller.model.history import History, went_back
from secret_manager_controller.model.inventory import Inventory
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.model.spec import Spec

RENDERING_VERSION = "2"
"""Part of every settled key: change it when names, hashes or rendering change, so that all is worked out anew."""


@dataclass(frozen=True, slots=True)
class Request:
    """One object as it was read, and what it remembers.

    Attributes:
        inputs_key: what status recorded of the inputs, see `Progress`.
        confirm_prune: the revision at which the user lets many secrets go, or None.
        confirm_rollback: the revision to which the user lets a verified source go back, or None.
        history: revisions that were applied.
        applied: the last of them.
        look: whether the user asked for this reconcile, so that the store is looked at in any case.
        retry: whether it is tried once more what failed the last time.
        since: by the monotonic clock: a look at the store from then on is new enough; None asks for a new one.
    """

    namespace: str
    name: str
    generation: int
    spec: Spec
    inventory: Inventory
    settled_key: str | None = None
    inputs_key: str | None = None
    confirm_prune: str | None = None
    confirm_rollback: str | None = None
    history: History = ()
    applied: str | None = None
    look: bool = False
    retry: bool = False
    since: float | None = None

    @property
    def key(self) -> str:
        """The request key, `namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(slots=True)
class Progress:
    """How far a reconcile came; filled on the way, so that a failure can be told with it.

    Attributes:
        settled_key: fingerprint of the revision and all else that decides the desired state.
        inputs_key: the same with the files that the object reads in place of the whole revision.
        keys: the SOPS keys, once they were found.
        key_namespaces: where they were looked for.
    """

    revision: str | None = None
    settled_key: str | None = None
    inputs_key: str | None = None
    keys: KeyRing | None = None
    key_namespaces: tuple[str, ...] = ()


def check_rollback(request: Request, revision: Revision) -> None:
    """Hold an old revision where signatures are required: an old one's is as good as ever, and who replays it has it.

    Raises:
        PermanentError: RevisionWentBack.
    """
    back = went_back(request.history, applied=request.applied, revision=revision.revision)
    if request.spec.require_verified_source and back and request.confirm_rollback != revision.revision:
        raise PermanentError(
            Reason.REVISION_WENT_BACK,
            f"the source went back to {foreign(revision.revision)}, which was applied before "
            f"{foreign(request.applied)}; since spec.requireVerifiedSource is set, annotate the object with "
            f"{CONFIRM_ROLLBACK}=<that revision> to apply it",
        )


def settled_key(request: Request, revision: Revision, keys: KeyRing, grants: Grants) -> str:
    """Return the fingerprint of all that decides the desired state: spec, source, keys, and how we render."""
    shown = grants.source.paths or ()
    return _fingerprint(request, "\0".join((revision.digest, *shown)), keys)


def inputs_key(request: Request, digest: str, keys: KeyRing) -> str:
    """Return the same with the digest of the files that the object reads."""
    return _fingerprint(request, f"inputs:{digest}", keys)


def _fingerprint(request: Request, source: str, keys: KeyRing) -> str:
    parts = (RENDERING_VERSION, str(request.generation), source, keys.id, request.confirm_prune or "")
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
