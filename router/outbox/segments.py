"""The segment files of the log as a whole: which there are, reading them in order, sealing the full ones, and asking
them which ids they hold.

Readers have a thread of their own and read-only connections, of which only so many are open at once.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from router.outbox import log, schema
from router.outbox.dedup import Filter, key
from router.outbox.errors import Busy, fault
from router.outbox.log import Segment, Stored
from router.outbox.vault import Vault
from router.outbox.writer import connect

T = TypeVar("T")

OPEN_FILES = 16

Pair = tuple[str, str]  # source, event id


class Segments:
    """All segments in order; the last one is being written, by somebody else."""

    def __init__(self, directory: Path, known: Iterable[Segment]) -> None:
        self.directory = directory
        self.all = list(known)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="turnout-read")
        self._files: dict[int, tuple[sqlite3.Connection, Vault]] = {}
        self._filters: dict[int, Filter] = {}
        self._closing = False

    @property
    def newest(self) -> Segment:
        return self.all[-1]

    async def read(self, after: int, limit: int) -> list[Stored]:
        """Up to ``limit`` events above ``after`` of the segment that holds the next one, in order."""
        segment = self._holding(after + 1)
        return await self._reading(lambda: log.read(*self._file(segment), after, limit))

    async def pick(self, seqs: Sequence[int]) -> list[Stored]:
        """The events with these numbers, in order; those that are gone are left out."""
        wanted: dict[int, list[int]] = {}
        for seq in sorted(seqs):
            wanted.setdefault(self._holding(seq).number, []).append(seq)
        by_number = {each.number: each for each in self.all}

        def look() -> list[Stored]:
            return [
                stored for number, part in wanted.items() for stored in log.pick(*self._file(by_number[number]), part)
            ]

        return await self._reading(look)

    async def happened(self, after: int, since: int, until: int, limit: int) -> list[tuple[int, int]]:
        """(time, sequence number) of events above ``after`` that happened between two instants, the earliest first. Only
        segments with an index are asked, one by one: other readers come in between.
        """
        found: list[tuple[int, int]] = []
        for segment, following in itertools.pairwise(self.all):
            if segment.sealed is not None and segment.number != log.KEPT and following.first > after + 1:
                found += await self.ask(segment, lambda unit: log.happened(unit, after, since, until, limit))
        return sorted(found)[:limit]

    async def known(self, pairs: Sequence[Pair], since: int) -> set[str]:
        """Keys of those ids that a sealed segment holds, received at ``since`` (UTC ms) or later.

        The filters answer first; only a hit, or a segment whose filter is not built yet, asks an index on disk.
        """
        suspects: list[tuple[Segment, list[Pair]]] = []
        for segment in self.all[:-1]:
            if (segment.sealed or since) < since:
                self._filters.pop(segment.number, None)
                continue
            seen = self._filters.get(segment.number)
            part = [pair for pair in pairs if seen is None or key(*pair) in seen]
            if part:
                suspects.append((segment, part))
        if not suspects:
            return set()

        def look() -> set[str]:
            return {key(*pair) for segment, part in suspects for pair in log.known(self._file(segment)[0], part, since)}

        return await self._reading(look)

    # Sealing

    async def remember(self, segment: Segment, keys: Iterable[str]) -> None:
        """Build the filter of a segment, off the loop."""
        self._filters[segment.number] = await asyncio.to_thread(Filter, list(keys))

    async def prepare(self, sealed: Callable[[Segment], Awaitable[None]], since: int) -> None:
        """After a start: seal what a kill left unsealed, and build the filters of the dedup window."""
        for segment in self.all[:-1]:
            if self._closing:
                return
            if segment.sealed is None:
                await self.seal(segment, None)
                await sealed(segment)
            if (segment.sealed or since) >= since:
                await self.remember(segment, await asyncio.to_thread(_keys_of, segment.path(self.directory)))

    async def seal(self, segment: Segment, connection: sqlite3.Connection | None) -> None:
        """Seal a segment that is written no more; ``connection`` is its writer's, else one is opened."""
        path = segment.path(self.directory)
        await asyncio.to_thread(lambda: log.seal(connection or connect(path, schema.LOG)))

    # Files

    async def ask(self, segment: Segment, unit: Callable[[sqlite3.Connection], T]) -> T:
        """What one segment's file says."""
        return await self._reading(lambda: unit(self._file(segment)[0]))

    async def rewrite(self, segment: Segment, unit: Callable[[sqlite3.Connection], T]) -> T:
        """Run a unit that writes to a segment of the past; for erasure and for the kept events, and nothing else."""
        await self.let_go(segment)  # a reader's snapshot would keep the WAL from being emptied

        def write() -> T:
            connection = connect(segment.path(self.directory), schema.LOG)
            try:
                return unit(connection)
            except sqlite3.Error as error:
                raise fault(error) from error
            finally:
                connection.close()

        return await asyncio.to_thread(write)

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
        self._filters.pop(segment.number, None)

    async def close(self) -> None:
        self._closing = True
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
            where = f"{segment.path(self.directory).absolute().as_uri()}?mode=ro"
            entry = sqlite3.connect(where, uri=True, isolation_level=None), Vault(segment.key)
        self._files[segment.number] = entry
        return entry

    def _close_files(self) -> None:
        for connection, _ in self._files.values():
            connection.close()
        self._files.clear()

    async def _reading(self, unit: Callable[[], T]) -> T:
        """Busy where a file cannot be read now: that costs a look, not the outbox."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, unit)
        except sqlite3.Error as error:
            raise Busy("the log cannot be read now: run turnout doctor if this goes on") from error


def _keys_of(path: Path) -> list[str]:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return [name for name, _ in log.keys(connection)]
    finally:
        connection.close()
