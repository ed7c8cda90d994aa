"""Plaintext types do not print, and the hashes that stand in for them tell parts apart."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.model.secret import HashKey, SecretValue, hash_ciphertext

CANARY = b"canary-7f3a"


def test_a_value_never_prints():
    value = SecretValue(CANARY)
    for text in (repr(value), str(value), f"{value}", f"{value!r:>40}", str([value]), str({"k": value})):
        assert "canary" not in text
    assert "canary" not in repr(HashKey(CANARY))


def test_a_value_is_neither_pickled_nor_hashed():
    with pytest.raises(TypeError, match="memory"):
        pickle.dumps(SecretValue(CANARY))
    with pytest.raises(TypeError, match="published"):
        hash(SecretValue(CANARY))


def test_values_compare_by_content():
    assert SecretValue(CANARY) == SecretValue(bytes(CANARY))
    assert SecretValue(CANARY) != SecretValue(CANARY + b"x")
    assert SecretValue(CANARY) != CANARY


PARTS = st.lists(st.binary(max_size=8), max_size=4)


@given(PARTS, PARTS)
def test_hashes_tell_the_boundaries_of_parts_apart(left, right):
    assert (hash_ciphertext(*left) == hash_ciphertext(*right)) == (left == right)
    key = HashKey(b"k" * 32)
    assert (key.of_plaintext(*left) == key.of_plaintext(*right)) == (left == right)


def test_a_plaintexts_hash_depends_on_the_key():
    assert HashKey(b"a" * 32).of_plaintext(b"low") != HashKey(b"b" * 32).of_plaintext(b"low")
    assert HashKey(b"a" * 32).of_plaintext(b"low") != hash_ciphertext(b"low")
