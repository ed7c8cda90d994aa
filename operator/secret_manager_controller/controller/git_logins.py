"""Logins to Git servers: from the Secret that an object names, or from those in which Argo CD keeps them.

Argo CD's Secrets have names that nobody knows, so that they are listed, by their label and in the Application's own
namespace alone. That needs a Role there. ConfigMaps with known hosts and authorities are read by name.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace

import aiohttp

from secret_manager_controller.controller.secrets import SECRET_TTL, SecretReader, parse_secret
from secret_manager_controller.errors import Reason, RetryableError
from secret_manager_controller.kube import LIST_CHUNK, SECRETS, KubeClient, KubeError, ResourcePath
from secret_manager_controller.sources.git.github import TOKEN_SECONDS, installation_token
from secret_manager_controller.sources.git.login import ArgoSecret, GitLogin, argo_login, login_of
from secret_manager_controller.sources.git.remote import Remote, check_host
from secret_manager_controller.sources.protocol import SecretReference, SourceReference

LABEL = "argocd.argoproj.io/secret-type"
SECRET_TYPES = ("repository", "repo-creds")
KNOWN_HOSTS = ("argocd-ssh-known-hosts-cm", "ssh_known_hosts")
AUTHORITIES = "argocd-tls-certs-cm"
CONFIG_MAPS = ResourcePath("", "v1", "configmaps")
MAX_TOKENS = 1024

Found = tuple[ArgoSecret, ...] | None


class GitLogins:
    """`Logins` of the cluster. What was read is used for a moment, as Secrets are.

    Args:
        kube: the API server.
        reader: reads Secrets by name.
        session: asks GitHub for tokens; closed by its owner.
        clock: seconds, monotonic.
        now: seconds since 1970.
    """

    def __init__(
        self,
        kube: KubeClient,
        reader: SecretReader,
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._reader = reader
        self._session = session
        self._clock = clock
        self._now = now
        self._secrets: dict[str, tuple[float, Found]] = {}
        self._maps: dict[tuple[str, str], tuple[float, Mapping[str, str]]] = {}
        self._tokens: dict[str, tuple[float, bytes]] = {}

    async def find(self, ref: SourceReference, remote: Remote, *, project: str) -> GitLogin:
        """Return the login to a repository; see `sources.argocd.Logins`."""
        if ref.git_credentials is not None:
            login = await self._named(ref.git_credentials)
        else:
            login = await self._argo(ref.namespace, remote, project)
        if login.github_app is not None:
            check_host(login.github_app.host, ref.git_hosts, of=f"the GitHub App's API for {ref.kind} {ref.name}")
            login = await self._with_token(login)
        if remote.scheme == "ssh" and login.known_hosts is None:
            name, key = KNOWN_HOSTS
            login = replace(login, known_hosts=await self._map_value(ref.namespace, name, key))
        if remote.scheme == "https" and login.ca is None:
            login = replace(login, ca=await self._map_value(ref.namespace, AUTHORITIES, remote.host))
        return login

    async def _named(self, reference: SecretReference) -> GitLogin:
        of = f"Secret {reference.namespace}/{reference.name}"
        unavailable = Reason.CREDENTIALS_UNAVAILABLE
        secret = await self._reader.read(reference.namespace, reference.name, unavailable=unavailable)
        if secret is None:
            message = f"{of} does not exist; create it, or correct spec.sourceRef.gitCredentials.secretName"
            raise RetryableError(unavailable, message)
        return login_of(secret.data, identity=f"{of}/{secret.identity}", of=of)

    async def _argo(self, namespace: str, remote: Remote, project: str) -> GitLogin:
        secrets = await self._argo_secrets(namespace)
        if secrets is not None:
            return argo_login(secrets, remote, project=project, namespace=namespace)
        # The repository may be public; if it is not, this is why there is no login.
        hint = (
            f"; the controller may not list Argo CD's Secrets in {namespace!r}: bind it to a Role there with `list` on "
            "Secrets, or name a Secret in spec.sourceRef.gitCredentials"
        )
        return GitLogin(hint=hint)

    async def _argo_secrets(self, namespace: str) -> Found:
        """Return Argo CD's Secrets of a namespace; None if they may not be listed."""
        read_at, found = self._secrets.get(namespace, (float("-inf"), None))
        if self._clock() - read_at < SECRET_TTL:
            return found
        try:
            found = tuple([parsed async for parsed in self._list(namespace)])
        except KubeError as error:
            if error.status != 403:
                message = f"cannot list Argo CD's Secrets in {namespace!r}: {error.message}"
                raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message) from error
            found = None
        self._secrets[namespace] = (self._clock(), found)
        return found

    async def _list(self, namespace: str) -> AsyncIterator[ArgoSecret]:
        selector = urllib.parse.quote(f"{LABEL} in ({','.join(SECRET_TYPES)})")
        token = ""
        while True:
            query = f"?labelSelector={selector}&limit={LIST_CHUNK}" + (f"&continue={token}" if token else "")
            page = await self._kube.get(SECRETS.url(namespace) + query) or {}
            for body in page.get("items") or ():
                parsed = parse_secret(body, unavailable=Reason.CREDENTIALS_UNAVAILABLE)
                metadata = body["metadata"]
                kind = metadata["labels"][LABEL]
                yield ArgoSecret(metadata["name"], kind, f"argocd/{namespace}/{parsed.identity}", parsed.data)
            token = page.get("metadata", {}).get("continue", "")
            if not token:
                return

    async def _map_value(self, namespace: str, name: str, key: str) -> bytes | None:
        """Return a ConfigMap's value; None where there is none, or where it may not be read."""
        read_at, data = self._maps.get((namespace, name), (float("-inf"), {}))
        if self._clock() - read_at >= SECRET_TTL:
            try:
                body = await self._kube.get(CONFIG_MAPS.url(namespace, name)) or {}
            except KubeError as error:
                if error.status != 403:
                    message = f"cannot read ConfigMap {namespace}/{name}: {error.message}"
                    raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message) from error
                body = {}
            data = body.get("data") or {}
            self._maps[(namespace, name)] = (self._clock(), data)
        value = data.get(key)
        return value.encode() if value and value.strip() else None

    async def _with_token(self, login: GitLogin) -> GitLogin:
        """Return a GitHub App's login with a token, which is asked for once and used for as long as it lives."""
        assert login.github_app is not None
        made_at, token = self._tokens.get(login.identity, (float("-inf"), b""))
        if self._clock() - made_at >= TOKEN_SECONDS:
            made_at = self._clock()
            fresh = await installation_token(self._session, login.github_app, now=self._now(), ca=login.ca)
            token = fresh.value
            while len(self._tokens) >= MAX_TOKENS:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[login.identity] = (made_at, token)
        return replace(login, username="x-access-token", password=token, bearer=None)
