"""Bad input: each kind has its condition, writes nothing, deletes nothing, and leaves the neighbours alone."""

import dataclasses
import io
import itertools
import subprocess
import tarfile
import zlib

import pyrage
import pytest

from secret_manager_controller.testing.artifacts import ArtifactServer, Fault
from secret_manager_controller.testing.stack import StackError
from secret_manager_controller.testing.tenants import ENV, PROFILE, YAML, conditions, dotenv, packed

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("e2e-bad-input"), pytest.mark.usefixtures("controller")]

CANARY = "canary-value-5c1d"
GOOD = {"A": "1", "B": "2"}


@pytest.fixture(scope="module")
def recipient(example_key):
    """Return the public key that the controller's own key belongs to."""
    secret = next(line for line in example_key.decode().splitlines() if line.startswith("AGE-SECRET-KEY-"))
    return str(pyrage.x25519.Identity.from_str(secret).to_public())


@pytest.fixture(scope="module")
def encrypt(sops, recipient):
    """Return a function that encrypts a dotenv text with the real sops."""

    def encrypted(text, *, age=recipient):
        command = [sops, "encrypt", "--age", age, "--input-type", "dotenv", "--output-type", "dotenv", "/dev/stdin"]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=30).stdout

    return encrypted


@pytest.fixture(scope="module")
def neighbour(stack, controller):
    """Return a healthy tenant that goes on all the while."""
    from secret_manager_controller.testing.tenants import Tenant

    healthy = Tenant(stack, "neighbour")
    healthy.commit(N="0")
    healthy.apply()
    healthy.ready()
    yield healthy
    healthy.remove()


COUNT = itertools.count(1)


@pytest.fixture
def refused(stack, tenant, neighbour):
    """Return a function that lets a tenant with a good sync meet something bad, and checks all that must hold."""

    def check(reason, *fragments, passes=False, publish=None, commit=None, **content):
        tenant.commit(**GOOD)
        tenant.apply(prune=True)
        tenant.ready()
        before, writes = tenant.values(), len(tenant.writes())
        artifact = tenant.commit(**content, publish=False) if commit is None else commit(tenant)
        tenant.publish(artifact if publish is None else publish(artifact))
        status = tenant.ready(reason=reason, after=artifact.revision)
        ready = next(each for each in status["conditions"] if each["type"] == "Ready")
        for fragment in fragments:
            assert fragment in ready["message"]
        assert conditions(status) == {"Reconciling" if passes else "Stalled": reason}
        assert CANARY not in str(tenant.body()) + str(tenant.events())
        assert (tenant.values(), len(tenant.writes())) == (before, writes)
        assert status["secretsSynced"] == len(before)
        number = str(next(COUNT))
        neighbour.applied(neighbour.commit(N=number))
        assert neighbour.values() == {"N": number.encode()}

    return check


def member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zeros(gigabytes):
    """Return a tar.gz of one file of zeros: one compressed block, repeated."""
    header = tarfile.TarInfo(ENV)
    header.size = gigabytes << 30
    packer = zlib.compressobj(9, wbits=31)
    start = packer.compress(header.tobuf(tarfile.GNU_FORMAT)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = io.BytesIO(start)
    content.seek(0, io.SEEK_END)
    for _ in range(gigabytes * 16):
        content.write(block)
    return content.getvalue()


def test_a_file_for_a_key_that_nobody_has(refused, encrypt):
    stranger = str(pyrage.x25519.Identity.generate().to_public())
    refused("DecryptionFailed", ENV, stranger, files={ENV: encrypt(dotenv(A=CANARY), age=stranger)})


def test_a_wrong_key_in_the_objects_namespace(stack, tenant, encrypt):
    """The namespace's keys win over the controller's, also where those would do."""
    wrong = str(pyrage.x25519.Identity.generate()).encode()
    stack.create_secret(tenant.namespace, "sops-private-key", {"private-key": wrong})
    tenant.commit({ENV: encrypt(dotenv(A=CANARY))})
    tenant.apply()
    tenant.ready(reason="DecryptionFailed")
    assert tenant.values() == {}


def test_a_file_that_was_changed_after_it_was_encrypted(refused, encrypt):
    lines = encrypt(dotenv(A=CANARY, B="x")).splitlines(keepends=True)
    refused(
        "DecryptionFailed", ENV, "changed", files={ENV: "".join(line for line in lines if not line.startswith("B="))}
    )


def test_a_file_that_lost_its_metadata(refused, encrypt):
    lines = encrypt(dotenv(A=CANARY)).splitlines(keepends=True)
    content = "".join(line for line in lines if not line.startswith("sops_"))
    refused("DecryptionFailed", "no SOPS metadata", files={ENV: content})


def test_a_file_that_was_encrypted_twice(refused, encrypt):
    once = encrypt(dotenv(A=CANARY))
    value = next(line for line in once.splitlines() if line.startswith("A="))
    refused("DecryptionFailed", "twice", files={ENV: encrypt(value + "\n")})


def test_a_yaml_alias_bomb(refused):
    lines = [f"a0: &a0 [{CANARY}]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    refused("InvalidDocument", YAML, files={YAML: "\n".join(lines)})


@pytest.mark.parametrize("field", ["basePath", "kustomizePath"])
@pytest.mark.parametrize(
    ("path", "told"), [("../other", "remove '..'"), ("/etc", "leading '/'")], ids=["..", "absolute"]
)
def test_a_path_out_of_the_source_is_refused_by_the_api_server(tenant, field, path, told):
    with pytest.raises(StackError, match=told):
        tenant.apply(secrets={"environment": "dev", field: path})


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(
            member(f"{PROFILE}/link", tarfile.SYMTYPE, "../../../../../etc/passwd"), id="symlink out of the tree"
        ),
        pytest.param(member(f"{PROFILE}/link", tarfile.LNKTYPE, ENV), id="hard link"),
        pytest.param(member("device", tarfile.CHRTYPE), id="character device"),
        pytest.param(member("device", tarfile.BLKTYPE), id="block device"),
        pytest.param(member("fifo", tarfile.FIFOTYPE), id="fifo"),
        pytest.param(member("../escaped", tarfile.REGTYPE), id="path with .."),
        pytest.param(member("/escaped", tarfile.REGTYPE), id="absolute path"),
    ],
)
def test_an_archive_with_what_no_artifact_has(refused, bad):
    refused("InvalidArchive", content=packed({ENV: dotenv(A=CANARY)}, bad))


