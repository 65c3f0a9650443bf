"""A Snitcher account for tests: the fake one over real HTTP, a source that fetches from it, and a clock that is stepped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from router.clock import Clock
from router.collect.intake import Intake
from router.collect.keys import sender
from router.collect.preparing import new_id
from router.event import Event
from router.mocks.snitcher import Snitcher as Fake
from router.mocks.snitcher import stamp
from router.outbox.outbox import Outbox
from router.pull.memory import Memory
from router.pull.puller import Puller
from router.secret import Secret
from router.settings import Snitcher
from router.sources.budget import Budget
from router.sources.snitcher import LONGEST
from router.transport import Transport
from tests.stepped import SteppedClock

T = TypeVar("T")
TOKEN = "a-personal-access-token"
MINUTE = 60_000


class Quiet:
    """The time of another clock, for an outbox beside it: its own chores wait for ever and move nobody's time."""

    def __init__(self, clock: SteppedClock) -> None:
        self.now, self.monotonic = clock.now, clock.monotonic

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()


def account(url: str, /, **chosen: Any) -> Snitcher:
    return Snitcher(**{"token": Secret(TOKEN), "base_url": f"{url}/v1", "allow_private": True, **chosen})


@contextlib.asynccontextmanager
async def fetching(
    store: Outbox, clock: Clock, settings: Snitcher, *, name: str = "leads", budget: Budget | None = None
) -> AsyncIterator[Puller]:
    """A source as it is after the start of a process."""
    transport = Transport(name, clock, timeout=10.0, concurrency=1, allow_private=True, longest=LONGEST)
    puller = Puller(
        settings,
        sender(name, settings, frozenset()),
        intake=Intake(store, new_id),
        memory=Memory(store, name),
        transport=transport,
        budget=budget or Budget(clock),
        clock=clock,
        chance=lambda: 1.0,
    )
    await puller.recall()
    try:
        yield puller
    finally:
        await transport.close()


async def elapse(clock: SteppedClock, act: Coroutine[Any, Any, T], step: float = 0.5) -> T:
    """Let time pass, so many seconds at once, whenever somebody waits for it, until ``act`` is done."""
    task = asyncio.ensure_future(act)
    while not task.done():
        sleeping = asyncio.ensure_future(clock.somebody_sleeps())
        await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        if not task.done():
            clock.step(step)
    return await task


async def told(store: Outbox) -> list[Event]:
    return [each.event for each in await store.read(0, 10_000) if each.event is not None]


async def names(store: Outbox) -> list[str]:
    return [event.name for event in await told(store)]


def visit(fake: Fake, number: int, *urls: str, at: int | None = None, company: str = "org-1") -> str:
    """Let somebody of a company see these pages; the same number goes on with the same session."""
    began = fake.now() if at is None else at
    session = f"00000000-0000-4000-8000-{number:012}"
    events = [{"event_type": "pageview", "url": url, "triggered_at": stamp(began)} for url in urls]
    there = {} if session in fake.workspaces["ws_abc123"].sessions else {"started_at": stamp(began)}
    fake.add_session(
        {"uuid": session, "organisation_uuid": company, "ended_at": stamp(began), "events": events, **there}
    )
    return session


def asked(fake: Fake, ending: str = "/sessions") -> list[Any]:
    """The calls of a list."""
    return [call for call in fake.received if call.path.endswith(ending)]
