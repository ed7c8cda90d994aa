"""A small API server that keeps SecretManagerConfigs, and msmctl run against it in this process."""

import copy
import json
import re
import threading
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner

from lease_sharding.leases import (
    Lease,
    Names,
    claimed,
    config_lease,
    format_lease,
    opened,
    placeholder,
    released,
    renewed,
)
from secret_manager_controller.cli.main import cli
from secret_manager_controller.providers.registry import PROVIDERS
from secret_manager_controller.testing.store import FakeProvider, FakeStore

COLLECTION = re.compile(
    r"^/apis/secret-management\.microscaler\.io/v1(?:/namespaces/(?P<namespace>[^/]+))?/secretmanagerconfigs"
    r"(?:/(?P<name>[^/]+))?$"
)
LEASES = re.compile(r"^/apis/coordination\.k8s\.io/v1/namespaces/(?P<namespace>[^/]+)/leases$")
VERBS = {"GET": "get", "PATCH": "patch", "DELETE": "delete"}


class RefusedError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status, self.message = status, message


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Say nothing of a client that has gone."""


class FakeApiServer:
    """What msmctl asks of an API server: get, list in pages, merge patch and delete with preconditions.

    Attributes:
        objects: by namespace and name; change them through `put`.
        leases: what a listing of the Leases in microscaler-system shows.
        policies: the SecretManagerPolicies.
        namespaces: the labels of namespaces.
        groups: further API groups that are served.
        readable: the Secrets that anybody asked about may read, by namespace and name.
        requests: method and path of each request.
        forbidden: verbs that are refused with 403.
        installed: whether the CRD is there.
        before: called with method and path before each request; it may raise `RefusedError`.
    """

    def __init__(self):
        self.objects = {}
        self.leases = []
        self.requests = []
        self.policies = []
        self.groups = set()
        self.readable = set()
        self.namespaces = {}
        self.forbidden = set()
        self.installed = True
        self.before = lambda method, path: None
        self.held = False
        self._version = 0
        self._server = Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, body):
        """Store an object as a new one, or over the one that is there."""
        body = copy.deepcopy(body)
        metadata = body["metadata"]
        key = metadata.setdefault("namespace", "default"), metadata["name"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("generation", 1)
        metadata.setdefault("creationTimestamp", "2024-01-15T10:00:00Z")
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[key] = body
        return body

    def _handler(self):
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # Head and body in one packet; two would wait 40 ms for a delayed acknowledgement.

            def log_message(self, *_):
                pass

            def _serve(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                try:
                    status, answer = 200, fake.answer(self.command, self.path, body)
                except RefusedError as refused:
                    status, answer = refused.status, {"kind": "Status", "message": refused.message}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's names.

        return Handler

    def answer(self, method, path, body):
        self.requests.append((method, path))
        self.before(method, path)
        url = urlsplit(path)
        if leases := LEASES.match(url.path):
            return {"items": self.leases if leases["namespace"] == "microscaler-system" else []}
        if url.path.startswith("/api/v1/namespaces/"):
            name = url.path.rpartition("/")[2]
            return {"metadata": {"name": name, "labels": self.namespaces.get(name, {})}}
        if url.path.endswith("/subjectaccessreviews"):
            if "review" in self.forbidden:
                raise RefusedError(403, "subjectaccessreviews is forbidden")
            attributes = body["spec"]["resourceAttributes"]
            return {"status": {"allowed": (attributes["namespace"], attributes["name"]) in self.readable}}
        if url.path.removeprefix("/apis/") in self.groups:
            return {"kind": "APIGroup"}
        if url.path.endswith("/secretmanagerpolicies") and self.installed:
            if "list policies" in self.forbidden:
                raise RefusedError(403, "secretmanagerpolicies is forbidden")
            return {"metadata": {}, "items": self.policies}
        match = COLLECTION.match(url.path)
        if not match or not self.installed:
            raise RefusedError(404, "the server could not find the requested resource")
        namespace, name = match["namespace"], match["name"]
        verb = VERBS[method] if name else "list"
        if verb in self.forbidden:
            raise RefusedError(403, f'secretmanagerconfigs is forbidden: User "jane" cannot {verb} resource')
        if not name:
            return self._list(namespace, parse_qs(url.query))
        stored = self.objects.get((namespace, name))
        if stored is None:
            raise RefusedError(404, f'secretmanagerconfigs "{name}" not found')
        return {"get": self._get, "patch": self._patch, "delete": self._delete}[verb](stored, body)

    def _list(self, namespace, query):
        found = [body for (where, _), body in sorted(self.objects.items()) if namespace in (None, where)]
        start, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["500"])[0])
        token = str(start + limit) if start + limit < len(found) else ""
        return {"metadata": {"continue": token}, "items": found[start : start + limit]}

    def _get(self, stored, _):
        return stored

    def _patch(self, stored, patch):
        version = patch["metadata"].pop("resourceVersion", None)
        if version not in (None, stored["metadata"]["resourceVersion"]):
            raise RefusedError(409, "the object has been modified; please apply your changes to the latest version")
        finalizers = patch["metadata"].get("finalizers", stored["metadata"].get("finalizers"))
        stored = {**stored, "spec": {**stored.get("spec", {}), **patch.get("spec", {})}}
        if finalizers is not None:
            stored["metadata"] = {**stored["metadata"], "finalizers": finalizers}
        annotations = {**stored["metadata"].get("annotations", {}), **patch["metadata"].get("annotations", {})}
        annotations = {name: value for name, value in annotations.items() if value is not None}
        return self.put({**stored, "metadata": {**stored["metadata"], "annotations": annotations}})

    def _delete(self, stored, options):
        for field, value in options["preconditions"].items():
            if stored["metadata"][field] != value:
                raise RefusedError(409, f"Precondition failed: {field}")
        key = stored["metadata"]["namespace"], stored["metadata"]["name"]
        if self.held:
            stored["metadata"]["deletionTimestamp"] = "2024-01-15T11:00:00Z"
        else:
            del self.objects[key]
        return {"kind": "Status", "status": "Success"}


class FakeClock:
    """Time that passes when somebody sleeps; `at` lets something happen at a moment of it."""

    def __init__(self):
        self.time = 0.0
        self.events = []

    def now(self):
        return 1_702_567_890.5 + self.time

    def elapsed(self):
        return self.time

    async def sleep(self, seconds):
        self.time += seconds
        for event in [event for event in self.events if event[0] <= self.time]:
            self.events.remove(event)
            event[1]()

    def at(self, seconds, happen):
        self.events.append((seconds, happen))


@pytest.fixture
def api():
    """Return a running fake API server."""
    server = FakeApiServer()
    yield server
    server.close()


@pytest.fixture
def kubeconfig(api, tmp_path):
    """Return the path of a kubeconfig of the fake API server, with a second context that leads nowhere."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "fake", "cluster": {"server": api.url}},
            {"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}},
        ],
        "users": [{"name": "jane", "user": {"token": "jane-token"}}],
        "contexts": [{"name": n, "context": {"cluster": n, "user": "jane"}} for n in ("fake", "nowhere")],
        "current-context": "fake",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def clock():
    """Return a clock that stands until somebody sleeps."""
    return FakeClock()


