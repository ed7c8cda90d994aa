"""What a spec may ask for and this version cannot do yet. Every line here is the promise of a later one."""

from __future__ import annotations

from collections.abc import Iterator

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
        for option in _missing_options(provider.aws):
            yield f"{option} of the store aws", "remove it"
    if spec.otel is not None:
        yield "spec.otel", "remove it"


def _missing_options(store: AwsStore) -> Iterator[str]:
    options = {"kmsKeyId": store.kms_key_id, "description": store.description, "tags": store.tags}
    yield from (name for name, value in options.items() if value is not None)
