"""Both ways to render, behind one: first read what an object needs, then decrypt and render that."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

from secret_manager_controller.decrypt import Decryptor, Document, Format, KeyRing, WrappedKey
from secret_manager_controller.model.plaintext import Plaintext
from secret_manager_controller.model.spec.secrets import Secrets
from secret_manager_controller.render.builds import BuildCache
from secret_manager_controller.render.inputs import BuildInputs, gather_build
from secret_manager_controller.render.kustomize import Kustomize
from secret_manager_controller.render.protocol import Tree
from secret_manager_controller.render.raw import RawInputs, gather_raw, read_raw, render_raw
from secret_manager_controller.tracing import Attribute, step

CONCURRENT_BUILDS = 2
"""At a time; each may use `sandbox.Limits.memory`, which counts towards the pod's limit."""

_KMS_SIGNS = (b"kms", b"azure_kv", b"hc_vault")
"""What the metadata of a file with such a recipient has somewhere: most files have none, and are not parsed twice."""

Inputs = RawInputs | BuildInputs


class Renderer:
    """Renders what objects ask for. For one event loop.

    Args:
        decryptor: reads files.
        kustomize: builds directories.
    """

    def __init__(self, decryptor: Decryptor, kustomize: Kustomize, *, builds: BuildCache | None = None) -> None:
        self._decryptor = decryptor
        self._kustomize = kustomize
        self._builds = builds or BuildCache()
        self._slots = asyncio.Semaphore(CONCURRENT_BUILDS)

    async def gather(self, tree: Tree, secrets: Secrets) -> Inputs:
        """Read everything that rendering needs, encrypted as it is.

        Raises:
            PermanentError: what `gather_raw` and `gather_build` raise.
        """
        if secrets.kustomize_path is not None:
            return await asyncio.to_thread(gather_build, tree, secrets.kustomize_path)
        return await asyncio.to_thread(gather_raw, tree, environment=secrets.environment, base_path=secrets.base_path)

    def digest(self, inputs: Inputs) -> str:
        """Return a keyed hash of inputs: while it stays the same, so does what is rendered."""
        return self._decryptor.fingerprint(b"inputs", *inputs.parts)

    async def needed_of_kms(self, inputs: Inputs, keys: KeyRing) -> tuple[WrappedKey, ...]:
        """Return the wrapped data keys of all files that the keys at hand do not open and a KMS could."""
        suspects = [content for content in inputs.contents if any(sign in content for sign in _KMS_SIGNS)]
        if not suspects:
            return ()
        return await asyncio.to_thread(
            lambda: tuple(entry for content in suspects for entry in self._decryptor.needed_of_kms(content, keys))
        )

    async def render(self, inputs: Inputs, keys: KeyRing) -> Plaintext:
        """Return keys and values.

        Raises:
            ControllerError: what `render_raw` and `Kustomize.render` raise.
        """
        if isinstance(inputs, BuildInputs):
            key = self.digest(inputs).encode() + keys.seal
            with step("render", {Attribute.SHARED: True}) if key in self._builds else nullcontext():
                return await self._builds.get(key, lambda: self._build(inputs, keys))

        def read_document(data: bytes, format: Format, path: str) -> Document:  # noqa: A002 - the decryptor's own name.
            return self._decryptor.read(data, format=format, path=path, keys=keys)

        def work() -> Plaintext:
            with step("decrypt", {Attribute.FILES: len(inputs.contents)}):
                documents = read_raw(inputs, read_document=read_document)
            with step("render"):
                return render_raw(inputs, read_document=lambda _data, _format, path: documents[path])

        return await asyncio.to_thread(work)

    async def _build(self, inputs: BuildInputs, keys: KeyRing) -> Plaintext:
        async with self._slots:
            return await asyncio.to_thread(self._kustomize.render, inputs, keys)
