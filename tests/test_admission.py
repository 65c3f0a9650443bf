"""Admission: what is in hand, and that refusing costs nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import aiohttp
import pytest

from router import body as bodies
from router.collect.admission import Admission
from router.collect.http import Collector
from router.collect.rounds import Rounds
from router.problem import Malformed
from tests.running import KEY, collect_url, running_app, settings, stored

EVENT = json.dumps({"event": "purchase", "value": 12, "currency": "EUR"})


def request(body: str, more: str = "") -> bytes:
    head = f"POST /collect?token={KEY} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return f"{head}{body}".encode()


class TestAdmission:
    @pytest.mark.parametrize(
        ("entered", "full"),
        [
            pytest.param([], False, id="nothing in hand"),
            pytest.param([50, 49], False, id="just below the bytes"),
            pytest.param([50, 50], True, id="as many bytes"),
            pytest.param([500], True, id="one that is larger than all"),
            pytest.param([1, 1, 1], True, id="as many requests"),
        ],
    )
    def test_it_is_full_by_bytes_and_by_requests(self, entered: list[int], full: bool):
        """
        Whichever is reached first.
        """
        admission = Admission(most_bytes=100, most_requests=3)
        for size in entered:
            admission.enter(size)

        assert full == admission.full

    def test_what_is_answered_is_no_longer_in_hand(self):
        """
        Nothing is left of it in the sums.
        """
        admission = Admission(most_bytes=100)
        admission.enter(100)
        admission.leave(100)

        assert (0, 0, False) == (admission.bytes, admission.requests, admission.full)


class TestInflatedSize:
    @pytest.mark.parametrize(
        ("raw", "size"),
        [
            pytest.param(b"{}", 2, id="plain"),
            pytest.param(gzip.compress(bytes(100_000)), 100_000, id="gzip says it"),
            pytest.param(gzip.compress(bytes(10_000_000)), bodies.MAX_REQUEST, id="no more than is inflated"),
            pytest.param(b"\x1f\x8b", 2, id="too short for a trailer"),
        ],
    )
    def test_it_is_what_the_body_will_take(self, raw: bytes, size: int):
        """
        Known before anything is inflated.
        """
        assert size == bodies.inflated_size(raw)

    def test_whoever_says_less_than_there_is_is_refused(self):
        """
        So the sum of what is in hand holds.
        """
        liar = gzip.compress(bytes(100_000))[:-4] + (5).to_bytes(4, "little")

        assert 5 + 0 < len(liar) == bodies.inflated_size(liar)
        assert "bad_gzip" == bodies.read(liar, "gzip").code


class TestOverload:
    async def test_beyond_what_can_be_in_hand_the_answer_is_429_and_nothing_is_stored(self, tmp_path: Path):
        """
        While the disk hangs with as much in hand as may be, the next is refused without waiting for it; what was in hand
        is stored, and then everything is taken again.
        """
        async with running_app(settings(tmp_path)) as app, aiohttp.ClientSession(collect_url(app)) as http:
            app.collector._admission = Admission(most_requests=2)
            disk, honest = asyncio.Event(), app.store.append
            waiting = asyncio.Semaphore(0)

            async def slow(rows):
                for _ in rows:
                    waiting.release()
                await disk.wait()
                return await honest(rows)

            app.store.append = slow
            taken = [asyncio.create_task(self.post(http)) for _ in range(2)]
            for _ in taken:
                await waiting.acquire()
            async with http.post(f"/collect?token={KEY}", data=EVENT) as answer:
                assert (429, "busy") == (answer.status, (await answer.json())["code"])
                assert 1 <= int(answer.headers["Retry-After"]) <= 5
            disk.set()

            assert [200, 200, 200] == [await each for each in taken] + [await self.post(http)]
            assert 3 == len(await stored(app))

    async def test_a_refused_body_does_not_end_the_connection(self, tmp_path: Path):
        """
        Refusing is cheap only where the sender need not connect again: the same connection is answered 429, then 200.
        """
        async with running_app(settings(tmp_path)) as app:
            reader, writer = await asyncio.open_connection("127.0.0.1", app.collect_port)
            body = json.dumps([{"event": "x", "n": "y" * 20_000} for _ in range(10)]).encode()
            request = f"POST /collect?token={KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            app.collector._admission = Admission(most_requests=0)
            writer.write(request + body)
            statuses = [await self.status(reader)]
            app.collector._admission = Admission()
            writer.write(request + body)
            statuses.append(await self.status(reader))
            writer.close()

        assert [429, 200] == statuses

    async def test_a_refusal_costs_no_look_at_the_request(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        On a connection that waits for its next request, what comes while everything is full is answered by the connection
        itself, as often as it comes; when there is room the same connection is served.
        """
        looked, honest = [], Collector.__call__

        async def look(self, request):
            looked.append(request)
            return await honest(self, request)

        monkeypatch.setattr(Collector, "__call__", look)
        async with running_app(settings(tmp_path)) as app:
            reader, writer = await asyncio.open_connection("127.0.0.1", app.collect_port)
            statuses = []
            for room in (9, 0, 0, 0, 9):
                app.collector._admission = Admission(most_requests=room)
                writer.write(request(EVENT))
                statuses.append(await self.status(reader))
            writer.close()

        assert [200, 429, 429, 429, 200] == statuses
        assert 1 == len(looked)  # the first; the last has a head that is known

    @pytest.mark.parametrize(
        ("sent", "heard"),
        [
            pytest.param(request(EVENT), [429], id="one"),
            pytest.param(request(EVENT) * 3, [429] * 3, id="three at once"),
            pytest.param(request(EVENT, "Connection: close\r\n"), [429, 0], id="one that ends its connection"),
            pytest.param(request(EVENT).replace(b"HTTP/1.1", b"HTTP/1.0"), [429, 0], id="HTTP/1.0"),
            pytest.param(request(EVENT)[:-5], [429], id="half a body"),
            pytest.param(
                f"GET /collect?token={KEY}&event_name=x HTTP/1.1\r\nHost: x\r\n\r\n".encode(), [429], id="pixel"
            ),
            pytest.param(b"PUT /collect HTTP/1.1\r\nHost: x\r\n\r\n", [405], id="another method"),
            pytest.param(b"POST nonsense\r\n\r\n", [400, 0], id="no HTTP"),
        ],
    )
    async def test_whatever_comes_while_full_is_answered_in_order(self, tmp_path: Path, sent: bytes, heard: list[int]):
        """
        The short cut takes only what it can answer; 0: the connection ends.
        """
        async with running_app(settings(tmp_path)) as app:
            reader, writer = await asyncio.open_connection("127.0.0.1", app.collect_port)
            writer.write(request(EVENT))
            assert 200 == await self.status(reader)
            app.collector._admission = Admission(most_requests=0)
            writer.write(sent)
            statuses = [await self.status(reader) for each in heard if each]
            if 0 in heard:
                assert b"" == await asyncio.wait_for(reader.read(), 5)
                statuses.append(0)
            writer.close()
            assert 1 == len(await stored(app))

        assert heard == statuses

    async def test_half_bodies_do_not_shut_out_whole_ones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        Slow senders that fill what may be under way are refused themselves; who sends in one go is taken.
        """
        monkeypatch.setattr("router.collect.http.UNDER_WAY", 10_000)
        async with running_app(settings(tmp_path)) as app, aiohttp.ClientSession(collect_url(app)) as http:
            head = f"POST /collect?token={KEY} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode()
            slow = [await asyncio.open_connection("127.0.0.1", app.collect_port) for _ in range(2)]
            for _, writer in slow:
                writer.write(head + b"[" + b" " * 8_000)
            told, _ = await asyncio.wait(
                [asyncio.create_task(self.status(reader)) for reader, _ in slow], return_when=asyncio.FIRST_COMPLETED
            )

            assert [429] == [each.result() for each in told]
            assert 200 == await self.post(http)
            for _, writer in slow:
                writer.close()

    async def test_small_requests_that_become_large_ones_hold_up_nobody(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """
        Thirty without a key, each of 500 bytes that become 500 000: the event loop reads one of them at a time.
        """
        read, honest_read, honest_round = [0], bodies._decoded, Rounds._round

        def decoded(raw: bytes, encoding: str | None) -> bytes | Malformed:
            text = honest_read(raw, encoding)
            read[-1] += len(text)
            return text

        monkeypatch.setattr(bodies, "_decoded", decoded)
        monkeypatch.setattr(Rounds, "_round", lambda self: (read.append(0), honest_round(self))[1])
        packed = gzip.compress(b'{"batch":[{}],"a":[%b[]]}' % (b"[]," * 160_000))
        async with running_app(settings(tmp_path)) as app, aiohttp.ClientSession(collect_url(app)) as http:
            app.collector._admission = Admission(most_bytes=30 * bodies.MAX_REQUEST)
            sending = [http.post("/collect", data=packed, headers={"Content-Encoding": "gzip"}) for _ in range(30)]
            answers = await asyncio.gather(*sending)

            assert [401] * 30 == [each.status for each in answers]
            assert 30 <= sum(each > 0 for each in read)
            assert max(read) <= bodies.MAX_REQUEST

    async def post(self, http: aiohttp.ClientSession) -> int:
        async with http.post(f"/collect?token={KEY}", data=EVENT) as answer:
            return answer.status

    async def status(self, reader: asyncio.StreamReader) -> int:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        return int(head[9:12])
