"""The outbox does what its contract says, whatever is asked of it in whatever order, and whenever it is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from router.outbox.lane import Lane
from router.outbox.log import Row
from router.outbox.outbox import Outbox
from router.outbox.state import Attempt, Closing, Mark
from tests.conformance import Conformance, Engine, suite


def tried(engine: Engine, *, examples: int, steps: int, **settings: object) -> type[Conformance]:
    """Runs so many sequences of so many steps. Returns the machine, which counted them."""
    machine = suite(engine)
    chosen = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **settings,
    )
    run_state_machine_as_test(machine, settings=chosen)
    return machine


def test_the_outbox_keeps_its_contract():
    """
    Any acts in any order, with kills between any two units of work: nothing acknowledged is lost, doubled or miscounted.
    """
    machine = tried(Engine(), examples=10, steps=25, derandomize=True)

    assert 100 < machine.counted["operations"]
    assert 5 < machine.counted["kills"]


@pytest.mark.proof
def test_the_outbox_keeps_its_contract_over_many_steps():
    """
    The long form: new sequences at every run.
    """
    tried(Engine(), examples=400, steps=60, print_blob=True)


# Controls: an outbox that breaks one promise must not pass.


class Forgetful(Outbox):
    """Says that it has the last event of a larger request, and has not."""

    async def append(self, rows: Sequence[Row]) -> list[bool]:
        kept = rows[:-1] if len(rows) > 2 else rows
        return [*await super().append(kept), *[False] * (len(rows) - len(kept))]


class Hasty(Outbox):
    """Says that it has events before they are on disk."""

    async def append(self, rows: Sequence[Row]) -> list[bool]:
        self.later = asyncio.create_task(super().append(rows))
        await asyncio.sleep(0)
        return [False] * len(rows)


class Careless(Outbox):
    """Forgets what waits or is dead when its segment goes."""

    async def _recover(self, *arguments: object) -> None:
        await super()._recover(*arguments)

        async def nothing(*_: object) -> None: ...

        self.retention._keep = nothing


class Boastful(Outbox):
    """Counts what it delivered once more."""

    async def settle(
        self, lane: Lane, marks: Sequence[Mark], attempts: Sequence[Attempt] = (), closing: Sequence[Closing] = ()
    ) -> None:
        await super().settle(lane, marks, attempts, closing)
        if any(mark.state == "delivered" and mark.seqs for mark in marks):
            await self._written(
                lambda unit: unit.execute("UPDATE lane SET delivered = delivered + 1 WHERE id = ?", (lane.id,))
            )


class Leaking(Outbox):
    """Leaves what it erased in the log that is written ahead."""

    async def _fold(self) -> None: ...


@pytest.mark.parametrize(
    "broken",
    [
        Forgetful,
        Careless,
        Boastful,
        pytest.param(Hasty, marks=pytest.mark.proof),
        pytest.param(Leaking, marks=pytest.mark.proof),
    ],
)
def test_an_outbox_that_breaks_a_promise_does_not_pass(broken: type[Outbox]):
    """
    The controls.
    """

    class Broken(Engine):
        opens = broken

    with pytest.raises(AssertionError):
        tried(Broken(), examples=60, steps=40, derandomize=True, database=None, phases=[Phase.generate])
