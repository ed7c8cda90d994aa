"""What every start reads of the cluster, and how a start fails."""

from __future__ import annotations

from secret_manager_controller.controller.keys import load_hash_key
from secret_manager_controller.controller.kinds import Kinds, served_kinds
from secret_manager_controller.controller.policies import PolicyBook
from secret_manager_controller.controller.settings import Settings
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.grants import Mode
from secret_manager_controller.kube import (
    NAMESPACES,
    SECRET_MANAGER_CONFIGS,
    SECRET_MANAGER_POLICIES,
    KubeClient,
    KubeError,
    ResourcePath,
)
from secret_manager_controller.model.secret import HashKey


class StartupError(Exception):
    """The controller cannot start; the message says what to mend."""


async def read_cluster(kube: KubeClient, settings: Settings, book: PolicyBook) -> tuple[str, HashKey, Kinds]:
    """Return the cluster's id, its HMAC key and the kinds of sources that it serves; in mode isolated fill the book.

    Raises:
        StartupError: the API server refuses what every start needs.
    """
    try:
        await check_installed(kube, SECRET_MANAGER_CONFIGS)
        if settings.tenancy_mode is Mode.ISOLATED:
            await check_installed(kube, SECRET_MANAGER_POLICIES)
            await book.load()
        cluster = settings.cluster_id or await cluster_id(kube)
        return cluster, await load_hash_key(kube, settings.namespace), await served_kinds(kube)
    except (KubeError, ControllerError) as error:
        raise StartupError(f"cannot start: {error.message}") from error


async def check_installed(kube: KubeClient, resource: ResourcePath) -> None:
    """Raise `KubeError` if a kind that we work on is not installed: the watch of it would be silent for ever."""
    if await kube.get(f"{resource.url()}?limit=1") is None:
        raise KubeError(404, f"the CustomResourceDefinition {resource.plural}.{resource.group} is not installed")


async def cluster_id(kube: KubeClient) -> str:
    """Return kube-system's UID, which identifies a cluster for its lifetime."""
    body = await kube.get(NAMESPACES.url(name="kube-system"))
    if body is None:
        raise KubeError(404, "namespace kube-system does not exist; set CLUSTER_ID")
    return str(body["metadata"]["uid"])
