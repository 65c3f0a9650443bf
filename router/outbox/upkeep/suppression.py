"""Who was erased and must not come back: keyed digests of their marks, so that the file cannot be joined with an audience.

The key is made with the outbox and stays in its state. A backup that is taken back is of a time before some of them asked:
they are carried over to it, and the next start erases what it holds of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

from router.event import Event
from router.outbox.disk.sql import transaction
from router.person import Part, marks_of

_SECRET = "suppression"  # noqa: S105 - the name of a row
_DUE = "forget_again"  # the name of another: what the log holds of them is still to be erased


def load(connection: sqlite3.Connection) -> tuple[bytes, list[bytes]]:
    """The key, made on the first call, and the digests there are."""
    connection.execute("INSERT OR IGNORE INTO meta VALUES(?, ?)", (_SECRET, os.urandom(32)))
    secret = connection.execute("SELECT value FROM meta WHERE key = ?", (_SECRET,)).fetchone()[0]
    return secret, [digest for (digest,) in connection.execute("SELECT digest FROM suppressed")]


def add(connection: sqlite3.Connection, digests: Iterable[bytes], now: int) -> None:
    connection.executemany("INSERT OR IGNORE INTO suppressed VALUES(?, ?)", [(each, now) for each in digests])


def carry(source: Path, target: Path) -> int | None:
    """Keep out of one state file whoever is kept out of another; nobody has either open. Returns how many digests are
    new there, or None where the two cannot be compared: one is unreadable, or each has a key and digests of its own.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading:
            secret, known = _kept(reading)
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as writing:
            return _carried(writing, secret, known)
    except sqlite3.Error:
        return None


def _carried(target: sqlite3.Connection, secret: bytes | None, known: Mapping[bytes, int]) -> int | None:
    own, there = _kept(target)
    if not (new := known.keys() - there.keys()):
        return 0
    if own != secret and there:
        return None
    with transaction(target):
        target.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (_SECRET, secret))
        target.executemany("INSERT INTO suppressed VALUES(?, ?)", [(each, known[each]) for each in new])
        target.execute("INSERT OR REPLACE INTO meta VALUES(?, 1)", (_DUE,))
    return len(new)


def _kept(connection: sqlite3.Connection) -> tuple[bytes | None, dict[bytes, int]]:
    """The key, and when each digest came."""
    found = connection.execute("SELECT value FROM meta WHERE key = ?", (_SECRET,)).fetchone()
    return None if found is None else found[0], dict(connection.execute("SELECT digest, at FROM suppressed"))


def due(connection: sqlite3.Connection) -> bool:
    """Does the log still hold events of people who are kept out?"""
    return connection.execute("SELECT 1 FROM meta WHERE key = ?", (_DUE,)).fetchone() is not None


def done(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM meta WHERE key = ?", (_DUE,))


class Suppression:
    """All of them in memory: an event is looked up without a disk."""

    def __init__(self, secret: bytes, digests: Iterable[bytes]) -> None:
        self._secret, self._digests = secret, set(digests)

    def __len__(self) -> int:
        return len(self._digests)

    def digests(self, marks: Iterable[str]) -> list[bytes]:
        return [hmac.digest(self._secret, mark.encode("utf-8", "surrogatepass"), hashlib.sha256) for mark in marks]

    def add(self, digests: Iterable[bytes]) -> None:
        self._digests.update(digests)

    def blocks(self, event: Event | Part) -> bool:
        """Is this of somebody who was erased?"""
        return self.knows(marks_of(event))

    def knows(self, marks: Iterable[str]) -> bool:
        """Is any of these marks of somebody who was erased?"""
        return bool(self._digests) and not self._digests.isdisjoint(self.digests(marks))
