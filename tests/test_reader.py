"""Reads for people: what they show is what was written, beside a running owner and on the files alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import aiosqlite
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from destinations.webhook import Webhook
from router import route
from router.cli.ledger import _held
from router.event import Clear, Digests, User
from router.identifiers import sha256
from router.outbox.errors import OutboxError
from router.outbox.outbox import Outbox
from router.outbox.reads import account, snapshots
from router.outbox.reads.reader import Reader
from router.outbox.reads.snapshots import ReadTooLong
from router.outbox.reads.views import Found, instant
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.registers import Quarantined
from router.outbox.state.selections import Selection
from router.outbox.upkeep import backup
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock


@pytest.fixture
def reader(store: Outbox) -> Reader:
    return Reader(store.directory)


def delivered(*seqs: int, **fields: Any) -> Mark:
    return Mark(
        **{"seqs": seqs, "state": "delivered", "at": NOW + 40, "began": NOW, "attempts": 1, "status": 200, **fields}
    )


def waiting(*seqs: int, **fields: Any) -> Mark:
    return Mark(
        **{
            "seqs": seqs,
            "state": "waiting",
            "at": NOW,
            "attempts": 1,
            "due": NOW + 1000,
            "reason": "HTTP 503",
            **fields,
        }
    )


def dead(*seqs: int, **fields: Any) -> Mark:
    return Mark(
        **{"seqs": seqs, "state": "dead", "at": NOW, "attempts": 1, "status": 400, "reason": "HTTP 400", **fields}
    )


def filtered(*seqs: int) -> Mark:
    return Mark(seqs=seqs, state="filtered", at=NOW, reason='consent "marketing" was not granted')


class TestLedger:
    async def test_it_has_the_documented_keys(self, store: Outbox, reader: Reader):
        """
        The keys of the ledger are a contract for programs: nothing more, nothing less.
        """
        await store.lane("snap", "snap")

        document = msgspec.to_builtins(await reader.ledger())
        assert ["received", "duplicate", "rejected", "accepted", "destinations", "difference"] == list(document)
        states = ["delivered", "waiting", "filtered", "dead", "erased", "held", "hold_reason", "hold_until"]
        assert states == list(document["destinations"]["snap"])

    async def test_what_came_in_is_repeated_refused_or_accepted(self, store: Outbox, reader: Reader):
        """
        Received is the sum of duplicates, refusals and accepted events.
        """
        await store.append(many(3))
        await store.append(many(2))
        await store.quarantine([Quarantined(at=NOW, source="shop", code="missing", message="send a name")])

        ledger = await reader.ledger()
        assert (6, 2, 1, 3, 0) == (
            ledger.received,
            ledger.duplicate,
            ledger.rejected,
            ledger.accepted,
            ledger.difference,
        )

    async def test_duplicates_of_every_segment_count(self, tmp_path: Path, clock: SteppedClock):
        """
        The sum goes over all segments of the log, sealed ones too, also when it is asked for twice.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        for _ in range(2):
            for number in range(1, 6):
                await store.append(rows(an_event(f"e-{number}")))
        reader = Reader(store.directory)

        ledger = await reader.ledger()
        assert (10, 5, 5) == (ledger.received, ledger.duplicate, ledger.accepted)
        await store.append(rows(an_event("e-5")))
        assert 11 == (await reader.ledger()).received
        await store.close()
        assert 11 == (await reader.ledger()).received

    async def test_ends_out_of_order_are_not_waiting(self, store: Outbox, reader: Reader):
        """
        An event that ended before an earlier one is counted once.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(6))
        await store.settle(lane, [delivered(2, 3), dead(5), waiting(6)])

        snap = (await reader.ledger()).destinations["snap"]
        assert (2, 3, 0, 1) == (snap.delivered, snap.waiting, snap.filtered, snap.dead)
        assert 0 == (await reader.ledger()).difference

    async def test_a_lost_end_is_a_difference(self, store: Outbox, reader: Reader):
        """
        A counter that is wrong by two shows as a difference of two, with its sign.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(4))
        await store.settle(lane, [delivered(1, 2, 3)])
        await store._state.write(lambda unit: unit.execute("UPDATE lane SET delivered = delivered - 2"))

        assert 2 == (await reader.ledger()).difference
        wrong = await reader.recount()
        assert [("snap", "delivered", 3, 1)] == [(each.where, each.what, each.counted, each.kept) for each in wrong]

    async def test_a_lost_end_of_the_log_is_a_difference(self, store: Outbox, reader: Reader):
        """
        Where the state knows of more than the log has left, the ledger says how many are gone, and nothing waits.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(6))
        await store.settle(lane, [delivered(1, 2, 3, 6)])
        log = sqlite3.connect(store.segments.newest.path(store.directory), isolation_level=None)
        log.execute("DELETE FROM event WHERE seq > 1")
        log.close()

        ledger = await reader.ledger()
        assert (1, 0, -3) == (ledger.accepted, ledger.destinations["snap"].waiting, ledger.difference)

    async def test_a_hold_shows_its_reason_and_end(self, store: Outbox, reader: Reader):
        """
        A held lane says why, and until when where the partner said so; its backlog is waiting.
        """
        lane = await store.lane("linktrace", "linktrace")
        await store.append(many(3))
        await store.hold(lane, Held(reason="monthly quota used", by="partner", at=NOW, until=NOW + 60_000))

        linktrace = (await reader.ledger()).destinations["linktrace"]
        assert (True, "monthly quota used", 3) == (linktrace.held, linktrace.hold_reason, linktrace.waiting)
        assert instant(NOW + 60_000) == linktrace.hold_until

    async def test_a_recount_agrees(self, store: Outbox, reader: Reader):
        """
        Counting every row again finds nothing where nothing is wrong.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(9))
        await store.settle(lane, [delivered(1, 2), waiting(3), filtered(5, 6), dead(8)])
        await store.settle(lane, [dead(3, parked=True, attempts=2)])
        await store.revive(lane, Selection(state="dead", seqs=[8]), "test")

        assert [] == await reader.recount()

    async def test_a_row_that_vanished_is_found(self, store: Outbox, reader: Reader):
        """
        A delivery without any record is found by the recount, twice: its state's sum and the cursor's.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(3))
        await store.settle(lane, [delivered(1), dead(2), delivered(3)])
        await store._state.write(lambda unit: unit.execute("DELETE FROM delivery"))

        assert ["dead", "events behind the cursor"] == [each.what for each in await reader.recount()]


class Model:
    """What a lane must say, as a plain dict from sequence number to state."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.states: dict[int, str] = {}
        self.parked: set[int] = set()

    def grow(self, last: int) -> None:
        for seq in range(self.start + 1, last + 1):
            self.states.setdefault(seq, "waiting")

    def counts(self) -> dict[str, int]:
        states = list(self.states.values())
        return {name: states.count(name) for name in ("delivered", "waiting", "filtered", "dead")}


