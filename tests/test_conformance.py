"""The outbox does what its contract says, whatever is asked of it in whatever order, and whenever it is killed."""

from __future__ import annotations

import pytest
from hypothesis import Phase

from router.outbox.outbox import Outbox
from tests.builders import an_event, rows
from tests.conformance import POLICIES, Engine, suite
from tests.proof.contract import Boastful, Careless, Forgetful, Hasty, Leaking, prove, tried


def test_the_outbox_keeps_its_contract():
    """
    Any acts in any order, with kills between any two units of work: nothing acknowledged is lost, doubled or miscounted.
    """
    machine = tried(suite(Engine()), examples=10, steps=25, derandomize=True)

    assert 100 < machine.counted["operations"]
    assert 5 < machine.counted["kills"]


@pytest.mark.proof
def test_the_outbox_keeps_its_contract_over_many_steps():
    """
    The long form.
    """
    result = prove(sequences=400, steps=60, seed=1)

    assert "ok" == result["verdict"], result


def test_a_kill_may_fall_before_a_commit():
    """
    What the log is to store is a unit of work like any other: the machine can pull the plug in front of it.
    """
    machine, found = suite(Engine())(), list[int]()
    machine.first_start(POLICIES[0], 1)

    async def appended() -> list[bool]:
        machine.loop.fuse, machine.loop.blow = 0, lambda: found.append(machine.store.last)
        return await machine.store.append(rows(an_event()))

    try:
        assert [False] == machine.run(appended())
    finally:
        machine.teardown()
    assert [0] == found


@pytest.mark.parametrize(
    ("broken", "steps"),
    [
        (Forgetful, 15),
        (Hasty, 15),
        (Careless, 40),  # a segment must go before anything is missed
        (Boastful, 40),
        pytest.param(Leaking, 40, marks=pytest.mark.proof),
    ],
)
def test_an_outbox_that_breaks_a_promise_does_not_pass(broken: type[Outbox], steps: int):
    """
    The controls.
    """

    class Broken(Engine):
        opens = broken

    with pytest.raises(AssertionError):
        tried(suite(Broken()), examples=150, steps=steps, seed=6, phases=[Phase.generate])
