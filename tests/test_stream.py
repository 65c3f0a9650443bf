"""The live stream of the console, over real HTTP: every event once and in order, however it is read."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from destinations.webhook import Webhook
from router.app import App
from router.clock import SystemClock
from router.console import guard, stream
from router.console.stream import Notice, Notices
from router.delivery.engine import Delivery
from router.destination import Destination
from router.event import Clear, Consent, Digests, User
from router.mocks.partner import Trouble, running
from router.mocks.webhook import Webhook as Receiver
from router.outbox.disk import schema
from router.outbox.disk.writer import connect
from router.outbox.log import entries
from router.outbox.log.entries import KEPT, Segment
from router.outbox.log.tail import Tail
from router.outbox.log.vault import Vault
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import Gap
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.selections import Selection
from router.secret import Secret
from router.settings import Console
from tests.builders import NOW, an_event, many, rows
from tests.running import ANYWHERE, KEY, collect_url, running_app, settings
from tests.stepped import SteppedClock

SIGNING = Secret("whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD")


class Hook(Webhook, tag="hook", frozen=True, kw_only=True):
    """A partner that knows people by two things."""

    identifiers: ClassVar[dict[str, tuple[str, ...]]] = {  # type: ignore[misc]  # a plain dict will do here
        "em": ("user.digests.email",),
        "click": ("clicks.ScCid",),
    }


def hook(url: str, **fields: Any) -> Hook:
    return Hook(**{"url": f"{url}/hook", "secrets": (SIGNING,), "allow_private": True, **fields})


Message = dict[str, Any]


class Listener:
    """An open stream: its messages as programs get them."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.lines: list[str] = []
        self.ids: list[int] = []

    async def message(self) -> Message | None:
        """The next message; None at the end of the stream."""
        fields: dict[str, str] = {}
        while raw := await self.answer.content.readline():
            line = raw.decode()
            self.lines.append(line)
            if line != "\n":
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value
                continue
            if "id" in fields:
                self.ids.append(int(fields["id"]))
            if "data" in fields:
                message: Message = msgspec.json.decode(fields["data"])
                assert fields["event"] == message["event"]
                return message
            fields = {}
        return None

    async def take(self, count: int, kind: str | None = None) -> list[Message]:
        """Messages up to the one that is the ``count``-th, of its kind or of all."""
        found: list[Message] = []
        async with asyncio.timeout(30):
            while count and (message := await self.message()):
                found.append(message)
                count -= kind in {None, message["event"]}
        return found

    async def events(self, count: int) -> list[Message]:
        return [each for each in await self.take(count, "accepted") if each["event"] == "accepted"]

    async def deliveries(self, count: int) -> list[Message]:
        return [each for each in await self.take(count, "delivery") if each["event"] == "delivery"]


@contextlib.asynccontextmanager
async def listening(app: App, query: str = "", **headers: str) -> AsyncIterator[Listener]:
    address = f"http://127.0.0.1:{app.console_port}/api/v1/stream?{query}"
    async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as answer:
        assert 200 == answer.status, await answer.text()
        listener = Listener(answer)
        assert b": so far\n" == await answer.content.readline()
        yield listener


def seqs(messages: list[Message]) -> list[int]:
    return [each["seq"] for each in messages]


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running_app(settings(tmp_path)) as app:
        yield app


@contextlib.asynccontextmanager
async def delivering(tmp_path: Path, *trouble: Trouble, **fields: Any) -> AsyncIterator[tuple[App, Receiver]]:
    """The application with the destination "hook" and its fake partner."""
    receiver = Receiver(now=SystemClock().now)
    receiver.trouble = list(trouble)
    async with running(receiver) as url:
        chosen: dict[str, Destination] = {"hook": hook(url, **fields)}
        async with running_app(settings(tmp_path, destinations=chosen)) as app:
            yield app, receiver


async def send(app: App, first: int, count: int) -> None:
    """So many events in one request, as a sender sends them."""
    batch = [{"event_name": "page_view", "event_id": f"e-{number}"} for number in range(first, first + count)]
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{collect_url(app)}/collect", json={"batch": batch}) as answer,
    ):
        assert count == (await answer.json())["accepted"]


