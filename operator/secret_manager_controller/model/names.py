"""Names of secrets in a store: how prefix, key and suffix become one, and what each store allows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.secret import SecretName


@dataclass(frozen=True, slots=True)
class StoreRules:
    """What a store allows.

    Attributes:
        title: the store's name in messages.
        forbidden: one character that a name cannot hold, as a regular expression.
        replacement: what stands in for it.
        max_name: longest name in characters.
        max_value: largest value in bytes. Every store refuses an empty one, or makes it indistinguishable from none.
        ignores_case: whether two names that differ in case are one.
    """

    title: str
    forbidden: re.Pattern[str]
    replacement: str
    max_name: int
    max_value: int
    ignores_case: bool = False


STORE_RULES: Mapping[str, StoreRules] = {
    # https://cloud.google.com/secret-manager/quotas, …/docs/reference/rest/v1/projects.secrets/create
    "gcp": StoreRules("Google Secret Manager", re.compile(r"[^A-Za-z0-9_-]"), "_", 255, 65_536),
    # https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
    "aws": StoreRules("AWS Secrets Manager", re.compile(r"[^A-Za-z0-9/_+=.@-]"), "_", 512, 65_536),
    # https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates; 25 KB is 25 * 1024 bytes.
    "azure": StoreRules("Azure Key Vault", re.compile(r"[^A-Za-z0-9-]"), "-", 127, 25_600, ignores_case=True),
}
"""By `spec.provider.type`."""

_DASHES = re.compile(r"-{2,}")


def secret_name(key: str, *, prefix: str | None, suffix: str | None, rules: StoreRules) -> SecretName:
    """Join prefix, key and suffix by `-` and replace what the store does not allow.

    Leading and trailing dashes of prefix and suffix are trimmed and runs of dashes collapse, as in
    kustomize-google-secret-manager; case is kept.

    Raises:
        PermanentError: InvalidName: nothing is left of the key, or the name is too long.
    """
    parts = [(prefix or "").strip("-"), key, (suffix or "").strip("-")]
    joined = "-".join(rules.forbidden.sub(rules.replacement, part) for part in parts if part)
    name = _DASHES.sub("-", joined)
    if not key.strip() or not name.strip("-_"):
        raise PermanentError(
            Reason.INVALID_NAME,
            f"key {foreign(repr(key))} leaves no name for {rules.title}; rename it in Git",
        )
    if len(name) > rules.max_name:
        raise PermanentError(
            Reason.INVALID_NAME,
            f"key {foreign(repr(key))} makes a name of {len(name)} characters; {rules.title} allows "
            f"{rules.max_name}: shorten the key, spec.secrets.prefix or spec.secrets.suffix",
        )
    return SecretName(name)
