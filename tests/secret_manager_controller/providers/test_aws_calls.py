"""Requests run in threads that end, are bounded in time, are counted, and take nothing from their surroundings."""

import asyncio
import logging
import threading
from collections import Counter

import pytest
from botocore.exceptions import ParamValidationError

from lease_sharding.fence import OwnershipLost, SoleMemberFence
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.observed import RemoteSecret
from secret_manager_controller.model.secret import SecretName
from secret_manager_controller.providers import aws_clients
from secret_manager_controller.providers.aws_calls import Requests
from secret_manager_controller.providers.aws_clients import SharedClients
from secret_manager_controller.providers.aws_errors import Refusal
from secret_manager_controller.providers.calls import RetryPolicy
from secret_manager_controller.providers.threads import PLACE_THREADS, SLOW, SLOW_IN_A_ROW, THREADS, PlaceResting
from secret_manager_controller.testing.contract_subject import ME, REVISION, CountingFence, desired

GHOST = RemoteSecret(SecretName("absent"), None, ME)


async def create(provider, name="a", fence=None):
    fence = fence or SoleMemberFence()
    return await provider.create(desired(name, b"s3cr3t"), mark=ME, revision=REVISION, fence=fence)


@pytest.fixture
def seen():
    return []


@pytest.fixture
def observed(make_provider, seen):
    """Return a provider whose requests are noted."""
    return make_provider(on_call=lambda *call: seen.append(call))


class TestObserver:
    async def test_every_request_is_told_retries_included(self, aws, observed, seen):
        aws.fail("CreateSecret", "ThrottlingException", 400, times=2)
        await create(observed)
        assert [call[:3] for call in seen] == [
            ("aws", "CreateSecret", "ThrottlingException"),
            ("aws", "CreateSecret", "ThrottlingException"),
            ("aws", "CreateSecret", "OK"),
        ]
        assert all(seconds > 0 for *_, seconds in seen)

    async def test_what_was_told_is_what_arrived(self, aws, observed, seen):
        await asyncio.gather(*(create(observed, f"s-{number}") for number in range(30)))
        await observed.observe([SecretName("absent")], mark=ME)
        told = Counter((operation, code) for _, operation, code, _ in seen)
        assert told == Counter((call.operation, call.code) for call in aws.calls())

    async def test_a_connection_that_fails_is_told_by_its_kind(self, make_provider, seen):
        provider = make_provider(endpoint_url="http://127.0.0.1:9", on_call=lambda *call: seen.append(call))
        with pytest.raises(RetryableError):
            await provider.observe([], mark=ME)
        assert {call[2] for call in seen} == {"EndpointConnectionError"}

    async def test_a_request_whose_caller_was_cancelled_is_told(self, aws, observed, seen):
        aws.hang("CreateSecret", 0.2)
        task = asyncio.create_task(create(observed))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [call[1:3] for call in seen] == [("CreateSecret", "OK")]


class TestTime:
    async def test_a_cancelled_write_is_waited_for(self, aws, provider):
        """Nobody else may act on the shard while a request of ours is under way."""
        aws.hang("CreateSecret", 0.3)
        task = asyncio.create_task(create(provider))
        for _ in range(3):  # However impatient the caller is.
            await asyncio.sleep(0.05)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [call.committed for call in aws.writes()] == [True]

    async def test_a_request_that_hangs_is_cut_off_and_made_again(self, aws, make_provider, monkeypatch):
        monkeypatch.setattr(aws_clients, "READ_TIMEOUT", 0.1)
        monkeypatch.setattr(aws_clients, "SHARED_CLIENTS", SharedClients())
        aws.hang("CreateSecret", 0.4)
        provider = make_provider()
        await create(provider)
        assert aws.values() == {"a": b"s3cr3t"}
        await asyncio.sleep(0.5)  # The first one arrives late and changes nothing.
        assert [(call.code, call.committed) for call in aws.writes()] == [("OK", True), ("OK", True)]
        assert aws.versions("a") == 1

    async def test_no_attempt_begins_that_could_end_too_late(self, aws, make_provider):
        provider = make_provider(retries=RetryPolicy(attempts=9, total=1.0, first_wait=0.0))
        aws.fail("CreateSecret", "InternalServiceError", times=9)
        with pytest.raises(RetryableError):
            await create(provider)
        assert len(aws.writes()) == 1

    async def test_waiting_for_a_thread_does_not_age_the_fence(self, aws, provider):
        """The fence is checked when a thread is free, not when the call is made."""
        aws.hang("GetSecretValue", 0.2, times=THREADS)
        looks = asyncio.gather(*(provider.read([GHOST]) for _ in range(THREADS)))
        await asyncio.sleep(0.1)
        fence = CountingFence(allowed=0)
        write = asyncio.create_task(create(provider, fence=fence))
        await asyncio.sleep(0.02)
        assert fence.margins == []
        await looks
        with pytest.raises(OwnershipLost):
            await write


