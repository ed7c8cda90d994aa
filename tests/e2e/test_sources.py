"""Flux' other sources on real parts: their real CRDs, artifacts over HTTP, the real controller process."""

import hashlib

import blake3
import pytest

from secret_manager_controller.testing.artifacts import ArtifactServer, git_repository_status
from secret_manager_controller.testing.stack import FLUX_KINDS
from secret_manager_controller.testing.tenants import ENV, SOURCE, conditions, dotenv, packed

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("controller")]

SPECS = {
    "GitRepository": {"url": "https://git.example.invalid/a", "interval": "1m"},
    "OCIRepository": {"url": "oci://registry.example.invalid/a", "interval": "1m"},
    "Bucket": {"bucketName": "a", "endpoint": "minio.example.invalid", "interval": "1m"},
    "ExternalArtifact": {"sourceRef": {"apiVersion": "example.invalid/v1", "kind": "Any", "name": "a"}},
}
VERIFIED = {
    "GitRepository": {"mode": "HEAD", "secretRef": {"name": "keys"}},
    "OCIRepository": {"provider": "cosign", "secretRef": {"name": "keys"}},
}


def source_path(tenant, kind):
    return FLUX_KINDS[kind].url(tenant.namespace, SOURCE)


def publish(tenant, kind, artifact, *, digest=None, verified=None):
    """Let a source of that kind tell of an artifact, as its controller does; `verified` is a condition's status."""
    verify = {} if verified is None else {"verify": VERIFIED[kind]}
    source = tenant.stack.apply(
        {
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": kind,
            "metadata": {"namespace": tenant.namespace, "name": SOURCE},
            "spec": SPECS[kind] | verify,
        }
    )
    status = git_repository_status(artifact, generation=source["metadata"]["generation"])
    status["artifact"]["digest"] = digest or artifact.digest
    if verified is not None:
        told = {"status": verified, "reason": "Succeeded" if verified == "True" else "InvalidCommitSignature"}
        status["conditions"].append(status["conditions"][0] | told | {"type": "SourceVerified", "message": "by a key"})
    if kind == "ExternalArtifact":
        del status["observedGeneration"]  # Its status has none.
    tenant.stack.patch(f"{source_path(tenant, kind)}/status", {"status": status})


def made(tenant, **entries):
    """Return the artifact of a new revision, and its content."""
    content = packed({ENV: dotenv(**entries)})
    return tenant.commit(content=content, publish=False), content


@pytest.mark.parametrize("kind", ["OCIRepository", "Bucket", "ExternalArtifact"])
def test_every_kind_is_read_and_watched(tenant, kind):
    tenant.apply(sourceRef={"kind": kind, "name": SOURCE})
    tenant.ready(reason="SourceNotFound")
    publish(tenant, kind, made(tenant, A="1")[0])
    tenant.ready()
    assert tenant.values() == {"A": b"1"}
    artifact, _ = made(tenant, A="2")
    publish(tenant, kind, artifact)
    tenant.applied(artifact, timeout=5)  # By the watch; the interval is a day.
    assert tenant.values() == {"A": b"2"}
    tenant.stack.delete(source_path(tenant, kind))
    tenant.until("the loss", lambda status: status["conditions"][0]["reason"] == "SourceNotFound", timeout=5)
    assert tenant.values() == {"A": b"2"}


@pytest.mark.parametrize(
    "digest",
    [
        pytest.param(lambda content: f"sha384:{hashlib.sha384(content).hexdigest()}", id="sha384"),
        pytest.param(lambda content: f"sha512:{hashlib.sha512(content).hexdigest()}", id="sha512"),
        pytest.param(lambda content: f"blake3:{blake3.blake3(content).hexdigest()}", id="blake3"),
    ],
)
def test_every_digest_of_flux_is_checked(tenant, digest):
    artifact, content = made(tenant, A="1")
    publish(tenant, "GitRepository", artifact, digest=digest(content + b"x"))
    tenant.apply()
    tenant.ready(reason="DigestMismatch")
    publish(tenant, "GitRepository", artifact, digest=digest(content))
    tenant.ready()
    assert tenant.values() == {"A": b"1"}


@pytest.mark.parametrize("kind", VERIFIED)
def test_only_a_verified_source_is_read_where_that_is_required(tenant, kind):
    artifact, _ = made(tenant, A="1")
    publish(tenant, kind, artifact)
    tenant.apply(sourceRef={"kind": kind, "name": SOURCE}, requireVerifiedSource=True)
    status = tenant.ready(reason="SourceNotVerified")
    assert "set the source's spec.verify" in status["conditions"][0]["message"]
    publish(tenant, kind, artifact, verified="False")
    tenant.until("the refusal", lambda status: "InvalidCommitSignature" in status["conditions"][0]["message"])
    assert tenant.values() == {}
    publish(tenant, kind, artifact, verified="True")
    tenant.ready()
    assert tenant.values() == {"A": b"1"}


def test_two_sources_with_one_name_in_two_namespaces_are_two(make_tenant):
    one, two = make_tenant("one"), make_tenant("two")
    for tenant, value in ((one, "1"), (two, "2")):
        tenant.commit(A=value)
        tenant.apply()
    for tenant, value in ((one, b"1"), (two, b"2")):
        tenant.ready()
        assert tenant.values() == {"A": value}


def test_an_artifact_on_a_host_outside_is_never_asked_for(tenant):
    with ArtifactServer() as canary:
        artifact = tenant.commit(content=packed({ENV: dotenv(A="1")}), server=canary, publish=False)
        elsewhere = type(artifact)(
            url=artifact.url.replace("127.0.0.1", "localhost"),
            path=artifact.path,
            digest=artifact.digest,
            revision=artifact.revision,
            size=artifact.size,
        )
        tenant.publish(elsewhere)
        tenant.apply()
        status = tenant.ready(reason="AccessDenied")
        assert "ARTIFACT_HOSTS" in status["conditions"][0]["message"]
        assert canary.requests == {}


def test_a_source_that_goes_back_is_told_and_a_verified_one_is_held(tenant):
    first, _ = made(tenant, A="1")
    second, _ = made(tenant, A="2")
    publish(tenant, "GitRepository", first, verified="True")
    tenant.apply()
    tenant.applied(first)
    publish(tenant, "GitRepository", second, verified="True")
    tenant.applied(second)
    publish(tenant, "GitRepository", first, verified="True")
    status = tenant.applied(first)
    assert conditions(status)["WentBack"] == "RevisionWentBack"
    assert tenant.values() == {"A": b"1"}
    publish(tenant, "GitRepository", second, verified="True")
    assert "WentBack" not in conditions(tenant.applied(second))
    tenant.patch(requireVerifiedSource=True)
    tenant.ready()
    publish(tenant, "GitRepository", first, verified="True")
    tenant.ready(reason="RevisionWentBack")
    assert tenant.values() == {"A": b"2"}
    tenant.annotate("confirm-rollback", first.revision)
    tenant.applied(first)
    assert tenant.values() == {"A": b"1"}
