"""The snapshot cache: fetched once for all, kept while read, bounded, and clean after every failure."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from secret_manager_controller.errors import PermanentError, Reason, RetryableError
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources import cache as cache_module
from secret_manager_controller.sources.cache import SnapshotCache

Pack = Callable[..., bytes]


class Origin:
    """Hands out archives, counts the downloads, and holds them back until told."""

    def __init__(self) -> None:
        self.downloads = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def of(self, content: bytes) -> tuple[Revision, Callable[[Path], Awaitable[None]]]:
        async def download(into: Path) -> None:
            self.downloads += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            into.write_bytes(content)  # noqa: ASYNC240 - a few bytes.
            if self.failure:
                raise self.failure

        return Revision("main@sha1:1", f"sha256:{hashlib.sha256(content).hexdigest()}", "http://h/a"), download


@pytest.fixture
async def origin() -> Origin:
    return Origin()


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[SnapshotCache]:
    cache = SnapshotCache(tmp_path / "cache", max_snapshots=2)
    yield cache
    await cache.aclose()


def on_disk(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.name != "lock")


async def read(cache: SnapshotCache, origin: Origin, content: bytes, path: str = "a") -> bytes | None:
    revision, download = origin.of(content)
    async with cache.lease(revision, download=download) as tree:
        return tree.read_file(path)


async def settled() -> None:
    """Let every task run until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_snapshot_is_fetched_and_kept(cache: SnapshotCache, origin: Origin, pack: Pack, tmp_path: Path) -> None:
    content = pack(("a", b"1"))
    assert await read(cache, origin, content) == b"1"
    assert await read(cache, origin, content) == b"1"
    assert origin.downloads == 1
    assert [f"snapshot-sha256-{hashlib.sha256(content).hexdigest()}-0"] == on_disk(tmp_path)


async def test_each_reader_sees_his_own_revision(cache: SnapshotCache, origin: Origin, pack: Pack) -> None:
    revision, download = origin.of(pack(("a", b"1")))
    other = Revision("release@sha1:2", revision.digest, "http://h/b")
    async with cache.lease(revision, download=download) as first, cache.lease(other, download=download) as second:
        assert (revision, other) == (first.revision, second.revision)
        assert first.root == second.root


async def test_many_who_want_one_digest_fetch_it_once(cache: SnapshotCache, origin: Origin, pack: Pack) -> None:
    content = pack(("a", b"1"))
    assert await asyncio.gather(*[read(cache, origin, content) for _ in range(50)]) == [b"1"] * 50
    assert origin.downloads == 1


async def test_one_who_is_cancelled_does_not_cancel_the_others(
    cache: SnapshotCache, origin: Origin, pack: Pack
) -> None:
    origin.gate.clear()
    content = pack(("a", b"1"))
    readers = [asyncio.create_task(read(cache, origin, content)) for _ in range(3)]
    await settled()
    readers[0].cancel()  # The one who came first, too, is only one of those who wait.
    await settled()
    origin.gate.set()
    assert await asyncio.gather(*readers[1:]) == [b"1", b"1"]
    assert readers[0].cancelled()
    assert (origin.downloads, origin.cancelled) == (1, 0)


async def test_nobody_is_left_and_the_download_stops(
    cache: SnapshotCache, origin: Origin, pack: Pack, tmp_path: Path
) -> None:
    origin.gate.clear()
    content = pack(("a", b"1"))
    readers = [asyncio.create_task(read(cache, origin, content)) for _ in range(3)]
    await asyncio.sleep(0.05)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    # Who comes now is not bound to the download that is being stopped; nor does its end disturb them.
    first = asyncio.create_task(read(cache, origin, content))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(read(cache, origin, content))
    await asyncio.sleep(0.05)
    origin.gate.set()
    assert await asyncio.gather(first, second) == [b"1", b"1"]
    assert (origin.downloads, origin.cancelled) == (2, 1)
    assert len(on_disk(tmp_path)) == 1


async def test_a_failure_reaches_all_who_wait_and_nobody_else(
    cache: SnapshotCache, origin: Origin, pack: Pack, tmp_path: Path
) -> None:
    origin.gate.clear()
    origin.failure = RetryableError(Reason.FETCH_FAILED, "no")
    content = pack(("a", b"1"))
    readers = [asyncio.create_task(read(cache, origin, content)) for _ in range(3)]
    await settled()
    origin.gate.set()
    failures = await asyncio.gather(*readers, return_exceptions=True)
    assert [origin.failure] * 3 == failures
    assert on_disk(tmp_path) == []
    origin.failure = None
    assert await read(cache, origin, content) == b"1"
    assert origin.downloads == 2


async def test_who_tries_again_at_once_does_not_get_the_old_failure(
    cache: SnapshotCache, origin: Origin, pack: Pack
) -> None:
    origin.failure = RetryableError(Reason.FETCH_FAILED, "no")
    content = pack(("a", b"1"))

    async def persistent() -> bytes | None:
        with pytest.raises(RetryableError):
            await read(cache, origin, content)
        origin.failure = None
        return await read(cache, origin, content)  # While the other one has not yet been told.

    succeeded, failed = await asyncio.gather(persistent(), read(cache, origin, content), return_exceptions=True)
    assert succeeded == b"1"
    assert isinstance(failed, RetryableError)


