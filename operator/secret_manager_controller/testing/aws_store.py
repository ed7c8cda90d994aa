"""moto's Secrets Manager with its faults mended and the service's limits enforced; runs in the test server's process.

The faults are those of moto 5.2.5. What the service does is taken from its API reference
(https://docs.aws.amazon.com/secretsmanager/latest/apireference/) and its quotas page
(https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html).
"""

from __future__ import annotations

import copy
import json
import time
from typing import Any

from moto.secretsmanager import models, urls
from moto.secretsmanager.exceptions import (
    InvalidParameterException,
    InvalidRequestException,
    ResourceExistsException,
    SecretNotFoundException,
    SecretsManagerClientError,
)

CURRENT = "AWSCURRENT"
PREVIOUS = "AWSPREVIOUS"
MAX_VERSIONS = 100  # Quota "Versions per secret".
MAX_LABELS = 20  # Quota "Staging labels attached across all versions of a secret".
MAX_TAGS = 50
VERSION_KEPT = 24 * 3600  # Seconds; an unlabelled version is removed no earlier, so that fast writers meet the quota.
BATCH_PAGE = 20
LIST_PAGE = 100

_SCHEDULED = "You can't perform this operation on the secret because it was marked for deletion."


class LimitExceededError(SecretsManagerClientError):  # type: ignore[misc]  # moto is untyped to us.
    """A quota is reached."""

    def __init__(self, message: str) -> None:
        super().__init__("LimitExceededException", message)


class IndexedStore(models.SecretsStore):  # type: ignore[misc]  # moto is untyped to us.
    """Finds a secret by name at once; moto compares every secret's name and ARN."""

    def __getitem__(self, key: str) -> Any:
        return dict.__getitem__(self, key) if dict.__contains__(self, key) else super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key) or (str(key).startswith("arn:") and super().__contains__(key))

    def get(self, key: str) -> Any:
        """Return a secret by its name or ARN, or None."""
        return dict.get(self, key) if not key.startswith("arn:") else super().get(key)


