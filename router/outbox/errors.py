"""Faults of the outbox. What a sender or a partner does wrong is never one of these.

OutboxError             the directory cannot be used: locked, newer schema, missing parts, unsafe settings
├── Locked              another process owns it
└── NotDurable          this write is not on disk; nothing was acknowledged
    ├── Busy            too much is waiting for the disk; try again
    ├── DiskFull        no space; recovers by itself
    └── Broken          the disk failed or the file is damaged: the process must stop
"""

from __future__ import annotations

import errno
import sqlite3


class OutboxError(Exception):
    """The outbox cannot be used as it is. The message says what to do."""


class Locked(OutboxError):
    """Another process owns the directory."""


class NotDurable(OutboxError):
    """The write did not reach the disk."""

    code = "not_durable"


class Busy(NotDurable):
    code = "busy"


class DiskFull(NotDurable):
    code = "disk_full"


class Broken(NotDurable):
    code = "broken"


NO_ROOM = "the disk of the outbox takes nothing: free some space, acceptance resumes by itself"

# No space, a quota, a read-only remount, no inode or descriptor left: nothing was damaged, and it passes.
_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR_SHMSIZE")
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}
_FEW = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def fault(error: sqlite3.Error) -> NotDurable:
    """What a failed write means. A failed fsync is never tried again (PostgreSQL wiki, "Fsync Errors"): Broken."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(_NO_ROOM):
        return DiskFull(NO_ROOM)
    if damaged(error):
        return Broken(f"a file of the outbox is damaged ({name}): turnout doctor says which, restore it from a backup")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy("the outbox is locked by another program: close it")
    return Broken(f"the outbox cannot be written ({name or type(error).__name__}): check the disk, then start again")


def damaged(error: sqlite3.Error) -> bool:
    """Does it say that the file is not what SQLite once wrote?"""
    return (getattr(error, "sqlite_errorname", "") or "").startswith(_DAMAGED)


def meaning(error: Exception) -> NotDurable:
    """What any fault of a write means. An error of the disk outside of SQLite (a sync of ours) is as final as one in it."""
    if isinstance(error, NotDurable):
        return error
    if isinstance(error, sqlite3.Error):
        return fault(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        return DiskFull(NO_ROOM)
    if isinstance(error, OSError) and error.errno in _FEW:
        return Busy("the outbox cannot open a file: raise the limit of open files")
    return Broken(f"the outbox failed ({type(error).__name__}): check the disk, then start again")
