"""A lane that is far behind: what goes ahead of the order, and what must not become of the rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from router.delivery import taking
from router.destination import Request
from router.event import Event
from router.outbox.errors import Busy
from router.outbox.log.entries import Stored
from router.outbox.log.tail import Tail
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Mark
from router.outbox.state.selections import Selection
from router.person import Person
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock
from tests.test_delivery_faults import HOUR, Ids, Peer, http, partner, running, sums, until

BEHIND = 600  # events waiting in these tests; FAR_BEHIND is made 100
DAY = 24 * HOUR


class Weekly(Ids, tag="weekly", frozen=True, kw_only=True):
    """A partner that takes nothing older than a week."""

    window: ClassVar[str | None] = "7d"


class Ordered(Weekly, tag="ordered", frozen=True, kw_only=True):
    """A partner at which events of one subject must come in their order; each has a subject of its own here."""

    ordered: ClassVar[bool] = True

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request]:
        yield Request.json(self.url, [event.id for event in events], events)

    def subject(self, event: Event) -> str | None:
        return event.id


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking, "FAR_BEHIND", 100)


@pytest.fixture
async def store(tmp_path, clock: SteppedClock):
    """Segments of two hundred events, so that most of the log is sealed."""
    outbox = await Outbox.open(tmp_path / "outbox", clock, segment_events=200)
    yield outbox
    await outbox.close()


async def backlog(store: Outbox, kind: str, late: dict[int, int] | None = None) -> None:
    """e-1 to e-600; ``late`` gives some of them another time."""
    await store.lane("a", kind)
    times = late or {}
    for start in range(1, BEHIND, 100):
        await store.append(rows(*(an_event(f"e-{n}", time=times.get(n, NOW)) for n in range(start, start + 100))))
    await store.journal.settled()


def place(peer: Peer, event_id: str) -> int:
    """In which request it came, from 0."""
    return next(number for number, ids in enumerate(peer.requests) if event_id in ids)


def counted(peer: Peer) -> Counter[str]:
    return Counter(each for ids in peer.requests for each in ids)


class TestNewest:
    async def test_what_comes_now_does_not_wait_for_the_backlog(self, store: Outbox, clock: SteppedClock):
        """
        One look in four is at the newest events, and every event goes out once all the same.
        """
        await backlog(store, "ids")
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, store.lanes["a"], url=peer.url, concurrency=1, batch=64),
        ):
            await until(lambda: sums(store).get("delivered", 0) == BEHIND)

        assert 4 >= place(peer, f"e-{BEHIND}")
        assert 6 < place(peer, "e-500")
        assert {f"e-{n}": 1 for n in range(1, BEHIND + 1)} == counted(peer)

    async def test_an_ordered_lane_keeps_to_the_order(self, store: Outbox, clock: SteppedClock):
        """
        Where the order counts, nothing goes ahead.
        """
        await backlog(store, "ordered", {550: NOW - 7 * DAY + HOUR // 2})
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, store.lanes["a"], Ordered, url=peer.url, concurrency=1, batch=64),
        ):
            await until(lambda: sums(store).get("delivered", 0) == BEHIND)

        assert [f"e-{n}" for n in range(1, BEHIND + 1)] == [each for ids in peer.requests for each in ids]

    async def test_a_newest_that_is_not_kept_up_with_begins_anew(self, store: Outbox, clock: SteppedClock):
        """
        Where more comes than the share can carry, the latest goes first again, and what lies between is not forgotten.
        """
        await backlog(store, "ids")
        more = asyncio.Event()

        async def answer(n: int, _: list[str]) -> bytes:
            if n == 4:
                await store.append(many(300, start=BEHIND + 1))
                more.set()
            return http(200)

        async with (
            partner(answer) as peer,
            running(store, clock, store.lanes["a"], url=peer.url, concurrency=1, batch=64),
        ):
            await until(lambda: sums(store).get("delivered", 0) == BEHIND + 300)

        assert 8 >= place(peer, f"e-{BEHIND + 300}")
        assert {f"e-{n}": 1 for n in range(1, BEHIND + 301)} == counted(peer)


class TestNearExpiry:
    async def test_what_expires_soon_goes_first(self, store: Outbox, clock: SteppedClock):
        """
        A late upload far back in the sealed log goes before its neighbours, the one nearest to its end first.
        """
        late = {390: NOW - 7 * DAY + HOUR // 2, 350: NOW - 7 * DAY + HOUR // 4, 380: NOW - 7 * DAY + 2 * HOUR}
        await backlog(store, "weekly", late)
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, store.lanes["a"], Weekly, url=peer.url, concurrency=1, batch=10),
        ):
            await until(lambda: sums(store).get("delivered", 0) == BEHIND)

        assert {"e-350", "e-390"} == set(peer.requests[0])
        assert 20 < place(peer, "e-380")
        assert {f"e-{n}": 1 for n in range(1, BEHIND + 1)} == counted(peer)

    async def test_more_than_one_look_finds(self, store: Outbox, clock: SteppedClock, monkeypatch):
        """
        Late uploads at one and the same instant, more than a look finds, are all found, and the looking ends.
        """
        monkeypatch.setattr(taking, "EXPIRING", 10)
        soon = NOW - 7 * DAY + HOUR // 2
        await backlog(
            store, "weekly", {**dict.fromkeys(range(300, 310), soon), **dict.fromkeys(range(320, 325), soon + 1)}
        )
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, store.lanes["a"], Weekly, url=peer.url, concurrency=1, batch=64),
        ):
            await until(lambda: sums(store).get("delivered", 0) == BEHIND)

        assert 4 >= max(place(peer, f"e-{n}") for n in (*range(300, 310), *range(320, 325)))
        assert {f"e-{n}": 1 for n in range(1, BEHIND + 1)} == counted(peer)

    async def test_a_read_that_fails_passes_nobody_by(self, store: Outbox, clock: SteppedClock, monkeypatch):
        """
        The log could not be read when a late upload was to go first: it goes out once all the same.
        """
        await backlog(store, "weekly", {390: NOW - 7 * DAY + HOUR // 2})
        pick, failed = store.pick, asyncio.Event()

        async def fails_once(seqs: Sequence[int]) -> list[Stored]:
            if not failed.is_set():
                failed.set()
                raise Busy("not now")
            return await pick(seqs)

        monkeypatch.setattr(store, "pick", fails_once)
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, store.lanes["a"], Weekly, url=peer.url, concurrency=1, batch=64),
        ):
            await until(lambda: sums(store).get("delivered", 0) == BEHIND, lambda: clock.step(1))

        assert failed.is_set()
        assert {f"e-{n}": 1 for n in range(1, BEHIND + 1)} == counted(peer)


class TestOnce:
    async def test_what_ended_before_does_not_go_ahead(self, store: Outbox, clock: SteppedClock):
        """
        An earlier process delivered one of the newest and one that expires soon: neither is sent again.
        """
        soon = NOW - 7 * DAY + HOUR // 2
        await backlog(store, "weekly", {390: soon, 350: soon})
        await store.settle(store.lanes["a"], [Mark(seqs=(390, BEHIND), state="delivered", at=NOW, attempts=1)])
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, store.lanes["a"], Weekly, url=peer.url, concurrency=1, batch=64),
        ):
            await until(lambda: sums(store).get("delivered", 0) == BEHIND)

        assert {f"e-{n}": 1 for n in range(1, BEHIND) if n != 390} == counted(peer)

    @pytest.mark.parametrize("slow", [False, True], ids=["taken at once", "unanswered meanwhile"])
    async def test_what_is_new_and_expires_soon_goes_ahead_once(self, store: Outbox, clock: SteppedClock, slow: bool):
        """
        More than three looks take are about to expire, and the newest are among them: nobody is sent twice.
        """
        soon = NOW - 7 * DAY + HOUR // 2
        await backlog(store, "weekly", {n: soon + n for n in range(401, BEHIND + 1)})
        await store.append(many(5, start=BEHIND + 1))
        await store.journal.settled()
        go = asyncio.Event()

        async def answer(_: int, ids: list[str]) -> bytes:
            if slow and any(int(each.partition("-")[2]) > 400 for each in ids):
                await go.wait()
            return http(200)

        async with (
            partner(answer) as peer,
            running(store, clock, store.lanes["a"], Weekly, url=peer.url, concurrency=16, batch=64, timeout="9s"),
        ):
            await until(lambda: len(peer.seen) == BEHIND + 5)
            go.set()
            await until(lambda: sums(store).get("delivered", 0) == BEHIND + 5)

        assert {f"e-{n}": 1 for n in range(1, BEHIND + 6)} == counted(peer)


class TestUnderWay:
    async def test_what_went_ahead_and_is_unanswered_is_not_sent_again(self, store: Outbox, clock: SteppedClock):
        """
        The newest, and those that expire soon, hang at the partner while the order comes by: nobody is sent twice.
        """
        soon = NOW - 7 * DAY + HOUR // 2
        await backlog(store, "weekly", {390: soon, 350: soon})
        store.journal.tail = Tail()
        ahead, others_came = {"e-350", "e-390", f"e-{BEHIND}"}, asyncio.Event()

        async def answer(_: int, ids: list[str]) -> bytes:
            if ahead & set(ids):
                await others_came.wait()
            return http(200)

        async with (
            partner(answer) as peer,
            running(store, clock, store.lanes["a"], Weekly, url=peer.url, concurrency=4, batch=10, timeout="9s"),
        ):
            await until(lambda: len(peer.seen) == BEHIND)
            others_came.set()
            await until(lambda: sums(store).get("delivered", 0) == BEHIND)

        assert {f"e-{n}": 1 for n in range(1, BEHIND + 1)} == counted(peer)


class TestOperator:
    async def test_dropping_counts_what_went_ahead_once(self, store: Outbox, clock: SteppedClock):
        """
        What went ahead of the order and is under way is not given up with the rest, and the ledger adds up.
        """
        await backlog(store, "ids")
        hang, gone = asyncio.Event(), asyncio.Event()

        async def answer(_: int, ids: list[str]) -> bytes:
            if "e-540" in ids:  # one of the newest, while most of the backlog waits
                gone.set()
                await hang.wait()
            return http(200)

        async with (
            partner(answer) as peer,
            running(store, clock, store.lanes["a"], url=peer.url, concurrency=1, batch=10, timeout="5s") as runner,
        ):
            await gone.wait()
            dropped = await runner.drop(Selection(state="waiting"), "test")
            hang.set()
            await until(lambda: sums(store).get("delivered", 0) + sums(store).get("dead", 0) == BEHIND)

        assert dropped == sums(store).get("dead", 0)
        assert set(counted(peer).values()) == {1}
        assert BEHIND - dropped == len(counted(peer))

    async def test_what_was_dropped_before_it_went_ahead_is_not_sent(self, store: Outbox, clock: SteppedClock):
        """
        It was found to expire soon, and an operator gave it up before its turn came.
        """
        soon = NOW - 7 * DAY + HOUR // 2
        await backlog(store, "weekly", {n: soon + n for n in range(201, 401)})
        came, go = asyncio.Event(), asyncio.Event()

        async def answer(_: int, __: list[str]) -> bytes:
            came.set()
            await go.wait()
            return http(200)

        async with (
            partner(answer) as peer,
            running(
                store, clock, store.lanes["a"], Weekly, url=peer.url, concurrency=1, batch=64, timeout="9s"
            ) as lane,
        ):
            await came.wait()
            assert 1 == await lane.drop(Selection(state="waiting", seqs=(390,)), "test")
            go.set()
            await until(lambda: sums(store) == {"delivered": BEHIND - 1, "dead": 1})

        assert {f"e-{n}": 1 for n in range(1, BEHIND + 1) if n != 390} == counted(peer)

    async def test_who_is_forgotten_is_not_sent_from_what_was_read_before(self, store: Outbox, clock: SteppedClock):
        """
        What was read ahead of need is read again once somebody was erased.
        """
        await store.lane("a", "ids")
        hers = {"user": an_event().user.__class__(anonymous_id="jane")}
        await store.append(rows(*(an_event(f"e-{n}", **(hers if n % 2 else {})) for n in range(1, 81))))
        store.journal.tail = Tail()  # a restart, say: what is read comes from disk, more than is taken
        forgotten = asyncio.Event()

        async def answer(n: int, _: list[str]) -> bytes:
            if n == 1:
                await store.erase([Person(anonymous_id="jane")], "test")
                forgotten.set()
            return http(200)

        async with (
            partner(answer) as peer,
            running(store, clock, store.lanes["a"], url=peer.url, concurrency=1, batch=1, timeout="5s"),
        ):
            await until(lambda: sums(store).get("delivered", 0) == 41)

        assert forgotten.is_set()
        assert [["e-1"], *([f"e-{n}"] for n in range(2, 81, 2))] == peer.requests
