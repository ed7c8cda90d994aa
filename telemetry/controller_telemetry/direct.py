"""HTTP to the one address that is named: no redirect, no proxy, no login of the environment."""

from __future__ import annotations

import functools
import ssl
from http import HTTPStatus
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH


class DirectSession(requests.Session):
    """Goes nowhere but to the address that it is given.

    Args:
        ca: certificates in PEM to trust in place of the public ones.
    """

    def __init__(self, ca: bytes | None = None) -> None:
        super().__init__()
        self.trust_env = False
        self.mount("https://", _TrustingAdapter(tls_context(ca)))

    def request(self, *args: Any, **options: Any) -> requests.Response:
        """Make a request; a redirect counts as a refusal, since it would take the headers elsewhere."""
        answer = super().request(*args, **{**options, "allow_redirects": False})
        if answer.is_redirect:
            answer.status_code = HTTPStatus.MISDIRECTED_REQUEST
        return answer


class _TrustingAdapter(HTTPAdapter):
    """Verifies by a context that is made once: by itself `requests` reads all authorities for each connection.

    That takes 20 ms, which matters where a backend's certificate is wrong and each try is another connection.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Let every connection use the context."""
        super().init_poolmanager(*args, **options, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Demand a certificate; whose is the context's to say."""
        del url, verify, cert
        conn.cert_reqs, conn.ca_certs, conn.ca_cert_dir = "CERT_REQUIRED", None, None


@functools.lru_cache(maxsize=64)
def tls_context(ca: bytes | None) -> ssl.SSLContext:
    """Return what verifies a server: by the given authority, or by the public ones. Who trusts the same shares it.

    Raises:
        ValueError: `ca` holds no certificates in PEM.
    """
    if ca is None:
        return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
    if not ca:
        raise ValueError("it is empty")  # The standard library would trust the public ones.
    try:
        return ssl.create_default_context(cadata=ca.decode("ascii"))
    except ssl.SSLError as error:
        raise ValueError("it holds no certificates in PEM") from error