class TestUnsampled:
    async def test_every_event_once_and_in_order(self, tmp_path: Path):
        """
        2 000 events are sent and delivered while a reader stops to read; it then finds every one, once and in order,
        and every delivery behind its event.
        """
        async with delivering(tmp_path, batch=50) as (app, receiver), listening(app) as listener:
            await send(app, 1, 250)
            found = await listener.take(40)
            for first in range(251, 2001, 250):
                await send(app, first, 250)
            await receiver.wait_for_events(2000)
            found += await listener.take(4000 - 40)

        assert list(range(1, 2001)) == seqs([each for each in found if each["event"] == "accepted"])
        told: set[int] = set()
        for each in found:
            if each["event"] == "accepted":
                told.add(each["seq"])
            else:
                assert each["seq"] in told
                assert ("hook", "delivered", f"e-{each['seq']}") == (each["to"], each["state"], each["id"])
        assert set(range(1, 2001)) == {each["seq"] for each in found if each["event"] == "delivery"}

    async def test_from_the_beginning(self, app: App):
        """
        With after=0 all that is stored is read from the log, beyond what memory holds, and then what comes.
        """
        for first in range(1, 18_001, 3_000):
            await app.store.append(many(3_000, first))
        async with listening(app, "after=0") as listener:
            assert list(range(1, 18_001)) == seqs(await listener.events(18_000))
            await app.store.append(many(1, 18_001))
            assert [18_001] == seqs(await listener.events(1))

    async def test_from_now(self, app: App):
        """
        Without a place to begin, what was there before is not told.
        """
        await app.store.append(many(3))
        async with listening(app) as listener:
            await app.store.append(many(2, 4))
            assert [4, 5] == seqs(await listener.events(2))

    async def test_a_place_that_is_not_there_yet(self, app: App):
        """
        A number beyond the log, as of another outbox, is now: nothing that comes is left out.
        """
        async with listening(app, "after=1000") as listener:
            await app.store.append(many(1))
            assert [1] == seqs(await listener.events(1))

    async def test_damaged_bytes(self, tmp_path: Path):
        """
        An event whose bytes are damaged is told by its number, so that none is missing.
        """
        store = await Outbox.open(tmp_path / "outbox", SteppedClock())
        await store.append(many(3))
        await store.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox" / "log" / "00000001.db")) as connection:
            connection.execute("UPDATE event SET payload = x'7b7d' WHERE seq = 2")
            connection.commit()
        async with running_app(settings(tmp_path)) as app, listening(app, "after=0&source=shop") as listener:
            found = await listener.events(3)

        assert [(1, False), (2, True), (3, False)] == [(each["seq"], each["damaged"]) for each in found]


