"""The real controller keeps a Key Vault equal to Git: over TLS, through the vault's challenge, with tokens of Entra ID."""

import os
import subprocess

import pytest

from secret_manager_controller.testing.azure import AzureServer, federated_token
from secret_manager_controller.testing.tenants import ENV, conditions

pytestmark = [pytest.mark.real]

OTHER = "33333333-3333-3333-3333-333333333333"


@pytest.fixture(scope="module")
def running_azure():
    with AzureServer.start() as server:
        yield server


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("azure") / "token"
    file.write_text(federated_token())
    return file


@pytest.fixture(scope="module")
def key(running_azure):
    """Return a key that unwraps SOPS data keys."""
    return running_azure.create_key("sops")


@pytest.fixture(scope="module")
def controller(stack, running_azure, token_file, key):
    """Run a controller that finds Azure, and a pod's identity, as it would in AKS."""
    pod = {"AZURE_FEDERATED_TOKEN_FILE": str(token_file), "AZURE_CLIENT_ID": running_azure.client_secret.client_id}
    with stack.controller(**running_azure.environment, **pod, SOPS_KMS_KEYS=key.rpartition("/")[0]) as started:
        yield started


@pytest.fixture
def azure(running_azure, controller):
    running_azure.reset()
    return running_azure


@pytest.fixture
def sync(azure, tenant):
    """Return a function that lets an object sync values to the vault; it returns the object's status."""

    def run(*, reason="ReconciliationSucceeded", spec=None, auth=None, **values):
        azure_block = {"vaultName": azure.vault} | ({} if auth is None else {"auth": auth})
        artifact = tenant.commit(**values)
        tenant.apply(provider={"type": "azure", "azure": azure_block}, prune=True, **(spec or {}))
        return tenant.ready(reason=reason, after=artifact.revision)

    return run


def stored(azure, tenant):
    """Return the vault's values by key, once they are as wanted."""
    return {name.removeprefix(f"{tenant.namespace}-"): value for name, value in azure.values().items()}


def becomes(stack, azure, tenant, **values):
    wanted = {key: value.encode() for key, value in values.items()}
    stack.wait(f"the vault to hold {sorted(values)}", lambda: stored(azure, tenant) == wanted)


def test_values_come_change_and_go_with_git(stack, azure, tenant, sync):
    sync(A="1", B="2")
    becomes(stack, azure, tenant, A="1", B="2")
    sync(A="3", B="2", C="4")
    becomes(stack, azure, tenant, A="3", B="2", C="4")
    assert azure.versions(tenant.name("B")) == 1
    sync(B="2", C="4")
    becomes(stack, azure, tenant, B="2", C="4")


def test_a_change_by_hand_is_put_back(stack, azure, tenant, sync):
    sync(A="1")
    azure.put_by_hand(tenant.name("A"), b"by hand")
    tenant.reconcile()
    becomes(stack, azure, tenant, A="1")
    assert azure.versions(tenant.name("A")) == 3


def test_while_nothing_changes_one_call_is_made_and_no_value_read(stack, azure, tenant, sync):
    sync(**{f"K{number}": "v" for number in range(20)})
    tenant.reconcile()
    azure.clear_calls()
    tenant.reconcile()
    assert [call.operation for call in azure.calls()] in ([], ["GetSecrets"])


@pytest.mark.parametrize("kind", ["the pod's identity", "an identity per object", "a Secret"])
def test_an_object_logs_in_as_it_says(stack, azure, tenant, sync, kind):
    login = azure.add_client(OTHER, "its-secret")
    match kind:
        case "the pod's identity":
            auth, who = None, azure.client_secret.client_id
        case "an identity per object":
            auth, who = {"clientId": OTHER}, OTHER
        case _:
            data = {"client-id": OTHER.encode(), "client-secret": login.client_secret.encode()}
            stack.create_secret(tenant.namespace, "azure-credentials", data)
            tenant.let_read("azure-credentials")
            auth, who = {"authType": "ServicePrincipal", "secretName": "azure-credentials"}, OTHER
    sync(A="1", auth=auth)
    assert {call.who for call in azure.writes()} == {who}


