"""What came of a plan, as a value."""

from __future__ import annotations

from dataclasses import dataclass

from secret_manager_controller.errors import ControllerError, RetryableError
from secret_manager_controller.model.inventory import Inventory
from secret_manager_controller.model.plan import Conflict
from secret_manager_controller.model.secret import SecretName


@dataclass(frozen=True, slots=True)
class Failure:
    """One secret that was not written, and why."""

    name: SecretName
    error: ControllerError


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a plan.

    Attributes:
        inventory: what the object owns now and what is known to equal Git, to be recorded in status.
        synced: how many secrets of Git the store holds now.
        wanted: how many secrets Git holds.
        failures: the writes that were refused; a store-wide failure is told once.
        left: how many writes were not begun after a store-wide failure.
    """

    inventory: Inventory
    synced: int
    wanted: int
    created: tuple[SecretName, ...] = ()
    updated: tuple[SecretName, ...] = ()
    adopted: tuple[SecretName, ...] = ()
    pruned: tuple[SecretName, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    failures: tuple[Failure, ...] = ()
    orphans: tuple[SecretName, ...] = ()
    held: tuple[SecretName, ...] = ()
    left: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything was written to the store."""
        return bool(self.created or self.updated or self.adopted or self.pruned)

    @property
    def worst_failure(self) -> ControllerError | None:
        """The failure that decides when to try again: one that comes right by itself before a permanent one."""
        errors = [failure.error for failure in self.failures]
        retryable = (error for error in errors if isinstance(error, RetryableError))
        return next(retryable, errors[0] if errors else None)

    @property
    def complete(self) -> bool:
        """Whether the store now equals Git, with nothing refused, held back or left."""
        return not (self.failures or self.conflicts or self.held or self.left)
