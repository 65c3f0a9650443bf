"""From what was prepared of a request to an answer that says what happened to each of its items.

The good ones are on disk when the answer is made, and so is the quarantine of the bad ones. Whoever was erased is kept
out here, and the click ids of a visitor's session are added: both need to know what other requests brought.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from router import door
from router.body import Body
from router.collect.keys import Sender
from router.collect.preparing import Job, Prepared, Refused
from router.collect.rounds import Rounds
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
    ) -> None:
        self.rounds = Rounds(self._prepared, new_id)
        self._store, self._tally = store, tally or Tally()
        self._visitors = Visitors(0) if visitors is None else visitors
        self._storing: set[asyncio.Task[None]] = set()

    async def take(self, body: Body, sender: Sender, visit: door.Visit) -> Answer:
        """Store what is good, quarantine what is not. NotDurable where the good ones are not on disk."""
        told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.rounds.add(Job(body, sender, visit, partial(settle, told)))
        return await told

    def _prepared(self, jobs: Sequence[Job]) -> None:
        storing = asyncio.get_running_loop().create_task(self._answer(jobs))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    async def _answer(self, jobs: Sequence[Job]) -> None:
        try:
            answers = await self.store([each.prepared for each in jobs])
        except Exception as fault:  # noqa: BLE001 - whoever waits must be told, whatever went wrong
            for each in jobs:
                each.done(fault)
            return
        for each, answer in zip(jobs, answers, strict=True):
            each.done(answer)

    async def store(self, requests: Sequence[Prepared]) -> list[Answer]:
        """An answer to each. NotDurable where the rows are not on disk."""
        kept = [self._kept(each) for each in requests]  # from here to the queue of the log nobody else runs
        rows = kept[0].rows if len(kept) == 1 else [row for each in kept for row in each.rows]
        rows, seen = self._visitors.attend(rows)
        failpoint("collect_before_append")
        if seen or any(each.refused for each in kept):
            repeated, _, _ = await asyncio.gather(self._append(rows), self._quarantine(kept), self._remember(seen))
        else:  # nearly always; three tasks would cost a tenth of the request
            repeated = await self._append(rows)
        told = iter(zip(rows, repeated, strict=True))
        return [self._answered(each, list(itertools.islice(told, len(each.rows)))) for each in kept]

    def _answered(self, request: Prepared, stored: Sequence[tuple[Row, bool]]) -> Answer:
        duplicate = sum(again for _, again in stored)
        self._count(request, stored, duplicate)
        return Answer(
            accepted=len(stored) - duplicate,
            duplicate=duplicate,
            rejected=len(request.refused),
            problems=[each.problem for each in request.refused],
            id=request.rows[0].id if request.single and stored else msgspec.UNSET,
        )

    def _kept(self, request: Prepared) -> Prepared:
        """Without the events of people who are forgotten by now."""
        if not len(self._store.suppression):
            return request
        kept = Prepared(request.source, request.received, request.single, request.began, refused=[*request.refused])
        for index, row in zip(request.places, request.rows, strict=True):
            if self._store.suppression.blocks(row.read().user):
                kept.refused.append(Refused(_erased(index, row)))
            else:
                kept.rows.append(row)
        return kept

    async def _append(self, rows: Sequence[Row]) -> list[bool]:
        return await self._store.append(rows) if rows else []

    async def _remember(self, seen: Sequence[Visitor]) -> None:
        if seen:
            await self._store.remember_visitors(seen, max(each.seen for each in seen) - self._visitors.session)

    async def _quarantine(self, requests: Sequence[Prepared]) -> None:
        refused = [
            Quarantined(
                at=request.received,
                source=request.source,
                event_id=each.problem.id,
                code=each.problem.code,
                field=each.problem.field,
                message=each.problem.message,
                item=each.item,
            )
            for request in requests
            for each in request.refused
        ]
        if refused:
            failpoint("collect_before_quarantine")
            await self._store.quarantine(refused)

    def _count(self, request: Prepared, stored: Sequence[tuple[Row, bool]], duplicate: int) -> None:
        fresh: dict[str, int] = {}
        for row, again in stored:
            if not again:
                fresh[row.dialect] = fresh.get(row.dialect, 0) + 1
        for dialect, count in fresh.items():
            self._tally.received(request.source, dialect, count)
        if duplicate:
            self._tally.duplicate(request.source, duplicate)
        for each in request.refused:
            self._tally.rejected(request.source, each.problem.code)
        self._tally.ingest(time.perf_counter() - request.began)


def _erased(index: int, row: Row) -> Problem:
    message = "this person asked to be forgotten: send no more of their events"
    given = None if "own_id" in row.read().notes else row.id
    return Problem(index=index, id=given, code="erased_person", message=message)


def settle(told: asyncio.Future[Any], outcome: Any) -> None:
    """Tell whoever waits for a job; a fault is raised there."""
    if told.done():  # nobody waits any more
        return
    if isinstance(outcome, Exception):
        told.set_exception(outcome)
    else:
        told.set_result(outcome)
