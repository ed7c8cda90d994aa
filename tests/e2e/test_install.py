"""Installed from the chart in mode shared, and uninstalled in the order of docs/install.md."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from secret_manager_controller.cli.main import cli
from secret_manager_controller.model.annotations import FINALIZER
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE
from secret_manager_controller.testing.tenants import ENV, Tenant

pytestmark = [pytest.mark.real]

ROOT = Path(__file__).parents[2]
NAME = "smc-shared"
USER = f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{NAME}"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def stack(start_stack, tool):
    """Run a stack of its own, with the chart's manifests for mode shared: the CRDs are deleted in the end."""
    values = [f"fullnameOverride={NAME}", "tenancy.mode=shared", "rbac.credentialSecrets={shared-login}"]
    command = [tool("helm"), "template", "smc", ROOT / "helm" / "secret-manager-controller", "--skip-tests"]
    options = ["--namespace", CONTROLLER_NAMESPACE, "--kube-version", "1.31.0"]
    sets = [part for value in values for part in ("--set", value)]
    rendered = subprocess.run([*command, *options, *sets], capture_output=True, text=True, check=True).stdout
    with start_stack(audit_log=True) as started:
        for manifest in yaml.safe_load_all(rendered):
            if manifest["kind"] != "Deployment":  # Its pods are processes here.
                started.apply(manifest)
        yield started


@pytest.fixture(scope="module")
def lived(stack, encrypt, example_key, example_recipient):
    """Let an object log in with a Secret of the controller's namespace; then the controller goes, and the object stays."""
    stack.create_aws_credentials(CONTROLLER_NAMESPACE, "shared-login")
    kubeconfig = stack.plane.service_account_kubeconfig(CONTROLLER_NAMESPACE, NAME)
    tenant = Tenant(stack, "shared")
    store = tenant.spec()["provider"]["aws"]
    store["auth"] |= {"secretName": "shared-login", "secretNamespace": CONTROLLER_NAMESPACE}
    stack.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
    tenant.commit({ENV: encrypt("A=1\n", example_recipient)})
    with stack.controller(TENANCY_MODE="shared", KUBECONFIG=str(kubeconfig)):
        tenant.apply(provider={"type": "aws", "aws": store}, deletionPolicy="Delete")
        tenant.ready()
    return tenant


def test_mode_shared_needs_no_right_beyond_the_charts(stack, lived):
    ours = [event for event in stack.plane.audit_events() if event["user"]["username"] == USER]
    events = [event for event in ours if "objectRef" in event]  # The others ask which kinds are served.
    forbidden = {
        (event["objectRef"]["resource"], event["verb"])
        for event in events
        if event["responseStatus"].get("code") == 403
    }
    # Keys of a namespace whose owner gave no Role are none, whether they are asked for by label or by name: the
    # controller's own have decrypted the file.
    assert forbidden == {("secrets", "list"), ("secrets", "get")}
    assert lived.values() == {"A": b"1"}
    namespaces = {
        event["objectRef"].get("name") for event in events if event["objectRef"].get("resource") == "namespaces"
    }
    assert namespaces == {"kube-system"}


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
