"""Objects as they were last seen, packed: what a turn begins with in place of a read of each object.

A copy may be out of date. So a turn may come to the end that there is nothing to do by a copy alone, and makes sure of
the object before it does anything; see `subject`. 10,000 copies take about 15 MB.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

Body = Mapping[str, Any]

MAX_PACKED: Final = 4_096
"""Bytes of one copy: some fifty secrets. An object that manages more is read, which is little beside its reconcile."""
_LEVEL: Final = 1
"""zlib's fastest; the slowest saves a tenth more."""
_BEST_RATIO: Final = 16
"""What is so much larger than a copy may be is not tried: hashes and versions do not pack that well."""


class ObjectCopies:
    """The last copy of each object, from the watch or from our own writes, whichever is newer."""

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}
        self._packed: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def put(self, body: Body) -> None:
        """Keep an object as it is shown. Who sees an older state than before trusts neither: the next turn reads it."""
        key, version = key_of(body["metadata"]), version_of(body["metadata"])
        if key in self._packed and version is not None and version == self._versions[key]:
            return  # What we have written ourselves, shown by the watch.
        outdated = version is None or version < self._versions.get(key, version)
        if version is None:
            self._versions.pop(key, None)
        else:
            self._versions[key] = version
        packed = None if outdated else _packed(body)
        if packed is None:
            self._packed.pop(key, None)
        else:
            self._packed[key] = packed

    def get(self, key: str) -> Body | None:
        """Return the copy of an object, or None if there is none: it is read then."""
        packed = self._packed.get(key)
        return None if packed is None else json.loads(zlib.decompress(packed))

    def behind(self, key: str, listed: int | None) -> bool:
        """Tell whether an object's resourceVersion in a listing is newer than anything that was shown of it."""
        seen = self._versions.get(key)
        return listed is not None and seen is not None and seen < listed

    def distrust(self, key: str) -> None:
        """Let the object's next turn read it."""
        self._packed.pop(key, None)

    def remove(self, key: str) -> None:
        """Forget an object that is gone."""
        self._packed.pop(key, None)
        self._versions.pop(key, None)


def _packed(body: Body) -> bytes | None:
    """Return an object packed without its managed fields, or None where that is too large."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    text = json.dumps({**body, "metadata": metadata}).encode()
    packed = zlib.compress(text, _LEVEL) if len(text) <= MAX_PACKED * _BEST_RATIO else text
    return packed if len(packed) <= MAX_PACKED else None


def key_of(metadata: Body) -> str:
    """Return the request key of an object."""
    return f"{metadata['namespace']}/{metadata['name']}"


def version_of(metadata: Body) -> int | None:
    """Return a resourceVersion, which grows with every write of any object (KEP-5504), or None if it is no number."""
    version = str(metadata.get("resourceVersion") or "")
    return int(version) if version.isdecimal() and version.isascii() else None
