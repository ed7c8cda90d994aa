"""`SecretManagerPolicy`: what an administrator lets namespaces refer to and write to; the second kind of our API group.

What belongs here: the fields, their limits, and which namespaces a policy is for. What a grant means is in
`secret_manager_controller.tenancy`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from secret_manager_controller.model.spec.auth import ServiceAccountEmail, Uuid
from secret_manager_controller.model.spec.base import Block, FromJson, NamespaceName, ObjectName, Rule, text
from secret_manager_controller.model.spec.parse import read_block
from secret_manager_controller.model.spec.source import SourceKind
from secret_manager_controller.model.spec.stores import AwsRegion, ProjectId, VaultName
from secret_manager_controller.model.status_schema import MAX_CONDITIONS, ConditionSchema

# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
LabelKey = Annotated[str, text(r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$", longest=317)]
LabelValue = Annotated[str, text(r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$", longest=63)]
# No name begins with a dot: neither `..` nor a hidden directory can be meant.
GrantedPath = Annotated[
    str, text(r"^[^/.\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*(/[^/.\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*)*$", longest=512)
]
NamePrefix = Annotated[str, text("^[A-Za-z0-9/_+=.@-]+$", longest=255, shortest=1)]
HostName = Annotated[str, text(r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$", longest=253)]
RoleArnName = Annotated[str, text(r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", longest=512)]
KmsKeyId = Annotated[
    str,
    text(
        r"^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+"
        r"|projects/[a-z0-9:.-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+"
        r"|https://[a-z0-9-]+(\.[a-z0-9-]+)+/keys/[0-9A-Za-z-]+(/[0-9a-f]{32})?)$",
        longest=512,
    ),
]
AccountId = Annotated[str, text("^[0-9]{12}$", longest=12)]

MAX_LISTED_NAMESPACES = 100
"""So many namespaces a policy's status names; their number it always tells."""


class LabelOperator(enum.StrEnum):
    """How a label is compared, as in every label selector of Kubernetes."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelRequirement(Block):
    """One condition on a label."""

    key: LabelKey = Field(description="The label.")
    operator: FromJson[LabelOperator] = Field(description="How the label is compared with the values.")
    values: FromJson[tuple[LabelValue, ...]] = Field(
        default=(), max_length=32, description="The values, with In and NotIn only."
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)",
            holds=lambda one: (one.operator in (LabelOperator.IN, LabelOperator.NOT_IN)) == bool(one.values),
            message="must have entries with In and NotIn, and none with Exists and DoesNotExist",
            field="values",
        ),
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels meet the condition; NotIn also holds where the label is absent, as in Kubernetes."""
        match self.operator:
            case LabelOperator.IN:
                return labels.get(self.key) in self.values
            case LabelOperator.NOT_IN:
                return labels.get(self.key) not in self.values
            case LabelOperator.EXISTS:
                return self.key in labels
            case LabelOperator.DOES_NOT_EXIST:
                return self.key not in labels


class NamespaceSelector(Block):
    """Namespaces by their labels; all of the conditions must hold."""

    match_labels: Annotated[Mapping[str, LabelValue], Field(max_length=32)] | None = Field(
        default=None, description="Labels and the values that they must have."
    )
    match_expressions: FromJson[tuple[LabelRequirement, ...]] = Field(
        default=(), max_length=16, description="Further conditions on labels."
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(has(self.matchLabels) && self.matchLabels.size() > 0) "
            "|| (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
            holds=lambda selector: bool(selector.match_labels or selector.match_expressions),
            message="must have a condition: an empty selector would grant to every namespace",
        ),
    )

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a namespace with these labels is selected."""
        exact = all(labels.get(key) == value for key, value in (self.match_labels or {}).items())
        return exact and all(requirement.matches(labels) for requirement in self.match_expressions)


class GrantedNamespaces(Block):
    """Whom a policy is for: namespaces by name, and those that a selector finds."""

    names: FromJson[tuple[NamespaceName, ...]] = Field(default=(), max_length=512, description="Namespaces by name.")
    selector: NamespaceSelector | None = Field(
        default=None,
        description="Namespaces by label. Whoever may change a namespace's labels may then take the grants.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(has(self.names) && self.names.size() > 0) || has(self.selector)",
            holds=lambda block: bool(block.names) or block.selector is not None,
            message="must have names or a selector",
        ),
    )

    def include(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Tell whether a namespace is one of them."""
        return namespace in self.names or (self.selector is not None and self.selector.matches(labels))


class GrantedSource(Block):
    """A source that the namespaces may read from."""

    kind: FromJson[SourceKind] = Field(default=SourceKind.GIT_REPOSITORY, description="Kind of the source.")
    namespace: NamespaceName = Field(description="Namespace of the source object.")
    name: ObjectName = Field(description="Name of the source object.")
    paths: FromJson[tuple[GrantedPath, ...]] = Field(
        default=(),
        max_length=32,
        description="Directories of the source that may be read, each with all below it; without any, all of it. A "
        "kustomize build sees nothing else.",
    )
    controller_keys: bool = Field(
        default=False,
        description="Whether files of this source, in these directories, may be decrypted with the SOPS keys of the "
        "controller's namespace, for objects whose own namespace has no key. Whoever may commit there can have "
        "anything decrypted that these keys open.",
    )


