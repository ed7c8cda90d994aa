"""What a spec and the environment make of an Azure provider: logins and endpoints."""

import subprocess
import sys
from pathlib import Path

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.spec import AzureStore
from secret_manager_controller.providers.azure import AzureDeclared, AzureProvider
from secret_manager_controller.providers.azure_login import AzureClientSecret, AzureEndpoints, AzureFederation
from secret_manager_controller.providers.azure_settings import azure_endpoints, azure_login, azure_options
from secret_manager_controller.testing.contract_subject import ME

TENANT, OTHER_TENANT = "11111111-1111-1111-1111-111111111111", "11111111-1111-1111-1111-222222222222"
CLIENT, OTHER = "22222222-2222-2222-2222-222222222222", "33333333-3333-3333-3333-333333333333"
POD = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}
KEY = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, "AZURE_CLIENT_SECRET": "env-secret"}
SECRET = {"tenant-id": OTHER_TENANT.encode(), "client-id": OTHER.encode(), "client-secret": b"its-secret\n"}
BY_SECRET = {"authType": "ServicePrincipal", "secretName": "azure-credentials"}
FILE = Path("/var/run/token")


def store(**fields):
    return AzureStore.model_validate({"vaultName": "my-vault", **fields})


def login_of(auth, secret, environment):
    return azure_login(store().auth if auth is None else store(auth=auth).auth, secret, environment)


@pytest.mark.parametrize(
    ("auth", "secret", "environment", "expected"),
    [
        pytest.param(None, None, POD, AzureFederation(TENANT, CLIENT, FILE), id="nothing said: the pod's identity"),
        pytest.param({"clientId": OTHER}, None, POD, AzureFederation(TENANT, OTHER, FILE), id="an identity per object"),
        pytest.param({}, None, POD | KEY, AzureFederation(TENANT, CLIENT, FILE), id="an identity before a client secret"),
        pytest.param(None, None, POD | KEY, AzureFederation(TENANT, CLIENT, FILE), id="nothing said: an identity before"),
        pytest.param(None, None, KEY, AzureClientSecret(TENANT, CLIENT, "env-secret"), id="nothing said, on a developer's machine"),
        pytest.param({"authType": "ServicePrincipal"}, None, POD | KEY, AzureClientSecret(TENANT, CLIENT, "env-secret"), id="the controller's client secret"),
        pytest.param({"type": "ServicePrincipal", "clientId": OTHER}, None, KEY, AzureClientSecret(TENANT, OTHER, "env-secret"), id="the older name, and another application"),
        pytest.param(BY_SECRET, SECRET, KEY, AzureClientSecret(OTHER_TENANT, OTHER, "its-secret"), id="a Secret before the environment"),
        pytest.param(BY_SECRET, SECRET | {"tenant-id": b""}, KEY, AzureClientSecret(TENANT, OTHER, "its-secret"), id="a Secret without a tenant"),
        pytest.param(BY_SECRET | {"clientId": CLIENT}, {"client-secret": b"s"}, KEY, AzureClientSecret(TENANT, CLIENT, "s"), id="a Secret without an application"),
        pytest.param(BY_SECRET, {k: v.encode() for k, v in KEY.items()}, {}, AzureClientSecret(TENANT, CLIENT, "env-secret"), id="a Secret made of an environment file"),
    ],
)  # fmt: skip
def test_a_login_is_what_the_object_asks_for(auth, secret, environment, expected):
    assert login_of(auth, secret, environment) == expected


@pytest.mark.parametrize(
    ("auth", "secret", "environment", "told"),
    [
        pytest.param(None, None, {}, "azure.workload.identity/use: true", id="nothing at all"),
        pytest.param({}, None, KEY, "AZURE_FEDERATED_TOKEN_FILE", id="no token file"),
        pytest.param({}, None, POD | {"AZURE_CLIENT_ID": ""}, "auth.clientId", id="no identity"),
        pytest.param({}, None, POD | {"AZURE_TENANT_ID": ""}, "AZURE_TENANT_ID", id="no tenant"),
        pytest.param({"authType": "ServicePrincipal"}, None, POD, "has no AZURE_CLIENT_SECRET; set it", id="no key"),
        pytest.param(BY_SECRET, {}, KEY, "no usable data key 'client-id'", id="an empty Secret"),
        pytest.param(BY_SECRET, SECRET | {"client-secret": b"\xff"}, KEY, "data key 'client-secret'", id="no text"),
        pytest.param(BY_SECRET, SECRET | {"tenant-id": b" "}, {}, "data key 'tenant-id'", id="no tenant anywhere"),
    ],
)
def test_what_is_missing_is_named(auth, secret, environment, told):
    with pytest.raises(PermanentError) as caught:
        login_of(auth, secret, environment)
    assert caught.value.reason is Reason.CREDENTIALS_UNAVAILABLE
    assert told in caught.value.message
    assert "secret\n" not in caught.value.message


def test_endpoints_are_those_of_the_environment():
    assert azure_endpoints({}) == AzureEndpoints()
    assert azure_endpoints(
        {
            "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.us/",
            "AZURE_KEYVAULT_DNS_SUFFIX": "vault.internal",
            "https_proxy": "http://proxy:3128",
            "no_proxy": ".vault.internal",
            "REQUESTS_CA_BUNDLE": "/etc/ca.pem",
        }
    ) == AzureEndpoints(
        authority="https://login.microsoftonline.us/",
        vault_suffix="vault.internal",
        proxy="http://proxy:3128",
        no_proxy=".vault.internal",
        ca_file=Path("/etc/ca.pem"),
    )


def test_a_vault_is_one_in_whatever_case_it_is_written():
    assert azure_options(store(vaultName="My-Vault"), None, POD)["vault"] == "my-vault"


def test_what_is_declared_is_taken_over():
    declared = {"contentType": "text/plain", "expiresOn": "2033-05-18T03:33:20Z", "tags": {"team": "blue"}}
    options = azure_options(store(**declared), None, POD)
    assert options["declared"] == AzureDeclared("text/plain", 2_000_000_000, {"team": "blue"})
    assert azure_options(store(), None, POD)["declared"] == AzureDeclared()


async def test_a_provider_is_made_of_them(azure):
    spec = store(vaultName=azure.vault, auth=BY_SECRET)
    options = azure_options(spec, azure.credentials, azure.environment)
    provider = AzureProvider(**options)
    assert (await provider.observe([], mark=ME)).secrets == {}
    await provider.aclose()


def test_azure_s_packages_are_not_imported_for_it():
    """They take a quarter of a second and 15 MB, which an installation without Azure need not pay."""
    script = (
        "import sys; import secret_manager_controller.providers.azure_settings; "
        "print([m for m in sys.modules if m.split('.')[0] in {'azure', 'msal', 'requests'}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
