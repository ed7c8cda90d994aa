"""Raw mode: the profile files of every service, as they stand in Git.

    [basePath/]{service}/deployment-configuration/profiles/{environment}/application.secrets.env
                                                                         application.secrets.yaml (or .yml)
                                                                         application.properties

**Where services are.** The directory that `basePath` names may be a service itself, and so may each directory in it.
Without a `basePath` the repository is searched one level deeper, so that `microservices/{service}/…` is found without
being named. A service at the root and services below it are all services: were one kind to hide the other, adding a
directory to Git would make the other's secrets disappear, and prune them. Directories whose name begins with a dot are
not searched.

**What may be missing.** A service that has no directory for this environment, or none of the three files in it, has
nothing to do with the environment, and is left out as long as another one has. A service whose files hold no entry at
all is another matter: they are most likely broken, and nothing that is broken may look like a wish to delete.

**Layout.** `deployment-configuration/{environment}/`, without `profiles`, is read as well; where both hold files,
neither is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from secret_manager_controller.decrypt import Document, Format
from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.plaintext import Entry, Plaintext, ServiceEntries
from secret_manager_controller.render.leaves import joined_key, refuse_readable
from secret_manager_controller.render.properties import PROPERTIES_FILE, properties_entry, properties_format
from secret_manager_controller.render.protocol import ReadDocument, Tree

CONFIGURATION = "deployment-configuration"
PROFILES = "profiles"
SECRET_FILES = {
    "application.secrets.env": Format.DOTENV,
    "application.secrets.yaml": Format.YAML,
    "application.secrets.yml": Format.YAML,
}

_DEPTH = 1  # `{service}` below basePath.
_DEPTH_WITHOUT_BASE_PATH = 2  # `microservices/{service}` below the root, as the documented layout has it.
_MAX_NAMED = 10  # So many names of what exists help to find a slip; more only hide it.


@dataclass(frozen=True, slots=True)
class _Service:
    """A directory that holds a `deployment-configuration`. The source's root has no name."""

    name: str | None
    configuration: str

    def environment_directories(self, environment: str) -> tuple[str, str]:
        return f"{self.configuration}/{PROFILES}/{environment}", f"{self.configuration}/{environment}"


@dataclass(frozen=True, slots=True)
class RawFile:
    """One of the files that are read, as it is in the source."""

    name: str
    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RawInputs:
    """Everything that raw mode reads for one object: the files of each service."""

    services: tuple[tuple[str | None, tuple[RawFile, ...]], ...]

    @property
    def contents(self) -> tuple[bytes, ...]:
        """Every file's content."""
        return tuple(file.content for _, files in self.services for file in files)

    @property
    def parts(self) -> tuple[bytes, ...]:
        """Everything that decides what comes out, for a keyed hash."""
        parts = [b"raw"]
        for service, files in self.services:
            parts += [(service or "").encode(errors="surrogateescape"), str(len(files)).encode()]
            for file in files:
                parts += [file.path.encode(errors="surrogateescape"), file.content]
        return tuple(parts)


def gather_raw(tree: Tree, *, environment: str, base_path: str | None) -> RawInputs:
    """Read the files of every service that has some for an environment.

    Args:
        tree: the source's files.
        environment: the profile's directory name.
        base_path: where the services are, relative to the source's root; None to search from the root.

    Raises:
        PermanentError: PathNotFound for a base path or an environment that is not there, with the names that are;
            EmptySource where there is no file; NameCollision where a service has files in both layouts.
    """
    services = _find_services(tree, base_path)
    here = {
        service: directories
        for service in services
        if (directories := _existing(tree, service.environment_directories(environment)))
    }
    if not here:
        raise _no_environment(tree, services, environment)
    gathered = tuple(
        (service.name, files) for service, directories in here.items() if (files := _read_files(tree, directories))
    )
    if not gathered:
        names = ", ".join((*SECRET_FILES, PROPERTIES_FILE))
        where = foreign(" and ".join(next(iter(here.values()))))
        message = f"no service has a file for environment {foreign(environment)!r}: there is none of {names} in {where}"
        raise PermanentError(Reason.EMPTY_SOURCE, message)
    return RawInputs(gathered)


def read_raw(inputs: RawInputs, *, read_document: ReadDocument) -> Mapping[str, Document]:
    """Return every file, decrypted and parsed, by its path.

    Raises:
        PermanentError: InvalidDocument for a properties file that is encrypted as something else.
        ControllerError: what `read_document` raises.
    """

    def read(file: RawFile) -> Document:
        properties = file.name == PROPERTIES_FILE
        read_as = properties_format(file.content, path=file.path) if properties else SECRET_FILES[file.name]
        return read_document(file.content, read_as, file.path)

    return {file.path: read(file) for _, files in inputs.services for file in files}


def render_raw(inputs: RawInputs, *, read_document: ReadDocument) -> Plaintext:
    """Return the entries of every service.

    Args:
        inputs: what `gather_raw` has read.
        read_document: decrypts and parses one file.

    Raises:
        PermanentError: EmptySource where a service's files have no entry; EmptyValue; InvalidDocument for a value that
            is not encrypted in an encrypted file; NameCollision for a key that a service has twice.
        ControllerError: what `read_document` raises.
    """
    rendered = [
        ServiceEntries(service=name, entries=_render_service(files, read_document)) for name, files in inputs.services
    ]
    return Plaintext(services=tuple(rendered))


