"""Read a gzip-compressed tar as a stream of entries, with a bound on everything that it may cost.

The standard library's `tarfile` is not used: what we must not trust is the archive, and in `tarfile` the parsing itself
has been attacked (a pax header of any size is read into memory; CVE-2024-6232: quadratic header parsing; CVE-2025-8194:
endless loop on a negative size), besides the bypasses of its extraction filters. This reader knows ustar, and of GNU
and pax (POSIX.1-2001, "pax Interchange Format") only what names and sizes need; anything else is refused, not guessed.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from secret_manager_controller.errors import PermanentError, Reason, foreign

BLOCK = 512  # POSIX: tar headers and data come in blocks of 512 bytes.
CHUNK_BYTES = 256 * 2**10  # What is unpacked at a time, and so all the memory that unpacking holds.
RATIO_FLOOR_BYTES = 16 * 2**20  # Below this no ratio is too high: a small tree of empty files compresses a hundredfold.
METADATA_BYTES = 64 * 2**10  # A pax header holds times, a path and a few attributes; 64 KiB leave room for all of them.
METADATA_RECORDS = 128


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may cost.

    Attributes:
        total_bytes: of the whole tar stream, unpacked.
        file_bytes: of one file.
        entries: files, directories, links and headers; each costs an inode or a header's parsing.
        depth: names in a path.
        path_bytes: of a path.
        ratio: unpacked to packed bytes, from 16 MiB on. Text in Git packs 5 to 20 times, zeros 1,000 times.
    """

    total_bytes: int = 256 * 2**20
    file_bytes: int = 64 * 2**20
    entries: int = 100_000
    depth: int = 32
    path_bytes: int = 1024
    ratio: int = 200


DEFAULT_LIMITS = ArchiveLimits()


class Stopped(Exception):  # noqa: N818 - no fault of the archive: its reader was asked to stop.
    """The one who wanted the archive does not want it any more."""


class Kind(enum.Enum):
    """What an entry is, of the three that may occur."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "symbolic link"


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry, as the archive names it: nothing about the name or target is checked here."""

    kind: Kind
    name: bytes
    size: int = 0
    target: bytes = b""


def invalid(message: str) -> PermanentError:
    """Return the error for an archive that is not what an artifact must be."""
    return PermanentError(Reason.INVALID_ARCHIVE, f"the artifact {message}")


def shown(name: bytes) -> str:
    """Return a name or type of the archive's, fit for a message."""
    return repr(foreign(name.decode(errors="replace")))


