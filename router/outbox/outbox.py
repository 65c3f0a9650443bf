"""The owner of an outbox directory: the only writer, and the contract that the engines use.

Requests that wait at the same moment share one commit, whatever their source; nothing waits longer to gather more
(waiting 1 ms was measured to lose a quarter of the throughput). A commit is acknowledged after it is on disk. What was
accepted is counted from the log, what became of it from the state: no transaction ever needs both files, because a
commit over several WAL files is not atomic (sqlite.org/lang_attach.html).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from router.clock import Clock
from router.outbox import log, schema, state
from router.outbox.dedup import Filter, key
from router.outbox.errors import Broken, Busy, DiskFull, NotDurable, OutboxError
from router.outbox.lock import Lock
from router.outbox.log import Row, Segment, Stored
from router.outbox.state import DROPPED, Attempt, Due, Held, Mark, Quarantined, Selection, Settlement
from router.outbox.vault import Vault, new_key
from router.outbox.writer import Writer, connect

T = TypeVar("T")

SEGMENT_EVENTS = 100_000
SEGMENT_AGE = 86_400_000  # ms
WAITING_BYTES = 64 * 1024 * 1024  # payloads that may wait for the disk before senders are told to come back
TAIL_BYTES = 16 * 1024 * 1024  # payloads kept decoded for lanes that keep up
ROWS_AT_ONCE = 5_000  # in one transaction of an operator's
LONGEST_WAIT = 86_400_000  # ms; a due time further off than this was written under another clock


class Lane:
    """A destination's place in the log, as the owner knows it. ``done`` holds ends beyond the cursor."""

    def __init__(self, row: state.LaneRow, done: set[int], next_due: int | None) -> None:
        self.id, self.name, self.start, self.cursor, self.held = row.id, row.name, row.start, row.cursor, row.held
        self.done = done
        self.next_due = next_due
        self.more = asyncio.Event()

    def end(self, seqs: Sequence[int]) -> None:
        """These are no longer simply waiting; the cursor moves over every gapless stretch of such."""
        self.done.update(seqs)
        while self.cursor + 1 in self.done:
            self.cursor += 1
            self.done.discard(self.cursor)


class _Append:
    __slots__ = ("future", "rows")

    def __init__(self, rows: Sequence[Row], future: asyncio.Future[list[bool]]) -> None:
        self.rows, self.future = rows, future


