"""Time, as an argument: the wall clock for stamps and the monotonic one for waiting.

Engines are given a clock, so tests step it. Rules never see one; they are given numbers.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> int:
        """UTC milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment: they go on as time does, whatever becomes of the wall clock."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock. Sleeping is monotonic: a stepped wall clock neither bursts nor freezes a lane."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def woken(clock: Clock, wake: asyncio.Event, seconds: float) -> None:
    """Until ``wake`` is set, or so many seconds have passed."""
    waits = {asyncio.ensure_future(wake.wait()), asyncio.ensure_future(clock.sleep(seconds))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
