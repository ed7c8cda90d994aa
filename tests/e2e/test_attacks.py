"""Every reference that a tenant can make to what is another's, in mode isolated, with one replica and with eight.

The controller could read all of it: the victim's namespace has the Role that lets it. Only the check stands between.
"""

import dataclasses

import pytest

from secret_manager_controller.kube import SECRET_MANAGER_POLICIES
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.testing.rbac import asked
from secret_manager_controller.testing.replicas import Replicas
from secret_manager_controller.testing.stack import CONTROLLER_NAMESPACE, condition, service_account
from secret_manager_controller.testing.tenants import ENV, Tenant, dotenv

pytestmark = [pytest.mark.real]

USER = service_account("secret-manager-controller")
UUID = "12345678-1234-1234-1234-123456789012"
PROJECT, VAULT = "attackers-project", "attackers-vault"
LOGINS = ("aws-login", "gcp-login", "azure-login")
FLUX_KINDS = ("GitRepository", "OCIRepository", "Bucket", "ExternalArtifact")


def source(kind="GitRepository", **more):
    return lambda world: {"sourceRef": {"kind": kind, "name": "source", "namespace": world.victim.namespace}, **more}


def store(provider, *, namespace=None, short=False, **block):
    """Name a store; with `auth`, whose Secret is the victim's unless `namespace` says whose."""

    def make(world):
        filled = dict(block)
        if "secretName" in filled.get("auth", {}):
            filled["auth"] = filled["auth"] | {"secretNamespace": namespace or world.victim.namespace}
        return {"provider": None, provider: filled} if short else {"provider": {"type": provider, provider: filled}}

    return make


def aws(**auth):
    return {"region": "eu-central-1", "auth": auth}


AWS_KEYS = aws(authType="AccessKeys", secretName="aws-login")
GCP_KEY = {"projectId": PROJECT, "auth": {"authType": "JsonCredentials", "secretName": "gcp-login"}}
AZURE_KEY = {"vaultName": VAULT, "auth": {"authType": "ServicePrincipal", "secretName": "azure-login"}}

ROWS = {
    **{f"sourceRef.namespace of {kind}": (source(kind), "spec.sources") for kind in (*FLUX_KINDS, "Application")},
    "sourceRef.namespace of a build": (
        source(secrets={"environment": "dev", "kustomizePath": "app"}),
        "spec.sources",
    ),
    "another directory of a source that is granted": (
        lambda world: {
            "sourceRef": {"name": "services", "namespace": "flux-system"},
            "secrets": {"environment": "dev", "basePath": "victim"},
        },
        "paths: [victim]",
    ),
    "a directory that begins like a granted one": (
        lambda world: {
            "sourceRef": {"name": "services", "namespace": "flux-system"},
            "secrets": {"environment": "dev", "basePath": "attacker-too"},
        },
        "paths: [attacker-too]",
    ),
    "aws.auth.secretNamespace": (store("aws", **AWS_KEYS), "spec.credentials"),
    "gcp.auth.secretNamespace": (store("gcp", **GCP_KEY), "spec.credentials"),
    "azure.auth.secretNamespace": (store("azure", **AZURE_KEY), "spec.credentials"),
    "aws.auth.secretNamespace, in the short form": (store("aws", short=True, **AWS_KEYS), "spec.credentials"),
    "gcp.auth.secretNamespace, in the short form": (store("gcp", short=True, **GCP_KEY), "spec.credentials"),
    "azure.auth.secretNamespace, in the short form": (store("azure", short=True, **AZURE_KEY), "spec.credentials"),
    "a login of the controller's namespace": (
        store("aws", namespace=CONTROLLER_NAMESPACE, **aws(authType="AccessKeys", secretName="shared-login")),
        "spec.credentials",
    ),
    "aws.region": (store("aws", region="us-east-1"), "{aws: {region: us-east-1}}"),
    "aws.auth.roleArn": (store("aws", **aws(roleArn="arn:aws:iam::123456789012:role/victim")), "roleArns"),
    "gcp.projectId": (store("gcp", projectId="victims-project"), "{gcp: {projectId: victims-project}}"),
    "gcp.auth.serviceAccountEmail": (
        store("gcp", projectId=PROJECT, auth={"serviceAccountEmail": "victim@p.iam.gserviceaccount.com"}),
        "serviceAccountEmails",
    ),
    "azure.vaultName": (store("azure", vaultName="victims-vault"), "{azure: {vaultName: victims-vault}}"),
    "azure.auth.clientId": (store("azure", vaultName=VAULT, auth={"clientId": UUID}), "clientIds"),
    "secrets.prefix": (
        lambda world: {"secrets": {"environment": "dev", "prefix": world.victim.namespace}},
        "spec.stores[].namePrefixes",
    ),
}
"""What each changes of a spec that would work, and what the message says is missing."""


@dataclasses.dataclass
class World:
    """One run of the table."""

    victim: Tenant
    attackers: dict[str, Tenant]
    replay: Tenant
    rivals: list[Tenant]
    honest: Tenant
    owners: set[str]
    replicas: int

    def tenants(self):
        return [self.victim, *self.attackers.values(), self.replay, *self.rivals, self.honest]