@pytest.fixture
def replicas(api, clock):
    """Return a function that leaves the Leases of a group: `replicas({"smc-0": [0, 1], …}, shards=4, lapsed=…)`."""

    def leave(owners, *, shards=4, lapsed=(), age=300.0):
        now = datetime.fromtimestamp(clock.now(), UTC)
        names, leases = Names("secret-manager-controller", shards), []
        leases.append(config_lease(names))
        for member in owners:
            empty = Lease(name=names.session(member))
            began = opened(
                empty, group=names.group, member=member, session=f"s-{member}", ended=(), duration=10,
                now=now - timedelta(seconds=age),
            )  # fmt: skip
            last = now - timedelta(seconds=60 if member in lapsed else 1)
            leases.append(renewed(began, group=names.group, duration=10, draining=False, now=last))
        holders = {shard: member for member, held in owners.items() for shard in held}
        for shard in range(shards):
            lease, since = placeholder(names, shard, epoch=1), now - timedelta(seconds=age)
            if (member := holders.get(shard)) is None:
                leases.append(released(lease, now=since))
            else:
                leases.append(
                    claimed(
                        lease,
                        names=names,
                        shard=shard,
                        member=member,
                        session=f"s-{member}",
                        epoch=2,
                        duration=10,
                        now=since,
                    )
                )
        api.leases = [format_lease(lease, namespace="microscaler-system") for lease in leases]

    return leave


