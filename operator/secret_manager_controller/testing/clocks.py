"""Clocks for tests: one that a test moves, and a wall clock that jumps.

The second is for one process: a library before the C library's own shifts CLOCK_REALTIME, as ntpd might.

    with ShiftedClock(tmp_path) as clock:
        replicas.start(**clock.environment)
        clock.shift(3600)

Monotonic clocks go on as they were. Needs a C compiler. (Time namespaces shift the monotonic clocks alone.)
"""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;
static int (*gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_SHIFT_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (file >= 0) {
        void *page = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
        if (page != MAP_FAILED) shift = page;
        close(file);
    }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!gettime) begin();
    int result = gettime(clock, now);
    if (!result && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *shift;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec found;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec found;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    if (out) *out = found.tv_sec;
    return found.tv_sec;
}
"""
WIDTH = 8  # Bytes of the shift, as the library reads it.


def compiler() -> str | None:
    """Return the C compiler, or None where there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


class ManualClock:
    """Seconds that a test moves: `clock.now += 5`.

    Attributes:
        now: what the clock shows.
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return what the clock shows."""
        return self.now


class ShiftedClock:
    """The wall clock of the processes that are started with its environment."""

    def __init__(self, directory: Path) -> None:
        """Build the library.

        Args:
            directory: where it is kept.

        Raises:
            FileNotFoundError: there is no C compiler.
        """
        program = compiler()
        if program is None:
            raise FileNotFoundError(2, "no C compiler", "cc")
        library, self._file = directory / "clock.so", directory / "clock-shift"
        command = [program, "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(command, input=SOURCE, text=True, check=True, capture_output=True)
        self._file.write_bytes(bytes(WIDTH))
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": str(self._file)}

    def __enter__(self) -> Self:
        with self._file.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), WIDTH)
        return self

    def __exit__(self, *_: object) -> None:
        self._page.close()

    def shift(self, seconds: int) -> None:
        """Let the clock show so many seconds more than it would, from now on."""
        self._page[:WIDTH] = seconds.to_bytes(WIDTH, "little", signed=True)