def policy(stack, name, namespaces, **grants):
    manifest = {"apiVersion": f"{GROUP}/v1", "kind": "SecretManagerPolicy", "metadata": {"name": name}}
    stack.apply(manifest | {"spec": {"namespaces": {"names": namespaces}, **grants}})


@pytest.fixture(scope="module", params=[1, 8], ids="{}-replicas".format)
def world(stack, encrypt, example_recipient, request):
    """Let so many replicas run, and every attacker apply his object; the victim applies none."""
    count = request.param
    make = (Tenant(stack, f"of-{count}", number=number) for number in range(1, 100))
    world = World(
        next(make), {name: next(make) for name in ROWS}, next(make), [next(make), next(make)], next(make), set(), count
    )
    victim = world.victim
    for login in LOGINS:
        stack.create_secret(victim.namespace, login, {"key": b"theirs"})
    victim.let_read(*LOGINS)
    victim.commit(A="theirs")
    stack.create_aws_credentials(CONTROLLER_NAMESPACE, "shared-login")
    stores = [{"aws": {"region": "eu-central-1"}}, {"gcp": {"projectId": PROJECT}}, {"azure": {"vaultName": VAULT}}]
    prefixes = {each.namespace: [each.name("")] for each in world.tenants()}
    prefixes |= {each.namespace: [f"contested-{count}-"] for each in world.rivals}
    services = {"namespace": "flux-system", "name": "services", "paths": ["attacker"]}
    with Replicas(stack, TENANCY_MODE="isolated") as replicas:
        for tenant in world.tenants():
            granted = [one | {"namePrefixes": prefixes[tenant.namespace]} for one in stores]
            policy(stack, tenant.namespace, [tenant.namespace], stores=granted, sources=[services])
        for _ in range(count):
            replicas.start()
        replicas.wait_balanced(timeout=120)
        owners = replicas.log.owners()
        world.owners = {owners[replicas.log.shard(each.namespace)] for each in world.attackers.values()}
        stack.aws.clear_calls()
        for name, attacker in world.attackers.items():
            attacker.commit(A="1")
            attacker.apply(adoption="Adopt", **ROWS[name][0](world))
        world.replay.commit({ENV: encrypt(dotenv(A="theirs"), example_recipient)})
        world.replay.apply()
        yield world
        for replica in replicas.living():
            replica.terminate()
        assert {replica.stop() for replica in replicas.all} == {0}
    for tenant in world.tenants():
        stack.delete(SECRET_MANAGER_POLICIES.url(name=tenant.namespace))
        tenant.remove()


@pytest.mark.parametrize("row", ROWS)
def test_what_is_not_granted_is_denied_and_the_missing_grant_told(world, row):
    told = condition(world.attackers[row].ready(reason="AccessDenied"))["message"]
    assert ROWS[row][1] in told


def test_ciphertext_for_the_controllers_key_in_a_repository_of_ones_own_is_not_opened(world):
    assert "controllerKeys: true" in condition(world.replay.ready(reason="KeyUnavailable"))["message"]


def test_nothing_of_it_was_read_and_no_store_called(stack, world):
    for attacker in world.attackers.values():
        attacker.ready(reason="AccessDenied")
    world.replay.ready(reason="KeyUnavailable")
    requests = list(asked(stack.plane.audit_events(), USER))
    assert [each for each in requests if each.namespace == world.victim.namespace] == []
    assert [each for each in requests if (each.namespace, each.name) == (CONTROLLER_NAMESPACE, "shared-login")] == []
    assert stack.aws.calls() == []
    # The log would have it: what the attackers' own namespaces hold is in there.
    ours = {each.namespace for each in requests if each.resource == "secretmanagerconfigs/status"}
    assert ours >= {each.namespace for each in world.attackers.values()}


def test_the_attackers_were_many_replicas_affair(world):
    assert len(world.owners) >= min(world.replicas, 4)


def test_of_two_tenants_with_one_name_exactly_one_is_ready(stack, world):
    for number, tenant in enumerate(world.rivals):
        tenant.commit(A=str(number))
        tenant.apply(secrets={"environment": "dev", "prefix": f"contested-{world.replicas}"}, adoption="Adopt")
    verdicts = ("ReconciliationSucceeded", "Conflict")

    def verdict(tenant):
        return condition(tenant.until("a verdict", lambda now: condition(now).get("reason") in verdicts))["reason"]

    by_verdict = {verdict(tenant): str(number).encode() for number, tenant in enumerate(world.rivals)}
    assert by_verdict.keys() == set(verdicts)
    assert stack.aws.values()[f"contested-{world.replicas}-A"] == by_verdict["ReconciliationSucceeded"]


def test_who_stays_within_his_grants_is_served(world):
    world.honest.commit(A="1")
    world.honest.apply()
    world.honest.ready()
    assert world.honest.values() == {"A": b"1"}
