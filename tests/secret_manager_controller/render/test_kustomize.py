"""Builds by the real kustomize of files that the real sops has encrypted."""

import base64
import json
import os
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyrage
import pytest
import yaml

from secret_manager_controller import scratch
from secret_manager_controller.decrypt import Decryptor, KeyRing
from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.render import kustomize as kustomize_module
from secret_manager_controller.render.inputs import BuildInputs, gather_build
from secret_manager_controller.render.kustomize import PREFIX, Kustomize, service_of, sweep_builds
from secret_manager_controller.render.sandbox import Limits
from secret_manager_controller.scratch import base_in_memory

CANARY = "canary-5f1e"
SECRET = f"apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\nstringData: {{password: {CANARY}}}\n"
BASE = {
    "base/kustomization.yaml": "resources: [secret.yaml, config.yaml]\n",
    "base/secret.yaml": SECRET,
    "base/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {host: db.example}\n",
}


@pytest.fixture(autouse=True)
def base(monkeypatch):
    """Give the test its own place in memory, which must be empty at the end."""
    with tempfile.TemporaryDirectory(dir=base_in_memory()) as place:
        monkeypatch.setattr(scratch, "_SHARED_MEMORY", Path(place))
        yield Path(place)
        assert list(Path(place).iterdir()) == []


@pytest.fixture(scope="session")
def identity():
    return pyrage.x25519.Identity.generate()


@pytest.fixture(scope="session")
def ring(identity):
    return KeyRing.parse([str(identity).encode()])


@pytest.fixture(scope="session")
def encrypt(sops, identity):
    """Return a function that encrypts with the real sops."""

    def run(text, kind, *options):
        types = ["--input-type", kind, "--output-type", kind]
        command = [sops, "--encrypt", "--age", str(identity.to_public()), *options, *types, "/dev/stdin"]
        data = text if isinstance(text, bytes) else text.encode()
        ran = subprocess.run(command, input=data, capture_output=True, check=True, env={"HOME": os.devnull})
        return ran.stdout

    return run


