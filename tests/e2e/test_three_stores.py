"""Everything at once: Flux and Argo CD, profile files and kustomize builds, three stores, two replicas, one repository.

Flux' own source-controller fetches over https with a password, Applications are fetched over https with a login of Argo
CD's and over ssh with one of the object's. Each of them is synced to each store, from a namespace of its own that holds
one object in raw mode and one in kustomize mode: 18 objects.
"""

import dataclasses
import itertools
import time
from collections.abc import Mapping
from typing import Any

import pytest

from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing import argocd, flux
from secret_manager_controller.testing.azure import AzureServer, federated_token
from secret_manager_controller.testing.gcp import GcpServer
from secret_manager_controller.testing.gitserver import GitServer
from secret_manager_controller.testing.gitssh import GitSshServer
from secret_manager_controller.testing.replicas import SHARDS, Replicas
from secret_manager_controller.testing.stack import StackError, condition
from secret_manager_controller.testing.tenants import ENV, Tenant

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("source_controller")]

PASSWORD = b"git-password"
LOGIN = {"username": b"robot", "password": PASSWORD}
REPOSITORY, BRANCH, OVERLAY = "platform", "release", "overlays/dev"
FLUX_SOURCE = "flux-system/platform"
STORES = ("aws", "gcp", "azure")
SOURCES: Mapping[str, Mapping[str, Any]] = {
    "flux": {"kind": "GitRepository", "name": "platform", "namespace": "flux-system"},
    "https": {"kind": "Application", "name": "over-https", "namespace": argocd.NAMESPACE},
    "ssh": {
        "kind": "Application",
        "name": "over-ssh",
        "namespace": argocd.NAMESPACE,
        "gitCredentials": {"secretName": "git-login"},
    },
}
MODES: Mapping[str, Mapping[str, str]] = {"raw": {}, "built": {"kustomizePath": OVERLAY}}
WORKERS = 2
"""Of each replica: no more than a store has objects there, so that one that hangs would keep all of them if it could."""
ROUNDS = 5
"""So often is looked whether others come first; on a slow machine the store's requests may end before anybody looks."""
HANG = 8.0
"""Seconds; a request is given up after 6."""
MANY = 100_000
SLOW = 60.0
"""Seconds for what takes a time-out, or a retry after some of them."""
SECRET = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: database\nstringData:\n  PASSWORD: constant\n"


@dataclasses.dataclass(frozen=True)
class Synced:
    """An object, and what it has in its store."""

    tenant: Tenant
    mode: str
    store: str
    source: str

    @property
    def key(self):
        return f"{self.tenant.namespace}/{self.mode}"

    def wanted(self, value):
        keys = {"RAW": value} if self.mode == "raw" else {"TOKEN": value, "PASSWORD": "constant"}
        return {f"{self.tenant.namespace}-{self.mode}-{key}": text.encode() for key, text in keys.items()}


class World:
    """Git, what reads it, what is written to, and the objects in between."""

    def __init__(self, stack, servers, repository, encrypt):
        self.stack = stack
        self.servers = servers
        self.repository = repository
        self.objects = []
        self._encrypt = encrypt
        self._numbers = itertools.count(1)
        self.first = self.commit()

    def commit(self):
        """Change the two values, and return the value and the commit; nobody is told."""
        value = f"value-{next(self._numbers)}"
        kustomization = "resources: [../../base]\nsecretGenerator: [{name: tokens, envs: [tokens.env]}]\n"
        commit = self.repository.commit(
            {
                ENV: self._encrypt(f"RAW={value}\n"),
                f"{OVERLAY}/kustomization.yaml": kustomization,
                f"{OVERLAY}/tokens.env": self._encrypt(f"TOKEN={value}\n"),
                "base/kustomization.yaml": "resources: [secret.yaml]\n",
                "base/secret.yaml": SECRET,
            },
            branch=BRANCH,
        )
        return value, commit

    def tell(self, commit):
        """Let Flux fetch, and let Argo CD have seen a commit."""
        flux.fetch_now(self.stack, FLUX_SOURCE)
        for name in ("over-https", "over-ssh"):
            argocd.compared(self.stack, name, revision=commit)

    def status(self, each):
        return self.stack.config(each.key).get("status") or {}

    def until(self, what, look, objects):
        """Wait until the statuses of some objects are as wanted."""
        waiting = list(objects)

        def all_there():
            waiting[:] = [each for each in waiting if not look(self.status(each))]
            return not waiting

        try:
            self.stack.wait(what, all_there, timeout=SLOW)
        except StackError as error:
            told = {each.key: self.status(each).get("conditions") for each in waiting}
            raise StackError(f"{error}: {told}") from error

    def applied(self, commit, objects=None):
        """Wait until objects are Ready with a commit."""
        wanted = f"{BRANCH}@sha1:{commit}"

        def is_applied(status):
            return status.get("lastAppliedRevision") == wanted and condition(status)["status"] == "True"

        self.until(f"{wanted} to be applied", is_applied, self.objects if objects is None else objects)

    def stored(self, value, *, stores=STORES):
        """Check that stores hold what Git holds, and nothing else."""
        for store in stores:
            mine = [each.wanted(value) for each in self.objects if each.store == store]
            wanted = {name: content for each in mine for name, content in each.items()}
            assert dict(self.servers[store].values()) == wanted

    def versions(self, stores):
        """Return how many versions each secret of some stores has."""
        return {name: self.servers[store].versions(name) for store in stores for name in self.servers[store].values()}

    def reconcile(self, objects):
        """Ask for objects, as msmctl does; return a function that tells by a status whether that was done."""
        asked = str(time.time_ns())
        for each in objects:
            annotations = {f"{GROUP}/reconcile": asked}
            path = SECRET_MANAGER_CONFIGS.url(each.tenant.namespace, each.mode)
            self.stack.patch(path, {"metadata": {"annotations": annotations}})
        return lambda status: status.get("lastHandledReconcileAt") == asked


