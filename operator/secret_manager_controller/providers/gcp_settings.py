"""What a spec and the controller's environment make of a Google provider. It imports none of Google's packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secret_manager_controller.model.spec import GcpAuth, GcpAuthType, GcpStore
from secret_manager_controller.model.spec.stores import Replication
from secret_manager_controller.providers.gcp_login import (
    GOOGLE,
    METADATA_HOST,
    GcpCredentialsFile,
    GcpEndpoints,
    GcpFederation,
    GcpKey,
    GcpKeyFile,
    GcpLogin,
    GcpMetadata,
    GcpQuotas,
    GcpReplication,
)
from secret_manager_controller.providers.settings import Environment, lacks, missing, quota

CREDENTIALS = "GOOGLE_APPLICATION_CREDENTIALS"
READS, WRITES = "GCP_SECRET_MANAGER_READS_PER_MINUTE", "GCP_SECRET_MANAGER_WRITES_PER_MINUTE"
"""Raised quotas of the projects; Google's own are 600 each."""
_COUNTED = "requests a minute the project allows"


def gcp_options(store: GcpStore, secret: Mapping[str, bytes] | None, environment: Environment) -> dict[str, Any]:
    """Return the arguments of a `GcpProvider`.

    Args:
        store: the block of the spec.
        secret: the data of its credential Secret, or None if the spec names none.
        environment: the process's variables.

    Raises:
        PermanentError: CredentialsUnavailable: something is missing, and what.
    """
    return {
        "project": store.project_id,
        "location": store.location,
        "login": gcp_login(store.auth, secret, environment),
        "endpoints": gcp_endpoints(environment),
        "replication": _replication(store.replication),
        "labels": store.labels,
        "keep_versions": store.keep_versions,
        "quotas": GcpQuotas(
            reads=quota(environment, READS, default=GcpQuotas().reads, counted=_COUNTED),
            writes=quota(environment, WRITES, default=GcpQuotas().writes, counted=_COUNTED),
        ),
    }


def gcp_login(auth: GcpAuth | None, secret: Mapping[str, bytes] | None, environment: Environment) -> GcpLogin:
    """Return the login to Google Cloud that an object asks for.

    Without an auth block it is what GOOGLE_APPLICATION_CREDENTIALS names, of whichever kind, and without that the
    workload's own identity.

    Raises:
        PermanentError: CredentialsUnavailable: something is missing, and what.
    """
    file = environment.get(CREDENTIALS)
    host = environment.get("GCE_METADATA_HOST") or METADATA_HOST
    if auth is None:
        return GcpCredentialsFile(Path(file)) if file else GcpMetadata(host)
    email = auth.service_account_email
    if auth.auth_type is GcpAuthType.WORKLOAD_IDENTITY:
        return GcpFederation(Path(file), email) if file else GcpMetadata(host, email)
    if secret is not None:
        document = secret.get(auth.secret_key)
        if not document:
            raise lacks("gcp", auth.secret_key)
        return GcpKey(document, email)
    if not file:
        raise missing(
            f"the controller has no {CREDENTIALS}; set it to the file with the key, or name a Secret in "
            "spec.provider.gcp.auth.secretName"
        )
    return GcpKeyFile(Path(file), email)


def gcp_endpoints(environment: Environment) -> GcpEndpoints:
    """Return where Google Cloud is, by the variables that gcloud, the SDKs and gRPC have for that."""
    roots = environment.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
    return GcpEndpoints(
        secretmanager=environment.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"),
        kms=environment.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS"),
        iamcredentials=environment.get("CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS"),
        token_url=environment.get("CLOUDSDK_AUTH_TOKEN_HOST"),
        universe=environment.get("GOOGLE_CLOUD_UNIVERSE_DOMAIN") or GOOGLE,
        roots=Path(roots) if roots else None,
    )


def _replication(replication: Replication | None) -> GcpReplication | None:
    if replication is None:
        return None
    if replication.user_managed is not None:
        replicas = ((each.location, _key(each)) for each in replication.user_managed.replicas)
        return GcpReplication(replicas=tuple(replicas))
    return GcpReplication(kms_key=_key(replication.automatic))


def _key(block: Any) -> str | None:
    encryption = None if block is None else block.customer_managed_encryption
    return None if encryption is None else str(encryption.kms_key_name)
