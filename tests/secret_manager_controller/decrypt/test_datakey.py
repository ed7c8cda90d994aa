"""From recipients to a data key: order, cache, messages."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import pyrage
import pytest

from secret_manager_controller.decrypt import Decryptor, Format, KeyRing, age, openpgp, pgp
from secret_manager_controller.decrypt.datakey import MAX_GPG_RUNS, DataKeyCache, DataKeys, needed_of_kms
from secret_manager_controller.decrypt.metadata import Metadata, WrappedKey
from secret_manager_controller.decrypt.refusal import RefusedError
from secret_manager_controller.decrypt.rules import Rule
from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.secret import HashKey

KEY = bytes(range(32))


def metadata(*groups: list[WrappedKey], threshold: int = 1) -> Metadata:
    return Metadata(tuple(map(tuple, groups)), threshold, "mac", "time", mac_only_encrypted=False, rule=Rule({}))


def for_age(forge: Any, identity: Any, secret: bytes = KEY) -> WrappedKey:
    return WrappedKey("age", str(identity.to_public()), forge.wrapped(secret, identity))


@pytest.fixture
def keys() -> DataKeys:
    return DataKeys(gpg="gpg", cache_size=8)


def ring_of(*identities: Any) -> KeyRing:
    return KeyRing.parse(str(identity).encode() for identity in identities)


def refusal(keys: DataKeys, metadata: Metadata, ring: KeyRing) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        keys.unwrap(metadata, ring)
    assert caught.value.__context__ is None
    return caught.value


def test_any_recipient_of_a_group_will_do(keys: DataKeys, forge: Any, identities: list[Any]) -> None:
    file = metadata([for_age(forge, identity) for identity in identities])
    for identity in identities:
        assert keys.unwrap(file, ring_of(identity)) == KEY


def test_a_recipient_that_is_misnamed_will_do(keys: DataKeys, forge: Any, identity: Any) -> None:
    entry = WrappedKey("age", "age1someoneelse", forge.wrapped(KEY))
    assert keys.unwrap(metadata([entry]), ring_of(identity)) == KEY


def test_pgp_comes_after_age(
    keys: DataKeys,
    forge: Any,
    identity: Any,
    gnupg: Any,
    fingerprint: str,
    pgp_ring: KeyRing,
    no_gpg: Callable[[], None],
) -> None:
    wrapped = WrappedKey("pgp", fingerprint, gnupg.encrypt(KEY, "-r", fingerprint))
    assert keys.unwrap(metadata([wrapped]), pgp_ring) == KEY
    no_gpg()
    both = KeyRing(ring_of(identity).age, pgp_ring.pgp)
    assert keys.unwrap(metadata([WrappedKey("pgp", "x", "other"), for_age(forge, identity)]), both) == KEY


@pytest.fixture
def no_gpg(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what makes every further run of gpg fail the test."""

    def forbid(*_: Any, **__: Any) -> bytes:
        raise AssertionError("gpg was started")

    return lambda: monkeypatch.setattr(pgp, "unwrap", forbid)


def test_what_was_unwrapped_once_is_remembered(
    keys: DataKeys, gnupg: Any, fingerprint: str, pgp_ring: KeyRing, no_gpg: Callable[[], None]
) -> None:
    file = metadata([WrappedKey("pgp", fingerprint, gnupg.encrypt(KEY, "-r", fingerprint))])
    assert keys.unwrap(file, pgp_ring) == KEY
    no_gpg()
    assert keys.unwrap(file, pgp_ring) == KEY


def test_another_ring_gets_nothing_from_the_cache(keys: DataKeys, forge: Any, identities: list[Any]) -> None:
    file = metadata([for_age(forge, identities[0])])
    assert keys.unwrap(file, ring_of(identities[0])) == KEY
    assert "the keys here are age" in refusal(keys, file, ring_of(identities[1])).message


def test_a_forged_ring_of_the_same_id_gets_nothing_from_the_cache(
    keys: DataKeys, gnupg: Any, fingerprint: str, pgp_ring: KeyRing
) -> None:
    file = metadata([WrappedKey("pgp", fingerprint, gnupg.encrypt(KEY, "-r", fingerprint))])
    assert keys.unwrap(file, pgp_ring) == KEY
    (key,) = pgp_ring.pgp
    (forged,) = openpgp.secret_keys(key.packets.replace(key.packets[-40:], bytes(40)))
    forged_ring = KeyRing(pgp=(openpgp.SecretKey(b"", key.fingerprint, key.key_ids, forged.protections),))
    assert pgp_ring.id == forged_ring.id
    assert "does not decrypt" in refusal(keys, file, forged_ring).message


