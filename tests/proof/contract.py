"""Proof: the outbox does what its contract says, whatever is asked of it in whatever order, and whenever it is killed.

Hypothesis draws sequences of acts (append, read, settle, retry, hold, kill, clock, reload, replay, forget, retention); the
machine of ``tests.conformance`` does each to the outbox and to a model in plain dictionaries, and compares the two after
every step. One JSON line says the verdict; a failure is shrunk and shown on stderr.

    python -m tests.proof.contract --sequences 400 --steps 60 --seed 1

The controls must fail: ``--sabotage Forgetful`` and the other outboxes of this module each break one promise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import traceback
from collections.abc import Sequence

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from router.outbox.log.entries import Row
from router.outbox.outbox import Outbox
from router.outbox.state.deliveries import Attempt, Closing, Mark
from router.outbox.state.lane import Lane
from tests.conformance import Conformance, Engine, suite


def tried(
    machine: type[Conformance], *, examples: int, steps: int, seed: int | None = None, **settings: object
) -> type[Conformance]:
    """Runs so many sequences of so many steps. Returns the machine, which counted them."""
    if seed is not None:
        hypothesis.seed(seed)(machine)
    chosen = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **settings,
    )
    run_state_machine_as_test(machine, settings=chosen)
    return machine


# Controls: an outbox that breaks one promise must not pass.


class Forgetful(Outbox):
    """Says that it has the last event of a larger request, and has not."""

    async def append(self, rows: Sequence[Row]) -> list[bool]:
        kept = rows[:-1] if len(rows) > 2 else rows
        return [*await super().append(kept), *[False] * (len(rows) - len(kept))]


class Hasty(Outbox):
    """Says that it has events before they are on disk."""

    async def append(self, rows: Sequence[Row]) -> list[bool]:
        async def later() -> None:
            await asyncio.sleep(0.1)
            await super(Hasty, self).append(rows)

        self.later = asyncio.create_task(later())
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
            await self._transact(
                lambda unit: unit.execute("UPDATE lane SET delivered = delivered + 1 WHERE id = ?", (lane.id,))
            )


class Leaking(Outbox):
    """Leaves what it erased in the log that is written ahead."""

    async def _fold(self) -> None: ...


BROKEN = {each.__name__: each for each in (Forgetful, Hasty, Careless, Boastful, Leaking)}


def prove(*, sequences: int, steps: int, seed: int, sabotage: str | None = None) -> dict[str, object]:
    """Run it; the verdict is "ok" or "broken"."""

    class Tried(Engine):
        opens = BROKEN[sabotage] if sabotage else Outbox

    machine = suite(Tried())
    began, verdict = time.monotonic(), "ok"
    phases = [Phase.generate] if sabotage else [Phase.generate, Phase.shrink]
    try:
        tried(machine, examples=sequences, steps=steps, seed=seed, phases=phases)
    except AssertionError:
        traceback.print_exc()
        verdict = "broken"
    return {
        "proof": "contract",
        "seed": seed,
        "sequences": sequences,
        "steps": machine.counted["steps"],
        "operations": machine.counted["operations"],
        "kills": machine.counted["kills"],
        "seconds": round(time.monotonic() - began),
        "control": sabotage,
        "verdict": verdict,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--sequences", type=int, default=400)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sabotage", choices=sorted(BROKEN))
    chosen = options.parse_args()
    result = prove(sequences=chosen.sequences, steps=chosen.steps, seed=chosen.seed, sabotage=chosen.sabotage)
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
