"""The segment files of the log as a whole: which there are, reading them in order, sealing the full ones, and asking
them which ids they hold.

Readers have a thread of their own and read-only connections, of which only so many are open at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from router.outbox.disk import schema
from router.outbox.disk.writer import Unit, connect, once
from router.outbox.errors import Busy, damaged, fault
from router.outbox.log import entries
from router.outbox.log.dedup import Marks, Seen, key
from router.outbox.log.entries import Segment, Stored
from router.outbox.log.vault import Vault

T = TypeVar("T")

OPEN_FILES = 16

Pair = tuple[str, str]  # source, event id
Suspects = list[tuple[Segment, Sequence[Pair]]]  # segments, each with the ids that it may hold


class Segments:
    """All segments in order; the last one is being written, by somebody else."""

    def __init__(self, directory: Path, known: Iterable[Segment]) -> None:
        self.directory = directory
        self.all = list(known)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="turnout-read")
        self._files: dict[int, tuple[sqlite3.Connection, Vault]] = {}
        self._seen = Seen()

    @property
    def newest(self) -> Segment:
        return self.all[-1]

    async def read(self, after: int, limit: int) -> list[Stored]:
        """Up to ``limit`` events above ``after``, in order, of the first segment that has any: of one that went, the kept
        events may be few or none.
        """
        place = self.all.index(self._holding(after + 1))
        for segment in self.all[place:]:
            if found := await self._reading(partial(self._above, segment, after, limit)):
                return found
        return []

    def _above(self, segment: Segment, after: int, limit: int) -> list[Stored]:
        return entries.read(*self._file(segment), after, limit)

    async def pick(self, seqs: Sequence[int]) -> list[Stored]:
        """The events with these numbers, in order; those that are gone are left out."""
        wanted: dict[int, list[int]] = {}
        for seq in sorted(seqs):
            wanted.setdefault(self._holding(seq).number, []).append(seq)
        by_number = {each.number: each for each in self.all}

        def look() -> list[Stored]:
            return [
                stored
                for number, part in wanted.items()
                for stored in entries.pick(*self._file(by_number[number]), part)
            ]

        return await self._reading(look)

    async def late(self, after: int, since: int, until: int, limit: int) -> list[tuple[int, int]]:
        """(time, sequence number) of late uploads above ``after`` that happened between two instants, the earliest first.
        Only sealed segments have an index of them; they are asked one by one, and other readers come in between.
        """
        found: list[tuple[int, int]] = []
        for segment, following in itertools.pairwise(self.all):
            if segment.sealed is not None and segment.number != entries.KEPT and following.first > after + 1:
                found += await self.ask(segment, lambda unit: entries.late(unit, after, since, until, limit))
        return sorted(found)[:limit]

    async def known(self, suspects: Suspects, since: int) -> set[str]:
        """Keys of those ids that the suspected segments hold, received at ``since`` (UTC ms) or later."""
        if not suspects:
            return set()

        def look() -> set[str]:
            return {key(*pair) for each, part in suspects for pair in entries.known(self._file(each)[0], part, since)}

        return await self._reading(look)

    def suspects(self, pairs: Sequence[Pair], since: int) -> Suspects:
        """Which of the ids which segment must be asked for on disk. Their marks answer first; only a hit, or a segment
        whose marks are not at hand, is asked.
        """
        suspects: dict[int, list[Pair]] = {}
        for place, number in self._seen.holding([key(*pair) for pair in pairs]):
            suspects.setdefault(number, []).append(pairs[place])
        window = self._window(since)
        parts: Suspects = [(each, suspects[each.number]) for each in window if each.number in suspects]
        return parts + [(each, pairs) for each in window if each.number not in self._seen]

    def _window(self, since: int) -> list[Segment]:
        """Sealed segments that may hold events of ``since`` or later. Marks of older ones are not needed any more."""
        for each in self.all:
            if each.sealed is not None and each.sealed < since and each.number in self._seen:
                self._seen.forget(each.number)
        return [each for each in self.all if each.sealed is not None and each.sealed >= since]

    # Sealing

    async def load(self, since: int) -> None:
        """Read the marks of the segments in the dedup window."""
        window = self._window(since)
        self._seen.load(
            await self._reading(lambda: {each.number: _marks(each.path(self.directory)) for each in window})
        )

    async def prepare(self) -> None:
        """What makes looking for ids quick, after a start."""
        await asyncio.to_thread(self._seen.table)

    async def seal(self, segment: Segment, connection: sqlite3.Connection | None, found: Marks) -> None:
        """Seal a segment that is written no more; ``connection`` is its writer's, else one is opened."""
        path = segment.path(self.directory)

        def seal() -> None:
            try:
                entries.seal(connection or connect(path, schema.LOG), found)
            except sqlite3.Error as error:
                raise fault(error) from error
            self._seen.add(segment.number, found)

        await asyncio.to_thread(seal)

    # Files

    async def ask(self, segment: Segment, unit: Unit[T]) -> T:
        """What one segment's file says."""
        return await self._reading(lambda: unit(self._file(segment)[0]))

    async def rewrite(self, segment: Segment, unit: Unit[T]) -> T:
        """Run a unit that writes to a segment of the past; for erasure and for the kept events, and nothing else."""
        await self.let_go(segment)  # a reader's snapshot would keep the WAL from being emptied
        return await asyncio.to_thread(once, segment.path(self.directory), schema.LOG, unit)

    async def let_go(self, segment: Segment) -> None:
        """Close what is open of a segment: it goes, or its key did."""

        def close() -> None:
            connection, _ = self._files.pop(segment.number, (None, None))
            if connection is not None:
                connection.close()

        await self._reading(close)

    def forget(self, segment: Segment) -> None:
        """The log has no such segment any more."""
        self.all.remove(segment)
        self._seen.forget(segment.number)

    async def close(self) -> None:
        await self._reading(self._close_files)
        self._readers.shutdown(wait=False)

    def _holding(self, seq: int) -> Segment:
        return next((each for each in reversed(self.all) if each.first <= seq), self.all[0])

    def _file(self, segment: Segment) -> tuple[sqlite3.Connection, Vault]:
        """A read-only connection to a segment, the longest unused one making room; only on the readers' thread."""
        entry = self._files.pop(segment.number, None)
        if entry is None:
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files)))[0].close()
            entry = _reading(segment.path(self.directory)), Vault(segment.key)
        self._files[segment.number] = entry
        return entry

    def _close_files(self) -> None:
        for connection, _ in self._files.values():
            connection.close()
        self._files.clear()

    async def _reading(self, unit: Callable[[], T]) -> T:
        """Busy where a file cannot be read now: that costs a look, not the outbox. Broken where it is damaged."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, unit)
        except sqlite3.Error as error:
            if damaged(error):
                raise fault(error) from error
            raise Busy("the log cannot be read now: run turnout doctor if this goes on") from error


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _marks(path: Path) -> Marks:
    """Of a sealed segment. The connection is not kept: its pages would be."""
    with contextlib.closing(_reading(path)) as connection:
        return entries.marks(connection)
