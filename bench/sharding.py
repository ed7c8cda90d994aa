"""Several replicas on a real API server: lease writes, handover, takeover, balance, the referee's verdict.

Three members with the default settings share 32 shards. Idle, their writes of Leases are counted in the API server's
audit log. Then, while objects change, one member after the other is told to end (SIGTERM) or killed (-9), and a new one
takes its place. Handover and takeover take until the successor's first reconcile of each moved namespace has ended,
which its status write in the audit log tells: each member has a user of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from datetime import datetime

from measuring import built, step
from secret_manager_controller.testing.controlplane import User
from secret_manager_controller.testing.replicas import SHARDS, Replica, Replicas
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, Stack
from secret_manager_controller.testing.workload import Workload

MEMBERS = 3
LOOK = 4.0  # Seconds; to read the audit log takes a core for a while, which a handover would notice.
WRITE_VERBS = frozenset({"create", "update", "patch", "delete"})


def quantile(values: list[float], share: float) -> float:
    """Return the least value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


class Bench:
    """Members under measurement."""

    def __init__(self, stack: Stack, replicas: Replicas, workload: Workload, *, seed: int) -> None:
        self.stack = stack
        self.replicas = replicas
        self.workload = workload
        self.random = random.Random(seed)
        self.uneven = 0

    def balance(self) -> None:
        """Wait until each member has its share, and note how much the shares differ."""
        self.replicas.wait_balanced()
        counts = self.replicas.log.shares().values()
        self.uneven = max(self.uneven, max(counts) - min(counts))

    def lease_writes(self, seconds: float) -> float:
        """Return how many writes of Leases a second the API server sees from the members."""
        before = self._lease_writes()
        started = time.monotonic()
        time.sleep(seconds)
        return (self._lease_writes() - before) / (time.monotonic() - started)

    def _lease_writes(self) -> int:
        path = f"/namespaces/{CONTROLLER_NAMESPACE}/leases"
        return sum(
            event["verb"] in WRITE_VERBS and path in event["requestURI"] for event in self.stack.plane.audit_events()
        )

    def move(self, end: Callable[[Replica], None]) -> list[float]:
        """End a member, and return how long each of its namespaces waited for its successor's first reconcile."""
        victim = self.random.choice(self.replicas.living())
        owned = self.replicas.owned(victim)
        moved = {each.path for each in self.workload.tenants if self.replicas.log.shard(each.namespace) in owned}
        with self.workload.running(every=0.25):
            time.sleep(self.random.uniform(0.5, 2.5))
            began = time.time()
            end(victim)
            waits: dict[str, float] = {}
            while moved - set(waits):
                time.sleep(LOOK)
                waits = self._first_reconciles(moved, by_others_than=victim.name, since=began)
        victim.controller.process.wait()
        self.balance()
        self.replicas.start()
        self.balance()
        return list(waits.values())

    def _first_reconciles(self, paths: set[str], *, by_others_than: str, since: float) -> dict[str, float]:
        waits: dict[str, float] = {}
        for event in self.stack.plane.audit_events():
            path = event["requestURI"].removesuffix("/status")
            ended = datetime.fromisoformat(event["stageTimestamp"]).timestamp()
            if (
                path in paths - set(waits)
                and event["requestURI"].endswith("/status")
                and event["user"]["username"] != by_others_than
                and ended >= since
            ):
                waits[path] = ended - since
        return waits


def measure(stack: Stack, *, namespaces: int, rounds: int, seed: int) -> dict[str, float]:
    """Run every phase and return the figures."""
    with step(f"making {namespaces} namespaces with an object each"):
        workload = Workload(stack, namespaces=namespaces, seed=seed, label="bench")
    with Replicas(stack) as replicas:
        bench = Bench(stack, replicas, workload, seed=seed)
        with step(f"starting {MEMBERS} members"):
            for _ in range(MEMBERS):
                replicas.start()
            bench.balance()
            workload.settle()
        with step("counting lease writes, idle"):
            writes = bench.lease_writes(20)
        handovers: list[float] = []
        takeovers: list[float] = []
        for number in range(rounds):
            with step(f"handover {number + 1} of {rounds}, a new member"):
                handovers += bench.move(Replica.terminate)
        for number in range(rounds):
            with step(f"takeover {number + 1} of {rounds}, a new member"):
                takeovers += bench.move(Replica.kill)
        workload.settle()
        verdict = replicas.verdict(workload)
    print(verdict)
    return {
        "lease_writes_per_s": round(writes, 2),
        "handover_p50_s": round(quantile(handovers, 0.5), 3),
        "handover_p99_s": round(quantile(handovers, 0.99), 3),
        "takeover_p99_s": round(quantile(takeovers, 0.99), 2),
        "double_writers": len(verdict.double_writers),
        "lost_changes": len(verdict.lost_changes),
        "share_max_minus_min": bench.uneven,
    }


def main() -> None:
    """Print a line a phase, then the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespaces", type=int, default=48, help="how many, with an object each (48)")
    parser.add_argument("--rounds", type=int, default=4, help="of handovers, and of takeovers (4)")
    parser.add_argument("--seed", type=int, default=0, help="chooses victims and moments (0)")
    arguments = parser.parse_args()
    etcd, kube_apiserver, flux_crds = built("etcd", "kube-apiserver", "flux-crds")
    members = [User(f"member-{number}", ("system:masters",)) for number in range(1, MEMBERS + 2 * arguments.rounds + 1)]
    with Stack.start(
        etcd=etcd, kube_apiserver=kube_apiserver, flux_crds=flux_crds, audit_log=True, users=members
    ) as stack:
        stack.free_shards(SHARDS)
        figures = measure(stack, namespaces=arguments.namespaces, rounds=arguments.rounds, seed=arguments.seed)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
