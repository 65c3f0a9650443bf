"""How fast a lane may go: breaker, ramp and concurrency as a state machine that is told the time. Pure."""

from __future__ import annotations

from router import retry

FAILURES_TO_OPEN = 3  # in a row; one flaky answer is the delivery's own affair
RAMP_DOUBLING = 10_000  # ms


class Pace:
    """How many requests a lane may have under way, and until when it must not send. Instants are UTC ms.

    Three failures in a row open the breaker: the lane waits, with back-off, and then sends one probe at a time. The
    first success closes it and the lane ramps up, at most doubling every 10 s, so that a partner that just recovered
    is not met by the whole backlog. Otherwise additive increase, multiplicative decrease.
    """

    def __init__(self, concurrency: int) -> None:
        self._most = concurrency
        self._limit = float(concurrency)
        self._failures = 0
        self._ramp_from: int | None = None
        self.paused_until = 0

    @property
    def open(self) -> bool:
        """Is the breaker open, so that only probes may pass?"""
        return self._failures >= FAILURES_TO_OPEN

    def allowed(self, now: int) -> int:
        """Requests that may be under way at ``now``."""
        if now < self.paused_until:
            return 0
        if self.open:
            return 1
        return max(1, min(self._ramp(now), int(self._limit)))

    def _ramp(self, now: int) -> int:
        if self._ramp_from is None:
            return self._most
        most = 1 << min(20, max(0, now - self._ramp_from) // RAMP_DOUBLING)
        if most >= self._most:
            self._ramp_from = None
        return min(most, self._most)

    def succeeded(self, now: int) -> None:
        if self.open:
            self._ramp_from = now
        self._failures = 0
        self._limit = min(float(self._most), self._limit + 1.0 / self._limit)

    def failed(self, now: int, chance: float) -> None:
        if self.open and now < self.paused_until:
            return  # it left before the breaker opened
        self._failures += 1
        self._limit = max(1.0, self._limit / 2)
        if self.open:
            # Half of the wait is certain: a full jitter of nearly 0 would make the breaker no breaker.
            wait = retry.delay(self._failures - FAILURES_TO_OPEN + 1, 0.5 + chance / 2)
            self.pause(now + int(wait * 1000))

    def pause(self, until: int) -> None:
        """The partner said when: the whole lane waits."""
        self.paused_until = max(self.paused_until, until)

    def resume(self) -> None:
        """An operator or a reload lets the lane go at once."""
        self.paused_until = 0
        self._failures = 0
