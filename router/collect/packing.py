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
    """The items in order, in as few bodies as the limits allow; one that is too large is there with its problem."""
    texts: list[bytes] = []
    size = 2
    for item in items:
        text = _encode(item)
        if len(text) > bodies.MAX_EVENT:
            yield Body(items=[Item(size=len(text), problem=_too_large())])
            continue
        if texts and (len(texts) >= MOST or size + len(text) + 1 > bodies.MAX_REQUEST):
            yield _read(texts)
            texts, size = [], 2
        texts.append(text)
        size += len(text) + 1
    if texts:
        yield _read(texts)


def _read(texts: list[bytes]) -> Body:
    read = bodies.read(b"[" + b",".join(texts) + b"]")
    if isinstance(read, Malformed):  # what was encoded here is JSON, within the limits
        raise TypeError(read.code)
    return read


def _too_large() -> Problem:
    message = f"the event is larger than {bodies.MAX_EVENT} bytes and was left out; ask the partner for less with it"
    return Problem(code="event_too_large", message=message)
