"""OpenPGP packets, against what GnuPG writes and what nobody should."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt import openpgp
from secret_manager_controller.decrypt.openpgp import MalformedError, Protection

KEYS = {
    "curve 25519": ("future-default", ()),
    "rsa": ("rsa2048", ("rsa2048", "encr")),
    "dsa and elgamal": ("dsa2048", ("elg1024", "encr")),
    "nist curve": ("nistp256", ("nistp256", "encr")),
}


def content(armored: bytes, block: str = openpgp.PRIVATE_KEY_BLOCK) -> bytes:
    (data,) = openpgp.dearmor(armored.decode(), block)
    return data


@pytest.mark.parametrize("name", KEYS)
def test_a_key_of_gnupg_is_read(gnupg: Any, name: str) -> None:
    algorithm, subkey = KEYS[name]
    address = f"{name.replace(' ', '.')}@example.test"
    fingerprint = gnupg.make(address, algorithm)
    if subkey:
        gnupg.run("--quick-add-key", fingerprint, *subkey, "never")
    (key,) = openpgp.secret_keys(content(gnupg.export(fingerprint)))
    assert fingerprint == key.fingerprint
    assert key.protections == {Protection.NONE}
    message = content(gnupg.encrypt(b"x", "-r", fingerprint).encode(), openpgp.MESSAGE_BLOCK)
    assert set(openpgp.recipients(message)) <= key.key_ids


def test_a_key_behind_a_passphrase_is_told(gnupg: Any) -> None:
    fingerprint = gnupg.make("locked@example.test", passphrase="open sesame")
    (key,) = openpgp.secret_keys(content(gnupg.export(fingerprint, passphrase="open sesame")))
    assert (key.key_ids, key.protections) == (frozenset(), {Protection.PASSPHRASE})


def test_a_primary_key_may_stay_at_home(gnupg: Any, fingerprint: str) -> None:
    (key,) = openpgp.secret_keys(content(gnupg.export(fingerprint, "--export-secret-subkeys")))
    assert fingerprint == key.fingerprint
    assert len(key.key_ids) == 1


DAY = 86_400


def test_a_key_that_never_expires_says_nothing(gnupg: Any, fingerprint: str) -> None:
    (key,) = openpgp.secret_keys(content(gnupg.export(fingerprint)))
    assert key.expires is None


@pytest.mark.parametrize(
    ("primary", "subkeys", "days"),
    [
        pytest.param("10d", ["never"], 10, id="primary"),
        pytest.param("never", ["20d"], 20, id="subkey"),
        pytest.param("30d", ["20d", "5d"], 20, id="the last subkey counts"),
        pytest.param("7d", ["20d"], 7, id="no subkey outlives the primary key"),
    ],
)
def test_expiry_is_when_nobody_can_encrypt_any_more(
    gnupg: Any, primary: str, subkeys: list[str], days: int, request: pytest.FixtureRequest
) -> None:
    name = f"{request.node.callspec.id.replace(' ', '.')}@example.test"
    gnupg.run("--quick-gen-key", name, "ed25519", "cert", primary, passphrase="")
    listing = gnupg.run("--list-keys", "--with-colons", f"={name}").decode().splitlines()
    fields = [line.split(":") for line in listing]
    fingerprint = next(field[9] for field in fields if field[0] == "fpr")
    for expiry in subkeys:
        gnupg.run("--quick-add-key", fingerprint, "cv25519", "encr", expiry, passphrase="")
    (key,) = openpgp.secret_keys(content(gnupg.export(fingerprint)))
    made = int(fields[1][5] if fields[0][0] == "tru" else fields[0][5])
    assert key.expires is not None
    assert abs(key.expires - made - days * DAY) < 60


def test_the_newest_signature_decides(gnupg: Any) -> None:
    """Whoever extends a key signs anew, and the old signature stays."""
    fingerprint = gnupg.make("extended@example.test")
    gnupg.run("--quick-set-expire", fingerprint, "3d")
    (before,) = openpgp.secret_keys(content(gnupg.export(fingerprint)))
    # A signature of the same second does not replace one; GnuPG waits or takes the next second by itself.
    gnupg.run("--quick-set-expire", fingerprint, "9d")
    (after,) = openpgp.secret_keys(content(gnupg.export(fingerprint)))
    assert before.expires is not None
    assert after.expires is not None
    assert round((after.expires - before.expires) / DAY) == 6


def test_several_keys_stand_in_one_block(gnupg: Any, fingerprint: str) -> None:
    other = gnupg.make("several@example.test")
    keys = openpgp.secret_keys(content(gnupg.run("--armor", "--export-secret-keys", fingerprint, other)))
    assert {fingerprint, other} == {key.fingerprint for key in keys}


def test_hidden_recipients_have_no_key_id(gnupg: Any, fingerprint: str) -> None:
    message = content(gnupg.encrypt(b"x", "-R", fingerprint).encode(), openpgp.MESSAGE_BLOCK)
    assert openpgp.recipients(message) == (openpgp.ANY_KEY_ID,)


def test_both_header_formats_are_read(gnupg: Any, fingerprint: str) -> None:
    (key,) = openpgp.secret_keys(content(gnupg.export(fingerprint)))
    assert [key] == openpgp.secret_keys(key.packets), "GnuPG wrote old headers, we write new ones"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("-----BEGIN PGP MESSAGE-----\n\nYWJj\n=abcd\n-----END PGP MESSAGE-----", [b"abc"]),
        ("-----BEGIN PGP MESSAGE-----\r\nVersion: 1\r\n\r\nYW\r\nJj\r\n-----END PGP MESSAGE-----\r\n", [b"abc"]),
        ("x\n  -----BEGIN PGP MESSAGE-----\nYWJj\n-----END PGP MESSAGE-----  \ny", [b"abc"]),
        ("-----BEGIN PGP MESSAGE-----\nYWJj\n", []),
        ("-----END PGP MESSAGE-----\n", []),
        ("-----BEGIN PGP SIGNATURE-----\n\nYWJj\n-----END PGP SIGNATURE-----", []),
        ("-----BEGIN PGP MESSAGE-----\n-----END PGP MESSAGE-----\n" * 2, [b"", b""]),
    ],
)
def test_armor(text: str, expected: list[bytes]) -> None:
    assert expected == openpgp.dearmor(text, openpgp.MESSAGE_BLOCK)


def test_broken_armor_is_refused() -> None:
    with pytest.raises(MalformedError) as caught:
        openpgp.dearmor("-----BEGIN PGP MESSAGE-----\n\nY*\n-----END PGP MESSAGE-----", openpgp.MESSAGE_BLOCK)
    assert caught.value.__context__ is None


def packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


RSA = b"\x04\0\0\0\0\x01" + b"\x00\x08\xff" * 2
SECRET = RSA + b"\0" + b"\x00\x08\xff" * 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "does not hold a secret key"),
        (b"plain text", "is not OpenPGP"),
        (packet(6, RSA), "does not hold a secret key"),
        (packet(13, b"name") + packet(5, SECRET), "does not hold a secret key"),
        (packet(5, SECRET)[:-2], "ends early"),
        (packet(5, b""), "version other than 4"),
        (packet(5, b"\x06" + SECRET[1:]), "version other than 4"),
        (packet(5, b"\x04\0\0\0\0\x63rest"), "unknown algorithm"),
        (packet(5, b"\x04\0\0\0\0"), "unknown algorithm"),
        (packet(5, RSA), "ends early"),
        (packet(5, b"\x04\0\0\0\0\x12\x08"), "ends early"),
        (packet(5, SECRET) + packet(6, RSA), "does not hold a secret key"),
        (packet(5, SECRET) + packet(13, b"") * 5000, "more than 4096 packets"),
    ],
    ids=range(13),
)
def test_what_is_no_secret_key(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        openpgp.secret_keys(data)


def test_a_subkey_of_an_unknown_algorithm_is_passed_over() -> None:
    (key,) = openpgp.secret_keys(packet(10, b"PGP") + packet(5, SECRET) + packet(7, b"\x04\0\0\0\0\x63future"))
    assert len(key.key_ids) == 1


def test_a_key_on_a_card_is_told() -> None:
    (key,) = openpgp.secret_keys(packet(5, RSA + b"\xff\x00\x65\x00GNU\x02"))
    assert key.protections == {Protection.ABSENT}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not encrypted for a PGP key"),
        (packet(3, b"password"), "is not encrypted for a PGP key"),
        (packet(1, b"\x06" + bytes(20)), "unknown version"),
        (packet(1, b"\x03"), "unknown version"),
        (b"\x01", "is not OpenPGP"),
    ],
    ids=range(5),
)
def test_what_is_no_message_for_a_key(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        openpgp.recipients(data)


@pytest.mark.parametrize(
    "length",
    [b"\xc1\x0d", b"\xc1\xff\0\0\0\x0d", b"\x84\x0d", b"\x85\x00\x0d", b"\x86\0\0\0\x0d", b"\x87", b"\xc1\xe4"],
)
def test_every_form_of_length_is_read(length: bytes) -> None:
    assert openpgp.recipients(length + b"\x03ABCDEFGH\x01" + bytes(3)) == (b"ABCDEFGH".hex().upper(),)


def test_a_length_of_two_octets_is_read() -> None:
    assert openpgp.recipients(b"\xc1\xc0\x01" + b"\x03ABCDEFGH" + bytes(184))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for parse in (openpgp.secret_keys, openpgp.recipients):
        try:
            parse(data)
        except MalformedError as error:
            assert base64.b64encode(data).decode() not in str(error) or not data
