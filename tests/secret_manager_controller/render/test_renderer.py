"""Two ways to render behind one: what they read, and that equal inputs are built once."""

import pyrage
import pytest

from secret_manager_controller.decrypt import Decryptor, KeyRing
from secret_manager_controller.model.plaintext import Plaintext
from secret_manager_controller.model.secret import HashKey
from secret_manager_controller.model.spec.secrets import Secrets
from secret_manager_controller.render.inputs import BuildInputs
from secret_manager_controller.render.raw import RawInputs
from secret_manager_controller.render.renderer import Renderer

PROFILE = "idam/deployment-configuration/profiles/dev"
FILES = {
    f"{PROFILE}/application.secrets.env": b"A=1\n",
    f"{PROFILE}/kustomization.yaml": b"secretGenerator: [{name: a, literals: [A=1]}]\n",
}


class FakeKustomize:
    """Counts builds."""

    def __init__(self):
        self.builds = []

    def render(self, inputs, keys):
        self.builds.append(inputs)
        return Plaintext(())


@pytest.fixture
def kustomize():
    return FakeKustomize()


@pytest.fixture
def renderer(kustomize):
    return Renderer(Decryptor(HashKey(b"k" * 32)), kustomize)


def secrets(**fields):
    return Secrets.model_validate({"environment": "dev"} | fields)


async def test_profile_files_are_read_as_they_are(renderer, tree_of):
    inputs = await renderer.gather(tree_of(FILES), secrets(basePath="idam"))
    assert isinstance(inputs, RawInputs)
    (service,) = (await renderer.render(inputs, KeyRing())).services
    assert [(entry.key, entry.value.expose()) for entry in service.entries] == [("A", b"1")]


async def test_equal_inputs_are_built_once_for_equal_keys(renderer, kustomize, tree_of):
    inputs = await renderer.gather(tree_of(FILES), secrets(kustomizePath=PROFILE))
    assert isinstance(inputs, BuildInputs)
    other = KeyRing.parse([str(pyrage.x25519.Identity.generate()).encode()])
    for keys in (KeyRing(), KeyRing(), other, other):
        await renderer.render(inputs, keys)
    assert len(kustomize.builds) == 2


async def test_the_digest_moves_with_what_is_read_and_with_nothing_else(renderer, tree_of):
    async def digests(files):
        tree = tree_of(FILES | files)
        return [
            renderer.digest(await renderer.gather(tree, asked))
            for asked in (secrets(basePath="idam"), secrets(kustomizePath=PROFILE))
        ]

    raw, built = await digests({})
    assert raw != built
    assert await digests({"elsewhere": b"x"}) == [raw, built]
    raw_moved, unmoved = await digests({f"{PROFILE}/application.secrets.env": b"A=2\n"})
    assert (raw_moved != raw, unmoved == built) == (True, True)


async def test_a_digest_is_no_plain_hash(tree_of):
    """Whoever guesses a file's content cannot check the guess: it could be a short plain value."""
    tree, digests = tree_of(FILES), set()
    for key in (b"a" * 32, b"b" * 32):
        renderer = Renderer(Decryptor(HashKey(key)), FakeKustomize())
        digests.add(renderer.digest(await renderer.gather(tree, secrets(basePath="idam"))))
    assert len(digests) == 2