acts = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("lane"), st.sampled_from(["a", "b"])),
        st.tuples(
            st.just("settle"),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["delivered", "filtered", "dead", "waiting"]),
            st.sets(st.integers(0, 30), min_size=1, max_size=6),
        ),
        st.tuples(st.just("revive"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("drop"), st.sampled_from(["a", "b"])),
    ),
    max_size=25,
)


class TestLaw:
    @settings(max_examples=40, deadline=None)
    @given(acts)
    def test_the_ledger_and_the_pages_are_a_plain_dict(self, sequence: list[Any]):
        """
        Whatever is appended, settled in whatever order, tried again or given up: the ledger's sums, every page of
        deliveries and every story say the same as a dict, and the difference is 0.
        """
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(self.play(Path(directory) / "outbox", sequence))

    async def play(self, directory: Path, sequence: list[Any]) -> None:
        store = await Outbox.open(directory, SteppedClock(), segment_events=7)
        models: dict[str, Model] = {}
        try:
            for act, *details in sequence:
                await self.act(store, models, act, details)
            await self.compare(Reader(directory), models, store.last)
        finally:
            await store.close()
        await self.compare(Reader(directory), models, store.last)

    async def act(self, store: Outbox, models: dict[str, Model], act: str, details: list[Any]) -> None:
        if act == "append":
            await store.append(many(details[0], start=store.last + 1))
            for model in models.values():
                model.grow(store.last)
        elif act == "lane" and details[0] not in models:
            models[details[0]] = Model(store.last)
            await store.lane(details[0], "webhook")
        elif details[0] in models:
            await self.act_on(store, models[details[0]], store.lanes[details[0]], act, details[1:])

    async def act_on(self, store: Outbox, model: Model, lane: Any, act: str, details: list[Any]) -> None:
        if act == "settle":
            await self.settle(store, model, lane, *details)
        elif act == "revive":
            await store.revive(lane, Selection(state="dead"), "test")
            revived = {seq for seq, state in model.states.items() if state == "dead"}
            model.parked |= revived
            model.states.update(dict.fromkeys(revived, "waiting"))
        elif act == "drop":
            await store.drop(lane, Selection(state="waiting"), [], "test")
            model.states.update(dict.fromkeys(model.parked, "dead"))
            model.parked.clear()

    async def settle(self, store: Outbox, model: Model, lane: Any, state: str, chosen: set[int]) -> None:
        open_ones = [seq for seq, kept in model.states.items() if kept == "waiting"]
        seqs = sorted({open_ones[number % len(open_ones)] for number in chosen} if open_ones else ())
        for parked in (False, True):
            part = [seq for seq in seqs if (seq in model.parked) == parked]
            if part:
                mark = Mark(seqs=part, state=state, at=NOW, parked=parked, attempts=2 if parked else 1, due=NOW)
                await store.settle(lane, [mark])
        for seq in seqs:
            model.states[seq] = state
            model.parked.discard(seq)
            if state == "waiting":
                model.parked.add(seq)

    async def compare(self, reader: Reader, models: dict[str, Model], last: int) -> None:
        ledger = await reader.ledger()
        assert (last, 0) == (ledger.accepted, ledger.difference)
        for name, model in models.items():
            kept = ledger.destinations[name]
            assert model.counts() == {state: getattr(kept, state) for state in model.counts()}
        assert [] == await reader.recount()
        for state in (None, "waiting", "delivered", "filtered", "dead"):
            expected = sorted(
                (-seq, order, kept)
                for order, model in enumerate(models.values())
                for seq, kept in model.states.items()
                if state in {None, kept}
            )
            names = list(models)
            found = [(-each.seq, names.index(each.to), each.state) for each in await every(reader, state)]
            assert expected == found
        for seq in range(1, last + 1):
            story = await reader.story(seq)
            assert story is not None
            assert {name: model.states.get(seq, "earlier") for name, model in models.items()} == {
                each.to: each.state for each in story.destinations
            }


