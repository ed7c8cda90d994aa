"""The process's settings, all from environment variables, checked at the start."""

from __future__ import annotations

import enum
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from controller_telemetry.logs import LogFormat
from lease_sharding import errors as sharding_errors
from lease_sharding import settings as sharding
from secret_manager_controller import kube
from secret_manager_controller.errors import foreign
from secret_manager_controller.grants import Mode
from secret_manager_controller.providers import calls
from secret_manager_controller.render.kustomize import DEFAULT_BINARY
from secret_manager_controller.render.sandbox import Limits
from secret_manager_controller.unwrapping import AllowedKeys

DEFAULT_NAMESPACE = "microscaler-system"
LONGEST_EFFECT = max(calls.REQUEST_TIMEOUT, kube.REQUEST_TIMEOUT)
"""Seconds that one write takes at most; a session must hold for that long when the write begins."""


DEFAULT_ARTIFACT_HOSTS = "svc,svc.cluster.local"
"""The cluster's own Services, under the domain that nearly every cluster has."""


class Switch(enum.StrEnum):
    """A setting that is on or off."""

    TRUE = "true"
    FALSE = "false"


class SettingsError(Exception):
    """An environment variable has a value that cannot be used."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one controller process.

    Attributes:
        namespace: `POD_NAMESPACE`: where the controller's own Secrets are.
        metrics_port: `METRICS_PORT`: /metrics, /healthz and /readyz.
        metrics_host: `METRICS_HOST`: the address that the port is opened on.
        metrics_per_object: `METRICS_PER_OBJECT`: whether each object has a series of its own.
        log_level: `LOG_LEVEL`, or the older implementation's `RUST_LOG`.
        log_format: `LOG_FORMAT`: json, logfmt or console.
        cluster_id: `CLUSTER_ID`: part of every owner mark; kube-system's UID if unset. Set it where a rebuilt cluster
            has to keep its secrets.
        cache_directory: `CACHE_DIRECTORY`: where artifacts (encrypted, as they are in Git) are kept.
        artifact_hosts: `ARTIFACT_HOSTS`: host names, separated by commas, that Flux' artifacts may come from, each with
            all below it.
        git_hosts: `GIT_HOSTS`: host names, separated by commas, of Git servers that Applications' repositories may be
            on, each with all below it; without any, every server in mode shared, and those of policies in mode
            isolated.
        git_refresh: `GIT_REFRESH_SECONDS`: how long the refs of an Application's repository count as what they were.
        tenancy_mode: `TENANCY_MODE`: isolated, or shared by one team.
        workers: `WORKERS`: how many objects are reconciled at a time.
        shutdown_grace: `SHUTDOWN_GRACE_SECONDS`: how long a stop, or the handover of a shard, waits for reconciles that
            are under way.
        kms_keys: `SOPS_KMS_KEYS`: the keys that may unwrap SOPS data keys, separated by commas; one that only the
            objects of a namespace may use is `namespace=key`.
        kustomize_memory: `KUSTOMIZE_MEMORY_MIB`: bytes of data that a build may use.
        kustomize_timeout: `KUSTOMIZE_TIMEOUT_SECONDS`: how long a build may take.
        kustomize_binary: `KUSTOMIZE_BINARY`: a path, or a name on PATH.
        sweep_interval: `SWEEP_INTERVAL_SECONDS`: how often what the watch missed is looked for.
        replica: `POD_NAME`: the name of this replica's session, which no other one may have; the host's name if unset.
        sharding: `SHARDS`, the number of shards, which is fixed when the first replica starts; `SESSION_SECONDS`, after
            which a silent replica counts as dead; `RENEW_INTERVAL_SECONDS`; `LEASE_REQUEST_TIMEOUT_SECONDS`;
            `FENCE_MARGIN_SECONDS`, by how much sooner a replica itself stops; `TAKE_GRACE_SECONDS`, after which any
            replica takes a shard that is meant for another.
    """

    namespace: str
    metrics_port: int
    metrics_host: str
    metrics_per_object: bool
    log_level: str
    log_format: LogFormat
    cluster_id: str | None
    cache_directory: Path
    artifact_hosts: tuple[str, ...]
    git_hosts: tuple[str, ...]
    git_refresh: float
    tenancy_mode: Mode
    workers: int
    shutdown_grace: float
    sweep_interval: float
    replica: str
    sharding: sharding.Settings
    kustomize_binary: str
    kustomize_memory: int
    kustomize_timeout: float
    kms_keys: AllowedKeys

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings.

        Raises:
            SettingsError: names the variable, and what it may hold.
        """
        env = os.environ if environment is None else environment
        shutdown_grace = _number(env, "SHUTDOWN_GRACE_SECONDS", 20, least=0, most=600)
        return cls(
            namespace=env.get("POD_NAMESPACE") or DEFAULT_NAMESPACE,
            metrics_port=int(_number(env, "METRICS_PORT", 8080, least=0, most=65_535)),
            metrics_host=env.get("METRICS_HOST") or "0.0.0.0",  # noqa: S104 - the kubelet and Prometheus come from outside.
            metrics_per_object=_choice(env, "METRICS_PER_OBJECT", Switch.FALSE) is Switch.TRUE,
            log_level=_log_level(env),
            log_format=_choice(env, "LOG_FORMAT", LogFormat.JSON),
            cluster_id=env.get("CLUSTER_ID") or None,
            cache_directory=Path(env.get("CACHE_DIRECTORY") or "/tmp/secret-manager-controller"),  # noqa: S108 - a tmpfs of the pod.
            artifact_hosts=_hosts(env, "ARTIFACT_HOSTS", DEFAULT_ARTIFACT_HOSTS),
            git_hosts=_hosts(env, "GIT_HOSTS", ""),
            git_refresh=_number(env, "GIT_REFRESH_SECONDS", 60, least=1, most=86_400),
            tenancy_mode=_choice(env, "TENANCY_MODE", Mode.SHARED),
            workers=int(_number(env, "WORKERS", 16, least=1, most=256)),
            shutdown_grace=shutdown_grace,
            kustomize_memory=int(_number(env, "KUSTOMIZE_MEMORY_MIB", Limits().memory >> 20, least=128, most=8192))
            << 20,
            kustomize_timeout=_number(env, "KUSTOMIZE_TIMEOUT_SECONDS", Limits().seconds, least=1, most=240),
            kustomize_binary=env.get("KUSTOMIZE_BINARY") or DEFAULT_BINARY,
            kms_keys=_kms_keys(env.get("SOPS_KMS_KEYS") or ""),
            sweep_interval=_number(env, "SWEEP_INTERVAL_SECONDS", 300, least=1, most=86_400),
            replica=_replica(env),
            sharding=_sharding(env, drain_timeout=shutdown_grace),
        )


Choice = TypeVar("Choice", bound=enum.StrEnum)


def _choice(env: Mapping[str, str], name: str, default: Choice) -> Choice:
    raw = env.get(name) or default
    try:
        return type(default)(raw)
    except ValueError:
        raise SettingsError(f"{name}={foreign(raw)!r}: expected {' or '.join(type(default))}") from None


def _hosts(env: Mapping[str, str], name: str, default: str) -> tuple[str, ...]:
    raw = env.get(name) or default
    hosts = tuple(host.strip() for host in raw.split(",") if host.strip(" ."))
    if (raw and not hosts) or any(not _HOST.fullmatch(host) for host in hosts):
        raise SettingsError(f"{name}={foreign(raw)!r}: expected host names without ports, separated by commas")
    return hosts


def _kms_keys(text: str) -> AllowedKeys:
    try:
        return AllowedKeys.parse(text)
    except ValueError as error:
        raise SettingsError(f"SOPS_KMS_KEYS: {error}") from None


def _number(env: Mapping[str, str], name: str, default: float, *, least: float, most: float) -> float:
    raw = env.get(name) or str(default)
    try:
        value = float(raw)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise SettingsError(f"{name}={foreign(raw)!r}: expected a number from {least:g} to {most:g}")
    return value


_HOST = re.compile(r"[A-Za-z0-9._-]+")
"""A host name or an IPv4 address."""


def _replica(env: Mapping[str, str]) -> str:
    name = env.get("POD_NAME") or socket.gethostname().lower()
    if not sharding.is_name(name):
        raise SettingsError(
            f"POD_NAME={foreign(name)!r}: expected {sharding.LABEL_LENGTH} lower-case letters, digits, '-', '.' at most"
        )
    return name


_SHARDING_VARIABLES = {
    "shards": "SHARDS",
    "session_duration": "SESSION_SECONDS",
    "renew_interval": "RENEW_INTERVAL_SECONDS",
    "request_timeout": "LEASE_REQUEST_TIMEOUT_SECONDS",
    "margin": "FENCE_MARGIN_SECONDS",
    "take_grace": "TAKE_GRACE_SECONDS",
}


def _sharding(env: Mapping[str, str], *, drain_timeout: float) -> sharding.Settings:
    renew_interval = _number(env, "RENEW_INTERVAL_SECONDS", 2, least=0.1, most=600)
    try:
        settings = sharding.Settings(
            group=kube.LEASE_GROUP,
            shards=int(_number(env, "SHARDS", 32, least=1, most=sharding.MAX_SHARDS)),
            session_duration=int(_number(env, "SESSION_SECONDS", 10, least=1, most=3600)),
            renew_interval=renew_interval,
            resync_interval=renew_interval,
            request_timeout=_number(env, "LEASE_REQUEST_TIMEOUT_SECONDS", 2, least=0.1, most=60),
            margin=_number(env, "FENCE_MARGIN_SECONDS", 1, least=0.01, most=600),
            take_grace=_number(env, "TAKE_GRACE_SECONDS", 2, least=0, most=600),
            drain_timeout=drain_timeout,
        )
    except sharding_errors.SettingsError as error:
        names = "|".join(_SHARDING_VARIABLES)
        told = re.sub(rf"\b({names})\b", lambda match: _SHARDING_VARIABLES[match[0]], str(error))
        raise SettingsError(told.replace("resync_interval", "RENEW_INTERVAL_SECONDS")) from error
    if settings.longest_call < LONGEST_EFFECT:
        raise SettingsError(
            f"SESSION_SECONDS - FENCE_MARGIN_SECONDS - RENEW_INTERVAL_SECONDS is {settings.longest_call:g} s: it must "
            f"be at least {LONGEST_EFFECT:g} s, which one write to a store may take"
        )
    return settings


_LEVELS = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "info": "INFO",
    "warn": "WARNING",
    "warning": "WARNING",
    "error": "ERROR",
}


def _log_level(env: Mapping[str, str]) -> str:
    name = "LOG_LEVEL" if env.get("LOG_LEVEL") else "RUST_LOG"
    raw = env.get(name) or "info"
    # RUST_LOG may hold directives for modules, `info,hyper=warn`; the one without a module counts.
    level = _LEVELS.get(next((part for part in raw.lower().split(",") if "=" not in part), "info"))
    if level is None:
        raise SettingsError(f"{name}={foreign(raw)!r}: expected one of {', '.join(_LEVELS)}")
    return level
