"""What a test may do to any server, and how its connections are served."""

import http.client
import json
import threading
from collections import deque
from types import SimpleNamespace

import pytest

from secret_manager_controller.testing.calls import Call
from secret_manager_controller.testing.controls import Controls, Handler, Server
from secret_manager_controller.testing.faults import Faults


@pytest.fixture
def application():
    call = Call(1, 0.0, "me", "Get", ("a",), "OK", committed=True)
    return SimpleNamespace(lock=threading.RLock(), faults=Faults(), calls=deque([call]))


@pytest.fixture
def controls(application):
    return Controls(application)


@pytest.fixture
def connection(controls):
    """Return a connection to a server that answers what it is sent, or breaks off."""

    class Echo(Handler):
        def answer(self, body):
            if self.path == "/broken":
                self.break_off()
            else:
                self.send(200, body, kind="text/plain", headers={"x-method": self.command})

    Echo.controls = controls
    with Server(0, Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        opened = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        yield opened
        opened.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("action", ["absent", "_application", "answer", "__init__"])
def test_what_is_no_control_is_refused(controls, action):
    assert controls.answer(action, b"{}")[0] == 404


def test_the_call_log_is_told_and_emptied(controls):
    assert controls.answer("calls", b"")[1][0]["names"] == ("a",)
    controls.answer("clear_calls", b"")
    assert controls.answer("calls", b"") == (200, [])


def test_faults_are_added_counted_and_cleared(application, controls):
    controls.answer("fault", b'{"operation": "Get", "code": "Down", "times": 2}')
    assert application.faults.take("Get", ()).code == "Down"
    assert controls.answer("faults_left", b"") == (200, 1)
    controls.answer("clear_faults", b"")
    assert controls.answer("faults_left", b"") == (200, 0)


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "PATCH", "DELETE"])
def test_every_method_is_answered_and_the_connection_stays(connection, method):
    for text in (b"one", b"two"):
        connection.request(method, "/", text)
        response = connection.getresponse()
        assert (response.read(), response.headers["x-method"]) == (text, method)
        assert connection.sock is not None


def test_controls_are_taken_beside_what_is_answered(connection):
    connection.request("POST", "/_control/faults_left", b"{}")
    assert json.loads(connection.getresponse().read()) == 0


def test_a_connection_is_broken_off_without_an_answer(connection):
    connection.request("GET", "/broken")
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
