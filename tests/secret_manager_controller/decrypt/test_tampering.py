"""Every way to change an encrypted file: what sops refuses we refuse, and a few things more."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from secret_manager_controller.decrypt import Decryptor, Format, KeyRing
from secret_manager_controller.errors import PermanentError
from secret_manager_controller.model.secret import HashKey

pytestmark = pytest.mark.real

WORKERS = 4

Tree = dict[str, Any]
Change = Callable[[Tree, Tree], object]

PLAIN: Tree = {
    "first": "alpha",
    "second": "beta",
    "note_unencrypted": "read me",
    "more_unencrypted": "and me",
    "empty": "",
}
NESTED: Tree = {"a": {"b": "one", "c": 2, "d": [True, "x", "y"]}, "z": {"b": "two"}}

STRICTER = {
    "text behind a value",
    "unknown field of the metadata",
    "value encrypted where the rule says it is readable",
}
"""What sops takes and we do not."""

STRICTER_IN_BINARY = {"empty key added", "null added"}
"""The same, in binary files: `data` is the only key there."""

ALIKE_FOR_SOPS = {
    "empty key added": "an empty string is not authenticated",
    "null added": "a null is not authenticated",
    "readable key renamed": "the MAC covers no keys",
    "bytes moved between readable values": "the MAC covers no boundaries",
    "suffix changed": "no key of a binary file has either",
    "time spelled otherwise": "it is the same time",
    "recipient renamed": "what counts is who can unwrap",
    "item added as a comment": "comments are not authenticated",
    "readable key emptied into its neighbour": "the MAC covers no boundaries",
}
"""What neither can tell, and why: SOPS keeps values secret and does not say who wrote them."""


def flip(text: str, part: str) -> str:
    """Flip one bit of a part of a SOPS value."""

    def flipped(match: re.Match[str]) -> str:
        data = bytearray(base64.b64decode(match.group(2)))
        data[-1] ^= 1
        return match.group(1) + base64.b64encode(data).decode()

    return re.sub(rf"({part}:)([A-Za-z0-9+/=]+)", flipped, text, count=1)


def leaf(tree: Tree, key: str = "first") -> tuple[Tree, str]:
    """Return the mapping that has an encrypted value, and its key: wherever the format has put it."""
    if key in tree:
        return tree, key
    inner = next(iter(tree.values())) if isinstance(next(iter(tree.values())), dict) else tree
    return (inner, key) if key in inner else (tree, next(iter(tree)))


def edit(key: str, change: Callable[[str], str]) -> Change:
    def apply(tree: Tree, _: Tree) -> None:
        mapping, found = leaf(tree, key)
        mapping[found] = change(mapping[found])

    return apply


def swap(tree: Tree, _: Tree) -> None:
    mapping, first = leaf(tree)
    if "second" in mapping:
        mapping[first], mapping["second"] = mapping["second"], mapping[first]


def rename(old: str, new: str) -> Change:
    def apply(tree: Tree, _: Tree) -> None:
        mapping, _found = leaf(tree, old)
        if old in mapping:
            items = [(new if key == old else key, value) for key, value in mapping.items()]
            mapping.clear()
            mapping.update(items)

    return apply


def move_bytes(tree: Tree, _: Tree) -> None:
    mapping, _found = leaf(tree, "note_unencrypted")
    if "note_unencrypted" in mapping:
        mapping["note_unencrypted"] += mapping["more_unencrypted"][0]
        mapping["more_unencrypted"] = mapping["more_unencrypted"][1:]


def empty_into(tree: Tree, _: Tree) -> None:
    mapping, _found = leaf(tree, "note_unencrypted")
    if "note_unencrypted" in mapping:
        mapping["note_unencrypted"] += mapping["more_unencrypted"]
        mapping["more_unencrypted"] = ""


def put(key: str, value: Any) -> Change:
    return lambda tree, _: leaf(tree)[0].__setitem__(key, value)


def drop(key: str) -> Change:
    return lambda tree, _: leaf(tree, key)[0].pop(key, None)


def meta(name: str, value: Any) -> Change:
    return lambda _, metadata: metadata.__setitem__(name, value)


def meta_edit(name: str, change: Callable[[str], str]) -> Change:
    return lambda _, metadata: metadata.__setitem__(name, change(metadata[name]))


def wrapped(change: Callable[[Tree, str], object], field: str = "enc") -> Change:
    """Change a field of the only recipient, nested or flat."""

    def apply(_: Tree, metadata: Tree) -> None:
        if "age" in metadata:
            change(metadata["age"][0], field)
        else:
            change(metadata, f"age__list_0__map_{field}")

    return apply


def in_list(change: Callable[[list[Any]], object]) -> Change:
    def apply(tree: Tree, _: Tree) -> None:
        if "a" in tree:
            change(tree["a"]["d"])

    return apply


CHANGES: dict[str, Change] = {
    "mac gone": lambda _, metadata: metadata.pop("mac"),
    "mac empty": meta("mac", ""),
    "mac flipped": meta_edit("mac", lambda mac: flip(mac, "data")),
    "mac of another kind": meta_edit("mac", lambda mac: mac.replace("type:str", "type:bytes")),
    "mac in the clear": meta("mac", "A" * 128),
    "mac is a value": lambda tree, metadata: metadata.__setitem__("mac", leaf(tree)[0][leaf(tree)[1]]),
    "time moved": meta("lastmodified", "2020-01-01T00:00:00Z"),
    "time spelled otherwise": meta_edit("lastmodified", lambda time: time.replace("Z", ".5+00:00")),
    "time gone": lambda _, metadata: metadata.pop("lastmodified"),
    "mac kind set": meta("mac_only_encrypted", True),
    "suffix changed": meta("unencrypted_suffix", "_plain"),
    "second rule": meta("encrypted_regex", "^first$"),
    "other rule": lambda _, metadata: metadata.update(unencrypted_suffix="", encrypted_regex="^none$"),
    "unknown field of the metadata": meta("surprise", "yes"),
    "recipients gone": lambda _, metadata: [metadata.pop(key) for key in list(metadata) if key.startswith("age")],
    "wrapped key damaged": wrapped(lambda entry, field: entry.__setitem__(field, entry[field].replace("A", "B"))),
    "recipient renamed": wrapped(lambda entry, field: entry.__setitem__(field, "age1other"), "recipient"),
    "data flipped": edit("first", lambda value: flip(value, "data")),
    "nonce flipped": edit("first", lambda value: flip(value, "iv")),
    "tag flipped": edit("first", lambda value: flip(value, "tag")),
    "type changed to int": edit("first", lambda value: value.replace("type:str", "type:int")),
    "type changed to bytes": edit("first", lambda value: value.replace("type:str", "type:bytes")),
    "type changed to comment": edit("first", lambda value: value.replace("type:str", "type:comment")),
    "type unknown": edit("first", lambda value: value.replace("type:str", "type:strange")),
    "text behind a value": edit("first", lambda value: f"{value} and more"),
    "value in the clear": edit("first", lambda _: "intruder"),
    "value cut": edit("first", lambda value: value[:-1]),
    "value emptied": edit("first", lambda _: ""),
    "value gone": lambda tree, _: leaf(tree)[0].pop(leaf(tree)[1]),
    "key renamed": rename("first", "third"),
    "values swapped": swap,
    "plaintext key added": put("new", "intruder"),
    "readable key added": put("new_unencrypted", "intruder"),
    "empty key added": put("new", ""),
    "readable value changed": edit("note_unencrypted", lambda _: "read it"),
    "readable key renamed": rename("note_unencrypted", "other_unencrypted"),
    "readable key dropped": drop("note_unencrypted"),
    "bytes moved between readable values": move_bytes,
    "readable key emptied into its neighbour": empty_into,
    "value encrypted where the rule says it is readable": lambda tree, _: leaf(tree, "note_unencrypted")[0].update(
        {"copy_unencrypted": leaf(tree)[0][leaf(tree)[1]]}
    ),
    "null added": put("new", None),
    "items swapped": in_list(lambda items: items.reverse()),
    "item gone": in_list(lambda items: items.pop()),
    "number added": put("new", 5),
    "item added as a comment": in_list(lambda items: items.append(items[-1].replace("type:str", "type:comment"))),
}

# Formats


def load(kind: Format, data: bytes) -> tuple[Tree, Tree]:
    """Return the tree and the metadata of an encrypted file."""
    if kind is Format.DOTENV:
        pairs = dict(line.split("=", 1) for line in data.decode().split("\n") if line)
        metadata = {key.removeprefix("sops_"): value for key, value in pairs.items() if key.startswith("sops_")}
        return {key: value for key, value in pairs.items() if not key.startswith("sops_")}, metadata
    if kind is Format.INI:
        tree: Tree = {}
        for line in filter(None, data.decode().split("\n")):
            if line.startswith("["):
                section = tree.setdefault(line.strip("[]"), {})
            else:
                key, value = re.split(r" += ", line, maxsplit=1)
                section[key] = value
        return tree, tree.pop("sops")
    tree = yaml.safe_load(data) if kind is Format.YAML else json.loads(data)
    return tree, tree.pop("sops")


def dump(kind: Format, tree: Tree, metadata: Tree) -> bytes:
    """Return the file that has a tree and metadata."""
    if kind is Format.DOTENV:
        items = [*tree.items(), *((f"sops_{key}", value) for key, value in metadata.items())]
        return "".join(f"{key}={_text(value)}\n" for key, value in items).encode()
    if kind is Format.INI:
        lines = []
        for section, values in {**tree, "sops": metadata}.items():
            lines += [f"[{section}]", *(f"{key} = {_text(value)}" for key, value in values.items())]
        return "\n".join(lines).encode()
    whole = {**tree, "sops": metadata}
    if kind is Format.YAML:
        return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=1 << 30).encode()
    return json.dumps(whole).encode()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


FILES = {
    "yaml": (Format.YAML, PLAIN | NESTED),
    "json": (Format.JSON, PLAIN | NESTED),
    "dotenv": (Format.DOTENV, PLAIN),
    "ini": (Format.INI, {"s": PLAIN}),
    "binary": (Format.BINARY, {}),
}


def plain_file(kind: Format, tree: Tree) -> bytes:
    if kind is Format.YAML:
        return yaml.safe_dump(tree, sort_keys=False).encode()
    if kind is Format.JSON:
        return json.dumps(tree).encode()
    if kind is Format.BINARY:
        return b"binary \x00 content"
    lines = [f"{key}={value}" for key, value in (tree if kind is Format.DOTENV else tree["s"]).items()]
    return "\n".join(["[s]", *lines] if kind is Format.INI else lines).encode()


def variants(kind: Format, encrypted: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield every change that makes a difference in a format."""
    tree, metadata = load(kind, encrypted)
    unchanged = dump(kind, tree, metadata)
    yield "unchanged", unchanged
    for name, change in CHANGES.items():
        changed_tree, changed_metadata = copy.deepcopy(tree), copy.deepcopy(metadata)
        change(changed_tree, changed_metadata)
        changed = dump(kind, changed_tree, changed_metadata)
        if changed != unchanged:
            yield name, changed


