"""The failpoints: where they are, that a life passes them all, some of the faults, and the control that must fail."""

from __future__ import annotations

import pytest

from router.failpoint import EVERY, armed
from tests.proof.failpoints import FAULTS, POINTS, Fault, faults, in_the_code, live, prove


def test_the_proof_knows_every_point_of_the_code():
    """
    A point that is added to the code and not to the table, or written twice, is noticed.
    """
    assert sorted(POINTS) == sorted(in_the_code())
    assert 25 <= len(POINTS)


async def test_a_life_comes_by_every_point():
    """
    One server, with everything that it does in its life: no point of the table is out of reach.
    """
    result = await live(f"{EVERY}=trace", seed=1)

    assert "ok" == result["verdict"], result
    assert set() == set(POINTS) - result["passed"]


@pytest.mark.parametrize(
    "fault", ["append_after_commit=kill@20", "lane_after_take=raise@25", "settle_after_write=eio@25"]
)
async def test_nothing_is_lost_and_nothing_is_wedged(fault: str):
    """
    Killed with events on disk that nobody was told of; a fault of ours with events in hand; the disk fails behind a commit.
    """
    result = await live(fault, seed=1)

    assert "ok" == result["verdict"], result
    assert fault.partition("=")[0] in result["passed"]


async def test_a_server_that_answers_before_it_commits_is_caught():
    """
    The control: killed before the commit, it loses what it acknowledged.
    """
    for seed in range(1, 5):  # the first shows it, but on a machine that is too busy to answer
        result = await prove([Fault("append_before_begin", "kill", 1)], seed=seed, sabotage=True)
        if result["lost"]:
            break

    assert "ok" != result["verdict"]
    assert 0 < result["lost"], result


def test_a_misspelt_fault_is_an_error():
    """
    A proof whose fault cannot strike would prove nothing.
    """
    with pytest.raises(ValueError, match="TURNOUT_FAILPOINT"):
        armed("append_after_commit=stop")


@pytest.mark.proof
@pytest.mark.parametrize("action", FAULTS)
async def test_every_point_and_every_fault(action: str):
    """
    The long form.
    """
    result = await prove(faults(list(POINTS), [action]), seed=1)

    assert "ok" == result["verdict"], result
