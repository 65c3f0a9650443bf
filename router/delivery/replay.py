"""Replay: an operator's choice of events is sent again to one destination, slowly, beside what is fresh.

One request at a time and no more than its rate; live traffic goes first: while the lane is held, paused or behind, the
replay waits, and what the partner answers to it holds for the lane as well. The same dedup ids travel, so partners
recognise what they have. Where it is, is written down after every batch, and the next process goes on from there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from aiolimiter import AsyncLimiter

from router import retry, route
from router.clock import Clock
from router.delivery.batching import OFTEN, batches
from router.delivery.ends import OUTLASTED, Job, window
from router.delivery.lane import LaneRunner
from router.delivery.patience import patiently
from router.delivery.sender import Sender, Written
from router.destination import Destination
from router.event import Event
from router.failpoint import failpoint
from router.outbox.errors import NotDurable
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Attempt
from router.outbox.state.lane import Lane
from router.outbox.state.replays import Chosen, Counts, Replay
from router.outcome import Delivered, Hold, Rejected, Retry, Split
from router.settings import per_second

log: Any = structlog.get_logger()

T = TypeVar("T")

LOOK = 20  # events dealt with between two notes of how far it is, where a batch is not larger
LOOK_AHEAD = 500  # events of a preview looked at in one go
BEHIND = 100  # fresh events of the lane that may wait while a replay goes on
PAUSE = 1.0  # seconds until the lane is looked at again
AFTER_FAULT = 60.0  # seconds until a step in which we had a fault is tried again
LEFT_OUT = "left out: one process after another ended while it was in hand; report it"


class Replayer:
    """One replay at work, beside the lane of its destination; it tells when it has ``ended`` by itself."""

    def __init__(
        self, replay: Replay, runner: LaneRunner, store: Outbox, clock: Clock, ended: Callable[[], object]
    ) -> None:
        self.replay, self._ended = replay, ended
        self._runner, self._store, self._clock = runner, store, clock
        self._name, self._lane, destination = runner.name, runner.lane, runner.destination
        self._window = window(destination)
        self._batch = destination.largest_batch()
        self._sender = Sender(f"{self._name}-replay", destination, clock, 1)
        self._attempts: list[Attempt] = []
        speed = per_second(replay.chosen.rate)
        self._suspects, self._killers = store.suspects(self._lane), store.killers(self._lane)
        self._limiter = AsyncLimiter(1, 1 / speed)
        self._has_turn = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"replay-{self.replay.id}")

    async def stop(self) -> None:
        """Go no further; what is under way is not known to have arrived, and is sent again by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._sender.close()

    async def _run(self) -> None:
        try:
            while self.replay.state == "running":
                await self._step_or_pause()
        except NotDurable:
            return  # the outbox tells the process; the next one goes on
        finally:
            await self._sender.close()
        self._ended()

    async def _step_or_pause(self) -> None:
        before = msgspec.structs.replace(self.replay.counts)
        try:
            await (self._step() if self.replay.cursor < self.replay.last else self._finish())
        except NotDurable:
            raise
        except Exception:
            # A fault of ours must not end the replay for good, nor send the same more than once a minute.
            log.exception("replay_failed", destination=self._name)
            self.replay.counts = before
            await self._clock.sleep(AFTER_FAULT)

    async def _step(self) -> None:
        await self._lane_free()  # what is read before a long wait is old
        most, erasures = max(self._batch, LOOK), self._store.erasures
        found = await self._patiently(lambda: next_part(self._store, self._lane, self.replay, most))
        self._attempts = []
        self.replay.counts.other += found.other
        now = self._clock.now()
        jobs = [Job(seq, event) for seq, event in found.events]
        await self._send([job for job in jobs if self._wanted(job, now)], found.delivered)
        failpoint("replay_before_note")
        noted = msgspec.structs.replace(self.replay, cursor=found.end)
        await self._patiently(lambda: self._store.note_replay(noted, self._tries(erasures)))
        self.replay.cursor = found.end
        failpoint("replay_after_note")

    def _tries(self, erasures: int) -> list[Attempt]:
        """Those of a step. Who was forgotten since there had been so many erasures may be in an answer: none is kept."""
        if erasures == self._store.erasures:
            return self._attempts
        return [msgspec.structs.replace(each, answer=None) for each in self._attempts]

    async def _finish(self) -> None:
        done = msgspec.structs.replace(self.replay, state="done")
        await self._patiently(lambda: self._store.note_replay(done))
        self.replay.state = "done"
        log.info("replay_done", destination=self._name, count=self.replay.counts.sent)

    async def _patiently(self, asked: Callable[[], Awaitable[T]]) -> T:
        """What the outbox says, also later: what was sent is not sent again because it was busy."""
        return await patiently(asked, self._store, self._clock)

    def _wanted(self, job: Job, now: int) -> bool:
        if job.seq in self._killers:
            self._refused([(job, LEFT_OUT)])
            return False
        end, counts = fate(self._runner.rule, self._window, job.event, now), self.replay.counts
        if end == "filtered":
            counts.filtered += 1
        elif end == "expired":
            counts.expired += 1
        return end is None

    async def _send(self, jobs: Sequence[Job], had: frozenset[int]) -> None:
        """Send in the batches of the partner."""
        parts = deque(batches(await self._not_closed(jobs), self._batch, self._suspects))
        while parts:
            parts.extendleft(reversed(await self._carry(parts.popleft(), had)))

    async def _not_closed(self, jobs: Sequence[Job]) -> list[Job]:
        """Without those whose subject the partner has closed since."""
        named = [msgspec.structs.replace(job, subject=self._subject(job)) for job in jobs]
        about = [job.subject for job in named if job.subject is not None]
        now = self._clock.now()
        closed = await self._patiently(lambda: self._store.closed(self._lane, about, now)) if about else {}
        free, shut = self._sender.parted(named, closed)
        self._refused(shut)
        return free

    def _subject(self, job: Job) -> str | None:
        return self._in_hand([job], lambda: self._sender.subject(job))

    def _in_hand(self, jobs: Sequence[Job], work: Callable[[], T]) -> T:
        """What the partner's code makes of these. It may kill the process, and the next one goes on here."""
        seqs = [job.seq for job in jobs]
        self._store.in_hand.take(self._lane.id, min(seqs), max(seqs))
        try:
            return work()
        finally:
            self._store.in_hand.release()

    async def _carry(self, jobs: Sequence[Job], had: frozenset[int]) -> list[list[Job]]:
        """Send one request until the partner has said what becomes of it. Returns who is in another one, in parts.

        It is written anew for every try, when it may leave: signatures age, and people are forgotten. A batch at which the
        partner fails often is divided, and an event for which it does so for as long as ``retry_for`` is left behind.
        """
        tries, since = 0, self._clock.now()
        others: list[list[Job]] = []
        while jobs:
            await self._turn()
            written = self._written(self._not_erased(jobs))
            self._refused(written.ended)
            if not written.requests:
                break
            (request, jobs), *more = written.requests
            others += [carried for _, carried in more]
            self._has_turn = False
            failpoint("replay_before_send")
            outcome, attempt = await self._runner.attempt(self._sender, request, jobs)
            if not isinstance(outcome, Retry | Hold):
                self._told(attempt)
                return self._answered(outcome, jobs, had) + others
            tries = tries + 1 if isinstance(outcome, Retry) else 1  # where it said when, the lane is closed until then
            if tries >= OFTEN and len(jobs) > 1:
                self._told(attempt)
                half = len(jobs) // 2
                return [jobs[:half], jobs[half:], *others]
            if tries >= OFTEN and self._runner.outlasted(since, attempt.at):
                self._told(attempt)
                self._refused([(job, OUTLASTED) for job in jobs])
                return others
            await self._clock.sleep(retry.delay(tries, 1.0))
        return others

    def _written(self, jobs: Sequence[Job]) -> Written:
        return self._in_hand(jobs, lambda: self._sender.write(jobs)) if jobs else Written()

    def _answered(self, outcome: Delivered | Rejected | Split, jobs: list[Job], had: frozenset[int]) -> list[list[Job]]:
        """What the partner said of each. Returns those whom a bad member of their batch spoilt it for: without those that
        were named, or one by one.
        """
        if isinstance(outcome, Rejected) or (isinstance(outcome, Split) and len(jobs) == 1):
            bad = dict.fromkeys(range(len(jobs)), outcome.reason)
        else:
            bad = outcome.rejected
        self._refused([(jobs[index], reason) for index, reason in bad.items()])
        rest = [job for index, job in enumerate(jobs) if index not in bad]
        if isinstance(outcome, Delivered):
            self.replay.counts.sent += len(rest)
            self.replay.counts.again += sum(job.seq in had for job in rest)
            return []
        return [rest] if bad else [[job] for job in rest]

    async def _turn(self) -> None:
        """Until the rate allows a request and the lane has nothing better to do. A turn that is not used is kept."""
        if not self._has_turn:
            await self._limiter.acquire()
            self._has_turn = True
        await self._lane_free()

    async def _lane_free(self) -> None:
        while self._runner.busy(BEHIND):
            await self._clock.sleep(PAUSE)

    def _not_erased(self, jobs: Sequence[Job]) -> list[Job]:
        """Without those whose person was forgotten since they were read."""
        left = [job for job in jobs if not self._store.suppression.blocks(job.event)]
        self.replay.counts.other += len(jobs) - len(left)
        return left

    def _refused(self, ended: Sequence[tuple[Job, str]]) -> None:
        """The partner, or its rules, refuse these, each with the reason."""
        self.replay.counts.refused += len(ended)
        for job, reason in ended:
            log.info("replay_refused", destination=self._name, reason=reason, seq=job.seq)

    def _told(self, attempt: Attempt) -> None:
        reason = f"replay {self.replay.id}{f': {attempt.reason}' if attempt.reason else ''}"
        self._attempts.append(msgspec.structs.replace(attempt, reason=reason))


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a replay's events, up to ``end``: those that were chosen, ``other`` that were not or are gone."""

    events: list[tuple[int, Event]]
    delivered: frozenset[int]
    other: int
    end: int


