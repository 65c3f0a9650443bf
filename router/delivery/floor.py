"""The floor: one lane at a time makes its requests, and after each the event loop is everybody else's for a while.

A lane's batch takes a few milliseconds of the processor, and all lanes wake at the same event. What is shared is time and
not turns of the loop, which last some microseconds where nobody sends and eight milliseconds where many do. While the
loop is busy, lanes have a sixth of it: what they do not get done waits on disk, and no sender waits for it. Where there
is nothing else to do, a lane loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable

SHARE = 5  # times as long as a lane worked, the loop is for others
TURNS = 3  # of the loop until it is known to be idle: what came is read in one, worked on in the next
IDLE = 0.0002  # seconds: a turn that is shorter had nothing to do


class Floor:
    """All lanes of an engine share one. ``now`` tells seconds."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._taken = asyncio.Lock()
        self._theirs = now()  # until when the loop is everybody else's
        self._round = True  # whether the loop went round since the last lane's turn

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Whoever asked first is first."""
        async with self._taken:
            await self._others()
            began = self._now()
            try:
                yield
            finally:
                ended = self._now()
                self._theirs = ended + SHARE * (ended - began)
                self._round = False
                asyncio.get_running_loop().call_soon(self._went_round)

    def _went_round(self) -> None:
        self._round = True

    async def _others(self) -> None:
        """Until they have had their time, or do not want it. Time in which the process was not running is nobody's, so
        the loop goes round once whatever the clock says.
        """
        before = at = self._now()
        for turn in itertools.count():
            if self._round and (at >= self._theirs or (turn >= TURNS and at - before < IDLE)):
                return
            await asyncio.sleep(0)  # a turn of the loop, not a time
            before, at = at, self._now()
