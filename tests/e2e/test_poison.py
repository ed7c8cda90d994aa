"""Objects that no schema checked, as one of an older or hand-made CRD would store them: the others go on."""

import copy

import pytest

from secret_manager_controller.crd import KINDS, custom_resource_definition
from secret_manager_controller.kube import SECRET_MANAGER_CONFIGS
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing.stack import StackError, condition
from secret_manager_controller.testing.tenants import Tenant

pytestmark = [pytest.mark.real]

ANYTHING = {"x-kubernetes-preserve-unknown-fields": True}


def nested(depth):
    return {"deeper": nested(depth - 1)} if depth else {}


POISON = {
    "no spec at all": lambda spec: None,
    "a spec that is a word": lambda spec: "spec",
    "a list where an object belongs": lambda spec: spec | {"provider": [1, 2]},
    "a duration that is none": lambda spec: spec | {"interval": "5 fortnights"},
    "a duration that is a number": lambda spec: spec | {"interval": 5},
    "a duration of centuries": lambda spec: spec | {"interval": "99999999h"},
    "a pattern that does not compile": lambda spec: spec | {"secrets": spec["secrets"] | {"environment": "(((["}},
    "a path with a null byte": lambda spec: spec | {"secrets": spec["secrets"] | {"basePath": "a\x00b"}},
    "a megabyte of prefix": lambda spec: spec | {"secrets": spec["secrets"] | {"prefix": "x" * 1_000_000}},
    "ten thousand keys": lambda spec: spec | {f"key-{number}": number for number in range(10_000)},
    "a hundred levels": lambda spec: spec | {"otel": nested(100)},
    "a suspend that is a word": lambda spec: spec | {"suspend": "maybe"},
}


@pytest.fixture(scope="module")
def stack(start_stack):
    """Run a stack whose CRD checks nothing."""
    with start_stack() as started:
        crd = copy.deepcopy(custom_resource_definition(KINDS["SecretManagerConfig"]))
        for version in crd["spec"]["versions"]:
            version["schema"] = {"openAPIV3Schema": {"type": "object", **ANYTHING}}
        started.apply(crd)
        yield started


@pytest.fixture(scope="module")
def controller(stack):
    with stack.controller() as running:
        yield running


@pytest.fixture(scope="module")
def healthy(stack):
    tenant = Tenant(stack, "healthy")
    tenant.commit(A="1")
    tenant.apply()
    return tenant


def stored(stack, tenant, spec):
    """Store an object with whatever spec; the new schema may take a moment to hold."""
    body = {"apiVersion": f"{GROUP}/v1", "kind": "SecretManagerConfig"}
    body |= {"metadata": {"namespace": tenant.namespace, "name": "app"}, "spec": spec}

    def created():
        status, answer = stack.plane.request("POST", SECRET_MANAGER_CONFIGS.url(tenant.namespace), body=body)
        if status not in (201, 422):
            raise StackError(str(answer))
        return status == 201

    stack.wait("the object to be stored", created)


def test_each_is_told_and_the_others_go_on(stack, controller, healthy):
    """They come before the healthy one changes, and once more with a restart."""
    tenants = {name: Tenant(stack, f"poison-{number}") for number, name in enumerate(POISON)}
    for name, tenant in tenants.items():
        tenant.commit(A="1")
        stored(stack, tenant, POISON[name](tenant.spec()))
    for name, tenant in tenants.items():
        status = tenant.until(f"a word about {name}", condition)
        if name == "ten thousand keys":  # Unknown fields are none of ours.
            tenant.ready()
            continue
        told = condition(status)
        assert (name, told["status"]) == (name, "False")
        assert len(told["message"]) < 2_000
    healthy.applied(healthy.commit(A="2"), timeout=15)
    assert controller.process.poll() is None
    with stack.controller():
        healthy.applied(healthy.commit(A="3"), timeout=15)
