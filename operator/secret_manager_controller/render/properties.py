"""`application.properties`: all its entries become one secret, a JSON object."""

from __future__ import annotations

import json

import javaproperties

from secret_manager_controller.decrypt import Document, Format, Leaf, sops_container
from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.plaintext import Entry
from secret_manager_controller.model.secret import SecretValue, hash_ciphertext
from secret_manager_controller.render.leaves import joined_key, refuse_readable
from secret_manager_controller.render.protocol import ReadDocument

PROPERTIES_FILE = "application.properties"
PROPERTIES_KEY = "properties"

# Part of every source hash: change it when the same input becomes another value, so that stores are written anew.
_RENDERING = b"properties/1"


def properties_format(data: bytes, *, path: str) -> Format:
    """Return as what a properties file is read.

    Raises:
        PermanentError: InvalidDocument: it is encrypted as something else.
    """
    container = sops_container(data)
    if container not in {None, Format.BINARY, Format.DOTENV}:
        message = f"{foreign(path)} is encrypted as {container}; encrypt it with `sops --input-type binary` or `dotenv`"
        raise PermanentError(Reason.INVALID_DOCUMENT, message)
    return container or Format.BINARY


def properties_entry(data: bytes, *, path: str, read_document: ReadDocument) -> Entry | None:
    """Return the file's entries as one entry `properties`; None if it has none.

    Its value is a JSON object, compact, in UTF-8, keys sorted. As in Java the last of several equal keys counts. SOPS
    knows no properties format: the file is plain, or was encrypted as `binary` (what `sops` does with a name that it
    does not know) or as `dotenv`, where each line is read by dotenv's rules.

    Raises:
        PermanentError: InvalidDocument for what is no properties file, or a readable value in an encrypted one.
        ControllerError: what `read_document` raises.
    """
    read_as = properties_format(data, path=path)
    document = read_document(data, read_as, path)
    if read_as is Format.DOTENV:
        properties = {joined_key(leaf.path): _text(leaf, document, path) for leaf in document.leaves}
    else:
        properties = {}
        for leaf in document.leaves:
            properties |= _parsed(_text(leaf, document, path), path)
    if not properties:
        return None
    # The parts are source hashes themselves, of ciphertext or HMACs, so that no plaintext is hashed here.
    source_hash = hash_ciphertext(_RENDERING, *(leaf.source_hash.encode() for leaf in document.leaves))
    return Entry(key=PROPERTIES_KEY, value=_as_json(properties, path), source_hash=source_hash, path=path)


def _text(leaf: Leaf, document: Document, path: str) -> str:
    """Return a leaf as text: UTF-8 or, where it is none, Latin-1, as Java reads resource bundles since JEP 226."""
    refuse_readable(leaf, document, path)
    raw = leaf.value.expose()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _parsed(text: str, path: str) -> dict[str, str]:
    parsed: dict[str, str] | None
    try:
        parsed = javaproperties.loads(text)
    except ValueError:
        parsed = None
    if parsed is None:
        # Raised here and not in the handler: the library's error quotes the value, and would stay reachable from ours.
        message = f"{foreign(path)} is not a properties file: it has a \\u that four hexadecimal digits do not follow"
        raise PermanentError(Reason.INVALID_DOCUMENT, message)
    return parsed


def _as_json(properties: dict[str, str], path: str) -> SecretValue:
    text = json.dumps(properties, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if any("\ud800" <= c <= "\udfff" for c in text):
        message = f"{foreign(path)} has half of a UTF-16 surrogate pair, which is no character"
        raise PermanentError(Reason.INVALID_DOCUMENT, message)
    return SecretValue(text.encode())
