"""Forgetting people: who is meant, what of them there is, and the order in which it goes. SQL is ``erasure``'s.

First they are kept out, then what was accepted before that is looked for, in the open segment twice: an event that was
being admitted at that moment may have come in after the first look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import msgspec

from router.clock import Clock
from router.failpoint import failpoint
from router.outbox.disk.sql import parts
from router.outbox.disk.writer import fold, folded
from router.outbox.log.entries import Segment
from router.outbox.log.journal import Journal
from router.outbox.log.segments import Segments
from router.outbox.upkeep import erasure, suppression
from router.outbox.upkeep.erasure import Receipt, Theirs
from router.outbox.upkeep.owner import Owner
from router.outbox.upkeep.suppression import Suppression
from router.person import Person, marks, possible

ROUNDS = 3  # of identifiers that lead to further ones


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """What there is of some people. ``linked``: further identifiers that these events carry, by kind, and ``beyond`` is
    how many more events carry one of those and none that was given.
    """

    events: int
    linked: dict[str, int]
    beyond: int


class Forgetting:
    """Looks for people and erases them. ``moving`` is held while it erases: nothing is moved between segments then."""

    def __init__(
        self,
        segments: Segments,
        journal: Journal,
        clock: Clock,
        owner: Owner,
        known: Suppression,
        moving: asyncio.Lock,
    ) -> None:
        self._moving = moving  # held by whoever moves events from one segment to another
        self._segments, self._journal, self._clock, self._owner = segments, journal, clock, owner
        self.suppression = known

    async def traces(self, people: Sequence[Person]) -> Traces:
        """Look, and change nothing."""
        wanted = _marks(people)
        events, others = await self._find(wanted)
        linked = _identifiers(others - wanted)
        beyond = (await self._find(linked))[0] if linked else []
        kinds: dict[str, int] = {}
        for mark in linked:
            kind = mark.partition(":")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
        return Traces(events=len(events), linked=kinds, beyond=len(set(beyond) - set(events)))

    async def erase(
        self, people: Sequence[Person], *, linked: bool, remembered: Callable[[Collection[str]], Awaitable[None]]
    ) -> Receipt:
        """Empty every event of these people, end what was not delivered, and keep them out from now on.

        With ``linked``, further identifiers that their events carry count as theirs, up to ``ROUNDS`` times over. What was
        emptied is in the WALs until ``fold``. What a fault cuts short may be asked for again. What is under way at a partner
        meanwhile is not counted as delivered, though it may take it.
        """
        wanted = _marks(people)
        for _ in range(ROUNDS if linked else 0):
            carried = (await self._find(wanted))[1]
            if not _identifiers(carried - wanted):
                break
            wanted |= carried
        digests = self.suppression.digests(wanted)
        await self._owner.transact(partial(suppression.add, digests=digests, now=self._clock.now()))
        failpoint("erase_after_suppress")
        self.suppression.add(digests)
        await self._owner.roll()  # what waits to be stored is stored now
        await remembered(())
        receipt = Receipt(people=len(people), identifiers=len(_identifiers(wanted)))
        had = await self._erase_events(_any_of(wanted), receipt)
        sessions = await self._forget_sessions(wanted | had, receipt)
        await self._forget_quarantined(_any_of({mark.partition(":")[2] for mark in wanted}), receipt)
        await remembered(sessions)
        return receipt

    async def erase_again(self) -> Receipt:
        """Empty every event of whoever is kept out already, in a log of the time before that, which nobody reads yet."""
        receipt, known = Receipt(people=0), self.suppression.knows
        await self._forget_sessions(await self._erase_events(known, receipt), receipt)
        await self._forget_quarantined(lambda values: known(possible(values)), receipt)
        await self.fold()
        return receipt

    async def _erase_events(self, theirs: Theirs, receipt: Receipt) -> set[str]:
        """Returns every mark that the events had which went: their sessions go as well."""
        now, carried = self._clock.now(), set[str]()
        async with self._moving:
            for segment in [*self._segments.all, self._segments.newest]:
                carried |= await self._erase_in(segment, theirs, receipt, now)
        return carried

    async def fold(self) -> None:
        """Returns when what was emptied is in no file; Busy where a reader keeps a WAL from being emptied. All of them are
        looked at: an erasure that ended here with Busy finds nothing to empty when it is asked for again.
        """
        failpoint("erase_before_checkpoint")
        for segment in list(self._segments.all):
            wal = segment.path(self._segments.directory)
            if _size(wal.with_name(f"{wal.name}-wal")):
                await folded(partial(self._folded, segment))
        await self._owner.checkpoint()

    async def _folded(self, segment: Segment) -> bool:
        async with self._moving:
            if segment not in self._segments.all:  # it has gone meanwhile, and would be made anew
                return True
            done = await self._journal.on_open(segment, fold)
            return done if done is not None else await self._segments.rewrite(segment, fold)

    async def _forget_quarantined(self, theirs: Theirs, receipt: Receipt) -> None:
        after: int | None = 0
        while after is not None:
            count, after = await self._owner.transact(partial(erasure.forget_quarantined, theirs=theirs, after=after))
            receipt.quarantined += count

    async def _forget_sessions(self, marks: Collection[str], receipt: Receipt) -> set[str]:
        """Of everybody who carries one of these. Returns their anonymous ids."""
        found = {value for kind, _, value in (mark.partition(":") for mark in marks) if kind == "anonymous"}
        receipt.sessions += await self._owner.transact(partial(erasure.forget_sessions, people=found))
        return found

    async def _find(self, wanted: Collection[str]) -> tuple[list[int], frozenset[str]]:
        """Numbers of the events that carry any of the marks, and all the marks that these carry."""
        seqs: list[int] = []
        others: set[str] = set()
        for segment in list(self._segments.all):
            found, carried = await self._find_in(segment, _any_of(wanted))
            seqs += found
            others |= carried
        return seqs, frozenset(others)

    async def _find_in(self, segment: Segment, theirs: Theirs) -> tuple[list[int], set[str]]:
        seqs: list[int] = []
        others: set[str] = set()
        after: int | None = 0
        while after is not None:
            look = partial(erasure.find, theirs=theirs, after=after)
            found, carried, after = await self._segments.ask(segment, look)
            seqs += found
            others |= carried
            await asyncio.sleep(0)
        return seqs, others

    async def _erase_in(self, segment: Segment, theirs: Theirs, receipt: Receipt, now: int) -> set[str]:
        seqs, carried = await self._find_in(segment, theirs)
        if not seqs:
            return set()
        for part in parts(seqs):  # before they are emptied: what a kill cuts short is found again
            had = await self._owner.transact(partial(erasure.delivered, seqs=part))
            ended = await self._owner.transact(partial(erasure.end, seqs=part, now=now))
            for total, more in ((receipt.delivered, had), (receipt.ended, ended)):
                for name, count in more.items():
                    total[name] = total.get(name, 0) + count
        await self._forget_sessions(carried, receipt)
        unit = partial(erasure.empty, seqs=seqs)
        failpoint("erase_before_empty")
        if await self._journal.on_open(segment, unit) is None:
            await self._journal.settled()
            await self._segments.rewrite(segment, unit)
        failpoint("erase_after_empty")
        self._journal.tail.erase(frozenset(seqs))
        receipt.events += len(seqs)
        return carried


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _any_of(wanted: Collection[str]) -> Theirs:
    known = frozenset(wanted)
    return lambda found: not known.isdisjoint(found)


def _identifiers(found: Collection[str]) -> frozenset[str]:
    """Without the marks of ids that are digests, which stand beside those of what they are digests of."""
    return frozenset(mark for mark in found if not mark.startswith("id:"))


def _marks(people: Sequence[Person]) -> frozenset[str]:
    return frozenset[str]().union(*(marks(each) for each in people))