def test_a_client_secret_that_entra_refuses_is_told_and_works_once_it_is_mended(stack, azure, tenant, sync):
    data = {"client-id": OTHER.encode(), "client-secret": b"new"}
    stack.create_secret(tenant.namespace, "azure-credentials", data)
    tenant.let_read("azure-credentials")
    azure.add_client(OTHER, "old")
    status = sync(
        A="1", auth={"authType": "ServicePrincipal", "secretName": "azure-credentials"}, reason="StoreAccessDenied"
    )
    assert "Stalled" in conditions(status)
    assert "AADSTS7000215" in status["conditions"][0]["message"]
    azure.add_client(OTHER, "new")
    tenant.reconcile()
    becomes(stack, azure, tenant, A="1")


def test_a_key_of_a_vault_unwraps_with_the_objects_login_and_its_refusal_names_the_permission(
    stack, azure, tenant, sync, key, sops
):
    """The file is the real sops'."""
    command = [sops, "--encrypt", "--azure-kv", key, "--input-type", "dotenv", "--output-type", "dotenv", "/dev/stdin"]
    environment = {"HOME": os.devnull, **azure.go_environment}
    wrapped = subprocess.run(command, input=b"A=1\n", capture_output=True, check=True, env=environment).stdout
    sync(A="0")
    azure.clear_calls()
    azure.fail("Decrypt", "ForbiddenByRbac", 403)
    tenant.commit({ENV: wrapped})
    status = tenant.ready(reason="DecryptionFailed")
    assert "grant it Microsoft.KeyVault/vaults/keys/decrypt/action" in status["conditions"][0]["message"]
    tenant.reconcile()
    becomes(stack, azure, tenant, A="1")
    assert [call.who for call in azure.calls() if call.operation == "Decrypt"] == [azure.client_secret.client_id] * 2


def test_a_deleted_secret_of_ours_is_recovered_and_another_s_is_a_conflict(stack, azure, tenant, sync):
    azure.put_by_hand(tenant.name("B"), b"theirs")
    azure.schedule_deletion(tenant.name("B"))
    sync(A="1")
    azure.schedule_deletion(tenant.name("A"))
    tenant.reconcile()
    becomes(stack, azure, tenant, A="1")
    status = sync(A="1", B="2", reason="Conflict")
    assert "is scheduled for deletion by someone else" in status["conditions"][0]["message"]
    assert stored(azure, tenant) == {"A": b"1"}


def test_what_an_object_declares_is_kept_beside_its_values(stack, azure, tenant, sync):
    name, expires = tenant.name("A"), 2_000_000_000
    sync(A="1")
    version = azure.secrets()[name].current.id
    declared = {"contentType": "text/plain", "expiresOn": "2033-05-18T03:33:20Z", "tags": {"team": "blue"}}

    def is_set():
        current = azure.secrets()[name].current
        return (current.content_type, current.expires, current.tags.get("team")) == ("text/plain", expires, "blue")

    tenant.patch(provider={"azure": declared})
    stack.wait("what is declared to be set", is_set)
    azure.change(name, contentType="text/html")
    tenant.reconcile()
    stack.wait("what is declared to be set again", is_set)
    assert azure.secrets()[name].current.id == version
    assert azure.versions(name) == 1


def test_a_name_may_have_127_characters_and_no_more(azure, check_longest_name):
    provider = {"type": "azure", "azure": {"vaultName": azure.vault}}
    check_longest_name(azure, provider, limit=127, title="Azure Key Vault")


def test_objects_on_one_vault_share_a_listing(stack, azure, tenant):
    """All are asked for at the same moment, by the commit; one listing began since."""
    names = [f"o-{number:02}" for number in range(16)]

    def written():
        return set(azure.values().values()) == {b"2"} and len(azure.values()) == len(names)

    tenant.commit(A="1")
    for name in names:
        secrets = {"environment": "dev", "prefix": f"{tenant.namespace}-{name}"}
        provider = {"type": "azure", "azure": {"vaultName": azure.vault, "tags": {"object": name}}}
        tenant.apply(object_name=name, provider=provider, secrets=secrets)
    stack.wait("all to be there", lambda: len(azure.values()) == len(names))
    for name in names:
        stack.wait_ready(f"{tenant.namespace}/{name}")
    azure.clear_calls()
    tenant.commit(A="2")
    stack.wait("all to be changed", written)
    assert sum(call.operation == "GetSecrets" for call in azure.calls()) <= 2
