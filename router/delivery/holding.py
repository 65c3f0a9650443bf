"""Whether a lane may send: holds, pauses, probes, and what answers do to them. Told the time; writes nothing down.

Held is not failed: no attempt is spent meanwhile. A lane that its partner closed is probed; one that an operator or the
configuration closed is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from router.delivery.ends import LONGEST_QUOTA
from router.delivery.pace import Pace
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt
from router.outbox.state.lane import Lane
from router.outcome import Hold, Outcome, Rejected, Retry, Split

log: Any = structlog.get_logger()

PROBE_EVERY = 300_000  # ms between looks at whether a held lane works again
SHORTEST_HOLD = 60_000  # ms; a partner that says "until" a moment that is gone is not asked without end
WRONG_ADDRESS_AFTER = 5  # answers 404 or 405 in a row
FOR_EVER = 1e9  # seconds: until something new arrives


class Gate:
    """One lane's way out. Instants are UTC ms.

    ``epoch`` begins anew with every hold and resumption: answers to older requests change neither. ``unwritten``: the
    hold in memory is not the one on disk. Time up to ``open_since`` is no event's fault: it is the end of the last hold,
    or of time that did not pass or in which nobody ran.
    """

    def __init__(
        self, name: str, lane: Lane, pace: Pace, chance: Callable[[], float], *, open_since: int, retry_for: int
    ) -> None:
        self._name, self._lane, self._pace, self._chance = name, lane, pace, chance
        self._retry_for = retry_for  # ms
        self.epoch = 0
        self.unwritten = False
        self.open_since = open_since
        self._misses = 0
        self._probe_at = (lane.held.until or 0) if lane.held else 0

    def closed_for(self, now: int) -> float:
        """Seconds that the lane must not send; 0 where it may, be it for a probe."""
        held = self._lane.held
        if held is not None and held.by != "partner":
            return FOR_EVER
        until = self._pace.paused_until if held is None else max(self._pace.paused_until, self._probe_at)
        return max(0, until - now) / 1000

    def outlasted(self, since: int, now: int) -> bool:
        """Have passing faults gone on since then for longer than they may? What a hold takes is held against no event."""
        return self._lane.held is None and now - max(since, self.open_since) > self._retry_for

    @property
    def one_at_a_time(self) -> bool:
        """May only a probe pass?"""
        return self._lane.held is not None or self._pace.open

    def passed(self, now: int) -> None:
        """A request leaves; where the lane is held, it is the probe."""
        self._probe_at = now + PROBE_EVERY

    def set_back(self, by: int) -> None:
        """The clock was set back by so many ms: no wait becomes longer by it."""
        self._pace.set_back(by)
        self._probe_at -= by
        self.open_since -= by

    # What answers do

    def felt(self, outcome: Outcome, attempt: Attempt, *, current: bool) -> Outcome:
        """What an outcome does to the lane as a whole, at once: nothing more leaves before it is written down.

        ``current``: no hold or resumption came between the request and this answer to it.
        """
        at, outcome = attempt.at, self._judged(outcome, attempt)
        match outcome:
            case Retry(after=after, until=until):
                self._pace.failed(at, self._chance(), too_many=attempt.status == 429)
                self._pace.pause(max(at + int(1000 * (after or 0.0)), min(until or 0, at + LONGEST_QUOTA)))
            case Hold():
                if current:
                    self._close(outcome, at)
            case _:
                self._pace.succeeded(at)
                if current:
                    self._reopen(at)
        return outcome

    def _judged(self, outcome: Outcome, attempt: Attempt) -> Outcome:
        """A partner that knows none of many events is another address than was meant."""
        if attempt.status not in {404, 405}:
            self._misses = 0
            return outcome
        known = isinstance(outcome, Rejected) and outcome.closes is not None  # the partner's own word about one event
        missed = isinstance(outcome, Rejected | Split) and not known
        self._misses = self._misses + 1 if missed else 0
        if self._misses >= WRONG_ADDRESS_AFTER:
            return Hold("every event is answered 404 or 405: check base_url and ids, then resume")
        return outcome

    def _close(self, outcome: Hold, now: int) -> None:
        until = None
        if outcome.until is not None:
            until = min(max(outcome.until, now + SHORTEST_HOLD), now + LONGEST_QUOTA)
        self._probe_at = now + PROBE_EVERY if until is None else until
        held = self._lane.held
        if held is None:
            self.epoch += 1
            log.warning("lane_held", destination=self._name, reason=outcome.reason)
        if held is None or held.by == "partner":
            since = held.at if held is not None and held.reason == outcome.reason else now
            self._lane.held = Held(reason=outcome.reason, by="partner", at=since, until=until)
            self.unwritten = True

    def _reopen(self, now: int) -> None:
        if self._lane.held is not None and self._lane.held.by == "partner":
            self._lane.held = None
            self.unwritten = True
            self.epoch += 1
            self.open_since = now
            log.info("lane_resumed", destination=self._name)

    # The operator

    def probe(self) -> None:
        """Look at once whether a lane that its partner closed works again."""
        self._probe_at = 0

    def held(self) -> None:
        """Somebody else than the partner closed the lane."""
        self.epoch += 1

    def resumed(self, now: int) -> None:
        """An operator lets the lane go at once, whatever held it or made it wait."""
        self._pace.resume()
        self._misses = 0
        self.epoch += 1
        self.open_since = now
        self.unwritten = False
