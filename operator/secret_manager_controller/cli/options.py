"""Options that several verbs share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

LONGEST_NAME = 253

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


class KubernetesName(click.ParamType[str]):
    """A name as Kubernetes has them; anything else would change the meaning of the API path that it becomes part of.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
    """

    def __init__(self, name: str, pattern: str) -> None:
        self.name = name
        self._pattern = re.compile(pattern)

    def matches(self, value: str) -> bool:
        """Tell whether a text is such a name."""
        return len(value) <= LONGEST_NAME and self._pattern.fullmatch(value) is not None

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, or fail with a usage error."""
        if not self.matches(value):
            self.fail(f"{value!r} is no Kubernetes name: lower-case letters, digits and dashes", param, ctx)
        return str(value)


OBJECT_NAME = KubernetesName("name", rf"{_LABEL}(\.{_LABEL})*")
NAMESPACE_NAME = KubernetesName("namespace", _LABEL)

name_option = click.option("--name", "-n", required=True, type=OBJECT_NAME, help="Name of the SecretManagerConfig.")
namespace_option = click.option(
    "--namespace", "-N", default="default", show_default=True, type=NAMESPACE_NAME, help="Its namespace."
)


def output_option(*formats: str) -> Callable[[F], F]:
    """Return the option `-o`; the first format is the default."""
    return click.option(
        "--output", "-o", type=click.Choice(formats), default=formats[0], show_default=True, help="How to print it."
    )


controller_namespace_option = click.option(
    "--controller-namespace",
    envvar="POD_NAMESPACE",
    default="microscaler-system",
    show_default=True,
    show_envvar=True,
    type=NAMESPACE_NAME,
    help="Namespace of the controller.",
)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which cluster, as the user gave it."""

    kubeconfig: str | None
    context: str | None


def cluster_options(command: F) -> F:
    """Add `--kubeconfig` and `--context`, handed to the command as `where`."""

    @click.option("--kubeconfig", metavar="FILE", help="kubeconfig to use instead of KUBECONFIG or ~/.kube/config.")
    @click.option("--context", metavar="NAME", help="Context of the kubeconfig; its current one by default.")
    @functools.wraps(command)
    def wrapped(*args: Any, kubeconfig: str | None, context: str | None, **options: Any) -> Any:
        return command(*args, where=ClusterOptions(kubeconfig, context), **options)

    return wrapped  # type: ignore[return-value]  # A click command's function may have any signature.


@dataclass(frozen=True, slots=True)
class OneShotOptions:
    """What a verb without a cluster works on.

    Attributes:
        files: manifests; `-` is stdin.
        source: the directory that stands for the Git source.
        key_files: SOPS keys.
        cluster_id: part of the owner marks.
        confirm_prune: whether more may be pruned than the bound allows.
    """

    files: tuple[str, ...]
    source: Path
    key_files: tuple[Path, ...]
    cluster_id: str
    confirm_prune: bool


def one_shot_options(command: F) -> F:
    """Add the options of the verbs without a cluster, handed to the command as `what`."""

    @click.option(
        "--file", "-f", "files", required=True, multiple=True, metavar="FILE", help="Manifests in YAML; - is stdin."
    )
    @click.option(
        "--source",
        required=True,
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Directory that stands for the Git source.",
    )
    @click.option(
        "--key-file",
        "key_files",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="SOPS key, age or armored PGP, beside those of SOPS_AGE_KEY and SOPS_AGE_KEY_FILE.",
    )
    @click.option(
        "--cluster-id",
        envvar="CLUSTER_ID",
        default="standalone",
        show_default=True,
        show_envvar=True,
        metavar="ID",
        help="Whose secrets these are: a part of the owner marks in the store.",
    )
    @click.option("--confirm-prune", is_flag=True, help="Let prune delete more than half of the secrets.")
    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        names = [field.name for field in fields(OneShotOptions)]
        return command(*args, what=OneShotOptions(**{name: options.pop(name) for name in names}), **options)

    return wrapped  # type: ignore[return-value]  # A click command's function may have any signature.
