"""Lanes against partners that misbehave on the socket: what each fault makes of the events, and what it must not cost.

The partner is a raw socket whose answers are bytes, so that nothing on its side corrects them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import structlog

from router.delivery.floor import Floor
from router.delivery.lane import LaneRunner
from router.delivery.observer import Observer
from router.delivery.patience import patiently
from router.destination import Destination, Request, Response, by_status
from router.event import Clear, Event, User
from router.outbox.errors import Broken, Busy, DiskFull
from router.outbox.outbox import Lane, Outbox
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.selections import Selection
from router.outcome import Closed, Delivered, Hold, Outcome, Refusal, Rejected, Retry, Split
from router.person import Person
from router.secret import Secret
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock

HOUR = 3_600_000

Answer = Callable[[int, list[str]], Awaitable[bytes | None] | bytes | None]


class Ids(Destination, tag="ids", frozen=True, kw_only=True):
    """Posts the ids of its events. ``say``, where given, is what every answer means."""

    url: str
    token: Secret | None = None
    keys: dict[str, Secret] = msgspec.field(default_factory=dict)
    say: Any = None

    title: ClassVar[str] = "Ids"
    home: ClassVar[str] = ""
    docs: ClassVar[str] = ""
    max_batch: ClassVar[int] = 1000
    dedup_key: ClassVar[str] = "id"
    clear: ClassVar[frozenset[str]] = frozenset({"ip", "user_agent"})

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request]:
        yield Request.json(self.url, [event.id for event in events], events)

    def outcome(self, response: Response) -> Outcome:
        return by_status(response) if self.say is None else self.say(response)


class Grouped(Ids, tag="grouped", frozen=True, kw_only=True):
    """Makes one request of a whole batch and two of a part of it, as a partner may that groups by account."""

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request]:
        whole = len(events) > 2
        for part in [events] if whole else [[event] for event in events]:
            yield Request.json(self.url, [event.id for event in part], part)


class Parting(Ids, tag="parting", frozen=True, kw_only=True):
    """Makes one request of a batch, and after the first half minute one of each event."""

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request]:
        for part in [events] if now < NOW + 30_000 else [[event] for event in events]:
            yield Request.json(self.url, [event.id for event in part], part)


class About(Ids, tag="about", frozen=True, kw_only=True):
    """Every event is about something of its own."""

    def subject(self, event: Event) -> str:
        return event.id


class Odd(Ids, tag="odd", frozen=True, kw_only=True):
    """Makes something odd of the event e-3."""

    made: str | BaseException

    def partner_name(self, event: Event) -> str:
        if self.made == "name" and event.id == "e-3":
            raise KeyError("boom")
        return event.name

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request | Refusal]:
        headers: dict[str, Any] = {}
        for event in events:
            self.partner_name(event)
            if event.id == "e-3":
                match self.made:
                    case "reason":
                        yield Refusal(event, ValueError("boom"))  # type: ignore[arg-type]
                        events = [other for other in events if other is not event]
                    case "header":
                        headers["x-amount"] = 5
                    case "body":
                        yield Request(url=self.url, body="[]", events=tuple(events))  # type: ignore[arg-type]
                        return
                    case "empty":
                        yield Request.json(self.url, [], [])
                    case BaseException():
                        raise self.made
        yield Request.json(self.url, [event.id for event in events], events, headers=headers)


def http(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Peer:
    """What reached the partner: the ids of every request, in order."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[list[str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    @property
    def seen(self) -> set[str]:
        return {each for ids in self.requests for each in ids}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.partition(b":")[2]))
                self.bodies.append(body)
                self.requests.append(msgspec.json.decode(body, type=list[str]))
                said = self.answer(len(self.requests), self.requests[-1])
                said = await said if isinstance(said, Awaitable) else said
                if said is None:  # no answer, ever
                    await reader.read()
                    break
                writer.write(said)
                await writer.drain()
                if b"Content-Length" not in said or b"close" in said:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def partner(answer: Answer) -> AsyncIterator[Peer]:
    peer = Peer(answer)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"
    try:
        yield peer
    finally:
        server.close()


@contextlib.asynccontextmanager
async def running(
    store: Outbox, clock: SteppedClock, lane: Lane, kind: type[Ids] = Ids, **settings: Any
) -> AsyncIterator[LaneRunner]:
    destination = kind(**{"allow_private": True, "timeout": "500ms", **settings})
    runner = LaneRunner(
        lane.name, destination, lane, store, clock, observer=Observer(), floor=Floor(), chance=lambda: 0.5
    )
    runner.start()
    try:
        yield runner
    finally:
        await runner.stop(1.0)


async def until(reached: Callable[[], object], stepping: Callable[[], None] = lambda: None) -> None:
    """Poll the outside world, for at most 5 s, taking a step of the clock between two looks."""
    async with asyncio.timeout(5):
        while not reached():
            stepping()
            await asyncio.sleep(0.005)


async def quiet(look: Callable[[], object]) -> object:
    """What ``look`` gives once it has not changed for half a second."""
    before, same = look(), 0
    async with asyncio.timeout(8):
        while same < 50:
            await asyncio.sleep(0.01)
            now = look()
            same = same + 1 if now == before else 0
            before = now
    return before


def asked(store: Outbox, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"file:{store.directory / 'state.db'}?mode=ro", uri=True)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def sums(store: Outbox) -> dict[str, Any]:
    names = ("delivered", "filtered", "dead", "erased", "parked", "hold_reason")
    ((*values,),) = asked(store, f"SELECT {', '.join(names)} FROM lane")
    return {name: value for name, value in zip(names, values, strict=True) if value}


