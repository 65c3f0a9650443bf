"""What senders get wrong, through the real endpoint: the corpus over HTTP, and byte by byte over a socket.

The pure functions meet the same corpus in ``test_body``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from router.collect import http
from router.collect.http import Collector
from router.collect.intake import Intake
from router.collect.keys import Keyring, sender
from router.collect.network import Network
from router.collect.server import Server
from router.collect.webhooks import Webhooks
from router.outbox.outbox import Outbox
from router.secret import Secret
from router.settings import Source
from tests.corpus import CORPUS, BodyCase, CollectCase, SocketCase, rows
from tests.stepped import SteppedClock

TOKEN = "k-shop"
OFF = "k-off"


class Endpoint:
    """A collect endpoint on a port of its own, over an outbox on disk."""

    def __init__(self, store: Outbox, port: int) -> None:
        self.port = port
        self._store = store

    async def stored(self) -> int:
        return len(await self._store.read(0, 2_000))

    async def answer(
        self, session: aiohttp.ClientSession, target: str, method: str = "POST", **request: Any
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, decoded body and headers."""
        url = URL(f"http://127.0.0.1:{self.port}{target}", encoded=True)
        async with session.request(method, url, **request) as response:
            return response.status, msgspec.json.decode(await response.read() or b"{}"), dict(response.headers)

    async def spoken(self, case: SocketCase) -> list[int]:
        """The statuses that come back on one connection until the server closes it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answers = b""
        # A server that has said its 400 closes, and may do so while we still write.
        with contextlib.suppress(ConnectionError):
            writer.write(case.raw(TOKEN))
            await writer.drain()
            if not case.leave:
                answers = await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        return [int(status) for status in re.findall(rb"HTTP/\d\.\d (\d{3}) ", answers)]


@pytest.fixture
async def collector(store: Outbox, clock: SteppedClock) -> AsyncIterator[Endpoint]:
    numbers = itertools.count()
    keyring = Keyring(
        (
            sender("shop", Source(tokens=(Secret(TOKEN),), site="3311"), frozenset()),
            sender("off", Source(tokens=(Secret(OFF),), enabled=False), frozenset()),
        )
    )
    intake = Intake(store, lambda: f"own-{next(numbers)}")
    endpoint = Collector(intake.rounds, Webhooks({}, intake, clock), keyring, clock, network=Network(()))
    runner = web.ServerRunner(Server(endpoint))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield Endpoint(store, runner.addresses[0][1])
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(skip_auto_headers=["Content-Type"], auto_decompress=False) as opened:
        yield opened


def told(case: BodyCase) -> dict[str, Any]:
    """What the sender of a body is told."""
    if case.status != 200:
        return {"status": case.status, "code": case.code}
    problems = case.problems or [(index, case.all_problems) for index in range(400) if case.all_problems]
    return {"status": 200, "accepted": case.accepted, "problems": [list(problem) for problem in problems]}


def heard(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    if status != 200:
        return {"status": status, "code": answer.get("code")}
    problems = [[problem.get("index", 0), problem["code"]] for problem in answer["problems"]]
    return {"status": 200, "accepted": answer["accepted"], "problems": problems}


class TestHttp:
    async def test_bodies(self, collector: Endpoint, session: aiohttp.ClientSession) -> None:
        """
        Every body gets over HTTP the answer that the pure function gives, and what was accepted is on disk.
        """
        cases = {name: case for name, case in CORPUS.body.items() if not case.strict_utf8}
        actual = {}
        for name, case in cases.items():
            headers = {} if case.encoding is None else {"Content-Encoding": case.encoding}
            status, answer, _ = await collector.answer(
                session, f"/collect?token={TOKEN}", data=case.raw(), headers=headers
            )
            actual[name] = heard(status, answer)

        assert {name: told(case) for name, case in cases.items()} == actual

    @pytest.mark.parametrize("name", rows(CORPUS.collect))
    async def test_requests(self, name: str, collector: Endpoint, session: aiohttp.ClientSession) -> None:
        """
        Every request gets the status, code and headers of the corpus, and only what was accepted is on disk.
        """
        case = CORPUS.collect[name]
        status, answer, headers = await collector.answer(
            session, f"{case.path}?{keyed(case.query)}", case.method, data=case.raw(), headers=keyed_headers(case)
        )

        assert (case.status, case.code or answer.get("code")) == (status, answer.get("code"))
        assert case.accepted == answer.get("accepted", 0) == await collector.stored()
        assert case.answer_headers == {key: headers.get(key) for key in case.answer_headers}

    async def test_one_401(self, collector: Endpoint, session: aiohttp.ClientSession) -> None:
        """
        No key, a wrong one, an unknown site and a site that is not the key's are one and the same answer.
        """
        queries = ("", "token=wrong", "tc_s=1&token=wrong", f"tc_s=1&token={TOKEN}")
        answers = [(await collector.answer(session, f"/collect?{query}", data=b"{}"))[:2] for query in queries]

        assert [401] * 4 == [status for status, _ in answers]
        assert [answers[0]] * 4 == answers


def keyed(text: str) -> str:
    return text.replace("{token}", TOKEN).replace("{off}", OFF)


def keyed_headers(case: CollectCase) -> dict[str, str]:
    return {name: keyed(value) for name, value in case.headers.items()}


class TestSocket:
    @pytest.mark.parametrize("name", rows(CORPUS.socket))
    async def test_bytes(self, name: str, collector: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Whatever comes on a connection, the answers are those of the corpus, then it is closed, and nothing else is on disk.
        """
        case = CORPUS.socket[name]
        if 408 in case.statuses:
            monkeypatch.setattr(http, "BODY_DEADLINE", 0.3)  # the product waits ten seconds
        async with asyncio.timeout(20):
            statuses = await collector.spoken(case)

        assert case.statuses == statuses
        assert case.stored == await collector.stored()
