"""Logins: what Secrets hold, and which of Argo CD's counts."""

import base64

import pytest

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.sources.git.login import ANONYMOUS, ArgoSecret, GitLogin, argo_login, login_of
from secret_manager_controller.sources.git.remote import parse_remote

REMOTE = parse_remote("https://git.example/org/repo.git", of="it")
CANARY = "canary-v4lue"


def login(**data):
    return login_of({name.replace("_", "."): v.encode() for name, v in data.items()}, identity="i", of="Secret a/b")


def test_a_password_is_basic_and_a_token_is_bearer():
    basic = login(username="me", password=f"{CANARY}\n").authorization(REMOTE)
    assert basic == b"Basic " + base64.b64encode(f"me:{CANARY}".encode())
    assert login(bearerToken=CANARY).authorization(REMOTE) == f"Bearer {CANARY}".encode()
    assert login(bearerToken=CANARY, password="x").authorization(REMOTE) == f"Bearer {CANARY}".encode()
    assert GitLogin().authorization(REMOTE) is None


def test_a_password_without_a_name_takes_the_addresss_or_any():
    named = parse_remote("https://me@git.example/org/repo", of="it")
    assert base64.b64decode(login(password="p").authorization(named)[6:]) == b"me:p"
    assert base64.b64decode(login(password="p").authorization(REMOTE)[6:]) == b"x-access-token:p"


@pytest.mark.parametrize("name", ["ssh-privatekey", "identity", "sshPrivateKey"])
def test_keys_of_kubernetes_flux_and_argo_cd_are_known(name):
    found = login_of({name: b"key", "known_hosts": b"hosts", "ca.crt": b"ca"}, identity="i", of="Secret a/b")
    assert (found.ssh_key, found.known_hosts, found.ca) == (b"key", b"hosts", b"ca")


def test_a_login_prints_nothing():
    whole = login_of(
        dict.fromkeys(("password", "bearerToken", "identity", "known_hosts", "tls.crt", "tls.key"), CANARY.encode())
        | {"githubAppID": b"1", "githubAppInstallationID": b"2", "githubAppPrivateKey": CANARY.encode()},
        identity="i",
        of="Secret a/b",
    )
    assert CANARY not in f"{whole!r} {whole}"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"password": f"{CANARY}\r\nHost: x"}, "several lines"),
        ({"bearerToken": f"{CANARY}\nX: y"}, "several lines"),
        ({"username": "a\nb", "password": CANARY}, "not printable"),
        ({"tls.crt": CANARY}, "without its key"),
        ({"githubAppPrivateKey": CANARY}, "needs githubAppID"),
        (
            {
                "githubAppPrivateKey": CANARY,
                "githubAppID": "1",
                "githubAppInstallationID": "2",
                "githubAppBaseURL": "http://x/api",
            },
            "no plain https URL",
        ),
        ({"githubAppPrivateKey": CANARY, "githubAppID": "1", "githubAppInstallationID": "2/../x"}, "needs githubAppID"),
    ],
)
def test_a_malformed_login_is_told_without_its_values(data, told):
    with pytest.raises(PermanentError, match=told) as caught:
        login_of({name: value.encode() for name, value in data.items()}, identity="i", of="Secret a/b")
    assert Reason.CREDENTIALS_UNAVAILABLE is caught.value.reason
    assert "Secret a/b" in caught.value.message
    assert CANARY not in caught.value.message


# --- Argo CD's Secrets


def secret(name, url, kind="repository", **data):
    values = {key: value.encode() for key, value in {"url": url, **data}.items()}
    return ArgoSecret(name, kind, f"uid-{name}", values)


def chosen(*secrets, url="https://git.example/org/repo.git", project="default"):
    found = argo_login(secrets, parse_remote(url, of="it"), project=project, namespace="argocd")
    return found.password and found.password.decode()


def test_the_repositorys_own_secret_counts_however_its_url_is_written():
    for url in (
        "https://git.example/org/repo",
        "https://Git.Example/Org/Repo.git",
        "https://git.example/org/repo.git/",
    ):
        assert (
            chosen(secret("a", url, password="own"), secret("b", "https://git.example/org", "repo-creds", password="t"))
            == "own"
        )


def test_the_longest_template_counts_where_the_repository_has_no_login():
    templates = (
        secret("a", "https://git.example", "repo-creds", password="host"),
        secret("b", "https://git.example/org", "repo-creds", password="org"),
        secret("c", "https://git.example/org/other", "repo-creds", password="other"),
    )
    assert chosen(*templates) == "org"
    assert chosen(secret("r", "https://git.example/org/repo"), *templates) == "org"
    assert chosen(*templates, url="https://git.example/x/y") == "host"


def test_a_template_for_ssh_is_a_prefix_too():
    for prefix in ("git@git.example:org", "ssh://git@git.example/org", "git@git.example:", "ssh://git@git.example"):
        template = ArgoSecret("t", "repo-creds", "u", {"url": prefix.encode(), "sshPrivateKey": b"key"})
        found = argo_login(
            (template,), parse_remote("git@git.example:org/repo", of="it"), project="p", namespace="argocd"
        )
        assert found.ssh_key == b"key", prefix


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.evil.invalid/org/repo",
        "https://git.example:8443/org/repo",
        "https://evil.invalid/git.example/org/repo",
        "ssh://git@git.example/org/repo",
    ],
)
def test_no_other_host_gets_a_login(url):
    """A plain prefix, as Argo CD compares, would give the first of these the login."""
    secrets = (
        secret("a", "https://git.example", "repo-creds", password=CANARY),
        secret("b", "https://git.example/org/repo", password=CANARY),
    )
    assert chosen(*secrets, url=url) is None


def test_a_login_of_another_project_does_not_count():
    own = secret("a", "https://git.example/org/repo", password="own", project="payments")
    template = secret("b", "https://git.example/org", "repo-creds", password="t", project="payments")
    assert chosen(own, template) is None
    assert chosen(own, template, project="payments") == "own"


def test_without_any_the_login_is_anonymous():
    found = argo_login((), REMOTE, project="default", namespace="argocd")
    assert (found.identity, found.is_anonymous) == (ANONYMOUS, True)


def test_a_secret_with_a_broken_url_harms_no_other():
    assert chosen(secret("a", "not a url"), secret("b", "https://git.example/org/repo", password="own")) == "own"
