"""Installed from the chart in mode shared, and uninstalled in the order of docs/install.md."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from secret_manager_controller.cli.main import cli
from secret_manager_controller.model.annotations import FINALIZER
from secret_manager_controller.testing.rbac import ROLES, asked, rules
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, service_account
from secret_manager_controller.testing.tenants import ENV, Tenant

pytestmark = [pytest.mark.real]

ROOT = Path(__file__).parents[2]
NAME = "smc-shared"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def chart(render_chart):
    """Return the chart's manifests for mode shared, with every right that is optional but Argo CD's."""
    values = {"fullnameOverride": NAME, "tenancy__mode": "shared", "rbac__credentialSecrets": "{shared-login}"}
    values |= {"rbac__listKeySecrets": "true"}
    return render_chart(CONTROLLER_NAMESPACE, "--skip-tests", **values)


@pytest.fixture(scope="module")
def stack(start_stack, chart):
    """Run a stack of its own: the CRDs are deleted in the end."""
    with start_stack(charts=[chart]) as started:
        yield started


@pytest.fixture(scope="module")
def lived(stack, encrypt, example_key, example_recipient):
    """Let an object log in with a Secret of the controller's namespace; then the controller goes, and the object stays."""
    stack.create_aws_credentials(CONTROLLER_NAMESPACE, "shared-login")
    tenant = Tenant(stack, "shared")
    store = tenant.spec()["provider"]["aws"]
    store["auth"] |= {"secretName": "shared-login", "secretNamespace": CONTROLLER_NAMESPACE}
    stack.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
    stack.delete(ROLES.url(tenant.namespace, f"of-a-test-{NAME}"))
    stack.expect_refusal(tenant.namespace, "get", "secrets")
    tenant.commit({ENV: encrypt("A=1\n", example_recipient)})
    with stack.controller(TENANCY_MODE="shared"):
        tenant.apply(provider={"type": "aws", "aws": store}, deletionPolicy="Delete")
        tenant.ready()
    return tenant


def test_mode_shared_needs_no_right_beyond_the_charts(stack, lived):
    """Keys of a namespace whose owner gave no Role are none: the controller's own have decrypted the file."""
    assert stack.refusals() == []
    requests = list(asked(stack.plane.audit_events(), service_account(NAME)))
    refused = {(each.namespace, each.resource, each.verb) for each in requests if each.code == 403}
    assert refused >= {(lived.namespace, "secrets", "get"), (lived.namespace, "secrets", "list")}
    assert lived.values() == {"A": b"1"}
    assert {each.name for each in requests if each.resource == "namespaces"} == {"kube-system"}


def test_mode_shared_uses_every_right_of_the_charts(stack, lived, chart):
    requests = list(asked(stack.plane.audit_events(), service_account(NAME)))
    assert {rule: rule.idle(requests) for rule in rules(chart) if rule.idle(requests)} == {}


def test_uninstalled_in_the_order_of_the_page_nothing_hangs_and_the_store_stays(stack, lived):
    page = (ROOT / "docs" / "install.md").read_text().partition("## Uninstall")[2]
    assert re.findall(r"# (\d)\.", page) == ["1", "2", "3", "4", "5"]
    (freed,) = re.findall(r"^msmctl (suspend --finalizer .*?) +#", page, re.MULTILINE)
    arguments = freed.replace("team-a", lived.namespace).replace("idam-dev-secrets", "app").split()
    assert FINALIZER in lived.body()["metadata"]["finalizers"]
    ran = CliRunner().invoke(cli, [*arguments, "--kubeconfig", str(stack.plane.kubeconfig())])
    assert ran.exit_code == 0, ran.output
    for crd in re.findall(r"secretmanager\w+\.secret-management\.microscaler\.io", page):
        stack.delete(f"{CRDS}/{crd}")
        stack.wait(f"{crd} to be gone", lambda crd=crd: stack.get(f"{CRDS}/{crd}") is None)
    assert lived.body() == {}
    assert lived.values() == {"A": b"1"}
