"""Items that were made here, from a partner's answer or webhook, as bodies: the limits are those of what is sent.

A partner's page may hold more events than one request of a sender's, so it may become several bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from router import body as bodies
from router.body import Body, Item
from router.problem import Malformed, Problem

MOST = 500  # items in one body, and one commit

_encode = msgspec.json.Encoder().encode


def packed(items: Iterable[dict[str, Any]]) -> Iterator[Body]:
    """The items in order, in as few bodies as the limits allow; one beyond them stands by itself, with its problem."""
    texts: list[bytes] = []
    size = 2
    for item in items:
        text = _encoded(item)
        if isinstance(text, Item):
            yield Body(items=[text])
            continue
        if texts and (len(texts) >= MOST or size + len(text) + 1 > bodies.MAX_REQUEST):
            yield _read(texts)
            texts, size = [], 2
        texts.append(text)
        size += len(text) + 1
    if texts:
        yield _read(texts)


def _encoded(item: dict[str, Any]) -> bytes | Item:
    try:
        text = _encode(item)
    except RecursionError:  # it was decoded where there was more room
        return _left_out(0, "too_deep", "is nested too deeply")
    if len(text) > bodies.MAX_EVENT:
        return _left_out(len(text), "event_too_large", f"is larger than {bodies.MAX_EVENT} bytes")
    if bodies.is_bottomless(text):
        return _left_out(len(text), "too_deep", "is nested too deeply")
    return text


def _left_out(size: int, code: str, why: str) -> Item:
    message = f"the event {why} and was left out; ask the partner for less with it"
    return Item(size=size, problem=Problem(code=code, message=message))


def _read(texts: list[bytes]) -> Body:
    read = bodies.read(b"[" + b",".join(texts) + b"]")
    if isinstance(read, Malformed):  # what was encoded here is JSON, within the limits
        raise TypeError(read.code)
    return read
