"""Tokens as a kubelet projects them, signed with a key of the test servers' own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

TOKEN_KEY = b"secret-manager-controller test server"
"""Signs the tokens that `web_identity_token` makes. It opens nothing but a test server."""


class TokenError(ValueError):
    """A token that no issuer made: malformed, unsigned or forged."""


def web_identity_token(
    subject: str, *, audience: str, lifetime: float = 3600.0, issuer: str = "https://issuer.test"
) -> str:
    """Return a token as a kubelet projects it.

    Args:
        subject: e.g. `system:serviceaccount:tools:secret-manager-controller`.
        audience: what it is meant for.
        lifetime: seconds from now; a negative one makes a token that has expired.
        issuer: the cluster's OIDC issuer.
    """
    now = int(time.time())
    claims = {"iss": issuer, "sub": subject, "aud": [audience], "iat": now, "exp": now + lifetime}
    # The nonce makes two tokens of one second differ, as a kubelet's do.
    head = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode({**claims, 'jti': secrets.token_hex(8)})}"
    return f"{head}.{base64url(_sign(head))}"


def claims_of(token: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check a token's form and signature; return its claims, with `exp` as a number, and its audiences.

    A token of another algorithm than HS256 is taken for a real cluster's, whose issuer a test server cannot ask: its
    signature is not checked. Audience and expiry are for the caller to judge.

    Raises:
        TokenError: malformed, unsigned or forged.
    """
    try:
        head, body, signature = token.split(".")
        header, claims = decoded(head), decoded(body)
        algorithm, claims["exp"] = str(header["alg"]), float(claims["exp"])
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    except (ValueError, KeyError, TypeError):
        raise TokenError("it is no JWT") from None
    forged = algorithm == "HS256" and not hmac.compare_digest(base64url(_sign(f"{head}.{body}")), signature)
    if algorithm.lower() == "none" or not signature or forged:
        raise TokenError("its signature is wrong")
    return claims, tuple(audiences)


def decoded(part: str) -> dict[str, Any]:
    """Return the JSON object that is one part of a JWT.

    Raises:
        ValueError: it is none.
    """
    found = json.loads(from_base64url(part))
    if not isinstance(found, dict):
        raise ValueError("a part of a token is a JSON object")  # noqa: TRY004 - the caller knows one kind of error.
    return found


def from_base64url(part: str) -> bytes:
    """Decode as a JWT does, without padding.

    Raises:
        ValueError: it cannot be decoded.
    """
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def base64url(data: bytes) -> str:
    """Encode as a JWT does, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(head: str) -> bytes:
    return hmac.new(TOKEN_KEY, head.encode(), hashlib.sha256).digest()


def _encode(part: Mapping[str, Any]) -> str:
    return base64url(json.dumps(part).encode())
