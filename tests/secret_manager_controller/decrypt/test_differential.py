"""Our leaves against the real sops, on generated documents.

`SOPS_DIFF_DOCUMENTS` sets how many (560 by default: about 35 seconds on two idle cores), `SOPS_DIFF_SEED` which ones.
"""

from __future__ import annotations

import base64
import collections
import json
import os
import random
import re
import string
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from secret_manager_controller.decrypt import Decryptor, Document, Format, KeyRing
from secret_manager_controller.errors import PermanentError
from secret_manager_controller.model.secret import HashKey

pytestmark = pytest.mark.real

DOCUMENTS = int(os.environ.get("SOPS_DIFF_DOCUMENTS", "560"))
SEED = os.environ.get("SOPS_DIFF_SEED", "1")
WORKERS = 4

Flat = list[tuple[int, tuple[str | int, ...], bytes]]

WORDS = ("user", "password", "Königin", "host name", "a.b", "token", "数据", "x-y_z", "data", "n", "on", "null")
STRINGS = (
    "s3cr3t", "", " leading", "trailing ", "tab\there", "two\nlines", "ends\n\n", "\nbegins", "'quoted'", '"double"',
    "back\\slash", "\\n", "yes", "null", "true", "0777", "1e3", "2024-01-31", "~", "# no comment", "a: b", "- item", "ü",
    "😀 emoji", "{braces}", "[list]", "`tick`", "%percent", "@at", "!bang", "&amp", "*star", "x" * 300, "=", "a=b;c#d",
    '"""', "a\\", "\u2028", "\u00a0nbsp", "key: |\n  text\n", "-----BEGIN KEY-----\nMIIB\n-----END KEY-----\n", "\x7f",
)  # fmt: skip
INTEGERS = ("0", "7", "-12", "9007199254740993", "9223372036854775807", "-9223372036854775808")
FLOATS = ("1.5", "1e3", "1.0", "3.14159265358979", "1e-7", "123456789.5", "2.5e+21", "1e21", "5e-324", "1e6")
YAML_INTEGERS = ("0x1F", "0o17", "017", "1_000", "+5", "0b101", "-0x10", "0b+1")
YAML_FLOATS = (".5", "5.", "+1.5", "08", ".inf", "-.INF", ".nan", "1_0.5", "6.0e2", "12345678901234567890.0")
YAML_WORDS = ("true", "False", "TRUE", "null", "~", "Null", "yes", "off", "=", "0x", "1e400", "-", "+", "12:30:45")
YAML_TIMES = (
    "2024-01-31", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.1", "2024-2-9T1:2:3Z", "2024-02-30", "0000-02-29",
    "2024-01-01T00:00:00.123456789123+01:60", "2024-01-01T10:00:00,5+00:00", "2024-01-01T24:00:00Z", "2024-01-01 1:2:3Z",
)  # fmt: skip
YAML_TAGGED = ("!!binary AP/+", "!!str 5", "!!float 3", '!!int "7"', "! 5", "!!binary aGVsbG8=", "!!null ''")


@dataclass(frozen=True)
class Sample:
    """A plain document, and the creation rule that it is encrypted under."""

    format: str
    plain: bytes
    rule: dict[str, Any]

    @property
    def needs_comments(self) -> bool:
        return any(name.endswith("comment_regex") for name in self.rule)


