"""Argo CD Applications on real parts: its own CRD, git over https and ssh, the real controller process."""

import os
import re
from pathlib import Path

import pytest
import yaml

from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.spec import SourceKind, parse_spec
from secret_manager_controller.testing import argocd
from secret_manager_controller.testing.gitserver import GitServer
from secret_manager_controller.testing.gitssh import GitSshServer
from secret_manager_controller.testing.rbac import Rule, asked
from secret_manager_controller.testing.stack import APPLICATIONS, path_of, service_account
from secret_manager_controller.testing.tenants import ENV, conditions, dotenv

pytestmark = [pytest.mark.real]

SOURCES = Path(__file__).parent.parent.parent / "docs" / "sources.md"
PASSWORD = "canary-g1t-p4ssw0rd"
PROMPT = 8  # Seconds for what takes one; the interval is a day.


@pytest.fixture(scope="module")
def stack(start_argocd_stack):
    """Run a stack with Argo CD's real CRD beside Flux's."""
    with start_argocd_stack() as started:
        yield started


@pytest.fixture(scope="module")
def controller(stack):
    with stack.controller(GIT_REFRESH_SECONDS="1", GIT_HOSTS="127.0.0.1") as running:
        yield running


@pytest.fixture(scope="module")
def server(stack, tmp_path_factory):
    with GitServer(tmp_path_factory.mktemp("git")) as running:
        trusted = {"127.0.0.1": running.ca.decode()}
        argocd.keep_known(stack, "argocd-tls-certs-cm", trusted)
        yield running


@pytest.fixture(autouse=True)
def open_server(server, controller):
    server.authorization = server.redirect_to = server.status = None
    server.requests.clear()


def application_of(tenant, *, sync=None, **spec):
    """Make the tenant's Application, and let Argo CD have compared it."""
    argocd.apply_application(tenant.stack, tenant.namespace, namespace=tenant.namespace, **spec)
    if sync is not None:
        argocd.compared(tenant.stack, tenant.namespace, revision=sync)


def apply_object(tenant, **reference):
    tenant.apply(
        sourceRef={"kind": "Application", "name": tenant.namespace, "namespace": argocd.NAMESPACE, **reference}
    )


def commit(repository, **entries):
    return repository.commit({ENV: dotenv(**entries), "apps/web/deployment.yaml": "kind: Deployment\n"})


def git_source(server, tenant, **fields):
    return {"repoURL": server.url(tenant.namespace), "path": "apps/web", "targetRevision": "main"} | fields


@pytest.fixture
def repository(server, tenant):
    return server.create(tenant.namespace)


def message(status):
    return status["conditions"][0]["message"]


def test_an_application_is_synced_and_follows_what_argo_cd_sees(server, tenant, repository):
    first = commit(repository, A="1")
    application_of(tenant, source=git_source(server, tenant), sync=first)
    apply_object(tenant)
    status = tenant.ready()
    assert status["lastAppliedRevision"] == f"main@sha1:{first}"
    assert tenant.values() == {"A": b"1"}
    second = commit(repository, A="2")
    application_of(tenant, source=git_source(server, tenant), sync=second)
    tenant.until("the new commit", lambda s: s.get("lastAppliedRevision") == f"main@sha1:{second}", timeout=PROMPT)
    assert tenant.values() == {"A": b"2"}


def test_several_sources_are_the_first_in_git_or_the_named(server, tenant, repository):
    commit(repository, A="1")
    repository.git("checkout", "--quiet", "-b", "other")
    repository.commit({ENV: dotenv(A="other")}, branch="other")
    chart = {"repoURL": "https://charts.example.invalid", "chart": "nginx", "targetRevision": "1.0.0"}
    other = git_source(server, tenant, targetRevision="other", name="other")
    application_of(tenant, sources=[chart, git_source(server, tenant), other])
    apply_object(tenant)
    tenant.ready()
    assert tenant.values() == {"A": b"1"}
    apply_object(tenant, sourceName="other")
    tenant.ready()
    assert tenant.values() == {"A": b"other"}