class Outbox:
    """Open with ``await Outbox.open(...)``; one per directory and process. Every method is for the event loop."""

    def __init__(self, directory: Path, clock: Clock, lock: Lock, *, dedup: int, segment_events: int) -> None:
        self.directory = directory
        self.last = 0  # the last sequence number on disk
        self.config = 0
        self.failed: NotDurable | None = None  # set once; from then on nothing is acknowledged
        self._clock, self._lock, self._dedup, self._segment_events = clock, lock, dedup, segment_events
        self._log, self._state = Writer("turnout-log"), Writer("turnout-state")
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="turnout-read")
        self._open_files: dict[int, tuple[sqlite3.Connection, Vault]] = {}
        self._segments: list[Segment] = []
        self._vault = Vault(None)
        self._ids: dict[str, int] = {}
        self._sealed_ids = Filter()
        self._filtered: set[int] = set()  # sealed segments whose ids are in the filter
        self._tail: list[Stored] = []
        self._tail_sizes: list[int] = []
        self._tail_bytes = 0
        self._appends: deque[_Append] = deque()
        self._append_bytes = 0
        self._settlements: deque[tuple[Lane, Sequence[Mark], Sequence[Attempt], asyncio.Future[None]]] = deque()
        self._append_wake, self._settle_wake = asyncio.Event(), asyncio.Event()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._sealing: asyncio.Task[None] | None = None
        self.lanes: dict[str, Lane] = {}
        self.on_failure: Callable[[NotDurable], None] = lambda _fault: None

    # Opening and closing

    @classmethod
    async def open(
        cls,
        directory: Path,
        clock: Clock,
        *,
        dedup: float = 86_400.0,
        segment_events: int = SEGMENT_EVENTS,
    ) -> Outbox:
        """Take the directory, recover what a kill left, and be ready to append. ``dedup`` is in seconds.

        OutboxError where it is locked, newer than this program, or has lost a file. A missing state beside a log is
        never replaced by a fresh one.
        """
        (directory / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)  # noqa: ASYNC240 - once, before anything is served
        outbox = cls(directory, clock, Lock(directory), dedup=int(dedup * 1000), segment_events=segment_events)
        try:
            await outbox._recover()
        except BaseException:
            await outbox._shut()
            raise
        outbox._tasks = [
            asyncio.create_task(outbox._append_for_ever(), name="outbox-append"),
            asyncio.create_task(outbox._settle_for_ever(), name="outbox-settle"),
        ]
        return outbox

    async def close(self) -> None:
        """Finish what waits, fold the WALs in and give the directory back."""
        self._stopping = True
        self._append_wake.set()
        self._settle_wake.set()
        await asyncio.gather(*self._tasks)
        if self._sealing is not None:
            await asyncio.gather(self._sealing, return_exceptions=True)
        await self._shut()

    async def _shut(self) -> None:
        for writer in (self._log, self._state):
            try:
                await writer.close()
            except sqlite3.Error:  # a failing disk: what was acknowledged is in the WAL
                continue
        await self._reading(self._close_files)
        self._readers.shutdown(wait=False)
        self._lock.release()

    async def _recover(self) -> None:
        if not (self.directory / "state.db").exists() and any((self.directory / "log").iterdir()):
            raise OutboxError(f"{self.directory} has a log but no state.db: restore it from a backup")
        await self._state.open(self.directory / "state.db", schema.STATE)
        self._segments = await self._state.read(_segments)
        now = self._clock.now()
        if not self._segments:
            await self._new_segment(first=1, now=now)
        for segment in self._segments[:-1]:
            if not segment.path(self.directory).exists():
                raise OutboxError(f"{segment.path(self.directory)} is missing: restore it from a backup")
        newest = self._segments[-1]
        await self._log.open(newest.path(self.directory), schema.LOG)
        self._vault = Vault(newest.key)
        self.last = await self._log.read(lambda connection: log.last(connection, newest))
        self._ids = dict(await self._log.read(lambda connection: list(log.keys(connection))))
        await self._state.write(lambda connection: _clamp_due(connection, now + LONGEST_WAIT))
        self._seal_old()

    async def _new_segment(self, *, first: int, now: int) -> Segment:
        """Its row and key are durable before its file exists; a kill in between leaves an empty segment."""
        segment = Segment(
            number=self._segments[-1].number + 1 if self._segments else 1, first=first, opened=now, key=new_key()
        )
        await self._state.write(
            lambda connection: connection.execute(
                "INSERT INTO segment(number, first, key, opened) VALUES(?,?,?,?)",
                (segment.number, segment.first, segment.key, segment.opened),
            )
        )
        self._segments.append(segment)
        return segment

    # Accepting

    def waiting_bytes(self) -> int:
        return self._append_bytes

    async def append(self, rows: Sequence[Row]) -> list[bool]:
        """Store rows; returns, once they are on disk, which of them were duplicates and not stored again.

        NotDurable where they are not on disk: Busy when too much waits, DiskFull, Broken.
        """
        if self.failed is not None:
            raise self.failed
        size = sum(len(each.payload) for each in rows)
        if self._append_bytes + size > WAITING_BYTES or self._stopping:
            raise Busy("too much is waiting for the disk: send it again later")
        self._append_bytes += size
        future: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._appends.append(_Append(rows, future))
        self._append_wake.set()
        try:
            return await future
        finally:
            self._append_bytes -= size

    async def _append_for_ever(self) -> None:
        while True:
            await self._append_wake.wait()
            self._append_wake.clear()
            while self._appends:
                group = self._next_group()
                try:
                    await self._commit(group)
                except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever went wrong
                    fault = self._fail(error)
                    for each in group:
                        _refuse(each.future, fault)
            if self._stopping:
                return

    def _next_group(self) -> list[_Append]:
        """What waits now, up to one statement's worth of rows."""
        group = [self._appends.popleft()]
        rows = len(group[0].rows)
        while self._appends and rows + len(self._appends[0].rows) <= log.ROWS_PER_STATEMENT:
            group.append(self._appends.popleft())
            rows += len(group[-1].rows)
        return group

    async def _commit(self, group: Sequence[_Append]) -> None:
        await self._roll_if_full()
        repeated = await self._known_in_sealed(group)
        fresh: list[Row] = []
        ids: dict[str, int] = {}
        answers: list[list[bool]] = []
        first = self.last + 1
        for each in group:
            answer = []
            for row in each.rows:
                name = key(row.event.source, row.event.id)
                duplicate = name in self._ids or name in ids or name in repeated
                if not duplicate:
                    ids[name] = first + len(fresh)
                    fresh.append(row)
                answer.append(duplicate)
            answers.append(answer)
        duplicates = sum(sum(answer) for answer in answers)
        if fresh or duplicates:
            await self._log.read(lambda connection: log.append(connection, first, fresh, self._vault, duplicates))
        self._ids.update(ids)
        self._keep_tail(first, fresh)
        self.last += len(fresh)
        for each, answer in zip(group, answers, strict=True):
            if not each.future.done():
                each.future.set_result(answer)
        if fresh:
            for lane in self.lanes.values():
                lane.more.set()

    async def _known_in_sealed(self, group: Sequence[_Append]) -> set[str]:
        """Keys that a sealed segment within the dedup window holds: the filter answers first, the indexes exactly."""
        since = self._clock.now() - self._dedup
        recent = [each for each in self._segments[:-1] if (each.sealed or since) >= since]
        if not recent:
            return set()
        unfiltered = any(each.number not in self._filtered for each in recent)
        suspects = [
            (row.event.source, row.event.id)
            for each in group
            for row in each.rows
            if unfiltered or key(row.event.source, row.event.id) in self._sealed_ids
        ]
        if not suspects:
            return set()

        def look(files: Sequence[Segment]) -> set[str]:
            return {key(*pair) for segment in files for pair in log.known(self._file(segment)[0], suspects, since)}

        return await self._reading(look, recent)

    def _fail(self, error: Exception) -> NotDurable:
        """What a failed write means to those who wait for it. Whatever is not a full or busy disk ends the outbox: the
        owner is told once and nothing is acknowledged any more.
        """
        fault = error if isinstance(error, NotDurable) else Broken(f"the outbox failed ({type(error).__name__})")
        if not isinstance(fault, DiskFull | Busy) and self.failed is None:
            self.failed = fault
            self.on_failure(fault)
        return fault

    def _keep_tail(self, first: int, rows: Sequence[Row]) -> None:
        for seq, each in enumerate(rows, first):
            self._tail.append(Stored(seq, each.event))
            self._tail_sizes.append(len(each.payload))
            self._tail_bytes += len(each.payload)
        if self._tail_bytes > 2 * TAIL_BYTES:
            cut = 0
            while self._tail_bytes > TAIL_BYTES:
                self._tail_bytes -= self._tail_sizes[cut]
                cut += 1
            del self._tail[:cut]
            del self._tail_sizes[:cut]

    # Segments

    async def _roll_if_full(self) -> None:
        newest, now = self._segments[-1], self._clock.now()
        held = self.last - newest.first + 1
        if held < self._segment_events and (held == 0 or now - newest.opened < SEGMENT_AGE):
            return
        if self._sealing is not None:
            await asyncio.gather(self._sealing, return_exceptions=True)
        segment = await self._new_segment(first=self.last + 1, now=now)
        old = self._log.detach()
        await self._log.open(segment.path(self.directory), schema.LOG)
        self._vault = Vault(segment.key)
        self._sealed_ids.add(self._ids)
        self._filtered.add(newest.number)
        self._ids = {}
        self._sealing = asyncio.create_task(self._seal(newest, old), name="outbox-seal")

    def _seal_old(self) -> None:
        """After a start: finish sealing that a kill interrupted, and fill the filter, both off the hot path."""
        self._sealing = asyncio.create_task(self._prepare_sealed(), name="outbox-seal")

    async def _prepare_sealed(self) -> None:
        since = self._clock.now() - self._dedup
        for segment in self._segments[:-1]:
            if segment.sealed is None:
                await self._seal(segment, None)
            if (segment.sealed or since) >= since and segment.number not in self._filtered:
                keys = await asyncio.to_thread(_keys_of, segment.path(self.directory))
                self._sealed_ids.add(keys)
                self._filtered.add(segment.number)

    async def _seal(self, segment: Segment, connection: sqlite3.Connection | None) -> None:
        path = segment.path(self.directory)
        await asyncio.to_thread(lambda: log.seal(connection or connect(path, schema.LOG)))
        segment.sealed = self._clock.now()
        await self._state.write(
            lambda unit: unit.execute(
                "UPDATE segment SET sealed = ? WHERE number = ?", (segment.sealed, segment.number)
            )
        )

    # Reading, for lanes

    async def read(self, after: int, limit: int) -> list[Stored]:
        """Up to ``limit`` events above ``after``, in order; an empty list where there are none yet."""
        if after >= self.last:
            return []
        if self._tail and self._tail[0].seq <= after + 1:
            start = after + 1 - self._tail[0].seq
            return self._tail[start : start + limit]
        segment = self._segment_of(after + 1)

        def look() -> list[Stored]:
            connection, vault = self._file(segment)
            return log.read(connection, vault, after, limit)

        return await self._reading(look)

    async def pick(self, seqs: Sequence[int]) -> list[Stored]:
        """The events with these numbers, in order."""
        by_segment: dict[int, list[int]] = {}
        segments = {each.number: each for each in self._segments}
        for seq in seqs:
            by_segment.setdefault(self._segment_of(seq).number, []).append(seq)

        def look() -> list[Stored]:
            found: list[Stored] = []
            for number, wanted in sorted(by_segment.items()):
                connection, vault = self._file(segments[number])
                found += log.pick(connection, vault, wanted)
            return found

        return await self._reading(look)

    def _segment_of(self, seq: int) -> Segment:
        return next(each for each in reversed(self._segments) if each.first <= seq)

    def _file(self, segment: Segment) -> tuple[sqlite3.Connection, Vault]:
        """A read-only connection to a segment, kept open; only on the readers' thread."""
        if segment.number not in self._open_files:
            connection = sqlite3.connect(f"file:{segment.path(self.directory)}?mode=ro", uri=True, isolation_level=None)
            self._open_files[segment.number] = connection, Vault(segment.key)
        return self._open_files[segment.number]

    def _forget_file(self, number: int) -> None:
        if (entry := self._open_files.pop(number, None)) is not None:
            entry[0].close()

    def _close_files(self) -> None:
        for number in list(self._open_files):
            self._forget_file(number)

    def _reading(self, unit: Callable[..., T], *arguments: object) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._readers, unit, *arguments)

    # Lanes

    async def configure(self, digest: str, text: str) -> None:
        """Remember under which configuration decisions are made from now on; ``text`` holds no secrets."""
        now = self._clock.now()
        self.config = await self._state.write(lambda unit: state.config(unit, now, digest, text))

    async def lane(self, name: str, kind: str) -> Lane:
        """The lane of a destination, where it left off. A new one takes events from now on."""
        if name in self.lanes:
            return self.lanes[name]
        last = self.last

        def take(unit: sqlite3.Connection) -> tuple[state.LaneRow, set[int], int | None]:
            row = state.lane(unit, name, kind, last)
            return row, state.done_beyond(unit, row.id, row.cursor), state.next_due(unit, row.id)

        self.lanes[name] = Lane(*await self._state.write(take))
        return self.lanes[name]

    async def other_lanes(self, names: Iterable[str]) -> list[Lane]:
        """Lanes of destinations that have none of these names any more."""
        known = set(names)
        rows = await self._state.read(state.lanes)
        return [await self.lane(row.name, row.type) for row in rows if row.name not in known]

    async def settle(self, lane: Lane, marks: Sequence[Mark], attempts: Sequence[Attempt] = ()) -> None:
        """Write down what became of some deliveries; returns once it is on disk. Lanes share commits."""
        if self.failed is not None:
            raise self.failed
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settlements.append((lane, marks, attempts, future))
        self._settle_wake.set()
        await future

    async def _settle_for_ever(self) -> None:
        while True:
            await self._settle_wake.wait()
            self._settle_wake.clear()
            while self._settlements:
                group = list(self._settlements)
                self._settlements.clear()
                await self._settle_group(group)
            if self._stopping:
                return

    async def _settle_group(
        self, group: Sequence[tuple[Lane, Sequence[Mark], Sequence[Attempt], asyncio.Future[None]]]
    ) -> None:
        settlements = [_settlement(lane, marks, attempts) for lane, marks, attempts, _ in group]
        try:
            await self._until_written(lambda unit: state.settle(unit, settlements, self.config))
        except Exception as error:  # noqa: BLE001 - whoever waits must be told, whatever went wrong
            fault = self._fail(error)
            for *_, future in group:
                _refuse(future, fault)
            return
        for lane, marks, _, future in group:
            for mark in marks:
                if mark.due is not None and (lane.next_due is None or mark.due < lane.next_due):
                    lane.next_due = mark.due
            if not future.done():
                future.set_result(None)

    async def _until_written(self, unit: Callable[[sqlite3.Connection], None]) -> None:
        """What a partner took must not be forgotten: while the disk is full, lanes wait here and send nothing more."""
        while True:
            try:
                return await self._state.write(unit)
            except (DiskFull, Busy):
                if self._stopping:
                    raise
                await self._clock.sleep(1.0)

    async def due(self, lane: Lane, now: int, limit: int) -> list[Due]:
        """Waiting rows of a lane whose time has come; also learns when the next one is due."""

        def look(unit: sqlite3.Connection) -> tuple[list[Due], int | None]:
            return state.due(unit, lane.id, now, limit), state.next_due(unit, lane.id)

        found, lane.next_due = await self._state.read(look)
        return found

    async def hold(self, lane: Lane, held: Held | None) -> None:
        """Hold a lane, or let it go with None: at once in memory, and on disk when this returns."""
        lane.held = held
        await self._state.write(lambda unit: state.hold(unit, lane.id, held))
        lane.more.set()

    async def revive(self, lane: Lane, chosen: Selection, who: str) -> int:
        """Send dead (or waiting) deliveries again, now. Returns how many."""
        now = self._clock.now()

        def unit(connection: sqlite3.Connection) -> int:
            count = state.revive(connection, lane.id, chosen, now)
            state.audit(connection, now, who, "retry", f"{lane.name} {chosen.state}", count)
            return count

        count = await self._state.write(unit)
        lane.next_due = now if count else lane.next_due
        lane.more.set()
        return count

    async def drop(self, lane: Lane, chosen: Selection, fresh: Sequence[int], who: str) -> int:
        """Give up waiting rows that are ``chosen``, and ``fresh`` events that have no row yet. Returns how many."""
        now = self._clock.now()
        count = await self._state.write(lambda unit: state.drop(unit, lane.id, chosen, now)) + len(fresh)
        for start in range(0, len(fresh), ROWS_AT_ONCE):
            part = fresh[start : start + ROWS_AT_ONCE]
            await self.settle(lane, [Mark(seqs=part, state="dead", at=now, reason=DROPPED)])
        await self.note(who, "drop", f"{lane.name} {chosen.state}", count)
        return count

    async def note(self, who: str, what: str, selection: str, count: int = 1) -> None:
        """Write an operator's act into the audit."""
        now = self._clock.now()
        await self._state.write(lambda unit: state.audit(unit, now, who, what, selection, count))

    async def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """Keep what could not be accepted; returns once it is on disk."""
        if self.failed is not None:
            raise self.failed
        try:
            await self._state.write(lambda unit: state.quarantine(unit, rows))
        except Exception as error:
            raise self._fail(error) from error


