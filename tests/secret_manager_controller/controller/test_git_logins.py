"""Logins from the cluster: the Secret that is named, or Argo CD's, and a GitHub App's token."""

import base64
import json
from dataclasses import dataclass, replace

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from secret_manager_controller.controller.git_logins import GitLogins
from secret_manager_controller.controller.secrets import SecretReader
from secret_manager_controller.errors import AccessDenied, ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.grants import SecretGrant
from secret_manager_controller.kube import SECRETS, KubeError
from secret_manager_controller.sources.git.github import app_jwt, installation_token
from secret_manager_controller.sources.git.login import GithubApp
from secret_manager_controller.sources.git.remote import parse_remote

HTTPS = parse_remote("https://git.example/org/repo", of="it")
SSH = parse_remote("git@git.example:org/repo", of="it")
LISTING = (
    f"{SECRETS.url('argocd')}?labelSelector="
    "argocd.argoproj.io/secret-type%20in%20%28repository%2Crepo-creds%29&limit=500"
)


@dataclass(frozen=True)
class Ref:
    kind: str = "Application"
    namespace: str = "argocd"
    name: str = "app"
    require_verified: bool = False
    git_hosts: tuple[str, ...] | None = None
    source_name: str | None = None
    git_credentials: SecretGrant | None = None


NAMED = Ref(git_credentials=SecretGrant("team", "git-login"))


def encoded(**data):
    return {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}


class World:
    def __init__(self, kube, session):
        self.kube = kube
        self.now = 100.0
        reader = SecretReader(kube, clock=lambda: self.now)
        self.logins = GitLogins(kube, reader, session, clock=lambda: self.now, now=lambda: 1_700_000_000)

    def argo(self, *secrets):
        items = [
            {
                "metadata": {"name": name, "namespace": "argocd", "uid": name, "resourceVersion": "1"}
                | {"labels": {"argocd.argoproj.io/secret-type": kind}},
                "data": encoded(**data),
            }
            for name, kind, data in secrets
        ]
        self.kube.put(LISTING, items=items)

    def secret(self, **data):
        metadata = {"namespace": "team", "name": "git-login", "uid": "u"}
        self.kube.put(SECRETS.url("team", "git-login"), metadata=metadata, data=encoded(**data))

    def config_map(self, name, **data):
        self.kube.put(f"/api/v1/namespaces/argocd/configmaps/{name}", data=data)

    async def find(self, ref=Ref(), remote=HTTPS):
        return await self.logins.find(ref, remote, project="default")


@pytest.fixture
async def session():
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.fixture
def world(kube, session):
    return World(kube, session)


async def test_the_secret_that_is_named_is_read_and_argo_cds_are_not_listed(world):
    world.secret(username="me", password="p")
    login = await world.find(NAMED)
    assert (login.username, login.password) == ("me", b"p")
    assert LISTING not in world.kube.done("get")


async def test_a_named_secret_that_is_missing_is_waited_for(world):
    with pytest.raises(RetryableError, match="Secret team/git-login does not exist") as caught:
        await world.find(NAMED)
    assert Reason.CREDENTIALS_UNAVAILABLE is caught.value.reason


async def test_argo_cds_secrets_are_listed_in_the_applications_namespace_alone_and_once(world):
    world.argo(
        ("creds", "repo-creds", {"url": "https://git.example/org", "password": "template"}),
        ("repo", "repository", {"url": "https://git.example/org/other", "password": "other"}),
    )
    for _ in range(3):
        assert (await world.find()).password == b"template"
    assert [path for path in world.kube.done("get") if "/secrets" in path] == [LISTING]
    world.now += 16
    await world.find()
    assert world.kube.done("get").count(LISTING) == 2


async def test_without_the_right_to_list_the_login_is_anonymous_and_says_why(world):
    def refuse(verb, path):
        if "/secrets" in path or "/configmaps" in path:
            raise KubeError(403, "forbidden")

    world.kube.refuse = refuse
    login = await world.find()
    assert login.is_anonymous
    assert "bind it to a Role there with `list` on Secrets" in login.hint


async def test_an_api_server_that_fails_is_no_login_at_all(world):
    def refuse(verb, path):
        raise KubeError(0, "no answer")

    world.kube.refuse = refuse
    with pytest.raises(RetryableError, match="cannot list Argo CD's Secrets in 'argocd': no answer"):
        await world.find()


