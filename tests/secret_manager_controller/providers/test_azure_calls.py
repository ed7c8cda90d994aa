"""Requests to Azure are bounded in time, counted, told by their kind only, and take nothing from their surroundings."""

import asyncio
import logging
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from azure.core.exceptions import HttpResponseError, SerializationError
from azure.core.rest import HttpRequest

from lease_sharding.fence import SoleMemberFence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.observed import RemoteSecret
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers import azure_calls, azure_transport
from secret_manager_controller.providers.azure import AzureEndpoints
from secret_manager_controller.providers.azure_calls import Answer, ask
from secret_manager_controller.providers.azure_errors import NO_SUCH_HOST, AzureRefusal
from secret_manager_controller.providers.azure_transport import Transport
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.threads import THREADS
from secret_manager_controller.testing.contract_subject import ME, REVISION, desired

GHOST = RemoteSecret(SecretName("absent"), None, ME)


async def create(provider, name="a", fence=None):
    fence = fence or SoleMemberFence()
    return await provider.create(desired(name, b"s3cr3t"), mark=ME, revision=REVISION, fence=fence)


class Sending:
    """A fence that tells when the first write is about to be sent; nothing is awaited in between."""

    def __init__(self):
        self.begun = asyncio.Event()

    def check(self, margin):
        self.begun.set()


@pytest.fixture
def seen():
    return []


@pytest.fixture
def observed(make_azure, seen):
    """Return a provider whose requests are noted."""
    return make_azure(on_call=lambda *call: seen.append(call))


@pytest.fixture
def transport():
    transport = Transport(proxy=None, ca_file=None)
    yield transport
    transport.disconnect()


class TestObserver:
    async def test_every_request_is_told_retries_included(self, azure, observed, seen):
        azure.fail("SetSecret", "Throttled", 429, times=2)
        await create(observed)
        assert [call[:3] for call in seen] == [
            ("azure", "GetToken", "OK"),
            ("azure", "GetSecret", "SecretNotFound"),
            ("azure", "SetSecret", "Throttled"),
            ("azure", "GetSecret", "SecretNotFound"),
            ("azure", "SetSecret", "Throttled"),
            ("azure", "GetSecret", "SecretNotFound"),
            ("azure", "SetSecret", "OK"),
        ]
        assert all(seconds > 0 for *_, seconds in seen)

    async def test_what_was_told_is_what_arrived(self, azure, observed, seen):
        await asyncio.gather(*(create(observed, f"s-{number}") for number in range(30)))
        await observed.observe([SecretName("absent")], mark=ME)
        told = Counter((operation, code) for _, operation, code, _ in seen)
        arrived = Counter((call.operation, call.code) for call in azure.calls())
        # What an SDK asks in passing is part of the request.
        del arrived[("Discover", "OK")], arrived[("Challenge", "Unauthorized")]
        assert told == arrived

    async def test_a_connection_that_fails_is_told_by_its_kind(self, make_azure, seen):
        endpoints = AzureEndpoints(authority="https://127.0.0.1:9")
        provider = make_azure(endpoints=endpoints, on_call=lambda *call: seen.append(call))
        with pytest.raises(RetryableError):
            await provider.observe([], mark=ME)
        assert {call[2] for call in seen} == {"ConnectionRefusedError"}

    async def test_a_request_whose_caller_was_cancelled_is_told(self, azure, observed, seen):
        await observed.read([GHOST])
        azure.hang("SetSecret", 0.2)
        fence = Sending()
        task = asyncio.create_task(create(observed, fence=fence))
        await fence.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [call[1:3] for call in seen if call[1] == "SetSecret"] == [("SetSecret", "OK")]


