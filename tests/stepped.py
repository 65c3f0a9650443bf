"""A clock that tests move: nobody sleeps in real time."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class SteppedClock:
    """Starts at a fixed instant. ``step`` moves it and wakes whoever is due, in order."""

    def __init__(self, now: int = 1_795_000_000_000) -> None:
        self._now = now
        self._jumped = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._slept = asyncio.Event()

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._jumped) / 1000

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time passes, and nobody is due by it."""
        self._now += int(seconds * 1000)
        self._jumped += int(seconds * 1000)
        self._sleepers = [(due + int(seconds * 1000), number, future) for due, number, future in self._sleepers]

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + int(seconds * 1000), next(self._order), future))
        self._slept.set()
        await future

    def step(self, seconds: float) -> None:
        self._now += int(seconds * 1000)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    async def somebody_sleeps(self) -> None:
        """Until somebody waits for this clock."""
        while not any(not future.done() for _, _, future in self._sleepers):
            self._slept.clear()
            await self._slept.wait()
