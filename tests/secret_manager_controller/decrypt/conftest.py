"""Keys made for the run, SOPS files made by hand, and the real sops as the oracle."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secret_manager_controller.decrypt import Decryptor, Document, Format, KeyRing
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.model.secret import HashKey

REPOSITORY = Path(__file__).parents[3]
LAST_MODIFIED = "2026-01-02T03:04:05Z"


@pytest.fixture(scope="session")
def hash_key() -> HashKey:
    return HashKey(bytes(range(32)))


@pytest.fixture
def decryptor(hash_key: HashKey) -> Decryptor:
    return Decryptor(hash_key)


@pytest.fixture(scope="session")
def identities() -> list[Any]:
    """Three age keys; only the first two are known to the real sops."""
    return [pyrage.x25519.Identity.generate() for _ in range(3)]


@pytest.fixture(scope="session")
def identity(identities: list[Any]) -> Any:
    return identities[0]


@pytest.fixture(scope="session")
def age_ring(identity: Any) -> KeyRing:
    return KeyRing.parse([str(identity).encode()])


@pytest.fixture
def read(decryptor: Decryptor, age_ring: KeyRing) -> Callable[..., Document]:
    """Read JSON, or what `kind` says, with the run's age key."""

    def read(data: bytes, kind: Format = Format.JSON, *, path: str = "app.file", keys: KeyRing = age_ring) -> Document:
        return decryptor.read(data, format=kind, path=path, keys=keys)

    return read


@pytest.fixture
def refused(read: Callable[..., Document]) -> Callable[..., ControllerError]:
    """Read a file that must be refused, and return the error; nothing hides behind it."""

    def refused(data: bytes, kind: Format = Format.JSON, **options: Any) -> ControllerError:
        with pytest.raises(ControllerError) as caught:
            read(data, kind, **options)
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None, "a cause could hold plaintext"
        return error

    return refused


def armored(ciphertext: bytes) -> str:
    encoded = base64.b64encode(ciphertext).decode()
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    return "\n".join(["-----BEGIN AGE ENCRYPTED FILE-----", *lines, "-----END AGE ENCRYPTED FILE-----", ""])


@dataclass
class Forge:
    """Writes SOPS files in JSON, right ones and every kind of wrong one; shares no code with the reader."""

    identity: Any
    data_key: bytes = field(default_factory=lambda: os.urandom(32))

    def seal(self, text: str | bytes, additional_data: str, kind: str = "str", *, nonce: bytes | None = None) -> str:
        nonce = os.urandom(32) if nonce is None else nonce
        plaintext = text.encode() if isinstance(text, str) else text
        sealed = AESGCM(self.data_key).encrypt(nonce, plaintext, additional_data.encode())
        parts = (base64.b64encode(part).decode() for part in (sealed[:-16], nonce, sealed[-16:]))
        return "ENC[AES256_GCM,data:{},iv:{},tag:{},type:{}]".format(*parts, kind)

    def wrapped(self, secret: bytes | None = None, identity: Any = None) -> str:
        recipient = (identity or self.identity).to_public()
        return armored(pyrage.encrypt(self.data_key if secret is None else secret, [recipient]))

    def age_entry(self, **fields: Any) -> dict[str, Any]:
        return {"recipient": str(self.identity.to_public()), "enc": self.wrapped()} | fields

    def tree(self, plain: Any, path: str = "") -> Any:
        """Encrypt every string of a tree, except under a key that ends with `_unencrypted`."""
        if isinstance(plain, dict):
            return {
                key: value if key.endswith("_unencrypted") else self.tree(value, f"{path}{key}:")
                for key, value in plain.items()
            }
        if isinstance(plain, list):
            return [self.tree(item, path) for item in plain]
        return self.seal(plain, path) if isinstance(plain, str) and plain else plain

    @staticmethod
    def values(plain: Any) -> str:
        if isinstance(plain, dict | list):
            return "".join(map(Forge.values, plain.values() if isinstance(plain, dict) else plain))
        return "" if plain is None else str(plain)

    def mac(self, values: str, lastmodified: str = LAST_MODIFIED, *, prefix: bytes = b"") -> str:
        digest = hashlib.sha512(prefix + values.encode()).hexdigest().upper()
        return self.seal(digest, lastmodified)

    def metadata(self, values: str, **fields: Any) -> dict[str, Any]:
        """Return a `sops` block; a field given as None is left out."""
        block = {
            "age": [self.age_entry()],
            "lastmodified": LAST_MODIFIED,
            "mac": self.mac(values),
            "version": "3.13.3",
        } | fields
        return {name: value for name, value in block.items() if value is not None}

    def file(self, plain: dict[str, Any], **fields: Any) -> bytes:
        """Return a whole file with a right MAC, unless `fields` of its metadata say otherwise."""
        return json.dumps(self.tree(plain) | {"sops": self.metadata(self.values(plain), **fields)}).encode()


