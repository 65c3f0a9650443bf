"""One destination's lane: takes events from the outbox, decides which are to be sent, and has them sent and settled.

What is under way when the process dies is sent again by the next one, with the same dedup id and the same body. What to
take next is ``taking``'s, when and how much ``batching``'s, whether the lane may send ``holding``'s, the requests
``sending``'s, writing down ``settling``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from router import route
from router.clock import Clock, woken
from router.delivery import ends
from router.delivery.batching import TAKE, Batching, batches
from router.delivery.deciding import Deciding
from router.delivery.ends import Job
from router.delivery.floor import Floor
from router.delivery.hand import Hand, Ready
from router.delivery.holding import FOR_EVER, PROBE_EVERY, Gate
from router.delivery.observer import Observer
from router.delivery.pace import Pace, RateLimit
from router.delivery.quota import Quota
from router.delivery.sender import Sender, Written
from router.delivery.sending import Sending
from router.delivery.settling import Settling
from router.delivery.subjects import MOST_BEHIND
from router.delivery.taking import Taking
from router.destination import Destination, Request
from router.failpoint import failpoint
from router.outbox.errors import NotDurable
from router.outbox.outbox import Outbox
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.lane import Lane
from router.outbox.state.selections import Selection
from router.outcome import Outcome
from router.settings import per_second, seconds

log: Any = structlog.get_logger()

SET_FORWARD = 60_000  # ms that the wall clock may gain on the other one before somebody has set it
SET_BACK = 1_000  # ms that it may lose: the two are read one after the other
WRITE_DOWN = 1.0  # seconds
UNSETTLED = 4  # times the concurrency: requests answered but not yet written down


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
        self._batch = destination.largest_batch()
        concurrency = destination.concurrency or destination.default_concurrency
        window = ends.window(destination)
        rate = destination.rate or destination.default_rate
        self._suspects = store.suspects(lane)
        self._quota = Quota(store, lane, quota) if (quota := destination.quota()) is not None else None
        self._seen, self._elapsed = clock.now(), clock.monotonic()
        self._task: asyncio.Task[None] | None = None

        self._hand = Hand(lane)
        self._pace = Pace(concurrency)
        self._gate = Gate(
            name,
            lane,
            self._pace,
            chance,
            open_since=store.away_until,
            retry_for=int(seconds(destination.retry_for) * 1000),
        )
        self._settling = Settling(store, lane, UNSETTLED * concurrency, self._settled)
        self._sender = Sender(name, destination, clock, concurrency)
        self._sending = Sending(
            lane,
            store,
            clock,
            sender=self._sender,
            pace=self._pace,
            limit=RateLimit(per_second(rate)) if rate is not None else None,
            gate=self._gate,
            hand=self._hand,
            settling=self._settling,
            write=self._written,
            observer=observer,
            few=TAKE // (2 * self._batch),
            chance=chance,
        )
        self._taking = Taking(
            store,
            lane,
            self._hand,
            window=window,
            ordered=destination.ordered,
            settle=self._settling.add,
        )
        self._deciding = Deciding(
            destination,
            lane,
            store,
            clock,
            rule=self.rule,
            window=window,
            hand=self._hand,
            gate=self._gate,
            settling=self._settling,
            sender=self._sender,
            sending=self._sending,
        )
        self._batching = Batching(self._batch, self._sending, lambda: store.last - self._taking.taken)

    # Life

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"lane-{self.name}")

    async def stop(self, patience: float) -> None:
        """Take nothing more, finish what is under way for ``patience`` seconds; the rest is the next start's. What partners
        answered by then is written down within ``WRITE_DOWN`` seconds more.
        """
        deadline = asyncio.get_running_loop().time() + patience + WRITE_DOWN
        self._sending.stopping = True
        self._wake()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._sending.stop(patience)
        with contextlib.suppress(NotDurable, TimeoutError):
            async with asyncio.timeout_at(deadline):  # behind everything of this lane that is still to be written
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
        while not self._sending.stopping:
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
            self._batching.took()
            await self._prepare(jobs, self._clock.now())
            await self._flow(self._sending.few)
            await asyncio.sleep(0)  # a lane that filters everything would otherwise never let go of the loop
        elif self._hand.ready:
            await self._flow(0)
        else:
            due = self.lane.next_due
            wait = FOR_EVER if due is None else max(0.0, (due - now) / 1000)
            # What arrives wakes no lane that is held: it looks by its own clock.
            await self._idle(wait if self.lane.held is None else min(wait, PROBE_EVERY / 1000))

    async def _time(self) -> int:
        """Now (UTC ms), with what is counted by the wall clock put right where that was set."""
        now, elapsed = self._clock.now(), self._clock.monotonic()
        ahead = now - self._seen - int((elapsed - self._elapsed) * 1000)
        if ahead < -SET_BACK:  # waits are lengths of time, and none becomes longer by it
            await self._store.set_back(self.lane, -ahead)
            self._gate.set_back(-ahead)
        elif ahead > SET_FORWARD:
            log.warning("clock_set_forward", destination=self.name, wait_s=ahead // 1000)
        if abs(ahead) > SET_FORWARD:
            self._gate.open_since = now  # the time that did not pass expires nothing
        self._seen, self._elapsed = now, elapsed
        return now

    async def _prepare(self, jobs: list[Job], now: int) -> None:
        """Requests of what was taken. After a fault of ours it waits for another try: nobody else has it in hand."""
        try:
            failpoint("lane_after_take")
            erasures = self._store.erasures
            send = await self._deciding.to_send(jobs, now)
            async with self._floor.turn():
                if erasures == self._store.erasures:
                    self._write(send)
                else:  # somebody was forgotten meanwhile
                    self._hand.take_again(send)
        except NotDurable:
            raise
        except Exception as error:
            log.exception("lane_failed", destination=self.name)
            ready = {job.seq for each in self._hand.ready for job in each.jobs}
            self._sending.give_back([job for job in jobs if job.seq not in ready], error)

    async def _idle(self, wait: float) -> None:
        """Until something new arrives, or so many seconds have passed."""
        if wait >= FOR_EVER:
            await self.lane.more.wait()
        else:
            await woken(self._clock, self.lane.more, wait)

    async def _until(self, ready: Callable[[], bool]) -> None:
        """Until ``ready`` says so, or the lane stops."""
        change = self._sending.change
        while not self._sending.stopping and not ready():
            change.clear()
            await change.wait()

    # Deciding

    async def _next(self) -> list[Job]:
        if not self._hand.again:
            await self._until(self._has_room)
            await self._batching.filled()
        probe = self._gate.one_at_a_time
        return await self._taking.next(self._clock.now(), 1 if probe else self._batching.most, probe=probe)

    def _has_room(self) -> bool:
        return bool(self._hand.again) or (self._sending.settled_enough() and self._hand.subjects.waiting < MOST_BEHIND)

    # Requests

    def _write(self, jobs: Sequence[Job]) -> None:
        """Make requests of jobs, as many events in each as the partner takes."""
        if self._hand.written_at != self._store.erasures:
            self._hand.unwrite()
        self._hand.written_at = self._store.erasures
        for part in batches(jobs, self._batch, self._suspects):
            now = self._clock.now()
            self._hand.ready.extend(Ready(request, carried, now) for request, carried in self._written(part).requests)

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
        while hand.ready and not self._sending.stopping:
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
        try:
            if self._quota is not None:
                await self._quota.count(marks)
        finally:
            self._sending.change.set()  # last: whoever waits for room looks once it is there

    # Beside a replay

    def busy(self, behind: int) -> bool:
        """Has it better to do than a replay: is it closed, or more than so many events behind? Where only a probe may
        pass, the replay sends it if the lane has none to send.
        """
        waiting = self._store.last - self.lane.cursor
        if self._gate.one_at_a_time and (waiting or self._sending.under_way):
            return True
        return self._gate.closed_for(self._clock.now()) > 0 or waiting > behind

    def outlasted(self, since: int, now: int) -> bool:
        """As the gate has it: may passing faults not go on for longer?"""
        return self._gate.outlasted(since, now)

    async def attempt(self, sender: Sender, request: Request, jobs: Sequence[Job]) -> tuple[Outcome, Attempt]:
        """A request of a replay: what its answer says of the partner holds for the lane as well."""
        self._gate.passed(self._clock.now())
        epoch = self._gate.epoch
        outcome, attempt = await sender.send(request, jobs)
        outcome = self._gate.felt(outcome, attempt, current=epoch == self._gate.epoch)
        if self._gate.unwritten:
            self._gate.unwritten = False
            self._wake()
            with contextlib.suppress(NotDurable):  # the next process finds out for itself
                await self._store.hold(self.lane, self.lane.held)
        return outcome, attempt

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
            fresh += await self._taking.beyond(seqs)
        chosen = Selection(state=chosen.state, seqs=chosen.seqs, besides=tuple(self._hand.parked))
        return await self._store.drop(self.lane, chosen, fresh, who)
