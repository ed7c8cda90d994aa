"""Shares against a sharing of our own; the differential test has the real one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secret_manager_controller.decrypt.shamir import combine


def times(left: int, right: int) -> int:
    """Multiply in GF(2^8) by shifting and adding, unlike the code under test."""
    product = 0
    while right:
        product ^= left if right & 1 else 0
        left = (left << 1) ^ (0x11B if left & 0x80 else 0)
        right >>= 1
    return product


def split(secret: bytes, shares: int, threshold: int, seed: int) -> list[bytes]:
    source = random.Random(seed)
    polynomials = [[byte, *(source.randrange(256) for _ in range(threshold - 1))] for byte in secret]
    points = source.sample(range(1, 256), shares)

    def value(polynomial: list[int], x: int) -> int:
        result = 0
        for coefficient in reversed(polynomial):
            result = times(result, x) ^ coefficient
        return result

    return [bytes([*(value(polynomial, x) for polynomial in polynomials), x]) for x in points]


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40), st.data(), st.integers(2, 8))
def test_any_threshold_of_shares_makes_the_secret(secret: bytes, data: st.DataObject, threshold: int) -> None:
    shares = split(secret, data.draw(st.integers(threshold, 12)), threshold, data.draw(st.integers()))
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(threshold, len(shares)))]
    assert secret == combine(chosen)


def test_fewer_shares_make_something_else() -> None:
    assert combine(split(bytes(32), 5, 3, 1)[:2]) not in (None, bytes(32))


@pytest.mark.parametrize(
    "shares",
    [[], [b"ab"], [b"ab", b"abc"], [b"a", b"b"], [b"", b""], [b"ax", b"bx"], [b"a\0", b"bx"]],
    ids=["none", "one", "lengths", "no secret", "empty", "one point twice", "the point of the secret"],
)
def test_what_cannot_be_shares(shares: list[bytes]) -> None:
    assert combine(shares) is None
