"""Clocks that jump: a short form, the long one, and the control that must fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proof.clock import prove


async def proved(**how: Any) -> dict[str, Any]:
    result = await prove(**how)
    if result["verdict"].startswith("unavailable"):
        pytest.skip(result["verdict"])
    return result


async def test_no_burst_no_freeze_and_nothing_expires():
    """
    While events wait in back-off the clock goes a year ahead, and then two back.
    """
    result = await proved(jumps=["a year ahead", "a year behind"], restarts=False)

    assert "ok" == result["verdict"], result


async def test_waits_by_the_wall_clock_are_caught():
    """
    The control: with waits that end when the wall clock says so, a jump expires or freezes what waits.
    """
    result = await proved(jumps=["a year ahead"], restarts=False, sabotage=True)

    assert "expired" in result["verdict"] or "frozen" in result["verdict"], result


@pytest.mark.proof
async def test_every_jump():
    """
    The long form: to the epoch, too, and between two processes.
    """
    result = await proved()

    assert "ok" == result["verdict"], result
