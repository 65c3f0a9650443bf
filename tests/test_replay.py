"""Replay: what was done is sent again by choice, slowly, beside live traffic, with the same ids and without a lie."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner, Result

from router import cli
from router.clock import SystemClock
from router.delivery.engine import Delivery
from router.delivery.replay import preview
from router.event import User
from router.failpoint import Injected
from router.mocks.partner import Partner, Trouble, running
from router.mocks.webhook import Webhook
from router.outbox.errors import Broken, Busy, DiskFull
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.deliveries import Mark
from router.outbox.state.replays import Chosen
from router.person import Person
from tests.builders import NOW, an_event, many, rows
from tests.running import running_app
from tests.running import settings as app_settings
from tests.stepped import SteppedClock
from tests.test_delivery import asked, settled, until
from tests.test_delivery import settings as destination


@contextlib.asynccontextmanager
async def lane(
    store: Outbox, clock: SteppedClock, *trouble: Trouble, kind: str = "webhook", **more: Any
) -> AsyncIterator[tuple[Delivery, Partner]]:
    """A running destination "a" with a fake partner."""
    partner = Webhook(now=clock.now)
    partner.trouble = list(trouble)
    async with running(partner) as url:
        delivery = Delivery(store, clock)
        await delivery.apply({"a": destination(kind, url, **more)})
        try:
            yield delivery, partner
        finally:
            await delivery.stop(2.0)


async def ended(store: Outbox, delivery: Delivery, clock: SteppedClock, step: float = 1) -> Any:
    """The newest replay, once it is no longer running."""
    await until(lambda: not delivery.replays, lambda: clock.step(step))
    return (await store.replays())[0]


class TestReplay:
    async def test_what_was_delivered_is_sent_again_once(self, store: Outbox, clock: SteppedClock):
        """
        The chosen events arrive a second time with the same ids; the ledger stays as it was.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(30))
            await settled(store, "a", delivered=30)
            before = await Reader(store.directory).ledger()
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            done = await ended(store, delivery, clock)

            assert {f"e-{n}": 2 for n in range(1, 31)} == dict(partner.taken)
            assert before == await Reader(store.directory).ledger()
            assert ("done", 30, 30, 30) == (done.state, done.counts.sent, done.counts.again, done.cursor)

    async def test_a_new_destination_gets_what_came_before_it(self, store: Outbox, clock: SteppedClock):
        """
        A backfill: events of before the destination was there are sent, and only those that are chosen.
        """
        await store.append(rows(*(an_event(f"p-{n}", name="purchase" if n % 2 else "login") for n in range(10))))
        async with lane(store, clock) as (delivery, partner):
            await delivery.replay("a", Chosen(rate="1000/s", name="purchase"), 1, "test")
            done = await ended(store, delivery, clock)

            assert {f"p-{n}" for n in (1, 3, 5, 7, 9)} == set(partner.taken)
            assert (5, 0, 5) == (done.counts.sent, done.counts.again, done.counts.other)

    async def test_what_waits_or_is_dead_is_left_to_its_own_way(self, store: Outbox, clock: SteppedClock):
        """
        A replay never sends what a retry is responsible for.
        """
        async with lane(store, clock) as (delivery, partner):
            await delivery.lanes["a"].hold("later", "test")
            await store.append(many(4))
            at = store.lanes["a"]
            await store.settle(at, [Mark(seqs=(1,), state="dead", at=NOW, attempts=1, reason="no")])
            await store.settle(at, [Mark(seqs=(2,), state="waiting", at=NOW, attempts=1, due=NOW + 10**9)])
            await store.settle(at, [Mark(seqs=(3,), state="delivered", at=NOW, attempts=1)])
            counts = await preview(store, at, "a", delivery.lanes["a"].destination, Chosen(), 1, clock)

            assert (1, 1, 3) == (counts.sent, counts.again, counts.other)
            assert {} == dict(partner.taken)

    async def test_too_old_filtered_and_refused_are_told_apart(self, store: Outbox, clock: SteppedClock):
        """
        The preview says what today's window and rules would do, and the replay then does the same.
        """
        await store.append(rows(an_event("old", time=NOW - 10**9), an_event("shut", source="blog"), an_event("good")))
        async with lane(store, clock, max_age="1d", sources=("shop",)) as (delivery, partner):
            at = store.lanes["a"]
            told = await preview(store, at, "a", delivery.lanes["a"].destination, Chosen(), 1, clock)
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            done = await ended(store, delivery, clock)

            assert told == done.counts
            assert (1, 1, 1) == (told.sent, told.filtered, told.expired)
            assert {"good": 1} == dict(partner.taken)

    async def test_it_waits_for_live_traffic(self, store: Outbox, clock: SteppedClock):
        """
        While the lane is held nothing is replayed; when it goes on, fresh events and then the replay go.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(5))
            await settled(store, "a", delivered=5)
            await delivery.lanes["a"].hold("later", "test")
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            for _ in range(5):
                clock.step(1)
                await asyncio.sleep(0.02)
            assert {f"e-{n}": 1 for n in range(1, 6)} == dict(partner.taken)
            await delivery.lanes["a"].resume("test")
            done = await ended(store, delivery, clock)

            assert 5 == done.counts.sent
            assert {f"e-{n}": 2 for n in range(1, 6)} == dict(partner.taken)

    async def test_a_failing_partner_is_tried_again(self, store: Outbox, clock: SteppedClock):
        """
        A fault of the partner costs time, not events.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(5))
            await settled(store, "a", delivered=5)
            partner.trouble = [Trouble(status=503, times=3)]
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            done = await ended(store, delivery, clock)

            assert (5, 0) == (done.counts.sent, done.counts.refused)

    async def test_a_try_is_signed_when_it_leaves(self, store: Outbox, clock: SteppedClock):
        """
        After half an hour of failures the partner takes the next try: its signature is of that moment.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(1))
            await settled(store, "a", delivered=1)
            partner.trouble = [Trouble(status=503, times=12)]
            began = clock.now()
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            done = await ended(store, delivery, clock, 30)

            assert clock.now() - began > 1_800_000
            assert ("done", 1) == (done.state, done.counts.sent)
            assert [204, *[503] * 12, 204] == [each.status for each in partner.received]

    async def test_it_asks_when_the_partner_said(self, store: Outbox, clock: SteppedClock):
        """
        Retry-After closes the lane to the replay and to fresh events; both go on when it is over.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(1))
            await settled(store, "a", delivered=1)
            partner.trouble = [Trouble(status=429, retry_after="3600", times=1)]
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await until(lambda: partner.counts.received == 2)
            await store.append(many(1, start=2))
            for _ in range(35):
                clock.step(100)
                await asyncio.sleep(0.01)
            assert 2 == partner.counts.received
            done = await ended(store, delivery, clock, 10)

            assert 1 == done.counts.sent
            assert {"e-1": 2, "e-2": 1} == dict(partner.taken)

    async def test_a_hold_is_the_lanes(self, store: Outbox, clock: SteppedClock):
        """
        Refused credentials hold the lane, where everybody sees it; its slow probe is the replay's where nothing else
        waits, and lets the lane go.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(1))
            await settled(store, "a", delivered=1)
            partner.trouble = [Trouble(status=401, times=1)]
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await until(lambda: store.lanes["a"].held)
            await until(lambda: asked(store, "SELECT hold_by FROM lane") == [("partner",)])
            for _ in range(28):
                clock.step(10)
                await asyncio.sleep(0.01)
            assert 2 == partner.counts.received
            done = await ended(store, delivery, clock, 10)

            assert 1 == done.counts.sent
            assert store.lanes["a"].held is None
            assert [(None,)] == asked(store, "SELECT hold_reason FROM lane")

    async def test_a_lane_that_a_replay_closed_looks_by_its_own_clock(self, store: Outbox, clock: SteppedClock):
        """
        Nothing waits when its probe is due, and the replay was cancelled: what comes later is the next probe.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(1))
            await settled(store, "a", delivered=1)
            partner.trouble = [Trouble(status=401, times=1)]
            made = await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            assert made is not None
            await until(lambda: store.lanes["a"].held)
            await delivery.cancel(made.id, "test")
            for _ in range(40):
                clock.step(10)
                await asyncio.sleep(0.01)
            await store.append(many(3, start=2))
            await until(lambda: store.lanes["a"].held is None, lambda: clock.step(10))
            await settled(store, "a", delivered=4)

    async def test_nothing_of_who_was_forgotten_meanwhile_is_sent(self, store: Outbox, clock: SteppedClock):
        """
        What a replay has read and not sent when a person is forgotten is looked at again before it leaves.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(rows(*(an_event(f"e-{n}", user=User(id=f"u-{n % 2}")) for n in range(10))))
            await settled(store, "a", delivered=10)
            partner.trouble = [Trouble(status=503, times=1)]
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await until(lambda: partner.counts.received == 11)
            await store.erase([Person(user_id="u-0")], "test")
            done = await ended(store, delivery, clock)

            assert {f"e-{n}": 1 + n % 2 for n in range(10)} == dict(partner.taken)
            assert (5, 5) == (done.counts.sent, done.counts.other)

    async def test_who_was_forgotten_meanwhile_is_in_no_answer_that_is_kept(self, store: Outbox, clock: SteppedClock):
        """
        What a partner said of a person before they were forgotten is not written down afterwards.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(rows(an_event("e-1", user=User(id="u-jane-4711")), an_event("e-2")))
            await settled(store, "a", delivered=2)
            named = Trouble(status=400, match='"e-1"', body={"error": "unknown: u-jane-4711"}, times=1)
            partner.trouble = [named, Trouble(status=503, times=1)]
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await until(lambda: partner.counts.received == 4)
            await store.erase([Person(user_id="u-jane-4711")], "test")
            await ended(store, delivery, clock)

            assert [(400, None), (204, None)] == asked(
                store, "SELECT status, answer FROM attempt WHERE reason LIKE 'replay%' ORDER BY id"
            )

    async def test_one_bad_event_does_not_stop_the_others(self, store: Outbox, clock: SteppedClock):
        """
        In a batch that the partner refuses, the bad one is found and counted, the others arrive.
        """
        async with lane(store, clock, batch=10) as (delivery, partner):
            await store.append(many(20))
            await settled(store, "a", delivered=20)
            partner.trouble = [Trouble(status=400, match='"e-7"')]
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            done = await ended(store, delivery, clock)

            assert (19, 1) == (done.counts.sent, done.counts.refused)

    async def test_an_event_that_the_partner_fails_at_does_not_stop_it(self, store: Outbox, clock: SteppedClock):
        """
        It answers 500 to every request with this event: the batch is divided, the event is left behind when ``retry_for``
        is over, and the others arrive.
        """
        async with lane(store, clock, batch=10, retry_for="10m") as (delivery, partner):
            await store.append(many(20))
            await settled(store, "a", delivered=20)
            partner.trouble = [Trouble(status=500, match='"e-7"')]
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            done = await ended(store, delivery, clock, 10)

            assert (19, 1) == (done.counts.sent, done.counts.refused)
            assert {"e-7"} == {name for name, times in partner.taken.items() if times == 1}

    @pytest.mark.parametrize("fault", [Busy("x"), DiskFull("x"), Injected("x")])
    @pytest.mark.parametrize("asked_for", ["read", "states", "note_replay"])
    async def test_what_passes_does_not_end_it(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, asked_for: str, fault: Exception
    ):
        """
        A busy or full outbox, or a fault of ours, costs a pause; nothing is sent again because of the former, everything
        is counted once, and another replay may begin afterwards.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(30))
            await settled(store, "a", delivered=30)
            real, faults = getattr(store, asked_for), [fault]

            async def failing_once(*arguments: Any, **more: Any) -> Any:
                if faults:
                    raise faults.pop()
                return await real(*arguments, **more)

            monkeypatch.setattr(store, asked_for, failing_once)
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            done = await ended(store, delivery, clock, 10)

            assert ("done", 30, 30) == (done.state, done.counts.sent, done.counts.again)
            assert isinstance(fault, Injected) or {2} == set(partner.taken.values())
            assert await delivery.replay("a", Chosen(), 1, "test") is not None

    async def test_where_the_outbox_failed_it_is_the_next_process_that_goes_on(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        A disk that failed is asked no more, and nothing further is sent; on disk the replay is still running.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(30))
            await settled(store, "a", delivered=30)
            asked_for = asyncio.Event()

            async def failing(*_: Any) -> None:
                store.failed = Broken("x")
                asked_for.set()
                raise store.failed

            monkeypatch.setattr(store, "note_replay", failing)
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await asked_for.wait()
            sent = sum(partner.taken.values())
            for _ in range(5):
                clock.step(60)
                await asyncio.sleep(0.01)

            assert sent == sum(partner.taken.values())
            assert [("running",)] == asked(store, "SELECT state FROM replay")

    async def test_it_goes_on_after_a_restart(self, tmp_path, clock: SteppedClock):
        """
        A stop in the middle is no end: the next process sends the rest, and repeats what was not written down only.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(100))
            await settled(store, "a", delivered=100)
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await until(lambda: sum(partner.taken.values()) > 140, lambda: clock.step(1))
        first = sum(partner.taken.values()) - 100
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock)
        async with lane(store, clock) as (delivery, partner):
            done = await ended(store, delivery, clock)
        await store.close()

        assert ("done", 100) == (done.state, done.counts.sent)
        assert first < 100 <= first + sum(partner.taken.values()) <= 120

    async def test_where_segments_went_it_goes_on_behind_them(self, tmp_path: Path, clock: SteppedClock):
        """
        A replay that was in a segment which retention took since sends what the log still holds, kept events or not.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=10)
        async with lane(store, clock) as (delivery, partner):
            at = store.lanes["a"]
            await delivery.lanes["a"].hold("later", "test")
            await store.append(many(10))
            await store.append(many(1, start=11))
            await store.journal.sealing
            dead = Mark(seqs=(3,), state="dead", at=NOW, attempts=1, reason="no")
            taken = Mark(seqs=[1, 2, *range(4, 12)], state="delivered", at=NOW, attempts=1)
            await store.settle(at, [dead, taken])
            replay = await store.begin_replay(at, Chosen(rate="1000/s"), 1, "test")
            replay.cursor = 5
            await store.note_replay(replay)
            clock.step(8 * 86_400)
            await store.retention.look()
            assert not (store.directory / "log" / "00000001.db").exists()
        await store.close()
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=10)
        async with lane(store, clock) as (delivery, partner):
            await delivery.lanes["a"].resume("test")
            done = await ended(store, delivery, clock)
        await store.close()

        assert {"e-11": 1} == dict(partner.taken)
        assert ("done", 1, 5) == (done.state, done.counts.sent, done.counts.other)

    async def test_one_at_a_time_and_it_can_be_cancelled(self, store: Outbox, clock: SteppedClock):
        """
        A second replay to the same destination is refused while one runs; a cancelled one ends for good.
        """
        async with lane(store, clock) as (delivery, _):
            await store.append(many(5))
            await settled(store, "a", delivered=5)
            await delivery.lanes["a"].hold("later", "test")
            begun = await delivery.replay("a", Chosen(), 1, "test")
            assert await delivery.replay("a", Chosen(), 1, "test") is None
            cancelled = await delivery.cancel(begun.id, "test")
            assert "cancelled" == cancelled.state
            assert await delivery.replay("a", Chosen(), 1, "test") is not None

            assert ["running", "cancelled"] == [each.state for each in await store.replays()]

    async def test_one_that_waits_for_its_destination_can_be_cancelled(self, store: Outbox, clock: SteppedClock):
        """
        Its destination is switched off, so it does not run: it is that one which ends, and no other.
        """
        async with lane(store, clock) as (delivery, _):
            await store.append(many(2))
            await settled(store, "a", delivered=2)
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await ended(store, delivery, clock)
            await delivery.lanes["a"].hold("later", "test")
            waits = await delivery.replay("a", Chosen(), 1, "test")
            off = msgspec.structs.replace(delivery.lanes["a"].destination, enabled=False)
            await delivery.apply({"a": off})
            assert not delivery.replays
            cancelled = await delivery.cancel(waits.id, "test")
            assert await delivery.cancel(4711, "test") is None

            assert (waits.id, "cancelled") == (cancelled.id, cancelled.state)
            assert ["cancelled", "done"] == [each.state for each in await store.replays()]
            assert [(1,)] == asked(store, "SELECT count(*) FROM audit WHERE what = 'cancel'")

    async def test_of_two_that_begin_at_once_one_is_refused(self, store: Outbox, clock: SteppedClock):
        """
        Two operators ask in the same moment: one replay runs, and the audit tells of one.
        """
        async with lane(store, clock) as (delivery, _):
            await store.append(many(5))
            begun = await asyncio.gather(*(delivery.replay("a", Chosen(), 1, "test") for _ in range(2)))

            assert [1, None] == [each and each.id for each in begun]
            assert [(1,)] == asked(store, "SELECT count(*) FROM audit WHERE what = 'replay'")

    async def test_a_reload_in_the_moment_it_begins(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        A reload that finds a replay on disk begins it, and nobody begins it a second time.
        """
        async with lane(store, clock) as (delivery, partner):
            await store.append(many(5))
            await settled(store, "a", delivered=5)
            real = store.begin_replay

            async def reloaded(*arguments: Any) -> Any:
                begun = await real(*arguments)
                await delivery.apply({"a": delivery.lanes["a"].destination})
                return begun

            monkeypatch.setattr(store, "begin_replay", reloaded)
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await ended(store, delivery, clock)

            assert {2} == set(partner.taken.values())

    async def test_a_story_tells_of_it(self, store: Outbox, clock: SteppedClock):
        """
        Whoever asks about an event sees that it was sent again, by which replay.
        """
        async with lane(store, clock) as (delivery, _):
            await store.append(many(1))
            await settled(store, "a", delivered=1)
            await delivery.replay("a", Chosen(rate="1000/s"), 1, "test")
            await ended(store, delivery, clock)
            story = await Reader(store.directory).story(1)

        assert [None, "replay 1"] == [each.reason for each in story.destinations[0].tries]