class Inflater:
    """The unpacked bytes of a gzip file of one member, in bounded memory; gzip's own checksum is checked at the end."""

    def __init__(self, packed: BinaryIO, *, limits: ArchiveLimits, stopped: Callable[[], bool]) -> None:
        self._packed = packed
        self._limits = limits
        self._stopped = stopped
        self._decoder = zlib.decompressobj(wbits=31)  # 31: a gzip header and trailer, as zlib's manual says.
        self._input = b""
        self._buffer = memoryview(b"")
        self._consumed = 0
        self._produced = 0

    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes, or none at the end."""
        if not self._buffer and not self._fill():
            return b""
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return bytes(taken)

    def read_exactly(self, size: int) -> bytes:
        """Return `size` bytes; the caller bounds it."""
        data = self.read(size)
        while len(data) < size:
            more = self.read(size - len(data))
            if not more:
                raise invalid("is truncated: its tar ends in the middle of an entry")
            data += more
        return data

    def _fill(self) -> bool:
        while not self._decoder.eof:
            if self._stopped():
                raise Stopped
            if not self._input:
                self._input = self._packed.read(CHUNK_BYTES // 4)
                self._consumed += len(self._input)
                if not self._input:
                    raise invalid("is truncated: its gzip stream has no end")
            output = self._decompress()
            if output:
                self._buffer = memoryview(output)
                return True
        if self._decoder.unused_data or self._packed.read(1):
            raise invalid("has data after the end of its gzip stream")
        return False

    def _decompress(self) -> bytes:
        try:
            output = self._decoder.decompress(self._input, CHUNK_BYTES)
        except zlib.error:
            raise invalid("is not a valid gzip file") from None
        self._input = self._decoder.unconsumed_tail
        self._produced += len(output)
        if self._produced > self._limits.total_bytes:
            raise invalid(f"unpacks to more than {self._limits.total_bytes // 2**20} MiB")
        consumed = self._consumed - len(self._input)
        if self._produced > max(RATIO_FLOOR_BYTES, self._limits.ratio * consumed):
            raise invalid(f"unpacks to more than {self._limits.ratio} times its size: a decompression bomb")
        return output


class TarReader:
    """Iterates over the entries of a tar; the current entry's data is read by `chunks`, or skipped."""

    def __init__(self, stream: Inflater, *, limits: ArchiveLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._headers = 0
        self._unread = 0
        self._padding = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield each entry; return after the end marker, once the rest is known to be nothing but zeros."""
        while (header := self._next_header()) is not None:
            entry = self._complete(header)
            self._expect(entry.size)
            yield entry
            for _ in self.chunks():
                pass
        while rest := self._stream.read(CHUNK_BYTES):
            # Another reader could take such data for more entries; only one reading of an artifact is allowed.
            if rest.count(0) != len(rest):
                raise invalid("has data after the end of its tar")

    def chunks(self) -> Iterator[bytes]:
        """Yield the current entry's data."""
        while self._unread:
            chunk = self._stream.read(self._unread)
            if not chunk:
                raise invalid("is truncated: its tar ends in the middle of an entry")
            self._unread -= len(chunk)
            yield chunk
        self._stream.read_exactly(self._padding)
        self._padding = 0

    def _expect(self, size: int) -> None:
        self._unread = size
        self._padding = -size % BLOCK

    def _next_header(self) -> _Header | None:
        block = self._stream.read(BLOCK)
        if not block:
            raise invalid("is truncated: its tar has no end marker")
        if len(block) < BLOCK:
            block += self._stream.read_exactly(BLOCK - len(block))
        if not any(block):
            return None
        self._headers += 1
        if self._headers > self._limits.entries:
            raise invalid(f"has more than {self._limits.entries} entries")
        return _Header.parse(block)

    def _complete(self, header: _Header) -> TarEntry:
        """Return the entry that follows zero or more headers about it."""
        about: dict[bytes, bytes] = {}
        while header.kind in _METADATA:
            if header.size > METADATA_BYTES:
                raise invalid(f"has an extended header of {header.size} bytes")
            self._expect(header.size)
            records = _METADATA[header.kind](b"".join(self.chunks()))
            if about.keys() & records.keys():
                raise invalid("gives one entry two names or sizes")
            about |= records
            following = self._next_header()
            if following is None:
                raise invalid("is truncated: it ends after an extended header")
            header = following
        size = _decimal(about[b"size"]) if b"size" in about else header.size
        name, target = about.get(b"path", header.name), about.get(b"linkpath", header.target)
        return self._checked(header.kind, name, size, target)

    def _checked(self, kind: bytes, name: bytes, size: int, target: bytes) -> TarEntry:
        # Before POSIX there was no type for directories, only a slash at the end.
        if kind == b"5" or (kind == b"\0" and name.endswith(b"/")):
            if size:
                raise invalid(f"has a directory with content at {shown(name)}")
            return TarEntry(Kind.DIRECTORY, name)
        if kind in {b"0", b"\0"}:
            if size > self._limits.file_bytes:
                raise invalid(f"has a file of {size} bytes at {shown(name)}; the limit is {self._limits.file_bytes}")
            return TarEntry(Kind.FILE, name, size)
        if kind == b"2":
            if size:
                raise invalid(f"has a symbolic link with content at {shown(name)}")
            return TarEntry(Kind.LINK, name, target=target)
        what = _REFUSED.get(kind, f"entry of the unknown type {shown(kind)}")
        raise invalid(f"has a {what} at {shown(name)}; only regular files and directories are allowed")


_REFUSED = {
    b"1": "hard link",
    b"3": "character device",
    b"4": "block device",
    b"6": "FIFO",
    b"7": "contiguous file",
    b"S": "sparse file",
}


@dataclass(frozen=True, slots=True)
class _Header:
    """The fields of a header block that are used. Owners, modes and times are the archive's wish, and not heeded."""

    kind: bytes
    name: bytes
    size: int
    target: bytes

    @classmethod
    def parse(cls, block: bytes) -> _Header:
        # POSIX: the checksum is the sum of all bytes, its own eight taken as spaces.
        if _octal(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            raise invalid("is not a valid tar: a header's checksum is wrong")
        name = _text(block[:100])
        # GNU's magic is "ustar  ", and it keeps times where POSIX keeps the prefix of the name.
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            name = prefix + b"/" + name
        return cls(kind=block[156:157], name=name, size=_octal(block[124:136]), target=_text(block[157:257]))


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if field[0] & 0x80:
        raise invalid("has an entry with a negative size, or one of 8 GiB or more")
    if digits.translate(None, b"01234567"):
        raise invalid("is not a valid tar: a header's number is none")
    return int(digits or b"0", 8)


def _decimal(value: bytes) -> int:
    # Fifteen digits are a petabyte; Python would convert longer ones too, at growing cost.
    if not value.isdigit() or len(value) > 15:
        raise invalid("is not a valid tar: the size in an extended header is no number")
    return int(value)


def _bad_pax() -> NoReturn:
    raise invalid("is not a valid tar: an extended header is malformed")


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Return what a pax header says about name, link target and size, as lines of `length key=value`."""
    records: dict[bytes, bytes] = {}
    position = seen = 0
    while position < len(data):
        seen += 1
        space = data.find(b" ", position, position + 8)
        length = data[position : max(space, position)]
        if seen > METADATA_RECORDS or not length.isdigit():
            _bad_pax()
        end = position + int(length)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not key or not equals:
            _bad_pax()
        if key.startswith(b"GNU.sparse."):
            raise invalid("has a sparse file; only regular files and directories are allowed")
        if key in {b"path", b"linkpath", b"size"}:
            if key in records or not value:
                _bad_pax()
            records[key] = value
        position = end
    return records


def _global_pax_records(data: bytes) -> dict[bytes, bytes]:
    # `git archive` notes the commit here. A name or size for all entries that follow has no honest use.
    if _pax_records(data):
        raise invalid("has a name or size in a global header")
    return {}


_METADATA: dict[bytes, Callable[[bytes], dict[bytes, bytes]]] = {
    b"x": _pax_records,
    b"g": _global_pax_records,
    b"L": lambda data: {b"path": _text(data)},
    b"K": lambda data: {b"linkpath": _text(data)},
}