class TestBehaviours:
    """One event, one way to misbehave: the delivery ends or waits as it should, and never just disappears."""

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            pytest.param(http(200), {"delivered": 1}, id="taken"),
            pytest.param(http(204), {"delivered": 1}, id="nothing to say"),
            pytest.param(http(200, b"\xff\xfe\x00garbage"), {"delivered": 1}, id="a body that is no text"),
            pytest.param(http(200, b"x", "Content-Encoding: gzip"), {"delivered": 1}, id="a body that is not packed"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 99\r\n\r\ncut",
                {"delivered": 1},
                id="cut after a 200",
            ),
            pytest.param(
                b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 99\r\n\r\ncut",
                {"parked": 1},
                id="cut after a 500",
            ),
            pytest.param(b"", {"parked": 1}, id="closed without an answer"),
            pytest.param(b"garbage\r\n\r\n", {"parked": 1}, id="garbage"),
            pytest.param(b"<html>", {"parked": 1}, id="HTTP 0.9"),
            pytest.param(None, {"parked": 1}, id="no answer"),
            pytest.param(http(408), {"parked": 1}, id="408"),
            pytest.param(http(425), {"parked": 1}, id="425"),
            pytest.param(http(429), {"parked": 1}, id="429"),
            pytest.param(http(429, b"", "Retry-After: 1e9"), {"parked": 1}, id="429 with a wait that is none"),
            pytest.param(
                http(429, b"", "Retry-After: 99999999999999999999"), {"parked": 1}, id="429 with too long a wait"
            ),
            pytest.param(
                http(429, b"", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"), {"parked": 1}, id="429 for ever"
            ),
            pytest.param(http(500, b"<h1>oops"), {"parked": 1}, id="500"),
            pytest.param(http(599), {"parked": 1}, id="599"),
            pytest.param(http(999), {"parked": 1}, id="999"),
            pytest.param(http(301, b"", "Location: http://127.0.0.1:1/"), {"held": 1}, id="301"),
            pytest.param(http(302, b"", "Location: /elsewhere"), {"held": 1}, id="302 to itself"),
            pytest.param(http(401), {"held": 1}, id="401"),
            pytest.param(http(403), {"held": 1}, id="403"),
            pytest.param(http(410), {"held": 1}, id="410"),
            pytest.param(http(400), {"dead": 1}, id="400"),
            pytest.param(http(413), {"dead": 1}, id="413"),
            pytest.param(http(422), {"dead": 1}, id="422"),
        ],
    )
    async def test_every_fault_has_its_end(
        self, store: Outbox, clock: SteppedClock, said: bytes | None, expected: dict[str, int]
    ):
        """
        Taken, waiting for another try, held or dead: by status where there is one, else waiting.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with partner(lambda *_: said) as peer, running(store, clock, lane, url=peer.url):
            await until(lambda: sums(store))
            found = sums(store)

        if "hold_reason" in found:
            found = {"held": 1, **{name: value for name, value in found.items() if name != "hold_reason"}}
        assert expected == found

    async def test_a_retry_sends_the_same_bytes(self, store: Outbox, clock: SteppedClock):
        """
        First from memory, then from disk: the body does not change by a byte.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with (
            partner(lambda n, _: http(200) if n == 4 else http(500)) as peer,
            running(store, clock, lane, url=peer.url),
        ):
            await until(lambda: sums(store).get("delivered"), lambda: clock.step(1))

        assert 4 == len(peer.bodies)
        assert 1 == len(set(peer.bodies))


