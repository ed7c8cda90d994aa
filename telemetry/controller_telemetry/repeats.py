"""Trouble that lasts is told once, and then from time to time with how often it came again."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pythonjsonlogger.core import RESERVED_ATTRS

REPEAT_INTERVAL: Final = 300.0
"""Seconds after which a repeated line is told again; an object that fails is tried about as often at the end."""
MAX_SUBJECTS: Final = 20_000
"""Whose last line is remembered: 400 bytes each; what is forgotten is told once more."""

_IDS: Final = frozenset({"trace_id", "span_id"})
"""Differ between repeats, although they are text."""


@dataclass(slots=True)
class _Last:
    line: tuple[object, ...]
    since: float
    count: int = 0


class RepeatFilter(logging.Filter):
    """Drop a line of trouble that repeats its subject's last one, and tell `repeats` when it is told again.

    Trouble is a warning, an error, or what has an `error`. The subject is the object that a line is about, or the
    message where there is none. Two lines are the same if they differ in numbers and ids alone: how long it took, when
    it is tried again. Any other line about the object, such as that it is ready, begins anew. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._last: OrderedDict[tuple[str, object], _Last] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is to be told; it may get the field `repeats`."""
        if record.levelno < logging.INFO:
            return True
        texts = {n: v for n, v in vars(record).items() if n not in RESERVED_ATTRS and isinstance(v, str)}
        trouble = record.levelno >= logging.WARNING or "error" in texts
        subject = (record.name, texts.get("object", record.getMessage()))
        line = (record.levelno, record.getMessage(), *sorted((n, v) for n, v in texts.items() if n not in _IDS))
        with self._lock:
            last = self._last.get(subject)
            if not trouble:
                self._last.pop(subject, None)
                return True
            now = self._clock()
            if last is not None and last.line == line and now - last.since < REPEAT_INTERVAL:
                last.count += 1
                return False
            if last is not None and last.line == line and last.count:
                record.repeats = last.count
            self._last[subject] = _Last(line, now)
            self._last.move_to_end(subject)
            if len(self._last) > MAX_SUBJECTS:
                self._last.popitem(last=False)
        return True