class TestCommand:
    async def test_preview_then_replay(self, tmp_path):
        """
        The command says what would be sent, asks, begins, and the server tells how it went.
        """
        partner = Webhook(now=SystemClock().now)
        async with running(partner) as url:
            chosen = app_settings(tmp_path, destinations={"a": destination("webhook", url)})
            async with running_app(chosen) as app:
                console = f"127.0.0.1:{app.console_port}"
                config = tmp_path / "config.toml"
                config.write_text(f'[console]\nlisten = "{console}"\n[outbox]\npath = "{app.store.directory}"\n')
                await app.store.append(many(3))
                await until(lambda: len(partner.taken) == 3)
                await settled(app.store, "a", delivered=3)

                async def run(*arguments: str, typed: str = "") -> Result:
                    whole = ["outbox", "replay", "--to", "a", *arguments, "--config", str(config)]
                    return await asyncio.to_thread(CliRunner().invoke, cli.turnout, whole, input=typed)

                tried = await run("--dry-run", "--since", "2020-01-01")
                none = await run("--yes", "--name", "other")
                done = await run("--rate", "1000/s", typed="y\n")
                await until(lambda: sum(partner.taken.values()) == 6)
                async with aiohttp.ClientSession() as session:
                    listed: dict[str, Any] = {}
                    while not listed or listed["items"][0]["state"] == "running":
                        async with session.get(f"http://{console}/api/v1/replays") as answer:
                            listed = await answer.json()

        assert "" == tried.stderr
        assert "3 events would be sent to a; 3 of them it has had before." in tried.stdout
        assert "0 events would be sent" in none.stdout
        assert "Replay 1 to a is under way" in done.stdout
        assert "turnout outbox replay --to a --cancel 1 ends it; GET /api/v1/replays of the console" in done.stderr
        assert (1, "done", 3) == (
            len(listed["items"]),
            listed["items"][0]["state"],
            listed["items"][0]["counts"]["sent"],
        )

    @pytest.mark.parametrize(
        ("option", "value", "code", "says"),
        [("--rate", "fast", 1, "10/s"), ("--since", "yesterday", 2, "24h"), ("--until", "9999999999d", 2, "24h")],
    )
    async def test_what_is_no_rate_or_time_is_refused(self, tmp_path, option, value, code, says):
        """
        A misspelt rate or time begins nothing and says what to write.
        """
        chosen = app_settings(tmp_path, destinations={"a": destination("webhook", "http://127.0.0.1:1")})
        async with running_app(chosen) as app:
            config = tmp_path / "config.toml"
            config.write_text(f'[console]\nlisten = "127.0.0.1:{app.console_port}"\n')
            whole = ["outbox", "replay", "--to", "a", option, value, "--yes", "--config", str(config)]
            found = await asyncio.to_thread(CliRunner().invoke, cli.turnout, whole)
            assert [] == await app.store.replays()

        assert code == found.exit_code
        assert says in found.stderr
