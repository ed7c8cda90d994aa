"""An API server in memory, for what talks to it through `KubeClient`'s methods."""

import copy
import itertools

import pytest

from secret_manager_controller.kube import KubeError


class FakeKube:
    """Objects by path, with resourceVersions, merge patches and preconditions.

    Attributes:
        objects: what there is, by path.
        requests: verb and path of each request.
        refuse: raises for a verb and path, or returns; called before each request.
    """

    def __init__(self):
        self.objects = {}
        self.requests = []
        self.refuse = lambda verb, path: None
        self._versions = itertools.count(1)

    def put(self, path, **body):
        body.setdefault("metadata", {})["resourceVersion"] = str(next(self._versions))
        self.objects[path] = body
        return body

    async def get(self, path):
        self._note("get", path)
        return copy.deepcopy(self.objects.get(path))

    async def create(self, path, body):
        self._note("create", path)
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{next(self._versions)}"
        if f"{path}/{name}" in self.objects:
            raise KubeError(409, "it exists")
        return self.put(f"{path}/{name}", **copy.deepcopy(dict(body)))

    async def merge_patch(self, path, body):
        self._note("patch", path)
        target = path.removesuffix("/status")
        if target not in self.objects:
            raise KubeError(404, "not found")
        stored = self.objects[target]
        wanted = body.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, stored["metadata"]["resourceVersion"]):
            raise KubeError(409, "the object has been modified")
        changed = merged(stored, body)
        changed["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[target] = changed
        return copy.deepcopy(changed)

    async def list_objects(self, resource):
        self._note("list", resource.url())
        for path, body in list(self.objects.items()):
            if path.startswith(f"{resource.url()}/"):
                yield copy.deepcopy(body)

    async def list_metadata(self, resource):
        self._note("list", resource.url())
        for path, body in list(self.objects.items()):
            if f"/{resource.plural}/" in path and resource.group in path:
                yield body["metadata"]

    def done(self, verb):
        return [path for seen, path in self.requests if seen == verb]

    def _note(self, verb, path):
        self.requests.append((verb, path))
        self.refuse(verb, path)


def merged(target, patch):
    """Apply a merge patch (RFC 7386)."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name) or {}, value) if isinstance(value, dict) else value
    return result


@pytest.fixture
def kube():
    return FakeKube()
