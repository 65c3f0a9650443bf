"""A copy of an outbox that fits together, whether a server runs or not, and its way back.

The state is copied first and then the segments that it names, each in one snapshot (SQLite's online backup). So a copy of
the log always reaches at least as far as what the state says became of it, which is what a start asks for. Where
retention takes a segment away in between, the copy begins anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from router.failpoint import failpoint
from router.outbox.disk.lock import Lock
from router.outbox.disk.writer import sync
from router.outbox.errors import DiskFull, OutboxError, fault
from router.outbox.log import entries
from router.outbox.log.entries import Segment
from router.outbox.reads.snapshots import read_only
from router.outbox.state import crashes
from router.outbox.state.registers import segments
from router.outbox.upkeep import suppression

TRIES = 5  # while segments go away under our hands


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy holds: events accepted up to ``last``, in so many segments; ``bytes`` on disk. ``keys``: of clear values."""

    last: int
    segments: int
    bytes: int
    keys: bool


class _Gone(Exception):
    """A segment was retired while the copy was made."""


def copy(directory: Path, target: Path, *, keys: bool = True) -> Copied:
    """Copy the outbox in ``directory`` to ``target``, which must not be there yet; on disk when this returns.

    Without ``keys`` the copy can never open the clear values (IP addresses, user agents ...) that the log holds apart.
    OutboxError where there is nothing to copy, or the target is taken.
    """
    if not (directory / "state.db").exists():
        raise OutboxError(f"there is no outbox in {directory}: check [outbox] path")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutboxError(f"{target} is there already: name a directory that is not")
    for _ in range(TRIES):
        with contextlib.suppress(_Gone):
            return _whole_copy(directory, target, keys=keys)
    raise OutboxError("segments went away while they were copied: try again")


def _whole_copy(directory: Path, target: Path, *, keys: bool) -> Copied:
    full = f"{target} cannot be written: free some space there, or name another directory"
    try:
        with _part(target) as part:
            copied = _copy(directory, part, keys=keys)
            failpoint("backup_before_rename")
            if target.exists():
                target.rmdir()
            part.rename(target)
            sync(target.parent)
            return copied
    except OSError as error:
        raise OutboxError(full) from error
    except sqlite3.DatabaseError as error:
        if isinstance(fault(error), DiskFull):
            raise OutboxError(full) from error
        raise OutboxError(f"{directory} cannot be copied: run turnout doctor") from error


@contextlib.contextmanager
def _part(target: Path) -> Iterator[Path]:
    """Where it is put together, beside its place. Nothing is left of what fails: it may be all the room there was."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy(directory: Path, part: Path, *, keys: bool) -> Copied:
    (part / "log").mkdir(mode=0o700, parents=True)
    part.chmod(0o700)
    state = part / "state.db"
    _snapshot(directory / "state.db", state)
    _as_ended(state)
    if not keys:
        _without_keys(state)
    failpoint("backup_after_state")
    named = _segments(state)
    for segment in named:
        source = segment.path(directory)
        if not source.exists():
            raise _Gone
        _snapshot(source, segment.path(part))
    for each in (part / "log", part):
        sync(each)
    newest = named[-1] if named else None
    return Copied(
        last=0 if newest is None else _last(newest.path(part), newest),
        segments=len(named),
        bytes=sum(path.stat().st_size for path in part.rglob("*") if path.is_file()),
        keys=keys,
    )


def _snapshot(source: Path, target: Path) -> None:
    """One file as it is at one moment, synced, and folded: it needs no WAL beside it."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        reading = sqlite3.connect(read_only(source), uri=True)
    except sqlite3.OperationalError as error:
        raise _Gone from error
    writing = sqlite3.connect(target)
    try:
        reading.backup(writing)
    except sqlite3.OperationalError as error:
        if not source.exists():
            raise _Gone from error
        if error.sqlite_errorname.startswith("SQLITE_CANTOPEN"):  # the target is open
            raise OutboxError(f"{source} cannot be read: run turnout doctor") from error
        raise
    finally:
        writing.close()
        reading.close()
    sync(target)


def _as_ended(state: Path) -> None:
    """No process runs on the copy, and none was killed on it."""
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        crashes.end(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _without_keys(state: Path) -> None:
    with closing(sqlite3.connect(state, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("UPDATE segment SET key = NULL")
        connection.execute("VACUUM")  # what stood in free pages before goes as well
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _segments(state: Path) -> list[Segment]:
    with closing(sqlite3.connect(state)) as connection:
        return segments(connection)


def _last(path: Path, segment: Segment) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return entries.last(connection, segment)


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """``kept`` is where what was there is now. ``forgotten``: identifiers of people that it kept out and the backup did not;
    they are carried over. None where that could not be told.
    """

    kept: Path | None
    forgotten: int | None


def restore(source: Path, directory: Path) -> Restored:
    """Put a copy where the outbox is to be; what was there is kept beside it. Whoever was forgotten since stays so.

    OutboxError where the source is no copy, or a server runs on the directory.
    """
    if not (source / "state.db").exists():
        raise OutboxError(f"{source} is not a backup: it has no state.db")
    directory = directory.resolve()  # a link to it stays one, and so does its disk
    if directory.is_mount():
        raise OutboxError(f"{directory} is a mount, which cannot be set aside: set [outbox] path to a directory in it")
    if source.resolve() == directory.with_name(f"{directory.name}.part"):
        raise OutboxError(f"{source} is of a restore that was cut short: use the backup itself")
    kept = next(each for each in _places(directory) if not each.exists())
    with _owned(directory) as there, _part(directory) as part:
        forgotten = _put_together(source, part, directory)
        failpoint("restore_before_swap")
        if there:
            directory.rename(kept)
        elif directory.exists():
            directory.rmdir()
        failpoint("restore_between_swaps")
        part.rename(directory)
        sync(directory.parent)
    return Restored(kept=kept if there else None, forgotten=forgotten)


@contextlib.contextmanager
def _owned(directory: Path) -> Iterator[bool]:
    """Is anything there? Then nobody starts on it meanwhile: that process would go on in what was set aside."""
    if not (directory.exists() and any(directory.iterdir())):
        yield False
        return
    held = Lock(directory)
    try:
        yield True
    finally:
        held.release()


def _put_together(source: Path, part: Path, directory: Path) -> int | None:
    """The copy with whoever is kept out of ``directory``, on disk. Returns how many are new in it."""
    try:
        shutil.copytree(source, part)
        missing = [each for each in _segments(part / "state.db") if not each.path(part).exists()]
    except (shutil.Error, sqlite3.DatabaseError) as error:
        raise OutboxError(
            f"{source} cannot be copied to {part}: free some space there, or use another backup"
        ) from error
    if missing:
        raise OutboxError(f"{source} is not whole: {missing[0].path(Path()).name} is missing")
    forgotten = suppression.carry(directory / "state.db", part / "state.db")
    for path in [*part.rglob("*"), part]:
        path.chmod(0o700 if path.is_dir() else 0o600)
        sync(path)
    return forgotten


def _places(directory: Path) -> list[Path]:
    return [directory.with_name(f"{directory.name}.before{'' if number == 1 else number}") for number in range(1, 1000)]
