"""Settings come from the environment, and a wrong one is named."""

from pathlib import Path

import pytest

from secret_manager_controller.controller.settings import Settings, SettingsError


def test_everything_has_a_default():
    settings = Settings.from_environment({})
    assert settings == Settings(
        namespace="microscaler-system",
        metrics_port=8080,
        metrics_host="0.0.0.0",
        log_level="INFO",
        cluster_id=None,
        cache_directory=Path("/tmp/secret-manager-controller"),
        artifact_hosts=("svc", "svc.cluster.local"),
        workers=16,
        shutdown_grace=20.0,
        sweep_interval=600.0,
    )


@pytest.mark.parametrize(
    ("environment", "attribute", "value"),
    [
        pytest.param({"POD_NAMESPACE": "smc"}, "namespace", "smc", id="namespace"),
        pytest.param({"METRICS_PORT": "9090"}, "metrics_port", 9090, id="port"),
        pytest.param({"CLUSTER_ID": "blue"}, "cluster_id", "blue", id="cluster"),
        pytest.param({"LOG_LEVEL": "WARN"}, "log_level", "WARNING", id="level"),
        pytest.param({"RUST_LOG": "info,hyper=warn"}, "log_level", "INFO", id="the older implementation's level"),
        pytest.param({"RUST_LOG": "smc=trace"}, "log_level", "INFO", id="a level for modules only"),
        pytest.param({"LOG_LEVEL": "debug", "RUST_LOG": "error"}, "log_level", "DEBUG", id="LOG_LEVEL first"),
        pytest.param({"SHUTDOWN_GRACE_SECONDS": "2.5"}, "shutdown_grace", 2.5, id="grace"),
        pytest.param(
            {"ARTIFACT_HOSTS": "a.example, 10.0.0.1"}, "artifact_hosts", ("a.example", "10.0.0.1"), id="hosts"
        ),
        pytest.param({"WORKERS": ""}, "workers", 16, id="empty is unset"),
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
    ],
    ids=str,
)
def test_a_wrong_variable_is_named_with_what_it_may_hold(environment):
    ((name, value),) = environment.items()
    with pytest.raises(SettingsError, match=rf"{name}='{value}': expected "):
        Settings.from_environment(environment)
