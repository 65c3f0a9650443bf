"""When a lane takes its next events, and how many: it fills batches as TCP fills segments (RFC 896).

A full batch leaves at once, and so does the first event after a pause. Less than a batch waits where one was taken only
just now, or is unanswered: a request costs as much for one event as for many.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence

from router.delivery.ends import Job
from router.delivery.sending import Sending

TAKE = 64  # events looked at in one go, where a batch is not larger
GATHER = 0.02  # seconds between two looks for less than a batch
PATIENCE = 0.2  # seconds between them where no answer comes
OFTEN = 4  # tries of the same events: one that failed once or twice says nothing of them


def batches(jobs: Sequence[Job], size: int, suspects: Sequence[range]) -> list[Sequence[Job]]:
    """Batches of so many. Those that may have killed the last process are each a batch of their own.

    After ``OFTEN`` tries a batch is half as large at each further one: where it is one event that the partner fails at,
    with 500 or in too long a time, its neighbours do not wait with it until they expire.
    """
    alone = [job for job in jobs if any(job.seq in each for each in suspects)] if suspects else []
    if alone:
        jobs = [job for job in jobs if job not in alone]
    parts: list[Sequence[Job]] = [[job] for job in alone]
    for halvings, group in itertools.groupby(sorted(jobs, key=_halvings), _halvings):
        alike, most = list(group), max(1, size >> halvings)
        parts += [alike[at : at + most] for at in range(0, len(alike), most)]
    return parts


def _halvings(job: Job) -> int:
    return max(0, job.attempts - OFTEN + 1) if job.parked else 0


class Batching:
    """``behind`` says how many events wait to be taken."""

    def __init__(self, size: int, sending: Sending, behind: Callable[[], int]) -> None:
        self._size, self._sending, self._behind = size, sending, behind
        self._took = -GATHER  # when some were taken, by the loop's clock

    def took(self) -> None:
        """Some were taken just now."""
        self._took = asyncio.get_running_loop().time()

    @property
    def most(self) -> int:
        """Events to take."""
        return max(self._size, TAKE)

    async def filled(self) -> None:
        """Until there is a batch, or it is time to go with less."""
        loop, change = asyncio.get_running_loop(), self._sending.change
        if self._less_than_one():
            await asyncio.sleep(self._took + GATHER - loop.time())
        while self._less_than_one() and self._sending.under_way and loop.time() < self._took + PATIENCE:
            change.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await change.wait()

    def _less_than_one(self) -> bool:
        return self._size > 1 and self._behind() < self._size and not self._sending.stopping
