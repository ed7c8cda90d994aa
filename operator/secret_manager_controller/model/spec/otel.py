"""`spec.otel`: where the traces of an object's reconciles go."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import Field

from secret_manager_controller.model.spec.base import Block, DataKey, FromJson, ObjectName, Rule, Why, text

# A scheme, a host, perhaps a port and a path. No user and no query: a password in a URL would be shown everywhere.
_HOST = r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])"
Endpoint = Annotated[
    str,
    text(longest=512),
    Rule.match(
        rf"https?://{_HOST}(:[0-9]{{1,5}})?(/[A-Za-z0-9._~/-]*)?",
        "must be http:// or https://, a host, and perhaps a port and a path; a login belongs into headersSecretRef",
        why=Why.FORBIDDEN,  # The API server would repeat an INVALID value, and with it a password in it.
    ),
]
Site = Annotated[str, text(r"^[a-z0-9-]+(\.[a-z0-9-]+)+$", longest=253)]
Label = Annotated[str, text(longest=255, shortest=1)]


class OtelType(enum.StrEnum):
    """What receives the traces."""

    OTLP = "Otlp"
    DATADOG = "Datadog"


class OtlpProtocol(enum.StrEnum):
    """How OTLP is spoken, by OTEL_EXPORTER_OTLP_PROTOCOL's values."""

    GRPC = "grpc"
    HTTP_PROTOBUF = "http/protobuf"


class HeadersSecretRef(Block):
    """A Secret whose every entry is a header."""

    name: ObjectName = Field(description="Name of a Secret of the object's namespace: each of its keys is a header.")


class CaSecretRef(Block):
    """A certificate authority in a Secret."""

    name: ObjectName = Field(description="Name of a Secret of the object's namespace.")
    key: DataKey = Field(default="ca.crt", description="The Secret's data key with the certificates, in PEM.")


class ApiKeySecretRef(Block):
    """An API key in a Secret."""

    name: ObjectName = Field(description="Name of a Secret of the object's namespace.")
    key: DataKey = Field(default="api-key", description="The Secret's data key with the API key.")


def _only(owner: OtelType, field: str, value_of: Callable[[Otel], object]) -> Rule:
    return Rule(
        cel=f"self.type == '{owner}' || !has(self.{field})",
        holds=lambda otel: otel.type is owner or value_of(otel) is None,
        message=f"is for type {owner}; remove it or set type: {owner}",
        why=Why.FORBIDDEN,
        field=field,
    )


class Otel(Block):
    """Where the traces of this object's reconciles go. Without it there are none."""

    type: FromJson[OtelType] = Field(
        description="Otlp for any OpenTelemetry collector; Datadog for its agent, or its intake of spec.otel.site.",
    )
    endpoint: Endpoint | None = Field(
        default=None,
        description="The collector's address, such as http://otel-collector:4317. Required with type Otlp, and only "
        "there.",
    )
    protocol: FromJson[OtlpProtocol] | None = Field(
        default=None,
        description="How the collector is spoken to; by default http/protobuf on port 4318 and grpc elsewhere. Only "
        "with type Otlp.",
    )
    service_name: Label = Field(default="secret-manager-controller", description="The traces' service.name.")
    service_version: Label | None = Field(
        default=None, description="The traces' service.version; the controller's version by default."
    )
    environment: Label | None = Field(default=None, description="The traces' deployment.environment.name.")
    headers_secret_ref: HeadersSecretRef | None = Field(
        default=None, description="Headers to send along, such as a token. Only with type Otlp."
    )
    ca_secret_ref: CaSecretRef | None = Field(
        default=None,
        description="Certificate authority of an https endpoint; the system's by default. Only with type Otlp.",
    )
    site: Site | None = Field(
        default=None,
        description="Datadog's site, such as datadoghq.com; the local agent by default. Only with type Datadog.",
    )
    api_key_secret_ref: ApiKeySecretRef | None = Field(
        default=None, description="Datadog's API key, for spec.otel.site. Only with type Datadog."
    )
    api_key: str | None = Field(
        default=None,
        repr=False,
        description="Refused: an API key belongs into a Secret, which apiKeySecretRef names.",
    )
    record_names: bool = Field(
        default=False, description="Whether spans tell the names of secrets, never their values."
    )

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.apiKey)",
            holds=lambda otel: otel.api_key is None,
            message="is refused here, since everybody who may read the object could read it: put the key into a Secret "
            "of this namespace and name it in apiKeySecretRef (name, key)",
            why=Why.FORBIDDEN,
            field="apiKey",
        ),
        Rule(
            cel="self.type != 'Otlp' || has(self.endpoint)",
            holds=lambda otel: otel.type is not OtelType.OTLP or otel.endpoint is not None,
            message="is needed with type Otlp: the collector's address, such as http://otel-collector:4317",
            why=Why.REQUIRED,
            field="endpoint",
        ),
        _only(OtelType.OTLP, "endpoint", lambda otel: otel.endpoint),
        _only(OtelType.OTLP, "protocol", lambda otel: otel.protocol),
        _only(OtelType.OTLP, "headersSecretRef", lambda otel: otel.headers_secret_ref),
        _only(OtelType.OTLP, "caSecretRef", lambda otel: otel.ca_secret_ref),
        _only(OtelType.DATADOG, "site", lambda otel: otel.site),
        _only(OtelType.DATADOG, "apiKeySecretRef", lambda otel: otel.api_key_secret_ref),
    )
