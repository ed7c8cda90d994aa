"""An event loop in virtual time, in which whole processes can be stopped, continued and killed.

Time passes only when nothing is left to do, and then at once. Nothing depends on the machine: the same program takes
the same steps each time. A process is an `Actor`: everything that is begun in its context belongs to it, and `pause`
stops it between any two steps as SIGSTOP would, `kill` for good as SIGKILL would: no `finally` runs.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVarTuple

START = 1000.0
"""The time at which every loop begins, in seconds; not 0, which is easily mistaken for no time."""

ENDING_ROUNDS = 20
"""How often tasks are cancelled: while one ends, it may start others."""

_ACTOR: contextvars.ContextVar[Actor | None] = contextvars.ContextVar("actor", default=None)
_Ts = TypeVarTuple("_Ts")
_Step = tuple[list[asyncio.Handle], Callable[..., object], tuple[Any, ...], contextvars.Context]


class Actor:
    """One simulated process."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._held: list[_Step] = []
        self.paused = False
        loop.actors.append(self)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task of this process."""
        context = contextvars.copy_context()
        context.run(_ACTOR.set, self)
        return self._loop.create_task(work, context=context)

    def pause(self) -> None:
        """Stop the process; what happens to it waits until it goes on."""
        self.paused = True

    def resume(self) -> None:
        """Let the process go on."""
        self.paused = False
        held, self._held = self._held, []
        for step in held:
            self._loop.replay(step)

    def kill(self) -> None:
        """End the process at once: it takes no step any more until the loop itself ends."""
        self.paused = True

    def runs(self, step: _Step) -> bool:
        """Tell whether the process may take a step now; else it is kept."""
        if self.paused:
            self._held.append(step)
        return not self.paused


class _NothingToSelect:
    """Stands in for the selector: instead of waiting, it lets time pass."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen any more: every task waits for another one")
        self._loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop whose time is virtual; it has no files, sockets or threads."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = START
        self._selector = _NothingToSelect(self)
        self.actors: list[Actor] = []
        self._all_tasks: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._remember)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_now

    def pass_time(self, seconds: float) -> None:
        """Move time on."""
        self._virtual_now += max(seconds, 0.0)

    def run_for(self, seconds: float) -> None:
        """Run everything that happens in the next seconds."""
        self.run_until_complete(asyncio.sleep(seconds))

    def end(self) -> None:
        """Cancel every task, those of killed processes too, and close the loop."""
        for _ in range(ENDING_ROUNDS):
            going_on = [task for task in self._all_tasks if not task.done()]
            for task in going_on:
                task.cancel()
            for actor in self.actors:
                actor.resume()
            if not going_on:
                break
            self.run_for(1)
        else:
            raise RuntimeError(f"tasks do not end: {going_on}")
        self.close()

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call back in the next step, if the process that asks still runs then."""
        context = contextvars.copy_context() if context is None else context
        own: list[asyncio.Handle] = []
        handle = super().call_soon(self._step, (own, callback, args, context), context=context)
        own.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back at a time, if the process that asks still runs then."""
        context = contextvars.copy_context() if context is None else context
        own: list[asyncio.Handle] = []
        handle = super().call_at(when, self._step, (own, callback, args, context), context=context)
        own.append(handle)
        return handle

    def replay(self, step: _Step) -> None:
        """Take a step that was kept, unless it was cancelled since."""
        super().call_soon(self._replay, step, context=step[3])

    def _step(self, step: _Step) -> None:
        _, callback, args, context = step
        actor = context.get(_ACTOR)
        if actor is None or actor.runs(step):
            callback(*args)

    def _replay(self, step: _Step) -> None:
        if not step[0][0].cancelled():
            self._step(step)

    def _remember(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        """Keep every task: one of a killed process must not be collected, which would run its `finally`."""
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        self._all_tasks.append(task)
        return task

    def _process_events(self, event_list: list[object]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nothing waits that would have to be woken."""
