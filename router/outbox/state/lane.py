"""A destination's place in the log, in memory: where its cursor is, and what beyond the cursor has an end already."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from router.outbox.state import cursors, deliveries


class Lane:
    """What beyond the cursor has an end, or a row of its own, is kept as stretches: sorted, apart from each other, and
    few, however many events they hold.

    ``stop`` is the last event that is for this lane, where its destination left the configuration.
    """

    def __init__(self, row: cursors.LaneRow, ended: Iterable[range], next_due: int | None) -> None:
        self.id, self.name, self.start, self.cursor, self.held = row.id, row.name, row.start, row.cursor, row.held
        self.quota, self.stop, self.stopped_at = row.quota, row.stop, row.stopped_at
        self.written = row.cursor  # the cursor as the disk has it
        self.next_due = next_due
        self.more = asyncio.Event()
        self._starts: list[int] = []
        self._stops: list[int] = []
        for stretch in ended:
            self._add(stretch.start, stretch.stop)
        self._move()

    def last(self, last: int) -> int:
        """The last event that is for this lane, of those up to ``last``."""
        return last if self.stop is None else self.stop

    def open(self, seq: int) -> bool:
        """Is nothing written down yet of what became of this event?"""
        if seq <= self.cursor:
            return False
        place = bisect_right(self._starts, seq)
        return place == 0 or seq >= self._stops[place - 1]

    def untouched(self, seq: int) -> bool:
        """Is nothing written down yet of this event and of all behind it?"""
        return seq > self.cursor and not (self._stops and self._stops[-1] > seq)

    def ended(self) -> list[range]:
        """The stretches beyond the cursor of which something is written down."""
        return [range(start, stop) for start, stop in zip(self._starts, self._stops, strict=True)]

    def unfinished(self, last: int) -> list[range]:
        """The stretches of events up to ``last`` of which nothing is written down yet."""
        return [gap for gap in self._gaps(last + 1) if gap]

    def _gaps(self, stop: int) -> Iterator[range]:
        first = self.cursor + 1
        for stretch in self.ended():
            yield range(first, min(stretch.start, stop))
            first = stretch.stop
        yield range(first, stop)

    def end(self, seqs: Sequence[int]) -> None:
        """These are no longer simply waiting; the cursor moves over every gapless stretch of such."""
        for first, last in deliveries.stretches(seqs):
            self._add(first, last + 1)
        self._move()

    def pass_by(self, stretch: range) -> None:
        """As ``end``, for very many."""
        self._add(stretch.start, stretch.stop)
        self._move()

    def _add(self, start: int, stop: int) -> None:
        """Take a stretch in, together with those that it touches."""
        first, behind = bisect_left(self._stops, start), bisect_right(self._starts, stop)
        if first < behind:
            start, stop = min(start, self._starts[first]), max(stop, self._stops[behind - 1])
        self._starts[first:behind], self._stops[first:behind] = [start], [stop]

    def _move(self) -> None:
        while self._starts and self._starts[0] <= self.cursor + 1:
            self.cursor = max(self.cursor, self._stops[0] - 1)
            del self._starts[0], self._stops[0]
