"""The delivery engine against the shipped fake partners, over real HTTP, with a stepped clock."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from destinations.ipsnare import IpSnare
from destinations.linktrace import LinkTrace
from destinations.snap import Snap
from destinations.webhook import Webhook
from router import mocks
from router.delivery import lane
from router.delivery.batching import GATHER
from router.delivery.engine import Delivery
from router.destination import Destination
from router.event import Digests, Event, Money, Page, User
from router.mocks.partner import Partner, Trouble, running
from router.outbox.disk.writer import Unit
from router.outbox.errors import DiskFull
from router.outbox.outbox import Outbox
from router.outbox.state.cursors import Held
from router.outbox.state.lane import Lane
from router.outbox.state.selections import Selection
from router.secret import Secret
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock

EMAIL = "b4c9a289323b21a01c3e940f150eb9b8c542587f1abfd8f0e1cc1ffc5e475514"
SIGNING = Secret("whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
Partners = Callable[..., Any]


def settings(kind: str, url: str, **more: Any) -> Destination:
    common = {"base_url": url, "allow_private": True, **more}
    match kind:
        case "webhook":
            return Webhook(**{"url": f"{url}/hook", "secrets": (SIGNING,), **common, "base_url": None})
        case "linktrace":
            return LinkTrace(api_key=Secret("key-of-linktrace"), **common)
        case "ipsnare":
            return IpSnare(api_key=Secret("key-of-ipsnare"), **common)
        case _:
            return Snap(pixel_id="11111111-2222-3333-4444-555555555555", access_token=Secret("token-of-snap"), **common)


@contextlib.asynccontextmanager
async def lanes(
    store: Outbox, clock: SteppedClock, **wanted: Any
) -> AsyncIterator[tuple[Delivery, dict[str, Partner]]]:
    """Run destinations by name, each with a fake partner of its own: ``hook={"kind": "webhook", ...}``."""
    async with contextlib.AsyncExitStack() as stack:
        partners: dict[str, Partner] = {}
        destinations: dict[str, Destination] = {}
        for name, more in wanted.items():
            kind = more.pop("kind")
            partner = mocks.PARTNERS[kind](now=clock.now, **more.pop("partner", {}))
            partner.trouble = list(more.pop("trouble", ()))
            partners[name] = partner
            destinations[name] = settings(kind, await stack.enter_async_context(running(partner)), **more)
        delivery = Delivery(store, clock)
        await delivery.apply(destinations)
        try:
            yield delivery, partners
        finally:
            await delivery.stop(2.0)


def purchase(event_id: str, **fields: Any) -> Event:
    return an_event(
        event_id,
        **{
            "name": "purchase",
            "user": User(digests=Digests(email=EMAIL)),
            "page": Page(url="https://shop.example/thanks"),
            "money": Money(value="10.50", currency="EUR", order_id=event_id),
            **fields,
        },
    )


async def settled(store: Outbox, name: str, **expected: int) -> dict[str, int]:
    """Wait until the counters of a lane are as expected, and return them."""
    found: dict[str, int] = {}

    def reached() -> bool:
        connection = sqlite3.connect(f"file:{store.directory / 'state.db'}?mode=ro", uri=True)
        row = connection.execute(
            "SELECT delivered, duplicate, filtered, dead, parked FROM lane WHERE name = ?", (name,)
        ).fetchone()
        connection.close()
        found.update(zip(("delivered", "duplicate", "filtered", "dead", "parked"), row, strict=True))
        return all(found[key] == value for key, value in expected.items())

    try:
        await until(reached)
    except TimeoutError:
        raise AssertionError(f"{name}: expected {expected}, found {found}") from None
    return found


async def until(reached: Callable[[], object], stepping: Callable[[], None] = lambda: None) -> None:
    """Poll the outside world, for at most 10 s, taking a step of the clock between two looks."""
    async with asyncio.timeout(10):
        while not reached():
            stepping()
            await asyncio.sleep(0.01)


def asked(store: Outbox, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{store.directory / 'state.db'}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


class TestOrdinary:
    async def test_every_destination_gets_every_event_once(self, store: Outbox, clock: SteppedClock):
        """
        Two lanes take the same log; each partner gets each event once, and nothing is left.
        """
        async with lanes(store, clock, a={"kind": "webhook"}, b={"kind": "webhook", "batch": 50}) as (_, partners):
            await store.append(many(120))
            await settled(store, "a", delivered=120, parked=0)
            await settled(store, "b", delivered=120, parked=0)

            assert {f"e-{n}": 1 for n in range(1, 121)} == dict(partners["a"].taken)
            assert 120 == partners["a"].counts.accepted
            assert partners["b"].counts.accepted < 120

    async def test_a_batch_may_fill_but_its_first_event_waits_for_nothing(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        After a pause one event leaves at once, and what comes one by one soon after it leaves together.
        """
        monkeypatch.setattr("router.delivery.batching.GATHER", 0.3)
        async with lanes(store, clock, hook={"kind": "webhook", "batch": 100}) as (_, partners):
            await store.append(many(1))
            await settled(store, "hook", delivered=1)
            for n in range(2, 10):
                await store.append(many(1, start=n))
            await settled(store, "hook", delivered=9)

            assert 2 == partners["hook"].counts.received

    async def test_a_full_batch_waits_for_no_answer(self, store: Outbox, clock: SteppedClock):
        """
        However long a partner takes, as many batches are under way as the lane may have.
        """
        slow = {"kind": "webhook", "batch": 100, "concurrency": 4, "trouble": [Trouble(hang=True)]}
        async with lanes(store, clock, hook=slow) as (_, partners):
            await store.append(many(900))
            await until(lambda: partners["hook"].counts.received == 4)

    async def test_less_than_a_batch_waits_for_an_answer(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        While a request is under way events gather, until they fill a batch.
        """
        monkeypatch.setattr("router.delivery.batching.PATIENCE", 600.0)
        slow = {"kind": "webhook", "batch": 100, "trouble": [Trouble(hang=True, times=1)]}
        async with lanes(store, clock, hook=slow) as (_, partners):
            await store.append(many(1))
            await until(lambda: partners["hook"].counts.received == 1)
            for start in (2, 4):
                await store.append(many(2, start=start))
                await asyncio.sleep(5 * GATHER)  # time to do what it must not
            await store.append(many(96, start=6))
            await settled(store, "hook", delivered=100)
            assert 2 == partners["hook"].counts.received

    async def test_nobody_waits_for_ever_for_an_answer_that_does_not_come(self, store: Outbox, clock: SteppedClock):
        """
        One request that hangs delays the next batch for a moment only, full or not.
        """
        slow = {"kind": "webhook", "batch": 100, "trouble": [Trouble(hang=True, times=1)]}
        async with lanes(store, clock, hook=slow) as (_, partners):
            await store.append(many(1))
            await until(lambda: partners["hook"].counts.received == 1)
            await store.append(many(5, start=2))
            await settled(store, "hook", delivered=5)

    async def test_backlog_goes_out_after_a_restart(self, tmp_path, clock: SteppedClock):
        """
        What was accepted and not sent when the process stopped is sent by the next one, and only that.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        async with lanes(store, clock, hook={"kind": "webhook"}) as (_, partners):
            await store.append(many(10))
            await settled(store, "hook", delivered=10)
        await store.append(many(10, start=11))
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock)
        async with lanes(store, clock, hook={"kind": "webhook"}) as (_, partners):
            await settled(store, "hook", delivered=20)
            assert {f"e-{n}" for n in range(11, 21)} == set(partners["hook"].taken)
        await store.close()

    async def test_filtered_events_keep_their_reason(self, store: Outbox, clock: SteppedClock):
        """
        What the rules do not send costs no request and says why.
        """
        async with lanes(store, clock, hook={"kind": "webhook", "events": ("purchase",)}) as (_, partners):
            await store.append(rows(purchase("p-1"), *(an_event(f"v-{n}") for n in range(50))))
            await settled(store, "hook", delivered=1, filtered=50)

            assert 1 == partners["hook"].counts.received
            ((first, last, reason),) = asked(store, "SELECT first, last, reason FROM run WHERE state = 'filtered'")
            assert (2, 51) == (first, last)
            assert "page_view" in reason

    async def test_what_cannot_be_expressed_is_dead_without_a_call(self, store: Outbox, clock: SteppedClock):
        """
        A refusal of the destination ends the event with the field named; the others are sent.
        """
        bare = purchase("bare", user=User())
        async with lanes(store, clock, snap={"kind": "snap"}) as (_, partners):
            await store.append(rows(bare, purchase("good")))
            await settled(store, "snap", delivered=1, dead=1)

            assert ["good"] == [key.split("|")[0].split(":")[-1] for key in partners["snap"].taken] or 1 == len(
                partners["snap"].taken
            )
            ((reason, attempts),) = asked(store, "SELECT reason, attempts FROM delivery")
            assert "user_data" in reason
            assert 0 == attempts

    async def test_expired_events_are_dead_without_a_call(self, store: Outbox, clock: SteppedClock):
        """
        Older than the partner's window: no request, reason expired.
        """
        old = purchase("old", time=NOW - 8 * 86_400_000)
        async with lanes(store, clock, snap={"kind": "snap"}) as (_, partners):
            await store.append(rows(old))
            await settled(store, "snap", dead=1)

            assert 0 == partners["snap"].counts.received
            assert [("expired: 8 d old, at most 7 d",)] == asked(store, "SELECT reason FROM delivery")

    async def test_what_waits_for_its_turn_is_signed_when_it_goes(self, store: Outbox, clock: SteppedClock):
        """
        At one request a minute the last of eight leaves after seven: its signature is of that minute.
        """
        async with lanes(store, clock, hook={"kind": "webhook", "rate": "1/m"}) as (_, partners):
            await store.append(many(8))
            await until(
                lambda: asked(store, "SELECT 1 FROM lane WHERE delivered = 8") or partners["hook"].counts.refused,
                lambda: clock.step(10),
            )

            assert 0 == partners["hook"].counts.refused


