"""A disk that fails, stalls or is full loses nothing that was acknowledged: short forms, long ones, and their controls."""

from __future__ import annotations

from typing import Any

import pytest

from tests.proof.disk import prove


async def proved(name: str, **how: Any) -> dict[str, Any]:
    result = await prove(name, **how)
    if result["verdict"].startswith("unavailable"):
        pytest.skip(result["verdict"])
    return result


@pytest.mark.parametrize("name", ["sync", "stall", "full", "low", "limit"])
async def test_no_acknowledged_event_is_lost_to_the_disk(name: str):
    """
    A failing sync ends the process; a slow or a full disk refuses senders at once and passes by itself.
    """
    result = await proved(name)

    assert "ok" == result["verdict"], result
    assert 20 <= result["acknowledged"]


async def test_a_build_that_believes_the_second_sync_is_caught():
    """
    The control: a sync that failed is tried again and succeeds, and what it was to save is gone; where the state knows
    of more, the next start says so.
    """
    result = await proved("sync", seed=4, rounds=8, sabotage=True)  # one round nearly always shows it

    assert result["verdict"] in {"lost", "the server did not start"}, result


async def test_without_a_ballast_nothing_can_be_written_down():
    """
    The control: on a full disk, what partners took cannot be settled without room of its own.
    """
    result = await proved("full", sabotage=True)

    assert "not within" in result["verdict"], result


@pytest.mark.proof
@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        ("sync", 50),
        ("stall", 3),
        ("full", 10),
        ("quota", 10),
        ("low", 10),
        ("readonly", 5),
        ("limit", 5),
        ("tmpfs", 10),
    ],
)
async def test_many_times(name: str, rounds: int):
    """
    The long form; ``tmpfs`` is a real file system that is really full.
    """
    result = await proved(name, rounds=rounds)

    assert "ok" == result["verdict"], result
