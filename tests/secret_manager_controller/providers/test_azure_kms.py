"""Keys of Azure Key Vault: data keys are unwrapped with a provider's login, refusals are told. The real sops wraps."""

import json
import os
import socket
import subprocess

import pytest

from secret_manager_controller.decrypt import Decryptor, Format, KeyRing
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.testing.azure import AzureServer
from secret_manager_controller.unwrapping import AllowedKeys, DataKeyFinder

NOWHERE = "https://no-such-vault.vault.azure.net/keys/sops/" + 32 * "0"


@pytest.fixture(scope="module")
def key(running_azure: AzureServer) -> str:
    return running_azure.create_key("sops")


@pytest.fixture(scope="module")
def document(running_azure, key, sops):
    """Return a file that the real sops has encrypted for the key, as JSON."""
    environment = {"HOME": os.devnull, **running_azure.go_environment}
    command = [sops, "--encrypt", "--azure-kv", key, "--input-type", "json", "--output-type", "json", "/dev/stdin"]
    ran = subprocess.run(command, input=b'{"A": "one"}', capture_output=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def wrapped(document):
    return document["sops"]["azure_kv"][0]["enc"]


@pytest.fixture
def provider(make_azure):
    return make_azure(retries=RetryPolicy(attempts=1))


@pytest.fixture
def service(provider):
    return provider.key_service


def asked(azure):
    """Return what was asked with a token."""
    return [call for call in azure.calls() if call.operation not in {"Challenge", "Discover", "GetToken"}]


async def test_a_key_unwraps_what_sops_wrapped_with_the_objects_login(azure, service, key, wrapped):
    assert service.kind == "azure_kv"
    assert len(await service.unwrap(key, wrapped, {})) == 32
    (call,) = asked(azure)
    assert (call.operation, call.names, call.code, call.who) == (
        "Decrypt",
        ("sops",),
        "OK",
        azure.client_secret.client_id,
    )


async def test_one_login_serves_secrets_and_keys(azure, provider, key, wrapped):
    await provider.read([])
    await provider.key_service.unwrap(key, wrapped, {})
    await provider.key_service.unwrap(key, wrapped, {})
    assert [call.operation for call in azure.calls() if call.operation == "GetToken"] == ["GetToken"]


async def test_a_file_of_sops_is_decrypted(service, key, document):
    data, decryptor = json.dumps(document).encode(), Decryptor(HashKey(b"h" * 32))
    finder = DataKeyFinder(AllowedKeys.parse(f"team-a={key.rpartition('/')[0]}"))
    wanted = decryptor.needed_of_kms(data, KeyRing())
    ring = await finder.extended(KeyRing(), wanted, service=service, namespace="team-a")
    (leaf,) = decryptor.read(data, format=Format.JSON, path="f", keys=ring).leaves
    assert leaf.value.expose() == b"one"


async def test_another_key_does_not(azure, service, wrapped):
    with pytest.raises(PermanentError, match="did not encrypt this data key") as caught:
        await service.unwrap(azure.create_key("other"), wrapped, {})
    assert caught.value.reason is Reason.DECRYPTION_FAILED


async def test_a_key_of_another_vault_is_asked_there(azure, service, wrapped):
    azure.add_vault("keys-vault")
    elsewhere = azure.create_key("sops", vault="keys-vault")
    with pytest.raises(PermanentError, match="did not encrypt this data key"):
        await service.unwrap(elsewhere, wrapped, {})
    with pytest.raises(PermanentError, match="does not exist or cannot be used"):
        await service.unwrap(elsewhere.replace("keys-vault", azure.vault), wrapped, {})


async def test_a_disabled_key_is_told(azure, service, wrapped):
    disabled = azure.create_key("disabled")
    azure.enable_key(disabled, False)
    with pytest.raises(PermanentError, match=r"cannot be used \(KeyDisabled\); enable it"):
        await service.unwrap(disabled, wrapped, {})


@pytest.mark.parametrize(
    ("change", "text", "context", "told"),
    [
        (lambda key: "https://canary.invalid/x", None, {}, "is no id of a key in a vault"),
        (lambda key: key.rpartition("/")[0], None, {}, "is no id of a key in a vault"),
        (lambda key: key.replace("https", "http"), None, {}, "is no id of a key in a vault"),
        (lambda key: f"{key}/../other", None, {}, "is no id of a key in a vault"),
        (lambda key: key.replace("vault.azure.net", "canary.invalid"), None, {}, "is in no vault of this cloud"),
        (lambda key: key.replace(".vault.azure.net", ".vault.azure.net.canary.invalid"), None, {}, "is in no vault"),
        (lambda key: key, "!", {}, "has a ciphertext that is not base64"),
        (lambda key: key, "", {}, "has a ciphertext that is not base64"),
        (lambda key: key, None, {"a": "b"}, "has an encryption context"),
    ],
)
async def test_what_is_no_key_or_no_ciphertext_is_never_sent(azure, service, key, wrapped, change, text, context, told):
    with pytest.raises(PermanentError, match=told):
        await service.unwrap(change(key), wrapped if text is None else text, context)
    assert azure.calls() == []


@pytest.mark.parametrize(
    ("code", "status", "kind", "told"),
    [
        (
            "ForbiddenByRbac",
            403,
            PermanentError,
            r"is refused to application .* .ForbiddenByRbac.; grant it Microsoft\.KeyVault/vaults/keys/decrypt/action",
        ),
        (
            "ForbiddenByPolicy",
            403,
            PermanentError,
            "Key Vault Crypto User has it, as has Decrypt in the vault's access",
        ),
        ("ForbiddenByFirewall", 403, PermanentError, "lets no request in from here"),
        ("KeyNotFound", 404, PermanentError, "does not exist or cannot be used"),
        ("KeyDisabled", 403, PermanentError, "does not exist or cannot be used"),
        ("Teapot", 418, PermanentError, "was not used: Azure answered Teapot"),
        ("InternalServerError", 500, RetryableError, "does not unwrap a SOPS data key now .InternalServerError"),
        ("Throttled", 429, RetryableError, "it is tried again"),
    ],
)
async def test_refusals_are_told_by_what_mends_them(azure, service, key, wrapped, code, status, kind, told):
    azure.fail("Decrypt", code, status)
    with pytest.raises(kind, match=told):
        await service.unwrap(key, wrapped, {})


async def test_a_vault_that_does_not_exist_is_told(provider, key, wrapped, monkeypatch):
    await provider.key_service.unwrap(key, wrapped, {})
    provider._vault._clients._transport._proxies = {}  # Where there is no proxy, we resolve names ourselves.

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(PermanentError, match="is in a vault that does not exist; correct its id"):
        await provider.key_service.unwrap(NOWHERE, wrapped, {})


async def test_a_token_that_is_not_accepted_is_renewed_once(azure, service, key, wrapped):
    await service.unwrap(key, wrapped, {})
    azure.expire_tokens()
    azure.clear_calls()
    assert len(await service.unwrap(key, wrapped, {})) == 32
    operations = [(call.operation, call.code) for call in azure.calls()]
    assert operations.count(("GetToken", "OK")) == 1
    assert operations[-1] == ("Decrypt", "OK")


async def test_a_token_that_no_vault_accepts_is_told(azure, service, key, wrapped):
    azure.fail("Decrypt", "Unauthorized", 401, times=2)
    with pytest.raises(PermanentError, match="does not accept the token of application"):
        await service.unwrap(key, wrapped, {})


@pytest.mark.parametrize("answer", [{}, [], {"value": 1}, {"value": "!"}])
async def test_an_answer_without_a_data_key_opens_nothing(service, key, wrapped, monkeypatch, answer):
    monkeypatch.setattr("azure.core.rest._requests_basic.RestRequestsTransportResponse.json", lambda _: answer)
    with pytest.raises(PermanentError, match="was not used: Azure answered"):
        await service.unwrap(key, wrapped, {})