class MendedBackend(models.SecretsManagerBackend):  # type: ignore[misc]  # moto is untyped to us.
    """One region of one account."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.secrets = IndexedStore()
        self.listed: IndexedStore | None = None
        """What ListSecrets shows instead of the secrets, while the listing is stale."""
        self.unreadable: dict[str, str] = {}
        """Secrets whose value is refused, with the error code."""
        self.short_page: int | None = None
        """Most items of a page, where it is shorter than asked for."""

    @property
    def _url_module(self) -> Any:
        return urls  # moto looks beside the backend's own module.

    def create_secret(self, name: str, **options: Any) -> str:
        """Create, or confirm an earlier creation with the same token and value."""
        secret = self.secrets.get(name)
        if secret is None:
            return str(super().create_secret(name=name, **options))
        if secret.is_deleted():
            raise InvalidRequestException(
                "You can't create this secret because a secret with this name is already scheduled for deletion."
            )
        token = options["client_request_token"]
        if token not in secret.versions:
            raise ResourceExistsException(f"The operation failed because the secret {name} already exists.")
        _same_or_refuse(secret.versions[token], options)
        return str(secret.to_short_dict(version_id=token))

    def put_secret_value(
        self,
        secret_id: str,
        secret_string: str | None,
        secret_binary: str | None,
        client_request_token: str | None,
        version_stages: list[str],
    ) -> str:
        """Add a version and move the labels to it; a repeated token with the same value does nothing."""
        secret = self.live(secret_id)
        token = self._from_client_request_token(client_request_token)
        value = {"secret_string": secret_string, "secret_binary": secret_binary}
        if token in secret.versions:
            _same_or_refuse(secret.versions[token], value)
            return str(secret.to_short_dict(include_version_stages=True, version_id=token))
        labels = set(version_stages) if secret.versions else {CURRENT, *version_stages}
        _check_labels(secret, labels)
        _make_room(secret)
        secret.versions[token] = {
            "createdate": int(time.time()),
            "version_id": token,
            "version_stages": [],
            **{kind: data for kind, data in value.items() if data is not None},
        }
        for label in sorted(labels):
            _move_label(secret, label, token)
        secret.last_changed_date = int(time.time())
        return str(secret.to_short_dict(include_version_stages=True, version_id=token))

    def update_secret_version_stage(
        self, secret_id: str, version_stage: str, remove_from_version_id: str | None, move_to_version_id: str | None
    ) -> tuple[str, str]:
        """Move a label, if it is where the caller says that it is."""
        secret = self.live(secret_id)
        for version in (remove_from_version_id, move_to_version_id):
            if version is not None and version not in secret.versions:
                raise InvalidParameterException(f"Not a valid version: {version}")
        holder = _holder(secret, version_stage)
        if remove_from_version_id != holder and (remove_from_version_id or holder != move_to_version_id):
            raise InvalidParameterException(
                f"When you move staging label {version_stage}, RemoveFromVersionId must be set to the version that "
                "currently has the staging label."
            )
        if move_to_version_id is not None:
            _check_labels(secret, {version_stage})
            _move_label(secret, version_stage, move_to_version_id)
        elif version_stage == CURRENT:
            raise InvalidParameterException("You can only move staging label AWSCURRENT to a different version.")
        elif holder is not None:
            secret.versions[holder]["version_stages"].remove(version_stage)
        secret.last_changed_date = int(time.time())
        return secret.arn, secret.name

    def update_secret(
        self,
        secret_id: str,
        secret_string: str | None = None,
        secret_binary: str | None = None,
        client_request_token: str | None = None,
        kms_key_id: str | None = None,
        description: str | None = None,
    ) -> str:
        """Change what stands beside a value; without a value there is no new version."""
        if secret_string is not None or secret_binary is not None:
            return str(
                super().update_secret(
                    secret_id, secret_string, secret_binary, client_request_token, kms_key_id, description
                )
            )
        secret = self.live(secret_id)
        if description is not None:
            secret.description = description
        if kms_key_id is not None:
            secret.kms_key_id = kms_key_id
        secret.last_changed_date = int(time.time())
        return str(secret.to_short_dict())

    def batch_get_secret_value(
        self,
        secret_id_list: list[str] | None = None,
        filters: list[dict[str, Any]] | None = None,
        max_results: int | None = None,
        next_token: str | None = None,
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]], str | None]:
        """Return values, and one error for each secret that has none."""
        if bool(secret_id_list) is bool(filters) or (max_results and not filters):
            raise InvalidParameterException("Give either SecretIdList or Filters; MaxResults belongs to Filters.")
        names = secret_id_list or [s.name for s in self.secrets.values() if models._matches(s, filters)]  # noqa: SLF001 - moto's filter is right.
        page, following = self._page(names, max_results or BATCH_PAGE, next_token)
        values, errors = [], []
        for name in page:
            try:
                values.append(self.get_secret_value(name, None, None))
            except SecretsManagerClientError as error:
                errors.append({"SecretId": name, "ErrorCode": error.error_type, "Message": error.message})
        return values, errors, following

    def get_secret_value(self, secret_id: str, version_id: str | None, version_stage: str | None) -> dict[str, Any]:
        """Return a value, unless that is refused."""
        if secret_id in self.unreadable:
            raise SecretsManagerClientError(self.unreadable[secret_id], "A fault that the test asked for.")
        value: dict[str, Any] = super().get_secret_value(secret_id, version_id, version_stage)
        return value

    def list_secrets(
        self,
        filters: list[dict[str, Any]],
        max_results: int | None = None,
        next_token: str | None = None,
        include_planned_deletion: bool = False,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """List the secrets, or those of the moment when the listing became stale."""
        listed = self.secrets if self.listed is None else self.listed
        matching = [
            secret
            for secret in listed.values()
            if models._matches(secret, filters) and (include_planned_deletion or not secret.is_deleted())  # noqa: SLF001 - moto's filter is right.
        ]
        page, following = self._page(matching, max_results or LIST_PAGE, next_token)
        return [secret.to_dict() for secret in page], following

    def _page(self, items: list[Any], size: int, token: str | None) -> tuple[list[Any], str | None]:
        at, size = int(token or 0), min(size, self.short_page or size)
        return items[at : at + size], str(at + size) if at + size < len(items) else None

    def tag_resource(self, arn: str, tags: dict[str, str]) -> None:
        """Add tags to a secret that is not scheduled for deletion."""
        secret = self.live(arn)
        if len({tag["Key"] for tag in secret.tags or []} | set(tags)) > MAX_TAGS:
            raise InvalidParameterException(f"A secret can have at most {MAX_TAGS} tags.")
        super().tag_resource(arn, tags)

    def live(self, secret_id: str) -> Any:
        """Return a secret that can be changed.

        Raises:
            SecretsManagerClientError: there is none, or it is scheduled for deletion.
        """
        secret = self.secrets.get(secret_id)
        if secret is None:
            raise SecretNotFoundException
        if secret.is_deleted():
            raise InvalidRequestException(_SCHEDULED)
        return secret

    def freeze_listing(self, *, stale: bool) -> None:
        """Let ListSecrets show the present for ever, or the truth again."""
        self.listed = copy.deepcopy(self.secrets) if stale else None

    def put_by_hand(self, name: str, kind: str, data: str, tags: list[dict[str, str]]) -> str:
        """Write as a person at the console would; return the new version."""
        value = {"secret_string": None, "secret_binary": None, kind: data}
        if name not in self.secrets:
            answer = self.create_secret(
                name=name,
                **value,
                description="",
                tags=tags,
                kms_key_id=None,
                client_request_token=None,
                replica_regions=[],
                force_overwrite=False,
            )
        else:
            answer = self.put_secret_value(name, client_request_token=None, version_stages=[CURRENT], **value)
        return str(json.loads(answer)["VersionId"])


def install() -> Any:
    """Make moto use the mended backend; return its backends, by account and region."""
    models.secretsmanager_backends.backend = MendedBackend
    return models.secretsmanager_backends


def current_value(secret: Any) -> dict[str, Any] | None:
    """Return the version that carries AWSCURRENT, or None where there is none."""
    holder = _holder(secret, CURRENT)
    return None if holder is None else secret.versions[holder]


def _holder(secret: Any, label: str) -> str | None:
    return next((name for name, version in secret.versions.items() if label in version["version_stages"]), None)


def _move_label(secret: Any, label: str, version: str) -> None:
    holder = _holder(secret, label)
    if holder == version:
        return
    if holder is not None:
        secret.versions[holder]["version_stages"].remove(label)
    secret.versions[version]["version_stages"].append(label)
    if label != CURRENT:
        return
    # moto reads the current value by this attribute and forgets to move it.
    secret.set_default_version_id(version)
    if PREVIOUS in secret.versions[version]["version_stages"]:
        secret.versions[version]["version_stages"].remove(PREVIOUS)
    if holder is not None:
        _move_label(secret, PREVIOUS, holder)


def _check_labels(secret: Any, labels: set[str]) -> None:
    attached = {label for version in secret.versions.values() for label in version["version_stages"]}
    if len(attached | labels) > MAX_LABELS:
        raise LimitExceededError(f"A secret can have at most {MAX_LABELS} staging labels.")


def _make_room(secret: Any) -> None:
    """Remove unlabelled versions as the service does: when there are too many, and none that is younger than a day."""
    before = int(time.time()) - VERSION_KEPT
    removable = [
        name
        for name, version in secret.versions.items()
        if not version["version_stages"] and version["createdate"] <= before
    ]
    for name in removable[: max(0, len(secret.versions) - MAX_VERSIONS + 1)]:
        del secret.versions[name]
    if len(secret.versions) >= MAX_VERSIONS:
        raise LimitExceededError(f"A secret can have at most {MAX_VERSIONS} versions.")


def _same_or_refuse(version: dict[str, Any], value: dict[str, Any]) -> None:
    if any(version.get(kind) != value.get(kind) for kind in ("secret_string", "secret_binary")):
        raise ResourceExistsException("The ClientRequestToken is already in use for a version with another value.")
