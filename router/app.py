"""The application: every part, wired, with its start and its stop.

Start: take the outbox, run the lanes, open the ports. Stop: refuse new requests, finish those that were admitted, let
requests to partners end, settle, close the outbox; all of it within ``GRACE`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import socket
from collections.abc import Callable, Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import web

from router import console, door, identifiers, logs
from router.clock import Clock, SystemClock
from router.collect import connections
from router.collect.http import Collector
from router.collect.intake import Intake
from router.collect.keys import Keyring, Sender, sender
from router.collect.link import Begin
from router.collect.network import Network
from router.collect.preparing import new_id
from router.collect.server import Server
from router.collect.visitors import MOST, Visitors
from router.collect.webhooks import Hook, Webhooks, hooks
from router.collect.workers import Workers
from router.delivery.engine import Delivery
from router.failpoint import failpoint
from router.metrics import Metrics
from router.outbox.disk.space import Room
from router.outbox.errors import NotDurable
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.upkeep.retention import Policy
from router.pull.engine import Pull
from router.secret import Secret
from router.settings import Outbox as OutboxSettings
from router.settings import Settings, seconds, size

log: Any = structlog.get_logger()

VERSION = metadata.version("turnout")
GRACE = 8.0  # seconds for what was admitted and what is under way; the process ends within 10
EX_TEMPFAIL = 75
BROKEN = 1


class App:
    """Turnout, running. ``collect_port`` and ``console_port`` are the ports it really listens on."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        self.collect_port = self.console_port = 0
        self.draining = False
        self.collector: Collector | None = None  # in this process, or ...
        self.workers: Workers | None = None  # ... in others
        self.broken: asyncio.Future[NotDurable] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        """Ready to take events when this returns. OutboxError and OSError say why it cannot be; nothing is left then."""
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            self._parts = stack.pop_all()
        log.info("started", listen=[self.collect_port, self.console_port])

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        """Every part in the order that makes its reverse the order of a stop: no new events, no new requests to
        partners, no console, no outbox.
        """
        settings, outbox = self.settings, self.settings.outbox
        await asyncio.to_thread(identifiers.load)  # else the first event with a phone number waits for the tables
        self.store = await Outbox.open(Path(outbox.path), self.clock, policy=policy(outbox), room=room(outbox))
        stack.push_async_callback(self.store.close)
        self.store.on_failure = self._fail
        if self.store.failed is not None:  # while it opened
            self._fail(self.store.failed)
        await self.store.configure(*described(settings))
        self.metrics.configured(VERSION, self.store.config, self.clock.now())
        self.delivery = Delivery(self.store, self.clock, self.metrics)
        self.visitors = await self._visitors()
        self.store.on_erase = self._forget
        intake = Intake(self.store, new_id, self.metrics, self.visitors)
        self.pull = Pull(self.store, intake, self.clock)
        self.webhooks = Webhooks(hooked(settings), intake, self.clock)
        pages = console.application(
            reader=Reader(self.store.directory),
            store=self.store,
            delivery=self.delivery,
            settings=settings,
            metrics=self.metrics,
            closed=self._closed,
        )
        runner = web.AppRunner(pages, access_log=None, keepalive_timeout=15.0)
        self.console_port = await _listen(stack, runner, settings.console.listen)
        stack.push_async_callback(self.delivery.stop, GRACE / 2)
        await self.delivery.apply(settings.destinations)
        stack.push_async_callback(self.pull.stop)
        if settings.collect.workers:
            self.collect_port = await self._collect_beside(stack, intake)
        else:
            self.collect_port = await self._collect_here(stack, intake)
        await self.pull.apply(settings.sources, cleared(settings))

    async def _collect_here(self, stack: contextlib.AsyncExitStack, intake: Intake) -> int:
        collect = self.settings.collect
        self.collector = Collector(
            intake.rounds,
            self.webhooks,
            keyring(self.settings),
            self.clock,
            network=Network(collect.trusted_proxies),
            tally=self.metrics,
            strict_utf8=collect.strict_utf8,
        )
        return await _collect(stack, Server(self.collector), collect.listen)

    async def _collect_beside(self, stack: contextlib.AsyncExitStack, intake: Intake) -> int:
        """In processes of their own."""
        collect = self.settings.collect
        host, _, port = collect.listen.rpartition(":")
        begin = Begin(
            host=host.strip("[]"),
            port=int(port),
            keyring=keyring(self.settings),
            trusted_proxies=collect.trusted_proxies,
            strict_utf8=collect.strict_utf8,
            log_level=logs.level(),
        )
        self.workers = Workers(collect.workers, begin, intake, self.webhooks, self.clock)
        stack.push_async_callback(self.workers.stop, GRACE / 2)
        return await self.workers.start()

    def _closed(self) -> str | None:
        if self.draining:
            return "draining"
        return None if self.collect_port else "starting"

    def _forget(self, anonymous_ids: Collection[str]) -> None:
        """Empty what the process remembers of what was sent, and these visitors' sessions."""
        door.forget()
        if self.collector is not None:
            self.collector.forget()
        if self.workers is not None:
            self.workers.forget()
        self.visitors.forget(anonymous_ids)

    async def _visitors(self) -> Visitors:
        """Whose sessions were under way when the last process ended."""
        session = int(seconds(self.settings.collect.session) * 1000)
        known = await self.store.visitors(self.clock.now() - session, MOST)
        return Visitors(session, known)

    async def reload(self, settings: Settings) -> None:
        """Take over sources and destinations of a checked configuration while running. Addresses and the outbox need a
        restart.
        """
        of_start = {name: getattr(self.settings, name) for name in ("collect", "console", "outbox")}
        if msgspec.structs.replace(settings, **of_start) != settings:
            log.warning("restart_needed", reason="collect, console and outbox settings are read at start only")
        failpoint("reload_before_write")
        await self.store.configure(*described(settings))
        failpoint("reload_after_write")
        self.metrics.configured(VERSION, self.store.config, self.clock.now())
        self.webhooks.hooks = hooked(settings)
        if self.collector is not None:
            self.collector.keyring = keyring(settings)
        if self.workers is not None:
            self.workers.rekey(keyring(settings))
        await self.delivery.apply(settings.destinations)
        failpoint("reload_after_lanes")
        await self.pull.apply(settings.sources, cleared(settings))
        self.settings = msgspec.structs.replace(settings, **of_start)
        log.info("reloaded", version=self.store.config)

    async def stop(self) -> None:
        """Stop accepting, finish what was admitted, settle what is under way, give the outbox back."""
        self.draining = True
        if self.collector is not None:
            self.collector.draining = True
        await self._parts.aclose()
        log.info("stopped")

    def _fail(self, error: NotDurable) -> None:
        log.error("outbox_broken", reason=str(error))
        if not self.broken.done():
            self.broken.set_result(error)


