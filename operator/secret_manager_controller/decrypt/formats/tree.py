"""What the formats share: the reader's protocol, and the limits of a tree."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from secret_manager_controller.decrypt.document import MAX_DEPTH, MAX_NODES
from secret_manager_controller.decrypt.refusal import invalid, shown
from secret_manager_controller.decrypt.scalars import Node, Scalar

Mapping: TypeAlias = dict[str, Node]


class FormatReader(Protocol):
    """One format.

    Each method raises `RefusedError` for text that is not of the format, that sops could not have
    written, or that passes a limit.
    """

    def parse(self, data: bytes) -> list[Mapping]:
        """Return the documents of a file; one, except in YAML."""
        ...

    def detach_metadata(self, documents: list[Mapping]) -> Node:
        """Remove the SOPS metadata from the documents and return it, nested; None without any."""
        ...

    def printed(self, value: Scalar) -> bytes:
        """Return a value's bytes as `sops --decrypt` writes them in this format, unquoted."""
        ...


class Budget:
    """Counts a file's nodes and their depth while it is parsed.

    Args:
        max_nodes: the most that there may be.
    """

    def __init__(self, max_nodes: int = MAX_NODES) -> None:
        self._nodes = 0
        self._max_nodes = max_nodes

    def spend(self, depth: int) -> None:
        """Count a node at a depth, the root's being 0.

        Raises:
            RefusedError: there are too many, or it is too deep.
        """
        self._nodes += 1
        if self._nodes > self._max_nodes:
            raise invalid(f"it has more than {self._max_nodes} keys and items")
        if depth > MAX_DEPTH:
            raise invalid(f"it is nested more than {MAX_DEPTH} deep")


def decoded(data: bytes) -> str:
    """Return a file's text, without a byte order mark.

    Raises:
        RefusedError: it is not UTF-8; tells where.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
    raise invalid(f"byte {at} is not UTF-8")


def lines_of(text: str) -> list[str]:
    r"""Split a line-based format at `\n`.

    Raises:
        RefusedError: a line ends with `\r\n`. `sops` would keep the `\r` in the value or drop it,
            depending on the format; either surprises.
    """
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.endswith("\r"):
            raise invalid(f"line {number} ends with CR LF; save the file with LF line ends")
    return lines


def add(mapping: Mapping, key: str, value: Node, *, where: str = "") -> None:
    """Put a key into a mapping.

    Raises:
        RefusedError: it is there already.
    """
    if key in mapping:
        raise invalid(f"{where}the key {shown((key,))} occurs twice")
    mapping[key] = value


def detach(mapping: Mapping, key: str) -> Node:
    """Remove a key and return its value; None if it is not there, an empty string for a null."""
    if key not in mapping:
        return None
    value = mapping.pop(key)
    return "" if value is None else value
