"""`msmctl plan` and `apply` against Azure's own protocol: TLS, the vault's challenge, a token of Entra ID."""

import pytest

from secret_manager_controller.testing.azure import AzureServer


@pytest.fixture(scope="module")
def running_azure():
    with AzureServer.start() as server:
        yield server


@pytest.fixture
def azure(running_azure, monkeypatch):
    """Return the server, emptied, and let the environment lead to it as to Azure."""
    running_azure.reset()
    login = running_azure.client_secret
    for name in ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in running_azure.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_CLIENT_ID", login.client_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", login.client_secret)
    return running_azure


def test_from_a_worktree_to_azure_and_back_to_nothing_to_do(azure, worktree, one_shot, manifest):
    declared = {"vaultName": azure.vault, "contentType": "text/plain"}
    manifest["spec"] |= {"provider": {"type": "azure", "azure": declared}, "prune": True}
    worktree(TOKEN="1", OLD="2")
    assert f"(azure/{azure.vault}, revision" in one_shot("plan").stdout
    assert azure.writes() == []

    applied = one_shot("apply")
    assert (applied.stderr, applied.exit_code) == ("", 0)
    assert azure.values() == {"app-TOKEN": b"1", "app-OLD": b"2"}
    assert one_shot("plan", "--exit-code").exit_code == 0

    azure.put_by_hand("app-TOKEN", b"drift")
    worktree(TOKEN="1")
    assert "0 created, 1 updated, 0 adopted, 1 pruned; 1 of 1 in sync" in one_shot("apply").stdout
    assert azure.values() == {"app-TOKEN": b"1"}
    assert azure.secrets()["app-TOKEN"].current.content_type == "text/plain"


def test_a_login_that_is_not_taken_is_told_without_a_trace(azure, worktree, one_shot, manifest, monkeypatch):
    manifest["spec"]["provider"] = {"type": "azure", "azure": {"vaultName": azure.vault}}
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "canary-5up3r-s3cr3t")
    worktree(TOKEN="1")
    refused = one_shot("plan")
    assert refused.exit_code != 0
    assert "StoreAccessDenied" in refused.stderr
    assert "Traceback" not in refused.output
    assert "canary" not in refused.output
