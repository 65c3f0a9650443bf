"""The newest events in memory, for lanes that keep up: they need no disk.

Each is decoded when the first lane asks, or comes as the event that it was at the door, where a lane will ask at once. It
stays decoded until the last of the lanes that read it together has it. Only so many at a time: decoded, an event is seven
kilobytes of objects, which the garbage collector walks through and no cache holds. With eight times as many, senders
waited three to four times as long while lanes were behind (p99, measured side by side).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from router.outbox.log.entries import Row, Stored

MOST_BYTES = 32 * 1024 * 1024  # payloads
MOST_EVENTS = 16_384  # three seconds of the most that is taken: lanes may be behind for that long without the disk
NEAR = 256  # events that a lane has not read yet, and what comes still stays decoded for it: two batches, and a round
DECODED = 512  # at most; lanes that are further apart decode each for itself


class Tail:
    def __init__(self) -> None:
        self._rows: list[Row | None] = []  # None: erased
        self._decoded: deque[tuple[int, Row]] = deque()  # with their numbers
        self._first = 1  # the number of the first row
        self._bytes = 0
        self._reached: dict[int, int] = {}  # reader -> the last number that it has read

    @property
    def followed(self) -> bool:
        """Is anybody so near to the end that what comes now is worth keeping as it is?"""
        front = max(self._reached.values(), default=None)
        return front is not None and self._first + len(self._rows) - front <= NEAR

    def keep(self, first: int, rows: Sequence[Row]) -> None:
        if not self._rows:
            self._first = first
        self._rows += rows
        self._let_go()
        for number, row in enumerate(rows, first):
            if row.event is not None:
                self._remember(number, row)
        self._bytes += sum(len(each.payload) for each in rows)
        if self._bytes > 2 * MOST_BYTES or len(self._rows) > 2 * MOST_EVENTS:
            self._cut()

    def _cut(self) -> None:
        """Half of it goes at a time."""
        sizes = [len(each.payload) if each is not None else 0 for each in self._rows]
        cut = max(0, len(sizes) - MOST_EVENTS)
        self._bytes = sum(sizes[cut:])
        while self._bytes > MOST_BYTES:
            self._bytes -= sizes[cut]
            cut += 1
        self._first += cut
        del self._rows[:cut]

    def read(self, after: int, limit: int, reader: int | None = None) -> list[Stored] | None:
        """Up to ``limit`` events above ``after``, or None where the memory does not reach back so far. A ``reader`` goes
        on from there.
        """
        if not self._rows or self._first > after + 1:
            return None
        start = after + 1 - self._first
        found = [self._stored(number, row) for number, row in enumerate(self._rows[start : start + limit], after + 1)]
        if reader is not None:
            self._reached[reader] = after + len(found)
            self._let_go()
        return found

    def _stored(self, number: int, row: Row | None) -> Stored:
        if row is None:
            return Stored(number, None, erased=True)
        if (event := row.event) is None:
            event = row.event = row.read()
            self._remember(number, row)
        return Stored(number, event)

    def _remember(self, number: int, row: Row) -> None:
        self._decoded.append((number, row))
        if len(self._decoded) > DECODED:
            self._decoded.popleft()[1].event = None

    def _let_go(self) -> None:
        """Of what all have read who are near to the one in front; of everything where nobody reads."""
        front = max(self._reached.values(), default=self._first + len(self._rows))
        upto = min([each for each in self._reached.values() if front - each <= DECODED], default=front)
        while self._decoded and self._decoded[0][0] <= upto:
            self._decoded.popleft()[1].event = None

    def erase(self, seqs: Collection[int]) -> None:
        while self._decoded:  # else the erased stayed there until others came
            self._decoded.popleft()[1].event = None
        self._rows = [None if seq in seqs else row for seq, row in enumerate(self._rows, self._first)]
