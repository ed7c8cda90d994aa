"""The secrets of the Google Secret Manager test server, and each operation on them.

Messages are the SDK's own. The caller serialises access.
"""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
from google.cloud.secretmanager_v1.types import resources, service
from google.protobuf.empty_pb2 import Empty

from secret_manager_controller.testing import gcp_filter
from secret_manager_controller.testing.gcp_limits import (
    GcpError,
    check_payload,
    check_secret,
    check_secret_id,
    invalid,
    places_of,
)

PAGE = 25_000
LATEST = "latest"

Secret = resources.Secret.pb()
SecretVersion = resources.SecretVersion.pb()
State = resources.SecretVersion.State
AccessSecretVersionResponse = service.AccessSecretVersionResponse.pb()
ListSecretsResponse = service.ListSecretsResponse.pb()
ListSecretVersionsResponse = service.ListSecretVersionsResponse.pb()

_PARENT = re.compile(r"projects/(?P<project>[^/]+)(?:/locations/(?P<location>[^/]+))?")
_NAME = re.compile(r"(?P<parent>.+)/secrets/(?P<id>[^/]+)(?:/versions/(?P<version>[^/]+))?")
_MUTABLE = frozenset(
    {
        "labels",
        "annotations",
        "version_aliases",
        "topics",
        "ttl",
        "expire_time",
        "rotation",
        "version_destroy_ttl",
        "replication",  # Of which only the keys can be changed: gcloud secrets replication update.
    }
)


@dataclass(slots=True)
class Version:
    """One version: its resource and, until it is destroyed, its payload."""

    resource: Any
    data: bytes | None


@dataclass(slots=True)
class Stored:
    """One secret: its resource and its versions, oldest first."""

    resource: Any
    versions: list[Version] = field(default_factory=list)
    latest: int | None = None
    """What `latest` is taken for while it is stale; None is the newest version."""

    @property
    def value(self) -> bytes | None:
        """What `latest` gives, or None where it gives nothing."""
        newest = self.versions[-1] if self.versions else None
        return newest.data if newest is not None and newest.resource.state == State.ENABLED else None


