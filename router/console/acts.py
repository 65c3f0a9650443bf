"""What an operator does: try again, give up, hold, resume. Each act says how many deliveries it meant.

A lane that runs is asked itself, because it has deliveries in hand; one that does not (its destination is disabled or
no longer configured) is changed in the outbox.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec

from router.console.answers import Fault
from router.delivery.engine import Delivery
from router.delivery.lane import LaneRunner
from router.delivery.replay import preview
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.lane import Lane
from router.outbox.state.replays import Chosen, Counts, Replay
from router.outbox.state.selections import Selection
from router.outbox.upkeep.erasure import Receipt
from router.outbox.upkeep.forgetting import Traces
from router.person import Person, marks
from router.settings import per_second

MOST_IDS = 1000


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries are meant: those of ``ids`` (event ids, or "#" and a sequence number), or all of the state."""

    to: str
    state: Literal["dead", "waiting"] = "dead"
    ids: list[str] | None = None
    all: bool = False
    dry_run: bool = False


class Giving(Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As ``Choice``; what can be given up is what waits."""

    state: Literal["dead", "waiting"] = "waiting"


class Reason(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, for whoever looks next."""

    reason: str = "held by the operator"


class Nothing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No fields."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` deliveries were changed, or would be with ``dry_run``; ``unknown`` of the ids are not stored."""

    success: bool = True
    to: str
    state: str
    count: int
    dry_run: bool
    unknown: int = 0


class Held(msgspec.Struct, frozen=True, kw_only=True):
    success: bool = True
    to: str
    held: bool


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is to be forgotten, each by any of their identifiers; ``linked``: and by those that their events lead to."""

    people: list[Person]
    linked: bool = False
    dry_run: bool = False


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """``traces`` is what a dry run found, ``receipt`` what was done."""

    success: bool = True
    traces: Traces | None = None
    receipt: Receipt | None = None


class Again(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are to be sent again: received from ``since`` to before ``until`` (ISO 8601), of one source and name.

    ``states``: what became of them at this destination; "earlier" came before it was there. ``rate`` is in requests.
    """

    to: str
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    source: str | None = None
    name: str | None = None
    states: tuple[Literal["delivered", "filtered", "earlier"], ...] = ("delivered", "filtered", "earlier")
    rate: str = "20/s"
    dry_run: bool = True


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` is None for a preview."""

    success: bool = True
    to: str
    id: int | None
    state: str
    counts: Counts
    left: int = 0


class Replays(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Replayed]


class Acts:
    """The acts on one running application's lanes."""

    def __init__(self, reader: Reader, delivery: Delivery, store: Outbox) -> None:
        self._reader, self._delivery, self._store = reader, delivery, store

    async def retry(self, choice: Choice, who: str) -> Done:
        """Dead deliveries, or waiting ones before their time, go again now."""
        seqs, unknown = await self._meant(choice)
        if choice.dry_run:
            return await self._would(choice, seqs, unknown)
        selection = Selection(state=choice.state, seqs=seqs)
        runner = self._delivery.lanes.get(choice.to)
        if runner is not None:
            count = await runner.retry(selection, who)
        else:
            count = await self._store.revive(await self._resting(choice.to), selection, who)
        return Done(to=choice.to, state=choice.state, count=count, dry_run=False, unknown=unknown)

    async def drop(self, choice: Choice, who: str) -> Done:
        """Waiting deliveries are given up; they stay visible as dead."""
        if choice.state != "waiting":
            raise Fault(
                400, "invalid", "only what waits can be dropped", [{"field": "state", "message": 'write "waiting"'}]
            )
        seqs, unknown = await self._meant(choice)
        if choice.dry_run:
            return await self._would(choice, seqs, unknown)
        selection = Selection(state="waiting", seqs=seqs)
        runner = self._delivery.lanes.get(choice.to)
        if runner is not None:
            count = await runner.drop(selection, who)
        else:
            lane = await self._resting(choice.to)
            count = await self._store.drop(lane, selection, _fresh(lane, self._store.last, seqs), who)
        return Done(to=choice.to, state=choice.state, count=count, dry_run=False, unknown=unknown)

    async def hold(self, name: str, reason: str, who: str) -> Held:
        await (await self._runner(name)).hold(reason, who)
        return Held(to=name, held=True)

    async def resume(self, name: str, who: str) -> Held:
        await (await self._runner(name)).resume(who)
        return Held(to=name, held=False)

    async def replay(self, again: Again, who: str) -> Replayed:
        """Preview a replay, or begin it."""
        runner = await self._runner(again.to)
        try:
            per_second(again.rate)
        except ValueError as error:
            raise Fault(400, "invalid", "the rate cannot be read", [{"field": "rate", "message": str(error)}]) from None
        chosen = Chosen(
            since=_ms(again.since),
            until=_ms(again.until),
            source=again.source,
            name=again.name,
            states=again.states,
            rate=again.rate,
        )
        first = await self._reader.first()
        if again.dry_run:
            counts = await preview(
                self._store, runner.lane, again.to, runner.destination, chosen, first, self._store.clock
            )
            return Replayed(to=again.to, id=None, state="preview", counts=counts)
        replay = await self._delivery.replay(again.to, chosen, first, who)
        if replay is None:
            raise Fault(
                409, "replay_running", "a replay to this destination is under way: cancel it or wait for its end"
            )
        return _replayed(again.to, replay)

    async def replays(self) -> Replays:
        names = {lane.id: lane.name for lane in self._store.lanes.values()}
        running = {number: each.replay for number, each in self._delivery.replays.items()}
        found = [running.get(each.id, each) for each in await self._store.replays()]
        return Replays(items=[_replayed(names.get(each.lane, "?"), each) for each in found])

    async def cancel(self, number: int, who: str) -> Replayed:
        replay = await self._delivery.cancel(number, who)
        if replay is None:
            raise Fault(404, "not_found", "there is no replay of this number: GET /api/v1/replays lists them")
        names = {lane.id: lane.name for lane in self._store.lanes.values()}
        return _replayed(names.get(replay.lane, "?"), replay)

    async def erase(self, asked: Forgotten, who: str) -> Erased:
        """Forget people everywhere, for good. What cannot identify anybody is refused, and nothing is erased then."""
        people = asked.people
        if not 0 < len(people) <= MOST_IDS:
            raise Fault(
                400, "invalid", "how many", [{"field": "people", "message": f"give 1 to {MOST_IDS} in one request"}]
            )
        unusable = [
            {"field": f"people.{place}", "message": "give email, phone (with its country), user_id or anonymous_id"}
            for place, person in enumerate(people)
            if not marks(person)
        ]
        if unusable:
            raise Fault(400, "invalid", "some cannot be identified", unusable)
        if asked.dry_run:
            return Erased(traces=await self._store.traces(people))
        return Erased(receipt=await self._store.erase(people, who, linked=asked.linked))

    async def _runner(self, name: str) -> LaneRunner:
        if name in self._delivery.lanes:
            return self._delivery.lanes[name]
        await self.known(name)
        raise Fault(
            409, "not_running", "this destination is not running: enable it in the configuration, then start again"
        )

    async def known(self, name: str) -> str:
        """The type of this destination, which the outbox has a lane of."""
        kind = await self._reader.lane_type(name)
        if kind is None:
            raise Fault(404, "unknown_destination", "there is no such destination: GET /api/v1/destinations lists them")
        return kind

    async def _resting(self, name: str) -> Lane:
        return self._store.lanes.get(name) or await self._store.lane(name, await self.known(name))

    async def _meant(self, choice: Choice) -> tuple[list[int] | None, int]:
        """The sequence numbers, None for all; and how many ids are not stored."""
        await self.known(choice.to)
        if choice.all == (choice.ids is not None):
            raise Fault(
                400,
                "invalid",
                "say which deliveries are meant",
                [{"field": "ids", "message": 'give "ids", or "all": true, and not both'}],
            )
        if choice.ids is None:
            return None, 0
        if len(choice.ids) > MOST_IDS:
            raise Fault(
                400, "invalid", "too many ids", [{"field": "ids", "message": f"give {MOST_IDS} at most in one request"}]
            )
        found = await self._reader.find_all(choice.ids)
        seqs = sorted({each.seq for events in found.values() for each in events})
        return seqs, sum(not events for events in found.values())

    async def _would(self, choice: Choice, seqs: list[int] | None, unknown: int) -> Done:
        count = await self._reader.count(choice.to, choice.state, seqs)
        return Done(to=choice.to, state=choice.state, count=count, dry_run=True, unknown=unknown)


def _replayed(name: str, replay: Replay) -> Replayed:
    return Replayed(
        to=name, id=replay.id, state=replay.state, counts=replay.counts, left=max(0, replay.last - replay.cursor)
    )


def _ms(at: dt.datetime | None) -> int | None:
    """UTC ms of an instant; one without a zone is meant as UTC."""
    return None if at is None else int((at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def _fresh(lane: Lane, last: int, seqs: list[int] | None) -> list[int]:
    """The meant events of a resting lane that were never tried and have no row yet."""
    candidates = (
        range(lane.cursor + 1, lane.last(last) + 1)
        if seqs is None
        else [each for each in seqs if lane.cursor < each <= lane.last(last)]
    )
    return [seq for seq in candidates if lane.open(seq)]
