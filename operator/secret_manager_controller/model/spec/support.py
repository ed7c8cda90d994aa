"""What a spec may ask for and this version cannot do yet. Every line here is the promise of a later one."""

from __future__ import annotations

from collections.abc import Iterator

from secret_manager_controller.model.spec.spec import Spec
from secret_manager_controller.model.spec.stores import AwsStore


def not_implemented(spec: Spec) -> str | None:
    """Return the sentence that names what of a valid spec this version cannot do; None if it can do everything."""
    missing = [f"{field} ({instead})" for field, instead in _missing(spec)]
    return f"not implemented in this version: {', '.join(missing)}" if missing else None


def _missing(spec: Spec) -> Iterator[tuple[str, str]]:
    """Yield each field that is not implemented, and what to do until it is."""
    provider = spec.provider
    short = spec.declared_provider is None
    if provider.aws is not None:
        for option, instead in _missing_of_aws(provider.aws):
            yield f"{'spec.aws' if short else 'spec.provider.aws'}.{option}", instead


def _missing_of_aws(store: AwsStore) -> Iterator[tuple[str, str]]:
    for name, value in (("kmsKeyId", store.kms_key_id), ("description", store.description), ("tags", store.tags)):
        if value is not None:
            yield name, "remove it"
