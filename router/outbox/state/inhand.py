"""Which events a partner's own code is working on at this moment, in a page of memory that the kernel keeps.

Marking takes a microsecond, so every event is marked, and the mark stands for as long as that code runs and no longer.
It outlives a process that is killed, which is what it is for; a power loss may leave an older mark, and no event is to
blame for that.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import msgspec

_MARK = struct.Struct("<QQQ")  # first, last, and the lane, which is written last and erased first
_LANE = struct.Struct("<Q")
_LANE_AT = 16


class Marked(msgspec.Struct, frozen=True):
    """Events of a lane, by the first and the last of their numbers."""

    lane: int
    first: int
    last: int


class InHand:
    """Events are in hand between ``take`` and ``release``; the loop runs no other code meanwhile, so one mark will do."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, mmap.PAGESIZE)  # a full disk must not be met by a write to memory
            self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        finally:
            os.close(descriptor)

    def found(self) -> Marked | None:
        """What was in hand when the last process died."""
        first, last, lane = _MARK.unpack_from(self._page)
        return Marked(lane, first, last) if lane else None

    def take(self, lane: int, first: int, last: int) -> None:
        _MARK.pack_into(self._page, 0, first, last, lane)

    def release(self) -> None:
        _LANE.pack_into(self._page, _LANE_AT, 0)

    def close(self) -> None:
        self._page.close()
