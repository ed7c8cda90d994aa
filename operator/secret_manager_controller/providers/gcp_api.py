"""One request to Google Secret Manager over gRPC, and what its answer is made of.

The messages are the SDK's; its client around them is left out: it logs requests at DEBUG, values included, and looks
for credentials and settings in its surroundings. A request costs a quarter less CPU without it.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import google_crc32c

# gRPC's core writes lines of its own to stderr, where ours are JSON; it looks at this when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
import grpc
from google.cloud.secretmanager_v1.types import resources, service
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.providers import calls
from secret_manager_controller.providers.calls import REQUEST_TIMEOUT
from secret_manager_controller.providers.gcp_errors import GcpRefusal
from secret_manager_controller.providers.gcp_login import GcpEndpoints

Message = Any
"""A protobuf message: their classes are made while the SDK is imported."""

_DETAILS = "grpc-status-details-bin"
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,62}")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_OPTIONS = [
    ("grpc.enable_retries", 0),  # Retries are ours: they look at the fence.
    ("grpc.enable_http_proxy", 0),  # Nothing of the surroundings decides where values go.
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", -1),  # A page of 25,000 secrets has some 10 MB.
    # A connection that a gateway forgot would time out request after request for a quarter of an hour.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.client_idle_timeout_ms", 60_000),
    # The default backs off to two minutes, in which every request fails at once.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 3_000),
]

_REQUESTS: Mapping[str, tuple[Any, Any]] = {
    "ListSecrets": (service.ListSecretsRequest.pb(), service.ListSecretsResponse.pb()),
    "GetSecret": (service.GetSecretRequest.pb(), resources.Secret.pb()),
    "CreateSecret": (service.CreateSecretRequest.pb(), resources.Secret.pb()),
    "UpdateSecret": (service.UpdateSecretRequest.pb(), resources.Secret.pb()),
    "DeleteSecret": (service.DeleteSecretRequest.pb(), Empty),
    "AddSecretVersion": (service.AddSecretVersionRequest.pb(), resources.SecretVersion.pb()),
    "GetSecretVersion": (service.GetSecretVersionRequest.pb(), resources.SecretVersion.pb()),
    "ListSecretVersions": (service.ListSecretVersionsRequest.pb(), service.ListSecretVersionsResponse.pb()),
    "DisableSecretVersion": (service.DisableSecretVersionRequest.pb(), resources.SecretVersion.pb()),
    "DestroySecretVersion": (service.DestroySecretVersionRequest.pb(), resources.SecretVersion.pb()),
    "AccessSecretVersion": (service.AccessSecretVersionRequest.pb(), service.AccessSecretVersionResponse.pb()),
}
"""By the API's name: the request's message and the answer's."""
ENABLED = int(resources.SecretVersion.State.ENABLED)
DISABLED = int(resources.SecretVersion.State.DISABLED)


@dataclass(frozen=True, slots=True)
class Api:
    """One of Google's services.

    Attributes:
        service: its name in gRPC's paths.
        requests: by the API's name: the request's message and the answer's.
    """

    service: str
    requests: Mapping[str, tuple[Any, Any]]


SECRET_MANAGER = Api("google.cloud.secretmanager.v1.SecretManagerService", _REQUESTS)


def request(operation: str, **fields: Any) -> Message:
    """Return the message of a request."""
    return _REQUESTS[operation][0](**fields)


def checksum(data: bytes) -> int:
    """Return the CRC32C of a value, as the service computes it."""
    return int(google_crc32c.value(data))


