"""Reading private keys, and keeping them to oneself."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pyrage
import pytest

from secret_manager_controller.decrypt import KeyRing
from secret_manager_controller.errors import PermanentError, Reason


def secret() -> str:
    return str(pyrage.x25519.Identity.generate())


def test_kinds_are_told_apart_by_content(identity: Any, pgp_material: bytes, fingerprint: str) -> None:
    ring = KeyRing.parse([f"# created: today\n# public key: age1…\n\n{identity}\n".encode(), pgp_material])
    assert ring.public_names == (f"age {identity.to_public()}", f"PGP {fingerprint}")
    assert ring


def test_one_material_may_hold_several_of_both(identity: Any, pgp_material: bytes) -> None:
    ring = KeyRing.parse([f"{identity}\r\n{secret()}\r\n".encode() + pgp_material + str(identity).encode()])
    assert (len(ring.age), len(ring.pgp)) == (2, 1)


def test_no_material_makes_an_empty_ring() -> None:
    assert not KeyRing.parse([])
    assert KeyRing.parse([]).public_names == ()


BROKEN_BLOCK = b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n%s\n-----END PGP PRIVATE KEY BLOCK-----\n"


@pytest.mark.parametrize(
    ("material", "message"),
    [
        (b"", "holds no key; expected an armored PGP private key"),
        (b"# only\n# comments\n", "holds no key"),
        (b"hunter2", "is no key that this controller knows"),
        (b"AGE-SECRET-KEY-1NONSENSE", "has an age key that is damaged"),
        (b"age1qqqq", "is no key that this controller knows"),
        (b"AGE-SECRET-KEY-PQ-1ABC", "is a post-quantum age key, which this controller cannot use"),
        (b"AGE-PLUGIN-YUBIKEY-1ABC", "is an age plug-in's key"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nabc", "is an age key behind a passphrase"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nabc", "is an SSH key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "is a PGP public key; expected"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc", "has no `-----END PGP PRIVATE KEY BLOCK-----` line"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n" * 2, "begins a PGP block inside another"),
        (BROKEN_BLOCK % b"%", "has a PGP block that is not armored as OpenPGP says"),
        (BROKEN_BLOCK % b"YWJj", "has a PGP block that is not OpenPGP"),
        (b"\xff\xfe", "is not text"),
        (b"x" * (1 << 20) + b"x", "is larger than 1048576 bytes"),
    ],
    ids=range(16),
)
def test_what_is_no_usable_key_is_named(material: bytes, message: str) -> None:
    with pytest.raises(PermanentError) as caught:
        KeyRing.parse([secret().encode(), material])
    assert f"SOPS key 2 {message}" in caught.value.message
    assert caught.value.reason is Reason.KEY_UNAVAILABLE
    assert caught.value.__context__ is None
    for canary in ("hunter2", "NONSENSE", "abc"):
        assert canary not in caught.value.message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("locked", "is protected by a passphrase, which nobody can type here"),
        ("signing", "has no key that can decrypt; add an encryption subkey"),
        ("stub", "has no secret part: it is on a card"),
    ],
)
def test_a_pgp_key_that_cannot_decrypt_is_named(gnupg: Any, name: str, message: str) -> None:
    if name == "signing":
        gnupg.run("--quick-gen-key", "signing@example.test", "ed25519", "sign", "never")
        material = gnupg.export("signing@example.test")
    elif name == "locked":
        material = gnupg.export(gnupg.make("locked-ring@example.test", passphrase="x"), passphrase="x")
    else:
        fingerprint = gnupg.make("stub@example.test", "rsa2048")
        gnupg.run("--quick-add-key", fingerprint, "ed25519", "sign", "never")
        material = gnupg.export(fingerprint, "--export-secret-subkeys")
    with pytest.raises(PermanentError, match=message):
        KeyRing.parse([material])


def test_the_id_is_that_of_the_set(identity: Any, pgp_material: bytes) -> None:
    one, other = str(identity).encode(), secret().encode()
    ids = {KeyRing.parse(order).id for order in ([one, other, pgp_material], [pgp_material, other, one, one])}
    assert len(ids) == 1
    assert ids.isdisjoint({KeyRing.parse([one]).id, KeyRing.parse([other]).id, KeyRing().id})
    assert all(len(ring_id) == 32 for ring_id in ids)


def test_subkeys_of_one_key_add_up(gnupg: Any) -> None:
    fingerprint = gnupg.make("rotating@example.test")
    before = gnupg.export(fingerprint)
    gnupg.run("--quick-add-key", fingerprint, "cv25519", "encr", "never")
    after = gnupg.export(fingerprint)
    both = KeyRing.parse([before, after])
    assert len(both.pgp) == 2
    assert both.public_names == (f"PGP {fingerprint}",)
    assert KeyRing.parse([before]).id != KeyRing.parse([after]).id == both.id


def test_the_seal_needs_the_private_parts(pgp_material: bytes, pgp_ring: KeyRing) -> None:
    from secret_manager_controller.decrypt import openpgp

    (key,) = pgp_ring.pgp
    forged_packets = key.packets.replace(key.packets[-40:], bytes(40))
    (forged,) = openpgp.secret_keys(forged_packets)
    forged_ring = KeyRing(pgp=(forged,))
    assert pgp_ring.id == forged_ring.id, "the public parts are the same"
    assert pgp_ring.seal != forged_ring.seal
    assert pgp_ring.seal == KeyRing.parse([pgp_material]).seal


def test_private_keys_are_not_printed_pickled_or_compared_away(age_ring: KeyRing, pgp_ring: KeyRing) -> None:
    private = [age_ring.age[0].secret, pgp_ring.pgp[0].packets.hex()]
    for holder in (age_ring, pgp_ring, age_ring.age[0], pgp_ring.pgp[0]):
        for shown in (repr(holder), str(holder), f"{holder}"):
            assert not any(text in shown for text in private)
    for holder in (age_ring, age_ring.age[0]):
        with pytest.raises(TypeError):
            pickle.dumps(holder)
        with pytest.raises(TypeError):
            copy.copy(holder)


@pytest.mark.parametrize(
    ("days", "told"),
    [(-1, ["expired on 1999-12-31"]), (0, ["expired on 2000-01-01"]), (29, ["expires on 2000-01-30"]), (31, [])],
)
def test_keys_that_expire_are_told_a_month_ahead(pgp_ring: KeyRing, days: int, told: list[str]) -> None:
    now = 946_684_800.0  # 2000-01-01.
    (key,) = pgp_ring.pgp
    ring = KeyRing(pgp=(dataclasses.replace(key, expires=now + days * 86_400),))
    assert list(ring.expiring(now)) == [f"PGP key {key.fingerprint} {words}" for words in told]
    assert pgp_ring.expiring(now) == ()
