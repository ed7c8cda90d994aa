"""The ways to log in to Google Cloud, and where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

GCP_KEY = re.compile(
    r"projects/[a-z0-9.:-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}"
)
"""A key of Cloud KMS, https://cloud.google.com/kms/docs/resource-hierarchy#retrieve_resource_id"""

GOOGLE = "googleapis.com"
"""The universe domain of Google's public cloud."""
METADATA_HOST = "metadata.google.internal"


def _acting_as(impersonate: str | None) -> str | None:
    """Return how messages name a login that acts as a service account; None where it acts as itself."""
    return f"service account {impersonate}" if impersonate else None


@dataclass(frozen=True, slots=True)
class GcpMetadata:
    """The workload's own identity, as GKE's or Compute Engine's metadata server tells it.

    Attributes:
        host: where the server is, with a port if it is not 80.
        impersonate: the email of a service account to act as instead.
    """

    host: str = METADATA_HOST
    impersonate: str | None = None

    @property
    def title(self) -> str:
        """How messages name the login."""
        return _acting_as(self.impersonate) or "the workload's service account"


@dataclass(frozen=True, slots=True)
class GcpFederation:
    """A cluster's projected token, exchanged as a credential configuration file says.

    Attributes:
        file: the configuration, as `gcloud iam workload-identity-pools create-cred-config` writes it. It is trusted: it
            names the file that is sent and the address that it is sent to.
        impersonate: the email of a service account to act as; the file's own, if it has one, is not used then.
    """

    file: Path
    impersonate: str | None = None

    @property
    def title(self) -> str:
        """How messages name the login."""
        return _acting_as(self.impersonate) or f"the federation of {self.file}"


@dataclass(frozen=True, slots=True)
class GcpKey:
    """A service account's key from a Secret. It is not trusted: no address in it is used.

    Attributes:
        document: the JSON document.
        impersonate: the email of a service account to act as instead.
    """

    document: bytes = field(repr=False)
    impersonate: str | None = None

    @property
    def title(self) -> str:
        """How messages name the login."""
        return _acting_as(self.impersonate) or "the service account's key"


@dataclass(frozen=True, slots=True)
class GcpKeyFile:
    """A service account's key from a file, which is read again whenever a token is needed.

    Attributes:
        file: the JSON document.
        impersonate: the email of a service account to act as instead.
    """

    file: Path
    impersonate: str | None = None

    @property
    def title(self) -> str:
        """How messages name the login."""
        return _acting_as(self.impersonate) or f"the key in {self.file}"


@dataclass(frozen=True, slots=True)
class GcpCredentialsFile:
    """A file that is either of both: a service account's key, or a credential configuration. It is trusted.

    Attributes:
        file: the JSON document.
        impersonate: the email of a service account to act as instead.
    """

    file: Path
    impersonate: str | None = None

    @property
    def title(self) -> str:
        """How messages name the login."""
        return _acting_as(self.impersonate) or f"the credentials in {self.file}"


GcpLogin = GcpMetadata | GcpFederation | GcpKey | GcpKeyFile | GcpCredentialsFile


@dataclass(frozen=True, slots=True)
class GcpEndpoints:
    """Addresses of the services, e.g. of private endpoints; None is Google's own.

    Attributes:
        secretmanager: URL; `http://` is for loopback only, since tokens and values travel with it.
        kms: URL of Cloud KMS, likewise.
        token_url: URL of the token endpoint, for keys.
        iamcredentials: URL of IAM Credentials' host, for impersonation.
        universe: another universe's domain, e.g. a sovereign cloud's.
        roots: PEM file of the authorities to trust instead of the public ones.
    """

    secretmanager: str | None = None
    token_url: str | None = None
    iamcredentials: str | None = None
    universe: str = GOOGLE
    roots: Path | None = None
    kms: str | None = None


@dataclass(frozen=True, slots=True)
class GcpReplication:
    """Where new global secrets are kept.

    Attributes:
        replicas: the places, each with the KMS key to encrypt with or None for Google's; without any, Google chooses.
        kms_key: where Google chooses, the KMS key to encrypt with.
    """

    replicas: tuple[tuple[str, str | None], ...] = ()
    kms_key: str | None = None


@dataclass(frozen=True, slots=True)
class GcpQuotas:
    """Requests a minute that the project allows (https://cloud.google.com/secret-manager/quotas).

    Reads of values, 90,000 a minute, are out of reach for one controller.
    """

    reads: int = 600
    writes: int = 600
