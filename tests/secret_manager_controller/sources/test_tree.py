"""Reading a snapshot: names one by one, never through a link, never outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secret_manager_controller.errors import PermanentError, Reason
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.tree import MAX_FILE_BYTES, SnapshotTree, split_path

REVISION = Revision(revision="main@sha1:1", digest="sha256:0", url="http://h/a")


@pytest.fixture
def tree(tmp_path: Path) -> SnapshotTree:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file.env").write_bytes(b"KEY=value")
    (root / "a/z").write_bytes(b"")
    (tmp_path / "outside").write_bytes(b"not ours")
    return SnapshotTree(revision=REVISION, root=root)


@pytest.mark.parametrize("path", ["a/b/file.env", "./a/b/file.env", "a/b/file.env/"])
def test_a_file_is_read(tree: SnapshotTree, path: str) -> None:
    assert tree.read_file(path) == b"KEY=value"


@pytest.mark.parametrize(
    "path", ["nothing", "a/nothing", "a/nothing/deeper", "a/z/below-a-file", "n" * 300, "n" * 300 + "/x"]
)
def test_what_is_not_there_is_none(tree: SnapshotTree, path: str) -> None:
    assert tree.read_file(path) is None
    assert tree.list_dir(path) is None
    assert not tree.exists(path)


def test_an_empty_file_is_no_absence(tree: SnapshotTree) -> None:
    assert tree.read_file("a/z") == b""


@pytest.mark.parametrize("path", ["a", "./a", "a/"])
def test_a_directory_is_listed_in_order(tree: SnapshotTree, path: str) -> None:
    assert list((tree.list_dir(path) or {}).items()) == [("b", True), ("z", False)]


@pytest.mark.parametrize("path", ["", ".", "./"])
def test_the_root_has_three_spellings(tree: SnapshotTree, path: str) -> None:
    assert tree.list_dir(path) == {"a": True}
    assert tree.exists(path)


def test_a_file_is_no_directory(tree: SnapshotTree) -> None:
    assert tree.list_dir("a/z") is None
    assert tree.exists("a/z")
    assert tree.exists("a/b")


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../outside",
        "a/../../outside",
        "a/..",
        "/etc/passwd",
        "/",
        "//",
        "a//b",
        "a/./b",
        "a\0b",
        "./../a",
        ".//a",
    ],
)
def test_a_path_outside_is_refused(tree: SnapshotTree, path: str) -> None:
    for read in (tree.read_file, tree.list_dir, tree.exists):
        with pytest.raises(PermanentError, match="inside the source") as caught:
            read(path)
        assert Reason.PATH_NOT_FOUND is caught.value.reason


@given(st.text(alphabet="./a\0", max_size=12))
def test_no_split_path_leads_out(path: str) -> None:
    try:
        names = split_path(path)
    except PermanentError:
        return
    assert all(name not in {"", ".", ".."} and not {"/", "\0"} & set(name) for name in names)


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("a/link", "b/file.env", "a/link"),
        ("a/link", "../../outside", "a/link"),
        ("a/link", "nowhere", "a/link"),
        ("a/link", "b", "a/link/file.env"),
        ("link", "a", "link/b/file.env"),
        ("link", "link", "link"),
        ("link", "/etc", "link/passwd"),
    ],
)
def test_a_link_is_an_error_and_no_absence(tree: SnapshotTree, link: str, target: str, path: str) -> None:
    (tree.root / link).symlink_to(target)
    for read in (tree.read_file, tree.exists):
        with pytest.raises(PermanentError, match="is a symbolic link") as caught:
            read(path)
        assert Reason.INVALID_ARCHIVE is caught.value.reason


def test_a_link_to_a_directory_is_listed_as_none(tree: SnapshotTree) -> None:
    (tree.root / "a/link").symlink_to("b")
    assert tree.list_dir("a") == {"b": True, "link": False, "z": False}
    with pytest.raises(PermanentError, match="is a symbolic link"):
        tree.list_dir("a/link")


def test_a_link_that_was_left_out_is_treated_as_one_that_is_there(tree: SnapshotTree) -> None:
    tree = SnapshotTree(revision=REVISION, root=tree.root, links=frozenset({"a/gone", "top"}))
    assert tree.list_dir("a") == {"b": True, "gone": False, "z": False}
    assert tree.list_dir("") == {"a": True, "top": False}
    for read, path in (
        (tree.read_file, "a/gone"),
        (tree.exists, "top"),
        (tree.list_dir, "top"),
        (tree.read_file, "top/x/y"),
    ):
        with pytest.raises(PermanentError, match="is a symbolic link"):
            read(path)


def test_the_root_itself_may_be_a_link(tree: SnapshotTree, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to("root")
    assert SnapshotTree(revision=REVISION, root=tmp_path / "alias").read_file("a/z") == b""


def test_a_fifo_does_not_block(tree: SnapshotTree) -> None:
    os.mkfifo(tree.root / "pipe")
    with pytest.raises(PermanentError, match="neither a regular file nor a directory"):
        tree.read_file("pipe")
    assert not tree.exists("pipe")


def test_a_directory_is_no_file(tree: SnapshotTree) -> None:
    with pytest.raises(PermanentError, match="a/b is a directory"):
        tree.read_file("a/b")


def test_a_large_file_is_refused_and_the_largest_allowed_is_read(tree: SnapshotTree) -> None:
    with (tree.root / "large").open("wb") as file:
        file.truncate(MAX_FILE_BYTES)
    assert len(tree.read_file("large") or b"") == MAX_FILE_BYTES
    os.truncate(tree.root / "large", MAX_FILE_BYTES + 1)
    with pytest.raises(PermanentError, match="larger than 4 MiB") as caught:
        tree.read_file("large")
    assert Reason.INVALID_DOCUMENT is caught.value.reason


def test_what_may_not_be_read_is_told(tree: SnapshotTree, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def deny(path: str, flags: int, **where: int) -> int:
        if path == "z":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, **where)

    monkeypatch.setattr(os, "open", deny)  # The tests run as root, whom no mode keeps out.
    with pytest.raises(PermanentError, match="a/z may not be read"):
        tree.read_file("a/z")


def test_descriptors_are_closed(tree: SnapshotTree) -> None:
    (tree.root / "link").symlink_to("a")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("a/b/file.env", "a/b", "a/nothing", "nothing/x", "link", "link/b", "../x"):
        for read in (tree.read_file, tree.list_dir, tree.exists):
            try:
                read(path)
            except PermanentError:
                continue
    assert before == len(list(Path("/proc/self/fd").iterdir()))


def test_a_confined_tree_shows_the_directories_and_the_way_to_them(tree: SnapshotTree) -> None:
    (tree.root / "c").mkdir()
    (tree.root / "c/secret").write_bytes(b"another tenant's")
    confined = tree.confined(["a/b"])
    assert confined.list_dir("") == {"a": True}
    assert confined.list_dir("a") == {"b": True}
    assert confined.list_dir("a/b") == {"file.env": False}
    assert confined.read_file("a/b/file.env") == b"KEY=value"
    for path in ("a/z", "c", "c/secret", "a/bb"):
        assert confined.read_file(path) is None
        assert confined.list_dir(path) is None
        assert not confined.exists(path)
    assert tree.confined(None).read_file("c/secret") == b"another tenant's"


def test_a_file_on_the_way_to_a_granted_directory_is_not_shown(tree: SnapshotTree) -> None:
    assert tree.confined(["a/z/below"]).read_file("a/z") is None
