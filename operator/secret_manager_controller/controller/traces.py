"""Where each object's traces go: `spec.otel`, its Secrets read by name, or the controller's own `OTEL_*` variables."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from opentelemetry.trace import Tracer
from opentelemetry.util.re import parse_env_headers

from controller_telemetry.destination import Destination
from controller_telemetry.direct import tls_context
from controller_telemetry.export import MAX_DESTINATIONS, MAX_TRACERS, Tracers, TraceSettings
from controller_telemetry.spans import NO_TRACER
from secret_manager_controller import __version__
from secret_manager_controller.controller.secrets import SecretReader
from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.spec import Spec
from secret_manager_controller.model.spec.otel import Otel, OtelType, OtlpProtocol

HTTP_PORT: Final = 4318
"""OTLP's port for HTTP; 4317 is gRPC's. https://opentelemetry.io/docs/specs/otlp/"""
TRACES_PATH: Final = "/v1/traces"
SERVICE_NAME: Final = "secret-manager-controller"


class Signal(enum.StrEnum):
    """What the standard variables tell apart."""

    TRACES = "TRACES"
    METRICS = "METRICS"


Environment = Mapping[str, str]
TOO_MANY: Final = RetryableError(
    Reason.TOO_MANY_DESTINATIONS,
    f"no traces: other objects use the {MAX_DESTINATIONS} endpoints, or the {MAX_TRACERS} services and environments, "
    "that a replica has room for; let objects share theirs",
)


class Traces(Protocol):
    """Tells where an object's traces go."""

    async def tracer(
        self, key: str, spec: Spec, *, namespace: str, denied: ControllerError | None
    ) -> tuple[Tracer, ControllerError | None]:
        """Return the tracer of an object, and what keeps its traces from going where its spec says.

        Args:
            key: the object's request key.
            spec: its spec.
            namespace: its namespace.
            denied: why its traces may go nowhere, see `grants.Access`.
        """
        ...


class ObjectTraces:
    """`Traces` by `spec.otel`."""

    def __init__(self, tracers: Tracers, reader: SecretReader, environment: Environment) -> None:
        """Make it.

        Args:
            tracers: where tracers come from.
            reader: reads the Secrets with headers, keys and certificates.
            environment: the `OTEL_*` variables, for objects without a block of their own, and `DD_AGENT_HOST`.

        Raises:
            ValueError: a variable holds what cannot be used.
        """
        self._tracers = tracers
        self._reader = reader
        self._agent = environment.get("DD_AGENT_HOST") or "localhost"
        self._default = default_settings(environment)

    async def tracer(
        self, key: str, spec: Spec, *, namespace: str, denied: ControllerError | None
    ) -> tuple[Tracer, ControllerError | None]:
        """Return an object's tracer and what keeps its traces, see `Traces`; then what it had open is released."""
        try:
            if spec.otel is None:
                settings = self._default
            elif denied is not None:
                raise denied
            else:
                settings = await self._settings(spec.otel, namespace)
            tracer = self._tracers.tracer(key, settings)
        except ControllerError as error:
            return self._tracers.tracer(key, None), error
        except Exception as error:  # noqa: BLE001 - no exporter that cannot be made may stop the work; it is told.
            message = f"no traces: their exporter cannot be made ({type(error).__name__})"
            return self._tracers.tracer(key, None), RetryableError(Reason.INTERNAL_ERROR, message)
        return tracer, TOO_MANY if settings is not None and tracer is NO_TRACER else None

    def release(self, key: str) -> None:
        """Note that an object is not worked on here any more."""
        self._tracers.release(key)

    async def _settings(self, otel: Otel, namespace: str) -> TraceSettings:
        destination = await (self._otlp if otel.type is OtelType.OTLP else self._datadog)(otel, namespace)
        return TraceSettings(destination, resource_of(otel))

    async def _otlp(self, otel: Otel, namespace: str) -> Destination:
        assert otel.endpoint is not None  # The spec's rules say so.
        headers: dict[str, str] = {}
        if otel.headers_secret_ref is not None:
            secret = await self._secret(namespace, otel.headers_secret_ref.name, field="headersSecretRef")
            headers = {name: _header(value, name) for name, value in sorted(secret.items())}
        ca = None
        if otel.ca_secret_ref is not None:
            secret = await self._secret(namespace, otel.ca_secret_ref.name, field="caSecretRef")
            ca = _certificates_of(secret, otel.ca_secret_ref.key)
        grpc = None if otel.protocol is None else otel.protocol is OtlpProtocol.GRPC
        return destination_of(otel.endpoint, grpc=grpc, headers=headers, ca=ca)

    async def _datadog(self, otel: Otel, namespace: str) -> Destination:
        if otel.site is None:
            return destination_of(f"http://{self._agent}:{HTTP_PORT}")
        headers = {"dd-protocol": "otlp"}
        if (reference := otel.api_key_secret_ref) is not None:
            secret = await self._secret(namespace, reference.name, field="apiKeySecretRef")
            headers["dd-api-key"] = _header(_entry(secret, reference.key, field="apiKeySecretRef"), reference.key)
        # https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest/traces
        return destination_of(f"https://otlp.{otel.site}{TRACES_PATH}", grpc=False, headers=headers)

    async def _secret(self, namespace: str, name: str, *, field: str) -> Mapping[str, bytes]:
        secret = await self._reader.read(namespace, name, unavailable=Reason.CREDENTIALS_UNAVAILABLE)
        if secret is None:
            message = f"Secret {namespace}/{name} of spec.otel.{field} does not exist; create it"
            raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message)
        return secret.data


