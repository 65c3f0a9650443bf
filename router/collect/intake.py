"""From the items of one request to an answer that says what happened to each of them.

The good ones are on disk when the answer is made, and so is the quarantine of the bad ones; a bad member never costs
its neighbours anything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from router import door
from router.body import Body, Item
from router.collect.admission import Turns
from router.collect.keys import Sender
from router.collect.visitors import Visitors
from router.event import Event
from router.failpoint import failpoint
from router.outbox import log
from router.outbox.memory import Visitor
from router.outbox.outbox import Outbox
from router.outbox.state import Quarantined
from router.problem import Problem

SLICE = 4096  # bytes of items between two looks at the other requests: half a ms
OVERHEAD = 512  # bytes of JSON that cost as much as an item does whatever its size


class Tally:
    """Told what came in, for metrics. Override what you count."""

    def received(self, source: str, dialect: str, count: int) -> None:
        """So many events were stored."""

    def duplicate(self, source: str, count: int) -> None:
        """So many were there already."""

    def rejected(self, source: str, code: str) -> None:
        """One was turned away."""

    def ingest(self, seconds: float) -> None:
        """So long from the last byte of a request to the commit of what is in it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a 200. The counts add up to the items of the request; ``id`` is that of a single event."""

    success: bool = True
    accepted: int
    duplicate: int
    rejected: int
    problems: list[Problem]
    id: str | msgspec.UnsetType | None = msgspec.UNSET


class Intake:
    """Takes requests for every source. ``new_id`` makes ids for events that bring none."""

    def __init__(
        self,
        store: Outbox,
        new_id: Callable[[], str],
        tally: Tally | None = None,
        visitors: Visitors | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._store, self._new_id, self._tally = store, new_id, tally or Tally()
        self._visitors = Visitors(0) if visitors is None else visitors
        self._turns = turns or Turns()

    async def take(self, body: Body, sender: Sender, visit: door.Visit) -> Answer:
        """Store what is good, quarantine what is not. NotDurable where the good ones are not on disk."""
        began = time.perf_counter()
        erased = len(self._store.suppression)
        events, turned_away = await self._admitted(body.items, sender, visit)
        if len(self._store.suppression) != erased:  # while others were answered, somebody was forgotten
            events = self._not_erased(events, turned_away)
        events, seen = self._visitors.attend(events)
        failpoint("collect_before_append")
        if turned_away or seen:
            repeated, _, _ = await asyncio.gather(
                self._append(events), self._quarantine(sender, visit, turned_away), self._remember(seen, visit.received)
            )
        else:  # nearly always; three tasks would cost a tenth of the request
            repeated = await self._append(events)
        duplicate = sum(repeated)
        self._count(sender.name, events, repeated, turned_away)
        self._tally.ingest(time.perf_counter() - began)
        return Answer(
            accepted=len(events) - duplicate,
            duplicate=duplicate,
            rejected=len(turned_away),
            problems=[each.problem for each in turned_away],
            id=_single_id(body, events),
        )

    async def _admitted(
        self, items: Sequence[Item], sender: Sender, visit: door.Visit
    ) -> tuple[list[Event], list[door.TurnedAway]]:
        events: list[Event] = []
        turned_away: list[door.TurnedAway] = []
        done = 0
        for index, item in enumerate(items):
            done += item.size + OVERHEAD
            if done > SLICE:
                await self._turns.take(done, begun=True)
                done = 0
            if item.problem is not None:
                turned_away.append(door.TurnedAway(problem=item.problem, scrubbed=door.remains(item.value)))
                continue
            entered = door.admit(item.value, sender.door, visit, self._new_id, item.notes)
            if isinstance(entered, Event) and self._store.suppression.blocks(entered.user):
                turned_away.append(door.TurnedAway(problem=_erased(index, entered), scrubbed=None))
            elif isinstance(entered, Event):
                events.append(entered)
            else:
                placed = msgspec.structs.replace(entered.problem, index=index)
                turned_away.append(door.TurnedAway(problem=placed, scrubbed=entered.scrubbed))
        return events, turned_away

    def _not_erased(self, events: Sequence[Event], turned_away: list[door.TurnedAway]) -> list[Event]:
        """Without those of people who are forgotten by now; from here to the queue of the log nobody else runs."""
        kept = []
        for index, event in enumerate(events):
            if self._store.suppression.blocks(event.user):
                turned_away.append(door.TurnedAway(problem=_erased(index, event), scrubbed=None))
            else:
                kept.append(event)
        return kept

    async def _append(self, events: Sequence[Event]) -> list[bool]:
        return await self._store.append([log.row(event) for event in events]) if events else []

    async def _remember(self, seen: Sequence[Visitor], now: int) -> None:
        if seen:
            await self._store.remember_visitors(seen, now - self._visitors.session)

    async def _quarantine(self, sender: Sender, visit: door.Visit, turned_away: Sequence[door.TurnedAway]) -> None:
        if turned_away:
            failpoint("collect_before_quarantine")
            await self._store.quarantine(
                [
                    Quarantined(
                        at=visit.received,
                        source=sender.name,
                        event_id=each.problem.id,
                        code=each.problem.code,
                        field=each.problem.field,
                        message=each.problem.message,
                        item=None if each.scrubbed is None else msgspec.json.encode(each.scrubbed).decode(),
                    )
                    for each in turned_away
                ]
            )

    def _count(
        self, source: str, events: Sequence[Event], repeated: Sequence[bool], turned_away: Sequence[door.TurnedAway]
    ) -> None:
        for event, again in zip(events, repeated, strict=True):
            if not again:
                self._tally.received(source, event.dialect, 1)
        self._tally.duplicate(source, sum(repeated))
        for each in turned_away:
            self._tally.rejected(source, each.problem.code)


def _erased(index: int, event: Event) -> Problem:
    message = "this person asked to be forgotten: send no more of their events"
    given = None if "own_id" in event.notes else event.id
    return Problem(index=index, id=given, code="erased_person", message=message)


def _single_id(body: Body, events: Sequence[Event]) -> str | msgspec.UnsetType:
    return events[0].id if body.single and events else msgspec.UNSET