async def test_known_hosts_and_authorities_come_from_the_login_or_from_argo_cd(world):
    world.config_map("argocd-ssh-known-hosts-cm", ssh_known_hosts="argo")
    world.config_map("argocd-tls-certs-cm", **{"git.example": "argo-ca", "other": "x"})
    assert (await world.find(remote=SSH)).known_hosts == b"argo"
    assert (await world.find(remote=HTTPS)).ca == b"argo-ca"
    world.secret(**{"ssh-privatekey": "k", "known_hosts": "own", "ca.crt": "own-ca"})
    assert (await world.find(NAMED, SSH)).known_hosts == b"own"
    assert (await world.find(NAMED, HTTPS)).ca == b"own-ca"


# --- GitHub Apps


@pytest.fixture(scope="module")
def app_key():
    return rsa.generate_private_key(65537, 2048)


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


class Github:
    """GitHub's one endpoint that counts."""

    def __init__(self):
        self.requests = []
        self.answer = web.json_response({"token": "ghs_canary", "expires_at": "2026-01-01T00:00:00Z"}, status=201)
        self.url = ""

    async def handle(self, request):
        self.requests.append((request.path, request.headers["Authorization"]))
        return web.Response(status=self.answer.status, body=self.answer.body, headers=self.answer.headers)


@pytest.fixture
async def github():
    made = Github()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def app_of(github, key):
    return GithubApp("12", "34", github.url, pem(key))


def decoded(part):
    return json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))


def test_the_apps_own_login_is_a_signed_token_for_some_minutes(app_key):
    head, claims, signature = app_jwt(GithubApp("12", "34", "https://x", pem(app_key)), now=1000).split(b".")
    assert decoded(head) == {"alg": "RS256", "typ": "JWT"}
    assert decoded(claims) == {"iss": "12", "iat": 940, "exp": 1540}
    signed = base64.urlsafe_b64decode(signature + b"=" * (-len(signature) % 4))
    app_key.public_key().verify(signed, head + b"." + claims, padding.PKCS1v15(), hashes.SHA256())


async def test_an_installation_has_a_token(github, session, app_key):
    token = await installation_token(session, app_of(github, app_key), now=1000)
    assert token.value == b"ghs_canary"
    assert "canary" not in repr(token)
    assert github.requests[0][0] == "/app/installations/34/access_tokens"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (web.json_response({"message": "canary"}, status=401), PermanentError),
        (web.json_response({"message": "canary"}, status=404), PermanentError),
        (web.json_response({"token": "a\nb"}, status=201), PermanentError),
        (web.Response(status=201, text="canary"), PermanentError),
        (web.Response(status=302, headers={"Location": "https://canary.invalid"}), PermanentError),
        (web.Response(status=503), RetryableError),
        (web.Response(status=429), RetryableError),
    ],
)
async def test_what_github_refuses_is_told_without_its_words(github, session, app_key, answer, kind):
    github.answer = answer
    with pytest.raises(ControllerError) as caught:
        await installation_token(session, app_of(github, app_key), now=1000)
    assert isinstance(caught.value, kind)
    assert Reason.CREDENTIALS_UNAVAILABLE is caught.value.reason
    assert "canary" not in caught.value.message
    assert len(github.requests) == 1


async def test_a_key_that_is_none_is_told(github, session):
    with pytest.raises(PermanentError, match="no RSA key"):
        await installation_token(session, GithubApp("1", "2", github.url, b"canary"), now=1000)
    assert github.requests == []


async def test_an_app_whose_api_is_on_a_server_that_is_not_allowed_is_not_logged_in(world, app_key):
    """The Secret names that server, and may be a tenant's own."""
    app = {"githubAppID": "12", "githubAppInstallationID": "34", "githubAppPrivateKey": pem(app_key).decode()}
    world.secret(**app, githubAppBaseURL="https://canary.invalid/api/v3")
    with pytest.raises(AccessDenied, match=r"GitHub App's API .* is on the host 'canary\.invalid'"):
        await world.find(replace(NAMED, git_hosts=("git.example",)))


async def test_a_token_is_used_for_as_long_as_it_lives(world, github, app_key, monkeypatch):
    monkeypatch.setattr(
        "secret_manager_controller.sources.git.login.parse_known_remote", lambda url: HTTPS
    )  # The server of this test has no https.
    world.secret(
        githubAppID="12",
        githubAppInstallationID="34",
        githubAppPrivateKey=pem(app_key).decode(),
        githubAppBaseURL=github.url,
    )
    for _ in range(3):
        login = await world.find(NAMED)
        assert (login.username, login.password) == ("x-access-token", b"ghs_canary")
    assert len(github.requests) == 1
    world.now += 3001
    await world.find(NAMED)
    assert len(github.requests) == 2
