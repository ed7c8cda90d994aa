"""Requests over gRPC end, are bounded in time, are counted, and take nothing from their surroundings."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.observed import RemoteSecret
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers import gcp_api
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.gcp import GcpEndpoints
from secret_manager_controller.providers.gcp_api import Connection, check_url, request, secret_manager_url
from secret_manager_controller.providers.threads import THREADS
from secret_manager_controller.testing.contract_subject import ME, REVISION, CountingFence, desired
from secret_manager_controller.testing.gcp import GcpServer

GHOST = RemoteSecret(SecretName("absent"), None, ME)


async def create(provider, name="a", fence=None):
    fence = fence or SoleMemberFence()
    return await provider.create(desired(name, b"s3cr3t"), mark=ME, revision=REVISION, fence=fence)


class Starting:
    """A fence that lets everything pass and tells when the first request begins."""

    def __init__(self):
        self.begun = asyncio.Event()

    def check(self, margin):
        self.begun.set()


@pytest.fixture
def seen():
    return []


@pytest.fixture
def observed(make_gcp, seen):
    """Return a provider whose requests are noted."""
    return make_gcp(on_call=lambda *call: seen.append(call))


class TestObserver:
    async def test_every_request_is_told_logins_and_retries_included(self, gcp, observed, seen):
        gcp.fail("CreateSecret", "RESOURCE_EXHAUSTED", times=2)
        await create(observed)
        assert [call[:3] for call in seen] == [
            ("gcp", "JwtBearer", "OK"),
            ("gcp", "CreateSecret", "RESOURCE_EXHAUSTED"),
            ("gcp", "CreateSecret", "RESOURCE_EXHAUSTED"),
            ("gcp", "CreateSecret", "OK"),
            ("gcp", "AddSecretVersion", "OK"),
        ]
        assert all(seconds > 0 for *_, seconds in seen)

    async def test_what_was_told_is_what_arrived(self, gcp, observed, seen):
        await asyncio.gather(*(create(observed, f"s-{number}") for number in range(30)))
        await observed.observe([SecretName("absent")], mark=ME)
        told = Counter((operation, code) for _, operation, code, _ in seen)
        assert told == Counter((call.operation, call.code) for call in gcp.calls())

    async def test_a_request_whose_caller_was_cancelled_is_told(self, gcp, observed, seen):
        gcp.hang("CreateSecret", 0.2)
        fence = Starting()
        task = asyncio.create_task(create(observed, fence=fence))
        await fence.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [call[1:3] for call in seen] == [("JwtBearer", "OK"), ("CreateSecret", "OK")]


class TestTime:
    async def test_a_cancelled_write_is_waited_for(self, gcp, gcp_provider):
        """Nobody else may act on the shard while a request of ours is under way."""
        gcp.hang("CreateSecret", 0.3)
        fence = Starting()
        task = asyncio.create_task(create(gcp_provider, fence=fence))
        await fence.begun.wait()
        for _ in range(3):  # However impatient the caller is.
            task.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [(call.operation, call.committed) for call in gcp.writes()] == [("CreateSecret", True)]

    async def test_a_request_that_hangs_is_cut_off_and_made_again(self, gcp, gcp_provider, monkeypatch):
        await gcp_provider.observe([], mark=ME)
        monkeypatch.setattr(gcp_api, "REQUEST_TIMEOUT", 0.1)
        gcp.hang("CreateSecret", 0.3)
        await create(gcp_provider)
        assert gcp.values() == {"a": b"s3cr3t"}
        await asyncio.sleep(0.3)  # The first one arrives late and changes nothing.
        assert gcp.versions("a") == 1

    async def test_no_attempt_begins_that_could_end_too_late(self, gcp, make_gcp):
        provider = make_gcp(retries=RetryPolicy(attempts=9, total=1.0, first_wait=0.0))
        gcp.fail("CreateSecret", "INTERNAL", times=9)
        with pytest.raises(RetryableError):
            await create(provider)
        assert len(gcp.writes()) == 1

    async def test_waiting_for_a_thread_does_not_age_the_fence(self, gcp, gcp_provider):
        """The fence is checked when a thread is free, not when the call is made."""
        await gcp_provider.observe([], mark=ME)
        gcp.hang("AccessSecretVersion", 0.2, times=THREADS)
        reads = asyncio.create_task(gcp_provider.read([GHOST] * THREADS))
        await asyncio.sleep(0.1)
        fence = CountingFence(allowed=0)
        write = asyncio.create_task(create(gcp_provider, fence=fence))
        await asyncio.sleep(0.02)
        assert fence.margins == []
        await reads
        with pytest.raises(OwnershipLost):
            await write

    async def test_a_server_that_comes_back_is_found_at_once(self, make_gcp):
        with GcpServer.start() as first:
            provider = make_gcp(login=first.key, endpoints=first.endpoints)
            await provider.observe([], mark=ME)
        with pytest.raises(RetryableError, match="UNAVAILABLE") as raised:
            await provider.observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_UNAVAILABLE


class TestThreads:
    async def test_many_logins_share_the_threads(self, make_gcp):
        before = set(threading.enumerate())
        await asyncio.gather(*(make_gcp().read([GHOST]) for _ in range(40)))
        used = {thread for thread in set(threading.enumerate()) - before if "provider" in thread.name}
        assert 0 < len(used) <= THREADS

    async def test_closing_waits_for_requests_under_way(self, gcp, make_gcp):
        provider = make_gcp()
        await provider.observe([], mark=ME)
        gcp.hang("AccessSecretVersion", 0.2)
        task = asyncio.create_task(provider.read([GHOST]))
        await asyncio.sleep(0.1)
        await provider.aclose()
        assert await task == {}

    async def test_a_closed_provider_refuses(self, make_gcp):
        provider = make_gcp()
        await provider.read([GHOST])
        await provider.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await provider.read([GHOST])

    async def test_children_can_be_started_meanwhile(self, gcp, gcp_provider):
        """As kustomize and gpg are, while gRPC has threads and connections of its own."""
        for number in range(5):
            gcp.put_by_hand(f"s-{number}", b"v")
        names = [SecretName(f"s-{number}") for number in range(5)]
        for _ in range(5):
            child = asyncio.to_thread(subprocess.run, ["/bin/true"], preexec_fn=lambda: None, check=True)
            await asyncio.gather(gcp_provider.observe(names, mark=ME), child)


class TestIsolation:
    def test_nothing_of_the_surroundings_is_used(self, gcp, tmp_path):
        """In a process of its own, since gRPC and the SDK read variables when they are imported."""
        key = tmp_path / "key.json"
        key.write_bytes(gcp.key.document)
        script = f"""
