"""Who may refer to and write to what: decided from specs and policies alone, before anything foreign is read.

In mode `shared` (one team's cluster) everything is granted. In mode `isolated` whatever is outside of an object's own
namespace needs a grant of a `SecretManagerPolicy` for that namespace; policies add up, and nothing is denied by one.

`explain` decides every reference of a spec, `authorize` turns the decisions into grants or refuses. Both are pure.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from secret_manager_controller.errors import AccessDenied, foreign
from secret_manager_controller.grants import Access, Decision, Grants, Mode, SecretGrant, SourceGrant, Tenancy
from secret_manager_controller.model.hosts import host_matches
from secret_manager_controller.model.policy import GrantedAws, GrantedSource, GrantedStore, Policy
from secret_manager_controller.model.spec import AwsAuth, AwsStore, AzureAuth, GcpAuth, ProviderType, Spec

OWN = "it is in the object's own namespace"
MODE_SHARED = "mode shared grants everything"


def decide(spec: Spec, *, namespace: str, tenancy: Tenancy, policies: Sequence[Policy] = ()) -> Access:
    """Decide what an object may reach, and apart from that where its traces may go; see `authorize`.

    Who is denied a store needs the trace of that the more; and no denied host of traces keeps secrets from a store.
    """
    decisions = explain(spec, namespace=namespace, tenancy=tenancy, policies=policies)
    untraced = [one for one in decisions if one.missing and not one.stops]
    denied = AccessDenied(f"no traces: {_denied(untraced)}") if untraced else None
    try:
        return Access(_granted(decisions, spec, namespace, tenancy, policies), denied)
    except AccessDenied as error:
        return Access(error, denied)


def authorize(spec: Spec, *, namespace: str, tenancy: Tenancy, policies: Sequence[Policy] = ()) -> Grants:
    """Return what an object may read and write.

    Args:
        spec: the object's spec.
        namespace: the object's namespace.
        tenancy: what is set for the whole controller.
        policies: those for the object's namespace.

    Raises:
        AccessDenied: names each reference that no grant covers, and the grant that is missing.
    """
    decisions = explain(spec, namespace=namespace, tenancy=tenancy, policies=policies)
    return _granted(decisions, spec, namespace, tenancy, policies)


def _granted(
    decisions: Iterable[Decision], spec: Spec, namespace: str, tenancy: Tenancy, policies: Sequence[Policy]
) -> Grants:
    """Return what decisions about a spec come to; see `authorize`."""
    if denied := [one for one in decisions if one.missing and one.stops]:
        raise AccessDenied(_denied(denied))
    source = _source_grant(spec, namespace)
    credentials = _credentials_of(spec, namespace)
    if tenancy.mode is Mode.SHARED:
        return Grants(
            source=replace(source, git_hosts=tenancy.git_hosts or None),
            credentials=credentials,
            key_namespaces=tuple(dict.fromkeys((namespace, tenancy.controller_namespace))),
        )
    paths, controller_keys = _reach(spec, namespace, policies)
    artifact_hosts = tuple(host for policy in policies for host in policy.spec.artifact_hosts)
    git_hosts = (*tenancy.git_hosts, *(host for policy in policies for host in policy.spec.git_hosts))
    with_controller = (namespace, tenancy.controller_namespace) if controller_keys else (namespace,)
    return Grants(
        source=replace(source, paths=paths, artifact_hosts=artifact_hosts, git_hosts=git_hosts),
        credentials=credentials,
        key_namespaces=tuple(dict.fromkeys(with_controller)),
        name_prefixes=_prefixes(spec, tenancy, policies),
        ignore_case=spec.provider.type is ProviderType.AZURE,
        missing_keys=None if tenancy.controller_namespace in with_controller else _missing_keys(spec, namespace),
        kms_keys=tuple(key for policy in policies for key in policy.spec.kms_keys),
    )


def explain(spec: Spec, *, namespace: str, tenancy: Tenancy, policies: Sequence[Policy] = ()) -> tuple[Decision, ...]:
    """Decide every reference of a spec; see `authorize` for the arguments."""
    decisions = (
        _about_source(spec, namespace, policies),
        _about_store(spec, tenancy, policies),
        _about_credentials(spec, namespace, policies),
        _about_telemetry(spec, policies),
    )
    found = tuple(decision for decision in decisions if decision is not None)
    if tenancy.mode is Mode.SHARED:
        return tuple(Decision(one.field, one.target, MODE_SHARED) for one in found)
    return found


# --- sources


def _source_of(spec: Spec, namespace: str) -> tuple[str, str, str]:
    reference = spec.source_ref
    return str(reference.kind), reference.namespace or namespace, reference.name


def _source_grant(spec: Spec, namespace: str) -> SourceGrant:
    reference, login = spec.source_ref, spec.source_ref.git_credentials
    return SourceGrant(
        *_source_of(spec, namespace),
        require_verified=spec.require_verified_source,
        source_name=reference.source_name,
        git_credentials=None if login is None else SecretGrant(namespace, login.secret_name),
    )


def _directory_of(spec: Spec) -> str:
    """Return the directory of the source that the object reads; empty for all of it."""
    path = spec.secrets.kustomize_path or spec.secrets.base_path or ""
    return "/".join(name for name in path.split("/") if name not in {"", "."})


def _covering(spec: Spec, namespace: str, policies: Sequence[Policy]) -> Iterator[tuple[str, GrantedSource]]:
    """Yield the grants that cover source and directory, each with where it stands."""
    source, directory = _source_of(spec, namespace), _directory_of(spec)
    for policy in policies:
        for number, grant in enumerate(policy.spec.sources):
            same = (str(grant.kind), grant.namespace, grant.name) == source
            if same and (not grant.paths or any(is_below(directory, path) for path in grant.paths)):
                yield f"SecretManagerPolicy {policy.name}, spec.sources[{number}]", grant


def is_below(path: str, directory: str) -> bool:
    """Tell whether a path, without `.` and `..` in it, is a directory or lies below it."""
    return path == directory or path.startswith(f"{directory}/")


def _about_source(spec: Spec, namespace: str, policies: Sequence[Policy]) -> Decision:
    kind, source_namespace, name = _source_of(spec, namespace)
    directory = _directory_of(spec)
    target = f"{kind} {source_namespace}/{name}" + (
        f", directory {foreign(directory)!r}" if directory else ", all of it"
    )
    by = (
        OWN
        if source_namespace == namespace
        else next((where for where, _ in _covering(spec, namespace, policies)), None)
    )
    if by is not None:
        return Decision("spec.sourceRef", target, by)
    paths = f", paths: [{foreign(directory)}]" if directory else ""
    entry = f"{{kind: {kind}, namespace: {source_namespace}, name: {name}{paths}}}"
    return Decision("spec.sourceRef", target, None, _missing(namespace, "sources", entry))


def _reach(spec: Spec, namespace: str, policies: Sequence[Policy]) -> tuple[tuple[str, ...] | None, bool]:
    """Return the directories of the source that may be read (None for all), and whether the controller's keys are.

    Where the keys are granted, only the directories of those grants are read: a build must not carry files of another
    directory to them.
    """
    covering = [grant for _, grant in _covering(spec, namespace, policies)]
    with_keys = [grant for grant in covering if grant.controller_keys]
    if not with_keys and _source_of(spec, namespace)[1] == namespace:
        return None, False
    counted = with_keys or covering
    if any(not grant.paths for grant in counted):
        return None, bool(with_keys)
    return tuple(dict.fromkeys(path for grant in counted for path in grant.paths)), bool(with_keys)


def _missing_keys(spec: Spec, namespace: str) -> str:
    kind, source_namespace, name = _source_of(spec, namespace)
    return (
        f"make a key Secret in namespace {namespace!r}, or have controllerKeys: true set for {kind} "
        f"{source_namespace}/{name} in spec.sources of a SecretManagerPolicy for it"
    )


# --- stores


def _about_store(spec: Spec, tenancy: Tenancy, policies: Sequence[Policy]) -> Decision:
    field = (
        f"spec.provider.{spec.provider.type}" if spec.declared_provider is not None else f"spec.{spec.provider.type}"
    )
    place, entry = _store_told(spec)
    by = next((where for where, _ in _stores(spec, tenancy, policies)), None)
    if by is not None:
        return Decision(field, place, by)
    return Decision(field, place, None, _missing(None, "stores", entry))


def _stores(spec: Spec, tenancy: Tenancy, policies: Sequence[Policy]) -> Iterator[tuple[str, GrantedStore]]:
    """Yield the grants that cover the object's store and login, each with where it stands."""
    for policy in policies:
        for number, grant in enumerate(policy.spec.stores):
            if _covers_store(grant, spec, tenancy):
                yield f"SecretManagerPolicy {policy.name}, spec.stores[{number}]", grant


