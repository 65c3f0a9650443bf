"""Retention: what is due is forgotten, on disk as well, and nothing that is still needed."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.event import Clear
from router.outbox.errors import DiskFull
from router.outbox.log.entries import KEPT
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state import cursors, selections
from router.outbox.state.cursors import LaneRow
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.lane import Lane
from router.outbox.state.registers import Quarantined
from router.outbox.state.selections import Selection
from router.outbox.upkeep import erasure, pruning, retention
from router.outbox.upkeep.retention import LONGEST_CLEAR, Policy
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock

HOUR = 3600.0
DAY = 24 * HOUR
POLICY = Policy(delivered=int(7 * DAY * 1000), dead=int(30 * DAY * 1000), dedup=int(DAY * 1000))


@pytest.fixture
async def clock() -> SteppedClock:
    return SteppedClock(NOW)


async def opened(tmp_path: Path, clock: SteppedClock, policy: Policy = POLICY) -> Outbox:
    return await Outbox.open(tmp_path / "outbox", clock, policy=policy, segment_events=10)


async def delivered(store: Outbox, lane: Lane, *seqs: int, state: str = "delivered", **mark) -> None:
    await store.settle(lane, [Mark(seqs=seqs, state=state, at=NOW, began=NOW, attempts=1, status=200, **mark)])


async def full_segments(store: Outbox, count: int = 2) -> None:
    """So many sealed segments of ten events, and an open one with one event."""
    for start in range(count):
        await store.append(many(10, start=10 * start + 1))
    await store.append(many(1, start=10 * count + 1))
    await store.journal.sealing


def files(store: Outbox) -> list[str]:
    return sorted(path.stem for path in (store.directory / "log").glob("*.db"))


def kept(store: Outbox) -> list[str]:
    """Ids of the events in the segment of kept ones."""
    connection = sqlite3.connect(store.directory / "log" / f"{KEPT:08d}.db")
    try:
        return [event_id for (event_id,) in connection.execute("SELECT id FROM event ORDER BY seq")]
    finally:
        connection.close()


def answers(store: Outbox) -> list[tuple[str | None]]:
    connection = sqlite3.connect(store.directory / "state.db")
    try:
        return connection.execute("SELECT answer FROM attempt ORDER BY id").fetchall()
    finally:
        connection.close()


async def verified(store: Outbox) -> None:
    """The ledger adds up, counted again row by row."""
    reader = Reader(store.directory)
    assert [] == await reader.recount()
    assert 0 == (await reader.ledger()).difference


class TestSegments:
    async def test_a_segment_that_all_have_passed_goes_when_its_time_has_come(self, tmp_path, clock):
        """
        Seven days after its sealing the file is gone, no sooner; the ledger still knows how many there were.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await full_segments(store)
        await delivered(store, lane, *range(1, 22))
        await store.append(many(1))  # e-1 again: a duplicate, counted in the open segment
        clock.step(7 * DAY - 1)
        await store.retention.look()
        assert ["00000001", "00000002", "00000003"] == files(store)[:3]
        clock.step(1)
        await store.retention.look()

        assert files(store)[0] == "00000003"
        ledger = await Reader(store.directory).ledger()
        assert (22, 21, 1, 21) == (
            ledger.received,
            ledger.accepted,
            ledger.duplicate,
            ledger.destinations["a"].delivered,
        )
        await verified(store)
        await store.close()

    async def test_one_that_goes_while_everything_is_counted_lacks_nothing(self, tmp_path, clock, monkeypatch):
        """
        Retention takes a segment in the middle of a recount: that is no event too few.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await full_segments(store)
        await delivered(store, lane, *range(1, 22))
        clock.step(8 * DAY)
        reader = Reader(store.directory)
        counted = Reader._recount_log

        async def meanwhile(*arguments):
            await store.retention.look()
            return await counted(*arguments)

        monkeypatch.setattr(Reader, "_recount_log", meanwhile)
        assert [] == await reader.recount()
        assert files(store)[0] == "00000003"
        await store.close()

    async def test_duplicates_that_a_gone_segment_counted_stay_counted(self, tmp_path, clock):
        """
        What was received stays the sum of what it was, whatever files are gone.
        """
        store = await opened(tmp_path, clock)
        await store.append(many(5))
        await store.append(many(5))
        await store.append(many(15, start=6))
        await store.append(many(1, start=99))
        await store.journal.sealing
        clock.step(8 * DAY)
        await store.retention.look()
        ledger = await Reader(store.directory).ledger()

        assert "00000001" not in files(store)
        assert (26, 5, 21) == (ledger.received, ledger.duplicate, ledger.accepted)
        await store.close()

    async def test_no_segment_goes_before_the_slowest_lane_has_passed(self, tmp_path, clock):
        """
        A backlog is never a matter of age: as long as one lane has it to send, its segment is there.
        """
        store = await opened(tmp_path, clock)
        quick, slow = await store.lane("a", "webhook"), await store.lane("b", "webhook")
        await full_segments(store)
        await delivered(store, quick, *range(1, 22))
        await delivered(store, slow, *range(1, 10))
        clock.step(100 * DAY)
        await store.retention.look()
        assert "00000001" in files(store)
        await delivered(store, slow, 10)
        await store.retention.look()

        assert "00000001" not in files(store)
        assert "00000002" in files(store)
        assert [11] == [each.seq for each in await store.read(10, 1)]
        await store.close()

    async def test_a_partners_words_go_with_the_first_event_that_they_are_about(self, tmp_path, clock):
        """
        Words about one event that is gone and one that is kept go: nobody could find the first one's in them any more.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await full_segments(store)
        words = [
            Attempt(seqs=seqs, began=NOW, at=NOW, outcome="retry", answer=f"about {seqs}")
            for seqs in ([1, 2], [2], [3])
        ]
        await store.settle(lane, [Mark(seqs=[2, 3], state="dead", at=NOW, attempts=1)], words)
        await delivered(store, lane, 1, *range(4, 22))
        clock.step(8 * DAY)
        await store.retention.look()
        assert [(None,), ("about [2]",), ("about [3]",)] == answers(store)
        await store.revive(lane, Selection(state="dead", seqs=[2]), "test")
        await store.settle(lane, [Mark(seqs=[2], state="delivered", at=NOW, parked=True, attempts=2)])
        await store.retention.look()

        assert [(None,), (None,), ("about [3]",)] == answers(store)
        await store.close()

    async def test_what_waits_or_is_dead_is_kept_and_can_still_be_sent(self, tmp_path, clock):
        """
        The few that are not done outlive their segment: they can be read, explained, retried.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await full_segments(store)
        await delivered(store, lane, *(set(range(1, 22)) - {3, 5}))
        await delivered(store, lane, 3, state="dead", reason="refused")
        await delivered(store, lane, 5, state="waiting", due=NOW)
        await store.retention.look()
        clock.step(8 * DAY)
        await store.retention.look()

        assert ["e-3", "e-5"] == kept(store)
        assert ["e-3", "e-5"] == [each.event.id for each in await store.pick([3, 4, 5])]
        assert [5] == [each.seq for each in await store.due(lane, clock.now(), 10, ())]
        assert 1 == await store.revive(lane, Selection(state="dead"), "test")
        reader = Reader(store.directory)
        [found] = await reader.find("e-3")
        story = await reader.story(found.seq)
        assert ("e-3", "waiting") == (story.id, story.destinations[0].state)
        await verified(store)
        await store.close()

        again = await opened(tmp_path, clock)
        assert ["e-3"] == [each.event.id for each in await again.pick([3])]
        await again.append(many(1, start=500))
        assert 22 == again.last
        await again.close()

    async def test_dead_deliveries_go_after_their_time_and_their_events_with_them(self, tmp_path, clock):
        """
        Thirty days after its death a delivery is forgotten, and the event is once no lane needs it.
        """
        store = await opened(tmp_path, clock)
        one, other = await store.lane("a", "webhook"), await store.lane("b", "webhook")
        await full_segments(store)
        for lane in (one, other):
            await delivered(store, lane, *(set(range(1, 22)) - {3, 4}))
        await delivered(store, one, 3, 4, state="dead", reason="refused")
        await delivered(store, other, 3)
        await delivered(store, other, 4, state="waiting", due=NOW)
        await store.retention.look()
        clock.step(8 * DAY)
        await store.retention.look()
        assert ["e-3", "e-4"] == kept(store)
        clock.step(23 * DAY)
        await store.retention.look()

        assert ["e-4"] == kept(store)
        assert (2, 0) == ((await Reader(store.directory).ledger()).destinations["a"].dead, one.cursor - 21)
        await verified(store)
        await store.close()

    async def test_an_old_open_segment_is_sealed_without_traffic(self, tmp_path, clock):
        """
        A site that goes quiet does not keep its last events for ever.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(many(3))
        await delivered(store, lane, 1, 2, 3)
        clock.step(DAY)
        await store.retention.look()
        await store.journal.sealing
        await store.retention.look()
        clock.step(8 * DAY)
        await store.retention.look()

        assert ["00000002"] == files(store)
        await store.close()

    async def test_ids_are_recognised_as_long_as_said(self, tmp_path, clock):
        """
        Where ids are recognised for longer than events are kept, segments stay for the ids.
        """
        store = await opened(tmp_path, clock, Policy(delivered=1000, dead=1000, dedup=int(2 * DAY * 1000)))
        await full_segments(store)
        clock.step(2 * DAY - 1)
        await store.retention.look()

        assert [True] == await store.append(many(1))
        await store.close()

    async def test_a_kill_in_the_middle_is_finished_by_the_next_start(self, tmp_path, clock, monkeypatch):
        """
        The process dies after the state forgot a segment and before its file is gone: the next one removes the file.
        """
        store = await opened(tmp_path, clock)
        await full_segments(store)
        clock.step(8 * DAY)
        monkeypatch.setattr(
            "router.outbox.upkeep.retention.unlink", lambda path: (_ for _ in ()).throw(OSError("killed"))
        )
        with pytest.raises(OSError, match="killed"):
            await store.retention.look()
        await store.close()
        monkeypatch.undo()
        assert "00000001" in files(store)
        again = await opened(tmp_path, clock)

        assert "00000001" not in files(again)
        assert 21 == again.last
        await again.close()

    async def test_a_kill_before_the_state_knows_loses_and_doubles_nothing(self, tmp_path, clock, monkeypatch):
        """
        The process dies when the kept events are copied and the state not written: the next one starts over.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await full_segments(store)
        await delivered(store, lane, *(set(range(1, 22)) - {3}))
        await delivered(store, lane, 3, state="dead", reason="refused")
        clock.step(8 * DAY)
        monkeypatch.setattr("router.outbox.upkeep.pruning.retire_segment", lambda *_, **__: 1 / 0)
        with pytest.raises(Exception, match="outbox"):
            await store.retention.look()
        await store.close()
        monkeypatch.undo()
        again = await opened(tmp_path, clock)
        await again.retention.look()

        assert ["e-3"] == kept(again)
        assert "00000001" not in files(again)
        await verified(again)
        await again.close()


class TestFaults:
    @pytest.mark.parametrize(("module", "name"), [(pruning, "forget_answers"), (retention, "unlink")])
    async def test_duplicates_of_a_segment_count_once(
        self, tmp_path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, module, name: str
    ):
        """
        Whatever fails while a segment goes, the ledger's duplicates are as many as before.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(many(9))
        await store.append(many(3))
        await store.append(many(2, start=10))
        await store.append(many(1, start=12))
        await store.journal.sealing
        await delivered(store, lane, *range(1, 13))
        await store.retention.look()
        clock.step(8 * DAY)
        working = getattr(module, name)

        def failing(*_: object) -> None:
            monkeypatch.setattr(module, name, working)
            raise DiskFull("no room")

        monkeypatch.setattr(module, name, failing)
        with pytest.raises(DiskFull):
            await store.retention.look()
        await store.retention.look()

        assert 3 == (await Reader(store.directory).ledger()).duplicate
        await store.close()