async def next_part(store: Outbox, lane: Lane, replay: Replay, limit: int) -> Part:
    """The next events of a replay, at most ``limit`` looked at."""
    stored = [each for each in await store.read(replay.cursor, limit) if each.seq <= replay.last]
    if not stored:
        return Part(events=[], delivered=frozenset(), other=replay.last - replay.cursor, end=replay.last)
    end = stored[-1].seq
    became = await store.states(lane, stored[0].seq, end)
    events = [
        (each.seq, each.event)
        for each in stored
        if each.event is not None and chooses(replay.chosen, each.event, became.get(each.seq), lane, each.seq)
    ]
    delivered = frozenset(seq for seq, state in became.items() if state == "delivered")
    return Part(events=events, delivered=delivered, other=end - replay.cursor - len(events), end=end)


def chooses(chosen: Chosen, event: Event, became: str | None, lane: Lane, seq: int) -> bool:
    """Is it among the chosen? What still waits, is dead or is under way has other ways to be sent."""
    if became is None and lane.start < seq and (seq > lane.cursor or lane.open(seq)):
        return False
    return (
        (became or "earlier") in chosen.states
        and (chosen.since is None or event.received >= chosen.since)
        and (chosen.until is None or event.received < chosen.until)
        and chosen.source in {None, event.source}
        and chosen.name in {None, event.name}
    )


