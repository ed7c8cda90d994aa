"""Running `gpg`: what it unwraps, and that nothing of it stays."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from secret_manager_controller import scratch
from secret_manager_controller.decrypt import KeyRing, openpgp, pgp, sweep_gpg_homes

DATA_KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test its own place for homes, which must be empty at the end."""
    base = tmp_path_factory.mktemp("h")
    monkeypatch.setattr(scratch, "_SHARED_MEMORY", base)
    yield base
    assert list(base.iterdir()) == []


def message(gnupg: Any, data: bytes, *options: str) -> bytes:
    (content,) = openpgp.dearmor(gnupg.encrypt(data, *options), openpgp.MESSAGE_BLOCK)
    return content


def agents(home: Path) -> list[int]:
    """Return the processes whose command line has a home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(home) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_data_key_is_unwrapped(gnupg: Any, fingerprint: str, pgp_ring: KeyRing) -> None:
    assert pgp.unwrap(message(gnupg, DATA_KEY, "-r", fingerprint), pgp_ring.pgp) == DATA_KEY


def test_many_at_once(gnupg: Any, fingerprint: str, pgp_ring: KeyRing) -> None:
    wrapped = message(gnupg, DATA_KEY, "-r", fingerprint)
    with ThreadPoolExecutor(32) as pool:
        unwrapped = list(pool.map(lambda _: pgp.unwrap(wrapped, pgp_ring.pgp), range(64)))
    assert unwrapped == [DATA_KEY] * 64


def test_a_hidden_recipient_is_tried(gnupg: Any, fingerprint: str, pgp_ring: KeyRing) -> None:
    assert pgp.unwrap(message(gnupg, DATA_KEY, "-R", fingerprint), pgp_ring.pgp) == DATA_KEY


def test_a_message_for_others_is_none_of_ours(gnupg: Any, pgp_ring: KeyRing) -> None:
    other = gnupg.make("other@example.test")
    assert pgp.unwrap(message(gnupg, DATA_KEY, "-r", other), pgp_ring.pgp) is None


def test_a_password_is_never_asked_for(gnupg: Any, pgp_ring: KeyRing) -> None:
    (wrapped,) = openpgp.dearmor(
        gnupg.run("--armor", "--symmetric", data=DATA_KEY, passphrase="x").decode(), openpgp.MESSAGE_BLOCK
    )
    assert pgp.unwrap(wrapped, pgp_ring.pgp) is None


def test_a_damaged_message_is_refused(gnupg: Any, fingerprint: str, pgp_ring: KeyRing) -> None:
    wrapped = bytearray(message(gnupg, DATA_KEY, "-r", fingerprint))
    wrapped[-5] ^= 1
    assert pgp.unwrap(bytes(wrapped), pgp_ring.pgp) is None


def test_a_bomb_is_cut_off(gnupg: Any, fingerprint: str, pgp_ring: KeyRing) -> None:
    bomb = message(gnupg, bytes(100 << 20), "-r", fingerprint, "--compress-algo=bzip2")
    assert len(bomb) < pgp.MAX_MESSAGE_BYTES
    start = time.perf_counter()
    assert pgp.unwrap(bomb, pgp_ring.pgp) is None
    assert time.perf_counter() - start < 3


def test_a_message_that_no_pipe_takes_is_refused(pgp_ring: KeyRing) -> None:
    with pytest.raises(pgp.GpgError, match="larger than"):
        pgp.unwrap(bytes(pgp.MAX_MESSAGE_BYTES + 1), pgp_ring.pgp)


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


def test_a_missing_program_is_named(pgp_ring: KeyRing) -> None:
    with pytest.raises(pgp.GpgError, match="no program `no-such-gpg`; install GnuPG"):
        pgp.unwrap(b"x", pgp_ring.pgp, gpg="no-such-gpg")


def test_a_program_that_hangs_is_killed(tmp_path: Path, pgp_ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgp, "GPG_TIMEOUT", 0.1)
    with pytest.raises(pgp.GpgError, match=r"did not end within 0\.1 seconds"):
        pgp.unwrap(b"x", pgp_ring.pgp, gpg=script(tmp_path / "gpg", "exec sleep 60"))


def test_a_program_that_reads_nothing_or_fails_gives_nothing(tmp_path: Path, pgp_ring: KeyRing) -> None:
    assert pgp.unwrap(b"x" * 10_000, pgp_ring.pgp, gpg=script(tmp_path / "gpg", "echo out; exit 2")) is None
    assert pgp.unwrap(b"x", pgp_ring.pgp, gpg=script(tmp_path / "gpg", "exit 0")) is None


def test_the_program_sees_a_bare_environment_and_no_secret_arguments(
    tmp_path: Path, pgp_ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "from outside")
    program = script(tmp_path / "gpg", f'cat > /dev/null; {{ env; echo "$@"; }} >> {tmp_path}/seen; echo key')
    assert pgp.unwrap(b"wrapped-canary", pgp_ring.pgp, gpg=program) == b"key\n"
    seen = (tmp_path / "seen").read_text()
    names = {line.partition("=")[0] for line in seen.splitlines() if "=" in line and not line.startswith("--")}
    assert names <= {"GNUPGHOME", "HOME", "LC_ALL", "PATH", "PWD", "_", "SHLVL", "OLDPWD"}
    assert "canary" not in seen


def test_a_home_is_private_and_leaves_nothing(base: Path, gnupg: Any, fingerprint: str, pgp_ring: KeyRing) -> None:
    wrapped = message(gnupg, DATA_KEY, "-r", fingerprint)
    with pgp.gpg_home() as home:
        assert home.parent == base
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert "auto-expand-secmem" in (home / "gpg-agent.conf").read_text()
        pgp._run("/usr/bin/gpg", home, "--import", data=pgp_ring.pgp[0].packets)
        assert pgp._run("/usr/bin/gpg", home, "--decrypt", data=wrapped) == DATA_KEY
        assert agents(home), "gpg has started an agent"
        assert not any(DATA_KEY in file.read_bytes() for file in home.rglob("*") if file.is_file())
    assert not home.exists()
    assert [pid for pid in agents(home) if pgp._runs(pid)] == []


def test_a_home_goes_when_its_user_fails(base: Path) -> None:
    with pytest.raises(RuntimeError), pgp.gpg_home():
        raise RuntimeError
    assert list(base.iterdir()) == []


def test_without_shared_memory_a_home_is_in_the_temporary_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_SHARED_MEMORY", Path("/nonexistent"))
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    with pgp.gpg_home() as home:
        assert home.parent == tmp_path


def test_the_sweep_removes_what_dead_processes_left(base: Path) -> None:
    dead, fresh, old = (base / f"{pgp.HOME_PREFIX}{name}" for name in ("dead", "fresh", "old"))
    for home in (dead, fresh, old):
        home.mkdir()
    (dead / scratch.LOCK_NAME).touch()
    (dead / "private-keys-v1.d").mkdir()
    os.utime(old, (0, 0))
    (base / f"{pgp.HOME_PREFIX}file").touch()
    (base / f"{pgp.HOME_PREFIX}link").symlink_to(base)
    (base / "unrelated").mkdir()
    with pgp.gpg_home() as alive:
        assert sweep_gpg_homes() == 2
        assert alive.exists()
    assert [fresh.exists(), old.exists(), dead.exists()] == [True, False, False]
    for left in base.iterdir():
        left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()


def test_the_sweep_ends_the_agent_of_a_dead_process(base: Path, gnupg: Any, pgp_ring: KeyRing) -> None:
    home = base / f"{pgp.HOME_PREFIX}crashed"
    home.mkdir(mode=0o700)
    (home / scratch.LOCK_NAME).touch()
    pgp._run("/usr/bin/gpg", home, "--import", data=pgp_ring.pgp[0].packets)
    assert agents(home)
    assert sweep_gpg_homes() == 1
    assert [pid for pid in agents(home) if pgp._runs(pid)] == []


def test_the_sweep_passes_over_homes_that_vanish_or_are_locked(base: Path) -> None:
    assert not scratch._swept(base / "gone", pgp._remove)
    home = base / f"{pgp.HOME_PREFIX}locked"
    home.mkdir()
    with (home / scratch.LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not scratch._swept(home, pgp._remove)
    assert scratch._swept(home, pgp._remove)


def test_an_agent_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgp, "AGENT_TIMEOUT", 0.5)
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    pgp._await_end(pid)
    with pytest.raises(ChildProcessError):  # It was reaped, as process 1 has to.
        os.waitpid(pid, 0)


def test_the_end_of_other_processes_is_seen() -> None:
    assert pgp._runs(1)
    assert not pgp._runs(2**22 + 1)


def test_sockets_may_be_under_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    sockets = tmp_path / "d.1234"
    sockets.mkdir()
    monkeypatch.setattr(pgp, "_has_run_directory", lambda: True)
    monkeypatch.setattr(pgp.shutil, "which", lambda _: script(tmp_path / "gpgconf", f"echo {sockets}"))
    assert pgp._socket_directory(home) == sockets
    pgp._remove(home)
    assert not home.exists()
    assert not sockets.exists()
    monkeypatch.setattr(pgp.shutil, "which", lambda _: script(tmp_path / "gpgconf", "echo /run/user/0/gnupg"))
    assert pgp._socket_directory(home) == home, "only a directory that is the home's own is removed"
    monkeypatch.setattr(pgp, "AGENT_TIMEOUT", 0.05)
    monkeypatch.setattr(pgp.shutil, "which", lambda _: script(tmp_path / "gpgconf", "exec sleep 60"))
    assert pgp._socket_directory(home) == home, "a gpgconf that hangs keeps no home"