def test_the_cache_drops_what_was_not_used_longest() -> None:
    cache = DataKeyCache(2)
    cache.put("one", b"s", b"1")
    cache.put("two", b"s", b"2")
    assert cache.get("one", b"s") == b"1"
    cache.put("three", b"s", b"3")
    assert [cache.get(name, b"s") for name in ("one", "two", "three")] == [b"1", None, b"3"]
    assert cache.get("one", b"other") is None
    assert len(cache) == 2


def test_wrapped_keys_are_not_kept_in_the_cache(keys: DataKeys, forge: Any, identity: Any) -> None:
    entry = for_age(forge, identity)
    keys.unwrap(metadata([entry]), ring_of(identity))
    assert entry.wrapped not in repr(vars(keys._cache))


# Key groups


def test_key_groups_are_combined_at_the_threshold(sops: Any, identities: list[Any], hash_key: HashKey) -> None:
    groups = [{"age": [str(identity.to_public())]} for identity in identities]
    encrypted = sops.encrypt(b"a: secret\n", "yaml", {"key_groups": groups, "shamir_threshold": 2})
    for pair in (identities[:2], identities[1:], identities[::2], identities):
        document = Decryptor(hash_key).read(encrypted, format=Format.YAML, path="x", keys=ring_of(*pair))
        assert document.leaves[0].value.expose() == b"secret"
    with pytest.raises(PermanentError, match="2 of its 3 key groups are needed, and the keys here open 1"):
        Decryptor(hash_key).read(encrypted, format=Format.YAML, path="x", keys=ring_of(identities[0]))


def test_parts_that_do_not_fit_are_refused(keys: DataKeys, forge: Any, identity: Any) -> None:
    groups = [[for_age(forge, identity, secret)] for secret in (bytes(33), bytes(31))]
    assert "do not fit together" in refusal(keys, metadata(*groups, threshold=2), ring_of(identity)).message


# Messages


def test_without_any_key_the_file_can_wait(keys: DataKeys, forge: Any, identity: Any) -> None:
    refused = refusal(keys, metadata([for_age(forge, identity)]), KeyRing())
    assert refused.reason is Reason.KEY_UNAVAILABLE
    assert refused.retryable
    assert f"encrypted for age {identity.to_public()}, and there is no SOPS key" in refused.message