def fate(rule: route.Rule, oldest: int | None, event: Event, now: int) -> str | None:
    """Why it would not be sent today: "filtered" or "expired"; None where it would."""
    if route.decide(rule, event) is not None:
        return "filtered"
    return "expired" if oldest is not None and now - event.time > oldest else None


async def preview(
    store: Outbox, lane: Lane, name: str, destination: Destination, chosen: Chosen, first: int, clock: Clock
) -> Counts:
    """What a replay would do, without a request; what the partner's own rules refuse counts as ``refused``."""
    rule, sender, now = route.compile(name, destination), Sender(f"{name}-preview", destination, clock, 1), clock.now()
    oldest = window(destination)
    trial = Replay(
        id=0, lane=lane.id, at=now, who="", chosen=chosen, cursor=first - 1, last=store.last, counts=Counts()
    )
    counts = trial.counts
    while trial.cursor < trial.last:
        part = await next_part(store, lane, trial, LOOK_AHEAD)
        counts.other += part.other
        for seq, event in part.events:
            end = fate(rule, oldest, event, now)
            if end is not None:
                setattr(counts, end, getattr(counts, end) + 1)
            elif sender.write([Job(seq, event)]).ended:
                counts.refused += 1
            else:
                counts.sent += 1
                counts.again += seq in part.delivered
        trial.cursor = part.end
        await asyncio.sleep(0)
    return counts
