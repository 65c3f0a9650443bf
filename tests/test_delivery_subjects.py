"""Subjects: events about one thing keep their order, and what a partner has closed is not sent any more."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from router.delivery import ends
from router.delivery.ends import Job
from router.delivery.engine import Delivery
from router.delivery.quota import Quota
from router.delivery.subjects import Subjects
from router.destination import Destination, Request, Response
from router.event import Event, User
from router.mocks.partner import Answer, Call, Partner, Trouble, running
from router.outbox.errors import Busy
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state import deliveries
from router.outbox.state.deliveries import Mark
from router.outbox.state.lane import Lane
from router.outbox.state.selections import Selection
from router.outcome import Closed, Delivered, Hold, Outcome, Rejected, Retry
from router.person import Person
from tests.builders import NOW, an_event, rows
from tests.stepped import SteppedClock
from tests.test_delivery import asked, settled, until

HOUR = 3_600_000  # ms
DAY = 24 * HOUR


class Clicks(Destination, tag="clicks", frozen=True, kw_only=True):
    """A partner whose clicks have a last state, and who may know nothing of one."""

    title: ClassVar[str] = "Clicks"
    home: ClassVar[str] = ""
    docs: ClassVar[str] = ""
    dedup_key: ClassVar[str] = "id"
    ordered: ClassVar[bool] = True
    events_a_month: int = msgspec.field(default=5, name="quota")

    def quota(self) -> int:
        return self.events_a_month

    def requests(self, events: Sequence[Event], now: int):
        for event in events:
            body = {"id": event.id, **event.properties}
            yield Request.json(self.endpoint("/clicks"), body, [event])

    def subject(self, event: Event) -> str | None:
        return event.properties.get("click")

    def kept_out(self, event: Event) -> bool:
        return not event.properties.get("final")

    def outcome(self, response: Response) -> Outcome:
        match response.status:
            case 200:
                final = response.request.events[0].properties.get("final")
                return Delivered(closes=Closed("it was final", 3600.0) if final else None)
            case 404:
                return Rejected("unknown click", closes=Closed("the click was unknown a moment ago", 60.0))
        return Retry("again")


class Held(Clicks, tag="held", frozen=True, kw_only=True):
    """A partner that says for how long it takes nothing."""

    def outcome(self, response: Response) -> Outcome:
        return Delivered() if response.status == 200 else Hold("quota used", until=response.at + 9 * DAY)


class Recorder(Partner):
    """Takes everything, and remembers in which order it came: (click, id)."""

    name: ClassVar[str] = "recorder"

    def __init__(self, **chassis: Any) -> None:
        super().__init__(**chassis)
        self.came: list[tuple[str, str]] = []
        self.unknown = "unknown"  # how clicks begin that it does not know

    def answer(self, call: Call) -> Answer:
        body = call.json()
        self.came.append((body.get("click", ""), body["id"]))
        known = not body.get("click", "").startswith(self.unknown)
        return Answer(200 if known else 404, {}, keys=(body["id"],))


@contextlib.asynccontextmanager
async def clicks(
    store: Outbox, clock: SteppedClock, *trouble: Trouble, **more: Any
) -> AsyncIterator[tuple[Delivery, Recorder]]:
    partner = Recorder(now=clock.now)
    partner.trouble = list(trouble)
    async with running(partner) as url:
        delivery = Delivery(store, clock)
        await delivery.apply({"clicks": Clicks(base_url=url, allow_private=True, **more)})
        try:
            yield delivery, partner
        finally:
            await delivery.stop(2.0)


def click(number: int, about: str, **properties: Any) -> Event:
    return an_event(f"e-{number:03}", properties={"click": about, **properties})


def order(partner: Recorder, about: str) -> list[str]:
    return [event_id for subject, event_id in partner.came if subject == about]


class TestOrder:
    async def test_events_about_one_click_keep_their_order_while_others_pass(self, store, clock: SteppedClock):
        """
        Eight requests may be under way, and yet the states of each click arrive in the order in which they came.
        """
        chance = random.Random(3)
        events = [click(number, chance.choice("abcde")) for number in range(200)]
        async with clicks(store, clock, Trouble(delay=0.002, share=0.5)) as (_, partner):
            await store.append(rows(*events))
            await settled(store, "clicks", delivered=200)

        for about in "abcde":
            assert [each.id for each in events if each.properties["click"] == about] == order(partner, about)

    async def test_a_retry_is_not_overtaken(self, store, clock: SteppedClock):
        """
        A state that must be tried again keeps the later states of its click waiting, and nobody else's.
        """
        first = Trouble(status=503, times=1, match='"e-001"')
        async with clicks(store, clock, first) as (_, partner):
            await store.append(rows(click(1, "a"), click(2, "a"), click(3, "a"), click(4, "b")))
            await settled(store, "clicks", delivered=1, parked=3)
            await until(lambda: len(partner.came) == 4, lambda: clock.step(1))
            await settled(store, "clicks", delivered=4, parked=0)

        assert ["e-001", "e-002", "e-003"] == order(partner, "a")
        assert ("b", "e-004") == partner.came[0]

    async def test_the_order_survives_a_restart(self, tmp_path, clock: SteppedClock):
        """
        What waits behind a retry waits behind it in the next process as well.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        async with clicks(store, clock, Trouble(status=503, match='"e-001"')):
            await store.append(rows(click(1, "a"), click(2, "a")))
            await settled(store, "clicks", parked=2)
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock)
        try:
            async with clicks(store, clock) as (_, partner):
                await until(lambda: len(partner.came) == 2, lambda: clock.step(1))
                await settled(store, "clicks", delivered=2, parked=0)
        finally:
            await store.close()

        assert ["e-001", "e-002"] == order(partner, "a")

    async def test_dropping_the_first_lets_the_next_go(self, store, clock: SteppedClock):
        """
        An operator who gives up the state that others wait for does not hold these up for good.
        """
        async with clicks(store, clock, Trouble(status=503, match='"e-001"')) as (delivery, partner):
            await store.append(rows(click(1, "a"), click(2, "a")))
            await settled(store, "clicks", parked=2)
            [(seq,)] = asked(store, "SELECT min(seq) FROM delivery")
            assert 1 == await delivery.lanes["clicks"].drop(Selection(state="waiting", seqs=(seq,)), "test")
            await until(lambda: partner.came, lambda: clock.step(1))
            await settled(store, "clicks", delivered=1, dead=1, parked=0)

        assert ["e-002"] == order(partner, "a")

    async def test_dropping_all_that_waits_reaches_those_behind(self, store, clock: SteppedClock):
        """
        What waits in memory behind an earlier event is dropped with the rest, and the ledger adds up.
        """
        async with clicks(store, clock, Trouble(hang=True)) as (delivery, _):
            await store.append(rows(*(click(number, "a") for number in range(1, 21))))
            runner = delivery.lanes["clicks"]
            await until(lambda: runner._hand.subjects.waiting == 19)
            assert 19 == await runner.drop(Selection(state="waiting"), "test")
        ledger = await Reader(store.directory).ledger()

        assert (19, 1, 0) == (
            ledger.destinations["clicks"].dead,
            ledger.destinations["clicks"].waiting,
            ledger.difference,
        )

    @given(st.lists(st.sampled_from("abc"), max_size=30), st.randoms())
    def test_one_at_a_time_and_in_order_whatever_happens(self, about, chance):
        """
        However jobs come and leave, one of a subject is in hand at most, and each subject's leave in their order.
        """
        subjects, hand, left = Subjects(), [], []
        coming = [Job(number, None, subject=subject) for number, subject in enumerate(about)]
        while coming or hand:
            if coming and (not hand or chance.random() < 0.5):
                hand += subjects.take([coming.pop(0)])
            else:
                gone = hand.pop(chance.randrange(len(hand)))
                left.append(gone)
                hand += subjects.leave([gone.seq])
            assert len({job.subject for job in hand}) == len(hand)

        assert 0 == subjects.waiting
        for subject in "abc":
            assert [n for n, each in enumerate(about) if each == subject] == [
                j.seq for j in left if j.subject == subject
            ]


