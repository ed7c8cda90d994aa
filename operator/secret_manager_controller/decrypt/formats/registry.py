"""Which reader reads which format, and telling a SOPS file's format by its content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from secret_manager_controller.decrypt.cipher import ENCRYPTED_PREFIX
from secret_manager_controller.decrypt.document import MAX_FILE_BYTES, Format
from secret_manager_controller.decrypt.formats.dotenv import Dotenv
from secret_manager_controller.decrypt.formats.ini import Ini
from secret_manager_controller.decrypt.formats.jsondoc import DATA_KEY, Binary, JsonDocument
from secret_manager_controller.decrypt.formats.tree import FormatReader
from secret_manager_controller.decrypt.formats.yamldoc import YamlDocuments
from secret_manager_controller.decrypt.metadata import METADATA_KEY
from secret_manager_controller.decrypt.refusal import RefusedError

READERS: Mapping[Format, FormatReader] = MappingProxyType(
    {
        Format.YAML: YamlDocuments(),
        Format.JSON: JsonDocument(),
        Format.DOTENV: Dotenv(),
        Format.INI: Ini(),
        Format.BINARY: Binary(),
    }
)

# A line that only the metadata of a SOPS file in that format has. YAML's comes last: it is the
# loosest one.
_MARKS = (
    (Format.DOTENV, re.compile(rb"^sops_(?:mac|lastmodified)=", re.MULTILINE)),
    (Format.INI, re.compile(rb"^\[sops\][ \t\r]*$", re.MULTILINE)),
    (Format.YAML, re.compile(rb"""^["']?sops["']?:(?:[ \t\r]|$)""", re.MULTILINE)),
)


def sops_container(data: bytes) -> Format | None:
    """Return the format of a SOPS file by its content; None if it is not one.

    For files whose names do not tell, such as `.properties`: sops takes those for binary and writes
    JSON, unless `--input-type` says otherwise. The metadata is looked for, not read: a file that is
    recognised may still be refused.
    """
    if len(data) > MAX_FILE_BYTES:
        return None
    if data.lstrip().startswith(b"{"):
        return _json_container(data)
    if ENCRYPTED_PREFIX.encode() not in data:  # The MAC is encrypted in every one of them.
        return None
    return next((container for container, mark in _MARKS if mark.search(data)), None)


def _json_container(data: bytes) -> Format | None:
    try:
        (document,) = READERS[Format.JSON].parse(data)
    except RefusedError:
        return None
    if not isinstance(document.get(METADATA_KEY), dict):
        return None
    return Format.BINARY if set(document) == {DATA_KEY, METADATA_KEY} else Format.JSON
