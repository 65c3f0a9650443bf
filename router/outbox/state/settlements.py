"""What became of deliveries, written down in groups: settlements of all lanes that wait at the same moment share one
commit, because each is a sync of the disk beside those that senders wait for.

The lanes in memory move on with what is gathered, so a group that cannot be written ends the outbox; only where the disk
is full or busy it is tried again, for what a partner took must not be forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from router.clock import Clock
from router.failpoint import failpoint
from router.outbox.errors import Busy, DiskFull, NotDurable
from router.outbox.state.deliveries import Attempt, Closing, Mark, Settlement
from router.outbox.state.lane import Lane

GATHER = 0.02  # seconds between two times of writing


class _Asked(msgspec.Struct):
    lane: Lane
    marks: Sequence[Mark]
    attempts: Sequence[Attempt]
    closing: Sequence[Closing]
    future: asyncio.Future[None]


class Settlements:
    """``write`` puts some on disk in one transaction, or raises where the outbox has ended. ``failed`` says what a fault
    means, ``broken`` ends the outbox, and ``told`` hears of each lane's marks that are on disk.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        write: Callable[[Sequence[Settlement]], Awaitable[None]],
        failed: Callable[[Exception], NotDurable],
        broken: Callable[[NotDurable], None],
        told: Callable[[str, Sequence[Mark]], None],
    ) -> None:
        self._clock = clock
        self._write, self._failed, self._broken, self._told = write, failed, broken, told
        self._waiting: deque[_Asked] = deque()
        self._wake, self._hurry = asyncio.Event(), asyncio.Event()
        self._written = -GATHER  # when some were last, by the loop's clock
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="outbox-settle")

    async def stop(self) -> None:
        """Write down what waits."""
        self._stopping = True
        self._wake.set()
        self._hurry.set()
        if self._task is not None:
            await self._task

    async def add(
        self,
        lane: Lane,
        marks: Sequence[Mark],
        attempts: Sequence[Attempt],
        closing: Sequence[Closing],
        *,
        patient: bool,
    ) -> None:
        """Returns once it is on disk. ``patient``: it may wait for others, until ``hurry`` or for ``GATHER`` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(lane, marks, attempts, closing, future))
        self._wake.set()
        if not patient:
            self._hurry.set()
        await future

    def hurry(self) -> None:
        """What waits, waits for no others."""
        self._hurry.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._gather()
                group = list(self._waiting)
                self._waiting.clear()
                fault = await self._settled(group)
                for each in group:
                    _finish(each, fault)
            if self._stopping:
                return

    async def _gather(self) -> None:
        """Let others come, where some were written down only just now and nobody is in a hurry."""
        now = asyncio.get_running_loop().time
        wait = self._written + GATHER - now()
        if wait > 0 and not self._hurry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._hurry.wait()
        self._hurry.clear()
        self._written = now()

    async def _settled(self, group: Sequence[_Asked]) -> NotDurable | None:
        try:
            await self._settle(group)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever went wrong
            # The lanes in memory are ahead of the disk now: nothing may be written over the gap.
            fault = self._failed(error)
            self._broken(fault)
            return fault
        return None

    async def _settle(self, group: Sequence[_Asked]) -> None:
        settlements = [_settlement(each) for each in group]
        failpoint("settle_before_write")
        await self._until_written(settlements)
        failpoint("settle_after_write")
        for each, settlement in zip(group, settlements, strict=True):
            each.lane.written = settlement.cursor
            for mark in each.marks:
                if mark.due is not None and (each.lane.next_due is None or mark.due < each.lane.next_due):
                    each.lane.next_due = mark.due
        for each, settlement in zip(group, settlements, strict=True):
            self._told(each.lane.name, settlement.marks)

    async def _until_written(self, settlements: Sequence[Settlement]) -> None:
        """While the disk is full, lanes wait here and send nothing more."""
        while True:
            try:
                return await self._write(settlements)
            except (DiskFull, Busy) as error:
                if self._stopping:
                    raise
                self._failed(error)
                await self._clock.sleep(1.0)


def _finish(each: _Asked, fault: NotDurable | None) -> None:
    if each.future.done():
        return
    if fault is not None:
        each.future.set_exception(fault)
    else:
        each.future.set_result(None)


def _settlement(each: _Asked) -> Settlement:
    """Moves the lane's cursor. A fresh event ends once: of two ends for it the first one counts."""
    lane, counted = each.lane, []
    for mark in each.marks:
        kept = mark
        if not mark.parked:
            new = (
                mark.seqs if lane.untouched(min(mark.seqs, default=0)) else [seq for seq in mark.seqs if lane.open(seq)]
            )
            kept = mark if len(new) == len(mark.seqs) else msgspec.structs.replace(mark, seqs=new)
            lane.end(new)
        if kept.seqs:
            counted.append(kept)
    return Settlement(
        lane=lane.id,
        cursor=lane.cursor,
        marks=counted,
        attempts=each.attempts,
        closing=each.closing,
        metered=lane.quota is not None,
    )
