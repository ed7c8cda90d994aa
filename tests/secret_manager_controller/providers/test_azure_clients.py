"""Logins: a client secret, and a federated token of the pod; the vault's challenge; tokens that are renewed in time."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from lease_sharding.fence import SoleMemberFence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.providers.azure import AzureClientSecret, AzureEndpoints, AzureFederation
from secret_manager_controller.providers.azure_clients import RENEW_BEFORE, VaultClients
from secret_manager_controller.providers.calls import Requests, RetryPolicy
from secret_manager_controller.testing.azure import federated_token
from secret_manager_controller.testing.azure_entra import LIFETIME
from secret_manager_controller.testing.contract_subject import ME, REVISION, desired

TENANT, CLIENT = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


def operations(azure):
    return Counter(call.operation for call in azure.calls() if call.operation not in {"Challenge", "Discover"})


async def refused(provider):
    with pytest.raises((PermanentError, RetryableError)) as raised:
        await provider.observe([], mark=ME)
    return raised.value


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token"
    file.write_text(federated_token() + "\n")
    return file


@pytest.fixture
def federation(azure, token_file):
    return azure.federation(token_file)


class TestClientSecret:
    async def test_its_application_is_who_calls(self, azure, make_azure):
        login = azure.add_client(CLIENT, "s3cr3t")
        await make_azure(login=login).observe([], mark=ME)
        assert {call.who for call in azure.calls() if call.operation == "GetSecrets"} == {CLIENT}

    async def test_a_wrong_one_is_told_without_it(self, azure, make_azure):
        error = await refused(make_azure(login=replace(azure.client_secret, client_secret="s3cr3t")))
        assert error.reason is Reason.STORE_ACCESS_DENIED
        assert "AADSTS7000215" in str(error)
        assert "store its value, not its id" in str(error)
        assert "s3cr3t" not in str(error)

    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            pytest.param({"client_id": TENANT}, "no such application in the tenant", id="unknown application"),
            pytest.param({"tenant_id": TENANT}, "no such tenant", id="unknown tenant"),
        ],
    )
    async def test_what_is_unknown_is_told(self, azure, make_azure, changes, text):
        error = await refused(make_azure(login=replace(azure.client_secret, **changes)))
        assert error.reason is Reason.STORE_ACCESS_DENIED
        assert text in str(error)

    async def test_an_expired_one_needs_a_new_one(self, azure, make_azure):
        azure.fail("GetToken", "AADSTS7000222", 401)
        error = await refused(make_azure())
        assert (type(error), error.reason) == (PermanentError, Reason.CREDENTIALS_UNAVAILABLE)

    async def test_a_tenant_that_cannot_be_one_is_told(self, azure, make_azure):
        error = await refused(make_azure(login=replace(azure.client_secret, tenant_id="no tenant!")))
        assert "is not valid" in str(error)
        assert azure.calls() == []

    def test_it_does_not_print_what_is_secret(self):
        assert "s3cr3t" not in repr(AzureClientSecret(TENANT, CLIENT, "s3cr3t"))


class TestFederation:
    async def test_the_pod_s_token_opens_it(self, azure, make_azure, federation):
        provider = make_azure(login=federation)
        await asyncio.gather(*(provider.observe([], mark=ME) for _ in range(20)))
        assert operations(azure)["GetToken"] == 1
        assert {call.who for call in azure.calls() if call.operation == "GetSecrets"} == {federation.client_id}

    @pytest.mark.parametrize(
        ("token", "kind", "reason", "text"),
        [
            pytest.param(
                federated_token(lifetime=-1),
                RetryableError,
                Reason.CREDENTIALS_UNAVAILABLE,
                "has expired",
                id="expired",
            ),
            pytest.param(
                federated_token(audience="api"),
                PermanentError,
                Reason.STORE_ACCESS_DENIED,
                "api://AzureADTokenExchange",
                id="another audience",
            ),
            pytest.param("garbage", PermanentError, Reason.STORE_ACCESS_DENIED, "AADSTS50027", id="garbage"),
            pytest.param(
                federated_token()[:-4] + "AAAA", PermanentError, Reason.STORE_ACCESS_DENIED, "AADSTS50027", id="forged"
            ),
        ],
    )
    async def test_a_token_that_entra_does_not_take_is_told(
        self, make_azure, federation, token_file, token, kind, reason, text
    ):
        token_file.write_text(token)
        error = await refused(make_azure(login=federation))
        assert (type(error), error.reason) == (kind, reason)
        assert text in str(error)
        assert token not in str(error)

    @pytest.mark.parametrize("code", ["AADSTS70021", "AADSTS700211", "AADSTS700213"])
    async def test_an_identity_that_does_not_trust_the_pod_is_told(self, azure, make_azure, federation, code):
        azure.fail("GetToken", code, 401)
        error = await refused(make_azure(login=federation))
        assert error.reason is Reason.STORE_ACCESS_DENIED
        assert "no federated credential" in str(error)

    async def test_a_token_file_that_is_missing_is_told(self, make_azure, federation, token_file):
        token_file.unlink()
        error = await refused(make_azure(login=federation))
        assert (type(error), error.reason) == (RetryableError, Reason.CREDENTIALS_UNAVAILABLE)
        assert "azure.workload.identity/use" in str(error)

    async def test_the_file_is_read_for_each_login(self, azure, make_azure, federation, token_file):
        provider = make_azure(login=federation)
        token_file.write_text(federated_token(lifetime=-1))
        await refused(provider)
        token_file.write_text(federated_token())
        await provider.observe([], mark=ME)


class TestEntra:
    @pytest.mark.parametrize(
        ("code", "status"),
        [("temporarily_unavailable", 503), ("AADSTS90033", 400), ("AADSTS90033", 503), ("a broken connection", 0)],
    )
    @pytest.mark.parametrize("kind", ["client secret", "federation"])
    async def test_an_outage_is_tried_again(self, azure, make_azure, federation, code, status, kind):
        azure.fail("GetToken", code, status)
        login = federation if kind == "federation" else azure.client_secret
        await make_azure(login=login).observe([], mark=ME)
        assert operations(azure) == {"GetToken": 2, "GetSecrets": 1}

    @pytest.mark.parametrize("kind", ["client secret", "federation"])
    async def test_one_that_lasts_is_told(self, azure, make_azure, federation, kind):
        azure.fail("GetToken", "temporarily_unavailable", 503, times=9)
        login = federation if kind == "federation" else azure.client_secret
        error = await refused(make_azure(login=login))
        assert (type(error), error.reason) == (RetryableError, Reason.STORE_UNAVAILABLE)

    async def test_too_many_logins_are_told(self, azure, make_azure):
        azure.fail("GetToken", "throttled", 429, retry_after=60)
        error = await refused(make_azure())
        assert (error.reason, error.retry_after) == (Reason.RATE_LIMITED, 60.0)

    async def test_an_authority_that_nobody_answers_for_is_told(self, azure, make_azure):
        endpoints = replace(azure.endpoints, authority="login.example.org")
        error = await refused(make_azure(endpoints=endpoints))
        assert (error.reason, "AZURE_AUTHORITY_HOST" in str(error)) == (Reason.STORE_UNAVAILABLE, True)

    async def test_a_failed_login_is_not_remembered(self, azure, azure_provider):
        azure.fail("GetToken", "AADSTS700016", 400)
        await refused(azure_provider)
        await azure_provider.observe([], mark=ME)


class TestSovereignClouds:
    @pytest.mark.parametrize(
        "authority",
        [
            "https://login.microsoftonline.us",
            "login.microsoftonline.us/",
            "https://login.partner.microsoftonline.cn",
            "https://login.chinacloudapi.cn",
        ],
    )
    async def test_the_authority_tells_the_vaults_domain(self, azure, make_azure, authority):
        """The challenge is verified: it asks for a token for the domain that the vault is in."""
        provider = make_azure(endpoints=replace(azure.endpoints, authority=authority))
        assert (await provider.observe([], mark=ME)).secrets == {}

    async def test_a_vault_of_another_cloud_gets_no_token(self, make_azure, monkeypatch):
        monkeypatch.setattr(AzureEndpoints, "scope", "https://vault.azure.cn/.default")
        error = await refused(make_azure())
        assert (error.reason, "own domain" in str(error)) == (Reason.STORE_REFUSED, True)

    async def test_a_challenge_that_is_not_for_the_vault_s_domain_gets_no_token(self, azure, make_azure):
        """The server says that it is a vault of Azure's, and its address says otherwise."""
        name, _, suffix = azure.url.removeprefix("https://").partition(".")
        endpoints = AzureEndpoints(authority=azure.url, vault_suffix=suffix, ca_file=azure.endpoints.ca_file)
        error = await refused(make_azure(vault=name, endpoints=endpoints))
        assert (error.reason, "own domain" in str(error)) == (Reason.STORE_REFUSED, True)
        assert operations(azure) == {"GetToken": 1}

    def test_a_suffix_of_its_own_wins(self):
        assert AzureEndpoints(vault_suffix="vault.local").vault_url("a") == "https://a.vault.local"
        assert AzureEndpoints(authority="https://login.local").suffix == "vault.azure.net"


