"""Which event ids were seen lately: exact for the open segment, a filter in front of the sealed ones.

Ids are random, so an index over all of them would dirty a page per event. The open segment's ids are in memory;
a sealed segment has an index on disk, and the filter here says for nearly every new id that no index need be asked.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

_MASK = (1 << 64) - 1


def key(source: str, event_id: str) -> str:
    return f"{source}\0{event_id}"


class Filter:
    """A fixed set of 64-bit fingerprints that may answer yes wrongly (one in 10^12) and never no wrongly.

    Open addressing over ``array('Q')``, at most half full: some 16 to 32 bytes an id, where a set of strings takes 150.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        size = 1 << max(4, (2 * len(keys)).bit_length())
        self._table = table = array("Q", bytes(8 * size))
        for text in keys:
            mark = (hash(text) & _MASK) or 1
            slot = mark % size
            while (there := table[slot]) and there != mark:
                slot = (slot + 1) % size
            table[slot] = mark

    def __contains__(self, text: str) -> bool:
        table, size = self._table, len(self._table)
        mark = (hash(text) & _MASK) or 1
        slot = mark % size
        while there := table[slot]:
            if there == mark:
                return True
            slot = (slot + 1) % size
        return False
