"""The real controller outside Google: a kubelet's token is exchanged by STS and for a service account's by IAM."""

import pytest

from secret_manager_controller.testing import tokens
from secret_manager_controller.testing.gcp import PROJECT, GcpServer
from secret_manager_controller.testing.gcp_auth import POOL
from secret_manager_controller.testing.stack import condition
from secret_manager_controller.testing.tenants import conditions

pytestmark = [pytest.mark.real]

SUBJECT = "system:serviceaccount:microscaler-system:secret-manager-controller"
PRINCIPAL = f"principal:{SUBJECT}"
OTHER = f"writer@{PROJECT}.iam.gserviceaccount.com"
IMPERSONATED = {"authType": "WorkloadIdentity", "serviceAccountEmail": OTHER}


def projected(*, lifetime=3600.0):
    """Return a token as the kubelet projects it for the workload identity provider."""
    return tokens.web_identity_token(SUBJECT, audience=f"https:{POOL}", lifetime=lifetime)


@pytest.fixture(scope="module")
def running_gcp():
    with GcpServer.start(tls=True) as server:
        yield server


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    return tmp_path_factory.mktemp("federation") / "token"


@pytest.fixture(scope="module")
def controller(stack, running_gcp, token_file):
    """Run a controller whose credential configuration names a projected token, as gcloud writes it."""
    token_file.write_text(projected())
    configuration = token_file.with_name("credentials.json")
    configuration.write_bytes(running_gcp.federation(token_file))
    pod = {"GOOGLE_APPLICATION_CREDENTIALS": str(configuration)}
    with stack.controller(**running_gcp.environment, **pod) as started:
        yield started


@pytest.fixture
def gcp(running_gcp, controller, token_file):
    """Return the server, where no token holds that was issued before."""
    token_file.write_text(projected())
    running_gcp.reset()
    running_gcp.expire_tokens()
    return running_gcp


@pytest.fixture
def sync(gcp, tenant):
    """Return a function that lets an object sync one value by a login; it returns the object's status."""

    def run(*, auth=None, reason="ReconciliationSucceeded"):
        artifact = tenant.commit(A="1")
        block = {"projectId": gcp.project} | ({} if auth is None else {"auth": auth})
        tenant.apply(provider={"type": "gcp", "gcp": block})
        return tenant.ready(reason=reason, after=artifact.revision)

    return run


def exchanges(gcp):
    """Return who asked for which token, in order."""
    return [(call.operation, call.who) for call in gcp.calls() if call.operation.endswith("Token")]


@pytest.mark.parametrize("auth", [None, {"authType": "WorkloadIdentity"}], ids=["by default", "by its name"])
def test_the_cluster_writes_as_itself(gcp, tenant, sync, auth):
    sync(auth=auth)
    assert gcp.values() == {tenant.name("A"): b"1"}
    assert {call.who for call in gcp.writes()} == {PRINCIPAL}
    assert ("ExchangeToken", "-") in exchanges(gcp)


def test_an_object_may_name_the_account_to_act_as(gcp, tenant, sync):
    sync(auth=IMPERSONATED)
    assert gcp.values() == {tenant.name("A"): b"1"}
    assert {call.who for call in gcp.writes()} == {OTHER}
    assert exchanges(gcp)[-2:] == [("ExchangeToken", "-"), ("GenerateAccessToken", PRINCIPAL)]


def test_an_account_that_may_not_be_acted_as_is_told_with_the_role_that_is_missing(gcp, sync):
    gcp.refuse_impersonation(OTHER)
    told = sync(auth=IMPERSONATED, reason="StoreAccessDenied")
    assert "Stalled" in conditions(told)
    assert OTHER in condition(told)["message"]
    assert "roles/iam." in condition(told)["message"]
    assert gcp.writes() == []


def test_a_projected_token_is_read_anew_when_the_kubelet_has_renewed_it(stack, gcp, tenant, sync, token_file):
    sync()
    token_file.write_text(expired := projected(lifetime=-60.0))
    gcp.expire_tokens()
    told = tenant.reconcile()
    assert condition(told)["reason"] == "CredentialsUnavailable"
    assert str(token_file) in condition(told)["message"]
    assert expired not in condition(told)["message"]
    token_file.write_text(projected())
    stack.wait("the new token to be used", lambda: condition(tenant.reconcile())["status"] == "True")