class GcpStore:
    """All projects' secrets, by the resource name with the project's id.

    Attributes:
        projects: the ids of the projects that exist.
        short_page: most items that a page has, if that is fewer than asked for.
        unreadable: error codes of values that cannot be read, by secret id.
    """

    def __init__(self, projects: Iterable[str]) -> None:
        self.secrets: dict[str, Stored] = {}
        self.projects = set(projects)
        self.short_page = PAGE
        self.unreadable: dict[str, str] = {}
        self._frozen: list[Any] | None = None
        self._now = 0

    def reset(self) -> None:
        """Forget all secrets, and that anything was stale, short or unreadable."""
        self.secrets.clear()
        self.unreadable.clear()
        self.short_page, self._frozen = PAGE, None

    def freeze_listing(self, *, stale: bool) -> None:
        """Let ListSecrets show what is there now, whatever happens, or the truth again."""
        self._frozen = [_copy(stored.resource) for stored in self.secrets.values()] if stale else None

    def freeze_latest(self, *, stale: bool) -> None:
        """Let `latest` be what it is now, whatever is added, or the newest version again."""
        for stored in self.secrets.values():
            stored.latest = len(stored.versions) if stale else None

    def find(self, name: str) -> Stored:
        """Return a secret by its resource name, with or without a version."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise invalid(f"Invalid resource name: {name}")
        key = f"{self._parent(match['parent'])}/secrets/{match['id']}"
        if key not in self.secrets:
            raise GcpError("NOT_FOUND", f"Secret [{name}] not found.")
        return self.secrets[key]

    # Each operation takes the request's message and returns the answer's.

    def list_secrets(self, request: Any) -> Any:
        """Newest first; a filter that cannot be read is refused."""
        parent = self._numbered(self._parent(request.parent))
        resources_now = [stored.resource for stored in self.secrets.values()] if self._frozen is None else self._frozen
        matches = _filter(request.filter)
        found = [
            secret
            for secret in reversed(resources_now)
            if secret.name.rpartition("/secrets/")[0] == parent and matches(_fields(secret))
        ]
        page, token = self._page(request, found)
        total = 0 if request.filter else len(found)
        return ListSecretsResponse(secrets=page, next_page_token=token, total_size=total)

    def create_secret(self, request: Any) -> Any:
        """Create a secret without a version."""
        parent = self._parent(request.parent)
        check_secret_id(request.secret_id)
        check_secret(request.secret, regional="/locations/" in parent)
        key = f"{parent}/secrets/{request.secret_id}"
        if key in self.secrets:
            raise GcpError("ALREADY_EXISTS", f"Secret [{key}] already exists.")
        resource = _copy(request.secret)
        resource.name, resource.etag = f"{self._numbered(parent)}/secrets/{request.secret_id}", _etag()
        resource.create_time.seconds = self._tick()
        self.secrets[key] = Stored(resource)
        return _copy(resource)

    def get_secret(self, request: Any) -> Any:
        """Return a secret's metadata."""
        return _copy(self.find(request.name).resource)

    def update_secret(self, request: Any) -> Any:
        """Replace the fields of the mask; nothing if the etag is an old one."""
        stored = self.find(request.secret.name)
        paths = list(request.update_mask.paths)
        if not paths or not _MUTABLE.issuperset(paths):
            raise invalid(f"The update mask {paths} is empty or names fields that cannot be changed.")
        _check_etag(request.secret.etag, stored.resource)
        changed = _copy(stored.resource)
        request.update_mask.MergeMessage(
            request.secret, changed, replace_message_field=True, replace_repeated_field=True
        )
        check_secret(changed, regional="/locations/" in changed.name)
        if places_of(changed.replication) != places_of(stored.resource.replication):
            raise invalid("The replication policy cannot be changed.")
        changed.etag = _etag()
        stored.resource = changed
        return _copy(changed)

    def delete_secret(self, request: Any) -> Any:
        """Delete a secret with all its versions."""
        stored = self.find(request.name)
        _check_etag(request.etag, stored.resource)
        self.secrets = {key: other for key, other in self.secrets.items() if other is not stored}
        return Empty()

    def add_secret_version(self, request: Any) -> Any:
        """Add a version; it does not touch the secret's etag."""
        stored = self.find(request.parent)
        check_payload(request.payload)
        resource = SecretVersion(
            name=f"{stored.resource.name}/versions/{len(stored.versions) + 1}",
            state=State.ENABLED,
            etag=_etag(),
            client_specified_payload_checksum=request.payload.HasField("data_crc32c"),
        )
        resource.create_time.seconds = self._tick()
        stored.versions.append(Version(resource, request.payload.data))
        return _copy(resource)

    def get_secret_version(self, request: Any) -> Any:
        """Return a version's metadata."""
        return _copy(self._version(request.name).resource)

    def access_secret_version(self, request: Any) -> Any:
        """Return a version's value with its checksum."""
        version = self._version(request.name)
        code = self.unreadable.get(version.resource.name.split("/secrets/")[1].partition("/")[0])
        if code is not None:
            raise GcpError(code, "A refusal that the test asked for.")
        if version.resource.state != State.ENABLED or version.data is None:
            state = State(version.resource.state).name
            raise GcpError("FAILED_PRECONDITION", f"Secret Version [{request.name}] is in {state} state.")
        answer = AccessSecretVersionResponse(name=version.resource.name)
        answer.payload.data, answer.payload.data_crc32c = version.data, google_crc32c.value(version.data)
        return answer

    def list_secret_versions(self, request: Any) -> Any:
        """Newest first."""
        versions = [version.resource for version in reversed(self.find(request.parent).versions)]
        matches = _filter(request.filter)
        found = [version for version in versions if matches(_fields(version))]
        page, token = self._page(request, found)
        total = 0 if request.filter else len(found)
        return ListSecretVersionsResponse(versions=page, next_page_token=token, total_size=total)

    def enable_secret_version(self, request: Any) -> Any:
        """Enable a version."""
        return self._change(request, State.ENABLED)

    def disable_secret_version(self, request: Any) -> Any:
        """Disable a version."""
        return self._change(request, State.DISABLED)

    def destroy_secret_version(self, request: Any) -> Any:
        """Destroy a version's value for good."""
        return self._change(request, State.DESTROYED)

    def _change(self, request: Any, state: Any) -> Any:
        version = self._version(request.name)
        _check_etag(request.etag, version.resource)
        if version.resource.state == State.DESTROYED:
            raise GcpError("FAILED_PRECONDITION", f"Secret Version [{request.name}] is in DESTROYED state.")
        version.resource.state, version.resource.etag = state, _etag()
        if state == State.DESTROYED:
            version.data = None
            version.resource.destroy_time.seconds = self._tick()
        return _copy(version.resource)

    def _version(self, name: str) -> Version:
        stored = self.find(name)
        wanted = name.rpartition("/")[2]
        if wanted == LATEST:
            number = len(stored.versions) if stored.latest is None else stored.latest
        else:
            number = int(wanted) if wanted.isdecimal() else stored.resource.version_aliases.get(wanted, 0)
        if not 0 < number <= len(stored.versions):
            raise GcpError("NOT_FOUND", f"Secret Version [{name}] not found or has no versions.")
        return stored.versions[number - 1]

    def _parent(self, name: str) -> str:
        """Return a project's or location's resource name with the project's id instead of its number."""
        match = _PARENT.fullmatch(name)
        if match is None:
            raise invalid(f"Invalid resource name: {name}")
        project = next((id_ for id_ in self.projects if match["project"] in {id_, number_of(id_)}), None)
        if project is None:
            raise GcpError(
                "PERMISSION_DENIED",
                f"Permission denied on resource project {match['project']}.",
                reason="CONSUMER_INVALID",
                metadata={"service": "secretmanager.googleapis.com"},
            )
        return f"projects/{project}" + (f"/locations/{match['location']}" if match["location"] else "")

    def _numbered(self, parent: str) -> str:
        """Return a resource name as the service tells it: with the project's number."""
        kind, project, *rest = parent.split("/")
        return "/".join([kind, number_of(project), *rest])

    def _page(self, request: Any, found: list[Any]) -> tuple[list[Any], str]:
        try:
            start = int(request.page_token or "0")
        except ValueError:
            raise invalid("The page token is invalid.") from None
        if request.page_size < 0:
            raise invalid("The page size is negative.")
        size = min(request.page_size or PAGE, self.short_page)
        end = start + size
        return found[start:end], str(end) if end < len(found) else ""

    def _tick(self) -> int:
        """Return a time in seconds that no other resource has."""
        self._now += 1
        return 1_700_000_000 + self._now


def number_of(project: str) -> str:
    """Return the number of a project, which is what the service calls it in its answers."""
    return str(100_000_000_000 + zlib.crc32(project.encode()))


def _filter(text: str) -> gcp_filter.Filter:
    try:
        return gcp_filter.parse(text)
    except gcp_filter.FilterError as error:
        raise invalid(f"The filter is invalid: {error}.") from None


def _fields(resource: Any) -> Mapping[str, str]:
    fields = {"name": resource.name, "create_time": resource.create_time.ToJsonString()}
    if isinstance(resource, SecretVersion):
        return fields | {"state": State(resource.state).name}
    fields |= {f"labels.{key}": value for key, value in resource.labels.items()}
    return fields | {f"annotations.{key}": value for key, value in resource.annotations.items()}


def _check_etag(given: str, resource: Any) -> None:
    if given and given != resource.etag:
        raise GcpError("FAILED_PRECONDITION", f"The etag does not match that of {resource.name}.")


def _etag() -> str:
    return f'"{secrets.token_hex(7)}"'


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
