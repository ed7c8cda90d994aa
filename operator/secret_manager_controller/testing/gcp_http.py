"""The HTTP side of the Google test server: what logins exchange, GKE's metadata server, and the control endpoint."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from google.cloud.secretmanager_v1.types import resources, service

from secret_manager_controller.testing.controls import Controls, Handler, Server
from secret_manager_controller.testing.gcp_auth import Refused
from secret_manager_controller.testing.gcp_limits import GcpError, Quotas
from secret_manager_controller.testing.gcp_server import GcpApplication, Noted
from secret_manager_controller.testing.gcp_store import State, Stored

KEY_PATH = "/token"
FEDERATION_PATH = "/v1/token"
METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
IMPERSONATION = re.compile(r"/v1/projects/-/serviceAccounts/(?P<email>[^/:]+):generateAccessToken")

JWT_BEARER, EXCHANGE, GENERATE, METADATA = "JwtBearer", "ExchangeToken", "GenerateAccessToken", "MetadataToken"
"""How the call log names the four exchanges."""

# An exchange that a fault lets fail answers with the HTTP status of the canonical code.
_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}


def make(application: GcpApplication, *, port: int) -> Server:
    """Return a server bound to loopback; port 0 takes a free one."""
    return Server(
        port, type("GcpHandler", (_Handler,), {"application": application, "controls": GcpControls(application)})
    )


class _Handler(Handler):
    application: GcpApplication

    def answer(self, body: bytes) -> None:
        origin = f"http://{self.headers['host']}"
        status, document, headers = exchange(self.application, self.path, self.headers, body, origin)
        self.send(status, json.dumps(document).encode(), headers={"metadata-flavor": "Google", **headers})


def exchange(
    application: GcpApplication, target: str, headers: Any, body: bytes, origin: str
) -> tuple[int, Mapping[str, Any], Mapping[str, str]]:
    """Answer a request for a token: the status, the document and further headers."""
    path, callers = urlsplit(target).path, application.callers
    authorization = headers.get("authorization", "")
    form = dict(parse_qsl(body.decode())) if path in {KEY_PATH, FEDERATION_PATH} else {}
    operation: str
    work: Callable[[], dict[str, Any]]
    if path == KEY_PATH:
        operation, work = JWT_BEARER, lambda: callers.by_key(form, token_uri=f"{origin}{KEY_PATH}")
    elif path == FEDERATION_PATH:
        operation, work = EXCHANGE, lambda: callers.by_federation(form)
    elif path == METADATA_PATH and headers.get("metadata-flavor") == "Google":
        operation, work = METADATA, callers.by_metadata
    elif (match := IMPERSONATION.fullmatch(path)) is not None:
        operation, work = GENERATE, lambda: callers.by_impersonation(match["email"], authorization)
    else:
        return 404, {"error": "there is nothing here"}, {}
    noted = Noted(operation, (), callers.who(authorization))
    try:
        return 200, application.carry_out(noted, lambda: _done(work)), {}
    except GcpError as error:
        later = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
        if isinstance(error.__cause__, Refused):
            return error.__cause__.status, error.__cause__.body, later
        status = _STATUS.get(error.code, 500)
        return status, {"error": {"code": status, "status": error.code, "message": error.message}}, later


def _done(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Refused as refused:
        raise GcpError(refused.code, "refused") from refused


class GcpControls(Controls[GcpApplication]):
    """The controls beside those of every server; each method below is one."""

    def __init__(self, application: GcpApplication) -> None:
        super().__init__(application)
        self._store = application.store

    def reset(self) -> None:
        """Forget secrets, faults, quotas and calls."""
        self._application.reset()

    def quotas(self, **quotas: Any) -> None:
        """Set the project's quotas; see `Quotas`."""
        self._application.quotas = Quotas(**quotas)

    def stale_listing(self, *, on: bool) -> None:
        """Freeze or thaw what ListSecrets shows."""
        self._store.freeze_listing(stale=on)

    def stale_latest(self, *, on: bool) -> None:
        """Freeze or thaw what `latest` is."""
        self._store.freeze_latest(stale=on)

    def short_pages(self, *, size: int) -> None:
        """Answer with shorter pages than asked for."""
        self._store.short_page = size

    def unreadable(self, *, name: str, code: str) -> None:
        """Refuse a secret's value with an error code."""
        self._store.unreadable[name] = code

    def make_key(self, *, email: str, token_uri: str, project: str) -> dict[str, str]:
        """Return the document of a new key of a service account."""
        return self._application.callers.make_key(email, token_uri=token_uri, project=project)

    def remove_key(self, *, key_id: str) -> None:
        """Refuse a key from now on."""
        self._application.callers.remove_key(key_id)

    def expire_tokens(self) -> None:
        """Let every token have expired."""
        self._application.callers.expire_tokens()

    def token_lifetime(self, *, seconds: float) -> None:
        """Issue tokens that hold for so long."""
        self._application.callers.lifetime = seconds

    def workload(self, *, email: str | None) -> None:
        """Let the metadata server speak for another service account, or for none."""
        self._application.callers.workload = email

    def refuse_impersonation(self, *, email: str) -> None:
        """Let nobody impersonate a service account, until the next reset."""
        self._application.callers.not_impersonated.add(email)

    def secrets(self, *, parent: str) -> dict[str, Any]:
        """Return every secret below a project or location, by its id."""
        prefix = f"{parent}/secrets/"
        return {
            name.removeprefix(prefix): {
                "value": None if stored.value is None else base64.b64encode(stored.value).decode(),
                "versions": [State(version.resource.state).name for version in stored.versions],
                "labels": dict(stored.resource.labels),
                "annotations": dict(stored.resource.annotations),
                "etag": stored.resource.etag,
                "replication": type(stored.resource.replication).SerializeToString(stored.resource.replication).hex(),
            }
            for name, stored in self._store.secrets.items()
            if name.startswith(prefix)
        }

    def put_by_hand(
        self, *, parent: str, name: str, value: str, labels: dict[str, str], annotations: dict[str, str]
    ) -> str:
        """Add a version (base64) as a person would, to a secret that is made where there is none; return its number."""
        if f"{parent}/secrets/{name}" not in self._store.secrets:
            self.create_empty(parent=parent, name=name, labels=labels, annotations=annotations)
        request = service.AddSecretVersionRequest.pb()(parent=f"{parent}/secrets/{name}")
        request.payload.data = base64.b64decode(value)
        return str(self._store.add_secret_version(request).name.rpartition("/")[2])

    def create_empty(self, *, parent: str, name: str, labels: dict[str, str], annotations: dict[str, str]) -> None:
        """Create a secret without a version."""
        secret = resources.Secret.pb()(labels=labels, annotations=annotations)
        if "/locations/" not in parent:
            secret.replication.automatic.SetInParent()
        self._store.create_secret(service.CreateSecretRequest.pb()(parent=parent, secret_id=name, secret=secret))

    def change_labels(self, *, parent: str, name: str, labels: dict[str, str], annotations: dict[str, str]) -> None:
        """Replace a secret's labels and annotations as a person would."""
        request = service.UpdateSecretRequest.pb()()
        request.secret.name = f"{parent}/secrets/{name}"
        request.secret.labels.update(labels)
        request.secret.annotations.update(annotations)
        request.update_mask.paths.extend(["labels", "annotations"])
        self._store.update_secret(request)

    def change_version(self, *, parent: str, name: str, state: str) -> None:
        """Enable, disable or destroy the newest version."""
        request = service.DisableSecretVersionRequest.pb()(name=f"{parent}/secrets/{name}/versions/latest")
        method = {
            "ENABLED": self._store.enable_secret_version,
            "DISABLED": self._store.disable_secret_version,
            "DESTROYED": self._store.destroy_secret_version,
        }[state]
        method(request)

    def destroy(self, *, parent: str, name: str) -> None:
        """Delete a secret with all its versions."""
        stored: Stored = self._store.find(f"{parent}/secrets/{name}")
        self._store.delete_secret(service.DeleteSecretRequest.pb()(name=stored.resource.name))
