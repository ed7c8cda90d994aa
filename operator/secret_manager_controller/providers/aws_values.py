"""Values as AWS Secrets Manager takes and gives them: as text or as bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secret_manager_controller.model.observed import RemoteValue
from secret_manager_controller.model.secret import SecretValue, Version


def value_of(entry: Mapping[str, Any]) -> RemoteValue:
    """Return the value that an answer holds."""
    data = entry["SecretString"].encode() if "SecretString" in entry else entry["SecretBinary"]
    return RemoteValue(Version(entry["VersionId"]), SecretValue(data))


def payload_of(value: SecretValue) -> dict[str, Any]:
    """Return a value as text where it is text, since the console and most clients show only that."""
    data = value.expose()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"SecretBinary": data}
    return {"SecretBinary": data} if "\0" in text else {"SecretString": text}
