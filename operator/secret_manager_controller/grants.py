"""What an object may refer to and write to, as `tenancy` decided. Values; pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from secret_manager_controller.errors import AccessDenied, ControllerError, foreign
from secret_manager_controller.model.secret import SecretName

NAMES_TOLD = 3
"""So many names outside of a grant are told; the others are counted."""


class Mode(enum.StrEnum):
    """What holds where no policy says otherwise."""

    SHARED = "shared"
    """One team: every reference is granted."""
    ISOLATED = "isolated"
    """Several tenants: what is outside of an object's own namespace needs a grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenancy:
    """What is set for the whole controller.

    Attributes:
        controller_namespace: the controller's own.
        controller_account: the AWS account of the controller's own role, if it is known.
        git_hosts: the Git servers that Applications' repositories may be on; in mode shared, without any, all.
    """

    controller_namespace: str
    mode: Mode = Mode.SHARED
    controller_account: str | None = None
    git_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretGrant:
    """One Secret that may be read."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class SourceGrant:
    """The one source object that may be read.

    Attributes:
        require_verified: whether only a revision will do whose signature the source has verified.
        source_name: which of an Application's sources is read.
        git_credentials: the Secret with the login to an Application's repository, in the object's own namespace.
        paths: the directories of it that may be read, each with all below it; None for all of it.
        artifact_hosts: hosts that its files may be fetched from beside the controller's own.
        git_hosts: hosts that an Application's repository may be on; None for any.
    """

    kind: str
    namespace: str
    name: str
    require_verified: bool = False
    source_name: str | None = None
    git_credentials: SecretGrant | None = None
    paths: tuple[str, ...] | None = None
    artifact_hosts: tuple[str, ...] = ()
    git_hosts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Grants:
    """Everything outside the object itself that its reconcile may read or write.

    Attributes:
        credentials: the Secret with the login to the store, if the spec names one.
        key_namespaces: where SOPS keys are looked for; the first that has any wins.
        name_prefixes: how the names of its secrets must begin; None for any name.
        ignore_case: whether the store takes names for the same that differ only in case, as Azure does.
        missing_keys: what grants the controller's SOPS keys, where they are not granted.
        kms_keys: the keys of a KMS that may unwrap SOPS data keys; None where the controller's setting decides.
    """

    source: SourceGrant
    credentials: SecretGrant | None
    key_namespaces: tuple[str, ...]
    name_prefixes: tuple[str, ...] | None = None
    ignore_case: bool = False
    missing_keys: str | None = None
    kms_keys: tuple[str, ...] | None = None

    def check_names(self, names: Iterable[SecretName]) -> None:
        """Refuse names that no grant covers; called before the store hears any of them.

        Raises:
            AccessDenied: names some of them, and the prefixes that are granted.
        """
        if self.name_prefixes is None:
            return
        prefixes = tuple(map(self._plain, self.name_prefixes))
        outside = sorted(name for name in names if not self._plain(name).startswith(prefixes))
        if outside:
            more = f" and {len(outside) - NAMES_TOLD} more" if len(outside) > NAMES_TOLD else ""
            raise AccessDenied(
                f"secrets {', '.join(map(foreign, outside[:NAMES_TOLD]))}{more} do not begin with "
                f"{' or '.join(map(repr, self.name_prefixes))}, which is what the policies grant in this store; "
                "correct spec.secrets.prefix, or have it added to spec.stores[].namePrefixes of a SecretManagerPolicy"
            )

    def _plain(self, name: str) -> str:
        return name.lower() if self.ignore_case else name


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one reference of a spec.

    Attributes:
        field: the reference's path in the object.
        target: what it refers to, for people.
        granted_by: what grants it; None where nothing does.
        missing: the grant that is missing, where it is.
        stops: whether the object stops where it is; where its traces go decides nothing about its secrets.
    """

    field: str
    target: str
    granted_by: str | None
    missing: str | None = None
    stops: bool = True


@dataclass(frozen=True, slots=True)
class Access:
    """What was decided about an object, once for a turn.

    Attributes:
        grants: what its reconcile may read and write, or what stops it.
        untraced: why its traces go nowhere; None where they may go where its spec says.
    """

    grants: Grants | ControllerError
    untraced: ControllerError | None = None

    def granted(self) -> Grants:
        """Return the grants.

        Raises:
            ControllerError: there are none.
        """
        if isinstance(self.grants, ControllerError):
            raise self.grants
        return self.grants