class Generator:
    """Writes documents in every spelling that sops reads, chosen by a seeded source of randomness."""

    def __init__(self, seed: str, recipients: list[str], fingerprint: str) -> None:
        self.random = random.Random(seed)
        self._recipients = recipients
        self._fingerprint = fingerprint

    def sample(self, number: int) -> Sample:
        kind = ("yaml", "json", "dotenv", "ini", "binary", "yaml", "json", "yaml")[number % 8]
        rule = self.rule()
        self._comments_anywhere = not any(name.endswith("comment_regex") for name in rule)
        return Sample(kind, getattr(self, kind)().encode("utf-8", "surrogateescape"), rule)

    # The creation rule

    def rule(self) -> dict[str, Any]:
        pick = self.random.random()
        if pick < 0.06:
            keys: dict[str, Any] = {
                "key_groups": [{"age": [recipient]} for recipient in self._recipients],
                "shamir_threshold": 2,
            }
        elif pick < 0.16:
            keys = {"pgp": self._fingerprint}
        elif pick < 0.22:
            keys = {"pgp": self._fingerprint, "age": self._recipients[0]}
        else:
            keys = {"age": self.random.choice((self._recipients[0], ",".join(reversed(self._recipients))))}
        if self.random.random() < 0.3:
            keys["mac_only_encrypted"] = True
        return keys | self.random.choice(
            (
                {},
                {},
                {"unencrypted_suffix": "n"},
                {"encrypted_suffix": "d"},
                {"encrypted_regex": "^(pass|dat|n$)"},
                {"unencrypted_regex": "(?i)^H|ö|[[:digit:]]"},
                {"encrypted_comment_regex": "secret"},
                {"unencrypted_comment_regex": "public"},
            )
        )

    # Pieces

    def key(self) -> str:
        key = self.random.choice(WORDS)
        return key + self.random.choice(("", "", str(self.random.randrange(99)), "_unencrypted", "d"))

    def keys(self, most: int) -> list[str]:
        return list(dict.fromkeys(self.key() for _ in range(self.random.randint(1, most))))

    def string(self) -> str:
        if self.random.random() < 0.5:
            return self.random.choice(STRINGS)
        letters = string.printable[:95] + "äß漢😀\n"
        return "".join(self.random.choices(letters, k=self.random.randint(1, 40)))

    def comment(self) -> str:
        return self.random.choice(("# note", "#secret", "# public thing", "# ünïcode", "#"))

    # YAML

    def yaml(self) -> str:
        documents = [self._yaml_document() for _ in range(self.random.choice((1, 1, 1, 2, 3)))]
        return "---\n".join(documents)

    def _yaml_document(self) -> str:
        text = f"{self.comment()}\n" if self.random.random() < 0.3 else ""
        text += self._yaml_mapping(0)
        return text + (f"{self.comment()}\n" if self._comments_anywhere and self.random.random() < 0.2 else "")

    def _yaml_mapping(self, depth: int) -> str:
        text, indent = "", "  " * depth
        for key in self.keys(6):
            if (self._comments_anywhere or depth == 0) and self.random.random() < 0.25:
                text += f"{indent}{self.comment()}\n"
            written = key if re.fullmatch("[a-z]{2,9}", key) and key not in ("on", "null") else json.dumps(key)
            text += f"{indent}{written}:{self._yaml_value(depth)}"
        return text

    def _yaml_value(self, depth: int) -> str:
        pick = self.random.random()
        if depth < 3 and pick < 0.12:
            return "\n" + self._yaml_mapping(depth + 1)
        if depth < 3 and pick < 0.24:
            return "\n" + self._yaml_list(depth + 1)
        if pick < 0.28:
            return self.random.choice((" {}\n", " []\n", ' {a: 1, "b": [x, 2.50]}\n', " [1, [2, {c: d}], ~]\n"))
        if pick < 0.36:
            return self._yaml_block(depth + 1)
        inline = f" {self.comment()} ." if self._comments_anywhere and self.random.random() < 0.15 else ""
        return f" {self._yaml_scalar()}{inline}\n"

    def _yaml_list(self, depth: int) -> str:
        text, indent = "", "  " * depth
        for _ in range(self.random.randint(1, 4)):
            if self._comments_anywhere and self.random.random() < 0.25:
                # sops makes an empty string of an empty comment here.
                text += f"{indent}{self.comment()} .\n"
            text += f"{indent}-{self._yaml_value(depth)}"
        return text

    def _yaml_block(self, depth: int) -> str:
        lines = [self.random.choice(("line", "  more", "", "# text", "ö")) for _ in range(3)]
        body = "".join(f"{'  ' * depth}{line}\n" if line else "\n" for line in ["first", *lines])
        return f" {self.random.choice('|>')}{self.random.choice(('', '-', '+'))}\n{body}"

    def _yaml_scalar(self) -> str:
        pool = self.random.choice(
            (INTEGERS, FLOATS, YAML_INTEGERS, YAML_FLOATS, YAML_WORDS, YAML_TIMES, YAML_TAGGED, (), (), (), ())
        )
        if pool:
            return self.random.choice(pool)
        text = self.string()
        if "\n" not in text and "\u2028" not in text and "\x7f" not in text and self.random.random() < 0.5:
            return "'" + text.replace("'", "''") + "'"
        return json.dumps(text, ensure_ascii=self.random.random() < 0.5 or bool({"\u2028", "\x7f"} & set(text)))

    # JSON

    def json(self) -> str:
        return self._json_object(0)

    def _json_object(self, depth: int) -> str:
        members = (f"{json.dumps(key)}: {self._json_value(depth)}" for key in self.keys(6))
        return "{" + ",\n".join(members) + "}"

    def _json_value(self, depth: int) -> str:
        pick = self.random.random()
        if depth < 3 and pick < 0.15:
            return self._json_object(depth + 1)
        if depth < 3 and pick < 0.3:
            return f"[{', '.join(self._json_value(depth + 1) for _ in range(self.random.randint(0, 4)))}]"
        pool = self.random.choice((INTEGERS, FLOATS, ("true", "false", "null", "-0", "18446744073709551616"), (), ()))
        return self.random.choice(pool) if pool else json.dumps(self.string(), ensure_ascii=pick < 0.6)

    # The formats of lines

    def dotenv(self) -> str:
        lines = []
        for key in self.keys(8):
            if self.random.random() < 0.3:
                lines.append(self.random.choice((self.comment(), "")))
            lines.append(f"{key}={self.string().replace(chr(10), chr(92) + 'n')}")
        return "\n".join([*lines, ""] if self.random.random() < 0.8 else lines)

    def ini(self) -> str:
        lines = self._ini_keys() if self.random.random() < 0.3 else []
        for section in self.keys(3):
            if self.random.random() < 0.3:
                lines.append(self.random.choice(("; public", "# secret", "")))
            lines += [f"[{section}]", *self._ini_keys()]
        return "\n".join(lines) + self.random.choice(("", "\n"))

    def _ini_keys(self) -> list[str]:
        lines = []
        for key in self.keys(5):
            if self.random.random() < 0.2:
                lines.append(self.random.choice(("; note", "#secret", "", "   ")))
            written = self.random.choice((key, key, f"  {key}", f"`{key}`", f'"{key}"', f'"""{key}"""'))
            delimiter = self.random.choice(("=", " = ", ": ", " ="))
            lines.append(written + delimiter + self._ini_value())
        return lines

    def _ini_value(self) -> str:
        text = self.string().replace("\n", " ")
        return self.random.choice(
            (
                text,
                text,
                f"`{text}`",
                f'"""{text}"""',
                f'"{text}"',
                f"'{text}'",
                f"{text} ; behind",
                f'"""{text}\nsecond = line\n"""',
                f"`one\ntwo {text.replace('`', '')}`",
                f"{text} \\\n  continued",
                "",
            )
        )

    def binary(self) -> str:
        data = self.random.choice((self.random.randbytes(self.random.randint(0, 200)), self.string().encode()))
        return data.decode("utf-8", "surrogateescape")


