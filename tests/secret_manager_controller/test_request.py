"""The fingerprints that tell that nothing has changed: each part counts, and no two parts run into each other."""

import dataclasses
from types import SimpleNamespace

import pytest

from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.model.spec import parse_spec
from secret_manager_controller.request import Request, inputs_key, settled_key

SPEC = {
    "sourceRef": {"name": "repo"},
    "provider": {"type": "aws", "aws": {"region": "eu-central-1"}},
    "secrets": {"environment": "dev"},
}
REQUEST = Request("team", "app", 3, parse_spec({"spec": SPEC}), inventory={})
REVISION = Revision("main@sha1:1", "sha256:1", "http://source.invalid")


def key(request=REQUEST, revision=REVISION, *, ring="ring", paths=None):
    grants = SimpleNamespace(source=SimpleNamespace(paths=paths))
    return settled_key(request, revision, SimpleNamespace(id=ring), grants)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(dataclasses.replace(REQUEST, generation=4)), id="generation"),
        pytest.param(key(revision=dataclasses.replace(REVISION, digest="sha256:2")), id="content of the source"),
        pytest.param(key(ring="other"), id="keys"),
        pytest.param(key(dataclasses.replace(REQUEST, confirm_prune="main@sha1:1")), id="confirmed prune"),
        pytest.param(key(paths=("a",)), id="granted paths"),
        pytest.param(inputs_key(REQUEST, "sha256:1", SimpleNamespace(id="ring")), id="inputs, not the source"),
    ],
)
def test_whatever_decides_the_desired_state_changes_the_key(other):
    assert other != key()


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(key(dataclasses.replace(REQUEST, look=True, since=1.0)), id="why it came"),
        pytest.param(
            key(revision=dataclasses.replace(REVISION, revision="main@sha1:2")), id="a commit without content"
        ),
    ],
)
def test_what_decides_nothing_does_not(same):
    assert same == key()


def test_granted_paths_do_not_run_into_each_other():
    assert key(paths=("a", "b")) != key(paths=("ab",))
