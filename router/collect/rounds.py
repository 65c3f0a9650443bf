"""Rounds: requests are prepared together, a stretch at a time, between which the event loop sees to everybody else:
refusals, health, lanes.

What came in one round of the event loop is prepared one after the other and stored as one. The same work done where each
request is read costs nearly twice as much, because the caches hold the rules or the network's code, but not both
(measured).

Work is measured in bytes and not in seconds: the same load is cut the same way on every machine. They count as they are
after inflating: those of an item when it is prepared, all others when the request is read, also where it is refused.

A lane's batch takes a few milliseconds, and a round may take as many: with shorter ones, three busy lanes left the
requests a third of the time (measured). While something is refused rounds are short, for those answers must be quick; each
refusal and each new connection buys as much work, so that these, however many, never take more than half of the time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from router.collect.preparing import Job
from router.problem import Malformed

STRETCH = 65_536  # bytes of events that are worked on in one round of the event loop: some four milliseconds
PRESSED = 16_384  # and while something is refused; a millisecond
LONGEST_PRESSED = 20_480
GATHER = 0.002  # seconds between two rounds, where several come at a time: a round costs as much for one as for ten
ENOUGH = 32  # requests that have come: nobody waits for more
ASIDE = 512  # bytes of events that are as much work as a refusal or a new connection


class Rounds:
    """Works on jobs, first come first served. ``ready`` is told at the end of a round which ones are prepared; those that
    are not acceptable are done. ``followed``: does a lane wait for the events?
    """

    def __init__(
        self,
        ready: Callable[[list[Job]], None],
        new_id: Callable[[], str],
        stretch: int = STRETCH,
        followed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ready, self._new_id, self._stretch, self._followed = ready, new_id, stretch, followed
        self._aside = 0
        self._ended, self._together = 0.0, 0  # the last round: when, by the loop's clock, and of how many
        self._gathering: asyncio.TimerHandle | None = None
        self._waiting: deque[Job] = deque()

    def add(self, job: Job) -> None:
        """The job is worked on in one of the next rounds, which begins at once where ``ENOUGH`` wait."""
        if not self._waiting:
            self._gather()
        self._waiting.append(job)
        if self._gathering is not None and len(self._waiting) >= ENOUGH:
            self._gathering.cancel()
            self._gathering = None
            asyncio.get_running_loop().call_soon(self._round)

    def _gather(self) -> None:
        """The next round: now, or where several came together, and nobody was refused, a little later for others to come."""
        loop = asyncio.get_running_loop()
        wait = self._ended + GATHER - loop.time()
        if wait > 0 and self._together > 1:
            self._gathering = loop.call_later(wait, self._round)
        else:
            loop.call_soon(self._round)

    def set_aside(self) -> None:
        """Something else was done that nobody asked us to do: the next round is the longer."""
        self._aside = min(self._aside + ASIDE, LONGEST_PRESSED - PRESSED)

    def _round(self) -> None:
        self._gathering = None
        pressed = self._aside > 0
        left = PRESSED + self._aside if pressed else self._stretch
        self._aside = 0
        remember = self._followed()
        prepared: list[Job] = []
        while left > 0 and self._waiting:
            job = self._waiting[0]
            outcome = self._worked(job, left, remember=remember)
            left -= max(job.worked, ASIDE)
            if outcome is not None:
                job.done(outcome)
            elif job.through:
                prepared.append(job)
            else:
                break
            self._waiting.popleft()
        self._ended, self._together = asyncio.get_running_loop().time(), 0 if pressed else len(prepared)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._round)
        if prepared:
            self._ready(prepared)

    def _worked(self, job: Job, most: int, *, remember: bool) -> Malformed | Exception | None:
        try:
            return job.work(most, self._new_id, remember=remember)
        except Exception as fault:  # noqa: BLE001 - it is one request's; the others must not suffer
            return fault
