"""The control plane is a real one, knows its users, and leaves nothing behind."""

from __future__ import annotations

import base64
import json
import os
import ssl
import stat
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from secret_manager_controller.testing.controlplane import ControlPlane, ControlPlaneError, User

pytestmark = pytest.mark.real

DEVELOPER = User("developer", ("team-a", "everybody"))
Start = Callable[..., ControlPlane]


@pytest.fixture(scope="session")
def start(tool: Callable[[str], Path]) -> Start:
    return partial(ControlPlane.start, etcd=tool("etcd"), kube_apiserver=tool("kube-apiserver"))


@pytest.fixture(scope="module")
def plane(start: Start) -> Iterator[ControlPlane]:
    with start(users=[DEVELOPER], audit_log=True) as plane:
        yield plane


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class TestPlane:
    def test_the_system_is_there_from_the_start(self, plane: ControlPlane) -> None:
        status, system = plane.request("GET", "/api/v1/namespaces/kube-system")
        assert status == 200
        assert system["metadata"]["uid"]

    def test_a_kubeconfig_is_all_that_a_client_needs(self, plane: ControlPlane) -> None:
        """With nothing of ours in between: urllib, strict verification, and what the file says."""
        config = yaml.safe_load(plane.kubeconfig().read_text())
        cluster = config["clusters"][0]["cluster"]
        tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        tls.verify_flags |= ssl.VERIFY_X509_STRICT
        request = urllib.request.Request(
            f"{cluster['server']}/api/v1/namespaces",
            data=json.dumps(namespace("team-a")).encode(),
            headers={
                "Authorization": f"Bearer {config['users'][0]['user']['token']}",
                "Content-Type": "application/json",
            },
        )
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
        with urllib.request.build_opener(*handlers).open(request) as answer:
            assert answer.status == 201
        assert plane.request("GET", "/api/v1/namespaces/team-a")[0] == 200

    def test_only_its_owner_may_read_a_kubeconfig(self, plane: ControlPlane) -> None:
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (plane.kubeconfig("developer"), plane.directory)]
        assert modes == [0o600, 0o700]

    def test_another_user_may_do_what_rbac_grants_and_nothing_else(self, plane: ControlPlane) -> None:
        status, refusal = plane.request("GET", "/api/v1/namespaces", user="developer")
        assert (status, refusal["reason"]) == (403, "Forbidden")
        api = "/apis/rbac.authorization.k8s.io/v1"
        group = "rbac.authorization.k8s.io"
        role = {
            "metadata": {"name": "viewers"},
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list"]}],
        }
        binding = {
            "metadata": {"name": "viewers"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "viewers"},
            "subjects": [{"apiGroup": group, "kind": "Group", "name": "team-a"}],
        }
        assert plane.request("POST", f"{api}/clusterroles", body=role)[0] == 201
        assert plane.request("POST", f"{api}/clusterrolebindings", body=binding)[0] == 201
        # The authorizer sees new roles through a watch, so a moment later.
        deadline = time.monotonic() + 30
        while plane.request("GET", "/api/v1/namespaces", user="developer")[0] == 403 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert plane.request("GET", "/api/v1/namespaces", user="developer")[0] == 200
        assert plane.request("GET", "/api/v1/secrets", user="developer")[0] == 403

    def test_a_user_is_in_its_groups(self, plane: ControlPlane) -> None:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        _, answer = plane.request("POST", path, body=review, user="developer")
        assert answer["status"]["userInfo"]["groups"] == ["team-a", "everybody", "system:authenticated"]

    def test_service_accounts_get_tokens(self, plane: ControlPlane) -> None:
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        assert plane.request("POST", accounts, body={"metadata": {"name": "controller"}})[0] == 201
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        status, answer = plane.request("POST", f"{accounts}/controller/token", body=request)
        assert status == 201
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        _, verdict = plane.request("POST", path, body={**review, "spec": {"token": answer["status"]["token"]}})
        assert verdict["status"]["user"]["username"] == "system:serviceaccount:default:controller"

    def test_requests_are_on_the_audit_log(self, plane: ControlPlane) -> None:
        plane.request("GET", "/api/v1/namespaces/no-such", user="developer")
        [event] = [e for e in plane.audit_events() if e["requestURI"] == "/api/v1/namespaces/no-such"]
        assert (event["user"]["username"], event["verb"], event["stage"]) == ("developer", "get", "ResponseComplete")

    def test_a_user_that_nobody_named_is_an_error(self, plane: ControlPlane) -> None:
        with pytest.raises(ValueError, match="no user 'nobody'; this control plane knows admin, developer"):
            plane.kubeconfig("nobody")


