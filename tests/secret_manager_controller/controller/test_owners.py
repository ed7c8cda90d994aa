"""Which owners live: whoever may, counts as living, since a living owner's secret is never taken."""

import pytest

from secret_manager_controller.controller.owners import ClusterOwners
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS, KubeError
from secret_manager_controller.model.observed import OwnerMark

HERE = "cluster-1"
ALIVE, DEAD = OwnerMark(HERE, "team-a/idam"), OwnerMark(HERE, "team-b/gone")


@pytest.fixture
def owners(kube):
    kube.put(SECRET_MANAGER_CONFIGS.url("team-a", "idam"))
    return ClusterOwners(kube, HERE)


async def test_an_owner_lives_if_its_object_exists(owners):
    assert await owners.living([ALIVE, DEAD]) == {ALIVE}


@pytest.mark.parametrize(
    "mark",
    [OwnerMark("cluster-2", "team-b/gone"), OwnerMark(HERE, "no-object"), OwnerMark(HERE, "")],
    ids=["another cluster's", "not a name", "empty"],
)
async def test_an_owner_that_cannot_be_asked_for_lives(owners, kube, mark):
    assert await owners.living([mark]) == {mark}
    assert kube.requests == []


async def test_an_owner_lives_while_the_api_server_does_not_answer(owners, kube):
    def refuse(verb, path):
        raise KubeError(0, "no answer")

    kube.refuse = refuse
    assert await owners.living([DEAD]) == {DEAD}


async def test_nobody_is_asked_for_where_no_mark_is(owners, kube):
    assert await owners.living([]) == frozenset()
    assert kube.requests == []
