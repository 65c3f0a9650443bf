"""Requests on their way: as many at once as the lane's pace allows, each brought to its end or to its next wait.

A worker sends one request after another for as long as there is one ready and the lane may send. Sending and settling
overlap: a worker is free as soon as its request is answered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog

from router.clock import Clock
from router.delivery import ends
from router.delivery.bisection import Bisection
from router.delivery.ends import Job
from router.delivery.hand import Hand, Ready
from router.delivery.holding import Gate
from router.delivery.observer import Observer
from router.delivery.pace import Pace, RateLimit
from router.delivery.sender import Sender, Written, remarkable
from router.delivery.settling import Settling
from router.destination import Request
from router.failpoint import failpoint
from router.outbox.errors import NotDurable
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Attempt, Closing, Mark
from router.outbox.state.lane import Lane
from router.outcome import Delivered, Hold, Outcome, Rejected, Retry, Split

log: Any = structlog.get_logger()

STALE = 60_000  # ms; Standard Webhooks lets receivers refuse signatures that are five minutes old


class Sending:
    """``write`` makes requests of jobs, and settles what the destination cannot express. With ``few`` requests left in hand
    the lane is woken to write more.
    """

    def __init__(
        self,
        lane: Lane,
        store: Outbox,
        clock: Clock,
        *,
        sender: Sender,
        pace: Pace,
        limit: RateLimit | None,
        gate: Gate,
        hand: Hand,
        settling: Settling,
        write: Callable[[Sequence[Job]], Written],
        observer: Observer,
        few: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name, self._lane, self._store, self._clock = lane.name, lane, store, clock
        self._sender, self._pace, self._limit, self._gate = sender, pace, limit, gate
        self._hand, self._settling, self._write = hand, settling, write
        self._observer, self._chance = observer, chance
        self._workers: set[asyncio.Task[None]] = set()
        self._running = 0  # workers, each with one request
        self.change = asyncio.Event()
        self.stopping = False
        self.few = few

    @property
    def under_way(self) -> bool:
        """Is any request unanswered?"""
        return self._running > 0

    def settled_enough(self) -> bool:
        """May more be answered, or has too much to be written down first?"""
        return self._settling.waiting < self._settling.most

    def start(self) -> None:
        """Let as many leave as may, and none while too much is to be written down first."""
        if not self.settled_enough():
            return
        for _ in range(min(len(self._hand.ready), self._pace.allowed(self._clock.now()) - self._running)):
            self._running += 1
            worker: asyncio.Task[None] = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def stop(self, patience: float) -> None:
        """Finish what is under way for ``patience`` seconds."""
        self.stopping = True
        self.change.set()
        if self._workers:
            await asyncio.wait(set(self._workers), timeout=patience)
        for worker in set(self._workers):
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self) -> None:
        try:
            while self._hand.ready and self._may_go(self._hand.written_at):
                ready = self._hand.ready.popleft()
                if len(self._hand.ready) <= self.few:
                    self.change.set()
                await self._carry(ready)
        finally:
            self._running -= 1
            self.change.set()

    def _may_go(self, erasures: int) -> bool:
        """May one more request leave, of what was looked at when there had been so many erasures? The worker that asks is
        counted.
        """
        now = self._clock.now()
        if (
            self.stopping
            or self._running > self._pace.allowed(now)
            or self._gate.closed_for(now) > 0
            or erasures != self._store.erasures
            or not self.settled_enough()
        ):
            return False
        self._gate.passed(now)
        return True

    async def _carry(self, ready: Ready) -> None:
        """Send one request and bring its events to an end, or to their next wait."""
        jobs = ready.jobs
        try:
            if not await self._in_turn():
                self._hand.take_again(jobs)
                return
            if (fresh := self._fresh(ready)) is None:
                return
            request, jobs = fresh
            erasures = self._store.erasures
            failpoint("lane_before_send")
            outcome, attempt = await self._attempt(request, jobs)
            failpoint("lane_after_answer")
            if isinstance(outcome, Split) and not outcome.rejected and len(jobs) > 1:
                await self._bisect(jobs, attempt, erasures)
            else:
                await self._apply(outcome, jobs, attempt)
        except NotDurable:
            return
        except Exception as error:
            log.exception("carry_failed", destination=self._name)
            self.give_back(jobs, error)

    def _fresh(self, ready: Ready) -> tuple[Request, list[Job]] | None:
        """The request, written anew where it waited for long or the clock was set; None where it is no longer one."""
        if abs(self._clock.now() - ready.at) < STALE:
            return ready.request, ready.jobs
        return self._one(ready.jobs)

    def _one(self, jobs: Sequence[Job]) -> tuple[Request, list[Job]] | None:
        """One request of these jobs; None where they are no longer one: its pieces are sent for themselves."""
        pairs = self._write(jobs).requests
        if len(pairs) == 1 and len(pairs[0][1]) == len(jobs):
            return pairs[0]
        for _, carried in pairs:
            self._hand.take_again(carried)
        return None

    async def _in_turn(self) -> bool:
        """Wait for the rate. False where the lane closed, or somebody was forgotten, meanwhile."""
        if (limit := self._limit) is None:
            return True
        when = (self._gate.epoch, self._store.erasures)
        while (wait := limit.wait(self._ticks())) > 0:
            await self._clock.sleep(wait / 1000)
            now = self._clock.now()
            if when != (self._gate.epoch, self._store.erasures) or now < self._pace.paused_until or self.stopping:
                return False
        limit.take(self._ticks())
        return True

    def _ticks(self) -> int:
        """Milliseconds that go on whatever becomes of the wall clock."""
        return int(self._clock.monotonic() * 1000)

    async def _attempt(self, request: Request, jobs: Sequence[Job]) -> tuple[Outcome, Attempt]:
        """One request on the wire, what it means, and what that does to the lane."""
        epoch = self._gate.epoch
        outcome, attempt = await self._sender.send(request, jobs)
        outcome = self._gate.felt(outcome, attempt, current=epoch == self._gate.epoch)
        if attempt.answer is not None and self._forgotten(jobs):
            attempt = msgspec.structs.replace(attempt, answer=None)
        self._observer.attempted(self._name, attempt.outcome, attempt.status, (attempt.at - attempt.began) / 1000)
        if not isinstance(outcome, Delivered):
            log.info(
                "attempt",
                destination=self._name,
                outcome=attempt.outcome,
                status=attempt.status,
                reason=attempt.reason,
                count=len(jobs),
            )
        return outcome, attempt

    def _forgotten(self, jobs: Sequence[Job]) -> frozenset[int]:
        """Numbers of those whose person was forgotten while they were under way."""
        if not self._store.erasures:
            return frozenset()
        return frozenset(job.seq for job in jobs if self._store.suppression.blocks(job.event))

    def _settle(
        self, jobs: Sequence[Job], marks: Sequence[Mark], kept: Sequence[Attempt], closing: Sequence[Closing] = ()
    ) -> None:
        if any(mark.state != "delivered" for mark in marks) and (gone := self._forgotten(jobs)):
            marks = ends.forgotten(marks, gone)
        self._settling.add(marks, kept, closing)

    async def _apply(self, outcome: Outcome, jobs: list[Job], attempt: Attempt) -> None:
        kept = [attempt] if remarkable(outcome, jobs) else []
        match outcome:
            case Delivered():
                self._delivered(outcome, jobs, attempt, kept)
            case Retry(after=after, until=until):
                marks = ends.retried(jobs, attempt, after=after, until=until, chance=self._chance())
                self._settle(jobs, marks, kept)
            case Rejected(reason=reason):
                marks = ends.rejected(jobs, dict.fromkeys(range(len(jobs)), reason), attempt)
                self._settle(jobs, marks, kept, ends.closing(jobs, outcome, attempt.at))
            case Split(reason=reason, rejected=named):
                bad = named or {0: reason}
                self._settle(jobs, ends.rejected(jobs, bad, attempt), kept)
                self._hand.take_again([ends.tried(job) for index, job in enumerate(jobs) if index not in bad])
            case Hold():
                self._hand.take_again(jobs)
                self._settling.add([], kept)
        if self._gate.unwritten:
            self._gate.unwritten = False
            await self._store.hold(self._lane, self._lane.held)

    def _delivered(self, outcome: Delivered, jobs: list[Job], attempt: Attempt, kept: list[Attempt]) -> None:
        if not kept and outcome.closes is None and not any(job.parked for job in jobs):
            self._settling.delivered(jobs, outcome, attempt)
        else:
            marks = ends.delivered(jobs, outcome, attempt)
            self._settle(jobs, marks, kept, ends.closing(jobs, outcome, attempt.at))
        oldest = min([job.event.received for job in jobs])
        self._observer.delivered(self._name, len(jobs) - len(outcome.rejected), (attempt.at - oldest) / 1000)

    def give_back(self, jobs: Sequence[Job], error: Exception) -> None:
        """After a fault of ours: those without an end wait for another try, as after any fault, and do not spin."""
        now, reason = self._clock.now(), f"a fault of ours ({type(error).__name__}): report it"
        attempt = Attempt(seqs=[job.seq for job in jobs], began=now, at=now, outcome="fault", reason=reason)
        if jobs:
            self._settling.add(ends.retried(jobs, attempt, after=60.0, until=None, chance=self._chance()))

    async def _bisect(self, jobs: list[Job], attempt: Attempt, erasures: int) -> None:
        """Isolate the member that makes a batch fail and deliver the others. Each question leaves only when any other
        request might.
        """
        self._settling.add([], [attempt])
        search = Bisection([ends.tried(job) for job in jobs])
        while not search.finished:
            asked = search.question()
            if not (self._may_go(erasures) and await self._in_turn()):
                self._hand.take_again(asked)
                self._hand.take_again(search.abandon())
                return
            if (fresh := self._one(asked)) is None:
                self._hand.take_again(search.abandon())
                return
            request, asked = fresh
            await self._answered(search, asked, *await self._attempt(request, asked))
        self._hand.take_again(search.untested)

    async def _answered(self, search: Bisection[Job], asked: list[Job], outcome: Outcome, attempt: Attempt) -> None:
        """What the answer to one question says of those asked about, and of the others."""
        match outcome:
            case Delivered():
                search.good()
                await self._apply(outcome, asked, attempt)
            case Split() | Rejected() if len(asked) == 1:
                search.bad(asked)
                await self._apply(Rejected(outcome.reason), asked, attempt)
            case Split() | Rejected():
                search.bad([ends.tried(job) for job in asked])
                self._settling.add([], [attempt])
            case _:
                left = search.abandon()
                await self._apply(outcome, asked, attempt)
                self._hand.take_again(left)