class TestTime:
    @pytest.fixture
    async def warm(self, azure_provider):
        """Return a provider that is logged in."""
        await azure_provider.read([GHOST])
        return azure_provider

    async def test_a_cancelled_write_is_waited_for(self, azure, warm):
        """Nobody else may act on the shard while a request of ours is under way."""
        azure.hang("SetSecret", 0.3)
        fence = Sending()
        task = asyncio.create_task(create(warm, fence=fence))
        await fence.begun.wait()
        for _ in range(3):  # However impatient the caller is.
            await asyncio.sleep(0.05)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [call.committed for call in azure.writes()] == [True]

    async def test_a_request_that_hangs_is_cut_off_and_made_again(self, azure, warm, monkeypatch):
        """The first one arrives late. Azure takes it for a write of its own: it changes no value, and is drift."""
        monkeypatch.setattr(azure_transport, "READ_TIMEOUT", 0.5)
        azure.hang("SetSecret", 1.0)
        await create(warm)
        assert azure.values() == {"a": b"s3cr3t"}
        for _ in range(500):
            versions = azure.secrets()["a"].versions
            if len(versions) == 2:
                break
            await asyncio.sleep(0.01)
        assert [version.value for version in versions] == [b"s3cr3t", b"s3cr3t"]
        assert versions[0].tags == versions[1].tags

    async def test_all_that_an_sdk_asks_for_one_request_ends_in_its_time(self, azure, make_azure, monkeypatch, seen):
        """Two answers that are slow, each within the time for one, are too slow together."""
        monkeypatch.setattr(azure_calls, "REQUEST_TIMEOUT", 0.5)
        azure.hang("Discover", 0.3)
        azure.hang("GetToken", 0.3)
        provider = make_azure(retries=RetryPolicy(attempts=1), on_call=lambda *call: seen.append(call))
        with pytest.raises(RetryableError):
            await provider.observe([], mark=ME)
        assert [call[1] for call in seen] == ["GetToken"]
        assert "OK" not in seen[0]

    async def test_nothing_is_sent_when_the_time_is_over(self, azure, transport):
        with transport.within(0.0), pytest.raises(Exception, match="time for this request is over"):
            transport.send(HttpRequest("GET", azure.url))


