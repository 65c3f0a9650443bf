"""The floor: lanes make their requests one after the other, and everybody else has the event loop in between."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest

from destinations.webhook import Webhook
from router.delivery.floor import SHARE, TURNS, Floor
from router.mocks.partner import Trouble
from router.outbox.outbox import Outbox
from tests.builders import many
from tests.stepped import SteppedClock
from tests.test_delivery import lanes as running_lanes
from tests.test_delivery import until


class Processor:
    """A clock of work: nothing passes while nobody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def shared(processor: Processor, *, others: float) -> tuple[list[str], list[tuple[float, int]]]:
    """Three lanes that each work for two ms, beside others who work so long in every turn of the loop. The lanes in their
    order, and what of the others came before each of them, as time and as turns.
    """
    floor, order, before = Floor(processor), list[str](), list[tuple[float, int]]()
    worked, turns = 0.0, 0

    async def lane(name: str) -> None:
        nonlocal worked, turns
        async with floor.turn():
            order.append(name)
            before.append((worked, turns))
            processor.now += 0.002
            worked, turns = 0.0, 0

    async def everybody() -> None:
        nonlocal worked, turns
        while len(order) < 3:
            processor.now += others
            worked += others
            turns += 1
            await asyncio.sleep(0)

    await asyncio.gather(lane("first"), lane("second"), lane("third"), everybody())
    return order, before


@pytest.mark.parametrize("others", [0.0005, 0.001, 0.008])
async def test_a_busy_loop_is_everybody_elses_for_several_times_as_long(others: float):
    """
    Whoever asked first is first, and after each lane's two milliseconds others have SHARE times as much, and the turn
    that they are in.
    """
    order, before = await shared(Processor(), others=others)
    assert ["first", "second", "third"] == order
    for worked, _ in before[1:]:
        assert SHARE * 0.002 <= worked + 1e-9 < SHARE * 0.002 + 2 * others


async def test_a_lane_that_nobody_competes_with_waits_for_nothing():
    """
    Where the loop is idle the next lane is not kept waiting; but what has come is read and worked on before.
    """
    order, before = await shared(Processor(), others=0.00001)
    assert ["first", "second", "third"] == order
    assert all(TURNS <= turns <= TURNS + 1 for _, turns in before[1:])


async def test_time_in_which_the_process_was_stopped_is_not_time_for_others():
    """
    The clock went on while nobody worked; the loop still goes round before the next lane.
    """
    processor = Processor()
    floor, seen = Floor(processor), list[str]()

    async def others() -> None:
        seen.append("others")

    async with floor.turn():
        processor.now += 0.002
    asyncio.get_running_loop().create_task(others())  # it ends in the next turn of the loop
    processor.now += 60
    async with floor.turn():
        assert ["others"] == seen


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
    assert all(later > earlier for earlier, later in itertools.pairwise(wrote))


async def test_a_lane_makes_one_batch_in_its_turn(store: Outbox, clock: SteppedClock, monkeypatch):
    """
    However far behind it is: senders wait for one batch at most.
    """
    wrote = await turns_of_writing(store, clock, monkeypatch, lanes=("a",), events=3000, batches=6)
    assert all(later > earlier for earlier, later in itertools.pairwise(wrote))


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