class TestEnd:
    def test_stop_leaves_no_process_and_no_directory(self, start: Start) -> None:
        with start() as plane:
            assert sorted(plane.pids) == ["etcd", "kube-apiserver"]
            assert [exists(pid) for pid in plane.pids.values()] == [True, True]
        assert [exists(pid) for pid in plane.pids.values()] == [False, False]
        assert not plane.directory.exists()
        plane.stop()

    def test_a_directory_of_the_callers_keeps_its_data_for_the_next_start(self, start: Start, tmp_path: Path) -> None:
        deep = tmp_path / ("x" * 100)
        with start(directory=deep) as plane:
            assert plane.request("POST", "/api/v1/namespaces", body=namespace("kept"))[0] == 201
        with start(directory=deep) as plane:
            assert plane.request("GET", "/api/v1/namespaces/kept")[0] == 200


class TestFailure:
    @pytest.fixture(autouse=True)
    def temporary(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """Make temporary directories where the test sees what is left of them; tmp_path is too deep for a socket."""
        with tempfile.TemporaryDirectory() as directory:
            monkeypatch.setattr(tempfile, "tempdir", directory)
            yield Path(directory)
            monkeypatch.undo()

    def test_a_program_that_ends_is_an_error_with_the_end_of_its_log(self, start: Start, temporary: Path) -> None:
        with pytest.raises(ControlPlaneError) as failure:
            start(arguments=["--no-such-flag"])
        [log] = temporary.glob("smc-parts-control-plane-*/kube-apiserver.log")
        assert str(failure.value).startswith(f"kube-apiserver ended with 1; {log} ends:\n")
        assert "unknown flag: --no-such-flag" in str(failure.value)

    def test_a_program_that_is_not_ready_in_time_is_an_error_and_is_stopped(
        self, start: Start, temporary: Path
    ) -> None:
        idle = temporary / "idle"
        idle.write_text("#!/bin/sh\necho idling\nwhile :; do /bin/sleep 0.1; done\n")
        idle.chmod(0o755)
        with pytest.raises(ControlPlaneError, match=r"etcd was not ready in time; .*/etcd.log ends:\nidling"):
            start(etcd=idle, timeout=1)
        assert [path for path in Path("/proc").glob("[0-9]*") if runs_in(path, temporary)] == []

    def test_a_missing_program_is_an_error_that_leaves_nothing(self, start: Start, temporary: Path) -> None:
        with pytest.raises(FileNotFoundError, match="/no/such/etcd"):
            start(etcd=Path("/no/such/etcd"))
        assert list(temporary.iterdir()) == []

    def test_a_temporary_directory_that_is_too_deep_for_a_socket_is_an_error(
        self, start: Start, temporary: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deep = temporary / ("x" * 100)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        with pytest.raises(ControlPlaneError, match="too long for a socket: set TMPDIR to a shorter path"):
            start(directory=temporary / "plane")


def runs_in(process: Path, directory: Path) -> bool:
    try:
        return os.fsencode(directory) in (process / "cmdline").read_bytes()
    except OSError:  # It ended meanwhile.
        return False


def test_the_api_server_goes_and_comes_back_with_what_it_held(tool):
    with ControlPlane.start(etcd=tool("etcd"), kube_apiserver=tool("kube-apiserver")) as plane:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kept"}}
        assert plane.request("POST", "/api/v1/namespaces", body=body)[0] == 201
        with plane.api_server_gone(), pytest.raises(ConnectionRefusedError):
            plane.request("GET", "/readyz")
        assert plane.request("GET", "/api/v1/namespaces/kept")[0] == 200
