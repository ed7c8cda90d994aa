"""What traces cost: CPU, memory, threads, the pace of reconciles beside backends that fail, and the end of the process.

Every reconcile is a whole one (fetch, render, observe, plan, one write) over HTTP against the AWS test server. Backends
are processes of their own: a real Jaeger takes spans, the others fail in their ways. Blocks of reconciles with and
without traces take turns, so that what else the machine does falls on all of them; "none" is measured twice, and what
these two differ by is noise. On a busy machine CPU tells more than the clock. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import math
import os
import random
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calls import STORES, Bench
from controller_telemetry import export
from controller_telemetry.destination import Destination
from controller_telemetry.export import Tracers, TraceSettings
from controller_telemetry.spans import NO_TRACER
from measuring import built, resident_mb
from secret_manager_controller.controller.wiring import TRACES_END_TIMEOUT
from secret_manager_controller.testing import certificates, jaeger
from secret_manager_controller.tracing import Attribute, reconcile_span

HOST = "127.0.0.1"
SECRETS = 100  # A secret takes a hundred versions a day.
OBJECTS, BLOCKS = 1000, 50  # Of `spec.otel`.
WARM_UP = 5  # Reconciles of a block that are not counted: the store has closed connections meanwhile.
SLOW_SECONDS = 2.5  # An export is given up after 3.
NONE, AGAIN, TAKEN = "none", "none again", "Jaeger"


# --- backends that fail


async def _slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request late."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await _request(reader)
            await asyncio.sleep(SLOW_SECONDS)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
    writer.close()


async def _refusing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request that it cannot be served now, which an exporter tries again."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await _request(reader)
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
    writer.close()


async def _request(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next((line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    await reader.readexactly(int(length.partition(b":")[2]))


async def serve_backends() -> None:
    """Serve what fails, until standard input closes; print the ports as JSON."""
    with tempfile.TemporaryDirectory() as directory:
        certificates.write_serving_certificate(Path(directory), address=HOST)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(Path(directory) / "server.crt", Path(directory) / "server.key")
        slow = await asyncio.start_server(_slow, HOST, 0)
        refusing = await asyncio.start_server(_refusing, HOST, 0)
        untrusted = await asyncio.start_server(_slow, HOST, 0, ssl=tls)
        with full_socket() as unreachable, socket.socket() as nobody:
            nobody.bind((HOST, 0))
            ports = {name: server.sockets[0].getsockname()[1] for name, server in
                     (("slow", slow), ("refusing", refusing), ("untrusted", untrusted))}  # fmt: skip
            ports |= {"unreachable": unreachable, "nobody": nobody.getsockname()[1]}
            print(json.dumps(ports), flush=True)
            await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def full_socket() -> Iterator[int]:
    """Yield a port whose queue of connections is full: the kernel drops further ones, as a firewall does."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind((HOST, 0))
        listener.listen(0)
        for _ in range(4):
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def failing_backends() -> Iterator[Mapping[str, int]]:
    """Run `serve_backends` in a process of its own, and yield its ports."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def destinations(ports: Mapping[str, int], taken: jaeger.Jaeger) -> dict[str, Destination | None]:
    """Return what is measured, by its name; None is no traces."""

    def http(name: str, scheme: str = "http") -> Destination:
        return Destination(f"{scheme}://{HOST}:{ports[name]}/v1/traces", grpc=False)

    return {
        NONE: None,
        AGAIN: None,
        TAKEN: Destination(f"{taken.http}/v1/traces", grpc=False),
        "Jaeger, gRPC": Destination(taken.grpc, grpc=True),
        "unreachable": http("unreachable"),
        "unreachable, gRPC": Destination(f"http://{HOST}:{ports['unreachable']}", grpc=True),
        "nobody there": http("nobody"),
        "slow": http("slow"),
        "refusing": http("refusing"),
        "TLS fails": http("untrusted", "https"),
    }


# --- the pace of reconciles


@dataclass(slots=True)
class Pace:
    """What was measured of one kind of backend."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    block_cpu: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return milliseconds of a reconcile: by the clock, CPU of all threads meanwhile, and with what is between."""
        return {
            "p50_ms": percentile(self.seconds, 0.5),
            "p99_ms": percentile(self.seconds, 0.99),
            "cpu_p50_ms": percentile(self.cpu, 0.5),
            "cpu_p99_ms": percentile(self.cpu, 0.99),
            "cpu_ms": self.block_cpu / len(self.seconds) * 1000,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of seconds in milliseconds."""
    ordered = sorted(values)
    return ordered[min(math.ceil(share * len(ordered)), len(ordered)) - 1] * 1000


async def block(bench: Bench, destination: Destination | None, count: int, pace: Pace) -> None:
    """Make some reconciles, each of one changed value, and note how long they took."""
    tracers = Tracers()
    settings = None if destination is None else TraceSettings(destination, (("service.name", "bench"),))
    tracer = NO_TRACER if settings is None else tracers.tracer("bench/idam", settings)
    attributes = {Attribute.NAMESPACE: "bench", Attribute.OBJECT: "bench/idam", Attribute.GENERATION: 1}
    gc.collect()
    cpu = time.process_time()
    for number in range(-WARM_UP, count):
        bench.values[f"KEY_{bench.commits % SECRETS:04}"] = f"value-{bench.commits}"
        bench.write()
        started, used = time.perf_counter(), time.process_time()
        with reconcile_span(tracer, "reconcile", attributes, parent=None, link=None, record_names=False):
            await bench.reconcile()
        if number >= 0:
            pace.seconds.append(time.perf_counter() - started)
            pace.cpu.append(time.process_time() - used)
        else:
            cpu = time.process_time()
    pace.block_cpu += time.process_time() - cpu
    await asyncio.to_thread(tracers.shutdown, TRACES_END_TIMEOUT)


async def paces(kinds: Mapping[str, Destination | None], *, rounds: int, count: int) -> dict[str, Pace]:
    """Measure all kinds of backends in turns, each round in another order."""
    found = {name: Pace() for name in kinds}
    order = random.Random(1)
    with STORES["aws"].start() as server, tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), "aws", server, secrets=SECRETS, own_quotas=False)
        try:
            await bench.reconcile()
            for destination in kinds.values():  # Imports and first connections.
                await block(bench, destination, 3, Pace())
            for number in range(rounds):
                print(f"round {number + 1} of {rounds} …", file=sys.stderr)
                for name in order.sample(list(kinds), len(kinds)):
                    await block(bench, kinds[name], count, found[name])
        finally:
            await bench.provider.aclose()
    return found


# --- memory, threads and the end, each in a process of its own


def threads() -> int:
    """Return the process's threads, those of gRPC's core too."""
    return len(list(Path("/proc/self/task").iterdir()))


def many(port: int, objects: int, *, grpc: bool) -> dict[str, Any]:
    """Let objects trace into 50 destinations that do not answer; measure memory, threads, and the end."""
    for name in (False, True):
        export.otlp_exporter(Destination(f"http://{HOST}:{port}", grpc=name)).shutdown()
    gc.collect()
    memory, before = resident_mb(os.getpid()), threads()
    tracers = Tracers()
    made = [tracers.tracer(f"team/{number}", _settings(port, number, grpc=grpc)) for number in range(objects)]
    gc.collect()
    idle, open_threads, open_destinations = resident_mb(os.getpid()) - memory, threads() - before, tracers.destinations
    for tracer in made:
        for _ in range(13):  # Spans of one reconcile.
            tracer.start_span("step", attributes={"secret_manager.object": "team/idam"}).end()
    full = resident_mb(os.getpid()) - memory
    counters, started = tracers.counters, time.monotonic()
    tracers.shutdown(TRACES_END_TIMEOUT)
    return {
        "destinations": open_destinations,
        "refused": counters.refused,
        "memory_mib": round(idle, 1),
        "memory_with_queues_mib": round(full, 1),
        "threads": open_threads,
        "shutdown_s": round(time.monotonic() - started, 2),
    }


def _settings(port: int, number: int, *, grpc: bool) -> TraceSettings:
    # Each object's own objects, as its own spec is read; a header makes the destinations differ.
    headers = (("x-tenant", str(number % BLOCKS)),)
    endpoint = f"http://{HOST}:{port}" + ("" if grpc else "/v1/traces")
    return TraceSettings(Destination(endpoint, grpc=grpc, headers=headers), (("service.name", "bench"),))


def in_a_process(port: int, objects: int, *, grpc: bool) -> dict[str, Any]:
    """Run `many` in a process, and add how long the process took to end once that was done."""
    command = [sys.executable, __file__, "--many", str(port), str(objects), *(["--grpc"] if grpc else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        figures = json.loads(process.stdout.readline())
        printed = time.monotonic()
        process.wait()
    return {**figures, "interpreter_s": time.monotonic() - printed}


def ends(port: int) -> dict[str, dict[str, Any]]:
    """Measure 1,000 objects over either protocol; `end_s` is the end of the process beyond one without objects."""
    found = {}
    for name, grpc in (("HTTP", False), ("gRPC", True)):
        pairs = [[in_a_process(port, objects, grpc=grpc) for objects in (0, OBJECTS)] for _ in range(3)]
        more = statistics.median(full["interpreter_s"] - empty["interpreter_s"] for empty, full in pairs)
        figures = pairs[-1][1]
        del figures["interpreter_s"]
        found[name] = figures | {"end_s": round(figures["shutdown_s"] + more, 2)}
    return found


def told(found: Mapping[str, Pace]) -> dict[str, Any]:
    """Print the paces as a table, each beside that without traces, and return them."""
    first, second = found[NONE], found[AGAIN]
    none = Pace(
        [*first.seconds, *second.seconds], [*first.cpu, *second.cpu], first.block_cpu + second.block_cpu
    ).figures()
    print(f"{'ms':18}" + "".join(f"{name.removesuffix('_ms'):>18}" for name in none))
    backends = {}
    for name, pace in found.items():
        figures = pace.figures()
        percent = {of: 100 * (value / none[of] - 1) for of, value in figures.items()}
        print(
            f"{name:18}" + "".join(f"{value:10.2f} {percent[of]:+6.1f}%" for of, value in figures.items()), flush=True
        )
        backends[name] = {of: [round(value, 2), round(percent[of], 1)] for of, value in figures.items()}
    return {
        "reconciles_each": len(first.seconds),
        "cpu_ms_off": round(none["cpu_ms"], 2),
        "cpu_ms_on": backends[TAKEN]["cpu_ms"][0],
        "backends_ms_and_percent": backends,
    }


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--count", type=int, default=50, help="reconciles of a backend in a round")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--many", type=int, nargs=2, metavar=("PORT", "OBJECTS"), help=argparse.SUPPRESS)
    parser.add_argument("--grpc", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    for name in ("opentelemetry", "controller_telemetry"):  # They would tell each batch.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if chosen.serve:
        asyncio.run(serve_backends())
    elif chosen.many:
        print(json.dumps(many(*chosen.many, grpc=chosen.grpc)), flush=True)
    else:
        with failing_backends() as ports, jaeger.running(built("jaeger")[0]) as taken:
            kinds = destinations(ports, taken)
            figures = told(asyncio.run(paces(kinds, rounds=chosen.rounds, count=chosen.count)))
            figures["objects_1000"] = ends(ports["unreachable"])
        for name, end in figures["objects_1000"].items():
            print(f"{OBJECTS} objects, {name}: {end}")
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
