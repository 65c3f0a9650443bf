"""The tail of the log: the newest events for lanes that keep up, a few of them decoded."""

from __future__ import annotations

import pytest

from router.outbox.log import entries
from router.outbox.log.tail import Tail
from tests.builders import an_event, many


def ids(tail: Tail, after: int, limit: int) -> list[str | None]:
    found = tail.read(after, limit)
    assert found is not None
    return [each.event.id if each.event is not None else None for each in found]


def wanted(after: int, limit: int) -> list[str | None]:
    return [f"e-{number}" for number in range(after + 1, after + limit + 1)]


@pytest.mark.parametrize("decoded", [1, 7, 1000])
def test_every_lane_reads_its_own_events_wherever_it_is(monkeypatch: pytest.MonkeyPatch, decoded: int):
    """
    Near the front and far behind, in turns, while more is kept; no more than DECODED events stay decoded.
    """
    monkeypatch.setattr("router.outbox.log.tail.DECODED", decoded)
    tail = Tail()
    for first in range(1, 400, 20):
        rows = many(20, first)
        tail.keep(first, rows)
        for after, limit in ((0, 10), (first - 1, 20), (first // 2, 10), (first + 18, 1)):
            assert wanted(after, limit) == ids(tail, after, limit)
        assert sum(row is not None and row.event is not None for row in tail._rows) <= decoded
    assert [] == tail.read(400, 10)


def test_it_forgets_the_oldest_and_says_so(monkeypatch: pytest.MonkeyPatch):
    """
    A lane that is further behind must read from disk.
    """
    monkeypatch.setattr("router.outbox.log.tail.MOST_EVENTS", 10)
    tail = Tail()
    for first in range(1, 101, 5):
        tail.keep(first, many(5, first))
        if first > 5:
            ids(tail, first - 6, 11)

    assert tail.read(0, 1) is None
    assert wanted(90, 10) == ids(tail, 90, 10)


def test_nothing_of_the_erased_stays_decoded():
    """
    What was decoded of them goes with them, while their neighbours are read as before.
    """
    tail = Tail()
    tail.keep(1, many(20))
    ids(tail, 0, 20)
    tail.erase({3, 7})

    assert [*wanted(0, 2), None, *wanted(3, 3), None, *wanted(7, 13)] == ids(tail, 0, 20)
    assert not {"e-3", "e-7"} & {row.id for _, row in tail._decoded}


def test_an_event_that_somebody_waits_for_comes_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """
    Where a reader keeps up, the log remembers what the door has made, until all that are near to the first have read it;
    for one far behind it nothing stays decoded.
    """
    monkeypatch.setattr("router.outbox.log.tail.NEAR", 50)
    monkeypatch.setattr("router.outbox.log.tail.DECODED", 50)
    tail = Tail()
    tail.keep(1, many(10))
    assert not tail.followed
    for reader in (1, 2, 3):
        tail.read(0, 10, reader)
    assert tail.followed

    made = [entries.row(an_event(f"e-{number}"), remember=True) for number in range(11, 31)]
    events = [row.event for row in made]
    tail.keep(11, made)
    for reader, upto in ((1, 30), (2, 20)):
        found = tail.read(10, upto - 10, reader)
        assert found is not None
        assert all(each.event is event for each, event in zip(found, events, strict=False))
    assert sum(row.event is not None for row in made) == 20  # for the third

    tail.read(10, 15, 3)
    assert [row.event is not None for row in made] == [False] * 10 + [True] * 10
    tail.keep(31, many(100, 31))
    assert not tail.followed
    tail.read(30, 100, 1)
    assert tail.followed
    assert not any(row is not None and row.event is not None for row in tail._rows)


def test_readers_that_are_behind_together_read_the_same_events(monkeypatch: pytest.MonkeyPatch):
    """
    What one of them had decoded the next one gets as it is, however far the end has gone on meanwhile: if each decoded for
    itself, they would never catch up again.
    """
    monkeypatch.setattr("router.outbox.log.tail.NEAR", 50)
    tail = Tail()
    for reader in (1, 2, 3):
        tail.keep(1 + 10 * reader, many(10, 1 + 10 * reader))
        tail.read(10 * reader, 10, reader)
    tail.keep(41, many(500, 41))
    assert not tail.followed

    first = tail.read(40, 30, 3)
    again = [tail.read(40, 30, reader) for reader in (2, 1)]
    assert first is not None
    for found in again:
        assert found is not None
        assert all(each.event is one.event for each, one in zip(found, first, strict=True))
    assert not any(row is not None and row.event is not None for row in tail._rows)
