"""The spec of a SecretManagerConfig: one set of models, from which the CRD, its documentation and the parser come.

What belongs here: the fields, their limits and rules. What must not: what a field makes the controller do.
"""

from secret_manager_controller.model.plan import Adoption, UpdatePolicy
from secret_manager_controller.model.spec.auth import (
    AwsAuth,
    AwsAuthType,
    AzureAuth,
    AzureAuthType,
    GcpAuth,
    GcpAuthType,
)
from secret_manager_controller.model.spec.deprecations import deprecations
from secret_manager_controller.model.spec.otel import Otel, OtelType, OtlpProtocol
from secret_manager_controller.model.spec.parse import parse_spec
from secret_manager_controller.model.spec.secrets import Secrets
from secret_manager_controller.model.spec.source import GitCredentials, SourceKind, SourceRef
from secret_manager_controller.model.spec.spec import DeletionPolicy, Spec
from secret_manager_controller.model.spec.stores import AwsStore, AzureStore, GcpStore, Provider, ProviderType

__all__ = [
    "Adoption",
    "AwsAuth",
    "AwsAuthType",
    "AwsStore",
    "AzureAuth",
    "AzureAuthType",
    "AzureStore",
    "DeletionPolicy",
    "GcpAuth",
    "GcpAuthType",
    "GcpStore",
    "GitCredentials",
    "Otel",
    "OtelType",
    "OtlpProtocol",
    "Provider",
    "ProviderType",
    "Secrets",
    "SourceKind",
    "SourceRef",
    "Spec",
    "UpdatePolicy",
    "deprecations",
    "parse_spec",
]
