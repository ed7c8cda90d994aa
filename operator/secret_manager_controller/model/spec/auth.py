"""`spec.provider.*.auth`: how to log in to a store; without the block or a type, as the workload itself."""

from __future__ import annotations

import enum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from secret_manager_controller.model.spec.base import (
    Block,
    DataKey,
    FromJson,
    NamespaceName,
    ObjectName,
    Rule,
    Why,
    text,
)

# https://cloud.google.com/iam/docs/service-accounts-create: it becomes part of a URL, so nothing else gets in.
ServiceAccountEmail = Annotated[str, text(r"^[A-Za-z0-9.-]+@[A-Za-z0-9.-]+$", longest=254)]
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
RoleArn = Annotated[
    str,
    text(longest=2048),
    Rule.match(
        "arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+",
        "must be a role's ARN, such as arn:aws:iam::123456789012:role/secret-manager",
    ),
]
Uuid = Annotated[str, text("^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$", longest=36)]

_ALIAS = "The same as authType, under the name that it had before."
_SECRET_NAMESPACE = "Namespace of that Secret; the object's own by default."  # noqa: S105 - a description.


class GcpAuthType(enum.StrEnum):
    """How to log in to Google Cloud."""

    WORKLOAD_IDENTITY = "WorkloadIdentity"
    JSON_CREDENTIALS = "JsonCredentials"


class AwsAuthType(enum.StrEnum):
    """How to log in to AWS."""

    IRSA = "Irsa"
    ACCESS_KEYS = "AccessKeys"


class AzureAuthType(enum.StrEnum):
    """How to log in to Azure."""

    WORKLOAD_IDENTITY = "WorkloadIdentity"
    SERVICE_PRINCIPAL = "ServicePrincipal"


def _rules(*, default: enum.StrEnum, stored: enum.StrEnum) -> tuple[Rule, ...]:
    """Return the rules of every login: one type, and no Secret that would silently be ignored."""

    def names_needless_secret(auth: Any) -> bool:
        return auth.secret_name is not None and auth.auth_type is not stored

    given = f"(has(self.authType) ? self.authType : has(self.type) ? self.type : '{default}')"
    return (
        Rule(
            cel="!has(self.authType) || !has(self.type) || self.authType == self.type",
            holds=lambda auth: (
                None in (auth.declared_auth_type, auth.declared_type) or auth.declared_auth_type is auth.declared_type
            ),
            message="is another name of authType and says something else; remove it",
            field="type",
        ),
        Rule(
            cel=f"!has(self.secretName) || {given} == '{stored}'",
            holds=lambda auth: not names_needless_secret(auth),
            message=f"is for authType {stored}; set authType: {stored} or remove it",
            why=Why.FORBIDDEN,
            field="secretName",
        ),
    )


class GcpAuth(Block):
    """The login to Google Cloud."""

    declared_auth_type: FromJson[GcpAuthType] | None = Field(
        default=None,
        alias="authType",
        description="WorkloadIdentity (the default): the controller's own identity, or one federated from a service "
        "account token. JsonCredentials: a service account's key, from a Secret or from the file that "
        "GOOGLE_APPLICATION_CREDENTIALS names in the controller; deprecated by Google.",
    )
    declared_type: FromJson[GcpAuthType] | None = Field(default=None, alias="type", description=_ALIAS)
    service_account_email: ServiceAccountEmail | None = Field(
        default=None, description="Service account to impersonate, such as smc@my-project.iam.gserviceaccount.com."
    )
    secret_name: ObjectName | None = Field(
        default=None, description="Secret with the key. Only with authType JsonCredentials."
    )
    secret_namespace: NamespaceName | None = Field(default=None, description=_SECRET_NAMESPACE)
    secret_key: DataKey = Field(default="key.json", description="The Secret's data key with the JSON document.")

    RULES: ClassVar[tuple[Rule, ...]] = _rules(
        default=GcpAuthType.WORKLOAD_IDENTITY, stored=GcpAuthType.JSON_CREDENTIALS
    )

    @property
    def auth_type(self) -> GcpAuthType:
        """The kind of login, under whichever name it was given."""
        return self.declared_auth_type or self.declared_type or GcpAuthType.WORKLOAD_IDENTITY


class AwsAuth(Block):
    """The login to AWS."""

    declared_auth_type: FromJson[AwsAuthType] | None = Field(
        default=None,
        alias="authType",
        description="Irsa (the default): the role of the controller's service account. AccessKeys: an access key, from "
        "a Secret or from the controller's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; discouraged by AWS.",
    )
    declared_type: FromJson[AwsAuthType] | None = Field(default=None, alias="type", description=_ALIAS)
    role_arn: RoleArn | None = Field(
        default=None, description="Role to assume, such as arn:aws:iam::123456789012:role/secret-manager."
    )
    secret_name: ObjectName | None = Field(
        default=None, description="Secret with the access key. Only with authType AccessKeys."
    )
    secret_namespace: NamespaceName | None = Field(default=None, description=_SECRET_NAMESPACE)
    access_key_id_key: DataKey = Field(
        default="access-key-id", description="The Secret's data key with the access key's id."
    )
    secret_access_key_key: DataKey = Field(
        default="secret-access-key", description="The Secret's data key with the secret access key."
    )
    session_token_key: DataKey | None = Field(
        default=None, description="The Secret's data key with a session token, for temporary access keys."
    )

    RULES: ClassVar[tuple[Rule, ...]] = _rules(default=AwsAuthType.IRSA, stored=AwsAuthType.ACCESS_KEYS)

    @property
    def auth_type(self) -> AwsAuthType:
        """The kind of login, under whichever name it was given."""
        return self.declared_auth_type or self.declared_type or AwsAuthType.IRSA


class AzureAuth(Block):
    """The login to Azure."""

    declared_auth_type: FromJson[AzureAuthType] | None = Field(
        default=None,
        alias="authType",
        description="WorkloadIdentity (the default): the controller's federated identity. ServicePrincipal: a client "
        "secret, from a Secret or from the controller's AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID; "
        "discouraged by Azure.",
    )
    declared_type: FromJson[AzureAuthType] | None = Field(default=None, alias="type", description=_ALIAS)
    client_id: Uuid | None = Field(
        default=None, description="Client id of the managed identity or application; AZURE_CLIENT_ID by default."
    )
    secret_name: ObjectName | None = Field(
        default=None, description="Secret with the client secret. Only with authType ServicePrincipal."
    )
    secret_namespace: NamespaceName | None = Field(default=None, description=_SECRET_NAMESPACE)

    RULES: ClassVar[tuple[Rule, ...]] = _rules(
        default=AzureAuthType.WORKLOAD_IDENTITY, stored=AzureAuthType.SERVICE_PRINCIPAL
    )

    @property
    def auth_type(self) -> AzureAuthType:
        """The kind of login, under whichever name it was given."""
        return self.declared_auth_type or self.declared_type or AzureAuthType.WORKLOAD_IDENTITY