class Connection:
    """The connection of one provider; it is opened with the first request.

    Args:
        url: where the service is; see `secret_manager_url`.
        roots: PEM file of the authorities to trust instead of the public ones.
        api: the service.
    """

    def __init__(self, url: str, *, roots: Path | None, api: Api = SECRET_MANAGER) -> None:
        self._address, self._secure = _address(url)
        self._api = api
        self._roots = roots
        self._lock = threading.Lock()
        self._channel: Any = None
        self._stubs: dict[str, Any] = {}

    def ask(self, operation: str, message: Message, token: str) -> Message | GcpRefusal:
        """Make one request; this blocks for `REQUEST_TIMEOUT` seconds at most."""
        headers = (("authorization", f"Bearer {token}"), ("x-goog-request-params", _routing(message)))
        try:
            answer = self._stub(operation)(message, timeout=REQUEST_TIMEOUT, metadata=headers)
        except grpc.RpcError as error:
            return _refusal(error)
        if operation == "AccessSecretVersion" and answer.payload.data_crc32c != checksum(answer.payload.data):
            return GcpRefusal("DATA_LOSS")
        return answer

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            self._stubs.clear()

    def _stub(self, operation: str) -> Any:
        with self._lock:
            if self._channel is None:
                self._channel = self._open()
            if operation not in self._stubs:
                request_type, answer_type = self._api.requests[operation]
                self._stubs[operation] = self._channel.unary_unary(
                    f"/{self._api.service}/{operation}",
                    request_serializer=request_type.SerializeToString,
                    response_deserializer=answer_type.FromString,
                )
            return self._stubs[operation]

    def _open(self) -> Any:
        if not self._secure:
            return grpc.insecure_channel(self._address, options=_OPTIONS)
        try:
            roots = None if self._roots is None else self._roots.read_bytes()
        except OSError as error:
            message = f"the authorities in {foreign(self._roots)} cannot be read ({type(error).__name__})"
            raise PermanentError(Reason.STORE_REFUSED, message) from None
        return grpc.secure_channel(self._address, grpc.ssl_channel_credentials(roots), options=_OPTIONS)


def check_url(url: str) -> str:
    """Return an address that values and tokens may be sent to.

    Raises:
        PermanentError: StoreRefused: it is no URL, or not encrypted beyond loopback.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if not host or parts.scheme not in {"http", "https"}:
        raise PermanentError(Reason.STORE_REFUSED, f"the endpoint {foreign(repr(url))} is no http or https URL")
    if parts.scheme == "http" and host not in _LOOPBACK:
        message = f"the endpoint {foreign(repr(url))} is not encrypted; only loopback may be, set an https URL"
        raise PermanentError(Reason.STORE_REFUSED, message)
    return url.rstrip("/")


def secret_manager_url(endpoints: GcpEndpoints, location: str | None) -> str:
    """Return where Secret Manager is; regional secrets have an endpoint for each location."""
    # https://cloud.google.com/secret-manager/regional-secrets/create-regional-secret
    place = "" if location is None else f".{location}.rep"
    return endpoints.secretmanager or f"https://secretmanager{place}.{endpoints.universe}"


def _address(url: str) -> tuple[str, bool]:
    parts = urlsplit(check_url(url))
    secure = parts.scheme == "https"
    return f"{parts.hostname}:{parts.port or (443 if secure else 80)}", secure


def _routing(message: Message) -> str:
    """Return the header that tells Google's front end where to send a request (https://google.aip.dev/client/4222)."""
    fields = message.DESCRIPTOR.fields_by_name
    if "name" in fields:
        key, value = "name", message.name
    elif "parent" in fields:
        key, value = "parent", message.parent
    else:
        key, value = "secret.name", message.secret.name
    return f"{key}={quote(value, safe='')}"


def _refusal(error: Any) -> GcpRefusal:
    """Return what an exception says, and nothing that it carries."""
    reason, retry_after = "", None
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            reason, retry_after = _details(value)
    return GcpRefusal(error.code().name, reason, retry_after)


def _details(data: bytes) -> tuple[str, float | None]:
    """Return the reason of an ErrorInfo and the seconds of a RetryInfo (https://google.aip.dev/193)."""
    reason, retry_after = "", None
    try:
        for detail in status_pb2.Status.FromString(data).details:
            info, later = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info) and _REASON.fullmatch(info.reason):
                reason = info.reason
            elif detail.Unpack(later):
                retry_after = calls.believed(later.retry_delay.ToNanoseconds() / 1e9)
    except DecodeError:
        pass  # What a proxy answers in Google's stead may be anything.
    return reason, retry_after
