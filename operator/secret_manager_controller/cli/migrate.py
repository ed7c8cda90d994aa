"""`msmctl migrate`: the v1 form of manifests in an older one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import yaml

from secret_manager_controller.cli.errors import ExitCode
from secret_manager_controller.cli.manifests import API_VERSION, KIND, read_bodies
from secret_manager_controller.cli.terminal import note
from secret_manager_controller.cli.view import block
from secret_manager_controller.errors import ConfigError
from secret_manager_controller.model.annotations import GROUP
from secret_manager_controller.model.spec import ProviderType, parse_spec

STORES = tuple(str(kind) for kind in ProviderType)


@click.command("migrate")
@click.option("--file", "-f", "files", required=True, multiple=True, metavar="FILE", help="Manifests; - is stdin.")
def command(files: tuple[str, ...]) -> ExitCode:
    """Print the v1 form of SecretManagerConfigs in an older form."""
    bodies = [migrated(body) if is_ours(body) else body for body in read_bodies(files)]
    click.echo(yaml.safe_dump_all(bodies, sort_keys=False), nl=False)
    valid = [_is_valid(body) for body in bodies if is_ours(body)]  # Each one is noted, not only the first.
    return ExitCode.OK if all(valid) else ExitCode.FAILED


def is_ours(body: Mapping[str, Any]) -> bool:
    """Tell whether a manifest is of our kind, in whatever version."""
    return body.get("kind") == KIND and str(body.get("apiVersion", "")).startswith(f"{GROUP}/")


def migrated(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object in the canonical form of v1.

    The store moves under `spec.provider` with its type, `auth.type` becomes `auth.authType`; all else stays as it is.
    What only the controller writes is left out.
    """
    spec = dict(block(body, "spec"))
    provider = dict(block(spec, "provider"))
    for store in STORES:
        if isinstance(spec.get(store), Mapping):
            provider.setdefault(store, spec.pop(store))
    stores = [store for store in STORES if store in provider]
    if "type" not in provider and len(stores) == 1:
        provider = {"type": stores[0], **provider}
    for store in stores:
        provider[store] = _store(provider[store])
    if provider:
        spec["provider"] = provider
    rest = {name: value for name, value in body.items() if name not in ("apiVersion", "kind", "spec", "status")}
    return {"apiVersion": API_VERSION, "kind": KIND, **rest, "spec": spec}


def _store(store: Any) -> Any:
    auth = dict(block(store, "auth"))
    if "type" not in auth or auth.get("authType", auth["type"]) != auth["type"]:
        return store  # Two that contradict each other are for a person to decide.
    kind = auth.pop("type")
    return {**store, "auth": {**auth, "authType": kind}}


def _is_valid(body: Mapping[str, Any]) -> bool:
    """Note what of an object v1 refuses."""
    try:
        parse_spec(body)
    except ConfigError as error:
        note(f"SecretManagerConfig {block(body, 'metadata').get('name')}: {error.message}")
        return False
    return True
