"""Unpacking: what an artifact may hold arrives as it was; what it must not hold is refused, and nothing is left."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.sources.archive import Extracted, extract
from secret_manager_controller.sources.tarstream import ArchiveLimits, Stopped

Unpack = Callable[..., tuple[Path, Extracted]]
Pack = Callable[..., bytes]


def member(name: str, kind: bytes, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


def header(
    name: bytes = b"a",
    kind: bytes = b"0",
    size: bytes = b"%011o\0" % 0,
    *,
    magic: bytes = b"ustar\x0000",
    **fields: bytes,
) -> bytes:
    """Return a header block, made without anyone's checks."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257 : 257 + len(magic)] = magic
    target, prefix = fields.get("target", b""), fields.get("prefix", b"")
    block[157 : 157 + len(target)] = target
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def blocks(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def pax(**records: bytes) -> bytes:
    data = b"".join(_record(key.replace("__", ".").encode(), value) for key, value in records.items())
    return header(kind=b"x", size=b"%011o\0" % len(data)) + blocks(data)


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


END = b"\0" * 1024


def files_in(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def assert_refused(unpack: Unpack, content: bytes, words: str, limits: ArchiveLimits | None = None) -> None:
    with pytest.raises(PermanentError, match=words) as caught:
        unpack(content, *([limits] if limits else []))
    assert Reason.INVALID_ARCHIVE is caught.value.reason


# --- what is allowed


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_and_directories_arrive_with_our_modes(pack: Pack, unpack: Unpack, format: int) -> None:  # noqa: A002
    long = "deep/" * 20 + "n" * 60
    root, extracted = unpack(
        pack(
            member("./", tarfile.DIRTYPE),
            member("empty", tarfile.DIRTYPE),
            ("./a/run.sh", b"#!"),
            (long, b"long"),
            ("zero", b""),
            format=format,
        )
    )
    assert {"a/run.sh": b"#!", long: b"long", "zero": b""} == files_in(root)
    assert {0o400} == {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()}
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")] if path.is_dir()}
    assert frozenset() == extracted.links
    assert extracted.disk_bytes == 6 + 4096 * (1 + 1 + 2 + 20 + 1 + 1)


def test_names_beyond_ascii_survive(pack: Pack, unpack: Unpack) -> None:
    root, _ = unpack(pack(("ключи/naïve.env", b"x")))
    assert files_in(root) == {"ключи/naïve.env": b"x"}


def test_a_name_that_is_no_utf8_survives(unpack: Unpack) -> None:
    root, _ = unpack(gzip.compress(header(b"caf\xe9") + END))
    assert files_in(root) == {"caf\udce9": b""}


def test_the_note_that_git_archive_leaves_is_no_file(pack: Pack, unpack: Unpack) -> None:
    note = _record(b"comment", b"6f1c" * 10)
    note_header = header(b"pax_global_header", b"g", b"%011o\0" % len(note)) + blocks(note)
    root, _ = unpack(gzip.compress(note_header + header(b"a") + END))
    assert files_in(root) == {"a": b""}


def test_a_directory_of_the_time_before_posix_is_known_by_its_slash(unpack: Unpack) -> None:
    root, _ = unpack(gzip.compress(header(b"old/", b"\0", magic=b"") + END))
    assert (root / "old").is_dir()


def test_directories_as_flux_names_them(unpack: Unpack) -> None:
    """Without a slash at the end, and the root as `.`: source-controller writes the paths that it walks."""
    root, _ = unpack(gzip.compress(header(b".", b"5") + header(b"a", b"5") + header(b"a/b") + END))
    assert files_in(root) == {"a/b": b""}


def test_a_directory_may_be_named_after_what_is_in_it(pack: Pack, unpack: Unpack) -> None:
    root, _ = unpack(pack(("a/b", b"x"), member("a", tarfile.DIRTYPE)))
    assert files_in(root) == {"a/b": b"x"}


def test_an_empty_archive_is_an_empty_tree(pack: Pack, unpack: Unpack) -> None:
    root, _ = unpack(pack())
    assert list(root.iterdir()) == []


def test_links_inside_are_left_out_and_remembered(pack: Pack, unpack: Unpack) -> None:
    root, extracted = unpack(
        pack(
            member("to-file", tarfile.SYMTYPE, "a"),
            member("x/up", tarfile.SYMTYPE, "../a"),
            member("x/dangling", tarfile.SYMTYPE, "./nothing/here"),
            member("x/root", tarfile.SYMTYPE, ".."),
            member("long", tarfile.SYMTYPE, "d/" * 80 + "f"),
            ("a", b"x"),
        )
    )
    assert {"to-file", "x/up", "x/dangling", "x/root", "long"} == extracted.links
    assert files_in(root) == {"a": b"x"}
    assert not any(path.is_symlink() for path in root.rglob("*"))


# --- what is refused

SLIPS = {
    "parent": ("../evil", "outside its root"),
    "parent-inside": ("a/../../evil", "outside its root"),
    "parent-back-in": ("a/../b", "outside its root"),
    "parent-last": ("a/..", "outside its root"),
    "absolute": ("/etc/passwd", "outside its root"),
    "absolute-double": ("//evil", "outside its root"),
    "dot-then-absolute": (".//evil", "outside its root"),
    "backslash": ("..\\evil", "invalid name"),
    "backslash-inside": ("a\\..\\b", "invalid name"),
    "drive": ("C:\\evil", "invalid name"),
    "double-slash": ("a//b", "invalid name"),
    "dot-inside": ("a/./b", "invalid name"),
    "dot": (".", "invalid name"),
    "dot-dot-slash": ("././a", "invalid name"),
    "too-deep": ("d/" * 40 + "f", "directories deep"),
    "too-long": ("d" * 200 + "/" + "/".join(["e" * 200] * 6), "too long"),
    "long-component": ("n" * 256, "too long"),
}


@pytest.mark.parametrize(("name", "words"), SLIPS.values(), ids=SLIPS)
def test_a_name_that_slips_is_refused(pack: Pack, unpack: Unpack, name: str, words: str) -> None:
    assert_refused(unpack, pack(("good", b"x"), (name, b"evil")), words)


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_a_directory_or_link_that_slips_is_refused(pack: Pack, unpack: Unpack, name: str) -> None:
    assert_refused(unpack, pack(member(name, tarfile.DIRTYPE)), "outside its root")
    assert_refused(unpack, pack(member(name, tarfile.SYMTYPE, "a")), "outside its root")


KINDS = {
    "hard-link": (tarfile.LNKTYPE, "hard link"),
    "character-device": (tarfile.CHRTYPE, "character device"),
    "block-device": (tarfile.BLKTYPE, "block device"),
    "fifo": (tarfile.FIFOTYPE, "FIFO"),
    "contiguous": (tarfile.CONTTYPE, "contiguous file"),
    "sparse": (tarfile.GNUTYPE_SPARSE, "sparse file"),
    "volume-label": (b"V", "unknown type 'V'"),
    "dump-directory": (b"D", "unknown type 'D'"),
    "control": (b"\x07", "unknown type '\\?'"),
}


@pytest.mark.parametrize(("kind", "words"), KINDS.values(), ids=KINDS)
def test_every_other_kind_is_refused(unpack: Unpack, kind: bytes, words: str) -> None:
    assert_refused(unpack, gzip.compress(header(b"a") + header(b"b", kind, target=b"a") + END), words)


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../..", "x/../../y", "../x"])
def test_a_link_out_of_the_tree_is_refused(pack: Pack, unpack: Unpack, target: str) -> None:
    assert_refused(unpack, pack(("a", b"x"), member("link", tarfile.SYMTYPE, target)), "link out of its root")


def test_nothing_is_written_through_a_link(pack: Pack, unpack: Unpack) -> None:
    assert_refused(unpack, pack(member("d", tarfile.SYMTYPE, "e"), ("d/f", b"x")), "below a symbolic link at 'd'")


def test_nothing_is_written_below_a_file(pack: Pack, unpack: Unpack) -> None:
    assert_refused(unpack, pack(("d", b"x"), ("d/f", b"x")), "below a file at 'd'")


@pytest.mark.parametrize(
    "second",
    [("a/b", b"y"), member("a/b", tarfile.SYMTYPE, "c"), member("a/b", tarfile.DIRTYPE), ("./a/b", b"z")],
    ids=["file", "link", "directory", "other-spelling"],
)
@pytest.mark.parametrize(
    "first",
    [("a/b", b"x"), member("a/b", tarfile.SYMTYPE, "c"), member("a/b/", tarfile.DIRTYPE)],
    ids=["file", "link", "directory"],
)
def test_two_entries_at_one_path_are_refused(pack: Pack, unpack: Unpack, first: object, second: object) -> None:
    assert_refused(unpack, pack(first, second), "two entries at 'a/b'")


def test_a_file_over_a_parent_directory_is_refused(pack: Pack, unpack: Unpack) -> None:
    assert_refused(unpack, pack(("a/b", b"x"), ("a", b"y")), "two entries at 'a'")


# --- damage

MALFORMED = {
    "empty": (b"", "truncated"),
    "no-gzip": (b"PK\x03\x04 no gzip", "not a valid gzip"),
    "no-tar": (gzip.compress(b"x" * 512 + END), "not a valid tar"),
    "half-a-block": (gzip.compress(b"x" * 100), "truncated"),
    "no-end-marker": (gzip.compress(header()), "no end marker"),
    "data-after-tar": (gzip.compress(header() + END + header(b"b")), "data after the end of its tar"),
    "data-after-gzip": (gzip.compress(header() + END) + b"x", "data after the end of its gzip"),
    "second-gzip": (gzip.compress(header() + END) * 2, "data after the end of its gzip"),
    "checksum": (gzip.compress(b"b" + header()[1:] + END), "checksum"),
    "checksum-no-number": (gzip.compress(header()[:148] + b"xxxxxxxx" + header()[156:] + END), "number is none"),
    "size-no-number": (gzip.compress(header(size=b"9" * 11) + END), "number is none"),
    "size-negative": (gzip.compress(header(size=b"\xff" * 12) + END), "negative size"),
    "size-8-GiB": (gzip.compress(header(size=b"\x80" + b"\0" * 6 + struct.pack(">xI", 2**31)) + END), "8 GiB"),
    "file-cut": (gzip.compress(header(size=b"%011o\0" % 600) + b"x" * 512), "truncated"),
    "directory-with-content": (gzip.compress(header(kind=b"5", size=b"%011o\0" % 1) + b"x" * 512 + END), "content"),
    "link-with-content": (gzip.compress(header(kind=b"2", size=b"%011o\0" % 1) + b"x" * 512 + END), "content"),
    "file-with-slash": (gzip.compress(header(b"a/") + END), "invalid name"),
    "nameless": (gzip.compress(header(b"") + END), "invalid name"),
    "prefix-slips": (gzip.compress(header(b"b", prefix=b"../a") + END), "outside its root"),
    "nul-in-pax-name": (gzip.compress(pax(path=b"a\0b") + header() + END), "invalid name"),
    "pax-name-slips": (gzip.compress(pax(path=b"../a") + header() + END), "outside its root"),
    "pax-size-no-number": (gzip.compress(pax(size=b"-1") + header() + END), "no number"),
    "pax-size-long": (gzip.compress(pax(size=b"1" * 16) + header() + END), "no number"),
    "pax-size-huge": (gzip.compress(pax(size=b"9" * 15) + header() + END), "the limit is"),
    "pax-empty-name": (gzip.compress(pax(path=b"") + header() + END), "malformed"),
    "pax-sparse": (gzip.compress(pax(GNU__sparse__major=b"1") + header() + END), "sparse"),
    "pax-at-the-end": (gzip.compress(pax(path=b"a") + END), "ends after an extended header"),
    "pax-twice": (gzip.compress(pax(path=b"a") + pax(path=b"b") + header() + END), "two names"),
    "pax-huge": (gzip.compress(header(kind=b"x", size=b"%011o\0" % 10**9) + END), "extended header of 1000000000"),
    "pax-no-length": (gzip.compress(header(kind=b"x", size=b"%011o\0" % 6) + blocks(b"path=x") + END), "malformed"),
    "pax-length-short": (
        gzip.compress(header(kind=b"x", size=b"%011o\0" % 9) + blocks(b"2 path=x\n") + END),
        "malformed",
    ),
    "pax-length-long": (
        gzip.compress(header(kind=b"x", size=b"%011o\0" % 9) + blocks(b"99 path=x\n") + END),
        "malformed",
    ),
    "pax-repeats-a-key": (
        gzip.compress(header(kind=b"x", size=b"%011o\0" % 20) + blocks(b"10 path=a\n10 path=b\n") + END),
        "malformed",
    ),
    "pax-many-records": (
        gzip.compress(header(kind=b"x", size=b"%011o\0" % 1000) + blocks(b"5 a=\n" * 200) + END),
        "malformed",
    ),
    "global-name": (
        gzip.compress(header(kind=b"g", size=b"%011o\0" % 10) + blocks(b"10 path=a\n") + header() + END),
        "global header",
    ),
    "gnu-name-slips": (
        gzip.compress(header(b"././@LongLink", b"L", b"%011o\0" % 5) + blocks(b"../a\0") + header() + END),
        "outside its root",
    ),
    "gnu-and-pax-name": (
        gzip.compress(header(kind=b"L", size=b"%011o\0" % 2) + blocks(b"a\0") + pax(path=b"b") + header() + END),
        "two names",
    ),
}


@pytest.mark.parametrize(("content", "words"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused(unpack: Unpack, content: bytes, words: str) -> None:
    assert_refused(unpack, content, words)


def test_every_truncation_is_noticed(pack: Pack, unpack: Unpack) -> None:
    whole = pack(("a", b"x" * 700), ("b/c", bytes(range(256)) * 9))
    for length in range(len(whole)):
        assert_refused(unpack, whole[:length], "truncated")


def test_a_truncated_tar_in_a_whole_gzip_is_noticed(pack: Pack, unpack: Unpack) -> None:
    plain = gzip.decompress(pack(("a", b"x" * 700), ("b/c", b"y")))
    for length in range(0, 4 * 512 + 512, 128):
        assert_refused(unpack, gzip.compress(plain[:length]), "truncated")


def test_a_flipped_bit_is_noticed_by_gzip(pack: Pack, unpack: Unpack) -> None:
    content = bytearray(pack(("a", bytes(range(256)) * 4)))
    content[-6] ^= 1  # In the checksum that ends a gzip file.
    assert_refused(unpack, bytes(content), "not a valid gzip")


class Dribbling(io.BytesIO):
    """A file that gives a byte at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 0, 1))


def test_data_after_the_gzip_is_noticed_wherever_the_reading_stops(pack: Pack, tmp_path: Path) -> None:
    content = pack(("a", b"x"))
    extract(Dribbling(content), tmp_path / "whole")
    with pytest.raises(PermanentError, match="data after the end of its gzip"):
        extract(Dribbling(content + b"x"), tmp_path / "more")


# --- bombs


class Repeating(io.RawIOBase):
    """A file that is made while it is read: a start, then one piece over and over."""

    def __init__(self, start: bytes, piece: bytes, times: int) -> None:
        self._pieces: Iterator[bytes] = iter([start, *[piece] * times])
        self._rest = b""
        self.taken = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        self.taken += len(data)
        return data


def ten_gigabytes(start: bytes) -> Repeating:
    """Return a gzip file that begins with a tar's start and goes on with 10 GB of zeros."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    begin = compressor.compress(start) + compressor.flush(zlib.Z_FULL_FLUSH)
    # After a full flush the decoder's state is always the same, so that one piece fits any number of times.
    piece = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return Repeating(begin, piece, 10 * 2**10)


BOMBS = {
    "one-file": (header(size=b"%011o\0" % (8 * 2**30 - 1)), "has a file of 8589934591 bytes"),
    "file-within-its-limit": (header(size=b"%011o\0" % (60 * 2**20)), "decompression bomb"),
    "after-the-end": (header() + END, "decompression bomb"),
    "nothing-but-zeros": (b"", "decompression bomb"),
    "extended-header": (header(kind=b"x", size=b"%011o\0" % (8 * 2**30 - 1)), "extended header of"),
    "gnu-name": (header(kind=b"L", size=b"%011o\0" % (8 * 2**30 - 1)), "extended header of"),
    "directory": (header(kind=b"5", size=b"%011o\0" % (8 * 2**30 - 1)), "directory with content"),
}


@pytest.mark.parametrize(("start", "words"), BOMBS.values(), ids=BOMBS)
def test_ten_gigabytes_of_zeros_are_refused_early(tmp_path: Path, start: bytes, words: str) -> None:
    bomb = ten_gigabytes(start)
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(PermanentError, match=words) as caught:
            extract(bomb, tmp_path / "tree")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Reason.INVALID_ARCHIVE is caught.value.reason
    assert list(tmp_path.iterdir()) == []
    assert bomb.taken < 2**18
    assert peak < 3 * 2**20
    assert time.monotonic() - began < 2


def test_what_is_written_before_a_bomb_is_noticed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    def count(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        return len(data)

    monkeypatch.setattr("secret_manager_controller.sources.archive.os.write", count)
    with pytest.raises(PermanentError, match="bomb"):
        extract(ten_gigabytes(header(size=b"%011o\0" % (60 * 2**20))), tmp_path / "tree")
    assert written <= 16 * 2**20


LIMITS = ArchiveLimits(total_bytes=2**20, file_bytes=2**16, entries=20, depth=4, path_bytes=64)


def test_each_limit_is_exact(pack: Pack, unpack: Unpack) -> None:
    unpack(pack(("a/b/c/d", b"x" * 2**16)), LIMITS)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a", b"x" * (2**16 + 1))], "the limit is 65536"),
        ([(f"{i}", b"x" * 2**16) for i in range(17)], "more than 1 MiB"),
        ([(f"{i}", b"") for i in range(21)], "more than 20 entries"),
        ([(f"{i}/a/b/c", b"") for i in range(6)], "more than 20 entries"),
        ([member(f"{i}/a/b/c", tarfile.DIRTYPE) for i in range(6)], "more than 20 entries"),
        ([member(f"{i}", tarfile.SYMTYPE, "x") for i in range(21)], "more than 20 entries"),
        ([member("./", tarfile.DIRTYPE)] * 21, "more than 20 entries"),
        ([("a/b/c/d/e", b"")], "4 directories deep"),
        ([("a" * 60 + "/bcdef", b"")], "too long"),
    ],
    ids=["file", "total", "entries", "parents", "directories", "links", "headers", "depth", "path"],
)
def test_each_limit_holds(pack: Pack, unpack: Unpack, members: list[object], words: str) -> None:
    assert_refused(unpack, pack(*members), words, LIMITS)


def test_a_big_tree_of_empty_files_is_no_bomb(pack: Pack, unpack: Unpack) -> None:
    content = pack(*[(f"services/{i % 50}/{i}.yaml", b"") for i in range(2000)])
    root, _ = unpack(content)
    assert len(files_in(root)) == 2000


def test_it_stops_when_nobody_wants_the_result(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        extract(ten_gigabytes(header()), tmp_path / "tree", stopped=lambda: True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("secret_manager_controller.sources.archive.os.write", full)
    with pytest.raises(OSError, match="No space"):
        extract(io.BytesIO(pack(("a", b"x"))), tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


# --- properties

NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/\\"), min_size=1, max_size=120
)
TREES = st.dictionaries(
    st.lists(NAMES.filter(lambda name: name not in {".", ".."} and len(name.encode()) < 256), min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda path: len(path.encode()) <= 1024),
    st.binary(max_size=1500),
    max_size=12,
)


def no_path_is_a_directory_of_another(tree: dict[str, bytes]) -> bool:
    return not any(other.startswith(path + "/") for path in tree for other in tree)


@given(TREES.filter(no_path_is_a_directory_of_another), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
@settings(max_examples=80, deadline=None)
def test_what_tarfile_writes_is_read_as_it_was(tree: dict[str, bytes], format: int) -> None:  # noqa: A002
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=format) as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(content), 1.5, "ü" * 40
            archive.addfile(info, io.BytesIO(content))
    with TemporaryDirectory() as directory:
        root = Path(directory, "tree")
        extract(io.BytesIO(gzip.compress(plain.getvalue(), 1)), root)
        assert tree == files_in(root)


PIECES = st.one_of(
    st.builds(
        header,
        st.sampled_from([b"a", b"a/b", b"../x", b"/x", b"a/../../x", b".", b"./a/", b"", b"a\\b", b"l/x", b"l"]),
        st.sampled_from([b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"L", b"K", b"x", b"g", b"S"]),
        st.sampled_from([b"%011o\0" % 0, b"%011o\0" % 5, b"%011o\0" % 512, b"\xff" * 12, b"77777777777\0"]),
        target=st.sampled_from([b"", b"a", b"../..", b"/etc"]),
        prefix=st.sampled_from([b"", b"p", b".."]),
    ),
    st.builds(pax, path=st.sampled_from([b"a", b"../x", b"/x", b"l/x"])),
    st.builds(pax, linkpath=st.sampled_from([b"a", b"../../x"])),
    st.builds(pax, size=st.sampled_from([b"0", b"5", b"99999999999"])),
    st.binary(max_size=600).map(blocks),
    st.just(blocks(b"../../evil")),
    st.just(END),
)


@given(st.lists(PIECES, max_size=8).map(b"".join), st.booleans())
@example(header(b"l", b"2", target=b"a") + header(b"l/x") + END, False)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_archive_reaches_outside(plain: bytes, close: bool) -> None:
    """Whatever the pieces: a tree of regular files and directories, or no tree, and nothing beside it."""
    with TemporaryDirectory() as directory:
        inner = Path(directory, "inner")
        inner.mkdir()
        try:
            extract(io.BytesIO(gzip.compress(plain + END * close, 1)), inner / "tree")
        except PermanentError:
            assert list(inner.iterdir()) == []
        else:
            assert all(path.is_dir() or stat.S_ISREG(path.lstat().st_mode) for path in inner.rglob("*"))
            assert [path.name for path in inner.iterdir()] == ["tree"]
        assert [path.name for path in Path(directory).iterdir()] == ["inner"]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    plain = bytearray(header(b"a", size=b"%011o\0" % 5) + blocks(b"hello") + pax(path=b"d/e") + header() + END)
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as directory:
        try:
            extract(io.BytesIO(gzip.compress(bytes(plain), 1)), Path(directory, "tree"))
        except PermanentError:
            assert list(Path(directory).iterdir()) == []


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_noise_is_refused(noise: bytes) -> None:
    with TemporaryDirectory() as directory:
        with pytest.raises(PermanentError):
            extract(io.BytesIO(b"\x1f\x8b\x08\0" + noise), Path(directory, "tree"))
        assert list(Path(directory).iterdir()) == []