@pytest.fixture
def build(tree_of, kustomize_binary, ring):
    """Return a function that builds a directory of some files; nothing of it stays in memory."""

    def run(files, path="o", keys=ring, **options):
        content = {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
        inputs = gather_build(tree_of(content), path)
        builder = Kustomize(Decryptor(HashKey(b"k" * 32)), **{"binary": str(kustomize_binary)} | options)
        (service,) = builder.render(inputs, keys).services
        return {entry.key: entry.value.expose() for entry in service.entries}

    return run


@pytest.fixture
def oracle(kustomize_binary, tmp_path):
    """Return a function that says what a user's own `kustomize build` makes of plain files."""

    def run(files, path="o"):
        root = tmp_path / "oracle"
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        ran = subprocess.run([kustomize_binary, "build", root / path], capture_output=True, check=True)
        values = {}
        for manifest in yaml.safe_load_all(ran.stdout):
            if manifest["kind"] == "Secret":
                values |= {key: base64.b64decode(text) for key, text in (manifest.get("data") or {}).items()}
                values |= {key: text.encode() for key, text in (manifest.get("stringData") or {}).items()}
        return values

    return run


def refused(build, files, kind=ControllerError, **options):
    with pytest.raises(kind) as caught:
        build(files, **options)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None, "a cause could hold plaintext"
    return caught.value


TREES = {
    "base": {"o/kustomization.yaml": "resources: [../base]\n"},
    "patches": {
        "o/kustomization.yaml": "resources: [../base]\npatches:\n- path: p.yaml\n"
        "- target: {kind: Secret}\n  patch: |\n    - op: add\n      path: /stringData/added\n      value: x\n",
        "o/p.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {user: app}\n",
    },
    "strategic-merge": {
        "o/kustomization.yaml": "resources: [../base]\npatchesStrategicMerge:\n- p.yaml\n- |\n  apiVersion: v1\n"
        "  kind: Secret\n  metadata: {name: db}\n  stringData: {inline: y}\n",
        "o/p.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {user: app}\n",
    },
    "generators": {
        "o/kustomization.yaml": "namePrefix: dev-\nsecretGenerator:\n- name: g\n  files: [a.bin, renamed=a.bin]\n"
        "  envs: [e.env]\n  literals: [token=abc]\n- name: h\n  options: {disableNameSuffixHash: true}\n"
        "  literals: [other=1]\n",
        "o/a.bin": b"\xff\x00binary" * 30,
        "o/e.env": 'URL=http://x?a=b\nQUOTED="q"\n# note\n',
    },
    "components": {
        "o/kustomization.yaml": "resources: [../base]\ncomponents: [../component]\n",
        "component/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        "patches: [{target: {kind: Secret, name: db}, path: p.yaml}]\nsecretGenerator: [{name: more, literals: [more=1]}]\n",
        "component/p.yaml": "- op: add\n  path: /stringData/component\n  value: x\n",
    },
    "replacements": {
        "o/kustomization.yaml": "resources: [../base]\nreplacements: [{path: r.yaml}]\n",
        "o/r.yaml": "source: {kind: ConfigMap, name: c, fieldPath: data.host}\n"
        "targets: [{select: {kind: Secret}, fieldPaths: [stringData.host], options: {create: true}}]\n",
    },
    "merge": {
        "o/kustomization.yaml": "resources: [../g]\n"
        "secretGenerator: [{name: g, behavior: merge, literals: [a=2, b=3]}]\n",
        "g/kustomization.yaml": "secretGenerator: [{name: g, literals: [a=1]}]\n",
    },
    "list": {
        "o/kustomization.yaml": "resources: [l.yaml]\n",
        "o/l.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: a}, "
        "data: {a: YQ==}}\n",
    },
}


@pytest.mark.parametrize("name", TREES)
def test_a_build_is_what_kustomize_makes_of_it(build, oracle, name):
    files = BASE | TREES[name]
    assert build(files) == oracle(files) != {}


def test_encrypted_files_of_every_format_are_decrypted_before_the_build(build, oracle, encrypt):
    plain = {
        "o/kustomization.yaml": "resources: [../base]\nsecretGenerator:\n- name: g\n"
        "  files: [a.bin, j.json, i.ini]\n  envs: [e.env]\n",
        "o/a.bin": b"\x00\xff" * 9,
        "o/e.env": "URL=u\nLONG=one\\ntwo\n",
    }
    texts = {"o/j.json": '{"a": [1, "two", 1.50]}', "o/i.ini": "[s]\nk = v\n"}
    encrypted = {
        "base/secret.yaml": encrypt(SECRET, "yaml", "--encrypted-regex", "^(data|stringData)$"),
        "o/a.bin": encrypt(plain["o/a.bin"], "binary"),
        "o/e.env": encrypt(plain["o/e.env"], "dotenv"),
        "o/j.json": encrypt(texts["o/j.json"], "json"),
        "o/i.ini": encrypt(texts["o/i.ini"], "ini"),
    }
    ours = build(BASE | plain | encrypted)
    theirs = oracle(BASE | plain | texts)
    assert json.loads(ours.pop("j.json")) == json.loads(theirs.pop("j.json"))
    assert ours == theirs
    assert ours["password"] == CANARY.encode()


def test_a_whole_encrypted_manifest_works_too(build, encrypt):
    whole = encrypt(SECRET, "yaml", "--unencrypted-regex", "^(apiVersion|kind|metadata)$")
    assert build(BASE | TREES["base"] | {"base/secret.yaml": whole}) == {"password": CANARY.encode()}


def test_source_hashes_do_not_move_while_values_stay(tree_of, kustomize_binary):
    builder = Kustomize(Decryptor(HashKey(b"k" * 32)), binary=str(kustomize_binary))

    def hashes(files):
        content = {name: text.encode() for name, text in files.items()}
        (service,) = builder.render(gather_build(tree_of(content), "o"), KeyRing()).services
        return {entry.key: entry.source_hash for entry in service.entries}

    before = hashes(BASE | TREES["patches"])
    after = hashes(BASE | TREES["patches"] | {"o/p.yaml": TREES["patches"]["o/p.yaml"].replace("app", "other")})
    assert {key for key in before if before[key] != after[key]} == {"user"}
    assert len(set(before.values())) == len(before)


# Bad input.


def tampered(data):
    at = data.index(b"ENC[AES256_GCM,data:") + 20
    return data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "reason", "told"),
    [
        (
            tampered,
            Reason.DECRYPTION_FAILED,
            "base/secret.yaml: `stringData.password` .*changed after it was encrypted",
        ),
        (
            lambda data: data.replace(b"stringData:\n", b"stringData:\n    added: readable\n"),
            Reason.DECRYPTION_FAILED,
            "`stringData.added` is not encrypted",
        ),
        (
            lambda data: data.split(b"sops:")[0],
            Reason.DECRYPTION_FAILED,
            "it is encrypted, but has no SOPS metadata; restore it from Git",
        ),
    ],
    ids=["tampered", "added", "no-metadata"],
)
def test_what_was_changed_is_refused_before_the_build(build, encrypt, spoil, reason, told):
    data = spoil(encrypt(SECRET, "yaml", "--encrypted-regex", "^(data|stringData)$"))
    error = refused(build, BASE | TREES["base"] | {"base/secret.yaml": data}, binary="/bin/false")
    assert error.reason is reason
    assert error.message.startswith("base/secret.yaml: ")


