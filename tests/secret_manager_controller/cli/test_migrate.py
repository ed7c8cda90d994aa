"""`msmctl migrate`: older forms in the canonical form of v1."""

import pytest
import yaml

from secret_manager_controller.cli.migrate import migrated
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.spec import parse_spec

METADATA = {"name": "app", "namespace": "team"}
AWS = {"region": "eu-central-1"}


def old(version="v1beta1", **spec):
    whole = {"sourceRef": {"name": "repo"}, "secrets": {"environment": "dev"}, **spec}
    return {"apiVersion": f"{GROUP}/{version}", "kind": "SecretManagerConfig", "metadata": METADATA, "spec": whole}


@pytest.mark.parametrize(
    ("spec", "provider"),
    [
        pytest.param({"aws": AWS}, {"type": "aws", "aws": AWS}, id="short form"),
        pytest.param({"provider": {"aws": AWS}}, {"type": "aws", "aws": AWS}, id="no type"),
        pytest.param({"provider": {"type": "aws", "aws": AWS}}, {"type": "aws", "aws": AWS}, id="as it should be"),
        pytest.param(
            {"aws": AWS | {"auth": {"type": "AccessKeys", "secretName": "s"}}},
            {"type": "aws", "aws": AWS | {"auth": {"authType": "AccessKeys", "secretName": "s"}}},
            id="auth.type",
        ),
        pytest.param(
            {"aws": AWS | {"auth": {"type": "Irsa", "authType": "Irsa"}}},
            {"type": "aws", "aws": AWS | {"auth": {"authType": "Irsa"}}},
            id="both names",
        ),
    ],
)
def test_the_store_and_its_login_get_their_canonical_form_and_mean_the_same(spec, provider):
    body = old(**spec)
    new = migrated(body | {"status": {"secretsSynced": 1}})
    assert new["apiVersion"] == f"{GROUP}/v1"
    assert new["spec"]["provider"] == provider
    assert "status" not in new
    assert parse_spec(migrated(new)) == parse_spec(new)


def test_two_logins_that_contradict_each_other_are_left_to_a_person(tmp_path, msmctl):
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump(old(aws=AWS | {"auth": {"type": "Irsa", "authType": "AccessKeys"}})))
    result = msmctl("migrate", "-f", str(path))
    assert result.exit_code == 1
    assert "note: SecretManagerConfig app: spec.provider.aws.auth.type is another name of authType" in result.stderr


def test_other_objects_pass_and_what_v1_refuses_is_noted_without_its_value(tmp_path, msmctl):
    path = tmp_path / "old.yaml"
    secret = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}}
    broken = old(aws=AWS, otel={"type": "Datadog", "site": "datadoghq.com", "apiKey": "canary"})
    path.write_text(yaml.safe_dump_all([secret, broken]))
    result = msmctl("migrate", "-f", str(path))
    assert result.exit_code == 1
    assert "spec.otel.apiKey is refused here" in result.stderr
    assert "canary" not in result.stderr
    assert next(yaml.safe_load_all(result.stdout)) == secret


def test_a_file_without_objects_is_told(tmp_path, msmctl):
    path = tmp_path / "old.yaml"
    path.write_text("just text\n")
    assert "no Kubernetes objects in" in msmctl("migrate", "-f", str(path)).stderr
