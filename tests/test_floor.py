"""The floor: lanes make their requests one after the other, with room for everybody else between them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

from destinations.webhook import Webhook
from router.delivery.batching import FAR, SEVERAL
from router.delivery.floor import TURNS, Floor
from router.mocks.partner import Trouble
from router.outbox.outbox import Outbox
from tests.builders import many
from tests.stepped import SteppedClock
from tests.test_delivery import lanes as running_lanes
from tests.test_delivery import until


async def test_before_each_lane_everybody_else_has_some_turns():
    """
    Whoever asked first is first, and the event loop goes round some times in between, however many lanes wait.
    """
    floor, order = Floor(), list[str]()

    async def lane(name: str) -> None:
        async with floor.turn():
            order.append(name)

    async def others() -> None:
        while "third" not in order:
            order.append(".")
            await asyncio.sleep(0)

    await asyncio.gather(lane("first"), lane("second"), lane("third"), others())
    between = "".join(order).replace("first", "|").replace("second", "|").replace("third", "|").split("|")
    assert ["first", "second", "third"] == [each for each in order if each != "."]
    assert all(len(each) >= TURNS for each in between[:3])


async def test_who_fails_on_the_floor_gives_it_back():
    """
    A fault in one lane keeps no other from its requests.
    """
    floor = Floor()

    async def failing() -> None:
        async with floor.turn():
            raise RuntimeError

    await asyncio.gather(failing(), return_exceptions=True)
    async with asyncio.timeout(5), floor.turn():
        pass


async def test_lanes_of_one_engine_do_not_write_in_the_same_turn_of_the_loop(
    store: Outbox, clock: SteppedClock, monkeypatch
):
    """
    All lanes wake at the same event; between the requests of two of them the loop goes round.
    """
    wrote = await turns_of_writing(store, clock, monkeypatch, lanes=("a", "b", "c"), events=5, batches=3)
    assert all(later - earlier >= TURNS for earlier, later in itertools.pairwise(wrote))


async def test_a_lane_that_keeps_up_makes_one_batch_in_its_turn(store: Outbox, clock: SteppedClock, monkeypatch):
    """
    However much came at once: senders wait for one batch at most.
    """
    wrote = await turns_of_writing(store, clock, monkeypatch, lanes=("a",), events=FAR - 100, batches=6)
    assert all(later - earlier >= TURNS for earlier, later in itertools.pairwise(wrote))


async def test_a_lane_that_is_far_behind_makes_several_batches_in_its_turn(
    store: Outbox, clock: SteppedClock, monkeypatch
):
    """
    Where senders are many every turn is long, and with one batch in each of its own a lane would never catch up.
    """
    wrote = await turns_of_writing(store, clock, monkeypatch, lanes=("a",), events=FAR + 100, batches=6)
    assert [SEVERAL] == [len(list(same)) for _, same in itertools.groupby(wrote)][:1]


async def turns_of_writing(
    store: Outbox, clock: SteppedClock, monkeypatch, *, lanes: Sequence[str], events: int, batches: int
) -> list[int]:
    """In which turn of the loop each of so many batches of 100 was made, for a partner that never answers."""
    turn, wrote = 0, list[int]()
    honest = Webhook.requests

    def noted(self, events, now):
        wrote.append(turn)
        return honest(self, events, now)

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Webhook, "requests", noted)
    wanted = {name: {"kind": "webhook", "batch": 100, "trouble": [Trouble(hang=True)]} for name in lanes}
    counting = asyncio.create_task(count())
    try:
        async with running_lanes(store, clock, **wanted):
            await store.append(many(events))
            await until(lambda: len(wrote) >= batches)
    finally:
        counting.cancel()
    return wrote
