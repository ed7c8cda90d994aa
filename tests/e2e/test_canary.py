"""No value leaves memory: after good and bad days nothing that anybody can read holds one, in any spelling.

The controller runs with directories of its own. A value is looked for raw, in halves, base64, hex, URL-encoded and as JSON
writes it: in its log at the most talkative level, in every object of the cluster, in metrics, in the logs of the API
server and of the store, in every file that it may write, and in what /proc shows of it while it works.
"""

import base64
import json
import os
import secrets
import subprocess
import threading
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import pytest

from secret_manager_controller.kube import EVENTS, SECRET_MANAGER_CONFIGS
from secret_manager_controller.testing.tenants import ENV, PROPERTIES, YAML, Tenant, dotenv

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("e2e-canary")]

ROOT = Path(__file__).parent.parent.parent


class Canaries:
    """Values that are nowhere else in the world, and all the ways in which one could show."""

    def __init__(self):
        self.values = []

    def new(self):
        # Quotes, an umlaut and a line break of sorts: each spelling below differs from the value itself.
        self.values.append(f'kanarie "{secrets.token_hex(12)}" über/{secrets.token_hex(12)}')
        return self.values[-1]

    def spellings(self):
        for value in self.values:
            raw = value.encode()
            first, second = value.split('"')[1], value.rpartition("/")[2]
            yield from (raw, first.encode(), second.encode())
            for cut in range(3):  # Base64 of a longer text that holds the value somewhere.
                yield base64.b64encode(raw[cut:])[4:-6]
            yield base64.urlsafe_b64encode(raw)[:-4]
            yield raw.hex().encode()
            yield urllib.parse.quote(value).encode()
            yield json.dumps(value)[1:-1].encode()

    def found_in(self, content):
        return any(spelling in content for spelling in self.spellings())


@pytest.fixture(scope="module")
def canaries():
    return Canaries()


@contextmanager
def watching(process, shown):
    """Collect what /proc shows of a process and its children all the while."""
    ended = threading.Event()

    def children(pid):
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                yield child
                yield from children(child)

    def look():
        while not ended.wait(0.002):
            try:
                pids = [str(process.pid), *children(process.pid)]
            except OSError:
                continue
            for pid in pids:
                for file in ("environ", "cmdline"):
                    try:
                        shown.add(Path(f"/proc/{pid}/{file}").read_bytes())
                    except OSError:
                        continue  # It has ended.

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def files_under(*directories):
    for directory in directories:
        for path in Path(directory).rglob("*"):
            if path.is_file() and not path.is_symlink():
                try:
                    yield path, path.read_bytes()
                except OSError:
                    continue


def encrypted(sops, text, kind, *recipient, home=None):
    command = [sops, "encrypt", *recipient, "--input-type", kind, "--output-type", kind, "/dev/stdin"]
    environment = os.environ | ({"GNUPGHOME": str(home)} if home else {})
    return subprocess.run(
        command, input=text, capture_output=True, text=True, check=True, timeout=60, env=environment
    ).stdout


@pytest.fixture(scope="module")
def example_pgp(tmp_path_factory):
    """Return the fingerprint of the examples' PGP key, its armor, and a home that knows it."""
    home = tmp_path_factory.mktemp("gpg", numbered=True)
    home.chmod(0o700)
    armor = ROOT / "examples" / "keys" / "EXAMPLE-ONLY.pgp.asc"
    gpg = ["gpg", "--batch", "--quiet", "--homedir", home]
    subprocess.run([*gpg, "--import", armor], check=True, capture_output=True, timeout=30)
    listed = subprocess.run(
        [*gpg, "--list-keys", "--with-colons"], check=True, capture_output=True, text=True, timeout=30
    )
    fingerprint = next(line.split(":")[9] for line in listed.stdout.splitlines() if line.startswith("fpr"))
    yield fingerprint, armor.read_bytes(), home
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, timeout=30)