def test_ten_gigabytes_of_zeros(refused):
    refused("InvalidArchive", content=zeros(10))


def test_an_archive_that_is_none(refused):
    refused("InvalidArchive", content=b"no archive")


def test_a_digest_that_does_not_match(refused):
    wrong = "sha256:" + "0" * 64
    refused(
        "DigestMismatch", passes=True, files={ENV: dotenv(A=CANARY)},
        publish=lambda artifact: dataclasses.replace(artifact, digest=wrong),
    )  # fmt: skip


def test_an_artifact_that_changes_while_it_is_downloaded(refused):
    with ArtifactServer() as server:
        server.fault = Fault(body=packed({ENV: dotenv(A=CANARY, C="3")}))
        refused("DigestMismatch", passes=True, files={ENV: dotenv(A=CANARY)}, server=server)


def test_an_artifact_that_is_gone(refused, stack):
    def gone(tenant):
        artifact = tenant.commit(A=CANARY, publish=False)
        stack.artifacts.withdraw(artifact)
        return artifact

    refused("FetchFailed", "gone", passes=True, commit=gone)


def test_a_missing_environment_names_those_that_exist(refused):
    others = {ENV.replace("/dev/", f"/{name}/"): dotenv(A=CANARY) for name in ("stage", "prod")}
    refused("PathNotFound", "prod, stage", files=others)


@pytest.mark.parametrize(
    ("files", "reason", "fragments"),
    [
        pytest.param({ENV: ""}, "EmptySource", [], id="empty file"),
        pytest.param({f"{PROFILE}/README": "x"}, "EmptySource", [], id="no file of ours"),
        pytest.param({"README": "x"}, "PathNotFound", [], id="no service"),
        pytest.param(
            {YAML: f"a b: {CANARY}\na_b: y\n"}, "NameCollision", ["'a b'", "'a_b'"], id="one name for two keys"
        ),
        pytest.param({ENV: f"A={CANARY}\nB=\n"}, "EmptyValue", ["B"], id="empty value"),
        pytest.param(
            {ENV: dotenv(A="1", B="x" * 65_537)}, "ValueTooLarge", ["'B'", "65537", "65536"], id="65,537 bytes"
        ),
        pytest.param({ENV: b"A=" + CANARY.encode() + b"\xff\n"}, "InvalidDocument", [ENV, "UTF-8"], id="not UTF-8"),
        pytest.param({ENV: f"A={CANARY}\r\nB=2\r\n"}, "InvalidDocument", [ENV, "line 1"], id="CRLF"),
        pytest.param({YAML: f"a: [{CANARY}"}, "InvalidDocument", [YAML], id="broken YAML"),
        pytest.param({YAML: f"a: 1\na: {CANARY}\n"}, "InvalidDocument", [YAML], id="a key twice"),
        pytest.param({ENV: dotenv(A=CANARY), YAML: "A: 2\n"}, "NameCollision", [ENV, YAML], id="one key in two files"),
    ],
)
def test_files_that_cannot_become_secrets(refused, files, reason, fragments):
    refused(reason, *fragments, files=files)


def test_values_at_the_limit_and_binary_ones_arrive_as_they_are(tenant):
    tenant.commit({ENV: dotenv(BIG="x" * 65_536), YAML: "bytes: !!binary /wD+\n"})
    tenant.apply()
    tenant.ready()
    assert tenant.values() == {"BIG": b"x" * 65_536, "bytes": b"\xff\x00\xfe"}