def test_a_repository_of_argo_cd_is_logged_in_to_and_the_login_is_nowhere(
    server, controller, stack, tenant, repository
):
    commit(repository, A="1")
    server.authorization = server.basic("robot", PASSWORD)
    application_of(tenant, source=git_source(server, tenant))
    apply_object(tenant)
    status = tenant.ready(reason="CredentialsUnavailable")
    assert message(status).startswith("127.0.0.1 refused the login")
    login = {"username": b"robot", "password": PASSWORD.encode()}
    argocd.keep_login(stack, f"repo-{tenant.namespace}", url=server.url(tenant.namespace).encode(), **login)
    tenant.until("the login", lambda _: not tenant.annotate("reconcile", os.urandom(4).hex()) and tenant.values())
    tenant.ready()
    server.authorization = None
    assert PASSWORD not in controller.log.read_text()
    for path in (stack.directory / "cache").rglob("*"):
        assert path.is_dir() or path.is_symlink() or PASSWORD.encode() not in path.read_bytes()
    # Argo CD's Secrets are listed in its own namespace and nowhere else.
    listed = {
        event["requestURI"].partition("?")[0]
        for event in stack.plane.audit_events()
        if event["verb"] == "list" and "argocd.argoproj.io" in event["requestURI"]
        and event.get("userAgent", "").startswith("secret-manager-controller/")
    }  # fmt: skip
    assert listed == {f"/api/v1/namespaces/{argocd.NAMESPACE}/secrets"}


def test_ssh_with_a_login_of_the_object_and_its_host_key(server, stack, tenant, repository):
    commit(repository, A="1")
    with GitSshServer(server.root) as ssh:
        source = git_source(server, tenant, repoURL=ssh.url(tenant.namespace))
        application_of(tenant, source=source)
        stack.create_secret(tenant.namespace, "git-login", {"ssh-privatekey": ssh.client_key})
        tenant.let_read("git-login")
        apply_object(tenant, gitCredentials={"secretName": "git-login"})
        status = tenant.ready(reason="FetchFailed")
        assert "the host key of 127.0.0.1 is not a known one" in message(status)
        assert ssh.commands == []
        argocd.keep_known(stack, "argocd-ssh-known-hosts-cm", {"ssh_known_hosts": ssh.known_hosts.decode()})
        tenant.until("the key", lambda _: not tenant.annotate("reconcile", os.urandom(4).hex()) and tenant.values())
        tenant.ready()
    assert tenant.values() == {"A": b"1"}


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        pytest.param(lambda r: r.git("push", "--quiet", "origin", "--delete", "release"), "RevisionNotFound", "is no branch", id="deleted-branch"),
        pytest.param(lambda r: r.commit({ENV: None}, branch="release"), "PathNotFound", "", id="vanished-path"),
        pytest.param(lambda r: r.remove(), "FetchFailed", "has no such repository", id="lost-repository"),
    ],
)  # fmt: skip
def test_what_vanishes_from_git_is_told_and_nothing_is_deleted(server, tenant, repository, change, reason, told):
    commit(repository, A="1")
    repository.commit({}, branch="release")
    application_of(tenant, source=git_source(server, tenant, targetRevision="release"))
    tenant.apply(
        sourceRef={"kind": "Application", "name": tenant.namespace, "namespace": argocd.NAMESPACE},
        prune=True,
        interval="10s",
    )
    tenant.ready()
    change(repository)
    status = tenant.until("the loss", lambda s: s["conditions"][0]["status"] == "False", timeout=20)
    assert status["conditions"][0]["reason"] == reason
    assert told in message(status)
    assert tenant.values() == {"A": b"1"}


def test_a_force_push_is_followed_and_deletes_nothing_that_it_has(server, tenant, repository):
    first = commit(repository, A="1", B="2")
    application_of(tenant, source=git_source(server, tenant), sync=first)
    apply_object(tenant)
    tenant.ready()
    repository.git("commit", "--quiet", "--amend", "--message=rewritten")
    repository.push("main", force=True)
    application_of(tenant, source=git_source(server, tenant), sync=repository.head())
    tenant.until("it", lambda s: s.get("lastAppliedRevision") == f"main@sha1:{repository.head()}", timeout=PROMPT)
    assert tenant.values() == {"A": b"1", "B": b"2"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"repoURL": "https://charts.example.invalid", "chart": "nginx", "targetRevision": "1"}, "only a Helm chart"),
        ({"repoURL": "oci://registry.example.invalid/app", "path": "."}, "only an OCI artifact"),
        ({"repoURL": "file:///etc", "path": "."}, "repository URL that is not of the form"),
        ({"repoURL": "ext::sh -c touch% {marker}", "path": "."}, "repository URL that is not of the form"),
        (None, "has no source; give it spec.source or spec.sources with a path in Git"),
    ],
    ids=["helm", "oci", "file", "ext", "none"],
)
def test_a_source_that_is_not_in_git_is_told_precisely(tenant, tmp_path, source, told):
    marker = tmp_path / "marker"
    given = {} if source is None else {"source": source | {"repoURL": source["repoURL"].format(marker=marker)}}
    application_of(tenant, **given)
    apply_object(tenant)
    status = tenant.ready(reason="SourceUnsupported")
    assert told in message(status)
    assert "Stalled" in conditions(status)
    assert not marker.exists()


