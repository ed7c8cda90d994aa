"""The two ways to log in to Azure, and where it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
PUBLIC_SUFFIX = "vault.azure.net"

VAULT_SUFFIXES: Mapping[str, str] = {
    # https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#vault-name-and-object-name
    "login.microsoftonline.com": PUBLIC_SUFFIX,
    "login.microsoftonline.us": "vault.usgovcloudapi.net",
    "login.partner.microsoftonline.cn": "vault.azure.cn",
    "login.chinacloudapi.cn": "vault.azure.cn",
}
"""Where the vaults of each of Microsoft's clouds are, by the host of its Entra ID."""

AZURE_KEY = re.compile(
    r"(?P<key>(?P<vault>https://[a-z0-9-]{3,24}\.(?P<suffix>[a-z0-9-]+(?:\.[a-z0-9-]+)+))/keys/"
    r"(?P<name>[0-9A-Za-z-]{1,127}))(?:/(?P<version>[0-9a-f]{32}))?"
)
"""A key of a Key Vault, with or without a version.
https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#object-identifiers"""


@dataclass(frozen=True, slots=True)
class AzureClientSecret:
    """An application of Entra ID and a secret of it."""

    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)

    @property
    def title(self) -> str:
        """How messages name the login."""
        return f"application {self.client_id}"


@dataclass(frozen=True, slots=True)
class AzureFederation:
    """A managed identity or application that trusts the pod's service account (workload identity).

    Attributes:
        token_file: the token that the kubelet projects and replaces.
    """

    tenant_id: str
    client_id: str
    token_file: Path

    @property
    def title(self) -> str:
        """How messages name the login."""
        return f"identity {self.client_id}"


AzureLogin = AzureClientSecret | AzureFederation


@dataclass(frozen=True, slots=True)
class AzureEndpoints:
    """Where Entra ID and the vaults are, and how they are reached.

    A private endpoint needs nothing here: the vault keeps its name, and the name resolves to another address.

    Attributes:
        authority: the URL of Entra ID; `https://` may be left out.
        vault_suffix: what follows a vault's name in its host name; by default, that of the authority's cloud.
        proxy: the URL of a proxy that requests go through.
        no_proxy: hosts that are reached without it, as in the variable NO_PROXY: domains, divided by commas, or `*`.
        ca_file: certificates to trust instead of the usual ones.
    """

    authority: str = PUBLIC_AUTHORITY
    vault_suffix: str | None = None
    proxy: str | None = None
    no_proxy: str = ""
    ca_file: Path | None = None

    @property
    def login_url(self) -> str:
        """The authority with its scheme."""
        return self.authority if "://" in self.authority else f"https://{self.authority}"

    @property
    def suffix(self) -> str:
        """The domain of all vaults."""
        host = self.login_url.partition("://")[2].partition("/")[0].partition(":")[0]
        return self.vault_suffix or VAULT_SUFFIXES.get(host.lower(), PUBLIC_SUFFIX)

    @property
    def scope(self) -> str:
        """What tokens for vaults are asked for."""
        return f"https://{self.suffix}/.default"

    def vault_url(self, vault: str) -> str:
        """Return a vault's URL."""
        return f"https://{vault}.{self.suffix}"
