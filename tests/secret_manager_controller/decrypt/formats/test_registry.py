"""Telling a SOPS file's format by its content."""

from __future__ import annotations

import pytest

from secret_manager_controller.decrypt import MAX_FILE_BYTES, Format, sops_container


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"data": "ENC[AES256_GCM,", "sops": {"mac": "m"}}', Format.BINARY),
        (b'\n{"sops": {"mac": "m"}, "data": "ENC["}', Format.BINARY),
        (b'{"a": "ENC[", "sops": {"mac": "m"}}', Format.JSON),
        (b'{"data": "x", "sops": "no"}', None),
        (b'{"data": "x"}', None),
        (b'{"sops": ', None),
        (b"A=b\nsops_mac=ENC[AES256_GCM,\n", Format.DOTENV),
        (b"sops_lastmodified=x\nA=ENC[AES256_GCM,", Format.DOTENV),
        (b"[s]\na = b\n[sops]\nmac = ENC[AES256_GCM,\n", Format.INI),
        (b"a: b\nsops:\n    mac: ENC[AES256_GCM,\n", Format.YAML),
        (b'"sops": {mac: "ENC[AES256_GCM,"}\na: 1', Format.YAML),
        (b"a: 1\n", None),
        (b"sops: see the handbook\n", None),
        (b"text about\n  sops:\n mac", None),
        (b"", None),
        (b"\xff\x00", None),
        (b"database.password=x\n", None),
        (b"sops_mac=ENC[AES256_GCM,\n" + b"#" * MAX_FILE_BYTES, None),
    ],
    ids=range(18),
)
def test_a_container_is_told_by_its_metadata(data: bytes, expected: Format | None) -> None:
    assert expected is sops_container(data)
