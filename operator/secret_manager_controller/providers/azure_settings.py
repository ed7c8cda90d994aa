"""What a spec and the controller's environment make of an Azure provider. It imports none of Azure's packages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from secret_manager_controller.model.spec import AzureAuth, AzureAuthType, AzureStore
from secret_manager_controller.providers.azure_declared import AzureDeclared
from secret_manager_controller.providers.azure_login import (
    PUBLIC_AUTHORITY,
    AzureClientSecret,
    AzureEndpoints,
    AzureFederation,
    AzureLogin,
)
from secret_manager_controller.providers.settings import Environment, lacks, missing, text_of

CLIENT_ID, CLIENT_SECRET, TENANT_ID = "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"
TOKEN_FILE, AUTHORITY = "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"
DNS_SUFFIX = "AZURE_KEYVAULT_DNS_SUFFIX"

_DATA_KEYS: Mapping[str, str] = {CLIENT_ID: "client-id", CLIENT_SECRET: "client-secret", TENANT_ID: "tenant-id"}
"""The data keys of a credential Secret; one that was made of an environment file has the variables' names."""


def azure_options(store: AzureStore, secret: Mapping[str, bytes] | None, environment: Environment) -> dict[str, Any]:
    """Return the arguments of an `AzureProvider`.

    Args:
        store: the block of the spec.
        secret: the data of its credential Secret, or None if the spec names none.
        environment: the process's variables.

    Raises:
        PermanentError: CredentialsUnavailable: something is missing, and what.
    """
    return {
        "vault": store.vault_name.lower(),  # Two spellings of a vault share its quota.
        "login": azure_login(store.auth, secret, environment),
        "endpoints": azure_endpoints(environment),
        "declared": AzureDeclared(
            content_type=store.content_type,
            expires=None if store.expires_on is None else int(datetime.fromisoformat(store.expires_on).timestamp()),
            tags=dict(store.tags or {}),
        ),
    }


def azure_login(auth: AzureAuth | None, secret: Mapping[str, bytes] | None, environment: Environment) -> AzureLogin:
    """Return the login to Azure that an object asks for.

    Without an auth block it is the workload's identity, or the controller's own client secret where that is all that
    its environment has, as on a developer's machine.

    Raises:
        PermanentError: CredentialsUnavailable: something is missing, and what.
    """
    kind = AzureAuthType.WORKLOAD_IDENTITY if auth is None else auth.auth_type
    client = None if auth is None else auth.client_id
    file = environment.get(TOKEN_FILE)
    if kind is AzureAuthType.SERVICE_PRINCIPAL or (auth is None and not file and environment.get(CLIENT_SECRET)):
        return _client_secret(client, secret, environment)
    if not file:
        raise missing(
            f"the controller has no {TOKEN_FILE}; label its pod with azure.workload.identity/use: true, or set "
            "spec.provider.azure.auth.authType: ServicePrincipal"
        )
    tenant, client = environment.get(TENANT_ID), client or environment.get(CLIENT_ID)
    if not tenant:
        raise missing(f"the controller has no {TENANT_ID}; the webhook of Azure Workload Identity sets it")
    if not client:
        message = f"no identity to log in as; set spec.provider.azure.auth.clientId, or {CLIENT_ID} in the controller"
        raise missing(message)
    return AzureFederation(tenant, client, Path(file))


def azure_endpoints(environment: Environment) -> AzureEndpoints:
    """Return where Azure is and how it is reached, by the variables that its SDKs and requests have for that."""
    roots = environment.get("REQUESTS_CA_BUNDLE")
    return AzureEndpoints(
        authority=environment.get(AUTHORITY) or PUBLIC_AUTHORITY,
        vault_suffix=environment.get(DNS_SUFFIX) or None,
        proxy=_either(environment, "HTTPS_PROXY"),
        no_proxy=_either(environment, "NO_PROXY") or "",
        ca_file=Path(roots) if roots else None,
    )


def _client_secret(
    client: str | None, secret: Mapping[str, bytes] | None, environment: Environment
) -> AzureClientSecret:
    if secret is None:
        found = {name: environment.get(name) for name in _DATA_KEYS}
    else:
        found = {name: text_of(secret, key, name) for name, key in _DATA_KEYS.items()}
        # One tenant is the rule, and its id no secret.
        found[TENANT_ID] = found[TENANT_ID] or environment.get(TENANT_ID)
    found[CLIENT_ID] = client or found[CLIENT_ID]
    for name, value in found.items():
        if value:
            continue
        if secret is not None:
            raise lacks("azure", _DATA_KEYS[name])
        mend = "set it, or name a Secret in spec.provider.azure.auth.secretName"
        raise missing(f"the controller has no {name}; {mend}")
    return AzureClientSecret(str(found[TENANT_ID]), str(found[CLIENT_ID]), str(found[CLIENT_SECRET]))


def _either(environment: Environment, name: str) -> str | None:
    """Return a variable that is written in small letters as well."""
    return environment.get(name) or environment.get(name.lower()) or None
