"""Who may refer to and write to what, in both modes: every reference field, own, foreign, granted and not."""

import pytest

from secret_manager_controller.errors import AccessDenied, ConfigError
from secret_manager_controller.grants import Grants, Mode, SecretGrant, SourceGrant, Tenancy
from secret_manager_controller.model.policy import parse_policy
from secret_manager_controller.model.spec import parse_spec
from secret_manager_controller.tenancy import authorize, decide, explain

CONTROLLER = "microscaler-system"
ROLE = "arn:aws:iam::123456789012:role/team-a"
UUID = "12345678-1234-1234-1234-123456789012"
AWS_STORE = {"aws": {"region": "eu-central-1"}}


def spec(*, source=None, provider=None, secrets=None, **fields):
    body = {
        "sourceRef": {"name": "repo", **(source or {})},
        "provider": provider or {"type": "aws", "aws": {"region": "eu-central-1"}},
        "secrets": {"environment": "dev", **(secrets or {})},
    }
    return parse_spec({"spec": body | fields})


def aws(region="eu-central-1", **auth):
    return {"type": "aws", "aws": {"region": region, "auth": auth}}


def policy(name="grants", **grants):
    return parse_policy({"metadata": {"name": name}, "spec": {"namespaces": {"names": ["team-a"]}, **grants}})


def isolated(declared, *policies, account=None):
    tenancy = Tenancy(controller_namespace=CONTROLLER, mode=Mode.ISOLATED, controller_account=account)
    return authorize(declared, namespace="team-a", tenancy=tenancy, policies=policies)


def shared(declared, namespace="team-a"):
    return authorize(declared, namespace=namespace, tenancy=Tenancy(controller_namespace=CONTROLLER))


STORE = policy("store", stores=[AWS_STORE])
FOREIGN = {"namespace": "flux-system"}
ELSEWHERE = aws(authType="AccessKeys", secretName="keys", secretNamespace="team-b")

# --- shared


def test_without_references_everything_is_of_the_objects_own_namespace():
    assert shared(spec()) == Grants(
        source=SourceGrant("GitRepository", "team-a", "repo"),
        credentials=None,
        key_namespaces=("team-a", CONTROLLER),
    )


def test_a_git_login_is_of_the_objects_own_namespace():
    source = {"kind": "Application", "namespace": "argocd", "gitCredentials": {"secretName": "login", "namespace": "x"}}
    assert shared(spec(source=source)).source.git_credentials == SecretGrant("team-a", "login")


def test_mode_shared_grants_every_reference_and_every_name():
    otel = {"type": "Otlp", "endpoint": "http://collector:4317"}
    grants = shared(spec(source=FOREIGN, provider=ELSEWHERE, otel=otel))
    assert grants.source == SourceGrant("GitRepository", "flux-system", "repo")
    assert grants.credentials == SecretGrant("team-b", "keys")
    grants.check_names(["anything"])


def test_the_controllers_own_objects_look_for_keys_once():
    assert shared(spec(), namespace=CONTROLLER).key_namespaces == (CONTROLLER,)


# --- isolated: every reference field that may be foreign