@pytest.mark.parametrize(
    ("kind", "recipient", "named"),
    [
        ("kms", "arn:aws:kms:eu-central-1:1:key/2", "AWS KMS arn:aws:kms:eu-central-1:1:key/2"),
        ("gcp_kms", "projects/p/…", "GCP KMS projects/p/…"),
        ("azure_kv", "https://v k", "Azure Key Vault https://v k"),
        ("hc_vault", "https://attacker k", "HashiCorp Vault https://attacker k"),
        ("future_kms", "", "future_kms"),
        ("age", "ssh-ed25519 AAAA", "age ssh-ed25519 AAAA (an SSH key)"),
        ("age", "age1pq1qqq", "age age1pq1qqq (a post-quantum key)"),
        ("age", "age1yubikey1qqq", "age age1yubikey1qqq (an age plug-in)"),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_recipients_that_nobody_here_can_be_are_named(
    keys: DataKeys, identity: Any, kind: str, recipient: str, named: str, empty: bool
) -> None:
    ring = KeyRing() if empty else ring_of(identity)
    refused = refusal(keys, metadata([WrappedKey(kind, recipient, "wrapped")]), ring)
    assert f"it is encrypted for {named}; this controller has age and PGP keys only" == refused.message
    assert (refused.reason, refused.retryable) == (Reason.DECRYPTION_FAILED, False)


def test_wrong_keys_are_named_on_both_sides(
    keys: DataKeys, forge: Any, identities: list[Any], pgp_ring: KeyRing
) -> None:
    file = metadata([for_age(forge, identities[0]), WrappedKey("pgp", "ABCD", "x"), WrappedKey("kms", "arn", "x")])
    ring = KeyRing(ring_of(identities[1]).age)
    message = refusal(keys, file, ring).message
    assert f"for age {identities[0].to_public()}, PGP ABCD, AWS KMS arn; " in message
    assert message.endswith(f"the keys here are age {identities[1].to_public()}")


def test_long_lists_are_cut(keys: DataKeys, identity: Any) -> None:
    entries = [WrappedKey("pgp", f"FP{number}", "x") for number in range(20)]
    message = refusal(keys, metadata(entries), ring_of(identity)).message
    assert "PGP FP5 and 14 more; " in message
    assert "FP6" not in message


def test_foreign_names_are_made_printable(keys: DataKeys, identity: Any) -> None:
    entry = WrappedKey("pgp", "\x1b[31m\n" + "x" * 5000, "x")
    message = refusal(keys, metadata([entry]), ring_of(identity)).message
    assert message.isprintable()
    assert len(message) < 500


def test_a_damaged_key_of_ours_is_told(keys: DataKeys, forge: Any, identity: Any, gnupg: Any, fingerprint: str) -> None:
    entry = for_age(forge, identity)
    damaged = WrappedKey("age", entry.recipient, entry.wrapped.replace("A", "B"))
    message = refusal(keys, metadata([damaged]), ring_of(identity)).message
    assert message == f"the data key for age {entry.recipient} does not decrypt: it was changed after it was encrypted"


@pytest.mark.parametrize(
    ("wrapped", "message"),
    [
        ("nonsense", "is no armored PGP message"),
        ("-----BEGIN PGP MESSAGE-----\n\nYWJj\n-----END PGP MESSAGE-----\n", "is no armored PGP message"),
        ("-----BEGIN PGP MESSAGE-----\n\n%\n-----END PGP MESSAGE-----\n", "is no armored PGP message"),
    ],
)
def test_a_damaged_pgp_message_is_told(keys: DataKeys, pgp_ring: KeyRing, wrapped: str, message: str) -> None:
    assert message in refusal(keys, metadata([WrappedKey("pgp", "ABCD", wrapped)]), pgp_ring).message


def test_a_pgp_message_for_others_starts_no_gpg(
    keys: DataKeys, gnupg: Any, pgp_ring: KeyRing, no_gpg: Callable[[], None]
) -> None:
    no_gpg()
    other = gnupg.make("datakey-other@example.test")
    file = metadata([WrappedKey("pgp", other, gnupg.encrypt(KEY, "-r", other))])
    assert f"encrypted for PGP {other}; the keys here are PGP" in refusal(keys, file, pgp_ring).message


def test_a_missing_gpg_is_told(gnupg: Any, fingerprint: str, pgp_ring: KeyRing) -> None:
    keys = DataKeys(gpg="/nonexistent/gpg", cache_size=8)
    file = metadata([WrappedKey("pgp", fingerprint, gnupg.encrypt(KEY, "-r", fingerprint))])
    assert "install GnuPG" in refusal(keys, file, pgp_ring).message


def test_gpg_is_started_a_few_times_only(
    keys: DataKeys, gnupg: Any, fingerprint: str, pgp_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[bytes] = []
    monkeypatch.setattr(pgp, "unwrap", lambda message, *_, **__: runs.append(message))
    wrapped = gnupg.encrypt(KEY, "-R", fingerprint)
    file = metadata([WrappedKey("pgp", fingerprint, wrapped + "\n" * number) for number in range(50)])
    refusal(keys, file, pgp_ring)
    assert len(runs) == MAX_GPG_RUNS


def test_no_file_opens_a_connection(keys: DataKeys, identity: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def forbid(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", forbid)
    kinds = ("kms", "gcp_kms", "azure_kv", "hc_vault", "hckms", "future")
    entries = [WrappedKey(kind, "https://attacker.test", "wrapped") for kind in kinds]
    refusal(keys, metadata(entries), ring_of(identity))


def test_age_kinds() -> None:
    assert age.kind_of(str(pyrage.x25519.Identity.generate().to_public())) is None


@pytest.mark.parametrize(
    "wrapped",
    [
        "",
        "nonsense",
        "-----BEGIN AGE ENCRYPTED FILE-----\n",
        "-----BEGIN AGE ENCRYPTED FILE-----\nYWJj\n-----END AGE ENCRYPTED FILE-----\n",
        "age-encryption.org/v1\n-> X25519 x\n",
        "\udfff".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_what_is_no_age_file_unwraps_to_nothing(wrapped: str, age_ring: KeyRing) -> None:
    assert age.unwrap(wrapped, age_ring.age) is None


def test_an_age_file_for_a_passphrase_unwraps_to_nothing(age_ring: KeyRing) -> None:
    assert age.unwrap(pyrage.passphrase.encrypt(KEY, "x").decode("latin-1"), age_ring.age) is None


def test_a_data_key_may_be_anything_but_used_as_one_only(forge: Any, refused: Any) -> None:
    file = forge.file({"a": "secret"}, age=[forge.age_entry(enc=forge.wrapped(os.urandom(16)))])
    error = refused(file)
    assert isinstance(error, PermanentError)
    assert not isinstance(error, RetryableError)
    assert "not one of AES-256" in error.message


# What a KMS is asked for.

KMS = WrappedKey("kms", "arn:aws:kms:eu-central-1:1:key/2", "wrapped by aws")
GCP = WrappedKey("gcp_kms", "projects/p/…", "wrapped by google")
PLUGIN = WrappedKey("future_kms", "", "wrapped by somebody")


def test_a_kms_is_needed_where_no_key_at_hand_is_named(forge: Any, identities: list[Any]) -> None:
    file = metadata([KMS, for_age(forge, identities[0]), GCP, PLUGIN])
    assert needed_of_kms(file, KeyRing()) == (KMS, GCP)
    assert needed_of_kms(file, ring_of(identities[1])) == (KMS, GCP)
    assert needed_of_kms(file, ring_of(identities[0])) == ()


def test_a_pgp_key_at_hand_is_known_by_each_of_its_names(pgp_ring: KeyRing, fingerprint: str) -> None:
    (key,) = pgp_ring.pgp
    for name in (fingerprint, fingerprint.lower(), "0" * 24 + next(iter(key.key_ids))):
        assert needed_of_kms(metadata([KMS, WrappedKey("pgp", name, "wrapped")]), pgp_ring) == ()


def test_of_key_groups_only_those_that_are_not_open_are_asked_for(forge: Any, identities: list[Any]) -> None:
    ours, theirs = (for_age(forge, identity) for identity in identities[:2])
    ring = ring_of(identities[0])
    assert needed_of_kms(metadata([ours, KMS], [theirs, GCP], threshold=2), ring) == (GCP,)
    assert needed_of_kms(metadata([ours], [theirs, GCP], threshold=1), ring) == ()


def test_what_a_kms_has_unwrapped_opens_the_file_without_any_other_key(keys: DataKeys) -> None:
    assert keys.unwrap(metadata([KMS, GCP]), KeyRing(data_keys={GCP.wrapped: KEY})) == KEY


def test_a_key_group_may_be_opened_by_a_kms(keys: DataKeys, forge: Any, identity: Any) -> None:
    parts = [KEY + bytes([at]) for at in (1, 2)]  # Shares of a line that is level.
    file = metadata([for_age(forge, identity, parts[0])], [KMS], threshold=2)
    ring = dataclasses.replace(ring_of(identity), data_keys={KMS.wrapped: parts[1]})
    assert keys.unwrap(file, ring) == KEY


def test_why_a_kms_did_not_is_told_for_the_recipients_of_the_file(keys: DataKeys) -> None:
    refused = {KMS.label: "is not allowed", "AWS KMS arn:another": "of another file"}
    error = refusal(keys, metadata([KMS, GCP]), KeyRing(refused=refused))
    assert error.message == (
        "it is encrypted for AWS KMS arn:aws:kms:eu-central-1:1:key/2, GCP KMS projects/p/…; "
        "AWS KMS arn:aws:kms:eu-central-1:1:key/2 is not allowed"
    )
    assert not error.retryable


def test_namespaces_that_may_not_be_read_are_told_where_there_is_no_key(
    keys: DataKeys, forge: Any, identity: Any
) -> None:
    error = refusal(keys, metadata([for_age(forge, identity)]), KeyRing(unreadable=("team-a",)))
    assert "it may not `get` the key Secrets of namespace 'team-a'" in error.message
    assert error.retryable