async def every(reader: Reader, state: Any, limit: int = 3) -> list[Any]:
    """All pages, one after the other."""
    items: list[Any] = []
    after = None
    while True:
        page = await reader.deliveries(state=state, limit=limit, after=after)
        items += page.items
        if page.next is None:
            return items
        after = page.next


class TestFind:
    async def test_open_and_sealed_segments_are_searched(self, tmp_path: Path, clock: SteppedClock):
        """
        An id is found wherever it lies, for every source that sent it, newest first; "#2" names the second event.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        await store.append(rows(an_event("a"), an_event("b")))
        await store.append(rows(an_event("c")))
        await store.append(rows(an_event("a", source="blog")))
        reader = Reader(store.directory)

        assert [Found(4, "blog"), Found(1, "shop")] == await reader.find("a")
        assert [Found(2, "shop")] == await reader.find("#2")
        assert [] == await reader.find("#9")
        assert [] == await reader.find("nobody")
        await store.close()
        assert [Found(4, "blog"), Found(1, "shop")] == await reader.find("a")

    async def test_many_are_found_at_once(self, store: Outbox, reader: Reader):
        """
        A thousand ids are a thousand events: no page's limit cuts a selection short.
        """
        await store.append(many(1000))

        found = await reader.find_all([f"e-{number}" for number in range(1, 1001)])
        assert set(range(1, 1001)) == {each.seq for events in found.values() for each in events}

    async def test_an_id_that_became_a_digest_is_found_as_it_was_sent(self, store: Outbox, reader: Reader):
        """
        An event whose id is an e-mail address is kept under its digest, and asked for by either.
        """
        digest = sha256("jane@example.com")
        await store.append(rows(an_event(digest)))
        asked = [" Jane@Example.com", digest]

        assert {each: [Found(1, "shop")] for each in asked} == await reader.find_all(asked)

    async def test_recent_events_go_on_where_the_page_ended(self, tmp_path: Path, clock: SteppedClock):
        """
        Pages of events follow each other over the borders of segments without a gap.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        for number in range(1, 8):
            await store.append(rows(an_event(f"e-{number}")))
        reader, seen, after = Reader(store.directory), [], None
        while True:
            page = await reader.recent(3, after)
            seen += [each.seq for each in page.items]
            if page.next is None:
                break
            after = page.next
        await store.close()

        assert [7, 6, 5, 4, 3, 2, 1] == seen


