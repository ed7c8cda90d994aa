"""Bad input of every kind at once, on real parts: each is told precisely, none does harm, the others go on.

Every row has a tenant whose two secrets were synced before and who prunes; then its source or its spec goes bad.
"""

import dataclasses
import gzip
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pyrage
import pytest

from secret_manager_controller.testing.artifacts import ArtifactServer, Fault
from secret_manager_controller.testing.stack import StackError
from secret_manager_controller.testing.tenants import (
    ENV,
    PROFILE,
    PROFILES,
    PROPERTIES,
    YAML,
    Tenant,
    conditions,
    dotenv,
    packed,
)

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("controller")]

GOOD = {"KEPT": "one", "ALSO_KEPT": "two"}
ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


class World:
    """What a row may use."""

    def __init__(self, stack, encrypt, recipient):
        self.stack = stack
        self.recipient = recipient
        self.stranger = str(pyrage.x25519.Identity.generate().to_public())
        self._encrypt = encrypt

    def encrypted(self, *recipients, kind="dotenv", text="KEPT=new\nALSO_KEPT=new too\n"):
        return self._encrypt(text, *(recipients or [self.recipient]), kind=kind)


@dataclass(frozen=True)
class Row:
    name: str
    reason: str
    told: str
    spoil: Callable[[World, Tenant], object]
    beside: str = "Stalled"
    prepare: Callable[[World, Tenant], object] = lambda world, tenant: None


def member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def with_member(*members):
    return lambda world, tenant: tenant.commit(content=packed({ENV: dotenv(**GOOD)}, *members))


def with_files(**files):
    """Commit files whose content may depend on the world; `env`, `yaml`, `properties` stand for the profile's."""
    paths = {"env": ENV, "yaml": YAML, "properties": PROPERTIES}

    def spoil(world, tenant):
        made = {name: content(world) if callable(content) else content for name, content in files.items()}
        tenant.commit({paths[name]: content for name, content in made.items()})

    return spoil


def own_key(world, tenant):
    key = str(pyrage.x25519.Identity.generate()).encode()
    world.stack.create_secret(tenant.namespace, "sops-private-key", {"private-key": key})


def tampered(world):
    """Exchange one letter of a value's ciphertext."""
    text = world.encrypted().decode()
    at = re.search(r"ALSO_KEPT=ENC\[AES256_GCM,data:", text).end()
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


def without_a_line(world):
    """Remove a whole entry, which only the MAC tells."""
    return "".join(line for line in world.encrypted().decode().splitlines(True) if not line.startswith("ALSO_KEPT="))


def with_a_readable_line(world):
    return b"INJECTED=readable\n" + world.encrypted()


def with_an_empty_line(world):
    return b"INJECTED=\n" + world.encrypted()


def twice(world):
    lines = world.encrypted().decode().splitlines(True)
    once = "".join(line for line in lines if not line.startswith("sops_"))
    return world.encrypted(text=once)


