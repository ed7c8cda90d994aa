"""GitHub Apps: from an App's private key to a token for one installation, which lives for an hour.

https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app
"""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass, field

import aiohttp
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.sources.git.login import GithubApp

TIMEOUT = aiohttp.ClientTimeout(total=15)
TOKEN_SECONDS = 3000.0
"""Seconds for which a token is used: ten minutes less than it lives."""
_MAX_ANSWER = 64 * 2**10
_CLOCK_SKEW, _JWT_SECONDS = 60, 540  # GitHub allows ten minutes, and asks for a start in the past.


@dataclass(frozen=True, slots=True)
class InstallationToken:
    """A token that reads what the installation may read."""

    value: bytes = field(repr=False)


async def installation_token(
    session: aiohttp.ClientSession, app: GithubApp, *, now: float, ca: bytes | None = None
) -> InstallationToken:
    """Ask GitHub for a token. No redirect is followed, and nothing of the answer is shown.

    Args:
        session: shared; closed by its owner.
        app: the App and its installation.
        now: seconds since 1970.
        ca: the certificates that vouch for the server, instead of the system's.

    Raises:
        PermanentError: CredentialsUnavailable: the key is none, or GitHub refuses it.
        RetryableError: CredentialsUnavailable: GitHub did not answer.
    """
    url = f"{app.api}/app/installations/{app.installation}/access_tokens"
    headers = {
        "Authorization": f"Bearer {app_jwt(app, now=now).decode()}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    try:
        tls = True if ca is None else ssl.create_default_context(cadata=ca.decode("ascii"))
        async with session.post(url, headers=headers, allow_redirects=False, timeout=TIMEOUT, ssl=tls) as response:
            answer = await response.content.read(_MAX_ANSWER)
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        message = "GitHub's API did not answer the login of the GitHub App"
        raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message) from None
    except (ssl.SSLError, ValueError):
        message = "the CA certificates in the login's Secret are no PEM certificates"
        raise PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message) from None
    if status >= 500 or status == 429:
        message = f"GitHub's API answered {status} to the login of the GitHub App"
        raise RetryableError(Reason.CREDENTIALS_UNAVAILABLE, message)
    token = _token_in(answer) if status == 201 else None
    if token is None:
        raise PermanentError(
            Reason.CREDENTIALS_UNAVAILABLE,
            f"GitHub's API answered {status} to the login of the GitHub App; look at githubAppID, "
            "githubAppInstallationID and githubAppPrivateKey in the login's Secret",
        )
    return InstallationToken(token)


def app_jwt(app: GithubApp, *, now: float) -> bytes:
    """Return the App's own login, an RS256 JSON Web Token (RFC 7519) for some minutes.

    Raises:
        PermanentError: CredentialsUnavailable: the key is no RSA key.
    """
    try:
        key = load_pem_private_key(app.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        message = "githubAppPrivateKey in the login's Secret is no RSA key in PEM without a passphrase"
        raise PermanentError(Reason.CREDENTIALS_UNAVAILABLE, message) from None
    claims = {"iat": int(now) - _CLOCK_SKEW, "exp": int(now) + _JWT_SECONDS, "iss": app.app}
    signed = _encoded({"alg": "RS256", "typ": "JWT"}) + b"." + _encoded(claims)
    return signed + b"." + _base64url(key.sign(signed, padding.PKCS1v15(), hashes.SHA256()))


def _token_in(answer: bytes) -> bytes | None:
    try:
        token = json.loads(answer)["token"]
    except (ValueError, KeyError, TypeError):
        return None
    usable = isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
    return token.encode() if usable else None


def _encoded(document: dict[str, object]) -> bytes:
    return _base64url(json.dumps(document, separators=(",", ":")).encode())


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
