"""A real Prometheus on loopback: scrapes replicas as a PodMonitor has it do, and is asked over its HTTP API."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from secret_manager_controller.testing import processes
from secret_manager_controller.testing.servers import ServerError

HOST: Final = "127.0.0.1"
START_TIMEOUT: Final = 30.0  # Seconds; it takes about one on an idle machine.
STOP_GRACE: Final = 5.0  # Seconds; it writes its head block.
SCRAPE_SECONDS: Final = 1

Sample = tuple[Mapping[str, str], float]


class Prometheus:
    """A running Prometheus.

    Attributes:
        targets: the file that names what is scraped; see `scrape`.
    """

    def __init__(self, port: int, targets: Path) -> None:
        self._port = port
        self._targets = targets

    def scrape(self, ports: Mapping[str, int], *, namespace: str) -> None:
        """Scrape these from now on, and nothing else.

        Args:
            ports: the port of each pod, by its name.
            namespace: the pods' namespace.
        """
        groups = [
            {"targets": [f"{HOST}:{port}"], "labels": {"namespace": namespace, "pod": pod}}
            for pod, port in ports.items()
        ]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(groups))
        new.rename(self._targets)

    def query(self, expression: str) -> list[Sample]:
        """Return labels and value of each series of an instant query, beside those that are no number.

        Raises:
            ServerError: it refuses the query.
        """
        found = self._get("query", query=expression)["result"]
        samples = [(dict(each["metric"]), float(each["value"][1])) for each in found]
        return [sample for sample in samples if not math.isnan(sample[1])]

    def value(self, expression: str) -> float | None:
        """Return the value of a query that has one series at most; None if it has none."""
        samples = self.query(expression)
        return samples[0][1] if samples else None

    def labels(self, selector: str) -> frozenset[str]:
        """Return the names of all labels of the series that a selector finds."""
        return frozenset(self._get("labels", **{"match[]": selector}))

    def exemplars(self, selector: str) -> Sequence[Mapping[str, str]]:
        """Return the labels of the exemplars of the last minute."""
        now = time.time()
        found = self._get("query_exemplars", query=selector, start=str(now - 60), end=str(now))
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    def _get(self, what: str, **parameters: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{what}?{urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["status"] != "success":
            raise ServerError(f"Prometheus refuses {parameters}: {answer['error']}")
        return answer["data"]


@contextlib.contextmanager
def running(binary: Path) -> Iterator[Prometheus]:
    """Run Prometheus, which scrapes nothing yet, while the context lasts.

    Raises:
        ServerError: it did not start.
    """
    with processes.temporary_directory("prometheus") as directory:
        targets, log, config = directory / "targets.json", directory / "log", directory / "prometheus.yaml"
        targets.write_text("[]")
        discovery = [{"files": [str(targets)], "refresh_interval": "1s"}]
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"},
                    "scrape_configs": [{"job_name": "controller", "file_sd_configs": discovery}],
                    "storage": {"exemplars": {"max_exemplars": 1000}},
                }
            )
        )
        storage = f"--storage.tsdb.path={directory / 'data'}"
        address = f"--web.listen-address={HOST}:0"
        options = (f"--config.file={config}", storage, address, "--enable-feature=exemplar-storage")
        process = processes.start([binary, *options], log=log)
        try:
            yield Prometheus(_port(log), targets)
        finally:
            processes.stop(process, grace=STOP_GRACE)


def _port(log: Path) -> int:
    """Wait until it is ready, and return the port that it has chosen."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        found = re.search(rf'msg="Listening on" .*address={re.escape(HOST)}:(\d+)', text)
        if found and "Server is ready to receive web requests" in text:
            return int(found[1])
        time.sleep(0.05)
    raise ServerError(f"Prometheus did not start: {processes.tail(log)}")
