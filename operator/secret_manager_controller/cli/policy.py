"""`msmctl policy explain`: what grants or denies each reference of an object, by the controller's own decision."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from secret_manager_controller.cli.cluster import ObjectKey, connect, read_object
from secret_manager_controller.cli.errors import CliError, ExitCode
from secret_manager_controller.cli.options import NAMESPACE_NAME, OBJECT_NAME, ClusterOptions, cluster_options
from secret_manager_controller.cli.output import Body
from secret_manager_controller.cli.terminal import note, printable, say
from secret_manager_controller.cli.view import status_of
from secret_manager_controller.errors import AccessDenied, ConfigError
from secret_manager_controller.grants import Decision, Grants, Mode, Tenancy
from secret_manager_controller.kube import NAMESPACES, SECRET_MANAGER_POLICIES, KubeClient, KubeError
from secret_manager_controller.model.policy import Policy, parse_policy
from secret_manager_controller.model.spec import SourceKind, Spec, parse_spec
from secret_manager_controller.tenancy import authorize, explain


@click.group("policy")
def command() -> None:
    """See what SecretManagerPolicies grant."""


@command.command("explain")
@click.argument("name", type=OBJECT_NAME)
@click.option(
    "--namespace", "-n", "-N", default="default", show_default=True, type=NAMESPACE_NAME, help="Its namespace."
)
@click.option(
    "--mode",
    type=click.Choice([str(mode) for mode in Mode]),
    default=str(Mode.ISOLATED),
    show_default=True,
    help="The controller's TENANCY_MODE.",
)
@click.option(
    "--controller-namespace",
    default="microscaler-system",
    show_default=True,
    type=NAMESPACE_NAME,
    help="The namespace that the controller runs in.",
)
@click.option("--controller-account", metavar="ID", help="AWS account of the controller's own role.")
@cluster_options
def explain_command(
    name: str,
    namespace: str,
    mode: str,
    controller_namespace: str,
    controller_account: str | None,
    where: ClusterOptions,
) -> ExitCode:
    """Show what grants or denies each reference of a SecretManagerConfig."""
    tenancy = Tenancy(controller_namespace=controller_namespace, mode=Mode(mode), controller_account=controller_account)
    allowed = asyncio.run(_explain(ObjectKey(namespace, name), tenancy, where))
    return ExitCode.OK if allowed else ExitCode.FAILED


async def _explain(key: ObjectKey, tenancy: Tenancy, where: ClusterOptions) -> bool:
    async with connect(where) as kube:
        body = await read_object(kube, key, failing=f"Failed to read SecretManagerConfig '{key}'")
        policies = [] if tenancy.mode is Mode.SHARED else await _policies(kube, key.namespace)
    try:
        spec = parse_spec(body)
    except ConfigError as error:
        raise CliError(f"the spec of '{key}' is not valid: {error.message}") from error
    decisions = explain(spec, namespace=key.namespace, tenancy=tenancy, policies=policies)
    denied = [decision for decision in decisions if decision.missing is not None and decision.stops]
    names = None if denied else _names_denied(spec, key, tenancy, policies, body)
    verdict = "denied" if denied or names else "allowed"
    say(f"SecretManagerConfig '{key}' in mode {tenancy.mode}: {verdict}", colour="red" if denied else "green")
    if tenancy.mode is Mode.ISOLATED:
        say(f"Policies for namespace '{key.namespace}': {', '.join(p.name for p in policies) or 'none'}")
    rows = [(one.field, printable(one.target), _verdict_of(one)) for one in decisions]
    if not denied:
        grants = authorize(spec, namespace=key.namespace, tenancy=tenancy, policies=policies)
        rows += _further_rows(grants, key.namespace, tenancy, names)
    for field, what, told in rows:
        say(f"\n{field}: {what}")
        say(f"  {told}")
    return verdict == "allowed"


def _verdict_of(decision: Decision) -> str:
    if decision.missing is not None:
        rest = "" if decision.stops else "; the secrets are kept in sync, without traces"
        return f"denied: {printable(decision.missing)}{rest}"
    return f"allowed: {printable(decision.granted_by)}"


def _further_rows(grants: Grants, namespace: str, tenancy: Tenancy, names: str | None) -> list[tuple[str, str, str]]:
    """Return what the grants mean for names, keys and Git servers, which no spec names."""
    prefixes = (
        "any name" if grants.name_prefixes is None else "names that begin with " + ", ".join(grants.name_prefixes)
    )
    keys = "allowed" if tenancy.controller_namespace in grants.key_namespaces else f"denied: {grants.missing_keys}"
    rows = [
        ("spec.secrets", printable(prefixes), "allowed" if names is None else f"denied: {printable(names)}"),
        ("(SOPS keys)", "the controller's, if the namespace has none", printable(keys)),
    ]
    if grants.kms_keys is not None:
        rows.append(("(KMS keys)", "keys of a KMS that files name", _listed("kmsKeys", grants.kms_keys, namespace)))
    if grants.source.kind == SourceKind.APPLICATION and grants.source.git_hosts is not None:
        what = "the host of the Application's repository, beside those of GIT_HOSTS"
        rows.append(("(Git servers)", what, _listed("gitHosts", grants.source.git_hosts, namespace)))
    return rows


def _listed(field: str, granted: Sequence[str], namespace: str) -> str:
    if granted:
        return printable(f"allowed: {', '.join(granted)}")
    return printable(f"denied: no SecretManagerPolicy for {namespace!r} has any in spec.{field}")


def _names_denied(spec: Spec, key: ObjectKey, tenancy: Tenancy, policies: Sequence[Policy], body: Body) -> str | None:
    """Return why the names that the object owns already are not granted; None if they are."""
    try:
        grants = authorize(spec, namespace=key.namespace, tenancy=tenancy, policies=policies)
        grants.check_names(status_of(body).inventory)
    except AccessDenied as error:
        return error.message
    return None


async def _policies(kube: KubeClient, namespace: str) -> list[Policy]:
    """Return the policies for a namespace, as the controller finds them."""
    try:
        found = await kube.get(NAMESPACES.url(name=namespace)) or {"metadata": {}}
        bodies = [body async for body in kube.list_objects(SECRET_MANAGER_POLICIES)]
    except KubeError as error:
        raise CliError(
            f"Failed to read policies: {error.message}; it needs get on namespaces and list on secretmanagerpolicies"
        ) from error
    labels, policies = found["metadata"].get("labels") or {}, []
    for body in bodies:
        try:
            policy = parse_policy(body)
        except ConfigError as error:
            note(f"SecretManagerPolicy {body['metadata']['name']} grants nothing: {error.message}")
            continue
        if policy.spec.namespaces.include(namespace, labels):
            policies.append(policy)
    return sorted(policies, key=lambda policy: policy.name)
