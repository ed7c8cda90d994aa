"""Providers are shared by what they log in with, made once, and closed."""

import base64

import pytest

from secret_manager_controller.controller import stores as stores_module
from secret_manager_controller.controller.secrets import SECRET_TTL, SecretReader
from secret_manager_controller.controller.stores import CachedStores
from secret_manager_controller.errors import ConfigError, PermanentError, Reason, RetryableError
from secret_manager_controller.grants import Tenancy
from secret_manager_controller.kube import SECRETS
from secret_manager_controller.model.spec import parse_spec
from secret_manager_controller.tenancy import authorize
from secret_manager_controller.testing.clocks import ManualClock
from secret_manager_controller.testing.store import FakeProvider, FakeStore

KEYS = {"access-key-id": b"AKIA", "secret-access-key": b"s"}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def made(monkeypatch):
    """Return the providers that were made, with the login of each."""
    providers = []

    def make(spec, login, environment, on_call):
        if login.secret == {}:
            raise PermanentError(Reason.CREDENTIALS_UNAVAILABLE, "incomplete")
        providers.append((FakeProvider(FakeStore()), login.secret))
        return providers[-1][0]

    monkeypatch.setattr(stores_module, "PROVIDERS", {"aws": make})
    return providers


@pytest.fixture
async def stores(kube, clock, made):
    opened = CachedStores(SecretReader(kube, clock=clock), {}, lambda *_: None)
    yield opened
    await opened.aclose()


def put(kube, namespace="team-a", name="keys", data=KEYS):
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    kube.put(SECRETS.url(namespace, name), metadata={"namespace": namespace, "name": name, "uid": "u"}, data=encoded)


async def opened(stores, *, region="eu-west-1", namespace="team-a", secret=None, provider=None):
    aws = {"region": region} | ({"auth": {"authType": "AccessKeys", "secretName": secret}} if secret else {})
    body = {
        "sourceRef": {"name": "repo"},
        "provider": provider or {"type": "aws", "aws": aws},
        "secrets": {"environment": "dev"},
    }
    spec = parse_spec({"spec": body})
    return await stores.open(spec, authorize(spec, namespace=namespace, tenancy=Tenancy(controller_namespace="smc")))


async def test_objects_with_one_store_and_login_share_a_provider(stores, made, kube):
    put(kube)
    first, name = await opened(stores, secret="keys")
    second, _ = await opened(stores, secret="keys")
    assert first is second
    assert (name, len(made), made[0][1]) == ("aws/eu-west-1", 1, KEYS)


async def test_another_region_namespace_or_login_is_another_provider(stores, made, kube):
    put(kube)
    put(kube, namespace="team-b")
    for asked in ({"secret": "keys"}, {"secret": "keys", "namespace": "team-b"}, {}, {"region": "us-east-1"}):
        await opened(stores, **asked)
    assert len(made) == 4


async def test_a_rotated_login_is_a_new_provider_once_it_is_seen(stores, made, kube, clock):
    put(kube)
    await opened(stores, secret="keys")
    put(kube, data=KEYS | {"access-key-id": b"AKIB"})
    clock.now = SECRET_TTL
    await opened(stores, secret="keys")
    assert [login["access-key-id"] for _, login in made] == [b"AKIA", b"AKIB"]


async def test_a_missing_secret_is_named_and_may_still_come(stores):
    with pytest.raises(RetryableError, match="team-a/keys does not exist") as caught:
        await opened(stores, secret="keys")
    assert caught.value.reason is Reason.CREDENTIALS_UNAVAILABLE


async def test_a_login_that_is_incomplete_is_not_kept(stores, made, kube):
    put(kube, data={})
    for _ in range(2):
        with pytest.raises(PermanentError, match="incomplete"):
            await opened(stores, secret="keys")
    assert made == []


async def test_a_store_without_a_provider_is_not_implemented(stores):
    with pytest.raises(ConfigError) as caught:
        await opened(stores, provider={"type": "gcp", "gcp": {"projectId": "my-project"}})
    assert caught.value.reason is Reason.NOT_IMPLEMENTED


async def test_the_longest_unused_provider_is_closed_when_there_are_too_many(stores, made, monkeypatch):
    monkeypatch.setattr(stores_module, "MAX_PROVIDERS", 2)
    for region in ("eu-west-1", "eu-west-2", "eu-west-1", "eu-west-3"):
        await opened(stores, region=region)
    assert len(made) == 3
    await opened(stores, region="eu-west-1")
    assert len(made) == 3
    await opened(stores, region="eu-west-2")
    assert len(made) == 4
    await stores.aclose()
    assert all(provider.closed for provider, _ in made)