REFERENCES = {
    "sourceRef.namespace": (
        spec(source=FOREIGN),
        "spec.sourceRef names GitRepository flux-system/repo",
        "spec.sources: {kind: GitRepository, namespace: flux-system, name: repo}",
        {"sources": [{"namespace": "flux-system", "name": "repo"}]},
    ),
    "sourceRef.namespace of a build": (
        spec(source=FOREIGN, secrets={"kustomizePath": "apps/a/"}),
        "directory 'apps/a'",
        "paths: [apps/a]",
        {"sources": [{"namespace": "flux-system", "name": "repo", "paths": ["apps"]}]},
    ),
    "gcp.auth.secretNamespace": (
        spec(
            provider={
                "type": "gcp",
                "gcp": {
                    "projectId": "project-1",
                    "auth": {"authType": "JsonCredentials", "secretName": "keys", "secretNamespace": "team-b"},
                },
            }
        ),
        "spec.provider.gcp.auth.secretNamespace names Secret team-b/keys",
        "spec.credentials: {namespace: team-b, name: keys}",
        {
            "credentials": [{"namespace": "team-b", "name": "keys"}],
            "stores": [{"gcp": {"projectId": "project-1"}}],
        },
    ),
    "aws.auth.secretNamespace": (
        spec(provider=ELSEWHERE),
        "spec.provider.aws.auth.secretNamespace names Secret team-b/keys",
        "spec.credentials: {namespace: team-b, name: keys}",
        {"credentials": [{"namespace": "team-b", "name": "keys"}]},
    ),
    "azure.auth.secretNamespace": (
        spec(
            provider={
                "type": "azure",
                "azure": {
                    "vaultName": "vault-1",
                    "auth": {"authType": "ServicePrincipal", "secretName": "keys", "secretNamespace": "team-b"},
                },
            }
        ),
        "spec.provider.azure.auth.secretNamespace names Secret team-b/keys",
        "spec.credentials: {namespace: team-b, name: keys}",
        {"credentials": [{"namespace": "team-b", "name": "keys"}], "stores": [{"azure": {"vaultName": "Vault-1"}}]},
    ),
    "the controller's own namespace is foreign too": (
        spec(provider=aws(authType="AccessKeys", secretName="keys", secretNamespace=CONTROLLER)),
        f"Secret {CONTROLLER}/keys",
        "spec.credentials",
        {"credentials": [{"namespace": CONTROLLER, "name": "keys"}]},
    ),
    "aws region": (
        spec(provider=aws("us-east-1")),
        "spec.provider.aws names region us-east-1",
        "spec.stores: {aws: {region: us-east-1}}",
        {"stores": [{"aws": {"region": "us-east-1"}}]},
    ),
    "aws role": (
        spec(provider=aws(roleArn=ROLE)),
        f"as {ROLE}",
        f"roleArns: [{ROLE}]",
        {"stores": [{"aws": {"region": "eu-central-1", "roleArns": [ROLE]}}]},
    ),
    "gcp project": (
        spec(provider={"type": "gcp", "gcp": {"projectId": "project-2"}}),
        "spec.provider.gcp names project project-2",
        "{gcp: {projectId: project-2}}",
        {"stores": [{"gcp": {"projectId": "project-2"}}]},
    ),
    "gcp service account": (
        spec(
            provider={
                "type": "gcp",
                "gcp": {"projectId": "project-1", "auth": {"serviceAccountEmail": "a@p.iam.gserviceaccount.com"}},
            }
        ),
        "as a@p.iam.gserviceaccount.com",
        "serviceAccountEmails: [a@p.iam.gserviceaccount.com]",
        {
            "stores": [
                {"gcp": {"projectId": "project-1", "serviceAccountEmails": ["a@p.iam.gserviceaccount.com"]}},
            ]
        },
    ),
    "azure vault, in the short form": (
        parse_spec(
            {
                "spec": {
                    "sourceRef": {"name": "repo"},
                    "azure": {"vaultName": "vault-2"},
                    "secrets": {"environment": "dev"},
                }
            }
        ),
        "spec.azure names vault vault-2",
        "{azure: {vaultName: vault-2}}",
        {"stores": [{"azure": {"vaultName": "vault-2"}}]},
    ),
    "azure identity": (
        spec(provider={"type": "azure", "azure": {"vaultName": "vault-1", "auth": {"clientId": UUID}}}),
        f"as {UUID}",
        f"clientIds: [{UUID}]",
        {"stores": [{"azure": {"vaultName": "vault-1", "clientIds": [UUID]}}]},
    ),
}
NARROW = policy("narrow", stores=[AWS_STORE, {"gcp": {"projectId": "project-1"}}, {"azure": {"vaultName": "vault-1"}}])


@pytest.mark.parametrize(("declared", "told", "missing", "grant"), REFERENCES.values(), ids=REFERENCES)
def test_a_foreign_reference_is_denied_with_the_grant_that_is_missing_and_allowed_by_exactly_that(
    declared, told, missing, grant
):
    for policies in ((), (NARROW,)):
        with pytest.raises(AccessDenied) as caught:
            isolated(declared, *policies)
        assert told in caught.value.message
        assert missing in caught.value.message
    isolated(declared, NARROW, policy(**grant))


TELEMETRY = {
    "otel endpoint": (
        spec(otel={"type": "Otlp", "endpoint": "http://collector.evil.example:4317/v1"}),
        "spec.otel.endpoint names host collector.evil.example",
        "spec.telemetryHosts: collector.evil.example",
        {"telemetryHosts": ["evil.example"]},
    ),
    "otel site": (
        spec(otel={"type": "Datadog", "site": "datadoghq.eu", "apiKeySecretRef": {"name": "dd"}}),
        "spec.otel.site names host datadoghq.eu",
        "spec.telemetryHosts: datadoghq.eu",
        {"telemetryHosts": ["datadoghq.eu"]},
    ),
}


