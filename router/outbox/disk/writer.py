"""One SQLite file, one connection that writes it, one thread that owns the connection.

A unit of work is one callable that runs whole on that thread inside one transaction: a cancelled caller can neither
interrupt it nor leave a transaction open (sharing a connection between coroutines loses acknowledged rows, and a
cancelled BEGIN stays open; both were seen with a connection per process). Settings are set and read back, because the
default of ``synchronous`` differs by build.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

from router.failpoint import failpoint
from router.outbox.disk.schema import Migration, migrate
from router.outbox.disk.sql import transaction
from router.outbox.errors import Busy, OutboxError, fault

T = TypeVar("T")
Unit = Callable[[sqlite3.Connection], T]

PAGE = 8192  # bytes; 1 KB events: 1.2 times the rows per second of 4096
WAL_LIMIT = 64 * 1024 * 1024
FOLD = 250  # pages in the WAL; a commit that folds them in takes two ms, with SQLite's 1000 six, and everybody waits for it
READERS = 120.0  # seconds; a long read of ours is cut off after half of that
PAUSE = 0.05  # seconds between two tries
_FULL = 2


def connect(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    """Open for writing, with the durability this product promises, or raise OutboxError.

    The file is made with mode 0600 before SQLite sees it, and its directory entry is synced.
    """
    fresh = not path.exists()
    if fresh:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        failpoint("file_after_create")
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE}")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous = FULL")
        level = connection.execute("PRAGMA synchronous").fetchone()[0]
        if mode != "wal" or level != _FULL:
            raise OutboxError(f"{path} cannot be made durable (journal {mode}, synchronous {level}): use a local disk")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {FOLD}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        migrate(connection, migrations, path.name)
    except sqlite3.OperationalError as error:
        connection.close()
        raise fault(error) from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise OutboxError(f"{path} is not a usable database: restore it from a backup") from error
    except BaseException:
        connection.close()
        raise
    if fresh:
        sync(path.parent)
    return connection


def fold(connection: sqlite3.Connection) -> bool:
    """Fold the WAL into the file and empty it, for good: SQLite cuts it without a sync, and after a power loss what
    stood in it would be back. False, at once, where a reader's snapshot needs it: appends do not wait for readers.
    """
    failpoint("checkpoint_before")
    patience = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")
    if busy:
        return False
    failpoint("checkpoint_before_sync")
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    with contextlib.suppress(FileNotFoundError):
        sync(Path(f"{path}-wal"))
    return True


async def folded(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Try to fold until no reader is in the way. Busy where one stays for ``READERS`` seconds."""
    until = time.monotonic() + READERS
    while not await attempt():
        if time.monotonic() > until:
            raise Busy(
                "somebody reads the outbox all the time, so its WAL keeps what was erased: end that, and ask again"
            )
        await asyncio.sleep(PAUSE)


def once(path: Path, migrations: Sequence[Migration], unit: Unit[T]) -> T:
    """Run a unit on a file that nobody has open for writing, outside a transaction. NotDurable where SQLite refuses."""
    connection = connect(path, migrations)
    try:
        return unit(connection)
    except sqlite3.Error as error:
        raise fault(error) from error
    finally:
        connection.close()


def sync(path: Path) -> None:
    """What a file holds, or which files a directory has, is on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Begun(Generic[T]):
    """A unit of work that goes on in its thread. Its end can be waited for in place: asyncio hears of it only in a later
    turn of the loop.
    """

    def __init__(self, under_way: Future[T]) -> None:
        self._under_way = under_way

    def ended(self, patience: float) -> bool:
        """Has it ended? The event loop stands still until it has, for up to so many seconds."""
        with contextlib.suppress(TimeoutError):
            self._under_way.exception(patience)
        return self._under_way.done()

    def outcome(self) -> T:
        """What it came to, once it has ended; a fault is raised."""
        return self._under_way.result(0)

    async def wait(self) -> T:
        """Until it has ended, while everybody else goes on."""
        return await asyncio.wrap_future(self._under_way)


class Writer:
    """The thread and the connection. Every method is called from the event loop."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def open(self, path: Path, migrations: Sequence[Migration]) -> None:
        self._connection = await self._call(connect, path, migrations)

    async def read(self, unit: Unit[T]) -> T:
        """Run outside a transaction: reads and single statements, which are atomic by themselves."""
        return await self._call(self._guarded, unit)

    def begin(self, unit: Unit[T]) -> Begun[T]:
        """As ``read``, for whoever would rather wait for it here and now."""
        return Begun(self._pool.submit(self._guarded, unit))

    async def write(self, unit: Unit[T]) -> T:
        """Run as one transaction. NotDurable where it is not on disk; then nothing of it is."""
        return await self._call(self._guarded, lambda connection: _transaction(connection, unit))

    def detach(self) -> sqlite3.Connection:
        """Give the connection away; ``open`` may follow. Call only while nothing is running."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise OutboxError("this writer is not open")
        return connection

    def attach(self, connection: sqlite3.Connection) -> None:
        """Take a detached connection back."""
        self._connection = connection

    async def close(self) -> None:
        if self._connection is not None:
            connection = self.detach()
            await self._call(_checkpoint_and_close, connection)
        self._pool.shutdown(wait=False)

    def _guarded(self, unit: Unit[T]) -> T:
        if self._connection is None:
            raise OutboxError("this writer is not open")
        try:
            return unit(self._connection)
        except sqlite3.Error as error:
            raise fault(error) from error

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _transaction(connection: sqlite3.Connection, unit: Unit[T]) -> T:
    with transaction(connection):
        failpoint("state_after_begin")
        result = unit(connection)
        failpoint("state_before_commit")
    failpoint("state_after_commit")
    return result


def _checkpoint_and_close(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
