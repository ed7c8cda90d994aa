"""Logins to Git servers: what a Secret holds, and what is needed to use it. Nothing here prints."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.sources.git.remote import Remote, parse_known_remote

ANONYMOUS = "anonymous"
_SSH_KEY = ("ssh-privatekey", "identity", "sshPrivateKey")
_KNOWN_HOSTS = ("known_hosts",)
_CA = ("ca.crt", "caFile")
_CERTIFICATE, _CERTIFICATE_KEY = ("tls.crt", "tlsClientCertData"), ("tls.key", "tlsClientCertKey")
_APP_URL = ("githubAppBaseURL", "githubAppEnterpriseBaseUrl")
GITHUB_API = "https://api.github.com"


@dataclass(frozen=True, slots=True)
class GithubApp:
    """A GitHub App's installation, which logs in with tokens that live for an hour."""

    app: str
    installation: str
    api: str
    key: bytes = field(repr=False)

    @property
    def host(self) -> str:
        """The host of its API."""
        return urlsplit(self.api).hostname or ""


@dataclass(frozen=True, slots=True)
class GitLogin:
    """How to log in to a Git server, and what to know it by.

    Attributes:
        identity: changes with the login; names what was fetched with it, so that nobody reads what only others may.
        hint: what to tell where the server refuses it.
    """

    identity: str = ANONYMOUS
    hint: str = ""
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    bearer: bytes | None = field(default=None, repr=False)
    ssh_key: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    certificate_key: bytes | None = field(default=None, repr=False)
    github_app: GithubApp | None = None
    known_hosts: bytes | None = field(default=None, repr=False)
    ca: bytes | None = field(default=None, repr=False)

    @property
    def is_anonymous(self) -> bool:
        """Whether there is nothing to log in with."""
        given = (self.password, self.bearer, self.ssh_key, self.certificate, self.github_app)
        return all(secret is None for secret in given)

    def authorization(self, remote: Remote) -> bytes | None:
        """Return the Authorization header for https, None without a login."""
        if self.bearer is not None:
            return b"Bearer " + self.bearer
        if self.password is None:
            return None
        # What servers with tokens take as a user name is anything; Argo CD and GitHub say x-access-token.
        user = self.username or remote.user or "x-access-token"
        return b"Basic " + base64.b64encode(user.encode() + b":" + self.password)


@dataclass(frozen=True, slots=True)
class Access:
    """A repository and the login to it."""

    remote: Remote
    login: GitLogin


def login_of(data: Mapping[str, bytes], *, identity: str, of: str) -> GitLogin:
    """Return the login that a Secret holds, in the data keys of Kubernetes, Flux or Argo CD.

    Raises:
        PermanentError: CredentialsUnavailable: it is malformed or only half there. Values are not quoted.
    """

    def first(*names: str) -> bytes | None:
        return next((data[name] for name in names if data.get(name)), None)

    token = first("bearerToken")
    password, username = first("password"), _text(first("username"), of=of)
    for value in (token, password):
        if value is not None and any(byte < 32 for byte in value.strip()):
            raise _unusable(of, "holds a password or token of several lines")
    certificate, certificate_key = first(*_CERTIFICATE), first(*_CERTIFICATE_KEY)
    if (certificate is None) is not (certificate_key is None):
        raise _unusable(of, "holds a client certificate without its key, or the key without it")
    return GitLogin(
        identity=identity,
        hint=f"; the login is in {of}",
        username=username,
        password=None if password is None else password.strip(),
        bearer=None if token is None else token.strip(),
        ssh_key=first(*_SSH_KEY),
        certificate=certificate,
        certificate_key=certificate_key,
        github_app=_github_app(data, of=of),
        known_hosts=first(*_KNOWN_HOSTS),
        ca=first(*_CA),
    )


def _github_app(data: Mapping[str, bytes], *, of: str) -> GithubApp | None:
    key = data.get("githubAppPrivateKey")
    if not key:
        return None
    app, installation = (_text(data.get(n), of=of) or "" for n in ("githubAppID", "githubAppInstallationID"))
    api = next((_text(data[name], of=of) for name in _APP_URL if data.get(name)), None) or GITHUB_API
    if not (app.isascii() and app.isalnum() and installation.isascii() and installation.isdigit()):
        raise _unusable(of, "needs githubAppID and githubAppInstallationID beside githubAppPrivateKey")
    address = parse_known_remote(api.rstrip("/") + "/app")  # A URL of that form, with a path.
    if address is None or address.scheme != "https":
        raise _unusable(of, f"has a {_APP_URL[0]} that is no plain https URL")
    return GithubApp(app, installation, api.rstrip("/"), key)


def _text(value: bytes | None, *, of: str) -> str | None:
    if value is None:
        return None
    text = value.decode(errors="replace").strip()
    if not text.isprintable():
        raise _unusable(of, "holds a name or number that is not printable")
    return text or None


def _unusable(of: str, what: str) -> PermanentError:
    return PermanentError(Reason.CREDENTIALS_UNAVAILABLE, f"{foreign(of)} {what}")


@dataclass(frozen=True, slots=True)
class ArgoSecret:
    """A Secret in which Argo CD keeps a repository (`repository`), or logins for many (`repo-creds`)."""

    name: str
    kind: str
    identity: str
    data: Mapping[str, bytes] = field(repr=False)

    def text(self, key: str) -> str:
        """Return a value that is no secret."""
        return self.data.get(key, b"").decode(errors="replace").strip()


def argo_login(secrets: tuple[ArgoSecret, ...], remote: Remote, *, project: str, namespace: str) -> GitLogin:
    """Return the login that Argo CD would use for a repository; an anonymous one if it has none.

    A `repository` Secret counts whose URL is the repository's; one of another project does not. If it has no login of
    its own, the `repo-creds` Secret with the longest URL counts that the repository's begins with: as Argo CD does it,
    but for the host, which has to be the same as a whole, so that no host gets what is another's.
    """
    login = GitLogin()
    for secret in sorted(secrets, key=lambda secret: secret.name):
        known = parse_known_remote(secret.text("url"))
        if secret.kind == "repository" and known and known.place == remote.place and _fits(secret, project):
            login = _argo_login_of(secret, namespace)
            break
    if login.is_anonymous and (best := _template(secrets, remote, project)) is not None:
        template = _argo_login_of(best, namespace)
        # What to know the server by may stand in either.
        login = replace(template, known_hosts=login.known_hosts or template.known_hosts, ca=login.ca or template.ca)
    return login


def _argo_login_of(secret: ArgoSecret, namespace: str) -> GitLogin:
    return login_of(secret.data, identity=secret.identity, of=f"Secret {namespace}/{secret.name}")


def _fits(secret: ArgoSecret, project: str) -> bool:
    return secret.text("project") in ("", project)


def _template(secrets: tuple[ArgoSecret, ...], remote: Remote, project: str) -> ArgoSecret | None:
    found: dict[int, ArgoSecret] = {}
    for secret in sorted(secrets, key=lambda secret: secret.name, reverse=True):
        url = secret.text("url").lower().rstrip("/")
        # A prefix may be a server alone, which is no repository: with a name behind it, it is read as one.
        prefix = parse_known_remote(url) or parse_known_remote(f"{url}/x") or parse_known_remote(f"{url}:x")
        if secret.kind != "repo-creds" or prefix is None or not _fits(secret, project):
            continue
        path = prefix.path if parse_known_remote(url) == prefix else ""
        if prefix.place[:3] == remote.place[:3] and remote.path.lower().startswith(path):
            found[len(path)] = secret
    return found[max(found)] if found else None
