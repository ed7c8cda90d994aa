"""A plan as text and as data: actions and names, never a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from secret_manager_controller.cli.oneshot import Planned
from secret_manager_controller.cli.terminal import Colour, printable, say
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.model.plan import Action, Adopt, Conflict, Create, Plan, Prune, Unchanged, Update
from secret_manager_controller.model.report import Report

_LOOKS: dict[str, tuple[str, Colour | None]] = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "adopt": ("±", "cyan"),
    "prune": ("-", "red"),
    "conflict": ("!", "red"),
    "held": ("!", "red"),
    "orphan": ("·", None),
    "failed": ("!", "red"),
}

_REST = {"conflict": "in conflict", "held": "held back", "orphan": "orphaned"}


def print_plan(planned: Planned) -> None:
    """Print the plan of one object; its unchanged secrets are only counted."""
    if planned.error is not None:
        print_error(planned)
        return
    if planned.suspended:
        say(f"SecretManagerConfig '{planned.manifest}' is suspended: nothing is planned", bold=True)
        say()
        return
    prepared = planned.prepared
    assert prepared is not None  # Neither an error nor suspended.
    what = f"{printable(prepared.store)}, revision {printable(prepared.revision.revision)}"
    say(f"SecretManagerConfig '{planned.manifest}' ({what}):", bold=True)
    lines = list(_lines(prepared.plan))
    for kind, name, remark in lines:
        print_line(kind, name, remark)
    if not lines:
        say("  nothing to do")
    say()


def print_error(planned: Planned) -> None:
    """Tell on stderr why there is no plan of an object."""
    error = planned.error
    assert error is not None  # Only called with one.
    click.echo(f"Error: {planned.manifest}: {error.reason}: {printable(error.message)}", err=True)


def print_line(kind: str, name: str, remark: str = "") -> None:
    """Print one action on one secret."""
    symbol, colour = _LOOKS[kind]
    say(f"  {symbol} {kind:<8} {printable(name)}{f'  ({printable(remark)})' if remark else ''}", colour=colour)


def print_summary(plans: Sequence[Planned]) -> None:
    """Print what all plans come to; nothing where there is none."""
    without = sum(1 for planned in plans if planned.error is not None)
    if without == len(plans):
        return
    counts = count(planned.prepared.plan for planned in plans if planned.prepared is not None)
    parts = [f"{counts[kind]} to {kind}" for kind in ("create", "update", "adopt", "prune")]
    parts += [f"{counts['unchanged']} unchanged"]
    parts += [f"{counts[kind]} {title}" for kind, title in _REST.items() if counts[kind]]
    parts += [f"{without} without a plan"] if without else []
    say(f"Plan: {', '.join(parts)}.", bold=True)
    if counts["held"]:
        say("More than half of the secrets left the source; they are kept unless --confirm-prune is given.")


def count(plans: Iterable[Plan]) -> Counter[str]:
    """Return how many secrets each kind of action has."""
    counts: Counter[str] = Counter()
    for plan in plans:
        counts.update(kind_of(action) for action in plan.actions)
        counts.update({"held": len(plan.held), "orphan": len(plan.orphans)})
    return counts


def kind_of(action: Action) -> str:
    """Return the word for an action."""
    return type(action).__name__.lower()


def name_of(action: Action) -> str:
    """Return the name of the secret that an action is about."""
    match action:
        case Create(secret) | Update(secret) | Adopt(secret):
            return secret.name
        case Prune(current):
            return current.name
        case Unchanged(name) | Conflict(name):
            return name


def as_document(plans: Sequence[Planned]) -> dict[str, Any]:
    """Return all plans as plain data, for `-o json` and `-o yaml`."""
    counts = count(planned.prepared.plan for planned in plans if planned.prepared is not None)
    kinds = ("create", "update", "adopt", "prune", "unchanged", "conflict", "held", "orphan")
    return {"objects": [_object(planned) for planned in plans], "summary": {kind: counts[kind] for kind in kinds}}


def print_report(planned: Planned, report: Report) -> None:
    """Print what came of a plan."""
    done = {
        "created": report.created,
        "updated": report.updated,
        "adopted": report.adopted,
        "pruned": report.pruned,
    }
    counts = ", ".join(f"{len(names)} {word}" for word, names in done.items())
    colour: Colour = "green" if report.complete else "yellow"
    say(
        f"SecretManagerConfig '{planned.manifest}': {counts}; {report.synced} of {report.wanted} in sync", colour=colour
    )
    for failure in report.failures:
        print_line("failed", failure.name, f"{failure.error.reason}: {failure.error.message}")
    if report.left:
        say(f"  {report.left} more were not begun")


def _lines(plan: Plan) -> Iterator[tuple[str, str, str]]:
    for action in plan.actions:
        match action:
            case Unchanged():
                continue
            case Conflict(name, message):
                yield "conflict", name, message.removeprefix(f"{name!r} ")
            case Adopt(secret, _, write=True):
                yield "adopt", secret.name, "its value is replaced"
            case Update(secret, _, write=False):
                yield "update", secret.name, "its value stays, its options change"
            case _:
                yield kind_of(action), name_of(action), ""
    yield from (("held", name, "left the source with many others") for name in plan.held)
    yield from (("orphan", name, "left the source; spec.prune is false") for name in plan.orphans)


def _object(planned: Planned) -> dict[str, Any]:
    told: dict[str, Any] = {"namespace": planned.manifest.namespace, "name": planned.manifest.name}
    if planned.error is not None:
        return told | {"error": _error(planned.error)}
    if planned.prepared is None:
        return told | {"suspended": True}
    plan = planned.prepared.plan
    actions = []
    for action in plan.actions:
        told_action = {"action": type(action).__name__, "name": str(name_of(action))}
        actions.append(told_action | ({"message": action.message} if isinstance(action, Conflict) else {}))
    return told | {
        "store": planned.prepared.store,
        "revision": planned.prepared.revision.revision,
        "actions": actions,
        "held": [str(name) for name in plan.held],
        "orphans": [str(name) for name in plan.orphans],
    }


def _error(error: ControllerError) -> dict[str, str]:
    return {"reason": str(error.reason), "message": error.message}
