"""The `sops` block of a file: who it is encrypted for, its MAC and its rule.

Source: stores/stores.go and stores/metadata.go of getsops/sops. Whatever this version of the
controller does not know is refused by name: a field that is ignored could change what the file
means. The exception are unknown kinds of recipients, which no key here can be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.decrypt.refusal import invalid
from secret_manager_controller.decrypt.rules import RULE_FIELDS, Rule
from secret_manager_controller.decrypt.scalars import Node
from secret_manager_controller.errors import foreign

METADATA_KEY = "sops"
FLAT_PREFIX = "sops_"

MAX_RECIPIENTS = 256
"""The most entries in one file, over all key groups; each may cost an attempt to unwrap."""

MAX_WRAPPED_KEY_CHARACTERS = 16 << 10
"""The longest wrapped data key; one for RSA with 16,384 bits has 3 KiB."""

_RECIPIENT_KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "age": ("age", ("recipient",)),
    "pgp": ("PGP", ("fp",)),
    "kms": ("AWS KMS", ("arn",)),
    "gcp_kms": ("GCP KMS", ("resource_id",)),
    "azure_kv": ("Azure Key Vault", ("vault_url", "name", "version")),
    "hc_vault": ("HashiCorp Vault", ("vault_address", "engine_path", "key_name")),
    "hckms": ("Huawei Cloud KMS", ("key_id",)),
}
"""Field of the metadata → what people call the service, and the fields that identify a key."""

_CONTEXT = ("context", "created_at")
"""Fields of an entry that are read by themselves, or say nothing that counts."""

_OTHER_FIELDS = frozenset(
    {"lastmodified", "mac", "version", "mac_only_encrypted", "shamir_threshold", "key_groups"}
    # sops 1.x, written in Python, put a sentence for people there.
    | {"attention"}
) | frozenset(RULE_FIELDS)

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,]\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key, or a share of one, encrypted for one recipient.

    Attributes:
        kind: the metadata's field, e.g. `age`.
        recipient: what the file says whom it is for; not authenticated.
        wrapped: the ciphertext; armored for age and PGP.
        details: every other field that the entry has, by name; what is no text is told as `?`.
        context: AWS' encryption context.
    """

    kind: str
    recipient: str
    wrapped: str
    details: tuple[tuple[str, str], ...] = ()
    context: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """Return kind and recipient for a message."""
        service = _RECIPIENT_KINDS[self.kind][0] if self.kind in _RECIPIENT_KINDS else self.kind
        return foreign(f"{service} {self.recipient}".strip())


@dataclass(frozen=True, slots=True)
class Metadata:
    """A file's `sops` block.

    Attributes:
        groups: the key groups; any one entry of a group unwraps the group's part.
        threshold: how many groups' parts make the data key; 1 where there is one group.
        mac: the encrypted authentication code, never empty.
        mac_data: the additional data of that code.
        mac_only_encrypted: whether the code covers encrypted values only.
        rule: which values are encrypted.
    """

    groups: tuple[tuple[WrappedKey, ...], ...]
    threshold: int
    mac: str
    mac_data: str
    mac_only_encrypted: bool
    rule: Rule


def parse_metadata(block: Node) -> Metadata:
    """Read a `sops` block, nested as in YAML and JSON.

    Raises:
        RefusedError: it is no such block, lacks something, or has something unknown.
    """
    if not isinstance(block, dict):
        raise invalid("its key `sops` is not SOPS metadata, and SOPS reserves that name")
    for name, value in block.items():
        if not (name in _OTHER_FIELDS or name in _RECIPIENT_KINDS or _is_recipients(value)):
            raise invalid(f"its SOPS metadata has `{foreign(name)}`, which this controller does not know")
    texts = {name: _text(block, name) for name in ("mac", "lastmodified", "version", *RULE_FIELDS)}
    if not texts["mac"]:
        raise invalid("its SOPS metadata has no `mac`, so nobody can tell whether it was changed")
    groups = _groups(block)
    return Metadata(
        groups=groups,
        threshold=_threshold(block, len(groups)),
        mac=texts["mac"],
        mac_data=_mac_data(texts["lastmodified"]),
        mac_only_encrypted=_flag(block, "mac_only_encrypted"),
        rule=Rule(texts),
    )


def _text(block: Mapping[str, Node], name: str) -> str:
    value = block.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid(f"`{name}` in its SOPS metadata is not a string")
    return value