class TestTrouble:
    async def test_a_passing_fault_is_retried_with_the_same_body(self, store: Outbox, clock: SteppedClock):
        """
        A 500 makes the delivery wait by the schedule; the second request carries the same bytes and id.
        """
        trouble = Trouble(status=500, times=1)
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (_, partners):
            await store.append(many(1))
            await settled(store, "hook", parked=1)
            clock.step(2)
            await settled(store, "hook", delivered=1, parked=0)

            first, second = partners["hook"].received
            assert first.body == second.body
            assert [(1, "retry", 500), (2, "delivered", 204)] == asked(store, "SELECT id, outcome, status FROM attempt")
            assert [("delivered", 2)] == asked(store, "SELECT state, attempts FROM delivery")

    async def test_a_lost_answer_is_a_second_arrival_with_the_same_id(self, store: Outbox, clock: SteppedClock):
        """
        The partner took it but its answer was lost: it gets it again and can tell.
        """
        trouble = Trouble(reset=True, taken=True, times=2)
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (_, partners):
            await store.append(many(1))
            await settled(store, "hook", parked=1)
            clock.step(2)
            await settled(store, "hook", delivered=1)

            assert {"e-1"} == set(partners["hook"].taken)
            assert partners["hook"].taken["e-1"] >= 2

    async def test_retry_after_moves_the_whole_lane(self, store: Outbox, clock: SteppedClock):
        """
        A 429 with Retry-After: no request of that lane leaves before the time has passed.
        """
        trouble = Trouble(status=429, retry_after="30", times=1)
        wanted = {"kind": "webhook", "concurrency": 1, "trouble": [trouble]}
        async with lanes(store, clock, hook=wanted) as (_, partners):
            await store.append(many(5))
            await settled(store, "hook", parked=1)
            clock.step(29)
            await asyncio.sleep(0.05)
            assert 1 == partners["hook"].counts.received
            clock.step(1)
            await settled(store, "hook", delivered=5, parked=0)

    @pytest.mark.parametrize("said", [None, "1"], ids=["says nothing", "says in a second, each time"])
    async def test_a_dead_partner_costs_its_events_no_row_each(
        self, store: Outbox, clock: SteppedClock, said: str | None
    ):
        """
        After a few failures the breaker opens, whatever wait each of them asks for: the rest waits behind the cursor,
        without attempts.
        """
        trouble = Trouble(status=503, retry_after=said)
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (_, partners):
            await store.append(many(500))
            await settled(store, "hook", delivered=0)
            for _ in range(60):
                clock.step(1)
                await asyncio.sleep(0.01)
            assert partners["hook"].counts.received < 40
            partners["hook"].trouble.clear()
            await until(lambda: partners["hook"].counts.distinct == 500, lambda: clock.step(20))
            await settled(store, "hook", delivered=500, parked=0)

    async def test_retrying_ends_after_retry_for(self, store: Outbox, clock: SteppedClock):
        """
        Passing faults for longer than retry_for: dead, with the reason.
        """
        wanted = {"kind": "webhook", "retry_for": "60s", "trouble": [Trouble(status=500)]}
        async with lanes(store, clock, hook=wanted):
            await store.append(many(1))
            await settled(store, "hook", parked=1)
            await until(lambda: asked(store, "SELECT 1 FROM lane WHERE dead = 1"), lambda: clock.step(30))
            assert "retry_for" in asked(store, "SELECT reason FROM delivery")[0][0]


