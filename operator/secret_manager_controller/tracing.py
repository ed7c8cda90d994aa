"""What the spans of a reconcile may tell, and how its steps open them."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry.trace import Span, Tracer

from controller_telemetry import spans


class Attribute(enum.StrEnum):
    """Everything that a span may tell; no value of a secret is among it."""

    NAMESPACE = "k8s.namespace.name"
    """Semantic conventions: https://opentelemetry.io/docs/specs/semconv/resource/k8s/"""
    OBJECT = "secret_manager.object"
    GENERATION = "secret_manager.generation"
    REVISION = "secret_manager.revision"
    REASON = "secret_manager.reason"
    """The Ready condition's reason, where the object is not ready."""
    STORE = "secret_manager.store"
    SECRETS = "secret_manager.secrets"
    """How many."""
    FILES = "secret_manager.files"
    """How many."""
    KEYS = "secret_manager.data_keys"
    """How many that a KMS is asked for."""
    SHARED = "secret_manager.shared"
    """Whether a build is another object's, too."""
    CHANGES = "secret_manager.changes"
    """How many."""
    PROVIDER = "secret_manager.provider"
    OPERATION = "rpc.method"
    CODE = "secret_manager.code"
    ATTEMPT = "secret_manager.attempt"
    ACTION = "secret_manager.action"
    SECRET = "secret_manager.secret"  # noqa: S105 - an attribute's name.
    """A secret's name: only where the object says `recordNames: true`."""


Attributes = Mapping[Attribute, spans.AttributeValue]

_RECORDS_NAMES: ContextVar[bool] = ContextVar("records_names", default=False)


@contextmanager
def reconcile_span(
    tracer: Tracer, name: str, attributes: Attributes, *, parent: str | None, link: str | None, record_names: bool
) -> Iterator[Span]:
    """Open the span of a whole reconcile; see `controller_telemetry.spans.traced`."""
    token = _RECORDS_NAMES.set(record_names)
    try:
        with spans.traced(tracer, name, plain(attributes), parent=parent, link=link) as opened:
            yield opened
    finally:
        _RECORDS_NAMES.reset(token)


@contextmanager
def step(name: str, attributes: Attributes | None = None) -> Iterator[Span]:
    """Open the span of one step."""
    with spans.span(name, plain(attributes or {})) as opened:
        yield opened


def named(secret: str) -> Attributes:
    """Return the attribute that names a secret, or none where the object does not want names to be recorded."""
    return {Attribute.SECRET: secret} if _RECORDS_NAMES.get() else {}


def told(span: Span, attributes: Attributes) -> None:
    """Add to what an open span tells."""
    span.set_attributes(plain(attributes))


def plain(attributes: Attributes) -> dict[str, spans.AttributeValue]:
    """Return attributes as the OpenTelemetry API takes them."""
    return {str(Attribute(name)): value for name, value in attributes.items()}
