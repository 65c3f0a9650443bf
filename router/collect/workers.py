"""Collecting processes: where one processor is not enough for what senders send, others do the work of collecting.

They listen on one port, of whose connections the kernel gives each a share (SO_REUSEPORT), read requests, and prepare
their events. The outbox, its lanes and the console stay in the first process, to which they are linked. A process that
ends is started again; what it had not sent on was never acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import structlog

import router
from router.clock import Clock
from router.collect.connections import bound
from router.collect.intake import Intake
from router.collect.keys import Keyring
from router.collect.link import Begin, Desk, Drain, Forget, Keys, Ready, Refusals, Report, Store, WebhookPosted, Wire
from router.collect.webhooks import Webhooks

log: Any = structlog.get_logger()

START = 30.0  # seconds a process may take until it listens
AGAIN = 1.0  # seconds before one that has ended is started again
PORT = 5.0  # seconds that the processes of a killed server may take to leave its port


class Workers:
    """So many of them. What they ask is answered by ``intake`` and ``webhooks``."""

    def __init__(self, number: int, begin: Begin, intake: Intake, webhooks: Webhooks, clock: Clock) -> None:
        self._number, self._begin, self._clock = number, begin, clock
        self._intake, self._webhooks = intake, webhooks
        self._running: set[_Worker] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._port: socket.socket | None = None
        self._stopping = False

    async def start(self) -> int:
        """They listen when this returns; on which port. OSError where they cannot."""
        self._port = await _reserved(self._begin.host, self._begin.port)
        self._begin = msgspec.structs.replace(self._begin, port=int(self._port.getsockname()[1]))
        first = [await self._spawn() for _ in range(self._number)]
        for each in first:
            await each.listening(START)
        self._keepers = [asyncio.create_task(self._keep(each), name="collect-worker") for each in first]
        return self._begin.port

    def rekey(self, keyring: Keyring) -> None:
        """After a reload."""
        self._begin = msgspec.structs.replace(self._begin, keyring=keyring)
        for each in self._running:
            each.wire.send(Keys(keyring))

    def forget(self) -> None:
        """Somebody was erased."""
        for each in self._running:
            each.wire.send(Forget())

    async def stop(self, patience: float) -> None:
        """Nothing new is taken; what was admitted is answered, for ``patience`` seconds."""
        self._stopping = True
        for each in self._running:
            each.wire.send(Drain())
        await asyncio.gather(*(each.ended(patience) for each in self._running))
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if self._port is not None:
            self._port.close()

    async def _spawn(self) -> _Worker:
        worker = _Worker(self._intake, self._webhooks)
        try:
            await worker.begin()
        except OSError:
            worker.wire.close()
            raise
        worker.wire.send(self._begin)  # as it is now, after a reload meanwhile
        self._running.add(worker)
        return worker

    async def _keep(self, worker: _Worker) -> None:
        while True:
            await worker.gone.wait()
            self._running.discard(worker)
            if self._stopping:
                return
            log.error("collecting_process_ended", reason="it is started again")
            worker = await self._again()

    async def _again(self) -> _Worker:
        """Another one, however often a machine that is out of processes or memory refuses."""
        while True:
            await self._clock.sleep(AGAIN)
            try:
                return await self._spawn()
            except OSError as error:
                log.warning("collecting_process_not_started", reason=f"{type(error).__name__}: it is tried again")


class _Worker:
    """One process and the link to it."""

    def __init__(self, intake: Intake, webhooks: Webhooks) -> None:
        self.gone = asyncio.Event()
        self._ready = asyncio.Event()
        self.wire = Wire(Report, self._received, self._lost)
        self._desk = Desk(self.wire, intake, webhooks)

    async def begin(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: self.wire, sock=ours)
        with theirs:
            # Its descriptors are the link and the three standard ones: the outbox's lock is not inherited.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "router", "worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": _path()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )

    async def listening(self, patience: float) -> None:
        waits = [asyncio.ensure_future(each.wait()) for each in (self._ready, self.gone)]
        await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        if not self._ready.is_set():
            await self.ended(0)
            raise OSError("a collecting process did not start")

    async def ended(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self.wire.close()
        await self._desk.settled()

    def _received(self, message: Report) -> None:
        match message:
            case Ready():
                self._ready.set()
            case Store() | WebhookPosted() | Refusals():
                self._desk.asked(message)

    def _lost(self) -> None:
        self.gone.set()


def _path() -> str:
    """Where this very program was imported from comes first."""
    here = str(Path(router.__file__).parent.parent)
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


async def _reserved(host: str, port: int) -> socket.socket:
    """A port that others may share, once it is certain that nobody has it: sharing would hide a second server."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = asyncio.get_running_loop().time() + PORT
    while port:
        try:
            socket.create_server((host, port), family=family).close()
            break
        except OSError:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.02)
    return bound(host, port, shared=True)