def _flag(block: Mapping[str, Node], name: str) -> bool:
    value = block.get(name)
    if isinstance(value, str):  # dotenv and INI have strings only.
        value = {"true": True, "false": False, "": False}.get(value.lower(), value)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise invalid(f"`{name}` in its SOPS metadata is neither true nor false")


def _mac_data(lastmodified: str) -> str:
    """Return the time as Go prints it after it has read it: whole seconds, `Z` for UTC."""
    match = _RFC3339.fullmatch(lastmodified)
    if match is None:
        raise invalid("`lastmodified` in its SOPS metadata is not an RFC 3339 time")
    seconds, zone = match.groups()
    return seconds + ("Z" if zone[1:] in ("", "00:00") else zone)


def _groups(block: Mapping[str, Node]) -> tuple[tuple[WrappedKey, ...], ...]:
    flat = _group(block)
    nested = block.get("key_groups")
    if nested is None or nested == []:
        groups = [flat] if flat else []
    elif flat:
        raise invalid("its SOPS metadata has both recipients and `key_groups`")
    elif isinstance(nested, list):
        groups = [_nested_group(group) for group in nested]
    else:
        raise invalid("`key_groups` in its SOPS metadata is not a list")
    if not groups or not all(groups):
        raise invalid("its SOPS metadata names no recipient" + (" in a key group" if groups else ""))
    if sum(map(len, groups)) > MAX_RECIPIENTS:
        raise invalid(f"its SOPS metadata has more than {MAX_RECIPIENTS} recipients")
    return tuple(groups)


def _nested_group(group: Node) -> tuple[WrappedKey, ...]:
    if not isinstance(group, dict):
        raise invalid("a key group in its SOPS metadata is not a mapping")
    for name, value in group.items():
        if not (name in _RECIPIENT_KINDS or _is_recipients(value)):
            raise invalid(
                f"a key group in its SOPS metadata has `{foreign(name)}`, which this controller does not know"
            )
    return _group(group)


def _is_recipients(value: Node) -> bool:
    """Tell whether a field that is not known has the form of a list of recipients."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(entry, dict) and "enc" in entry for entry in value)
    )


def _group(block: Mapping[str, Node]) -> tuple[WrappedKey, ...]:
    entries = []
    for kind, values in block.items():
        if kind in _OTHER_FIELDS or values is None:
            continue
        if not isinstance(values, list):
            raise invalid(f"`{foreign(kind)}` in its SOPS metadata is not a list")
        entries += [_entry(kind, value) for value in values]
    return tuple(entries)


def _entry(kind: str, entry: Node) -> WrappedKey:
    if not isinstance(entry, dict):
        raise invalid(f"an entry of `{foreign(kind)}` in its SOPS metadata is not a mapping")
    wrapped = entry.get("enc")
    if not isinstance(wrapped, str) or not wrapped:
        raise invalid(f"an entry of `{foreign(kind)}` in its SOPS metadata has no `enc`")
    if len(wrapped) > MAX_WRAPPED_KEY_CHARACTERS:
        raise invalid(
            f"an entry of `{foreign(kind)}` in its SOPS metadata is longer than {MAX_WRAPPED_KEY_CHARACTERS} characters"
        )
    fields = _RECIPIENT_KINDS[kind][1] if kind in _RECIPIENT_KINDS else ()
    names = [name if isinstance(name, str) else "" for name in map(entry.get, fields)]
    return WrappedKey(
        kind,
        _azure_key(*names) if kind == "azure_kv" else " ".join(filter(None, names)),
        wrapped,
        details=_texts({name: value for name, value in entry.items() if name not in {"enc", *fields, *_CONTEXT}}),
        context=_texts(entry.get("context")),
    )


def _azure_key(vault: str, name: str, version: str) -> str:
    """Return the id of a key that is named in parts; hosts have no case."""
    return f"{vault.rstrip('/').lower()}/keys/{name}/{version}".rstrip("/")


def _texts(fields: Node) -> tuple[tuple[str, str], ...]:
    """Return what a mapping's fields say; what is empty says nothing."""
    pairs = fields.items() if isinstance(fields, dict) else [("context", "?")] if fields else []
    return tuple((name, value if isinstance(value, str) else "?") for name, value in pairs if value)


def _threshold(block: Mapping[str, Node], groups: int) -> int:
    if groups == 1:
        return 1  # sops ignores the field then, and writes the whole data key to each recipient.
    value = block.get("shamir_threshold")
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= groups:
        raise invalid(f"`shamir_threshold` in its SOPS metadata is not a number from 2 to its {groups} key groups")
    return value
