"""AWS KMS by moto: data keys of the real sops are unwrapped with a provider's login, refusals are told."""

import base64
import json
import os
import subprocess

import pytest

from secret_manager_controller.decrypt import Decryptor, Format, KeyRing
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.providers.aws import AwsProvider
from secret_manager_controller.providers.aws_login import AwsAccessKeys
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.unwrapping import ANY_NAMESPACE, AllowedKeys, DataKeyFinder


@pytest.fixture
def kms(aws):
    """Return a plain client of the server's KMS."""
    return aws.client("kms")


@pytest.fixture
def arn(kms):
    return kms.create_key(Description="sops")["KeyMetadata"]["Arn"]


@pytest.fixture
async def provider(aws):
    provider = AwsProvider(
        region="us-west-2", login=aws.access_keys, endpoint_url=aws.endpoint_url, retries=RetryPolicy(attempts=1)
    )
    yield provider
    await provider.aclose()


def wrapped(kms, arn, data=b"k" * 32, **context):
    blob = kms.encrypt(KeyId=arn, Plaintext=data, EncryptionContext=context)["CiphertextBlob"]
    return base64.b64encode(blob).decode()


async def test_a_key_unwraps_what_it_has_encrypted_in_its_own_region(aws, kms, arn, provider):
    aws.clear_calls()
    text = wrapped(kms, arn, app="idam")
    assert await provider.key_service.unwrap(arn, text, {"app": "idam"}) == b"k" * 32
    assert [(call.operation, call.who) for call in aws.calls()][-1] == ("Decrypt", aws.access_keys.access_key_id)


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        (None, "!", "has a ciphertext that is not base64"),
        (None, "", "has a ciphertext that is not base64"),
        ("alias/x", None, "is no ARN of a KMS key"),
        ("https://canary.invalid/", None, "is no ARN of a KMS key"),
    ],
)
async def test_what_is_no_key_or_no_ciphertext_is_never_sent(aws, kms, arn, provider, key, text, told):
    text = wrapped(kms, arn) if text is None else text
    aws.clear_calls()
    with pytest.raises(PermanentError, match=told) as caught:
        await provider.key_service.unwrap(key or arn, text, {})
    assert caught.value.reason is Reason.DECRYPTION_FAILED
    assert aws.calls() == []


@pytest.mark.parametrize(
    ("code", "status", "kind", "told"),
    [
        ("AccessDeniedException", 400, PermanentError, "is refused to access key .*; grant it kms:Decrypt on the key"),
        ("IncorrectKeyException", 400, PermanentError, "did not encrypt this data key"),
        ("InvalidCiphertextException", 400, PermanentError, "or with another encryption context"),
        ("DisabledException", 400, PermanentError, "does not exist or cannot be used"),
        ("SomethingNew", 400, PermanentError, "was not used: AWS answered SomethingNew"),
        ("ThrottlingException", 400, RetryableError, "does not unwrap a SOPS data key now .ThrottlingException"),
        ("KMSInternalException", 500, RetryableError, "it is tried again"),
    ],
)
async def test_refusals_are_told_by_what_mends_them(aws, kms, arn, provider, code, status, kind, told):
    text = wrapped(kms, arn)
    aws.fail("Decrypt", code, status)
    try:
        with pytest.raises(kind, match=told):
            await provider.key_service.unwrap(arn, text, {})
    finally:
        aws.clear_faults()


async def test_a_wrong_context_does_not_unwrap(kms, arn, provider):
    with pytest.raises(PermanentError, match=r"did not encrypt this data key|was not used"):
        await provider.key_service.unwrap(arn, wrapped(kms, arn, app="idam"), {"app": "billing"})


async def test_a_login_that_aws_does_not_know_is_told_without_its_key(aws, kms, arn):
    login = AwsAccessKeys("AKIAUNKNOWN", "canary-secret")
    provider = AwsProvider(
        region=aws.region, login=login, endpoint_url=aws.endpoint_url, retries=RetryPolicy(attempts=1)
    )
    with pytest.raises(PermanentError) as caught:
        await provider.key_service.unwrap(arn, wrapped(kms, arn), {})
    await provider.aclose()
    assert "canary" not in caught.value.message


@pytest.fixture
def encrypt(aws, sops):
    """Return a function that lets the real sops encrypt with the server's KMS."""

    def run(text, arn, kind="dotenv", *options):
        environment = {
            "HOME": os.devnull,
            "AWS_ENDPOINT_URL": aws.endpoint_url,
            "AWS_ACCESS_KEY_ID": aws.access_keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": aws.access_keys.secret_access_key,
        }
        types = ["--input-type", kind, "--output-type", kind]
        command = [sops, "--encrypt", "--kms", arn, *options, *types, "/dev/stdin"]
        return subprocess.run(command, input=text.encode(), capture_output=True, check=True, env=environment).stdout

    return run


@pytest.mark.parametrize("kind", ["dotenv", "yaml", "json", "ini"])
async def test_files_of_the_real_sops_are_decrypted(aws, arn, provider, encrypt, kind):
    text = {"dotenv": "A=1\n", "yaml": 'A: "1"\n', "json": '{"A": "1"}', "ini": "[s]\nA = 1\n"}[kind]
    data = encrypt(text, arn, kind, "--encryption-context", "app:idam,stage:dev")
    decryptor = Decryptor(HashKey(b"h" * 32))
    finder = DataKeyFinder(AllowedKeys(frozenset({(ANY_NAMESPACE, arn)})))
    entries = decryptor.needed_of_kms(data, KeyRing())
    ring = await finder.extended(KeyRing(), entries, service=provider.key_service, namespace="team-a")
    document = decryptor.read(data, format=Format(kind), path="f", keys=ring)
    assert [leaf.value.expose() for leaf in document.leaves] == [b"1"]


async def test_a_role_in_the_metadata_is_never_assumed(aws, arn, provider, encrypt):
    """An attacker's role would see our login; nothing is sent at all."""
    data = json.loads(encrypt('{"A": "1"}', arn, "json"))
    data["sops"]["kms"][0]["role"] = "arn:aws:iam::666666666666:role/canary"
    decryptor = Decryptor(HashKey(b"h" * 32))
    entries = decryptor.needed_of_kms(json.dumps(data).encode(), KeyRing())
    finder = DataKeyFinder(AllowedKeys(frozenset({(ANY_NAMESPACE, arn)})))
    aws.clear_calls()
    ring = await finder.extended(KeyRing(), entries, service=provider.key_service, namespace="team-a")
    with pytest.raises(PermanentError, match=r"is not asked: its entry has role, which this controller does not use"):
        decryptor.read(json.dumps(data).encode(), format=Format.JSON, path="f", keys=ring)
    assert aws.calls() == []
