"""SecretManagerConfigs from YAML files, for the verbs that work without a cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from secret_manager_controller.cli.errors import CliError
from secret_manager_controller.cli.options import NAMESPACE_NAME, OBJECT_NAME
from secret_manager_controller.cli.terminal import note, printable
from secret_manager_controller.cli.view import block
from secret_manager_controller.model.annotations import CONFIRM_PRUNE, GROUP

API_VERSION = f"{GROUP}/v1"
KIND = "SecretManagerConfig"
STDIN = "-"

MAX_FILE_BYTES = 16 << 20
"""As much as etcd would take for ten objects of the largest size; a manifest has a kilobyte."""
MAX_NODES = 200_000
"""Values in a file with its aliases written out, which is how they are read; 10,000 objects have so many."""
MAX_DEPTH = 100
"""A manifest has ten levels."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One SecretManagerConfig of a file.

    Attributes:
        body: the object as it is written.
    """

    namespace: str
    name: str
    body: Mapping[str, Any]

    @property
    def confirm_prune(self) -> str | None:
        """The revision that its annotation lets many secrets be pruned at."""
        value = block(block(self.body, "metadata"), "annotations").get(CONFIRM_PRUNE)
        return value if isinstance(value, str) else None

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def read_manifests(files: Iterable[str]) -> tuple[Manifest, ...]:
    """Return all SecretManagerConfigs of the files, in order; `-` is stdin.

    Raises:
        CliError: a file cannot be read or is no YAML, an object has no name, or comes twice; or there is none at all.
    """
    manifests: dict[str, Manifest] = {}
    for file in files:
        for document in _documents(file):
            for body in _items(document):
                manifest = _manifest(body, file)
                if manifest is not None and manifests.setdefault(str(manifest), manifest) is not manifest:
                    raise CliError(f"{file}: SecretManagerConfig '{manifest}' comes twice; remove or rename one")
    if not manifests:
        raise CliError(f"no {KIND} in {', '.join(files)}; is it the right file?")
    return tuple(manifests.values())


def read_bodies(files: Iterable[str]) -> tuple[Mapping[str, Any], ...]:
    """Return all Kubernetes objects of the files, of whatever kind and version, in order; `-` is stdin.

    Raises:
        CliError: a file cannot be read, is no YAML or holds something else; or there is none at all.
    """
    bodies = [body for file in files for document in _documents(file) for body in _items(document)]
    if not bodies or not all(isinstance(body, Mapping) for body in bodies):
        raise CliError(f"no Kubernetes objects in {', '.join(files)}; is it the right file?")
    return tuple(bodies)


def _documents(file: str) -> list[Any]:
    try:
        data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1) if file == STDIN else _head(Path(file))
    except OSError as error:
        raise CliError(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise CliError(f"{file} is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
    try:
        documents = list(yaml.load_all(data, Loader=_Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CliError(f"{file} is no valid YAML: {_problem(error)}") from error
    _check_size(documents, file)
    return documents


def _problem(error: Exception) -> str:
    """Return what is wrong and in which line, without the line itself."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return type(error).__name__
    where = f" in line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
    return f"{error.problem or 'it cannot be read'}{where}"


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_FILE_BYTES + 1)


def _check_size(documents: list[Any], file: str) -> None:
    """Refuse what aliases would blow up, what contains itself, and what no recursion would survive."""
    pending: list[tuple[Any, int]] = [(documents, 0)]
    seen = 0
    while pending:
        value, depth = pending.pop()
        children: list[Any] = list(value.values() if isinstance(value, Mapping) else value)
        seen += 1 + len(children)
        if seen > MAX_NODES or depth > MAX_DEPTH:
            raise CliError(
                f"{file} holds more than {MAX_NODES} values, counting each alias anew, or nests them more than "
                f"{MAX_DEPTH} deep; is it the right file?"
            )
        pending.extend((child, depth + 1) for child in children if isinstance(child, Mapping | list))


def _items(document: Any) -> Iterator[Any]:
    """Yield the objects of a document: itself, or those of a List as `kubectl get -o yaml` prints it."""
    if isinstance(document, Mapping) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        yield from document["items"]
    elif document is not None:
        yield document


def _manifest(body: Any, file: str) -> Manifest | None:
    """Return one SecretManagerConfig, or None for another kind of object, which a note tells."""
    if not isinstance(body, Mapping):
        raise CliError(f"{file} holds a document that is no Kubernetes object; is it the right file?")
    kind, version = printable(body.get("kind")), printable(body.get("apiVersion"))
    if kind != KIND or not version.startswith(f"{GROUP}/"):
        note(f"{file}: left out an object of kind {kind}")
        return None
    if version != API_VERSION:
        raise CliError(f"{file}: apiVersion {version} is unknown; use {API_VERSION}")
    metadata = block(body, "metadata")
    name, namespace = metadata.get("name"), metadata.get("namespace", "default")
    if not (isinstance(name, str) and OBJECT_NAME.matches(name)):
        raise CliError(f"{file}: a {KIND} has no valid metadata.name; set it")
    if not (isinstance(namespace, str) and NAMESPACE_NAME.matches(namespace)):
        raise CliError(f"{file}: {KIND} {name} has no valid metadata.namespace; correct it")
    return Manifest(namespace, name, body)