@pytest.fixture(scope="module")
def stack(start_argocd_stack):
    """Run a stack with Argo CD's real CRD beside Flux's."""
    with start_argocd_stack() as started:
        yield started


@pytest.fixture(scope="module")
def servers(stack):
    with GcpServer.start(tls=True) as gcp, AzureServer.start() as azure:
        yield {"aws": stack.aws, "gcp": gcp, "azure": azure}


@pytest.fixture(scope="module")
def replicas(stack, servers, kustomize_binary, tmp_path_factory):
    """Run two replicas that find every cloud, and their own identity in each."""
    token = tmp_path_factory.mktemp("azure") / "token"
    token.write_text(federated_token())
    client = servers["azure"].client_secret.client_id
    settings = {"AZURE_FEDERATED_TOKEN_FILE": str(token), "AZURE_CLIENT_ID": client, "WORKERS": str(WORKERS)}
    settings |= {"KUSTOMIZE_BINARY": str(kustomize_binary), "GIT_REFRESH_SECONDS": "1"}
    settings |= dict(servers["gcp"].environment) | dict(servers["azure"].environment)
    stack.free_shards(SHARDS)
    with Replicas(stack, **settings) as running:
        for _ in range(2):
            running.start()
        running.wait_balanced()
        yield running


def provider(servers, store):
    """Return the provider block of a store, with the replica's own login."""
    block = {
        "aws": {"region": servers["aws"].region, "auth": {"authType": "AccessKeys"}},
        "gcp": {"projectId": servers["gcp"].project},
        "azure": {"vaultName": servers["azure"].vault},
    }
    return {"type": store, store: block[store]}


@pytest.fixture(scope="module")
def world(stack, servers, replicas, encrypt, example_recipient, source_controller, tmp_path_factory):
    """Return everything, with the first commit and an object for each source, store and mode."""
    with GitServer(tmp_path_factory.mktemp("git")) as https, GitSshServer(https.root) as ssh:
        repository = https.create(REPOSITORY)
        https.authorization = https.basic("robot", PASSWORD.decode())
        found = World(stack, servers, repository, lambda text: encrypt(text, example_recipient))
        flux.follow(stack, FLUX_SOURCE, url=https.url(REPOSITORY), login=LOGIN | {"ca.crt": https.ca}, branch=BRANCH)
        argocd.keep_known(stack, "argocd-tls-certs-cm", {"127.0.0.1": https.ca.decode()})
        argocd.keep_login(stack, "robot", kind="repo-creds", url=f"{https.origin}/".encode(), **LOGIN)
        for name, server in (("over-https", https), ("over-ssh", ssh)):
            source = {"repoURL": server.url(REPOSITORY), "path": OVERLAY, "targetRevision": BRANCH}
            argocd.apply_application(stack, name, source=source)
        numbers = itertools.count(1)
        members = itertools.cycle(replicas.all)
        for store, source in itertools.product(STORES, SOURCES):
            label, owned = f"{store}-{source}", replicas.owned(next(members))
            number = next(number for number in numbers if replicas.log.shard(f"{label}-{number}") in owned)
            tenant = Tenant(stack, label, number=number)
            login = {"ssh-privatekey": ssh.client_key, "known_hosts": ssh.known_hosts}
            stack.create_secret(tenant.namespace, "git-login", login)
            tenant.let_read("git-login")
            for mode, where in MODES.items():
                tenant.apply(
                    object_name=mode,
                    sourceRef=dict(SOURCES[source]),
                    provider=provider(servers, store),
                    secrets={"environment": "dev", "prefix": f"{tenant.namespace}-{mode}", **where},
                    prune=True,
                )
                found.objects.append(Synced(tenant, mode, store, source))
        yield found


