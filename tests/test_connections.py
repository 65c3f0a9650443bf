"""Connections that cost us something and give nothing: silent, dripping, unread, gone, and too many of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from router.app import App
from router.collect import connections
from router.collect.connections import Connection, Listener
from tests.running import KEY, collect_url, running_app, settings, stored, turnout
from tests.test_cli_serve import config

HEAD = f"POST /collect?token={KEY} HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with running_app(settings(tmp_path)) as app:
        yield app


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def drip(writer: asyncio.StreamWriter, every: float) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(every)


async def refused(port: int) -> asyncio.StreamWriter:
    """Connected, told that there are too many, and still there."""
    reader, writer = await connect(port)
    assert (await asyncio.wait_for(reader.read(), 1)).startswith(b"HTTP/1.1 503 ")
    return writer


async def ends(writer: asyncio.StreamWriter, within: float) -> bool:
    """Does the other end take no more of what is written, in so many seconds?"""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while not writer.transport.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.02)
            return True
    return False


class TestSlow:
    @pytest.mark.parametrize(
        "opening",
        [
            pytest.param("", id="connects in silence"),
            pytest.param("POST /collect HTTP/1.1\r\nX-Slow: ", id="drips its head"),
        ],
    )
    async def test_who_never_sends_a_head_is_cut_off(self, tmp_path: Path, monkeypatch, opening: str):
        """
        R01: closed when KEEP_ALIVE is over, however much drips; without a word, because nothing was asked.
        """
        monkeypatch.setattr("router.collect.server.KEEP_ALIVE", 0.3)
        async with running_app(settings(tmp_path)) as app:
            reader, writer = await connect(app.collect_port)
            writer.write(opening.encode())
            dripping = asyncio.create_task(drip(writer, 0.02)) if opening else None
            with contextlib.suppress(ConnectionError):
                assert b"" == await asyncio.wait_for(reader.read(), 5)
            if dripping is not None:
                await asyncio.wait_for(dripping, 5)
            writer.close()

    @pytest.mark.parametrize("before", [0, 1], ids=["the first request", "a later request"])
    async def test_a_body_that_drips_is_answered_408(self, app: App, monkeypatch, before: int):
        """
        R02: the deadline is for the whole body and not for its next byte.
        """
        monkeypatch.setattr("router.collect.http.BODY_DEADLINE", 0.3)
        reader, writer = await connect(app.collect_port)
        for _ in range(before):
            writer.write(f"{HEAD}Content-Length: 2\r\n\r\n[]".encode())
            await reader.readuntil(b"}")
        writer.write(f"{HEAD}Content-Length: 1000\r\n\r\n[".encode())
        dripping = asyncio.create_task(drip(writer, 0.02))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        dripping.cancel()
        writer.close()

        assert answer.startswith(b"HTTP/1.1 408")
        assert [] == await stored(app)

    async def test_who_does_not_read_is_cut_off(self, app: App, monkeypatch):
        """
        R03: answers that stay unread for READ_DEADLINE end the connection, and what was acknowledged stays stored.
        """
        monkeypatch.setattr(connections, "READ_DEADLINE", 0.3)
        lost, honest = asyncio.Event(), Connection.connection_lost

        def notice(self, exc):
            honest(self, exc)
            lost.set()

        monkeypatch.setattr(Connection, "connection_lost", notice)
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", app.collect_port))
        bad = json.dumps([{"event": ""}] * 1000).encode()  # every answer names a thousand problems
        request = f"{HEAD}Content-Length: {len(bad)}\r\n\r\n".encode() + bad
        sending = asyncio.create_task(loop.sock_sendall(deaf, request * 100))
        await asyncio.wait_for(lost.wait(), 20)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        deaf.close()

        async with aiohttp.ClientSession(collect_url(app)) as http, http.post(f"/collect?token={KEY}", json=[]) as ok:
            assert 200 == ok.status

    async def test_a_slow_reader_that_reads_is_served(self, app: App, monkeypatch):
        """
        The deadline ends when everything is read.
        """
        monkeypatch.setattr(connections, "READ_DEADLINE", 5)
        reader, writer = await connect(app.collect_port)
        bad = json.dumps([{"event": ""}] * 1000).encode()
        writer.write(f"{HEAD}Connection: close\r\nContent-Length: {len(bad)}\r\n\r\n".encode() + bad)
        size = 0
        while part := await reader.read(4096):
            size += len(part)
            await asyncio.sleep(0)
        writer.close()

        assert 100_000 < size


class TestGone:
    async def test_gone_before_the_answer_is_stored_once(self, app: App, monkeypatch):
        """
        I75: the whole body came, so the event is stored although nobody hears of it; sent again it is a duplicate.
        """
        came, disk, honest = asyncio.Event(), asyncio.Event(), app.store.append

        async def slow(rows):
            came.set()
            await disk.wait()
            return await honest(rows)

        monkeypatch.setattr(app.store, "append", slow)
        event = b'{"event": "purchase", "id": "once"}'
        _, writer = await connect(app.collect_port)
        writer.write(f"{HEAD}Content-Length: {len(event)}\r\n\r\n".encode() + event)
        await came.wait()
        writer.transport.abort()
        disk.set()
        url = f"{collect_url(app)}/collect?token={KEY}"
        async with aiohttp.ClientSession() as http, http.post(url, data=event) as answer:
            told = await answer.json()

        assert (0, 1) == (told["accepted"], told["duplicate"])
        assert ["once"] == [each.id for each in await stored(app)]


class TestTooMany:
    async def test_beyond_the_limit_a_connection_is_told_and_closed(self, tmp_path: Path, monkeypatch):
        """
        R04: 503 with Retry-After at once, also to one that has begun to write; a place that is free again is taken.
        """
        monkeypatch.setattr(connections, "most", lambda: 2)
        async with running_app(settings(tmp_path)) as app:
            held = [await connect(app.collect_port) for _ in range(2)]
            for reader, writer in held:
                writer.write(f"{HEAD}Content-Length: 2\r\n\r\n[]".encode())
                assert b" 200 " in await reader.readuntil(b"}")
            for words in (b"", f"{HEAD}Content-Length: 2\r\n\r\n[]".encode()):
                reader, writer = await connect(app.collect_port)
                writer.write(words)
                answer = await asyncio.wait_for(reader.read(), 5)
                assert answer.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nRetry-After: 5\r\n" in answer
                assert "too_many_connections" == json.loads(answer.partition(b"\r\n\r\n")[2])["code"]
                writer.close()
            for _, writer in held:
                writer.close()
            async with aiohttp.ClientSession(collect_url(app)) as http, asyncio.timeout(5):
                while True:
                    async with http.post(f"/collect?token={KEY}", json=[]) as again:
                        if again.status == 200:
                            break

    async def test_who_is_refused_and_stays_is_cut_off(self, tmp_path: Path, monkeypatch):
        """
        A peer that is told has a moment to read it, and only so many have it at once: the others' connection just ends.
        """
        monkeypatch.setattr(connections, "most", lambda: 0)
        monkeypatch.setattr(connections, "MOST_FAREWELLS", 2)
        monkeypatch.setattr(connections, "FAREWELL", 3.0)
        async with running_app(settings(tmp_path)) as app:
            peers = [await refused(app.collect_port) for _ in range(3)]
            assert [False, False, True] == [await ends(each, 0.2) for each in peers]
            assert [True, True] == [await ends(each, 5) for each in peers[:2]]
            peers.append(await refused(app.collect_port))
            assert not await ends(peers[-1], 0.2)
        for each in peers:
            each.close()

    def test_connections_leave_descriptors_to_the_others(self, monkeypatch):
        """
        The outbox, the lanes and the console open files while every connection that may be is there.
        """
        limits = {100: 50, 1024: 512, 4096: 3584, 1 << 20: connections.MOST}
        for limit, most in limits.items():
            monkeypatch.setattr(connections.resource, "getrlimit", lambda _, limit=limit: (limit, limit))
            assert most == connections.most()

    async def test_the_soft_limit_of_open_files_is_raised(self, tmp_path: Path):
        """
        A server started with the usual 1024 may open as many as the hard limit allows.
        """
        low = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2000))"
        path = config(tmp_path)
        async with turnout(
            "serve", "--config", path, "--json", code=low, SHOP_TOKEN=KEY, HOOK_SECRET="whsec_MDEyMzQ1Njc4OTAxMjM0NTY3"
        ) as server:
            await server.line()
            limits = Path(f"/proc/{server.pid}/limits")
            if not limits.exists():
                pytest.skip("needs /proc")
            line = next(line for line in limits.read_text().splitlines() if line.startswith("Max open files"))

        assert ["2000", "2000"] == line.split()[3:5]


class TestNoDescriptor:
    async def test_accepting_waits_and_goes_on(self, monkeypatch):
        """
        R05: where the system has no descriptor left, accepting pauses instead of spinning; whoever waits is served then.
        """
        monkeypatch.setattr(connections, "PAUSE", 0.05)
        tries, again = 0, time.monotonic() + 0.2

        class Crowded(socket.socket):
            def accept(self):
                nonlocal tries
                tries += 1
                if time.monotonic() < again:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                return super().accept()

        served = asyncio.Event()

        class Served(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transport.close()
                served.set()

        listening = Crowded()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        listener = Listener(listening, Served)
        listener.start()
        _, writer = await connect(listening.getsockname()[1])
        await asyncio.wait_for(served.wait(), 5)
        writer.close()
        await listener.stop()

        assert 2 <= tries <= 10, "it did not pause"

    async def test_a_server_without_descriptors_survives(self, tmp_path: Path):
        """
        R05: a real process at its limit, without the cap that keeps it from there: it goes on when there is room again.
        """
        code = (
            "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))\n"
            "from router.collect import connections; connections.most = lambda: 10_000; connections.PAUSE = 0.1"
        )
        path = config(tmp_path)
        async with turnout(
            "serve", "--config", path, "--json", code=code, SHOP_TOKEN=KEY, HOOK_SECRET="whsec_MDEyMzQ1Njc4OTAxMjM0NTY3"
        ) as server:
            url = (await server.object())["collect"]
            crowd = [await connect(int(url.rpartition(":")[2])) for _ in range(100)]
            for _, writer in crowd:
                writer.close()
            async with aiohttp.ClientSession(url) as http, http.post(f"/collect?token={KEY}", json=[]) as answer:
                assert 200 == answer.status
