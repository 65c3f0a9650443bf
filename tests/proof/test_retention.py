"""Retention keeps the outbox as large as it is: the short form, its long form, and the control that must fail."""

from __future__ import annotations

import pytest

from tests.proof.retention import prove

SHORT = {"segment_events": 600, "slower": 0.3}  # the rate of a turn of a fraction of a second is noise


async def test_the_outbox_stays_as_large_as_it_is():
    """
    Under load with retention running the files do not grow, and a copy made meanwhile restores and adds up.
    """
    result = await prove(**SHORT, turns=6, sabotage=False)

    assert "ok" == result["verdict"], result


async def test_an_outbox_that_keeps_everything_is_caught():
    """
    The control: where no segment ever goes, the proof must find that the files grow, half again from turn to turn.
    """
    result = await prove(**SHORT, turns=3, sabotage=True)

    assert "it grows" in result["verdict"], result


@pytest.mark.proof
async def test_the_outbox_stays_as_large_as_it_is_for_long():
    """
    The long form.
    """
    result = await prove(turns=12, segment_events=20_000, sabotage=False)

    assert "ok" == result["verdict"], result
