"""The lanes of a configuration, running: one for every enabled destination, a hold for every other lane there is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from router.clock import Clock
from router.delivery.lane import LaneRunner, Observer
from router.destination import Destination
from router.outbox.outbox import Lane, Outbox
from router.outbox.state import Held

DISABLED = "disabled in the configuration: set enabled = true to go on"
REMOVED = "not in the configuration: add the destination again, or drop what waits"


class Delivery:
    """Start and stop lanes. ``lanes`` are the running ones by name."""

    def __init__(self, store: Outbox, clock: Clock, observer: Observer | None = None) -> None:
        self._store, self._clock, self._observer = store, clock, observer or Observer()
        self.lanes: dict[str, LaneRunner] = {}

    async def start(self, destinations: Mapping[str, Destination]) -> None:
        """Run these destinations. Lanes of others keep their backlog, held, with the reason shown."""
        for name, destination in destinations.items():
            lane = await self._store.lane(name, str(type(destination).__struct_config__.tag))
            if destination.enabled:
                await self._release(lane)
                self.lanes[name] = LaneRunner(
                    name, destination, lane, self._store, self._clock, observer=self._observer
                )
            else:
                await self._keep(lane, DISABLED)
        for lane in await self._store.other_lanes(destinations):
            await self._keep(lane, REMOVED)
        for runner in self.lanes.values():
            runner.start()

    async def stop(self, patience: float) -> None:
        """Finish what is under way, all lanes side by side, within ``patience`` seconds."""
        await asyncio.gather(*(runner.stop(patience) for runner in self.lanes.values()))
        self.lanes.clear()

    async def _keep(self, lane: Lane, reason: str) -> None:
        if lane.held is None or lane.held.by != "config":
            await self._store.hold(lane, Held(reason=reason, by="config", at=self._clock.now()))

    async def _release(self, lane: Lane) -> None:
        if lane.held is not None and lane.held.by == "config":
            await self._store.hold(lane, None)