def _covers_store(grant: GrantedStore, spec: Spec, tenancy: Tenancy) -> bool:
    store = spec.provider
    if grant.gcp is not None and store.gcp is not None:
        named = None if store.gcp.auth is None else store.gcp.auth.service_account_email
        return grant.gcp.project_id == store.gcp.project_id and _among(named, grant.gcp.service_account_emails)
    if grant.azure is not None and store.azure is not None:
        named = None if store.azure.auth is None else store.azure.auth.client_id
        # Vault names are host names: without case.
        same = grant.azure.vault_name.lower() == store.azure.vault_name.lower()
        return same and _among(named, grant.azure.client_ids)
    if grant.aws is not None and store.aws is not None:
        return grant.aws.region == store.aws.region and _covers_aws_login(grant.aws, store.aws, tenancy)
    return False


def _covers_aws_login(grant: GrantedAws, store: AwsStore, tenancy: Tenancy) -> bool:
    auth = store.auth
    if auth is not None and auth.role_arn is not None:
        account = auth.role_arn.split(":")[4]
        return auth.role_arn in grant.role_arns and grant.account_id in (None, account)
    if auth is not None and auth.secret_name is not None:
        return True  # What the keys of a granted Secret open is for whoever put them there to say.
    return grant.account_id in (None, tenancy.controller_account)


