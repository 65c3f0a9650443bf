"""Writing down what became of a lane's events, behind its requests and in groups: no request waits for the disk.

What comes while a group is being written is the next group. Deliveries at the first try, which are nearly all, share
one mark a group, however many requests they were; a group of nothing else waits a little for those of other lanes,
because each sync of the disk is one that senders wait behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from router.delivery.ends import Job
from router.failpoint import failpoint
from router.outbox.errors import NotDurable
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Attempt, Closing, Mark
from router.outbox.state.lane import Lane
from router.outcome import Delivered

log: Any = structlog.get_logger()


class _Run(msgspec.Struct):
    """Deliveries at the first try that differ in their instants only."""

    seqs: list[int]
    began: int
    at: int


class Settling:
    """``waiting`` is how many answers are not written down yet, ``most`` how many may be. ``settled`` is told of marks
    that are on disk.
    """

    def __init__(
        self, store: Outbox, lane: Lane, most: int, settled: Callable[[Sequence[Mark]], Awaitable[None]]
    ) -> None:
        self._store, self._lane, self.most, self._settled = store, lane, most, settled
        self.waiting = 0
        self._patient = True  # nothing of what is gathered is waited for
        self._runs: dict[tuple[int | None, bool, bool, bool], _Run] = {}
        self._marks: list[Mark] = []
        self._attempts: list[Attempt] = []
        self._closing: list[Closing] = []
        self._gathered = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, marks: Sequence[Mark], attempts: Sequence[Attempt] = (), closing: Sequence[Closing] = ()) -> None:
        """Write these down soon."""
        if marks or attempts or closing:
            self._marks += marks
            self._attempts += attempts
            self._closing += closing
            self._patient = False
            self._one_more()

    def delivered(self, jobs: Sequence[Job], outcome: Delivered, attempt: Attempt) -> None:
        """All of these were taken, fresh and at the first try."""
        key = (attempt.status, outcome.duplicate, outcome.unverified, outcome.free)
        if (run := self._runs.get(key)) is None:
            self._runs[key] = _Run([job.seq for job in jobs], attempt.began, attempt.at)
        else:
            run.seqs += [job.seq for job in jobs]
            run.began, run.at = min(run.began, attempt.began), max(run.at, attempt.at)
        if jobs[0].subject is not None:  # the next event about it is behind this one
            self._patient = False
        self._one_more()

    def _one_more(self) -> None:
        self.waiting += 1
        self._gathered += 1
        if not self._patient or 2 * self.waiting > self.most:
            self._store.hurry()
        if self._task is None:
            self._task = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._gathered:
                count, self._gathered = self._gathered, 0
                patient, self._patient = self._patient and 2 * self.waiting <= self.most, True
                marks = self._gather()
                attempts, self._attempts = self._attempts, []
                closing, self._closing = self._closing, []
                try:
                    await self._written_down(marks, attempts, closing, patient=patient)
                finally:
                    self.waiting -= count
        except NotDurable:
            return  # the outbox tells the process; whatever was not written down is sent again by the next one
        finally:
            self._task = None

    async def _written_down(
        self, marks: Sequence[Mark], attempts: Sequence[Attempt], closing: Sequence[Closing], *, patient: bool
    ) -> None:
        """However often a fault of ours comes between: nobody else knows any more what became of these."""
        on_disk = False
        while True:
            try:
                if not on_disk:
                    failpoint("lane_before_settle")
                    await self._store.settle(self._lane, marks, attempts, closing, patient=patient)
                    on_disk = True
                failpoint("lane_after_settle")
                return await self._settled(marks)
            except NotDurable:
                raise
            except Exception:
                log.exception("settle_failed", destination=self._lane.name)
                await self._store.clock.sleep(1.0)

    def _gather(self) -> list[Mark]:
        marks = [
            Mark(
                seqs=run.seqs,
                state="delivered",
                at=run.at,
                began=run.began,
                attempts=1,
                status=status,
                duplicate=duplicate,
                unverified=unverified,
                free=free,
            )
            for (status, duplicate, unverified, free), run in self._runs.items()
        ]
        marks += self._marks
        self._runs, self._marks = {}, []
        return marks

    async def written(self) -> None:
        """Until everything is on disk, or can never be."""
        while self._task is not None:
            await asyncio.wait({self._task})
