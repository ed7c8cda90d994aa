"""`msmctl suspend` and `resume`: one field, over the object as it was read."""

import pytest

from secret_manager_controller.model.annotations import FINALIZER

KEY = ("team", "app")


@pytest.fixture
def stored(api):
    api.put({"metadata": {"namespace": "team", "name": "app", "finalizers": ["another", FINALIZER]}, "spec": {}})
    return lambda: api.objects[KEY]


def test_an_object_is_suspended_and_resumed(stored, msmctl):
    result = msmctl("suspend", "-n", "app", "-N", "team")
    assert (result.exit_code, result.stdout) == (0, "SecretManagerConfig 'team/app' is suspended\n")
    assert "set spec.suspend in Git too" in result.stderr
    assert stored()["spec"]["suspend"] is True
    assert stored()["metadata"]["finalizers"] == ["another", FINALIZER]
    assert msmctl("resume", "-n", "app", "-N", "team").exit_code == 0
    assert stored()["spec"]["suspend"] is False


def test_our_finalizer_is_removed_and_no_other(stored, msmctl):
    assert "has no finalizer of ours" in msmctl("suspend", "-n", "app", "-N", "team", "--finalizer").stdout
    assert stored()["metadata"]["finalizers"] == ["another"]


def test_a_status_that_is_written_meanwhile_is_no_obstacle(api, stored, msmctl):
    writes = iter([True])

    def write_once(method, path):
        if method == "PATCH" and next(writes, False):
            api.put(stored())

    api.before = write_once
    assert msmctl("suspend", "-n", "app", "-N", "team").exit_code == 0
    assert stored()["spec"]["suspend"] is True


def test_one_that_never_stands_still_is_told(api, stored, msmctl):
    api.before = lambda method, path: api.put(stored()) if method == "PATCH" else None
    result = msmctl("suspend", "-n", "app", "-N", "team")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Failed to suspend SecretManagerConfig 'team/app': ")


@pytest.mark.parametrize("verb", ["suspend", "resume"])
def test_a_refusal_and_an_absence_are_told(api, stored, msmctl, verb):
    assert "Resource not found" in msmctl(verb, "-n", "other", "-N", "team").stderr
    api.forbidden.add("patch")
    assert "have the verb patch" in msmctl(verb, "-n", "app", "-N", "team").stderr
