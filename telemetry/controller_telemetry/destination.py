"""What receives spans or readings by OTLP: how it is reached, and what becomes of what is sent there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from controller_telemetry.direct import DirectSession

EXPORT_TIMEOUT: Final = 3.0
"""Seconds for one batch, tries included."""


@dataclass(frozen=True, slots=True)
class Destination:
    """What receives spans.

    Attributes:
        endpoint: of OTLP; with gRPC scheme, host and port, with HTTP the whole address.
        grpc: whether gRPC is spoken, else HTTP with protobuf.
        headers: sent along; they may hold a token.
        ca: certificates in PEM to trust in place of the system's.
    """

    endpoint: str
    grpc: bool
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca: bytes | None = field(default=None, repr=False)

    @property
    def host(self) -> str | None:
        """The host, which is all that logs tell."""
        return urlsplit(self.endpoint).hostname

    def options(self) -> dict[str, Any]:
        """Return how the SDK's exporter for its protocol reaches it: all that the environment would else be asked."""
        if not self.grpc:
            session = DirectSession(self.ca)
            return {
                "endpoint": self.endpoint,
                "headers": dict(self.headers),
                "timeout": EXPORT_TIMEOUT,
                "session": session,
            }
        import grpc  # noqa: PLC0415 - 100 ms and 15 MB for those who use it.

        secure = self.endpoint.startswith("https://")
        return {
            "endpoint": urlsplit(self.endpoint).netloc,
            "insecure": not secure,
            "credentials": grpc.ssl_channel_credentials(self.ca) if secure else None,
            "headers": {name.lower(): value for name, value in self.headers},
            "timeout": EXPORT_TIMEOUT,
        }


class Deliveries:
    """What becomes of what is sent to one destination: a fault is a failed delivery and no more; a change is logged.

    Args:
        what: what is sent, as a sentence begins with it.
        destination: where it goes.
        logger: where a change is told.
    """

    def __init__(self, what: str, destination: Destination, logger: logging.Logger) -> None:
        self._what = what
        self._host = destination.host
        self._logger = logger
        self._ok = True

    def make(self, export: Callable[[], bool]) -> bool:
        """Send something; return whether it was taken."""
        try:
            ok = export()
        except Exception as error:  # noqa: BLE001 - an exporter's fault is a failed delivery, and no more.
            ok = False
            self._logger.debug("Exporter failed", extra={"host": self._host, "error_type": type(error).__name__})
        if ok is not self._ok:
            self._ok = ok
            told = f"{self._what} are taken again" if ok else f"{self._what} are not taken"
            self._logger.log(logging.INFO if ok else logging.WARNING, told, extra={"host": self._host})
        return ok
