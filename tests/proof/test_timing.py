"""A wrong key's time tells nothing: the short form, and the control that must fail."""

from __future__ import annotations

from tests.proof.timing import prove


def test_wrong_keys_cannot_be_told_apart_by_their_time():
    """
    A03: the first byte right or wrong, all but the last, a known or an unknown site.
    """
    result = prove(samples=5_000, seed=1, sabotage=False)

    assert "ok" == result["verdict"], result


def test_a_comparison_that_ends_early_is_caught():
    """
    The control: byte by byte until one differs.
    """
    result = prove(samples=5_000, seed=2, sabotage=True)

    assert "all but the last byte, or none" in result["verdict"], result
