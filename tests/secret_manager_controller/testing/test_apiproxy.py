"""What goes wrong on the way to the API server, on demand."""

import json
import socket
import threading
import time
import urllib.request

import pytest
import yaml

from secret_manager_controller.testing.apiproxy import ApiProxy

PATH = "/api/v1/namespaces/default"


@pytest.fixture
def proxy(control_plane):
    with ApiProxy(control_plane) as running:
        yield running


@pytest.fixture
def ask(proxy, control_plane, tmp_path):
    """Return a function that asks through the proxy and returns the HTTP status, or None if no answer comes."""
    server = yaml.safe_load(proxy.kubeconfig(tmp_path).read_text())["clusters"][0]["cluster"]["server"]
    headers = {"Authorization": f"Bearer {control_plane.token()}", "Content-Type": "application/merge-patch+json"}

    def run(path=PATH, *, patience=10.0, label=None):
        body = None if label is None else json.dumps({"metadata": {"labels": {"seen": label}}}).encode()
        request = urllib.request.Request(
            f"{server}{path}", data=body, method="GET" if body is None else "PATCH", headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=patience) as answer:
                return answer.status
        except OSError as error:
            assert isinstance(error, TimeoutError | urllib.error.URLError)
            return None

    return run


def label(control_plane):
    return control_plane.request("GET", PATH)[1]["metadata"].get("labels", {}).get("seen")


def until(what):
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_requests_of_a_path_are_delayed(proxy, ask):
    proxy.delay(30, of="/leases")
    assert ask() == 200
    assert ask("/apis/coordination.k8s.io/v1/leases", patience=0.3) is None
    proxy.delay(0)
    assert ask("/apis/coordination.k8s.io/v1/leases") == 200


def test_what_is_delayed_arrives_although_the_client_has_gone(control_plane, proxy, ask):
    proxy.delay(1, of=PATH)
    assert ask(patience=0.3, label="late") is None
    until(lambda: label(control_plane) == "late")


def test_a_partition_is_silent_and_lets_through_afterwards_what_was_sent(control_plane, proxy, ask):
    with proxy.partitioned():
        assert ask(patience=0.3, label="afterwards") is None
        assert label(control_plane) != "afterwards"
    until(lambda: label(control_plane) == "afterwards")
    assert ask() == 200


def test_a_watch_is_silent_during_a_partition_and_goes_on_afterwards(control_plane, proxy, tmp_path):
    server = yaml.safe_load(proxy.kubeconfig(tmp_path).read_text())["clusters"][0]["cluster"]["server"]
    request = urllib.request.Request(
        f"{server}/api/v1/namespaces?watch=true&timeoutSeconds=20&fieldSelector=metadata.name=default",
        headers={"Authorization": f"Bearer {control_plane.token()}"},
    )
    lines = []
    with urllib.request.urlopen(request, timeout=20) as answer:
        reading = threading.Thread(target=lambda: lines.extend(iter(answer.readline, b"")))
        reading.start()
        try:
            until(lambda: lines)
            with proxy.partitioned():
                before = len(lines)
                patch = {"metadata": {"labels": {"seen": "watched"}}}
                control_plane.request("PATCH", PATH, body=patch, content_type="application/merge-patch+json")
                time.sleep(0.3)  # Long enough for an event to arrive if it could.
                assert len(lines) == before
            until(lambda: any(b'"seen":"watched"' in line for line in lines))
        finally:
            answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)
            reading.join()
