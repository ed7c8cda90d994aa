"""Nothing of a secret value gets out: unique values go through every path, good and bad, and then everything is searched.

The controller runs with an audit hook that notes every file that it opens for writing and every process that it
starts, and with one fault of its own: an unexpected error whose text quotes the value.
"""

import base64
import contextlib
import json
import os
import re
import secrets
import stat
import subprocess
import sys
import tempfile
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

import pyrage
import pytest
import re2

from secret_manager_controller.kube import EVENTS, GIT_REPOSITORIES, SECRET_MANAGER_CONFIGS, SECRETS, ResourcePath
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE
from secret_manager_controller.testing.tenants import ENV, PROPERTIES, YAML, Tenant

pytestmark = [pytest.mark.real]

ROOT = Path(__file__).parent.parent.parent
HOOK = """
import os, sys

_notes = os.open(os.environ["CANARY_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def _callers(frame):
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back

def _note(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        for code in _callers(sys._getframe(1)):
            if "/kubernetes/config/" in code.co_filename:  # It writes the kubeconfig's certificate into a file.
                return
            if code.co_name == "_get_default_tempdir":  # It tries which directory can be written to.
                return
        os.write(_notes, f"write {arguments[0]!r}\\n".encode())
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
        os.write(_notes, f"start {arguments!r}\\n".encode())

sys.addaudithook(_note)

import secret_manager_controller.reconcile as reconcile

_desired_state = reconcile.desired_state

def desired_state(plaintext, **options):
    for service in plaintext.services:
        for entry in service.entries:
            if entry.key == "BOOM":
                text = entry.value.expose().decode()
                raise RuntimeError(f"cannot handle {text}") from ValueError(text)
    return _desired_state(plaintext, **options)

reconcile.desired_state = desired_state
"""


class Canary:
    """A value that occurs nowhere else, and all the forms in which it could be told."""

    def __init__(self, decoration=""):
        self.core = secrets.token_hex(16)
        self.value = f"{self.core[:16]}{decoration}{self.core[16:]}"

    def forms(self):
        value = self.value.encode()
        halves = (self.core[:16], self.core[16:])
        plain = {self.value, *halves, repr(self.value)[1:-1], json.dumps(self.value)[1:-1]}
        plain |= {urllib.parse.quote(self.value), urllib.parse.quote_plus(self.value), self.value[::-1]}
        hexes = {text.encode().hex() for text in (self.value, *halves)}
        # Base64 of a text that holds the value somewhere: three shifts, without the letters that neighbours decide.
        inside = {
            coded[4 : len(coded) - 4]
            for data in (value, *(half.encode() for half in halves))
            for shift in range(3)
            for coded in [base64.b64encode(b"-" * shift + data).decode()]
        }
        inside |= {text.translate(str.maketrans("+/", "-_")) for text in inside}
        return {form.encode() for form in plain | hexes | {text.upper() for text in hexes} | inside}


@dataclass
class Found:
    """What was there to be searched, by where it was."""

    stack: object
    canaries: dict = field(default_factory=dict)
    places: dict = field(default_factory=dict)
    statuses: dict = field(default_factory=dict)
    notes: str = ""
    core_limit: str = ""
    log: str = ""


def searched(found, place, names=None):
    """Return which canaries a place shows, and in which form."""
    forms = {
        form: name
        for name, canary in found.canaries.items()
        if names is None or name in names
        for form in canary.forms()
    }
    options = re2.Options()
    options.max_mem = 2**28
    options.encoding = re2.Options.Encoding.LATIN1
    pattern = re2.compile(b"|".join(map(re2.escape, forms)), options)
    text = found.places[place].replace(bytes(4096), b"")  # etcd's log is mostly room.
    return [(forms[form], form) for form in set(pattern.findall(text))]


