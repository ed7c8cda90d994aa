"""The kinds of sources: where each may be served, and where this cluster serves it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from itertools import zip_longest

from secret_manager_controller.kube import KubeClient, KubeError, ResourcePath
from secret_manager_controller.model.spec import SourceKind

Kinds = Mapping[str, ResourcePath]
"""Where kinds are served, by kind."""


def _flux(plural: str) -> tuple[ResourcePath, ...]:
    return tuple(ResourcePath("source.toolkit.fluxcd.io", version, plural) for version in ("v1", "v1beta2"))


SOURCE_KINDS: Mapping[str, tuple[ResourcePath, ...]] = {
    SourceKind.GIT_REPOSITORY: _flux("gitrepositories"),
    SourceKind.OCI_REPOSITORY: _flux("ocirepositories"),  # In v1 since Flux 2.6.
    SourceKind.BUCKET: _flux("buckets"),  # In v1 since Flux 2.5.
    SourceKind.EXTERNAL_ARTIFACT: _flux("externalartifacts"),
    SourceKind.APPLICATION: (ResourcePath("argoproj.io", "v1alpha1", "applications"),),
}
"""Every kind that is watched, with the places where it may be served, the preferred one first."""


async def served_kinds(kube: KubeClient) -> Kinds:
    """Return the kinds of sources that the cluster serves and lets us list, each where it is best read.

    A kind that may not be listed is left out: a watch of it would be refused until the process gives up. One request a
    group and version, none for an older version that nothing is missing from, and one a kind.

    Raises:
        KubeError: the API server refused or did not answer.
    """
    served: dict[str, ResourcePath] = {}
    for places in zip_longest(*SOURCE_KINDS.values()):
        wanted = {k: place for k, place in zip(SOURCE_KINDS, places, strict=True) if place and k not in served}
        plurals = {
            group: await _plurals(kube, *group) for group in sorted({(p.group, p.version) for p in wanted.values()})
        }
        served |= {k: place for k, place in wanted.items() if place.plural in plurals[(place.group, place.version)]}
    allowed = await asyncio.gather(*(_may_list(kube, place) for place in served.values()))
    return {kind: place for (kind, place), listed in zip(served.items(), allowed, strict=True) if listed}


async def _may_list(kube: KubeClient, place: ResourcePath) -> bool:
    try:
        await kube.get(f"{place.url()}?limit=1")
    except KubeError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return False
    return True


async def _plurals(kube: KubeClient, group: str, version: str) -> frozenset[str]:
    """Return the plurals of a group's version; none where it is not served."""
    listed = await kube.get(f"/apis/{group}/{version}") or {}
    return frozenset(resource["name"] for resource in listed.get("resources") or ())
