"""INI: sections of `key = value`, as gopkg.in/ini.v1 reads it, which sops uses with its defaults.

That grammar is wider than it looks: keys and values in backquotes or three double quotes, values over several
lines, a backslash that continues a line, comments behind a value. It is followed to the letter here,
since an encrypted file's MAC depends on it; what has no one meaning is refused.
"""

from __future__ import annotations

from secret_manager_controller.decrypt.formats.dotenv import flat_printed
from secret_manager_controller.decrypt.formats.flat import unflatten
from secret_manager_controller.decrypt.formats.tree import Budget, Mapping, add, decoded, lines_of
from secret_manager_controller.decrypt.metadata import METADATA_KEY
from secret_manager_controller.decrypt.refusal import RefusedError, invalid
from secret_manager_controller.decrypt.scalars import Node, Scalar

DEFAULT_SECTION = "DEFAULT"
"""The name of the section above the first header."""

_COMMENT_SIGNS = "#;"
_TRIPLE = '"""'
_BACKQUOTE = "`"

# What Go's unicode.IsSpace takes for a space; Python's str.strip() also takes \x1c to \x1f.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


class Ini:
    """Reads INI files: sections, keys and strings."""

    def parse(self, data: bytes) -> list[Mapping]:
        """Return the one document of a file: section → key → value."""
        return [_Parser(lines_of(decoded(data))).parse()]

    def detach_metadata(self, documents: list[Mapping]) -> Node:
        """Remove the section `[sops]` and return what it says."""
        (document,) = documents
        section = document.pop(METADATA_KEY, None)
        if not isinstance(section, dict):
            return None
        # sops 3.13.0 and 3.13.1 wrote newlines as such, every other version escapes them twice.
        return unflatten(
            {key: value.replace("\\n", "\n") if isinstance(value, str) else value for key, value in section.items()}
        )

    def printed(self, value: Scalar) -> bytes:
        """Return a value's bytes, without the quotes that the file may need."""
        return flat_printed(value)


class _Parser:
    """Reads line by line; a value may take further lines. Lines keep their line ends."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
        self._next = 0
        self._budget = Budget()

    def parse(self) -> Mapping:
        """Return sections in the file's order; keys above the first header come first."""
        headless, document = Mapping(), Mapping()
        section = headless
        while (raw := self._line()) is not None:
            line = raw.lstrip(_SPACE)
            if not line or line[0] in _COMMENT_SIGNS:
                continue
            if line[0] == "[":
                section = self._section(document, line)
                continue
            self._budget.spend(1)
            key, rest = self._key(line)
            where = self._where()
            add(section, key, self._value(rest), where=where)
        if not headless:
            return document
        complete: Mapping = {DEFAULT_SECTION: headless}
        for name, content in document.items():
            add(complete, name, content)
        return complete

    def _line(self) -> str | None:
        if self._next >= len(self._lines):
            return None
        self._next += 1
        return self._lines[self._next - 1]

    def _where(self) -> str:
        return f"line {self._next}: "

    def _refused(self, what: str) -> RefusedError:
        return invalid(f"line {self._next} {what}")

    def _section(self, document: Mapping, line: str) -> Mapping:
        self._budget.spend(0)
        name, bracket, _ = line[1:].rpartition("]")
        if not bracket or not name:
            raise self._refused("is not of the form [section]")
        section = Mapping()
        add(document, name, section, where=self._where())
        return section

    def _key(self, line: str) -> tuple[str, str]:
        """Return the key of a line and what follows its delimiter (`readKeyName`)."""
        quote = line[0] if line[0] in ('"', _BACKQUOTE) else ""
        if line.startswith(_TRIPLE) and len(line) > 2 * len(_TRIPLE):
            quote = _TRIPLE
        end = line.find(quote, len(quote)) if quote else 0
        if end < 0:
            raise self._refused("has a key whose quote does not end")
        found = [at for sign in "=:" if (at := line.find(sign, end + len(quote))) >= 0]
        if not found:
            raise self._refused("is not of the form key = value")
        key = (line[len(quote) : end] if quote else line[: min(found)]).strip(_SPACE)
        if not key or key == "-":
            raise self._refused("has no key" if not key else "has the key `-`, which is no name")
        return key, line[min(found) + 1 :]

    def _value(self, rest: str) -> str:
        """Return the value that begins with the rest of a line (`readValue`)."""
        line = rest.lstrip(_SPACE)
        if not line:
            return ""
        quote = _BACKQUOTE if line[0] == _BACKQUOTE else ""
        if line.startswith(_TRIPLE) and len(line) > len(_TRIPLE):
            quote = _TRIPLE
        if quote:
            end = line.rfind(quote, len(quote))
            return line[len(quote) : end] if end >= 0 else self._quoted(line[len(quote) :], quote)
        line = line.rstrip(_SPACE)
        if line.endswith("\\"):
            return self._continued(line[:-1])
        comment = min((at for sign in _COMMENT_SIGNS if (at := line.find(sign)) >= 0), default=-1)
        if comment >= 0:
            line = line[:comment].strip(_SPACE)
        return _unquoted(line)

    def _quoted(self, value: str, quote: str) -> str:
        """Read a value up to the line that has the closing quote (`readMultilines`)."""
        while (line := self._line()) is not None:
            end = line.rfind(quote)
            if end >= 0 and not line[end + len(quote) :].strip(_SPACE).endswith("\\"):
                return value + line[:end]
            value += line
        raise self._refused("is the last one, and a quoted value has not ended")

    def _continued(self, value: str) -> str:
        """Read on while lines end with a backslash (`readContinuationLines`)."""
        while (line := self._line()) is not None and (line := line.strip(_SPACE)):
            value += line
            if not value.endswith("\\"):
                break
            value = value[:-1]
        return value


def _unquoted(line: str) -> str:
    """Drop the quotes around a value that has no other ones of their kind."""
    for quote in "'\"":
        if len(line) >= 2 and line[0] == quote and line.find(quote, 1) == len(line) - 1:
            return line[1:-1]
    return line
