"""`spec.sourceRef`: where the encrypted files come from."""

from __future__ import annotations

import enum
from typing import ClassVar

from pydantic import Field

from secret_manager_controller.model.spec.base import Block, FromJson, NamespaceName, ObjectName, Rule, Why


class SourceKind(enum.StrEnum):
    """What publishes the files: Flux's sources, or an Argo CD Application."""

    GIT_REPOSITORY = "GitRepository"
    OCI_REPOSITORY = "OCIRepository"
    BUCKET = "Bucket"
    EXTERNAL_ARTIFACT = "ExternalArtifact"
    APPLICATION = "Application"


class GitCredentials(Block):
    """A login to a Git server."""

    secret_name: ObjectName = Field(
        description="Secret of the object's namespace with an SSH key and known hosts, a user name and password, a "
        "bearer token or a GitHub App's key.",
    )


class SourceRef(Block):
    """The object that publishes the files."""

    kind: FromJson[SourceKind] = Field(
        default=SourceKind.GIT_REPOSITORY,
        description="Kind of the source: one of Flux's (GitRepository, OCIRepository, Bucket, ExternalArtifact), or "
        "Application for Argo CD.",
    )
    name: ObjectName = Field(description="Name of the source object.")
    namespace: NamespaceName | None = Field(
        default=None, description="Namespace of the source object; the object's own by default."
    )
    source_name: ObjectName | None = Field(
        default=None,
        description="Which of an Application's several sources to read, by its name; the first with a Git path by "
        "default. Only with kind Application.",
    )
    git_credentials: GitCredentials | None = Field(
        default=None,
        description="Login to the Git server instead of the one that Argo CD has for it. Only with kind Application.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.kind == 'Application' || !has(self.sourceName)",
            holds=lambda ref: ref.kind is SourceKind.APPLICATION or ref.source_name is None,
            message="is for kind Application, whose sources have names; remove it",
            why=Why.FORBIDDEN,
            field="sourceName",
        ),
        Rule(
            cel="self.kind == 'Application' || !has(self.gitCredentials)",
            holds=lambda ref: ref.kind is SourceKind.APPLICATION or ref.git_credentials is None,
            message="is for kind Application; a Flux source has its own login, in its spec.secretRef: remove it",
            why=Why.FORBIDDEN,
            field="gitCredentials",
        ),
    )