class TestHolds:
    async def test_refused_credentials_hold_the_lane_and_cost_no_attempt(self, store: Outbox, clock: SteppedClock):
        """
        A 401 holds the lane; nothing dies; resume sends everything.
        """
        trouble = Trouble(status=401)
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (delivery, partners):
            await store.append(many(20))
            await until(lambda: store.lanes["hook"].held)
            assert "partner" == store.lanes["hook"].held.by
            await until(lambda: (401, "hold") in asked(store, "SELECT status, outcome FROM attempt"))
            partners["hook"].trouble.clear()
            await delivery.lanes["hook"].resume("test")
            await settled(store, "hook", delivered=20, dead=0)
            assert [] == asked(store, "SELECT attempts FROM delivery WHERE attempts > 1")

    async def test_an_operator_does_not_wait_for_a_back_off(self, store: Outbox, clock: SteppedClock):
        """
        A partner that failed again and again works, somebody says: what comes now goes now.
        """
        trouble = Trouble(status=503)
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (delivery, partners):
            runner = delivery.lanes["hook"]
            await store.append(many(1))
            await until(lambda: runner._pace.open, lambda: clock.step(1))
            partners["hook"].trouble.clear()
            await store.append(many(1, start=2))
            await runner.resume("test")
            await settled(store, "hook", delivered=1)

    async def test_a_probe_finds_out_that_it_works_again(self, store: Outbox, clock: SteppedClock):
        """
        A held lane sends one event every five minutes; the first that is accepted ends the hold.
        """
        trouble = Trouble(status=401)
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (_, partners):
            await store.append(many(20))
            await until(lambda: store.lanes["hook"].held)
            await asyncio.sleep(0.05)
            before = partners["hook"].counts.received
            clock.step(301)
            await partners["hook"].wait_for(before + 1, accepted=False)
            await asyncio.sleep(0.05)
            assert before + 1 == partners["hook"].counts.received
            partners["hook"].trouble.clear()
            clock.step(301)
            await settled(store, "hook", delivered=20)
            assert store.lanes["hook"].held is None

    @pytest.mark.parametrize("change", [pytest.param({}, id="the same"), pytest.param({"timeout": "7s"}, id="changed")])
    async def test_a_reload_finds_out_at_once(self, store: Outbox, clock: SteppedClock, change: dict[str, str]):
        """
        Whoever mends something at the partner, or here, and reloads waits for no probe, and for no date that was said before.
        """
        trouble = Trouble(status=401)
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (delivery, partners):
            await store.append(many(20))
            await until(lambda: store.lanes["hook"].held)
            await until(lambda: not delivery.lanes["hook"]._sending.under_way)
            lane = store.lanes["hook"]
            await store.hold(lane, msgspec.structs.replace(lane.held, until=clock.now() + 86_400_000))
            partners["hook"].trouble.clear()
            again = msgspec.structs.replace(delivery.lanes["hook"].destination, **change)
            await delivery.apply({"hook": again})
            await settled(store, "hook", delivered=20, dead=0)

    async def test_a_quota_holds_until_the_day_it_resets(self, store: Outbox, clock: SteppedClock):
        """
        LinkTrace's QUOTA_EXCEEDED: held until resetsOn, across a restart, then all of it goes.
        """
        link = {"link_short_code": "497b3422"}
        async with lanes(store, clock, lt={"kind": "linktrace", "partner": {"quota": 3}, "concurrency": 1}) as (
            _,
            _partners,
        ):
            await store.append(rows(*(an_event(f"o-{n}", name="purchase", properties=link) for n in range(5))))
            await until(lambda: store.lanes["lt"].held)
            held = store.lanes["lt"].held
            assert held.until == 1_796_083_200_000  # 2026-12-01T00:00:00Z
            assert "quota" in held.reason
            clock.step((held.until - clock.now()) / 1000 + 1)
            await settled(store, "lt", delivered=5, dead=0)

    async def test_the_operators_hold_is_not_probed(self, store: Outbox, clock: SteppedClock):
        """
        Held by a person, a lane sends nothing until a person lets it go.
        """
        async with lanes(store, clock, hook={"kind": "webhook"}) as (delivery, partners):
            await delivery.lanes["hook"].hold("maintenance", "test")
            await store.append(many(3))
            clock.step(100_000)
            await asyncio.sleep(0.05)
            assert 0 == partners["hook"].counts.received
            await delivery.lanes["hook"].resume("test")
            await settled(store, "hook", delivered=3)
            assert [("hold",), ("resume",)] == asked(store, "SELECT what FROM audit ORDER BY id")

    async def test_a_redirect_is_not_followed(self, store: Outbox, clock: SteppedClock):
        """
        A 302 holds the lane: the address is wrong, and credentials must not travel.
        """
        trouble = Trouble(status=302, headers={"Location": "/elsewhere"})
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [trouble]}) as (_, partners):
            await store.append(many(1))
            await until(lambda: store.lanes["hook"].held)
            assert {"/hook"} == {each.path for each in partners["hook"].received}

    async def test_a_private_address_is_not_dialled(self, store: Outbox, clock: SteppedClock):
        """
        Without allow_private the guard holds the lane before a connection is made.
        """
        wanted = {"kind": "snap", "allow_private": False}
        async with lanes(store, clock, snap=wanted) as (_, partners):
            await store.append(rows(purchase("p")))
            await until(lambda: store.lanes["snap"].held)
            assert 0 == partners["snap"].counts.received

    async def test_a_wrong_address_is_held_after_five_misses(self, store: Outbox, clock: SteppedClock):
        """
        404 on every event: four are dead, at the fifth the rest waits for somebody to mend the address.
        """
        wanted = {"kind": "webhook", "concurrency": 1, "trouble": [Trouble(status=404)]}
        async with lanes(store, clock, hook=wanted) as (_, partners):
            await store.append(many(30))
            await until(lambda: store.lanes["hook"].held)
            await settled(store, "hook", dead=4)
            await asyncio.sleep(0.05)
            assert 5 == partners["hook"].counts.received


