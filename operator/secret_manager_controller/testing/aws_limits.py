"""What AWS Secrets Manager refuses before it looks at a secret: the limits that moto does not enforce.

Sources: the API reference (https://docs.aws.amazon.com/secretsmanager/latest/apireference/) and the quotas page
(https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

MAX_VALUE = 65_536  # Bytes, whichever of the two parameters holds them.
MAX_BATCH = 20
MAX_PAGE = 100
MAX_TAGS = 50

_NAME = re.compile(r"[a-zA-Z0-9/_+=.@-]{1,512}")
_TAG_KEY = re.compile(r"(?!aws:)[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_FILTER = re.compile(r"!?[a-zA-Z0-9 :_@/+=.\-!]{0,511}")


class AwsError(Exception):
    """An answer of AWS that refuses a request; the message never holds a value."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.status = status


def check_limits(operation: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what is malformed or too large.

    Raises:
        AwsError: InvalidParameterException, as the service answers.
    """
    if operation == "CreateSecret":
        name = str(parameters.get("Name", ""))
        _require(_NAME.fullmatch(name), "Name must have 1 to 512 of the characters A-Za-z0-9/_+=.@-")
    if operation in {"CreateSecret", "PutSecretValue", "UpdateSecret"}:
        _check_value(parameters, needed=operation == "PutSecretValue")
        token = parameters.get("ClientRequestToken")
        _require(token is None or 32 <= len(token) <= 64, "ClientRequestToken must be 32-64 characters long.")
    if operation == "PutSecretValue":
        stages = parameters.get("VersionStages", ["AWSCURRENT"])
        _require(1 <= len(stages) <= 20, "VersionStages must have 1 to 20 items.")
        _require(all(1 <= len(stage) <= 256 for stage in stages), "A staging label must have 1 to 256 characters.")
    if operation in {"CreateSecret", "TagResource"}:
        _check_tags(parameters.get("Tags", []))
    if operation in {"ListSecrets", "BatchGetSecretValue"}:
        _check_listing(operation, parameters)
    if "SecretId" in parameters:
        _require(1 <= len(parameters["SecretId"]) <= 2048, "SecretId must have 1 to 2048 characters.")


def _check_value(parameters: Mapping[str, Any], *, needed: bool) -> None:
    text, binary = parameters.get("SecretString"), parameters.get("SecretBinary")
    _require(text is None or binary is None, "You can't specify both SecretBinary and SecretString.")
    _require(not needed or text is not None or binary is not None, "You must provide SecretString or SecretBinary.")
    if text is not None:
        _require(1 <= len(text.encode()) <= MAX_VALUE, f"SecretString must have 1 to {MAX_VALUE} bytes.")
    if binary is not None:
        try:
            size = len(base64.b64decode(binary, validate=True))
        except binascii.Error:
            size = 0
        _require(1 <= size <= MAX_VALUE, f"SecretBinary must have 1 to {MAX_VALUE} bytes.")


def _check_tags(tags: list[dict[str, str]]) -> None:
    _require(len(tags) <= MAX_TAGS, f"A secret can have at most {MAX_TAGS} tags.")
    for tag in tags:
        _require(_TAG_KEY.fullmatch(tag.get("Key", "")), "A tag key is not valid.")
        _require(_TAG_VALUE.fullmatch(tag.get("Value", "")), "A tag value is not valid.")


def _check_listing(operation: str, parameters: Mapping[str, Any]) -> None:
    largest = MAX_BATCH if operation == "BatchGetSecretValue" else MAX_PAGE
    _require(1 <= parameters.get("MaxResults", 1) <= largest, f"MaxResults must be 1 to {largest}.")
    _require(len(parameters.get("SecretIdList", [])) <= MAX_BATCH, f"SecretIdList must have at most {MAX_BATCH} items.")
    filters = parameters.get("Filters", [])
    _require(len(filters) <= 10, "Filters must have at most 10 items.")
    for each in filters:
        values = each.get("Values", [])
        _require(1 <= len(values) <= 10, "A filter must have 1 to 10 values.")
        _require(all(_FILTER.fullmatch(value) for value in values), "A filter value is not valid.")


def _require(condition: object, message: str) -> None:
    if not condition:
        raise AwsError("InvalidParameterException", message)
