"""Logs as JSON, logfmt or for a console; filters at the root let no secret through, and no flood of repeats."""

from __future__ import annotations

import enum
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import IO, Any, Final

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from controller_telemetry.repeats import RepeatFilter
from controller_telemetry.spans import log_fields

REDACTED: Final = "[redacted]"

_SENSITIVE: Final = re.compile(
    r"AGE-SECRET-KEY-1[0-9A-Z]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----.*?(?:-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|\Z)"
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/-]{8,}=*"
    r"|(?i:aws_secret_access_key|client_secret|password|api[-_]?key)\s*[=:]\s*\S+",
    re.DOTALL,
)
"""Shapes of credentials. It is the last net: no caller passes a value to a logger in the first place."""


_SCALARS: Final = (bool, int, float, type(None))
"""What an extra may be that holds no text."""


_FIELDS: Final[ContextVar[Mapping[str, str | int]]] = ContextVar("log_fields", default=MappingProxyType({}))


@contextmanager
def every_line_with(**fields: str | int) -> Iterator[None]:
    """Let every line of this piece of work, and of the tasks that it starts, have further fields."""
    token = _FIELDS.set({**_FIELDS.get(), **fields})
    try:
        yield
    finally:
        _FIELDS.reset(token)


class RedactingFilter(logging.Filter):
    """Replace what looks like a credential, and drop traceback text, whose frames may quote one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place, its extras too, and add the trace that it belongs to; it is always kept."""
        record.msg, record.args = redact(record.getMessage()), None
        for name, value in vars(record).items():
            if name not in RESERVED_ATTRS and not isinstance(value, _SCALARS):
                setattr(record, name, redact(str(value)))
        if record.exc_info is not None and record.exc_info[0] is not None:
            record.error_type = record.exc_info[0].__name__
            record.exc_info, record.exc_text = None, None
        vars(record).update({**_FIELDS.get(), **log_fields()})
        return True


class LogFormat(enum.StrEnum):
    """How lines are written; all of them tell the same fields."""

    JSON = "json"
    LOGFMT = "logfmt"
    CONSOLE = "console"


class LogfmtFormatter(JsonFormatter):
    """Fields as `name=value`, those with spaces or quotes as JSON strings."""

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line."""
        return " ".join(f"{name}={_bare(value)}" for name, value in log_data.items())


class ConsoleFormatter(JsonFormatter):
    """Time, level and message for a person's eye, then the other fields as logfmt has them."""

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line."""
        time, level, logger, message = (log_data.pop(name) for name in ("time", "level", "logger", "message"))
        rest = "".join(f" {name}={_bare(value)}" for name, value in log_data.items())
        told = message if str(message).isprintable() else json.dumps(message)
        return f"{time} {level:7} {told} logger={logger}{rest}"


_FORMATTERS: Final[dict[LogFormat, type[JsonFormatter]]] = {
    LogFormat.JSON: JsonFormatter,
    LogFormat.LOGFMT: LogfmtFormatter,
    LogFormat.CONSOLE: ConsoleFormatter,
}

_BARE: Final = re.compile(r"[^\s\"=\x00-\x20\x7f]+")


def _bare(value: object) -> str:
    """Return a value as it is where it is one word, else as a JSON string: a line break in it begins no line."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _BARE.fullmatch(text) and text.isprintable() else json.dumps(text)


def redact(text: str) -> str:
    """Return the text with what looks like a credential replaced."""
    return _SENSITIVE.sub(REDACTED, text)


def configure_logging(
    level: str,
    *,
    style: LogFormat = LogFormat.JSON,
    stream: IO[str] | None = None,
    quiet: Iterable[str] = (),
    hidden: Iterable[str] = (),
) -> None:
    """Send every log record of the process to one stream, each as a line.

    Args:
        level: the least level, as `logging` names it, in any case.
        style: how lines are written.
        stream: where to; standard error unless told otherwise.
        quiet: loggers that tell only their warnings.
        hidden: attributes that libraries hang on records and that are not told.

    Raises:
        ValueError: `level` is no level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        _FORMATTERS[style](
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            reserved_attrs=[*RESERVED_ATTRS, *hidden],
        )
    )
    handler.addFilter(RedactingFilter())
    handler.addFilter(RepeatFilter())  # Behind it: what is remembered of a line is redacted, too.
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)
