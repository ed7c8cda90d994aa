"""Argo CD's objects on a `Stack`: Applications, and the logins that it keeps. Argo CD itself is not run.

source = {"repoURL": server.url("team/app"), "path": "apps/web", "targetRevision": "main"}
apply_application(stack, "web", source=source)
compared(stack, "web", revision=commit)      # what Argo CD writes when it has looked at Git
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secret_manager_controller.testing.stack import APPLICATIONS, Stack, secret_path

NAMESPACE = "argocd"
TYPE_LABEL = "argocd.argoproj.io/secret-type"


def apply_application(stack: Stack, name: str, *, namespace: str = "default", **spec: Any) -> None:
    """Apply an Application with the fields that Argo CD's docs show.

    Args:
        stack: where it is.
        name: its name.
        namespace: where it would put what it builds.
        spec: `source` or `sources`, and what else differs.
    """
    common = {
        "project": "default",
        "destination": {"server": "https://kubernetes.default.svc", "namespace": namespace},
        "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
    }
    kind = {"apiVersion": f"{APPLICATIONS.group}/{APPLICATIONS.version}", "kind": "Application"}
    stack.apply({**kind, "metadata": {"namespace": NAMESPACE, "name": name}, "spec": common | spec})


def compared(stack: Stack, name: str, *, revision: str) -> None:
    """Let Argo CD have compared an Application with a commit; status is no subresource of it."""
    path = APPLICATIONS.url(NAMESPACE, name)
    source = (stack.get(path) or {})["spec"]["source"]
    sync = {"status": "Synced", "revision": revision, "comparedTo": {"destination": {}, "source": source}}
    stack.patch(path, {"status": {"sync": sync}})


def keep_login(stack: Stack, name: str, *, kind: str = "repository", **data: bytes) -> None:
    """Make a Secret with a login as Argo CD stores it.

    Args:
        stack: where it is.
        name: the Secret's.
        kind: `repository`, or `repo-creds` for all repositories whose URL begins so.
        data: `url`, `username`, `password` and so on.
    """
    stack.create_secret(NAMESPACE, name, data)
    stack.patch(secret_path(NAMESPACE, name), {"metadata": {"labels": {TYPE_LABEL: kind}}})


def keep_known(stack: Stack, name: str, data: Mapping[str, str]) -> None:
    """Make one of Argo CD's ConfigMaps: `argocd-tls-certs-cm` or `argocd-ssh-known-hosts-cm`."""
    metadata = {"namespace": NAMESPACE, "name": name}
    stack.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)})
