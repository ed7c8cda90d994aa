"""`msmctl status`."""

import json

import pytest
import yaml

REFERENCE = """\
Status for SecretManagerConfig 'pricewhisperer/idam-dev-secrets':

Metadata:
  Name: idam-dev-secrets
  Namespace: pricewhisperer
  Generation: 1

Spec:
  GCP Project ID: pricewhisperer-dev
  Environment: dev
  Source: GitRepository/pricewhisperer-manifests
  Kustomize Path: microservices/idam/deployment-configuration/profiles/dev
  Secret Prefix: idam-dev
  Secret Suffix: -prod

Status:
  Observed Generation: 1
  Last Reconcile Time: 2024-01-15T10:30:00Z
  Secrets Synced: 5

Conditions:
  Ready: True
    Reason: ReconciliationSucceeded
    Message: Synced 5 secrets
    Last Transition: 2024-01-15T10:30:00Z
"""

ARGUMENTS = ("status", "--name", "idam-dev-secrets", "--namespace", "pricewhisperer")


def test_prints_the_references_output_to_the_byte(api, msmctl, reference_object):
    api.put(reference_object)
    result = msmctl(*ARGUMENTS)
    assert result.stdout == REFERENCE
    assert (result.stderr, result.exit_code) == ("", 0)


@pytest.mark.parametrize(
    ("provider", "line"),
    [
        ({"provider": {"type": "aws", "aws": {"region": "eu-west-1"}}}, "  AWS Region: eu-west-1\n"),
        ({"provider": {"type": "aws", "aws": {}}}, "  AWS Region: us-east-1\n"),
        ({"provider": {"type": "azure", "azure": {"vaultName": "kv"}}}, "  Azure Vault: kv\n"),
        ({"provider": None, "azure": {"vaultName": "kv"}}, "  Azure Vault: kv\n"),
        ({"provider": "odd"}, "  Provider: \n"),
    ],
    ids=["aws", "aws-default-region", "azure", "short-form", "malformed"],
)
def test_names_the_store_by_its_provider(api, msmctl, reference_object, provider, line):
    reference_object["spec"] |= provider
    api.put(reference_object)
    assert line in msmctl(*ARGUMENTS).stdout


def test_shows_base_path_suspension_deletion_and_revision(api, msmctl, reference_object):
    reference_object["spec"] |= {"suspend": True}
    reference_object["spec"]["secrets"] = {"environment": "dev", "basePath": "services"}
    reference_object["metadata"]["deletionTimestamp"] = "2024-01-16T00:00:00Z"
    reference_object["status"] |= {"lastAttemptedRevision": "main@sha1:new", "lastAppliedRevision": "main@sha1:old"}
    api.put(reference_object)
    lines = msmctl(*ARGUMENTS).stdout.splitlines()
    expected = ["  Base Path: services", "  Suspended: True", "  Deletion Requested: 2024-01-16T00:00:00Z"]
    assert [line for line in [*expected, "  Revision: main@sha1:old"] if line not in lines] == []
    assert not [line for line in lines if "Kustomize" in line]


def test_shows_an_object_that_was_never_reconciled(api, msmctl, reference_object):
    del reference_object["status"]
    api.put(reference_object)
    assert msmctl(*ARGUMENTS).stdout.endswith("Status:\n  Secrets Synced: 0\n\nConditions:\n  (none)\n")


def test_wide_adds_the_inventory(api, msmctl, reference_object):
    reference_object["status"]["secrets"] = [{"name": "idam-dev-a-prod", "version": "v-1", "sourceHash": "0"}]
    api.put(reference_object)
    output = msmctl(*ARGUMENTS, "-o", "wide").stdout
    assert output.startswith(REFERENCE)
    assert output.removeprefix(REFERENCE).split() == ["Secrets:", "NAME", "VERSION", "idam-dev-a-prod", "v-1"]


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_prints_the_object_without_managed_fields(api, msmctl, reference_object, output, parse):
    reference_object["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    stored = api.put(reference_object)
    del stored["metadata"]["managedFields"]
    assert parse(msmctl(*ARGUMENTS, "-o", output).stdout) == stored


HOSTILE = "\x7f\x1b]0;owned\x07\x1b[2Jbad\u202e\u009b31m\r\nReady: True"


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml"])
def test_lets_no_control_character_of_an_object_reach_the_terminal(api, msmctl, reference_object, output):
    """Whoever may write an object or its status must not write to an administrator's terminal."""
    condition = reference_object["status"]["conditions"][0]
    condition |= dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime"), HOSTILE)
    reference_object["spec"]["secrets"] = dict.fromkeys(("environment", "basePath", "prefix", "suffix"), HOSTILE)
    reference_object["spec"]["sourceRef"] = {"kind": HOSTILE, "name": HOSTILE}
    reference_object["spec"]["provider"]["gcp"]["projectId"] = HOSTILE
    reference_object["status"] |= {"lastAppliedRevision": HOSTILE, "lastReconcileTime": HOSTILE}
    reference_object["status"]["secrets"] = [{"name": HOSTILE, "version": HOSTILE, "sourceHash": ""}]
    api.put(reference_object)
    result = msmctl(*ARGUMENTS, "-o", output, color=True, env={"NO_COLOR": "1"})
    assert result.exit_code == 0
    assert [c for c in result.stdout if not (c.isprintable() or c == "\n")] == []


def test_tells_a_missing_object_and_what_shows_those_that_exist(msmctl):
    result = msmctl("status", "-n", "none")
    assert result.stderr == (
        "Error: Resource not found: SecretManagerConfig 'default/none' does not exist; "
        "`msmctl list` shows those that do, with their namespaces\n"
    )
    assert (result.stdout, result.exit_code) == ("", 1)


def test_tells_a_cluster_without_the_crd_from_a_missing_object(api, msmctl):
    api.installed = False
    result = msmctl("status", "-n", "none")
    assert result.stderr == (
        "Error: Resource not found: this cluster does not have SecretManagerConfigs; "
        "install the controller and its CRD first\n"
    )


def test_colours_conditions_on_a_terminal_only(api, msmctl, reference_object):
    api.put(reference_object)
    coloured = msmctl(*ARGUMENTS, color=True).stdout
    assert "Ready: \x1b[32mTrue\x1b[0m" in coloured
    assert msmctl(*ARGUMENTS, color=True, env={"NO_COLOR": "1"}).stdout == REFERENCE
