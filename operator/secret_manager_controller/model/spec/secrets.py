"""`spec.secrets`: which files of the source to read, and how their keys become names."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from secret_manager_controller.model.spec.base import Block, RelativePath, Rule, Why, text

# A profile's directory: one name, with nothing in it that a path or a shell could read otherwise.
Environment = Annotated[
    str,
    text(longest=128),
    Rule.match(
        "[A-Za-z0-9_][A-Za-z0-9._-]*",
        "must be the name of one directory: of letters, digits, '.', '_' and '-', the first no '.' or '-'",
    ),
]
# Whatever a store does not allow in a name is replaced, so any text will do.
Affix = Annotated[str, text(longest=255)]


class Secrets(Block):
    """Which files to read and what to call their secrets."""

    environment: Environment = Field(
        description="Environment to sync: exactly the directory's name under profiles/, such as dev or prod-cf.",
    )
    kustomize_path: RelativePath | None = Field(
        default=None,
        description="Directory of the source to run kustomize build in; every Secret of its output is synced. Without "
        "it the files application.secrets.env, application.secrets.yaml and application.properties are read.",
    )
    base_path: RelativePath | None = Field(
        default=None,
        description="Directory of the source that holds the services' directories; the source's root is searched by "
        "default. Not with kustomizePath.",
    )
    prefix: Affix | None = Field(
        default=None,
        description="What stands before every key in a secret's name, joined by a dash; the service's directory name "
        "by default. Empty for no prefix.",
    )
    suffix: Affix | None = Field(
        default=None,
        description="What stands after every key in a secret's name, joined by a dash; a leading dash of its own does "
        "no harm.",
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.kustomizePath) || !has(self.basePath)",
            holds=lambda secrets: secrets.kustomize_path is None or secrets.base_path is None,
            message="is for reading files as they are and kustomizePath for a build; remove one of the two",
            why=Why.FORBIDDEN,
            field="basePath",
        ),
    )