def _find_services(tree: Tree, base_path: str | None) -> list[_Service]:
    found = tree.list_dir(base_path or "")
    base = "/".join(name for name in (base_path or "").split("/") if name not in {"", "."})
    if found is None:
        raise _no_base_path(tree, base)
    services = list(_search(tree, base, found, depth=_DEPTH_WITHOUT_BASE_PATH if base_path is None else _DEPTH))
    if not services:
        where = f"{foreign(base)!r}" if base else "the source's root"
        raise PermanentError(
            Reason.PATH_NOT_FOUND,
            f"there is no {CONFIGURATION!r} directory in {where} or below; it holds {_named(found)}; "
            f"correct spec.secrets.basePath",
        )
    return services


def _search(tree: Tree, directory: str, found: Mapping[str, bool], *, depth: int) -> Iterator[_Service]:
    if CONFIGURATION in found:
        yield _Service(name=directory.rpartition("/")[2] or None, configuration=_join(directory, CONFIGURATION))
    if depth == 0:
        return
    for name, is_directory in found.items():
        if not is_directory or name.startswith(".") or name == CONFIGURATION:
            continue
        inner = _join(directory, name)
        yield from _search(tree, inner, tree.list_dir(inner) or {}, depth=depth - 1)


def _join(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name


def _existing(tree: Tree, directories: Iterable[str]) -> dict[str, Mapping[str, bool]]:
    """Return the directories that there are, with what they hold."""
    return {directory: found for directory in directories if (found := tree.list_dir(directory)) is not None}


def _render_service(files: tuple[RawFile, ...], read_document: ReadDocument) -> tuple[Entry, ...]:
    entries: dict[str, Entry] = {}
    for file in files:
        for entry in _entries(file.name, file.content, file.path, read_document):
            if (other := entries.get(entry.key)) is not None:
                raise _collision(other, entry)
            entries[entry.key] = entry
    if not entries:
        where = foreign(" and ".join(file.path for file in files))
        raise PermanentError(Reason.EMPTY_SOURCE, f"there is no entry in {where}; add one or remove the file")
    return tuple(entries.values())


def _read_files(tree: Tree, directories: Mapping[str, Mapping[str, bool]]) -> tuple[RawFile, ...]:
    """Return a service's files, all from one directory; none if it has none."""
    found: dict[str, list[RawFile]] = {}
    for directory, names in directories.items():
        for name in (*SECRET_FILES, PROPERTIES_FILE):
            path = f"{directory}/{name}"
            if name in names and (data := tree.read_file(path)) is not None:
                found.setdefault(directory, []).append(RawFile(name, path, data))
    if len(found) > 1:
        first, second = map(foreign, found)
        message = f"{first} and {second} both hold files of one service and environment; keep one of them"
        raise PermanentError(Reason.NAME_COLLISION, message)
    return tuple(next(iter(found.values()), ()))


def _entries(name: str, data: bytes, path: str, read_document: ReadDocument) -> Iterator[Entry]:
    if name == PROPERTIES_FILE:
        entry = properties_entry(data, path=path, read_document=read_document)
        if entry is not None:
            yield entry
        return
    document = read_document(data, SECRET_FILES[name], path)
    for leaf in document.leaves:
        key = joined_key(leaf.path)
        if not leaf.value:
            message = f"{foreign(path)}: {foreign(key)!r} is empty; give it a value or remove it"
            raise PermanentError(Reason.EMPTY_VALUE, message)
        refuse_readable(leaf, document, path)
        yield Entry(key=key, value=leaf.value, source_hash=leaf.source_hash, path=path)


def _collision(first: Entry, second: Entry) -> PermanentError:
    if first.path == second.path:
        where = f"twice in {foreign(first.path)}"
    else:
        where = f"in {foreign(first.path)} and in {foreign(second.path)}"
    return PermanentError(Reason.NAME_COLLISION, f"key {foreign(first.key)!r} is {where}; keep one of them")


def _no_base_path(tree: Tree, base: str) -> PermanentError:
    """Tell what the nearest directory that exists holds instead."""
    parent = base
    while (found := tree.list_dir(parent)) is None:
        parent = parent.rpartition("/")[0]
    where = foreign(repr(parent)) if parent else "the source's root"
    message = f"basePath {foreign(base)!r} is not a directory in the source; {where} holds {_named(found)}"
    return PermanentError(Reason.PATH_NOT_FOUND, message)


def _no_environment(tree: Tree, services: list[_Service], environment: str) -> PermanentError:
    existing: set[str] = set()
    for service in services:
        for directory in (service.configuration, f"{service.configuration}/{PROFILES}"):
            found = tree.list_dir(directory) or {}
            existing |= {name for name, is_directory in found.items() if is_directory}
    existing.discard(PROFILES)
    whose = foreign(services[0].configuration) if len(services) == 1 else f"any of {len(services)} services"
    return PermanentError(
        Reason.PATH_NOT_FOUND,
        f"environment {foreign(environment)!r} is not in {whose}; there is {_directories(sorted(existing))}",
    )


def _named(found: Mapping[str, bool]) -> str:
    return _directories([name for name, is_directory in found.items() if is_directory and not name.startswith(".")])


def _directories(names: list[str]) -> str:
    if not names:
        return "no directory"
    rest = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return foreign(", ".join(names[:_MAX_NAMED])) + rest