class GrantedGcp(Block):
    """Secrets of one project."""

    project_id: ProjectId = Field(description="Project that holds the secrets.")
    service_account_emails: FromJson[tuple[ServiceAccountEmail, ...]] = Field(
        default=(), max_length=32, description="Service accounts that may be named in auth.serviceAccountEmail."
    )


class GrantedAws(Block):
    """Secrets of one region, and the logins for it."""

    region: AwsRegion = Field(description="Region that holds the secrets.")
    account_id: AccountId | None = Field(
        default=None,
        description="Account that holds the secrets. The controller's own role must be of it.",
    )
    role_arns: FromJson[tuple[RoleArnName, ...]] = Field(
        default=(), max_length=32, description="Roles that may be named in auth.roleArn."
    )


class GrantedAzure(Block):
    """Secrets of one vault."""

    vault_name: VaultName = Field(description="Vault that holds the secrets, by its name alone.")
    client_ids: FromJson[tuple[Uuid, ...]] = Field(
        default=(), max_length=32, description="Identities that may be named in auth.clientId."
    )


class GrantedStore(Block):
    """A store that the namespaces may write to: exactly one of gcp, aws and azure."""

    gcp: GrantedGcp | None = Field(default=None, description="Google Secret Manager.")
    aws: GrantedAws | None = Field(default=None, description="AWS Secrets Manager.")
    azure: GrantedAzure | None = Field(default=None, description="Azure Key Vault.")
    name_prefixes: FromJson[tuple[NamePrefix, ...]] = Field(
        default=(),
        max_length=32,
        description="How the names of secrets must begin; without any, all names are granted. End one with a dash: "
        "team-a also begins team-abc.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="[has(self.gcp), has(self.aws), has(self.azure)].filter(given, given).size() == 1",
            holds=lambda store: sum(block is not None for block in (store.gcp, store.aws, store.azure)) == 1,
            message="must have exactly one of gcp, aws and azure",
        ),
    )


class GrantedSecret(Block):
    """A Secret of another namespace with a login to a store."""

    namespace: NamespaceName = Field(description="Namespace of the Secret.")
    name: ObjectName = Field(description="Name of the Secret.")


class PolicySpec(Block):
    """What the namespaces may refer to and write to. Several policies for one namespace add up."""

    namespaces: GrantedNamespaces = Field(description="Whom the grants are for.")
    sources: FromJson[tuple[GrantedSource, ...]] = Field(
        default=(), max_length=128, description="Sources of other namespaces that may be read."
    )
    stores: FromJson[tuple[GrantedStore, ...]] = Field(
        default=(), max_length=64, description="Stores that may be written to, and under which names."
    )
    credentials: FromJson[tuple[GrantedSecret, ...]] = Field(
        default=(), max_length=64, description="Secrets of other namespaces that auth.secretName may name."
    )
    kms_keys: FromJson[tuple[KmsKeyId, ...]] = Field(
        default=(),
        max_length=64,
        description="Keys of a KMS that may unwrap SOPS data keys, by their full ids: ARNs of AWS KMS, "
        "projects/…/cryptoKeys/… of Google, https://<vault>.<domain>/keys/<name> of Azure (all versions; with "
        "/<version>, that one). One that two tenants share opens each one's files to the other.",
    )
    telemetry_hosts: FromJson[tuple[HostName, ...]] = Field(
        default=(),
        max_length=64,
        description="Hosts that traces may be sent to, each with all below it: the host of otel.endpoint, or "
        "otel.site.",
    )
    artifact_hosts: FromJson[tuple[HostName, ...]] = Field(
        default=(),
        max_length=64,
        description="Hosts that a source's files may be fetched from, each with all below it, beside those of the "
        "controller's ARTIFACT_HOSTS.",
    )
    git_hosts: FromJson[tuple[HostName, ...]] = Field(
        default=(),
        max_length=64,
        description="Git servers that the repositories of Applications may be on, each host with all below it, beside "
        "those of the controller's GIT_HOSTS.",
    )


class PolicyStatus(Block):
    """Whom the policy is for now; written by the controller."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="The policy's generation that this status describes."
    )
    conditions: FromJson[tuple[ConditionSchema, ...]] | None = Field(
        default=None,
        max_length=MAX_CONDITIONS,
        description="Ready: the policy is in force.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    matched_namespaces: int | None = Field(default=None, ge=0, description="How many namespaces it is for.")
    namespaces: FromJson[tuple[NamespaceName, ...]] | None = Field(
        default=None,
        max_length=MAX_LISTED_NAMESPACES,
        description="Their names in order, the first hundred.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    objects: int | None = Field(
        default=None, ge=0, description="How many SecretManagerConfigs are in these namespaces."
    )


class _Object(Block):
    """The part of a policy that administrators write; gives the paths of faults their `spec.`."""

    spec: PolicySpec


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, by its name."""

    name: str
    spec: PolicySpec


def parse_policy(body: Mapping[str, Any]) -> Policy:
    """Read a policy.

    Raises:
        ConfigError: InvalidSpec; the message names the fields.
    """
    return Policy(body["metadata"]["name"], read_block(_Object, {"spec": body.get("spec")}).spec)