def policy(outbox: OutboxSettings) -> Policy:
    """How long the outbox keeps what."""
    kept = {"delivered": outbox.keep_delivered, "dead": outbox.keep_dead, "dedup": outbox.dedup}
    return Policy(**{name: int(seconds(duration) * 1000) for name, duration in kept.items()})


def room(outbox: OutboxSettings) -> Room:
    """How much of its disk the outbox leaves free."""
    return Room(least=size(outbox.min_free), ballast=size(outbox.ballast))


def keyring(settings: Settings) -> Keyring:
    """The sources, each knowing which clear values some enabled destination needs."""
    return Keyring(tuple(senders(settings).values()), frozenset(hooked(settings)))


def senders(settings: Settings) -> dict[str, Sender]:
    needed = cleared(settings)
    return {name: sender(name, source, needed) for name, source in settings.sources.items()}


def hooked(settings: Settings) -> dict[str, Hook]:
    """The sources whose partner posts to us."""
    return hooks(settings.sources, senders(settings))


def cleared(settings: Settings) -> frozenset[str]:
    """The fields of ``Clear`` that some enabled destination needs."""
    return frozenset[str]().union(*(each.clear for each in settings.destinations.values() if each.enabled))


def described(settings: Settings) -> tuple[str, str]:
    """Digest and text of a configuration as decisions remember it: secrets by their reference only."""
    text = msgspec.json.format(
        msgspec.json.encode(
            {"sources": settings.sources, "destinations": settings.destinations}, enc_hook=_reference, order="sorted"
        )
    )
    return hashlib.sha256(text).hexdigest(), text.decode()


def _reference(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reference or "***"
    raise NotImplementedError


async def _collect(stack: contextlib.AsyncExitStack, server: Server, address: str) -> int:
    """Open the port of the senders and say which it is."""
    runner = web.ServerRunner(server, shutdown_timeout=GRACE / 2)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listening = _listening(address)
    listener = connections.Listener(listening, server)
    stack.push_async_callback(listener.stop)
    listener.start()
    return int(listening.getsockname()[1])


async def _listen(stack: contextlib.AsyncExitStack, runner: web.AppRunner, address: str) -> int:
    """Open a port and say which it is."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    listening = _listening(address)
    await web.SockSite(runner, listening, backlog=connections.BACKLOG).start()
    return int(listening.getsockname()[1])


def _listening(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return connections.bound(host.strip("[]"), int(port))


async def serve(
    settings: Settings,
    *,
    ready: Callable[[App], None] | None = None,
    reread: Callable[[], Settings | None] = lambda: None,
) -> int:
    """Run until a signal or a broken outbox; returns the exit code. A second signal ends the process at once.

    SIGHUP asks ``reread`` for new settings; None, because the file is bad, changes nothing. OutboxError and OSError say
    why it cannot start; nothing is left running then.
    """
    connections.raise_open_files()
    app = App(settings)
    stop, hang_up = asyncio.Event(), asyncio.Event()
    stop_on_signal(stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up.set)
    await app.start()
    if ready is not None:
        ready(app)
    reloading = asyncio.create_task(_reload_for_ever(app, hang_up, reread))
    stopped = asyncio.create_task(stop.wait())
    ends: set[asyncio.Future[Any]] = {stopped, reloading, app.broken}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopped, reloading):
        task.cancel()
    await asyncio.gather(stopped, reloading, return_exceptions=True)
    await app.stop()
    return BROKEN if app.broken.done() else 0


async def _reload_for_ever(app: App, hang_up: asyncio.Event, reread: Callable[[], Settings | None]) -> None:
    """One reload after another, however many signals come meanwhile."""
    while True:
        await hang_up.wait()
        hang_up.clear()
        try:
            settings = await asyncio.to_thread(reread)
            if settings is None:
                log.error("reload_refused", reason="the configuration has errors: the old one stays in force")
            else:
                await app.reload(settings)
        except (NotDurable, OSError) as error:  # of the disk; what runs goes on
            why = f"it could not be written down ({type(error).__name__}): reload again"
            log.warning("reload_refused", reason=why)
        except Exception:
            # A fault of ours is no reason to stop: what runs goes on, and a reload may be asked for again.
            log.exception("reload_failed")


_STOPS = (signal.SIGTERM, signal.SIGINT)


def stop_on_signal(stop: asyncio.Event) -> None:
    """The first SIGTERM or Ctrl-C sets ``stop``, the second one ends the process at once."""
    for number in _STOPS:
        asyncio.get_running_loop().add_signal_handler(number, _first_signal, stop)


def _first_signal(stop: asyncio.Event) -> None:
    stop.set()
    for number in _STOPS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
