"""Git servers over https and ssh on loopback, and repositories that are fetched from them."""

import asyncio

import pytest

from secret_manager_controller.sources.git.login import Access, GitLogin
from secret_manager_controller.sources.git.remote import parse_remote
from secret_manager_controller.sources.git.repositories import GitRepositories
from secret_manager_controller.testing.clocks import ManualClock
from secret_manager_controller.testing.gitserver import GitServer
from secret_manager_controller.testing.gitssh import GitSshServer


@pytest.fixture
def server(tmp_path):
    with GitServer(tmp_path / "server") as running:
        yield running


@pytest.fixture
def ssh_server(server):
    with GitSshServer(server.root) as running:
        yield running


@pytest.fixture
def private(tmp_path):
    """Where logins are kept while git runs."""
    path = tmp_path / "private"
    path.mkdir()
    return path


@pytest.fixture
def clock():
    return ManualClock(1000.0)


@pytest.fixture
async def repositories(tmp_path, clock, private):
    made = GitRepositories(tmp_path / "git", clock=clock, refresh=60, base=private)
    yield made
    await made.aclose()
    assert list(private.iterdir()) == []
    await asyncio.sleep(0)


@pytest.fixture
def access(server):
    """Return a function that gives the access to a repository of the https server."""

    def make(name, **login):
        given = {"ca": server.ca, "identity": "test"} | login
        return Access(parse_remote(server.url(name), of="test"), GitLogin(**given))

    return make