def _refuse(future: asyncio.Future[Any], fault: NotDurable) -> None:
    if not future.done():
        future.set_exception(fault)


def _settlement(lane: Lane, marks: Sequence[Mark], attempts: Sequence[Attempt]) -> Settlement:
    """Moves the lane's cursor. A fresh event ends once: of two ends for it the first one counts."""
    counted = []
    for mark in marks:
        kept = mark
        if not mark.parked:
            new = [seq for seq in mark.seqs if seq > lane.cursor and seq not in lane.done]
            kept = mark if len(new) == len(mark.seqs) else msgspec.structs.replace(mark, seqs=new)
            lane.end(new)
        if kept.seqs:
            counted.append(kept)
    return Settlement(lane=lane.id, cursor=lane.cursor, marks=counted, attempts=attempts)


def _segments(connection: sqlite3.Connection) -> list[Segment]:
    found = connection.execute("SELECT number, first, opened, key, sealed FROM segment ORDER BY number")
    return [
        Segment(number=number, first=first, opened=opened, key=secret, sealed=sealed)
        for number, first, opened, secret, sealed in found
    ]


def _clamp_due(connection: sqlite3.Connection, latest: int) -> None:
    connection.execute("UPDATE delivery SET due = ? WHERE state = 'waiting' AND due > ?", (latest, latest))


def _keys_of(path: Path) -> list[str]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return [name for name, _ in log.keys(connection)]
    finally:
        connection.close()
