"""What a spec may ask for and this version cannot do yet. Every line here is the promise of a later one."""

from __future__ import annotations

from collections.abc import Iterator

from secret_manager_controller.model.spec.auth import AwsAuthType
from secret_manager_controller.model.spec.source import SourceKind
from secret_manager_controller.model.spec.spec import Spec
from secret_manager_controller.model.spec.stores import AwsStore, ProviderType


def not_implemented(spec: Spec) -> str | None:
    """Return the sentence that names what of a valid spec this version cannot do; None if it can do everything."""
    first = next(_missing(spec), None)
    if first is None:
        return None
    path, instead = first
    return f"{path} is not implemented in this version; {instead}"


def _missing(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield each field that is not implemented, and what to do until it is."""
    source, provider = spec.source_ref, spec.provider
    if source.kind is not SourceKind.GIT_REPOSITORY:
        yield f"spec.sourceRef.kind {source.kind}", "use a GitRepository"
    if source.git_credentials is not None:
        yield "spec.sourceRef.gitCredentials", "use a GitRepository"
    if spec.require_verified_source:
        yield "spec.requireVerifiedSource", "remove it"
    if provider.type is not ProviderType.AWS:
        yield f"provider type {provider.type}", "use aws"
    if spec.secrets.kustomize_path is not None:
        yield "spec.secrets.kustomizePath", "use files and spec.secrets.basePath"
    if provider.aws is not None:
        yield from _missing_of_aws(provider.aws)
    if spec.otel is not None:
        yield "spec.otel", "remove it"


def _missing_of_aws(store: AwsStore) -> Iterator[tuple[str, str]]:
    auth = store.auth
    if auth is not None and auth.auth_type is AwsAuthType.ACCESS_KEYS and auth.role_arn is not None:
        yield "roleArn of the store aws with authType AccessKeys", "use authType Irsa or remove it"
    for name, value in (("kmsKeyId", store.kms_key_id), ("description", store.description), ("tags", store.tags)):
        if value is not None:
            yield f"{name} of the store aws", "remove it"
