"""The floor: one lane at a time makes its requests, and before each the network has its turns of the event loop.

A lane's batch takes a few milliseconds of the processor, and all lanes wake at the same event: with three of them in a
row, whoever sent meanwhile waited for all three, and what had come by then was a long round that the next lanes waited
for. Where there is nothing else to do a turn takes some microseconds, so a lane alone loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

TURNS = 3  # what came is read in one, worked on in the next; with many more of them lanes fall behind under full load


class Floor:
    """All lanes of an engine share one."""

    def __init__(self) -> None:
        self._taken = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Whoever asked first is first."""
        async with self._taken:
            for _ in range(TURNS):
                await asyncio.sleep(0)  # a turn of the loop, not a time
            yield
