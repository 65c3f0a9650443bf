"""Collecting in processes of their own: nothing that a sender, an operator or a partner sees is different."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from router.app import App
from router.collect.keys import Sender
from router.collect.link import Order, Remote, Wire
from router.collect.preparing import Job
from router.outbox.errors import Busy, DiskFull, NotDurable
from router.outbox.reads.reader import Reader
from router.person import Person
from router.secret import Secret
from router.settings import Settings, Snitcher, Source
from router.visit import Door, Visit
from tests.running import KEY, collect_url, free_port, running_app, settings, stored, turnout

CONFIG = """\
[collect]
listen = "127.0.0.1:{port}"
workers = 2
[console]
listen = "127.0.0.1:0"
[outbox]
path = "{directory}/outbox"
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
"""
CONNECTIONS = 12  # of which the kernel gives each process some


def beside(directory: Path, **changes: object) -> Settings:
    chosen = settings(directory)
    collect = msgspec.structs.replace(chosen.collect, workers=2)
    return msgspec.structs.replace(chosen, collect=collect, **changes)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running_app(beside(tmp_path)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[App]:
    """One for the tests that leave it as it is; each has people and ids of its own."""
    async with running_app(beside(tmp_path_factory.mktemp("shared"))) as running:
        yield running


async def everywhere(app: App, body: object, **headers: str) -> list[tuple[int, dict[str, object]]]:
    """The same request over connections of its own, so that every process gets some of them."""

    async def one() -> tuple[int, dict[str, object]]:
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(collect_url(app), headers={"x-api-key": KEY, **headers}, connector=connector) as http,
            http.post("/collect", json=body) as answer,
        ):
            return answer.status, await answer.json()

    return await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


async def posted(url: str, name: str) -> int:
    async with (
        aiohttp.ClientSession(headers={"x-api-key": KEY}) as http,
        http.post(f"{url}/collect", json={"event": "e", "id": name}) as answer,
    ):
        return answer.status


def refusals(app: App) -> dict[tuple[str, str], float]:
    samples = [each for family in app.metrics.registry.collect() for each in family.samples]
    return {
        (each.labels["source"], each.labels["code"]): each.value
        for each in samples
        if each.name == "turnout_requests_refused_total"
    }


def pids(app: App) -> set[int]:
    assert app.workers is not None
    return {worker._process.pid for worker in app.workers._running}


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            await asyncio.sleep(0.01)


@pytest.mark.asyncio(loop_scope="module")
class TestSameAnswers:
    async def test_an_event_is_stored_once_whoever_takes_it(self, shared: App):
        """
        Processes do not know of each other, and still the second one to see an id is told that it is a duplicate.
        """
        answers = await everywhere(shared, {"event": "once", "id": "e-1", "user": {"email": "jane@example.com"}})

        assert {200} == {status for status, _ in answers}
        assert 1 == sum(told["accepted"] for _, told in answers)
        assert CONNECTIONS - 1 == sum(told["duplicate"] for _, told in answers)
        assert ["e-1"] == [event.id for event in await stored(shared) if event.name == "once"]

    async def test_bad_members_are_kept_with_their_reason(self, shared: App):
        """
        A batch with a bad member: the answer names its place, the good ones are stored, the bad one is in quarantine.
        """
        [(status, told), *_] = await everywhere(
            shared, [{"event": "a", "id": "1"}, {"event": ""}, {"event": "b", "id": "2"}]
        )

        assert (200, 1) == (status, told["rejected"])
        assert [(1, "bad_event_name")] == [(each["index"], each["code"]) for each in told["problems"]]

    async def test_click_ids_of_the_session_are_added(self, shared: App):
        """
        The landing page may come to another process than the purchase that it led to.
        """
        landing = {"event": "page_view", "id": "l", "anonymous_id": "a-1", "url": "https://shop.example/?ScCid=abc"}
        await everywhere(shared, landing)
        await everywhere(shared, {"event": "purchase", "id": "p", "anonymous_id": "a-1"})

        assert [{"ScCid": "abc"}] * 2 == [event.clicks for event in await stored(shared) if event.id in {"l", "p"}]

    async def test_a_wrong_key(self, shared: App):
        """
        Every process knows the keys, and only these.
        """
        assert {401} == {status for status, _ in await everywhere(shared, {"event": "e"}, **{"x-api-key": "other"})}

    @pytest.mark.parametrize("workers", [0, 2])
    async def test_what_is_refused_as_a_whole_is_counted(self, workers: int, tmp_path: Path):
        """
        Of a request of which nothing is taken, by a wrong key or for its form, the operator has a count by source and code.
        """
        chosen = settings(tmp_path)
        collect = msgspec.structs.replace(chosen.collect, workers=workers)
        async with running_app(msgspec.structs.replace(chosen, collect=collect)) as app:
            for _ in range(2):  # the second one takes the short way of a known sender
                assert {401} == {status for status, _ in await everywhere(app, {}, **{"x-api-key": "another"})}
                assert {400} == {status for status, _ in await everywhere(app, [{}] * 1001)}
                assert {200} == {status for status, _ in await everywhere(app, {"event": "e"})}
            counts: dict[tuple[str, str], float] = {}
            async with asyncio.timeout(10):
                while len(counts) < 2 or min(counts.values()) < 2 * CONNECTIONS:
                    await asyncio.sleep(0.05)
                    counts = refusals(app)

        assert {("", "unauthorized"): 2.0 * CONNECTIONS, ("shop", "too_many_events"): 2.0 * CONNECTIONS} == counts

    async def test_what_cannot_be_stored(self, shared: App, monkeypatch: pytest.MonkeyPatch):
        """
        A full disk, a queue that is full and a fault of ours are answered as they are by one process.
        """
        answers = []
        for fault in (DiskFull("full"), Busy("too much"), RuntimeError("ours")):

            async def fail(rows: object, fault: Exception = fault) -> list[bool]:
                raise fault

            monkeypatch.setattr(shared.store, "append", fail)
            answers.append({(status, told["code"]) for status, told in await everywhere(shared, {"event": "e"})})

        assert [{(503, "disk_full")}, {(429, "busy")}, {(503, "not_durable")}] == answers


class TestActs:
    async def test_a_reload_reaches_every_process(self, app: App, tmp_path: Path):
        """
        After a reload the new key works everywhere and the old one nowhere.
        """
        await app.reload(beside(tmp_path, sources={"shop": Source(tokens=(Secret("new"),))}))
        async with asyncio.timeout(5):  # the order is on its way to the processes
            while {200} != {status for status, _ in await everywhere(app, {"event": "e"}, **{"x-api-key": "new"})}:
                pass

        assert {401} == {status for status, _ in await everywhere(app, {"event": "e"})}

    @pytest.mark.asyncio(loop_scope="module")
    async def test_the_erased_stay_out(self, shared: App):
        """
        Whoever was forgotten is turned away, whichever process their events come to.
        """
        event = {"event": "e", "user": {"email": "gone@example.com"}}
        await everywhere(shared, {**event, "id": "before"})
        await shared.store.erase([Person(email="gone@example.com")], "test")
        answers = await everywhere(shared, event)

        assert {("erased_person",)} == {tuple(each["code"] for each in told["problems"]) for _, told in answers}

    async def test_webhooks(self, tmp_path: Path):
        """
        A partner's webhook is checked where the secret is, which no collecting process has.
        """
        raw = json.dumps({"event": "company.identified", "data": {"uuid": "c-1"}}).encode()
        signature = "sha256=" + hmac.new(b"a-secret", raw, hashlib.sha256).hexdigest()
        crm = Snitcher(token=Secret("t"), webhook_secret=Secret("a-secret"), enabled=False)
        async with running_app(beside(tmp_path, sources={"crm": crm})) as app, aiohttp.ClientSession() as http:
            url = f"{collect_url(app)}/webhooks/crm"
            codes = []
            for signed in (signature, "sha256=00"):
                async with http.post(url, data=raw, headers={"X-Snitcher-Signature": signed}) as answer:
                    codes.append((answer.status, (await answer.json())["code"]))

        assert [(403, "source_disabled"), (401, "bad_signature")] == codes


class TestLink:
    async def test_who_asks_when_nobody_is_there_is_told(self):
        """
        Requests that are prepared after the outbox's process went away are not left without an answer.
        """
        lost, told = asyncio.Event(), asyncio.Queue[object]()
        ours, theirs = socket.socketpair()
        for each in (ours, theirs):
            each.setblocking(False)

        def gone() -> None:
            remote.lost()
            lost.set()

        wire = Wire(Order, lambda _: None, gone)
        remote = Remote(wire, lambda: "id")
        await asyncio.get_running_loop().create_connection(lambda: wire, sock=ours)
        sender = Sender(name="shop", enabled=True, door=Door(source="shop"))
        remote.rounds.add(Job(b'{"event": "e"}', sender, Visit(received=1), told.put_nowait))
        await asyncio.get_running_loop().sock_recv(theirs, 1)  # it is asked
        theirs.close()
        await asyncio.wait_for(lost.wait(), 5)
        remote.rounds.add(Job(b'{"event": "e"}', sender, Visit(received=1), told.put_nowait))

        assert [NotDurable] * 2 == [type(await asyncio.wait_for(told.get(), 5)) for _ in range(2)]


class TestEnds:
    async def test_one_that_is_killed_is_started_again(self, app: App):
        """
        The others go on meanwhile, and soon there are as many as before.
        """
        killed = min(pids(app))
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(30):
            while killed in pids(app) or len(pids(app)) < 2:  # noqa: ASYNC110 - no event of ours says so
                await asyncio.sleep(0.02)
        assert app.workers is not None
        for worker in app.workers._running:
            await worker.listening(30)
        answers = await everywhere(app, {"event": "e"})

        assert {200} == {status for status, _ in answers}

    async def test_a_start_that_fails_is_tried_again(self, app: App, monkeypatch: pytest.MonkeyPatch):
        """
        The machine has no room for a process when one has ended; the next try makes it.
        """
        refused = asyncio.Event()
        start = asyncio.create_subprocess_exec

        async def once(*arguments: object, **more: object) -> object:
            if not refused.is_set():
                refused.set()
                raise BlockingIOError
            return await start(*arguments, **more)

        monkeypatch.setattr("router.collect.workers.AGAIN", 0.01)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", once)
        killed = min(pids(app))
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(30):
            await refused.wait()
            while killed in pids(app) or len(pids(app)) < 2:  # noqa: ASYNC110 - no event of ours says so
                await asyncio.sleep(0.02)

        assert killed not in pids(app)

    @pytest.mark.parametrize("early", [True, False], ids=["while it is made", "before it listens"])
    async def test_a_reload_reaches_one_that_starts(
        self, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool
    ):
        """
        One that is started again knows the keys of now, whenever in its start the reload comes.
        """
        changed = beside(tmp_path, sources={"shop": Source(tokens=(Secret("new"),))})
        reloaded = asyncio.Event()
        start = asyncio.create_subprocess_exec

        async def again(*arguments: object, **more: object) -> object:
            process = await start(*arguments, **more)
            if early:
                await app.reload(changed)
                reloaded.set()
            return process

        monkeypatch.setattr("router.collect.workers.AGAIN", 0.01)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", again)
        killed = min(pids(app))
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(30):
            while killed in pids(app) or len(pids(app)) < 2:  # noqa: ASYNC110 - no event of ours says so
                await asyncio.sleep(0)
            if not early:
                await app.reload(changed)
                reloaded.set()
            await reloaded.wait()
            for each in list(app.workers._running):
                await each.listening(30)

        assert {401} == {status for status, _ in await everywhere(app, {"event": "e"})}

    async def test_none_is_left(self, tmp_path: Path):
        """
        A stop in good order ends every process.
        """
        async with running_app(beside(tmp_path)) as app:
            started = pids(app)
        for pid in started:
            await gone(pid)

        assert 2 == len(started)

    async def test_they_end_with_the_first_process(self, tmp_path: Path):
        """
        The first process is killed: the others, which can store nothing any more, end by themselves, and a new server
        takes the port and every event that was acknowledged.
        """
        (tmp_path / "config.toml").write_text(CONFIG.format(directory=tmp_path, port=free_port()))
        arguments = ("serve", "--config", str(tmp_path / "config.toml"), "--json")
        async with turnout(*arguments, SHOP_TOKEN=KEY) as server:
            said = await server.object()
            children = Path(f"/proc/{said['pid']}/task/{said['pid']}/children").read_text().split()
            assert 200 == await posted(said["collect"], "e-1")
            os.kill(said["pid"], signal.SIGKILL)
            for pid in children:
                await gone(int(pid))
        async with turnout(*arguments, SHOP_TOKEN=KEY) as server:
            assert 200 == await posted((await server.object())["collect"], "e-2")
            server.signal(signal.SIGTERM)
            code, _, err = await server.ended(15)

        assert (2, 0) == (len(children), code), err
        assert {"e-1", "e-2"} == {event.id for event in (await Reader(tmp_path / "outbox").recent(10, None)).items}

    @pytest.mark.asyncio(loop_scope="module")
    async def test_a_second_server_is_told(self, shared: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        The port is shared among the processes of one server and with nobody else.
        """
        monkeypatch.setattr("router.collect.workers.PORT", 0.1)
        other = beside(tmp_path / "other")
        collect = msgspec.structs.replace(other.collect, listen=f"127.0.0.1:{shared.collect_port}")

        with pytest.raises(OSError) as refused:
            async with running_app(msgspec.structs.replace(other, collect=collect)):
                pass
        assert errno.EADDRINUSE == refused.value.errno