class TestPlans:
    """What the state's thread asks of large tables goes by an index that is narrow enough: everybody waits behind it."""

    @pytest.mark.parametrize(
        "unit",
        [
            pytest.param(lambda unit: pruning.forget_answers(unit, 99, 10), id="answers"),
            pytest.param(lambda unit: erasure.end(unit, [1, 2], NOW), id="an erasure"),
            pytest.param(
                lambda unit: selections.revive(unit, 1, Selection(state="dead", seqs=(1,)), NOW), id="a retry"
            ),
            pytest.param(
                lambda unit: selections.drop(unit, 1, Selection(state="waiting", seqs=(1,)), NOW), id="a drop"
            ),
        ],
    )
    async def test_deliveries_are_found_by_their_number(self, tmp_path, clock: SteppedClock, unit):
        """
        Not by their state, of which all may be the same, and not by reading everything.
        """
        store = await opened(tmp_path, clock)
        await store.lane("a", "webhook")
        asked: list[str] = []

        def traced(connection: sqlite3.Connection) -> list[str]:
            connection.set_trace_callback(asked.append)
            unit(connection)
            connection.set_trace_callback(None)
            return [row[3] for each in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {each}")]

        plans = await store._transact(traced)
        await store.close()

        found = [each for each in plans if each.startswith(("SCAN delivery", "SCAN run", "SEARCH delivery"))]
        assert found
        assert [] == [each for each in found if "seq" not in each]

    async def test_what_a_partner_has_is_found_in_the_nearest_run(self, tmp_path, clock: SteppedClock):
        """
        An event that no run covers costs as little among five thousand of them as among five.
        """
        store = await opened(tmp_path, clock)
        await store.lane("a", "webhook")
        steps = [0]

        def walked(runs: int, connection: sqlite3.Connection) -> tuple[int, dict[str, int]]:
            insert = "INSERT OR IGNORE INTO run VALUES(1, ?, ?, 'delivered', 0, 0, 200, NULL, 1)"
            connection.executemany(insert, [(2 * number, 2 * number) for number in range(1, runs + 1)])
            steps[0] = 0
            connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1)
            found = erasure.delivered(connection, [2 * runs, 2 * runs + 1])
            connection.set_progress_handler(None, 1)
            return steps[0], found

        few, many_more = [await store._transact(partial(walked, runs)) for runs in (5, 5000)]
        await store.close()

        assert (few[1], many_more[1]) == ({"a": 1}, {"a": 1})
        assert many_more[0] < 2 * few[0]  # SQLite 3.53 needs three steps less for many


