"""Which event ids were seen lately: exact for the open segment, a filter in front of the sealed ones.

Ids are random, so an index over all of them would dirty a page per event. The open segment's ids are in memory;
a sealed segment has an index on disk, and the filter here says for nearly every new id that no index need be asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

_FIRST_CAPACITY = 1 << 18
_MASK = (1 << 64) - 1


def key(source: str, event_id: str) -> str:
    return f"{source}\0{event_id}"


class Filter:
    """A set of 64-bit fingerprints that may answer yes wrongly (one in 10^12) and never no wrongly.

    Open addressing over ``array('Q')``, at most half full: 16 bytes an id, where a set of strings takes 150. Full
    tables stay as they are and a larger one is added, so nothing is ever rehashed while events wait.
    """

    def __init__(self) -> None:
        self._tables: list[array[int]] = []
        self._room = 0

    def add(self, keys: Iterable[str]) -> None:
        for text in keys:
            if self._room == 0:
                capacity = _FIRST_CAPACITY << len(self._tables)
                self._tables.append(array("Q", bytes(8 * capacity)))
                self._room = capacity // 2
            table = self._tables[-1]
            mark = (hash(text) & _MASK) or 1
            slot = mark % len(table)
            while (there := table[slot]) and there != mark:
                slot = (slot + 1) % len(table)
            if not there:
                table[slot] = mark
                self._room -= 1

    def __contains__(self, text: str) -> bool:
        mark = (hash(text) & _MASK) or 1
        for table in self._tables:
            slot = mark % len(table)
            while there := table[slot]:
                if there == mark:
                    return True
                slot = (slot + 1) % len(table)
        return False