class TestResume:
    async def test_nothing_is_missed(self, tmp_path: Path):
        """
        Who comes back with Last-Event-ID is told the events behind it, once, and how the deliveries of those before stand.
        """
        async with delivering(tmp_path) as (app, receiver):
            async with listening(app) as listener:
                await send(app, 1, 5)
                await listener.events(5)
            await send(app, 6, 5)
            await receiver.wait_for_events(10)
            await until(lambda: app.store.lanes["hook"].written == 10)
            async with listening(app, "after=1", **{"Last-Event-ID": str(listener.ids[-1])}) as listener:
                found = await listener.take(15)

        assert [6, 7, 8, 9, 10] == seqs([each for each in found if each["event"] == "accepted"])
        deliveries = [each for each in found if each["event"] == "delivery"]
        assert list(range(1, 11)) == sorted(seqs(deliveries))
        assert {True} == {each["earlier"] for each in deliveries}

    async def test_where_nothing_was_for_it(self, app: App, monkeypatch: pytest.MonkeyPatch):
        """
        A heartbeat without a message says how far it is, so that nothing is looked through twice.
        """
        monkeypatch.setattr(stream, "HEARTBEAT", 0.05)
        async with listening(app, "source=nobody") as listener:
            await app.store.append(many(3))
            async with asyncio.timeout(10):
                while b"id: 3\n" != await listener.answer.content.readline():
                    pass

    async def test_how_it_stands_is_as_it_was_told(self, store: Outbox):
        """
        The end of a delivery looked up on the files is that of its settlement: rows, runs, parts of runs, duplicates.
        """
        lane = await store.lane("links", "linktrace")
        await store.append(many(9))
        marks = [
            Mark(seqs=[1, 2, 3, 4], state="delivered", at=NOW, attempts=1, status=200),
            Mark(seqs=[5], state="delivered", at=NOW, attempts=1, status=200, duplicate=True),
            Mark(seqs=[6], state="filtered", at=NOW, reason="not wanted"),
            Mark(seqs=[7], state="waiting", at=NOW, attempts=1, due=NOW + 5000, status=503, reason="HTTP 503"),
            Mark(seqs=[8], state="dead", at=NOW, attempts=1, status=400, reason="HTTP 400"),
        ]
        attempt = Attempt(seqs=[7], began=NOW, at=NOW, outcome="retry", status=503)
        await store.settle(lane, marks, [attempt])
        reader = Reader(store.directory)

        found = await reader.settled(2, 9)
        assert [2, 3, 4, 5, 6, 7, 8] == [each.seq for each in found]
        told = {
            seq: stream._settled(stream.Notice(seq, "links", mark)) for mark in marks for seq in mark.seqs if seq > 1
        }
        assert [msgspec.structs.replace(told[each.seq], earlier=True) for each in found] == found
        assert [] == await reader.settled(1, 9, "nobody")
        assert [3] == [each.seq for each in await reader.settled(3, 3, "links")]
        assert [8, 9] == [each.seq for each in await reader.following(7)]
        assert 9 == await reader.last()

    async def test_what_is_told_anyway_is_not_looked_up(self, store: Outbox, clock: SteppedClock):
        """
        A delivery that is settled while its event is still to be read again is told once, as it happened.
        """
        lane = await store.lane("links", "linktrace")
        await store.append(many(3))
        await store.settle(lane, [Mark(seqs=[1], state="dead", at=NOW)])
        feed = stream.Feed(Reader(store.directory), store, Delivery(store, clock))
        late = stream.Stream(feed, stream.Question(after=0))
        store.watchers.add(late)
        await store.settle(lane, [Mark(seqs=[2], state="dead", at=NOW)])
        async with contextlib.aclosing(late.chunks()) as chunks:
            told = b"".join([await anext(chunks), await anext(chunks)])

        assert [b"1", b"2"] == re.findall(rb'"delivery","seq":(\d)', told)
        assert [b"true", b"false"] == re.findall(rb'"earlier":(\w+)', told)

    async def test_over_many_segments(self, tmp_path: Path, clock: SteppedClock):
        """
        The events behind any other are read in order, in whichever segment files they are.
        """
        outbox = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        for number in range(1, 8):
            await outbox.append(many(1, number))
        reader = Reader(outbox.directory)

        for after in range(8):
            assert list(range(after + 1, 8)) == [each.seq for each in await reader.following(after)]
            assert list(range(after + 1, min(after + 3, 7) + 1)) == [
                each.seq for each in await reader.following(after, 3)
            ]
        await outbox.close()

    @pytest.mark.parametrize("kept", [(), (2, 3)], ids=["nothing kept", "some kept"])
    async def test_events_that_are_gone(self, tmp_path: Path, clock: SteppedClock, kept: tuple[int, ...]):
        """
        Where segments were retired, what is left of them and what follows is told, and how many are gone.
        """
        outbox = await Outbox.open(tmp_path / "outbox", clock, segment_events=3)
        for number in range(1, 9):
            await outbox.append(many(1, number))
        outbox.journal.tail = Tail()
        del outbox.segments.all[:2]
        home = Segment(number=KEPT, first=1, opened=0, key=None, sealed=1)
        outbox.segments.all.insert(0, home)
        with contextlib.closing(connect(home.path(outbox.directory), schema.LOG)) as connection:
            for number in kept:
                entries.append(connection, number, many(1, number), Vault(None), 0)
        feed = stream.Feed(Reader(outbox.directory), outbox, Delivery(outbox, clock))
        late = stream.Stream(feed, stream.Question(after=0))
        told = b""
        while late._position < 8:
            told += await late._events()
        await outbox.close()

        assert [*kept, 7, 8] == [int(seq) for seq in re.findall(rb'"accepted","seq":(\d)', told)]
        assert 6 - len(kept) == sum(int(count) for count in re.findall(rb'"left_out":(\d),"of":"events"', told))


