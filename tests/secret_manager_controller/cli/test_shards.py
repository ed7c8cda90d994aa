"""`msmctl shards` and `msmctl shards simulate`."""

import json

import pytest

from lease_sharding.assign import shard_of

OWNERS = {"smc-0": [0, 1], "smc-1": [2, 3]}


@pytest.fixture
def objects(api):
    """Put three objects into namespace red, shard 2 of 4, and one into blue, shard 1."""
    for namespace, name in (("red", "a"), ("red", "b"), ("red", "c"), ("blue", "a")):
        api.put({"metadata": {"namespace": namespace, "name": name}, "spec": {}})
    return {"red": shard_of("red", 4), "blue": shard_of("blue", 4)}


def table(text):
    return [line.split() for line in text.splitlines() if line.strip()]


def test_the_tables_show_owners_and_members(msmctl, replicas, objects):
    replicas(OWNERS)
    rows = table(msmctl("shards").stdout)
    counts = [sum({"red": 3, "blue": 1}[ns] for ns, its in objects.items() if its == shard) for shard in range(4)]
    assert rows[:5] == [
        ["SHARD", "OWNER", "SINCE", "OBJECTS", "UNOWNED"],
        ["0", "smc-0", "5m", str(counts[0])],
        ["1", "smc-0", "5m", str(counts[1])],
        ["2", "smc-1", "5m", str(counts[2])],
        ["3", "smc-1", "5m", str(counts[3])],
    ]
    assert rows[5:] == [
        ["MEMBER", "STATE", "SINCE", "RENEWED", "SHARE", "OWNED", "OBJECTS"],
        ["smc-0", "live", "5m", "1.0s", "ago", "2", "2", str(counts[0] + counts[1])],
        ["smc-1", "live", "5m", "1.0s", "ago", "2", "2", str(counts[2] + counts[3])],
    ]


def test_what_a_dead_member_had_and_what_is_free_is_unowned(msmctl, replicas):
    replicas({"smc-0": [0], "smc-1": [2, 3]}, lapsed=["smc-1"])
    rows = table(msmctl("shards").stdout)
    assert rows[1][:2] == ["0", "smc-0"]
    assert rows[2] == ["1", "<none>", "0", "5m"]
    assert rows[3] == ["2", "<none>", "0", "50s"]
    assert rows[-1][:2] == ["smc-1", "lapsed"]


def test_json_holds_the_same(msmctl, replicas, objects):
    replicas(OWNERS)
    document = json.loads(msmctl("shards", "-o", "json").stdout)
    assert document["group"] == "secret-manager-controller"
    assert document["shards"][0] | {"objects": 0} == {
        "shard": 0,
        "state": "held",
        "owner": "smc-0",
        "since": "2023-12-14T15:26:30Z",
        "epoch": 2,
        "objects": 0,
        "unownedSeconds": None,
    }
    assert sum(shard["objects"] for shard in document["shards"]) == 4
    assert [(m["name"], m["share"], m["owned"], m["renewedSecondsAgo"]) for m in document["members"]] == [
        ("smc-0", 2, 2, 1.0),
        ("smc-1", 2, 2, 1.0),
    ]


def test_a_namespace_tells_who_serves_it(msmctl, replicas, objects):
    replicas(OWNERS)
    shard = objects["red"]
    owner = "smc-0" if shard < 2 else "smc-1"
    told = f"Namespace red (3 objects) is in shard {shard}, which {owner} has owned for 5m\n"
    assert msmctl("shards", "--for", "red").stdout == told
    document = json.loads(msmctl("shards", "--for", "red", "-o", "json").stdout)
    assert (document["namespace"], document["shard"], document["owner"]) == ("red", shard, owner)


def test_a_namespace_that_nobody_serves_is_told(msmctl, replicas):
    replicas({"smc-0": [0, 1, 2, 3]}, lapsed=["smc-0"])
    assert "which nobody has owned for 50s" in msmctl("shards", "--for", "red").stdout


def test_simulate_shows_the_balance_and_what_moves(msmctl, replicas, objects):
    replicas(OWNERS)
    result = msmctl("shards", "simulate", "--replicas", "4")
    rows = table(result.stdout)
    assert [row[:2] for row in rows[1:5]] == [["smc-0", "1"], ["smc-1", "1"], ["new-1", "1"], ["new-2", "1"]]
    assert result.stdout.splitlines()[-1].startswith("From 2 to 4 replicas 2 of 4 shards would move, with ")
    document = json.loads(msmctl("shards", "simulate", "--replicas", "4", "-o", "json").stdout)
    assert (document["replicas"], document["moved"]["shards"]) == ({"now": 2, "then": 4}, 2)


def test_a_cluster_without_replicas_is_told(msmctl, replicas):
    result = msmctl("shards")
    assert result.exit_code == 1
    assert "no controller has run in namespace 'microscaler-system'" in result.stderr
    replicas(OWNERS)
    assert msmctl("shards", "--controller-namespace", "elsewhere").exit_code == 1


def test_a_refusal_names_the_permission(msmctl, api, refuse):
    def before(method, path):
        if "leases" in path:
            raise refuse(403, "leases is forbidden")

    api.before = before
    result = msmctl("shards")
    told = (
        "Error: Failed to list Leases: leases is forbidden; have the verb list on leases.coordination.k8s.io in "
        "namespace microscaler-system granted\n"
    )
    assert (result.exit_code, result.stderr) == (1, told)
