"""Settings come from the environment, and a wrong one is named."""

from pathlib import Path

import pytest

from controller_telemetry.logs import LogFormat
from lease_sharding.settings import Settings as ShardingSettings
from secret_manager_controller.controller.settings import Settings, SettingsError
from secret_manager_controller.grants import Mode
from secret_manager_controller.unwrapping import AllowedKeys

KMS_KEY = "arn:aws:kms:eu-central-1:123456789012:key/0c6f"


def test_everything_has_a_default():
    settings = Settings.from_environment({"POD_NAME": "smc-0"})
    assert settings == Settings(
        namespace="microscaler-system",
        metrics_port=8080,
        metrics_host="0.0.0.0",
        metrics_per_object=False,
        log_level="INFO",
        log_format=LogFormat.JSON,
        cluster_id=None,
        cache_directory=Path("/tmp/secret-manager-controller"),
        artifact_hosts=("svc", "svc.cluster.local"),
        git_hosts=(),
        git_refresh=60.0,
        workers=16,
        shutdown_grace=20.0,
        sweep_interval=300.0,
        tenancy_mode=Mode.SHARED,
        replica="smc-0",
        sharding=ShardingSettings(group="secret-manager-controller", drain_timeout=20.0),
        kustomize_binary="kustomize",
        kustomize_timeout=30.0,
        kustomize_memory=160 << 20,
        kms_keys=AllowedKeys(),
    )


@pytest.mark.parametrize(
    ("environment", "attribute", "value"),
    [
        pytest.param({"POD_NAMESPACE": "smc"}, "namespace", "smc", id="namespace"),
        pytest.param({"METRICS_PORT": "9090"}, "metrics_port", 9090, id="port"),
        pytest.param({"CLUSTER_ID": "blue"}, "cluster_id", "blue", id="cluster"),
        pytest.param({"LOG_FORMAT": "logfmt"}, "log_format", LogFormat.LOGFMT, id="format"),
        pytest.param({"LOG_LEVEL": "WARN"}, "log_level", "WARNING", id="level"),
        pytest.param({"RUST_LOG": "info,hyper=warn"}, "log_level", "INFO", id="the older implementation's level"),
        pytest.param({"RUST_LOG": "smc=trace"}, "log_level", "INFO", id="a level for modules only"),
        pytest.param({"LOG_LEVEL": "debug", "RUST_LOG": "error"}, "log_level", "DEBUG", id="LOG_LEVEL first"),
        pytest.param({"SHUTDOWN_GRACE_SECONDS": "2.5"}, "shutdown_grace", 2.5, id="grace"),
        pytest.param(
            {"ARTIFACT_HOSTS": "a.example, 10.0.0.1"}, "artifact_hosts", ("a.example", "10.0.0.1"), id="hosts"
        ),
        pytest.param({"GIT_HOSTS": "git.example,"}, "git_hosts", ("git.example",), id="Git hosts"),
        pytest.param({"KUSTOMIZE_BINARY": "/bin/k"}, "kustomize_binary", "/bin/k", id="kustomize"),
        pytest.param(
            {"SOPS_KMS_KEYS": f"{KMS_KEY},\n team-a={KMS_KEY} ,"},
            "kms_keys",
            AllowedKeys(frozenset({("", KMS_KEY), ("team-a", KMS_KEY)})),
            id="kms",
        ),
        pytest.param({"KUSTOMIZE_TIMEOUT_SECONDS": "60"}, "kustomize_timeout", 60.0, id="time"),
        pytest.param({"KUSTOMIZE_MEMORY_MIB": "300"}, "kustomize_memory", 300 << 20, id="memory"),
        pytest.param({"WORKERS": ""}, "workers", 16, id="empty is unset"),
        pytest.param({"POD_NAME": "smc-7f-x"}, "replica", "smc-7f-x", id="the replica's name"),
        pytest.param({"TENANCY_MODE": "isolated"}, "tenancy_mode", Mode.ISOLATED, id="tenancy"),
    ],
)
def test_a_variable_sets_its_setting(environment, attribute, value):
    assert getattr(Settings.from_environment(environment), attribute) == value


@pytest.mark.parametrize(
    "environment",
    [
        {"METRICS_PORT": "http"},
        {"METRICS_PORT": "70000"},
        {"WORKERS": "0"},
        {"WORKERS": "nan"},
        {"SWEEP_INTERVAL_SECONDS": "-1"},
        {"LOG_LEVEL": "loud"},
        {"LOG_FORMAT": "xml"},
        {"TENANCY_MODE": "open"},
    ],
    ids=str,
)
def test_a_wrong_variable_is_named_with_what_it_may_hold(environment):
    ((name, value),) = environment.items()
    with pytest.raises(SettingsError, match=rf"{name}='{value}': expected "):
        Settings.from_environment(environment)


def test_a_replica_without_a_name_takes_the_host_s(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Node-1.example.invalid")
    assert Settings.from_environment({}).replica == "node-1.example.invalid"


def test_sharding_is_set_by_variables():
    variables = {
        "SHARDS": "64",
        "SESSION_SECONDS": "30",
        "RENEW_INTERVAL_SECONDS": "4",
        "LEASE_REQUEST_TIMEOUT_SECONDS": "3",
        "FENCE_MARGIN_SECONDS": "1.5",
        "TAKE_GRACE_SECONDS": "5",
        "SHUTDOWN_GRACE_SECONDS": "12",
    }
    assert Settings.from_environment(variables).sharding == ShardingSettings(
        group="secret-manager-controller",
        shards=64,
        session_duration=30,
        renew_interval=4,
        resync_interval=4,
        request_timeout=3,
        margin=1.5,
        take_grace=5,
        drain_timeout=12,
    )


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        pytest.param(
            {"SESSION_SECONDS": "4"},
            "RENEW_INTERVAL_SECONDS is 2 s, SESSION_SECONDS 4 s: a session must",
            id="renewals",
        ),
        pytest.param(
            {"SESSION_SECONDS": "8"},
            "SESSION_SECONDS - FENCE_MARGIN_SECONDS - .* is 5 s: .* at least 6 s",
            id="a write",
        ),
        pytest.param(
            {"FENCE_MARGIN_SECONDS": "0.05"}, "FENCE_MARGIN_SECONDS is 0.05 s: it must be at least", id="margin"
        ),
        pytest.param({"POD_NAME": "Pod_1"}, "POD_NAME='Pod_1': expected 63 lower-case", id="name"),
    ],
)
def test_durations_that_contradict_each_other_are_told_by_their_variables(environment, told):
    with pytest.raises(SettingsError, match=told):
        Settings.from_environment(environment)


def test_a_key_that_no_kms_has_is_named():
    with pytest.raises(SettingsError, match=r"SOPS_KMS_KEYS: 'projects/p': expected the ARN of an AWS KMS key"):
        Settings.from_environment({"SOPS_KMS_KEYS": "projects/p"})