@pytest.mark.parametrize(("declared", "told", "missing", "grant"), TELEMETRY.values(), ids=TELEMETRY)
def test_a_denied_host_of_traces_keeps_traces_and_nothing_else(declared, told, missing, grant):
    denied = decided(declared, NARROW)
    assert denied.granted() == isolated(spec(), NARROW)
    assert denied.untraced.message.startswith(f"no traces: {told}")
    assert missing in denied.untraced.message
    assert decided(declared, NARROW, policy(**grant)).untraced is None


def test_whether_an_object_is_traced_does_not_depend_on_the_rest_that_is_decided():
    declared = spec(source=FOREIGN, otel={"type": "Otlp", "endpoint": "http://collector.example:4317"})
    access = decided(declared, NARROW, policy(telemetryHosts=["collector.example"]))
    assert access.untraced is None
    with pytest.raises(AccessDenied, match=r"^spec\.sourceRef names"):
        access.granted()
    assert decided(declared).untraced is not None


def decided(declared, *policies):
    tenancy = Tenancy(controller_namespace=CONTROLLER, mode=Mode.ISOLATED)
    return decide(declared, namespace="team-a", tenancy=tenancy, policies=policies)


def test_every_denied_reference_is_told_at_once():
    with pytest.raises(AccessDenied) as caught:
        isolated(spec(source=FOREIGN, provider=ELSEWHERE))
    for field in ("spec.sourceRef", "spec.provider.aws names", "spec.provider.aws.auth.secretNamespace"):
        assert field in caught.value.message


def test_what_is_in_the_own_namespace_needs_no_grant_but_the_store():
    grants = isolated(spec(provider=aws(authType="AccessKeys", secretName="keys")), STORE)
    assert grants.credentials == SecretGrant("team-a", "keys")
    assert (grants.source.paths, grants.key_namespaces) == (None, ("team-a",))
    assert "controllerKeys: true set for GitRepository team-a/repo" in grants.missing_keys


def test_the_datadog_agent_of_the_controller_needs_no_grant():
    isolated(spec(otel={"type": "Datadog"}), STORE)


@pytest.mark.parametrize(
    ("grant", "account", "covered"),
    [
        pytest.param({}, None, True, id="no account asked for"),
        pytest.param({"accountId": "123456789012"}, "123456789012", True, id="the account"),
        pytest.param({"accountId": "123456789012"}, "999999999999", False, id="another account"),
        pytest.param({"accountId": "123456789012"}, None, False, id="an account that nobody knows"),
    ],
)
def test_the_controllers_own_role_counts_for_its_account_alone(grant, account, covered):
    grants = policy(stores=[{"aws": {"region": "eu-central-1", **grant}}])
    if covered:
        isolated(spec(), grants, account=account)
    else:
        with pytest.raises(AccessDenied):
            isolated(spec(), grants, account=account)


def test_a_role_of_another_account_than_the_grants_is_denied():
    store = {"aws": {"region": "eu-central-1", "accountId": "999999999999", "roleArns": [ROLE]}}
    with pytest.raises(AccessDenied):
        isolated(spec(provider=aws(roleArn=ROLE)), policy(stores=[store]))


# --- directories and keys


@pytest.mark.parametrize("base_path", ["team-a", "team-a/", "./team-a", "team-a/inner"])
def test_a_directory_at_or_below_a_granted_one_is_granted(base_path):
    source = {"namespace": "flux-system", "name": "repo", "paths": ["team-a"]}
    grants = isolated(spec(source=FOREIGN, secrets={"basePath": base_path}), STORE, policy(sources=[source]))
    assert grants.source.paths == ("team-a",)


@pytest.mark.parametrize("base_path", [None, "team-ab", "team", "other/team-a"])
def test_any_other_directory_is_denied(base_path):
    source = {"namespace": "flux-system", "name": "repo", "paths": ["team-a"]}
    secrets = {} if base_path is None else {"basePath": base_path}
    with pytest.raises(AccessDenied, match=r"spec\.sourceRef"):
        isolated(spec(source=FOREIGN, secrets=secrets), STORE, policy(sources=[source]))


def keys_for(*sources, declared=None):
    declared = declared or spec(source=FOREIGN, secrets={"basePath": "team-a"})
    return isolated(
        declared, STORE, policy(sources=[{"namespace": "flux-system", "name": "repo", **s} for s in sources])
    )


def test_the_controllers_keys_are_for_granted_directories_of_granted_sources_and_nothing_else_is_shown():
    granted = keys_for({"paths": ["team-a"], "controllerKeys": True}, {"paths": ["team-a", "shared"]})
    assert (granted.key_namespaces, granted.source.paths) == (("team-a", CONTROLLER), ("team-a",))
    assert granted.missing_keys is None


