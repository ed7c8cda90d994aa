"""Keys and certificates for servers on loopback, for tests and demos."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=365)  # Longer than any demo is left running.
CLOCK_SKEW = datetime.timedelta(hours=1)  # A certificate that begins now is refused by whoever's clock is behind.


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, from the first byte on."""
    path.unlink(missing_ok=True)  # An existing file would keep its mode.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def write_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key, write it as PEM for its owner's eyes only, and return it."""
    key = ec.generate_private_key(ec.SECP256R1())
    # SEC 1: kube-apiserver takes the public half of a service account key from this form, but not from PKCS #8.
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    write_private(path, key.private_bytes(encoding, form, serialization.NoEncryption()))
    return key


def write_serving_certificate(directory: Path, *, address: str, names: Sequence[str] = ()) -> None:
    """Write what a TLS server on an IP address needs, and what its clients need to trust it.

    Makes `server.key`, `server.crt` and `ca.crt`; the authority's key is forgotten, so that nothing else can be signed
    with it. The extensions are those that RFC 5280 demands and Python's VERIFY_X509_STRICT checks.

    Args:
        directory: an existing directory; files of these names in it are replaced.
        address: the server's IP address.
        names: host names that the server has as well; `*.` before one stands for any label.
    """
    authority_key = ec.generate_private_key(ec.SECP256R1())
    server_key = write_key(directory / "server.key")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback authority")])
    subjects: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address)), *map(x509.DNSName, names)]
    authority = (
        _builder(issuer=name, subject=name, key=authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        _builder(
            issuer=name,
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)]),
            key=server_key.public_key(),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(subjects), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    (directory / "server.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (directory / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))


def _builder(*, issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