class TestTask:
    async def test_a_fault_does_not_end_it(self, tmp_path, clock, monkeypatch):
        """
        A full disk, or a fault of ours, costs one look: the next one forgets what this one could not.
        """
        store = await opened(tmp_path, clock)
        await full_segments(store)
        faults = [sqlite3.OperationalError("database or disk is full"), OSError("no space"), ZeroDivisionError()]

        async def failing(now: int) -> bool:
            if faults:
                raise faults.pop()
            return True

        monkeypatch.setattr(store.retention, "_believed", failing)
        clock.step(8 * DAY)
        while faults:
            await clock.somebody_sleeps()
            clock.step(61)
            await asyncio.sleep(0)
        for _ in range(200):
            clock.step(61)
            await asyncio.sleep(0.01)
            if "00000001" not in files(store):
                break

        assert "00000001" not in files(store)
        await store.close()

    async def test_what_is_not_written_down_is_not_passed(self, tmp_path, clock):
        """
        A lane whose ends are not on disk yet has not passed a segment, whatever its cursor in memory says.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await full_segments(store)
        lane.end(range(1, 22))
        clock.step(8 * DAY)
        await store.retention.look()
        clock.step(8 * DAY)
        await store.retention.look()

        assert "00000001" in files(store)
        await store.close()


class TestClock:
    @pytest.mark.parametrize("wrong", [-57 * 365 * DAY, -30 * DAY, 365 * DAY])
    async def test_a_wrong_clock_that_is_put_right_takes_nothing(self, tmp_path, clock, wrong):
        """
        A machine's clock is years behind, or ahead, for some minutes: events, their ids and what waits for its address stay.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "ipsnare")
        await store.append(rows(an_event("e-0", clear=Clear(ip="198.51.100.7"))))
        await full_segments(store)
        await delivered(store, lane, *range(2, 23))
        await delivered(store, lane, 1, state="waiting", due=NOW)
        await store.retention.look()
        before = set(files(store))
        clock.jump(wrong)
        for _ in range(3):
            await store.retention.look()
            clock.step(60)
        clock.jump(-wrong)
        await store.retention.look()

        assert before <= set(files(store))  # one that is a year ahead begins a new one
        assert "198.51.100.7" == (await store.pick([1]))[0].event.clear.ip
        assert [True] == await store.append(rows(an_event("e-0")))
        await store.close()

    async def test_ids_of_a_segment_that_is_sealed_meanwhile_are_recognised(self, tmp_path, clock):
        """
        A segment is full just while the clock is a month behind: the ids in it are as young as they are.
        """
        store = await opened(tmp_path, clock)
        await store.append(many(10))
        clock.jump(-30 * DAY)
        await store.append(many(1, start=11))
        await store.journal.sealing
        clock.jump(30 * DAY)

        assert [True, True] == await store.append(many(2))
        await store.close()

    async def test_a_start_by_a_clock_that_is_behind_takes_nothing(self, tmp_path, clock):
        """
        A machine without a clock starts in 1970 and is told the time later.
        """
        store = await opened(tmp_path, clock)
        await full_segments(store)
        await store.retention.look()
        await store.close()
        clock.jump(-57 * 365 * DAY)
        store = await opened(tmp_path, clock)
        before = files(store)
        await store.retention.look()
        clock.jump(57 * 365 * DAY)
        await store.retention.look()

        assert before == files(store)
        await store.close()

    @pytest.mark.parametrize("by", [-365 * DAY, 365 * DAY])
    async def test_a_clock_that_stays_is_believed_in_the_end(self, tmp_path, clock, by):
        """
        What was stored before it was set goes the usual time and half a day later at the latest.
        """
        store = await opened(tmp_path, clock)
        await full_segments(store)
        clock.jump(by)
        for _ in range(2 * 9):
            await store.retention.look()
            clock.step(DAY / 2)
        await store.retention.look()

        assert "00000001" not in files(store)
        await store.close()

    async def test_a_clock_that_was_ahead_is_forgotten_by_a_process_of_every_night(self, tmp_path, clock):
        """
        What was stored by a clock that was a year ahead goes in its time, though no process lives for a whole day.
        """
        clock.jump(365 * DAY)
        store = await opened(tmp_path, clock)
        await full_segments(store)
        await store.close()
        clock.jump(-365 * DAY)
        for _ in range(9):
            store = await opened(tmp_path, clock)
            for _ in range(8):
                await store.retention.look()
                clock.step(DAY / 8)
            await store.close()

        assert "00000001" not in files(store)


