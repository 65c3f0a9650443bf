"""From what was prepared of a request to an answer that says what happened to each of its items.

The good ones are on disk when the answer is made, and so is the quarantine of the bad ones. Whoever was erased is kept
out here, and the click ids of a visitor's session are added: both need to know what other requests brought.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from router import door
from router.body import Body
from router.collect.admission import Turns
from router.collect.keys import Sender
from router.collect.prepared import Prepared, Refused, prepare
from router.collect.visitors import Visitors
from router.failpoint import failpoint
from router.outbox.log import Row
from router.outbox.memory import Visitor
from router.outbox.outbox import Outbox
from router.outbox.state import Quarantined
from router.problem import Problem


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
        return await self.store(await prepare(body, sender, visit, self._new_id, self._turns))

    async def store(self, prepared: Prepared) -> Answer:
        """NotDurable where the rows are not on disk. From here to the queue of the log nobody else runs."""
        rows, refused = prepared.rows, prepared.refused
        if len(self._store.suppression):
            rows, refused = self._not_erased(prepared)
        rows, seen = self._visitors.attend(rows)
        failpoint("collect_before_append")
        if refused or seen:
            repeated, _, _ = await asyncio.gather(
                self._append(rows), self._quarantine(prepared, refused), self._remember(seen, prepared.received)
            )
        else:  # nearly always; three tasks would cost a tenth of the request
            repeated = await self._append(rows)
        duplicate = sum(repeated)
        self._count(prepared, rows, repeated, refused)
        return Answer(
            accepted=len(rows) - duplicate,
            duplicate=duplicate,
            rejected=len(refused),
            problems=[each.problem for each in refused],
            id=rows[0].id if prepared.single and rows else msgspec.UNSET,
        )

    def _not_erased(self, prepared: Prepared) -> tuple[list[Row], list[Refused]]:
        """Without those of people who are forgotten by now."""
        kept, refused = [], list(prepared.refused)
        for index, row in zip(prepared.places, prepared.rows, strict=True):
            if self._store.suppression.blocks(row.read().user):
                refused.append(Refused(_erased(index, row)))
            else:
                kept.append(row)
        return kept, refused

    async def _append(self, rows: Sequence[Row]) -> list[bool]:
        return await self._store.append(rows) if rows else []

    async def _remember(self, seen: Sequence[Visitor], now: int) -> None:
        if seen:
            await self._store.remember_visitors(seen, now - self._visitors.session)

    async def _quarantine(self, prepared: Prepared, refused: Sequence[Refused]) -> None:
        if refused:
            failpoint("collect_before_quarantine")
            await self._store.quarantine(
                [
                    Quarantined(
                        at=prepared.received,
                        source=prepared.source,
                        event_id=each.problem.id,
                        code=each.problem.code,
                        field=each.problem.field,
                        message=each.problem.message,
                        item=each.item,
                    )
                    for each in refused
                ]
            )

    def _count(
        self, prepared: Prepared, rows: Sequence[Row], repeated: Sequence[bool], refused: Sequence[Refused]
    ) -> None:
        source = prepared.source
        stored: dict[str, int] = {}
        for row, again in zip(rows, repeated, strict=True):
            if not again:
                stored[row.dialect] = stored.get(row.dialect, 0) + 1
        for dialect, count in stored.items():
            self._tally.received(source, dialect, count)
        if duplicate := sum(repeated):
            self._tally.duplicate(source, duplicate)
        for each in refused:
            self._tally.rejected(source, each.problem.code)
        self._tally.ingest(time.perf_counter() - prepared.began)


def _erased(index: int, row: Row) -> Problem:
    message = "this person asked to be forgotten: send no more of their events"
    given = None if "own_id" in row.read().notes else row.id
    return Problem(index=index, id=given, code="erased_person", message=message)
