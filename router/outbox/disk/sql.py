"""What the statements of several modules are made with."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

import msgspec

ROWS_AT_ONCE = 5_000  # in one transaction: everybody waits behind it


def array(values: Iterable[object]) -> str:
    """For json_each: as many values as one likes, bound as one."""
    return msgspec.json.encode(list(values)).decode()


def parts(seqs: Sequence[int]) -> Iterator[Sequence[int]]:
    """A transaction's worth at a time."""
    for start in range(0, len(seqs), ROWS_AT_ONCE):
        yield seqs[start : start + ROWS_AT_ONCE]


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; the connection is in autocommit before and after."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
