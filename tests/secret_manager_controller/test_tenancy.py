"""Who may refer to what, in mode `shared`."""

import pytest

from secret_manager_controller.errors import AccessDenied
from secret_manager_controller.model.spec import parse_spec
from secret_manager_controller.tenancy import Grants, SecretGrant, SourceGrant, authorize


def spec(*, source_namespace=None, **auth):
    source = {"name": "repo"} | ({"namespace": source_namespace} if source_namespace else {})
    aws = {"auth": {"authType": "AccessKeys", **auth}} if auth else {}
    body = {"sourceRef": source, "provider": {"type": "aws", "aws": aws}, "secrets": {"environment": "dev"}}
    return parse_spec({"spec": body})


def granted(declared, namespace="team-a"):
    return authorize(declared, namespace=namespace, controller_namespace="microscaler-system")


def test_without_references_everything_is_of_the_objects_own_namespace():
    assert granted(spec()) == Grants(
        source=SourceGrant("GitRepository", "team-a", "repo"),
        credentials=None,
        key_namespaces=("team-a", "microscaler-system"),
    )


def test_a_source_may_be_anywhere():
    assert granted(spec(source_namespace="flux-system")).source == SourceGrant("GitRepository", "flux-system", "repo")


@pytest.mark.parametrize("namespace", [None, "team-a", "microscaler-system"])
def test_credentials_may_be_in_the_objects_or_the_controllers_namespace(namespace):
    auth = {"secretName": "keys"} | ({"secretNamespace": namespace} if namespace else {})
    assert granted(spec(**auth)).credentials == SecretGrant(namespace or "team-a", "keys")


def test_credentials_of_another_namespace_are_denied_with_the_field_and_the_mend():
    with pytest.raises(AccessDenied) as caught:
        granted(spec(secretName="keys", secretNamespace="team-b"))
    assert "spec.provider.aws.auth.secretNamespace" in caught.value.message
    assert "move the Secret" in caught.value.message


def test_the_controllers_own_objects_look_for_keys_once():
    assert granted(spec(), namespace="microscaler-system").key_namespaces == ("microscaler-system",)


def test_a_required_signature_is_part_of_the_grant():
    body = {"sourceRef": {"name": "repo"}, "aws": {}, "secrets": {"environment": "dev"}, "requireVerifiedSource": True}
    assert granted(parse_spec({"spec": body})).source.require_verified
