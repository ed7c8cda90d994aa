"""The controller under the chart's own RBAC, with tokens of its ServiceAccount: nothing is missing, nothing is idle."""

import contextlib
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from secret_manager_controller.cli.main import cli
from secret_manager_controller.kube import SECRET_MANAGER_POLICIES
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, StackError
from secret_manager_controller.testing.tenants import ENV, Tenant, dotenv

pytestmark = [pytest.mark.real]

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "can-i.txt"
ACCOUNT = "secret-manager-controller"
USER = f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{ACCOUNT}"
REPLICAS = 3

IDLE = {
    ("secretmanagerpolicies", "get"): "confirms that a policy is gone whose deletion fell into a gap of the watch",
    ("leases", "delete"): "removes sessions of replicas that have been dead for long",
}
"""Verbs that a short life without trouble does not need, and what needs them."""


def install(stack):
    """Apply what `kubectl apply -f deploy/install.yaml` would, in its order."""
    for manifest in yaml.safe_load_all((ROOT / "deploy" / "install.yaml").read_text()):
        if manifest["kind"] != "Deployment":  # Its pods are processes here.
            stack.apply(manifest)


def tenant_role(tenant):
    """Let the controller read what docs/rbac.md lets it read in a tenant's namespace."""
    page = (ROOT / "docs" / "rbac.md").read_text()
    for manifest in yaml.safe_load_all(page.partition("```yaml\n")[2].partition("```")[0]):
        tenant.stack.apply(manifest | {"metadata": manifest["metadata"] | {"namespace": tenant.namespace}})


@pytest.fixture(scope="module")
def stack(start_stack, tool, example_key):
    """Run a stack with the chart's manifests, and a key in the controller's namespace.

    Argo CD is installed too, and the chart grants nothing of it unless `sources.argocd` is set.
    """
    with start_stack(audit_log=True, argocd_crds=tool("argocd-crds")) as started:
        install(started)
        started.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
        yield started


@pytest.fixture(scope="module")
def replicas(stack):
    """Run replicas as the chart's Deployment would, each with a token of its own."""
    with contextlib.ExitStack() as closing:
        kubeconfig = stack.plane.service_account_kubeconfig(CONTROLLER_NAMESPACE, ACCOUNT)
        for _ in range(REPLICAS):
            closing.enter_context(stack.controller(TENANCY_MODE="isolated", KUBECONFIG=str(kubeconfig)))
        yield closing


def grant(stack, tenant, **grants):
    stack.apply(
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "SecretManagerPolicy",
            "metadata": {"name": tenant.namespace},
            "spec": {
                "namespaces": {"names": [tenant.namespace]},
                "stores": [{"aws": {"region": stack.aws.region}, "namePrefixes": [tenant.name("")]}],
                **grants,
            },
        }
    )


@pytest.fixture(scope="module")
def lived(stack, replicas, encrypt, example_recipient):
    """Live through what objects do: denied, granted, synced with the controller's key, cleaned up; then stop."""
    tenant = Tenant(stack, "rbac")
    tenant_role(tenant)
    tenant.commit({ENV: encrypt(dotenv(A="1"), example_recipient)})
    tenant.apply(secrets={"environment": "dev", "prefix": tenant.namespace, "basePath": "app"}, deletionPolicy="Delete")
    tenant.ready(reason="AccessDenied")
    source = {"namespace": tenant.namespace, "name": "source", "paths": ["app"], "controllerKeys": True}
    grant(stack, tenant, sources=[source])
    tenant.ready()
    assert tenant.values() == {"A": b"1"}
    policy = SECRET_MANAGER_POLICIES.url(name=tenant.namespace)
    stack.wait("the policy's status", lambda: (stack.get(policy) or {}).get("status", {}).get("objects") == 1)
    stack.delete(tenant.path)
    stack.wait("the object to be gone", lambda: not tenant.body())
    assert tenant.values() == {}
    replicas.close()
    return [event for event in stack.plane.audit_events() if event["user"]["username"] == USER]


def refers_to(event):
    """Return what a request is about: resource with subresource, verb, namespace and name."""
    ref = event.get("objectRef") or {}
    resource = "/".join(part for part in (ref.get("resource", ""), ref.get("subresource", "")) if part)
    return resource, event["verb"], ref.get("namespace", ""), ref.get("name", "")


def test_nothing_that_is_needed_is_forbidden(lived):
    """Whether key Secrets may be listed by label is up to each namespace; where not, they are found by name.

    Applications may not be listed here, which is asked once and not watched.
    """
    forbidden = {refers_to(event)[:2] for event in lived if event["responseStatus"].get("code") == 403}
    assert forbidden <= {("secrets", "list"), ("applications", "list")}
    assert len(lived) > 50