class TestCloses:
    async def test_nothing_follows_a_final_state_but_a_final_state(self, store, clock: SteppedClock):
        """
        After the final state of a click no other state is sent, unless it is final itself; other clicks go on.
        """
        events = [click(1, "a"), click(2, "a", final=True), click(3, "a"), click(4, "a", final=True), click(5, "b")]
        async with clicks(store, clock) as (_, partner):
            await store.append(rows(*events))
            await settled(store, "clicks", delivered=4, dead=1)

        assert ["e-001", "e-002", "e-004"] == order(partner, "a")
        assert [("dead", "it was final")] == asked(store, "SELECT state, reason FROM delivery")

    async def test_a_close_outlives_the_process_and_ends(self, tmp_path, clock: SteppedClock):
        """
        The next process knows what was closed, for as long as it was said and no longer.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        async with clicks(store, clock):
            await store.append(rows(click(1, "a", final=True)))
            await settled(store, "clicks", delivered=1)
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock)
        try:
            async with clicks(store, clock):
                await store.append(rows(click(2, "a")))
                await settled(store, "clicks", delivered=1, dead=1)
                clock.step(3601)
                await store.append(rows(click(3, "a")))
                await settled(store, "clicks", delivered=2, dead=1)
        finally:
            await store.close()

    async def test_what_the_partner_does_not_know_is_not_asked_for_again_at_once(self, store, clock: SteppedClock):
        """
        One refusal answers for all events about the same thing, until it is worth asking again.
        """
        async with clicks(store, clock) as (_, partner):
            await store.append(rows(*(click(number, "unknown") for number in range(10))))
            await settled(store, "clicks", dead=10)
            assert 1 == len(partner.came)
            clock.step(61)
            await store.append(rows(click(11, "unknown")))
            await settled(store, "clicks", dead=11)

        assert 2 == len(partner.came)

    async def test_an_operators_retry_asks_anew(self, store, clock: SteppedClock):
        """
        What was closed because of a refusal is asked for again at once when an operator has mended it.
        """
        async with clicks(store, clock) as (delivery, partner):
            await store.append(rows(click(1, "unknown")))
            await settled(store, "clicks", dead=1)
            partner.unknown = "nobody"
            assert 1 == await delivery.lanes["clicks"].retry(Selection(state="dead"), "test")
            await settled(store, "clicks", dead=0, delivered=1)

    async def test_what_was_is_not_kept_in_words(self, store, clock: SteppedClock):
        """
        The outbox keeps digests of subjects, and forgets those whose time is over.
        """
        async with clicks(store, clock):
            await store.append(rows(click(1, "click-of-jane", final=True)))
            await settled(store, "clicks", delivered=1)
            [(kept,)] = asked(store, "SELECT subject FROM closed")
            clock.step(3601)
            await store.append(rows(click(2, "other", final=True)))
            await settled(store, "clicks", delivered=2)

        assert "jane" not in kept
        assert 1 == len(asked(store, "SELECT subject FROM closed"))


class TestABusyOutbox:
    @pytest.mark.parametrize("asked_of", ["closed", "behind"])
    async def test_costs_a_moment_and_no_event(self, tmp_path, clock: SteppedClock, monkeypatch, asked_of):
        """
        Where the outbox is busy just when a lane asks it about events in hand, these are sent a moment later.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        faults = [Busy("later"), Busy("later")]
        really = getattr(store, asked_of)

        async def busy(*given: Any) -> Any:
            if faults:
                raise faults.pop()
            return await really(*given)

        monkeypatch.setattr(store, asked_of, busy)
        async with clicks(store, clock, Trouble(status=503, times=1)) as (_, partner):
            await store.append(rows(click(1, "a"), click(2, "a")))
            await until(lambda: len(partner.came) == 2, lambda: clock.step(1))
            await settled(store, "clicks", delivered=2, parked=0)
        await store.close()

        assert not faults


