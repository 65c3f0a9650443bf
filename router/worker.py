"""A collecting process: its server and its link, from the order to begin until the first process is gone or says so."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import sys
from typing import Any

from aiohttp import web

from router import door, identifiers, logs
from router.clock import SystemClock
from router.collect import connections
from router.collect.connections import Listener, bound
from router.collect.http import Collector
from router.collect.link import (
    Answered,
    Begin,
    Drain,
    Forget,
    Keys,
    NotStored,
    Order,
    Ready,
    RefusalCount,
    Remote,
    WebhookDone,
    Wire,
)
from router.collect.network import Network
from router.collect.preparing import new_id
from router.collect.server import Server

GRACE = 4.0  # seconds for what was admitted


class Worker:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._begun: asyncio.Future[Begin | None] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._wire = Wire(Order, self._received, self._lost)
        self._remote = Remote(self._wire, new_id)
        self._refusals = RefusalCount(self._wire)
        self._collector: Collector | None = None

    async def run(self) -> None:
        """Until the first process is gone, or asks for the end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they are for the first process, which tells us
            signal.signal(number, signal.SIG_IGN)
        await asyncio.get_running_loop().create_connection(lambda: self._wire, sock=self._link)
        if (begin := await self._begun) is None or (collector := self._collector) is None:
            return
        logs.configure(begin.log_level, logs.Detached(sys.stderr))
        await asyncio.to_thread(identifiers.load)
        connections.raise_open_files()
        server = Server(collector)
        runner = web.ServerRunner(server, shutdown_timeout=GRACE)
        await runner.setup()
        listening = Listener(bound(begin.host, begin.port, shared=True), server)
        listening.start()
        gc.collect()
        gc.set_threshold(10_000, 2, 1_000)  # as turnout serve
        gc.freeze()
        self._wire.send(Ready())
        await self._over.wait()
        await listening.stop()
        await runner.cleanup()
        self._refusals.tell()
        self._wire.close()

    def _collecting(self, begin: Begin) -> Collector:
        """At once: what a reload says while this process starts is for it, too."""
        return Collector(
            self._remote.rounds,
            self._remote,
            begin.keyring,
            SystemClock(),
            network=Network(begin.trusted_proxies),
            tally=self._refusals,
            strict_utf8=begin.strict_utf8,
        )

    def _lost(self) -> None:
        """The first process is gone, and with it the outbox."""
        self._remote.lost()
        self._over.set()
        if not self._begun.done():
            self._begun.set_result(None)

    def _received(self, message: Any) -> None:
        match message:
            case Begin():
                self._collector = self._collecting(message)
                self._begun.set_result(message)
            case Answered() | WebhookDone() | NotStored():
                self._remote.answered(message)
            case Keys(keyring=keyring) if self._collector is not None:
                self._collector.keyring = keyring
            case Forget():
                door.forget()
                if self._collector is not None:
                    self._collector.forget()
            case Drain():
                if self._collector is not None:
                    self._collector.draining = True
                self._over.set()
