"""The stores: which one, how to log in to it, and what its secrets are like.

An option that is absent is not managed: what the store has there stays as it is.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.spec.auth import AwsAuth, AzureAuth, GcpAuth
from secret_manager_controller.model.spec.base import RULE_ERROR, Block, FromJson, Rule, Why, text

_LOGIN = "How to log in; by default {default}."


def _key_rule(*, cel: str, holds: Callable[[str], bool], message: str) -> Rule:
    """Return a rule for every key of a map: a structural schema can limit the values only."""
    return Rule(cel=f"self.all(key, {cel})", holds=lambda keys: all(map(holds, keys)), message=message)


def _owner_mark_rule(prefix: str) -> Rule:
    return _key_rule(
        cel=f"key != 'managed-by' && !key.startsWith('{prefix}')",
        holds=lambda key: key != "managed-by" and not key.startswith(prefix),
        message=f"must leave managed-by and {prefix}… to the owner marks; remove them",
    )


_OWNER_MARK_RULE = _owner_mark_rule(f"{GROUP}/")

# https://cloud.google.com/resource-manager/docs/creating-managing-projects; older ones have a domain before a colon.
ProjectId = Annotated[
    str,
    text(longest=100),
    Rule.match(
        "([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]",
        "must be a project's id, such as my-project-123; neither its title nor its number",
    ),
]
GcpLocation = Annotated[str, text("^[a-z]+-[a-z]+[0-9]+$", longest=63)]
CryptoKeyName = Annotated[
    str,
    text("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", longest=512),
]
# https://cloud.google.com/resource-manager/docs/labels-overview#requirements: of 64, some are our owner marks.
_GCP_KEY = "[a-z][a-z0-9_-]{0,62}"
GcpLabels = Annotated[
    Mapping[str, Annotated[str, text("^[a-z0-9_-]*$", longest=63)]],
    Field(max_length=50),
    _key_rule(
        cel=f"key.matches('^{_GCP_KEY}$')",
        holds=lambda key: re.fullmatch(_GCP_KEY, key) is not None,
        message="must have keys of 1 to 63 lower-case letters, digits, '_' and '-' that begin with a letter",
    ),
    _key_rule(
        cel="key != 'managed-by' && !key.startsWith('smc_')",
        holds=lambda key: key != "managed-by" and not key.startswith("smc_"),
        message="must leave managed-by and smc_… to the owner marks; remove them",
    ),
]

# https://docs.aws.amazon.com/general/latest/gr/rande.html; it becomes part of a host name.
AwsRegion = Annotated[
    str,
    text(longest=32),
    Rule.match("[a-z]{2,6}(-[a-z]{2,12}){1,3}-[0-9]{1,2}", "must be a region's id, such as eu-central-1"),
]
# https://docs.aws.amazon.com/secretsmanager/latest/userguide/managing-secrets_tagging.html
# Of 50, some are our owner marks.
AwsTags = Annotated[
    Mapping[str, Annotated[str, text(longest=256)]],
    Field(max_length=40),
    _key_rule(
        cel="key.size() > 0 && key.size() <= 128 && !key.startsWith('aws:')",
        holds=lambda key: 0 < len(key) <= 128 and not key.startswith("aws:"),
        message="must have keys of 1 to 128 characters that do not begin with 'aws:'",
    ),
    _OWNER_MARK_RULE,
]

# https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates; it becomes part of a host name.
VaultName = Annotated[
    str,
    text(longest=127),
    Rule.match(
        "[A-Za-z][A-Za-z0-9-]{1,22}[A-Za-z0-9]",
        "must be the vault's name alone, without its domain: 3 to 24 letters, digits and '-'",
    ),
]
# Of a Key Vault secret's 15 tags, some are our owner marks.
AzureTags = Annotated[
    Mapping[str, Annotated[str, text(longest=256)]],
    Field(max_length=10),
    _key_rule(
        cel="key.size() > 0 && key.size() <= 256",
        holds=lambda key: 0 < len(key) <= 256,
        message="must have keys of 1 to 256 characters",
    ),
    _owner_mark_rule(f"{GROUP}_"),  # Azure Resource Manager allows no slash.
]


def _check_date(text: str) -> str:
    """Refuse the 30th of February; the API server does it by `format: date-time`."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise PydanticCustomError(RULE_ERROR, "{message}", {"message": "must be a date that exists"}) from None
    return text


UtcTime = Annotated[
    str,
    text("^2[0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z$", longest=20),
    AfterValidator(_check_date),
    Field(json_schema_extra={"format": "date-time"}),
]


class ProviderType(enum.StrEnum):
    """Whose store it is."""

    GCP = "gcp"
    AWS = "aws"
    AZURE = "azure"


class CustomerManagedEncryption(Block):
    """A key of the customer's own."""

    kms_key_name: CryptoKeyName = Field(
        description="Cloud KMS key: projects/…/locations/…/keyRings/…/cryptoKeys/….",
    )


class AutomaticReplication(Block):
    """Google chooses where the secret is kept."""

    customer_managed_encryption: CustomerManagedEncryption | None = Field(
        default=None, description="Key of your own to encrypt with; it must be in the location global."
    )