class TestTokens:
    async def test_one_that_expired_early_is_renewed_once(self, azure, azure_provider):
        await azure_provider.observe([], mark=ME)
        azure.expire_tokens()
        await asyncio.gather(*(azure_provider.observe([], mark=ME) for _ in range(20)))
        assert operations(azure)["GetToken"] == 2

    async def test_one_that_stays_refused_is_told(self, azure, azure_provider):
        azure.fail("GetSecrets", "Unauthorized", 401, times=9)
        error = await refused(azure_provider)
        assert (type(error), error.reason) == (PermanentError, Reason.CREDENTIALS_UNAVAILABLE)
        assert operations(azure)["GetToken"] == 2

    async def test_a_write_that_meets_an_expired_one_is_made_once(self, azure, azure_provider):
        await azure_provider.observe([], mark=ME)
        azure.fail("SetSecret", "Unauthorized", 401)
        await azure_provider.create(desired("a", b"v"), mark=ME, revision=REVISION, fence=SoleMemberFence())
        assert azure.versions("a") == 1


class TestRenewal:
    """The same for both logins; what renews is tested by itself in `test_renewing`."""

    @pytest.fixture
    def clock(self):
        class Clock:
            now = 1000.0

            def __call__(self):
                return self.now

        return Clock()

    @pytest.fixture
    async def clients(self, azure, clock):
        requests = Requests("azure", place="here", on_call=lambda *_: None, retries=RetryPolicy(attempts=1))
        clients = VaultClients(
            azure.client_secret, vault=azure.vault, endpoints=azure.endpoints, requests=requests, clock=clock
        )
        yield clients
        await requests.aclose()
        clients.close()

    async def test_a_client_is_kept_until_shortly_before_its_token_expires(self, azure, clients, clock):
        first = await clients.current()
        clock.now += LIFETIME - RENEW_BEFORE - 2  # The lifetime is told in whole seconds.
        assert await clients.current() is first
        clock.now += 3
        later = await asyncio.gather(*(clients.current() for _ in range(20)))
        assert later[0] is not first
        assert set(map(id, later)) == {id(later[0])}
        assert operations(azure) == {"GetToken": 2}

    async def test_an_old_one_can_finish_its_requests(self, clients, clock):
        for _ in range(3):
            old = await clients.current()
            clock.now += LIFETIME
            await clients.current()
            with clients.transport.within(5.0):
                assert (
                    list(await asyncio.to_thread(lambda old=old: list(old.secrets.list_properties_of_secrets()))) == []
                )


def test_titles_tell_the_identity():
    assert AzureClientSecret(TENANT, CLIENT, "x").title == f"application {CLIENT}"
    assert AzureFederation(TENANT, CLIENT, "x").title == f"identity {CLIENT}"
