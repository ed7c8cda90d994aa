"""Listing and fetching, from real servers with real git."""

import asyncio
import contextlib
import io
import os
import re
import shutil
import tarfile
import time
from pathlib import Path

import asyncssh
import pytest

from secret_manager_controller.errors import ControllerError, PermanentError, Reason, RetryableError
from secret_manager_controller.sources.git import command
from secret_manager_controller.sources.git import repositories as module
from secret_manager_controller.sources.git.login import Access, GitLogin
from secret_manager_controller.sources.git.remote import parse_remote
from secret_manager_controller.sources.git.repositories import GitRepositories
from secret_manager_controller.sources.protocol import RevisionReplaced
from secret_manager_controller.testing.gitserver import GitServer

PASSWORD = "canary-p4ssw0rd"


async def files(repositories, access, commit, tmp_path):
    """Return the regular files of a commit's archive, by path."""
    into = tmp_path / f"artifact-{commit}-{len(list(tmp_path.iterdir()))}"
    await repositories.archive(access, commit, into)
    with tarfile.open(fileobj=io.BytesIO(into.read_bytes())) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}


def running(word):
    """Return the processes that have a word in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path] if word.encode() in path.read_bytes() else []
    return found


async def refused(coroutine):
    with pytest.raises(ControllerError) as caught:
        await coroutine
    assert PASSWORD not in caught.value.message
    return caught.value


async def test_a_commit_is_listed_and_fetched_alone(server, repositories, access, tmp_path):
    repository = server.create("team/app")
    first = repository.commit({"a/x.env": "A=1\n"})
    second = repository.commit({"a/x.env": "A=2\n", "b": "b"})
    repository.tag("v1", annotated=True)
    refs = await repositories.refs(access("team/app"))
    assert refs == {"HEAD": second, "refs/heads/main": second, "refs/tags/v1": second}
    assert await files(repositories, access("team/app"), second, tmp_path) == {"a/x.env": b"A=2\n", "b": b"b"}
    # One commit, without its history.
    bare = next(path for path in (tmp_path / "git").iterdir())
    assert (bare / "shallow").read_text().split() == [second]
    assert first not in (await command.run_git(["rev-list", "--all"], directory=bare, timeout=5)).decode()


async def test_a_commit_that_no_branch_has_any_more_is_fetched_too(server, repositories, access, tmp_path):
    repository = server.create("app")
    old = repository.commit({"a": "old"})
    repository.git("commit", "--quiet", "--amend", "--message=other")
    repository.push("main", force=True)
    assert await files(repositories, access("app"), old, tmp_path) == {"a": b"old"}


async def test_a_commit_is_fetched_once_and_the_next_adds_what_is_new(server, repositories, access, tmp_path):
    repository = server.create("app")
    first = repository.commit({"a": os.urandom(2**20)})
    for _ in range(3):
        await files(repositories, access("app"), first, tmp_path)
    asked = len(server.requests)
    second = repository.commit({"b": "b"})
    before = sum(path.lstat().st_size for path in (tmp_path / "git").rglob("*"))
    assert set(await files(repositories, access("app"), second, tmp_path)) == {"a", "b"}
    assert sum(path.lstat().st_size for path in (tmp_path / "git").rglob("*")) - before < 2**18
    assert asked == 2  # What the server can, and the pack.


async def test_a_thousand_who_ask_are_one_listing_until_it_is_old_or_news(server, repositories, access, clock):
    repository = server.create("app")
    repository.commit({"a": "1"})
    await asyncio.gather(*[repositories.refs(access("app")) for _ in range(1000)])
    once = len(server.requests)
    clock.now += 59
    await repositories.refs(access("app"))
    assert len(server.requests) == once
    newest = repository.commit({"a": "2"})
    assert (await repositories.refs(access("app"), fresh=True))["HEAD"] == newest
    clock.now += 61
    await repositories.refs(access("app"))
    assert len(server.requests) == 3 * once


async def test_who_takes_work_over_lists_once_more(server, repositories, access, clock):
    server.create("app").commit({"a": "1"})
    await repositories.refs(access("app"))
    once = len(server.requests)
    clock.now += 1
    repositories.distrust()
    for _ in range(3):
        await repositories.refs(access("app"))
    assert len(server.requests) == 2 * once


async def test_a_server_that_fails_is_not_asked_by_everyone(server, repositories, access, clock):
    server.create("app").commit({"a": "1"})
    server.status = 503
    for _ in range(10):
        assert isinstance(await refused(repositories.refs(access("app"), fresh=True)), RetryableError)
    assert len(server.requests) == 1
    server.status = None
    clock.now += 16
    assert "HEAD" in await repositories.refs(access("app"))


# --- logins


async def test_a_password_is_a_header_and_nowhere_else(server, repositories, access, private, tmp_path):
    commit = server.create("app").commit({"a": "1"})
    server.authorization = server.basic("me", PASSWORD)
    login = access("app", username="me", password=PASSWORD.encode())
    assert "HEAD" in await repositories.refs(login)
    assert await files(repositories, login, commit, tmp_path) == {"a": b"1"}
    assert {seen.authorization for seen in server.requests} == {server.basic("me", PASSWORD)}
    assert not any(PASSWORD in seen.path for seen in server.requests)
    for path in (tmp_path / "git").rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


async def test_a_bearer_token_is_a_header(server, repositories, access):
    server.create("app").commit({"a": "1"})
    server.authorization = "Bearer canary"
    assert "HEAD" in await repositories.refs(access("app", bearer=b"canary"))


@pytest.mark.parametrize("login", [{}, {"username": "me", "password": b"wrong"}], ids=["none", "wrong"])
async def test_a_refused_login_is_told_with_where_it_is(server, repositories, access, login):
    server.create("app").commit({"a": "1"})
    server.authorization = server.basic("me", PASSWORD)
    error = await refused(repositories.refs(access("app", hint="; the login is in Secret a/b", **login)))
    assert isinstance(error, PermanentError)
    assert (error.reason, error.message) == (
        Reason.CREDENTIALS_UNAVAILABLE,
        "127.0.0.1 refused the login; the login is in Secret a/b",
    )


async def test_a_login_is_in_no_argument_and_no_environment(server, repositories, access, private, monkeypatch):
    """While git waits for the server, every process of this user is looked at, and what lies on the disk."""
    server.create("app").commit({"a": "1"})
    found, looked = [], []

    def look(handler):
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    text = (process / name).read_bytes()
                except OSError:
                    continue
                looked.append(b"git" in text)
                if PASSWORD.encode() in text:
                    found.append(f"{process}/{name}")
        modes = {oct(path.stat().st_mode & 0o777) for path in private.rglob("*")}
        assert modes == {"0o700", "0o600"}
        original(handler)

    original = server.answer
    monkeypatch.setattr(server, "answer", look)
    await repositories.refs(access("app", username="me", password=PASSWORD.encode()))
    assert any(looked)
    assert found == []


async def test_ssh_logs_in_with_a_key_and_checks_the_host(server, ssh_server, repositories, tmp_path):
    commit = server.create("team/app").commit({"a": "1"})
    remote = parse_remote(ssh_server.url("team/app"), of="test")
    login = GitLogin(identity="ssh", ssh_key=ssh_server.client_key, known_hosts=ssh_server.known_hosts)
    assert (await repositories.refs(Access(remote, login)))["HEAD"] == commit
    assert await files(repositories, Access(remote, login), commit, tmp_path) == {"a": b"1"}
    assert set(ssh_server.commands) == {"git-upload-pack '/team/app.git'"}


@pytest.mark.parametrize("known", [None, "another"], ids=["no-host", "another-key"])
async def test_an_unknown_host_gets_nothing(server, ssh_server, repositories, known):
    server.create("app").commit({"a": "1"})
    other = another_key(ssh_server) if known else None
    login = GitLogin(identity="ssh", ssh_key=ssh_server.client_key, known_hosts=other)
    error = await refused(repositories.refs(Access(parse_remote(ssh_server.url("app"), of="t"), login)))
    assert "the host key of 127.0.0.1 is not a known one" in error.message
    assert ssh_server.commands == []


def another_key(ssh_server):
    address = ssh_server.known_hosts.split(b" ")[0]
    return address + b" " + asyncssh.generate_private_key("ssh-ed25519").export_public_key()


@pytest.mark.parametrize("key", [None, b"no key at all", "another"], ids=["none", "garbage", "another"])
async def test_a_key_that_is_not_let_in_is_told(server, ssh_server, repositories, key):
    server.create("app").commit({"a": "1"})
    given = asyncssh.generate_private_key("ssh-ed25519").export_private_key() if key == "another" else key
    login = GitLogin(identity="ssh", ssh_key=given, known_hosts=ssh_server.known_hosts)
    error = await refused(repositories.refs(Access(parse_remote(ssh_server.url("app"), of="t"), login)))
    assert Reason.CREDENTIALS_UNAVAILABLE is error.reason


async def test_an_unknown_authority_gets_no_login(server, repositories, access):
    server.create("app").commit({"a": "1"})
    error = await refused(repositories.refs(access("app", ca=None, username="me", password=PASSWORD.encode())))
    assert "the certificate of 127.0.0.1 is not one that is trusted" in error.message
    assert server.requests == []


# --- what a hostile server or repository may try


async def test_a_redirect_is_not_followed_and_its_target_sees_nothing(server, repositories, access, tmp_path):
    server.create("app").commit({"a": "1"})
    with GitServer(tmp_path / "canary") as canary:
        canary.create("app").commit({"a": "stolen"})
        server.redirect_to = canary.origin
        error = await refused(repositories.refs(access("app", username="me", password=PASSWORD.encode())))
        assert canary.requests == []
    assert "redirects are not followed" in error.message


@pytest.mark.parametrize("which", ["ext::sh -c touch% {0}/marker", "fd::0", "file://{0}/other.git", "{0}/other.git"])
async def test_git_itself_reaches_nothing_but_the_one_scheme(server, access, private, tmp_path, which):
    """Past the pattern of addresses, a hostile one would still start nothing and read nothing."""
    other = server.create("other")
    other.commit({"a": "1"})
    shutil.move(other.bare, tmp_path / "other.git")
    server.requests.clear()
    command_line = ["ls-remote", "--quiet", "--", which.format(tmp_path)]
    await refused(command.run_git(command_line, directory=tmp_path, access=access("app"), timeout=10, base=private))
    assert not (tmp_path / "marker").exists()
    assert server.requests == []


async def test_submodules_are_not_fetched(server, repositories, access, tmp_path):
    with GitServer(tmp_path / "canary") as canary:
        repository = server.create("app")
        commit = repository.commit({"a": "1"})
        gitmodules = f'[submodule "x"]\n\tpath = sub\n\turl = {canary.url("app")}\n[submodule "y"]\n\tpath = ../y\n\turl = ext::sh -c touch% {tmp_path}/marker\n'
        repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
        (repository.work / ".gitmodules").write_text(gitmodules)
        repository.git("add", ".gitmodules")
        repository.git("commit", "--quiet", "--message=submodule")
        repository.push("main")
        found = await files(repositories, access("app"), repository.head(), tmp_path)
        assert canary.requests == []
    assert set(found) == {".gitmodules", "a"}
    assert not (tmp_path / "marker").exists()


async def test_a_trees_attributes_change_nothing_of_what_is_read(server, repositories, access, tmp_path):
    """Neither are files left out, nor filters run, nor LFS objects fetched, nor are lines or placeholders changed."""
    repository = server.create("app")
    attributes = "secret.env export-ignore\nsubst export-subst\n*.lfs filter=lfs\ncrlf text eol=crlf\nid ident\nutf working-tree-encoding=UTF-16\n"
    content = {
        "secret.env": "A=1\n",
        "subst": "$Format:%H$\n",
        "big.lfs": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "crlf": "a\nb\n",
        "id": "$Id$\n",
    }
    commit = repository.commit(
        {".gitattributes": attributes, "sub/.gitattributes": "* export-ignore\n", "sub/x": "1"} | content
    )
    found = await files(repositories, access("app"), commit, tmp_path)
    assert {name: found[name].decode() for name in content} == content
    assert found["sub/x"] == b"1"


async def test_a_commit_that_is_gone_is_told_as_replaced(server, repositories, access, tmp_path):
    server.create("app").commit({"a": "1"})
    error = await refused(repositories.archive(access("app"), "0123456789" * 4, tmp_path / "artifact"))
    assert isinstance(error, RevisionReplaced)


async def test_a_repository_that_is_not_there_is_told(server, repositories, access):
    error = await refused(repositories.refs(access("nothing")))
    assert "has no such repository" in error.message


async def test_a_revision_that_is_too_large_is_stopped_and_nothing_of_it_stays(
    server, repositories, access, tmp_path, monkeypatch
):
    small = re.sub(r"ulimit -f \d+", f"ulimit -f {2**20 // 512}", command._LAUNCHER)
    monkeypatch.setattr(command, "_LAUNCHER", small)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 2**20 + 2**20)
    repository = server.create("app")
    commit = repository.commit({"big": os.urandom(2 * 2**20)})
    error = await refused(repositories.archive(access("app"), commit, tmp_path / "artifact"))
    assert (error.reason, isinstance(error, PermanentError)) == (Reason.INVALID_ARCHIVE, True)
    assert "256 MiB" in error.message
    assert [path for path in (tmp_path / "git").rglob("*") if path.is_file()] == []


async def test_a_server_that_hangs_is_left_and_no_process_stays(server, repositories, access, monkeypatch):
    server.create("app").commit({"a": "1"})
    monkeypatch.setattr(module, "LIST_TIMEOUT", 0.5)
    monkeypatch.setattr(server, "answer", lambda handler: time.sleep(1.5))
    error = await refused(repositories.refs(access("app")))
    assert "did not deliver within 0.5 s" in error.message
    assert running(server.origin) == []


async def test_repositories_are_bounded(server, tmp_path, clock, private, access, monkeypatch):
    monkeypatch.setattr(module, "MAX_REPOSITORIES", 2)
    kept = GitRepositories(tmp_path / "kept", clock=clock, refresh=60, base=private)
    for number in range(4):
        commit = server.create(f"app{number}").commit({"a": str(number)})
        await kept.archive(access(f"app{number}"), commit, tmp_path / f"artifact{number}")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    await kept.aclose()


async def test_another_login_has_a_repository_of_its_own(server, repositories, access, tmp_path):
    """Who may not read a repository gets nothing of it from what another one's login has fetched."""
    commit = server.create("app").commit({"a": "1"})
    server.authorization = server.basic("me", PASSWORD)
    mine = access("app", username="me", password=PASSWORD.encode(), identity="mine")
    assert await files(repositories, mine, commit, tmp_path) == {"a": b"1"}
    error = await refused(repositories.archive(access("app", identity="another's"), commit, tmp_path / "artifact"))
    assert Reason.CREDENTIALS_UNAVAILABLE is error.reason
