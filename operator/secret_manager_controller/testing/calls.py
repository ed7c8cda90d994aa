"""What a test server noted of each request: the referee of call-count and one-writer checks."""

from __future__ import annotations

from dataclasses import dataclass

OK = "OK"
"""The code of a request that was answered as asked."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached a store, without any value.

    Attributes:
        number: position in the store's log; requests are numbered as they are answered, from 1.
        at: when it arrived, in seconds since the epoch.
        who: the login: an access key id, or the role and session that it was exchanged for.
        operation: the API's own name of it, e.g. `PutSecretValue`.
        names: the secrets that it named.
        code: `OK`, or the error code of the answer.
        committed: whether the store carried it out, whatever was answered.
        seconds: from its arrival until it had been carried out or refused; 0 from stores that take no time.
    """

    number: int
    at: float
    who: str
    operation: str
    names: tuple[str, ...]
    code: str
    committed: bool
    seconds: float = 0.0
