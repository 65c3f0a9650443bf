"""The files of an outbox as whoever reads them opens them: read-only, one snapshot at a time, and not for long.

A reader that holds a snapshot keeps the WAL from being folded in, and it grows without end (sqlite.org/wal.html,
"Avoiding Excessively Large WAL Files"), so each is ended after two seconds unless its opener asks for more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import aiosqlite

from router.outbox.disk import schema
from router.outbox.errors import OutboxError
from router.outbox.log import entries
from router.outbox.reads.views import FileCheck

LONGEST_READ = 2.0  # seconds
_WAL_INDEX = 1 << 16  # bytes; an empty WAL's
_STEPS = 20_000  # of SQLite's machine between looks at the time


class ReadTooLong(OutboxError):
    """The read was cut off so that it does not hold the WAL back."""

    code = "query_timeout"


class SegmentFile(NamedTuple):
    """One segment of the log, as the state knows it. ``key``: its clear values can be opened."""

    number: int
    first: int
    sealed: int | None
    key: bool


class Snapshots:
    """Of one outbox directory. OutboxError where there is no outbox or it is newer than this program; ReadTooLong where
    one was ended.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def check(self, longest: float) -> list[FileCheck]:
        """SQLite's quick check of the state and of the segments, newest first, for ``longest`` seconds in all."""
        deadline = time.monotonic() + longest
        paths = await self._segment_paths()
        checks = [
            FileCheck(file=path.name, verdict=await _check(path, deadline - time.monotonic()))
            for path in (self._directory / "state.db", *paths)
        ]
        if all(each.verdict != "missing" for each in checks):
            return checks
        kept = {path.name for path in await self._segment_paths()}  # retention may have taken one while we looked
        return [each for each in checks if each.verdict != "missing" or each.file in kept]

    async def _segment_paths(self) -> list[Path]:
        async with self.state() as state:
            return [entries.path(self._directory, segment.number) for segment in reversed(await segment_files(state))]

    @contextlib.asynccontextmanager
    async def state(self, longest: float = LONGEST_READ) -> AsyncIterator[aiosqlite.Connection]:
        """One snapshot of the state file."""
        path = self._directory / "state.db"
        if not readable(path):
            raise OutboxError(f"there is no outbox in {self._directory}: check [outbox] path, or start turnout serve")
        async with _opened(path, longest) as connection:
            version = await _version(connection)
            if version > len(schema.STATE):
                raise OutboxError(f"{path} is of a newer Turnout (schema {version}): use that version to read it")
            if version == 0:
                raise OutboxError(f"{path} is not set up yet: start turnout serve")
            yield connection

    @contextlib.asynccontextmanager
    async def log(
        self, segment: SegmentFile, longest: float = LONGEST_READ
    ) -> AsyncIterator[aiosqlite.Connection | None]:
        """One snapshot of a segment; None where its file is not made yet, or gone by retention."""
        path = entries.path(self._directory, segment.number)
        if not readable(path):
            yield None
            return
        async with _opened(path, longest) as connection:
            yield connection if await _version(connection) else None


def readable(path: Path) -> bool:
    """Is it there? OutboxError where it is another user's. Nothing is opened to find out: to close a file of a database
    ends the locks that this process has on it (sqlite.org/howtocorrupt.html).
    """
    if os.access(path, os.R_OK):
        return True
    try:
        there = path.exists()
    except PermissionError:  # of a directory above it
        there = True
    if there:
        raise OutboxError(f"{path} is not this user's to read: run the command as the user that runs turnout serve")
    return False


@contextlib.asynccontextmanager
async def _opened(path: Path, longest: float) -> AsyncIterator[aiosqlite.Connection]:
    """A read-only connection inside one transaction, which ends after ``longest`` seconds at the latest."""
    uri = read_only(path)
    deadline = time.monotonic() + longest
    try:
        begun = partial(_begun, deadline)  # a hop to the thread less for each statement: a search opens every segment
        async with aiosqlite.connect(uri, uri=True, isolation_level=None, timeout=longest, factory=begun) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise ReadTooLong(
                "the read took too long and was ended: narrow it, for example to one destination"
            ) from None
        raise OutboxError(f"{path} cannot be read: run turnout doctor") from error


def _begun(deadline: float, *arguments: Any, **settings: Any) -> sqlite3.Connection:
    """A connection inside a transaction, which ends at the deadline."""
    connection = sqlite3.Connection(*arguments, **settings)
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS)
    connection.execute("BEGIN")
    return connection


def read_only(path: Path) -> str:
    """How SQLite is told to open it. It makes a WAL's index beside the file; where it may not, or there is no room for one,
    and nobody writes, the file is as good as a copy.
    """
    nobody_writes = not path.with_name(path.name + "-wal").exists()
    room = os.access(path.parent, os.W_OK) and shutil.disk_usage(path.parent).free >= _WAL_INDEX
    return f"file:{quote(str(path))}?{'immutable=1' if nobody_writes and not room else 'mode=ro'}"


async def _check(path: Path, longest: float) -> Literal["whole", "damaged", "missing", "unfinished"]:
    if not entries.filled(path):
        return "missing"
    try:
        async with _opened(path, longest) as connection:
            ((verdict,),) = await connection.execute_fetchall("PRAGMA quick_check(1)")
    except ReadTooLong:
        return "unfinished"
    except OutboxError:
        return "damaged"
    return "whole" if verdict == "ok" else "damaged"


async def _version(connection: aiosqlite.Connection) -> int:
    ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    return int(version)


async def segment_files(state: aiosqlite.Connection) -> list[SegmentFile]:
    """In order."""
    rows = await state.execute_fetchall("SELECT number, first, sealed, key IS NOT NULL FROM segment ORDER BY number")
    return [SegmentFile(number, first, sealed, bool(key)) for number, first, sealed, key in rows]


def segment_of(segments: Sequence[SegmentFile], seq: int) -> SegmentFile | None:
    """Which segment holds this sequence number; None where it is before all of them."""
    return next((each for each in reversed(segments) if each.first <= seq), None)


def by_segment(segments: Sequence[SegmentFile], seqs: Iterable[int]) -> dict[SegmentFile, list[int]]:
    """Sequence numbers by the segment that holds them; those before all of them are left out."""
    found: dict[SegmentFile, list[int]] = {}
    for seq in seqs:
        if (segment := segment_of(segments, seq)) is not None:
            found.setdefault(segment, []).append(seq)
    return found
