"""Preparing: one request is read, its items go through the rules, and what of them may be stored is ready for the outbox.

Everything here is work for the processor, so it may be done in a process of its own (``router.collect.workers``); what
needs the outbox is ``intake``'s. A bad member costs its neighbours nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uuid_utils

from router import body as bodies
from router import door
from router.body import Body, Item
from router.collect import keys
from router.collect.keys import Sender
from router.event import Event
from router.failpoint import failpoint
from router.outbox.log import entries
from router.outbox.log.entries import Row
from router.problem import Malformed, Problem
from router.visit import TurnedAway, Visit

OVERHEAD = 512  # bytes, the work that even an empty item is

UNAUTHORIZED = Malformed(
    status=401, code="unauthorized", message="no source has this key; check token, site and how it is sent"
)
_DISABLED = Malformed(status=403, code="source_disabled", message="this source is switched off; ask its operator")


def new_id() -> str:
    """For an event that brings none."""
    return str(uuid_utils.uuid7())


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """Not acceptable. ``item`` is what may be kept of it, scrubbed, as JSON."""

    problem: Problem
    item: str | None = None


class Prepared(msgspec.Struct, array_like=True, gc=False):
    """What of a request may be stored. ``places`` are the rows' indexes in it; ``began`` is of ``time.perf_counter``,
    which all processes of a machine share.
    """

    source: str
    received: int
    single: bool
    began: float
    rows: list[Row] = []
    places: list[int] = []
    refused: list[Refused] = []


class Job:
    """A request that is whole, until it is answered.

    Its ``body`` is as it came, with its Content-Encoding, or read already. ``find`` finds its sender, where the key is in
    the body. ``done`` is told what became of it, once: an ``Answer`` (or one that is encoded), a ``Malformed``, or a fault.
    ``worked``: bytes that the last stretch of work was, whatever came of it.
    """

    __slots__ = (
        "_at",
        "_begun",
        "_items",
        "body",
        "done",
        "encoding",
        "find",
        "prepared",
        "sender",
        "strict",
        "visit",
        "worked",
    )

    def __init__(
        self,
        body: bytes | Body,
        sender: Sender | None,
        visit: Visit,
        done: Callable[[Any], None],
        encoding: str | None = None,
        strict: bool = False,
    ) -> None:
        self.body, self.sender, self.visit, self.done = body, sender, visit, done
        self.encoding, self.strict = encoding, strict
        self.find: Callable[[Body], Sender | None] | None = None
        self.worked = 0
        self._begun = False
        self._items: Sequence[Item] = ()
        self._at = 0
        self.prepared: Prepared

    def work(self, most: int, new_id: Callable[[], str], *, remember: bool = False) -> Malformed | None:
        """Go on for about ``most`` bytes; returns why nothing of this request can be taken, if so. ``new_id`` makes ids
        for events that bring none. Rows ``remember`` their events where lanes wait for them.
        """
        self.worked = 0
        if not self._begun and (refused := self._begin()) is not None:
            return refused
        items = self._items
        prepared, sender, at, worked = self.prepared, self.sender, self._at, self.worked
        while at < len(items) and worked < most:
            item = items[at]
            worked += item.size + OVERHEAD
            entered = _entered(item, sender, self.visit, new_id)  # type: ignore[arg-type]  # it has begun
            if isinstance(entered, Event):
                prepared.rows.append(entries.row(entered, remember=remember))
                prepared.places.append(at)
            else:
                prepared.refused.append(_refused(entered, at))
            at += 1
        self._at, self.worked = at, worked
        return None

    @property
    def through(self) -> bool:
        """Nothing of it is left to prepare."""
        return self._begun and self._at == len(self._items)

    def _begin(self) -> Malformed | None:
        """Read it. Its items are worked on later; what it is beside them was work here, and all of it where none is taken."""
        failpoint("collect_after_read")
        if self.sender is not None and not self.sender.enabled:
            return _DISABLED
        body = self._read()
        if isinstance(body, Malformed):
            return body
        if self.sender is None and self.find is not None:
            self.sender = self.find(body)
        if self.sender is None:
            return UNAUTHORIZED
        if not self.sender.enabled:
            return _DISABLED
        if body.wrapper:
            self.visit = msgspec.structs.replace(self.visit, wrapper=body.wrapper)
        self.prepared = Prepared(self.sender.name, self.visit.received, body.single, time.perf_counter())
        self._items, self._begun = body.items, True
        self.worked = max(0, self.worked - body.size)  # repaired, the items are larger than they came
        return None

    def _read(self) -> Body | Malformed:
        if isinstance(self.body, Body):
            self.worked = self.body.size
            return self.body
        self.worked = len(self.body) if self.encoding is None else bodies.most_inflated(self.body)
        text = bodies.opened(self.body, self.encoding)
        if isinstance(text, Malformed):
            return text
        self.worked = len(text)
        if self.sender is None and not keys.may_be_in(text):
            return UNAUTHORIZED
        return bodies.parsed(text, strict_utf8=self.strict)


def _entered(item: Item, sender: Sender, visit: Visit, new_id: Callable[[], str]) -> Event | TurnedAway:
    if item.problem is not None:
        return TurnedAway(problem=item.problem, scrubbed=door.remains(item.value))
    return door.admit(item.value, sender.door, visit, new_id, item.notes)


def _refused(turned_away: TurnedAway, index: int) -> Refused:
    kept = turned_away.scrubbed
    return Refused(
        msgspec.structs.replace(turned_away.problem, index=index),
        None if kept is None else msgspec.json.encode(kept).decode(),
    )
