"""The owner of an outbox directory: what is acknowledged is there, once, after any start."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from router.delivery.ends import Job
from router.delivery.settling import Settling
from router.event import Clear
from router.outbox.disk import lock, schema
from router.outbox.disk.writer import FOLD, PAGE, Begun
from router.outbox.errors import Broken, Busy, DiskFull, Locked, NotDurable, OutboxError
from router.outbox.log import entries, journal
from router.outbox.log.compression import _FIRST, pack, unpack
from router.outbox.log.dedup import Seen, marks
from router.outbox.log.entries import Row
from router.outbox.log.tail import Tail
from router.outbox.log.vault import Vault, new_key
from router.outbox.outbox import Outbox
from router.outbox.state import deliveries
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.registers import Quarantined
from router.outbox.state.selections import Selection
from router.outbox.upkeep.retention import Policy
from router.outcome import Delivered
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock
from tests.unpacked import unpacked


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


class TestAppend:
    async def test_what_is_acknowledged_is_on_disk(self, store: Outbox):
        """
        When append returns, another process can read the event.
        """
        assert [False] == await store.append(rows(an_event("e-1", name="purchase")))

        found = query(store.directory / "log" / "00000001.db", "SELECT seq, id, name FROM event")
        assert [(1, "e-1", "purchase")] == found

    async def test_a_small_append_is_done_where_it_is_asked_for(self, store: Outbox, monkeypatch):
        """
        Nobody else runs between a request and its answer where the disk is quick. For many rows the loop goes on, also
        where a lane keeps up.
        """
        monkeypatch.setattr(journal, "IN_PLACE", 60.0)
        small = store.append(many(journal.SMALL))
        assert [False] * journal.SMALL == small.result()
        await store.read(0, 100, await store.lane("hook", "webhook"))
        assert store.followed
        large = store.append(many(journal.SMALL + 1, start=100))
        assert not large.done()
        await large
        assert 2 * journal.SMALL + 1 == store.last

    async def test_a_commit_has_little_to_fold_in(self, store: Outbox):
        """
        Whoever commits when the WAL is full waits until it is folded in: with two megabytes no longer than for a slow sync.
        """
        for start in range(0, 3000, 10):
            await store.append(many(10, start=start))
        wal = store.directory / "log" / "00000001.db-wal"
        assert FOLD * PAGE < wal.stat().st_size < 1.1 * FOLD * PAGE

    async def test_a_slow_disk_is_nobody_elses_affair(self, store: Outbox, monkeypatch):
        """
        The event loop stands still for it for a moment and then for a while not again. Who comes meanwhile is stored in
        order, without gaps, each answered for itself, and all of them by one commit.
        """
        gate, written, honest = threading.Event(), list[int](), entries.append

        def slow(connection: sqlite3.Connection, first: int, those: Sequence[Row], *more: Any) -> None:
            gate.wait(60)
            written.append(len(those))
            honest(connection, first, those, *more)

        waits: list[float] = []

        def counted(begun: Begun[None], patience: float) -> bool:
            waits.append(patience)
            return ended(begun, patience)

        ended = Begun.ended
        monkeypatch.setattr(Begun, "ended", counted)
        monkeypatch.setattr(journal, "ASIDE", 60.0)
        monkeypatch.setattr(entries, "append", slow)
        first = store.append(many(1))
        others = [store.append(many(3, start=10 * n)) for n in range(1, 17)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in (first, *others))
        gate.set()

        assert [[False], *[[False] * 3] * 16] == [await each for each in (first, *others)]
        assert [1, 48] == written
        assert (49, 0) == (store.last, store.waiting_bytes())
        await store.append(many(1, start=1000))
        assert [journal.IN_PLACE] == waits
        monkeypatch.setattr(store.journal, "_aside_until", 0.0)
        await store.append(many(1, start=1001))
        assert [journal.IN_PLACE] * 2 == waits

    async def test_a_fault_in_place_is_told_like_any_other(self, store: Outbox, monkeypatch):
        """
        A disk that fails while the event loop waits for it acknowledges nothing, and the owner is told.
        """

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        told: list[object] = []
        store.on_failure = told.append
        monkeypatch.setattr(entries, "append", fail)
        with pytest.raises(Broken):
            await store.append(many(1))

        assert [Broken] == [type(each) for each in told]
        assert 0 == store.waiting_bytes() == store.last

    async def test_a_repeated_id_is_stored_once(self, store: Outbox):
        """
        The same (source, id) is a duplicate within a request, later and at the same moment; another source's is not.
        """
        assert [False, True] == await store.append(rows(an_event("a"), an_event("a", name="other")))
        assert [[True], [False]] == await asyncio.gather(
            store.append(rows(an_event("a"))), store.append(rows(an_event("a", source="blog")))
        )
        assert [(2,)] == query(store.directory / "log" / "00000001.db", "SELECT duplicate FROM total")

    async def test_it_is_still_a_duplicate_after_a_restart(self, tmp_path: Path, clock: SteppedClock):
        """
        Dedup survives a restart and the sealing of a segment, within its window and no longer.
        """
        for segment_events in (100, 2):
            store = await Outbox.open(
                tmp_path / "outbox", clock, segment_events=segment_events, policy=Policy(dedup=3_600_000)
            )
            answer = await store.append(rows(an_event("a")))
            await store.append(rows(an_event(f"other-{segment_events}"), an_event(f"more-{segment_events}")))
            await store.append(rows(an_event(f"last-{segment_events}")))
            assert [segment_events == 2] == answer
            await store.close()
        clock.step(7200)
        store = await Outbox.open(tmp_path / "outbox", clock, policy=Policy(dedup=3_600_000), segment_events=2)
        assert [False] == await store.append(rows(an_event("a", received=clock.now())))
        await store.close()

    async def test_the_clear_values_are_not_in_the_file(self, tmp_path: Path, clock: SteppedClock):
        """
        An IP address is readable for lanes and nowhere in the bytes on disk.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        await store.append(rows(an_event(clear=Clear(ip="203.0.113.42", user_agent="CanaryBrowser/1"))))
        store.journal.tail = Tail()
        (read,) = await store.read(0, 10)
        await store.close()

        assert read.event is not None
        assert Clear(ip="203.0.113.42", user_agent="CanaryBrowser/1") == read.event.clear
        for path in (tmp_path / "outbox").rglob("*"):
            if path.is_file():
                assert b"203.0.113.42" not in unpacked(path)
                assert b"CanaryBrowser" not in unpacked(path)

    async def test_too_much_waiting_is_refused_before_memory_is_gone(self, store: Outbox, monkeypatch):
        """
        Beyond the cap of bytes that wait for the disk, senders are told to come back.
        """
        monkeypatch.setattr("router.outbox.log.journal.WAITING_BYTES", 10)
        with pytest.raises(Busy):
            await store.append(rows(an_event()))
        assert 0 == store.waiting_bytes()

    async def test_a_full_disk_acknowledges_nothing_and_passes(self, store: Outbox):
        """
        SQLITE_FULL is answered as DiskFull, nothing of that request is stored, and space brings acceptance back.
        """
        limit = await store.journal._writer.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await store.journal._writer.read(lambda c: c.execute(f"PRAGMA max_page_count = {limit}").fetchone())
        with pytest.raises(DiskFull):
            await store.append(many(500))
        assert 0 == store.last
        await store.journal._writer.read(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())

        assert [False] * 500 == await store.append(many(500))

    @pytest.mark.parametrize("writer", ["log", "state"])
    async def test_without_a_writer_nothing_is_acknowledged_and_the_owner_is_told(self, store: Outbox, writer: str):
        """
        The thread that writes is gone: appends and settlements fail at once, and the process is told to end.
        """
        told: list[object] = []
        store.on_failure = told.append
        lane = await store.lane("hook", "webhook")
        await store.append(many(1))
        owner = store.journal._writer if writer == "log" else store._state
        owner._pool.shutdown()
        with pytest.raises(NotDurable):
            await (
                store.append(many(1, start=2))
                if writer == "log"
                else store.settle(lane, [Mark(seqs=[1], state="delivered", at=NOW, attempts=1)])
            )
        with pytest.raises(Broken):
            await store.append(many(1, start=3))
        owner._pool = ThreadPoolExecutor(1)  # for the fixture's close

        assert [Broken] == [type(each) for each in told]

    async def test_a_failing_disk_is_never_acknowledged_again(self, store: Outbox):
        """
        After an I/O error the outbox is broken for good: the owner is told once, and appends fail.
        """
        told: list[object] = []
        store.on_failure = told.append
        store.journal._writer.detach().close()
        for _ in range(2):
            with pytest.raises(OutboxError):
                await store.append(rows(an_event()))
        assert [Broken] == [type(each) for each in told]

    async def test_after_a_fault_nothing_else_is_written_either(self, store: Outbox):
        """
        What the disk still takes then would stand beside what it lost: no hold, no audit, no note.
        """
        lane = await store.lane("hook", "webhook")
        store._fail(OSError(errno.EIO, "the disk"))
        for write in (
            store.hold(lane, Held(reason="plan", by="partner", at=NOW)),
            store.audit("cli", "hold", "hook"),
            store.remember("snitcher", {"key": ("value", NOW + 1)}),
        ):
            with pytest.raises(Broken):
                await write

        assert [(0, 0, None)] == query(
            store.directory / "state.db",
            "SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM note), hold_reason FROM lane",
        )