def zeros(*, files):
    """Publish 10 GB of zeros in 10 MB: one compressed piece, repeated."""
    size, piece_size = 10 * 2**30, 2**24

    def spoil(world, tenant):
        info = tarfile.TarInfo(ENV)
        info.size = size // files
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        head = deflate.compress(info.tobuf()) + deflate.flush(zlib.Z_FULL_FLUSH)
        piece = deflate.compress(bytes(piece_size)) + deflate.flush(zlib.Z_FULL_FLUSH)
        heads = [head] if files == 1 else [renamed(info, deflate, number) for number in range(files)]
        header = gzip.compress(b"", mtime=0)[:10]
        tenant.commit(content=header + b"".join(head + piece * (info.size // piece_size) for head in heads))

    return spoil


def renamed(info, deflate, number):
    info.name = f"zeros/{number}"
    return deflate.compress(info.tobuf()) + deflate.flush(zlib.Z_FULL_FLUSH)


def commit_its_own(tenant, **options):
    """Commit what no other row has: a download is shared by all that want its digest, and so is its failure."""
    return tenant.commit(**GOOD, ROW=tenant.namespace, **options)


def wrong_digest(world, tenant):
    artifact = commit_its_own(tenant, publish=False)
    tenant.publish(dataclasses.replace(artifact, digest=f"sha256:{'0' * 64}"))


def gone(world, tenant):
    artifact = commit_its_own(tenant, publish=False)
    world.stack.artifacts.withdraw(artifact)
    tenant.publish(artifact)


def served(fault):
    """Publish through a server that answers with a fault."""

    def spoil(world, tenant):
        world.faulty[tenant.namespace] = server = ArtifactServer(namespace=tenant.namespace).start()
        server.fault = fault
        commit_its_own(tenant, server=server)

    return spoil


def patched(**secrets):
    return lambda world, tenant: tenant.patch(secrets=secrets)


ROWS = [
    # Keys and SOPS.
    Row(
        "wrong-key",
        "DecryptionFailed",
        r"application.secrets.env: it is encrypted for age age1\w+; the keys here are age age1",
        with_files(env=World.encrypted),
        prepare=own_key,
    ),
    Row(
        "unknown-recipient",
        "DecryptionFailed",
        r"application.secrets.env: it is encrypted for age age1\w+; the keys here are age age1",
        with_files(env=lambda world: world.encrypted(world.stranger)),
    ),
    Row("tampered-value", "DecryptionFailed", "`ALSO_KEPT` .*changed after it was encrypted", with_files(env=tampered)),
    Row(
        "tampered-mac",
        "DecryptionFailed",
        "changed after it was encrypted .MAC mismatch",
        with_files(env=without_a_line),
    ),
    Row("readable-value", "DecryptionFailed", "`INJECTED` is not encrypted", with_files(env=with_a_readable_line)),
    Row("injected-empty-value", "EmptyValue", "'INJECTED' is empty", with_files(env=with_an_empty_line)),
    Row(
        "encrypted-twice",
        "DecryptionFailed",
        "is encrypted twice; decrypt it once and commit that",
        with_files(env=twice),
    ),
    # Documents.
    Row("alias-bomb", "InvalidDocument", "line 1: it has an anchor or alias", with_files(yaml=ALIAS_BOMB)),
    Row("no-yaml", "InvalidDocument", "line 2, column 2: it is not YAML", with_files(yaml="a: [1\nb: 2")),
    Row("key-twice", "InvalidDocument", "line 2: the key `a` occurs twice", with_files(yaml="a: x\na: y\n")),
    Row(
        "not-utf-8",
        "InvalidDocument",
        "application.secrets.env: byte 5 is not UTF-8",
        with_files(env=b"KEPT=\xff\xfe\n"),
    ),
    Row(
        "crlf",
        "InvalidDocument",
        "line 1 ends with CR LF; save the file with LF line ends",
        with_files(env="KEPT=new\r\nALSO_KEPT=new too\r\n"),
    ),
    # Names and values.
    Row("collision", "NameCollision", "would both become '.*-a_b' in AWS", with_files(yaml='a b: "1"\na_b: "2"\n')),
    Row("same-key", "NameCollision", "key 'KEPT' is in .* and in ", with_files(env="KEPT=1\n", yaml='KEPT: "1"\n')),
    Row("empty-value", "EmptyValue", "'KEPT' is empty; give it a value or remove it", with_files(env="KEPT=\nB=1\n")),
    Row(
        "value-of-65537-bytes",
        "ValueTooLarge",
        "key 'KEPT' of .* has 65537 bytes; AWS Secrets Manager holds at most 65536",
        with_files(env=f"KEPT={'x' * 65537}\n"),
    ),
    Row(
        "too-many",
        "TooManySecrets",
        "2001 secrets for this object; at most 2000",
        with_files(env="".join(f"K{n}=x\n" for n in range(2001))),
    ),
    # Paths.
    Row(
        "missing-environment",
        "PathNotFound",
        "environment 'staging' is not in app/deployment-configuration; there is dev, prod$",
        patched(environment="staging"),
    ),
    Row(
        "missing-base-path",
        "PathNotFound",
        "basePath 'apps' is not a directory in the source; .* holds app",
        patched(basePath="apps"),
    ),
    Row(
        "empty-directory",
        "EmptySource",
        "no service has a file for environment 'dev'",
        lambda w, t: t.commit({f"{PROFILE}/README.md": "x"}),
    ),
    Row(
        "empty-file", "EmptySource", "there is no entry in .*application.secrets.env", with_files(env="# nothing yet\n")
    ),
    Row("empty-source", "PathNotFound", "there is no 'deployment-configuration' directory", lambda w, t: t.commit({})),
    # Archives.
    Row(
        "absolute-path",
        "InvalidArchive",
        "outside its root: '/etc/cron.d/x'",
        with_member(member("/etc/cron.d/x", tarfile.REGTYPE)),
    ),
    Row(
        "path-outside",
        "InvalidArchive",
        "outside its root: 'app/../../x'",
        with_member(member("app/../../x", tarfile.REGTYPE)),
    ),
    Row(
        "symlink-outside",
        "InvalidArchive",
        "symbolic link out of its root: 'link' leads to '/etc",
        with_member(member("link", tarfile.SYMTYPE, "/etc/passwd")),
    ),
    Row(
        "symlink-up",
        "InvalidArchive",
        "symbolic link out of its root",
        with_member(member("app/link", tarfile.SYMTYPE, "../../x")),
    ),
    Row(
        "symlink-instead-of-a-file",
        "InvalidArchive",
        "cannot be read: it is a symbolic link",
        lambda w, t: t.commit(
            content=packed({f"{PROFILE}/real.env": dotenv(**GOOD)}, member(ENV, tarfile.SYMTYPE, "real.env"))
        ),
    ),
    Row(
        "hard-link",
        "InvalidArchive",
        "hard link at 'link'; only regular files",
        with_member(member("link", tarfile.LNKTYPE, ENV)),
    ),
    Row(
        "device",
        "InvalidArchive",
        "character device at 'null'; only regular files",
        with_member(member("null", tarfile.CHRTYPE)),
    ),
    Row("fifo", "InvalidArchive", "FIFO at 'pipe'; only regular files", with_member(member("pipe", tarfile.FIFOTYPE))),
    Row("10-gb-of-zeros", "InvalidArchive", "has a file of 10737418240 bytes at .*; the limit is", zeros(files=1)),
    Row("10-gb-of-zeros-in-files", "InvalidArchive", "unpacks to more than 200 times its size", zeros(files=320)),
    Row("no-archive", "InvalidArchive", "gzip", lambda w, t: t.commit(content=b"<html>Bad gateway</html>")),
    # Downloads.
    Row("digest-mismatch", "DigestMismatch", "is not the one that the source published", wrong_digest, "Reconciling"),
    Row("artifact-gone", "FetchFailed", r"is gone from 127.0.0.1 \(404\)", gone, "Reconciling"),
    Row(
        "artifact-changed",
        "DigestMismatch",
        "replaced while it was downloaded",
        served(Fault(body=packed({ENV: "A=b\n"}))),
        "Reconciling",
    ),
    Row(
        "artifact-cut-short",
        "FetchFailed",
        "the connection to the artifact's host 127.0.0.1 failed",
        served(Fault(truncate_to=10)),
        "Reconciling",
    ),
    Row(
        "artifact-host-fails",
        "FetchFailed",
        "the artifact's host 127.0.0.1 answered 500",
        served(Fault(status=500)),
        "Reconciling",
    ),
]


@pytest.fixture(scope="module")
def world(stack, encrypt, example_recipient, controller):
    """Sync every row's tenant, let all of them go bad, and then one neighbour go on."""
    world = World(stack, encrypt, example_recipient)
    world.faulty = {}
    world.tenants = {row.name: Tenant(stack, row.name) for row in ROWS}
    world.neighbour = Tenant(stack, "neighbour")
    for tenant in (*world.tenants.values(), world.neighbour):
        tenant.commit({ENV: dotenv(**GOOD), f"{PROFILES}/prod/application.secrets.env": "A=b\n"})
    for row in ROWS:
        row.prepare(world, world.tenants[row.name])
        world.tenants[row.name].apply(prune=True)
    world.neighbour.apply()
    for tenant in (*world.tenants.values(), world.neighbour):
        tenant.ready()
    stack.aws.clear_calls()
    for row in ROWS:
        row.spoil(world, world.tenants[row.name])
    yield world
    for tenant in (*world.tenants.values(), world.neighbour):
        tenant.remove()
    for server in world.faulty.values():
        server.stop()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_bad_input_is_told_precisely_and_does_no_harm(world, row):
    tenant = world.tenants[row.name]
    status = tenant.ready(reason=row.reason)
    ready = status["conditions"][0]
    assert re.search(row.told, ready["message"]), ready["message"]
    assert conditions(status) == {row.beside: row.reason}
    assert [(e["type"], e["reason"], e["message"]) for e in tenant.events()][1:] == [
        ("Warning", row.reason, ready["message"])
    ]
    assert tenant.writes() == []
    assert tenant.values() == {key: value.encode() for key, value in GOOD.items()}
    assert (status["secretsSynced"], len(status["secrets"])) == (2, 2)


def test_a_healthy_neighbour_goes_on_while_all_of_them_fail(world):
    world.neighbour.applied(world.neighbour.commit(A="new"))
    assert world.neighbour.values()["A"] == b"new"


def test_the_controller_took_no_harm(world, controller, stack):
    assert controller.http("/healthz")[0] == 200
    assert "Internal error" not in {record["message"] for record in controller.records()}
    # Nothing of what was refused stays in the cache; what is retried is there for a moment.
    cache = stack.directory / "cache"
    stack.wait("no work to be left", lambda: not list(cache.glob("*/work-*")))


@pytest.mark.parametrize(
    ("path", "told"),
    [("../up", "must stay inside the source: remove '..'"), ("/etc", "must be relative to the source's root")],
    ids=["up", "absolute"],
)
@pytest.mark.parametrize("field", ["basePath", "kustomizePath"])
def test_a_path_out_of_the_source_is_refused_by_the_api_server(tenant, field, path, told):
    with pytest.raises(StackError, match=told):
        tenant.apply(secrets={"environment": "dev", field: path})
    assert tenant.body() == {}


@pytest.mark.parametrize(
    ("files", "values"),
    [
        pytest.param({ENV: f"A={'x' * 65536}\n"}, {"A": b"x" * 65536}, id="largest-value"),
        pytest.param({ENV: b"A=a\0b\n"}, {"A": b"a\0b"}, id="nul"),
        pytest.param({YAML: "A: !!binary //79AA==\n"}, {"A": b"\xff\xfe\xfd\0"}, id="binary"),
        pytest.param({YAML: "A: x\r\nB: y\r\n"}, {"A": b"x", "B": b"y"}, id="crlf-yaml"),
        pytest.param({PROPERTIES: "A=x\r\nB=y\r\n"}, {"properties": b'{"A":"x","B":"y"}'}, id="crlf-properties"),
        pytest.param(
            {ENV: "A=x\n", f"{PROFILES}/prod/application.secrets.env": b"\xff"}, {"A": b"x"}, id="broken-other"
        ),
    ],
)
def test_what_comes_close_to_bad_is_synced(tenant, files, values):
    tenant.commit(content=packed(files, member("docs", tarfile.SYMTYPE, "app")))  # A link that nobody reads.
    tenant.apply()
    tenant.ready()
    assert tenant.values() == values


def test_what_was_bad_comes_right_with_the_next_commit(world, make_tenant):
    tenant = make_tenant("mended")
    tenant.commit({ENV: b"\xff"})
    tenant.apply()
    tenant.ready(reason="InvalidDocument")
    tenant.applied(tenant.commit(A="1"))
