"""Which of the events that a lane took are sent; the others end here, each with its reason.

Filtered by the rules, too old, about something that the partner has closed: all of that is settled without a request.
Where order counts, an event waits behind an earlier one about the same subject.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from router import route
from router.clock import Clock
from router.delivery import ends
from router.delivery.ends import Job
from router.delivery.hand import Hand
from router.delivery.holding import Gate
from router.delivery.patience import patiently
from router.delivery.sender import Sender
from router.delivery.sending import Sending
from router.delivery.settling import Settling
from router.destination import Destination
from router.outbox.outbox import Outbox
from router.outbox.state.lane import Lane

T = TypeVar("T")


class Deciding:
    """For one lane. ``window`` is the partner's, in ms."""

    def __init__(
        self,
        destination: Destination,
        lane: Lane,
        store: Outbox,
        clock: Clock,
        *,
        rule: route.Rule,
        window: int | None,
        hand: Hand,
        gate: Gate,
        settling: Settling,
        sender: Sender,
        sending: Sending,
    ) -> None:
        self._destination, self._lane, self._store, self._clock = destination, lane, store, clock
        self._rule, self._window = rule, window
        self._hand, self._gate, self._settling = hand, gate, settling
        self._sender, self._sending = sender, sending
        self._about = type(destination).subject is not Destination.subject

    async def to_send(self, jobs: Sequence[Job], now: int) -> list[Job]:
        """Those that are to be sent now (UTC ms)."""
        return await self._in_turn(self._routed(jobs, now), now)

    def _routed(self, jobs: Sequence[Job], now: int) -> list[Job]:
        """Those that are to be sent; the others are settled as filtered or dead, with the reason."""
        send: list[Job] = []
        filtered: dict[str, list[Job]] = {}
        late: dict[str, list[Job]] = {}
        for job in jobs:
            if (reason := route.decide(self._rule, job.event)) is not None:
                filtered.setdefault(reason, []).append(job)
            elif (reason := self._too_late(job, now)) is not None:
                late.setdefault(reason, []).append(job)
            else:
                send.append(job)
        marks = [mark for reason, ended in filtered.items() for mark in ends.unsent(ended, "filtered", reason, now)]
        marks += [mark for reason, ended in late.items() for mark in ends.unsent(ended, "dead", reason, now)]
        self._settling.add(marks)
        return send

    def _too_late(self, job: Job, now: int) -> str | None:
        if self._window is not None and now - job.event.time > self._window:
            return ends.expired(now - job.event.time, self._window)
        if job.since is not None and self._gate.outlasted(job.since, now):
            return f"expired: {ends.OUTLASTED}"
        return None

    async def _in_turn(self, jobs: list[Job], now: int) -> list[Job]:
        """Those whose subject is neither closed nor, where order counts, waiting for an earlier event about it."""
        if not self._about or not jobs:
            return jobs
        jobs = [msgspec.structs.replace(job, subject=self._subject(job)) for job in jobs]
        if self._destination.ordered:
            jobs = self._hand.subjects.take(jobs)
            if self._lane.next_due is not None:
                jobs = await self._not_behind(jobs, now)
        about = [job.subject for job in jobs if job.subject is not None]
        closed = await self._patiently(lambda: self._store.closed(self._lane, about, now)) if about else {}
        free, shut = self._sender.parted(jobs, closed)
        for job, reason in shut:
            self._settling.add(ends.unsent([job], "dead", reason, now))
        return free

    def _subject(self, job: Job) -> str | None:
        self._store.in_hand.take(self._lane.id, job.seq, job.seq)
        try:
            return self._sender.subject(job)
        finally:
            self._store.in_hand.release()

    async def _patiently(self, asked: Callable[[], Awaitable[T]]) -> T:
        """What the outbox says, however long it is busy or full: the jobs that are asked about are in nobody else's hand."""
        return await patiently(asked, self._store, self._clock, lambda: self._sending.stopping)

    async def _not_behind(self, jobs: list[Job], now: int) -> list[Job]:
        """Those without an earlier event about the same subject that waits for another try; the others wait as long."""
        about = [job.subject for job in jobs if job.subject is not None]
        waiting = await self._patiently(lambda: self._store.behind(self._lane, about)) if about else {}
        free = []
        for job in jobs:
            first, due = waiting.get(job.subject or "", (job.seq, 0))
            if first < job.seq:
                self._settling.add([ends.behind(job, due, now)])
            else:
                free.append(job)
        return free
