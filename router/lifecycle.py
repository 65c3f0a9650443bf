"""The states of a delivery (event x destination) and the moves between them: one table.

``sending`` exists in memory only: a process that dies while sending finds the delivery waiting again. ``held`` is not
a state of a delivery but of its lane.
"""

from __future__ import annotations

from typing import Literal

State = Literal["waiting", "delivered", "filtered", "dead", "erased"]

MOVES: dict[State, frozenset[State]] = {
    "waiting": frozenset({"waiting", "delivered", "filtered", "dead", "erased"}),
    "delivered": frozenset(),  # what a partner has, only the partner can erase
    "filtered": frozenset(),
    "dead": frozenset({"waiting", "erased"}),  # only an operator moves it back
    "erased": frozenset(),
}


def may_move(origin: State, target: State) -> bool:
    return target in MOVES[origin]
