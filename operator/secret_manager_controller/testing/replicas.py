"""Several replicas of the controller on one stack, each a process with a name, a login and a way to the API server.

with Replicas(stack, **SHORT_SESSIONS) as replicas:
    first, second = replicas.start(), replicas.start(proxied=True)
    replicas.wait_balanced()
    first.kill()
    ...
    print(replicas.verdict(workload))
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from lease_sharding.assign import shares
from secret_manager_controller.kube import LEASE_GROUP
from secret_manager_controller.testing.apiproxy import ApiProxy
from secret_manager_controller.testing.leaselog import LeaseLog
from secret_manager_controller.testing.referee import StoredVersions, Verdict, judge
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, STOP_GRACE, ControllerProcess, Stack
from secret_manager_controller.testing.workload import Workload

SHARDS = 32

SHORT_SESSIONS: Mapping[str, str] = {
    "SESSION_SECONDS": "7",
    "RENEW_INTERVAL_SECONDS": "0.5",
    "LEASE_REQUEST_TIMEOUT_SECONDS": "1",
    "FENCE_MARGIN_SECONDS": "0.3",
    "TAKE_GRACE_SECONDS": "1",
}
"""About the shortest that allow for one write to a store, so that a test waits no longer than it has to."""


class Replica:
    """One replica.

    Attributes:
        name: its member name.
        access_key_id: what it logs in to the store with.
        proxy: its way to the API server, if it has one of its own.
    """

    def __init__(self, name: str, access_key_id: str, controller: ControllerProcess, proxy: ApiProxy | None) -> None:
        self.name = name
        self.access_key_id = access_key_id
        self.controller = controller
        self.proxy = proxy
        self.killed = False
        self._told = False

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.controller.process.poll() is None

    def way(self) -> ApiProxy:
        """Return its way to the API server.

        Raises:
            ValueError: it was not started with one of its own.
        """
        if self.proxy is None:
            raise ValueError(f"{self.name} was started without proxied=True")
        return self.proxy

    def kill(self) -> None:
        """End the process as a crash does."""
        self.killed = True
        self.controller.process.kill()
        self.controller.process.wait()

    def terminate(self) -> None:
        """Ask the process to end, and return at once."""
        self._told = True
        self.controller.process.terminate()

    def stop(self) -> int:
        """Ask the process to end unless that was done, and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it does not end.
        """
        if not self._told:
            self.terminate()  # A second signal would end it at once.
        return self.controller.process.wait(STOP_GRACE)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the process stand still as long as the context lasts, as a long pause or a paused machine does."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def freeze(self) -> None:
        """Let the process stand still."""
        os.kill(self.controller.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on."""
        os.kill(self.controller.process.pid, signal.SIGCONT)


class Replicas:
    """The replicas of one stack, and what was seen of their Leases; whatever still runs at the end is killed."""

    def __init__(self, stack: Stack, *, shards: int = SHARDS, **settings: str) -> None:
        """Start none yet.

        Args:
            stack: what they run against.
            shards: the shard count.
            settings: environment variables of all of them.
        """
        self.stack = stack
        self.all: list[Replica] = []
        self.log = LeaseLog(stack.plane, namespace=CONTROLLER_NAMESPACE, group=LEASE_GROUP, shards=shards)
        self._settings = {"SHARDS": str(shards), "LOG_LEVEL": "info"} | settings
        self._numbers = itertools.count(1)
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._closing.enter_context(self.log)
        return self

    def __exit__(self, *_: object) -> None:
        for replica in self.all:
            if replica.running:
                replica.controller.process.kill()
                replica.controller.process.wait()
        self._closing.close()

    def start(
        self, name: str | None = None, *, proxied: bool = False, prefix: Sequence[str] = (), **settings: str
    ) -> Replica:
        """Start a replica and return at once; `wait_balanced` waits until it has its share.

        Where the API server knows a user of its name, it logs in as that user.

        Args:
            name: its member name; by default the next of member-1, member-2 …
            proxied: whether it has a way to the API server of its own.
            prefix: a program and its arguments that start the controller.
            settings: environment variables of this one.
        """
        name = name or f"member-{next(self._numbers)}"
        directory = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.stack.directory))
        login = self.stack.aws.add_access_key(f"AKIA.{name}", "example-secret-access-key")
        settings = self._settings | settings
        environment = {
            "POD_NAME": name,
            "AWS_ACCESS_KEY_ID": login.access_key_id,
            "AWS_SECRET_ACCESS_KEY": login.secret_access_key,
            "CACHE_DIRECTORY": str(directory / "cache"),
        }
        if name in self.stack.plane.users:
            environment["KUBECONFIG"] = str(self.stack.plane.kubeconfig(name))
        proxy = self._closing.enter_context(ApiProxy(self.stack.plane)) if proxied else None
        if proxy is not None:
            environment["KUBECONFIG"] = str(
                proxy.kubeconfig(directory, self.stack.controller_token(settings.get("TENANCY_MODE", "")))
            )
        controller = self.stack.launch_controller(prefix=prefix, **(environment | settings))
        replica = Replica(name, login.access_key_id, controller, proxy)
        self.all.append(replica)
        return replica

    def living(self) -> list[Replica]:
        """Return the replicas whose processes have not ended."""
        return [replica for replica in self.all if replica.running]

    def owned(self, replica: Replica) -> frozenset[int]:
        """Return the shards that a replica owns, as its claims say."""
        return frozenset(shard for shard, owner in self.log.owners().items() if owner == replica.name)

    def balanced(self, *members: Replica) -> bool:
        """Tell whether these members, by default all that run, own their shares."""
        wanted = shares(sorted(replica.name for replica in members or self.living()), self.log.names.shards)
        return dict(self.log.shares()) == {member: share for member, share in wanted.items() if share}

    def wait_balanced(self, *members: Replica, timeout: float = 60.0) -> None:
        """Wait until these members, by default all that run, own their shares.

        Raises:
            StackError: they do not.
        """
        self.stack.wait("each member to own its share", lambda: self.balanced(*members), timeout=timeout)

    def verdict(self, workload: Workload) -> Verdict:
        """Return what the referee says of everything so far."""
        values, history = self.stack.aws.values(), self.stack.aws.history()
        namespaces = workload.namespaces()
        return judge(
            self.stack.aws.calls(),
            members={replica.access_key_id: replica.name for replica in self.all},
            namespaces=namespaces,
            ownerships={each: self.log.ownerships(each) for each in set(namespaces.values())},
            git=workload.git(),
            stored={name: StoredVersions(found, values.get(name)) for name, found in history.items()},
            crashes=sum(replica.killed for replica in self.all),
        )