def settled(world):
    """Let everybody have applied a new commit; return its value."""
    value, commit = world.commit()
    world.tell(commit)
    world.applied(commit)
    world.stored(value)
    return value


def test_every_store_equals_git_from_the_first_commit_on(world, replicas):
    value, commit = world.first
    world.applied(commit)
    world.stored(value)
    settled(world)
    for name, count in world.versions(STORES).items():
        assert count == (1 if name.endswith("-PASSWORD") else 2)
    # Each replica did its share; AWS knows them by their logins.
    assert {call.who for call in world.servers["aws"].writes()} == {each.access_key_id for each in replicas.all}


def test_a_deleted_branch_deletes_nothing_and_its_return_is_followed(world):
    value = settled(world)
    for server in world.servers.values():
        server.clear_calls()
    world.repository.git("push", "--quiet", "origin", "--delete", BRANCH)
    flux.fetch_now(world.stack, FLUX_SOURCE)
    time.sleep(1.0)  # GIT_REFRESH_SECONDS: that long the refs of an Application's repository count as what they were.
    world.reconcile(world.objects)
    reasons = {"flux": "SourceNotReady", "https": "RevisionNotFound", "ssh": "RevisionNotFound"}
    for source, reason in reasons.items():
        lost = [each for each in world.objects if each.source == source]
        world.until(f"{source} to be {reason}", lambda status, r=reason: condition(status)["reason"] == r, lost)
    assert [server.writes() for server in world.servers.values()] == [[], [], []]
    world.stored(value)
    settled(world)


def refuse(server):
    """Let a store break every connection, or what comes to the same in gRPC."""
    if isinstance(server, GcpServer):
        server.fail("*", "UNAVAILABLE", times=MANY)
    else:
        server.fail("*", "Unavailable", 0, times=MANY)


def hang(server):
    """Let a store answer too late."""
    server.hang("*", HANG, times=MANY)


def overtaken(world, server, down, others):
    """Tell whether the others' objects were reconciled while those of a store hung that had been asked for before."""
    settled(world)
    hang(server)
    given_up = world.reconcile(down)
    world.stack.wait("a request to hang", lambda: server.faults_left() < MANY)
    done = world.reconcile(others)
    world.until("the others to be reconciled", done, others)
    first = not any(given_up(world.status(each)) for each in down)
    server.clear_faults()
    world.until("the store to be back", given_up, down)
    return first


def test_a_store_that_hangs_keeps_no_worker_from_the_others(world):
    """Whatever waits for a time-out of its own has not been given up yet when all that came later is done."""
    down = [each for each in world.objects if each.store == "aws"]
    others = [each for each in world.objects if each.store != "aws"]
    rounds = (overtaken(world, world.servers["aws"], down, others) for _ in range(ROUNDS))
    assert any(rounds)


@pytest.mark.parametrize(
    ("store", "take_down"),
    [
        pytest.param("aws", hang, id="aws-hangs"),
        pytest.param("gcp", refuse, id="gcp-refuses"),
        pytest.param("azure", refuse, id="azure-refuses", marks=pytest.mark.chaos),
        pytest.param("aws", refuse, id="aws-refuses", marks=pytest.mark.chaos),
        pytest.param("gcp", hang, id="gcp-hangs", marks=pytest.mark.chaos),
        pytest.param("azure", hang, id="azure-hangs", marks=pytest.mark.chaos),
    ],
)
def test_a_store_that_is_down_delays_no_object_of_the_others(world, store, take_down):
    settled(world)
    down = [each for each in world.objects if each.store == store]
    others = [each for each in world.objects if each.store != store]
    up = [each for each in STORES if each != store]
    before = world.versions(up)
    world.servers[store].clear_calls()
    take_down(world.servers[store])
    try:
        value, commit = world.commit()
        world.tell(commit)
        world.applied(commit, others)
        world.stored(value, stores=up)
        # Meanwhile the store has been down all the time: none of its objects has gone before them.
        assert not [each.key for each in down if commit in world.status(each).get("lastAppliedRevision", "")]
        assert world.servers[store].writes() == []
        world.until("the reason", lambda status: condition(status)["reason"] == "StoreUnavailable", down)
        assert all(condition(world.status(each))["message"] for each in down)
    finally:
        world.servers[store].clear_faults()
    # The others were written to once, whatever their neighbour did.
    for name, count in world.versions(up).items():
        assert count - before[name] == (0 if name.endswith("-PASSWORD") else 1)
    world.applied(commit)
    world.stored(value)
