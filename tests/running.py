"""The application for tests: running on free ports, in this process or in one of its own, and the wire in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web

from router.app import App
from router.destination import Destination
from router.event import Event
from router.secret import Secret
from router.settings import Collect, Console, Outbox, Settings, Source

ROOT = Path(__file__).parent.parent
KEY = "a-write-key"
ANYWHERE = "127.0.0.1:0"


def free_port() -> int:
    """One that no connection is given by chance while the server is down: below the ports that Linux gives away."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def settings(directory: Path, *, destinations: Mapping[str, Destination] | None = None, **source: Any) -> Settings:
    """One source named shop with the key ``KEY``, an outbox in ``directory / "outbox"``, any free ports."""
    return Settings(
        collect=Collect(listen=ANYWHERE),
        console=Console(listen=ANYWHERE),
        outbox=Outbox(path=str(directory / "outbox")),
        sources={"shop": Source(tokens=(Secret(KEY),), **source)},
        destinations=dict(destinations or {}),
    )


@contextlib.asynccontextmanager
async def running_app(chosen: Settings) -> AsyncIterator[App]:
    """The application, started; stopped at the end as ``serve`` stops it."""
    app = App(chosen)
    await app.start()
    try:
        yield app
    finally:
        await app.stop()


def collect_url(app: App) -> str:
    return f"http://127.0.0.1:{app.collect_port}"


async def stored(app: App) -> list[Event]:
    """Every event in the outbox, in order."""
    return [each.event for each in await app.store.read(0, 10_000) if each.event is not None]


class Seen(NamedTuple):
    """One request as it passed: the body is as it came, packed or not."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int


class Wire:
    """A proxy that remembers every request and, ``losing`` so many times, hangs up instead of passing the answer on."""

    def __init__(self, target: str, losing: int = 0) -> None:
        self._target, self._losing = target, losing
        self.seen: list[Seen] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Wire]:
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._pass)
        runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as self._session:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self
        finally:
            await runner.cleanup()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name not in {"Host", "Content-Length"}}
        async with self._session.request(
            request.method, self._target + request.path_qs, data=body, headers=headers
        ) as answer:
            content = await answer.read()
        self.seen.append(Seen(request.path, headers, body, answer.status))
        if self._losing:
            self._losing -= 1
            assert request.transport is not None
            request.transport.abort()
        kept = {name: value for name, value in answer.headers.items() if name in {"Content-Type", "Retry-After"}}
        return web.Response(status=answer.status, body=content, headers=kept)


class Process:
    """``turnout ARGUMENTS`` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def line(self) -> str:
        """The next line it prints; "" at the end."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def object(self) -> Any:
        """The next line, which is JSON."""
        return msgspec.json.decode(await self.line())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, within: float = 60.0) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, and stderr. TimeoutError where it goes on for so many seconds."""
        async with asyncio.timeout(within):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def turnout(*arguments: str, code: str | None = None, **environ: str) -> AsyncIterator[Process]:
    """The command line; with ``code`` that Python text is run first in its process. Killed if it is still there."""
    start = f"{code or ''}\nfrom router.__main__ import main\nmain()"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        start,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **environ},
        limit=1 << 20,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