class TestWhatADestinationReturns:
    """Its code is anybody's, and Python checks no types: nonsense costs its own events time or their end, never a lane."""

    @pytest.mark.parametrize(
        "said",
        [
            None,
            "delivered",
            Delivered,
            Rejected({"code": 422}),  # type: ignore[arg-type]
            Rejected(None),  # type: ignore[arg-type]
            Rejected("half a pair: \ud83d"),
            Rejected("closed", closes=Closed("for ever", "7d")),  # type: ignore[arg-type]
            Retry(["busy"], after=1.0),  # type: ignore[arg-type]
            Retry("busy", after="5"),  # type: ignore[arg-type]
            Hold({"plan": "none"}),  # type: ignore[arg-type]
            Split("someone", rejected=["e-1"]),  # type: ignore[arg-type]
            Delivered(rejected={0: {"field": "email"}}),  # type: ignore[dict-item]
        ],
        ids=repr,
    )
    async def test_an_outcome_that_is_none(self, store: Outbox, clock: SteppedClock, said: object):
        """
        The partner may have it or not: it waits for another try with a reason, the outbox goes on, and once the
        destination makes sense the events are delivered.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(2))
        outcomes = itertools.chain([said], itertools.repeat(Delivered()))
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, lane, url=peer.url, batch=2, say=lambda _: next(outcomes)),
        ):
            await until(lambda: sums(store))
            assert {"parked": 2} == sums(store)
            assert {("the answer could not be read",)} == set(asked(store, "SELECT reason FROM delivery"))
            await until(lambda: sums(store) == {"delivered": 2}, lambda: clock.step(1))

        assert store.failed is None

    async def test_numbers_without_end(self, store: Outbox, clock: SteppedClock):
        """
        A subject may be closed for as long as anybody cares: the outbox takes it, and the event has its end.
        """
        lane = await store.lane("about", "about")
        await store.append(many(1))
        rejected = Rejected("gone for good", closes=Closed("gone for good", 1e300))
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, lane, About, url=peer.url, say=lambda _: rejected),
        ):
            await until(lambda: sums(store))

        assert {"dead": 1} == sums(store)
        assert store.failed is None

    @pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()], ids=repr)
    async def test_a_fault_that_is_no_exception(self, store: Outbox, clock: SteppedClock, error: BaseException):
        """
        Not even sys.exit ends the process or the lane: what reads the answer has its events wait for another try, and what
        writes requests has one event end.
        """
        lane = await store.lane("odd", "odd")
        await store.append(many(10))
        answers = itertools.count()

        def say(response: Response) -> Outcome:
            if next(answers):
                return by_status(response)
            raise error

        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, lane, Odd, url=peer.url, batch=10, made=error, say=say),
        ):
            await until(lambda: sums(store).get("parked"))
            await until(lambda: sums(store).get("delivered") == 9, lambda: clock.step(1))

        assert {"delivered": 9, "dead": 1} == sums(store)

    @pytest.mark.parametrize("made", ["empty", "reason", "header", "body", "name"])
    async def test_a_mapping_that_makes_no_sense(self, store: Outbox, clock: SteppedClock, made: str):
        """
        The event that it is made of is dead and says so, a request that carries nobody is not sent, and the others go.
        """
        lane = await store.lane("odd", "odd")
        await store.append(many(10))
        async with (
            partner(lambda _, ids: http(200) if ids else http(400)) as peer,
            running(store, clock, lane, Odd, url=peer.url, batch=10, made=made),
        ):
            await until(lambda: sum(sums(store).get(name, 0) for name in ("delivered", "dead")) == 10)
            found = sums(store)

        assert [] not in peer.requests
        assert found == ({"delivered": 10} if made == "empty" else {"delivered": 9, "dead": 1})
        assert all("the mapping failed" in reason for (reason,) in asked(store, "SELECT reason FROM delivery"))
        assert store.failed is None


class TestNothingGetsLost:
    """Whatever goes wrong inside a lane, an event is sent, ends with a reason, or goes again."""

    async def test_one_event_that_a_partner_fails_at_takes_nobody_along(self, store: Outbox, clock: SteppedClock):
        """
        It answers 500 to every batch with this event, and takes what comes between: the event alone waits on, and its
        fifteen neighbours are delivered within the hour.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(16))
        async with (
            partner(lambda _, ids: http(500) if "e-7" in ids else http(200)) as peer,
            running(store, clock, lane, url=peer.url, batch=16),
        ):
            for fresh in range(100, 160):
                await store.append(many(1, start=fresh))
                await until(lambda fresh=fresh: f"e-{fresh}" in peer.seen)
                clock.step(60)
            await until(lambda: sums(store).get("delivered") == 75)

        assert {"delivered": 75, "parked": 1} == sums(store)

    async def test_events_behind_a_long_finished_stretch(self, store: Outbox, clock: SteppedClock):
        """
        One request hung while hundreds behind it were delivered, then the process died: the next one sends the first
        and what comes behind the finished stretch, without waiting for a new event.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(200))
        await store.settle(lane, [Mark(seqs=range(2, 151), state="delivered", at=NOW, attempts=1)])
        async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url):
            await until(lambda: sums(store).get("delivered") == 200)

            assert 51 == len(peer.requests)

    @pytest.mark.parametrize(
        "url",
        [
            pytest.param("https://partner.example:99999/", id="a port that is none"),
            pytest.param("https://[::1", id="half an address"),
            pytest.param("https://partner.example:port/", id="a port in words"),
        ],
    )
    async def test_an_address_that_is_none_is_seen(self, store: Outbox, clock: SteppedClock, url: str):
        """
        A wrong address holds the lane or ends its events with a reason; it never makes them vanish from view.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with running(store, clock, lane, url=url):
            await until(lambda: sums(store))

    @pytest.mark.parametrize(
        ("said", "wait"),
        [
            pytest.param({"after": float("inf")}, 500, id="for ever"),
            pytest.param({"after": float("nan")}, 500, id="not a number"),
            pytest.param({"after": -5.0}, 500, id="over already"),
            pytest.param({"after": 30.0}, 30_000, id="half a minute"),
            pytest.param({"after": 1e9}, 86_400_000, id="years"),
            pytest.param({"until": NOW + 45_000}, 45_000, id="an instant"),
            pytest.param({"until": NOW + 45_000, "after": 60.0}, 60_000, id="both"),
        ],
    )
    async def test_how_long_a_destination_may_have_it_wait(
        self, store: Outbox, clock: SteppedClock, said: dict[str, Any], wait: int
    ):
        """
        What it reads out of an answer counts where it can be waited for, a day at most; else our own schedule does.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with (
            partner(lambda *_: http(500)) as peer,
            running(store, clock, lane, url=peer.url, say=lambda _: Retry("later", **said)),
        ):
            await until(lambda: sums(store).get("parked") == 1)

        assert [(wait,)] == asked(store, "SELECT due - at FROM delivery")

    async def test_a_batch_that_falls_apart_while_it_is_bisected(self, store: Outbox, clock: SteppedClock):
        """
        The destination makes two requests of a half: all are sent, and only the bad one dies.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(4))
        async with (
            partner(lambda _, ids: http(400 if "e-3" in ids else 200)) as peer,
            running(store, clock, lane, Grouped, url=peer.url, batch=4),
        ):
            await until(lambda: sums(store) == {"delivered": 3, "dead": 1})

    async def test_a_batch_that_falls_apart_while_it_waits_for_its_turn(self, store: Outbox, clock: SteppedClock):
        """
        Written anew after its wait a request has become two: both are sent, each in its turn.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(4))
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, lane, Parting, url=peer.url, batch=2, rate="1/m"),
        ):
            await until(lambda: sums(store) == {"delivered": 4}, lambda: clock.step(5))

        assert [["e-1", "e-2"], ["e-3"], ["e-4"]] == peer.requests

    async def test_a_search_for_the_bad_one_keeps_the_rate(self, store: Outbox, clock: SteppedClock):
        """
        At one request a minute, the questions which half of a batch is bad are a minute apart as well.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(8))
        at: list[int] = []

        def answer(_: int, ids: list[str]) -> bytes:
            at.append(clock.now())
            return http(400 if "e-3" in ids else 200)

        async with partner(answer) as peer, running(store, clock, lane, url=peer.url, batch=8, rate="1/m"):
            await until(lambda: sums(store) == {"delivered": 7, "dead": 1}, lambda: clock.step(5))

        assert len(at) > 3
        # On a busy machine a request may arrive some steps of the clock after it left.
        assert all(later - sooner >= 30_000 for sooner, later in itertools.pairwise(at))

    async def test_a_search_for_the_bad_one_ends_with_a_hold(self, store: Outbox, clock: SteppedClock):
        """
        An operator holds the lane between two questions: no further one leaves, and after that nobody is missing.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(8))
        runners: list[LaneRunner] = []

        async def answer(n: int, ids: list[str]) -> bytes:
            if n == 2:
                await runners[0].hold("stop", "cli")
            return http(400 if "e-7" in ids else 200)

        async with partner(answer) as peer, running(store, clock, lane, url=peer.url, batch=8, timeout="5s") as runner:
            runners.append(runner)
            await until(lambda: "hold_reason" in sums(store))
            assert 2 == await quiet(lambda: len(peer.requests))
            await runner.resume("cli")
            await until(lambda: sums(store) == {"delivered": 7, "dead": 1})

    async def test_a_search_for_the_bad_one_sends_nobody_who_is_forgotten(self, store: Outbox, clock: SteppedClock):
        """
        Somebody of the batch is forgotten between two questions: no later one has her event.
        """
        lane = await store.lane("ids", "ids")
        jane = Person(user_id="u-jane")
        await store.append([*many(6), *rows(an_event("e-7", user=User(id="u-jane"))), *many(1, start=8)])

        async def answer(n: int, ids: list[str]) -> bytes:
            if n == 2:
                await store.erase([jane], "cli")
            return http(400 if "e-8" in ids else 200)

        async with partner(answer) as peer, running(store, clock, lane, url=peer.url, batch=8, timeout="5s"):
            await until(lambda: sums(store) == {"delivered": 6, "dead": 1, "erased": 1})

        assert [1] == [n for n, ids in enumerate(peer.requests, 1) if "e-7" in ids]

    async def test_a_partner_that_names_nobody_of_the_batch(self, store: Outbox, clock: SteppedClock):
        """
        An index out of range finds nobody: the batch is bisected, not sent again and again at once.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(4))

        def say(answer: Response) -> Outcome:
            return Split("bad", rejected={99: "bad"}) if answer.status == 400 else by_status(answer)

        async with (
            partner(lambda _, ids: http(400 if "e-3" in ids else 200)) as peer,
            running(store, clock, lane, url=peer.url, batch=4, say=say),
        ):
            await until(lambda: sums(store) == {"delivered": 3, "dead": 1} or len(peer.requests) > 50)

        assert 10 > len(peer.requests)

    async def test_a_partner_that_blames_a_batch_of_one(self, store: Outbox, clock: SteppedClock):
        """
        Somebody in it is bad, and there is only one: it is dead, and is not asked about again.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with (
            partner(lambda *_: http(400)) as peer,
            running(store, clock, lane, url=peer.url, batch=5, say=lambda _: Split("bad")),
        ):
            await until(lambda: sums(store) == {"dead": 1})
            await quiet(lambda: len(peer.requests))

        assert [["e-1"]] == peer.requests

    async def test_dropping_what_is_in_hand_forgets_nobody_else(self, store: Outbox, clock: SteppedClock):
        """
        One retry was refused and is dropped; another that became due in between is still sent.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(2))
        now = clock.now()
        early = Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now)
        later = Mark(seqs=[2], state="waiting", at=now, attempts=1, due=now + 5000)
        await store.settle(lane, [early, later])
        gate = asyncio.Event()

        async def refused_first(n: int, _: list[str]) -> bytes:
            await gate.wait()
            return http(401 if n == 1 else 200)

        async with partner(refused_first) as peer, running(store, clock, lane, url=peer.url, timeout="5s") as runner:
            await until(lambda: peer.requests)
            gate.set()
            await until(lambda: "hold_reason" in sums(store))
            assert 1 == await runner.drop(Selection(state="waiting", seqs=[1]), "cli")
            await runner.resume("cli")
            await until(lambda: ["e-2"] in peer.requests, lambda: clock.step(1))

    async def test_what_was_dropped_is_not_sent(self, store: Outbox, clock: SteppedClock):
        """
        Retries that wait in the lane's hand for a free slot are given up like the others.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(20))
        now = clock.now()
        await store.settle(lane, [Mark(seqs=range(1, 21), state="waiting", at=now, attempts=1, due=now)])
        gate = asyncio.Event()

        async def held_back(*_: object) -> bytes:
            await gate.wait()
            return http(200)

        async with (
            partner(held_back) as peer,
            running(store, clock, lane, url=peer.url, timeout="5s", concurrency=2) as runner,
        ):
            await until(lambda: len(peer.requests) == 2)
            await runner.drop(Selection(state="waiting"), "cli")
            gate.set()
            await quiet(lambda: len(peer.requests))

        assert 2 == len(peer.requests)

    async def test_an_error_while_the_log_is_read(self, store: Outbox, clock: SteppedClock):
        """
        A read that fails once is done again: the retry it was for is sent.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        now = clock.now()
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now)])
        await store.segments._reading(lambda: store.segments._file(store.segments.all[0]))
        connection, _ = store.segments._files[1]
        interrupted: list[None] = []

        def interrupt() -> int:
            interrupted.append(None)
            return 1

        await store.segments._reading(lambda: connection.set_progress_handler(interrupt, 1))
        async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url):
            await until(lambda: interrupted)
            await store.segments._reading(lambda: connection.set_progress_handler(None, 0))
            await until(lambda: peer.requests, lambda: clock.step(1))

    @pytest.mark.parametrize("fault", [DiskFull("full"), Busy("locked")], ids=["full", "busy"])
    async def test_a_look_for_what_is_due_is_done_again(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch, fault: Exception
    ):
        """
        The state could not be asked at that moment: the retry is sent once it can, though nothing else comes.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        now = clock.now()
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now)])

        failed = asyncio.Event()

        async def fails_once(_: object) -> None:
            monkeypatch.undo()
            failed.set()
            raise fault

        async with partner(lambda *_: http(200)) as peer:
            monkeypatch.setattr(store._state, "write", fails_once)
            async with running(store, clock, lane, url=peer.url):
                await failed.wait()
                await until(lambda: peer.requests, lambda: clock.step(1))

    async def test_an_error_while_the_state_is_read(self, store: Outbox, clock: SteppedClock):
        """
        The lane goes on, or the owner is told that the outbox failed; it does not end in silence.
        """
        told: list[object] = []
        store.on_failure = told.append
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        now = clock.now()
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now)])
        state = store._state._connection
        assert state is not None
        await store._state.read(lambda unit: unit.set_progress_handler(lambda: 1, 1))
        async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url):
            await quiet(lambda: len(peer.requests))
            state.set_progress_handler(None, 0)
            await until(lambda: told or peer.requests, lambda: clock.step(1))

    async def test_a_damaged_event_that_waits_for_a_retry_ends_visibly(self, store: Outbox, clock: SteppedClock):
        """
        Its bytes went bad between two tries: it is dead with the reason, the log says so, and the others arrive.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(3))
        now = clock.now()
        await store.settle(lane, [Mark(seqs=[1, 2, 3], state="waiting", at=now, attempts=1, due=now)])
        await store.journal._writer.read(lambda unit: unit.execute("UPDATE event SET crc = crc + 1 WHERE seq = 2"))
        with structlog.testing.capture_logs() as said:
            async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url):
                await until(lambda: sums(store) == {"delivered": 2, "dead": 1})

        ((reason,),) = asked(store, "SELECT reason FROM delivery WHERE state = 'dead'")
        assert reason == "the stored event is damaged or gone: run turnout doctor"
        assert [2] == [each["seq"] for each in said if each["event"] == "event_damaged"]

    async def test_who_is_forgotten_as_a_retry_is_taken_is_not_taken_for_damaged(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        An erasure between the look for what is due and the look into the log: erased, not damaged, and nothing is sent.
        """
        lane = await store.lane("ids", "ids")
        await store.append(rows(an_event(user=User(id="u-jane"))))
        now = clock.now()
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now)])
        pick = store.pick

        async def forgotten_first(seqs: Sequence[int]) -> list[Any]:
            monkeypatch.undo()
            await store.erase([Person(user_id="u-jane")], "cli")
            return await pick(seqs)

        monkeypatch.setattr(store, "pick", forgotten_first)
        with structlog.testing.capture_logs() as said:
            async with (
                partner(lambda *_: http(200)) as peer,
                running(store, clock, lane, url=peer.url) as runner,
            ):
                await until(lambda: sums(store) == {"erased": 1})
                parked = await quiet(lambda: {*runner._hand.parked})

        assert [set(), []] == [parked, peer.requests]
        assert "event_damaged" not in {each["event"] for each in said}

    async def test_who_is_forgotten_before_she_is_read_is_not_taken_for_damaged(
        self, store: Outbox, clock: SteppedClock
    ):
        """
        An empty place in the log is no alarm: the delivery ends as erased, and nothing else is said of it.
        """
        lane = await store.lane("ids", "ids")
        await store.append([*many(2), *rows(an_event("e-3", user=User(id="u-jane")))])
        await store.erase([Person(user_id="u-jane")], "cli")
        with structlog.testing.capture_logs() as said:
            async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url):
                await until(lambda: sums(store) == {"delivered": 2, "erased": 1})

        assert "event_damaged" not in {each["event"] for each in said}

    async def test_who_asks_a_full_outbox_may_stop(self, store: Outbox, clock: SteppedClock):
        """
        A question waits while the disk is full; it ends with who asks, and where the outbox has failed for good.
        """

        async def full() -> None:
            raise DiskFull("full")

        async with asyncio.timeout(5):
            with pytest.raises(DiskFull):
                await patiently(full, store, clock, lambda: True)
            asking = asyncio.create_task(patiently(full, store, clock))
            await clock.somebody_sleeps()
            store._break(Broken("the disk"))
            clock.step(1)
            with pytest.raises(DiskFull):
                await asking

    async def test_a_drop_that_met_a_full_disk_is_whole_or_not_at_all(self, store: Outbox, clock: SteppedClock):
        """
        What could not be written down as dropped still waits; no cursor passes it without an end.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(3000))
        pages = await store._state.read(lambda unit: unit.execute("PRAGMA page_count").fetchone()[0])
        await store._state.read(lambda unit: unit.execute(f"PRAGMA max_page_count = {pages}").fetchone())
        drop = asyncio.create_task(store.drop(lane, Selection(state="waiting"), range(1, 3001), "cli"))
        await quiet(drop.done)
        await store._state.read(lambda unit: unit.execute("PRAGMA max_page_count = 1000000").fetchone())
        clock.step(1)
        await asyncio.wait({drop}, timeout=5)
        await store.append(many(1, start=9000))
        await store.settle(lane, [Mark(seqs=[3001], state="delivered", at=NOW, attempts=1)])

        ((cursor, ended),) = asked(store, "SELECT cursor, delivered + dead FROM lane")
        assert (cursor, ended) in {(0, 1), (3001, 3001)}
        assert drop.done()