class TestQuota:
    async def test_what_is_used_of_a_month_is_counted_and_told(self, store, clock: SteppedClock):
        """
        Deliveries count against the month they were taken in; at four of five the operator is told, once.
        """
        with capture_logs() as told:
            async with clicks(store, clock):
                await store.append(rows(*(click(number, str(number)) for number in range(5))))
                await settled(store, "clicks", delivered=5)
        lane = (await Reader(store.directory).ledger()).destinations["clicks"]

        assert 1 == sum(each["event"] == "quota_near" for each in told)
        assert (5, 5, "2026-11") == (lane.quota.used, lane.quota.limit, lane.quota.month)

    @pytest.mark.parametrize("steps", [[1] * 10, [8, 1, 1], [10], [7, 3]])
    async def test_the_operator_is_told_once(self, store, steps):
        """
        However the count gets to four fifths of the quota, and beyond, it is told exactly once.
        """
        quota = Quota(store, await store.lane("clicks", "clicks", 10), 10)
        await quota.begin(NOW)
        with capture_logs() as told:
            for step in steps:
                await quota.count([Mark(seqs=range(step), state="delivered", at=NOW)])

        assert 1 == sum(each["event"] == "quota_near" for each in told)

    async def test_told_at_the_start_of_a_lane(self, tmp_path, clock: SteppedClock):
        """
        A start beyond the mark tells it once, be the quota a smaller one now or the log of the last process gone.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        try:
            with structlog.testing.capture_logs() as before:
                async with clicks(store, clock, events_a_month=100):
                    await store.append(rows(*(click(number, str(number)) for number in range(3))))
                    await settled(store, "clicks", delivered=3)
            with structlog.testing.capture_logs() as after:
                async with clicks(store, clock, events_a_month=3):
                    await store.append(rows(click(4, "4")))
                    await settled(store, "clicks", delivered=4)
        finally:
            await store.close()

        assert [] == [each for each in before if each["event"] == "quota_near"]
        assert ["3 of 3 events of this month are used"] == [
            each["reason"] for each in after if each["event"] == "quota_near"
        ]


async def test_a_changed_lane_looks_at_once(store, clock: SteppedClock):
    """
    A lane that its partner holds for days asks again when its settings change: the plan may be another one.
    """
    partner = Recorder(now=clock.now)
    partner.trouble = [Trouble(status=503, retry_after="9", times=1)]
    async with running(partner) as url:
        delivery = Delivery(store, clock)
        settings = Held(base_url=url, allow_private=True)
        try:
            await delivery.apply({"clicks": settings})
            await store.append(rows(click(1, "a")))
            await until(lambda: store.lanes["clicks"].held)
            await delivery.apply({"clicks": msgspec.structs.replace(settings, concurrency=2)})
            await settled(store, "clicks", delivered=1)
        finally:
            await delivery.stop(2.0)

    assert store.lanes["clicks"].held is None


@pytest.mark.parametrize(
    ("age", "window", "words"),
    [
        (11 * DAY + 5, 7 * DAY, "11 d old, at most 7 d"),
        (7 * DAY + 3 * HOUR + 1, 7 * DAY, "171 h old, at most 7 d"),
        (3 * HOUR, 90 * 60_000, "3 h old, at most 90 min"),
        (7 * DAY + 1, 7 * DAY, "604800001 ms old, at most 7 d"),
    ],
    ids=["days", "hours", "another unit", "hardly"],
)
def test_how_late_it_is(age: int, window: int, words: str):
    """
    What is too old says how old, in the largest unit that shows it, and how old it may be.
    """
    assert f"expired: {words}" == ends.expired(age, window)


class TestRaces:
    async def test_a_due_time_that_is_settled_during_a_look_is_kept(self, store, clock: SteppedClock, monkeypatch):
        """
        A delivery that fails once more while its lane looks what is due is tried again all the same.
        """
        async with clicks(store, clock, Trouble(status=503, times=2)) as (delivery, partner):
            await store.append(rows(click(1, "a"), click(5, "b")))
            await settled(store, "clicks", parked=2)
            partner.trouble = [Trouble(status=503, times=1, delay=0.02, match='"e-001"')]
            due, settle = deliveries.due, deliveries.settle
            monkeypatch.setattr(deliveries, "due", lambda *given: (time.sleep(0.005), due(*given))[1])
            monkeypatch.setattr(deliveries, "settle", lambda *given: (time.sleep(0.03), settle(*given))[1])
            clock.step(5)
            await until(lambda: asked(store, "SELECT delivered, parked FROM lane") == [(1, 1)] and not partner.trouble)
            await until(lambda: delivery.lanes["clicks"]._settling.waiting == 0)
            monkeypatch.undo()
            await until(lambda: asked(store, "SELECT delivered FROM lane") == [(2,)], lambda: clock.step(1))

    async def test_dropping_another_event_changes_no_order(self, store, clock: SteppedClock, monkeypatch):
        """
        What an operator gives up elsewhere moves nothing that waits behind an earlier state, not even while events are read.
        """
        async with clicks(store, clock, Trouble(delay=0.3, match='"e-001"')) as (delivery, partner):
            runner, read = delivery.lanes["clicks"], store.read
            await store.append(rows(click(1, "a"), click(2, "a"), click(3, "a"), click(9, "b")))
            await until(lambda: runner._hand.subjects.waiting == 2)
            reading = asyncio.Event()

            async def slow(after: int, limit: int, lane: Lane, **how: int):
                found = await read(after, limit, lane, **how)
                reading.set()
                await asyncio.sleep(0.1)  # a segment on a slow disk
                return found

            monkeypatch.setattr(store, "read", slow)
            await store.append(rows(click(4, "a")))
            await reading.wait()
            await runner.drop(Selection(state="waiting", seqs=(4,)), "test")
            await until(lambda: len(order(partner, "a")) == 4)

            assert ["e-001", "e-002", "e-003", "e-004"] == order(partner, "a")

    async def test_a_dead_state_that_is_tried_again_is_not_overtaken(self, store, clock: SteppedClock):
        """
        What an operator brings back keeps its place before the later states of its click.
        """
        async with clicks(store, clock, Trouble(status=404, times=1, match='"e-001"')) as (delivery, partner):
            await store.append(rows(click(1, "a")))
            await settled(store, "clicks", dead=1)
            clock.step(61)
            partner.trouble = [Trouble(status=503, times=1, match='"e-001"')]
            assert 1 == await delivery.lanes["clicks"].retry(Selection(state="dead"), "test")
            await until(lambda: not partner.trouble)
            await settled(store, "clicks", dead=0, parked=1)
            await store.append(rows(click(2, "a", final=True)))
            await settled(store, "clicks", parked=2)
            await until(lambda: asked(store, "SELECT parked FROM lane") == [(0,)], lambda: clock.step(1))

            assert ["e-001", "e-002"] == order(partner, "a")

    async def test_many_unknown_subjects_are_no_wrong_address(self, store, clock: SteppedClock):
        """
        A partner that does not know one click after the other holds no lane: what it knows is delivered.
        """
        async with clicks(store, clock) as (_, partner):
            events = [click(number, f"u-{number}") for number in range(20)]
            partner.unknown = "u-"
            await store.append(rows(*events, click(99, "known")))
            await settled(store, "clicks", dead=20, delivered=1)


async def test_who_is_forgotten_while_a_subject_is_looked_up_is_not_sent(
    store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
):
    """
    An erasure counts for what is on its way from the log to the partner, wherever it is.
    """
    asking = store.closed

    async def closed(lane: Any, about: Any, now: int) -> Any:
        if not store.erasures:
            await store.erase([Person(anonymous_id="jane")], "test")
        return await asking(lane, about, now)

    monkeypatch.setattr(store, "closed", closed)
    async with clicks(store, clock) as (_, partner):
        hers = msgspec.structs.replace(click(1, "c-1"), user=User(anonymous_id="jane"))
        await store.append(rows(hers, click(2, "c-2")))
        await settled(store, "clicks", delivered=1)

    assert store.erasures
    assert ["e-002"] == [event_id for _, event_id in partner.came]
