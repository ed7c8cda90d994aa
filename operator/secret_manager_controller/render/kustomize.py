"""Kustomize mode: `kustomize build` of a directory, and every Secret in what it writes.

The build sees a private copy of the files that it needs, in memory, with SOPS files decrypted; it can neither write nor
reach a network (`sandbox`). The copy is gone when the build has ended.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secret_manager_controller.decrypt import DecryptedFile, Decryptor, KeyRing, sops_container
from secret_manager_controller.decrypt.cipher import holds_ciphertext
from secret_manager_controller.errors import PermanentError, Reason, RetryableError, foreign
from secret_manager_controller.model.plaintext import Plaintext, ServiceEntries
from secret_manager_controller.model.secret import SourceHash
from secret_manager_controller.render.inputs import BuildInputs
from secret_manager_controller.render.kustomization import Use
from secret_manager_controller.render.launcher import EXIT_NOT_SANDBOXED, EXIT_NOT_STARTED
from secret_manager_controller.render.leaves import refuse_readable
from secret_manager_controller.render.manifests import secret_entries
from secret_manager_controller.render.raw import CONFIGURATION
from secret_manager_controller.render.sandbox import Finished, Limits, run
from secret_manager_controller.scratch import base_in_memory, scratch_directory, sweep
from secret_manager_controller.tracing import Attribute, step

DEFAULT_BINARY = "kustomize"
PREFIX = "smc-kustomize-"

# Part of every source hash: change it when the same build becomes other values, so that stores are written anew.
_RENDERING = b"kustomize/1"


@dataclass(frozen=True, slots=True)
class _Failure:
    """A kind of failure that stderr tells: what it says, and what we say. Its own words may hold a value."""

    sign: bytes
    told: str


_FAILURES = (
    _Failure(b"no matches for Id", "a patch or replacement is for an object that is not there"),
    _Failure(b"unable to find patch target", "a patch is for an object that is not there"),
    _Failure(b"does not apply", "a patch is for a field that is not there"),
    _Failure(b"unable to parse SM or JSON patch", "a patch is neither a strategic merge patch nor a JSON patch"),
    _Failure(b"may not add resource with an already registered id", "two objects have the same kind and name"),
    _Failure(b"already registered", "two objects have the same kind and name"),
    _Failure(b"MalformedYAMLError", "a manifest is not YAML"),
    _Failure(b"yaml: ", "a manifest or patch is not YAML"),
    _Failure(b"invalid Kustomization", "a kustomization has a field of a wrong type"),
    _Failure(b"unmarshal", "a kustomization has a field of a wrong type"),
    _Failure(b"evalsymlink failure", "a file that it refers to is not there"),
)

_GO_BROKE_DOWN = 2
"""Go's runtime ends so when it gets no memory or no thread; kustomize's own errors are 1."""


class Kustomize:
    """Builds directories. Thread-safe; blocks for as long as a build takes.

    Args:
        decryptor: decrypts what is encrypted.
        binary: the kustomize program: a path, or a name on PATH.
        limits: what one build may use.
    """

    def __init__(self, decryptor: Decryptor, *, binary: str = DEFAULT_BINARY, limits: Limits | None = None) -> None:
        self._decryptor = decryptor
        self._binary = binary
        self._limits = limits or Limits()

    def render(self, inputs: BuildInputs, keys: KeyRing) -> Plaintext:
        """Return the entries of every Secret that a build makes.

        Raises:
            PermanentError: BuildFailed, or what `manifests.secret_entries` and `Decryptor.decrypt` raise.
            RetryableError: KeyUnavailable, BuildFailed where this process lacks what a build needs.
        """
        program = self._program()
        with step("decrypt", {Attribute.FILES: len(inputs.files)}):
            files = {path: self._plain(path, data, inputs, keys) for path, data in inputs.files.items()}
        with step("render"):
            output = self._build(program, inputs.root, files)
            hash_of = functools.partial(self._hash, inputs)
            entries = secret_entries(output, path=inputs.root, hash_of=hash_of)
        return Plaintext(services=(ServiceEntries(service=service_of(inputs.root), entries=entries),))

    def _program(self) -> Path:
        found = shutil.which(self._binary)
        if found is None:
            raise RetryableError(
                Reason.BUILD_FAILED,
                f"there is no program {foreign(self._binary)!r} to build with; install kustomize, or set "
                "KUSTOMIZE_BINARY to its path",
            )
        return Path(found).absolute()

    def _plain(self, path: str, data: bytes, inputs: BuildInputs, keys: KeyRing) -> bytes:
        """Return a file as the build is to see it."""
        container = sops_container(data)
        if container is None:
            if holds_ciphertext(data):
                message = f"{foreign(path)}: it is encrypted, but has no SOPS metadata; restore it from Git"
                raise PermanentError(Reason.DECRYPTION_FAILED, message)
            return data
        opened = self._decryptor.decrypt(data, format=container, path=path, keys=keys)
        _refuse_readable(opened, path, inputs.uses.get(path, frozenset()))
        return opened.content.expose()

    def _hash(self, inputs: BuildInputs, key: str, value: bytes) -> SourceHash:
        """Return a keyed hash of a value: through a build nobody can tell what input a value comes from."""
        return self._decryptor.fingerprint(_RENDERING, inputs.root.encode(), key.encode(), value)

    def _build(self, program: Path, root: str, files: Mapping[str, bytes]) -> bytes:
        base = base_in_memory()
        if base is None:
            raise RetryableError(
                Reason.BUILD_FAILED,
                "there is no directory in memory for decrypted files: mount a tmpfs at /dev/shm, or set TMPDIR to one",
            )
        try:
            with scratch_directory(PREFIX, base=base, remove=_remove) as directory:
                tree = directory / "tree"
                _write(tree, files)
                finished = run(program, ("build", root or "."), directory=tree, limits=self._limits)
        except OSError as error:
            raise RetryableError(
                Reason.BUILD_FAILED, f"the build's files cannot be kept in {base}: {error.strerror}"
            ) from None
        return self._output(finished, root)

    def _output(self, finished: Finished, root: str) -> bytes:
        told = f"kustomize build {foreign(root) or '.'}"
        if finished.exceeded is not None:
            raise PermanentError(Reason.BUILD_FAILED, f"{told} {finished.exceeded} and was killed")
        if finished.code == 0:
            return finished.output
        if finished.code == EXIT_NOT_SANDBOXED:
            needed = "Linux with seccomp and libseccomp is needed"
            message = f"kustomize cannot be confined here, and is not run without that: {needed}"
            raise RetryableError(Reason.BUILD_FAILED, message)
        if finished.code == EXIT_NOT_STARTED:
            raise RetryableError(Reason.BUILD_FAILED, f"{foreign(self._binary)} cannot be run; see KUSTOMIZE_BINARY")
        what = next((failure.told for failure in _FAILURES if failure.sign in finished.errors), None)
        if finished.code == _GO_BROKE_DOWN:
            what = "it needs more memory than a build may use"
        elif finished.code < 0:
            what = "it was killed at the limit of its memory or time"
        # kustomize quotes what it has read, so its own words are not passed on.
        why = what or "it did not say why in words that are known here"
        raise PermanentError(Reason.BUILD_FAILED, f"{told} failed: {why}; run the same on a checkout to see where")


def service_of(root: str) -> str | None:
    """Return the directory name of the service that a path belongs to, by the layout of raw mode; None without one."""
    names = root.split("/")
    at = names.index(CONFIGURATION) if CONFIGURATION in names else 0
    return names[at - 1] if at > 0 else None


def sweep_builds() -> int:
    """Remove what builds of killed processes left in memory; return how many. For start-up."""
    return sweep(PREFIX, remove=_remove)


def _refuse_readable(opened: DecryptedFile, path: str, uses: frozenset[Use]) -> None:
    """Refuse a value that anyone can read where only secrets are: in a generator's input, in the data of a Secret."""
    leaves = opened.document.leaves
    secrets = {leaf.document for leaf in leaves if leaf.path == ("kind",) and leaf.value.expose() == b"Secret"}
    for leaf in leaves:
        if Use.INPUT in uses or (leaf.document in secrets and leaf.path[0] in ("data", "stringData")):
            refuse_readable(leaf, opened.document, path)


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files that only this user can read, and nobody can change."""
    root.mkdir(mode=0o700)
    for path, data in files.items():
        place = root / path
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    for directory, _, _ in os.walk(root, topdown=False):
        Path(directory).chmod(0o500)


def _remove(directory: Path) -> None:
    for inner, _, _ in os.walk(directory):
        Path(inner).chmod(0o700)
    shutil.rmtree(directory)