class TestFilters:
    async def test_of_one_source_and_name(self, app: App):
        """
        source and name leave the other events out, and take none away.
        """
        async with listening(app, "source=blog&name=purchase") as listener:
            await app.store.append(
                rows(
                    *(
                        an_event(f"{source}-{name}-{n}", source=source, name=name)
                        for n in range(3)
                        for source in ("shop", "blog")
                        for name in ("purchase", "page_view")
                    )
                )
            )
            found = await listener.events(3)

        assert [f"blog-purchase-{n}" for n in range(3)] == [each["id"] for each in found]

    async def test_of_one_destination(self, tmp_path: Path):
        """
        to leaves the deliveries and matches of other destinations out, and no event.
        """
        async with contextlib.AsyncExitStack() as stack:
            receivers = [Receiver(now=SystemClock().now) for _ in range(2)]
            urls = [await stack.enter_async_context(running(each)) for each in receivers]
            chosen: dict[str, Destination] = {"one": hook(urls[0]), "two": hook(urls[1])}
            app = await stack.enter_async_context(running_app(settings(tmp_path, destinations=chosen)))
            both = await stack.enter_async_context(listening(app))
            one = await stack.enter_async_context(listening(app, "to=one"))
            await send(app, 1, 20)
            everything = await both.take(60)
            found = await one.take(40)

        assert {"one", "two"} == {each["to"] for each in everything if each["event"] == "delivery"}
        assert {"one"} == {each["to"] for each in found if each["event"] == "delivery"}
        assert [{"one", "two"}, {"one"}] == [
            {name for each in all_ for name in each.get("matches", ())} for all_ in (everything, found)
        ]

    async def test_deliveries_of_one_source(self, tmp_path: Path):
        """
        The deliveries of a source that is not asked for are left out too, of events that came before the stream as well.
        """
        async with delivering(tmp_path) as (app, _):
            lane = app.store.lanes["hook"]
            await app.delivery.lanes["hook"].hold("wait", "test")
            await app.store.append(rows(*(an_event(f"e-{n}", source="blog" if n % 2 else "shop") for n in range(6))))
            async with listening(app, "source=blog") as listener:
                await app.store.settle(lane, [Mark(seqs=range(1, 7), state="dead", at=NOW, reason="no")])
                found = await listener.deliveries(3)

        assert ["e-1", "e-3", "e-5"] == [each["id"] for each in found]

    @pytest.mark.parametrize(
        ("query", "status", "code"),
        [
            ("to=nobody", 404, "unknown_destination"),
            ("after=x", 400, "invalid"),
            ("after=-1", 400, "invalid"),
            ("sorce=shop", 400, "unknown_field"),
        ],
    )
    async def test_what_cannot_be_asked(self, app: App, query: str, status: int, code: str):
        """
        A destination that is not there, a place that is none and a typo are refused before anything streams.
        """
        address = f"http://127.0.0.1:{app.console_port}/api/v1/stream?{query}"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            assert (status, code) == (answer.status, (await answer.json())["code"])


class TestMessages:
    async def test_an_event(self, tmp_path: Path):
        """
        An event is told with its mark, why, and how well each destination that is to get it could match it.
        """
        event = an_event(
            "e-1",
            name="purchase",
            notes=("own_id",),
            test=None,
            user=User(digests=Digests(email="a" * 64)),
            consent=Consent(known=True),
        )
        async with delivering(tmp_path) as (app, _), listening(app) as listener:
            await app.store.append(rows(event))
            (told,) = await listener.events(1)

        assert ["no_value", "no_currency", "own_id"] == [each["code"] for each in told["quality"].pop("reasons")]
        expected = {
            "event": "accepted",
            "seq": 1,
            "id": "e-1",
            "name": "purchase",
            "source": "shop",
            "dialect": "plain",
            "kind": "track",
            "received": "2026-11-18T11:06:40Z",
            "time": "2026-11-18T11:06:40Z",
            "quality": {"level": "poor"},
            "matches": {
                "hook": {
                    "level": "fair",
                    "carried": ["em"],
                    "missing": ["click"],
                    "addition": "send the click id ScCid",
                }
            },
            "notes": ["own_id"],
            "test": False,
            "damaged": False,
            "erased": False,
        }
        assert expected == told

    async def test_who_is_not_to_get_it_matches_nothing(self, tmp_path: Path):
        """
        A destination that an event is not routed to has no match for it; its delivery says why.
        """
        async with delivering(tmp_path, events=("purchase",)) as (app, _), listening(app) as listener:
            await send(app, 1, 1)
            event, delivery = await listener.take(2)

        assert {} == event["matches"]
        assert ("filtered", 0) == (delivery["state"], delivery["attempts"])
        assert "is not among the events" in delivery["reason"]

    async def test_a_delivery_on_its_way(self, tmp_path: Path):
        """
        A delivery is told each time something becomes of it: waiting with its next try, then delivered.
        """
        async with delivering(tmp_path, Trouble(times=1, status=503)) as (app, _), listening(app) as listener:
            await send(app, 1, 1)
            waiting, delivered = await listener.deliveries(2)

        assert ("waiting", 503, 1, "HTTP 503") == tuple(
            waiting[name] for name in ("state", "status", "attempts", "reason")
        )
        assert waiting["due"] >= waiting["at"]
        expected = ("delivered", 204, 2, None, "e-1", False)
        assert expected == tuple(delivered[name] for name in ("state", "status", "attempts", "due", "id", "earlier"))

    async def test_nobody_is_in_it(self, tmp_path: Path):
        """
        Neither what was sent of a person, nor its digests, nor what is kept apart for partners enters the stream.
        """
        person = {"email": "canary@example.com", "phone": "+33612345678", "firstname": "Canaria", "lastname": "Birdy"}
        item = {
            "event_name": "purchase",
            "event_id": "e-1",
            "user": {**person, "id": "canary-person@example.com", "ip": "203.0.113.77"},
            "context": {
                "page": {"url": "https://shop.example/?mail=canary@example.com", "title": "for canary@example.com"}
            },
            "ip": "203.0.113.77",
        }
        async with delivering(tmp_path) as (app, _), listening(app) as listener:
            async with (
                aiohttp.ClientSession(
                    headers={"Authorization": f"Bearer {KEY}", "User-Agent": "CanaryBrowser"}
                ) as session,
                session.post(f"{collect_url(app)}/collect", json=item) as answer,
            ):
                assert 1 == (await answer.json())["accepted"]
            kept = Clear(ip="203.0.113.77", user_agent="CanaryBrowser", country="FR")
            user = User(id="canary-person", anonymous_id="canary-visitor", digests=Digests(email="c" * 64))
            await app.store.append(rows(an_event("e-2", clear=kept, user=user, clicks={"ScCid": "canary-click"})))
            await listener.take(4)

        text = "".join(listener.lines)
        assert 4 == text.count("data: ")
        for canary in ("anary", "birdy", "612345678", "203.0.113.77"):
            assert canary not in text.lower()
        assert not re.search(r"[0-9a-f]{32}", text)


