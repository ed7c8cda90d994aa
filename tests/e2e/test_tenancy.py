"""Tenants kept apart on real parts, in mode isolated: what is not granted is neither read nor written."""

import json
import socket

import pytest

from secret_manager_controller.kube import SECRET_MANAGER_POLICIES
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing.stack import condition
from secret_manager_controller.testing.tenants import ENV, YAML, dotenv

pytestmark = [pytest.mark.real]


@pytest.fixture(scope="module", autouse=True)
def controller(stack):
    """Run two replicas that keep tenants apart."""
    with stack.controller(TENANCY_MODE="isolated") as first, stack.controller(TENANCY_MODE="isolated"):
        yield first


class Policies:
    """The policies of one test."""

    def __init__(self, stack):
        self._stack = stack
        self._names = set()

    def put(self, name, *namespaces, selector=None, **grants):
        self._names.add(name)
        whom = {"names": list(namespaces)} | ({"selector": {"matchLabels": selector}} if selector else {})
        self._stack.apply(
            {
                "apiVersion": f"{GROUP}/v1",
                "kind": "SecretManagerPolicy",
                "metadata": {"name": name},
                "spec": {"namespaces": whom, **grants},
            }
        )

    def delete(self, name):
        self._stack.delete(SECRET_MANAGER_POLICIES.url(name=name))

    def status(self, name):
        return (self._stack.get(SECRET_MANAGER_POLICIES.url(name=name)) or {}).get("status") or {}

    def close(self):
        for name in self._names:
            self.delete(name)


@pytest.fixture
def policies(stack):
    made = Policies(stack)
    yield made
    made.close()


def store(stack, *prefixes):
    return {"aws": {"region": stack.aws.region}} | ({"namePrefixes": list(prefixes)} if prefixes else {})


def message(status):
    return condition(status)["message"]


def test_a_granted_object_works_until_the_policy_is_taken_away_and_nothing_is_deleted(stack, tenant, policies):
    policies.put("own", tenant.namespace, stores=[store(stack, tenant.name(""))])
    tenant.commit(A="1", B="2")
    tenant.apply(deletionPolicy="Delete", prune=True)
    tenant.ready()
    policies.delete("own")
    status = tenant.ready(reason="AccessDenied")
    assert "no SecretManagerPolicy for its namespace has in spec.stores: {aws: {region: eu-central-1}}" in message(
        status
    )
    stack.aws.clear_calls()
    tenant.commit(A="3")
    stack.delete(tenant.path)
    tenant.until("the deletion to be refused", lambda now: "Orphan" in message(now))
    assert tenant.values() == {"A": b"1", "B": b"2"}
    assert tenant.calls() == []
    policies.put("own", tenant.namespace, stores=[store(stack, tenant.name(""))])
    stack.wait("the object to be gone", lambda: not tenant.body(), timeout=60)
    assert tenant.values() == {}


def test_a_label_puts_a_namespace_under_a_policy_whose_status_tells_so(stack, tenant, policies):
    policies.put("labelled", selector={"tenant": tenant.namespace}, stores=[store(stack)])
    tenant.commit(A="1")
    tenant.apply()
    tenant.ready(reason="AccessDenied")
    labels = {"metadata": {"labels": {"tenant": tenant.namespace}}}
    stack.patch(f"/api/v1/namespaces/{tenant.namespace}", labels)
    tenant.ready()

    def told():
        status = policies.status("labelled")
        return status if status.get("objects") == 1 else None

    status = stack.wait("the policy's status", told)
    assert (status["matchedNamespaces"], status["namespaces"]) == (1, [tenant.namespace])
    assert condition(status)["status"] == "True"


def test_a_key_of_a_kms_is_asked_once_a_policy_grants_it(stack, tenant, policies, encrypt_by_kms):
    """The login could decrypt with it all along."""
    arn = stack.aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    policies.put("own", tenant.namespace, stores=[store(stack)])
    tenant.commit({YAML: json.dumps(encrypt_by_kms(arn))})
    stack.aws.clear_calls()
    tenant.apply()
    status = tenant.ready(reason="DecryptionFailed")
    assert f"{arn} is not granted: have its id added to spec.kmsKeys of a SecretManagerPolicy" in message(status)
    assert [call for call in stack.aws.calls() if call.operation == "Decrypt"] == []
    policies.put("own", tenant.namespace, stores=[store(stack)], kmsKeys=[arn])
    tenant.ready()
    assert tenant.values() == {"A": b"one"}