def rules():
    """Yield each rule of the rendered manifest that a request can be matched with."""
    for manifest in yaml.safe_load_all((ROOT / "deploy" / "install.yaml").read_text()):
        if manifest["kind"] in ("ClusterRole", "Role"):
            for number, rule in enumerate(manifest["rules"]):
                yield pytest.param(manifest["kind"], rule, id=f"{manifest['kind']} {number} {rule['resources'][0]}")


@pytest.mark.parametrize(("kind", "rule"), list(rules()))
def test_no_rule_is_idle(lived, kind, rule):
    used = set()
    for event in lived:
        resource, verb, namespace, name = refers_to(event)
        named = "resourceNames" not in rule or name in rule["resourceNames"]
        here = kind == "ClusterRole" or namespace == CONTROLLER_NAMESPACE
        if event["responseStatus"].get("code", 0) < 400 and resource in rule["resources"] and named and here:
            used.add(verb)
        if event["responseStatus"].get("code") == 404 and verb == "get" and resource in rule["resources"] and here:
            used.add(verb)
    idle = set(rule["verbs"]) - used
    assert idle <= {verb for resource, verb in IDLE if resource in rule["resources"]}


def questions():
    """Yield what is asked: verb, group, resource, subresource, namespace, name."""
    ours, secrets = GROUP, ("", "secrets", "")
    for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"):
        yield verb, ours, "secretmanagerconfigs", "", "team-a", ""
        yield verb, ours, "secretmanagerconfigs", "status", "team-a", ""
        yield verb, ours, "secretmanagerpolicies", "", "", ""
        yield verb, ours, "secretmanagerpolicies", "status", "", ""
        yield verb, "source.toolkit.fluxcd.io", "gitrepositories", "", "flux-system", ""
        yield verb, "coordination.k8s.io", "leases", "", CONTROLLER_NAMESPACE, ""
        yield verb, "coordination.k8s.io", "leases", "", "team-a", ""
        yield verb, "", "events", "", "team-a", ""
        yield verb, "", "namespaces", "", "", ""
        yield verb, *secrets, "team-a", "sops-private-key"
        yield verb, *secrets, "kube-system", ""
        yield verb, *secrets, "", ""
        yield verb, *secrets, CONTROLLER_NAMESPACE, ""
        yield verb, *secrets, CONTROLLER_NAMESPACE, "sops-private-key"
        yield verb, *secrets, CONTROLLER_NAMESPACE, "secret-manager-controller-hash-key"
        yield verb, *secrets, CONTROLLER_NAMESPACE, "another"
        yield verb, "", "pods", "", CONTROLLER_NAMESPACE, ""
        yield verb, "rbac.authorization.k8s.io", "clusterroles", "", "", ""
    yield "create", "", "pods", "exec", CONTROLLER_NAMESPACE, ""
    yield "create", "", "serviceaccounts", "token", CONTROLLER_NAMESPACE, ACCOUNT
    yield "impersonate", "", "users", "", "", ""
    yield "escalate", "rbac.authorization.k8s.io", "clusterroles", "", "", ""


def test_what_the_controller_can_do_is_what_the_golden_file_says(stack):
    """`kubectl auth can-i --as system:serviceaccount:…` for each line; UPDATE_GOLDEN=1 writes the file anew."""
    lines = []
    for verb, group, resource, subresource, namespace, name in questions():
        attributes = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": subresource,
            "namespace": namespace,
            "name": name,
        }
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{CONTROLLER_NAMESPACE}", "system:authenticated"]
        review = {"spec": {"user": USER, "groups": groups, "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        status, answer = stack.plane.request("POST", path, body=review)
        if status != 201:
            raise StackError(str(answer))
        what = "/".join(part for part in (resource, subresource) if part) + (f".{group}" if group else "")
        where = f"{namespace or '*'}/{name or '*'}"
        lines.append(f"{'yes' if answer['status']['allowed'] else 'no ':3} {verb:16} {what:64} {where}")
    text = "\n".join(sorted(lines, key=lambda line: line[4:])) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_the_role_that_msmctl_check_prints_is_the_one_that_was_missing(stack):
    tenant = Tenant(stack, "checked")
    tenant.apply()
    arguments = ["check", "--namespace", tenant.namespace, "--kubeconfig", str(stack.plane.kubeconfig())]
    missing = CliRunner().invoke(cli, arguments)
    assert missing.exit_code == 1
    manifests = list(yaml.safe_load_all(missing.stdout))
    assert manifests[0]["rules"][0]["resourceNames"] == [
        "aws-credentials",
        "gpg-key",
        "sops-gpg-key",
        "sops-private-key",
    ]
    for manifest in manifests:
        stack.apply(manifest)
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    tenant.remove()