class Replica(Block):
    """One place where the secret is kept."""

    location: GcpLocation = Field(description="Location, such as europe-west1.")
    customer_managed_encryption: CustomerManagedEncryption | None = Field(
        default=None, description="Key of your own to encrypt with; it must be in this location."
    )


class UserManagedReplication(Block):
    """The secret is kept in the given places only."""

    replicas: FromJson[tuple[Replica, ...]] = Field(
        min_length=1,
        max_length=20,
        description="Where the secret is kept.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.replicas.all(one, self.replicas.exists_one(other, other.location == one.location))",
            holds=lambda block: len({replica.location for replica in block.replicas}) == len(block.replicas),
            message="name a location twice; list each one once",
            field="replicas",
        ),
    )


class Replication(Block):
    """Where a secret is kept: exactly one of the two."""

    automatic: AutomaticReplication | None = Field(default=None, description="Google chooses the places.")
    user_managed: UserManagedReplication | None = Field(default=None, description="Only in the given places.")

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="has(self.automatic) != has(self.userManaged)",
            holds=lambda block: (block.automatic is None) != (block.user_managed is None),
            message="must have exactly one of automatic and userManaged",
        ),
    )


class GcpStore(Block):
    """Google Secret Manager."""

    project_id: ProjectId = Field(description="Project that holds the secrets.")
    auth: GcpAuth | None = Field(default=None, description=_LOGIN.format(default="the workload's identity"))
    location: GcpLocation | None = Field(
        default=None, description="Makes the secrets regional ones of this location. Not with replication."
    )
    replication: Replication | None = Field(
        default=None,
        description="Where new secrets are kept; automatic by default. A secret never moves; its keys are replaced.",
    )
    labels: GcpLabels | None = Field(default=None, description="Labels of every secret, beside the owner marks.")
    keep_versions: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="How many versions of a secret to keep; older ones are disabled, and destroyed at the next write.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.location) || !has(self.replication)",
            holds=lambda store: store.location is None or store.replication is None,
            message="is for global secrets, and location for regional ones; remove one of the two",
            why=Why.FORBIDDEN,
            field="replication",
        ),
    )


class AwsStore(Block):
    """AWS Secrets Manager."""

    region: AwsRegion = Field(default="us-east-1", description="Region that holds the secrets.")
    auth: AwsAuth | None = Field(
        default=None, description=_LOGIN.format(default="the role of the controller's service account")
    )
    kms_key_id: Annotated[str, text(longest=2048, shortest=1)] | None = Field(
        default=None, description="KMS key to encrypt with: its id, ARN or alias."
    )
    description: Annotated[str, text(longest=2048)] | None = Field(
        default=None, description="Description of every secret."
    )
    tags: AwsTags | None = Field(default=None, description="Tags of every secret, beside the owner marks.")


class AzureStore(Block):
    """Azure Key Vault."""

    vault_name: VaultName = Field(description="Vault that holds the secrets, by its name alone.")
    auth: AzureAuth | None = Field(default=None, description=_LOGIN.format(default="the workload's identity"))
    content_type: Annotated[str, text(longest=255)] | None = Field(
        default=None, description="Content type of every secret, such as text/plain."
    )
    expires_on: UtcTime | None = Field(
        default=None,
        description="When every secret expires, in UTC, such as 2030-01-01T00:00:00Z.",
    )
    tags: AzureTags | None = Field(default=None, description="Tags of every secret, beside the owner marks.")


def _block_rules(kind: ProviderType) -> tuple[Rule, Rule]:
    return (
        Rule(
            cel=f"self.type != '{kind}' || has(self.{kind})",
            holds=lambda provider: provider.type is not kind or provider.block(kind) is not None,
            message=f"is needed with type {kind}; add it",
            why=Why.REQUIRED,
            field=kind,
        ),
        Rule(
            cel=f"self.type == '{kind}' || !has(self.{kind})",
            holds=lambda provider: provider.type is kind or provider.block(kind) is None,
            message="is not the store that provider.type names; remove it or correct the type",
            why=Why.FORBIDDEN,
            field=kind,
        ),
    )


class Provider(Block):
    """The store that is kept equal to Git: its type, and the one block of that name."""

    type: FromJson[ProviderType] = Field(
        description="gcp for Google Secret Manager, aws for AWS Secrets Manager, azure for Azure Key Vault.",
    )
    gcp: GcpStore | None = Field(
        default=None, description="Google Secret Manager. Required with type gcp, and only there."
    )
    aws: AwsStore | None = Field(
        default=None, description="AWS Secrets Manager. Required with type aws, and only there."
    )
    azure: AzureStore | None = Field(
        default=None, description="Azure Key Vault. Required with type azure, and only there."
    )

    RULES: ClassVar[tuple[Rule, ...]] = tuple(rule for kind in ProviderType for rule in _block_rules(kind))

    def block(self, kind: ProviderType) -> GcpStore | AwsStore | AzureStore | None:
        """Return the block of that name."""
        match kind:
            case ProviderType.GCP:
                return self.gcp
            case ProviderType.AWS:
                return self.aws
            case ProviderType.AZURE:
                return self.azure

    @property
    def auth(self) -> GcpAuth | AwsAuth | AzureAuth | None:
        """The login of the one block; None for the workload's identity."""
        block = self.block(self.type)
        return None if block is None else block.auth
