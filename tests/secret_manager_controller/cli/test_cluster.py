"""The connection: which kubeconfig, which context, and what is said when there is none."""

import base64
import sys

import pytest
import yaml

from secret_manager_controller.kube import ApiServer, KubeConfigError


def edit(kubeconfig, **changes):
    """Change the first cluster's or user's fields of a kubeconfig."""
    document = yaml.safe_load(kubeconfig.read_text())
    for part, fields in changes.items():
        document[f"{part}s"][0][part] = fields
    kubeconfig.write_text(yaml.safe_dump(document))


def test_the_option_wins_over_the_variable(msmctl, kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert msmctl("list", "--kubeconfig", kubeconfig).exit_code == 0


def test_the_variable_may_name_several_files(msmctl, kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", f"/nowhere:{kubeconfig}")
    assert msmctl("list").exit_code == 0


def test_the_home_directorys_kubeconfig_is_the_default(msmctl, kubeconfig, monkeypatch, tmp_path):
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    kubeconfig.rename(tmp_path / ".kube" / "config")
    assert msmctl("list").exit_code == 0


def test_another_context_is_another_server(msmctl, api):
    result = msmctl("list", "--context", "nowhere")
    assert result.stderr == (
        "Error: Failed to list SecretManagerConfigs: the API server did not answer: ClientConnectorError; "
        "check with `kubectl cluster-info` whether it can be reached\n"
    )
    assert (result.exit_code, api.requests) == (1, [])


@pytest.mark.parametrize(
    ("arguments", "content", "told"),
    [
        (["--context", "other"], None, "Expected object with name other"),
        ([], "a: [", "is not usable: while parsing"),
        ([], "[]", "is not usable: "),
        ([], "a: b", "is not usable: "),
        ([], "", "is not usable: "),
        ([], b"\xff\xfe", "is not usable: "),
    ],
    ids=["unknown-context", "no-yaml", "a-list", "no-config", "empty", "binary"],
)
def test_a_wrong_kubeconfig_is_told_as_the_reference_names_it(msmctl, kubeconfig, arguments, content, told):
    if content is not None:
        kubeconfig.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = msmctl("list", *arguments)
    assert result.stderr.startswith("Error: Failed to create Kubernetes client: the kubeconfig ")
    assert told in result.stderr
    assert result.stderr.endswith("; check it with `kubectl cluster-info`; KUBECONFIG or --kubeconfig names another\n")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)


def test_a_missing_kubeconfig_is_told_with_its_path(msmctl):
    result = msmctl("list", "--kubeconfig", "/nowhere")
    assert result.stderr.startswith("Error: Failed to create Kubernetes client: there is no kubeconfig at /nowhere; ")


def test_certificates_that_are_none_are_told_without_their_content(msmctl, kubeconfig):
    noise = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nPRIVATE\n-----END CERTIFICATE-----\n").decode()
    edit(kubeconfig, cluster={"server": "https://127.0.0.1:1", "certificate-authority-data": noise})
    result = msmctl("list")
    assert result.stderr.startswith("Error: Failed to create Kubernetes client: its certificates: ")
    assert "PRIVATE" not in result.stderr
    assert result.exit_code == 1


def test_a_login_program_that_fails_is_told(msmctl, kubeconfig, api):
    """`kubernetes` only logs it and goes on without a login: the refusal that follows would be a riddle."""
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "no-such-program\x1b",
        "interactiveMode": "Never",
    }
    edit(kubeconfig, user={"exec": program})
    result = msmctl("list")
    assert result.stderr.startswith("note: kubeconfig: ")
    assert "no-such-program" in result.stderr
    assert "\x1b" not in result.stderr


def test_a_login_program_is_asked_for_the_token(msmctl, kubeconfig, api):
    credential = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "from-program"}}'
    program = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print('''{credential}''')"],
        "interactiveMode": "Never",
    }
    edit(kubeconfig, user={"exec": program})
    server = ApiServer.load(kubeconfig=str(kubeconfig))
    assert server.authorization() == "Bearer from-program"


def test_a_pod_without_kubeconfig_uses_its_service_account_and_prints_nothing(monkeypatch, capsys, tmp_path):
    """What `kubernetes` prints by itself would end up in the middle of `msmctl list -o json`."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    with pytest.raises(KubeConfigError, match="the service account is not usable"):
        ApiServer.load()  # There is no token in this machine's /var/run/secrets.
    assert capsys.readouterr() == ("", "")


def test_requests_name_msmctl_and_carry_the_token(msmctl, api, monkeypatch):
    seen = []
    handler = api._server.RequestHandlerClass
    serve = handler.do_GET

    def note_headers(self):
        seen.append((self.headers["User-Agent"], self.headers["Authorization"]))
        serve(self)

    monkeypatch.setattr(handler, "do_GET", note_headers)
    msmctl("list")
    ((agent, authorization),) = seen
    assert agent.startswith("msmctl/")
    assert authorization == "Bearer jane-token"
