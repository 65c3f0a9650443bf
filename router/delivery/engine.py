"""The lanes of a configuration, running: one for every enabled destination, a hold for every other lane there is."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial

from router.clock import Clock
from router.delivery.floor import Floor
from router.delivery.lane import LaneRunner
from router.delivery.observer import Observer
from router.delivery.replay import Replayer
from router.destination import Destination
from router.outbox.outbox import Outbox
from router.outbox.state.cursors import Held
from router.outbox.state.lane import Lane
from router.outbox.state.replays import Chosen, Replay

PATIENCE = 5.0  # seconds for requests that are under way when a reload changes their lane
DISABLED = "disabled in the configuration: set enabled = true to go on"
REMOVED = "not in the configuration: add the destination again, or drop what waits"


class Delivery:
    """Start and stop lanes. ``lanes`` are the running ones by name."""

    def __init__(self, store: Outbox, clock: Clock, observer: Observer | None = None) -> None:
        self._store, self._clock, self._observer = store, clock, observer or Observer()
        self._floor = Floor()
        self.lanes: dict[str, LaneRunner] = {}
        self.replays: dict[int, Replayer] = {}

    async def apply(self, destinations: Mapping[str, Destination]) -> None:
        """Run these destinations, at the start or after a reload.

        A lane whose settings did not change goes on untouched, and one that was changed begins anew; where their partner
        held them, both look at once whether it works again.
        Lanes of others keep their backlog, held, with the reason shown.
        """
        changed = [name for name, runner in self.lanes.items() if destinations.get(name) != runner.destination]
        begun = {  # what may fail comes before anything stops
            name: await self._lane(name, destination)
            for name, destination in destinations.items()
            if name in changed or name not in self.lanes
        }
        await self._rest({self.lanes[name].lane.id for name in changed})
        await asyncio.gather(*(self.lanes[name].stop(PATIENCE) for name in changed))
        for name in changed:
            del self.lanes[name]
        for name, destination in destinations.items():
            if name in self.lanes:
                self.lanes[name].probe()
            elif destination.enabled:
                self._begin(name, destination, begun[name], again=name in changed)
        await self._keep_others(destinations, begun)
        for replay in await self._store.replays():
            if replay.state == "running" and replay.id not in self.replays:
                self._go_on(replay)

    def _begin(self, name: str, destination: Destination, lane: Lane, *, again: bool) -> None:
        self.lanes[name] = runner = LaneRunner(
            name, destination, lane, self._store, self._clock, observer=self._observer, floor=self._floor
        )
        if again:
            runner.probe()
        runner.start()

    async def _keep_others(self, destinations: Mapping[str, Destination], begun: Mapping[str, Lane]) -> None:
        """Hold what is switched off or gone, with the reason."""
        for name, lane in begun.items():
            if name not in self.lanes:
                await self._keep(lane, DISABLED)
        for lane in await self._store.other_lanes(destinations):
            await self._keep(lane, REMOVED)
            if lane.stop is None:
                await self._store.stop(lane)

    async def _lane(self, name: str, destination: Destination) -> Lane:
        lane = await self._store.lane(name, str(type(destination).__struct_config__.tag), destination.quota())
        await self._store.go_on(lane)
        if destination.enabled:
            await self._release(lane)
        return lane

    # Replays

    async def replay(self, name: str, chosen: Chosen, first: int, who: str) -> Replay | None:
        """Begin to send chosen events of the log again to a running destination; None while another replay does."""
        replay = await self._store.begin_replay(self.lanes[name].lane, chosen, first, who)
        if replay is not None and replay.id not in self.replays:  # a reload may have begun it meanwhile
            self._go_on(replay)
        return replay

    async def cancel(self, number: int, who: str) -> Replay | None:
        """Let a replay go no further; what was sent was sent. None where there is no such one."""
        replay = next((each for each in await self._store.replays() if each.id == number), None)
        if (running := self.replays.pop(number, None)) is not None:
            await running.stop()
            replay = running.replay
        if replay is not None and replay.state == "running":
            replay.state = "cancelled"
            await self._store.note_replay(replay)
            await self._store.audit(who, "cancel", f"replay {number}")
        return replay

    def _go_on(self, replay: Replay) -> None:
        """Run it, where its destination runs; else it waits for the next configuration that has it."""
        runner = next((each for each in self.lanes.values() if each.lane.id == replay.lane), None)
        if runner is not None:
            ended = partial(self.replays.pop, replay.id, None)
            self.replays[replay.id] = made = Replayer(replay, runner, self._store, self._clock, ended)
            made.start()

    async def _rest(self, lanes: Collection[int]) -> None:
        """Stop the replays of these lanes; they stay as they are on disk."""
        for number, each in list(self.replays.items()):
            if each.replay.lane in lanes:
                await self.replays.pop(number).stop()

    async def stop(self, patience: float) -> None:
        """Finish what is under way, all lanes side by side, within ``patience`` seconds."""
        await self._rest({each.replay.lane for each in self.replays.values()})
        await asyncio.gather(*(runner.stop(patience) for runner in self.lanes.values()))
        self.lanes.clear()

    async def _keep(self, lane: Lane, reason: str) -> None:
        if lane.held is None or (lane.held.by != "operator" and lane.held.reason != reason):
            await self._store.hold(lane, Held(reason=reason, by="config", at=self._clock.now()))

    async def _release(self, lane: Lane) -> None:
        if lane.held is not None and lane.held.by == "config":
            await self._store.hold(lane, None)