def _among(named: str | None, granted: tuple[str, ...]) -> bool:
    return named is None or named.lower() in {one.lower() for one in granted}


def _prefixes(spec: Spec, tenancy: Tenancy, policies: Sequence[Policy]) -> tuple[str, ...] | None:
    granted = [grant.name_prefixes for _, grant in _stores(spec, tenancy, policies)]
    if any(not prefixes for prefixes in granted):
        return None
    return tuple(dict.fromkeys(prefix for prefixes in granted for prefix in prefixes))


def _store_told(spec: Spec) -> tuple[str, str]:
    """Return an object's store and named login for people, and the grant that would cover it."""
    store = spec.provider
    if store.gcp is not None:
        named = None if store.gcp.auth is None else store.gcp.auth.service_account_email
        login = "" if named is None else f", serviceAccountEmails: [{named}]"
        return _told(f"project {store.gcp.project_id}", named), f"{{gcp: {{projectId: {store.gcp.project_id}{login}}}}}"
    if store.azure is not None:
        named = None if store.azure.auth is None else store.azure.auth.client_id
        login = "" if named is None else f", clientIds: [{named}]"
        return _told(
            f"vault {store.azure.vault_name}", named
        ), f"{{azure: {{vaultName: {store.azure.vault_name}{login}}}}}"
    assert store.aws is not None  # One of the three, by the spec's rules.
    named = None if store.aws.auth is None else store.aws.auth.role_arn
    login = "" if named is None else f", roleArns: [{named}]"
    return _told(f"region {store.aws.region}", named), f"{{aws: {{region: {store.aws.region}{login}}}}}"


def _told(place: str, named: str | None) -> str:
    return place if named is None else f"{place} as {foreign(named)}"


# --- credentials and telemetry


def _credentials_of(spec: Spec, namespace: str) -> SecretGrant | None:
    auth: GcpAuth | AwsAuth | AzureAuth | None = spec.provider.auth
    if auth is None or auth.secret_name is None:
        return None
    return SecretGrant(auth.secret_namespace or namespace, auth.secret_name)


def _about_credentials(spec: Spec, namespace: str, policies: Sequence[Policy]) -> Decision | None:
    secret = _credentials_of(spec, namespace)
    if secret is None:
        return None
    short = "" if spec.declared_provider is None else "provider."
    field = f"spec.{short}{spec.provider.type}.auth.secretNamespace"
    target = f"Secret {secret.namespace}/{secret.name}"
    if secret.namespace == namespace:
        return Decision(field.replace("secretNamespace", "secretName"), target, OWN)
    for policy in policies:
        for number, grant in enumerate(policy.spec.credentials):
            if (grant.namespace, grant.name) == (secret.namespace, secret.name):
                return Decision(field, target, f"SecretManagerPolicy {policy.name}, spec.credentials[{number}]")
    entry = f"{{namespace: {secret.namespace}, name: {secret.name}}}"
    return Decision(field, target, None, _missing(namespace, "credentials", entry))


def _about_telemetry(spec: Spec, policies: Sequence[Policy]) -> Decision | None:
    otel = spec.otel
    if otel is None:
        return None
    if otel.endpoint is not None:
        field, host = "spec.otel.endpoint", urllib.parse.urlsplit(otel.endpoint).hostname or ""
    elif otel.site is not None:
        field, host = "spec.otel.site", otel.site
    else:
        return Decision("spec.otel", "the controller's own Datadog agent", "it is the controller's own")
    target = f"host {foreign(host)}"
    for policy in policies:
        if host_matches(host, policy.spec.telemetry_hosts):
            return Decision(field, target, f"SecretManagerPolicy {policy.name}, spec.telemetryHosts")
    return Decision(field, target, None, _missing(None, "telemetryHosts", foreign(host)), stops=False)


def _denied(decisions: Iterable[Decision]) -> str:
    return "; ".join(f"{one.field} names {one.target}, and {one.missing}" for one in decisions)


def _missing(namespace: str | None, field: str, entry: str) -> str:
    whose = "its namespace" if namespace is None else f"namespace {namespace!r}"
    return f"no SecretManagerPolicy for {whose} has in spec.{field}: {entry}"
