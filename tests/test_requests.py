"""The requests of a connection: each is answered once, in order, however it came and whichever way it went.

Most never become aiohttp's: they are taken at once, and where their head was seen before they are not even parsed. What
is promised here holds on the standard event loop and on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import structlog
import uvloop

from router import failpoint
from router.app import GRACE, App
from router.collect import connections, http
from router.collect.admission import Admission
from router.collect.connections import Connection
from router.event import Event
from router.person import Person
from router.secret import Secret
from router.settings import Settings, Source
from tests.running import KEY, running_app, settings, stored

PAGE = "https://shop.example"
PATH = f"/collect?token={KEY}"
EXPECT = "Expect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ids = itertools.count(1)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Told(NamedTuple):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Request(NamedTuple):
    """What is sent, and what must be said to it."""

    sent: bytes
    status: int
    id: str | None = None


def chosen(directory: Path, **changes: object) -> Settings:
    made = settings(directory, origins=(PAGE,))
    collect = msgspec.structs.replace(made.collect, trusted_proxies=("127.0.0.0/8",))
    sources = {
        **made.sources,
        "blog": Source(tokens=(Secret("blog-key"),)),
        "off": Source(tokens=(Secret("off-key"),), enabled=False),
    }
    return msgspec.structs.replace(made, **{"collect": collect, "sources": sources, **changes})


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine on one of the loops; a fault that the loop meets fails the test."""
    faults: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=request.param) as runner:
        runner.get_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        yield runner.run
    assert [] == faults


def post(body: bytes | None = None, more: str = "", path: str = PATH) -> bytes:
    """One event with an id of its own, where nothing else is said."""
    body = event()[1] if body is None else body
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode("latin1") + body


def event(**more: object) -> tuple[str, bytes]:
    name = f"e-{next(_ids):06d}"
    return name, json.dumps({"event": "login", "id": name, **more}).encode()


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in parts) + b"0\r\n\r\n"


def quick() -> Request:
    name, body = event()
    return Request(post(body), 200, name)