class TestClearValues:
    async def test_a_key_is_destroyed_three_days_after_the_last_lane(self, tmp_path, clock):
        """
        The clear values of a segment, and of every copy of it, cannot be read any more: the key is in no file.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "ipsnare")
        await store.append(rows(an_event("e-0", clear=Clear(ip="198.51.100.7"))))
        await full_segments(store)
        key = store.segments.all[0].key
        await delivered(store, lane, *range(1, 23))
        await store.retention.look()
        clock.step(LONGEST_CLEAR / 1000 - 1)
        await store.retention.look()
        [event] = await store.segments.pick([1])
        assert "198.51.100.7" == event.event.clear.ip
        clock.step(1)
        await store.retention.look()

        [event] = await store.segments.pick([1])
        assert Clear() == event.event.clear
        assert not any(key in path.read_bytes() for path in store.directory.rglob("*") if path.is_file())
        await store.close()
        assert not any(key in path.read_bytes() for path in store.directory.rglob("*") if path.is_file())

    async def test_the_key_is_found_while_it_is_there(self, tmp_path, clock):
        """
        Control of the search above: before its time the key is in the state's files.
        """
        store = await opened(tmp_path, clock)
        await full_segments(store)
        key = store.segments.all[0].key

        assert any(key in path.read_bytes() for path in store.directory.rglob("*") if path.is_file())
        await store.close()

    async def test_what_waits_has_its_clear_values_for_as_long_as_they_are_kept(self, tmp_path, clock):
        """
        However short events are kept, a retry within the three days still has the address it needs.
        """
        store = await opened(tmp_path, clock, Policy(delivered=1000, dead=1000, dedup=1000))
        lane = await store.lane("a", "ipsnare")
        await store.append(rows(an_event("e-0", clear=Clear(ip="198.51.100.7"))))
        await full_segments(store)
        await delivered(store, lane, *range(2, 23))
        await delivered(store, lane, 1, state="waiting", due=NOW)
        clock.step(DAY)
        await store.retention.look()
        [event] = await store.pick([1])
        assert "198.51.100.7" == event.event.clear.ip
        clock.step(3 * DAY)
        await store.retention.look()

        assert ["e-0"] == kept(store)
        connection = sqlite3.connect(store.directory / "log" / f"{KEPT:08d}.db")
        assert [(None,)] == connection.execute("SELECT clear FROM event").fetchall()
        connection.close()
        await store.close()


class TestRemoved:
    async def test_a_removed_destination_gets_nothing_of_what_comes_meanwhile(self, tmp_path, clock):
        """
        Its backlog stays as it was, and when it is back it goes on with that and with what comes then.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(many(3))
        await delivered(store, lane, 2)
        await store.stop(lane)
        await store.append(many(4, start=4))
        sums = (await Reader(store.directory).ledger()).destinations["a"]
        assert (1, 2) == (sums.delivered, sums.waiting)
        await verified(store)
        await store.go_on(lane)
        await store.append(many(1, start=8))
        sums = (await Reader(store.directory).ledger()).destinations["a"]

        assert (1, 3, 4) == (sums.delivered, sums.waiting, sums.filtered)
        assert [1, 3, 8] == [seq for seq in range(1, 9) if lane.open(seq)]
        await verified(store)
        await store.close()

    async def test_the_gap_survives_a_restart(self, tmp_path, clock):
        """
        A long absence is one stretch, not a million numbers, in the next process as well.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(many(1))
        await store.stop(lane)
        await store.append(many(2000, start=2))
        await store.go_on(lane)
        await store.close()
        again = await opened(tmp_path, clock)
        lane = await again.lane("a", "webhook")

        assert [range(2, 2002)] == lane.ended()
        await again.append(many(1, start=5000))
        assert [1, 2002] == [seq for seq in range(1, 2003) if lane.open(seq)]
        lane.end([1])
        assert 2001 == lane.cursor
        await again.close()

    async def test_what_waits_for_it_is_given_up_visibly_in_the_end(self, tmp_path, clock):
        """
        A destination that never comes back does not keep the log for ever: after thirty days its backlog ends, counted.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await full_segments(store)
        await delivered(store, lane, 5)
        await delivered(store, lane, 7, state="waiting", due=NOW)
        await store.stop(lane)
        clock.step(29 * DAY)
        await store.retention.look()
        assert "00000001" in files(store)
        clock.step(1 * DAY)
        await store.retention.look()
        sums = (await Reader(store.directory).ledger()).destinations["a"]

        assert (1, 0, 19, 1) == (sums.delivered, sums.waiting, sums.filtered, sums.dead)
        assert "00000001" not in files(store)
        await verified(store)
        await store.close()

    async def test_what_cannot_be_given_up_is_given_up_later(self, tmp_path, clock, monkeypatch):
        """
        The disk is full at that moment: the lane stands where it stood, and the next look ends its backlog, counted.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(many(5))
        await delivered(store, lane, 2)
        await store.stop(lane)
        clock.step(30 * DAY)

        def full(*_, **__):
            raise DiskFull("full")

        with monkeypatch.context() as now:
            now.setattr(cursors, "filter_all", full)
            with pytest.raises(DiskFull):
                await store.retention.look()
        await store.settle(lane, [])
        await verified(store)
        await store.retention.look()
        sums = (await Reader(store.directory).ledger()).destinations["a"]

        assert (1, 0, 4) == (sums.delivered, sums.waiting, sums.filtered)
        await verified(store)
        await store.close()


class TestRows:
    async def test_the_quarantine_is_bounded_by_age(self, tmp_path, clock):
        """
        Two weeks later what was turned away is gone; that it was turned away stays in the ledger.
        """
        store = await opened(tmp_path, clock)
        await store.quarantine([Quarantined(at=NOW, source="shop", code="x", message="y")] * 3)
        clock.step(14 * DAY + 1)
        await store.quarantine([Quarantined(at=clock.now(), source="shop", code="x", message="y")])
        await store.retention.look()
        reader = Reader(store.directory)

        assert 1 == len((await reader.quarantined()).items)
        assert 4 == (await reader.ledger()).rejected
        await store.close()

    @pytest.mark.parametrize("name", ["MOST_QUARANTINED"])
    async def test_the_quarantine_is_bounded_by_number(self, tmp_path, clock, monkeypatch, name):
        """
        A flood of bad events keeps the newest ones only.
        """
        monkeypatch.setattr(f"router.outbox.upkeep.retention.{name}", 10)
        store = await opened(tmp_path, clock)
        await store.quarantine(
            [Quarantined(at=NOW, source="shop", code="x", message=str(number)) for number in range(25)]
        )
        await store.retention.look()
        left = (await Reader(store.directory).quarantined()).items

        assert [str(number) for number in range(24, 14, -1)] == [each.message for each in left]
        await store.close()


@settings(deadline=None)
@given(
    st.sets(st.integers(1, 40)),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 10)), max_size=4),
    st.integers(0, 45),
)
def test_unfinished_and_open_are_one(done, away, last):
    """
    What a lane calls unfinished is exactly what it calls open, in stretches, and what never ended is neither lost nor
    passed by.
    """
    row = LaneRow(id=1, name="a", type="webhook", start=0, cursor=0, held=None)
    lane = Lane(row, [], None)
    for start, length in away:
        lane.pass_by(range(start, start + length))
    lane.end(sorted(done))
    ended = done.union(*(range(start, start + length) for start, length in away))

    assert [seq for seq in range(1, 60) if seq not in ended] == [seq for seq in range(1, 60) if lane.open(seq)]
    assert [seq for seq in range(1, last + 1) if lane.open(seq)] == [
        seq for stretch in lane.unfinished(last) for seq in stretch
    ]
