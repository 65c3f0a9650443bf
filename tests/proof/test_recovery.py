"""A lane recovers from an outage without a second one: the short form, its long form, and the controls that must fail."""

from __future__ import annotations

import pytest

from tests.proof.recovery import prove


async def test_a_backlog_drains_without_harm():
    """
    After an hour's outage the lane ramps up, is never refused for its rate, loses no late upload to the partner's
    window, and new events do not wait behind the backlog; a server that starts on a backlog delivers at once.
    """
    result = await prove(waiting=12_000, seed=1, restart=3000, within=20.0)  # other tests have the cores meanwhile

    assert "ok" == result["verdict"], result


async def test_a_lane_that_keeps_to_the_order_is_caught():
    """
    A control: worked off in the order of the log, late uploads expire behind the backlog.
    """
    result = await prove(waiting=12_000, seed=1, sabotage="order")

    assert "expired" == result["verdict"], result


@pytest.mark.proof
@pytest.mark.parametrize(("sabotage", "verdict"), [("ramp", "no ramp"), ("rate", "refused")])
async def test_a_lane_that_goes_too_fast_is_caught(sabotage: str, verdict: str):
    """
    The other controls: full strength at once, and a rate that a leaking bucket keeps.
    """
    result = await prove(waiting=20_000, seed=1, sabotage=sabotage)

    assert verdict == result["verdict"], result


@pytest.mark.proof
async def test_a_million_events_drain_without_harm():
    """
    The long form.
    """
    result = await prove(waiting=1_000_000, seed=2, restart=5_000_000)

    assert "ok" == result["verdict"], result