class TestBatches:
    async def test_a_named_bad_member_dies_alone(self, store: Outbox, clock: SteppedClock):
        """
        Snap names the index: that event is dead with its reason, the other 39 are delivered in the next request.
        """
        good = [purchase(f"p-{n}") for n in range(40)]
        good[17] = purchase("p-17", money=Money(value="1", currency="EUR"), name="purchase", time=NOW - 6 * 86_400_000)
        trouble = Trouble(status=400, body={"status": "INVALID", "event": 17, "errors": {"codes": ["X"]}}, times=1)
        async with lanes(store, clock, snap={"kind": "snap", "batch": 100, "trouble": [trouble]}) as (_, partners):
            await store.append(rows(*good))
            await settled(store, "snap", delivered=39, dead=1)

            assert 2 == partners["snap"].counts.received
            assert [(18,)] == asked(store, "SELECT seq FROM delivery WHERE state = 'dead'")

    async def test_a_poisoned_batch_is_bisected(self, store: Outbox, clock: SteppedClock):
        """
        Nobody is named: the one bad member among 400 is found in at most 10 further requests, 399 are delivered, each
        refusal can be told, and the bad one's tries are as many as the requests that carried it.
        """
        trouble = Trouble(status=400, match='"p-123"')
        async with lanes(store, clock, hook={"kind": "webhook", "batch": 400, "trouble": [trouble]}) as (_, partners):
            await store.append(rows(*(purchase(f"p-{n}") for n in range(400))))
            await settled(store, "hook", delivered=399, dead=1)

            refused = [each for each in partners["hook"].received if each.status == 400]
            assert partners["hook"].counts.received <= 1 + 10 + 1
            assert refused
            assert [(400,)] * len(refused) == asked(store, "SELECT status FROM attempt WHERE outcome != 'delivered'")
            assert [(124, "dead")] == asked(store, "SELECT seq, state FROM delivery WHERE state = 'dead'")
            assert [(len(refused),)] == asked(store, "SELECT attempts FROM delivery WHERE state = 'dead'")

    async def test_a_fault_in_the_middle_of_bisecting_loses_nobody(self, store: Outbox, clock: SteppedClock):
        """
        A 500 while a batch is being bisected: all wait, and in the end one is dead and the rest delivered.
        """
        poison = Trouble(status=400, match='"p-3"', times=2)
        outage = Trouble(status=500, times=1)
        later = Trouble(status=400, match='"p-3"')
        wanted = {"kind": "webhook", "batch": 16, "concurrency": 1, "trouble": [poison, outage, later]}
        async with lanes(store, clock, hook=wanted):
            await store.append(rows(*(purchase(f"p-{n}") for n in range(16))))
            done = "SELECT 1 FROM lane WHERE delivered = 15 AND dead = 1 AND parked = 0"
            await until(lambda: asked(store, done), lambda: clock.step(1))

    async def test_a_fault_in_a_mapping_ends_one_event(self, store: Outbox, clock: SteppedClock, monkeypatch):
        """
        A destination that raises for one event: that one is dead and named so, the lane goes on.
        """
        original = Webhook.requests

        def faulty(self: Webhook, events: Any, now: int) -> Any:
            if any(event.id == "e-3" for event in events):
                raise KeyError("boom")
            return original(self, events, now)

        monkeypatch.setattr(Webhook, "requests", faulty)
        async with lanes(store, clock, hook={"kind": "webhook"}):
            await store.append(many(10))
            await settled(store, "hook", delivered=9, dead=1)
            assert "KeyError" in asked(store, "SELECT reason FROM delivery")[0][0]


