"""What a spec and the controller's environment make of an AWS provider. It imports none of AWS's packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secret_manager_controller.model.spec import AwsAuth, AwsAuthType
from secret_manager_controller.model.spec.stores import AwsStore
from secret_manager_controller.providers.aws_budget import AwsQuotas
from secret_manager_controller.providers.aws_login import (
    AwsAccessKeys,
    AwsAssumedRole,
    AwsEndpoints,
    AwsLogin,
    AwsWebIdentity,
)
from secret_manager_controller.providers.aws_options import AwsDeclared
from secret_manager_controller.providers.settings import Environment, missing, needed, quota

SESSION_NAME = "secret-manager-controller"
READS, WRITES = "AWS_SECRETS_MANAGER_READS_PER_SECOND", "AWS_SECRETS_MANAGER_WRITES_PER_SECOND"
"""Other quotas of the accounts than AWS's own."""
_COUNTED = "requests a second the account allows"


def aws_options(store: AwsStore, secret: Mapping[str, bytes] | None, environment: Environment) -> dict[str, Any]:
    """Return the arguments of an `AwsProvider`.

    Args:
        store: the block of the spec.
        secret: the data of its credential Secret, or None if the spec names none.
        environment: the process's variables.

    Raises:
        PermanentError: CredentialsUnavailable: something is missing, and what. StoreRefused: a setting is wrong.
    """
    everywhere = environment.get("AWS_ENDPOINT_URL")
    return {
        "region": store.region,
        "login": aws_login(store.auth, secret, environment),
        "endpoint_url": AwsEndpoints(
            secretsmanager=environment.get("AWS_ENDPOINT_URL_SECRETS_MANAGER") or everywhere,
            sts=environment.get("AWS_ENDPOINT_URL_STS") or everywhere,
            kms=environment.get("AWS_ENDPOINT_URL_KMS") or everywhere,
        ),
        "declared": AwsDeclared(
            tags=dict(store.tags or {}), description=store.description, kms_key_id=store.kms_key_id
        ),
        "quotas": AwsQuotas(
            reads=quota(environment, READS, default=AwsQuotas().reads, counted=_COUNTED),
            writes=quota(environment, WRITES, default=AwsQuotas().writes, counted=_COUNTED),
        ),
    }


def aws_login(auth: AwsAuth | None, secret: Mapping[str, bytes] | None, environment: Environment) -> AwsLogin:
    """Return the login to AWS that an object asks for.

    Without an auth block it is IRSA, or the controller's own access keys where they are all that its environment has,
    as on a developer's machine.

    Raises:
        PermanentError: CredentialsUnavailable: something is missing, and what.
    """
    kind = AwsAuthType.IRSA if auth is None else auth.auth_type
    token_file = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE")
    if kind is AwsAuthType.ACCESS_KEYS or (auth is None and not token_file and environment.get("AWS_ACCESS_KEY_ID")):
        keys = _access_keys(auth, secret, environment)
        if auth is None or auth.role_arn is None:
            return keys
        return AwsAssumedRole(role_arn=auth.role_arn, keys=keys, session_name=SESSION_NAME)
    role = (auth.role_arn if auth is not None else None) or environment.get("AWS_ROLE_ARN")
    if not token_file:
        raise missing(
            "the controller has no AWS_WEB_IDENTITY_TOKEN_FILE; annotate its service account with "
            "eks.amazonaws.com/role-arn, or set spec.provider.aws.auth.authType: AccessKeys"
        )
    if not role:
        raise missing("no role to assume; set spec.provider.aws.auth.roleArn, or AWS_ROLE_ARN in the controller")
    return AwsWebIdentity(role_arn=role, token_file=Path(token_file), session_name=SESSION_NAME)


def _access_keys(auth: AwsAuth | None, secret: Mapping[str, bytes] | None, environment: Environment) -> AwsAccessKeys:
    if auth is None or secret is None:
        key, value = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        if not key or not value:
            raise missing(
                "the controller has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; set both, or name a Secret in "
                "spec.provider.aws.auth.secretName"
            )
        return AwsAccessKeys(key, value, environment.get("AWS_SESSION_TOKEN"))
    token = None if auth.session_token_key is None else needed(secret, auth.session_token_key, store="aws")
    return AwsAccessKeys(
        needed(secret, auth.access_key_id_key, store="aws"),
        needed(secret, auth.secret_access_key_key, store="aws"),
        token,
    )
