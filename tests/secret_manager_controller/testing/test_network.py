"""A namespace of its own for one process, on a real kernel."""

import http.server
import subprocess
import sys
import threading

import pytest

from secret_manager_controller.testing.network import NetworkNamespace, allowed

pytestmark = pytest.mark.skipif(not allowed(), reason="no right to make network namespaces")

FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=2).status)"


@pytest.fixture
def port():
    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def fetch(network, port):
    command = [*network.prefix, sys.executable, "-c", FETCH, f"http://127.0.0.1:{port}/"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return ran.stdout.strip() or ran.stderr.strip().splitlines()[-1]


def test_what_is_forwarded_is_reached_and_nothing_else_is(port):
    with NetworkNamespace() as network:
        assert "refused" in fetch(network, port)
        network.forward(port)
        assert fetch(network, port) == "204"
        with network.partitioned():
            assert "timed out" in fetch(network, port)
        assert fetch(network, port) == "204"
