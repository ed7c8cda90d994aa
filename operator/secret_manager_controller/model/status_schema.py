"""The schema of `status`, as the CRD shows it; the values are built in `secret_manager_controller.model.status`.

Only lists are bounded here: a status that is refused for a text's length would hide what it has to say.
"""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import Field
from pydantic.config import JsonDict

from secret_manager_controller.model.history import MAX_HISTORY
from secret_manager_controller.model.inventory import MAX_SECRETS
from secret_manager_controller.model.spec.base import Block, FromJson, text

# The limits of metav1.Condition, https://github.com/kubernetes/apimachinery/blob/master/pkg/apis/meta/v1/types.go
ConditionType = Annotated[str, text("^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$", longest=316)]
ConditionReason = Annotated[str, text("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", longest=1024, shortest=1)]
ConditionMessage = Annotated[str, text(longest=32_768)]

DATE_TIME: JsonDict = {"format": "date-time"}
MAX_CONDITIONS = 8  # Ready, Reconciling and Stalled are ours; a few are left for tools that add their own.


class ConditionStatus(enum.StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionSchema(Block):
    """One aspect of the object's state, as Kubernetes' API conventions define conditions."""

    type: ConditionType = Field(
        description="Ready: the store equals Git. Reconciling: work goes on or is tried again. Stalled: a person has "
        "to change something.",
    )
    status: FromJson[ConditionStatus] = Field(description="Whether the condition holds.")
    reason: ConditionReason = Field(description="Why, in one word for programs.")
    message: ConditionMessage = Field(description="Why, and what mends it, for people.")
    observed_generation: int | None = Field(
        default=None, ge=0, description="The object's generation that the condition was found for."
    )
    last_transition_time: str = Field(description="When status last changed.", json_schema_extra=DATE_TIME)


class InventorySchema(Block):
    """One secret of the inventory."""

    name: Annotated[str, text(longest=512)] = Field(description="Name in the store.")
    version: Annotated[str, text(longest=256)] = Field(
        description="The store's id of the version that was last known to equal Git."
    )
    source_hash: Annotated[str, text(longest=128)] = Field(
        description="Fingerprint of the encrypted input; of input that is not encrypted, a keyed one. Never of "
        "the value."
    )


class StatusSchema(Block):
    """What the controller found and did; written by it alone."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="The object's generation that this status describes."
    )
    conditions: FromJson[tuple[ConditionSchema, ...]] | None = Field(
        default=None,
        max_length=MAX_CONDITIONS,
        description="Ready, and Reconciling or Stalled where it is not.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    last_reconcile_time: str | None = Field(
        default=None,
        description="When a reconcile ended. One that changed nothing is told once an hour.",
        json_schema_extra=DATE_TIME,
    )
    last_handled_reconcile_at: str | None = Field(
        default=None, description="The reconcile annotation's value that the last reconcile answered."
    )
    last_attempted_revision: str | None = Field(
        default=None, description="The source's revision that the last reconcile worked on."
    )
    last_applied_revision: str | None = Field(
        default=None, description="The source's revision that the store was last made equal to, completely."
    )
    applied_revisions: FromJson[tuple[Annotated[str, text(longest=1024)], ...]] | None = Field(
        default=None,
        max_length=MAX_HISTORY,
        description="The source's revisions that were applied, in the order in which they came first: the condition "
        "WentBack tells when the source goes back to an earlier one.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
    settled_key: Annotated[str, text(longest=128)] | None = Field(
        default=None,
        description="Fingerprint of everything that the last complete reconcile depended on: while it stays the same, "
        "only the store is looked at.",
    )
    inputs_key: Annotated[str, text(longest=128)] | None = Field(
        default=None,
        description="The same with the files that this object reads in place of the whole revision: a commit that "
        "touches none of them is none for this object.",
    )
    last_trace_id: Annotated[str, text(longest=64)] | None = Field(
        default=None,
        description="The trace of the reconcile that lastReconcileTime tells of, in the backend that spec.otel names.",
    )
    secrets_synced: int | None = Field(
        default=None, ge=0, description="How many of Git's secrets the store holds as Git wants them."
    )
    last_store_calls: int | None = Field(
        default=None,
        ge=0,
        description="How many requests to the store that reconcile made, retries included. One that several objects "
        "share counts for the one that began it.",
    )
    # Atomic, since one writer writes the whole: as a map every entry would be listed once more in managedFields.
    secrets: FromJson[tuple[InventorySchema, ...]] | None = Field(
        default=None,
        max_length=MAX_SECRETS,
        description="The inventory: what this object owns in the store.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
