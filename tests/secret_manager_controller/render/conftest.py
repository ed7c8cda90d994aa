"""Trees of a few files, and a reader that stands in for SOPS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from secret_manager_controller.decrypt import Document, Format, Leaf
from secret_manager_controller.model.secret import HashKey, SecretValue, hash_ciphertext
from secret_manager_controller.model.snapshot import Revision
from secret_manager_controller.sources.tree import SnapshotTree

HASH_KEY = HashKey(b"k" * 32)


@pytest.fixture
def tree_of(tmp_path: Path) -> Callable[[Mapping[str, bytes]], SnapshotTree]:
    """Write files, given by path, and return the tree that reads them."""

    def build(files: Mapping[str, bytes]) -> SnapshotTree:
        root = tmp_path / "tree"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return SnapshotTree(revision=Revision("main@sha1:1", "sha256:0", "http://h/a"), root=root)

    return build


class FakeReader:
    """Reads `KEY=value` lines in whatever format; a file that begins with `#sops` counts as encrypted.

    In such a file a value that begins with `plain:` was not. Slashes in a key part its path: `a/b/0`.
    """

    def __init__(self) -> None:
        self.formats: dict[str, Format] = {}

    def __call__(self, data: bytes, format: Format, path: str) -> Document:  # noqa: A002
        self.formats[path] = format
        encrypted = data.startswith(b"#sops")
        if format is Format.BINARY:
            content = data.partition(b"\n")[2] if encrypted else data
            return Document(format, encrypted, (self._leaf(("data",), content, encrypted),))
        leaves = []
        for line in data.splitlines():
            if not line.startswith(b"#"):
                key, _, value = line.partition(b"=")
                parts = tuple(int(part) if part.isdigit() else part for part in key.decode().split("/"))
                leaves.append(self._leaf(parts, value, encrypted))
        return Document(format, encrypted, tuple(leaves))

    def _leaf(self, path: tuple[str | int, ...], value: bytes, encrypted: bool) -> Leaf:
        encrypted = encrypted and value != b"" and not value.startswith(b"plain:")
        hashed = hash_ciphertext(value) if encrypted else HASH_KEY.of_plaintext(value)
        return Leaf(path, SecretValue(value), hashed, encrypted)


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def sops_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Format | None], None]:
    """Decide what `.properties` files look like to SOPS."""

    def decide(container: Format | None) -> None:
        monkeypatch.setattr("secret_manager_controller.render.properties.sops_container", lambda _: container)

    return decide
