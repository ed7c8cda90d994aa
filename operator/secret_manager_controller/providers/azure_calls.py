"""One request to Azure through its SDKs, and what its answer is made of."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import requests
from azure.core.exceptions import AzureError, ClientAuthenticationError, DecodeError, HttpResponseError
from urllib3.exceptions import NameResolutionError

from secret_manager_controller.providers import calls
from secret_manager_controller.providers.azure_errors import NO_SUCH_HOST, OTHER_RESOURCE, AzureRefusal
from secret_manager_controller.providers.azure_transport import NotFromAzureError, Transport
from secret_manager_controller.providers.calls import REQUEST_TIMEOUT

# Codes become metric labels; what a proxy answers in Azure's stead may be anything.
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# No such name, or one without an address; that a name server does not answer is another number.
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})

T = TypeVar("T")


class OtherResourceError(Exception):
    """A vault's challenge asks for a token for something else than vaults."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What the SDK made of an answer, and when the service gave it, by its own clock."""

    result: T
    at: float | None


def ask(transport: Transport, request: Callable[[], T]) -> Answer[T] | AzureRefusal:
    """Make one request in this thread. Errors become values here: an SDK's exception may quote what was sent.

    Args:
        transport: what the SDK's client sends it with.
        request: calls the client.
    """
    with transport.within(REQUEST_TIMEOUT):
        try:
            return Answer(request(), transport.heard_at)
        except ClientAuthenticationError as error:
            # The identity SDK wraps all that goes wrong into this one.
            if transport.heard is None or transport.heard.status_code < 400:
                return _of_connection(_innermost(error))
            return _of_response(transport.heard)
        except (NotFromAzureError, DecodeError):
            return AzureRefusal("NotFromAzure", status=0)
        except HttpResponseError as error:
            return _of_response(error.response) if error.response is not None else _of_connection(_innermost(error))
        except OtherResourceError:
            return AzureRefusal(OTHER_RESOURCE, status=400)
        except (AzureError, requests.RequestException) as error:
            return _of_connection(_innermost(error))
        except ValueError as error:
            # The SDK's verification of a challenge raises no more than that, and neither does its deserialiser.
            heard = transport.heard
            challenged = heard is not None and heard.status_code == 401
            return AzureRefusal(OTHER_RESOURCE if challenged else type(error).__name__, status=400)


def _of_response(response: Any) -> AzureRefusal:
    return AzureRefusal(_code(response), int(response.status_code), _seconds(response.headers.get("Retry-After", "")))


def _code(response: Any) -> str:
    """Return the code that tells most: Entra's number, a vault's inner code, or its code."""
    try:
        document = json.loads(response.text())
    except ValueError:
        return "Unknown"
    found: list[object] = []
    if isinstance(document, Mapping):
        error, numbers = document.get("error"), document.get("error_codes")
        if isinstance(numbers, list) and numbers and isinstance(numbers[0], int) and numbers[0]:
            found.append(f"AADSTS{numbers[0]}")
        if isinstance(error, Mapping):
            inner = error.get("innererror") or error.get("innerError")
            found += [inner.get("code") if isinstance(inner, Mapping) else None, error.get("code")]
        found.append(error)
    return next((code for code in found if isinstance(code, str) and _CODE.fullmatch(code)), "Unknown")


def _innermost(error: BaseException) -> BaseException:
    """Return what an SDK's exception was made of: it hands causes on as arguments, as causes, or as `inner_exception`.

    A name that does not exist ends the search.
    """
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, NameResolutionError) or _no_such_host(error):
            return error
        inner = [getattr(error, "reason", None), *error.args, getattr(error, "inner_exception", None), error.__cause__]
        error = next((each for each in inner if isinstance(each, BaseException) and id(each) not in seen), error)
    return error


def _of_connection(error: BaseException) -> AzureRefusal:
    if isinstance(error, NameResolutionError):
        # The resolver's own error is the cause; that a name is not known now is another matter.
        cause = error.__cause__ or error.__context__
        if cause is not None and _no_such_host(cause):
            return AzureRefusal(NO_SUCH_HOST, status=0)
    if _no_such_host(error):
        return AzureRefusal(NO_SUCH_HOST, status=0)
    return AzureRefusal(type(error).__name__, status=0)


def _no_such_host(error: BaseException) -> bool:
    return isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_HOST


def _seconds(header: str) -> float | None:
    try:
        return calls.believed(float(header))
    except ValueError:
        return None  # Absent, or a date: Azure sends seconds.
