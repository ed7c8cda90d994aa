"""`msmctl check`: each thing that is missing is told with what mends it, and rights come as manifests."""

import pytest
import yaml

SPEC = {
    "sourceRef": {"name": "repo"},
    "provider": {"type": "aws", "aws": {"auth": {"authType": "AccessKeys", "secretName": "keys"}}},
    "secrets": {"environment": "dev"},
}
KEYS = ["gpg-key", "sops-gpg-key", "sops-private-key"]


@pytest.fixture
def cluster(api):
    """Make a cluster with Flux, one object, and a controller that may read its Secrets."""
    api.groups = {"source.toolkit.fluxcd.io"}
    api.put({"metadata": {"namespace": "team-a", "name": "app"}, "spec": SPEC})
    api.readable = {("team-a", name) for name in (*KEYS, "keys")}
    return api


def test_where_nothing_is_missing_every_line_is_ok(cluster, msmctl):
    result = msmctl("check")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["ok"] * 4
    assert "sources are served by Flux" in result.stderr
    assert "the controller may read gpg-key, keys, sops-gpg-key, sops-private-key in namespace team-a" in lines[-1]


def test_rights_that_are_missing_are_printed_as_a_role_with_all_that_is_needed(cluster, msmctl):
    """What may be read already is in it too: the Role replaces one of its name."""
    cluster.readable = {("team-a", "keys")}
    result = msmctl("check", "-N", "team-a", "--controller-namespace", "smc", "--service-account", "account")
    assert result.exit_code == 1
    assert "missing: the controller may read" in result.stderr
    role, binding = yaml.safe_load_all(result.stdout)
    names = sorted([*KEYS, "keys"])
    assert role["rules"] == [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]}]
    assert role["metadata"] == binding["metadata"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "account", "namespace": "smc"}]


def test_every_secret_that_an_object_names_is_asked_for(cluster, msmctl):
    otel = {"type": "Otlp", "endpoint": "http://otel:4317", "headersSecretRef": {"name": "headers"}}
    auth = {"authType": "AccessKeys", "secretName": "shared", "secretNamespace": "logins"}
    spec = SPEC | {"otel": otel, "provider": {"type": "aws", "aws": {"auth": auth}}}
    cluster.put({"metadata": {"namespace": "team-b", "name": "app"}, "spec": spec})
    documents = list(yaml.safe_load_all(msmctl("check").stdout))
    names = {d["metadata"]["namespace"]: d["rules"][0]["resourceNames"] for d in documents if d["kind"] == "Role"}
    assert names == {"logins": ["shared"], "team-b": ["gpg-key", "headers", "sops-gpg-key", "sops-private-key"]}


def test_what_is_not_installed_is_told_with_the_command(cluster, msmctl):
    cluster.installed = False
    cluster.groups = set()
    result = msmctl("check")
    assert result.exit_code == 1
    assert "is installed; kubectl apply --server-side -f deploy/install.yaml" in result.stderr
    assert "missing: sources are served; install Flux or Argo CD" in result.stderr


def test_an_object_with_a_wrong_spec_keeps_nothing_from_being_checked(cluster, msmctl):
    cluster.put({"metadata": {"namespace": "team-c", "name": "app"}, "spec": {}})
    assert msmctl("check").exit_code == 0


def test_who_may_not_ask_is_told(cluster, msmctl):
    cluster.forbidden.add("review")
    result = msmctl("check")
    assert result.exit_code == 1
    assert "Error: Failed to check: " in result.stderr
