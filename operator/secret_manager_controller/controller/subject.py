"""One object for the length of its turn: seen, made sure of before anything is done, and written back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from secret_manager_controller.controller.copies import ObjectCopies, key_of
from secret_manager_controller.controller.events import Told, publish
from secret_manager_controller.controller.fenced import FencedKube
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS, KubeError
from secret_manager_controller.model.annotations import FINALIZER
from secret_manager_controller.model.status import Status, is_told

STATUS_WRITE_TRIES = 3
"""Each one reads the object anew after someone else changed it."""

Body = Mapping[str, Any]


class Outdated(Exception):  # noqa: N818 - it tells an event, not a fault.
    """The copy that a turn began with is not what the API server has.

    Attributes:
        current: what it has; None if the object is gone.
    """

    def __init__(self, current: Body | None) -> None:
        super().__init__("the object has changed since it was seen")
        self.current = current


class Subject:
    """The object of a turn. As long as nothing is to be done, a copy of it will do; every effect confirms it first.

    Attributes:
        body: the object as it is known.
    """

    def __init__(self, api: FencedKube, copies: ObjectCopies, body: Body, *, sure: bool) -> None:
        """Begin a turn.

        Args:
            api: the API server, for this turn.
            copies: told what this turn writes.
            body: the object.
            sure: whether it was read now; else it is a copy.
        """
        self.api = api
        self.body = body
        self._copies = copies
        self._sure = sure

    @property
    def key(self) -> str:
        """The object's request key."""
        return key_of(self.body["metadata"])

    @property
    def path(self) -> str:
        """The object's API path."""
        return object_path(self.key)

    @property
    def annotations(self) -> Mapping[str, str]:
        """The object's annotations."""
        return annotations_of(self.body)

    async def confirm(self) -> None:
        """Make sure that the object is as it is known; asks the API server once a turn, and not if it was read.

        Raises:
            Outdated: it is not.
            KubeError: the API server refused or did not answer.
        """
        if self._sure:
            return
        current = await self.api.get(self.path)
        if current is None or _state_of(current) != _state_of(self.body):
            raise Outdated(current)
        self.body, self._sure = current, True

    async def ensure_finalizer(self, *, wanted: bool) -> None:
        """Set our finalizer or take it off; see `confirm` for what is raised."""
        finalizers = self.body["metadata"].get("finalizers") or []
        if (FINALIZER in finalizers) == wanted:
            return
        await self.confirm()
        changed = [*finalizers, FINALIZER] if wanted else [name for name in finalizers if name != FINALIZER]
        precondition = {"resourceVersion": self.body["metadata"]["resourceVersion"], "finalizers": changed}
        self._written(await self.api.merge_patch(self.path, {"metadata": precondition}))

    async def write_status(self, status: Status, *, now: datetime) -> None:
        """Write the status once, over the object as it was read, or as it is now if only its spec or metadata changed.

        Nothing is written where the object tells it already. A status that someone else wrote meanwhile is never
        overwritten. See `confirm` for what is raised.

        Args:
            status: as it should be.
            now: the time of day.
        """
        if is_told(status, self.body.get("status") or {}, now=now):
            return
        await self.confirm()
        before = self.body.get("status")
        for _ in range(STATUS_WRITE_TRIES):
            precondition = {"metadata": {"resourceVersion": self.body["metadata"]["resourceVersion"]}}
            try:
                written = await self.api.merge_patch(f"{self.path}/status", precondition | {"status": status.as_json()})
            except KubeError as error:
                current = await self.api.get(self.path) if error.status in (404, 409) else None
                if error.status not in (404, 409):
                    raise
                if current is None or current["metadata"]["uid"] != self.body["metadata"]["uid"]:
                    return  # It is gone; the watch says so.
                if current.get("status") != before:
                    raise
                self.body = current
            else:
                self._written(written)
                return
        raise KubeError(409, "the object changes faster than its status can be written")

    async def tell(self, event: Told | None, *, now: datetime) -> None:
        """Post an Event, if there is one to tell; see `confirm` for what is raised."""
        if event is not None:
            await self.confirm()
            await publish(self.api, self.body, event, now=now)

    def _written(self, body: Body) -> None:
        self.body = body
        self._copies.put(body)


def _state_of(body: Body) -> tuple[object, object]:
    return body["metadata"].get("uid"), body["metadata"].get("resourceVersion")


def is_deleting(body: Body) -> bool:
    """Tell whether an object waits for its finalizers to go."""
    return body["metadata"].get("deletionTimestamp") is not None


def annotations_of(body: Body) -> Mapping[str, str]:
    """Return an object's annotations, none as an empty mapping."""
    return body["metadata"].get("annotations") or {}


def object_path(key: str) -> str:
    """Return the API path of the object with that request key."""
    namespace, _, name = key.partition("/")
    return SECRET_MANAGER_CONFIGS.url(namespace, name)
