"""Proof: a lane recovers from an outage without a second one.

For an hour of stepped time the partner is down while events come. When the lane looks next, the partner is back, answers
each request after 0.3 s, and refuses with 429 what exceeds its rate in any second. Some waiting events were uploaded late
and leave the partner's window while the backlog drains; new ones go on coming. To be shown:

- the lane begins with one request at a time and at most doubles every ten seconds;
- no request is refused with 429;
- no late upload expires although it stands far back in the log;
- what happens now is delivered within seconds, not behind the backlog;
- a server that starts on a backlog delivers within two seconds (``--restart``; real time, a process of its own).

    python -m tests.proof.recovery --waiting 1000000 --restart 5000000

One JSON line says the verdict. The controls must fail: ``--sabotage order`` works the log off in its order,
``--sabotage ramp`` goes on at full strength at once, ``--sabotage rate`` keeps the rate by a leaking bucket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from destinations.webhook import Webhook
from router.clock import SystemClock
from router.delivery import pace, taking
from router.delivery.engine import Delivery
from router.delivery.lane import LaneRunner
from router.delivery.pace import Pace
from router.event import Event
from router.outbox.log import entries
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.secret import Secret
from tests.running import turnout
from tests.stepped import SteppedClock

SIGNING = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
OUTAGE = 3600  # seconds
WINDOW = 7 * 86_400_000  # ms
PART = 1000  # events of one append
RAMP = 10_000  # ms between two doublings at least
A_MOMENT = 0.05  # seconds
SPINS = 16  # turns of the loop in which something that can move has moved; a lane that is to write waits for three
LATENCY = 0.3  # seconds, of the partner
FRESH_WITHIN = 10.0  # seconds from receipt to delivery, for 99 of 100 new events
RESTART_WITHIN = 2.0  # seconds from the start of the process to the first request
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Sent(msgspec.Struct):
    id: str
    received: int


class Batch(msgspec.Struct):
    data: list[Sent]


class Partner:
    """Takes ``rate`` requests in any second. ``concurrent`` is the most at once, by ten seconds since ``back``."""

    def __init__(self, clock: SteppedClock, rate: int) -> None:
        self._clock, self._rate = clock, rate
        self._lately: deque[int] = deque()
        self.back: int | None = None
        self.requests = self.refused = self.working = 0
        self.concurrent: Counter[int] = Counter()
        self.taken: dict[str, int] = {}  # id -> when, UTC ms
        self.ages: dict[str, float] = {}
        self.serving: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(head)
                status = await self._answer(await reader.readexactly(int(found[1]) if found else 0))
                writer.write(b"HTTP/1.1 %d -\r\nContent-Length: 0\r\n\r\n" % status)
        writer.close()

    async def _answer(self, body: bytes) -> int:
        self.requests += 1
        now = self._clock.now()
        if self.back is None or now < self.back:
            return 503
        while self._lately and self._lately[0] <= now - 1000:
            self._lately.popleft()
        if len(self._lately) >= self._rate:
            self.refused += 1
            return 429
        self._lately.append(now)
        await self._work((now - self.back) // RAMP)
        at = self._clock.now()
        for each in msgspec.json.decode(body, type=Batch).data:
            self.taken.setdefault(each.id, at)
            self.ages[each.id] = (at - each.received) / 1000
        return 200

    async def _work(self, period: int) -> None:
        self.working += 1
        self.concurrent[period] = max(self.concurrent[period], self.working)
        await self._clock.sleep(LATENCY)
        self.working -= 1


def rows(prefix: str, count: int, received: int, happened: Sequence[int] | None = None) -> list[entries.Row]:
    times = happened or [received] * count
    return [
        entries.row(
            Event(
                id=f"{prefix}{number}",
                name="sale",
                time=times[number],
                received=received,
                source="shop",
                dialect="plain",
            )
        )
        for number in range(count)
    ]


class Scene:
    """One lane, its partner, and time that goes on only when nothing moves."""

    def __init__(self, store: Outbox, clock: SteppedClock, dice: random.Random, waiting: int, rate: int, batch: int):
        self.store, self.clock, self.dice, self.waiting = store, clock, dice, waiting
        self.speed = rate * batch  # events a second that the partner takes
        self.partner, self.patience = Partner(clock, rate), Patience(clock)
        self.late = self.fresh = 0
        self.settings = {"rate": f"{rate}/s", "batch": batch, "max_age": "7d", "allow_private": True}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Delivery]:
        server = await asyncio.start_server(self.partner.serve, "127.0.0.1", 0, limit=1 << 22)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        delivery = Delivery(self.store, self.patience)
        await delivery.apply({"hook": Webhook(url=url, secrets=(Secret(SIGNING),), **self.settings)})
        try:
            yield delivery
        finally:
            await delivery.stop(0.1)
            server.close()
            for task in filter(None, self.partner.serving):
                task.cancel()
            await asyncio.gather(*filter(None, self.partner.serving), return_exceptions=True)

    async def outage(self, lane: Pace) -> None:
        """An hour in which the partner is down. In the later half of the log, one event of fifty was uploaded late."""
        half = self.waiting // 2
        for part in range(0, half, PART):
            await self.store.append(rows(f"w{part}-", PART, self.clock.now()))
            self.clock.step(OUTAGE * PART / half)
            await asyncio.sleep(0.01)
        while lane.paused_until <= self.clock.now():  # noqa: ASYNC110 - the last try is still under way
            await asyncio.sleep(0.01)
        back = lane.paused_until
        for part in range(half, self.waiting, PART):
            happened = [self.clock.now()] * PART
            for place in range(0, PART, 50):
                happened[place] = self._late(back)
            await self.store.append(rows(f"w{part}-", PART, self.clock.now(), happened))
        await self.store.journal.settled()
        self.partner.back = back
        self.clock.step((back - self.clock.now()) / 1000)

    def _late(self, back: int) -> int:
        """It leaves the partner's window while the backlog drains, at the earliest after a third of that time."""
        self.late += 1
        return back - WINDOW + int(1000 * self.waiting / self.speed * self.dice.uniform(0.3, 1.3))

    async def new_events(self) -> None:
        """A twentieth of what the partner takes goes on coming."""
        while True:
            await self.store.append(rows(f"f{self.fresh}-", self.speed // 40, self.clock.now()))
            self.fresh += self.speed // 40
            await self.clock.sleep(0.5)

    async def drained(self, runner: LaneRunner) -> None:
        """Step from one instant at which somebody wakes to the next, whenever nothing moves."""
        end, threads = self.store.last, Threads()
        while self.store.lanes["hook"].cursor < end:
            for _ in range(SPINS):
                await asyncio.sleep(0.001 if threads.busy or _soon() else 0)
            waiting = self.partner.working + self.patience.sleeping
            if not threads.busy and not _soon() and waiting >= runner._sending._running:
                self.clock.step(max(0.001, (self._next_wake() - self.clock.now()) / 1000))

    def _next_wake(self) -> int:
        return min((at for at, _, future in self.clock._sleepers if not future.done()), default=self.clock.now())


def _soon() -> bool:
    """Does anything of the running loop wait for a moment of real time, as a lane does that lets a batch fill?"""
    loop: Any = asyncio.get_running_loop()
    return any(timer.when() < loop.time() + A_MOMENT for timer in loop._scheduled if not timer.cancelled())


class Patience:
    """The lane's clock; it knows how much of the lane is waiting for it."""

    def __init__(self, clock: SteppedClock) -> None:
        self._clock, self.now, self.monotonic = clock, clock.now, clock.monotonic
        self.sleeping = 0

    async def sleep(self, seconds: float) -> None:
        self.sleeping += 1
        try:
            await self._clock.sleep(seconds)
        finally:
            self.sleeping -= 1


class Threads:
    """``busy``: how much of the running loop is waiting for another thread, as for a read from disk."""

    def __init__(self) -> None:
        self.busy = 0
        loop = asyncio.get_running_loop()
        honest = loop.run_in_executor

        def counted(executor: Any, function: Callable[..., Any], *given: Any) -> asyncio.Future[Any]:
            self.busy += 1
            future = honest(executor, function, *given)
            future.add_done_callback(self._done)
            return future

        loop.run_in_executor = counted  # type: ignore[method-assign]  # of this loop, which ends with the proof

    def _done(self, _: asyncio.Future[Any]) -> None:
        self.busy -= 1


async def recovered(waiting: int, seed: int, *, rate: int = 10, batch: int = 100, segment: int) -> dict[str, Any]:
    """What the partner saw, as figures."""
    clock, dice = SteppedClock(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="proof-") as name:
        store = await Outbox.open(Path(name) / "outbox", clock, segment_events=segment)
        scene = Scene(store, clock, dice, waiting, rate, batch)
        async with scene.running() as delivery:
            await scene.outage(delivery.lanes["hook"]._pace)
            partner, tries, began = scene.partner, scene.partner.requests, clock.now()
            coming = asyncio.create_task(scene.new_events())
            await scene.drained(delivery.lanes["hook"])
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await store.settle(store.lanes["hook"], [])
        ledger = await Reader(store.directory).ledger()
        await store.close()
    ages = sorted(age for each, age in partner.ages.items() if each.startswith("f"))
    return {
        "waiting": waiting,
        "late": scene.late,
        "new": len(ages),
        "tries while down": tries,
        "requests": partner.requests - tries,
        "refused with 429": partner.refused,
        "at once, by 10 s": [partner.concurrent[period] for period in range(6)],
        "expired": ledger.destinations["hook"].dead,
        "new within s, p99": ages[int(0.99 * (len(ages) - 1))] if ages else None,
        "drained in s": round((clock.now() - began) / 1000),
        "events a second": scene.speed,
        "difference": ledger.difference,
    }


def judged(seen: dict[str, Any], within: float) -> str:
    """ "ok", or what is wrong."""
    if seen["refused with 429"]:
        return "refused"
    if any(most > 2**period for period, most in enumerate(seen["at once, by 10 s"])):
        return "no ramp"
    if seen["expired"]:
        return "expired"
    if seen["new within s, p99"] is None or seen["new within s, p99"] > FRESH_WITHIN:
        return "starved"
    if seen.get("first request after s", 0.0) > within:
        return "slow start"
    return "ok" if not seen["difference"] else "the ledger does not add up"


# The start on a backlog


async def restarted(waiting: int) -> float:
    """Seconds from the start of ``turnout serve`` to its first request, with so many events waiting."""
    arrived: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            if not arrived.done():
                arrived.set_result(time.monotonic())
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    with tempfile.TemporaryDirectory(prefix="proof-") as name:
        await _fill(Path(name) / "outbox", waiting)
        config = Path(name) / "config.toml"
        config.write_text(
            f'[collect]\nlisten = "127.0.0.1:0"\n[console]\nlisten = "127.0.0.1:0"\n'
            f'[outbox]\npath = "{Path(name) / "outbox"}"\n[sources.shop]\ntokens = ["env:PROOF_TOKEN"]\n'
            f'[destinations.hook]\ntype = "webhook"\nurl = "{url}"\nsecrets = ["env:PROOF_SECRET"]\nallow_private = true\n'
        )
        began = time.monotonic()
        environ = {"PROOF_TOKEN": "a-write-key", "PROOF_SECRET": SIGNING}
        async with turnout("serve", "--config", str(config), "--json", **environ), asyncio.timeout(60):
            took = await arrived - began
    server.close()
    return took


async def _fill(directory: Path, waiting: int) -> None:
    store = await Outbox.open(directory, SystemClock())
    await store.lane("hook", "webhook")
    for part in range(0, waiting, 3000):
        await store.append(rows(f"w{part}-", min(3000, waiting - part), SystemClock().now()))
    await store.close()


# The controls


class Bucket:
    """A second's worth at once, and as many again while it leaks."""

    def __init__(self, rate: float) -> None:
        self._rate, self._full, self._at = rate, 0.0, 0

    def wait(self, now: int) -> int:
        self._full, self._at = max(0.0, self._full - (now - self._at) * self._rate / 1000), now
        return 0 if self._full + 1 <= self._rate else max(1, int(1000 / self._rate))

    def take(self, now: int) -> None:
        self._full += 1


@contextlib.contextmanager
def sabotaged(how: str | None) -> Iterator[None]:
    if how == "order":
        with mock.patch.object(taking, "FAR_BEHIND", 1 << 60):
            yield
    elif how == "ramp":
        with mock.patch.object(pace, "RAMP_DOUBLING", 1):
            yield
    elif how == "rate":
        with mock.patch("router.delivery.lane.RateLimit", Bucket):
            yield
    else:
        yield


async def prove(
    *, waiting: int, seed: int, restart: int = 0, sabotage: str | None = None, within: float = RESTART_WITHIN
) -> dict[str, Any]:
    """Run it; the verdict is "ok" or says what is wrong. The start may take ``within`` s."""
    with sabotaged(sabotage):
        seen = await recovered(waiting, seed, segment=max(1000, min(100_000, waiting // 10)))
    if restart:
        seen |= {"waiting at the start": restart, "first request after s": round(await restarted(restart), 2)}
    return {"proof": "recovery", "seed": seed, **seen, "control": sabotage, "verdict": judged(seen, within)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--waiting", type=int, default=100_000)
    options.add_argument("--restart", type=int, default=0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sabotage", choices=("order", "ramp", "rate"))
    chosen = options.parse_args()
    asked = {"waiting": chosen.waiting, "seed": chosen.seed, "restart": chosen.restart}
    result = asyncio.run(prove(**asked, sabotage=chosen.sabotage))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
