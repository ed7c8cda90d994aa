"""The slim cache: what counts as a change, and who hangs on which source."""

import copy

import pytest

from secret_manager_controller.controller.cache import ObjectCache, SourceKey, record_of

BODY = {
    "metadata": {
        "namespace": "team-a",
        "name": "idam",
        "uid": "u1",
        "generation": 1,
        "resourceVersion": "10",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "…"},
    },
    "spec": {"sourceRef": {"name": "repo", "namespace": "flux-system"}},
    "status": {"secretsSynced": 1},
}
REPO = SourceKey("GitRepository", "flux-system", "repo")


def changed(**paths):
    body = copy.deepcopy(BODY)
    for path, value in paths.items():
        *parents, last = path.split("__")
        place = body
        for parent in parents:
            place = place[parent]
        place[last] = value
    return body


@pytest.mark.parametrize(
    ("body", "counts"),
    [
        pytest.param(
            changed(metadata__resourceVersion="11", status={"secretsSynced": 2}), False, id="our status write"
        ),
        pytest.param(changed(metadata__annotations={"unrelated": "x"}), False, id="an unrelated annotation"),
        pytest.param(changed(metadata__generation=2), True, id="the spec"),
        pytest.param(changed(metadata__uid="u2"), True, id="deleted and made again"),
        pytest.param(changed(metadata__deletionTimestamp="2026-01-01T00:00:00Z"), True, id="deletion"),
        pytest.param(
            changed(metadata__annotations={"secret-management.microscaler.io/reconcile": "1"}), True, id="a request"
        ),
    ],
)
def test_only_what_can_trigger_a_reconcile_counts_as_a_change(body, counts):
    cache = ObjectCache(len)
    assert cache.put(record_of(BODY))
    assert cache.put(record_of(body)) is counts


def test_objects_are_found_by_their_source_as_long_as_they_refer_to_it():
    cache = ObjectCache(len)
    cache.put(record_of(BODY))
    assert cache.using(REPO) == ("team-a/idam",)
    cache.put(record_of(changed(metadata__generation=2, spec={"sourceRef": {"name": "mine"}})))
    assert cache.using(REPO) == ()
    assert cache.using(SourceKey("GitRepository", "team-a", "mine")) == ("team-a/idam",)
    cache.remove("team-a/idam")
    cache.remove("team-a/idam")
    assert (len(cache), cache.using(SourceKey("GitRepository", "team-a", "mine"))) == (0, ())


@pytest.mark.parametrize("spec", [None, {}, {"sourceRef": {}}, {"sourceRef": "x"}, []])
def test_a_malformed_spec_has_no_source_and_breaks_nothing(spec):
    assert record_of(changed(spec=spec)).source is None


def test_ghosts_are_records_without_an_object():
    cache = ObjectCache(len)
    cache.put(record_of(BODY))
    cache.put(record_of(changed(metadata__name="other")))
    assert cache.ghosts({"team-a/other"}) == ("team-a/idam",)


def test_objects_are_found_by_the_shard_of_their_namespace():
    cache = ObjectCache({"team-a": 7, "b": 3}.__getitem__)
    cache.put(record_of(BODY))
    cache.put(record_of(changed(metadata__name="other")))
    cache.put(record_of(changed(metadata__namespace="b")))
    assert cache.in_shard(7) == {"team-a/idam", "team-a/other"}
    assert (cache.in_shard(3), cache.in_shard(0)) == ({"b/idam"}, frozenset())
    cache.remove("team-a/idam")
    assert cache.in_shard(7) == {"team-a/other"}
    assert cache.shard_of("team-a/never-seen") == 7


@pytest.mark.parametrize(
    ("spec", "lane"),
    [
        ({"provider": {"type": "aws", "aws": {"region": "eu-west-1"}}}, "aws/eu-west-1/"),
        ({"aws": {}}, "aws//"),
        ({"provider": {"gcp": {"projectId": "p", "auth": {"secretName": "s"}}}}, "gcp/p/team-a/s//"),
        ({"provider": {"azure": {"vaultName": "v", "auth": 3}}}, "azure/v/"),
        ({"provider": {"aws": {"auth": {"roleArn": "arn"}}}}, "aws//team-a///arn"),
        ({"provider": []}, ""),
        ({"provider": {"aws": "x"}}, ""),
        (None, ""),
    ],
)
def test_an_object_s_lane_is_its_store_and_login(spec, lane):
    body = {"metadata": {"namespace": "team-a", "name": "app"}, "spec": spec}
    cache = ObjectCache(len)
    cache.put(record_of(body))
    assert cache.lane_of("team-a/app") == lane
    assert cache.lane_of("team-a/unknown") == ""
