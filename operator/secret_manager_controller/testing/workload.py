"""Objects that change while something happens to the replicas: what Git says, value by value, for the referee.

workload = Workload(stack, namespaces=12, seed=7)
with workload.running(every=0.05):
    ...                     # kill, freeze, cut off
workload.settle()
"""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS
from secret_manager_controller.testing.artifacts import Artifact
from secret_manager_controller.testing.stack import Stack, StackError
from secret_manager_controller.testing.tenants import ENV, Tenant, dotenv

SETTLE_TIMEOUT = 60.0  # Seconds; a session and a backoff of a few seconds, on a machine that does other things too.
OUTAGE_TIMEOUT = 120.0  # Seconds for which the API server may be away because a test wants it so.
RETRY_PAUSE = 0.2  # Seconds.
MAX_CHANGES = 90  # Of one namespace: AWS keeps 100 versions of a secret.


class Workload:
    """Namespaces with one object each, which logs in with the replica's own keys: the store's log names the replica."""

    def __init__(self, stack: Stack, *, namespaces: int, keys: int = 2, seed: int = 0, label: str = "load") -> None:
        """Make namespaces and objects, each with its first values.

        Args:
            stack: where they are.
            namespaces: how many.
            keys: secrets of each.
            seed: which of them change, and in which order, follows from it.
            label: their names begin so.
        """
        self.stack = stack
        self.tenants = [Tenant(stack, label, number=number) for number in range(1, namespaces + 1)]
        self._keys = [f"KEY_{number}" for number in range(keys)]
        self._random = random.Random(seed)
        self._values: dict[str, list[bytes]] = {}
        self._artifacts: dict[str, Artifact] = {}
        aws = {"region": stack.aws.region, "auth": {"authType": "AccessKeys"}}
        for tenant in self.tenants:
            self.change(tenant)
            tenant.apply(provider={"type": "aws", "aws": aws})

    def change(self, tenant: Tenant | None = None) -> Tenant:
        """Let Git have new values for one namespace, by default for any of them, and return it."""
        if tenant is None:
            tenant = self._random.choice([each for each in self.tenants if self._changes(each) < MAX_CHANGES])
        entries = {key: f"{tenant.namespace}.{key}.{self._changes(tenant)}" for key in self._keys}
        artifact = tenant.commit({ENV: dotenv(**entries)}, publish=False)
        self._publish(tenant, artifact)
        self._artifacts[tenant.key] = artifact
        for key, value in entries.items():
            self._values.setdefault(tenant.name(key), []).append(value.encode())
        return tenant

    def _publish(self, tenant: Tenant, artifact: Artifact) -> None:
        deadline = time.monotonic() + OUTAGE_TIMEOUT
        while True:
            try:
                return tenant.publish(artifact)
            except (OSError, http.client.HTTPException, StackError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_PAUSE)

    @contextlib.contextmanager
    def running(self, *, every: float) -> Iterator[None]:
        """Change one namespace after the other as long as the context lasts.

        Args:
            every: seconds from one change to the next.
        """
        ended, failures = threading.Event(), []

        def run() -> None:
            try:
                while not ended.wait(every):
                    self.change()
            except (OSError, http.client.HTTPException, StackError, IndexError) as error:
                failures.append(error)

        thread = threading.Thread(target=run, name="workload")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if failures:
            raise StackError(f"the workload ended by itself: {failures[0]}") from failures[0]

    def settle(self, *, timeout: float = SETTLE_TIMEOUT) -> None:
        """Wait until the store holds what Git holds, and every object says so.

        Raises:
            StackError: it did not come about; the message names objects.
        """
        try:
            self.stack.wait("the store to hold what Git holds", lambda: not self.behind(), timeout=timeout)
        except StackError as error:
            behind = self.behind()
            told = {key: self.stack.config(key).get("status", {}).get("conditions") for key in behind[:3]}
            raise StackError(f"{error}; {len(behind)} objects are behind, such as {told}") from None

    def behind(self) -> list[str]:
        """Return the keys of the objects that do not say that they have applied what Git holds."""
        listed: dict[str, Any] = self.stack.get(SECRET_MANAGER_CONFIGS.url()) or {}
        applied = {
            f"{body['metadata']['namespace']}/{body['metadata']['name']}": (body.get("status") or {}).get(
                "lastAppliedRevision"
            )
            for body in listed.get("items", ())
        }
        return [key for key, artifact in self._artifacts.items() if applied.get(key) != artifact.revision]

    def git(self) -> Mapping[str, Sequence[bytes]]:
        """Return the values that Git gave each secret, in order, by the secret's name in the store."""
        return {name: tuple(values) for name, values in self._values.items()}

    def namespaces(self) -> Mapping[str, str]:
        """Return the namespace of each secret."""
        return {tenant.name(key): tenant.namespace for tenant in self.tenants for key in self._keys}

    def _changes(self, tenant: Tenant) -> int:
        return len(self._values.get(tenant.name(self._keys[0]), ()))
