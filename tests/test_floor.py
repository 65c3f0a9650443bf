"""The floor: lanes make their requests one after the other, with room for everybody else between them."""

from __future__ import annotations

import asyncio
import itertools

from destinations.webhook import Webhook
from router.delivery.engine import Delivery
from router.delivery.floor import TURNS, Floor
from router.outbox.outbox import Outbox
from router.secret import Secret
from tests.builders import many
from tests.stepped import SteppedClock
from tests.test_delivery import until

SIGNING = Secret("whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD")


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
    delivery = Delivery(store, clock)
    hook = {"url": "http://127.0.0.1:9/hook", "secrets": (SIGNING,), "allow_private": True, "batch": 100}
    await delivery.apply({name: Webhook(**hook) for name in ("a", "b", "c")})
    counting = asyncio.create_task(count())
    try:
        await store.append(many(5))
        await until(lambda: len(wrote) >= 3)
    finally:
        counting.cancel()
        await delivery.stop(1.0)

    assert all(later - earlier >= TURNS for earlier, later in itertools.pairwise(wrote))
