"""`msmctl check`: what is missing for objects to work, and the command or manifest that mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import click
import yaml

from secret_manager_controller.cli.cluster import connect, list_objects
from secret_manager_controller.cli.errors import CliError, ExitCode
from secret_manager_controller.cli.options import NAMESPACE_NAME, OBJECT_NAME, ClusterOptions, cluster_options
from secret_manager_controller.cli.output import Body
from secret_manager_controller.cli.terminal import printable, say
from secret_manager_controller.cli.view import block
from secret_manager_controller.errors import ConfigError
from secret_manager_controller.kube import (
    SECRET_MANAGER_CONFIGS,
    SECRET_MANAGER_POLICIES,
    SOPS_SECRETS,
    KubeClient,
    KubeError,
    ResourcePath,
)
from secret_manager_controller.model.spec import Spec, parse_spec

INSTALL = "kubectl apply --server-side -f deploy/install.yaml"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
SOURCE_GROUPS = {"source.toolkit.fluxcd.io": "Flux", "argoproj.io": "Argo CD"}
NAME = "secret-manager-controller"


@dataclass(frozen=True, slots=True)
class Account:
    """The controller's ServiceAccount."""

    namespace: str
    name: str

    def may_get(self, namespace: str, secret: str) -> Mapping[str, object]:
        """Return the question whether it may read a Secret."""
        attributes = {"verb": "get", "resource": "secrets", "namespace": namespace, "name": secret}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated"]
        user = f"system:serviceaccount:{self.namespace}:{self.name}"
        return {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        }


@click.command("check")
@click.option("--namespace", "-N", type=NAMESPACE_NAME, help="Namespace whose objects are checked; all by default.")
@click.option(
    "--controller-namespace",
    default="microscaler-system",
    show_default=True,
    type=NAMESPACE_NAME,
    help="The namespace that the controller runs in.",
)
@click.option(
    "--service-account", default=NAME, show_default=True, type=OBJECT_NAME, help="The controller's ServiceAccount."
)
@cluster_options
def command(namespace: str | None, controller_namespace: str, service_account: str, where: ClusterOptions) -> ExitCode:
    """Check the cluster, the CRDs, the sources and the controller's rights."""
    account = Account(controller_namespace, service_account)
    return ExitCode.OK if asyncio.run(_check(namespace, account, where)) else ExitCode.FAILED


async def _check(namespace: str | None, account: Account, where: ClusterOptions) -> bool:
    async with connect(where) as kube:
        try:
            installed = [await _served(kube, kind) for kind in (SECRET_MANAGER_CONFIGS, SECRET_MANAGER_POLICIES)]
            sources = await _sources(kube)
            if not all(installed):
                return False
            bodies = await list_objects(kube, namespace, lambda body: body)
            missing = await _unreadable(kube, secrets_of(bodies), account)
        except KubeError as error:
            raise CliError(f"Failed to check: {error.message}; check with `kubectl auth can-i --list`") from error
    for place, names in missing.items():
        say("---")
        say(yaml.safe_dump_all(role_of(place, names, account), sort_keys=False).rstrip())
    return sources and not missing


async def _served(kube: KubeClient, kind: ResourcePath) -> bool:
    served = await kube.get(f"{kind.url()}?limit=1") is not None
    return _told(served, f"{kind.plural}.{kind.group} is installed", mend=INSTALL)


async def _sources(kube: KubeClient) -> bool:
    found = [name for group, name in SOURCE_GROUPS.items() if await kube.get(f"/apis/{group}") is not None]
    what = f"sources are served by {' and '.join(found)}" if found else "sources are served"
    return _told(bool(found), what, mend="install Flux or Argo CD")


async def _unreadable(kube: KubeClient, wanted: Mapping[str, set[str]], account: Account) -> dict[str, list[str]]:
    """Return the Secrets of each namespace where the controller may not read all, since its Role has to name all."""
    missing: dict[str, list[str]] = {}
    for place, names in sorted(wanted.items()):
        denied = [
            name
            for name in sorted(names)
            if block(await kube.create(REVIEWS, account.may_get(place, name)), "status").get("allowed") is not True
        ]
        told = f"the controller may read {', '.join(sorted(names))} in namespace {printable(place)}"
        _told(not denied, told, mend=f"msmctl check -N {printable(place)} | kubectl apply -f -")
        if denied:
            missing[place] = sorted(names)
    return missing


def _told(ok: bool, what: str, *, mend: str) -> bool:
    """Write one line to stderr, so that stdout is nothing but manifests."""
    click.secho(f"ok: {what}" if ok else f"missing: {what}; {mend}", fg="green" if ok else "red", err=True)
    return ok


def secrets_of(bodies: list[Body]) -> dict[str, set[str]]:
    """Return the Secrets that objects need, by namespace; of an object whose spec is not valid there is none."""
    wanted: dict[str, set[str]] = {}
    for body in bodies:
        namespace = str(body["metadata"]["namespace"])
        try:
            spec = parse_spec(body)
        except ConfigError:
            continue
        wanted.setdefault(namespace, set()).update(SOPS_SECRETS)
        for place, name in _named(spec, namespace):
            wanted.setdefault(place, set()).add(name)
    return wanted


def _named(spec: Spec, namespace: str) -> Iterator[tuple[str, str]]:
    auth, login, otel = spec.provider.auth, spec.source_ref.git_credentials, spec.otel
    if auth is not None and auth.secret_name is not None:
        yield auth.secret_namespace or namespace, auth.secret_name
    if login is not None:
        yield namespace, login.secret_name
    if otel is not None:
        for reference in (otel.headers_secret_ref, otel.ca_secret_ref, otel.api_key_secret_ref):
            if reference is not None:
                yield namespace, reference.name


def role_of(namespace: str, names: list[str], account: Account) -> list[Mapping[str, object]]:
    """Return the Role that lets the controller read Secrets of a namespace, and its binding."""
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]}
    return bound_role(namespace, f"{NAME}-secrets", [rule], account)


def bound_role(
    namespace: str, name: str, rules: Iterable[Mapping[str, object]], account: Account
) -> list[Mapping[str, object]]:
    """Return a Role with rules as Kubernetes has them, and the RoleBinding that gives it to a ServiceAccount."""
    metadata = {"name": name, "namespace": namespace}
    api = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
            "subjects": [subject],
        },
    ]
