"""`spec` as a whole, and what of it this version cannot do yet."""

from __future__ import annotations

import enum
import re
from typing import Annotated, ClassVar

from pydantic import Field

from secret_manager_controller.model.plan import Adoption, UpdatePolicy
from secret_manager_controller.model.spec.base import Block, FromJson, Rule, Why, text
from secret_manager_controller.model.spec.otel import Otel
from secret_manager_controller.model.spec.secrets import Secrets
from secret_manager_controller.model.spec.source import SourceRef
from secret_manager_controller.model.spec.stores import AwsStore, AzureStore, GcpStore, Provider, ProviderType

SHORTEST_INTERVAL = 10
"""Seconds. A pass without changes costs one call a hundred secrets; more often would only eat the store's budget."""
LONGEST_INTERVAL = 86_400
"""Seconds. A day: whoever wants fewer passes wants `suspend`."""

# Whole hours, minutes and seconds, in this order: a subset of Go's durations that needs no arithmetic with fractions.
_DURATION = "([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?"
_DURATION_PART = re.compile("([0-9]+)([hms])")
_SECONDS = {"h": 3600, "m": 60, "s": 1}


class DeletionPolicy(enum.StrEnum):
    """`spec.deletionPolicy`: what becomes of the secrets when the object is deleted."""

    ORPHAN = "Orphan"
    DELETE = "Delete"


def _seconds(duration: str) -> int:
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))


Interval = Annotated[
    str,
    text(longest=18, shortest=2),
    Rule(
        cel=f"self.matches('^{_DURATION}$') && duration(self) >= duration('{SHORTEST_INTERVAL}s') "
        f"&& duration(self) <= duration('{LONGEST_INTERVAL}s')",
        holds=lambda interval: (
            re.fullmatch(_DURATION, interval) is not None
            and SHORTEST_INTERVAL <= _seconds(interval) <= LONGEST_INTERVAL
        ),
        message="must be a duration between 10s and 24h, such as 90s, 5m or 1h30m",
    ),
]


def _short_forms(spec: Spec) -> tuple[ProviderType, ...]:
    blocks = {ProviderType.GCP: spec.gcp, ProviderType.AWS: spec.aws, ProviderType.AZURE: spec.azure}
    return tuple(kind for kind, block in blocks.items() if block is not None)


_FORMS = ("provider", *ProviderType)


class Spec(Block):
    """What to keep equal: a directory of encrypted files, and a store."""

    source_ref: SourceRef = Field(description="Where the encrypted files come from.")
    require_verified_source: bool = Field(
        default=False, description="Whether to refuse a source whose signature Flux did not verify."
    )
    declared_provider: Provider | None = Field(
        default=None,
        alias="provider",
        description="The store that is kept equal to Git, and how to log in to it. Required, unless one of gcp, aws "
        "and azure stands here in its place.",
    )
    gcp: GcpStore | None = Field(
        default=None, description="Short for provider with type gcp and this block. Only without provider."
    )
    aws: AwsStore | None = Field(
        default=None, description="Short for provider with type aws and this block. Only without provider."
    )
    azure: AzureStore | None = Field(
        default=None, description="Short for provider with type azure and this block. Only without provider."
    )
    secrets: Secrets = Field(description="Which files to read, and what to call their secrets.")
    interval: Interval = Field(
        default="5m",
        description="How often to compare the store with Git when nothing calls for it, such as 90s, 5m or 1h30m; "
        "between 10s and 24h. Every pass comes up to a tenth earlier or later. Changes in Git do not wait for it.",
    )
    suspend: bool = Field(default=False, description="Whether to leave everything as it is until this is false again.")
    prune: bool = Field(
        default=False,
        description="Whether to delete secrets from the store that have left Git. More than half of more than five are "
        "kept until the annotation secret-management.microscaler.io/confirm-prune names the revision.",
    )
    deletion_policy: FromJson[DeletionPolicy] = Field(
        default=DeletionPolicy.ORPHAN,
        description="What becomes of the secrets when this object is deleted: Orphan leaves them in the store, Delete "
        "deletes them.",
    )
    update_policy: FromJson[UpdatePolicy] = Field(
        default=UpdatePolicy.REPLACE,
        description="Replace keeps the store's values equal to Git's; CreateOnly writes a value only where "
        "there is none.",
    )
    adoption: FromJson[Adoption] = Field(
        default=Adoption.FAIL,
        description="What to do with a secret that exists and that nobody owns: Fail reports a conflict, Adopt takes "
        "it over and replaces its value.",
    )
    otel: Otel | None = Field(default=None, description="Where the traces of this object's reconciles go.")

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel=" || ".join(f"has(self.{form})" for form in _FORMS),
            holds=lambda spec: spec.declared_provider is not None or bool(_short_forms(spec)),
            message="is needed: the store's type (gcp, aws or azure) and the block of that name",
            why=Why.REQUIRED,
            field="provider",
        ),
        Rule(
            cel=f"[{', '.join(f'has(self.{form})' for form in _FORMS)}].filter(given, given).size() < 2",
            holds=lambda spec: len(_short_forms(spec)) < (2 if spec.declared_provider is None else 1),
            message="must name one store: use provider alone, without gcp, aws or azure beside it",
        ),
    )

    @property
    def provider(self) -> Provider:
        """The store, in whichever form it was given."""
        if self.declared_provider is not None:
            return self.declared_provider
        kind = _short_forms(self)[0]
        return Provider.model_construct(type=kind, gcp=self.gcp, aws=self.aws, azure=self.azure)

    @property
    def interval_seconds(self) -> float:
        """The interval in seconds."""
        return float(_seconds(self.interval))
