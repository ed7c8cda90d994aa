"""What a Key Vault holds, and what it does to it: the rules of the service's data plane for secrets.

https://learn.microsoft.com/rest/api/keyvault/secrets/operation-groups; what is not written there is taken from answers
of the service that its SDKs' tests recorded.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

SECRETS_A_PAGE = 25
MAX_VALUE = 25 * 1024  # Bytes.
MAX_TAGS = 15
MAX_TAG_KEY = 512
MAX_TAG_VALUE = 256
MAX_CONTENT_TYPE = 255
RECOVERABLE_DAYS = 90
DAY = 86_400
RECOVERY_LEVEL = "Recoverable+Purgeable"

_NAME = re.compile(r"[0-9a-zA-Z-]{1,127}")


class VaultError(Exception):
    """A refusal: the HTTP status, the code, and for some the inner code that tells the cause."""

    def __init__(self, status: int, code: str, message: str, inner: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner


@dataclass(slots=True)
class StoredVersion:
    """One version of a secret: each has its own tags and attributes."""

    id: str
    value: str = field(repr=False)
    created: int
    updated: int
    tags: dict[str, str]
    content_type: str | None = None
    enabled: bool = True
    not_before: int | None = None
    expires: int | None = None

    def attributes(self) -> dict[str, Any]:
        """Return the attributes as the API tells them."""
        optional = {"nbf": self.not_before, "exp": self.expires}
        return {
            "enabled": self.enabled,
            **{key: value for key, value in optional.items() if value is not None},
            "created": self.created,
            "updated": self.updated,
            "recoveryLevel": RECOVERY_LEVEL,
            "recoverableDays": RECOVERABLE_DAYS,
        }

    def bundle(self, url: str, *, with_value: bool = False) -> dict[str, Any]:
        """Return a description of this version under the secret's or the version's own URL."""
        described: dict[str, Any] = {"id": url, "attributes": self.attributes()}
        if with_value:
            described["value"] = self.value
        if self.tags:
            described["tags"] = dict(self.tags)
        if self.content_type is not None:
            described["contentType"] = self.content_type
        return described


@dataclass(slots=True)
class StoredSecret:
    """A secret: its name as it was first written, and its versions, oldest first.

    Attributes:
        deleted_at: when it was deleted, or None.
        usable_at: when its deletion or recovery has been carried out.
    """

    name: str
    versions: list[StoredVersion] = field(default_factory=list)
    deleted_at: int | None = None
    usable_at: float = 0.0

    @property
    def current(self) -> StoredVersion:
        """The version that was set last."""
        return self.versions[-1]


class Vault:
    """One vault; the caller serialises access.

    Args:
        name: of the vault.
        now: seconds since the epoch.
    """

    def __init__(self, name: str, now: Callable[[], float]) -> None:
        self.name = name
        self.secrets: dict[str, StoredSecret] = {}
        self.transition = 0.0
        """Seconds that a deletion or a recovery takes."""
        self.page = SECRETS_A_PAGE
        self._now = now
        self._frozen: list[dict[str, Any]] | None = None

    # The operations of the API.

    def set_secret(self, url: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Add a version; nothing is taken over from the one before."""
        if _NAME.fullmatch(name) is None:
            raise _bad("The request URI contains an invalid name.")
        checked = _checked(body)
        value = body.get("value")
        if not isinstance(value, str) or len(value.encode()) > MAX_VALUE:
            raise _bad("The property 'value' is missing, no text, or longer than 25k.")
        secret = self.secrets.get(name.lower())
        if secret is not None and secret.deleted_at is not None:
            state = "being deleted" if self._now() < secret.usable_at else "in a deleted but recoverable state"
            inner = "ObjectIsBeingDeleted" if self._now() < secret.usable_at else "ObjectIsDeletedButRecoverable"
            raise VaultError(409, "Conflict", f"Secret {name} is currently {state}.", inner)
        if secret is not None and self._now() < secret.usable_at:
            raise VaultError(409, "Conflict", f"Secret {name} is currently being recovered.", "ObjectIsBeingRecovered")
        if secret is None:
            secret = self.secrets[name.lower()] = StoredSecret(name)
        now = int(self._now())
        version = StoredVersion(secrets.token_hex(16), value, now, now, tags={})
        secret.versions.append(_changed(version, checked))
        return self._version(url, secret, secret.current, with_value=True)

    def get_secret(self, url: str, name: str, version: str) -> dict[str, Any]:
        """Return a version with its value: the current one, where none is named."""
        secret, found = self._find(name, version)
        if not found.enabled:
            raise VaultError(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
        return self._version(url, secret, found, with_value=True)

    def update_secret(self, url: str, name: str, version: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change a version's attributes, tags or content type; what is not named stays."""
        secret, found = self._find(name, version)
        changed = replace(_changed(found, _checked(body)), updated=int(self._now()))
        secret.versions[secret.versions.index(found)] = changed
        return self._version(url, secret, changed)

    def delete_secret(self, url: str, name: str) -> dict[str, Any]:
        """Delete a secret with all its versions, softly."""
        secret, _ = self._find(name, "")
        secret.deleted_at = int(self._now())
        secret.usable_at = self._now() + self.transition
        return self._deleted(url, secret, str(secret.current.id))

    def get_secrets(self, url: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of secrets, each as its current version is, without that version's id."""
        found = self.listing(url) if self._frozen is None else self._frozen
        return self._page(f"{url}/secrets", found, query)

    def get_versions(self, url: str, name: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of a secret's versions, in the order of their ids; none of one that does not exist."""
        secret = self._active(name)
        versions = [] if secret is None else sorted(secret.versions, key=lambda version: version.id)
        items = [each.bundle(f"{url}/secrets/{name}/{each.id}") for each in versions]
        return self._page(f"{url}/secrets/{name}/versions", items, query)

    def get_deleted(self, url: str, name: str) -> dict[str, Any]:
        """Return a deleted secret, once it has been deleted."""
        try:
            return self._deleted(url, self._find_deleted(name), "")
        except VaultError as error:
            # What is still being deleted is not found here yet.
            raise VaultError(404, "SecretNotFound", f"Deleted Secret not found: {name}") from error

    def get_all_deleted(self, url: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return a page of deleted secrets."""
        gone = [each for each in self._sorted() if each.deleted_at is not None and self._now() >= each.usable_at]
        return self._page(f"{url}/deletedsecrets", [self._deleted(url, each, "") for each in gone], query)

    def recover(self, url: str, name: str) -> dict[str, Any]:
        """Bring a deleted secret back, with all its versions."""
        secret = self._find_deleted(name)
        secret.deleted_at = None
        secret.usable_at = self._now() + self.transition
        return self._version(url, secret, secret.current)

    def purge(self, name: str) -> None:
        """Delete a deleted secret for good."""
        self._find_deleted(name)
        del self.secrets[name.lower()]

    # What tests do beside them.

    def listing(self, url: str) -> list[dict[str, Any]]:
        """Return all secrets that are not deleted, in the order of their names."""
        return [
            each.current.bundle(f"{url}/secrets/{each.name}")
            for each in self._sorted()
            if self._active(each.name) is not None
        ]

    def freeze(self, url: str | None) -> None:
        """Let GetSecrets show what it would show now; None lets it show the truth again."""
        self._frozen = None if url is None else self.listing(url)

    def _sorted(self) -> Sequence[StoredSecret]:
        return [self.secrets[key] for key in sorted(self.secrets)]

    def _active(self, name: str) -> StoredSecret | None:
        secret = self.secrets.get(name.lower())
        if secret is None or secret.deleted_at is not None or self._now() < secret.usable_at:
            return None
        return secret

    def _find(self, name: str, version: str) -> tuple[StoredSecret, StoredVersion]:
        secret = self._active(name)
        versions = [] if secret is None else [each for each in secret.versions if version in {each.id, ""}]
        if secret is None or not versions:
            message = f"A secret with (name/id) {name}/{version} was not found in this key vault."
            raise VaultError(404, "SecretNotFound", message)
        return secret, versions[-1]

    def _find_deleted(self, name: str) -> StoredSecret:
        secret = self.secrets.get(name.lower())
        if secret is None or secret.deleted_at is None:
            raise VaultError(404, "SecretNotFound", f"Deleted Secret not found: {name}")
        if self._now() < secret.usable_at:
            raise VaultError(409, "Conflict", f"Secret {name} is currently being deleted.", "ObjectIsBeingDeleted")
        return secret

    def _version(
        self, url: str, secret: StoredSecret, version: StoredVersion, *, with_value: bool = False
    ) -> dict[str, Any]:
        return version.bundle(f"{url}/secrets/{secret.name}/{version.id}", with_value=with_value)

    def _deleted(self, url: str, secret: StoredSecret, version: str) -> dict[str, Any]:
        assert secret.deleted_at is not None  # The caller looked.
        return {
            "recoveryId": f"{url}/deletedsecrets/{secret.name}",
            "deletedDate": secret.deleted_at,
            "scheduledPurgeDate": secret.deleted_at + RECOVERABLE_DAYS * DAY,
            **secret.current.bundle(f"{url}/secrets/{secret.name}" + (f"/{version}" if version else "")),
        }

    def _page(self, url: str, items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
        size = int(query.get("maxresults", SECRETS_A_PAGE))
        if not 1 <= size <= SECRETS_A_PAGE:
            raise _bad("maxresults must be 1 to 25.")
        size = min(size, self.page)
        after = _marker(query.get("$skiptoken"))
        rest = [item for item in items if _key(item) > after]
        page: dict[str, Any] = {"value": rest[:size], "nextLink": None}
        if len(rest) > size:
            token = base64.urlsafe_b64encode(_key(rest[size - 1]).encode()).decode()
            page["nextLink"] = f"{url}?api-version={query.get('api-version', '')}&$skiptoken={token}&maxresults={size}"
        return page


def _key(item: Mapping[str, Any]) -> str:
    """Return what items are ordered by: secrets by their names in capitals, versions by their ids."""
    return str(item["id"]).rpartition("/")[2].upper()


def _marker(token: str | None) -> str:
    try:
        return "" if token is None else base64.urlsafe_b64decode(token).decode()
    except (binascii.Error, ValueError):
        raise _bad("The $skiptoken is invalid.") from None


def _checked(body: Mapping[str, Any]) -> Mapping[str, Any]:
    tags, content_type = body.get("tags") or {}, body.get("contentType") or ""
    if len(tags) > MAX_TAGS or any(len(k) > MAX_TAG_KEY or len(v) > MAX_TAG_VALUE for k, v in tags.items()):
        raise _bad("There are more than 15 tags, or one that is too long.")
    if len(content_type) > MAX_CONTENT_TYPE:
        raise _bad("The property 'contentType' is too long.")
    return body


def _changed(version: StoredVersion, body: Mapping[str, Any]) -> StoredVersion:
    """Return a version with the properties that a request names; those that it leaves out or null stay."""
    attributes = body.get("attributes") or {}
    named = {
        "tags": body.get("tags"),
        "content_type": body.get("contentType"),
        "enabled": attributes.get("enabled"),
        "not_before": attributes.get("nbf"),
        "expires": attributes.get("exp"),
    }
    return replace(version, **{key: value for key, value in named.items() if value is not None})


def _bad(message: str) -> VaultError:
    return VaultError(400, "BadParameter", message)
