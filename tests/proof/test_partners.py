"""Partners behaving badly: the short form, its long form, and the controls that must fail."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from tests.proof import partners
from tests.proof.partners import BEHAVIOURS, COLUMNS, VECTORS, Column, NameServer, label

# Through the engine in the short form: one of each end, and each of the ways in which a partner recovers.
SHORT = [
    each
    for each in BEHAVIOURS
    if each.name
    in {
        "good", "reads and says nothing", "reset after the request", "garbage", "a body without end", "HTML", "cookies",
        "repeats the request, 400", "repeats the request, 401", "repeats the request, 500", "307 elsewhere", "HTTP 413",
        "ends the kept connection", "429, wait: seconds", "refused", "TLS: expired", "TLS: speaks none",
        "DNS: unknown name", "DNS: bound anew",
    }
]  # fmt: skip
BIG = {"a body without end", "chunks without end", "an error without end", "gzip bomb", "ten megabytes", "deep JSON"}


@pytest.fixture(autouse=True)
def _in_the_proof() -> Iterator[None]:
    with partners.in_the_proof():
        yield


@pytest.mark.parametrize("column", COLUMNS, ids=label)
async def test_every_behaviour_means_what_the_reference_says(column: Column):
    """
    No answer raises, none is taken for another, and no byte of a key or a cookie goes where it does not belong.
    """
    with NameServer(partners.names_of_the_behaviours()).serving():
        cells, wrong = await partners.exchanges(column)

    assert [] == partners.surprises(cells)
    assert [] == partners.faults_besides(wrong)
    assert len(BEHAVIOURS) <= len(cells)


@pytest.mark.parametrize("column", [COLUMNS[1], COLUMNS[2]], ids=label)
async def test_no_event_is_lost_and_the_lane_goes_on(column: Column):
    """
    Through the engine: each event ends or waits as it should, no secret is kept or logged, the ledger adds up, and
    once the partner recovers it gets all that it did not refuse.
    """
    cells, wrong = await partners.through_engine(column, SHORT)

    assert [] == partners.surprises(cells)
    assert [] == partners.faults_besides(wrong)
    assert len(SHORT) == len(cells)


async def test_an_answer_costs_little_memory():
    """
    Endless, huge and packed answers are read to their limit and no further.
    """
    chosen = [each for each in BEHAVIOURS if each.name in BIG]
    tracemalloc.start()
    try:
        cells, _ = await partners.exchanges(COLUMNS[6], chosen)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(BIG) == len(cells)
    assert [] == partners.surprises(cells)
    assert peak < 40_000_000, "10 MB of it are the partner's own"


async def test_no_private_address_is_dialled():
    """
    In no spelling, by no name, at no second look-up, and by no redirect: nobody comes, no SYN leaves.
    """
    found = await partners.private_addresses()

    assert (0, [], 0, []) == (found["connections"], found["dialled"], found["followed"], found["raised"])
    assert 60 <= found["vectors"]
    assert found["public"], "the guard refuses everybody, so nothing was proven"


@pytest.mark.parametrize(
    "vectors",
    [
        pytest.param([each for each in VECTORS if "inside.example" not in each.known], id="literals"),
        pytest.param([each for each in VECTORS if "inside.example" in each.known], id="names bound anew"),
    ],
)
async def test_a_guard_that_judges_names_is_caught(vectors: list[partners.Vector]):
    """
    The control: without the judgement at the dial the proof must count connections.
    """
    with partners.guard_by_name():
        found = await partners.private_addresses(vectors)

    assert 0 < found["connections"]


async def test_a_client_that_follows_redirects_is_caught():
    """
    The control: followed redirects must leak the key to the other host, and be taken for what they are not.
    """
    chosen = [each for each in BEHAVIOURS if each.name.endswith(" elsewhere")]
    with partners.redirects_followed():
        assert 0 < await partners.redirects_leak()
        cells, wrong = await partners.exchanges(COLUMNS[2], chosen)

    assert partners.surprises(cells)
    assert wrong


async def test_a_secret_that_is_kept_is_caught(monkeypatch: pytest.MonkeyPatch):
    """
    The control: a partner's words kept as they came must be found in the outbox, key and all.
    """
    monkeypatch.setattr("router.delivery.sender.redacted", lambda body, _: body.decode("utf-8", "replace"))
    chosen = [each for each in BEHAVIOURS if each.name == "repeats the request, 400"]
    _, wrong = await partners.through_engine(COLUMNS[0], chosen)

    assert any("a secret in state.db" in each for each in wrong)


@pytest.mark.proof
@pytest.mark.parametrize("column", COLUMNS, ids=label)
async def test_every_behaviour_through_the_engine(column: Column):
    """
    The long form: every behaviour before this destination, with an outbox, to the last event.
    """
    cells, wrong = await partners.through_engine(column)

    assert [] == partners.surprises(cells)
    assert [] == partners.faults_besides(wrong)