@pytest.mark.parametrize(("kind", "tree"), FILES.values(), ids=FILES)
def test_what_sops_refuses_we_refuse(
    sops: Any, identity: Any, age_ring: KeyRing, hash_key: HashKey, kind: Format, tree: Tree
) -> None:
    encrypted = sops.encrypt(plain_file(kind, tree), kind.value, {"age": str(identity.to_public())})
    stricter = STRICTER | (STRICTER_IN_BINARY if kind is Format.BINARY else set())
    for name, theirs, ours in outcomes(sops, Decryptor(hash_key), age_ring, kind, encrypted):
        assert not ours or theirs, f"{name}: sops refuses it"
        assert ours == (theirs and name not in stricter), f"{name}: sops takes it"
        assert not ours or name in {"unchanged", *ALIKE_FOR_SOPS}, f"{name}: it is taken"


@pytest.mark.parametrize("kind", [Format.YAML, Format.DOTENV])
def test_what_sops_refuses_we_refuse_when_the_mac_covers_encrypted_values_only(
    sops: Any, identity: Any, age_ring: KeyRing, hash_key: HashKey, kind: Format
) -> None:
    rule = {"age": str(identity.to_public()), "mac_only_encrypted": True}
    encrypted = sops.encrypt(plain_file(kind, FILES[kind][1]), kind.value, rule)
    for name, theirs, ours in outcomes(sops, Decryptor(hash_key), age_ring, kind, encrypted):
        assert ours == (theirs and name not in STRICTER), name


def outcomes(
    sops: Any, decryptor: Decryptor, keys: KeyRing, kind: Format, encrypted: bytes
) -> list[tuple[str, bool, bool]]:
    """Return for each change whether sops takes it and whether we do."""

    def outcome(variant: tuple[str, bytes]) -> tuple[str, bool, bool]:
        name, changed = variant
        theirs = sops.decrypt(changed, kind.value) is not None
        try:
            decryptor.read(changed, format=kind, path="file", keys=keys)
        except PermanentError as error:
            assert "alpha" not in str(error)
            return name, theirs, False
        return name, theirs, True

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(outcome, variants(kind, encrypted)))
