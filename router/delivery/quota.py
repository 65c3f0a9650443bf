"""The month's quota of one lane: what is used of it, as far as we can count, and one warning when little is left.

The partner's own count decides: it may know of events that we do not send, and it says when it is full.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from router.outbox.outbox import Outbox
from router.outbox.state import memory
from router.outbox.state.deliveries import Mark
from router.outbox.state.lane import Lane

log: Any = structlog.get_logger()

NEAR = 0.8  # of the quota: time to tell the operator


class Quota:
    """Counts one lane's events of one calendar month (UTC) at a time."""

    def __init__(self, store: Outbox, lane: Lane, quota: int) -> None:
        self._store, self._lane, self._quota = store, lane, quota
        self._month, self._used = "", 0

    async def begin(self, now: int) -> None:
        """Judge at the start what the month has used: the quota may be another one now, and an old log may be gone."""
        self._month, self._used = memory.month(now), await self._store.used(self._lane, now)
        if self._near():
            self._tell()

    async def count(self, marks: Sequence[Mark]) -> None:
        """What became of some events is on disk."""
        for mark in marks:
            if mark.state == "delivered" and not mark.duplicate and not mark.free:
                await self._use(len(mark.seqs), mark.at)

    async def _use(self, events: int, at: int) -> None:
        if (month := memory.month(at)) != self._month:  # the outbox has counted these events already
            self._month, self._used = month, max(0, await self._store.used(self._lane, at) - events)
        before, self._used = self._near(), self._used + events
        if self._near() and not before:
            self._tell()

    def _near(self) -> bool:
        return self._used >= NEAR * self._quota

    def _tell(self) -> None:
        reason = f"{self._used} of {self._quota} events of this month are used"
        log.warning("quota_near", destination=self._lane.name, reason=reason)