def test_a_host_of_traces_that_is_not_granted_hears_nothing_and_stops_nothing(stack, tenant, policies):
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        foreign.setblocking(False)
        endpoint = f"http://127.0.0.1:{foreign.getsockname()[1]}"
        policies.put("own", tenant.namespace, stores=[store(stack)])
        tenant.commit(A="1")
        tenant.apply(otel={"type": "Otlp", "endpoint": endpoint, "protocol": "http/protobuf"})
        status = tenant.ready()
        assert (tenant.values(), status.get("lastTraceId")) == ({"A": b"1"}, None)
        assert condition(status, "Untraced")["message"] == (
            "no traces: spec.otel.endpoint names host 127.0.0.1, and no SecretManagerPolicy for its namespace has in "
            "spec.telemetryHosts: 127.0.0.1"
        )
        with pytest.raises(BlockingIOError):
            foreign.accept()
        policies.put("own", tenant.namespace, stores=[store(stack)], telemetryHosts=["127.0.0.1"])
        status = tenant.until("traces", lambda now: now.get("lastTraceId"))
        assert condition(status, "Untraced") == {}


def test_an_object_that_is_denied_its_store_is_traced_where_its_host_is_granted(tenant, policies, jaeger):
    policies.put("own", tenant.namespace, telemetryHosts=["127.0.0.1"])
    tenant.commit(A="1")
    tenant.apply(otel={"type": "Otlp", "endpoint": jaeger.grpc, "protocol": "grpc"})
    (span,) = jaeger.whole(tenant.ready(reason="AccessDenied")["lastTraceId"])
    assert (span.failed, span.attributes["secret_manager.reason"]) == (True, "AccessDenied")


@pytest.mark.parametrize("reference", ["source", "credentials"])
def test_a_foreign_reference_is_denied_and_nothing_of_it_is_read(stack, make_tenant, policies, reference):
    victim, attacker = make_tenant("victim"), make_tenant("attacker")
    victim.commit(A="theirs")
    attacker.commit(A="1")
    policies.put("attackers", attacker.namespace, stores=[store(stack)])
    aws = attacker.spec()["provider"]["aws"]
    if reference == "source":
        attacker.apply(sourceRef={"name": "source", "namespace": victim.namespace})
    else:
        aws["auth"]["secretNamespace"] = victim.namespace
        attacker.apply(provider={"type": "aws", "aws": aws})
    status = attacker.ready(reason="AccessDenied")
    assert victim.namespace in message(status)
    assert attacker.values() == {}
    assert [event["requestURI"] for event in victim.audit()] == []


def test_names_that_are_not_granted_reach_no_store(stack, make_tenant, policies):
    victim, attacker = make_tenant("victim"), make_tenant("attacker")
    policies.put("attackers", attacker.namespace, stores=[store(stack, attacker.name(""))])
    attacker.commit(A="1")
    stack.aws.clear_calls()
    attacker.apply(secrets={"environment": "dev", "prefix": victim.namespace})
    status = attacker.ready(reason="AccessDenied")
    assert victim.name("A") in message(status)
    assert (stack.aws.calls(), victim.values()) == ([], {})


def test_two_tenants_with_one_name_are_one_ready_and_one_conflict(stack, make_tenant, policies):
    first, second = make_tenant("first"), make_tenant("second")
    policies.put("both", first.namespace, second.namespace, stores=[store(stack, "contested-")])
    for number, tenant in enumerate((first, second)):
        tenant.commit(A=str(number))
        tenant.apply(secrets={"environment": "dev", "prefix": "contested"}, adoption="Adopt")
    verdicts = ("ReconciliationSucceeded", "Conflict")

    def verdict(tenant):
        status = tenant.until("a verdict", lambda now: condition(now).get("reason") in verdicts)
        return condition(status)["reason"]

    by_verdict = {verdict(tenant): str(number).encode() for number, tenant in enumerate((first, second))}
    assert by_verdict.keys() == set(verdicts)
    assert stack.aws.values()["contested-A"] == by_verdict["ReconciliationSucceeded"]


def test_ciphertext_for_the_controllers_key_in_a_repository_of_ones_own_is_not_opened(
    stack, tenant, policies, encrypt, example_recipient
):
    """The example key is the controller's own; whoever may read a file for it must not have it opened."""
    policies.put("own", tenant.namespace, stores=[store(stack)])
    tenant.commit({ENV: encrypt(dotenv(A="theirs"), example_recipient)})
    tenant.apply()
    status = tenant.ready(reason="KeyUnavailable")
    assert f"have controllerKeys: true set for GitRepository {tenant.namespace}/source" in message(status)
    assert tenant.values() == {}
    grant = {"namespace": tenant.namespace, "name": "source", "paths": ["app"], "controllerKeys": True}
    policies.put("own", tenant.namespace, stores=[store(stack)], sources=[grant])
    tenant.patch(secrets={"environment": "dev", "prefix": tenant.namespace, "basePath": "app"})
    tenant.ready()
    assert tenant.values() == {"A": b"theirs"}
