"""Who may refer to what: decided from the spec alone, before anything foreign is read.

There is one mode for now, `shared`: one team's cluster. A source may be in any namespace; Secrets are read in the
object's own namespace and in the controller's, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from secret_manager_controller.errors import AccessDenied, foreign
from secret_manager_controller.model.spec import Spec


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
    """

    kind: str
    namespace: str
    name: str
    require_verified: bool = False
    source_name: str | None = None
    git_credentials: SecretGrant | None = None


@dataclass(frozen=True, slots=True)
class Grants:
    """Everything outside the object itself that its reconcile may read.

    Attributes:
        credentials: the Secret with the login to the store, if the spec names one.
        key_namespaces: where SOPS keys are looked for; the first that has any wins.
    """

    source: SourceGrant
    credentials: SecretGrant | None
    key_namespaces: tuple[str, ...]


def authorize(spec: Spec, *, namespace: str, controller_namespace: str) -> Grants:
    """Return what an object may read.

    Args:
        spec: the object's spec.
        namespace: the object's namespace.
        controller_namespace: the controller's own.

    Raises:
        AccessDenied: the spec refers to a Secret of another tenant.
    """
    reference = spec.source_ref
    auth, login = spec.provider.auth, reference.git_credentials
    credentials = None
    if auth is not None and auth.secret_name is not None:
        credentials = SecretGrant(auth.secret_namespace or namespace, auth.secret_name)
        if credentials.namespace not in (namespace, controller_namespace):
            raise AccessDenied(
                f"spec.provider.{spec.provider.type}.auth.secretNamespace {foreign(credentials.namespace)!r} is "
                f"neither the object's own namespace nor the controller's ({controller_namespace!r}); move the Secret "
                "there"
            )
    return Grants(
        source=SourceGrant(
            reference.kind,
            reference.namespace or namespace,
            reference.name,
            require_verified=spec.require_verified_source,
            source_name=reference.source_name,
            git_credentials=None if login is None else SecretGrant(namespace, login.secret_name),
        ),
        credentials=credentials,
        key_namespaces=tuple(dict.fromkeys((namespace, controller_namespace))),
    )
