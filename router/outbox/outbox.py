"""The owner of an outbox directory: the only writer, and the contract that the engines use.

What was accepted is counted from the log, what became of it from the state: no transaction ever needs both files,
because a commit over several WAL files is not atomic (sqlite.org/lang_attach.html).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

from router.clock import Clock
from router.failpoint import failpoint
from router.outbox.disk import schema
from router.outbox.disk.lock import Lock
from router.outbox.disk.space import Room, Space, make_way
from router.outbox.disk.sql import parts
from router.outbox.disk.writer import Unit, Writer, fold, folded, sync
from router.outbox.errors import NO_ROOM, Busy, DiskFull, NotDurable, OutboxError, meaning
from router.outbox.log import wholeness
from router.outbox.log.entries import Row, Segment, Stored
from router.outbox.log.journal import SEGMENT_EVENTS, Journal
from router.outbox.log.segments import Segments
from router.outbox.state import crashes, cursors, deliveries, memory, registers, replays, selections
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Closing, Due, Mark, Settlement
from router.outbox.state.inhand import InHand
from router.outbox.state.lane import Lane
from router.outbox.state.memory import Visitor
from router.outbox.state.registers import Quarantined
from router.outbox.state.replays import Chosen, Replay
from router.outbox.state.selections import DROPPED, Selection
from router.outbox.state.settlements import Settlements
from router.outbox.upkeep import suppression
from router.outbox.upkeep.erasure import Receipt
from router.outbox.upkeep.forgetting import Forgetting, Traces
from router.outbox.upkeep.owner import Owner
from router.outbox.upkeep.retention import Policy, Retention, sweep
from router.outbox.upkeep.suppression import Suppression
from router.person import Person

log: Any = structlog.get_logger()

T = TypeVar("T")

LONGEST_PAUSE = 86_400_000  # ms; lanes that retry ask at least as often, so nobody ran for longer
LONGEST_WAIT = 86_400_000  # ms; a due time further off than this was written under another clock


class Watcher(Protocol):
    """Told at once, on the event loop, what has reached the disk."""

    def accepted(self, last: int) -> None:
        """Events up to this sequence number are in the log."""

    def settled(self, lane: str, marks: Sequence[Mark]) -> None:
        """This became of some deliveries of a lane."""


class Outbox:
    """Open with ``await Outbox.open(...)``; one per directory and process. Every method is for the event loop."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        lock: Lock,
        state: Writer,
        segments: Segments,
        known: Suppression,
        policy: Policy,
        room: Room,
        segment_events: int,
    ) -> None:
        self.directory, self.clock, self.segments = directory, clock, segments
        self.config = 0
        self.quarantine_full = False
        self.failed: NotDurable | None = None  # set once; from then on nothing is acknowledged or settled
        self.erasures = 0  # since this process began: what was read before one may be somebody's who is forgotten
        self.away_until = 0  # where nobody had run for long before this process: when it began (UTC ms)
        self.past = crashes.Past(0, ())  # how the processes before this one ended
        self.lanes: dict[str, Lane] = {}
        self.on_failure: Callable[[NotDurable], None] = lambda _fault: None
        self.on_erase: Callable[[Collection[str]], None] = lambda _anonymous_ids: None  # what else remembers people
        self.watchers: set[Watcher] = set()
        self.in_hand = InHand(directory / "in-hand")
        self.space = Space(directory, clock, room, self._relieve)
        self._lock, self._state = lock, state
        self.journal = Journal(
            segments,
            clock,
            dedup=policy.dedup,
            segment_events=segment_events,
            register=self._register,
            sealed=self._note_sealed,
            committed=self._wake_lanes,
            failed=self._fail,
        )
        self._settlements = Settlements(
            clock, write=self._write_settlements, failed=self._fail, broken=self._break, told=self._tell_settled
        )
        owner = Owner(
            transact=self._transact,
            settle=lambda lane: self.settle(lane, []),
            lanes=self._every_lane,
            roll=self._roll,
            checkpoint=self._fold,
            config=lambda: self.config,
        )
        self.retention = Retention(segments, clock, policy, owner)
        self.forgetting = Forgetting(segments, self.journal, clock, owner, known, self.retention.looking)

    # Opening and closing

    @classmethod
    async def open(
        cls,
        directory: Path,
        clock: Clock,
        *,
        policy: Policy | None = None,
        room: Room | None = None,
        segment_events: int = SEGMENT_EVENTS,
    ) -> Outbox:
        """Take the directory, recover what a kill left, and be ready to append. ``policy`` says what is kept how long,
        ``room`` how much of the disk must be free; without it nobody looks after that.

        OutboxError where it is locked, newer than this program, or has lost a file. A missing state beside a log is
        never replaced by a fresh one.
        """
        (directory / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)  # noqa: ASYNC240 - once, before anything is served
        for each in (directory, directory.parent):  # else a power loss may leave no directory of this name
            sync(each)
        async with contextlib.AsyncExitStack() as undo:
            lock, state = Lock(directory), Writer("turnout-state")
            undo.callback(lock.release)
            undo.push_async_callback(_let_go, state)
            make_way(directory, room or Room())
            wholeness.need_state(directory)
            await state.open(directory / "state.db", schema.STATE)
            segments = Segments(directory, await state.read(registers.segments))
            wholeness.need_segments(directory, segments.all, killed=await state.read(crashes.unfinished))
            outbox = cls(
                directory,
                clock,
                lock=lock,
                state=state,
                segments=segments,
                known=Suppression(*await state.write(suppression.load)),
                policy=policy or Policy(),
                room=room or Room(),
                segment_events=segment_events,
            )
            undo.pop_all()
            undo.push_async_callback(outbox._shut)
            await outbox._recover()
            outbox.journal.start()
            await outbox._forget_again()
            undo.pop_all()
        outbox._settlements.start()
        outbox.retention.start()
        if room is not None:
            await outbox.space.start()
        return outbox

    async def close(self) -> None:
        """Finish what waits, fold the WALs in and give the directory back."""
        await self.space.stop()
        await self.retention.stop()
        await self._settlements.stop()
        if self.failed is None:
            with contextlib.suppress(NotDurable):
                await self._state.write(crashes.end)
        failpoint("close_before_files")
        await self._shut()

    async def _shut(self) -> None:
        await self.journal.close()
        await self.segments.close()
        await _let_go(self._state)
        self.in_hand.close()
        self._lock.release()

    async def _recover(self) -> None:
        await asyncio.to_thread(wholeness.refuse_unknown_events, self.directory, self.segments.all)
        await asyncio.to_thread(sweep, self.directory, self.segments.all)
        await self.journal.open()
        reached = await self._state.read(cursors.reached)
        if reached > self.last:
            raise OutboxError(
                f"the log ends at event {self.last}, but event {reached} was settled: restore both from one backup"
            )
        now = self.clock.now()
        failpoint("open_before_begin")
        await self._state.write(lambda unit: deliveries.clamp_due(unit, now, now + LONGEST_WAIT))
        self.past = await self._state.write(lambda unit: crashes.begin(unit, now, self.in_hand.found()))
        self.in_hand.release()
        last = await self._state.read(deliveries.last_attempt)
        self.away_until = now if last is not None and now - last > LONGEST_PAUSE else 0

    async def _register(self, segment: Segment) -> None:
        await self._state.write(lambda unit: registers.add_segment(unit, segment))

    async def _note_sealed(self, segment: Segment) -> None:
        await self._state.write(lambda unit: registers.seal_segment(unit, segment))

    async def _every_lane(self) -> list[Lane]:
        await self.other_lanes(())
        return list(self.lanes.values())

    async def _fold(self) -> None:
        """Empty the WAL of the state."""
        await folded(lambda: self._state.read(fold))

    async def _roll(self) -> None:
        await self.journal.append([])
        self.journal.seal_left()

    async def _relieve(self) -> None:
        """Give room back: empty the WALs of the state and of the open segment. What fails is told as any fault is."""
        try:
            await self._state.read(fold)
            await self.journal.on_open(self.segments.newest, fold)
        except Exception as error:  # noqa: BLE001 - whatever it is, the outbox decides what it means
            self._fail(error)

    # Faults

    def _fail(self, error: Exception) -> NotDurable:
        """What a failed write means to those who wait for it. Whatever does not pass by itself ends the outbox: the
        owner is told once, and nothing is acknowledged any more.
        """
        fault = meaning(error)
        if isinstance(fault, DiskFull):
            self.space.refused()
        elif not isinstance(fault, Busy):
            self._break(fault)
        return fault

    def _break(self, fault: NotDurable) -> None:
        if self.failed is None:
            self.failed = fault
            self.on_failure(fault)

    async def _transact(self, unit: Unit[T]) -> T:
        """One transaction on the state. NotDurable where it is not on disk."""
        if self.failed is not None:
            raise self.failed
        try:
            return await self._state.write(unit)
        except Exception as error:
            raise self._fail(error) from error

    # Accepting and reading

    @property
    def suppression(self) -> Suppression:
        return self.forgetting.suppression

    @property
    def last(self) -> int:
        """The last sequence number on disk, which is the number of events accepted so far."""
        return self.journal.last

    def waiting_bytes(self) -> int:
        return self.journal.waiting_bytes

    def append(self, rows: Sequence[Row]) -> asyncio.Future[list[bool]]:
        """Store rows; returns, once they are on disk, which of them were duplicates and not stored again. Where the disk
        is quick and they are few that is at once.

        NotDurable, here or there, where they are not on disk: Busy when too much waits, DiskFull, Broken.
        """
        self._takes()
        return self.journal.append(rows)

    def _takes(self) -> None:
        if self.failed is not None:
            raise self.failed
        if self.space.full:
            raise DiskFull(NO_ROOM)

    async def quarantine(self, rows: Sequence[Quarantined]) -> None:
        """Count what could not be accepted, and keep it where there is room; returns once that is on disk."""
        self._takes()
        kept = await self._transact(lambda unit: registers.quarantine(unit, rows))
        if not kept and not self.quarantine_full:
            log.error("quarantine_full", reason="what is turned away is counted and not kept: mend what sends it")
        self.quarantine_full = not kept

    async def read(
        self, after: int, limit: int, lane: Lane | None = None, *, from_disk: int | None = None
    ) -> list[Stored]:
        """Up to ``limit`` events above ``after``, in order; an empty list where there are none yet. ``lane`` is whoever
        will go on from there. Where the disk must be asked, it is for up to ``from_disk``.
        """
        if after >= self.last:
            return []
        kept = self.journal.tail.read(after, limit, None if lane is None else lane.id)
        return kept if kept is not None else await self._looked(self.segments.read(after, from_disk or limit))

    @property
    def followed(self) -> bool:
        """Does a lane read events as soon as they are on disk?"""
        return self.journal.tail.followed

    async def pick(self, seqs: Sequence[int]) -> list[Stored]:
        """The events with these numbers, in order; those that are gone are left out."""
        return await self._looked(self.segments.pick(seqs))

    async def _looked(self, reading: Awaitable[list[Stored]]) -> list[Stored]:
        try:
            return await reading
        except NotDurable as error:  # a damaged file ends the outbox, whoever meets it
            raise self._fail(error) from error

    async def late(self, after: int, since: int, until: int, limit: int) -> list[tuple[int, int]]:
        """(time, sequence number) of up to ``limit`` late uploads above ``after`` that happened between two instants
        (UTC ms), the earliest first, as far as the segments that hold them are sealed.
        """
        return await self.segments.late(after, since, until, limit)

    def _wake_lanes(self) -> None:
        for lane in self.lanes.values():
            if lane.held is None:  # a held one looks when it is let go, or by its own clock
                lane.more.set()
        for watcher in self.watchers:
            watcher.accepted(self.last)

    # Memory beside the deliveries

    async def visitors(self, since: int, most: int) -> list[Visitor]:
        """The latest visitors with click ids that were seen since then (UTC ms), longest gone first."""
        return await self._transact(lambda unit: memory.visitors(unit, since, most))

    async def remember_visitors(self, rows: Sequence[Visitor], gone: int) -> None:
        """Keep these over a restart, and forget who was last seen before ``gone`` (UTC ms)."""
        self._takes()
        await self._transact(lambda unit: memory.remember_visitors(unit, rows, gone))

    async def recall(self, source: str) -> dict[str, str]:
        """The notes of a source that have not expired."""
        now = self.clock.now()
        return await self._transact(lambda unit: memory.notes(unit, source, now))

    async def remember(self, source: str, notes: Mapping[str, tuple[str, int]], forget: Sequence[str] = ()) -> None:
        """Write notes of a source, key -> (value, until in UTC ms), and drop others; on disk when this returns."""
        now = self.clock.now()
        await self._transact(lambda unit: memory.remember(unit, source, notes, forget, now))

    async def closed(self, lane: Lane, subjects: Iterable[str], now: int) -> dict[str, str]:
        """Subject -> reason, of those that an earlier answer closed."""
        asked = list(subjects)
        return await self._transact(lambda unit: memory.closed(unit, lane.id, asked, now))

    async def behind(self, lane: Lane, subjects: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Subject -> (sequence number, due) of the first delivery about it that waits for another try."""
        asked = list(subjects)
        return await self._transact(lambda unit: memory.behind(unit, lane.id, asked))

    def suspects(self, lane: Lane) -> list[range]:
        """Events of a lane that may have killed the last process: they are looked at one by one."""
        return [range(each.first, each.last + 1) for each in self.past.suspects if each.lane == lane.id]

    def killers(self, lane: Lane) -> set[int]:
        """Events of a lane that were in hand when one process after another died, each alone at the last time."""
        suspects = [each for each in self.past.suspects if each.lane == lane.id]
        return {each.first for each in suspects if each.times > 1 and each.first == each.last}

    async def used(self, lane: Lane, at: int) -> int:
        """Events that counted against the lane's quota in the month of ``at``."""
        return await self._transact(lambda unit: memory.used(unit, lane.id, at))

    # Lanes

    async def configure(self, digest: str, text: str) -> None:
        """Remember under which configuration decisions are made from now on; ``text`` holds no secrets."""
        now = self.clock.now()
        self.config = await self._transact(lambda unit: registers.config(unit, now, digest, text))

    async def lane(self, name: str, kind: str, quota: int | None = None) -> Lane:
        """The lane of a destination, where it left off. A new one takes events from now on."""
        if name in self.lanes and self.lanes[name].quota == quota:
            return self.lanes[name]
        last = self.last

        def take(unit: sqlite3.Connection) -> tuple[cursors.LaneRow, Lane]:
            row = cursors.lane(unit, name, kind, last, quota)
            return row, Lane(row, cursors.ended_beyond(unit, row.id, row.cursor), deliveries.next_due(unit, row.id))

        row, made = await self._transact(take)
        known = self.lanes.setdefault(name, made)
        known.quota = row.quota
        return known

    async def other_lanes(self, names: Iterable[str]) -> list[Lane]:
        """Lanes of destinations that have none of these names any more."""
        known = set(names)
        rows = await self._transact(cursors.lanes)
        return [await self.lane(row.name, row.type, row.quota) for row in rows if row.name not in known]

    async def stop(self, lane: Lane) -> None:
        """The lane's destination is gone: what comes from now on is not for it."""
        last, now = self.last, self.clock.now()
        await self._transact(lambda unit: cursors.stop(unit, lane.id, last, now))
        lane.stop, lane.stopped_at = last, now

    async def go_on(self, lane: Lane) -> None:
        """The lane's destination is back: what came while it was away is not for it."""
        if lane.stop is None:
            return
        first, last, now = lane.stop + 1, self.last, self.clock.now()
        await self._transact(lambda unit: cursors.go_on(unit, lane.id, first, last, now, self.config))
        lane.stop = lane.stopped_at = None
        if last >= first:
            lane.pass_by(range(first, last + 1))
            await self.settle(lane, [])

    async def due(self, lane: Lane, now: int, limit: int, besides: Iterable[int]) -> list[Due]:
        """Waiting rows whose time has come, without those in hand; also learns when the next of the others is due."""
        held = list(besides)

        def look(unit: sqlite3.Connection) -> tuple[list[Due], int | None]:
            return deliveries.due(unit, lane.id, now, limit, held), deliveries.next_due(unit, lane.id, held)

        lane.next_due = None  # what is settled while this looks says so itself
        try:
            found, following = await self._transact(look)
        except BaseException:
            lane.next_due = 0
            raise
        settled = lane.next_due
        lane.next_due = min((each for each in (following, settled) if each is not None), default=None)
        return found

    async def set_back(self, lane: Lane, by: int) -> None:
        """The clock was set back by so many ms: nothing of this lane waits longer than it would have."""
        await self._transact(lambda unit: deliveries.set_back(unit, lane.id, by))
        lane.next_due = 0

    async def hold(self, lane: Lane, held: Held | None) -> None:
        """Hold a lane, or let it go with None: at once in memory, and on disk when this returns."""
        lane.held = held
        failpoint("hold_before_write")
        await self._transact(lambda unit: cursors.hold(unit, lane.id, held))
        failpoint("hold_after_write")
        lane.more.set()

    # Settling

    async def settle(
        self,
        lane: Lane,
        marks: Sequence[Mark],
        attempts: Sequence[Attempt] = (),
        closing: Sequence[Closing] = (),
        *,
        patient: bool = False,
    ) -> None:
        """Write down what became of some deliveries; returns once it is on disk. Waits while there is no space.

        ``patient``: it may wait a little for others, until ``hurry`` or for some 20 ms.
        """
        if self.failed is not None:
            raise self.failed
        await self._settlements.add(lane, marks, attempts, closing, patient=patient)

    def hurry(self) -> None:
        """What is to be settled waits for no others."""
        self._settlements.hurry()

    async def _write_settlements(self, settlements: Sequence[Settlement]) -> None:
        if self.failed is not None:
            raise self.failed
        await self._state.write(lambda unit: deliveries.settle(unit, settlements, self.config))

    def _tell_settled(self, lane: str, marks: Sequence[Mark]) -> None:
        for watcher in self.watchers:
            watcher.settled(lane, marks)

    # The operator

    async def revive(self, lane: Lane, chosen: Selection, who: str) -> int:
        """Send dead (or waiting) deliveries again, now. Returns how many."""
        now = self.clock.now()

        def unit(connection: sqlite3.Connection) -> int:
            count = selections.revive(connection, lane.id, chosen, now)
            registers.audit(connection, now, who, "retry", f"{lane.name} {chosen.state}", count)
            return count

        count = await self._transact(unit)
        if count and (lane.next_due is None or now < lane.next_due):
            lane.next_due = now
        lane.more.set()
        return count

    async def drop(self, lane: Lane, chosen: Selection, fresh: Sequence[int], who: str) -> int:
        """Give up waiting rows that are ``chosen``, and ``fresh`` events that have no row yet. Returns how many."""
        now = self.clock.now()
        count = await self._transact(lambda unit: selections.drop(unit, lane.id, chosen, now)) + len(fresh)
        for part in parts(fresh):
            await self.settle(lane, [Mark(seqs=part, state="dead", at=now, reason=DROPPED)])
        await self.audit(who, "drop", f"{lane.name} {chosen.state}", count)
        return count

    async def begin_replay(self, lane: Lane, chosen: Chosen, first: int, who: str) -> Replay | None:
        """Write down a replay of the events from ``first`` to the newest; its number is its name from then on. None where
        another one of the lane is running.
        """
        now, last = self.clock.now(), self.last

        def unit(connection: sqlite3.Connection) -> Replay | None:
            if (made := replays.begin(connection, lane.id, chosen, first - 1, last, now, who)) is None:
                return None
            registers.audit(connection, now, who, "replay", f"{lane.name} {made.id}", last - first + 1)
            return made

        return await self._transact(unit)

    async def replays(self) -> list[Replay]:
        """Every replay that is remembered, newest first."""
        return await self._transact(replays.all_of)

    async def note_replay(self, replay: Replay, attempts: Sequence[Attempt] = ()) -> None:
        """How far a replay is, and what it met on the way."""
        await self._transact(lambda unit: replays.note(unit, replay, attempts, self.config))

    async def states(self, lane: Lane, first: int, last: int) -> dict[int, str]:
        """What became of these events at a destination; those of which nothing is known are left out."""
        return await self._transact(lambda unit: replays.states(unit, lane.id, first, last))

    async def traces(self, people: Sequence[Person]) -> Traces:
        """What there is of some people, and what further identifiers their events carry."""
        return await self.forgetting.traces(people)

    async def erase(self, people: Sequence[Person], who: str, *, linked: bool = False) -> Receipt:
        """Empty every event of these people, with ``linked`` of all that their events lead to, and keep them out. Returns
        when nothing of it is in any file; Busy, once it is done and in the audit, where a reader is in the way of that.
        """

        async def remembered(sessions: Collection[str]) -> None:
            self.erasures += 1
            self.on_erase(sessions)

        receipt = await self.forgetting.erase(people, linked=linked, remembered=remembered)
        await self.audit(who, "forget", f"{len(people)} people", receipt.events)
        await self.forgetting.fold()
        return receipt

    async def _forget_again(self) -> None:
        """What a log that came from a backup holds of people who were forgotten since. Cut short, the next start does it."""
        if await self._state.read(suppression.due):
            receipt = await self.forgetting.erase_again()
            await self._transact(suppression.done)
            await self.audit("turnout", "forget", "people forgotten since the backup", receipt.events)
            log.info("forgotten_again", count=receipt.events)

    async def audit(self, who: str, what: str, selection: str, count: int = 1) -> None:
        """Write an operator's act into the audit."""
        now = self.clock.now()
        await self._transact(lambda unit: registers.audit(unit, now, who, what, selection, count))


async def _let_go(state: Writer) -> None:
    with contextlib.suppress(sqlite3.Error):  # a failing disk: what was acknowledged is in the WAL
        await state.close()
