"""What the cluster verbs share: the connection, reading objects, and what to do about a refusal."""

from __future__ import annotations

import contextlib
import logging
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from secret_manager_controller import __version__
from secret_manager_controller.cli.errors import CliError, NotFound
from secret_manager_controller.cli.options import ClusterOptions
from secret_manager_controller.cli.terminal import note
from secret_manager_controller.errors import foreign
from secret_manager_controller.kube import (
    LIST_CHUNK,
    SECRET_MANAGER_CONFIGS,
    ApiServer,
    Json,
    KubeClient,
    KubeConfigError,
    KubeError,
)

LIST_TRIES = 3
"""A listing whose continue token expires half-way (after five minutes) is begun anew so many times."""

CHANGE_TRIES = 5
"""The controller may write the status between our look and our patch; each try looks anew."""

RESOURCE = f"{SECRET_MANAGER_CONFIGS.plural}.{SECRET_MANAGER_CONFIGS.group}"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """One SecretManagerConfig, by namespace and name."""

    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Its path at the API server."""
        return SECRET_MANAGER_CONFIGS.url(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@asynccontextmanager
async def connect(where: ClusterOptions) -> AsyncIterator[KubeClient]:
    """Open a client of the cluster that the options, KUBECONFIG, `~/.kube/config` or the pod name.

    Raises:
        CliError: there is no usable login.
    """
    mend = "check it with `kubectl cluster-info`; KUBECONFIG or --kubeconfig names another"
    async with AsyncExitStack() as stack:
        try:
            with _notes_of_plugins():
                server = ApiServer.load(kubeconfig=where.kubeconfig, context=where.context)
            client = KubeClient(server, user_agent=f"msmctl/{__version__}")
            kube = await stack.enter_async_context(client)
        except (KubeConfigError, OSError, ValueError) as error:  # The latter two: certificates that are none.
            told = str(error) if isinstance(error, KubeConfigError) else f"its certificates: {foreign(error)}"
            raise CliError(f"Failed to create Kubernetes client: {told}; {mend}") from error
        yield kube


async def read_object(kube: KubeClient, key: ObjectKey, *, failing: str) -> Json:
    """Return an object.

    Args:
        kube: the cluster.
        key: the object.
        failing: how an error begins, e.g. `Failed to read …`.

    Raises:
        NotFound: there is none.
        CliError: the API server refused.
    """
    try:
        body = await kube.get(key.path)
        if body is None:
            raise await not_found(kube, key)
    except KubeError as error:
        raise refused(failing, error, verb="get") from error
    return body


async def change_object(kube: KubeClient, key: ObjectKey, change: Callable[[Json], Json], *, failing: str) -> None:
    """Merge-patch an object as it was read; one that changes meanwhile is read again.

    Args:
        kube: the cluster.
        key: the object.
        change: makes the patch of the object as it is.
        failing: how an error begins.

    Raises:
        NotFound: there is none.
        CliError: the API server refused.
    """
    for left in reversed(range(CHANGE_TRIES)):
        body = await read_object(kube, key, failing=failing)
        patch = dict(change(body))
        patch["metadata"] = {"resourceVersion": body["metadata"]["resourceVersion"], **patch.get("metadata", {})}
        try:
            await kube.merge_patch(key.path, patch)
        except KubeError as error:
            if error.status == 404:
                raise await not_found(kube, key) from error
            if error.status != 409 or not left:
                raise refused(failing, error, verb="patch") from error
        else:
            return


async def not_found(kube: KubeClient, key: ObjectKey) -> NotFound:
    """Return the error for an object that is not there: told apart from a cluster that does not know its kind."""
    try:
        known = await kube.get(SECRET_MANAGER_CONFIGS.url(key.namespace) + "?limit=1") is not None
    except KubeError:
        known = True  # Nobody can say; the likelier of the two.
    if not known:
        return NotFound("this cluster does not have SecretManagerConfigs", "install the controller and its CRD first")
    what = f"SecretManagerConfig '{key}' does not exist"
    return NotFound(what, "`msmctl list` shows those that do, with their namespaces")


async def list_objects(kube: KubeClient, namespace: str | None, convert: Callable[[Json], T]) -> list[T]:
    """Return what `convert` makes of every object, read page by page.

    Args:
        kube: the cluster.
        namespace: the namespace, or None for all.
        convert: makes what is kept of an object; the rest is dropped with its page.

    Raises:
        CliError: the API server refused.
    """
    failing = "Failed to list SecretManagerConfigs"
    for left in reversed(range(LIST_TRIES)):
        try:
            return [convert(body) async for body in _pages(kube, SECRET_MANAGER_CONFIGS.url(namespace))]
        except KubeError as error:
            if error.status != 410 or not left:
                raise refused(failing, error, verb="list") from error
    raise AssertionError  # The last try returns or raises.


async def _pages(kube: KubeClient, path: str) -> AsyncIterator[Json]:
    token = ""
    while True:
        query = f"?limit={LIST_CHUNK}" + (f"&continue={urllib.parse.quote(token, safe='')}" if token else "")
        page = await kube.get(path + query)
        if page is None:
            raise KubeError(404, "this cluster does not have SecretManagerConfigs")
        for item in page.get("items") or ():
            yield item
        token = page.get("metadata", {}).get("continue", "")
        if not token:
            return


def refused(failing: str, error: KubeError, *, verb: str) -> CliError:
    """Return the error for a request that the API server refused or did not get, with what mends it."""
    match error.status:
        case 0:
            mend = "check with `kubectl cluster-info` whether it can be reached"
        case 401:
            mend = "the login was refused: log in anew, or use another --context"
        case 403:
            mend = f"have the verb {verb} on {RESOURCE} granted (docs/msmctl.md shows the role)"
        case 404:
            mend = "install the controller and its CRD first"
        case _:
            mend = "try again"
    return CliError(f"{failing}: {error.message}; {mend}")


@contextlib.contextmanager
def _notes_of_plugins() -> Iterator[None]:
    """Show what goes wrong in a kubeconfig's login program, which `kubernetes` only logs before it goes on without."""
    handler = _NoteHandler(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _NoteHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(f"kubeconfig: {foreign(record.getMessage())}")
