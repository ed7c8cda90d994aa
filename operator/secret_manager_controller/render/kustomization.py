"""What one kustomization file refers to: every field that it may have, and which of them name files.

kustomize itself fetches what looks like a URL, and no switch turns that off. So nothing is handed to it that was not
read here: a field that is not known is refused by name, a reference that is not a path inside the source is refused
before anything starts, and only what was referred to is copied. Field names: api/types of sigs.k8s.io/kustomize. Go
reads them in any case; here only their documented spelling is known.

Not supported, and refused by name: Helm charts; generators, transformers and validators (plugins or functions).
"""

from __future__ import annotations

import enum
import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from secret_manager_controller.decrypt.formats.yamldoc import YamlDocuments
from secret_manager_controller.decrypt.refusal import RefusedError
from secret_manager_controller.errors import PermanentError, Reason, foreign

KUSTOMIZATION_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")


class Target(enum.Enum):
    """What a reference may name."""

    FILE = enum.auto()
    DIRECTORY = enum.auto()
    EITHER = enum.auto()


class Use(enum.Enum):
    """What kustomize does with a file: it parses manifests, and takes a generator's input as it is."""

    MANIFEST = enum.auto()
    INPUT = enum.auto()


@dataclass(frozen=True, slots=True)
class Reference:
    """One path that a kustomization names.

    Attributes:
        field: where it stands, e.g. `resources[0]`.
        path: relative to the source's root, without `.` and `..`.
    """

    field: str
    path: str
    target: Target
    use: Use


def references(data: bytes, *, path: str) -> tuple[Reference, ...]:
    """Return what a kustomization file refers to, in the file's order.

    Args:
        data: the file.
        path: where it is in the source.

    Raises:
        PermanentError: BuildFailed: it is no kustomization, has a field that is not supported, or refers to something
            that is not inside the source.
    """
    reader = _Reader(path)
    return tuple(reader.references(_parsed(data, path)))


def _parsed(data: bytes, path: str) -> Mapping[str, Any]:
    problem, documents = "", []
    try:
        documents = YamlDocuments().parse(data)
    except RefusedError as refused:
        problem = refused.message
    if not problem and len(documents) != 1:
        problem = f"it has {len(documents)} YAML documents, and must have one"
    if problem:
        raise PermanentError(Reason.BUILD_FAILED, f"{foreign(path)}: {problem}")
    return documents[0]