@pytest.fixture
def msmctl(kubeconfig, clock, monkeypatch):
    """Return a function that runs msmctl against the fake API server."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))

    def run(*args, **options):
        return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="msmctl", obj=clock, **options)

    return run


@pytest.fixture
def refuse():
    """Return a function that lets a request of the fake API server fail: `refuse(status, message)`."""
    return RefusedError


@pytest.fixture
def reference_object():
    """Return the object that the reference's example of `msmctl status` shows."""
    return {
        "apiVersion": "secret-management.microscaler.io/v1",
        "kind": "SecretManagerConfig",
        "metadata": {"name": "idam-dev-secrets", "namespace": "pricewhisperer", "generation": 1},
        "spec": {
            "sourceRef": {"kind": "GitRepository", "name": "pricewhisperer-manifests", "namespace": "flux-system"},
            "provider": {"type": "gcp", "gcp": {"projectId": "pricewhisperer-dev"}},
            "secrets": {
                "environment": "dev",
                "kustomizePath": "microservices/idam/deployment-configuration/profiles/dev",
                "prefix": "idam-dev",
                "suffix": "-prod",
            },
        },
        "status": {
            "observedGeneration": 1,
            "lastReconcileTime": "2024-01-15T10:30:00Z",
            "secretsSynced": 5,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "ReconciliationSucceeded",
                    "message": "Synced 5 secrets",
                    "lastTransitionTime": "2024-01-15T10:30:00Z",
                }
            ],
        },
    }


PROFILE = "deployment-configuration/profiles/dev"


@pytest.fixture
def manifest():
    """Return a SecretManagerConfig for AWS that reads the service `app`."""
    return {
        "apiVersion": "secret-management.microscaler.io/v1",
        "kind": "SecretManagerConfig",
        "metadata": {"name": "app", "namespace": "team"},
        "spec": {
            "sourceRef": {"name": "services"},
            "provider": {"type": "aws", "aws": {"region": "eu-central-1"}},
            "secrets": {"environment": "dev", "basePath": "app"},
        },
    }


@pytest.fixture
def write_file(manifest, tmp_path):
    """Return a function that writes manifests, the one by default, into a file and returns its path."""

    def write(*manifests, name="smc.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump_all(manifests or [manifest]))
        return path

    return write


@pytest.fixture
def worktree(tmp_path):
    """Return a function that writes the dotenv file of a service and returns the directory of the source."""

    def write(service="app", **values):
        profile = tmp_path / "source" / service / PROFILE
        profile.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{key}={value}\n" for key, value in values.items())
        (profile / "application.secrets.env").write_text(text)
        return tmp_path / "source"

    return write


@pytest.fixture
def store(monkeypatch):
    """Return a store in memory, which msmctl finds where AWS would be."""
    fake = FakeStore()
    monkeypatch.setitem(PROVIDERS, "aws", lambda *_: FakeProvider(fake))
    return fake


@pytest.fixture
def one_shot(write_file, worktree, monkeypatch):
    """Return a function that runs `plan` or `apply` on the manifest and the worktree."""
    for name in ("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "CLUSTER_ID", "POD_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    source = worktree()

    def run(verb, *args, **options):
        arguments = [verb, "--source", source, *([] if "-f" in args else ["-f", write_file()]), *args]
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="msmctl", **options)

    return run