@pytest.fixture
def forge(identity: Any) -> Forge:
    return Forge(identity)


class Gnupg:
    """A GnuPG home for the run, which makes keys and messages."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.chmod(0o700)
        (home / "gpg-agent.conf").write_text(
            "auto-expand-secmem\nallow-loopback-pinentry\ndisable-scdaemon\ns2k-count 65536\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        return {"GNUPGHOME": str(self.home), "HOME": str(self.home), "PATH": os.defpath, "LC_ALL": "C"}

    def run(self, *arguments: str, data: bytes = b"", passphrase: str = "") -> bytes:
        command = ["gpg", "--batch", "--no-tty", "--pinentry-mode=loopback", f"--passphrase={passphrase}"]
        return subprocess.run(
            [*command, *arguments], input=data, env=self.environment, capture_output=True, check=True, timeout=60
        ).stdout

    def make(self, name: str, algorithm: str = "future-default", *, passphrase: str = "") -> str:
        """Make a key and return its fingerprint."""
        self.run("--quick-gen-key", name, algorithm, "default", "never", passphrase=passphrase)
        listing = self.run("--list-keys", "--with-colons", f"={name}").decode().splitlines()
        return next(line.split(":")[9] for line in listing if line.startswith("fpr:"))

    def export(self, fingerprint: str, what: str = "--export-secret-keys", *, passphrase: str = "") -> bytes:
        return self.run("--armor", what, fingerprint, passphrase=passphrase)

    def encrypt(self, data: bytes, *options: str) -> str:
        return self.run("--armor", "--trust-model=always", *options, "--encrypt", data=data).decode()

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "gpg-agent"], env=self.environment, check=False, timeout=30)


@pytest.fixture(scope="session")
def gnupg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gnupg]:
    gnupg = Gnupg(tmp_path_factory.mktemp("gpg"))
    yield gnupg
    gnupg.close()


@pytest.fixture(scope="session")
def fingerprint(gnupg: Gnupg) -> str:
    return gnupg.make("run@example.test")


@pytest.fixture(scope="session")
def pgp_material(gnupg: Gnupg, fingerprint: str) -> bytes:
    return gnupg.export(fingerprint)


@pytest.fixture(scope="session")
def pgp_ring(pgp_material: bytes) -> KeyRing:
    return KeyRing.parse([pgp_material])


@pytest.fixture(scope="session")
def sops_binary() -> str:
    """Return the real sops, built once into the cache."""
    command = [sys.executable, str(REPOSITORY / "tools" / "build.py"), "sops"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[0]


class Sops:
    """The real sops, with an environment built from empty; None stands for its refusal."""

    def __init__(self, binary: str, home: Path, identities: str, gnupg: Gnupg) -> None:
        self._binary = binary
        self._home = home
        self._environment = {
            **gnupg.environment,
            "HOME": str(home),
            "SOPS_AGE_KEY": identities,
            "SOPS_DISABLE_VERSION_CHECK": "1",
        }

    def encrypt(self, data: bytes, format: str, rule: dict[str, Any]) -> bytes | None:  # noqa: A002
        """Encrypt a file under the one creation rule of a `.sops.yaml`."""
        config = json.dumps({"creation_rules": [rule]}).encode()
        path = self._home / f"{hashlib.sha256(config).hexdigest()[:16]}.yaml"
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            file.write(config)
        return self._run(
            ["--config", str(path), "encrypt", "--filename-override", "file", *self._types(format, format)], data
        )

    def decrypt(self, data: bytes, format: str, output: str | None = None) -> bytes | None:  # noqa: A002
        return self._run(["decrypt", *self._types(format, output or format)], data)

    @staticmethod
    def _types(source: str, target: str) -> list[str]:
        return ["--input-type", source, "--output-type", target]

    def _run(self, arguments: list[str], data: bytes) -> bytes | None:
        done = subprocess.run(
            [self._binary, *arguments], input=data, env=self._environment, capture_output=True, check=False, timeout=60
        )
        return done.stdout if done.returncode == 0 else None


@pytest.fixture(scope="session")
def sops(sops_binary: str, tmp_path_factory: pytest.TempPathFactory, identities: list[Any], gnupg: Gnupg) -> Sops:
    known = "\n".join(map(str, identities[:2]))
    return Sops(sops_binary, tmp_path_factory.mktemp("sops"), known, gnupg)