# What sops says


def oracle(sops: Any, encrypted: bytes, sample: Sample) -> Flat | None:
    """Return the leaves that `sops decrypt` gives; None if it refuses.

    sops decrypts YAML with comments, and then go-yaml writes some of them so that other YAML comes
    out, or none. Comments are not authenticated, so they are taken out before, unless a rule needs
    them: such samples have them above top-level keys only, where they are written right.
    """
    if sample.format == "yaml" and not sample.needs_comments:
        encrypted = _without_comments(encrypted)
    plain = sops.decrypt(encrypted, sample.format, "json" if sample.format == "ini" else None)
    return None if plain is None else ORACLES[sample.format](plain)


def _without_comments(encrypted: bytes) -> bytes:
    roots = list(yaml.compose_all(encrypted, Loader=yaml.CBaseLoader))
    nodes = list(roots)
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.MappingNode):
            nodes += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            node.value = [item for item in node.value if not str(item.value).endswith(",type:comment]")]
            nodes += node.value
    return yaml.serialize_all(roots, Dumper=yaml.CBaseDumper, width=1 << 30, allow_unicode=True, encoding="utf-8")


def _from_yaml(text: bytes) -> Flat:
    leaves: Flat = []
    for number, root in enumerate(yaml.compose_all(text, Loader=yaml.CBaseLoader)):
        if not isinstance(root, yaml.ScalarNode):  # An empty document.
            leaves += [(number, path, value) for path, value in _yaml_leaves(root, ())]
    return leaves


def _yaml_leaves(node: yaml.Node, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], bytes]]:
    if isinstance(node, yaml.MappingNode):
        return [leaf for key, child in node.value for leaf in _yaml_leaves(child, (*path, key.value))]
    if isinstance(node, yaml.SequenceNode):
        return [leaf for at, child in enumerate(node.value) for leaf in _yaml_leaves(child, (*path, at))]
    if node.tag == "tag:yaml.org,2002:binary":
        return [(path, base64.b64decode(node.value))]
    null = not node.style and node.value in ("null", "~", "")
    return [(path, b"" if null else node.value.encode())]


def _from_json(text: bytes) -> Flat:
    root = json.loads(text, parse_int=_Number, parse_float=_Number)
    return [(0, path, value) for path, value in _json_leaves(root, ())]


class _Number(str):
    """A number as it is written."""


def _json_leaves(node: Any, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], bytes]]:
    if isinstance(node, dict | list):
        children = node.items() if isinstance(node, dict) else enumerate(node)
        return [leaf for key, child in children for leaf in _json_leaves(child, (*path, key))]
    return [(path, b"" if node is None else (str(node).lower() if isinstance(node, bool) else node).encode())]


