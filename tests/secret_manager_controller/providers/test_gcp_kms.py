"""Google Cloud KMS: data keys are unwrapped with a provider's login, refusals are told."""

import base64
import json
import subprocess

import grpc
import pyrage
import pytest
from google.cloud.kms_v1.types import service

from secret_manager_controller.decrypt import Decryptor, Format, KeyRing
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.providers.budget import Budgets
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.gcp import GcpProvider
from secret_manager_controller.unwrapping import AllowedKeys, DataKeyFinder

KEY = "projects/test-project/locations/europe-west1/keyRings/sops/cryptoKeys/team-a"
OTHER = KEY.replace("team-a", "team-b")
DATA_KEY = bytes(range(32))


@pytest.fixture
async def provider(gcp):
    provider = GcpProvider(
        project=gcp.project, login=gcp.key, endpoints=gcp.endpoints, budgets=Budgets(), retries=RetryPolicy(attempts=1)
    )
    yield provider
    await provider.aclose()


@pytest.fixture
def encrypt(gcp, provider):
    """Return a function that gives what the key makes of a data key, as SOPS writes it."""

    async def run(data_key):
        token = await provider._client._tokens.current()
        with grpc.insecure_channel(gcp.endpoints.kms.removeprefix("http://")) as channel:
            encrypt = channel.unary_unary(
                "/google.cloud.kms.v1.KeyManagementService/Encrypt",
                request_serializer=service.EncryptRequest.pb().SerializeToString,
                response_deserializer=service.EncryptResponse.pb().FromString,
            )
            request = service.EncryptRequest.pb()(name=KEY, plaintext=data_key)
            answer = encrypt(request, metadata=(("authorization", f"Bearer {token}"),))
        gcp.clear_calls()
        return base64.b64encode(answer.ciphertext).decode()

    return run


@pytest.fixture
async def wrapped(encrypt):
    return await encrypt(DATA_KEY)


async def test_a_key_unwraps_what_it_has_encrypted_with_the_objects_login(gcp, provider, wrapped):
    assert provider.key_service.kind == "gcp_kms"
    assert await provider.key_service.unwrap(KEY, wrapped, {}) == DATA_KEY
    (call,) = gcp.calls()
    assert (call.operation, call.code) == ("Decrypt", "OK")
    assert "secrets@test-project" in call.who


async def test_another_key_does_not(provider, wrapped):
    with pytest.raises(PermanentError, match="did not encrypt this data key") as caught:
        await provider.key_service.unwrap(OTHER, wrapped, {})
    assert caught.value.reason is Reason.DECRYPTION_FAILED


@pytest.mark.parametrize(
    ("key", "text", "context", "told"),
    [
        ("https://canary.invalid/x", None, {}, "is no resource name of a Cloud KMS key"),
        (f"{KEY}/../other", None, {}, "is no resource name"),
        (KEY, "!", {}, "has a ciphertext that is not base64"),
        (KEY, "", {}, "has a ciphertext that is not base64"),
        (KEY, None, {"a": "b"}, "has an encryption context"),
    ],
)
async def test_what_is_no_key_or_no_ciphertext_is_never_sent(gcp, provider, wrapped, key, text, context, told):
    with pytest.raises(PermanentError, match=told):
        await provider.key_service.unwrap(key, wrapped if text is None else text, context)
    assert gcp.calls() == []


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("PERMISSION_DENIED", PermanentError, r"is refused to .*; grant it cloudkms\.cryptoKeyVersions\.useToDecrypt"),
        ("NOT_FOUND", PermanentError, "does not exist or is disabled"),
        ("FAILED_PRECONDITION", PermanentError, "does not exist or is disabled"),
        ("OUT_OF_RANGE", PermanentError, "was not used: Google answered OUT_OF_RANGE"),
        ("UNAVAILABLE", RetryableError, "does not unwrap a SOPS data key now .UNAVAILABLE"),
        ("RESOURCE_EXHAUSTED", RetryableError, "it is tried again"),
    ],
)
async def test_refusals_are_told_by_what_mends_them(gcp, provider, wrapped, code, kind, told):
    gcp.fail("Decrypt", code)
    try:
        with pytest.raises(kind, match=told):
            await provider.key_service.unwrap(KEY, wrapped, {})
    finally:
        gcp.clear_faults()


async def test_a_token_that_has_expired_is_exchanged_anew(gcp, provider, wrapped):
    gcp.fail("Decrypt", "UNAUTHENTICATED")
    try:
        assert await provider.key_service.unwrap(KEY, wrapped, {}) == DATA_KEY
    finally:
        gcp.clear_faults()
    assert [call.code for call in gcp.calls() if call.operation == "Decrypt"] == ["UNAUTHENTICATED", "OK"]


@pytest.fixture
def sops_file(sops):
    """Return a file of the real sops as JSON, and the age key that opens it."""
    identity = pyrage.x25519.Identity.generate()
    command = [sops, "--encrypt", "--age", str(identity.to_public()), "--input-type", "json", "--output-type", "json"]
    ran = subprocess.run([*command, "/dev/stdin"], input=b'{"A": "one"}', capture_output=True, check=True, env={})
    return json.loads(ran.stdout), identity


async def test_a_file_of_sops_is_decrypted(provider, encrypt, sops_file):
    """Its data key is handed to the KMS as sops does."""
    document, identity = sops_file
    (entry,) = document["sops"].pop("age")
    data_key = pyrage.decrypt(entry["enc"].encode(), [identity])
    document["sops"]["gcp_kms"] = [
        {"resource_id": KEY, "created_at": "2026-01-01T00:00:00Z", "enc": await encrypt(data_key)}
    ]
    data, decryptor = json.dumps(document).encode(), Decryptor(HashKey(b"h" * 32))
    finder = DataKeyFinder(AllowedKeys.parse(f"team-a={KEY}"))
    ring = await finder.extended(
        KeyRing(), decryptor.needed_of_kms(data, KeyRing()), service=provider.key_service, namespace="team-a"
    )
    (leaf,) = decryptor.read(data, format=Format.JSON, path="f", keys=ring).leaves
    assert leaf.value.expose() == b"one"
