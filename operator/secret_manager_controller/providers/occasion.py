"""What a request to a store is for: told once, at the reconcile's beginning, and known wherever it ends.

It travels with the task that makes the requests, and with those that this one starts; nothing between the reconcile and
the request has to hand it on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Occasion:
    """One reconcile.

    Attributes:
        urgent: somebody changed something or asks; a resync is not urgent.
        requests: how many requests to a store it made so far, retries included. One that several reconciles share
            counts for the one that began it.
    """

    urgent: bool = True
    requests: int = 0


_present: ContextVar[Occasion | None] = ContextVar("occasion", default=None)


@contextmanager
def of_reconcile() -> Iterator[Occasion]:
    """Begin a reconcile: what is requested inside is for it."""
    occasion = Occasion()
    token = _present.set(occasion)
    try:
        yield occasion
    finally:
        _present.reset(token)


def is_urgent() -> bool:
    """Tell whether requests that are made here are urgent; without a reconcile they are."""
    occasion = _present.get()
    return occasion is None or occasion.urgent


def set_urgent(urgent: bool) -> None:
    """Say whether the present reconcile is urgent, as soon as that is known."""
    occasion = _present.get()
    if occasion is not None:
        occasion.urgent = urgent


def count_request() -> None:
    """Count a request for the present reconcile, if there is one."""
    occasion = _present.get()
    if occasion is not None:
        occasion.requests += 1