class TestOperator:
    async def test_dead_deliveries_can_be_sent_again(self, store: Outbox, clock: SteppedClock):
        """
        Retry brings the dead back with the same id; they are delivered, and the counters agree.
        """
        trouble = Trouble(status=422, times=3)
        async with lanes(store, clock, hook={"kind": "webhook", "concurrency": 1, "trouble": [trouble]}) as (
            delivery,
            _,
        ):
            await store.append(many(5))
            await settled(store, "hook", delivered=2, dead=3)
            assert 3 == await delivery.lanes["hook"].retry(Selection(state="dead"), "test")
            await settled(store, "hook", delivered=5, dead=0, parked=0)

    async def test_what_waits_can_be_dropped(self, store: Outbox, clock: SteppedClock):
        """
        Drop on a held lane gives up all that waits, parked or not, visibly.
        """
        trouble = Trouble(status=503, times=2)
        async with lanes(store, clock, hook={"kind": "webhook", "concurrency": 1, "trouble": [trouble]}) as (
            delivery,
            _partners,
        ):
            await store.append(many(2))
            await settled(store, "hook", parked=2)
            await delivery.lanes["hook"].hold("stop", "test")
            await store.append(many(10, start=100))
            assert 12 == await delivery.lanes["hook"].drop(Selection(state="waiting"), "test")
            await delivery.lanes["hook"].resume("test")
            await settled(store, "hook", delivered=0, dead=12, parked=0)
            await store.append(many(1, start=500))
            await settled(store, "hook", delivered=1)

    async def test_a_removed_destination_keeps_its_backlog(self, store: Outbox, clock: SteppedClock):
        """
        A destination that left the configuration is held, with the reason, and goes on when it comes back.
        """
        async with lanes(store, clock, hook={"kind": "webhook"}) as (delivery, _):
            await delivery.lanes["hook"].hold("later", "test")
            await store.append(many(3))
            await delivery.lanes["hook"].resume("test")
            await settled(store, "hook", delivered=3)
        async with lanes(store, clock, other={"kind": "webhook"}):
            ((reason, by),) = asked(store, "SELECT hold_reason, hold_by FROM lane WHERE name = 'hook'")
            assert "config" == by
            assert "not in the configuration" in reason
        async with lanes(store, clock, hook={"kind": "webhook"}):
            assert [(None,)] == asked(store, "SELECT hold_by FROM lane WHERE name = 'hook'")

    async def test_a_lane_that_rests_says_why_now(self, store: Outbox, clock: SteppedClock):
        """
        Switched off, taken out and put back switched off: the reason is that of the configuration in force.
        """
        async with lanes(store, clock, hook={"kind": "webhook"}) as (delivery, _):
            off = msgspec.structs.replace(delivery.lanes["hook"].destination, enabled=False)
            for destinations, words in (
                ({"hook": off}, "enabled = true"),
                ({}, "add the"),
                ({"hook": off}, "enabled ="),
            ):
                await delivery.apply(destinations)
                ((reason,),) = asked(store, "SELECT hold_reason FROM lane WHERE name = 'hook'")
                assert words in reason

    async def test_a_reload_that_cannot_hold_what_is_off_begins_the_others(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        One destination is switched off and another changed: where the first cannot be written down, the second runs.
        """
        async with lanes(store, clock, off={"kind": "webhook"}, hook={"kind": "webhook"}) as (delivery, _):
            known = store.hold

            async def full(lane: Lane, held: Held | None) -> None:
                if held is not None:
                    raise DiskFull("no room")
                await known(lane, held)

            monkeypatch.setattr(store, "hold", full)
            off = msgspec.structs.replace(delivery.lanes["off"].destination, enabled=False)
            changed = msgspec.structs.replace(delivery.lanes["hook"].destination, timeout="7s")
            with pytest.raises(DiskFull):
                await delivery.apply({"off": off, "hook": changed})
            await store.append(many(3))
            await settled(store, "hook", delivered=3)

    async def test_a_reload_that_fails_stops_nothing(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        Where a new destination cannot be written down, one whose settings changed goes on as it was.
        """
        async with lanes(store, clock, hook={"kind": "webhook"}) as (delivery, partners):
            known = store.lane

            async def full(name: str, *more: Any) -> Lane:
                if name == "new":
                    raise DiskFull("no room")
                return await known(name, *more)

            monkeypatch.setattr(store, "lane", full)
            changed = msgspec.structs.replace(delivery.lanes["hook"].destination, timeout="7s")
            with pytest.raises(DiskFull):
                await delivery.apply({"new": settings("webhook", "http://127.0.0.1:9"), "hook": changed})
            await store.append(many(3))
            await settled(store, "hook", delivered=3)

        assert 3 == partners["hook"].counts.accepted


class TestStop:
    async def test_it_has_one_deadline(self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch):
        """
        Where a partner hangs and the disk is full as well, a stop takes its patience once, and a little.
        """
        trouble = Trouble(hang=True, match='"e-1"')
        more = {"kind": "webhook", "concurrency": 8, "trouble": [trouble]}
        async with lanes(store, clock, hook=more) as (delivery, partners):
            full, known = asyncio.Event(), store._state.write

            async def write(unit: Unit[Any]) -> Any:
                if not full.is_set():
                    return await known(unit)
                raise DiskFull("no room")

            monkeypatch.setattr(store._state, "write", write)
            monkeypatch.setattr(lane, "WRITE_DOWN", 0.1)
            full.set()
            await store.append(many(5))
            await until(lambda: 5 == partners["hook"].counts.received)
            try:
                async with asyncio.timeout(3.5):
                    await delivery.stop(2.0)
            finally:
                full.clear()
                clock.step(1)  # what waits to be written tries again


class TestIsolation:
    async def test_a_dead_and_a_slow_lane_cost_the_others_nothing(self, store: Outbox, clock: SteppedClock):
        """
        One partner hangs, one drips: a healthy one has everything before either has one event.
        """
        wanted = {
            "dead": {"kind": "webhook", "trouble": [Trouble(hang=True)], "timeout": "10s"},
            "slow": {"kind": "webhook", "trouble": [Trouble(delay=3.0)], "timeout": "10s"},
            "well": {"kind": "webhook"},
        }
        async with lanes(store, clock, **wanted) as (_, partners):
            await store.append(many(300))
            await settled(store, "well", delivered=300)
            assert 0 == partners["slow"].counts.accepted + partners["dead"].counts.accepted

    async def test_stop_finishes_what_is_under_way(self, store: Outbox, clock: SteppedClock):
        """
        A request that is being answered when the engine stops is settled, not repeated.
        """
        async with lanes(store, clock, hook={"kind": "webhook", "trouble": [Trouble(delay=0.5)]}) as (_, _partners):
            await store.append(many(4))
            await asyncio.sleep(0.1)
        await settled(store, "hook", delivered=4)


async def test_ip_snare_gets_clear_values_and_a_webhook_does_not(store: Outbox, clock: SteppedClock):
    """
    Only a destination that declares clear values sees them.
    """
    from router.event import Clear

    click = an_event(
        "c-1",
        name="job_click",
        clear=Clear(ip="203.0.113.42", user_agent="UA/1", country="GB"),
        properties={
            "source_id": "s",
            "source_click_id": "sc",
            "job_id": "j",
            "job_country": "GB",
            "destination_id": "d",
        },
    )
    async with lanes(store, clock, snare={"kind": "ipsnare"}, hook={"kind": "webhook"}) as (_, partners):
        await store.append(rows(click))
        await settled(store, "snare", delivered=1)
        await settled(store, "hook", delivered=1)

        assert "203.0.113.42" == partners["snare"].received[0].body["user_ip"]
        assert "203.0.113.42" not in str(partners["hook"].received[0].body)
