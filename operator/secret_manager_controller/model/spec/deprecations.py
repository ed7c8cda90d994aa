"""What of a valid spec works and has a better successor: told once, in an Event."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from secret_manager_controller.model.spec.auth import AwsAuthType, AzureAuthType, GcpAuthType
from secret_manager_controller.model.spec.spec import Spec

_SUCCESSORS: Mapping[enum.StrEnum, enum.StrEnum] = {
    GcpAuthType.JSON_CREDENTIALS: GcpAuthType.WORKLOAD_IDENTITY,
    AwsAuthType.ACCESS_KEYS: AwsAuthType.IRSA,
    AzureAuthType.SERVICE_PRINCIPAL: AzureAuthType.WORKLOAD_IDENTITY,
}
"""Logins whose keys hold until somebody replaces them, and those of the same cloud whose tokens end by themselves."""


def deprecations(spec: Spec) -> tuple[str, ...]:
    """Return a sentence for each deprecated thing that a spec uses: what it is, why, and what to use instead."""
    auth = spec.provider.auth
    if auth is None or (successor := _SUCCESSORS.get(auth.auth_type)) is None:
        return ()
    store = f"spec.{spec.provider.type}" if spec.declared_provider is None else f"spec.provider.{spec.provider.type}"
    what = f"{store}.auth.authType {auth.auth_type}"
    return (f"{what} is deprecated: such a key holds until somebody replaces it; use {successor}",)
