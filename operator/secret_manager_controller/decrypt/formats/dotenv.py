r"""dotenv: one `KEY=value` a line, `#` comments, `\n` for a newline inside a value.

Source: stores/dotenv/store.go of getsops/sops. There are no quotes and no other escapes, as in
`docker --env-file`: a quote is part of the value.
"""

from __future__ import annotations

from secret_manager_controller.decrypt.formats.flat import unflatten
from secret_manager_controller.decrypt.formats.tree import Budget, Mapping, add, decoded, lines_of
from secret_manager_controller.decrypt.metadata import FLAT_PREFIX
from secret_manager_controller.decrypt.refusal import invalid
from secret_manager_controller.decrypt.scalars import Node, Scalar, Timestamp, general_float, printed


class Dotenv:
    """Reads dotenv files; all their values are strings."""

    def parse(self, data: bytes) -> list[Mapping]:
        """Return the one document of a file."""
        budget, document = Budget(), Mapping()
        for number, line in enumerate(lines_of(decoded(data)), 1):
            if not line or line.startswith("#"):
                continue
            budget.spend(0)
            key, equals, value = line.partition("=")
            if not equals:
                raise invalid(f"line {number} is not of the form KEY=value")
            if not key:
                raise invalid(f"line {number} has no key before `=`")
            add(document, key, value.replace("\\n", "\n"), where=f"line {number}: ")
        return [document]

    def detach_metadata(self, documents: list[Mapping]) -> Node:
        """Remove the keys that begin with `sops_` and return what they say."""
        (document,) = documents
        names = [key for key in document if key.startswith(FLAT_PREFIX)]
        if not names:
            return None
        return unflatten({name.removeprefix(FLAT_PREFIX): document.pop(name) for name in names})

    def printed(self, value: Scalar) -> bytes:
        """Return a value's bytes; a newline stays one."""
        return flat_printed(value)


def flat_printed(value: Scalar) -> bytes:
    """Print a value as `ValToString` in stores/stores.go does."""
    if isinstance(value, Timestamp):
        return value.whole_seconds.encode()
    if isinstance(value, float):
        text = general_float(value, "E")
        # So that nobody takes 5.0 for an integer; `Inf` and `NaN` stay.
        return (f"{text}.0" if set(text).isdisjoint(".EIN") else text).encode()
    return printed(value)