def test_the_controllers_keys_for_another_directory_do_not_count():
    granted = keys_for({"paths": ["team-b"], "controllerKeys": True}, {"paths": ["team-a"]})
    assert (granted.key_namespaces, granted.source.paths) == (("team-a",), ("team-a",))


def test_a_source_of_ones_own_opens_nothing_with_the_controllers_keys():
    """Whoever copies another's ciphertext into his own repository must not have it decrypted."""
    own = spec(secrets={"basePath": "team-a"})
    assert keys_for({"controllerKeys": True}, declared=own).key_namespaces == ("team-a",)


# --- names and hosts


def test_names_must_begin_with_a_granted_prefix_and_policies_add_up():
    one = policy("one", stores=[AWS_STORE | {"namePrefixes": ["team-a-"]}])
    two = policy("two", stores=[AWS_STORE | {"namePrefixes": ["shared-"]}, {"gcp": {"projectId": "project-1"}}])
    grants = isolated(spec(), one, two)
    grants.check_names(["team-a-X", "shared-Y"])
    with pytest.raises(
        AccessDenied, match=r"secrets TEAM-A-X, a, b and 1 more do not begin with 'team-a-' or 'shared-'"
    ):
        grants.check_names(["team-a-ok", "TEAM-A-X", "a", "b", "c"])
    isolated(spec(), one, STORE).check_names(["anything"])


def test_azures_names_are_compared_without_case():
    vault = policy(stores=[{"azure": {"vaultName": "vault-1"}, "namePrefixes": ["Team-A-"]}])
    grants = isolated(spec(provider={"type": "azure", "azure": {"vaultName": "vault-1"}}), vault)
    grants.check_names(["team-a-x"])


def test_a_policy_adds_hosts_that_artifacts_may_come_from():
    granted = isolated(spec(), STORE, policy(artifactHosts=["files.example"]))
    assert granted.source.artifact_hosts == ("files.example",)


def test_git_servers_are_those_of_the_controller_and_of_policies():
    """In mode shared without any set, every server is allowed; in mode isolated none is."""
    application = spec(source={"kind": "Application"})
    assert shared(application).source.git_hosts is None
    assert isolated(application, STORE).source.git_hosts == ()
    granted = STORE, policy(gitHosts=["git.example"])
    everywhere = {"controller_namespace": CONTROLLER, "git_hosts": ("own.example",)}
    tenancy = Tenancy(**everywhere, mode=Mode.ISOLATED)
    found = authorize(application, namespace="team-a", tenancy=tenancy, policies=granted)
    assert found.source.git_hosts == ("own.example", "git.example")
    assert authorize(application, namespace="team-a", tenancy=Tenancy(**everywhere)).source.git_hosts == (
        "own.example",
    )


def test_keys_of_a_kms_are_those_of_policies_and_in_mode_shared_the_controllers():
    arn, vault = "arn:aws:kms:eu-central-1:123456789012:key/0c6f", "https://keys.vault.azure.net/keys/team-a"
    assert shared(spec()).kms_keys is None
    assert isolated(spec(), STORE).kms_keys == ()
    assert isolated(spec(), STORE, policy(kmsKeys=[arn]), policy(kmsKeys=[vault])).kms_keys == (arn, vault)


@pytest.mark.parametrize("key", ["*", "arn:aws:kms:eu-central-1:123456789012:key/*", "https://v/keys/", "projects/p"])
def test_a_policy_names_keys_of_a_kms_in_full(key):
    with pytest.raises(ConfigError, match="kmsKeys"):
        policy(kmsKeys=[key])


@pytest.mark.parametrize("grant", [shared, lambda declared: isolated(declared, STORE)], ids=["shared", "isolated"])
def test_a_required_signature_is_part_of_the_grant(grant):
    assert grant(spec(requireVerifiedSource=True)).source.require_verified


# --- explain


def test_explain_tells_for_each_reference_what_grants_it_or_what_is_missing():
    tenancy = Tenancy(controller_namespace=CONTROLLER, mode=Mode.ISOLATED)
    grants = policy("team-a", sources=[{"namespace": "flux-system", "name": "repo"}])
    decisions = explain(
        spec(source=FOREIGN, provider=aws(authType="AccessKeys", secretName="keys")),
        namespace="team-a",
        tenancy=tenancy,
        policies=[grants],
    )
    assert [(one.field, one.granted_by) for one in decisions] == [
        ("spec.sourceRef", "SecretManagerPolicy team-a, spec.sources[0]"),
        ("spec.provider.aws", None),
        ("spec.provider.aws.auth.secretName", "it is in the object's own namespace"),
    ]
    assert decisions[1].missing.endswith("spec.stores: {aws: {region: eu-central-1}}")