def test_no_value_shows_anywhere_on_good_and_bad_days(stack, sops, canaries, example_key, example_pgp, tmp_path):
    fingerprint, armor, gpg_home = example_pgp
    public = next(line.split(": ")[1] for line in example_key.decode().splitlines() if "public key" in line)
    age = ("--age", public)
    temporary, cache = tmp_path / "tmp", tmp_path / "cache"
    temporary.mkdir()
    shown: set[bytes] = set()
    scanned = {}

    def env(**entries):
        return encrypted(sops, dotenv(**entries), "dotenv", *age)

    with (
        stack.controller(
            TMPDIR=str(temporary), HOME=str(temporary), CACHE_DIRECTORY=str(cache), LOG_LEVEL="trace"
        ) as controller,
        watching(controller.process, shown),
    ):
        tenants = {name: Tenant(stack, f"canary-{name}") for name in ("good", "bad", "pgp", "faults", "conflict")}
        good, bad, pgp, faults, conflict = tenants.values()

        # A good day: every kind of file, a change, a value changed by hand, an adopted one.
        good.commit({
            ENV: env(A=canaries.new(), B=canaries.new()),
            YAML: encrypted(sops, json.dumps({"a": {"b": [canaries.new()]}}), "yaml", *age),
            PROPERTIES: f"plain={canaries.new()}\n",
        })  # fmt: skip
        good.apply(prune=True)
        good.ready()
        good.applied(good.commit({ENV: env(A=canaries.new(), B=canaries.new())}))
        stack.aws.put_by_hand(good.name("A"), canaries.new().encode())
        good.reconcile()
        stack.create_secret(pgp.namespace, "sops-gpg-key", {"private-key": armor})
        pgp.commit({ENV: encrypted(sops, dotenv(P=canaries.new()), "dotenv", "--pgp", fingerprint, home=gpg_home)})
        pgp.apply()
        pgp.ready()
        stack.aws.put_by_hand(conflict.name("C"), canaries.new().encode())
        conflict.commit({ENV: env(C=canaries.new())})
        conflict.apply()
        conflict.ready(reason="Conflict")

        # Bad days: files that were tampered with, broken ones, values that no store takes.
        bad.apply()
        whole = env(A=canaries.new(), B="1").splitlines(keepends=True)
        for reason, files in (
            ("DecryptionFailed", {ENV: "".join(line for line in whole if not line.startswith("B="))}),
            ("DecryptionFailed", {ENV: "".join(whole).replace("sops_mac=ENC[", "sops_mac=XNC[")}),
            ("InvalidDocument", {YAML: f"a: [{canaries.new()}"}),
            ("InvalidDocument", {YAML: f"a: 1\na: '{canaries.new()}'\n"}),
            ("ValueTooLarge", {ENV: env(A=canaries.new() * 2000)}),
            ("EmptyValue", {ENV: dotenv(A=canaries.new(), B="")}),
            ("NameCollision", {YAML: json.dumps({"a b": canaries.new(), "a_b": canaries.new()})}),
        ):
            artifact = bad.commit(files)
            bad.ready(reason=reason, after=artifact.revision)

        # A store that refuses, breaks and loses answers while values are on their way.
        faults.commit({ENV: env(A=canaries.new(), B=canaries.new())})
        for operation, code, options in (
            ("CreateSecret", "InvalidParameterException", {"status": 400}),
            ("CreateSecret", "InternalServiceError", {"status": 500, "commit": True}),
            ("CreateSecret", "", {"status": 0}),
        ):
            stack.aws.fail(operation, code, **options)
        faults.apply()
        faults.ready(reason="StoreRefused")
        faults.reconcile()
        faults.ready()
        stack.aws.fail("PutSecretValue", "EncryptionFailure", status=400, times=20)
        artifact = faults.commit({ENV: env(A=canaries.new(), B=canaries.new())})
        faults.until("its failure", lambda status: status.get("lastAttemptedRevision") == artifact.revision)
        stack.aws.clear_faults()

        scanned["metrics"] = controller.http("/metrics")[1].encode()
        scanned["objects"] = json.dumps([stack.get(SECRET_MANAGER_CONFIGS.url()), stack.get(EVENTS.url())]).encode()
        running = dict(files_under(temporary, cache, "/dev/shm"))

    scanned["log"] = controller.log.read_bytes()
    scanned["API server's audit log"] = json.dumps(stack.plane.audit_events()).encode()
    scanned["store's call log"] = repr(stack.aws.calls()).encode()
    scanned["/proc"] = b"\0".join(shown)
    # Nothing shows because something was looked at: each place has what it must have.
    assert b"ReconciliationSucceeded" in scanned["objects"]
    assert b"DecryptionFailed" in scanned["log"]
    assert b"secret_manager_reconciliations_total" in scanned["metrics"]
    assert b"PutSecretValue" in scanned["store's call log"]
    assert b"gpg" in scanned["/proc"]
    assert any(path.name == "application.secrets.env" for path in running)
    assert canaries.found_in(json.dumps({k: v.decode() for k, v in stack.aws.values().items()}).encode())

    leaks = [where for where, content in scanned.items() if canaries.found_in(content)]
    # What is plain in Git is plain in the cached snapshot, and nowhere else.
    leaks += [
        str(path)
        for path, content in (*running.items(), *files_under(temporary))
        if canaries.found_in(content) and not path.is_relative_to(cache)
    ]
    secret = [ENV.rpartition("/")[2]]
    leaks += [
        str(path)
        for path, content in running.items()
        if path.is_relative_to(cache) and path.name in secret and b"sops_mac" in content and canaries.found_in(content)
    ]
    assert leaks == []
    for tenant in tenants.values():
        tenant.remove()
