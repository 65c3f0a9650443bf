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
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import structlog
from aiolimiter import AsyncLimiter

from router import retry, route, scrub
from router.clock import Clock
from router.delivery import ends
from router.delivery.bisection import Bisection
from router.delivery.ends import LONGEST_QUOTA, Job
from router.delivery.pace import Pace
from router.destination import Destination, Request, Response
from router.event import Clear, Event
from router.outbox import outbox
from router.outbox.errors import NotDurable
from router.outbox.log import Stored
from router.outbox.state import Attempt, Held, Mark, Selection
from router.outcome import Delivered, Hold, Outcome, Refusal, Rejected, Retry, Split
from router.secret import Secret
from router.settings import per_second, seconds
from router.transport import Failure, Transport

log: Any = structlog.get_logger()

TAKE = 64  # requests' worth of events looked at in one go
PROBE_EVERY = 300_000  # ms between looks at whether a held lane works again
UNSETTLED = 4  # times the concurrency: requests answered but not yet written down
WRONG_ADDRESS_AFTER = 5  # answers 404 or 405 in a row
ANSWER_KEPT = 4096
FOR_EVER = 1e9  # seconds: until something new arrives

_NOTHING = Clear()
_A_CODE = 2  # letters of a country, which say nothing of a person and occur in any text


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
        lane: outbox.Lane,
        store: outbox.Outbox,
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
        self._transport = Transport(
            name,
            clock,
            timeout=seconds(destination.timeout or destination.default_timeout),
            concurrency=self._concurrency,
            allow_private=destination.allow_private,
        )
        self._secrets = tuple(secret for secret in _secrets(destination) if secret)
        self._pace = Pace(self._concurrency)
        self._taken = lane.cursor  # the last event taken from the log
        self._again: deque[list[Job]] = deque()  # taken, not sent or to be sent again at once
        self._flying: set[int] = set()  # parked events that are in hand
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = 0
        self._unsettled = 0
        self._change = asyncio.Event()
        self._stopping = False
        self._misses = 0
        self._epoch = 0  # begins anew with every hold and resumption: answers to older requests change neither
        self._unwritten_hold = False
        self._probe_at = (lane.held.until or 0) if lane.held else 0
        self._task: asyncio.Task[None] | None = None

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
        with contextlib.suppress(NotDurable):
            await self._store.settle(self.lane, [])  # behind everything of this lane that is still to be written
        await self._transport.close()

    def _wake(self) -> None:
        self._change.set()
        self.lane.more.set()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._step()
            except NotDurable:
                return  # the outbox has told the process to stop
            except Exception:
                # A fault of ours must not end the lane for good, nor spin.
                log.exception("lane_failed", destination=self.name)
                await self._clock.sleep(1.0)

    async def _step(self) -> None:
        self.lane.more.clear()
        now = self._clock.now()
        if (wait := self._closed_for(now)) > 0:
            await self._idle(wait)
        elif jobs := await self._next(now):
            await self._send_all(self._routed(jobs, now))
        else:
            due = self.lane.next_due
            await self._idle(FOR_EVER if due is None else max(0.0, (due - now) / 1000))

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
        if self._again:
            return self._again.popleft()
        probing = self.lane.held is not None or self._pace.open
        most = 1 if probing else max(self._batch, TAKE)
        if self.lane.next_due is not None and self.lane.next_due <= now and (overdue := await self._overdue(now, most)):
            return overdue
        found = await self._store.read(self._taken, most)
        if found:
            self._taken = found[-1].seq
        fresh = [each for each in found if each.seq > self.lane.cursor and each.seq not in self.lane.done]
        return self._intact(fresh, {}, now)

    async def _overdue(self, now: int, most: int) -> list[Job]:
        due = await self._store.due(self.lane, now, most + len(self._flying))
        attempts = {each.seq: each.attempts for each in due if each.seq not in self._flying}
        wanted = sorted(attempts)[:most]
        if not wanted:
            self.lane.next_due = None if due else self.lane.next_due  # all in hand: their settling looks again
            return []
        self._flying.update(wanted)
        return self._intact(await self._store.pick(wanted), attempts, now)

    def _intact(self, found: Sequence[Stored], attempts: dict[int, int], now: int) -> list[Job]:
        """Jobs of what was read. A damaged event ends here, visibly; the others flow."""
        jobs = [
            Job(each.seq, each.event, attempts.get(each.seq, 0), each.seq in attempts) for each in found if each.event
        ]
        if len(jobs) < len(found):
            damaged = [each.seq for each in found if each.event is None]
            self._settle_soon(
                [
                    Mark(
                        seqs=(seq,),
                        state="dead",
                        at=now,
                        parked=seq in attempts,
                        attempts=attempts.get(seq, 0),
                        reason="the stored event is damaged: run turnout doctor",
                    )
                    for seq in damaged
                ]
            )
        return jobs

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
        if marks:
            self._settle_soon(marks)
        return send

    def _too_late(self, job: Job, now: int) -> str | None:
        if self._window is not None and now - job.event.time > self._window:
            return "expired: older than the partner accepts"
        if job.attempts and now - job.event.received > self._retry_for:
            return "expired: passing faults for as long as retry_for allows"
        return None

    # Sending

    async def _send_all(self, jobs: Sequence[Job]) -> None:
        for start in range(0, len(jobs), self._batch):
            for request, carried in self._written(jobs[start : start + self._batch]):
                await self._slot()
                now = self._clock.now()
                if self._stopping or self._closed_for(now) > 0:
                    self._again.append(carried)
                    continue
                self._probe_at = now + PROBE_EVERY
                self._sending += 1
                self._background(self._carry(request, carried))

    def _background(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _written(self, jobs: Sequence[Job]) -> list[tuple[Request, list[Job]]]:
        """The destination's requests with their jobs. What it refuses is settled; a fault in its mapping ends one
        event, never the lane.
        """
        now = self._clock.now()
        try:
            pieces = list(self.destination.requests([self._visible(job.event) for job in jobs], now))
            return self._paired(jobs, pieces, now)
        except Exception as error:  # noqa: BLE001 - whatever a partner's file raises ends one event, not the lane
            if len(jobs) > 1:
                return [pair for job in jobs for pair in self._written([job])]
            log.warning("mapping_failed", destination=self.name, reason=type(error).__name__)
            reason = f"the mapping failed ({type(error).__name__}): report it with the event's id"
            self._settle_soon(ends.unsent(jobs, "dead", reason, now))
            return []

    def _visible(self, event: Event) -> Event:
        """The event with only those clear values that this destination declares."""
        if event.clear == _NOTHING:
            return event
        kept = {name: getattr(event.clear, name) for name in self.destination.clear}
        return msgspec.structs.replace(event, clear=Clear(**kept))

    def _paired(
        self, jobs: Sequence[Job], pieces: Sequence[Request | Refusal], now: int
    ) -> list[tuple[Request, list[Job]]]:
        by_id: dict[tuple[str, str], list[Job]] = {}
        for job in jobs:
            by_id.setdefault((job.event.source, job.event.id), []).append(job)
        pairs: list[tuple[Request, list[Job]]] = []
        refused: dict[str, list[Job]] = {}
        for piece in pieces:
            if isinstance(piece, Refusal):
                refused.setdefault(piece.reason, []).append(by_id[piece.event.source, piece.event.id].pop(0))
            else:
                pairs.append((piece, [by_id[each.source, each.id].pop(0) for each in piece.events]))
        if any(by_id.values()):
            raise ValueError("the destination left an event out")
        marks = [mark for reason, ended in refused.items() for mark in ends.unsent(ended, "dead", reason, now)]
        if marks:
            self._settle_soon(marks)
        return pairs

    async def _slot(self) -> None:
        """Until one more request may be under way, or none may."""
        while not self._stopping:
            now = self._clock.now()
            if self._closed_for(now) > 0:
                return
            if self._sending < self._pace.allowed(now) and self._unsettled < UNSETTLED * self._concurrency:
                return
            self._change.clear()
            await self._change.wait()

    async def _carry(self, request: Request, jobs: list[Job]) -> None:
        """Send one request and bring its events to an end, or to their next wait."""
        self._unsettled += 1
        try:
            try:
                outcome, attempt = await self._attempt(request, jobs)
                if isinstance(outcome, Split) and not outcome.rejected and len(jobs) > 1:
                    await self._bisect(jobs, attempt)
                    return
            finally:
                self._sending -= 1
                self._change.set()
            await self._apply(outcome, jobs, attempt)
        except NotDurable:
            return
        finally:
            self._unsettled -= 1
            self._change.set()

    async def _attempt(self, request: Request, jobs: Sequence[Job]) -> tuple[Outcome, Attempt]:
        """One request on the wire and what it means."""
        if self._limiter is not None:
            await self._limiter.acquire()
        began, epoch = self._clock.now(), self._epoch
        answer = await self._transport.send(request)
        at = self._clock.now()
        if isinstance(answer, Response):
            status, outcome = answer.status, self._classified(answer, at)
            text = self._kept(answer) if _remarkable(outcome, jobs) else None
        else:
            status, text, outcome = None, None, _of_failure(answer)
        outcome = self._felt(outcome, status, at, current=epoch == self._epoch)
        kind, reason = type(outcome).__name__.lower(), getattr(outcome, "reason", None)
        self._observer.attempted(self.name, kind, status, (at - began) / 1000)
        if not isinstance(outcome, Delivered):
            log.info("attempt", destination=self.name, outcome=kind, status=status, reason=reason, count=len(jobs))
        seqs = [job.seq for job in jobs]
        attempt = Attempt(seqs=seqs, began=began, at=at, outcome=kind, status=status, reason=reason, answer=text)
        return outcome, attempt

    def _classified(self, answer: Response, at: int) -> Outcome:
        try:
            outcome = self.destination.outcome(answer)
        except Exception:
            log.exception("outcome_failed", destination=self.name)
            outcome = Retry("the answer could not be read")
        if isinstance(outcome, Retry) and outcome.after is None and outcome.until is None:
            return Retry(outcome.reason, after=retry.retry_after(answer.headers.get("retry-after"), at))
        return outcome

    def _kept(self, answer: Response) -> str:
        """The partner's words for people: cut, without our secrets and without personal data that it echoes."""
        text = answer.body[:ANSWER_KEPT].decode("utf-8", "replace")
        clear = {getattr(event.clear, name) for event in answer.request.events for name in self.destination.clear}
        for private in (*self._secrets, *(value for value in clear if value and len(value) > _A_CODE)):
            text = text.replace(private, "***")
        return scrub.text(text)

    def _felt(self, outcome: Outcome, status: int | None, at: int, *, current: bool) -> Outcome:
        """What an outcome does to the lane as a whole, at once: nothing more leaves before it is written down.

        ``current``: no hold or resumption came between the request and this answer to it.
        """
        missed = status in {404, 405} and isinstance(outcome, Rejected)
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
                    self._reopen()
        return outcome

    # Settling

    async def _apply(self, outcome: Outcome, jobs: list[Job], attempt: Attempt) -> None:
        kept = [attempt] if _remarkable(outcome, jobs) else []
        match outcome:
            case Delivered():
                await self._settle(ends.delivered(jobs, outcome, attempt), kept)
                oldest = min(job.event.received for job in jobs)
                self._observer.delivered(self.name, len(jobs) - len(outcome.rejected), (attempt.at - oldest) / 1000)
            case Retry(after=after, until=until):
                await self._settle(ends.retried(jobs, attempt, after=after, until=until, chance=self._chance()), kept)
            case Rejected(reason=reason):
                await self._settle(ends.rejected(jobs, dict.fromkeys(range(len(jobs)), reason), attempt), kept)
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

    async def _settle(self, marks: Sequence[Mark], attempts: Sequence[Attempt] = ()) -> None:
        await self._store.settle(self.lane, marks, attempts)
        parked = [seq for mark in marks if mark.parked for seq in mark.seqs]
        if parked:
            self._flying.difference_update(parked)
            self.lane.next_due = 0  # look again: rows may be due that were in hand before
        if parked or any(mark.due is not None for mark in marks):
            self.lane.more.set()

    def _settle_soon(self, marks: Sequence[Mark]) -> None:
        self._background(self._settle_quietly(marks))

    async def _settle_quietly(self, marks: Sequence[Mark]) -> None:
        with contextlib.suppress(NotDurable):
            await self._settle(marks)

    async def _bisect(self, jobs: list[Job], attempt: Attempt) -> None:
        """Isolate the member that makes a batch fail and deliver the others."""
        await self._settle([], [attempt])
        search = Bisection([ends.tried(job) for job in jobs])
        while not search.finished:
            asked = search.question()
            ((request, _),) = self._written(asked)
            outcome, tried = await self._attempt(request, asked)
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
        until = None if outcome.until is None else min(outcome.until, now + LONGEST_QUOTA)
        self._probe_at = now + PROBE_EVERY if until is None else until
        if self.lane.held is None:
            self._epoch += 1
            log.warning("lane_held", destination=self.name, reason=outcome.reason)
        if self.lane.held is None or self.lane.held.by == "partner":
            self.lane.held = Held(reason=outcome.reason, by="partner", at=now, until=until)
            self._unwritten_hold = True

    def _reopen(self) -> None:
        if self.lane.held is not None and self.lane.held.by == "partner":
            self.lane.held = None
            self._unwritten_hold = True
            self._epoch += 1
            log.info("lane_resumed", destination=self.name)

    # The operator

    def probe(self) -> None:
        """Look at once whether a lane that its partner closed works again."""
        self._probe_at = 0
        self._wake()

    async def hold(self, reason: str, who: str) -> None:
        await self._store.hold(self.lane, Held(reason=reason, by="operator", at=self._clock.now()))
        await self._store.note(who, "hold", self.name)
        self._wake()

    async def resume(self, who: str) -> None:
        """Let the lane go at once, whatever held it or made it wait."""
        self._pace.resume()
        self._misses = 0
        self._epoch += 1
        self._unwritten_hold = False
        await self._store.hold(self.lane, None)
        await self._store.note(who, "resume", self.name)
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
            fresh += [seq for seq in beyond if (seqs is None or seq in seqs) and seq not in self.lane.done]
        return await self._store.drop(self.lane, chosen, fresh, who)

    def _drop_in_hand(self, seqs: frozenset[int] | None) -> list[int]:
        """Take the meant ones out of what waits in hand; the fresh ones among them, which have no row yet."""
        fresh: list[int] = []
        for _ in range(len(self._again)):
            jobs = self._again.popleft()
            dropped = [job for job in jobs if seqs is None or job.seq in seqs]
            self._flying.difference_update(job.seq for job in dropped)
            fresh += [job.seq for job in dropped if not job.parked]
            self._take_again([job for job in jobs if job not in dropped])
        return fresh


def _remarkable(outcome: Outcome, jobs: Sequence[Job]) -> bool:
    """Is this attempt worth a row of its own? A delivery at the first try is not: its run says it all."""
    return not isinstance(outcome, Delivered) or bool(outcome.rejected) or any(job.attempts for job in jobs)


def _of_failure(failure: Failure) -> Outcome:
    match failure.kind:
        case "tls" | "blocked":
            return Hold(failure.reason)
        case "request":
            return Rejected(failure.reason)
        case _:
            return Retry(failure.reason)


def _secrets(destination: Destination) -> Iterable[str]:
    for name in destination.__struct_fields__:
        value = getattr(destination, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Secret):
                yield each.reveal()


def _limiter(rate: str | None) -> AsyncLimiter | None:
    """At most so many requests; the bucket holds one second's worth, so a pause earns no burst beyond it."""
    if rate is None:
        return None
    speed = per_second(rate)
    return AsyncLimiter(max(1.0, speed), max(1.0, speed) / speed)