class TestLimits:
    async def test_what_does_not_fit_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        Deliveries beyond the queue are left out with their number in their place; no event is.
        """
        monkeypatch.setattr(stream, "MOST_NOTICES", 5)
        async with delivering(tmp_path) as (app, _):
            await app.delivery.lanes["hook"].hold("wait", "test")
            async with listening(app) as listener:
                await app.store.append(many(20))
                await app.delivery.lanes["hook"].drop(Selection(state="waiting"), "test")
                found = await listener.take(1, "gap")

        assert list(range(1, 21)) == seqs([each for each in found if each["event"] == "accepted"])
        assert [1, 2, 3, 4, 5] == seqs([each for each in found if each["event"] == "delivery"])
        assert {"event": "gap", "left_out": 15, "of": "deliveries"} == found[-1]

    @given(st.lists(st.one_of(st.integers(1, 7), st.none()), max_size=40), st.integers(1, 10))
    def test_what_is_told_and_what_is_not_add_up(self, acts: list[int | None], most: int):
        """
        However notices come and are taken, they come out in order, and those left out are counted where they were.
        """
        notices, given_, told = Notices(most), 0, list[int]()

        def take() -> None:
            for each in notices.take(given_, 3):
                told.extend([-1] * each.left_out if isinstance(each, Gap) else [each.seq])

        for count in acts:
            if count is None:
                take()
            else:
                notices.add("lane", Mark(seqs=range(given_ + 1, given_ + count + 1), state="dead", at=NOW))
                given_ += count
            assert len(notices.waiting()) <= most
        while notices.take(0, 0) or len(told) < given_:
            take()
        assert all(number in {-1, place} for place, number in enumerate(told, 1))

    def test_a_delivery_waits_for_its_event(self):
        """
        What became of an event is not told before the event was, nor is anything behind it.
        """
        notices = Notices(10)
        notices.add("lane", Mark(seqs=[4, 5, 3], state="delivered", at=NOW))

        assert [4] == [each.seq for each in notices.take(4, 10) if isinstance(each, Notice)]
        assert [5, 3] == [each.seq for each in notices.take(5, 10) if isinstance(each, Notice)]

    async def test_so_many_streams_at_once(self, app: App, monkeypatch: pytest.MonkeyPatch):
        """
        One stream too many is told to come back; when another has gone, there is room again.
        """
        monkeypatch.setattr(stream, "MOST_STREAMS", 2)
        address = f"http://127.0.0.1:{app.console_port}/api/v1/stream"
        async with listening(app), aiohttp.ClientSession() as session:
            async with listening(app), session.get(address) as answer:
                assert (503, "too_many_streams") == (answer.status, (await answer.json())["code"])
                assert answer.headers["Retry-After"].isdigit()
            async with asyncio.timeout(10):
                while True:
                    async with session.get(address) as answer:
                        if answer.status == 200:
                            break

    async def test_who_has_gone_is_not_told(self, app: App, monkeypatch: pytest.MonkeyPatch):
        """
        A stream whose reader has gone is taken off the outbox.
        """
        monkeypatch.setattr(stream, "HEARTBEAT", 0.05)
        async with listening(app):
            assert 1 == len(app.store.watchers)
        await until(lambda: not app.store.watchers)


class TestDocument:
    async def test_the_messages_are_described(self, app: App):
        """
        The OpenAPI document has the form of every message, told apart by what a message says it is.
        """
        address = f"http://127.0.0.1:{app.console_port}/openapi.json"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            document = await answer.json()

        operation = document["paths"]["/api/v1/stream"]["get"]
        schema = operation["responses"]["200"]["content"]["text/event-stream"]["schema"]
        mapping = schema["discriminator"]["mapping"]
        assert {"accepted", "delivery", "gap"} == set(mapping)
        assert {each["$ref"] for each in schema["anyOf"]} == set(mapping.values())
        assert {reference.rpartition("/")[2] for reference in mapping.values()} <= set(
            document["components"]["schemas"]
        )
        assert ["source", "to", "name", "after"] == [each["name"] for each in operation["parameters"]]


class TestGuard:
    async def test_the_token(self, tmp_path: Path):
        """
        Without the console's token nothing streams; with it, under the console's headers.
        """
        chosen = msgspec.structs.replace(settings(tmp_path), console=Console(listen=ANYWHERE, token=Secret("t0ken")))
        async with running_app(chosen) as app:
            address = f"http://127.0.0.1:{app.console_port}/api/v1/stream"
            async with aiohttp.ClientSession() as session, session.get(address) as answer:
                assert 401 == answer.status
            async with listening(app, Authorization="Bearer t0ken") as listener:
                headers = listener.answer.headers
                assert guard.HEADERS.items() <= dict(headers).items()
                assert "text/event-stream" == headers["Content-Type"]
            async with (
                aiohttp.ClientSession() as session,
                session.head(address, headers={"Authorization": "Bearer t0ken"}) as answer,
            ):
                assert (200, "text/event-stream") == (answer.status, answer.content_type)

    async def test_another_host(self, app: App):
        """
        A page that had its name point at the console gets nothing.
        """
        address = f"http://127.0.0.1:{app.console_port}/api/v1/stream"
        async with (
            aiohttp.ClientSession() as session,
            session.get(address, headers={"Host": "evil.example"}) as answer,
        ):
            assert 421 == answer.status


class TestStop:
    async def test_a_stream_ends_with_the_server(self, tmp_path: Path):
        """
        A stop ends open streams, with an end that is no broken connection, and takes no longer for them.
        """
        async with running_app(settings(tmp_path)) as app, listening(app) as listener:
            began = time.monotonic()
            await app.stop()
            rest = await listener.answer.content.read()
            assert b"" == rest.partition(b"\n\n")[2]
            assert 3 > time.monotonic() - began
            app._parts = contextlib.AsyncExitStack()  # stopped already

    async def test_a_reader_that_does_not_read(self, tmp_path: Path):
        """
        Nor does a reader that has stopped to read, with megabytes before it, hold the server up.
        """
        async with running_app(settings(tmp_path)) as app:
            for first in range(1, 24_001, 3_000):
                await app.store.append(many(3_000, first))
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect(("127.0.0.1", app.console_port))
                slow.sendall(b"GET /api/v1/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await until(lambda: bool(app.store.watchers))
                (watcher,) = app.store.watchers
                await halted(watcher)
                assert watcher._position < app.store.last
                began = time.monotonic()
                await app.stop()
                assert 3 > time.monotonic() - began
            app._parts = contextlib.AsyncExitStack()  # stopped already


async def until(held: Callable[[], bool], between: float = 0.01) -> None:
    """Look until it holds, for what gives no signal."""
    async with asyncio.timeout(20):
        while not held():  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(between)


async def halted(watcher: Any) -> None:
    """Until it has read on no further for a while."""
    places: list[int] = []
    await until(lambda: places[-2:-1] == (places.append(watcher._position) or places[-1:]), between=0.3)
