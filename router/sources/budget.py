"""How many requests one token may make, whoever makes them: workspaces and sources with the same token share it.

The partner takes 60 a minute. A leaky bucket of 54 would let 54 through at once and 54 more in the rest of the same
minute, so the instants of the last 60 seconds are counted instead. They outlive a restart, by ``recall``.

Source: Snitcher, "Rate limits": 60 requests per minute per token; 429: "start with a 1-second delay, then double it".
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable

from router.clock import Clock

MOST = 54  # of the 60, so that the operator's own scripts have some
WINDOW = 60_000  # ms
LONGEST_BACK_OFF = 64.0  # seconds


class Budget:
    def __init__(self, clock: Clock, *, most: int = MOST) -> None:
        self._clock, self._most = clock, most
        self._made: deque[int] = deque()  # UTC ms of the requests of the last minute
        self._refusals = 0  # in a row
        self._not_before = self._asked = 0  # UTC ms: when it may go on, and since when it waits
        self._one_by_one = asyncio.Lock()

    async def turn(self) -> None:
        """Wait until one more request may be made; it counts from now on."""
        async with self._one_by_one:
            while (wait := self._wait(self._clock.now())) > 0:
                await self._clock.sleep(wait / 1000)
            self._made.append(self._clock.now())

    def _wait(self, now: int) -> int:
        """Milliseconds. A clock that was set back is not waited for longer than a window or a back-off lasts."""
        made = self.made(now)
        full = made[-self._most] + WINDOW - now if len(made) >= self._most else 0
        if now < self._asked:  # set back: the wait is as long as it was
            self._not_before, self._asked = self._not_before - (self._asked - now), now
        return max(full, self._not_before - now)

    def made(self, now: int) -> list[int]:
        """The instants of the last minute's requests."""
        while self._made and not now - WINDOW < self._made[0] <= now:
            self._made.popleft()
        return list(self._made)

    def recall(self, made: Iterable[int]) -> None:
        """Requests that were made before this process began."""
        both = Counter(self._made) | Counter(made)  # sources with one token remember the same requests
        self._made = deque(sorted(both.elements()))

    def refused(self, retry_after: float | None) -> float:
        """The partner said 429. Nobody with this token asks again for so many seconds, which are returned."""
        self._refusals += 1
        wait = max(min(LONGEST_BACK_OFF, 2.0 ** (self._refusals - 1)), retry_after or 0.0)
        self._asked = self._clock.now()
        self._not_before = max(self._not_before, self._asked + int(wait * 1000))
        return wait

    def answered(self) -> None:
        """The partner said something else than 429."""
        self._refusals = 0
