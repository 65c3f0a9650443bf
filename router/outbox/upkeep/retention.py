"""What the outbox forgets, and when: keys of clear values, whole segments, dead deliveries, attempts, quarantine.

Only the oldest segment goes, and only when every lane has passed it: dropping a file costs 0.4 us an event where deleting
rows costs 38 to 79 (measured). The few events of it that still wait or are kept as dead move to the segment of kept
events (``log/00000000.db``), which readers know as one more segment. A kill may cut the order anywhere: first the kept
rows, then the state, then the file; a file that the state does not name is removed at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from router.clock import Clock
from router.failpoint import failpoint
from router.outbox.disk import schema
from router.outbox.disk.sql import ROWS_AT_ONCE, parts
from router.outbox.disk.writer import once, sync
from router.outbox.errors import Busy, DiskFull, NotDurable
from router.outbox.log import entries
from router.outbox.log.entries import KEPT, Segment
from router.outbox.log.segments import Segments
from router.outbox.state import cursors
from router.outbox.upkeep import pruning
from router.outbox.upkeep.owner import Owner

log: Any = structlog.get_logger()

EVERY = 60.0  # seconds between two looks
LONGEST_CLEAR = 72 * 3_600_000  # ms that clear values outlive the moment when every lane has passed their segment
EMPTY_EVERY = 3_600_000  # ms between two looks for kept events that nobody needs any more
KEEP_QUARANTINE = 14 * 86_400_000  # ms
MOST_QUARANTINED = 100_000
MOST_ATTEMPTS = 1_000_000
SET = 3_600_000  # ms by which the clock moves that was set, and does not merely run badly
DOUBT = 43_200.0  # seconds that pass before a clock that was set is believed; a process is started anew every night
GIVEN_UP = "given up: its destination has been out of the configuration for as long as dead deliveries are kept"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """For how many ms: ``delivered`` counts from the sealing of a segment, ``dead`` from the end of a delivery, and
    ``dedup`` is how far back repeated ids are recognised, for which their segment must be there.
    """

    delivered: int = 7 * 86_400_000
    dead: int = 30 * 86_400_000
    dedup: int = 86_400_000


class Retention:
    """The task that forgets. ``look`` does what is due now."""

    def __init__(self, segments: Segments, clock: Clock, policy: Policy, owner: Owner) -> None:
        self._segments, self._clock, self._policy, self._owner = segments, clock, policy, owner
        self._emptied = 0
        self._seen, self._elapsed = clock.now(), clock.monotonic()
        self._doubted: float | None = None  # since when the clock is not believed, by the monotonic one
        self._unfolded = False  # keys were destroyed, and the WAL of the state still holds them
        self.looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="outbox-retention")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(EVERY)
            try:
                await self.look()
            except (NotDurable, OSError) as error:
                log.warning("retention_waits", reason=type(error).__name__)  # for the next look
            except Exception:
                log.exception("retention_failed")

    async def look(self) -> None:
        """Everything that is due now, in bounded transactions. NotDurable and OSError where the disk refuses."""
        async with self.looking:
            now = self._clock.now()
            believed = await self._believed(now)
            with contextlib.suppress(DiskFull, Busy):  # a new segment needs room; all that follows makes some
                await self._owner.roll()
            if not believed:
                return
            await self._give_up_removed(now)
            await self._notice_passed(now)
            await self._destroy_keys(now)
            while (pair := self._oldest_due(now)) is not None and await self._retire(*pair):
                pass
            await self._forget_rows(now)

    async def _repeat(self, unit: Callable[..., int], *arguments: int | str) -> int:
        """One transaction after the other until a unit finds nothing more. Returns how many rows it was in all."""
        total = 0
        while found := await self._owner.transact(lambda connection: unit(connection, *arguments, ROWS_AT_ONCE)):
            total += found
        return total

    async def _believed(self, now: int) -> bool:
        """May what is old by this clock go? The time that did not pass forgets nothing: a clock that was set, or is behind
        what is stored here, as after the start of a machine without one, may be put right, and is waited for.
        """
        elapsed = self._clock.monotonic()
        set_by = now - self._seen - int((elapsed - self._elapsed) * 1000)
        self._seen, self._elapsed = now, elapsed
        wrong = abs(set_by) > SET or any(_newest(each) - now > SET for each in self._segments.all)
        if wrong and self._doubted is None:
            self._doubted = elapsed
            log.warning(
                "retention_waits", reason="the clock was set, or is behind what is stored: nothing goes for 12 hours"
            )
        if self._doubted is not None:
            if elapsed - self._doubted < DOUBT:
                return False
            await self._not_ahead(now)
            self._doubted = None
        return True

    async def _not_ahead(self, now: int) -> None:
        """What was stamped while the clock was ahead counts from now on."""
        ahead = [each for each in self._segments.all if _newest(each) > now]
        if ahead:
            await self._owner.transact(partial(pruning.not_ahead, now=now))
        for each in ahead:
            each.opened = min(each.opened, now)
            each.sealed = None if each.sealed is None else min(each.sealed, now)
            each.passed = None if each.passed is None else min(each.passed, now)

    # Clear values

    async def _notice_passed(self, now: int) -> None:
        """Write down when all lanes were done with a segment."""
        behind = [lane.written for lane in await self._owner.lanes() if lane.stop is None or lane.written < lane.stop]
        reached = min(behind, default=None)
        for segment, following in self._sealed():
            if segment.passed is None and (reached is None or reached >= following.first - 1):
                await self._owner.transact(partial(pruning.pass_segment, number=segment.number, now=now))
                segment.passed = now

    async def _destroy_keys(self, now: int) -> None:
        due = [
            each
            for each, _ in self._sealed()
            if each.key is not None and each.passed is not None and now - each.passed >= LONGEST_CLEAR
        ]
        if due:
            failpoint("keys_before_destroy")
            await self._owner.transact(partial(pruning.destroy_keys, numbers=[each.number for each in due]))
            self._unfolded = True
            for each in due:
                each.key = None
                await self._segments.let_go(each)
        if self._unfolded:
            failpoint("keys_before_checkpoint")
            await self._owner.checkpoint()  # a key that is still in the WAL is not destroyed
            self._unfolded = False

    # Segments

    def _sealed(self) -> list[tuple[Segment, Segment]]:
        """Every sealed segment with the one that follows it, oldest first."""
        real = [each for each in self._segments.all if each.number != KEPT]
        return [(each, after) for each, after in itertools.pairwise(real) if each.sealed is not None]

    def _oldest_due(self, now: int) -> tuple[Segment, Segment] | None:
        oldest = next((each for each in self._segments.all if each.number != KEPT), None)
        pair = next((each for each in self._sealed() if each[0] is oldest), None)
        if pair is None or pair[0].passed is None:
            return None
        kept_for = max(self._policy.delivered, self._policy.dedup)
        return pair if now - (pair[0].sealed or now) >= kept_for else None

    async def _retire(self, segment: Segment, following: Segment) -> bool:
        """Unlink the oldest segment, keeping what is still needed of it. False where it must stay a little longer."""
        before, last = segment.first - 1, following.first - 1
        waits = partial(pruning.has_waiting, after=before, last=last)
        if segment.key is not None and await self._owner.transact(waits):
            return False  # what waits may need its clear values, and they are kept for so long and no longer
        failpoint("retention_before_keep")
        await self._keep(segment, before, last)
        failpoint("retention_after_keep")
        await self._repeat(pruning.forget_answers, last)
        duplicates = await self._segments.ask(segment, entries.duplicates)
        await self._owner.transact(partial(pruning.retire_segment, number=segment.number, duplicates=duplicates))
        self._segments.forget(segment)  # with nothing in between: a second time its duplicates would count again
        failpoint("retention_before_unlink")
        await self._segments.let_go(segment)
        await asyncio.to_thread(unlink, segment.path(self._segments.directory))
        return True

    async def _keep(self, segment: Segment, after: int, last: int) -> None:
        while seqs := await self._owner.transact(partial(pruning.kept, after=after, last=last, limit=ROWS_AT_ONCE)):
            home = await self._home()
            rows = await self._segments.ask(segment, partial(entries.rows, seqs=seqs))
            await self._segments.rewrite(home, partial(entries.keep, found=rows))
            after = seqs[-1]

    async def _home(self) -> Segment:
        """The segment of kept events, made when the first one needs it; it holds no clear values."""
        first = self._segments.all[0]
        if first.number == KEPT:
            return first
        home = Segment(number=KEPT, first=1, opened=0, key=None, sealed=1, passed=1)
        await asyncio.to_thread(once, home.path(self._segments.directory), schema.LOG, entries.index)
        await self._owner.transact(partial(pruning.add_kept, segment=home))
        self._segments.all.insert(0, home)
        return home

    async def _empty_home(self) -> None:
        home = self._segments.all[0]
        if home.number != KEPT:
            return
        seqs = await self._segments.ask(home, entries.seqs)
        for part in parts(seqs):
            if gone := await self._owner.transact(partial(pruning.unneeded, seqs=part)):
                await self._segments.rewrite(home, partial(entries.discard, gone=gone))

    # Rows

    async def _give_up_removed(self, now: int) -> None:
        """What still waits for a destination that was removed ``keep_dead`` ago is given up, visibly."""
        for lane in await self._owner.lanes():
            stop = lane.stop
            if stop is None or lane.stopped_at is None or now - lane.stopped_at < self._policy.dead:
                continue
            await self._repeat(pruning.give_up, lane.id, now, GIVEN_UP)
            for stretch in lane.unfinished(stop):
                unit = partial(
                    cursors.filter_all, number=lane.id, first=stretch[0], last=stretch[-1], now=now, reason=GIVEN_UP
                )
                await self._owner.transact(partial(unit, config=self._owner.config()))
                lane.pass_by(stretch)
            await self._owner.settle(lane)

    async def _forget_rows(self, now: int) -> None:
        """Dead deliveries whose segment is gone, and what is kept for people to read, by age and by number."""
        gone = next(each for each in self._segments.all if each.number != KEPT).first - 1
        forgotten = await self._repeat(pruning.forget_ended, gone)  # what has ended since its segment went
        forgotten += await self._repeat(pruning.forget_dead, gone, now - self._policy.dead)
        if forgotten or abs(now - self._emptied) >= EMPTY_EVERY:  # what waited there may have been delivered
            self._emptied = now
            await self._empty_home()
            await self._repeat(pruning.forget_answers, gone)
        await self._repeat(pruning.forget_quarantine, now - KEEP_QUARANTINE, MOST_QUARANTINED)
        await self._repeat(pruning.forget_attempts, now - self._policy.dead, MOST_ATTEMPTS)


def _newest(segment: Segment) -> int:
    """The latest instant that is written of a segment."""
    return max(segment.opened, segment.sealed or 0, segment.passed or 0)


def unlink(path: Path) -> None:
    """Remove a segment's files for good; none of them may be open for writing."""
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)
        failpoint("retention_after_unlink")
    sync(path.parent)


def sweep(directory: Path, known: Sequence[Segment]) -> None:
    """Remove files below the log's first segment that the state does not name: a retirement that a kill cut short."""
    named = {each.number for each in known}
    first = min((number for number in named if number != KEPT), default=0)
    found = {path.name.partition(".")[0] for path in (directory / "log").glob("*.db*")}
    for name in found:
        if name.isdigit() and int(name) not in named and int(name) < first:
            unlink(directory / "log" / f"{name}.db")
