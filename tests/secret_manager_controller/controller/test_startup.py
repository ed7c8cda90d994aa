"""What every start reads of the cluster."""

import pytest

from secret_manager_controller.controller.startup import check_installed, cluster_id
from secret_manager_controller.kube import NAMESPACES, SECRET_MANAGER_CONFIGS, KubeError


async def test_the_cluster_is_named_by_its_kube_system(kube):
    kube.put(NAMESPACES.url(name="kube-system"), metadata={"uid": "u-1"})
    assert await cluster_id(kube) == "u-1"


async def test_without_kube_system_it_has_to_be_named(kube):
    with pytest.raises(KubeError, match="set CLUSTER_ID"):
        await cluster_id(kube)


async def test_our_kind_has_to_be_installed(kube):
    with pytest.raises(KubeError, match=r"CustomResourceDefinition secretmanagerconfigs.* is not installed"):
        await check_installed(kube, SECRET_MANAGER_CONFIGS)
    kube.put(f"{SECRET_MANAGER_CONFIGS.url()}?limit=1")
    await check_installed(kube, SECRET_MANAGER_CONFIGS)
