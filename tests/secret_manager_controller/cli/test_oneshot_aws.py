"""`msmctl plan` and `apply` end to end: a Git worktree with SOPS-encrypted files, and AWS Secrets Manager's own protocol."""

import os
import subprocess
from pathlib import Path

import pyrage
import pytest
import yaml

from secret_manager_controller.testing.aws import WRITES, AwsServer

ROOT = Path(__file__).resolve().parents[3]
KEYS = ROOT / "examples" / "keys"
CANARY = "canary-5up3r-s3cr3t"
PROFILE = "app/deployment-configuration/profiles/dev"


@pytest.fixture(scope="module")
def running_aws():
    """Return an AWS server for this module's tests."""
    with AwsServer.start() as server:
        yield server


@pytest.fixture
def aws(running_aws, monkeypatch):
    """Return the server, emptied, and let the environment lead to it as to AWS."""
    running_aws.reset()
    for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", running_aws.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", running_aws.access_keys.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", running_aws.access_keys.secret_access_key)
    return running_aws


def git(directory, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, sops):
    """Return a function that commits files encrypted by the real sops, and returns directory, commit and key file."""
    identity = pyrage.x25519.Identity.generate()
    key_file = tmp_path / "age.key"
    key_file.write_text(f"# test key\n{identity}\n")
    source = tmp_path / "source"
    (source / PROFILE).mkdir(parents=True)
    git(source, "init", "--quiet")

    def commit(**files):
        for name, text in files.items():
            path = source / PROFILE / f"application.{name.replace('_', '.')}"
            path.write_text(text)
            environment = {**os.environ, "SOPS_AGE_RECIPIENTS": str(identity.to_public())}
            subprocess.run([sops, "encrypt", "--in-place", path], check=True, env=environment, capture_output=True)
            assert CANARY not in path.read_text()
        git(source, "add", ".")
        git(source, "commit", "--quiet", "-m", "change")
        return source, git(source, "rev-parse", "HEAD"), key_file

    return commit


@pytest.mark.real
def test_from_an_encrypted_worktree_to_aws_and_back_to_nothing_to_do(aws, repository, one_shot, manifest):
    manifest["spec"]["prune"] = True
    files = {"secrets_env": f"TOKEN={CANARY}\nOLD=x\n", "secrets_yaml": f"db:\n  password: {CANARY}-2\n"}
    source, commit, key_file = repository(**files)
    options = ["--source", source, "--key-file", key_file]

    planned = one_shot("plan", *options, "--exit-code")
    assert planned.exit_code == 2
    assert f"(aws/eu-central-1, revision {commit}):" in planned.stdout
    assert [call for call in aws.calls() if call.operation in WRITES] == []

    applied = one_shot("apply", *options)
    assert (applied.stderr, applied.exit_code) == ("", 0)
    assert "3 created, 0 updated, 0 adopted, 0 pruned; 3 of 3 in sync" in applied.stdout
    expected = {"app-TOKEN": CANARY.encode(), "app-OLD": b"x", "app-db.password": f"{CANARY}-2".encode()}
    assert aws.values() == expected
    assert one_shot("plan", *options, "--exit-code").exit_code == 0

    aws.put_by_hand("app-TOKEN", b"drift")
    _, commit, _ = repository(secrets_env=f"TOKEN={CANARY}\n")
    changed = one_shot("apply", *options)
    assert "  ~ update   app-TOKEN\n  - prune    app-OLD\n" in changed.stdout
    assert aws.values() == {name: value for name, value in expected.items() if name != "app-OLD"}
    assert changed.exit_code == 0

    for result in (planned, applied, changed):
        assert CANARY not in result.output


@pytest.mark.real
def test_the_sops_variables_of_the_environment_hold_keys_too(aws, repository, one_shot):
    source, _, key_file = repository(secrets_env="TOKEN=1\n")
    options = ["plan", "--source", source]
    assert one_shot(*options, env={"SOPS_AGE_KEY_FILE": str(key_file)}).exit_code == 0
    assert one_shot(*options, env={"SOPS_AGE_KEY": key_file.read_text()}).exit_code == 0
    without = one_shot(*options)
    assert without.stderr.startswith("Error: team/app: KeyUnavailable: ")
    assert without.stderr.endswith("(msmctl takes keys from --key-file, SOPS_AGE_KEY and SOPS_AGE_KEY_FILE)\n")
    assert without.exit_code == 1


@pytest.mark.real
def test_a_file_that_was_changed_after_it_was_encrypted_is_refused(aws, repository, one_shot):
    source, _, key_file = repository(secrets_env=f"A={CANARY}\nB=2\n")
    path = source / PROFILE / "application.secrets.env"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("B=")))
    result = one_shot("apply", "--source", source, "--key-file", key_file)
    assert result.stderr.startswith("Error: team/app: DecryptionFailed: ")
    assert (result.exit_code, aws.values()) == (1, {})
    assert CANARY not in result.output


def test_the_examples_are_planned_with_their_age_and_pgp_keys(aws, one_shot, tmp_path):
    """Both key kinds from files, two objects of two teams, logins that name Secrets."""
    arguments = ["--source", ROOT / "examples" / "repository"]
    for name in ("idam-dev.yaml", "billing-dev.yaml"):
        arguments += ["-f", ROOT / "examples" / "manifests" / name]
    for key in sorted(KEYS.iterdir()):
        arguments += ["--key-file", key]
    result = one_shot("plan", *arguments, "-o", "yaml")
    objects = yaml.safe_load(result.stdout)["objects"]
    assert [(o["namespace"], o["name"]) for o in objects] == [
        ("team-a", "idam-dev-secrets"),
        ("team-b", "billing-dev-secrets"),
    ]
    assert all(action["action"] == "Create" for o in objects for action in o["actions"])
    assert result.exit_code == 0


def test_a_refused_login_is_told(aws, one_shot, worktree, monkeypatch):
    worktree(KEY="1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    result = one_shot("plan")
    assert result.stderr.startswith("Error: team/app: ")
    assert "wrong" not in result.stderr
    assert result.exit_code == 1
