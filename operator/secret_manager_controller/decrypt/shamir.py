"""Shamir's secret sharing as HashiCorp Vault does it, which SOPS uses for key groups.

A share is as long as the secret plus one byte, its x coordinate; every byte of the secret is the
value at 0 of a polynomial over GF(2^8) with AES' modulus x^8 + x^4 + x^3 + x + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

_MODULUS = 0x11B


def _tables() -> tuple[list[int], list[int]]:
    powers, logarithms = [0] * 255, [0] * 256
    value = 1
    for exponent in range(255):
        powers[exponent] = value
        logarithms[value] = exponent
        value ^= value << 1  # Times x + 1, the generator.
        if value > 0xFF:
            value ^= _MODULUS
    return powers, logarithms


_POWERS, _LOGARITHMS = _tables()


def combine(shares: Sequence[bytes]) -> bytes | None:
    """Return the secret that at least a threshold of shares makes; fewer make some other bytes.

    Returns:
        The secret; None where these cannot be shares of one: fewer than two, of different lengths,
        or two with one x coordinate.
    """
    length = len(shares[0]) if shares else 0
    points = [share[-1] for share in shares if len(share) == length > 1]
    if len(shares) < 2 or len(set(points)) != len(shares) or 0 in points:
        return None
    weights = [_weight(points, index) for index in range(len(points))]
    secret = bytearray(length - 1)
    for share, weight in zip(shares, weights, strict=True):
        for index in range(length - 1):
            secret[index] ^= _multiply(share[index], weight)
    return bytes(secret)


def _weight(points: Sequence[int], own: int) -> int:
    """Return the share's Lagrange coefficient at 0."""
    exponent = 0
    for index, point in enumerate(points):
        if index != own:
            exponent += _LOGARITHMS[point] - _LOGARITHMS[point ^ points[own]]
    return _POWERS[exponent % 255]


def _multiply(left: int, right: int) -> int:
    if not left or not right:
        return 0
    return _POWERS[(_LOGARITHMS[left] + _LOGARITHMS[right]) % 255]