async def test_a_bad_archive_is_refused_and_leaves_nothing(
    cache: SnapshotCache, origin: Origin, pack: Pack, tmp_path: Path
) -> None:
    with pytest.raises(PermanentError, match="outside its root"):
        await read(cache, origin, pack(("good", b"1"), ("../evil", b"2")))
    assert on_disk(tmp_path) == []
    assert os.listdir(tmp_path) == ["cache"]  # noqa: PTH208 - ASYNC240 has no pathlib here.


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_told(cache: SnapshotCache, origin: Origin, pack: Pack, tmp_path: Path, code: int) -> None:
    origin.failure = OSError(code, "full")
    with pytest.raises(RetryableError, match="no room is left") as caught:
        await read(cache, origin, pack(("a", b"1")))
    assert Reason.FETCH_FAILED is caught.value.reason
    assert on_disk(tmp_path) == []


async def test_the_least_recently_used_goes_first(cache: SnapshotCache, origin: Origin, pack: Pack) -> None:
    one, two, three = (pack(("a", bytes([i]))) for i in range(3))
    for content in (one, two, one, three):
        await read(cache, origin, content)
    assert origin.downloads == 3
    await read(cache, origin, one)
    assert origin.downloads == 3
    await read(cache, origin, two)
    assert origin.downloads == 4


async def test_what_is_read_is_never_removed(cache: SnapshotCache, origin: Origin, pack: Pack, tmp_path: Path) -> None:
    async with AsyncExitStack() as long, AsyncExitStack() as short:
        trees = []
        for i in range(6):
            revision, download = origin.of(pack(("a", bytes([i]))))
            stack = long if i < 3 else short
            trees.append(await stack.enter_async_context(cache.lease(revision, download=download)))
        assert len(on_disk(tmp_path)) == 6
        await short.aclose()
        # Three are more than there is room for, and the oldest; but they are read.
        assert [tree.read_file("a") for tree in trees[:3]] == [b"\0", b"\1", b"\2"]
        assert len(on_disk(tmp_path)) == 3
    assert len(on_disk(tmp_path)) == 2


async def test_the_bytes_are_bounded(origin: Origin, pack: Pack, tmp_path: Path) -> None:
    cache = SnapshotCache(tmp_path / "cache", max_bytes=100_000)
    for i in range(4):
        await read(cache, origin, pack(("a", bytes([i]) * 30_000)))
    assert len(on_disk(tmp_path)) == 2  # Two files with their directories; a third would pass the bound.
    await read(cache, origin, pack(("a", b"x" * 120_000)))
    assert len(on_disk(tmp_path)) == 0
    await cache.aclose()


async def test_links_that_were_left_out_are_known_to_the_tree(cache: SnapshotCache, origin: Origin, pack: Pack) -> None:
    import tarfile

    link = tarfile.TarInfo("link.env")
    link.type, link.linkname = tarfile.SYMTYPE, "a"
    with pytest.raises(PermanentError, match=r"link\.env cannot be read: it is a symbolic link"):
        await read(cache, origin, pack(("a", b"1"), link), "link.env")


async def test_what_a_crash_left_is_swept_and_what_is_not_ours_stays(
    tmp_path: Path, origin: Origin, pack: Pack
) -> None:
    for name in ("snapshot-sha256-00-7", "work-abc", "lost+found"):
        (tmp_path / "cache" / name / "tree").mkdir(parents=True)
    cache = SnapshotCache(tmp_path / "cache")
    assert on_disk(tmp_path) == ["lost+found"]
    await read(cache, origin, pack(("a", b"1")))
    await cache.aclose()
    assert on_disk(tmp_path) == ["lost+found"]


async def test_a_directory_belongs_to_one_cache(tmp_path: Path) -> None:
    first = SnapshotCache(tmp_path / "cache")
    with pytest.raises(RuntimeError, match="another process"):
        SnapshotCache(tmp_path / "cache")
    await first.aclose()
    await SnapshotCache(tmp_path / "cache").aclose()


async def test_the_directory_is_ours_alone(cache: SnapshotCache, tmp_path: Path) -> None:
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


async def test_closing_stops_what_is_under_way(origin: Origin, pack: Pack, tmp_path: Path) -> None:
    cache = SnapshotCache(tmp_path / "cache")
    origin.gate.clear()
    reader = asyncio.create_task(read(cache, origin, pack(("a", b"1"))))
    await asyncio.sleep(0.05)
    await cache.aclose()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert origin.cancelled == 1
    assert on_disk(tmp_path) == []


async def test_a_cancelled_extraction_ends_before_its_directory_is_removed(
    cache: SnapshotCache, origin: Origin, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, events = threading.Event(), []

    def slow(_archive: Path, tree: Path, _limits: object, stopped: Callable[[], bool]) -> None:
        started.set()
        while not stopped():
            pass
        tree.mkdir()  # Fails if the directory above is gone already.
        events.append("ended")

    monkeypatch.setattr(cache_module, "_unpack", slow)
    reader = asyncio.create_task(read(cache, origin, pack(("a", b"1"))))
    await asyncio.to_thread(started.wait, 5)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await cache.aclose()
    assert events == ["ended"]
    assert on_disk(tmp_path) == []


async def test_the_loop_runs_while_an_archive_is_unpacked(cache: SnapshotCache, origin: Origin, pack: Pack) -> None:
    content = pack(*[(f"{i % 20}/{i}", b"x" * 100) for i in range(1500)])
    reader = asyncio.create_task(read(cache, origin, content, "0/0"))
    ticks = 0
    while not reader.done():
        await asyncio.sleep(0.002)
        ticks += 1
    assert await reader == b"x" * 100
    assert ticks > 3
