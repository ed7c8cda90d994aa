"""The `sops` block: what is read, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from secret_manager_controller.decrypt.metadata import (
    MAX_RECIPIENTS,
    MAX_WRAPPED_KEY_CHARACTERS,
    Metadata,
    parse_metadata,
)
from secret_manager_controller.decrypt.refusal import RefusedError
from secret_manager_controller.errors import Reason

AGE = {"recipient": "age1one", "enc": "wrapped"}
BLOCK: dict[str, Any] = {"age": [AGE], "mac": "ENC[…]", "lastmodified": "2026-01-02T03:04:05Z", "version": "3.13.3"}


def parse(**fields: Any) -> Metadata:
    """Parse a right block with some fields changed; None removes one."""
    return parse_metadata({name: value for name, value in (BLOCK | fields).items() if value is not None})


def test_a_block_is_read() -> None:
    metadata = parse(pgp=[{"fp": "F00D", "enc": "pgp", "created_at": "…"}], mac_only_encrypted=True, kms=[])
    assert [(entry.kind, entry.recipient, entry.wrapped) for group in metadata.groups for entry in group] == [
        ("age", "age1one", "wrapped"),
        ("pgp", "F00D", "pgp"),
    ]
    assert metadata.threshold == 1
    assert metadata.mac_only_encrypted


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05,5+05:30", "2026-01-02T03:04:05+05:30"),
    ],
)
def test_the_time_is_authenticated_as_go_prints_it(written: str, expected: str) -> None:
    assert expected == parse(lastmodified=written).mac_data


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mac": None}, "no `mac`"),
        ({"mac": ""}, "no `mac`"),
        ({"mac": 5}, "`mac` in its SOPS metadata is not a string"),
        ({"lastmodified": None}, "not an RFC 3339 time"),
        ({"lastmodified": "yesterday"}, "not an RFC 3339 time"),
        ({"mac_only_encrypted": "perhaps"}, "neither true nor false"),
        ({"mac_only_encrypted": 1}, "neither true nor false"),
        ({"surprise": True}, "has `surprise`, which this controller does not know"),
        ({"MAC": "x"}, "has `MAC`, which"),
        ({"surprise": [{"no": "enc"}]}, "has `surprise`, which"),
        ({"age": "x"}, "`age` in its SOPS metadata is not a list"),
        ({"age": ["x"]}, "not a mapping"),
        ({"age": [{"recipient": "age1one"}]}, "has no `enc`"),
        ({"age": [{"enc": 5}]}, "has no `enc`"),
        ({"age": [{"enc": "x" * (MAX_WRAPPED_KEY_CHARACTERS + 1)}]}, "is longer than"),
        ({"age": [AGE] * (MAX_RECIPIENTS + 1)}, "more than 256 recipients"),
        ({"age": None}, "names no recipient"),
        ({"age": []}, "names no recipient"),
        ({"age": None, "key_groups": [{"age": [AGE]}, {}], "shamir_threshold": 2}, "no recipient in a key group"),
        ({"key_groups": [{"age": [AGE]}]}, "both recipients and `key_groups`"),
        ({"age": None, "key_groups": "x"}, "`key_groups` in its SOPS metadata is not a list"),
        ({"age": None, "key_groups": ["x"]}, "key group in its SOPS metadata is not a mapping"),
        ({"age": None, "key_groups": [{"age": [AGE], "odd": 1}]}, "key group in its SOPS metadata has `odd`"),
        ({"encrypted_regex": ["x"]}, "`encrypted_regex` in its SOPS metadata is not a string"),
        ({"encrypted_regex": "a", "encrypted_suffix": "b"}, "encrypted_suffix and encrypted_regex"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(**fields)
    assert message in caught.value.message
    assert caught.value.reason is Reason.INVALID_DOCUMENT


@pytest.mark.parametrize("threshold", [None, 0, 1, 4, True, "x", "1000", 2.0])
def test_a_threshold_that_the_groups_cannot_meet_is_refused(threshold: object) -> None:
    with pytest.raises(RefusedError, match="from 2 to its 3 key groups"):
        parse(age=None, key_groups=[{"age": [AGE]}] * 3, shamir_threshold=threshold)


@pytest.mark.parametrize("threshold", [2, "2", 3])
def test_key_groups_are_read(threshold: object) -> None:
    metadata = parse(age=None, key_groups=[{"age": [AGE], "hc_vault": []}] * 3, shamir_threshold=threshold)
    assert (3, int(str(threshold))) == (len(metadata.groups), metadata.threshold)


@pytest.mark.parametrize("block", [None, "", "x", [], 5])
def test_a_block_that_is_no_mapping_is_refused(block: Any) -> None:
    with pytest.raises(RefusedError, match="is not SOPS metadata"):
        parse_metadata(block)


@pytest.mark.parametrize(
    ("kind", "entry", "label"),
    [
        ("kms", {"arn": "arn:aws:kms:eu:1:key/2", "role": "evil"}, "AWS KMS arn:aws:kms:eu:1:key/2"),
        ("azure_kv", {"vault_url": "https://V/", "name": "K"}, "Azure Key Vault https://v/keys/K"),
        ("azure_kv", {"vault_url": "https://v", "name": "k", "version": "1"}, "Azure Key Vault https://v/keys/k/1"),
        ("age", {"recipient": "age1x"}, "age age1x"),
        ("acs_kms", {"arn": "x"}, "acs_kms"),
    ],
)
def test_recipients_are_named(kind: str, entry: dict[str, str], label: str) -> None:
    metadata = parse(**{"age": None, kind: [entry | {"enc": "x"}]})
    assert label == metadata.groups[0][0].label
