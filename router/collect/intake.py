"""From what was prepared of a request to an answer that says what happened to each of its items.

The good ones are on disk when the answer is made, and so is the quarantine of the bad ones. Whoever was erased is kept
out here, and the click ids of a visitor's session are added: both need to know what other requests brought.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from router.body import Body
from router.collect.keys import Sender
from router.collect.preparing import Job, Prepared, Refused
from router.collect.rounds import Rounds
from router.collect.visitors import Visitors
from router.failpoint import failpoint
from router.outbox.log.entries import Row
from router.outbox.outbox import Outbox
from router.outbox.state.memory import Visitor
from router.outbox.state.registers import Quarantined
from router.problem import Problem
from router.visit import Visit

T = TypeVar("T")


class Tally:
    """Told what came in, for metrics. Override what you count."""

    def received(self, source: str, dialect: str, count: int) -> None:
        """So many events were stored."""

    def duplicate(self, source: str, count: int) -> None:
        """So many were there already."""

    def rejected(self, source: str, code: str) -> None:
        """One was turned away."""

    def refused(self, source: str, code: str, count: int = 1) -> None:
        """So many requests were refused as a whole; ``source`` is empty where it is not known whose they were."""

    def ingest(self, seconds: Sequence[float]) -> None:
        """So long from the last byte of each request to the commit of what is in it."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a 200. The counts add up to the items of the request; ``id`` is that of a single event."""

    success: bool = True
    accepted: int
    duplicate: int
    rejected: int
    problems: list[Problem]
    id: str | msgspec.UnsetType | None = msgspec.UNSET


class _Work(NamedTuple):
    """What is to be written of some requests. ``seen`` are the visitors whose click ids are to be kept."""

    requests: Sequence[Prepared]
    rows: Sequence[Row]
    seen: Sequence[Visitor]

    @property
    def only_rows(self) -> bool:
        return not self.seen and not any(each.refused for each in self.requests)


class Intake:
    """Takes requests for every source. ``new_id`` makes ids for events that bring none."""

    def __init__(
        self,
        store: Outbox,
        new_id: Callable[[], str],
        tally: Tally | None = None,
        visitors: Visitors | None = None,
    ) -> None:
        self.rounds = Rounds(self._prepared, new_id, followed=lambda: store.followed)
        self._store, self.tally = store, tally or Tally()
        self._visitors = Visitors(0) if visitors is None else visitors
        self._storing: set[asyncio.Future[list[bool]]] = set()  # the event loop alone would let go of a task

    async def take(self, body: Body, sender: Sender, visit: Visit) -> Answer:
        """Store what is good, quarantine what is not. NotDurable where the good ones are not on disk."""
        told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.rounds.add(Job(body, sender, visit, partial(settle, told)))
        return await told

    def _prepared(self, jobs: Sequence[Job]) -> None:
        when_done(self.store([each.prepared for each in jobs]), partial(_tell, jobs))

    def store(self, requests: Sequence[Prepared]) -> asyncio.Future[list[Answer]]:
        """An answer to each, often at once; NotDurable where the rows are not on disk. Nearly always there is nothing to
        write but rows, and that costs no task.
        """
        answered: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        try:
            work = self._attended(requests)
            stored = asyncio.ensure_future(self._store.append(work.rows) if work.only_rows else self._written(work))
        except Exception as fault:  # noqa: BLE001 - whoever waits must be told, whatever went wrong
            answered.set_exception(fault)
            return answered
        self._storing.add(stored)
        when_done(stored, partial(self._stored, work, answered))
        return answered

    def _stored(self, work: _Work, answered: asyncio.Future[list[Answer]], stored: asyncio.Future[list[bool]]) -> None:
        self._storing.discard(stored)
        try:
            answered.set_result(self._answers(work, stored.result()))
        except Exception as fault:  # noqa: BLE001 - as above
            answered.set_exception(fault)

    def _attended(self, requests: Sequence[Prepared]) -> _Work:
        """From here to the queue of the log nobody else may run: whoever is forgotten meanwhile would be stored."""
        if len(self._store.suppression):
            requests = [self._kept(each) for each in requests]
        rows, seen = self._visitors.attend([row for each in requests for row in each.rows])
        failpoint("collect_before_append")
        return _Work(requests, rows, seen)

    async def _written(self, work: _Work) -> list[bool]:
        stored = asyncio.ensure_future(self._store.append(work.rows))
        if not work.only_rows:
            await asyncio.gather(stored, self._quarantine(work.requests), self._remember(work.seen))
        return await stored

    def _answers(self, work: _Work, repeated: Sequence[bool]) -> list[Answer]:
        self._count(work.requests, work.rows, repeated)
        ends = itertools.accumulate([len(each.rows) for each in work.requests])
        return [
            _answered(each, repeated[end - len(each.rows) : end]) for each, end in zip(work.requests, ends, strict=True)
        ]

    def _kept(self, request: Prepared) -> Prepared:
        """Without the events of people who are forgotten by now."""
        kept = Prepared(request.source, request.received, request.single, request.began, refused=[*request.refused])
        for index, row in zip(request.places, request.rows, strict=True):
            if self._store.suppression.blocks(row.read()):
                kept.refused.append(Refused(_erased(index, row)))
            else:
                kept.rows.append(row)
        return kept

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

    def _count(self, requests: Sequence[Prepared], rows: Sequence[Row], repeated: Sequence[bool]) -> None:
        tally, now = self.tally, time.perf_counter()
        for (source, dialect, again), number in Counter(map(_kind, rows, repeated)).items():
            if again:
                tally.duplicate(source, number)
            else:
                tally.received(source, dialect, number)
        for each in requests:
            for refused in each.refused:
                tally.rejected(each.source, refused.problem.code)
        tally.ingest([now - each.began for each in requests])


def _kind(row: Row, again: bool) -> tuple[str, str, bool]:
    return row.source, row.dialect, again


def _answered(request: Prepared, repeated: Sequence[bool]) -> Answer:
    duplicate = sum(repeated)
    return Answer(
        accepted=len(repeated) - duplicate,
        duplicate=duplicate,
        rejected=len(request.refused),
        problems=[each.problem for each in request.refused],
        id=request.rows[0].id if request.single and repeated else msgspec.UNSET,
    )


def _erased(index: int, row: Row) -> Problem:
    message = "this person asked to be forgotten: send no more of their events"
    given = None if "own_id" in row.read().notes else row.id
    return Problem(index=index, id=given, code="erased_person", message=message)


def _tell(jobs: Sequence[Job], answered: asyncio.Future[list[Answer]]) -> None:
    tell_all(jobs, answered.exception() or answered.result())


def tell_all(jobs: Sequence[Job], outcome: Sequence[Any] | BaseException) -> None:
    """Each its answer, or all of them the same fault."""
    answers = itertools.repeat(outcome, len(jobs)) if isinstance(outcome, BaseException) else outcome
    for each, answer in zip(jobs, answers, strict=True):
        each.done(answer)


def when_done(future: asyncio.Future[T], then: Callable[[asyncio.Future[T]], None]) -> None:
    """``then`` is told now, where it is done already; a future's own callbacks wait for a turn of the event loop."""
    if future.done():
        then(future)
    else:
        future.add_done_callback(then)


def settle(told: asyncio.Future[Any], outcome: Any) -> None:
    """Tell whoever waits for a job; a fault is raised there."""
    if told.done():  # nobody waits any more
        return
    if isinstance(outcome, Exception):
        told.set_exception(outcome)
    else:
        told.set_result(outcome)