class TestThreads:
    async def test_a_hundred_logins_share_the_threads(self, aws, make_provider):
        before = set(threading.enumerate())
        logins = [make_provider(login=aws.add_access_key(f"AKIA{number}", "x")) for number in range(100)]
        await asyncio.gather(*(provider.read([GHOST]) for provider in logins))
        assert 0 < len(set(threading.enumerate()) - before) <= THREADS
        assert len({call.who for call in aws.calls()}) == 100

    async def test_closing_waits_for_requests_under_way(self, aws, make_provider):
        provider = make_provider()
        aws.hang("CreateSecret", 0.2)
        task = asyncio.create_task(create(provider))
        await asyncio.sleep(0.1)
        await provider.aclose()
        await task
        assert aws.values() == {"a": b"s3cr3t"}

    async def test_a_closed_provider_refuses(self, make_provider):
        provider = make_provider()
        await provider.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await provider.read([GHOST])


async def test_a_region_that_does_not_answer_is_soon_asked_no_more(aws, make_provider, monkeypatch):
    """Forty logins to it take a place's threads once, and another region's objects go on."""
    monkeypatch.setattr(aws_clients, "READ_TIMEOUT", SLOW + 0.1)
    monkeypatch.setattr(aws_clients, "SHARED_CLIENTS", SharedClients())
    asked, over = [], asyncio.Event()

    async def hang(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        await over.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    options = {"endpoint_url": f"http://127.0.0.1:{port}", "retries": RetryPolicy(attempts=1)}
    async with server:
        waiting = [asyncio.create_task(make_provider(**options).observe([], mark=ME)) for _ in range(40)]
        await asyncio.sleep(0)
        assert (await make_provider().observe([], mark=ME)).secrets == {}
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        over.set()
    assert {outcome.reason for outcome in outcomes} == {Reason.STORE_UNAVAILABLE}
    assert PLACE_THREADS <= len(asked) < PLACE_THREADS + SLOW_IN_A_ROW
    assert sum(isinstance(outcome, PlaceResting) for outcome in outcomes) == len(outcomes) - len(asked)


class TestIsolation:
    async def test_nothing_of_the_surroundings_is_used(self, aws, make_provider, monkeypatch, tmp_path):
        config = tmp_path / "config"
        config.write_text(
            "[default]\nregion = xx\nmax_attempts = 7\nca_bundle = /absent\nendpoint_url = http://127.0.0.1:9\n"
        )
        for name, value in {
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": str(config),
            "AWS_PROFILE": "absent",
            "AWS_ACCESS_KEY_ID": "AKIAWRONG",
            "AWS_SECRET_ACCESS_KEY": "wrong",
            "AWS_DEFAULT_REGION": "xx-wrong-1",
            "AWS_MAX_ATTEMPTS": "7",
            "AWS_CA_BUNDLE": "/absent",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_USE_FIPS_ENDPOINT": "true",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(aws_clients, "SHARED_CLIENTS", SharedClients())
        await create(make_provider())
        assert aws.values() == {"a": b"s3cr3t"}

    def test_aws_itself_is_addressed_in_the_region(self, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
        client = SharedClients().of("secretsmanager", region="eu-north-1", endpoint_url=None)
        assert client.meta.endpoint_url == "https://secretsmanager.eu-north-1.amazonaws.com"
        client.close()

    async def test_what_the_sdk_logs_holds_no_value(self, make_provider, caplog, monkeypatch):
        """Even where the root logger is at DEBUG when the first client is made."""
        monkeypatch.setattr(aws_clients, "SHARED_CLIENTS", SharedClients())
        caplog.set_level(logging.DEBUG)
        logging.getLogger("botocore").setLevel(logging.NOTSET)
        await create(make_provider())
        assert "s3cr3t" not in caplog.text


async def test_an_answer_that_is_not_aws_s_is_unavailable(make_provider):
    """A captive portal or a broken proxy answers 200 with a page."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(RetryableError) as raised:
            await make_provider(endpoint_url=f"http://127.0.0.1:{port}").observe([], mark=ME)
    assert raised.value.reason is Reason.STORE_UNAVAILABLE


async def test_what_the_sdk_itself_refuses_is_told_by_its_kind_only():
    """botocore's own messages may quote what was to be sent."""

    class Client:
        def put_secret_value(self, **parameters):
            raise ParamValidationError(report=parameters["SecretString"])

    requests = Requests(place="here", on_call=lambda *_: None, retries=RetryPolicy())
    refusal = await requests.make(Client, "PutSecretValue", {"SecretString": "s3cr3t"}, keys=None)
    await requests.aclose()
    assert refusal == Refusal("ParamValidationError", status=400)


async def test_an_endpoint_that_is_no_url_is_told(make_provider):
    with pytest.raises(PermanentError, match="endpoint is no URL") as raised:
        await make_provider(endpoint_url="secrets.internal").observe([], mark=ME)
    assert raised.value.reason is Reason.STORE_REFUSED
