"""Recall: what a rule made of a part of an event, remembered by that part's own JSON.

A visitor's own object, a device, a page and a product come again and again in what a shop sends, and encoding one to ask
for it takes a twentieth of reading it anew. JSON tells 1 from true and from 1.0, as no dictionary's key does.

What is remembered is bounded in number and in size, stays in memory and is written nowhere; ``forget`` empties all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

MOST: Final = 4096  # answers a rule remembers
LONGEST: Final = 1024  # bytes of JSON; longer parts are seldom the same again

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_memories: Final[list[Callable[[], None]]] = []


def recalled(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """
    ``read``, remembering its answers. It must depend on nothing but the JSON value it is given, and nobody may change
    what it answers.
    """

    @lru_cache(maxsize=MOST)
    def remembered(sent: bytes) -> T:
        return read(_decode(sent))

    def recall(value: Any) -> T:
        try:
            sent = _encode(value)
        except (UnicodeEncodeError, OverflowError):  # half a surrogate pair, or a number beyond 64 bits
            return read(value)
        return remembered(sent) if len(sent) <= LONGEST else read(value)

    _memories.append(remembered.cache_clear)
    return recall


def forget() -> None:
    """Empty every memory, as an erasure asks."""
    for clear in _memories:
        clear()
