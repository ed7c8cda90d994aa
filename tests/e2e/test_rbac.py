"""The controller under the chart's own RBAC, with tokens of its ServiceAccount: nothing is missing, nothing is idle."""

import contextlib
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from secret_manager_controller.cli.main import cli
from secret_manager_controller.grants import Mode
from secret_manager_controller.kube import SECRET_MANAGER_POLICIES, SECRETS
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing.apiproxy import ApiProxy
from secret_manager_controller.testing.rbac import ROLES, Rule, asked, rules
from secret_manager_controller.testing.stack import (
    APPLICATIONS,
    CONTROLLER_NAMESPACE,
    StackError,
    service_account,
)
from secret_manager_controller.testing.tenants import ENV, Tenant, dotenv

pytestmark = [pytest.mark.real]

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden" / "can-i.txt"
ACCOUNT = "secret-manager-controller"
USER = service_account(ACCOUNT)
REPLICAS = 3


def manifests():
    """Return what `kubectl apply -f deploy/install.yaml` applies, in its order."""
    return list(yaml.safe_load_all((ROOT / "deploy" / "install.yaml").read_text()))


@pytest.fixture(scope="module")
def stack(start_stack, tool, example_key):
    """Run a stack with the manifest that people install, and a key in the controller's namespace.

    Argo CD is installed too, and the chart grants nothing of it unless `sources.argocd` is set.
    """
    with start_stack(charts=[manifests()], argocd_crds=tool("argocd-crds")) as started:
        started.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
        started.expect_refusal("", "list", APPLICATIONS.plural)  # Which is asked once and not watched.
        yield started


@pytest.fixture(scope="module")
def proxy(stack):
    with ApiProxy(stack.plane) as running:
        yield running


@pytest.fixture(scope="module")
def replicas(stack, proxy, tmp_path_factory):
    """Run replicas as the chart's Deployment would, each with a token of its own."""
    kubeconfig = proxy.kubeconfig(tmp_path_factory.mktemp("proxy"), stack.controller_token(Mode.ISOLATED))
    through = {"KUBECONFIG": str(kubeconfig), "SWEEP_INTERVAL_SECONDS": "1"}
    with contextlib.ExitStack() as closing:
        for settings in (through, *[{}] * (REPLICAS - 1)):
            closing.enter_context(stack.controller(TENANCY_MODE="isolated", **settings))
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


def lost(stack, proxy, tenant):
    """Delete the tenant's policy where no watch tells of it; the sweep makes sure that it is gone."""
    policy = SECRET_MANAGER_POLICIES.url(name=tenant.namespace)
    with proxy.expired_watches():
        stack.delete(policy)

        def looked_for():
            events = asked(stack.plane.audit_events(), USER)
            return any((each.resource, each.verb) == (SECRET_MANAGER_POLICIES.plural, "get") for each in events)

        stack.wait("the sweep to look for the policy", looked_for)


@pytest.fixture(scope="module")
def lived(stack, replicas, proxy, encrypt, example_recipient):
    """Live through what objects do: denied, granted, synced with the controller's key, cleaned up; then stop."""
    tenant = Tenant(stack, "rbac")
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
    lost(stack, proxy, tenant)
    replicas.close()
    return list(asked(stack.plane.audit_events(), USER))


def test_nothing_that_is_needed_is_forbidden(stack, lived):
    assert stack.refusals() == []
    assert len(lived) > 50


def test_a_request_that_is_refused_fails_the_run_unless_a_test_expects_it(stack, lived):
    path = SECRETS.url("kube-system", "another")
    token = stack.controller_token(Mode.ISOLATED)
    assert stack.plane.request("GET", path, token=token)[0] == 403
    stack.wait("the audit log", stack.refusals)
    assert [(each.namespace, each.verb, each.name) for each in stack.refusals()] == [("kube-system", "get", "another")]
    stack.expect_refusal("kube-system", "get", "secrets")
    assert stack.refusals() == []


@pytest.mark.parametrize("rule", [pytest.param(rule, id=str(rule.resources[0])) for rule in rules(manifests())])
def test_no_right_is_idle(lived, rule):
    assert rule.idle(lived) == ()


def test_an_idle_right_is_found(lived):
    assert Rule("", ("pods", "events"), ("create", "list")).idle(lived) == ("list",)
    assert Rule("", ("secretmanagerconfigs",), ("get",), ("another",)).idle(lived) == ("get",)
    assert Rule("kube-system", ("leases",), ("get",)).idle(lived) == ("get",)


def test_the_role_that_tests_give_a_tenant_is_that_of_the_page(stack):
    page = (ROOT / "docs" / "rbac.md").read_text()
    role, binding = yaml.safe_load_all(page.partition("```yaml\n")[2].partition("```")[0])
    tenant = Tenant(stack, "page")
    assert stack.get(role_path(tenant.namespace))["rules"] == role["rules"]
    for manifest in (role, binding):
        stack.apply(manifest | {"metadata": manifest["metadata"] | {"namespace": tenant.namespace}})
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": CONTROLLER_NAMESPACE}]


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


def role_path(namespace):
    return ROLES.url(namespace, f"of-a-test-{ACCOUNT}")


def checked(stack, tenant):
    arguments = ["check", "--namespace", tenant.namespace, "--kubeconfig", str(stack.plane.kubeconfig())]
    return CliRunner().invoke(cli, arguments)


def test_the_role_that_msmctl_check_prints_is_the_one_that_was_missing(stack):
    """A login of another namespace takes a Role there, too."""
    tenant, lender = Tenant(stack, "checked"), Tenant(stack, "lender")
    for each in (tenant, lender):
        stack.delete(role_path(each.namespace))
    aws = tenant.spec()["provider"]["aws"]
    aws["auth"] |= {"secretName": "lent", "secretNamespace": lender.namespace}
    tenant.apply(provider={"type": "aws", "aws": aws})
    missing = checked(stack, tenant)
    assert missing.exit_code == 1
    printed = list(yaml.safe_load_all(missing.stdout))
    roles = {each["metadata"]["namespace"]: each["rules"][0] for each in printed if each["kind"] == "Role"}
    keys = ["gpg-key", "sops-gpg-key", "sops-private-key"]
    assert {place: rule["resourceNames"] for place, rule in roles.items()} == {
        tenant.namespace: keys,
        lender.namespace: ["lent"],
    }
    for manifest in printed:
        stack.apply(manifest)
    assert checked(stack, tenant).exit_code == 0
    # What is missing later is printed with what is there, so that applying it takes nothing away.
    tenant.apply()
    roles = [each for each in yaml.safe_load_all(checked(stack, tenant).stdout) if each["kind"] == "Role"]
    assert [rule["resourceNames"] for role in roles for rule in role["rules"]] == [["aws-credentials", *keys]]
    tenant.remove()