def _from_dotenv(text: bytes) -> Flat:
    lines = [line for line in text.decode().split("\n") if line and not line.startswith("#")]
    pairs = (line.split("=", 1) for line in lines)
    return [(0, (key,), value.replace("\\n", "\n").encode()) for key, value in pairs]


ORACLES = {
    "yaml": _from_yaml,
    "json": _from_json,
    "dotenv": _from_dotenv,
    "ini": _from_json,
    "binary": lambda text: [(0, ("data",), text)],
}


def flat(document: Document) -> Flat:
    return [(leaf.document, leaf.path, leaf.value.expose()) for leaf in document.leaves]


def expected_encrypted(sample: Sample, path: tuple[str | int, ...]) -> bool | None:
    """Return whether a value under a path is encrypted; None where a comment decides."""
    rule = {} if sample.format == "binary" else sample.rule  # sops takes no rule to a binary file.
    keys = [key for key in path if isinstance(key, str)]
    tests = {
        "unencrypted_suffix": lambda key, suffix: key.endswith(suffix),
        "encrypted_suffix": lambda key, suffix: key.endswith(suffix),
        "unencrypted_regex": lambda key, _: re.search("^[Hh]|ö|[0-9]", key) is not None,
        "encrypted_regex": lambda key, regex: re.search(regex, key) is not None,
    }
    if sample.needs_comments:
        return None
    name, argument = next(
        ((name, rule[name]) for name in tests if name in rule), ("unencrypted_suffix", "_unencrypted")
    )
    return any(tests[name](key, argument) for key in keys) == name.startswith("encrypted")


# The tests


@pytest.fixture(scope="module")
def ring(identities: list[Any], pgp_material: bytes) -> KeyRing:
    return KeyRing.parse([pgp_material, *(str(identity).encode() for identity in identities[:2])])


def test_leaves_equal_those_of_sops(
    sops: Any, ring: KeyRing, identities: list[Any], fingerprint: str, hash_key: HashKey
) -> None:
    recipients = [str(identity.to_public()) for identity in identities]
    generator = Generator(SEED, recipients, fingerprint)
    samples = [generator.sample(number) for number in range(DOCUMENTS)]
    reader = Decryptor(hash_key)

    def refused(data: bytes, sample: Sample) -> bool:
        try:
            reader.read(data, format=Format(sample.format), path="sample", keys=ring)
        except PermanentError:
            return True
        return False

    def compare_written(sample: Sample, encrypted: bytes, theirs: Flat) -> None:
        """Hold the file that we write to the one that sops writes, by what both read."""
        try:
            written = reader.decrypt(encrypted, format=Format(sample.format), path="sample", keys=ring)
        except PermanentError:
            # A quote of each kind in one value is more than INI can hold.
            assert sample.format == "ini", (sample.rule, sample.plain)
            return
        content = written.content.expose()
        if sample.format == "ini":
            assert flat(reader.read(content, format=Format.INI, path="sample", keys=ring)) == theirs, sample.plain
        else:
            assert ORACLES[sample.format](content) == theirs, (sample.rule, sample.plain, content)

    def compare(sample: Sample) -> str:
        encrypted = sops.encrypt(sample.plain, sample.format, sample.rule)
        if encrypted is None:
            assert refused(sample.plain, sample), (sample.format, sample.plain)
            return "not encrypted by sops"
        try:
            theirs = oracle(sops, encrypted, sample)
        except yaml.YAMLError:  # go-yaml indents a block that begins with a blank line wrongly.
            return "written by sops as no YAML"
        if theirs is None:
            # Its own file! It is never on us to read what it cannot, unless comments have moved.
            assert sample.needs_comments or refused(encrypted, sample), (sample.format, sample.plain)
            return "not decrypted by sops"
        ours = reader.read(encrypted, format=Format(sample.format), path="sample", keys=ring)
        assert theirs == flat(ours), (sample.rule, sample.plain)
        if sample.format != "ini":  # ini.v1 does not write every quote back that it has read.
            plain = reader.read(sample.plain, format=Format(sample.format), path="sample", keys=ring)
            assert flat(plain) == flat(ours), (sample.rule, sample.plain)
        compare_written(sample, encrypted, theirs)
        for leaf in ours.leaves:
            expected = expected_encrypted(sample, leaf.path) if len(leaf.value) else False
            assert expected in (None, leaf.encrypted), (sample.rule, leaf.path)
        return "compared"

    with ThreadPoolExecutor(WORKERS) as pool:
        outcomes = list(pool.map(compare, samples))
    table = collections.Counter((sample.format, outcome) for sample, outcome in zip(samples, outcomes, strict=True))
    for (kind, outcome), count in sorted(table.items()):
        print(f"{kind}: {count} {outcome}")  # noqa: T201 - shown when the test fails, and with -s.
    assert outcomes.count("compared") > 0.9 * DOCUMENTS