def test_readable_values_in_an_encrypted_secret_are_refused(build, encrypt):
    data = encrypt(SECRET.replace("password", "password_unencrypted"), "yaml", "--mac-only-encrypted")
    error = refused(build, BASE | TREES["base"] | {"base/secret.yaml": data})
    assert error.reason is Reason.INVALID_DOCUMENT
    assert "'stringData.password_unencrypted' is not encrypted, although the file is" in error.message


def test_without_a_key_nothing_is_built(build, encrypt):
    files = BASE | TREES["base"] | {"base/secret.yaml": encrypt(SECRET, "yaml")}
    assert refused(build, files, RetryableError, keys=KeyRing()).reason is Reason.KEY_UNAVAILABLE


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"o/kustomization.yaml": "resources: [../base]\npatches: [{path: p.yaml}]", "o/p.yaml": "kind: Secret\n"
             "apiVersion: v1\nmetadata: {name: none}\n"},
            "is for an object that is not there",
        ),
        (
            {"o/kustomization.yaml": "resources: [a.yaml, b.yaml]", "o/a.yaml": SECRET, "o/b.yaml": SECRET},
            "two objects have the same kind and name",
        ),
        ({"o/kustomization.yaml": "resources: [a.yaml]", "o/a.yaml": f"{CANARY}: [\n"}, "is not YAML"),
        ({"o/kustomization.yaml": f"resources: [../base]\nnamespace: {{a: {CANARY}}}\n"}, "has a field of a wrong type"),
    ],
    ids=["patch", "twice", "yaml", "type"],
)  # fmt: skip
def test_a_build_that_fails_says_why_and_quotes_nothing(build, files, told):
    error = refused(build, BASE | files, PermanentError)
    assert error.reason is Reason.BUILD_FAILED
    assert error.message.startswith("kustomize build o failed: ")
    assert told in error.message


def script(path, body):
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


def test_a_build_that_hangs_is_killed(build, tmp_path):
    error = refused(
        build, BASE | TREES["base"], binary=script(tmp_path / "k", "while :; do :; done"), limits=Limits(seconds=0.5)
    )
    assert error.message == "kustomize build o did not end within 0.5 seconds and was killed"
    assert error.reason is Reason.BUILD_FAILED


def test_a_build_that_eats_memory_is_stopped(build):
    files = {"o/kustomization.yaml": "secretGenerator: [{name: g, files: [a, b, c, d]}]\n"}
    files |= {f"o/{name}": os.urandom(3 << 20) for name in "abcd"}
    error = refused(build, files, limits=Limits(memory=100 << 20))
    assert "it needs more memory than a build may use" in error.message


def test_an_unknown_failure_is_told_without_its_words(build, tmp_path):
    program = script(tmp_path / "k", f"echo {CANARY} >&2; exit 9")
    assert "in words that are known here" in refused(build, BASE | TREES["base"], binary=program).message


def test_a_missing_program_is_named(build):
    error = refused(build, BASE | TREES["base"], RetryableError, binary="no-such-kustomize")
    assert error.message == (
        "there is no program 'no-such-kustomize' to build with; install kustomize, or set KUSTOMIZE_BINARY to its path"
    )


def test_without_memory_for_plaintext_nothing_is_decrypted_to_a_disk(build, monkeypatch):
    files = BASE | TREES["base"]
    monkeypatch.setattr(kustomize_module, "base_in_memory", lambda: None)
    assert "mount a tmpfs at /dev/shm" in refused(build, files, RetryableError).message


def test_the_program_sees_nothing_but_a_private_copy(build, base, tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", "from outside")
    program = script(
        tmp_path / "k",
        "echo 'apiVersion: v1'; echo 'kind: Secret'; echo 'metadata: {name: s}'; echo stringData:\n"
        "echo \"  arguments: '$*'\"; echo \"  canary: '[$CANARY]'\"; echo \"  home: '$HOME'\"; echo \"  here: '$PWD'\"\n",
    )
    seen = build(BASE | TREES["base"], binary=program)
    assert seen["arguments"] == b"build o"
    assert seen["canary"] == b"[]"
    assert seen["home"] == seen["here"]
    assert seen["here"].decode().startswith(f"{base}/{PREFIX}")


def test_the_copy_is_private_and_read_only(build, monkeypatch):
    seen = []
    original = kustomize_module.run

    def watched(program, arguments, *, directory, limits):
        seen.extend((path.name, oct(path.stat().st_mode & 0o777)) for path in sorted(directory.rglob("*")))
        seen.append(("above", oct(directory.parent.stat().st_mode & 0o777)))
        return original(program, arguments, directory=directory, limits=limits)

    monkeypatch.setattr(kustomize_module, "run", watched)
    build({"o/kustomization.yaml": "resources: [s.yaml]", "o/s.yaml": SECRET, "o/other.yaml": "not copied"})
    assert seen == [
        ("o", "0o500"),
        ("kustomization.yaml", "0o400"),
        ("s.yaml", "0o400"),
        ("above", "0o700"),
    ]


def test_the_sweep_removes_what_killed_builds_left(base):
    left = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    (left / "owner.lock").touch()
    (left / "tree").mkdir()
    (left / "tree" / "s.yaml").write_text(CANARY)
    (left / "tree").chmod(0o500)
    assert sweep_builds() == 1
    assert not left.exists()


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("microservices/idam/deployment-configuration/profiles/dev", "idam"),
        ("idam/deployment-configuration", "idam"),
        ("deployment-configuration/profiles/dev", None),
        ("overlays/dev", None),
        ("", None),
    ],
)
def test_the_default_prefix_is_the_services_directory(path, service):
    assert service_of(path) == service


