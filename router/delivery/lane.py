"""One destination's lane: takes events from the outbox, decides which are to be sent, and has them sent and settled.

What is under way when the process dies is sent again by the next one, with the same dedup id and the same body. What to
take next is ``taking``'s, whether the lane may send ``holding``'s, the requests ``sending``'s, writing down ``settling``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from router import route
from router.clock import Clock
from router.delivery import ends
from router.delivery.ends import Job
from router.delivery.floor import Floor
from router.delivery.hand import Hand
from router.delivery.holding import FOR_EVER, Gate
from router.delivery.observer import Observer
from router.delivery.pace import Pace, Turns
from router.delivery.quota import Quota
from router.delivery.sender import Sender, Written
from router.delivery.sending import Sending
from router.delivery.settling import Settling
from router.delivery.subjects import MOST_BEHIND
from router.delivery.taking import Taking
from router.destination import Destination
from router.failpoint import failpoint
from router.outbox.errors import NotDurable
from router.outbox.lane import Lane
from router.outbox.outbox import Outbox
from router.outbox.state import Held, Mark, Selection
from router.settings import per_second, seconds

log: Any = structlog.get_logger()

T = TypeVar("T")

SET_FORWARD = 60_000  # ms that the wall clock may gain on the other one before somebody has set it
UNSETTLED = 4  # times the concurrency: requests answered but not yet written down
TAKE = 64  # events looked at in one go, where a batch is not larger
FAR = 1_000  # events that a lane is behind
SEVERAL, MUCH = 5, 500  # batches that it takes in one go then, and events at most: some ten milliseconds
GATHER = 0.02  # seconds between two looks for less than a batch: a request costs as much for one event as for many
PATIENCE = 0.2  # seconds between them where no answer comes


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
        floor: Floor,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name, self.destination, self.lane = name, destination, lane
        self._store, self._clock, self._floor = store, clock, floor
        self.rule = route.compile(name, destination)
        self._batch = destination.batch or destination.default_batch
        concurrency = destination.concurrency or destination.default_concurrency
        window = destination.max_age or destination.window
        self._window = int(seconds(window) * 1000) if window else None
        self._retry_for = int(seconds(destination.retry_for) * 1000)
        rate = destination.rate or destination.default_rate
        self._about = type(destination).subject is not Destination.subject
        self._suspects = store.suspects(lane)
        self._quota = Quota(store, lane, quota) if (quota := destination.quota()) is not None else None
        self._seen, self._elapsed = clock.now(), clock.monotonic()
        self._took = -GATHER  # when jobs were taken, by the loop's clock
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

        self._hand = Hand(lane)
        self._pace = Pace(concurrency)
        self._gate = Gate(name, lane, self._pace, chance, open_since=store.away_until)
        self._settling = Settling(store, lane, UNSETTLED * concurrency, self._settled)
        self._sender = Sender(name, destination, clock, concurrency)
        self._sending = Sending(
            lane,
            store,
            clock,
            sender=self._sender,
            pace=self._pace,
            turns=Turns(per_second(rate)) if rate is not None else None,
            gate=self._gate,
            hand=self._hand,
            settling=self._settling,
            write=self._written,
            observer=observer,
            chance=chance,
        )
        self._taking = Taking(
            store,
            lane,
            self._hand,
            window=self._window,
            ordered=destination.ordered,
            settle=self._settling.add,
        )
        self._sending.few = TAKE // (2 * self._batch)

    # Life

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"lane-{self.name}")

    async def stop(self, patience: float) -> None:
        """Take nothing more, finish what is under way for ``patience`` seconds; the rest is the next start's."""
        self._stopping = self._sending.stopping = True
        self._wake()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._sending.stop(patience)
        with contextlib.suppress(NotDurable, TimeoutError):
            async with asyncio.timeout(patience):  # behind everything of this lane that is still to be written
                await self._settling.written()
                await self._store.settle(self.lane, [])
        await self._sender.close()

    def _wake(self) -> None:
        self._sending.change.set()
        self.lane.more.set()

    async def _run(self) -> None:
        with contextlib.suppress(NotDurable):
            if self._quota is not None:
                await self._quota.begin(self._clock.now())
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
        if (wait := self._gate.closed_for(now)) > 0:
            self._hand.unwrite()
            await self._idle(wait)
        elif jobs := await self._next():
            self._took = asyncio.get_running_loop().time()
            await self._prepare(jobs, self._clock.now())
            await self._flow(self._sending.few)
            await asyncio.sleep(0)  # a lane that filters everything would otherwise never let go of the loop
        elif self._hand.ready:
            await self._flow(0)
        else:
            due = self.lane.next_due
            await self._idle(FOR_EVER if due is None else max(0.0, (due - now) / 1000))

    async def _time(self) -> int:
        """Now (UTC ms), with what is counted by the wall clock put right where that was set."""
        now, elapsed = self._clock.now(), self._clock.monotonic()
        ahead = now - self._seen - int((elapsed - self._elapsed) * 1000)
        if now < self._seen:  # waits are lengths of time, and none becomes longer by it
            await self._store.set_back(self.lane, self._seen - now)
            self._gate.set_back(self._seen - now)
        elif ahead > SET_FORWARD:
            log.warning("clock_set_forward", destination=self.name, wait_s=ahead // 1000)
            self._gate.open_since = now  # the time that did not pass expires nothing
        self._seen, self._elapsed = now, elapsed
        return now

    async def _prepare(self, jobs: list[Job], now: int) -> None:
        """Requests of what was taken. After a fault of ours it waits for another try: nobody else has it in hand."""
        try:
            failpoint("lane_after_take")
            erasures = self._store.erasures
            send = await self._in_turn(self._routed(jobs, now), now)
            async with self._floor.turn():
                if erasures == self._store.erasures:
                    self._write(send)
                else:  # somebody was forgotten meanwhile
                    self._hand.take_again(send)
        except NotDurable:
            raise
        except Exception as error:
            log.exception("lane_failed", destination=self.name)
            ready = {job.seq for _, written in self._hand.ready for job in written}
            self._sending.give_back([job for job in jobs if job.seq not in ready], error)

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

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Until ``ready`` says so, or the lane stops."""
        change = self._sending.change
        while not self._stopping and not ready():
            change.clear()
            await change.wait()

    # Deciding

    async def _next(self) -> list[Job]:
        if not self._hand.again:
            await self._until(self._has_room)
            await self._gather()
        probe = self._gate.one_at_a_time
        return await self._taking.next(self._clock.now(), 1 if probe else self._at_a_time(), probe=probe)

    def _at_a_time(self) -> int:
        """Several batches where the lane is far behind. Every look waits for its turns of the loop, which are long where
        senders are many: with one batch a look, lanes that a stall had thrown back fell further behind (measured).
        """
        far = self._store.last - self._taking.taken > FAR
        return max(self._batch, TAKE, min(SEVERAL * self._batch, MUCH) if far else 0)

    async def _gather(self) -> None:
        """Let a batch fill, as TCP does a segment (RFC 896): a full one leaves at once, and so does the first event after a
        pause; less waits where a batch was taken only just now, or is unanswered, but not for ever.
        """
        loop, change = asyncio.get_running_loop(), self._sending.change
        if self._less_than_a_batch():
            await asyncio.sleep(self._took + GATHER - loop.time())
        while self._less_than_a_batch() and self._sending.under_way and loop.time() < self._took + PATIENCE:
            change.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await change.wait()

    def _less_than_a_batch(self) -> bool:
        return self._batch > 1 and self._store.last - self._taking.taken < self._batch and not self._stopping

    def _has_room(self) -> bool:
        return bool(self._hand.again) or (self._sending.settled_enough() and self._hand.subjects.waiting < MOST_BEHIND)

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
        self._settling.add(marks)
        return send

    def _too_late(self, job: Job, now: int) -> str | None:
        if self._window is not None and now - job.event.time > self._window:
            return ends.expired(now - job.event.time, self._window)
        if (
            job.since is not None
            and self.lane.held is None
            and now - max(job.since, self._gate.open_since) > self._retry_for
        ):
            return "expired: passing faults for as long as retry_for allows"
        return None

    async def _in_turn(self, jobs: list[Job], now: int) -> list[Job]:
        """Those whose subject is neither closed nor, where order counts, waiting for an earlier event about it."""
        if not self._about or not jobs:
            return jobs
        jobs = [msgspec.structs.replace(job, subject=self._subject(job)) for job in jobs]
        if self.destination.ordered:
            jobs = self._hand.subjects.take(jobs)
            if self.lane.next_due is not None:
                jobs = await self._not_behind(jobs, now)
        about = [job.subject for job in jobs if job.subject is not None]
        closed = await self._patiently(lambda: self._store.closed(self.lane, about, now)) if about else {}
        free = []
        for job in jobs:
            if (reason := closed.get(job.subject or "")) is not None and self._sender.kept_out(job):
                self._settling.add(ends.unsent([job], "dead", reason, now))
            else:
                free.append(job)
        return free

    def _subject(self, job: Job) -> str | None:
        self._store.in_hand.take(self.lane.id, job.seq, job.seq)
        try:
            return self._sender.subject(job)
        finally:
            self._store.in_hand.release()

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
                self._settling.add([ends.behind(job, due, now)])
            else:
                free.append(job)
        return free

    # Requests

    def _write(self, jobs: Sequence[Job]) -> None:
        """Make requests of jobs, as many events in each as the partner takes."""
        if self._hand.written_at != self._store.erasures:
            self._hand.unwrite()
        self._hand.written_at = self._store.erasures
        for part in self._batches(jobs):
            self._hand.ready.extend(self._written(part).requests)

    def _batches(self, jobs: Sequence[Job]) -> list[Sequence[Job]]:
        """Those that may have killed the last process are each a batch of their own."""
        alone = [job for job in jobs if any(job.seq in each for each in self._suspects)] if self._suspects else []
        if alone:
            jobs = [job for job in jobs if job not in alone]
        return [[job] for job in alone] + [jobs[at : at + self._batch] for at in range(0, len(jobs), self._batch)]

    def _written(self, jobs: Sequence[Job]) -> Written:
        """Requests with their jobs; what the destination cannot express is settled."""
        seqs = [job.seq for job in jobs]
        self._store.in_hand.take(self.lane.id, min(seqs), max(seqs))  # the partner's code may kill the process
        try:
            written = self._sender.write(jobs)
        finally:
            self._store.in_hand.release()
        if written.ended:
            now = self._clock.now()
            refused: dict[str, list[Job]] = {}
            for job, reason in written.ended:
                refused.setdefault(reason, []).append(job)
            self._settling.add(
                [mark for reason, ended in refused.items() for mark in ends.unsent(ended, "dead", reason, now)]
            )
        return written

    async def _flow(self, few: int) -> None:
        """Send what is ready, until only so few are left, or the lane closes: then all of it is to be written anew."""
        hand, sending = self._hand, self._sending
        while hand.ready and not self._stopping:
            if self._gate.closed_for(self._clock.now()) > 0 or hand.written_at != self._store.erasures:
                hand.unwrite()
                return
            sending.change.clear()
            sending.start()
            if len(hand.ready) <= few:
                return
            await sending.change.wait()

    async def _settled(self, marks: Sequence[Mark]) -> None:
        self._hand.leave(marks)
        self._sending.change.set()
        if self._quota is not None:
            await self._quota.count(marks)

    def busy(self, behind: int) -> bool:
        """Has it better to do than a replay: is it held, waiting, or more than so many events behind?"""
        return (
            self._gate.one_at_a_time
            or self._gate.closed_for(self._clock.now()) > 0
            or self._store.last - self.lane.cursor > behind
        )

    # The operator

    def probe(self) -> None:
        """Look at once whether a lane that its partner closed works again."""
        self._gate.probe()
        self._wake()

    async def hold(self, reason: str, who: str) -> None:
        self._gate.held()
        await self._store.hold(self.lane, Held(reason=reason, by="operator", at=self._clock.now()))
        await self._store.audit(who, "hold", self.name)
        self._wake()

    async def resume(self, who: str) -> None:
        """Let the lane go at once, whatever held it or made it wait."""
        self._gate.resumed(self._clock.now())
        await self._store.hold(self.lane, None)
        await self._store.audit(who, "resume", self.name)
        self._wake()

    async def retry(self, chosen: Selection, who: str) -> int:
        """Send dead or waiting deliveries again, now. Returns how many."""
        return await self._store.revive(self.lane, chosen, who)

    async def drop(self, chosen: Selection, who: str) -> int:
        """Give up waiting deliveries that are not under way. Returns how many."""
        async with self._taking.turn:
            count = await self._drop(chosen, who)
        self.lane.next_due = 0
        self._wake()
        return count

    async def _drop(self, chosen: Selection, who: str) -> int:
        fresh: list[int] = []
        if chosen.state == "waiting":
            seqs = None if chosen.seqs is None else frozenset(chosen.seqs)
            fresh = self._hand.drop(seqs)
            fresh += [seq for seq in self._taking.beyond() if seqs is None or seq in seqs]
        chosen = Selection(state=chosen.state, seqs=chosen.seqs, besides=tuple(self._hand.parked))
        return await self._store.drop(self.lane, chosen, fresh, who)