class TestThreads:
    async def test_many_logins_share_the_threads(self, make_azure):
        before = set(threading.enumerate())
        await asyncio.gather(*(make_azure().read([GHOST]) for _ in range(40)))
        assert 0 < len(set(threading.enumerate()) - before) <= THREADS

    async def test_closing_waits_for_requests_under_way(self, azure, make_azure):
        provider = make_azure()
        await provider.read([GHOST])
        azure.hang("SetSecret", 0.2)
        fence = Sending()
        task = asyncio.create_task(create(provider, fence=fence))
        await fence.begun.wait()
        await provider.aclose()
        await task
        assert azure.values() == {"a": b"s3cr3t"}

    async def test_a_closed_provider_refuses(self, make_azure):
        provider = make_azure()
        await provider.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await provider.read([GHOST])

    async def test_closing_ends_a_listing(self, azure, make_azure):
        provider = make_azure()
        await provider.read([GHOST])
        azure.hang("GetSecrets", 0.2)
        task = asyncio.create_task(provider.observe([], mark=ME))
        await asyncio.sleep(0.1)
        await provider.aclose()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestIsolation:
    async def test_nothing_of_the_surroundings_is_used(self, make_azure, azure, monkeypatch, tmp_path):
        (tmp_path / ".netrc").write_text("machine test-vault.vault.azure.net login wrong password wrong\n")
        for name, value in {
            "HOME": str(tmp_path),
            "AZURE_CLIENT_ID": "wrong",
            "AZURE_CLIENT_SECRET": "wrong",
            "AZURE_TENANT_ID": "wrong",
            "AZURE_FEDERATED_TOKEN_FILE": "/absent",
            "AZURE_AUTHORITY_HOST": "https://127.0.0.1:9",
            "AZURE_REGIONAL_AUTHORITY_NAME": "wrong",
            "AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9",
            "AZURE_HTTP_USER_AGENT": "\n",
            "AZURE_TRACING_ENABLED": "true",
            "AZURE_LOG_LEVEL": "debug",
            "MSI_ENDPOINT": "http://127.0.0.1:9",
            "REQUESTS_CA_BUNDLE": "/absent",
            "CURL_CA_BUNDLE": "/absent",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
            "ALL_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "*",
        }.items():
            monkeypatch.setenv(name, value)
        await create(make_azure())
        assert azure.values() == {"a": b"s3cr3t"}

    async def test_what_the_sdks_log_holds_no_value(self, make_azure, caplog):
        """Even where their loggers are at DEBUG when the first client is made."""
        caplog.set_level(logging.DEBUG)
        for name in ("azure", "msal"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        provider = make_azure()
        await create(provider)
        await provider.read([RemoteSecret(SecretName("a"), None, ME)])
        assert "s3cr3t" not in caplog.text
        assert [record for record in caplog.records if record.name.startswith(("azure", "msal"))] == []

    async def test_headers_tell_nothing_of_the_machine(self, azure, make_azure, monkeypatch):
        sent = []
        request = azure_transport.requests.Session.request

        def noted(session, method, url, **options):
            sent.append(dict(options["headers"]))
            return request(session, method, url, **options)

        monkeypatch.setattr(azure_transport.requests.Session, "request", noted)
        await create(make_azure())
        assert {headers["User-Agent"] for headers in sent} == {"secret-manager-controller"}
        assert [name for headers in sent for name in headers if name.lower().startswith("x-client-")] == []

    async def test_a_redirection_is_not_followed(self, azure, make_azure, monkeypatch):
        """A value goes to the vault, and nowhere else."""
        provider, sent = make_azure(), []
        await provider.read([GHOST])
        request = azure_transport.requests.Session.request

        def redirected(session, method, url, **options):
            response = request(session, method, url, **options)
            sent.append(url)
            if method == "PUT":
                response.status_code = 307
                response.headers["Location"] = f"{azure.url}/secrets/b?api-version=7.4"
            return response

        monkeypatch.setattr(azure_transport.requests.Session, "request", redirected)
        with pytest.raises(PermanentError) as raised:
            await create(provider)
        assert raised.value.reason is Reason.STORE_REFUSED
        assert {url.partition("/secrets")[0] for url in sent} == {"https://test-vault.vault.azure.net"}

    @pytest.mark.parametrize(
        ("no_proxy", "arrives"),
        [
            ("", True),
            ("vault.azure.net", False),
            ("*", False),
            ("other.net, .vault.azure.net", False),
            ("azure.com", True),
        ],
    )
    async def test_hosts_without_a_proxy_are_reached_directly(self, azure, make_azure, monkeypatch, no_proxy, arrives):
        """As the private endpoint of a vault is, while Entra ID is outside."""

        resolve = socket.getaddrinfo

        def known(host, *arguments, **named):
            if host != "127.0.0.1":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return resolve(host, *arguments, **named)

        monkeypatch.setattr(socket, "getaddrinfo", known)
        provider = make_azure(endpoints=replace(azure.endpoints, no_proxy=no_proxy))
        if arrives:
            await provider.read([GHOST])
        else:
            with pytest.raises(PermanentError, match="there is no host"):
                await provider.read([GHOST])
        assert ("GetSecret" in {call.operation for call in azure.calls()}) is arrives

    async def test_without_tls_nothing_is_sent(self, transport):
        request = HttpRequest("GET", "http://127.0.0.1:9")
        with pytest.raises(Exception, match="No connection adapters"), transport.within(5.0):
            transport.send(request)

    async def test_a_certificate_of_nobody_we_trust_is_refused(self, azure, make_azure):
        endpoints = AzureEndpoints(proxy=azure.endpoints.proxy)
        with pytest.raises(RetryableError, match="SSLCertVerificationError"):
            await make_azure(endpoints=endpoints).observe([], mark=ME)


async def test_an_answer_that_is_not_azure_s_is_unavailable(azure, azure_provider, monkeypatch):
    """A captive portal or a broken proxy answers 200 with a page: no write counts as done."""
    await azure_provider.read([GHOST])
    request = azure_transport.requests.Session.request

    def replaced(session, method, url, **options):
        response = request(session, method, url, **options)
        del response.headers[azure_transport.REQUEST_ID]
        return response

    monkeypatch.setattr(azure_transport.requests.Session, "request", replaced)
    with pytest.raises(RetryableError, match="NotFromAzure") as raised:
        await create(azure_provider)
    assert raised.value.reason is Reason.STORE_UNAVAILABLE


class TestErrors:
    """What an SDK raises becomes a code: its own text may quote what was sent."""

    def failing(self, error):
        def request():
            raise error

        return request

    async def test_a_host_that_does_not_exist_is_permanent(self, make_azure, azure, monkeypatch):
        provider = make_azure()
        await provider.read([GHOST])
        provider._vault._clients._transport._proxies = {}  # Where there is no proxy, we resolve names ourselves.

        def unknown(*_, **__):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(PermanentError, match=r"no host test-vault\.vault\.azure\.net; correct") as raised:
            await provider.read([GHOST])
        assert raised.value.reason is Reason.STORE_REFUSED

    @pytest.mark.parametrize(
        ("number", "code"), [(socket.EAI_NONAME, NO_SUCH_HOST), (socket.EAI_AGAIN, "NameResolutionError")]
    )
    def test_a_name_server_that_does_not_answer_is_another_matter(self, transport, monkeypatch, number, code):
        def failing(*_, **__):
            raise socket.gaierror(number, "a reason")

        monkeypatch.setattr(socket, "getaddrinfo", failing)
        request = HttpRequest("GET", "https://a.vault.azure.net/secrets")
        refusal = ask(transport, lambda: transport.send(request))
        assert (refusal.code, refusal.status, refusal.passing) == (code, 0, code != NO_SUCH_HOST)

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            pytest.param(SerializationError("s3cr3t"), "SerializationError", id="a value that cannot be sent"),
            pytest.param(ValueError("s3cr3t"), "ValueError", id="anything of a value"),
        ],
    )
    def test_what_an_sdk_refuses_is_told_by_its_kind(self, transport, error, code):
        assert ask(transport, self.failing(error)) == AzureRefusal(code, status=400)

    def test_an_error_without_an_answer_is_one_of_the_connection(self, transport):
        assert ask(transport, self.failing(HttpResponseError("s3cr3t"))) == AzureRefusal("HttpResponseError", status=0)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ('{"error": {"code": "Forbidden", "innererror": {"code": "ForbiddenByRbac"}}}', "ForbiddenByRbac"),
            ('{"error": {"code": "Forbidden", "innerError": {"code": "SecretDisabled"}}}', "SecretDisabled"),
            ('{"error": {"code": "Conflict", "innererror": null}}', "Conflict"),
            ('{"error": {"code": "<b>", "innererror": {"code": 5}}}', "Unknown"),
            ('{"error": "invalid_client", "error_codes": [7000215]}', "AADSTS7000215"),
            ('{"error": "invalid_client", "error_codes": [0]}', "invalid_client"),
            ('{"error": "invalid_client", "error_codes": []}', "invalid_client"),
            ("[]", "Unknown"),
            ("<html>", "Unknown"),
            ("", "Unknown"),
        ],
    )
    def test_the_code_that_tells_most_is_taken(self, transport, body, code):
        class Response:
            status_code, reason, headers = 403, "no", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}

            def text(self):
                return body

        error = HttpResponseError("s3cr3t")
        error.response = Response()
        assert ask(transport, self.failing(error)) == AzureRefusal(code, status=403)

    def test_an_answer_comes_with_the_time_of_who_gave_it(self, azure, transport):
        azure.pass_time(1000)
        direct = Transport(proxy=None, ca_file=azure.endpoints.ca_file)
        answer = ask(direct, lambda: direct.send(HttpRequest("GET", f"{azure.url}/secrets")))
        direct.disconnect()
        assert isinstance(answer, Answer)
        assert 990 < answer.at - time.time() < 1010
        assert ask(transport, lambda: None) == Answer(None, at=None)
