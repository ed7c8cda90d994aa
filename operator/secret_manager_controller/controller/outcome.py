"""What a reconcile came to, and how the log tells it: a line for each change of state."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secret_manager_controller.controller.events import changes_told
from secret_manager_controller.errors import ControllerError
from secret_manager_controller.model.report import Report
from secret_manager_controller.model.status import READY, UNTRACED, Status, report_error

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconcile came to: a report, nothing to do (both None), or an error."""

    report: Report | None = None
    error: ControllerError | None = None

    @property
    def problem(self) -> ControllerError | None:
        """What keeps the object from being ready, if anything does."""
        return self.error or (report_error(self.report) if self.report is not None else None)


@dataclass(frozen=True, slots=True)
class Trace:
    """What status and log tell of a reconcile's trace.

    Attributes:
        id: of the trace, if it is recorded.
        fields: what the log lines about the reconcile have of it.
        untraced: what keeps it from going where the spec says.
    """

    id: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    untraced: ControllerError | None = None


def log_outcome(key: str, outcome: Outcome, statuses: tuple[Status, Status], trace: Trace, seconds: float) -> None:
    """Log what a reconcile came to: a line where something changed, else one for debugging.

    Args:
        key: the object's request key.
        outcome: what the reconcile came to.
        statuses: the status before and after.
        trace: that tells of it.
        seconds: how long it took.
    """
    previous, status = statuses
    told: dict[str, Any] = {"object": key, "revision": status.last_attempted_revision, "duration_s": round(seconds, 3)}
    told |= trace.fields
    before, report, problem = previous.condition(READY), outcome.report, outcome.problem
    said, untraced = previous.condition(UNTRACED), trace.untraced
    if untraced is not None and (said is None or said.message != untraced.message):
        logger.warning("No traces", extra={"object": key, "reason": str(untraced.reason), "error": untraced.message})
    if problem is not None:
        logger.warning("Not ready", extra=told | {"reason": str(problem.reason), "error": problem.message})
    elif report is not None and report.changed:
        logger.info("Store updated", extra=told | {"changes": changes_told(report)})
    elif before is None or before.status != "True":
        logger.info("Ready", extra=told)
    else:
        logger.debug("Nothing to do", extra=told)


def log_unexpected(error: Exception, *, key: str, retry: float | None = None) -> None:
    """Log a fault of ours by type and place; its text and its frames' variables may hold a value and are left out."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
    logger.error(
        "Internal error",
        extra={"object": key, "error_type": type(error).__name__, "where": where, "retry_s": retry},
    )
