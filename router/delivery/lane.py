"""One destination's lane: takes events from the log in order, sends them, settles what became of each.

What is under way when the process dies is sent again by the next one, with the same dedup id and the same body.
Sending and settling overlap: a request's slot is free as soon as it is answered, and only so many answers may wait to
be written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog
from aiolimiter import AsyncLimiter

from router import route
from router.clock import Clock
from router.delivery import ends
from router.delivery.bisection import Bisection
from router.delivery.ends import LONGEST_QUOTA, Job
from router.delivery.meter import Meter
from router.delivery.pace import Pace
from router.delivery.sender import Sender, remarkable
from router.delivery.subjects import MOST_BEHIND, Subjects
from router.destination import Destination, Request
from router.failpoint import failpoint
from router.outbox import memory
from router.outbox.crashes import CAREFUL_AFTER
from router.outbox.errors import NotDurable
from router.outbox.lane import Lane
from router.outbox.log import Stored
from router.outbox.outbox import Outbox
from router.outbox.state import Attempt, Closing, Held, Mark, Selection
from router.outcome import Delivered, Hold, Outcome, Rejected, Retry, Split
from router.settings import per_second, seconds

log: Any = structlog.get_logger()

T = TypeVar("T")

TAKE = 64  # events looked at in one go, where a batch is not larger
PROBE_EVERY = 300_000  # ms between looks at whether a held lane works again
SHORTEST_HOLD = 60_000  # ms; a partner that says "until" a moment that is gone is not asked without end
UNSETTLED = 4  # times the concurrency: requests answered but not yet written down
MOST_CAREFUL = 1_000  # events after a crash that are looked at one by one
WRONG_ADDRESS_AFTER = 5  # answers 404 or 405 in a row
SET_FORWARD = 60_000  # ms that the wall clock may gain on the other one before somebody has set it
FOR_EVER = 1e9  # seconds: until something new arrives


class Observer:
    """Told what happened, for metrics. Override what you count."""

    def attempted(self, lane: str, outcome: str, status: int | None, duration: float) -> None:
        """One request was answered or failed, after so many seconds."""

    def delivered(self, lane: str, count: int, oldest: float) -> None:
        """So many events were taken by the partner; ``oldest`` is the age of the oldest in seconds."""


class LaneRunner:
    """A lane at work. ``hold``, ``resume``, ``retry`` and ``drop`` are the operator's."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        lane: Lane,
        store: Outbox,
        clock: Clock,
        *,
        observer: Observer,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name, self.destination, self.lane = name, destination, lane
        self._store, self._clock, self._observer, self._chance = store, clock, observer, chance
        self.rule = route.compile(name, destination)
        self._batch = destination.batch or destination.default_batch
        self._concurrency = destination.concurrency or destination.default_concurrency
        window = destination.max_age or destination.window
        self._window = int(seconds(window) * 1000) if window else None
        self._retry_for = int(seconds(destination.retry_for) * 1000)
        self._limiter = _limiter(destination.rate or destination.default_rate)
        self._sender = Sender(name, destination, clock, self._concurrency)
        self._pace = Pace(self._concurrency)

        self._taken = lane.cursor  # the last event taken from the log
        self._again: deque[list[Job]] = deque()  # in hand, to be written as requests
        self._ready: deque[tuple[Request, list[Job]]] = deque()  # in hand, written
        self._parked_in_hand: set[int] = set()  # those in hand or under way that have a row
        self._about = type(destination).subject is not Destination.subject
        self._subjects = Subjects()
        self._meter = Meter(quota) if (quota := destination.quota()) is not None else None
        lane.next_due = 0  # look at once

        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = 0
        self._unsettled = 0
        self._change = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

        self._misses = 0
        self._written_at = 0  # how many erasures there had been when what is ready was written
        self._epoch = 0  # begins anew with every hold and resumption: answers to older requests change neither
        self._unwritten_hold = False
        self._probe_at = (lane.held.until or 0) if lane.held else 0
        # The end of the last hold, or of time that did not pass or in which nobody ran: it is no event's fault.
        self._open_since = store.away_until
        self._seen, self._elapsed = clock.now(), clock.monotonic()
        # What may have been in hand when the last process died.
        in_hand = 2 * self._concurrency * self._batch + max(self._batch, TAKE)
        self._careful = min(MOST_CAREFUL, in_hand) if store.crashes >= CAREFUL_AFTER else 0

    # Life

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"lane-{self.name}")

    async def stop(self, patience: float) -> None:
        """Take nothing more, finish what is under way for ``patience`` seconds; the rest is the next start's."""
        self._stopping = True
        self._wake()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=patience)
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(NotDurable, TimeoutError):
            async with asyncio.timeout(patience):  # behind everything of this lane that is still to be written
                await self._store.settle(self.lane, [])
        await self._sender.close()

    def _wake(self) -> None:
        self._change.set()
        self.lane.more.set()

    async def _run(self) -> None:
        with contextlib.suppress(NotDurable):
            await self._begin_meter()
        while not self._stopping:
            try:
                await self._step()
            except NotDurable:
                if self._store.failed is not None:
                    return  # the outbox has told the process to stop
                await self._clock.sleep(1.0)
            except Exception:
                # A fault of ours must not end the lane for good, nor spin.
                log.exception("lane_failed", destination=self.name)
                await self._clock.sleep(1.0)

    async def _step(self) -> None:
        self.lane.more.clear()
        now = await self._time()
        if (wait := self._closed_for(now)) > 0:
            await self._idle(wait)
        elif jobs := await self._next(now):
            await self._prepare(jobs, now)
            await self._send_all()
            await asyncio.sleep(0)  # a lane that filters everything would otherwise never let go of the loop
        else:
            due = self.lane.next_due
            await self._idle(FOR_EVER if due is None else max(0.0, (due - now) / 1000))

    async def _prepare(self, jobs: list[Job], now: int) -> None:
        """Requests of what was taken. After a fault of ours it waits for another try: nobody else has it in hand."""
        try:
            failpoint("lane_after_take")
            if self._careful > 0:
                await self._carefully(jobs, now)
            else:
                self._write(await self._in_turn(self._routed(jobs, now), now))
        except NotDurable:
            raise
        except Exception as error:
            log.exception("lane_failed", destination=self.name)
            ready = {job.seq for _, written in self._ready for job in written}
            await self._give_back([job for job in jobs if job.seq not in ready], error)

    async def _carefully(self, jobs: Sequence[Job], now: int) -> None:
        """One by one, each written down while it is in hand: the last process may have died of one of them."""
        for job in jobs:
            async with self._store.careful:
                await self._patiently(partial(self._store.in_hand, self.lane, job.seq))
                self._write(await self._in_turn(self._routed([job], now), now))
                await self._patiently(self._store.out_of_hand)
        self._careful -= len(jobs)

    async def _time(self) -> int:
        """Now (UTC ms), with what is counted by the wall clock put right where that was set."""
        now, elapsed = self._clock.now(), self._clock.monotonic()
        ahead = now - self._seen - int((elapsed - self._elapsed) * 1000)
        if now < self._seen:
            await self._set_back(self._seen - now)
        elif ahead > SET_FORWARD:
            log.warning("clock_set_forward", destination=self.name, wait_s=ahead // 1000)
            self._open_since = now  # the time that did not pass expires nothing
        self._seen, self._elapsed = now, elapsed
        return now

    async def _set_back(self, by: int) -> None:
        """The clock was set back: waits are lengths of time, and none becomes longer by it."""
        await self._store.set_back(self.lane, by)
        self._pace.paused_until -= by
        self._probe_at -= by
        self._open_since -= by

    def _closed_for(self, now: int) -> float:
        """Seconds that the lane must not send; 0 where it may, be it for a probe."""
        held = self.lane.held
        if held is None:
            return max(0, self._pace.paused_until - now) / 1000
        return max(0, self._probe_at - now) / 1000 if held.by == "partner" else FOR_EVER

    async def _idle(self, wait: float) -> None:
        """Until something new arrives, or so many seconds have passed."""
        if wait >= FOR_EVER:
            await self.lane.more.wait()
            return
        waits = {asyncio.ensure_future(self.lane.more.wait()), asyncio.ensure_future(self._clock.sleep(wait))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    # Taking

    async def _next(self, now: int) -> list[Job]:
        """What to send next: what is in hand already, overdue retries, then fresh events."""
        if not self._again:
            await self._until(self._has_room)
        while self._again:
            if jobs := self._not_erased(self._again.popleft(), now):
                return jobs
        most = 1 if self.lane.held is not None or self._pace.open else max(self._batch, TAKE)
        if self.lane.next_due is not None and self.lane.next_due <= now and (overdue := await self._overdue(now, most)):
            return overdue
        while found := await self._store.read(self._taken, most):
            self._taken = found[-1].seq
            fresh = [each for each in found if self.lane.open(each.seq)]
            if jobs := self._intact(fresh, now):
                return jobs
            await asyncio.sleep(0)
        return []

    def _not_erased(self, jobs: list[Job], now: int) -> list[Job]:
        """Without those whose person was forgotten while they were in hand."""
        if not self._store.erasures:
            return jobs
        erased = [job for job in jobs if self._store.suppression.blocks(job.event.user)]
        self._settle_soon(ends.unsent(erased, "erased", None, now))
        gone = {job.seq for job in erased}
        return [job for job in jobs if job.seq not in gone]

    def _has_room(self) -> bool:
        return bool(self._again) or (
            self._unsettled < UNSETTLED * self._concurrency and self._subjects.waiting < MOST_BEHIND
        )

    async def _overdue(self, now: int, most: int) -> list[Job]:
        rows = {each.seq: each for each in await self._store.due(self.lane, now, most, self._parked_in_hand)}
        if not rows:
            return []
        found = await self._store.pick(list(rows))
        failpoint("retry_before_take")
        self._parked_in_hand.update(rows)
        jobs = [
            Job(each.seq, each.event, rows[each.seq].attempts, parked=True, since=rows[each.seq].since)
            for each in found
            if each.event is not None
        ]
        whole = {job.seq for job in jobs}
        if erased := [each.seq for each in found if each.erased]:
            self._settle_soon([Mark(seqs=erased, state="erased", at=now, parked=True)])
            whole.update(erased)
        if lost := [seq for seq in rows if seq not in whole]:
            reason = "the stored event is damaged or gone: run turnout doctor"
            log.error("event_damaged", destination=self.name, seq=lost[0], count=len(lost), reason=reason)
            self._settle_soon([Mark(seqs=lost, state="dead", at=now, parked=True, reason=reason)])
        return jobs

    def _intact(self, found: Sequence[Stored], now: int) -> list[Job]:
        """Jobs of what was read. An erased or damaged event ends here, visibly; the others flow."""
        if erased := [each.seq for each in found if each.erased]:
            self._settle_soon([Mark(seqs=erased, state="erased", at=now)])
        if damaged := [each.seq for each in found if each.event is None and not each.erased]:
            reason = "the stored event is damaged: run turnout doctor"
            log.error("event_damaged", destination=self.name, seq=damaged[0], count=len(damaged), reason=reason)
            self._settle_soon([Mark(seqs=damaged, state="dead", at=now, reason=reason)])
        return [Job(each.seq, each.event) for each in found if each.event is not None]

    def _routed(self, jobs: Sequence[Job], now: int) -> list[Job]:
        """Those that are to be sent; the others are settled as filtered or dead, with the reason."""
        send: list[Job] = []
        filtered: dict[str, list[Job]] = {}
        late: dict[str, list[Job]] = {}
        for job in jobs:
            if (reason := route.decide(self.rule, job.event)) is not None:
                filtered.setdefault(reason, []).append(job)
            elif (reason := self._too_late(job, now)) is not None:
                late.setdefault(reason, []).append(job)
            else:
                send.append(job)
        marks = [mark for reason, ended in filtered.items() for mark in ends.unsent(ended, "filtered", reason, now)]
        marks += [mark for reason, ended in late.items() for mark in ends.unsent(ended, "dead", reason, now)]
        self._settle_soon(marks)
        return send

    def _too_late(self, job: Job, now: int) -> str | None:
        if self._window is not None and now - job.event.time > self._window:
            return ends.expired(now - job.event.time, self._window)
        if (
            job.since is not None
            and self.lane.held is None
            and now - max(job.since, self._open_since) > self._retry_for
        ):
            return "expired: passing faults for as long as retry_for allows"
        return None

    async def _in_turn(self, jobs: list[Job], now: int) -> list[Job]:
        """Those whose subject is neither closed nor, where order counts, waiting for an earlier event about it."""
        if not self._about or not jobs:
            return jobs
        jobs = [msgspec.structs.replace(job, subject=self._sender.subject(job)) for job in jobs]
        if self.destination.ordered:
            jobs = self._subjects.take(jobs)
            if self.lane.next_due is not None:
                jobs = await self._not_behind(jobs, now)
        about = [job.subject for job in jobs if job.subject is not None]
        closed = await self._patiently(lambda: self._store.closed(self.lane, about, now)) if about else {}
        free = []
        for job in jobs:
            if (reason := closed.get(job.subject or "")) is not None and self._sender.kept_out(job):
                self._settle_soon(ends.unsent([job], "dead", reason, now))
            else:
                free.append(job)
        return free

    async def _patiently(self, asked: Callable[[], Awaitable[T]]) -> T:
        """What the outbox says, however long it is busy or full: the jobs that are asked about are in nobody else's hand."""
        while True:
            try:
                return await asked()
            except NotDurable:
                if self._stopping or self._store.failed is not None:
                    raise
                await self._clock.sleep(1.0)

    async def _not_behind(self, jobs: list[Job], now: int) -> list[Job]:
        """Those without an earlier event about the same subject that waits for another try; the others wait as long."""
        about = [job.subject for job in jobs if job.subject is not None]
        waiting = await self._patiently(lambda: self._store.behind(self.lane, about)) if about else {}
        free = []
        for job in jobs:
            first, due = waiting.get(job.subject or "", (job.seq, 0))
            if first < job.seq:
                self._settle_soon([ends.behind(job, due, now)])
            else:
                free.append(job)
        return free

    # Sending

    def _write(self, jobs: Sequence[Job]) -> None:
        """Make requests of jobs, as many events in each as the partner takes."""
        self._written_at = self._store.erasures
        for start in range(0, len(jobs), self._batch):
            self._ready.extend(self._written(jobs[start : start + self._batch]))

    def _written(self, jobs: Sequence[Job]) -> list[tuple[Request, list[Job]]]:
        """Requests with their jobs; what the destination cannot express is settled."""
        written = self._sender.write(jobs)
        now = self._clock.now()
        refused: dict[str, list[Job]] = {}
        for job, reason in written.ended:
            refused.setdefault(reason, []).append(job)
        self._settle_soon(
            [mark for reason, ended in refused.items() for mark in ends.unsent(ended, "dead", reason, now)]
        )
        return written.requests

    async def _send_all(self) -> None:
        while self._ready:
            await self._until(self._may_send)
            now = self._clock.now()
            if self._stopping or self._closed_for(now) > 0 or self._written_at != self._store.erasures:
                while self._ready:  # written anew when the lane may go on: signatures age
                    self._again.append(self._ready.popleft()[1])
            elif self._ready:
                self._probe_at = now + PROBE_EVERY
                self._sending += 1
                self._background(self._carry(*self._ready.popleft(), (self._epoch, self._written_at)))

    def _may_send(self) -> bool:
        now = self._clock.now()
        if self._closed_for(now) > 0:
            return True  # to find out that it may not
        return self._sending < self._pace.allowed(now) and self._unsettled < UNSETTLED * self._concurrency

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Until ``ready`` says so, or the lane stops."""
        while not self._stopping and not ready():
            self._change.clear()
            await self._change.wait()

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, request: Request, jobs: list[Job], when: tuple[int, int]) -> None:
        """Send one request and bring its events to an end, or to their next wait. ``when``: epoch and erasures."""
        self._unsettled += 1
        try:
            try:
                if self._limiter is not None:
                    await self._limiter.acquire()
                if when != (self._epoch, self._store.erasures) or self._clock.now() < self._pace.paused_until:
                    self._take_again(jobs)  # the lane closed, or somebody was forgotten, while it waited for its turn
                    return
                failpoint("lane_before_send")
                outcome, attempt = await self._attempt(request, jobs)
                failpoint("lane_after_answer")
                if isinstance(outcome, Split) and not outcome.rejected and len(jobs) > 1:
                    await self._bisect(jobs, attempt)
                    return
            finally:
                self._sending -= 1
                self._change.set()
            await self._apply(outcome, jobs, attempt)
        except NotDurable:
            return
        except Exception as error:
            log.exception("carry_failed", destination=self.name)
            await self._give_back(jobs, error)
        finally:
            self._unsettled -= 1
            self._change.set()

    async def _give_back(self, jobs: Sequence[Job], error: Exception) -> None:
        """After a fault of ours: those without an end wait for another try, as after any fault, and do not spin."""
        now, reason = self._clock.now(), f"a fault of ours ({type(error).__name__}): report it"
        attempt = Attempt(seqs=[job.seq for job in jobs], began=now, at=now, outcome="fault", reason=reason)
        marks = ends.retried(jobs, attempt, after=60.0, until=None, chance=self._chance())
        await self._settle_quietly(marks)

    async def _attempt(self, request: Request, jobs: Sequence[Job]) -> tuple[Outcome, Attempt]:
        """One request on the wire, what it means, and what that does to the lane."""
        epoch = self._epoch
        outcome, attempt = await self._sender.send(request, jobs)
        outcome = self._felt(outcome, attempt, current=epoch == self._epoch)
        self._observer.attempted(self.name, attempt.outcome, attempt.status, (attempt.at - attempt.began) / 1000)
        if not isinstance(outcome, Delivered):
            log.info(
                "attempt",
                destination=self.name,
                outcome=attempt.outcome,
                status=attempt.status,
                reason=attempt.reason,
                count=len(jobs),
            )
        return outcome, attempt

    def _felt(self, outcome: Outcome, attempt: Attempt, *, current: bool) -> Outcome:
        """What an outcome does to the lane as a whole, at once: nothing more leaves before it is written down.

        ``current``: no hold or resumption came between the request and this answer to it.
        """
        at = attempt.at
        known = isinstance(outcome, Rejected) and outcome.closes is not None  # the partner's own word about one event
        missed = attempt.status in {404, 405} and isinstance(outcome, Rejected | Split) and not known
        self._misses = self._misses + 1 if missed else 0
        if self._misses >= WRONG_ADDRESS_AFTER:
            outcome = Hold("every event is answered 404 or 405: check base_url and ids, then resume")
        match outcome:
            case Retry(after=None, until=None):
                self._pace.failed(at, self._chance())
            case Retry(after=after, until=until):
                self._pace.pause(max(at + int(1000 * (after or 0.0)), min(until or 0, at + LONGEST_QUOTA)))
            case Hold():
                if current:
                    self._close(outcome, at)
            case _:
                self._pace.succeeded(at)
                if current:
                    self._reopen(at)
        return outcome

    # Settling

    async def _apply(self, outcome: Outcome, jobs: list[Job], attempt: Attempt) -> None:
        kept = [attempt] if remarkable(outcome, jobs) else []
        match outcome:
            case Delivered():
                await self._settle(
                    ends.delivered(jobs, outcome, attempt), kept, ends.closing(jobs, outcome, attempt.at)
                )
                uses = not outcome.duplicate and not outcome.free
                await self._metered(len(jobs) - len(outcome.rejected) if uses else 0, attempt.at)
                oldest = min(job.event.received for job in jobs)
                self._observer.delivered(self.name, len(jobs) - len(outcome.rejected), (attempt.at - oldest) / 1000)
            case Retry(after=after, until=until):
                await self._settle(ends.retried(jobs, attempt, after=after, until=until, chance=self._chance()), kept)
            case Rejected(reason=reason):
                marks = ends.rejected(jobs, dict.fromkeys(range(len(jobs)), reason), attempt)
                await self._settle(marks, kept, ends.closing(jobs, outcome, attempt.at))
            case Split(reason=reason, rejected=named):
                bad = named or {0: reason}
                await self._settle(ends.rejected(jobs, bad, attempt), kept)
                self._take_again([ends.tried(job) for index, job in enumerate(jobs) if index not in bad])
            case Hold():
                self._take_again(jobs)
                await self._settle([], kept)
        if self._unwritten_hold:
            self._unwritten_hold = False
            await self._store.hold(self.lane, self.lane.held)

    def _take_again(self, jobs: list[Job]) -> None:
        """In hand, to be sent as soon as the lane may. If the process dies first, the outbox still has them waiting."""
        if jobs:
            self._again.append(jobs)
            self.lane.more.set()

    async def _metered(self, events: int, at: int) -> None:
        """Count what a partner with a monthly quota took, and tell the operator once when little of it is left."""
        if self._meter is None or not events:
            return
        if (month := memory.month(at)) != self._meter.month:  # the outbox has counted these events already
            self._meter.begin(month, max(0, await self._store.used(self.lane, at) - events))
        if self._meter.count(events):
            self._tell_quota(self._meter)

    async def _begin_meter(self) -> None:
        """Judge at the start what the month has used: the quota may be another one now, and an old log may be gone."""
        if self._meter is None:
            return
        now = self._clock.now()
        self._meter.begin(memory.month(now), await self._store.used(self.lane, now))
        if self._meter.near():
            self._tell_quota(self._meter)

    def _tell_quota(self, meter: Meter) -> None:
        reason = f"{meter.used} of {meter.quota} events of this month are used"
        log.warning("quota_near", destination=self.name, reason=reason)

    async def _settle(
        self, marks: Sequence[Mark], attempts: Sequence[Attempt] = (), closing: Sequence[Closing] = ()
    ) -> None:
        failpoint("lane_before_settle")
        await self._store.settle(self.lane, marks, attempts, closing)
        failpoint("lane_after_settle")
        self._take_again(self._subjects.leave([seq for mark in marks for seq in mark.seqs]))
        parked = [seq for mark in marks if mark.parked for seq in mark.seqs]
        if parked:
            self._parked_in_hand.difference_update(parked)
            self.lane.next_due = 0  # look again: some wait anew
        if parked or any(mark.due is not None for mark in marks):
            self.lane.more.set()

    def _settle_soon(self, marks: Sequence[Mark]) -> None:
        if marks:
            self._unsettled += 1
            self._background(self._settle_counted(marks))

    async def _settle_counted(self, marks: Sequence[Mark]) -> None:
        try:
            await self._settle_quietly(marks)
        finally:
            self._unsettled -= 1
            self._change.set()

    async def _settle_quietly(self, marks: Sequence[Mark]) -> None:
        with contextlib.suppress(NotDurable):
            await self._settle(marks)

    async def _bisect(self, jobs: list[Job], attempt: Attempt) -> None:
        """Isolate the member that makes a batch fail and deliver the others."""
        await self._settle([], [attempt])
        search = Bisection([ends.tried(job) for job in jobs])
        while not search.finished:
            asked = search.question()
            pairs = self._written(asked)
            if len(pairs) != 1 or len(pairs[0][1]) != len(asked):
                # A part that is no longer one request: its pieces are sent for themselves.
                for piece in [search.abandon(), *(carried for _, carried in pairs)]:
                    self._take_again(piece)
                return
            outcome, tried = await self._attempt(pairs[0][0], asked)
            match outcome:
                case Delivered():
                    search.good()
                    await self._apply(outcome, asked, tried)
                case Split() | Rejected() if len(asked) == 1:
                    search.bad()
                    await self._apply(Rejected(outcome.reason), asked, tried)
                case Split() | Rejected():
                    search.bad()
                    await self._settle([], [tried])
                case _:
                    left = search.abandon()
                    await self._apply(outcome, asked, tried)
                    self._take_again(left)
        self._take_again(search.untested)

    # Holding

    def _close(self, outcome: Hold, now: int) -> None:
        until = None
        if outcome.until is not None:
            until = min(max(outcome.until, now + SHORTEST_HOLD), now + LONGEST_QUOTA)
        self._probe_at = now + PROBE_EVERY if until is None else until
        held = self.lane.held
        if held is None:
            self._epoch += 1
            log.warning("lane_held", destination=self.name, reason=outcome.reason)
        if held is None or held.by == "partner":
            since = held.at if held is not None and held.reason == outcome.reason else now
            self.lane.held = Held(reason=outcome.reason, by="partner", at=since, until=until)
            self._unwritten_hold = True

    def _reopen(self, now: int) -> None:
        if self.lane.held is not None and self.lane.held.by == "partner":
            self.lane.held = None
            self._unwritten_hold = True
            self._epoch += 1
            self._open_since = now
            log.info("lane_resumed", destination=self.name)

    def busy(self, behind: int) -> bool:
        """Has it better to do than a replay: is it held, waiting, or more than so many events behind?"""
        now = self._clock.now()
        return (
            self.lane.held is not None
            or self._pace.open
            or self._closed_for(now) > 0
            or self._store.last - self.lane.cursor > behind
        )

    # The operator

    def probe(self) -> None:
        """Look at once whether a lane that its partner closed works again."""
        self._probe_at = 0
        self._wake()

    async def hold(self, reason: str, who: str) -> None:
        self._epoch += 1
        await self._store.hold(self.lane, Held(reason=reason, by="operator", at=self._clock.now()))
        await self._store.audit(who, "hold", self.name)
        self._wake()

    async def resume(self, who: str) -> None:
        """Let the lane go at once, whatever held it or made it wait."""
        self._pace.resume()
        self._misses = 0
        self._epoch += 1
        self._open_since = self._clock.now()
        self._unwritten_hold = False
        await self._store.hold(self.lane, None)
        await self._store.audit(who, "resume", self.name)
        self._wake()

    async def retry(self, chosen: Selection, who: str) -> int:
        """Send dead or waiting deliveries again, now. Returns how many."""
        return await self._store.revive(self.lane, chosen, who)

    async def drop(self, chosen: Selection, who: str) -> int:
        """Give up waiting deliveries that are not under way. Returns how many."""
        fresh: list[int] = []
        if chosen.state == "waiting":
            seqs = None if chosen.seqs is None else frozenset(chosen.seqs)
            fresh = self._drop_in_hand(seqs)
            beyond = range(max(self._taken, self.lane.cursor) + 1, self._store.last + 1)
            fresh += [seq for seq in beyond if (seqs is None or seq in seqs) and self.lane.open(seq)]
        under_way = tuple(self._parked_in_hand)
        chosen = Selection(state=chosen.state, seqs=chosen.seqs, besides=under_way)
        count = await self._store.drop(self.lane, chosen, fresh, who)
        self.lane.next_due = 0
        self._wake()
        return count

    def _drop_in_hand(self, seqs: frozenset[int] | None) -> list[int]:
        """Let go of the meant ones among what waits in hand; returns the fresh ones, which have no row yet."""
        waiting = [self._subjects.give_up(seqs), *self._again, *(jobs for _, jobs in self._ready)]
        self._again.clear()
        self._ready.clear()
        fresh: list[int] = []
        for jobs in waiting:
            dropped = [job for job in jobs if seqs is None or job.seq in seqs]
            self._parked_in_hand.difference_update(job.seq for job in dropped)
            following = self._subjects.leave([job.seq for job in dropped])
            fresh += [job.seq for job in dropped if not job.parked]
            self._take_again([job for job in jobs if seqs is not None and job.seq not in seqs])
            self._take_again(following)
        return fresh


def _limiter(rate: str | None) -> AsyncLimiter | None:
    """At most so many requests; the bucket holds one second's worth, so a pause earns no burst beyond it."""
    if rate is None:
        return None
    speed = per_second(rate)
    return AsyncLimiter(max(1.0, speed), max(1.0, speed) / speed)
