"""How fast a lane may go: breaker, ramp, concurrency and rate as state machines that are told the time. Pure."""

from __future__ import annotations

from collections import deque

from router import retry

FAILURES_TO_OPEN = 3  # in a row; one flaky answer is the delivery's own affair
PER_SUCCESS = 3  # failures that a success makes up for: where half of the answers are good, the lane goes on
MOST_TO_OPEN = 20  # in a row, of a partner that took what came before
RAMP_DOUBLING = 10_000  # ms


class Pace:
    """How many requests a lane may have under way, and until when it must not send. Instants are UTC ms.

    Three failures in a row open the breaker, more of them where there were successes before: the lane waits, with
    back-off, and then sends one probe at a time. The first success closes it and the lane ramps up, at most doubling
    every 10 s, so that a partner that just recovered is not met by the whole backlog. Otherwise additive increase,
    multiplicative decrease.
    """

    def __init__(self, concurrency: int) -> None:
        self.most = concurrency
        self._limit = float(concurrency)
        self._bears = FAILURES_TO_OPEN  # failures until the breaker opens; below 0, of probes since it did
        self._ramp_from: int | None = None
        self.paused_until = 0

    @property
    def open(self) -> bool:
        """Is the breaker open, so that only probes may pass?"""
        return self._bears <= 0

    def allowed(self, now: int) -> int:
        """Requests that may be under way at ``now``."""
        if now < self.paused_until:
            return 0
        if self.open:
            return 1
        return max(1, min(self._ramp(now), int(self._limit)))

    def _ramp(self, now: int) -> int:
        if self._ramp_from is None:
            return self.most
        most = 1 << min(20, max(0, now - self._ramp_from) // RAMP_DOUBLING)
        if most >= self.most:
            self._ramp_from = None
        return min(most, self.most)

    def succeeded(self, now: int) -> None:
        if self.open:
            self._ramp_from, self._bears = now, FAILURES_TO_OPEN
        else:
            self._bears = min(MOST_TO_OPEN, self._bears + PER_SUCCESS)
        self._limit = min(float(self.most), self._limit + 1.0 / self._limit)

    def failed(self, now: int, chance: float, *, too_many: bool = False) -> None:
        """``too_many``: the partner said so. Other failures are its own, and fewer requests mend none of them, unless it is
        about to give way.
        """
        if self.open and now < self.paused_until:
            return  # it left before the breaker opened
        self._bears -= 1
        if too_many or self._bears < MOST_TO_OPEN // 2:
            self._limit = max(1.0, self._limit / 2)
        if self.open:
            # Half of the wait is certain: a full jitter of nearly 0 would make the breaker no breaker.
            wait = retry.delay(1 - self._bears, 0.5 + chance / 2)
            self.pause(now + int(wait * 1000))

    def pause(self, until: int) -> None:
        """The partner said when: the whole lane waits."""
        self.paused_until = max(self.paused_until, until)

    def set_back(self, by: int) -> None:
        """The clock was set back by so many ms: neither a wait nor the ramp becomes longer by it."""
        self.paused_until -= by
        if self._ramp_from is not None:
            self._ramp_from -= by

    def resume(self) -> None:
        """An operator or a reload lets the lane go at once."""
        self.paused_until = 0
        self._bears = max(self._bears, FAILURES_TO_OPEN)


class RateLimit:
    """At most so many requests in any second; below one a second, one in so many seconds.

    A leaking bucket would let a second's worth go at once and as many again within the second that follows, and a
    partner that counts the same second would refuse half of them. Instants are ms of a clock that nobody sets.
    """

    MARGIN = 1.02  # requests do not arrive as evenly as they leave

    def __init__(self, rate: float) -> None:
        most = max(1, int(rate))
        self._span = int(1000 * self.MARGIN * most / rate)
        self._lately: deque[int] = deque(maxlen=most)

    def wait(self, now: int) -> int:
        """Milliseconds until a request may leave; 0 where one may."""
        if len(self._lately) < (self._lately.maxlen or 1):
            return 0
        return max(0, self._lately[0] + self._span - now)

    def take(self, now: int) -> None:
        """A request leaves."""
        self._lately.append(now)