class TestStory:
    async def test_a_first_try_is_told_from_its_run(self, store: Outbox, reader: Reader):
        """
        A delivery that needed one request shows that request: when, how long, what the partner said.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(2))
        await store.settle(lane, [delivered(1, 2)])

        story = await reader.story(2)
        assert story is not None
        (chapter,) = story.destinations
        (attempt,) = chapter.tries
        assert ("delivered", 1, 200) == (chapter.state, chapter.attempts, chapter.status)
        assert (instant(NOW), 40, "delivered", 200) == (
            attempt.began,
            attempt.duration_ms,
            attempt.outcome,
            attempt.status,
        )

    async def test_every_attempt_is_told(self, store: Outbox, reader: Reader):
        """
        Attempts come in order, with the partner's words, and only those that carried this event.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(3))
        first = Attempt(
            seqs=[1, 3], began=NOW, at=NOW + 100, outcome="retry", status=429, reason="HTTP 429", answer="slow down"
        )
        other = Attempt(seqs=[2], began=NOW + 200, at=NOW + 300, outcome="retry", status=503)
        second = Attempt(seqs=[3], began=NOW + 2000, at=NOW + 2118, outcome="delivered", status=200)
        await store.settle(lane, [waiting(1, 3)], [first])
        await store.settle(lane, [waiting(2)], [other])
        await store.settle(lane, [delivered(3, parked=True, attempts=2)], [second])

        story = await reader.story(3)
        assert story is not None
        (chapter,) = story.destinations
        assert [(429, 100, 2, "slow down"), (200, 118, 1, None)] == [
            (each.status, each.duration_ms, each.events, each.answer) for each in chapter.tries
        ]
        assert ("delivered", 2) == (chapter.state, chapter.attempts)

    async def test_waiting_says_when_and_why(self, store: Outbox, reader: Reader):
        """
        A waiting delivery names its next try, and the reason where its whole lane is held.
        """
        lane = await store.lane("snap", "snap")
        await store.append(many(2))
        await store.settle(lane, [waiting(1)])
        await store.hold(lane, Held(reason="token refused", by="partner", at=NOW))

        for seq, due in ((1, instant(NOW + 1000)), (2, None)):
            story = await reader.story(seq)
            assert story is not None
            (chapter,) = story.destinations
            assert ("waiting", due, "token refused") == (chapter.state, chapter.due, chapter.hold_reason)

    async def test_an_event_from_before_the_destination_is_none_of_its_business(self, store: Outbox, reader: Reader):
        """
        A destination that was added later says so, instead of showing the event as lost or waiting.
        """
        await store.append(many(1))
        await store.lane("snap", "snap")

        story = await reader.story(1)
        assert story is not None
        assert ["earlier"] == [each.state for each in story.destinations]

    async def test_what_is_held_apart_is_not_judged(self, store: Outbox, reader: Reader):
        """
        A condition on what the event has in clear, which no reader opens, is no word against what was done.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(rows(an_event("e-1", clear=Clear(country="FR"))))
        await store.settle(lane, [delivered(1)])

        for match, expected in (({"clear.country": "FR"}, []), ({"id": "e-1"}, [True])):
            rule = route.compile("hook", Webhook(url="https://h.example/", secrets=(), match=match))
            (chapter,) = (await reader.story(1, {"hook": rule})).destinations
            assert expected == [check.ok for check in chapter.checks if check.name == "match"]

    async def test_the_configuration_explains_itself(self, store: Outbox, reader: Reader):
        """
        With a rule, every check of the routing is told in words.
        """
        await store.lane("hook", "webhook")
        await store.append(many(1))
        rule = route.compile("hook", Webhook(url="https://h.example/", secrets=(), consent=("marketing",)))

        story = await reader.story(1, {"hook": rule})
        assert story is not None
        (chapter,) = story.destinations
        refused = [check.words for check in chapter.checks if not check.ok]
        assert ['consent "marketing" is unknown: the event says nothing of consent'] == refused

    async def test_nothing_personal_is_shown(self, store: Outbox, reader: Reader):
        """
        Digests appear by name, what is encrypted appears not at all.
        """
        digest = "a" * 64
        event = an_event(user=User(digests=Digests(email=digest)), clear=Clear(ip="203.0.113.7"))
        await store.append(rows(event))

        story = await reader.story(1)
        assert story is not None
        assert (("email",), True) == (story.digests, story.apart)
        text = msgspec.json.encode(story).decode()
        assert digest not in text
        assert "203.0.113.7" not in text

    async def test_a_damaged_event_is_told_as_such(self, store: Outbox, reader: Reader):
        """
        Where the stored bytes do not add up, the story says so and shows none of them.
        """
        await store.append(many(1))
        await store.journal._writer.read(lambda unit: unit.execute("UPDATE event SET crc = crc + 1"))

        story = await reader.story(1)
        assert story is not None
        assert (True, {}) == (story.damaged, story.fields)

    async def test_an_unknown_number_has_no_story(self, store: Outbox, reader: Reader):
        """
        A number that was never given is None, not an error.
        """
        assert None is await reader.story(1)
        assert None is await reader.story(0)


class TestOtherPages:
    async def test_a_refused_event_is_listed_and_shown(self, store: Outbox, reader: Reader):
        """
        The list names the reason; the item itself is shown by its own read.
        """
        await store.quarantine(
            [Quarantined(at=NOW, source="shop", code="missing", message="send a name", event_id="q-1", item="{}")]
        )

        (listed,) = (await reader.quarantined()).items
        assert ("missing", None) == (listed.code, listed.item)
        shown = await reader.quarantine_item(listed.id)
        assert shown is not None
        assert "{}" == shown.item
        assert [listed] == await reader.quarantined_as("q-1")
        assert None is await reader.quarantine_item(99)

    async def test_acts_and_configurations_are_listed(self, store: Outbox, reader: Reader):
        """
        Newest first: who did what, and under which configuration decisions were made.
        """
        await store.configure("d1", "one")
        await store.configure("d2", "two")
        await store.audit("anna", "hold", "snap")
        await store.audit("bert", "resume", "snap")

        assert ["bert", "anna"] == [each.who for each in (await reader.audit()).items]
        page = await reader.audit(limit=1)
        assert ["anna"] == [each.who for each in (await reader.audit(limit=1, after=page.next)).items]
        assert [2, 1] == [each.version for each in await reader.configs()]

    async def test_lanes_say_how_old_their_backlog_is(self, store: Outbox, reader: Reader):
        """
        The age is that of the oldest event that waits, be it for its first try or another.
        """
        lane = await store.lane("snap", "snap")
        await store.append(rows(*(an_event(f"e-{n}", received=NOW + n) for n in range(1, 5))))
        await store.settle(lane, [delivered(1), waiting(2), delivered(3)])

        (view,) = await reader.lanes()
        assert (instant(NOW + 2), 2, 1, instant(NOW + 1000)) == (
            view.oldest,
            view.waiting,
            view.retrying,
            view.next_due,
        )


class TestFiles:
    async def test_no_outbox_is_said_with_a_remedy(self, tmp_path: Path):
        """
        A directory without an outbox is a fault that names what to check, and nothing is made there.
        """
        with pytest.raises(OutboxError, match="check \\[outbox\\] path"):
            await Reader(tmp_path / "nowhere").ledger()
        assert not (tmp_path / "nowhere").exists()

    async def test_a_newer_file_is_refused(self, store: Outbox, reader: Reader):
        """
        A file of a newer program is not guessed at.
        """
        await store._state.read(lambda unit: unit.execute("PRAGMA user_version = 999"))

        with pytest.raises(OutboxError, match="newer"):
            await reader.ledger()

    async def test_a_long_read_is_cut_off(self, store: Outbox, reader: Reader, monkeypatch: pytest.MonkeyPatch):
        """
        A read that takes longer than its limit ends with what to do, and leaves no snapshot behind.
        """
        await store.append(many(2000))
        monkeypatch.setattr(snapshots, "_STEPS", 10)
        connection = snapshots._opened(store.directory / "log" / "00000001.db", 0.0)

        with pytest.raises(ReadTooLong, match="narrow it"):
            async with connection as opened:
                await opened.execute_fetchall("SELECT sum(crc) FROM event AS a, event AS b")

    async def test_a_reader_cannot_write(self, store: Outbox):
        """
        The connection itself refuses: no page can change the outbox by mistake.
        """
        with pytest.raises(OutboxError) as caught:
            async with snapshots._opened(store.directory / "state.db", 2.0) as opened:
                await opened.execute("DELETE FROM lane")
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)

    @pytest.mark.parametrize("disk", ["read-only", "full"])
    async def test_where_nothing_can_be_written_it_is_read(
        self, tmp_path: Path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, disk: str
    ):
        """
        On a read-only medium, or a disk without room, the files are read and copied without one being made beside them.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        await store.append(many(2))
        await store.close()
        if disk == "full":
            full = shutil.disk_usage(tmp_path)._replace(free=0)
            monkeypatch.setattr(snapshots.shutil, "disk_usage", lambda _: full)
        else:  # the tests may run as root, who may write anywhere
            monkeypatch.setattr(snapshots.os, "access", lambda _, mode: mode == os.R_OK)

        assert 2 == (await Reader(store.directory).ledger()).accepted
        assert 2 == backup.copy(store.directory, tmp_path / "copy").last
        assert ["in-hand", "lock", "log", "state.db"] == sorted(each.name for each in store.directory.iterdir())

    async def test_a_path_with_signs_is_a_path(self, tmp_path: Path, clock: SteppedClock):
        """
        A directory named with ?, % and # is read like any other.
        """
        store = await Outbox.open(tmp_path / "a plain name", clock)
        await store.append(many(1))
        await store.close()
        odd = (tmp_path / "a plain name").rename(tmp_path / "50%25 #1 a?mode=rw")

        assert 1 == (await Reader(odd).ledger()).accepted


