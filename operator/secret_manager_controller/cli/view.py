"""What people see of an object: read defensively, since anybody who may write the object chose its content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from secret_manager_controller.cli.terminal import Colour, printable
from secret_manager_controller.model.status import READY, Condition, Status, parse_status

Body = Mapping[str, Any]

STORES = {
    "gcp": ("GCP Project ID", "projectId"),
    "aws": ("AWS Region", "region"),
    "azure": ("Azure Vault", "vaultName"),
}
"""By provider type: what names the store, for people and in the spec."""
DEFAULT_AWS_REGION = "us-east-1"

_LONG_HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
_UNITS = ((2 * 86_400, 86_400, "d"), (2 * 3_600, 3_600, "h"), (2 * 60, 60, "m"), (0, 1, "s"))
_READY_COLOURS: Mapping[str, Colour] = {"True": "green", "False": "red"}


def block(parent: object, name: str) -> Body:
    """Return an object's field that is an object itself; empty if it is anything else."""
    value = parent.get(name) if isinstance(parent, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def field(parent: Body, name: str) -> str | None:
    """Return a field as printable text, or None without it."""
    value = parent.get(name)
    return None if value is None else printable(value)


def status_of(body: Body) -> Status:
    """Return the status, as far as it is one."""
    return parse_status(block(body, "status"))


def ready_of(status: Status) -> Condition | None:
    """Return the Ready condition."""
    return status.condition(READY)


def ready_colour(status: str) -> Colour:
    """Return the colour of a condition's status."""
    return _READY_COLOURS.get(status, "yellow")


def source_of(spec: Body) -> str:
    """Return the source as `Kind/name`."""
    source = block(spec, "sourceRef")
    return f"{field(source, 'kind') or 'GitRepository'}/{field(source, 'name') or ''}"


def store_of(spec: Body) -> tuple[str, str]:
    """Return what names the store, and the name: e.g. `AWS Region` and `eu-west-1`. In either form of the spec."""
    provider = block(spec, "provider") or spec
    for kind, (title, key) in STORES.items():
        if isinstance(provider.get(kind), Mapping):
            default = DEFAULT_AWS_REGION if kind == "aws" else ""
            return title, field(block(provider, kind), key) or default
    return "Provider", field(provider, "type") or ""


def revision_of(status: Status, *, short: bool = False) -> str | None:
    """Return the revision that the store holds, or that was tried if none was applied."""
    revision = status.last_applied_revision or status.last_attempted_revision
    if revision is None:
        return None
    return _LONG_HEX.sub(r"\1", printable(revision)) if short else printable(revision)


def age_of(body: Body, *, now: float) -> str:
    """Return an object's age in its two-fold largest unit, as kubectl does: `90s`, `5m`, `36h`, `12d`."""
    try:
        created = datetime.fromisoformat(str(block(body, "metadata").get("creationTimestamp"))).timestamp()
    except (ValueError, OverflowError):
        return "<unknown>"
    return duration(now - created)


def duration(seconds: float) -> str:
    """Return a duration in its two-fold largest unit; less than none is none."""
    whole = max(0, int(seconds))
    return next(f"{whole // size}{unit}" for least, size, unit in _UNITS if whole >= least)
