"""Preparing: the items of one request go through the rules, and what of them may be stored is ready for the outbox.

Everything here is work for the processor, so it may be done in a process of its own (``router.collect.workers``); what
needs the outbox is ``intake``'s. A bad member costs its neighbours nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from router import door
from router.body import Body, Item
from router.collect.admission import SLICE, Turns
from router.collect.keys import Sender
from router.door import TurnedAway
from router.event import Event
from router.outbox import log
from router.outbox.log import Row
from router.problem import Problem

OVERHEAD = 512  # bytes, the work that even an empty item is


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


async def prepare(body: Body, sender: Sender, visit: door.Visit, new_id: Callable[[], str], turns: Turns) -> Prepared:
    """``new_id`` makes ids for events that bring none."""
    prepared = Prepared(sender.name, visit.received, body.single, time.perf_counter())
    done = 0
    for index, item in enumerate(body.items):
        done += item.size + OVERHEAD
        if done > SLICE:
            await turns.take(done, begun=True)
            done = 0
        entered = _entered(item, sender, visit, new_id)
        if isinstance(entered, Event):
            prepared.rows.append(log.row(entered))
            prepared.places.append(index)
        else:
            prepared.refused.append(_refused(entered, index))
    return prepared


def _entered(item: Item, sender: Sender, visit: door.Visit, new_id: Callable[[], str]) -> Event | TurnedAway:
    if item.problem is not None:
        return TurnedAway(problem=item.problem, scrubbed=door.remains(item.value))
    return door.admit(item.value, sender.door, visit, new_id, item.notes)


def _refused(turned_away: TurnedAway, index: int) -> Refused:
    kept = turned_away.scrubbed
    return Refused(
        msgspec.structs.replace(turned_away.problem, index=index),
        None if kept is None else msgspec.json.encode(kept).decode(),
    )