class TestHolding:
    async def test_a_wrong_address_is_held_for_batches_too(self, store: Outbox, clock: SteppedClock):
        """
        404 on every batch, and on every part of it: the lane is held before more than a few events are dead.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(100))
        async with (
            partner(lambda *_: http(404)) as peer,
            running(store, clock, lane, url=peer.url, batch=10, concurrency=1),
        ):
            await until(lambda: "hold_reason" in sums(store) or sums(store).get("dead") == 100)
            found = sums(store)

        assert "hold_reason" in found
        assert 5 >= found.get("dead", 0)

    async def test_a_hold_beside_a_pause_is_probed(self, store: Outbox, clock: SteppedClock):
        """
        One answer asks for an hour, another refuses the key: after that hour the lane looks again by itself.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(80))
        both = asyncio.Event()

        async def answer(n: int, _: list[str]) -> bytes:
            if n == 1:
                await both.wait()
                return http(429, b"", "Retry-After: 3600")
            both.set()
            return http(401 if n == 2 else 200)

        async with (
            partner(answer) as peer,
            running(store, clock, lane, url=peer.url, concurrency=2, timeout="5s"),
        ):
            await until(lambda: sums(store).keys() == {"parked", "hold_reason"})
            await until(lambda: sums(store).get("delivered") == 80, lambda: clock.step(30))

    async def test_an_address_of_nobody(self, store: Outbox, clock: SteppedClock):
        """
        An address that cannot be dialled is wrong for every event: it holds the lane, which gives none of them up.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(3))
        async with running(store, clock, lane, url="https://hooks..example/in"):
            await until(lambda: "hold_reason" in sums(store))

        assert {"hold_reason": "no server can have this address: correct url or base_url"} == sums(store)

    async def test_a_hold_that_ended_already_is_no_loop(self, store: Outbox, clock: SteppedClock):
        """
        A partner whose quota "resets" in the past is not asked again and again at once.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(3))

        def say(answer: Response) -> Outcome:
            return Hold("quota", until=answer.at - 1000)

        async with (
            partner(lambda *_: http(402)) as peer,
            running(store, clock, lane, url=peer.url, say=say, concurrency=1),
        ):
            await until(lambda: "hold_reason" in sums(store))
            for _ in range(30):
                await asyncio.sleep(0.01)

        assert 2 >= len(peer.requests)

    async def test_a_pause_holds_back_what_waits_for_its_turn(self, store: Outbox, clock: SteppedClock):
        """
        With a rate set, requests that wait for it do not leave once the partner has said Retry-After.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(20))
        async with (
            partner(lambda *_: http(429, b"", "Retry-After: 60")) as peer,
            running(store, clock, lane, url=peer.url, rate="10/s", concurrency=16, timeout="5s"),
        ):
            await until(lambda: peer.requests)
            before = await quiet(lambda: len(peer.requests))
            for _ in range(50):
                clock.step(1)
                await asyncio.sleep(0.005)
            after = await quiet(lambda: len(peer.requests))

        assert 10 >= before == after

    async def test_a_hold_keeps_back_what_waits_for_its_turn(self, store: Outbox, clock: SteppedClock):
        """
        What waits for the rate when an operator holds the lane leaves after the resumption, and not before.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(3))
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, lane, url=peer.url, rate="1/m") as runner,
        ):
            await until(lambda: sums(store) == {"delivered": 1})
            await clock.somebody_sleeps()
            await runner.hold("stop", "cli")
            clock.step(120)
            await until(lambda: sum(len(jobs) for jobs in runner._hand.again) == 2)
            assert 1 == len(peer.requests)
            await runner.resume("cli")
            await until(lambda: sums(store) == {"delivered": 3}, lambda: clock.step(5))

    async def test_time_spent_held_is_not_held_against_an_event(self, store: Outbox, clock: SteppedClock):
        """
        One fault, then four days without credentials: once they are back the event is sent, not expired.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        now = clock.now()
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now + 1000)])
        await store.hold(lane, Held(reason="credentials", by="partner", at=now, until=now + 96 * HOUR))
        async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url):
            clock.step(96 * 3600)
            await until(lambda: sums(store).get("delivered") or sums(store).get("dead"), lambda: clock.step(1))

            assert 1 == sums(store).get("delivered")

    async def test_time_in_which_nothing_ran_is_not_held_against_an_event(self, tmp_path: Path, clock: SteppedClock):
        """
        One fault, then the machine is off for a week (or its clock comes up wrong): the event is sent, not expired.
        """
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        now = clock.now()
        tried = Attempt(seqs=[1], began=now, at=now, outcome="retry", status=503)
        await store.settle(lane, [Mark(seqs=[1], state="waiting", at=now, attempts=1, due=now + 1000)], [tried])
        await store.close()
        clock.step(7 * 24 * 3600)
        again = await Outbox.open(tmp_path / "outbox", clock)
        lane = await again.lane("ids", "ids")
        async with partner(lambda *_: http(200)) as peer, running(again, clock, lane, url=peer.url):
            await until(lambda: sums(again).get("delivered") or sums(again).get("dead"), lambda: clock.step(1))
            delivered = sums(again).get("delivered")
        await again.close()

        assert 1 == delivered

    async def test_an_operator_may_try_again_after_days(self, store: Outbox, clock: SteppedClock):
        """
        Rejected on Monday, the mapping corrected on Friday: retry sends it.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        await store.settle(lane, [Mark(seqs=[1], state="dead", at=NOW, attempts=1, reason="HTTP 400")])
        clock.step(96 * 3600)
        async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url) as runner:
            assert 1 == await runner.retry(Selection(state="dead"), "cli")
            await until(lambda: sums(store).get("delivered"))

    async def test_a_clock_that_is_set_back_does_not_freeze_a_lane(self, store: Outbox, clock: SteppedClock):
        """
        The machine's clock was a year ahead while the partner asked for a second.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with (
            partner(lambda n, _: http(429, b"", "Retry-After: 1") if n == 1 else http(200)) as peer,
            running(store, clock, lane, url=peer.url),
        ):
            await until(lambda: sums(store).get("parked"))
            clock.jump(-365 * 24 * 3600)
            await until(lambda: sums(store).get("delivered"), lambda: clock.step(60))

    async def test_a_clock_that_is_set_back_expires_nothing(self, store: Outbox, clock: SteppedClock):
        """
        A year is taken back while a request is under way that fails: the event is tried again.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))

        def answer(n: int, _: list[str]) -> bytes:
            if n == 1:
                clock.jump(-365 * 24 * 3600)
            return http(503 if n == 1 else 200)

        async with partner(answer) as peer, running(store, clock, lane, url=peer.url):
            await until(lambda: sums(store).get("delivered") or sums(store).get("dead"), lambda: clock.step(1))

            assert 1 == sums(store).get("delivered")

    async def test_a_clock_that_is_set_back_while_a_lane_sleeps(self, store: Outbox, clock: SteppedClock):
        """
        The partner asks for an hour; after half of it the clock goes back by a quarter: an hour it is.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        began = clock.monotonic()
        async with (
            partner(lambda n, _: http(429, b"", "Retry-After: 3600") if n == 1 else http(200)) as peer,
            running(store, clock, lane, url=peer.url),
        ):
            await until(lambda: sums(store).get("parked"))
            await until(lambda: lane.next_due not in {None, 0})
            await clock.somebody_sleeps()
            clock.step(1800)
            clock.jump(-900)
            await until(lambda: sums(store).get("delivered"), lambda: clock.step(10))

        assert 3600 <= clock.monotonic() - began < 3700

    async def test_a_clock_that_is_set_back_does_not_stop_a_rate(self, store: Outbox, clock: SteppedClock):
        """
        An hour is taken back between two seconds' worth of requests: the second leaves in its second.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(10))
        async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url, rate="10/s"):
            await until(lambda: sums(store).get("delivered") == 10)
            clock.jump(-3600)
            began = clock.monotonic()
            await store.append(many(10, start=11))
            await until(lambda: sums(store).get("delivered") == 20, lambda: clock.step(0.1))

        assert 5 > clock.monotonic() - began

    async def test_a_clock_that_is_set_forward_expires_nothing(self, store: Outbox, clock: SteppedClock):
        """
        A year goes by on the wall while an event waits a second: it is sent, for its time is not over.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with (
            partner(lambda n, _: http(503 if n == 1 else 200)) as peer,
            running(store, clock, lane, url=peer.url),
        ):
            await until(lambda: sums(store).get("parked"))
            clock.jump(365 * 24 * 3600)
            await until(lambda: sums(store).get("delivered") or sums(store).get("dead"), lambda: clock.step(60))

            assert 1 == sums(store).get("delivered")


class TestNeighbours:
    async def test_a_lane_that_filters_everything_lets_others_run(self, store: Outbox, clock: SteppedClock):
        """
        While it passes over a long backlog in memory, other work of the process goes on.
        """
        lane = await store.lane("ids", "ids")
        for start in range(0, 9000, 900):
            await store.append(many(900, start=start))
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        neighbour = asyncio.create_task(other())
        await asyncio.sleep(0)
        async with running(store, clock, lane, url="https://partner.example/", events=("never",)) as runner:
            before = turns
            await until(lambda: runner._taking.taken == 9000)
            after = turns
        neighbour.cancel()

        assert 9000 // 64 // 2 < after - before

    async def test_a_lane_that_waits_for_the_disk_does_not_spin(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        What partners answered cannot be written down: the lane sends no more and starts no worker, until it can be.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(200))
        settle, space, full, started = store.settle, asyncio.Event(), asyncio.Event(), Counter[bool]()

        async def waits(*args: Any, **more: Any) -> None:
            await space.wait()
            await settle(*args, **more)

        monkeypatch.setattr(store, "settle", waits)
        async with partner(lambda *_: http(200)) as peer, running(store, clock, lane, url=peer.url) as runner:
            work = runner._sending._work

            async def counted() -> None:
                started[full.is_set()] += 1
                await work()

            monkeypatch.setattr(runner._sending, "_work", counted)
            await until(lambda: not runner._sending.settled_enough() and not runner._sending.under_way)
            full.set()
            for _ in range(100):
                await asyncio.sleep(0)
            assert 0 == started[True]
            space.set()
            await until(lambda: sums(store).get("delivered") == 200)

    async def test_one_blip_is_one_failure(self, store: Outbox, clock: SteppedClock):
        """
        Sixteen requests under way fail at the same moment: the lane waits seconds, not a quarter of an hour.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(16))
        together = asyncio.Event()

        async def fail(n: int, _: list[str]) -> bytes:
            if n == 16:
                together.set()
            await together.wait()
            return http(503)

        async with (
            partner(fail) as peer,
            running(store, clock, lane, url=peer.url, concurrency=16, timeout="5s") as runner,
        ):
            await until(lambda: sums(store).get("parked") == 16)

            assert 10 > runner._gate.closed_for(clock.now())


