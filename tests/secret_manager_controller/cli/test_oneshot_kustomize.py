"""`msmctl apply` builds by kustomize as the controller does."""

import subprocess
import sys

import pytest
import yaml

from secret_manager_controller.testing.aws import AwsServer

MANIFEST = {
    "apiVersion": "secret-management.microscaler.io/v1",
    "kind": "SecretManagerConfig",
    "metadata": {"name": "app", "namespace": "team"},
    "spec": {
        "sourceRef": {"name": "services"},
        "provider": {"type": "aws", "aws": {"region": "eu-central-1"}},
        "secrets": {"environment": "dev", "kustomizePath": "o", "prefix": "app"},
    },
}


@pytest.fixture(scope="module")
def aws():
    with AwsServer.start() as server:
        yield server


@pytest.fixture
def msmctl(aws, tmp_path, kustomize_binary):
    """Return a function that runs a verb on an overlay in a directory."""
    (tmp_path / "smc.yaml").write_text(yaml.safe_dump(MANIFEST))
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "kustomization.yaml").write_text("secretGenerator: [{name: g, literals: [KEY=one]}]\n")

    def run(*arguments, **environment):
        command = [sys.executable, "-m", "secret_manager_controller.cli.main", *arguments]
        files = ["-f", str(tmp_path / "smc.yaml"), "--source", str(tmp_path)]
        keys = aws.access_keys
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "KUSTOMIZE_BINARY": str(kustomize_binary),
            "AWS_ENDPOINT_URL": aws.endpoint_url,
            "AWS_ACCESS_KEY_ID": keys.access_key_id,
            "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
        } | environment
        return subprocess.run([*command, *files], env=environment, capture_output=True, text=True, check=False)

    return run


def test_what_a_build_makes_is_planned_and_applied(aws, msmctl):
    planned = msmctl("plan")
    assert "+ create   app-KEY" in planned.stdout, planned.stderr
    applied = msmctl("apply", "--yes")
    assert applied.returncode == 0, applied.stderr
    assert aws.values()["app-KEY"] == b"one"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"KUSTOMIZE_BINARY": "/nonexistent"}, "install kustomize, or set KUSTOMIZE_BINARY to its path"),
        ({"SOPS_KMS_KEYS": "x"}, "SOPS_KMS_KEYS: 'x': expected the ARN of an AWS KMS key"),
    ],
    ids=["no-kustomize", "no-key"],
)
def test_what_is_missing_is_told_in_one_line(msmctl, environment, told):
    ran = msmctl("plan", **environment)
    assert ran.returncode != 0
    assert told in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
