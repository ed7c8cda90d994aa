"""Policies as administrators write them: whom they are for, and what is refused."""

import pytest

from secret_manager_controller.errors import ConfigError
from secret_manager_controller.model.hosts import host_matches
from secret_manager_controller.model.policy import parse_policy


def policy(**spec):
    return parse_policy({"metadata": {"name": "p"}, "spec": {"namespaces": {"names": ["a"]}} | spec})


def includes(namespaces, name="x", **labels):
    return policy(namespaces=namespaces).spec.namespaces.include(name, labels)


def expression(operator, *values):
    return {"selector": {"matchExpressions": [{"key": "tenant", "operator": operator, "values": list(values)}]}}


@pytest.mark.parametrize(
    ("namespaces", "labels", "included"),
    [
        ({"names": ["x"]}, {}, True),
        ({"names": ["y"]}, {}, False),
        ({"selector": {"matchLabels": {"tenant": "a"}}}, {"tenant": "a", "more": "b"}, True),
        ({"selector": {"matchLabels": {"tenant": "a", "stage": "dev"}}}, {"tenant": "a"}, False),
        ({"names": ["x"], "selector": {"matchLabels": {"tenant": "a"}}}, {"tenant": "b"}, True),
        (expression("In", "a", "b"), {"tenant": "b"}, True),
        (expression("In", "a", "b"), {}, False),
        (expression("NotIn", "a"), {}, True),
        (expression("NotIn", "a"), {"tenant": "a"}, False),
        (expression("Exists"), {"tenant": ""}, True),
        (expression("Exists"), {}, False),
        (expression("DoesNotExist"), {}, True),
        (expression("DoesNotExist"), {"tenant": "a"}, False),
    ],
)
def test_a_policy_is_for_namespaces_by_name_or_label(namespaces, labels, included):
    assert includes(namespaces, **labels) is included


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"namespaces": {}}, "spec.namespaces must have names or a selector"),
        ({"namespaces": {"selector": {}}}, "an empty selector would grant to every namespace"),
        ({"namespaces": expression("In")}, "values must have entries with In and NotIn"),
        ({"namespaces": expression("Exists", "a")}, "none with Exists"),
        ({"stores": [{}]}, "spec.stores[0] must have exactly one of gcp, aws and azure"),
        ({"stores": [{"aws": {"region": "eu-west-1"}, "gcp": {"projectId": "project-1"}}]}, "exactly one"),
        ({"sources": [{"namespace": "n", "name": "n", "paths": ["../x"]}]}, "spec.sources[0].paths[0] must match"),
        ({"sources": [{"namespace": "n", "name": "n", "paths": ["a/../b"]}]}, "must match"),
        ({"sources": [{"namespace": "n", "name": "n", "paths": ["/a"]}]}, "must match"),
        ({"telemetryHosts": ["*"]}, "spec.telemetryHosts[0] must match"),
        ({"telemetryHosts": ["http://a"]}, "must match"),
        ({"credentials": [{"name": "a"}]}, "spec.credentials[0].namespace is required"),
    ],
)
def test_a_wrong_policy_is_refused_with_the_path_of_the_field(spec, told):
    with pytest.raises(ConfigError) as caught:
        policy(**spec)
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("host", "patterns", "matches"),
    [
        ("A.example.", ["a.example"], True),
        ("b.a.example", ["example"], True),
        ("b.a.example", [".example"], True),
        ("evilexample", ["example"], False),
        ("a.example.evil", ["a.example", "example"], False),
        ("", ["example"], False),
        ("a", [""], False),
        ("a", [], False),
    ],
)
def test_a_host_is_matched_at_or_below_an_allowed_one(host, patterns, matches):
    assert host_matches(host, patterns) is matches