import asyncio
from pathlib import Path
from secret_manager_controller.providers.gcp import GcpEndpoints, GcpKeyFile, GcpProvider
from secret_manager_controller.testing.contract_subject import ME
async def main():
    endpoints = GcpEndpoints({gcp.endpoints.secretmanager!r}, token_url={gcp.endpoints.token_url!r})
    provider = GcpProvider(project="test-project", login=GcpKeyFile(Path({str(key)!r})), endpoints=endpoints)
    print(len((await provider.observe([], mark=ME)).secrets))
    await provider.aclose()
asyncio.run(main())
"""
        nowhere = "http://127.0.0.1:9"
        environment = {
            "PYTHONPATH": ":".join(sys.path),
            "HOME": str(tmp_path),
            "GOOGLE_APPLICATION_CREDENTIALS": "/absent",
            "GOOGLE_CLOUD_PROJECT": "wrong",
            "GOOGLE_CLOUD_QUOTA_PROJECT": "wrong",
            "GOOGLE_CLOUD_UNIVERSE_DOMAIN": "wrong.test",
            "GOOGLE_API_USE_MTLS_ENDPOINT": "always",
            "GOOGLE_API_USE_CLIENT_CERTIFICATE": "true",
            "GCE_METADATA_HOST": "127.0.0.1:9",
            "GRPC_PROXY": nowhere,
            "grpc_proxy": nowhere,
            "http_proxy": nowhere,
            "https_proxy": nowhere,
            "HTTPS_PROXY": nowhere,
        }
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)
        assert Counter(call.operation for call in gcp.calls()) == {"JwtBearer": 1, "ListSecrets": 1}

    @pytest.mark.parametrize(
        ("endpoints", "location", "address"),
        [
            pytest.param(GcpEndpoints(), None, "secretmanager.googleapis.com:443", id="global"),
            pytest.param(
                GcpEndpoints(), "europe-west1", "secretmanager.europe-west1.rep.googleapis.com:443", id="regional"
            ),
            pytest.param(
                GcpEndpoints(universe="s3nsapis.fr"), None, "secretmanager.s3nsapis.fr:443", id="another universe"
            ),
            pytest.param(
                GcpEndpoints("https://sm.internal"), "europe-west1", "sm.internal:443", id="a private endpoint"
            ),
            pytest.param(GcpEndpoints("https://sm.internal:8443/"), None, "sm.internal:8443", id="with a port"),
        ],
    )
    def test_google_is_addressed_over_tls(self, endpoints, location, address):
        connection = Connection(secret_manager_url(endpoints, location), roots=None)
        assert (connection._address, connection._secure) == (address, True)

    @pytest.mark.parametrize("url", ["sm.internal", "ftp://sm.internal", "http://[", "https://x:port"])
    async def test_an_endpoint_that_is_no_url_is_told(self, make_gcp, url):
        with pytest.raises(PermanentError, match="is no http or https URL") as raised:
            make_gcp(endpoints=GcpEndpoints(url))
        assert raised.value.reason is Reason.STORE_REFUSED

    def test_what_is_not_encrypted_stays_on_loopback(self):
        with pytest.raises(PermanentError, match="is not encrypted"):
            check_url("http://sm.internal")
        assert check_url("http://localhost:80/") == "http://localhost:80"

    async def test_what_is_logged_holds_no_value(self, make_gcp, caplog):
        caplog.set_level(logging.DEBUG)
        for name in ("google", "google.auth", "grpc"):
            caplog.set_level(logging.DEBUG, logger=name)
        provider = make_gcp()
        await create(provider)
        await provider.read([RemoteSecret(SecretName("a"), None, ME)])
        assert "s3cr3t" not in caplog.text
        assert "ya29" not in caplog.text


@pytest.fixture(scope="module")
def encrypted():
    with GcpServer.start(tls=True) as server:
        yield server


class TestTls:
    async def test_its_authority_is_the_one_that_is_named(self, encrypted, make_gcp):
        provider = make_gcp(login=encrypted.key, endpoints=encrypted.endpoints)
        await create(provider)
        assert encrypted.values() == {"a": b"s3cr3t"}

    async def test_another_authority_is_not_trusted(self, encrypted, make_gcp, capfd):
        endpoints = GcpEndpoints(encrypted.endpoints.secretmanager, token_url=encrypted.endpoints.token_url)
        with pytest.raises(RetryableError, match="UNAVAILABLE on ListSecrets") as raised:
            await make_gcp(login=encrypted.key, endpoints=endpoints).observe([], mark=ME)
        assert raised.value.reason is Reason.STORE_UNAVAILABLE
        capfd.readouterr()  # gRPC's core tells it on stderr, too.

    async def test_authorities_that_cannot_be_read_are_told(self, encrypted, make_gcp):
        endpoints = GcpEndpoints(
            encrypted.endpoints.secretmanager, token_url=encrypted.endpoints.token_url, roots=Path("/absent")
        )
        provider = make_gcp(login=encrypted.key, endpoints=endpoints)
        with pytest.raises(PermanentError, match="authorities in /absent cannot be read"):
            await provider.observe([], mark=ME)


class TestAnswers:
    @pytest.mark.parametrize(
        "details",
        [b"\xff\xff", b""],
        ids=["no message", "empty"],
    )
    def test_details_that_cannot_be_read_are_left_out(self, details):
        assert gcp_api._details(details) == ("", None)

    def test_an_exception_s_text_is_not_kept(self, gcp):
        refusal = gcp_api._refusal(_Error())
        assert "s3cr3t" not in repr(refusal)
        assert refusal.code == "INVALID_ARGUMENT"

    def test_a_request_says_where_it_goes(self):
        message = request("UpdateSecret", secret={"name": "projects/p/secrets/a b"})
        assert gcp_api._routing(message) == "secret.name=projects%2Fp%2Fsecrets%2Fa%20b"


class _Error(grpc.RpcError):
    def code(self):
        return grpc.StatusCode.INVALID_ARGUMENT

    def details(self):
        return "the value s3cr3t is wrong"

    def trailing_metadata(self):
        return None
