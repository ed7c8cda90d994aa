"""Reads what logins keep in files and Secrets: keys of service accounts, and credential configurations."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.auth import crypt

from secret_manager_controller.errors import Reason, RetryableError, foreign
from secret_manager_controller.providers.gcp_api import check_url
from secret_manager_controller.providers.gcp_errors import unusable
from secret_manager_controller.providers.gcp_exchange import Federation, Key

KEY, FEDERATION = "service_account", "external_account"
"""What `type` says in the two documents."""

_EMAIL = re.compile(r"[A-Za-z0-9.-]+@[A-Za-z0-9.-]+")
_TOKEN = re.compile(r"[\x21-\x7e]+")


def read_file(path: Path, *, what: str) -> bytes:
    """Return the content of a file; this blocks.

    Raises:
        RetryableError: CredentialsUnavailable: it cannot be read; it may still be mounted.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{what} {foreign(path)} cannot be read ({type(error).__name__}); mount it into the controller's pod"
        raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message) from None


def read_key(document: bytes, *, where: str) -> Key:
    """Return a service account's key. Its addresses are not used: whoever wrote the document does not choose them.

    Args:
        document: JSON, as Google Cloud hands it out.
        where: tells people which document it is.

    Raises:
        PermanentError: CredentialsUnavailable: it is none.
    """
    fields = _parse(document, where=where, kind=KEY, other="a service account's key")
    email, key_id, pem = (_text(fields, name, where) for name in ("client_email", "private_key_id", "private_key"))
    if not _EMAIL.fullmatch(email):
        raise unusable(f"client_email in {where} is no email address of a service account; download the key anew")
    try:
        signer = crypt.RSASigner.from_string(pem, key_id)
    except Exception:  # noqa: BLE001 - whatever it is, it may quote the key.
        raise unusable(f"private_key in {where} is no RSA key in PEM; download the key anew") from None
    return Key(email, key_id, signer)


def is_federation(document: bytes) -> bool:
    """Tell whether a document says that it is a credential configuration."""
    try:
        return bool(json.loads(document)["type"] == FEDERATION)
    except (ValueError, KeyError, TypeError):
        return False


def read_federation(document: bytes, *, where: str) -> Federation:
    """Return what a credential configuration file says.

    Raises:
        PermanentError: CredentialsUnavailable: it is none, or the token is not to be had from a file.
    """
    fields = _parse(document, where=where, kind=FEDERATION, other="a credential configuration")
    source = fields.get("credential_source")
    file = source.get("file") if isinstance(source, dict) else None
    if not isinstance(source, dict) or not isinstance(file, str):
        raise unusable(
            f"credential_source in {where} has no file: only tokens that a kubelet projects are exchanged; create the "
            "configuration with gcloud iam workload-identity-pools create-cred-config --credential-source-file"
        )
    form = source.get("format", {})
    json_field = form.get("subject_token_field_name") if form.get("type") == "json" else None
    impersonation = fields.get("service_account_impersonation_url")
    return Federation(
        audience=_text(fields, "audience", where),
        token_type=_text(fields, "subject_token_type", where),
        token_url=check_url(_text(fields, "token_url", where)),
        token_file=Path(file),
        field_name=json_field,
        impersonation_url=None if impersonation is None else check_url(str(impersonation)),
    )


def read_subject_token(federation: Federation) -> str:
    """Return the token that a federation exchanges; this blocks.

    Raises:
        RetryableError: CredentialsUnavailable: it cannot be read, or is none.
    """
    data = read_file(federation.token_file, what="the projected token")
    try:
        text = data.decode().strip()
        if federation.field_name is not None:
            text = str(json.loads(text)[federation.field_name])
    except (ValueError, KeyError, TypeError):
        text = ""
    if not _TOKEN.fullmatch(text):
        message = f"{foreign(federation.token_file)} holds no token; check the pod's projected volume"
        raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message)
    return text


def has_expired(token: str) -> bool:
    """Tell whether a JWT says of itself that it is over."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"]) <= time.time()
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _parse(document: bytes, *, where: str, kind: str, other: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(document)
    except ValueError:  # It carries the document.
        fields = None
    if not isinstance(fields, dict):
        raise unusable(f"{where} is no JSON object; it should be {other}")
    if fields.get("type") != kind:
        raise unusable(f"{where} is not of type {kind}; it should be {other}")
    return fields


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise unusable(f"{name} is missing in {where}; download or create it anew")
    return value