def some_requests() -> list[Request]:
    """One of each kind that the connection treats differently."""
    (first, body), (second, other) = event(), event()
    keyed = json.dumps({"writeKey": KEY, "userId": "u", "event": "A", "messageId": first}).encode()
    return [
        quick(),
        Request(post(body, EXPECT), 200, first),
        Request(chunked(other), 200, second),
        Request(post(keyed, path="/v1/track"), 200, first),
        Request(post(other, path=f"http://shop.example{PATH}"), 200, second),
        Request(post(json.dumps([{"event": "e", "p": "x" * 20_000}] * 5).encode()), 200),
        Request(post(b"{"), 400),
        Request(post(b"[]"), 200),
        Request(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400),
        Request(post(path="/webhooks/none"), 404),
        Request(post(path="/collect?token=wrong"), 401),
        Request(f"GET {PATH}&event_name=p HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 200),
        Request(f"OPTIONS /collect HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\n\r\n".encode(), 204),
        Request(post(more="Upgrade: websocket\r\nConnection: upgrade\r\n"), 200),
    ]


class Peer:
    """A sender with one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *parts: bytes, turns: int = 12) -> None:
        """Each part in a read of its own: the server shares our loop, and reads between our turns."""
        for part in parts:
            self.writer.write(part)
            for _ in range(turns):
                await asyncio.sleep(0)

    async def told(self) -> Told:
        async with asyncio.timeout(5):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            body = await self.reader.readexactly(int(headers.get("Content-Length", 0)))
        if "100" == first.split()[1]:
            return await self.told()
        return Told(int(first.split()[1]), headers, body)

    async def ask(self, sent: bytes) -> Told:
        self.writer.write(sent)
        return await self.told()

    async def ended(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@contextlib.asynccontextmanager
async def peer(app: App) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", app.collect_port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


class Disk:
    """The outbox's, slow: ``came`` so many appends, none of which ends before ``go``."""

    def __init__(self, app: App) -> None:
        self.came, self.go = asyncio.Semaphore(0), asyncio.Event()
        self._honest = app.store.append
        app.store.append = self._append  # type: ignore[method-assign]

    async def _append(self, rows: Sequence[Any]) -> list[bool]:
        self.came.release()
        await self.go.wait()
        return await self._honest(rows)


def cut(sent: bytes, places: Sequence[int]) -> list[bytes]:
    ends = [0, *places, len(sent)]
    return [sent[a:b] for a, b in itertools.pairwise(ends)]


class TestOrder:
    def test_whatever_is_sent_in_whatever_pieces(self, run: Run, tmp_path: Path):
        """
        Up to five requests of any kind in one connection, cut between them or anywhere, on a disk that is slow at times.
        """
        chance = random.Random(4)

        async def one(app: App) -> None:
            wanted = [chance.choice([quick(), *some_requests()]) for _ in range(chance.randint(1, 5))]
            sent = b"".join(each.sent for each in wanted)
            places = list(itertools.accumulate(len(each.sent) for each in wanted))[:-1]
            if chance.random() < 0.5:
                places = sorted(chance.sample(range(1, len(sent)), min(chance.randint(0, 6), len(sent) - 1)))
            async with peer(app) as sender:
                sending = asyncio.create_task(sender.send(*cut(sent, places), turns=chance.choice([0, 1, 2, 3, 5, 8])))
                for each in wanted:
                    told = await sender.told()
                    assert each.status == told.status, (wanted, places)
                    assert each.id in {None, told.json.get("id") if told.body else None}, (wanted, places)
                await sending

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app:
                honest = app.store.append

                async def uneven(rows: Sequence[Any]) -> list[bool]:
                    await asyncio.sleep(chance.choice([0, 0, 0, 0.002]))
                    return await honest(rows)

                app.store.append = uneven
                for _ in range(50):
                    await asyncio.gather(one(app), one(app))
                assert all(each.startswith(b"POST ") for each in app.collector.heads)
                assert (0, 0) == (app.collector._admission.bytes, app.collector._admission.requests)

        run(scenario())

    def test_two_requests_cut_at_every_byte(self, run: Run, tmp_path: Path):
        """
        In one connection, so that whatever is left of one pair would spoil the next.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                assert 200 == (await sender.ask(quick().sent)).status
                for place in range(1, 2 * len(quick().sent)):
                    pair = [quick(), quick()]
                    await sender.send(*cut(pair[0].sent + pair[1].sent, [place]), turns=3)
                    assert [each.id for each in pair] == [(await sender.told()).json["id"] for _ in pair]
                assert all(each.startswith(b"POST ") for each in app.collector.heads)

        run(scenario())

    def test_what_comes_behind_a_slow_one_waits_for_it(self, run: Run, tmp_path: Path):
        """
        While the disk hangs nothing that came behind is answered or lost, however many there are and however cut.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                await sender.ask(quick().sent)
                await sender.ask(quick().sent)  # its head is known from here
                disk = Disk(app)
                pair = [quick() for _ in range(80)]
                await sender.send(pair[0].sent)
                await disk.came.acquire()
                behind = b"".join(each.sent for each in pair[1:])
                await sender.send(*cut(behind, range(50, len(behind), 333)), turns=1)
                assert not sender.reader._buffer
                disk.go.set()
                assert [each.id for each in pair] == [(await sender.told()).json["id"] for _ in pair]

        run(scenario())

    def test_many_behind_a_body_that_came_late(self, run: Run, tmp_path: Path):
        """
        In one write, more than aiohttp takes at once: it had counted the late one twice, and forgot the rest.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                late, *many = [quick() for _ in range(70)]
                await sender.send(*cut(late.sent, [late.sent.index(b"\r\n\r\n") + 4]))
                assert late.id == (await sender.told()).json["id"]
                sender.writer.write(b"".join(each.sent for each in many))
                assert [each.id for each in many] == [(await sender.told()).json["id"] for _ in many]

        run(scenario())

    def test_a_body_behind_very_many_chunks(self, run: Run, tmp_path: Path):
        """
        As many as make aiohttp pause its parser with the last of them, which then stops in the next body.
        """
        empty = b"[" + b" " * 16_383 + b"]"
        tiny = chunked(empty, 1)

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                last = quick()
                sender.writer.write(tiny + last.sent)
                assert 200 == (await sender.told()).status
                assert last.id == (await sender.told()).json["id"]

        run(scenario())

    def test_the_last_one_is_answered_and_the_connection_ends(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """
        Behind a quick one that is under way, too; and nothing turns in circles while the rest of it comes.
        """
        turns, honest = itertools.count(), Connection._go_on
        monkeypatch.setattr(Connection, "_go_on", lambda self: (next(turns), honest(self)))
        last = [
            Request(post(more="Connection: close\r\n"), 200),
            Request(post().replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
            Request(post(b"x" * 600_000), 400),
            Request(post().replace(b"Length: ", b"Length: +"), 400),
            Request(post(more="Transfer-Encoding: chunked\r\n"), 400),
            Request(post(path=f"{PATH}&\xff"), 400),
            Request(b"GET http://[::1]:99@/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),  # aiohttp's parser dies of it
        ]

        async def ends(app: App, request: Request) -> None:
            async with peer(app) as sender:
                await sender.ask(quick().sent)
                disk = Disk(app)
                await sender.send(quick().sent)
                await disk.came.acquire()
                pieces = cut(request.sent, range(65_536, len(request.sent), 65_536))
                sending = asyncio.create_task(sender.send(*pieces))
                await asyncio.sleep(0)
                disk.go.set()
                assert [200, request.status] == [(await sender.told()).status for _ in range(2)]
                assert b"" == await sender.ended()
                sending.cancel()

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app:
                for each in last:
                    await ends(app, each)

        run(scenario())
        assert next(turns) < 40 * len(last)

    def test_one_connections_garbage_is_not_its_neighbours(self, run: Run, tmp_path: Path):
        """
        Two requests that are stored as one are both answered, although what came behind the first cannot be read.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as bad, peer(app) as good:
                for each in (bad, good):
                    await each.ask(quick().sent)
                disk = Disk(app)
                bad.writer.write(quick().sent)
                good.writer.write(quick().sent)
                await disk.came.acquire()
                await bad.send(b"GET http://[::1]:99@/ HTTP/1.1\r\nHost: x\r\n\r\n")
                disk.go.set()
                assert [200, 200, 400] == [(await each.told()).status for each in (good, bad, bad)]
                assert 0 == app.collector._admission.requests

        run(scenario())


class TestExpect:
    def test_who_waits_before_the_body_is_asked_for_it(self, run: Run, tmp_path: Path):
        """
        Every time on one connection, with a length or in chunks; and whoever does not wait is not told.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                for _ in range(3):
                    name, body = event()
                    for sent in (post(body, EXPECT), chunked(body).replace(b"Host", EXPECT.encode() + b"Host")):
                        end = sent.index(b"\r\n\r\n") + 4
                        sender.writer.write(sent[:end])
                        assert CONTINUE == await asyncio.wait_for(sender.reader.readexactly(len(CONTINUE)), 5)
                        sender.writer.write(sent[end:])
                        assert name == (await sender.told()).json["id"]
                    sender.writer.write(post(body, EXPECT))
                    assert b"HTTP/1.1 200" == (await asyncio.wait_for(sender.reader.readuntil(b" OK"), 5))[:12]
                    await sender.reader.readuntil(b"}")

        run(scenario())

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            pytest.param(post(more=EXPECT, path="/collect?token=wrong"), b"HTTP/1.1 401", id="a wrong key"),
            pytest.param(post(b"x" * 600_000, EXPECT), b"HTTP/1.1 400", id="too large"),
            pytest.param(post(more=f"{EXPECT}Content-Type: x; charset=latin1\r\n"), b"HTTP/1.1 415", id="not UTF-8"),
            pytest.param(post(more="Expect: wonders\r\n"), b"HTTP/1.1 408", id="something else is expected"),
            pytest.param(post(more=EXPECT).replace(b"HTTP/1.1", b"HTTP/1.0"), b"HTTP/1.0 408", id="HTTP/1.0"),
        ],
    )
    def test_who_is_not_to_send_it_is_told_why_instead(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, answer: bytes
    ):
        """
        The first word is the last one.
        """
        monkeypatch.setattr(http, "BODY_DEADLINE", 0.1)

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                sender.writer.write(head[: head.index(b"\r\n\r\n") + 4])
                assert answer == await asyncio.wait_for(sender.reader.readexactly(len(answer)), 5)

        run(scenario())


class TestKnownHeads:
    def test_a_known_head_means_what_it_meant(self, run: Run, tmp_path: Path):
        """
        Sent three times: aiohttp's way, taken at once, and known. Answer and event are the same, whatever the head says.
        """
        packed = gzip.compress(b'{"event": "purchase", "value": 1, "currency": "EUR"}', mtime=0)
        page = f"Origin: {PAGE}\r\nUser-Agent: Mozilla/5.0 (X11) Firefox/140\r\n"
        proxied = "X-Forwarded-For: 203.0.113.9, 198.51.100.7\r\n"
        heads = ["", page, page + proxied, proxied, "Origin: https://evil.example\r\n", "User-Agent: curl/8\r\n"]
        heads += ["x-turnout-test: 1\r\n", "Content-Type: application/json; charset=utf-8\r\n"]
        heads += [
            "Content-Type: text/plain; charset=latin1\r\n",
            "Content-Encoding: br\r\n",
            "Content-Encoding: gzip\r\n",
        ]
        heads += [page + "X-Forwarded-For: \xff, ::1%eth0, 127.0.0.1\r\n", f"{page}X-Forwarded-For: 127.0.0.1\r\n"]
        heads += ["Authorization: Bearer blog-key\r\n", f"x-api-key: {KEY}\r\nx-api-key: blog-key\r\n"]
        corpus = [post(b'{"event": "login"}', each) for each in heads]
        corpus += [post(b'{"event": "login"}', "Authorization: Bearer blog-key\r\n", "/v1/track")]
        corpus += [post(b'{"event": "login"}', path="/collect?token=off-key"), post(b"{"), post(b""), post(b"[{}]")]
        corpus += [post(packed, "Content-Encoding: gzip\r\n"), post(packed)]
        corpus += [post(b'{"writeKey": "blog-key", "userId": "u", "event": "A"}', path="/v1/track")]

        async def thrice(app: App, sent: bytes) -> tuple[list[object], int]:
            app.collector.forget()
            before, found = len(await stored(app)), []
            async with peer(app) as first, peer(app) as second:
                for each in (first, second, second):
                    told = await each.ask(sent)
                    told.headers.pop("Date")
                    body = {name: value for name, value in told.json.items() if name != "id"}
                    found.append((told.status, {**told.headers, "Retry-After": ""}, body))
                    if told.status == 415 and "close" == told.headers.get("Connection"):
                        return found, 0
            events = [self.timeless(each) for each in (await stored(app))[before:]]
            assert len(events) in {0, 3}
            assert all(each == events[0] for each in events)
            return found, len(app.collector.heads)

        async def scenario() -> None:
            known = 0
            async with running_app(chosen(tmp_path)) as app:
                for sent in corpus:
                    found, heads = await thrice(app, sent)
                    assert all(each == found[0] for each in found), (sent, found)
                    known += heads
            assert known >= len(corpus) - 4, "hardly any of them was known"

        run(scenario())

    def timeless(self, event: Event) -> Event:
        return msgspec.structs.replace(event, id="", time=0, received=0)

    def test_the_end_of_a_head_is_no_head(self, run: Run, tmp_path: Path):
        """
        A head that came in pieces is not known by its last piece: another's connection would send in its name.
        """
        name, body = event()
        whole = post(body)
        end = whole.index(b"Content-Length")

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as shop, peer(app) as blog:
                await shop.ask(quick().sent)
                await shop.send(*cut(whole, [end]))
                assert name == (await shop.told()).json["id"]
                for _ in range(2):
                    assert 200 == (await blog.ask(post(path="/collect?token=blog-key"))).status
                forged = whole[end:].replace(name.encode(), b"e-forge!")
                assert 400 == (await blog.ask(forged)).status
                assert "e-forge!" not in {each.id for each in await stored(app)}

        run(scenario())

    def test_a_head_inside_of_a_head_is_no_head(self, run: Run, tmp_path: Path):
        """
        What begins like a head may be a header's value: it must not mean what stood before it.
        """
        inner = post(b'{"event": "login"}')

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                await sender.ask(quick().sent)
                await sender.send(f"POST {PATH} HTTP/1.1\r\nx-turnout-test: 1\r\nX: ".encode(), inner)
                assert 200 == (await sender.told()).status
                assert {} == app.collector.heads

        run(scenario())

    def test_another_body_and_another_byte(self, run: Run, tmp_path: Path):
        """
        Behind a known head: a body that comes later, in pieces, too short to be whole, with another request behind it, and
        a head that differs in its last byte.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                for _ in range(2):
                    await sender.ask(quick().sent)
                assert 1 == len(app.collector.heads)
                one, two, three, four = quick(), quick(), quick(), quick()
                head = one.sent.index(b"\r\n\r\n") + 4
                await sender.send(*cut(one.sent, [head]))
                await sender.send(*cut(two.sent, [head + 3, head + 9]))
                await sender.send(three.sent + four.sent)
                assert [each.id for each in (one, two, three, four)] == [
                    (await sender.told()).json["id"] for _ in range(4)
                ]
                other = event(n=1)[1]
                assert 200 == (await sender.ask(post(other))).status
                wrong = quick().sent.replace(KEY.encode(), KEY[:-1].encode() + b"?")
                assert 401 == (await sender.ask(wrong)).status

        run(scenario())

    def test_only_heads_with_a_right_key_are_remembered_and_not_too_many(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """
        Nor very long ones.
        """
        monkeypatch.setattr(http, "KNOWN", 8)

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                for _ in range(3):
                    assert 401 == (await sender.ask(post(path="/collect?token=wrong"))).status
                    assert 200 == (await sender.ask(post(more=f"X: {'x' * 3000}\r\n"))).status
                assert {} == app.collector.heads
                for number in range(30):
                    assert 200 == (await sender.ask(post(more=f"X: {number}\r\n"))).status
                    assert len(app.collector.heads) <= 8
                assert app.collector.heads

        run(scenario())

    def test_a_new_address_is_known_however_many_were_before(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """
        Addresses that differ each time (with a number against caches, say) do not keep out the next sender for ever.
        """
        monkeypatch.setattr(http, "KNOWN", 8)

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                for number in range(30):
                    assert 200 == (await sender.ask(post(path=f"{PATH}&_={number}"))).status
                for _ in range(2):
                    await sender.ask(post(path=f"{PATH}&new"))
                assert [True] == [f"{PATH}&new".encode() in each for each in app.collector.heads]
                assert len(app.collector._known) <= 8

        run(scenario())

    def test_reload_and_erasure_empty_the_memory(self, run: Run, tmp_path: Path):
        """
        A connection whose head is known is told 403 where its source is switched off, and 401 where its key is no more.
        """
        off = Source(tokens=(Secret(KEY),), enabled=False)
        other = Source(tokens=(Secret("another"),))

        async def scenario() -> None:
            made = chosen(tmp_path)
            async with running_app(made) as app, peer(app) as sender:
                for _ in range(2):
                    await sender.ask(post())
                assert app.collector.heads
                await app.store.erase([Person(user_id="u-1")], "test")
                assert {} == app.collector.heads
                for _ in range(3):
                    assert 200 == (await sender.ask(post())).status
                for source, status in ((off, 403), (other, 401)):
                    await app.reload(msgspec.structs.replace(made, sources={"shop": source}))
                    assert {} == app.collector.heads
                    for _ in range(3):
                        assert status == (await sender.ask(post())).status

        run(scenario())


class TestGone:
    def test_who_goes_before_the_answer_is_no_fault(self, run: Run, tmp_path: Path):
        """
        What came whole is stored, nothing is logged, and nothing of it stays in hand.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app:
                disk = Disk(app)
                with structlog.testing.capture_logs() as said:
                    wanted = []
                    for behind in (b"", post()[:60], post()):
                        async with peer(app) as sender:
                            disk.go.set()
                            await sender.ask(quick().sent)
                            await disk.came.acquire()
                            disk.go.clear()
                            wanted.append(quick())
                            await sender.send(wanted[-1].sent, behind)
                            await disk.came.acquire()
                    disk.go.set()
                    while app.collector._admission.requests:  # noqa: ASYNC110 - nobody is told
                        await asyncio.sleep(0)
                assert [] == [each for each in said if each["log_level"] != "info"]
                assert {each.id for each in wanted} <= {each.id for each in await stored(app)}

        run(scenario())

    def test_who_does_not_read_is_cut_off(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        Also where every request is of the quick kind, one after the other.
        """
        monkeypatch.setattr(connections, "READ_DEADLINE", 0.1)
        honest = Connection.connection_made

        def narrow(self: Connection, transport: Any) -> None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            honest(self, transport)

        monkeypatch.setattr(Connection, "connection_made", narrow)
        bad = post(json.dumps([{"event": ""}] * 300).encode())

        async def scenario() -> None:
            loop = asyncio.get_running_loop()
            async with running_app(chosen(tmp_path)) as app:
                with socket.socket() as deaf:
                    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    deaf.setblocking(False)
                    await loop.sock_connect(deaf, ("127.0.0.1", app.collect_port))
                    with contextlib.suppress(ConnectionError):
                        async with asyncio.timeout(5):
                            while True:
                                await loop.sock_sendall(deaf, bad)
                                await asyncio.sleep(0.01)

        run(scenario())


class TestKeepAlive:
    def test_a_slow_disk_is_not_an_idle_peer(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        The connection outlives KEEP_ALIVE while a request is under way, and ends that long after its last answer.
        """
        monkeypatch.setattr("router.collect.server.KEEP_ALIVE", 0.1)

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender:
                await sender.ask(quick().sent)
                disk = Disk(app)
                slow = quick()
                await sender.send(slow.sent)
                await disk.came.acquire()
                await asyncio.sleep(0.35)
                disk.go.set()
                assert slow.id == (await sender.told()).json["id"]
                answered = asyncio.get_running_loop().time()
                assert b"" == await sender.ended()
                assert 0.09 < asyncio.get_running_loop().time() - answered

        run(scenario())


class TestStop:
    def test_what_is_under_way_is_answered(self, run: Run, tmp_path: Path):
        """
        Nothing that comes later is taken: it is sent away, or its connection ends. Then nobody waits for anybody.
        """

        async def scenario() -> None:
            app = App(chosen(tmp_path))
            await app.start()
            async with peer(app) as sender, peer(app) as idle, peer(app) as late:
                for each in (sender, idle, late):
                    await each.ask(quick().sent)
                await sender.ask(quick().sent)
                disk = Disk(app)
                last = quick()
                await sender.send(last.sent)
                await disk.came.acquire()
                app.collector.draining = True
                assert "draining" == (await late.ask(post())).json["code"]
                stopping = asyncio.create_task(app.stop())
                assert b"" == await idle.ended()
                await sender.send(post())
                disk.go.set()
                assert last.id == (await sender.told()).json["id"]
                async with asyncio.timeout(GRACE / 4):
                    assert b"" == await sender.ended()
                    await stopping
                assert 0 == app.collector._admission.requests

        run(scenario())


class TestFaults:
    def test_a_fault_is_its_own_requests(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        503 with Retry-After, and the connection goes on; taken at once or known, and with others behind it.
        """

        def break_at(point: str) -> None:
            monkeypatch.setattr(failpoint, "_armed", failpoint.armed(f"{point}=raise@1"))

        async def broken(app: App, point: str) -> None:
            async with peer(app) as sender, peer(app) as other:
                for _ in range(2):
                    break_at(point)
                    told = await sender.ask(quick().sent)
                    assert (503, "internal") == (told.status, told.json["code"])
                    assert 1 <= int(told.headers["Retry-After"]) <= 5
                    assert 200 == (await other.ask(quick().sent)).status
                    assert 200 == (await sender.ask(quick().sent)).status
                break_at(point)
                await sender.send(quick().sent, quick().sent)
                assert [503, 200] == [(await sender.told()).status for _ in range(2)]

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app:
                for point in ("collect_after_read", "collect_before_append", "collect_before_answer"):
                    await broken(app, point)
                assert 0 == app.collector._admission.requests

        run(scenario())

    def test_a_refusal_of_the_overloaded_keeps_the_order(self, run: Run, tmp_path: Path):
        """
        Beyond what may be in hand a request is refused at once, known or not, but not before the one in front of it.
        """

        async def scenario() -> None:
            async with running_app(chosen(tmp_path)) as app, peer(app) as sender, peer(app) as other:
                for each in (sender, other):
                    for _ in range(2):
                        await each.ask(quick().sent)
                app.collector._admission = Admission(most_requests=1)
                disk = Disk(app)
                await sender.send(quick().sent)
                await disk.came.acquire()
                assert [429, 429] == [(await other.ask(quick().sent)).status for _ in range(2)]
                await sender.send(quick().sent)
                assert not sender.reader._buffer
                disk.go.set()
                assert [200, 200] == [(await sender.told()).status for _ in range(2)]
                assert 200 == (await other.ask(quick().sent)).status

        run(scenario())
