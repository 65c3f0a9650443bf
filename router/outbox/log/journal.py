"""Appending to the log: group commit, duplicates, and the change to a new segment.

What waits while a commit is under way shares the next one, whatever its source; nothing waits longer to gather more. An
append is answered after it is on disk.

A small one is committed where it is asked for, while the event loop stands still: the thread that writes needs Python's
lock some four times for it, and gets it at once where nobody else runs, but late beside busy lanes. What takes longer is
left to a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from router.clock import Clock
from router.failpoint import failpoint
from router.outbox.disk import schema
from router.outbox.disk.writer import Begun, Unit, Writer
from router.outbox.errors import Busy, NotDurable
from router.outbox.log import entries
from router.outbox.log.dedup import key, marks
from router.outbox.log.entries import Row, Segment
from router.outbox.log.segments import Segments, Suspects
from router.outbox.log.tail import Tail
from router.outbox.log.vault import Vault, new_key

T = TypeVar("T")

SEGMENT_EVENTS = 100_000
SEGMENT_AGE = 86_400_000  # ms
WAITING_BYTES = 64 * 1024 * 1024  # payloads that may wait for the disk before senders are told to come back
SMALL = 64  # rows, a full round of ordinary events; with more of them the loop has better to do than to wait
IN_PLACE = 0.005  # seconds that the event loop stands still for the disk; a quick one takes one thousandth
ASIDE = 0.05  # seconds that it does not after that was in vain: a slow disk takes a tenth of everybody's time at most


class _Append:
    __slots__ = ("future", "rows", "size")

    def __init__(self, rows: Sequence[Row], size: int, future: asyncio.Future[list[bool]]) -> None:
        self.rows, self.size, self.future = rows, size, future


class _Sorted(NamedTuple):
    """A group of appends: what of it is new, as which numbers, and what its senders are told then."""

    group: Sequence[_Append]
    answers: list[list[bool]]
    first: int
    fresh: list[Row]
    ids: dict[str, int]
    duplicates: int


class _Errand:
    """Something to do on the open segment between two appends."""

    __slots__ = ("future", "segment", "unit")

    def __init__(self, segment: Segment, unit: Unit[Any], future: asyncio.Future[Any]) -> None:
        self.segment, self.unit, self.future = segment, unit, future


class Journal:
    """The writing end of the log. ``register`` and ``sealed`` note a new and a sealed segment in the state file."""

    def __init__(
        self,
        segments: Segments,
        clock: Clock,
        *,
        dedup: int,
        segment_events: int,
        register: Callable[[Segment], Awaitable[None]],
        sealed: Callable[[Segment], Awaitable[None]],
        committed: Callable[[], None],
        failed: Callable[[Exception], NotDurable],
    ) -> None:
        self.last = 0  # the last sequence number on disk
        self.waiting_bytes = 0
        self.tail = Tail()
        self.sealing: asyncio.Task[None] | None = None
        self._segments, self._clock, self._dedup, self._segment_events = segments, clock, dedup, segment_events
        self._register, self._sealed, self._committed, self._failed = register, sealed, committed, failed
        self._writer = Writer("turnout-log")
        self._aside_until = 0.0  # by the loop's clock; until then nobody stands still for the disk
        self._late: tuple[_Sorted, Begun[None]] | None = None  # was begun in place and took longer
        self._at_work = False  # the task is, so what comes now waits for it
        self._vault = Vault(None)
        self._ids: dict[str, int] = {}  # of the open segment: key -> received
        self._unsealed: dict[int, dict[str, int]] = {}  # the same of segments that have no index yet, by number
        self._queue: deque[_Append] = deque()
        self._errands: deque[_Errand] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take up the newest segment, making the first where there is none."""
        if not self._segments.all:
            await self._begin_segment(self._clock.now())
        else:
            newest = self._segments.newest
            await self._writer.open(newest.path(self._segments.directory), schema.LOG)
            self._vault = Vault(newest.key)
            self.last = await self._writer.read(lambda connection: entries.last(connection, newest))
            self._ids = dict(await self._writer.read(lambda connection: list(entries.keys(connection))))
        await self._segments.load(self._clock.now() - self._dedup)
        for segment in self._segments.all[:-1]:
            if segment.sealed is None:
                self._unsealed[segment.number] = await self._segments.ask(
                    segment, lambda unit: dict(entries.keys(unit))
                )
        self.sealing = asyncio.create_task(self._catch_up(), name="outbox-seal")

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="outbox-append")

    async def close(self) -> None:
        """Finish what waits, fold the WAL in."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self.settled()
        with contextlib.suppress(sqlite3.Error):  # a failing disk: what was acknowledged is in the WAL
            await self._writer.close()

    # Appending

    def append(self, rows: Sequence[Row]) -> asyncio.Future[list[bool]]:
        """Which of the rows were duplicates and not stored again, once the others are on disk; often that is at once."""
        size = sum(len(each.payload) for each in rows)
        if self.waiting_bytes + size > WAITING_BYTES or self._stopping:
            raise Busy("too much is waiting for the disk: send it again later")
        self.waiting_bytes += size
        future: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Append(rows, size, future))
        if not self._at_work:
            self._commit_here()
        if not future.done():
            self._wake.set()
        return future

    async def on_open(self, segment: Segment, unit: Unit[T]) -> T | None:
        """Run a unit on the segment that is being written, between two appends; None where it no longer is that one."""
        future: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._errands.append(_Errand(segment, unit, future))
        self._wake.set()
        return await future

    def seal_left(self) -> None:
        """Try again what could not be sealed, as on a full disk."""
        left = any(each.sealed is None for each in self._segments.all[:-1])
        if left and (self.sealing is None or self.sealing.done()) and not self._stopping:
            self.sealing = asyncio.create_task(self._catch_up(), name="outbox-seal")

    async def settled(self) -> None:
        """Until no segment is being sealed."""
        if self.sealing is not None:
            await asyncio.gather(self.sealing, return_exceptions=True)

    async def _run_errands(self) -> None:
        while self._errands:
            errand = self._errands.popleft()
            try:
                is_open = errand.segment is self._segments.newest and not self._stopping
                done = await self._writer.read(errand.unit) if is_open else None
            except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever went wrong
                _answer(errand.future, self._failed(error))
            else:
                _answer(errand.future, done)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._at_work = True
            await self._work_off()
            self._at_work = False
            if self._stopping:
                return

    async def _work_off(self) -> None:
        if self._late is not None:
            (ready, begun), self._late = self._late, None
            with self._answered(ready.group):
                await begun.wait()
                self._finish(ready, begun)
        while self._queue:
            group = self._next_group()
            with self._answered(group):
                await self._commit(group)
        await self._run_errands()  # behind what was waiting before them

    @contextlib.contextmanager
    def _answered(self, group: Sequence[_Append]) -> Iterator[None]:
        """Whoever waits must be told, whatever goes wrong."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the owner decides what it means
            fault = self._failed(error)
            for each in group:
                self._tell(each, fault)

    def _tell(self, append: _Append, answer: list[bool] | NotDurable) -> None:
        self.waiting_bytes -= append.size
        append.size = 0  # whatever goes wrong after it was told
        _answer(append.future, answer)

    def _next_group(self) -> list[_Append]:
        """What waits now, up to one statement's worth of rows."""
        group = [self._queue.popleft()]
        rows = len(group[0].rows)
        while self._queue and rows + len(self._queue[0].rows) <= entries.ROWS_PER_STATEMENT:
            group.append(self._queue.popleft())
            rows += len(group[-1].rows)
        return group

    def _commit_here(self) -> None:
        """What waits now, in place; or nothing, where a file must be asked first or it would take long."""
        now = self._clock.now()
        if self._is_full(now) or asyncio.get_running_loop().time() < self._aside_until:
            return
        group, since = self._next_group(), now - self._dedup
        rows = sum([len(each.rows) for each in group])
        if rows > SMALL or self._suspects(group, since):
            self._queue.extendleft(reversed(group))
            return
        with self._answered(group):
            ready = self._sorted(group, since, frozenset(), self._unsealed.values())
            begun = self._begin(ready)
            if begun is None or begun.ended(IN_PLACE):
                self._finish(ready, begun)
                return
            self._late, self._at_work = (ready, begun), True
            self._aside_until = asyncio.get_running_loop().time() + ASIDE

    async def _commit(self, group: Sequence[_Append]) -> None:
        await self._roll_if_full()
        since = self._clock.now() - self._dedup
        unsealed = list(self._unsealed.values())  # one that is sealed while others are asked was not to be asked yet
        repeated = await self._segments.known(self._suspects(group, since), since)
        ready = self._sorted(group, since, repeated, unsealed)
        begun = self._begin(ready)
        if begun is not None:
            await begun.wait()
        self._finish(ready, begun)

    def _suspects(self, group: Sequence[_Append], since: int) -> Suspects:
        """Which sealed segment may hold which of them, so that it must be asked."""
        if len(self._segments.all) == 1:
            return []
        return self._segments.suspects([(row.source, row.id) for each in group for row in each.rows], since)

    def _begin(self, ready: _Sorted) -> Begun[None] | None:
        """Writing it, where there is anything to write."""
        if not ready.fresh and not ready.duplicates:
            return None
        vault = self._vault
        return self._writer.begin(
            lambda connection: entries.append(connection, ready.first, ready.fresh, vault, ready.duplicates)
        )

    def _finish(self, ready: _Sorted, begun: Begun[None] | None) -> None:
        """It is on disk, or ``begun`` raises why not."""
        if begun is not None:
            begun.outcome()
        self._ids.update(ready.ids)
        self.tail.keep(ready.first, ready.fresh)
        self.last += len(ready.fresh)
        failpoint("append_before_answer")
        for each, answer in zip(ready.group, ready.answers, strict=True):
            self._tell(each, answer)
        if ready.fresh:
            self._committed()

    def _sorted(
        self,
        group: Sequence[_Append],
        since: int,
        repeated: Collection[str],
        unsealed: Collection[Mapping[str, int]],
    ) -> _Sorted:
        fresh: list[Row] = []
        ids: dict[str, int] = {}
        answers = [self._repeats(each.rows, ids, fresh, repeated, unsealed, since) for each in group]
        return _Sorted(group, answers, self.last + 1, fresh, ids, sum(sum(answer) for answer in answers))

    def _repeats(
        self,
        rows: Sequence[Row],
        ids: dict[str, int],
        fresh: list[Row],
        repeated: Collection[str],
        unsealed: Collection[Mapping[str, int]],
        since: int,
    ) -> list[bool]:
        """Which are duplicates? The others are ``fresh``, and their keys among the ``ids``."""
        known, before = self._ids, since - 1
        answer = []
        for row in rows:
            name = key(row.source, row.id)
            again = name in ids or name in repeated or known.get(name, before) > before
            if unsealed and not again:
                again = any(each.get(name, before) > before for each in unsealed)
            if not again:
                ids[name] = row.received
                fresh.append(row)
            answer.append(again)
        return answer

    # Segments

    def _is_full(self, now: int) -> bool:
        newest = self._segments.newest
        held = self.last - newest.first + 1
        return held >= self._segment_events or (held > 0 and now - newest.opened >= SEGMENT_AGE)

    async def _roll_if_full(self) -> None:
        newest, now = self._segments.newest, self._clock.now()
        if not self._is_full(now):
            return
        await self.settled()
        failpoint("roll_before_begin")
        old = self._writer.detach()
        try:
            await self._begin_segment(now)
        except BaseException:
            self._writer.attach(old)  # the full one goes on a little longer
            raise
        self._unsealed[newest.number], self._ids = self._ids, {}
        self.sealing = asyncio.create_task(self._seal(newest, old), name="outbox-seal")

    async def _begin_segment(self, now: int) -> None:
        """Its row and key are durable before its first event; a file without a row is of a start that was cut short."""
        number = self._segments.newest.number + 1 if self._segments.all else 1
        segment = Segment(number=number, first=self.last + 1, opened=now, key=new_key())
        await self._writer.open(segment.path(self._segments.directory), schema.LOG)
        try:
            failpoint("roll_before_register")
            await self._register(segment)
            failpoint("roll_after_register")
        except BaseException:
            self._writer.detach().close()
            raise
        self._segments.all.append(segment)
        self._vault = Vault(segment.key)

    async def _catch_up(self) -> None:
        """Seal what a kill or a full disk left unsealed."""
        for segment in self._segments.all[:-1]:
            if segment.sealed is None and not self._stopping:
                await self._seal(segment, None)
        with self._told():
            await self._segments.prepare()

    async def _seal(self, segment: Segment, connection: sqlite3.Connection | None) -> None:
        """Until it is done its ids are in memory: a segment without an index is read through for every question."""
        ids = self._unsealed[segment.number]
        found, newest = await asyncio.to_thread(lambda: (marks(ids), max(ids.values(), default=0)))
        with self._told():
            await self._segments.seal(segment, connection, found)
            failpoint("seal_before_note")
            # Its ids are asked for, and it is kept, by this: never before what it holds, whatever the clock says now.
            segment.sealed = max(self._clock.now(), newest)
            await self._sealed(segment)
            del self._unsealed[segment.number]

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """A fault of what nobody waits for is told all the same; what passes by itself is tried again."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the owner decides what it means
            self._failed(error)


def _answer(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return
    if isinstance(answer, NotDurable):
        future.set_exception(answer)
    else:
        future.set_result(answer)
