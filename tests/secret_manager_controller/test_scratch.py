"""Directories for plaintext: in memory where there is memory, and gone afterwards."""

import pytest

from secret_manager_controller import scratch


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Return a function that says what is mounted where."""

    def say(text):
        (tmp_path / "mounts").write_text(text)
        monkeypatch.setattr(scratch, "_MOUNTS", tmp_path / "mounts")

    return say


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Make the two places for such directories, and return them."""
    shared, temporary = tmp_path / "shm", tmp_path / "tmp dir"
    for place in (shared, temporary):
        place.mkdir()
    monkeypatch.setattr(scratch, "_SHARED_MEMORY", shared)
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(temporary))
    return shared, temporary


def test_the_first_place_in_memory_is_taken(mounts, places):
    shared, temporary = places
    escaped = str(temporary).replace(" ", "\\040")
    mounts(f"overlay / overlay rw 0 0\ntmpfs {shared} tmpfs rw 0 0\n")
    assert scratch.base_in_memory() == shared
    mounts(f"overlay / overlay rw 0 0\ntmpfs {escaped} tmpfs rw 0 0\n")
    assert scratch.base_in_memory() == temporary
    mounts("overlay / overlay rw 0 0\n")
    assert scratch.base_in_memory() is None


def test_of_two_mounts_on_one_place_the_last_counts(mounts, places):
    shared, _ = places
    mounts(f"tmpfs {shared} tmpfs rw 0 0\next4 {shared} ext4 rw 0 0\next4 / ext4 rw 0 0\n")
    assert scratch.base_in_memory() is None


def test_where_mounts_cannot_be_read_nothing_is_taken_for_memory(places, monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "_MOUNTS", tmp_path / "none")
    assert scratch.base_in_memory() is None


def test_a_directory_is_private_and_goes_whatever_happens(places):
    shared, _ = places
    with scratch.scratch_directory("x-", base=shared) as directory:
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "file").write_text("plaintext")
        assert scratch.sweep("x-") == 0, "its owner lives"
    assert list(shared.iterdir()) == []
    with pytest.raises(RuntimeError), scratch.scratch_directory("x-", base=shared):
        raise RuntimeError
    assert list(shared.iterdir()) == []