class TestTrouble:
    async def test_an_event_behind_a_failing_partner_says_so(self, store: Outbox, clock: SteppedClock):
        """
        An event that was not tried, because the breaker is open, shows the fault that it waits behind, and so does the
        ledger; once the partner takes events again neither does.
        """
        lane = await store.lane("hook", "webhook")
        await store.append(many(3))
        now = clock.now()
        fault = Attempt(seqs=[1], began=now, at=now, outcome="retry", status=500, reason="HTTP 500")
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now + 1000)], [fault])
        reader = Reader(store.directory)
        waiting = (await reader.story(3)).destinations[0]
        failing = (await reader.ledger()).destinations["hook"]
        await store.settle(lane, [Mark(seqs=[2], state="delivered", at=now + 5000, began=now, attempts=1)])
        later = (await reader.story(3)).destinations[0]
        taking = (await reader.ledger()).destinations["hook"]

        assert ("waiting", True) == (waiting.state, "HTTP 500" in (waiting.reason or ""))
        assert ("waiting", None) == (later.state, later.reason)
        assert ["no, but failing: HTTP 500", ""] == [_held(failing), _held(taking)]

    async def test_the_last_answer_costs_as_little_among_many(self, store: Outbox, clock: SteppedClock):
        """
        The page of sums and every look at the metrics ask for it: it is found in as many steps among five thousand attempts
        as among five.
        """
        lane, now = await store.lane("hook", "webhook"), clock.now()
        steps = []
        for attempts in (5, 5000):
            faults = [Attempt(seqs=[1], began=now, at=now, outcome="retry", status=500, reason="HTTP 500")] * attempts
            await store.settle(lane, [], faults)
            async with aiosqlite.connect(store.directory / "state.db") as state:
                seen: list[None] = []
                await state.set_progress_handler(lambda seen=seen: seen.append(None), 1)  # type: ignore[misc]
                assert await account.trouble(state, lane.id) == "HTTP 500"
                steps.append(len(seen))

        assert steps[0] == steps[1]