# The network.


class Canary:
    """A server that must see no request, whatever it would answer."""

    def __init__(self):
        self.requests = []
        canary = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                canary.requests.append(self.path)
                body = SECRET.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Keep quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def canary():
    server = Canary()
    yield server
    server.close()


FETCHES = {
    "resources": "resources: [{}/s.yaml]",
    "bases": "bases: [{}/base]",
    "components": "components: [{}/c]",
    "crds": "crds: [{}/c.yaml]",
    "configurations": "configurations: [{}/c.yaml]",
    "openapi": "openapi: {{path: {}/o.json}}",
    "patches": "resources: [../base]\npatches: [{{path: {}/p.yaml}}]",
    "patchesStrategicMerge": "resources: [../base]\npatchesStrategicMerge: [{}/p.yaml]",
    "patchesJson6902": "resources: [../base]\npatchesJson6902: [{{path: {}/p, target: {{version: v1, kind: Secret, name: db}}}}]",
    "replacements": "resources: [../base]\nreplacements: [{{path: {}/r.yaml}}]",
    "generators": "generators: [{}/g.yaml]",
    "transformers": "resources: [../base]\ntransformers: [{}/t.yaml]",
    "validators": "resources: [../base]\nvalidators: [{}/v.yaml]",
    "secretGenerator": "secretGenerator: [{{name: a, files: ['k={}/f']}}]",
    "envs": "secretGenerator: [{{name: a, envs: [{}/f]}}]",
    "configMapGenerator": "configMapGenerator: [{{name: a, files: ['k={}/f']}}]",
    "helmCharts": "helmCharts: [{{name: c, repo: '{}'}}]",
    "git": "resources: ['git::{}/repository.git']",
}  # fmt: skip


@pytest.mark.parametrize("field", FETCHES)
def test_nothing_is_fetched(build, canary, field):
    """Refused before anything starts."""
    error = refused(build, BASE | {"o/kustomization.yaml": FETCHES[field].format(canary.url)}, binary="/bin/false")
    assert error.reason is Reason.BUILD_FAILED
    assert canary.requests == []


@pytest.mark.parametrize("field", FETCHES)
def test_the_sandbox_alone_holds_too(kustomize_binary, ring, canary, field):
    """If the scan let it through, kustomize could still not reach anybody."""
    files = {name: text.encode() for name, text in BASE.items()}
    files["o/kustomization.yaml"] = FETCHES[field].format(canary.url).encode()
    builder = Kustomize(Decryptor(HashKey(b"k" * 32)), binary=str(kustomize_binary))
    with pytest.raises(PermanentError):
        builder.render(BuildInputs(root="o", files=files, uses={}), ring)
    assert canary.requests == []


def test_without_the_sandbox_the_canary_would_sing(kustomize_binary, canary, tmp_path):
    (tmp_path / "kustomization.yaml").write_text(FETCHES["resources"].format(canary.url))
    subprocess.run([kustomize_binary, "build", tmp_path], check=True, capture_output=True)
    assert canary.requests == ["/s.yaml"]


def test_no_function_and_no_plugin_runs(kustomize_binary, ring, tmp_path):
    """Both would leave a marker, if they could be started."""
    marker = tmp_path / "marker"
    function = (
        "apiVersion: example.com/v1\nkind: Touch\nmetadata:\n  name: t\n  annotations:\n    config.kubernetes.io/function: |\n"
        f"      exec: {{path: {script(tmp_path / 'touch', f'touch {marker}')}}}\n"
    )
    files = {name: text.encode() for name, text in BASE.items()}
    files["o/kustomization.yaml"] = b"resources: [../base]\ntransformers: [t.yaml]\n"
    files["o/t.yaml"] = function.encode()
    builder = Kustomize(Decryptor(HashKey(b"k" * 32)), binary=str(kustomize_binary))
    with pytest.raises(PermanentError):
        builder.render(BuildInputs(root="o", files=files, uses={}), ring)
    assert not marker.exists()
