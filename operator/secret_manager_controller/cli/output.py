"""Objects as JSON or YAML, and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
import yaml
from tabulate import tabulate

Body = Mapping[str, Any]

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # Ten times faster, where libyaml is there.


def print_document(document: Body, *, output: str) -> None:
    """Print a document as `json` or `yaml`. Both write in ASCII and escape what a terminal would obey."""
    if output == "json":
        # DEL is the one control character that JSON allows in a string; it stands in strings only.
        click.echo(json.dumps(document, indent=2).replace("\x7f", "\\u007f"))
    else:
        click.echo(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=False), nl=False)


def for_reading(body: Body) -> dict[str, Any]:
    """Return an object without `managedFields`, which nobody reads and `kubectl get` leaves out as well."""
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    return {**body, "metadata": metadata}


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; trailing spaces in a header widen its column."""
    click.echo(tabulate(rows, headers=headers, tablefmt="plain", preserve_whitespace=True, disable_numparse=True))
