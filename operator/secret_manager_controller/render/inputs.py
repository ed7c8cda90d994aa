"""Everything that a kustomize build reads, gathered from the source before anything runs.

The files are those that kustomizations refer to, from the one that the spec names on; nothing else is read, so nothing
else can be part of the build, and what was read tells whether the build would come out as before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.render.kustomization import (
    KUSTOMIZATION_NAMES,
    Reference,
    Target,
    Use,
    references,
)
from secret_manager_controller.render.protocol import Tree

MAX_BUILD_FILES = 2000
"""Files of one build; each is read, and copied into memory."""
MAX_BUILD_BYTES = 16 << 20
"""Bytes of one build's files: four times what an object may manage at 2 KiB a secret."""
MAX_BUILD_DEPTH = 32
"""Kustomizations on top of each other."""


@dataclass(frozen=True, slots=True)
class BuildInputs:
    """A build's files as they are in the source: encrypted ones are encrypted.

    Attributes:
        root: the directory to build, relative to the source's root.
        files: content by path.
        uses: what each file is read as; several, where several kustomizations name it.
    """

    root: str
    files: Mapping[str, bytes] = field(repr=False)
    uses: Mapping[str, frozenset[Use]] = field(repr=False)

    @property
    def contents(self) -> tuple[bytes, ...]:
        """Every file's content."""
        return tuple(self.files.values())

    @property
    def parts(self) -> tuple[bytes, ...]:
        """Everything that decides the build, for a keyed hash."""
        parts = [b"kustomize", self.root.encode()]
        for path, content in sorted(self.files.items()):
            parts += [path.encode(errors="surrogateescape"), content]
        return tuple(parts)


def gather_build(tree: Tree, path: str) -> BuildInputs:
    """Read all files that `kustomize build` of a directory needs.

    Args:
        tree: the source's files.
        path: the directory with the kustomization, relative to the source's root.

    Raises:
        PermanentError: PathNotFound: there is no such directory; BuildFailed: a kustomization is not supported, refers
            to what is not there or outside, or there is more than one build may read; InvalidArchive: a symbolic link.
    """
    root = "/".join(name for name in path.split("/") if name not in {"", "."})
    if tree.list_dir(root) is None:
        message = (
            f"kustomizePath {foreign(path)!r} is not a directory in the source; correct spec.secrets.kustomizePath"
        )
        raise PermanentError(Reason.PATH_NOT_FOUND, message)
    gathering = _Gathering(tree)
    gathering.directory(root, told="spec.secrets.kustomizePath", above=())
    uses = {name: frozenset(kinds) for name, kinds in gathering.uses.items()}
    return BuildInputs(root=root, files=gathering.files, uses=uses)


class _Gathering:
    """The files of one build, as far as they are gathered."""

    def __init__(self, tree: Tree) -> None:
        self.files: dict[str, bytes] = {}
        self.uses: dict[str, set[Use]] = {}
        self._tree = tree
        self._bytes = 0
        self._done: set[str] = set()

    def directory(self, path: str, *, told: str, above: tuple[str, ...]) -> None:
        """Read a directory's kustomization, and all that it refers to."""
        if path in above:
            raise _failed(f"{told} refers to {_named(path)}, which refers back to it")
        if path in self._done:
            return
        self._done.add(path)
        if len(above) >= MAX_BUILD_DEPTH:
            raise _failed(f"{told}: more than {MAX_BUILD_DEPTH} kustomizations are on top of each other")
        found = self._tree.list_dir(path) or {}
        names = [name for name in KUSTOMIZATION_NAMES if name in found]
        if len(names) != 1:
            has = " and ".join(names) or "no kustomization.yaml"
            raise _failed(f"{told}: {_named(path)} has {has}; it must have one kustomization file")
        file = f"{path}/{names[0]}" if path else names[0]
        data = self._file(file, told=told)
        for reference in references(data, path=file):
            self._follow(reference, f"{foreign(file)}: {reference.field}", (*above, path))

    def _follow(self, reference: Reference, told: str, above: tuple[str, ...]) -> None:
        is_directory = self._tree.list_dir(reference.path) is not None
        if is_directory and reference.target is not Target.FILE:
            self.directory(reference.path, told=told, above=above)
        elif is_directory or reference.target is Target.DIRECTORY:
            wanted = "file" if is_directory else "directory"
            raise _failed(f"{told}: {_named(reference.path)} is not a {wanted} in the source")
        else:
            here = above[-1]
            outside = here and not reference.path.startswith(f"{here}/")
            if outside and self._tree.read_file(reference.path) is not None:
                raise _failed(
                    f"{told}: {foreign(reference.path)!r} is a file outside the kustomization's own directory, which "
                    "kustomize does not read; make a base of its directory and refer to that"
                )
            self._file(reference.path, told=told)
            self.uses.setdefault(reference.path, set()).add(reference.use)

    def _file(self, path: str, *, told: str) -> bytes:
        if path in self.files:
            return self.files[path]
        data = self._tree.read_file(path)
        if data is None:
            raise _failed(f"{told}: {foreign(path)!r} is not in the source")
        self._bytes += len(data)
        if len(self.files) >= MAX_BUILD_FILES or self._bytes > MAX_BUILD_BYTES:
            limit = f"{MAX_BUILD_FILES} files or {MAX_BUILD_BYTES >> 20} MiB"
            raise _failed(f"{told}: the build reads more than {limit}; take what has no Secret out of it")
        self.files[path] = data
        return data


def _named(path: str) -> str:
    return repr(foreign(path)) if path else "the source's root"


def _failed(message: str) -> PermanentError:
    return PermanentError(Reason.BUILD_FAILED, message)
