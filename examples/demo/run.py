"""The main job, shown on real parts: from SOPS files in Git to AWS Secrets Manager, in two namespaces.

A real etcd and kube-apiserver, three replicas of the controller as processes, the AWS SDK against a test server, Git
over https for an Argo CD Application, a real Jaeger, and msmctl as a user runs it. One replica is killed while values
change. Everything listens on loopback, lives in a temporary directory and is gone at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS
from secret_manager_controller.testing import argocd
from secret_manager_controller.testing.controlplane import ControlPlaneError
from secret_manager_controller.testing.gitserver import GitServer, Repository
from secret_manager_controller.testing.jaeger import Jaeger, span_tree
from secret_manager_controller.testing.jaeger import running as jaeger_server
from secret_manager_controller.testing.replicas import SHORT_SESSIONS, Replicas
from secret_manager_controller.testing.servers import ServerError
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, Stack, StackError, copy_tree
from secret_manager_controller.testing.workload import Workload

EXAMPLES = Path(__file__).parent.parent
ROOT = EXAMPLES.parent
TEAM_A, TEAM_B = "team-a/idam-dev-secrets", "team-b/billing-dev-secrets"
BUILT, DEPLOYED = "team-a/orders-dev-secrets", "team-a/idam-prod-secrets"
CHANGED, CHANGED_IN_PRODUCTION = "idam-dev-API_KEY", "idam-prod-DATABASE_URL"
APPLICATION = "services"
REPLICAS = 3
SHARDS = 8  # The default is 32; this fits on a screen.


class DemoError(RuntimeError):
    """A step did not show what it should; the message says which and what was there instead."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print what is being done, and how long it took."""
    print(f"▶ {title} …", flush=True)
    started = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - started:.1f} s\n", flush=True)


def expect(what: str, found: object, wanted: object) -> None:
    """Raise if something is not as it should be."""
    if found != wanted:
        raise DemoError(f"{what}: expected {wanted!r}, found {found!r}")


def parts() -> dict[str, Path]:
    """Return where the real parts are; `make demo` has built them."""
    names = ("etcd", "kube-apiserver", "flux-crds", "argocd-crds", "kustomize", "jaeger")
    command = [sys.executable, str(ROOT / "tools" / "build.py"), *names]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        raise DemoError("a real part could not be built; see the lines above")
    return dict(zip(names, map(Path, built.stdout.splitlines()), strict=True))


