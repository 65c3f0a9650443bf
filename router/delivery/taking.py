"""What a lane sends next: what is in hand, retries that are due, then the log in order.

A lane that is far behind does not simply work the log off. What would expire at the partner within the hour goes first,
wherever in the sealed log it stands: late uploads reach their window's end long before their neighbours. And every
fourth look is at the newest events, so that what happens now does not wait for what happened during an outage. The log
order is left for nothing else, and never by a destination whose subjects are ``ordered``.

What was taken ahead is passed by when the order comes to it: ``_ahead`` as stretches, because the newest come in such,
``_urgent`` one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

import structlog

from router.delivery import ends
from router.delivery.ends import Job
from router.delivery.hand import Hand
from router.failpoint import failpoint
from router.outbox.log.entries import Stored
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Mark
from router.outbox.state.lane import Lane

log: Any = structlog.get_logger()

READ = 512  # events read from disk in one go: each look is a hop to another thread
FAR_BEHIND = 5_000  # events; below, order alone serves everybody
NEWEST_EVERY = 4  # looks
NEAR_EXPIRY = 3_600_000  # ms
LOOK_FOR_EXPIRY = 60_000  # ms between looks for what expires soon
EXPIRING = 1_000  # found by one such look
AT_ONCE = 10_000  # numbers looked at before others come in between: some milliseconds


class Taking:
    """Takes from one lane. ``window`` is the partner's, in ms. ``settle`` is given what ends without a request."""

    def __init__(
        self,
        store: Outbox,
        lane: Lane,
        hand: Hand,
        *,
        window: int | None,
        ordered: bool,
        settle: Callable[[Sequence[Mark]], None],
    ) -> None:
        self._store, self._lane, self._hand = store, lane, hand
        self._window, self._ordered, self._settle = window, ordered, settle
        self.taken = lane.cursor  # the last event taken in order
        self.turn = asyncio.Lock()  # nothing is taken while an operator gives up what waits
        self._buffer: list[Stored] = []
        self._erasures = store.erasures
        self._ahead: list[range] = []
        self._looks = 0
        self._urgent: set[int] = set()
        self._waiting_urgent: list[int] = []
        self._look_at = self._seen = 0
        lane.next_due = 0  # look at once

    async def next(self, now: int, most: int, *, probe: bool) -> list[Job]:
        """At most so many jobs, none where nothing waits. A ``probe`` is the oldest there is."""
        async with self.turn:
            return await self._next(now, most, probe=probe)

    async def _next(self, now: int, most: int, *, probe: bool) -> list[Job]:
        while self._hand.again:
            if jobs := self._not_erased(self._hand.again.popleft(), now):
                return jobs
        out_of_turn = not probe and not self._ordered and self._store.last - self.taken > FAR_BEHIND
        if out_of_turn and (jobs := await self._newest(now, most)):
            return jobs
        due = self._lane.next_due
        if due is not None and due <= now and (jobs := await self._overdue(now, most)):
            return jobs
        if out_of_turn and (jobs := await self._expiring(now, most)):
            return jobs
        return await self._in_order(now, most)

    async def beyond(self, meant: Collection[int] | None) -> list[int]:
        """The numbers of events that were not taken yet and have no end: all of them, or those that are ``meant``. There may
        be millions, so others come in between; whoever asks holds the ``turn``.
        """
        numbers = range(max(self.taken, self._lane.cursor) + 1, self._store.last + 1)
        wanted = numbers if meant is None else sorted(seq for seq in meant if seq in numbers)
        found: list[int] = []
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            found += [seq for seq in part if self._to_come(seq)]
            await asyncio.sleep(0)
        return found

    def _not_erased(self, jobs: list[Job], now: int) -> list[Job]:
        """Without those whose person was forgotten while they were in hand."""
        if not self._store.erasures:
            return jobs
        erased = [job for job in jobs if self._store.suppression.blocks(job.event)]
        self._settle(ends.unsent(erased, "erased", None, now))
        gone = {job.seq for job in erased}
        return [job for job in jobs if job.seq not in gone]

    # In order

    async def _in_order(self, now: int, most: int) -> list[Job]:
        while found := await self._following(most):
            self.taken = found[-1].seq
            fresh = found
            if self._ahead or self._urgent or not self._lane.untouched(found[0].seq):
                fresh = [each for each in found if self._to_come(each.seq)]
                self._urgent.difference_update([each.seq for each in found])
            if jobs := self._intact(fresh, now):
                return jobs
            await asyncio.sleep(0)
        return []

    async def _following(self, most: int) -> list[Stored]:
        while self._ahead and self._ahead[0].start <= self.taken + 1:
            self.taken = max(self.taken, self._ahead.pop(0).stop - 1)
            self._urgent = {seq for seq in self._urgent if seq > self.taken}
            self._buffer.clear()
        if self._erasures != self._store.erasures:  # what was read may be somebody's who is forgotten
            self._erasures = self._store.erasures
            self._buffer.clear()
        if not self._buffer:
            self._buffer = list(await self._store.read(self.taken, most, self._lane, from_disk=max(most, READ)))
        found = self._buffer[:most]
        del self._buffer[:most]
        return found

    def _to_come(self, seq: int) -> bool:
        """Has it no end yet, and is it not under way ahead of the order?"""
        if not self._lane.open(seq) or seq in self._urgent:
            return False
        return not any(seq in stretch for stretch in self._ahead)

    def _intact(self, found: Sequence[Stored], now: int) -> list[Job]:
        """Jobs of what was read. An erased or damaged event ends here, visibly; the others flow."""
        jobs = [Job(each.seq, each.event) for each in found if each.event is not None]
        if len(jobs) < len(found):
            if erased := [each.seq for each in found if each.erased]:
                self._settle([Mark(seqs=erased, state="erased", at=now)])
            if damaged := [each.seq for each in found if each.event is None and not each.erased]:
                reason = "the stored event is damaged: run turnout doctor"
                self._tell(damaged, reason)
                self._settle([Mark(seqs=damaged, state="dead", at=now, reason=reason)])
        return jobs

    def _tell(self, damaged: Sequence[int], reason: str) -> None:
        log.error("event_damaged", destination=self._lane.name, seq=damaged[0], count=len(damaged), reason=reason)

    # Ahead of the order

    async def _newest(self, now: int, most: int) -> list[Job]:
        """What came last, every so many looks. Where even that is not kept up with, the stretch begins anew."""
        self._looks = (self._looks + 1) % NEWEST_EVERY
        if self._looks:
            return []
        last = self._store.last
        start = self._ahead[-1].stop if self._ahead else 0
        if last - start > FAR_BEHIND:
            start = max(start, self.taken + 1, last + 1 - most)
        found = await self._store.read(start - 1, most)
        if not found:
            return []
        self._went_ahead(range(start, found[-1].seq + 1))
        fresh = [each for each in found if self._lane.open(each.seq) and each.seq not in self._urgent]
        return self._intact(fresh, now)

    def _went_ahead(self, stretch: range) -> None:
        if self._ahead and self._ahead[-1].stop == stretch.start:
            stretch = range(self._ahead.pop().start, stretch.stop)
        self._ahead.append(stretch)

    async def _expiring(self, now: int, most: int) -> list[Job]:
        """What stands further on and would expire within the hour, the nearest to its end first."""
        if self._window is None:
            return []
        if not self._waiting_urgent and now >= self._look_at:
            await self._look_for_expiry(now, now - self._window)
        seqs, self._waiting_urgent = self._waiting_urgent[:most], self._waiting_urgent[most:]
        seqs = [seq for seq in seqs if seq > self.taken and self._to_come(seq)]  # some ended since they were found
        if not seqs:
            return []
        found = await self._store.pick(seqs)
        self._urgent.update(seqs)  # only now: where that failed, they are still to come in their order
        return self._intact(found, now)

    async def _look_for_expiry(self, now: int, oldest: int) -> None:
        since = max(oldest, self._seen)
        found = await self._store.late(self.taken, since, oldest + NEAR_EXPIRY, EXPIRING)
        self._waiting_urgent = [seq for _, seq in found if self._to_come(seq)]
        if len(found) == EXPIRING:  # there is more, and the next look goes on there
            self._seen = max(found[-1][0], since + 1)
        else:
            self._seen, self._look_at = 0, now + LOOK_FOR_EXPIRY

    async def _overdue(self, now: int, most: int) -> list[Job]:
        rows = {each.seq: each for each in await self._store.due(self._lane, now, most, self._hand.parked)}
        if not rows:
            return []
        found = await self._store.pick(list(rows))
        failpoint("retry_before_take")
        self._hand.parked.update(rows)
        jobs = [
            Job(each.seq, each.event, rows[each.seq].attempts, parked=True, since=rows[each.seq].since)
            for each in found
            if each.event is not None
        ]
        whole = {job.seq for job in jobs}
        if erased := [each.seq for each in found if each.erased]:
            self._settle([Mark(seqs=erased, state="erased", at=now, parked=True)])
            whole.update(erased)
        if lost := [seq for seq in rows if seq not in whole]:
            reason = "the stored event is damaged or gone: run turnout doctor"
            self._tell(lost, reason)
            self._settle([Mark(seqs=lost, state="dead", at=now, parked=True, reason=reason)])
        return jobs