class TestSegments:
    async def test_a_full_segment_is_sealed_and_still_read(self, tmp_path: Path, clock: SteppedClock):
        """
        Events are read in order over the border of segments; a sealed one has its indexes and no WAL.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=10)
        for start in (1, 11, 21):
            await store.append(many(10, start=start))
        await store.journal.sealing
        store.journal.tail = Tail()
        first = await store.read(0, 100)
        second = await store.read(first[-1].seq, 100)
        picked = await store.pick([5, 15, 25])
        await store.close()

        assert list(range(1, 11)) == [each.seq for each in first]
        assert list(range(11, 21)) == [each.seq for each in second]
        assert ["e-5", "e-15", "e-25"] == [each.event.id for each in picked if each.event]
        indexes = query(tmp_path / "outbox/log/00000001.db", "SELECT name FROM sqlite_master WHERE type = 'index'")
        assert [("event_id",), ("event_late",)] == indexes

    async def test_sealing_that_was_interrupted_is_finished(self, tmp_path: Path, clock: SteppedClock):
        """
        A segment that no seal is noted for is sealed at the next start.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=5)
        await store.append(many(5))
        await store.append(many(5, start=6))
        await store.journal.sealing
        await store._state.write(lambda unit: unit.execute("UPDATE segment SET sealed = NULL"))
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=5)
        await store.journal.sealing
        await store.close()

        assert [(True,)] == query(
            tmp_path / "outbox/state.db", "SELECT sealed IS NOT NULL FROM segment WHERE number = 1"
        )

    async def test_a_segment_that_is_being_sealed_is_not_searched(
        self, tmp_path: Path, clock: SteppedClock, monkeypatch
    ):
        """
        Its index is not there yet and a search would read it through: its ids are in memory until the sealing is done, also
        where it fails, and are read again at the next start.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=10)

        async def fails(_segment, connection, _found):
            connection.close()
            raise DiskFull("full")

        def never(*_):
            raise AssertionError("it was searched")

        with monkeypatch.context() as broken:
            broken.setattr(store.segments, "seal", fails)
            broken.setattr(entries, "known", never)
            await store.append(many(10))
            assert [False] == await store.append(many(1, start=11))
            await store.journal.settled()
            assert [True] * 10 == await store.append(many(10))
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=10)
        at_once = await store.append(many(10))
        await store.journal.settled()
        sealed = await store.append(many(12))
        await store.close()

        assert [True] * 10 == at_once
        assert [True] * 11 + [False] == sealed

    async def test_one_that_is_sealed_while_another_is_searched(self, tmp_path: Path, clock: SteppedClock, monkeypatch):
        """
        Its ids leave the memory just after it was found that nobody need search it: they are duplicates all the same.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=10)
        await store.append(many(10))
        await store.append(many(10, start=11))
        await store.journal.sealing
        seal, known, searched = store.segments.seal, store.segments.known, asyncio.Event()

        async def seals_late(*arguments):
            await searched.wait()
            await seal(*arguments)

        async def is_slow(*arguments):
            searched.set()
            await store.journal.sealing
            return await known(*arguments)

        monkeypatch.setattr(store.segments, "seal", seals_late)
        await store.append(many(1, start=21))
        monkeypatch.setattr(store.segments, "known", is_slow)

        assert [True, True] == await store.append(many(1) + many(1, start=11))
        await store.close()

    async def test_a_fault_of_sealing_is_told_though_nobody_waits_for_it(
        self, tmp_path: Path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        A sync that fails while a segment is sealed ends the outbox, like any other: it is never tried again.
        """
        told: list[object] = []
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        store.on_failure = told.append

        async def fails(_segment, connection, _found):
            connection.close()
            raise OSError(errno.EIO, "the disk")

        monkeypatch.setattr(store.segments, "seal", fails)
        await store.append(many(2))
        await store.append(many(1, start=3))
        await store.journal.settled()
        with pytest.raises(Broken):
            await store.append(many(1, start=4))
        await store.close()

        assert [Broken] == [type(each) for each in told]

    async def test_a_segment_that_cannot_be_begun_costs_nothing(
        self, tmp_path: Path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        No room for a new one: that append is refused, the next one is tried anew, and every number is there after a start.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        await store.append(many(2))

        async def fails(_: object) -> None:
            raise DiskFull("full")

        with monkeypatch.context() as full:
            full.setattr(store.journal, "_register", fails)
            with pytest.raises(DiskFull):
                await store.append(many(1, start=3))
        assert [1] == [each.number for each in store.segments.all]
        assert [True, False] == await store.append(many(2, start=2))
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        read = [*await store.read(0, 10), *await store.read(2, 10)]
        await store.close()

        assert [(1, "e-1"), (2, "e-2"), (3, "e-3")] == [(each.seq, each.event and each.event.id) for each in read]

    async def test_damaged_bytes_are_known_as_such(self, tmp_path: Path, clock: SteppedClock):
        """
        A flipped bit in a payload yields an event that is marked damaged; its neighbours are intact.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        await store.append(many(3))
        store.journal.tail = Tail()
        await store.journal._writer.read(
            lambda unit: unit.execute("UPDATE event SET payload = zeroblob(length(payload)) WHERE seq = 2")
        )
        read = await store.read(0, 10)
        await store.close()

        assert [True, False, True] == [each.event is not None for each in read]


class TestLanes:
    async def test_a_new_lane_takes_events_from_now_on(self, store: Outbox):
        """
        A destination that is added later does not get what came before it.
        """
        await store.append(many(3))
        lane = await store.lane("snap", "snap")

        assert (3, 3) == (lane.start, lane.cursor)

    async def test_the_cursor_waits_for_the_slowest(self, store: Outbox):
        """
        Requests finish out of order: the cursor passes only what has an end, and a restart sends the rest.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(5))
        await store.settle(lane, [Mark(seqs=[1, 3, 5], state="delivered", at=NOW, attempts=1)])
        assert (1, [range(3, 4), range(5, 6)]) == (lane.cursor, lane.ended())
        store.lanes.clear()  # as a new process has none
        again = await store.lane("hook", "webhook")

        assert (1, [range(3, 4), range(5, 6)]) == (again.cursor, again.ended())

    async def test_simple_ends_of_one_moment_share_a_run(self, store: Outbox):
        """
        Hundreds of deliveries that ended alike cost one row.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(100))
        marks = [
            Mark(seqs=[seq], state="delivered", at=NOW + seq, began=NOW, attempts=1, status=200)
            for seq in range(1, 101)
        ]
        await asyncio.gather(*(store.settle(lane, [mark]) for mark in marks))

        runs = query(store.directory / "state.db", "SELECT first, last, state, began, at, status FROM run")
        assert [(1, 100, "delivered", NOW, NOW + 100, 200)] == runs
        assert [(100, 100)] == query(store.directory / "state.db", "SELECT cursor, delivered FROM lane")

    async def test_who_is_patient_shares_a_sync_with_those_that_come_soon(self, store: Outbox, monkeypatch):
        """
        After one settlement the next patient ones wait for each other and are written down as one, or at once where
        somebody is in a hurry; the first after a pause waits for nothing.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(100))
        groups: list[int] = []
        honest = store._settlements._write

        async def noted(group):
            groups.append(len(group))
            await honest(group)

        store._settlements._write = noted

        async def settled(seq: int, *, patient: bool = True) -> None:
            await store.settle(lane, [Mark(seqs=[seq], state="delivered", at=NOW, attempts=1)], patient=patient)

        await settled(1)
        monkeypatch.setattr("router.outbox.state.settlements.GATHER", 3600.0)  # only who hurries ends it
        patient = [asyncio.create_task(settled(seq)) for seq in range(2, 5)]
        await asyncio.sleep(0)
        assert [1] == groups
        hurried = asyncio.create_task(settled(5, patient=False))
        await asyncio.gather(*patient, hurried)
        assert [1, 4] == groups
        patient = [asyncio.create_task(settled(seq)) for seq in range(6, 9)]
        await asyncio.sleep(0)
        store.hurry()
        await asyncio.gather(*patient)
        assert [1, 4, 3] == groups
        monkeypatch.setattr("router.outbox.state.settlements.GATHER", 0.05)
        await asyncio.gather(*(settled(seq) for seq in range(9, 12)))  # nobody hurries: they wait for the time alone
        assert [1, 4, 3, 3] == groups

    @pytest.mark.parametrize("hurried", ["by an end", "by its subject", "by their number"])
    async def test_a_lane_waits_for_others_until_somebody_waits_for_it(self, store: Outbox, monkeypatch, hurried: str):
        """
        Deliveries are written down at once where another end comes to them, where the next event about the same waits for
        one, and what was first, where more than half of what may be unwritten is.
        """
        lane = await store.lane("hook", "webhook")
        events = [an_event(f"e-{number}") for number in range(1, 9)]
        await store.append(rows(*events))
        written: set[int] = set()
        wanted, there = ({2} if hurried == "by their number" else {2, 3}), asyncio.Event()

        async def noted(marks):
            written.update(seq for mark in marks for seq in mark.seqs)
            if wanted <= written:
                there.set()

        settling = Settling(store, lane, 6, noted)

        def deliver(seq: int, **more: object) -> None:
            attempt = Attempt(seqs=[seq], began=NOW, at=NOW, outcome="delivered", status=200)
            settling.delivered([Job(seq, events[seq - 1], **more)], Delivered(), attempt)

        deliver(1)
        await settling.written()
        monkeypatch.setattr("router.outbox.state.settlements.GATHER", 3600.0)
        deliver(2)
        await asyncio.sleep(0.05)
        assert {1} == written
        match hurried:
            case "by an end":
                settling.add([Mark(seqs=[3], state="dead", at=NOW, attempts=1)])
            case "by its subject":
                deliver(3, subject="about")
            case _:
                for seq in range(3, 6):
                    deliver(seq)
        async with asyncio.timeout(10):
            await there.wait()

    async def test_a_retry_waits_in_its_row_until_it_is_due(self, store: Outbox, clock: SteppedClock):
        """
        A waiting delivery is found when its time has come, not before, and keeps its count of attempts.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(2))
        due = clock.now() + 5000
        await store.settle(
            lane,
            [Mark(seqs=[1, 2], state="waiting", at=clock.now(), attempts=1, due=due, reason="HTTP 500")],
            [Attempt(seqs=[1, 2], began=NOW, at=NOW, outcome="retry", status=500)],
        )
        assert due == lane.next_due
        assert [] == await store.due(lane, due - 1, 10, [])
        assert [(1, 1), (2, 1)] == [(each.seq, each.attempts) for each in await store.due(lane, due, 10, [])]
        await store.settle(lane, [Mark(seqs=[1], state="delivered", at=due, attempts=2, parked=True)])

        assert [2] == [each.seq for each in await store.due(lane, due, 10, [])]
        assert [] == await store.due(lane, due, 10, [2])
        assert [(1, 1, 2)] == query(store.directory / "state.db", "SELECT delivered, parked, cursor FROM lane")

    async def test_an_operator_revives_and_drops(self, store: Outbox, clock: SteppedClock):
        """
        A dead delivery waits again; a waiting one can be given up; both are in the audit and the counters.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(3))
        await store.settle(lane, [Mark(seqs=[1, 2], state="dead", at=NOW, attempts=1, reason="HTTP 400")])
        assert 1 == await store.revive(lane, Selection(state="dead", seqs=[1]), "cli")
        assert 0 == await store.revive(lane, Selection(state="dead", seqs=[1]), "cli")
        assert 1 == await store.drop(lane, Selection(state="waiting"), [], "cli")

        counters = query(store.directory / "state.db", "SELECT delivered, dead, parked, cursor FROM lane")
        assert [(0, 2, 0, 2)] == counters
        assert [("retry", 1), ("retry", 0), ("drop", 1)] == query(
            store.directory / "state.db", "SELECT what, count FROM audit ORDER BY id"
        )

    async def test_a_retry_makes_nothing_else_late(self, store: Outbox):
        """
        What was due before an operator's retry is still known to be due then, also where the clock goes back meanwhile.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(2))
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=NOW, attempts=1, due=NOW - 1000)])
        await store.settle(lane, [Mark(seqs=[2], state="dead", at=NOW, attempts=1)])
        await store.revive(lane, Selection(state="dead"), "cli")

        assert NOW - 1000 == lane.next_due

    async def test_what_was_delivered_is_not_sent_again_by_a_retry(self, store: Outbox):
        """
        Only the dead come back: an operator's retry of delivered ones moves nothing, and the counters stay true.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(1))
        await store.settle(lane, [Mark(seqs=[1], state="delivered", at=NOW, attempts=2)])
        assert 0 == await store.revive(lane, Selection(state="delivered"), "cli")

        assert [("delivered",)] == query(store.directory / "state.db", "SELECT state FROM delivery")
        assert [(1, 0)] == query(store.directory / "state.db", "SELECT delivered, parked FROM lane")

    async def test_a_hold_survives_a_restart(self, tmp_path: Path, clock: SteppedClock):
        """
        A held lane is held after a restart, for the same reason and as long.
        """
        held = Held(reason="monthly quota used", by="partner", at=NOW, until=NOW + 1000)
        store = await Outbox.open(tmp_path / "outbox", clock)
        await store.hold(await store.lane("linktrace", "linktrace"), held)
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("linktrace", "linktrace")
        await store.close()

        assert held == lane.held

    async def test_what_a_partner_took_is_written_down_when_space_returns(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        A full disk makes settling wait, not forget; whoever makes room is told, though nobody sends anything.
        """
        told = asyncio.Event()
        monkeypatch.setattr(store.space, "refused", told.set)
        lane = await store.lane("hook", "webhook")
        await store.append(many(3000))
        pages = await store._state.read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await store._state.read(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        marks = [Mark(seqs=range(1, 3001), state="dead", at=NOW, attempts=1, reason="HTTP 400")]
        settling = asyncio.create_task(store.settle(lane, marks))
        async with asyncio.timeout(5):
            await told.wait()
        assert not settling.done()
        await store._state.read(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
        while not settling.done():
            clock.step(1)
            await asyncio.sleep(0.005)
        await settling

        assert [(3000,)] == query(store.directory / "state.db", "SELECT dead FROM lane")

    async def test_a_stop_that_met_a_full_disk_leaves_no_gap(self, store: Outbox, monkeypatch: pytest.MonkeyPatch):
        """
        It waits no longer for space; what comes behind is not written over what could not be, also where it could.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(2))
        behind: list[asyncio.Task[None]] = []

        async def full_once(_: object) -> None:
            monkeypatch.undo()
            behind.append(asyncio.create_task(store.settle(lane, [delivered(2)])))
            await asyncio.sleep(0)
            raise DiskFull("full")

        monkeypatch.setattr(store._state, "write", full_once)
        store._settlements._stopping = True
        with pytest.raises(DiskFull):
            await store.settle(lane, [delivered(1)])
        with pytest.raises(DiskFull):
            await behind[0]

        assert [(0, 0)] == query(store.directory / "state.db", "SELECT cursor, delivered FROM lane")


def delivered(seq: int) -> Mark:
    return Mark(seqs=(seq,), state="delivered", at=NOW, attempts=1)


class TestQuarantine:
    async def test_it_is_durable_and_counted(self, store: Outbox):
        """
        What was turned away can be listed by another process, with its reason.
        """
        await store.quarantine([Quarantined(at=NOW, source="shop", code="missing", message="add event_name")] * 2)

        assert [("missing",), ("missing",)] == query(store.directory / "state.db", "SELECT code FROM quarantine")
        assert [("rejected", 2)] == query(store.directory / "state.db", "SELECT * FROM counter")

    async def test_beyond_its_bytes_it_counts_and_keeps_nothing_more(self, store: Outbox, monkeypatch):
        """
        R17: a flood of refused items fills no disk; the ledger counts each, the alarm is raised, and room that is made
        is used again.
        """
        monkeypatch.setattr("router.outbox.state.bounds.QUARANTINE_BYTES", 10_000)
        item = Quarantined(at=NOW, source="shop", code="missing", message="add event_name", item='"' + "x" * 998 + '"')
        for _ in range(20):
            await store.quarantine([item])
        kept = "SELECT count(*) FROM quarantine"

        assert [(9,)] == query(store.directory / "state.db", kept)
        assert [("rejected", 20)] == query(store.directory / "state.db", "SELECT * FROM counter")
        assert store.quarantine_full
        await store._state.write(lambda c: c.execute("DELETE FROM quarantine WHERE id < 5"))
        await store.quarantine([item])
        assert not store.quarantine_full
        assert [(6,)] == query(store.directory / "state.db", kept)

    async def test_its_weight_is_the_sum_of_its_items(self, store: Outbox):
        """
        Whatever adds, changes and deletes; bytes and not characters.
        """
        items = ['"é"', None, '"' + "x" * 500 + '"']
        await store.quarantine([Quarantined(at=NOW, source="s", code="c", message="m", item=each) for each in items])
        await store._state.write(lambda c: c.execute("UPDATE quarantine SET item = '\"yy\"' WHERE item IS NULL"))
        await store._state.write(lambda c: c.execute("DELETE FROM quarantine WHERE length(item) > 100"))

        assert [(2 * schema.ROW_BYTES + 4 + 4,)] == query(
            store.directory / "state.db", "SELECT bytes FROM weight WHERE name = 'quarantine'"
        )


class TestAttempts:
    async def test_the_newest_tries_of_a_delivery_are_kept(self, store: Outbox):
        """
        R17: 72 hours of retries leave twenty rows, of each delivery.
        """
        lane = await store.lane("a", "webhook")
        for number in range(30):
            await store.settle(lane, [], [attempt([1], number), attempt([2], number)])
        found = query(store.directory / "state.db", "SELECT first, min(began), count(*) FROM attempt GROUP BY first")

        assert [(1, 10, 20), (2, 10, 20)] == found

    async def test_beyond_their_bytes_answers_are_not_kept(self, store: Outbox, monkeypatch):
        """
        R17: that there was a try is kept, the partner's words are not.
        """
        monkeypatch.setattr("router.outbox.state.bounds.ANSWER_BYTES", 1_000)
        lane = await store.lane("a", "webhook")
        for number in range(4):
            await store.settle(lane, [], [attempt([number + 1], number, answer="x" * 300)])
        found = query(store.directory / "state.db", "SELECT count(*), count(answer) FROM attempt")

        assert [(4, 2)] == found


def attempt(seqs: list[int], began: int, answer: str | None = None) -> Attempt:
    return Attempt(seqs=seqs, began=began, at=began, outcome="retry", status=503, reason="failed", answer=answer)


class TestOpening:
    async def test_a_second_process_is_refused_naming_the_first(self, store: Outbox, clock: SteppedClock):
        """
        One process owns a directory.
        """
        with pytest.raises(Locked, match=str(os.getpid())):
            await Outbox.open(store.directory, clock)
        assert os.getpid() == lock.holder(store.directory)

    @pytest.mark.parametrize("before", [b"", b"%d\n"], ids=["new", "left by a kill"])
    def test_who_has_just_begun_is_named(self, tmp_path: Path, before: bytes):
        """
        A process that has the lock and not yet written its name is waited for; one that has ended is not named for it.
        """
        ended = subprocess.Popen(["true"])
        ended.wait()
        path = tmp_path / "lock"
        path.write_bytes(before.replace(b"%d", b"%d" % ended.pid))
        with path.open("r+b", buffering=0) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            naming = threading.Timer(0.1, held.write, [b"%d\n" % os.getpid()])
            naming.start()
            with pytest.raises(Locked, match=f"process {os.getpid()} already"):
                lock.Lock(tmp_path)
            naming.join()

    async def test_nobody_holds_a_closed_one(self, tmp_path: Path, clock: SteppedClock):
        """
        Closing gives the directory back.
        """
        await (await Outbox.open(tmp_path / "outbox", clock)).close()

        assert lock.holder(tmp_path / "outbox") is None

    async def test_a_lost_state_is_never_replaced_by_a_fresh_one(self, tmp_path: Path, clock: SteppedClock):
        """
        A log without its state, or a state without a segment, is refused.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=1)
        for number in range(3):
            await store.append(many(1, start=number + 1))
        await store.close()
        segment = tmp_path / "outbox/log/00000001.db"
        segment.rename(tmp_path / "away")
        with pytest.raises(OutboxError, match="missing"):
            await Outbox.open(tmp_path / "outbox", clock)
        (tmp_path / "away").rename(segment)
        (tmp_path / "outbox/state.db").unlink()
        with pytest.raises(OutboxError, match=r"no state\.db"):
            await Outbox.open(tmp_path / "outbox", clock)

    async def test_a_log_older_than_its_state_is_refused(self, tmp_path: Path, clock: SteppedClock):
        """
        Sequence numbers are never used twice: a log that ends before what was settled is not written on.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        await store.close()
        segment = tmp_path / "outbox/log/00000001.db"
        older = segment.read_bytes()
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("hook", "webhook")
        await store.append(many(5))
        await store.settle(lane, [Mark(seqs=range(1, 6), state="delivered", at=NOW, attempts=1)])
        await store.close()
        segment.write_bytes(older)
        with pytest.raises(OutboxError, match="event 5 was settled"):
            await Outbox.open(tmp_path / "outbox", clock)

    async def test_a_state_older_than_its_log_is_refused(self, tmp_path: Path, clock: SteppedClock):
        """
        An old state.db beside newer segments: what was acknowledged in them is not written over.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        await store.append(many(2))
        await store.close()
        old = (tmp_path / "outbox/state.db").read_bytes()
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        await store.append(many(2, start=3))
        await store.close()
        (tmp_path / "outbox/state.db").write_bytes(old)
        with pytest.raises(OutboxError, match="newer than state"):
            await Outbox.open(tmp_path / "outbox", clock)

    async def test_many_sealed_segments_need_few_files(self, tmp_path: Path, clock: SteppedClock):
        """
        However many segments a duplicate is looked up in, only so many files are open at once.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=1)
        for number in range(40):
            await store.append(many(1, start=number))
        await asyncio.gather(store.journal.sealing)
        assert [True] == await store.append(many(1, start=0))
        assert 40 == len(await store.pick(range(1, 41)))
        open_files = len(store.segments._files)
        await store.close()

        assert 16 >= open_files

    async def test_a_newer_schema_is_refused_naming_both(self, tmp_path: Path, clock: SteppedClock):
        """
        An older program does not touch a newer file.
        """
        await (await Outbox.open(tmp_path / "outbox", clock)).close()
        with sqlite3.connect(tmp_path / "outbox/state.db") as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        with pytest.raises(OutboxError, match=f"99.*{len(schema.STATE)}"):
            await Outbox.open(tmp_path / "outbox", clock)

    async def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path, clock: SteppedClock):
        """
        Garbage in place of the state is an error that says what to do.
        """
        (tmp_path / "outbox").mkdir()
        (tmp_path / "outbox/state.db").write_bytes(b"garbage" * 1000)
        with pytest.raises(OutboxError, match="backup"):
            await Outbox.open(tmp_path / "outbox", clock)

    async def test_files_are_the_owners_alone(self, store: Outbox):
        """
        Directory 0700, files 0600.
        """
        await store.append(many(1))
        modes = {stat.S_IMODE(each.stat().st_mode) for each in store.directory.rglob("*") if each.is_file()}

        assert {0o600} == modes
        assert 0o700 == stat.S_IMODE(store.directory.stat().st_mode)

    async def test_a_migration_is_whole_or_not_at_all(self, tmp_path: Path):
        """
        A statement that fails leaves the file as it was, version and all.
        """
        connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(connection, [["CREATE TABLE a(b)"], ["CREATE TABLE c(d)", "nonsense"]], "x.db")

        assert [] == connection.execute("SELECT name FROM sqlite_master").fetchall()
        assert (0,) == connection.execute("PRAGMA user_version").fetchone()
        connection.close()

    async def test_a_due_time_of_another_clock_does_not_freeze_a_lane(self, tmp_path: Path, clock: SteppedClock):
        """
        After the clock stepped back a year, what waits is due within a day.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("hook", "webhook")
        await store.append(many(1))
        far = clock.now() + 365 * 86_400_000
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=NOW, attempts=1, due=far)])
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("hook", "webhook")
        await store.close()

        assert clock.now() + 86_400_000 == lane.next_due

    async def test_a_wait_of_a_clock_that_was_ahead_is_as_long_as_it_was(self, tmp_path: Path, clock: SteppedClock):
        """
        Five seconds to wait, then a start with the clock a year behind: five seconds from then.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("hook", "webhook")
        await store.append(many(1))
        at = clock.now()
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=at, attempts=1, due=at + 5_000)])
        await store.close()
        clock.jump(-365 * 86_400)
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("hook", "webhook")
        await store.close()

        assert clock.now() + 5_000 == lane.next_due


class TestVault:
    def test_without_its_key_nothing_is_readable(self):
        """
        Destroying a segment's key forgets every clear value of it at once.
        """
        sealed = next(Vault(new_key()).seal([Clear(ip="203.0.113.42")]))

        assert Clear() == Vault(None).open(sealed)
        assert Clear() == Vault(new_key()).open(sealed)

    def test_nothing_is_sealed_where_there_is_nothing(self):
        """
        An event without clear values costs no bytes.
        """
        assert list(Vault(new_key()).seal([Clear()])) == [None]


class TestSeen:
    def test_it_never_forgets(self):
        """
        Every key that was given is found in its segment, with the table and without; others nearly never are.
        """
        seen = Seen()
        parts = {number: [f"shop\0{number}-{n}" for n in range(40_000)] for number in range(1, 6)}
        seen.load({1: marks(parts[1])})
        for number in (2, 3, 4, 5):
            assert [1] == [number for _, number in seen.holding(["shop\x001-7"])]
            seen.add(number, marks(parts[number]))

        assert all((0, number) in seen.holding([name]) for number, part in parts.items() for name in part[::97])
        assert 50 > len({place for place, _ in seen.holding([f"blog\0{n}" for n in range(40_000)])})

    def test_what_has_gone_is_not_named(self):
        """
        A forgotten segment is no longer asked, and the others still are.
        """
        seen = Seen()
        seen.add(1, marks(["shop\0a"]))
        seen.add(2, marks(["shop\0a", "shop\0b"]))
        seen.forget(1)

        assert [(0, 2)] == list(seen.holding(["shop\0a"]))


class TestCompression:
    def test_what_was_packed_is_unpacked(self):
        """
        Packed, plain and empty payloads come back in their order, one or many at a time.
        """
        payloads = [entries.row(an_event(f"e-{n}", properties={"n": n})).payload for n in range(20)]
        stored = [*pack(payloads), payloads[3], b"", *pack(payloads[:1])]

        assert [*payloads, payloads[3], b"", payloads[0]] == unpack(stored)
        assert payloads[:1] == unpack(stored[:1])

    def test_a_damaged_one_is_told(self):
        """
        Of several payloads only the damaged ones cannot be read.
        """
        one, two = pack([entries.row(an_event(each)).payload for each in ("e-1", "e-2")])

        assert [None, entries.row(an_event("e-2")).payload, None] == unpack([b"\x01nonsense", two, one[:-4]])

    def test_the_dictionary_is_for_ever(self):
        """
        Stored bytes can be read as long as the text against which they were packed stays as it was.
        """
        assert "2c6508d24ff1e89dd1eec2d15615437836a6af743c19cc2792b3f6068124943d" == hashlib.sha256(_FIRST).hexdigest()


class TestStretches:
    @pytest.mark.parametrize(
        ("seqs", "expected"),
        [
            pytest.param([], [], id="nothing"),
            pytest.param([3], [(3, 3)], id="one"),
            pytest.param([5, 1, 2, 4, 9], [(1, 2), (4, 5), (9, 9)], id="unordered with gaps"),
        ],
    )
    def test_consecutive_numbers_are_one(self, seqs, expected):
        """
        Runs are as long as they can be.
        """
        assert expected == list(deliveries.stretches(seqs))


def test_a_row_never_carries_clear_values():
    """
    The payload of the log is encoded without the clear values, whoever calls.
    """
    assert b"203.0.113.42" not in entries.row(an_event(clear=Clear(ip="203.0.113.42"))).payload