def default_settings(environment: Environment, signal: Signal = Signal.TRACES) -> TraceSettings | None:
    """Return where traces, or metrics, go by the standard variables, None if they name no endpoint.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/

    Raises:
        ValueError: a variable holds what cannot be used.
    """

    def variable(name: str) -> str | None:
        return environment.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}") or environment.get(f"OTEL_EXPORTER_OTLP_{name}")

    endpoint, exporter = variable("ENDPOINT"), environment.get(f"OTEL_{signal}_EXPORTER") or "otlp"
    if not endpoint or exporter == "none" or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if exporter != "otlp":
        raise ValueError(f"OTEL_{signal}_EXPORTER={exporter!r}: expected otlp or none")
    protocol = variable("PROTOCOL")
    if protocol not in (None, *OtlpProtocol):
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r}: expected {' or '.join(OtlpProtocol)}")
    headers = parse_env_headers(variable("HEADERS") or "", liberal=True)
    resource = {"service.name": SERVICE_NAME, "service.version": __version__}
    resource |= parse_env_headers(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""), liberal=True)
    if name := environment.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = name
    path = f"/v1/{signal.lower()}"
    destination = destination_of(
        endpoint,
        path=path,
        grpc=None if protocol is None else protocol == OtlpProtocol.GRPC,
        headers=headers,
        ca=_certificates(variable("CERTIFICATE")),
    )
    base = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT" not in environment
    if base and not destination.grpc and not destination.endpoint.endswith(path):
        destination = replace(destination, endpoint=destination.endpoint.rstrip("/") + path)
    return TraceSettings(destination, tuple(sorted(resource.items())))


def _certificates(path: str | None) -> bytes | None:
    if not path:
        return None
    try:
        certificates = Path(path).read_bytes()
        tls_context(certificates)
    except ValueError as error:
        raise ValueError(f"OTEL_EXPORTER_OTLP_CERTIFICATE={path!r} holds no certificates in PEM") from error
    except OSError as error:
        raise ValueError(f"OTEL_EXPORTER_OTLP_CERTIFICATE={path!r} cannot be read: {error.strerror}") from error
    return certificates


def destination_of(
    endpoint: str,
    *,
    path: str = TRACES_PATH,
    grpc: bool | None = None,
    headers: Mapping[str, str] | None = None,
    ca: bytes | None = None,
) -> Destination:
    """Return a destination.

    Args:
        endpoint: a collector's address; with HTTP, one without a path gets OTLP's.
        path: OTLP's, of the kind of signal.
        grpc: whether gRPC is spoken; by default on any port but HTTP's.
        headers: sent along.
        ca: certificates to trust in place of the system's.
    """
    url = urlsplit(endpoint)
    if grpc is None:
        grpc = url.port != HTTP_PORT and url.path in ("", "/")
    if not grpc and url.path in ("", "/"):
        endpoint = endpoint.rstrip("/") + path
    return Destination(endpoint, grpc, tuple(sorted((headers or {}).items())), ca)


def resource_of(otel: Otel) -> tuple[tuple[str, str], ...]:
    """Return what all spans of an object tell of their origin; Datadog makes its unified tags of the same three."""
    resource = {"service.name": otel.service_name, "service.version": otel.service_version or __version__}
    if otel.environment is not None:
        resource["deployment.environment.name"] = otel.environment
    return tuple(sorted(resource.items()))


def _entry(secret: Mapping[str, bytes], key: str, *, field: str) -> bytes:
    if not (value := secret.get(key)):
        message = f"the Secret of spec.otel.{field} has no data key {key!r}"
        raise PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)
    return value


def _certificates_of(secret: Mapping[str, bytes], key: str) -> bytes:
    certificates = _entry(secret, key, field="caSecretRef")
    try:
        tls_context(certificates)
    except ValueError:
        message = f"data key {key!r} of the Secret of spec.otel.caSecretRef holds no certificates in PEM"
        raise PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message) from None
    return certificates


def _header(value: bytes, name: str) -> str:
    try:
        text = value.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        message = f"data key {name!r} of a Secret of spec.otel is no header: one line of ASCII"
        raise PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message)
    return text