def test_a_redirect_is_not_followed(server, tenant, repository, tmp_path):
    commit(repository, A="1")
    with GitServer(tmp_path / "canary") as canary:
        server.redirect_to = canary.origin
        application_of(tenant, source=git_source(server, tenant))
        apply_object(tenant)
        status = tenant.ready(reason="FetchFailed")
        assert "redirects are not followed" in message(status)
        assert canary.requests == []


def test_a_server_that_is_not_allowed_sees_no_request(server, tenant, repository):
    """It is the same one, by another name."""
    commit(repository, A="1")
    source = git_source(server, tenant)
    application_of(tenant, source=source | {"repoURL": source["repoURL"].replace("127.0.0.1", "localhost")})
    server.requests.clear()
    apply_object(tenant)
    status = tenant.ready(reason="AccessDenied")
    assert "is on the host 'localhost', which is not an allowed one: have it added to spec.gitHosts" in message(status)
    assert server.requests == []


def test_an_application_that_is_missing_is_waited_for_and_seen_when_it_comes(server, tenant, repository):
    commit(repository, A="1")
    apply_object(tenant)
    tenant.ready(reason="SourceNotFound")
    application_of(tenant, source=git_source(server, tenant))
    tenant.until("it", lambda s: s["conditions"][0]["reason"] == "ReconciliationSucceeded", timeout=PROMPT)
    assert tenant.values() == {"A": b"1"}


def test_every_source_that_the_documentation_shows_is_taken_by_the_api_server(stack):
    """With the real CRDs, and none of their fields unknown; what an object refers to is shown beside it."""
    blocks = re.findall(r"```yaml\n(.*?)```", SOURCES.read_text(), re.DOTALL)
    for source, config in (yaml.safe_load_all(block) for block in blocks):
        reference = config["spec"]["sourceRef"]
        assert reference.items() >= {"kind": source["kind"], **source["metadata"]}.items()
        parse_spec(config)
        stack.create_namespace(config["metadata"]["namespace"])
        for manifest in (source, config):
            query = "?dryRun=All&fieldManager=docs&fieldValidation=Strict"
            status, answer = stack.plane.request(
                "PATCH", path_of(manifest) + query, body=manifest, content_type="application/apply-patch+yaml"
            )
            assert status in (200, 201), answer
    assert {yaml.safe_load(block.partition("---")[0])["kind"] for block in blocks} == set(SourceKind)


def test_where_tenants_are_kept_apart_a_server_needs_a_grant(stack, controller, server, tenant, repository):
    """Although a policy grants the Application and the store. The last test here: it ends the other controller."""
    commit(repository, A="1")
    application_of(tenant, source=git_source(server, tenant))
    granted = {
        "namespaces": {"names": [tenant.namespace]},
        "sources": [{"kind": "Application", "namespace": argocd.NAMESPACE, "name": tenant.namespace}],
        "stores": [{"aws": {"region": stack.aws.region}}],
    }

    def grant(**more):
        policy = {"apiVersion": f"{GROUP}/v1", "kind": "SecretManagerPolicy", "metadata": {"name": tenant.namespace}}
        stack.apply(policy | {"spec": granted | more})

    grant()
    controller.stop()
    with stack.controller(TENANCY_MODE="isolated"):
        apply_object(tenant)
        status = tenant.ready(reason="AccessDenied")
        assert "have it added to spec.gitHosts of a SecretManagerPolicy" in message(status)
        assert server.requests == []
        grant(gitHosts=["127.0.0.1"])
        tenant.ready()
    assert tenant.values() == {"A": b"1"}


def test_every_right_that_the_chart_grants_on_applications_was_used(stack):
    """By the controller that the other tests here share: it comes after them."""
    rule = Rule("", (APPLICATIONS.plural,), ("get", "list", "watch"))
    assert rule.idle(list(asked(stack.plane.audit_events(), service_account("smc-shared")))) == ()
