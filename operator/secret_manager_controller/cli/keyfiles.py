"""SOPS keys from where people and pipelines have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from secret_manager_controller.cli.errors import CliError
from secret_manager_controller.decrypt.keyring import MAX_MATERIAL_BYTES, KeyRing
from secret_manager_controller.errors import PermanentError

AGE_KEY, AGE_KEY_FILE = "SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE"
"""sops' own variables: age identities, and a file of them."""


class GivenKeys:
    """`Keys` for one process: the same for every namespace."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    async def find(self, namespaces: tuple[str, ...]) -> KeyRing:  # noqa: ARG002 - they are not from a namespace.
        """Return the keys."""
        return self._ring


def read_keys(files: Iterable[Path], environment: Mapping[str, str]) -> KeyRing:
    """Return all keys of the files and of sops' environment variables; an empty ring if there is none.

    Raises:
        CliError: one of them is no usable key; the message names it and never shows its content.
    """
    materials = []
    for name, material in _materials(files, environment):
        try:
            KeyRing.parse([material])
        except PermanentError as error:
            raise CliError(f"{name}: {error.message.removeprefix('SOPS key 1 ')}") from None
        materials.append(material)
    return KeyRing.parse(materials)


def _materials(files: Iterable[Path], environment: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        yield f"key file {path}", _read(path)
    if text := environment.get(AGE_KEY):
        yield AGE_KEY, text.encode(errors="surrogateescape")
    if name := environment.get(AGE_KEY_FILE):
        yield f"{AGE_KEY_FILE} {name}", _read(Path(name))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_MATERIAL_BYTES + 1)
    except OSError as error:
        raise CliError(f"key file {path} cannot be read: {error.strerror}") from error