def msmctl(stack: Stack, *arguments: str) -> str:
    """Run msmctl as a user would, print what it prints, and return it."""
    print(f"  $ msmctl {' '.join(arguments)}")
    environment = os.environ | {"KUBECONFIG": str(stack.plane.kubeconfig())}
    command = [sys.executable, "-m", "secret_manager_controller.cli.main", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    print("".join(f"  {line}\n" for line in (ran.stdout + ran.stderr).splitlines()), end="")
    if ran.returncode:
        raise DemoError(f"msmctl {arguments[0]} ended with {ran.returncode}")
    return ran.stdout


def prepare(stack: Stack) -> None:
    """Make two tenants, their logins and keys, and the first commit."""
    for team in ("team-a", "team-b"):
        stack.create_namespace(team)
        stack.create_aws_credentials(team)
    age, pgp = (EXAMPLES / "keys" / f"EXAMPLE-ONLY.{kind}" for kind in ("age.key", "pgp.asc"))
    stack.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": age.read_bytes()})
    stack.create_secret("team-b", "sops-gpg-key", {"private-key": pgp.read_bytes()})
    copy_tree(EXAMPLES / "repository", stack.repository)
    artifact = stack.commit("Add the services' secrets")
    print(f"  Git is at {artifact.revision}")


def files_of(directory: Path) -> dict[str, bytes]:
    """Return the files below a directory, by path."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def prepare_application(stack: Stack, server: GitServer) -> Repository:
    """Make a Git repository that is served over https, and the Application that Argo CD deploys from it."""
    repository = server.create(APPLICATION)
    commit = repository.commit(files_of(EXAMPLES / "repository"))
    stack.create_namespace(argocd.NAMESPACE)
    argocd.keep_known(stack, "argocd-tls-certs-cm", {"127.0.0.1": server.ca.decode()})
    application = yaml.safe_load((EXAMPLES / "argocd" / "services.yaml").read_text())
    application["spec"]["source"]["repoURL"] = server.url(APPLICATION)
    stack.apply(application)
    print(f"  {server.url(APPLICATION)} is at main@sha1:{commit}")
    return repository


def show_store(stack: Stack) -> None:
    """Print what the store holds: names and numbers of versions, no values."""
    for name, count in sorted(versions(stack).items()):
        print(f"  {name:38} versions: {count}")


def start_replicas(stack: Stack, replicas: Replicas) -> None:
    """Start them in an empty cluster whose Leases are as replicas leave them that have stopped."""
    stack.delete_leases()
    stack.free_shards(SHARDS)
    for _ in range(REPLICAS):
        replicas.start()
    replicas.wait_balanced()


def first_sync(stack: Stack) -> None:
    """Apply all objects and see their secrets arrive."""
    for manifest in ("idam-dev.yaml", "billing-dev.yaml", "orders-dev.yaml", "idam-prod.yaml"):
        stack.apply_file(EXAMPLES / "manifests" / manifest)
    for key in (TEAM_A, TEAM_B, BUILT, DEPLOYED):
        status = stack.wait_ready(key)
        print(f"  {key}: Ready, {status['secretsSynced']} secrets")
    show_store(stack)
    expect("secrets in the store", len(stack.aws.values()), 15)


def one_change(stack: Stack, jaeger: Jaeger) -> str:
    """Commit one changed value: one new version follows, and nothing else is written; return the reconcile's trace."""
    otel = {"type": "Otlp", "endpoint": jaeger.grpc, "protocol": "grpc", "serviceName": "idam", "recordNames": True}
    stack.patch(SECRET_MANAGER_CONFIGS.url(*TEAM_A.split("/")), {"spec": {"otel": otel}})
    stack.wait_ready(TEAM_A)
    before = versions(stack)
    copy_tree(EXAMPLES / "change", stack.repository)
    artifact = stack.commit("Rotate the API key")
    trace = stack.wait_ready(TEAM_A, after=artifact.revision)["lastTraceId"]
    expect_one_new_version(stack, CHANGED, before, artifact.revision)
    return str(trace)


def change_of_application(stack: Stack, repository: Repository) -> None:
    """Push a commit to the Application's repository; the controller fetches it as soon as Argo CD has seen it."""
    before = versions(stack)
    commit = repository.commit(files_of(EXAMPLES / "change"))
    argocd.compared(stack, APPLICATION, revision=commit)
    stack.wait_ready(DEPLOYED, after=commit)
    expect_one_new_version(stack, CHANGED_IN_PRODUCTION, before, f"main@sha1:{commit}")


def versions(stack: Stack) -> dict[str, int]:
    """Return how many versions each secret in the store has."""
    return {name: stack.aws.versions(name) for name in stack.aws.values()}


def expect_one_new_version(stack: Stack, changed: str, before: dict[str, int], revision: str) -> None:
    """Raise unless a commit gave one secret one new version and no other any; else say so."""
    new = {name: count - before[name] for name, count in versions(stack).items()}
    expect("new versions", {name: count for name, count in new.items() if count}, {changed: 1})
    print(f"  {revision}: one new version of {changed}, none of the other {len(before) - 1}")


def show_trace(jaeger: Jaeger, trace: str) -> None:
    """Print the spans of a reconcile as Jaeger has them."""
    print(f"  trace {trace}")
    for line in span_tree(jaeger.whole(trace)):
        print(f"    {line}")


def drift(stack: Stack) -> None:
    """Change a value by hand: Git wins."""
    wanted = stack.aws.values()[CHANGED]
    stack.aws.put_by_hand(CHANGED, b"changed by hand")
    msmctl(stack, "reconcile", "--name", "idam-dev-secrets", "--namespace", "team-a")
    stack.wait("the value to be put back", lambda: stack.aws.values()[CHANGED] == wanted)
    print(f"  {CHANGED} has Git's value again")


def no_change(stack: Stack) -> None:
    """Reconcile without a change: one call to the store, no value read."""
    stack.aws.clear_calls()
    path = SECRET_MANAGER_CONFIGS.url(*TEAM_B.split("/"))
    asked = str(time.time_ns())
    stack.patch(path, {"metadata": {"annotations": {"secret-management.microscaler.io/reconcile": asked}}})
    stack.wait("the pass", lambda: stack.config(TEAM_B).get("status", {}).get("lastHandledReconcileAt") == asked)
    calls = [call.operation for call in stack.aws.calls()]
    expect("store calls", calls, ["ListSecrets"])
    print(f"  a pass without changes made {len(calls)} store call ({calls[0]}) and read no value")


def crash(stack: Stack, replicas: Replicas) -> None:
    """Kill a replica while values change in other namespaces: the others take over, and nothing is written twice."""
    workload = Workload(stack, namespaces=12, keys=1, label="team")
    workload.settle()
    msmctl(stack, "shards")
    victim = replicas.all[0]
    for number, tenant in enumerate(workload.tenants):
        workload.change(tenant)
        if number == len(workload.tenants) // 3:
            victim.kill()
            killed = time.monotonic()
            print(f"  {victim.name} is killed with -9, while values change …", flush=True)
        time.sleep(0.1)
    replicas.wait_balanced()
    print(f"  the others have its shards {time.monotonic() - killed:.1f} s later")
    workload.settle()
    msmctl(stack, "shards")
    verdict = replicas.verdict(workload)
    print(f"  {verdict}")
    expect("the referee's findings", verdict.clean, True)
    found = {name: stack.aws.versions(name) for name in workload.git()}
    expect("versions of each secret", found, dict.fromkeys(found, 2))
    print(f"  each of {len(found)} changes arrived exactly once")


def show(stack: Stack, jaeger: Jaeger, repository: Repository) -> None:
    """Show the main job with running replicas."""
    with step("Applying SecretManagerConfigs: profile files, a kustomize overlay, an Argo CD Application"):
        first_sync(stack)
    with step("Changing one value in Git, of an object that sends its traces to Jaeger"):
        trace = one_change(stack, jaeger)
    with step("Fetching the trace of that reconcile back from Jaeger"):
        show_trace(jaeger, trace)
    with step("Changing one value in the repository of the Argo CD Application"):
        change_of_application(stack, repository)
    with step("Changing a value by hand in the store"):
        drift(stack)
    with step("Reconciling with nothing changed"):
        no_change(stack)
    with step("Looking at it with msmctl"):
        expect("lines of msmctl list", len(msmctl(stack, "list").splitlines()), 5)
        msmctl(stack, "status", "--name", "idam-dev-secrets", "--namespace", "team-a")


def run() -> None:
    """Run every step; whatever happens, what was started is stopped and removed."""
    with ExitStack() as running:
        with step("Finding etcd, kube-apiserver, kustomize, Jaeger and CRDs (built and cached on the first run)"):
            found = parts()
        with step("Starting etcd, kube-apiserver, Jaeger, an AWS test server, an artifact server and a Git server"):
            jaeger = running.enter_context(jaeger_server(found["jaeger"]))
            stack = running.enter_context(
                Stack.start(
                    etcd=found["etcd"],
                    kube_apiserver=found["kube-apiserver"],
                    flux_crds=found["flux-crds"],
                    argocd_crds=found["argocd-crds"],
                )
            )
            server = running.enter_context(GitServer(stack.directory / "git"))
        with step("Making two tenants, their logins and SOPS keys, and a Git repository with encrypted files"):
            prepare(stack)
            repository = prepare_application(stack, server)
        with step(f"Starting {REPLICAS} replicas of the controller, which share {SHARDS} shards of namespaces"):
            replicas = running.enter_context(
                Replicas(stack, shards=SHARDS, KUSTOMIZE_BINARY=str(found["kustomize"]), **SHORT_SESSIONS)
            )
            start_replicas(stack, replicas)
        show(stack, jaeger, repository)
        with step("Killing one replica while values change"):
            crash(stack, replicas)
        with step("Stopping the replicas, then everything else"):
            living = replicas.living()
            for replica in living:
                replica.terminate()
            expect("the replicas' exit codes", [replica.stop() for replica in living], [0] * len(living))
            running.close()


def main() -> int:
    """Run the demo; 0 if everything was as it should be, else 1 with what was not."""
    try:
        run()
    except (DemoError, StackError, ControlPlaneError, ServerError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything is stopped and removed.", file=sys.stderr)
        return 130
    print("Everything was as it should be.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
