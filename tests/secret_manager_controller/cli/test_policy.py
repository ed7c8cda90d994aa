"""`msmctl policy explain`: the controller's own decision, shown."""

import pytest

POLICY = {
    "metadata": {"name": "team"},
    "spec": {
        "namespaces": {"selector": {"matchLabels": {"tenant": "a"}}},
        "sources": [{"namespace": "flux-system", "name": "services"}],
        "stores": [{"aws": {"region": "eu-central-1"}, "namePrefixes": ["team-a-"]}],
    },
}
SPEC = {
    "sourceRef": {"name": "services", "namespace": "flux-system"},
    "provider": {"type": "aws", "aws": {"region": "eu-central-1"}},
    "secrets": {"environment": "dev"},
}


@pytest.fixture
def cluster(api):
    """Make a namespace under one policy, with one object."""
    api.put({"metadata": {"namespace": "team-a", "name": "app"}, "spec": SPEC})
    api.policies = [POLICY]
    api.namespaces = {"team-a": {"tenant": "a"}}
    return api


def test_what_is_granted_is_shown_with_the_policy(cluster, msmctl):
    result = msmctl("policy", "explain", "-n", "team-a", "app")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "SecretManagerConfig 'team-a/app' in mode isolated: allowed"
    assert lines[1] == "Policies for namespace 'team-a': team"
    assert "allowed: SecretManagerPolicy team, spec.sources[0]" in result.stdout
    assert "names that begin with team-a-" in result.stdout
    assert "denied: make a key Secret in namespace 'team-a', or have controllerKeys" in result.stdout


def test_what_is_missing_is_shown_and_ends_with_1(cluster, msmctl):
    cluster.namespaces = {"team-a": {"tenant": "b"}}
    result = msmctl("policy", "explain", "-n", "team-a", "app")
    assert result.exit_code == 1
    assert "in mode isolated: denied\nPolicies for namespace 'team-a': none" in result.stdout
    assert "{kind: GitRepository, namespace: flux-system, name: services}" in result.stdout
    assert "{aws: {region: eu-central-1}}" in result.stdout


def test_names_that_it_owns_and_may_not_are_shown(cluster, msmctl):
    secrets = [{"name": "other-X", "version": "1", "sourceHash": "h"}]
    cluster.put({"metadata": {"namespace": "team-a", "name": "app"}, "spec": SPEC, "status": {"secrets": secrets}})
    result = msmctl("policy", "explain", "-n", "team-a", "app")
    assert result.exit_code == 1
    assert "denied: secrets other-X do not begin with 'team-a-'" in result.stdout


def test_mode_shared_grants_everything_and_asks_for_no_policy(cluster, msmctl):
    result = msmctl("policy", "explain", "-n", "team-a", "app", "--mode", "shared")
    assert result.exit_code == 0
    assert "allowed: mode shared grants everything" in result.stdout
    assert not any("secretmanagerpolicies" in path for _, path in cluster.requests)


def test_a_malformed_policy_is_noted(cluster, msmctl):
    cluster.policies = [{"metadata": {"name": "broken"}, "spec": {}}, POLICY]
    result = msmctl("policy", "explain", "-n", "team-a", "app")
    assert result.exit_code == 0
    assert "note: SecretManagerPolicy broken grants nothing: spec.namespaces is required" in result.stderr


def test_a_refusal_names_the_rights_that_are_needed(cluster, msmctl):
    cluster.forbidden.add("list policies")
    result = msmctl("policy", "explain", "-n", "team-a", "app")
    assert result.exit_code == 1
    assert "it needs get on namespaces and list on secretmanagerpolicies" in result.stderr


def test_what_no_spec_names_is_shown_too(cluster, msmctl):
    application = SPEC | {"sourceRef": {"kind": "Application", "name": "services"}}
    cluster.put({"metadata": {"namespace": "team-a", "name": "app"}, "spec": application})
    result = msmctl("policy", "explain", "-n", "team-a", "app")
    assert result.exit_code == 0
    assert "denied: no SecretManagerPolicy for 'team-a' has any in spec.kmsKeys" in result.stdout
    assert "denied: no SecretManagerPolicy for 'team-a' has any in spec.gitHosts" in result.stdout
    grants = {"kmsKeys": ["https://keys.vault.azure.net/keys/team-a"], "gitHosts": ["git.example"]}
    cluster.policies = [POLICY | {"spec": POLICY["spec"] | grants}]
    result = msmctl("policy", "explain", "-n", "team-a", "app")
    assert "allowed: https://keys.vault.azure.net/keys/team-a" in result.stdout
    assert "allowed: git.example" in result.stdout
