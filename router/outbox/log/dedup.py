"""Which event ids were seen lately: the newest segments' ids are in memory, and of sealed ones a mark of each.

Ids are random, so an index over all of them would dirty a page per event. A sealed segment has an index on disk, and its
marks say for nearly every new id that no index need be asked. The marks are written into the segment when it is sealed:
a start reads 4 bytes an event and no ids.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

Marks: TypeAlias = "array[int]"  # of one segment, in order


def key(source: str, event_id: str) -> str:
    return f"{source}\0{event_id}"


def mark(name: str) -> int:
    """32 bits of a key, the same in every process."""
    return zlib.crc32(name.encode())


def marks(keys: Iterable[str]) -> Marks:
    return array("I", sorted(map(mark, keys)))


class Seen:
    """Which sealed segments may hold a key. May name one wrongly, once in some thousand keys, and never leaves one out.

    A search costs 0.4 us for every segment, so a table of bits stands in front of all of them: a mark's upper bits are its
    place there. Bits of segments that have gone stay, and cost a search, until the table is made anew.
    """

    def __init__(self) -> None:
        self._marks: dict[int, Marks] = {}
        self._front: tuple[bytearray, int] | None = None  # with the shift of a mark; one value, for two threads see it
        self._in_front = 0

    def __contains__(self, number: int) -> bool:
        return number in self._marks

    def holding(self, names: Iterable[str]) -> Iterator[tuple[int, int]]:
        """Which of the keys, by its place among them, which segment may hold, by its number."""
        table, shift = self._front or (None, 0)
        for place, name in enumerate(names):
            at = mark(name)
            if table is None or table[at >> shift + 3] >> (at >> shift & 7) & 1:
                for number, known in self._marks.items():
                    found = bisect_left(known, at)
                    if found < len(known) and known[found] == at:
                        yield place, number

    def load(self, found: Mapping[int, Marks]) -> None:
        """From now on these segments are searched; the table is for ``table``."""
        self._marks, self._front = dict(found), None

    def add(self, number: int, found: Marks) -> None:
        """One more segment; some 20 ms for 100 000 events, off the loop, where nobody else adds meanwhile."""
        if self._front is None or 2 * (self._in_front + len(found)) > len(self._front[0]):
            self._marks = {**self._marks, number: found}
            self.table()
            return
        self._set(*self._front, found)
        self._in_front += len(found)
        self._marks = {**self._marks, number: found}

    def table(self) -> None:
        """Make the table anew: four bytes an event, so that one new key in 32 is searched for in vain."""
        known = self._marks
        count = sum(map(len, known.values()))
        bits = max(10, (32 * count).bit_length())
        front = bytearray(1 << bits - 3)
        for found in known.values():
            self._set(front, 32 - bits, found)
        self._front, self._in_front = (front, 32 - bits), count

    def forget(self, number: int) -> None:
        self._marks = {other: found for other, found in self._marks.items() if other != number}

    @staticmethod
    def _set(front: bytearray, shift: int, found: Marks) -> None:
        for at in found:
            front[at >> shift + 3] |= 1 << (at >> shift & 7)
