"""What the statements of several modules are made with."""

from __future__ import annotations

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
