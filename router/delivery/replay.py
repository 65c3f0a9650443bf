"""Replay: an operator's choice of events is sent again to one destination, slowly, beside what is fresh.

One request at a time and no more than its rate; live traffic goes first: while the lane is held, paused or behind, the
replay waits. The same dedup ids travel, so partners recognise what they have. Where it is, is written down after every
batch, and the next process goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import structlog
from aiolimiter import AsyncLimiter

from router import retry, route
from router.clock import Clock
from router.delivery.ends import Job
from router.delivery.sender import Sender
from router.destination import Destination, Request
from router.event import Event
from router.failpoint import failpoint
from router.outbox.errors import NotDurable
from router.outbox.lane import Lane
from router.outbox.outbox import Outbox
from router.outbox.replays import Chosen, Counts, Replay
from router.outbox.state import Attempt
from router.outcome import Delivered, Hold, Outcome, Rejected, Split
from router.settings import per_second, seconds

log: Any = structlog.get_logger()

LOOK = 20  # events dealt with between two notes of how far it is, where a batch is not larger
LOOK_AHEAD = 500  # events of a preview looked at in one go
BEHIND = 100  # fresh events of the lane that may wait while a replay goes on
PAUSE = 1.0  # seconds until the lane is looked at again


class Replayer:
    """One replay at work. ``busy`` says whether its lane has better things to do."""

    def __init__(
        self,
        replay: Replay,
        name: str,
        destination: Destination,
        lane: Lane,
        store: Outbox,
        clock: Clock,
        busy: Callable[[], bool],
    ) -> None:
        self.replay = replay
        self._name, self._destination, self._lane, self._store, self._clock = name, destination, lane, store, clock
        self._busy = busy
        self._rule = route.compile(name, destination)
        window = destination.max_age or destination.window
        self._window = int(seconds(window) * 1000) if window else None
        self._batch = destination.batch or destination.default_batch
        self._sender = Sender(f"{name}-replay", destination, clock, 1)
        self._attempts: list[Attempt] = []
        speed = per_second(replay.chosen.rate)
        self._limiter = AsyncLimiter(1, 1 / speed)
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
            while self.replay.state == "running" and self.replay.cursor < self.replay.last:
                await self._step()
            if self.replay.state == "running":
                self.replay.state = "done"
                await self._store.note_replay(self.replay)
                log.info("replay_done", destination=self._name, count=self.replay.counts.sent)
        except NotDurable:
            return  # the outbox tells the process; the next one goes on
        except Exception:
            log.exception("replay_failed", destination=self._name)
        finally:
            await self._sender.close()

    async def _step(self) -> None:
        found = await next_part(self._store, self._lane, self.replay, max(self._batch, LOOK))
        now, counts = self._clock.now(), self.replay.counts
        jobs = [Job(seq, event) for seq, event in found.events if self._wanted(event, now, counts)]
        counts.other += found.other
        for job, reason in await self._send(jobs, found.delivered):
            counts.refused += 1
            log.info("replay_refused", destination=self._name, reason=reason, seq=job.seq)
        self.replay.cursor = found.end
        attempts, self._attempts = self._attempts, []
        failpoint("replay_before_note")
        await self._store.note_replay(self.replay, attempts)
        failpoint("replay_after_note")

    def _wanted(self, event: Event, now: int, counts: Counts) -> bool:
        end = fate(self._rule, self._window, event, now)
        if end == "filtered":
            counts.filtered += 1
        elif end == "expired":
            counts.expired += 1
        return end is None

    async def _send(self, jobs: Sequence[Job], had: frozenset[int]) -> list[tuple[Job, str]]:
        """Send in the batches of the partner. Returns those that it, or its rules, refused."""
        refused: list[tuple[Job, str]] = []
        for start in range(0, len(jobs), self._batch):
            part = await self._not_closed(jobs[start : start + self._batch], refused)
            written = self._sender.write(part)
            refused += written.ended
            for request, carried in written.requests:
                refused += await self._carry(request, carried, had)
        return refused

    async def _not_closed(self, jobs: Sequence[Job], refused: list[tuple[Job, str]]) -> list[Job]:
        """Without those whose subject the partner has closed since."""
        named = [msgspec.structs.replace(job, subject=self._sender.subject(job)) for job in jobs]
        about = [job.subject for job in named if job.subject is not None]
        closed = await self._store.closed(self._lane, about, self._clock.now()) if about else {}
        free = []
        for job in named:
            if (reason := closed.get(job.subject or "")) is not None and self._sender.kept_out(job):
                refused.append((job, reason))
            else:
                free.append(job)
        return free

    async def _carry(self, request: Request, jobs: list[Job], had: frozenset[int]) -> list[tuple[Job, str]]:
        """One request until the partner has said what becomes of it."""
        tries = 0
        while True:
            await self._turn()
            failpoint("replay_before_send")
            outcome, attempt = await self._sender.send(request, jobs)
            match outcome:
                case Delivered(rejected=bad):
                    taken = [job for index, job in enumerate(jobs) if index not in bad]
                    self.replay.counts.sent += len(taken)
                    self.replay.counts.again += sum(job.seq in had for job in taken)
                    self._told(attempt)
                    return [(jobs[index], reason) for index, reason in bad.items()]
                case Rejected(reason=reason):
                    self._told(attempt)
                    return [(job, reason) for job in jobs]
                case Split(rejected=bad):
                    self._told(attempt)
                    return await self._apart(jobs, bad, outcome, had)
            tries += 1
            await self._clock.sleep(60.0 if isinstance(outcome, Hold) else retry.delay(tries, 1.0))

    async def _apart(
        self, jobs: list[Job], bad: dict[int, str], outcome: Outcome, had: frozenset[int]
    ) -> list[tuple[Job, str]]:
        """A batch that was refused for some member: without those it names, or one by one."""
        if len(jobs) == 1:
            return [(jobs[0], getattr(outcome, "reason", "refused"))]
        rest = [job for index, job in enumerate(jobs) if index not in bad]
        refused = [(jobs[index], reason) for index, reason in bad.items()]
        for part in [rest] if bad else [[job] for job in rest]:
            written = self._sender.write(part)
            refused += written.ended
            for request, carried in written.requests:
                refused += await self._carry(request, carried, had)
        return refused

    async def _turn(self) -> None:
        """Until the lane has nothing better to do, and the rate allows it."""
        while self._busy():
            await self._clock.sleep(PAUSE)
        await self._limiter.acquire()

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


def fate(rule: route.Rule, window: int | None, event: Event, now: int) -> str | None:
    """Why it would not be sent today: "filtered" or "expired"; None where it would."""
    if route.decide(rule, event) is not None:
        return "filtered"
    return "expired" if window is not None and now - event.time > window else None


async def preview(
    store: Outbox, lane: Lane, name: str, destination: Destination, chosen: Chosen, first: int, clock: Clock
) -> Counts:
    """What a replay would do, without a request; what the partner's own rules refuse counts as ``refused``."""
    rule, sender, now = route.compile(name, destination), Sender(f"{name}-preview", destination, clock, 1), clock.now()
    window = destination.max_age or destination.window
    oldest = int(seconds(window) * 1000) if window else None
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
