"""The month's quota of one lane: what is used of it, and telling the operator once when little of it is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from router.delivery.meter import Meter
from router.outbox import memory
from router.outbox.lane import Lane
from router.outbox.outbox import Outbox
from router.outbox.state import Mark

log: Any = structlog.get_logger()


class Quota:
    def __init__(self, store: Outbox, lane: Lane, quota: int) -> None:
        self._store, self._lane, self._meter = store, lane, Meter(quota)

    async def begin(self, now: int) -> None:
        """Judge at the start what the month has used: the quota may be another one now, and an old log may be gone."""
        self._meter.begin(memory.month(now), await self._store.used(self._lane, now))
        if self._meter.near():
            self._tell()

    async def count(self, marks: Sequence[Mark]) -> None:
        """What became of some events is on disk."""
        for mark in marks:
            if mark.state == "delivered" and not mark.duplicate and not mark.free:
                await self._use(len(mark.seqs), mark.at)

    async def _use(self, events: int, at: int) -> None:
        if (month := memory.month(at)) != self._meter.month:  # the outbox has counted these events already
            self._meter.begin(month, max(0, await self._store.used(self._lane, at) - events))
        if self._meter.count(events):
            self._tell()

    def _tell(self) -> None:
        reason = f"{self._meter.used} of {self._meter.quota} events of this month are used"
        log.warning("quota_near", destination=self._lane.name, reason=reason)
