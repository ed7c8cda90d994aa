"""Faults on demand for the test servers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

ANY = "*"


@dataclass(slots=True)
class Fault:
    """What goes wrong with the next requests of one operation.

    Attributes:
        operation: the API's name of it, or `*`.
        code: the error code to answer, or None to answer as usual after `seconds`.
        status: HTTP status of the error, where the store speaks HTTP; 0 breaks the connection instead of answering.
        times: how many requests it still meets.
        retry_after: seconds to tell as the store's wish to wait.
        commit: whether the request is carried out although an error is answered.
        seconds: how long the server waits before anything else.
        name: the secret that it is limited to.
    """

    operation: str
    code: str | None = None
    status: int = 500
    times: int = 1
    retry_after: float | None = None
    commit: bool = False
    seconds: float = 0.0
    name: str | None = None

    def meets(self, operation: str, names: Collection[str]) -> bool:
        """Tell whether a request is met by this fault."""
        return self.times > 0 and self.operation in {ANY, operation} and (self.name is None or self.name in names)


class Faults:
    """The faults that are still to come; the caller serialises access."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let a fault happen, after those that were added before."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._faults.clear()

    def left(self) -> int:
        """Return how many requests are still to be met."""
        return sum(fault.times for fault in self._faults)

    def take(self, operation: str, names: Collection[str]) -> Fault | None:
        """Return the fault that meets this request, and count it."""
        for fault in self._faults:
            if fault.meets(operation, names):
                fault.times -= 1
                return fault
        return None