@pytest.fixture(scope="module")
def pgp_encrypt(sops, tmp_path_factory):
    """Return a function that encrypts a dotenv text for the example PGP key."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))  # tmp_path is too deep for the agent's socket.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GNUPGHOME": str(home)}
    key = ROOT / "examples" / "keys" / "EXAMPLE-ONLY.pgp.asc"
    subprocess.run(["gpg", "--batch", "--quiet", "--import", key], env=environment, check=True, capture_output=True)
    listed = subprocess.run(["gpg", "--list-keys", "--with-colons"], env=environment, check=True, capture_output=True)
    fingerprint = re.search(rb"^fpr:+([0-9A-F]{40}):", listed.stdout, re.MULTILINE).group(1).decode()

    def encrypt(text):
        command = [sops, "--encrypt", "--pgp", fingerprint, "--input-type", "dotenv", "--output-type", "dotenv"]
        ran = subprocess.run(
            [*command, "/dev/stdin"], input=text.encode(), env=environment, capture_output=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    yield encrypt
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=False)


@pytest.fixture(scope="module")
def found(stack, encrypt, example_recipient, pgp_encrypt, kustomize_binary, tmp_path_factory):
    directory = tmp_path_factory.mktemp("canary")
    (directory / "sitecustomize.py").write_text(HOOK)
    notes = directory / "notes"
    found = Found(stack)
    before = {path for base in ("/dev/shm", tempfile.gettempdir()) for path in Path(base).iterdir()}
    settings = {
        "PYTHONPATH": os.pathsep.join([str(directory), *sys.path]),
        "CANARY_NOTES": str(notes),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHUTDOWN_GRACE_SECONDS": "5",
        "KUSTOMIZE_BINARY": str(kustomize_binary),
    }
    tenants = []
    with stack.controller(**settings) as controller:
        try:
            run(found, stack, encrypt, example_recipient, pgp_encrypt, tenants)
            look(found, stack, controller, tenants)
        finally:
            for tenant in tenants:
                tenant.remove()
    found.log = controller.log.read_text()
    found.places["log"] = controller.log.read_bytes()
    found.notes = notes.read_text()
    found.places["files left behind"] = files_in(
        stack.directory / "cache",
        stack.directory / ".config",
        *(path for base in ("/dev/shm", tempfile.gettempdir()) for path in Path(base).iterdir() if path not in before),
    )
    found.places["processes that were started"] = "".join(
        line for line in found.notes.splitlines(True) if line.startswith("start ")
    ).encode()
    return found


class Course:
    """What values go through, one step after the other."""

    def __init__(self, found, stack, encrypt, recipient, tenants):
        self.found = found
        self.stack = stack
        self.tenants = tenants
        self._encrypt = encrypt
        self._recipient = recipient

    def canary(self, name, decoration=""):
        self.found.canaries[name] = Canary(decoration)
        return self.found.canaries[name].value

    def encrypt(self, text, *, recipient=None, **options):
        return self._encrypt(text, recipient or self._recipient, **options)

    def tenant(self, label):
        self.tenants.append(Tenant(self.stack, f"canary-{label}"))
        return self.tenants[-1]

    def refused(self, label, reason, files, **spec):
        one = self.tenant(label)
        one.commit(files)
        one.apply(**spec)
        self.found.statuses[label] = one.ready(reason=reason)


def sync_in_all_formats(course):
    """Success, and what follows it: a change, a value changed by hand, an answer that was lost."""
    good = course.tenant("good")
    nested = f'a:\n  b: "{course.canary("yaml", "+&=%")}"\n  c: ["{course.canary("yaml list")}"]\n'
    files = {
        ENV: course.encrypt(f"A={course.canary('dotenv', '/+&=%')}\nB={course.canary('lost')}\n"),
        YAML: course.encrypt(nested, kind="yaml"),
        PROPERTIES: f"url={course.canary('plain properties')}\n",
    }
    good.commit(files)
    course.stack.aws.fail("CreateSecret", "InternalServiceError", 0, commit=True, times=4, name=good.name("B"))
    good.apply(prune=True, deletionPolicy="Delete")
    good.ready()
    assert good.values()["a.b"] == course.found.canaries["yaml"].value.encode()
    good.applied(good.commit(files | {ENV: course.encrypt(f"A={course.canary('changed')}\n")}))
    course.stack.aws.put_by_hand(good.name("A"), course.canary("by hand").encode())
    good.reconcile()
    assert good.values()["A"] == course.found.canaries["changed"].value.encode()
    course.stack.delete(good.path)
    course.stack.wait("the object to be gone", lambda: not good.body())


def unwrap_by_gpg(course, pgp_encrypt):
    key = ROOT / "examples" / "keys" / "EXAMPLE-ONLY.pgp.asc"
    pgp = course.tenant("pgp")
    course.stack.create_secret(pgp.namespace, "sops-gpg-key", {"private-key": key.read_bytes()})
    pgp.commit({ENV: pgp_encrypt(f"A={course.canary('pgp')}\n")})
    pgp.apply()
    pgp.ready()
    assert pgp.values() == {"A": course.found.canaries["pgp"].value.encode()}


def build(course):
    """Builds by kustomize: one that works, and those of which kustomize would quote a value."""
    built = course.tenant("built")
    spec = {"secrets": {"environment": "dev", "kustomizePath": "o", "prefix": built.namespace}}
    generator = "secretGenerator: [{name: g, envs: [a.env]}]\n"
    secret = 'apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  B: "{}"\n'
    overlay = {
        "o/kustomization.yaml": f"resources: [s.yaml]\n{generator}",
        "o/a.env": course.encrypt(f"A={course.canary('built env', '/+&=%')}\n"),
        "o/s.yaml": course.encrypt(secret.format(course.canary("built manifest")), kind="yaml"),
    }
    built.commit(overlay)
    built.apply(**spec)
    built.ready()
    assert built.values()["A"] == course.found.canaries["built env"].value.encode()
    lost = f"patches:\n- patch: |\n    kind: Secret\n    apiVersion: v1\n    metadata: {{name: {course.canary('plain patch')}}}\n"
    course.refused(
        "no-target", "BuildFailed", overlay | {"o/kustomization.yaml": f"resources: [s.yaml]\n{lost}"}, **spec
    )
    broken = course.encrypt(f"A={course.canary('built line')}\n", kind="binary")
    generated = "resources: [broken.yaml]\n"
    course.refused("no-manifest", "BuildFailed", {"o/kustomization.yaml": generated, "o/broken.yaml": broken}, **spec)


def be_refused_by_the_store(course):
    denied = course.tenant("denied")
    for operation in ("CreateSecret", "PutSecretValue"):
        course.stack.aws.fail(operation, "InvalidRequestException", 400, name=denied.name("A"), times=9)
    denied.commit({ENV: course.encrypt(f"A={course.canary('denied')}\n")})
    denied.apply()
    course.found.statuses["denied"] = denied.until("a refusal", lambda status: status.get("conditions"))


def be_refused_encrypted(course):
    stranger = str(pyrage.x25519.Identity.generate().to_public())
    text = course.encrypt(f"A={course.canary('tampered one')}\nB={course.canary('tampered other')}\n").decode()
    without = "".join(line for line in text.splitlines(True) if not line.startswith("B="))
    course.refused(
        "wrong-key", "DecryptionFailed", {ENV: course.encrypt(f"A={course.canary('wrong key')}\n", recipient=stranger)}
    )
    course.refused("tampered", "DecryptionFailed", {ENV: without})
    course.refused("readable", "DecryptionFailed", {ENV: f"X={course.canary('plain readable')}\n{text}"})
    large = course.encrypt(f"A={course.canary('too large') * 3000}\n")
    course.refused("too-large", "ValueTooLarge", {ENV: large})
    collision = f'a b: "{course.canary("collision one")}"\na_b: "{course.canary("collision other")}"\n'
    course.refused("collision", "NameCollision", {YAML: course.encrypt(collision, kind="yaml")})
    course.refused(
        "internal", "InternalError", {ENV: course.encrypt(f"BOOM={course.canary('internal error', '+/')}\n")}
    )


def be_refused_in_the_clear(course):
    """Broken files that nobody encrypted, the value beside the fault."""
    course.refused("no-yaml", "InvalidDocument", {YAML: f"a: [{course.canary('plain yaml')}\nb: 2"})
    course.refused(
        "key-twice", "InvalidDocument", {YAML: f"a: {course.canary('plain one')}\na: {course.canary('plain other')}\n"}
    )
    course.refused("not-utf-8", "InvalidDocument", {ENV: f"A={course.canary('plain bytes')}".encode() + b"\xff\n"})
    course.refused("crlf", "InvalidDocument", {ENV: f"A={course.canary('plain crlf')}\r\n"})
    course.refused("no-dotenv", "InvalidDocument", {ENV: f"{course.canary('plain line')}\n"})


def run(found, stack, encrypt, recipient, pgp_encrypt, tenants):
    """Let values go through everything that can happen to them."""
    course = Course(found, stack, encrypt, recipient, tenants)
    sync_in_all_formats(course)
    unwrap_by_gpg(course, pgp_encrypt)
    build(course)
    be_refused_by_the_store(course)
    be_refused_encrypted(course)
    be_refused_in_the_clear(course)


def look(found, stack, controller, tenants):
    """Gather everything that others can see, while it runs."""
    pid = controller.process.pid
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    found.places["processes"] = b"\n".join(
        Path(f"/proc/{each}/{name}").read_bytes() for each in [pid, *children] for name in ("environ", "cmdline")
    )
    found.core_limit = next(
        line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max core file size")
    )
    found.places["metrics"] = controller.http("/metrics")[1].encode()
    kinds = (SECRET_MANAGER_CONFIGS, GIT_REPOSITORIES, EVENTS, SECRETS, ResourcePath("", "v1", "configmaps"))
    lists = [stack.get(kind.url()) for kind in (*kinds, ResourcePath("coordination.k8s.io", "v1", "leases"))]
    assert all(lists)
    found.places["objects of the API"] = json.dumps(lists).encode()
    found.places["calls of the store"] = json.dumps([str(call) for call in stack.aws.calls()]).encode()
    found.places["data and logs of the API server"] = files_in(stack.plane.directory)
    found.places["cache"] = files_in(stack.directory / "cache")


def files_in(*roots):
    """Return the content of all files below, and their names; what other processes remove meanwhile is left out."""
    pieces = []
    for root in roots:
        names = [Path(place) / name for place, _, files in os.walk(root) for name in files]
        for path in names if root.is_dir() else [root]:
            pieces.append(str(path).encode())
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.lstat(path).st_mode):
                    pieces.append(Path(path).read_bytes())
    return b"\n".join(pieces)


PLACES = [
    "log",
    "metrics",
    "objects of the API",
    "calls of the store",
    "data and logs of the API server",
    "processes",
    "processes that were started",
    "files left behind",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_value_is_in(found, place):
    assert found.places[place], "there was nothing to search"
    assert searched(found, place) == []


def test_the_cache_holds_what_is_in_git_and_nothing_decrypted(found):
    encrypted = [name for name in found.canaries if not name.startswith("plain")]
    assert b"ENC[AES256_GCM" in found.places["cache"]
    assert searched(found, "cache", encrypted) == []


def test_the_search_finds_what_is_there(found):
    """A search that never finds anything proves nothing: each form of a value is found in a text that holds it."""
    value = next(iter(found.canaries.values())).value
    texts = {
        "raw": f"x{value}x",
        "half": value[: len(value) // 2 + 4],
        "base64": base64.b64encode(f"some text {value} and more".encode()).decode(),
        "base64-url": base64.urlsafe_b64encode(f"?{value}".encode()).decode(),
        "hex": value.encode().hex(),
        "url": urllib.parse.quote(value, safe=""),
        "json": json.dumps({"value": value}),
        "repr": repr([value.encode()]),
    }
    for name, text in texts.items():
        found.places["example"] = text.encode()
        assert searched(found, "example"), name


IN_MEMORY = ("/dev/shm/smc-gpg-", "/dev/shm/smc-kustomize-")


def test_files_are_written_into_the_cache_and_into_memory_only(found):
    written = {line.removeprefix("write ").strip() for line in found.notes.splitlines() if line.startswith("write ")}
    cache = str(found.stack.directory / "cache")
    names = {path.strip("'") for path in written}
    # A relative name is an entry of an archive, opened in a directory below the cache.
    elsewhere = {
        name
        for name in names
        if name.startswith("/") and not name.startswith((cache, *IN_MEMORY, "/dev/null", "/dev/tty"))
    }
    assert elsewhere == set()
    for place in IN_MEMORY:
        assert any(name.startswith(place) for name in names)


def test_gpg_and_kustomize_get_nothing_of_a_value_as_an_argument_and_nothing_from_our_environment(found):
    started = [line for line in found.notes.splitlines() if line.startswith("start ")]
    assert started
    assert all("gpg" in line or "launcher.py" in line for line in started)
    assert any("launcher.py" in line for line in started)
    for line in started:
        assert "KUBECONFIG" not in line
        assert "AWS_" not in line


def test_no_key_and_no_login_is_in_logs_objects_metrics_or_processes(found):
    stack = found.stack
    hash_key = stack.get(SECRETS.url(CONTROLLER_NAMESPACE, "secret-manager-controller-hash-key"))["data"]["key"]
    age = (ROOT / "examples" / "keys" / "EXAMPLE-ONLY.age.key").read_text().splitlines()[-1]
    pgp = (ROOT / "examples" / "keys" / "EXAMPLE-ONLY.pgp.asc").read_text().splitlines()[5]
    keys = {"login": stack.aws.access_keys.secret_access_key, "hash key": hash_key, "age": age, "pgp": pgp}
    for place in ("log", "metrics", "processes", "processes that were started", "calls of the store"):
        assert [name for name, key in keys.items() if key.encode() in found.places[place]] == [], place


def test_an_unexpected_error_is_told_by_its_type_and_place_only(found):
    message = found.statuses["internal"]["conditions"][0]["message"]
    assert message == "internal error (RuntimeError); the controller's log says where"
    records = [json.loads(line) for line in found.log.splitlines() if '"Internal error"' in line]
    assert {record["error_type"] for record in records} == {"RuntimeError"}
    assert all(re.fullmatch(r".*/sitecustomize\.py:\d+", record["where"]) for record in records)


def test_a_crash_would_leave_no_core_dump(found):
    assert found.core_limit.split()[4:6] == ["0", "0"]
