"""Flux itself: the real source-controller fetches from a Git server, and the real controller what it has made of that."""

import functools

import pytest

from secret_manager_controller.testing import flux
from secret_manager_controller.testing.gitserver import GitServer
from secret_manager_controller.testing.tenants import ENV, SOURCE, dotenv

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("source_controller")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with GitServer(tmp_path_factory.mktemp("git")) as running:
        yield running


def test_a_commit_reaches_the_store_by_flux(stack, server, controller, tenant):
    repository, source = server.create(tenant.namespace), f"{tenant.namespace}/{SOURCE}"
    follow = functools.partial(
        flux.follow, stack, source, url=server.url(tenant.namespace), login={"ca.crt": server.ca}
    )
    first = repository.commit({ENV: dotenv(A="1"), "elsewhere/README.md": "x"})
    tenant.apply(prune=True)
    tenant.ready(reason="SourceNotFound")
    follow()
    tenant.until("the commit", lambda status: status.get("lastAppliedRevision") == f"main@sha1:{first}")
    assert tenant.values() == {"A": b"1"}

    second = repository.commit({ENV: dotenv(A="2", B="3")})
    flux.fetch_now(stack, source)
    tenant.until("the next", lambda status: status.get("lastAppliedRevision") == f"main@sha1:{second}")
    assert tenant.values() == {"A": b"2", "B": b"3"}

    follow(branch="gone")
    status = tenant.until("the loss", lambda status: status["conditions"][0]["status"] == "False")
    assert status["conditions"][0]["reason"] == "SourceNotReady"
    tenant.until("Flux' own words", lambda status: "GitOperationFailed" in status["conditions"][0]["message"])
    assert tenant.values() == {"A": b"2", "B": b"3"}
