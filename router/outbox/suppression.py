"""Who was erased and must not come back: keyed digests of their marks, so that the file cannot be joined with an audience.

The key is made with the outbox and stays in its state.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterable

from router.event import User
from router.person import marks_of

_SECRET = "suppression"  # noqa: S105 - the name of a row


def load(connection: sqlite3.Connection) -> tuple[bytes, list[bytes]]:
    """The key, made on the first call, and the digests there are."""
    connection.execute("INSERT OR IGNORE INTO meta VALUES(?, ?)", (_SECRET, os.urandom(32)))
    secret = connection.execute("SELECT value FROM meta WHERE key = ?", (_SECRET,)).fetchone()[0]
    return secret, [digest for (digest,) in connection.execute("SELECT digest FROM suppressed")]


def add(connection: sqlite3.Connection, digests: Iterable[bytes], now: int) -> None:
    connection.executemany("INSERT OR IGNORE INTO suppressed VALUES(?, ?)", [(each, now) for each in digests])


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

    def blocks(self, user: User) -> bool:
        """Is this somebody who was erased?"""
        return bool(self._digests) and not self._digests.isdisjoint(self.digests(marks_of(user)))
