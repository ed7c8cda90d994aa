"""The objects of examples/objects, as they are, in mode shared: every source, mode, store and login that is documented."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from secret_manager_controller.cli.main import cli
from secret_manager_controller.testing.aws_auth import web_identity_token
from secret_manager_controller.testing.azure import AzureServer, federated_token
from secret_manager_controller.testing.gcp import GcpServer
from secret_manager_controller.testing.gitserver import GitServer
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE
from secret_manager_controller.testing.tenants import packed

pytestmark = [pytest.mark.real]

EXAMPLES = Path(__file__).parents[2] / "examples" / "objects"
PROJECT, VAULT, REGION = "my-gcp-project", "my-key-vault", "us-east-1"
POD = "pod@my-project.iam.gserviceaccount.com"
SERVICE_ACCOUNT = "secret-manager-controller@my-project.iam.gserviceaccount.com"
CLIENT = "12345678-1234-1234-1234-123456789012"
PROFILE = "microservices/my-service/deployment-configuration/profiles/dev"
VALUES = {"database-url": "postgres://db", "api-key": "k3y"}
KUSTOMIZATION = "secretGenerator:\n- name: app\n  envs: [application.secrets.env]\n"

STORED = {
    "gcp-workload-identity": ("gcp", "my-service-{}-prod", SERVICE_ACCOUNT),
    "gcp-json-credentials": ("gcp", "my-service-key-{}", None),
    "aws-irsa": ("aws", "my-service-{}", "secret-manager-role/secret-manager-controller"),
    "aws-access-keys": ("aws", "my-service-keys-{}-prod", None),
    "azure-workload-identity": ("azure", "my-service-{}", CLIENT),
    "azure-service-principal": ("azure", "my-service-principal-{}", None),
    "argocd-application": ("gcp", "my-app-{}", None),
}
"""Where each example's secrets are, what they are called, and who wrote them, where the example says who."""


@pytest.fixture(scope="module")
def stack(start_stack, tool, render_chart, example_key):
    """Install the chart for mode shared, as a team would that follows the examples."""
    chart = render_chart(
        CONTROLLER_NAMESPACE,
        "--skip-tests",
        tenancy__mode="shared",
        sources__argocd="true",
        rbac__credentialSecrets="{gcp-secret-manager-credentials}",
    )
    with start_stack(charts=[chart], argocd_crds=tool("argocd-crds")) as started:
        started.create_namespace("argocd")
        started.create_secret(CONTROLLER_NAMESPACE, "sops-private-key", {"private-key": example_key})
        lists = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}
        started.allow("argocd", [lists, {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}])
        yield started


@pytest.fixture(scope="module")
def files(encrypt, example_recipient):
    text = "".join(f"{key}={value}\n" for key, value in VALUES.items())
    secrets = encrypt(text, example_recipient).decode()
    return {f"{PROFILE}/application.secrets.env": secrets, f"{PROFILE}/kustomization.yaml": KUSTOMIZATION}


@pytest.fixture(scope="module")
def stores(stack):
    with GcpServer.start(tls=True, projects=[PROJECT]) as gcp, AzureServer.start() as azure:
        gcp.project, azure.vault, stack.aws.region = PROJECT, VAULT, REGION
        gcp.workload(POD)
        azure.add_vault(VAULT)
        azure.add_client(CLIENT, "of-the-identity")
        yield {"gcp": gcp, "aws": stack.aws, "azure": azure}


@pytest.fixture(scope="module")
def team(stack, stores, files, tmp_path_factory):
    """Make what the examples name: sources, Secrets, and the Roles that let the controller read these."""
    tokens = tmp_path_factory.mktemp("tokens")
    (tokens / "azure").write_text(federated_token())
    (tokens / "aws").write_text(web_identity_token(f"system:serviceaccount:{CONTROLLER_NAMESPACE}:smc"))
    gcp, azure = stores["gcp"], stores["azure"]
    key = {"key.json": gcp.key.document}
    stack.create_secret(CONTROLLER_NAMESPACE, "gcp-secret-manager-credentials", key)
    stack.create_aws_credentials("flux-system", "aws-secret-manager-credentials")
    login = azure.client_secret
    principal = {"client-id": login.client_id.encode(), "client-secret": login.client_secret.encode()}
    stack.create_secret("flux-system", "azure-credentials", principal)
    stack.create_secret("default", "datadog", {"api-key": b"of-datadog"})
    artifact = stack.artifacts.publish_bytes(packed(files), revision=f"main@sha1:{'a' * 40}", file="my-repo.tar.gz")
    stack.publish(artifact, namespace=CONTROLLER_NAMESPACE, name="my-repo")
    with GitServer(tmp_path_factory.mktemp("git")) as git:
        git.create("my-app").commit(files)
        authorities = {"metadata": {"namespace": "argocd", "name": "argocd-tls-certs-cm"}}
        authorities |= {"apiVersion": "v1", "kind": "ConfigMap", "data": {"127.0.0.1": git.ca.decode()}}
        stack.apply(authorities)
        stack.apply(
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Application",
                "metadata": {"namespace": "argocd", "name": "my-app"},
                "spec": {
                    "project": "default",
                    "destination": {"server": "https://kubernetes.default.svc"},
                    "source": {"repoURL": git.url("my-app"), "path": PROFILE, "targetRevision": "main"},
                },
            }
        )
        pod = {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tokens / "aws"),
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/pod",
            "AZURE_FEDERATED_TOKEN_FILE": str(tokens / "azure"),
            "AZURE_CLIENT_ID": login.client_id,
            "NO_PROXY": "127.0.0.1",
        }
        yield pod | gcp.environment | azure.environment


@pytest.fixture(scope="module")
def applied(stack, team, kustomize_binary):
    """Apply every example, then what `msmctl check` says is missing; three replicas do the rest."""
    settings = team | {"KUSTOMIZE_BINARY": str(kustomize_binary), "TENANCY_MODE": "shared"}
    for file in EXAMPLES.glob("*.yaml"):
        stack.apply_file(file)
    checked = msmctl(stack, "check", ok=None)
    for manifest in yaml.safe_load_all(checked):
        stack.apply(manifest)
    msmctl(stack, "check")
    with stack.controller(**settings), stack.controller(**settings), stack.controller(**settings):
        yield


def msmctl(stack, *arguments, ok=True):
    ran = CliRunner().invoke(cli, [*arguments, "--kubeconfig", str(stack.plane.kubeconfig())])
    assert ok is None or (ran.exit_code == 0) == ok, ran.output
    return ran.stdout


def body(name):
    return yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", STORED)
def test_an_example_is_synced_as_it_is_written(stack, stores, applied, name):
    store, pattern, who = STORED[name]
    status = stack.wait_ready(f"default/{body(name)['metadata']['name']}")
    wanted = {pattern.format(key): value.encode() for key, value in VALUES.items()}
    assert status["secretsSynced"] == len(wanted)
    assert stores[store].values().items() >= wanted.items()
    writers = {call.who for call in stores[store].writes() if wanted.keys() & set(call.names)}
    assert who is None or writers == {who}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.iterdir()} == set(STORED)


def test_the_verbs_of_msmctl_see_and_trigger_them(stack, applied):
    for name in STORED:
        stack.wait_ready(f"default/{body(name)['metadata']['name']}")
    assert "my-service-secrets" in msmctl(stack, "list", "--namespace", "default")
    assert "GCP Project ID: my-gcp-project" in msmctl(stack, "status", "--name", "my-service-secrets")
    assert "triggered" in msmctl(stack, "reconcile", "--name", "my-service-secrets", "--namespace", "default")
