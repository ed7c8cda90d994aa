"""What the store should hold: every entry of the source under its final name, checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.inventory import MAX_SECRETS
from secret_manager_controller.model.names import StoreRules, secret_name
from secret_manager_controller.model.plaintext import Entry, Plaintext
from secret_manager_controller.model.secret import SecretName, SecretValue, SourceHash


@dataclass(frozen=True, slots=True)
class DesiredSecret:
    """One secret as Git wants it."""

    name: SecretName
    value: SecretValue
    source_hash: SourceHash


@dataclass(frozen=True, slots=True)
class DesiredState:
    """All secrets as Git wants them, by name."""

    secrets: Mapping[SecretName, DesiredSecret]


def desired_state(plaintext: Plaintext, *, prefix: str | None, suffix: str | None, rules: StoreRules) -> DesiredState:
    """Name every entry for the store and check the whole before anything is written.

    Args:
        plaintext: what rendering found.
        prefix: `spec.secrets.prefix`; each service's directory name where it is None.
        suffix: `spec.secrets.suffix`.
        rules: the store's limits.

    Raises:
        PermanentError: EmptySource, EmptyValue, ValueTooLarge, InvalidName, NameCollision or TooManySecrets. None of
            the secrets is written then.
    """
    secrets: dict[SecretName, DesiredSecret] = {}
    taken: dict[str, Entry] = {}
    for service in plaintext.services:
        for entry in service.entries:
            _check_value(entry, rules)
            name = secret_name(
                entry.key,
                prefix=service.service if prefix is None else prefix,
                suffix=suffix,
                rules=rules,
            )
            identity = name.lower() if rules.ignores_case else name
            if (first := taken.setdefault(identity, entry)) is not entry:
                raise PermanentError(
                    Reason.NAME_COLLISION,
                    f"{_told(first)} and {_told(entry)} would both become {name!r} in {rules.title}; rename one",
                )
            secrets[name] = DesiredSecret(name=name, value=entry.value, source_hash=entry.source_hash)
    if not secrets:
        raise PermanentError(Reason.EMPTY_SOURCE, "the source holds no secret for this object; nothing is deleted")
    if len(secrets) > MAX_SECRETS:
        raise PermanentError(
            Reason.TOO_MANY_SECRETS,
            f"the source holds {len(secrets)} secrets for this object; at most {MAX_SECRETS} are allowed: split it "
            "into several SecretManagerConfigs",
        )
    return DesiredState(secrets)


def _check_value(entry: Entry, rules: StoreRules) -> None:
    if len(entry.value) == 0:
        raise PermanentError(
            Reason.EMPTY_VALUE,
            f"{_told(entry)} is empty, which {rules.title} cannot hold; give it a value or remove it",
        )
    if len(entry.value) > rules.max_value:
        raise PermanentError(
            Reason.VALUE_TOO_LARGE,
            f"{_told(entry)} has {len(entry.value)} bytes; {rules.title} holds at most {rules.max_value}",
        )


def _told(entry: Entry) -> str:
    return f"key {foreign(repr(entry.key))} of {foreign(entry.path)}"
