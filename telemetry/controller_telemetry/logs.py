"""Logs as JSON lines, with a filter at the root that lets no secret through."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from typing import IO, Final

from opentelemetry.trace import format_span_id, format_trace_id, get_current_span
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

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
        context = get_current_span().get_span_context()
        if context.is_valid:
            record.trace_id, record.span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
        return True


def redact(text: str) -> str:
    """Return the text with what looks like a credential replaced."""
    return _SENSITIVE.sub(REDACTED, text)


def configure_logging(
    level: str, *, stream: IO[str] | None = None, quiet: Iterable[str] = (), hidden: Iterable[str] = ()
) -> None:
    """Send every log record of the process to one stream as a JSON line.

    Args:
        level: the least level, as `logging` names it, in any case.
        stream: where to; standard error unless told otherwise.
        quiet: loggers that tell only their warnings.
        hidden: attributes that libraries hang on records and that are not told.

    Raises:
        ValueError: `level` is no level.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            reserved_attrs=[*RESERVED_ATTRS, *hidden],
        )
    )
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in quiet:
        logging.getLogger(name).setLevel(logging.WARNING)
