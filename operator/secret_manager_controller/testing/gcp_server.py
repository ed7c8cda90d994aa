"""The gRPC side of the Google test server: every request is authenticated, counted, failed on demand and noted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.cloud.kms_v1.types import service as kms_service
from google.cloud.secretmanager_v1.types import resources, service
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from secret_manager_controller.testing.calls import OK, Call
from secret_manager_controller.testing.faults import Faults
from secret_manager_controller.testing.gcp_auth import Callers
from secret_manager_controller.testing.gcp_kms import GcpKeys
from secret_manager_controller.testing.gcp_limits import GcpError, Quotas
from secret_manager_controller.testing.gcp_store import GcpStore

SERVICE = "google.cloud.secretmanager.v1.SecretManagerService"
CALLS_KEPT = 200_000  # A long demo makes tens of thousands; older ones are forgotten.
THREADS = 64  # Requests that hang hold a thread each.

METHODS: Mapping[str, tuple[str, Any, Any]] = {
    "ListSecrets": ("list_secrets", service.ListSecretsRequest, service.ListSecretsResponse.pb()),
    "CreateSecret": ("create_secret", service.CreateSecretRequest, resources.Secret.pb()),
    "AddSecretVersion": ("add_secret_version", service.AddSecretVersionRequest, resources.SecretVersion.pb()),
    "GetSecret": ("get_secret", service.GetSecretRequest, resources.Secret.pb()),
    "UpdateSecret": ("update_secret", service.UpdateSecretRequest, resources.Secret.pb()),
    "DeleteSecret": ("delete_secret", service.DeleteSecretRequest, Empty),
    "ListSecretVersions": (
        "list_secret_versions",
        service.ListSecretVersionsRequest,
        service.ListSecretVersionsResponse.pb(),
    ),
    "GetSecretVersion": ("get_secret_version", service.GetSecretVersionRequest, resources.SecretVersion.pb()),
    "AccessSecretVersion": (
        "access_secret_version",
        service.AccessSecretVersionRequest,
        service.AccessSecretVersionResponse.pb(),
    ),
    "EnableSecretVersion": ("enable_secret_version", service.EnableSecretVersionRequest, resources.SecretVersion.pb()),
    "DisableSecretVersion": (
        "disable_secret_version",
        service.DisableSecretVersionRequest,
        resources.SecretVersion.pb(),
    ),
    "DestroySecretVersion": (
        "destroy_secret_version",
        service.DestroySecretVersionRequest,
        resources.SecretVersion.pb(),
    ),
}
"""By the API's name: the store's method, the request and the answer."""
KMS_SERVICE = "google.cloud.kms.v1.KeyManagementService"
KMS_METHODS: Mapping[str, tuple[str, Any, Any]] = {
    "Encrypt": ("encrypt", kms_service.EncryptRequest, kms_service.EncryptResponse.pb()),
    "Decrypt": ("decrypt", kms_service.DecryptRequest, kms_service.DecryptResponse.pb()),
}
READS = frozenset({"ListSecrets", "GetSecret", "ListSecretVersions", "GetSecretVersion"})
ACCESS = "AccessSecretVersion"

T = TypeVar("T")


@dataclass(slots=True)
class Noted:
    """A request under way, as it will stand in the call log."""

    operation: str
    names: tuple[str, ...]
    who: str
    at: float = field(default_factory=time.time)
    code: str = OK
    committed: bool = False


class GcpApplication:
    """What both sides of the server share: the store, who may call, faults, quotas and the call log.

    Args:
        projects: the ids of the projects that exist; workloads belong to the first.
        open_to_all: whether a request needs no token.
    """

    def __init__(self, projects: Sequence[str], *, open_to_all: bool = False) -> None:
        self.lock = threading.RLock()
        self.store = GcpStore(projects)
        self.keys = GcpKeys()
        self.callers = Callers(projects[0])
        self.open_to_all = open_to_all
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.quotas = Quotas()
        self._spent: deque[tuple[float, str]] = deque()
        self._numbered = 0

    def reset(self) -> None:
        """Forget secrets, faults, quotas and calls; keys and tokens stay."""
        self.store.reset()
        self.faults.clear()
        self.calls.clear()
        self._spent.clear()
        self.quotas = Quotas()
        self.callers.not_impersonated.clear()

    def carry_out(self, noted: Noted, work: Callable[[], T]) -> T:
        """Do what a request asks for, or let it fail as a test wants, and note it.

        Raises:
            GcpError: what the store answers, or the fault.
        """
        with self.lock:
            fault = self.faults.take(noted.operation, noted.names)
        if fault is not None and fault.seconds:
            time.sleep(fault.seconds)
        try:
            with self.lock:
                if fault is None or fault.code is None:
                    answer = work()
                    noted.committed = True
                    return answer
                if fault.commit:
                    work()
                    noted.committed = True
            code, _, reason = fault.code.partition("/")
            raise GcpError(code, "A fault that the test asked for.", reason=reason, retry_after=fault.retry_after)
        except GcpError as error:
            noted.code = error.code
            raise
        finally:
            self._note(noted)

    def spend(self, operation: str) -> None:
        """Count a request against its quota.

        Raises:
            GcpError: RESOURCE_EXHAUSTED.
        """
        kind, limit = "writes", self.quotas.writes
        if operation in READS:
            kind, limit = "reads", self.quotas.reads
        elif operation == ACCESS:
            kind, limit = "accesses", self.quotas.accesses
        now = time.monotonic()
        while self._spent and self._spent[0][0] <= now - self.quotas.window:
            self._spent.popleft()
        if limit is not None and sum(1 for _, spent in self._spent if spent == kind) >= limit:
            raise GcpError(
                "RESOURCE_EXHAUSTED",
                f"Quota exceeded for quota metric '{kind}' of service 'secretmanager.googleapis.com'.",
                reason="RATE_LIMIT_EXCEEDED",
                metadata={"quota_metric": f"secretmanager.googleapis.com/{kind}"},
            )
        self._spent.append((now, kind))

    def _note(self, noted: Noted) -> None:
        with self.lock:
            self._numbered += 1
            self.calls.append(
                Call(
                    number=self._numbered,
                    at=noted.at,
                    who=noted.who,
                    operation=noted.operation,
                    names=noted.names,
                    code=noted.code,
                    committed=noted.committed,
                )
            )


def serve(application: GcpApplication, *, port: int, tls: tuple[bytes, bytes] | None = None) -> tuple[grpc.Server, int]:
    """Start the gRPC server on loopback; return it with its port.

    Args:
        application: what it serves.
        port: 0 takes a free one.
        tls: private key and certificate as PEM, or None for plain text.
    """
    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="gcp-server"),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
    )
    handlers = {name: _handler(application, name, *method) for name, method in METHODS.items()}
    keys = {name: _handler(application, name, *method) for name, method in KMS_METHODS.items()}
    services = {SERVICE: handlers, KMS_SERVICE: keys}
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items())
    )
    address = f"127.0.0.1:{port}"
    if tls is None:
        bound = server.add_insecure_port(address)
    else:
        bound = server.add_secure_port(address, grpc.ssl_server_credentials([tls]))
    server.start()
    return server, int(bound)


def _handler(application: GcpApplication, operation: str, method: str, request_type: Any, answer_type: Any) -> Any:
    def answer(request: Any, context: Any) -> Any:
        headers = dict(context.invocation_metadata())
        authorization = str(headers.get("authorization", ""))
        noted = Noted(operation, _names(request), application.callers.who(authorization))

        def work() -> Any:
            if not application.open_to_all:
                application.callers.check(authorization)
            if operation in KMS_METHODS:
                return getattr(application.keys, method)(request)
            application.spend(operation)
            return getattr(application.store, method)(request)

        try:
            return application.carry_out(noted, work)
        except GcpError as error:
            context.abort_with_status(_status(error))

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=request_type.pb().FromString,
        response_serializer=answer_type.SerializeToString,
    )


def _names(request: Any) -> tuple[str, ...]:
    """Return the secret that a request names, by its id."""
    if hasattr(request, "secret_id"):
        return (request.secret_id,)
    name = request.secret.name if hasattr(request, "secret") else getattr(request, "name", "")
    full = name or getattr(request, "parent", "")
    _, found, rest = full.partition("/secrets/")
    return (rest.partition("/")[0],) if found else ()


def _status(error: GcpError) -> Any:
    status = status_pb2.Status(code=getattr(grpc.StatusCode, error.code).value[0], message=error.message)
    if error.reason:
        info = error_details_pb2.ErrorInfo(reason=error.reason, domain="googleapis.com", metadata=dict(error.metadata))
        status.details.add().Pack(info)
    if error.retry_after is not None:
        later = error_details_pb2.RetryInfo()
        later.retry_delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.add().Pack(later)
    return rpc_status.to_status(status)
