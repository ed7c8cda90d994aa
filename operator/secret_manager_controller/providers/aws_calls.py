"""One request to AWS, and what its answer is made of."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from lease_sharding.fence import Fence
from secret_manager_controller.providers import calls
from secret_manager_controller.providers.aws_budget import AccountBudget
from secret_manager_controller.providers.aws_errors import Refusal
from secret_manager_controller.providers.aws_login import AwsAccessKeys
from secret_manager_controller.providers.calls import REQUEST_TIMEOUT, RetryPolicy
from secret_manager_controller.providers.protocol import CallObserver

CONNECT_TIMEOUT = 2.0  # Seconds; a connection within a region takes milliseconds.
READ_TIMEOUT = REQUEST_TIMEOUT - CONNECT_TIMEOUT
"""Seconds; Secrets Manager answers in 10 to 200 ms, its first use of a KMS key in a second or two."""

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REQUEST_ID = "x-amzn-requestid"  # Every answer of AWS has it.

Answer = Mapping[str, Any]
Client = Any
"""A botocore client: botocore makes their classes while it runs."""


class Requests(calls.Requests):
    """Makes the requests of one login to AWS."""

    def __init__(self, *, place: str, on_call: CallObserver, retries: RetryPolicy) -> None:
        super().__init__("aws", place=place, on_call=on_call, retries=retries)

    async def make(
        self,
        client: Callable[[], Client],
        operation: str,
        parameters: Mapping[str, Any],
        *,
        keys: AwsAccessKeys | None,
        budget: AccountBudget | None = None,
        fence: Fence | None = None,
    ) -> Answer | Refusal:
        """Make a request, again if that may help, and return the last answer.

        Args:
            client: returns the service's; it may block.
            operation: the API's name of the request.
            parameters: as the API names them.
            keys: what it is signed with; None for an operation that is not signed.
            budget: what the account bears.
            fence: checked right before each attempt; for requests that change something.

        Raises:
            OwnershipLost: the fence closed; nothing was sent since.
            ControllerError: there is no client, or the budget is spent.
        """

        async def before(_: int) -> None:
            if budget is not None:
                await budget.take(operation)

        def again(refusal: calls.Refusal) -> bool:
            if budget is not None and isinstance(refusal, Refusal) and refusal.throttled:
                budget.slow_down(operation, refusal.retry_after)
            return refusal.passing

        def ask() -> Answer | Refusal:
            return _ask(client(), operation, parameters, keys)

        return await self.attempt(operation, ask, fence=fence, before=before, again=again)


class Caller(threading.local):
    """Whose requests those of the present thread are: see `aws_clients`."""

    keys: AwsAccessKeys | None = None

    @contextlib.contextmanager
    def signing_with(self, keys: AwsAccessKeys | None) -> Iterator[None]:
        """Sign this thread's requests with `keys`, until the end of the block."""
        self.keys = keys
        try:
            yield
        finally:
            self.keys = None


CALLER = Caller()


def _ask(client: Client, operation: str, parameters: Mapping[str, Any], keys: AwsAccessKeys | None) -> Answer | Refusal:
    """Make one request. Errors become values here: a botocore exception may quote what was sent."""
    try:
        with CALLER.signing_with(keys):
            answer: Answer = getattr(client, xform_name(operation))(**parameters)
    except ClientError as error:
        return _refusal(error.response)
    except (BotoConnectionError, HTTPClientError, ResponseParserError) as error:
        return Refusal(type(error).__name__, status=0)
    except BotoCoreError as error:
        return Refusal(type(error).__name__, status=400)
    if _REQUEST_ID not in answer["ResponseMetadata"]["HTTPHeaders"]:
        # A proxy's page with status 200, which botocore takes for an answer without content: for a write that was done.
        return Refusal("NotFromAws", status=0)
    return answer


def _refusal(response: Mapping[str, Any]) -> Refusal:
    metadata = response.get("ResponseMetadata", {})
    code = str(response.get("Error", {}).get("Code", ""))
    return Refusal(
        # Codes become metric labels; what a proxy answers in AWS's stead may be anything.
        code if _CODE.fullmatch(code) else "Unknown",
        int(metadata.get("HTTPStatusCode", 0)),
        _seconds(metadata.get("HTTPHeaders", {}).get("retry-after", "")),
    )


def _seconds(header: str) -> float | None:
    try:
        return calls.believed(float(header))
    except ValueError:
        return None  # Absent, or a date: AWS sends seconds.
