"""Where the kinds of sources are served."""

import pytest

from secret_manager_controller.controller.kinds import SOURCE_KINDS, served_kinds
from secret_manager_controller.kube import KubeError

FLUX = "/apis/source.toolkit.fluxcd.io"


def serve(kube, path, *plurals):
    kube.put(path, resources=[{"name": plural} for plural in plurals])


async def test_the_newest_version_is_read_and_an_older_one_where_only_that_is_served(kube):
    serve(kube, f"{FLUX}/v1", "gitrepositories", "gitrepositories/status", "externalartifacts")
    serve(kube, f"{FLUX}/v1beta2", "gitrepositories", "ocirepositories", "buckets")
    served = await served_kinds(kube)
    assert {kind: path.version for kind, path in served.items()} == {
        "GitRepository": "v1",
        "ExternalArtifact": "v1",
        "OCIRepository": "v1beta2",
        "Bucket": "v1beta2",
    }


async def test_what_is_served_in_the_newest_version_asks_for_no_older_one(kube):
    serve(kube, f"{FLUX}/v1", "gitrepositories", "ocirepositories", "buckets", "externalartifacts")
    assert {path.version for path in (await served_kinds(kube)).values()} == {"v1"}
    assert f"{FLUX}/v1beta2" not in kube.done("get")


async def test_a_cluster_without_flux_serves_none(kube):
    assert await served_kinds(kube) == {}


async def test_a_kind_that_may_not_be_listed_is_left_out(kube):
    """Its watch would be refused, and kopf would end the process after a minute; the chart grants what is switched on."""

    def refuse(verb, path):
        if path.startswith("/apis/argoproj.io/v1alpha1/applications"):
            raise KubeError(403, "forbidden")

    serve(kube, f"{FLUX}/v1", "gitrepositories")
    serve(kube, "/apis/argoproj.io/v1alpha1", "applications", "appprojects")
    assert set(await served_kinds(kube)) == {"GitRepository", "Application"}
    kube.refuse = refuse
    assert set(await served_kinds(kube)) == {"GitRepository"}


async def test_an_api_server_that_fails_is_not_taken_for_one_without_the_kinds(kube):
    def refuse(verb, path):
        raise KubeError(503, "unavailable")

    kube.refuse = refuse
    with pytest.raises(KubeError):
        await served_kinds(kube)


def test_every_place_of_a_kind_has_the_same_plural():
    assert all(len({place.plural for place in places}) == 1 for places in SOURCE_KINDS.values())
