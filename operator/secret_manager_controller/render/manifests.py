"""From the manifests that a build wrote to the entries of its Secrets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from secret_manager_controller.decrypt.cipher import holds_ciphertext
from secret_manager_controller.decrypt.formats.yamldoc import YamlDocuments
from secret_manager_controller.decrypt.refusal import RefusedError
from secret_manager_controller.errors import PermanentError, Reason, foreign
from secret_manager_controller.model.plaintext import Entry
from secret_manager_controller.model.secret import SecretValue, SourceHash

MAX_OUTPUT_NODES = 500_000
"""Keys and items of all manifests: of 16 MiB of output a fifth of a million, at the most that was seen."""

HashOf = Callable[[str, bytes], SourceHash]
"""Makes the source hash of a key and its value."""


def secret_entries(output: bytes, *, path: str, hash_of: HashOf) -> tuple[Entry, ...]:
    """Return the entries of every Secret in a build's output.

    `data` is decoded, `stringData` wins over it, and names of Secrets do not count: they may have hash suffixes.

    Args:
        output: what `kustomize build` wrote.
        path: the directory that was built, for messages.
        hash_of: makes source hashes.

    Raises:
        PermanentError: EmptySource: there is no Secret, or none with an entry; InvalidDocument: a Secret is not one
            that the API server would take; DecryptionFailed: a value is still encrypted; EmptyValue; NameCollision: two
            Secrets have the same key; BuildFailed: the output is not YAML.
    """
    entries: dict[str, Entry] = {}
    found = False
    for manifest in _manifests(output, path):
        if manifest.get("kind") != "Secret":
            continue
        found = True
        secret = _Secret(manifest, path)
        for key, value in secret.values():
            entry = Entry(key=key, value=SecretValue(value), source_hash=hash_of(key, value), path=secret.told)
            if (other := entries.get(key)) is not None:
                message = f"key {foreign(repr(key))} is in {other.path} and in {entry.path}; rename one of them"
                raise PermanentError(Reason.NAME_COLLISION, message)
            entries[key] = entry
    if not entries:
        what = "no Secret in the build of {} has an entry" if found else "the build of {} has no Secret"
        raise PermanentError(Reason.EMPTY_SOURCE, f"{what.format(foreign(path) or 'the root')}; nothing is deleted")
    return tuple(entries.values())


def _manifests(output: bytes, path: str) -> list[dict[str, Any]]:
    try:
        return YamlDocuments(max_nodes=MAX_OUTPUT_NODES).parse(output)
    except RefusedError as refused:
        problem = refused.message
    raise PermanentError(Reason.BUILD_FAILED, f"the output of kustomize build {foreign(path)} is not used: {problem}")


class _Secret:
    """One manifest of kind Secret."""

    def __init__(self, manifest: Mapping[str, Any], path: str) -> None:
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        self.told = foreign(f"Secret {name} of {path or 'the root'}")
        self._manifest = manifest
        if manifest.get("apiVersion") != "v1":
            version = foreign(repr(manifest.get("apiVersion")))
            raise self._refused(f"has apiVersion {version}; only v1 is a Secret that this controller knows")

    def values(self) -> Iterator[tuple[str, bytes]]:
        """Yield each key with its value, in the manifest's order."""
        merged = {key: self._decoded(key, text) for key, text in self._texts("data")}
        merged |= {key: text.encode() for key, text in self._texts("stringData")}
        for key, value in merged.items():
            if not value:
                raise PermanentError(
                    Reason.EMPTY_VALUE, f"{self.told}: {foreign(repr(key))} is empty; give it a value or remove it"
                )
            if holds_ciphertext(value):
                raise PermanentError(
                    Reason.DECRYPTION_FAILED,
                    f"{self.told}: {foreign(repr(key))} is still encrypted after the build; encrypt files as a whole, "
                    "and refer to them from a kustomization",
                )
            yield key, value

    def _texts(self, field: str) -> Iterator[tuple[str, str]]:
        content = self._manifest.get(field)
        if content is None:
            return
        if not isinstance(content, dict):
            raise self._refused(f"has a {field} that is not a mapping")
        for key, text in content.items():
            if not isinstance(text, str):
                raise self._refused(f"has {foreign(repr(key))} in {field}, which is not a string; quote it")
            yield key, text

    def _decoded(self, key: str, text: str) -> bytes:
        try:
            # As Go decodes it: line ends are no part of base64, anything else is.
            return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
        except (binascii.Error, ValueError):
            pass
        raise self._refused(f"has {foreign(repr(key))} in data, which is not base64; use stringData for text")

    def _refused(self, what: str) -> PermanentError:
        return PermanentError(Reason.INVALID_DOCUMENT, f"{self.told} {what}")