class TestForgotten:
    async def test_what_was_written_before_is_written_anew(
        self, store: Outbox, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
    ):
        """
        Her request is ready when the lane reads on, and she is forgotten meanwhile: it does not leave with those that follow.
        """
        lane = await store.lane("ids", "ids")
        await store.append([*many(60), *rows(an_event("hers", user=User(id="u-jane"))), *many(60, start=100)])
        read, looks = store.read, itertools.count(1)

        async def forgotten_at_the_second(*asked: Any, **more: Any) -> Sequence[Any]:
            if next(looks) == 2:
                await store.erase([Person(user_id="u-jane")], "cli")
            return await read(*asked, **more)

        monkeypatch.setattr(store, "read", forgotten_at_the_second)
        async with (
            partner(lambda *_: http(200)) as peer,
            running(store, clock, lane, url=peer.url, batch=1, concurrency=1, timeout="5s"),
        ):
            await until(lambda: sums(store) == {"delivered": 120, "erased": 1})

        assert "hers" not in peer.seen


class TestLeaks:
    TOKEN = "canary-abcdefghijklmnopqrstuvwxyz/+="

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(TOKEN.encode(), id="as it is"),
            pytest.param(b"x" * (4096 - len(TOKEN) + 1) + TOKEN.encode(), id="where the text is cut"),
            pytest.param(TOKEN.replace("/", "\\/").encode(), id="as JSON of PHP"),
            pytest.param(b"canary-abcdefghijklmnopqrstuvwxyz%2F%2B%3D", id="as part of a URL"),
            pytest.param(b"visitor 203.0.113.77 with CanaryBrowser/9", id="what partners need readable"),
            pytest.param(b"x" * 4090 + b"203.0.113.77", id="an address where the text is cut"),
            pytest.param(b"x " * 2040 + b"jane.canary@example.com", id="an e-mail address where the text is cut"),
        ],
    )
    async def test_an_echo_is_not_kept(self, store: Outbox, clock: SteppedClock, body: bytes):
        """
        What a partner repeats of our key or of the visitor is not in the answer that people are shown.
        """
        lane = await store.lane("ids", "ids")
        clear = Clear(ip="203.0.113.77", user_agent="CanaryBrowser/9")
        await store.append(rows(an_event(clear=clear)))
        async with (
            partner(lambda *_: http(400, body)) as peer,
            running(store, clock, lane, url=peer.url, token=Secret(self.TOKEN)),
        ):
            await until(lambda: sums(store).get("dead"))
        ((answer,),) = asked(store, "SELECT answer FROM attempt")

        assert not any(canary in answer for canary in ("canary", "Canary", "203.0"))

    async def test_a_key_in_a_table_is_not_kept_either(self, store: Outbox, clock: SteppedClock):
        """
        A partner's settings may hold several keys by name; none of them is in an answer that repeats it.
        """
        lane = await store.lane("ids", "ids")
        await store.append(many(1))
        async with (
            partner(lambda *_: http(400, self.TOKEN.encode())) as peer,
            running(store, clock, lane, url=peer.url, keys={"eu": Secret(self.TOKEN)}),
        ):
            await until(lambda: sums(store).get("dead"))
        ((answer,),) = asked(store, "SELECT answer FROM attempt")

        assert answer == "***"

    @pytest.mark.parametrize(
        ("said", "say", "expected"),
        [
            pytest.param(200, None, {"delivered": 2}, id="both taken"),
            pytest.param(503, None, {"erased": 1, "parked": 1}, id="to be tried again"),
            pytest.param(400, None, {"erased": 1, "dead": 1}, id="refused without a name"),
            pytest.param(400, Rejected("no"), {"erased": 1, "dead": 1}, id="both refused"),
            pytest.param(400, Split("no", {0: "no"}), {"erased": 1, "dead": 1}, id="hers is named"),
            pytest.param(200, Delivered(rejected={0: "no"}), {"erased": 1, "delivered": 1}, id="all but hers"),
        ],
    )
    async def test_who_is_forgotten_meanwhile_is_in_no_answer(
        self, store: Outbox, clock: SteppedClock, said: int, say: Outcome | None, expected: dict[str, int]
    ):
        """
        She is forgotten while her event is under way: unless the partner took it, it is erased and not dead or waiting,
        and what the partner said of her is not kept.
        """
        lane = await store.lane("ids", "ids")
        await store.append([*rows(an_event("e-1", user=User(id="u-jane"))), *many(1, start=2)])

        async def answer(n: int, ids: list[str]) -> bytes:
            if n == 1:
                await store.erase([Person(user_id="u-jane")], "cli")
            return http(said, b"u-jane is not known" if "e-1" in ids else b"")

        def means(answer: Response) -> Outcome:
            return say if say is not None and len(answer.request.events) == 2 else by_status(answer)

        async with (
            partner(answer) as peer,
            running(store, clock, lane, url=peer.url, batch=2, timeout="5s", say=means),
        ):
            await until(lambda: sums(store) == expected)

        assert [] == asked(store, "SELECT answer FROM attempt WHERE answer LIKE '%jane%'")
