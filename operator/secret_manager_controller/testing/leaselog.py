"""Who owned which shard since when, seen from outside: a watch on the group's Leases that remembers.

It is the referee's evidence, and knows of a claim a little later than it was written, never sooner.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from lease_sharding.assign import shard_of
from lease_sharding.leases import GROUP, Lease, Names, claim_record, parse_lease, session_record
from secret_manager_controller.testing.controlplane import ControlPlane
from secret_manager_controller.testing.referee import Ownership

WATCH_SECONDS = 300
RETRY_PAUSE = 0.1  # Seconds; the API server may be away because a test wants it so.


@dataclass(frozen=True, slots=True)
class Claimed:
    """One gain of a shard, as it was seen.

    Attributes:
        seen: in seconds since the epoch.
    """

    member: str
    session: str | None
    epoch: int
    seen: float


class LeaseLog:
    """Watches the Leases of one group while the context lasts. Safe to ask from any thread."""

    def __init__(self, plane: ControlPlane, *, namespace: str, group: str, shards: int) -> None:
        self.names = Names(group, shards)
        self._plane = plane
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._query = {"labelSelector": f"{GROUP}={group}"}
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}
        self._gains: dict[int, list[Claimed]] = {shard: [] for shard in range(shards)}
        self._stopping = threading.Event()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="lease-log")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with self._lock, contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def shard(self, namespace: str) -> int:
        """Return the shard that a namespace is in."""
        return shard_of(namespace, self.names.shards)

    def owners(self) -> Mapping[int, str]:
        """Return who owns each shard, dead or alive: claims that were made under their holder's present session."""
        with self._lock:
            found = {}
            for shard in range(self.names.shards):
                lease = self._leases.get(self.names.claim(shard))
                claim = None if lease is None else claim_record(shard, lease)
                if claim is not None and claim.holder is not None and self._session(claim.holder) == claim.session:
                    found[shard] = claim.holder
            return found

    def shares(self) -> Mapping[str, int]:
        """Return how many shards each owner has."""
        return Counter(self.owners().values())

    def gains(self, shard: int) -> tuple[Claimed, ...]:
        """Return every gain of a shard that was seen, in order."""
        with self._lock:
            return tuple(self._gains[shard])

    def ownerships(self, namespace: str) -> list[Ownership]:
        """Return who owned a namespace, in order, for the referee; a gap in what was seen might have been anybody's."""
        found, epoch = [], 0
        for gain in self.gains(self.shard(namespace)):
            if gain.epoch > epoch + 1:
                found.append(Ownership(None, gain.seen))
            found.append(Ownership(gain.member, gain.seen))
            epoch = gain.epoch
        return found

    def _session(self, member: str) -> str | None:
        lease = self._leases.get(self.names.session(member))
        return None if lease is None else session_record(member, lease).session

    def _run(self) -> None:
        version: str | None = None
        while not self._stopping.is_set():
            try:
                version = self._list() if version is None else self._watch(version)
            except (OSError, http.client.HTTPException, ValueError):
                self._stopping.wait(RETRY_PAUSE)

    def _list(self) -> str | None:
        status, answer = self._plane.request("GET", f"{self._path}?{urlencode(self._query)}")
        if status != http.HTTPStatus.OK:
            self._stopping.wait(RETRY_PAUSE)
            return None
        leases = [parse_lease(item) for item in answer["items"]]
        with self._lock:
            self._leases = {}
            for lease in leases:
                self._note(lease)
        return str(answer["metadata"]["resourceVersion"])

    def _watch(self, version: str) -> str | None:
        """Follow what changes after a version; return the last one seen, or None if it is too old."""
        query = {"watch": "true", "resourceVersion": version, "timeoutSeconds": WATCH_SECONDS}
        with self._opened(f"{self._path}?{urlencode(self._query | query)}") as response:
            for line in iter(functools.partial(response.readline), b""):
                event: dict[str, Any] = json.loads(line)
                if event["type"] == "ERROR":
                    return None
                lease = parse_lease(event["object"])
                version = lease.resource_version
                with self._lock:
                    if event["type"] == "DELETED":
                        self._leases.pop(lease.name, None)
                    else:
                        self._note(lease)
        return version

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[http.client.HTTPResponse]:
        address, tls = urlsplit(self._plane.url), ssl.create_default_context(cafile=self._plane.ca_file)
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=tls, timeout=WATCH_SECONDS
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._plane.token()}"})
            with self._lock:
                self._connection = connection.sock
            if self._stopping.is_set():
                raise ConnectionAbortedError
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise http.client.HTTPException(f"the watch was refused with {response.status}")
            yield response

    def _note(self, lease: Lease) -> None:
        self._leases[lease.name] = lease
        shard = self.names.shard_of(lease.name)
        if shard is None:
            return
        claim, gains = claim_record(shard, lease), self._gains[shard]
        if claim.sealed and claim.holder is not None:
            gain = Claimed(claim.holder, claim.session, claim.epoch, time.time())
            if not gains or gains[-1].epoch < gain.epoch:
                gains.append(gain)
