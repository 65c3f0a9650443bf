"""A destination's place in the log, in memory: where its cursor is, and what beyond the cursor has an end already."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from router.outbox import state


class Lane:
    """``done`` holds ends beyond the cursor, ``away`` whole stretches of such: what came while there was no destination.

    ``stop`` is the last event that is for this lane, where its destination left the configuration.
    """

    def __init__(self, row: state.LaneRow, done: set[int], away: Iterable[range], next_due: int | None) -> None:
        self.id, self.name, self.start, self.cursor, self.held = row.id, row.name, row.start, row.cursor, row.held
        self.quota, self.stop, self.stopped_at = row.quota, row.stop, row.stopped_at
        self.written = row.cursor  # the cursor as the disk has it
        self.done = done
        self.away = sorted(away, key=lambda stretch: stretch.start)
        self.next_due = next_due
        self.more = asyncio.Event()
        self._move()

    def last(self, last: int) -> int:
        """The last event that is for this lane, of those up to ``last``."""
        return last if self.stop is None else self.stop

    def open(self, seq: int) -> bool:
        """Is nothing written down yet of what became of this event?"""
        return seq > self.cursor and seq not in self.done and not any(seq in stretch for stretch in self.away)

    def unfinished(self, last: int) -> list[range]:
        """The stretches of events up to ``last`` of which nothing is written down yet."""
        ends = sorted([*(range(seq, seq + 1) for seq in self.done), *self.away], key=lambda stretch: stretch.start)
        first, found = self.cursor + 1, []
        for stretch in ends:
            if stretch.start > first:
                found.append(range(first, min(stretch.start, last + 1)))
            first = max(first, stretch.stop)
        return [each for each in (*found, range(first, last + 1)) if each]

    def end(self, seqs: Sequence[int]) -> None:
        """These are no longer simply waiting; the cursor moves over every gapless stretch of such."""
        self.done.update(seqs)
        self._move()

    def pass_by(self, stretch: range) -> None:
        """As ``end``, for very many."""
        self.away.append(stretch)
        self._move()

    def _move(self) -> None:
        while True:
            while self.cursor + 1 in self.done:
                self.cursor += 1
                self.done.discard(self.cursor)
            if not self.away or self.cursor + 1 not in self.away[0]:
                return
            self.cursor = self.away.pop(0)[-1]
