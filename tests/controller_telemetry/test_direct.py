"""Who trusts the same authority shares what verifies by it."""

import ssl
from pathlib import Path

import pytest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from controller_telemetry.direct import DirectSession, tls_context


def test_the_public_authorities_are_read_once():
    assert tls_context(None) is tls_context(None)
    assert tls_context(None).verify_mode is ssl.CERT_REQUIRED


def test_an_authority_of_its_own_is_trusted_alone_and_names_are_checked():
    end = "-----END CERTIFICATE-----\n"
    first = Path(DEFAULT_CA_BUNDLE_PATH).read_text().partition(end)[0] + end
    context = tls_context(first.encode())
    assert (len(context.get_ca_certs()), context.check_hostname) == (1, True)
    assert tls_context(first.encode()) is context


@pytest.mark.parametrize("ca", [b"", b"\n", b"canary", "ä".encode()], ids=str)
def test_what_is_no_certificate_is_an_error_and_never_the_public_ones(ca):
    with pytest.raises(ValueError, match=r"empty|no certificates|ascii"):
        tls_context(ca)


def test_the_environment_has_no_say():
    assert DirectSession().trust_env is False