class _Reader:
    """Reads one kustomization file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = posixpath.dirname(path)

    def references(self, document: Mapping[str, Any]) -> Iterator[Reference]:
        for field, value in document.items():
            if field in _UNSUPPORTED and value:
                raise self._refused(field, f"is not supported: {_UNSUPPORTED[field]}")
            if field in _WITHOUT_REFERENCES or field in _UNSUPPORTED or value is None:
                continue
            read = _FIELDS.get(field)
            if read is None:
                raise self._refused(field, "is not a field of a kustomization that this controller knows")
            yield from read(self, field, value)

    def _refused(self, field: str, what: str) -> PermanentError:
        return PermanentError(Reason.BUILD_FAILED, f"{foreign(self._path)}: {foreign(field)} {what}")

    def _items(self, field: str, value: Any) -> Iterator[tuple[str, Any]]:
        if not isinstance(value, list):
            raise self._refused(field, "is not a list")
        for number, item in enumerate(value):
            yield f"{field}[{number}]", item

    def _mapping(self, field: str, value: Any, known: frozenset[str]) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._refused(field, "is not a mapping")
        unknown = next((key for key in value if key not in known), None)
        if unknown is not None:
            raise self._refused(f"{field}.{unknown}", "is not a field that this controller knows")
        return value

    def paths(self, field: str, value: Any, target: Target) -> Iterator[Reference]:
        for where, item in self._items(field, value):
            yield self.reference(where, item, target)

    def patches(self, field: str, value: Any, known: frozenset[str]) -> Iterator[Reference]:
        """Read a list of mappings of which each may name a file in `path`."""
        for where, item in self._items(field, value):
            mapping = self._mapping(where, item, known)
            if mapping.get("path"):
                yield self.reference(f"{where}.path", mapping["path"], Target.FILE)

    def merges(self, field: str, value: Any) -> Iterator[Reference]:
        """Read a list of which each item is a path, or a patch itself."""
        for where, item in self._items(field, value):
            inline = isinstance(item, str) and ("\n" in item or item.lstrip().startswith("{"))
            if not inline:
                yield self.reference(where, item, Target.FILE)

    def generators(self, field: str, value: Any) -> Iterator[Reference]:
        for where, item in self._items(field, value):
            mapping = self._mapping(where, item, _GENERATOR)
            for name in ("files", "envs"):
                if mapping.get(name) is None:
                    continue
                for place, source in self._items(f"{where}.{name}", mapping[name]):
                    text = source.partition("=")[2] if name == "files" and "=" in str(source) else source
                    yield self.reference(place, text, Target.FILE, Use.INPUT)
            if mapping.get("env"):
                yield self.reference(f"{where}.env", mapping["env"], Target.FILE, Use.INPUT)

    def openapi(self, field: str, value: Any) -> Iterator[Reference]:
        mapping = self._mapping(field, value, frozenset({"path", "version"}))
        if mapping.get("path"):
            yield self.reference(f"{field}.path", mapping["path"], Target.FILE)

    def reference(self, field: str, text: Any, target: Target, use: Use = Use.MANIFEST) -> Reference:
        """Return where a path leads.

        Raises:
            PermanentError: BuildFailed: out of the source, or it is not a path at all.
        """
        if not isinstance(text, str) or not text:
            raise self._refused(field, "is not a path")
        if _looks_remote(text):
            raise self._refused(
                field,
                f"{foreign(text)!r} is a remote resource or not a plain path; nothing is fetched: commit a copy of it "
                "and refer to that",
            )
        path = posixpath.normpath(posixpath.join(self._directory, text))
        if path == ".." or path.startswith(("../", "/")):
            raise self._refused(field, f"{foreign(text)!r} leads out of the source")
        path = "" if path == "." else path
        return Reference(field, path, target, use)


def _looks_remote(text: str) -> bool:
    """Tell whether kustomize may take a text for a URL or a repository: sources/git/repospec.go, loader/fileloader.go.

    Such a path may exist all the same. A file of that name is a small loss.
    """
    lowered = text.strip().lower()
    hosts = ("github.com/", "gitlab.com/", "bitbucket.org/", "git@", "gh:")
    return (
        any(sign in lowered for sign in (":", "?", "\\", "//", "@", "_git/", ".git/", "\0", "\n"))
        or lowered.startswith((*hosts, "/", "~", "-"))
        or lowered.endswith(".git")
    )


_GENERATOR = frozenset({"name", "namespace", "behavior", "type", "files", "envs", "env", "literals", "options"})
_PATCH = frozenset({"path", "patch", "target", "options"})
_REPLACEMENT = frozenset({"path", "source", "targets"})

_UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("helmCharts", "helmGlobals", "helmChartInflationGenerator"), "no Helm chart is inflated here"),
        **dict.fromkeys(("generators", "transformers", "validators"), "no plugin or function is run here"),
    }
)

_WITHOUT_REFERENCES = frozenset(
    {
        "apiVersion",
        "kind",
        "metadata",
        "namePrefix",
        "nameSuffix",
        "namespace",
        "commonLabels",
        "labels",
        "commonAnnotations",
        "images",
        "imageTags",
        "replicas",
        "vars",
        "sortOptions",
        "generatorOptions",
        "buildMetadata",
    }
)

_Read = Callable[[_Reader, str, Any], Iterator[Reference]]

_FIELDS: Mapping[str, _Read] = MappingProxyType(
    {
        "resources": lambda reader, field, value: reader.paths(field, value, Target.EITHER),
        "bases": lambda reader, field, value: reader.paths(field, value, Target.DIRECTORY),
        "components": lambda reader, field, value: reader.paths(field, value, Target.DIRECTORY),
        "crds": lambda reader, field, value: reader.paths(field, value, Target.FILE),
        "configurations": lambda reader, field, value: reader.paths(field, value, Target.FILE),
        "openapi": _Reader.openapi,
        "patches": lambda reader, field, value: reader.patches(field, value, _PATCH),
        "patchesJson6902": lambda reader, field, value: reader.patches(field, value, _PATCH),
        "patchesStrategicMerge": _Reader.merges,
        "replacements": lambda reader, field, value: reader.patches(field, value, _REPLACEMENT),
        "configMapGenerator": _Reader.generators,
        "secretGenerator": _Reader.generators,
    }
)
