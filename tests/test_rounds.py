"""Rounds: what comes together is prepared together, a stretch at a time, and one request's fault is its own."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any

import pytest

from router import body as bodies
from router.body import Body, Item
from router.collect.keys import Sender
from router.collect.preparing import OVERHEAD, UNAUTHORIZED, Job
from router.collect.rounds import ASIDE, ENOUGH, LONGEST_PRESSED, PRESSED, STRETCH, Rounds
from router.problem import Malformed
from router.visit import Door, Visit

NOW = 1_795_000_000_000
SENDER = Sender(name="shop", enabled=True, door=Door(source="shop"))
ITEM = 100  # bytes; one more item is ITEM + OVERHEAD of work


def job(events: int, done: Callable[[Any], None], sender: Sender | None = SENDER) -> Job:
    items = [Item(value={"event": "login", "event_id": f"e-{n}"}, size=ITEM) for n in range(events)]
    return Job(Body(items=items), sender, Visit(received=NOW), done)


class Log:
    """What was ready in which round of the event loop, and what was done without."""

    def __init__(self, stretch: int) -> None:
        self.rounds = Rounds(self.ready, lambda: "own", stretch)
        self.at, self.told = 0, list[tuple[int, list[int]]]()
        self.done: list[Any] = []
        self.several = asyncio.Event()  # more than one round had something ready

    def ready(self, jobs: list[Job]) -> None:
        self.told.append((self.at, [len(each.prepared.rows) for each in jobs]))
        if len(self.told) > 1:
            self.several.set()

    def add(self, *events: int) -> None:
        for number in events:
            self.rounds.add(job(number, self.done.append))

    async def turns(self, number: int) -> None:
        for self.at in range(1, number + 1):
            await asyncio.sleep(0)


async def test_what_comes_together_is_ready_together():
    """
    Three requests in one round of the event loop are one append, in their order.
    """
    log = Log(1_000_000)
    log.add(1, 3, 2)
    await log.turns(2)

    assert [[1, 3, 2]] == [sizes for _, sizes in log.told]


async def test_a_round_has_room_for_so_many_bytes():
    """
    Where a round has room for two and a half, three are prepared in it, the others in the next rounds.
    """
    log = Log((ITEM + OVERHEAD) * 5 // 2)
    log.add(1, 1, 1, 1, 1, 1, 1)
    await log.turns(5)

    assert [[1, 1, 1], [1, 1, 1], [1]] == [sizes for _, sizes in log.told]
    assert 3 == len({at for at, _ in log.told})


async def test_a_large_one_is_prepared_over_several_rounds_before_what_came_later():
    """
    The loop sees to everybody else between its parts, and memory holds few requests that are begun.
    """
    log = Log((ITEM + OVERHEAD) * 4)
    log.add(20, 1)
    await log.turns(9)

    assert [20, 1] == [size for _, sizes in log.told for size in sizes]
    assert log.told[0][0] >= 5


@pytest.mark.parametrize(
    ("aside", "most"),
    [
        pytest.param(1, PRESSED + ASIDE, id="one"),
        pytest.param(LONGEST_PRESSED, LONGEST_PRESSED, id="very many"),
    ],
)
async def test_what_is_done_aside_makes_the_next_round_short_but_the_longer_the_more_there_is_of_it(
    aside: int, most: int
):
    """
    So a refusal is quick while there is work, and refusals, however many, do not take the work's time.
    """
    log = Log(STRETCH)
    for _ in range(aside):
        log.rounds.set_aside()
    log.add(*[1] * (2 * STRETCH // (ITEM + OVERHEAD)))
    await log.turns(2)

    pressed, free = log.told[0][1], log.told[1][1]
    assert len(pressed) == -(-most // (ITEM + OVERHEAD))
    assert len(free) == -(-STRETCH // (ITEM + OVERHEAD))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        pytest.param(lambda done: Job(b"{", SENDER, Visit(received=NOW), done), "malformed_json", id="not JSON"),
        pytest.param(lambda done: job(1, done, None), UNAUTHORIZED.code, id="nobody's key"),
        pytest.param(
            lambda done: job(1, done, Sender(name="x", enabled=False, door=SENDER.door)), "source_disabled", id="off"
        ),
    ],
)
async def test_what_is_not_acceptable_is_told_at_once(bad: Callable[[Callable[[Any], None]], Job], told: str):
    """
    Its neighbours are prepared as if it had not been there.
    """
    log = Log(1_000_000)
    log.add(1)
    log.rounds.add(bad(log.done.append))
    log.add(2)
    await log.turns(2)

    assert [told] == [each.code for each in log.done if isinstance(each, Malformed)]
    assert [[1, 2]] == [sizes for _, sizes in log.told]


def packed(text: bytes, sender: Sender | None = SENDER) -> Callable[[Callable[[Any], None]], Job]:
    """A request of some 500 bytes."""
    return lambda done: Job(gzip.compress(text), sender, Visit(received=NOW), done, "gzip")


MANY = b"[]," * 160_000


@pytest.mark.parametrize(
    "large",
    [
        pytest.param(packed(b'{"batch":[{}],"a":[%b[]]}' % MANY), id="refused: too much beside the events"),
        pytest.param(packed(b"[%b[]]" % MANY), id="refused: too many events"),
        pytest.param(packed(b"{}\n{}" + b"\n" * 500_000), id="taken: blank lines"),
        pytest.param(packed(b'{"a":[%b[]],"batch":[{}]}' % MANY[:30_000]), id="taken: much beside the events"),
        pytest.param(packed(b'{"batch":[{}]}' + b" " * 500_000, None), id="without a key"),
        pytest.param(
            lambda done: Job(gzip.compress(bytes(500_000))[:-4] + bytes(4), SENDER, Visit(received=NOW), done, "gzip"),
            id="says that it is small",
        ),
    ],
)
async def test_what_is_read_is_work_whatever_becomes_of_it(large: Callable[[Callable[[Any], None]], Job]):
    """
    So however little was sent, a round is over once it has read a stretch; the others have their turn before the next.
    """
    log, rounds = Log(STRETCH // 4), []
    for _ in range(4):
        log.rounds.add(large(lambda _: rounds.append(log.at)))
    await log.turns(20)

    assert 4 == len(set(rounds) | {at for at, _ in log.told})


async def test_what_is_repaired_is_no_less_work():
    """
    Text that grows while it is mended does not count as work that was saved.
    """
    log = Log(STRETCH)
    broken = b'{"\xff":1,"batch":[%b]}' % b",".join([b'{"event":"x","n":"%b"}' % (b"\xff" * 9_000)] * 20)
    log.rounds.add(Job(broken, SENDER, Visit(received=NOW), log.done.append))
    await log.turns(12)

    assert [[20]] == [sizes for _, sizes in log.told]
    assert log.told[0][0] >= 6


async def test_nothing_is_read_for_a_source_that_is_switched_off(monkeypatch: pytest.MonkeyPatch):
    """
    Nor is a text parsed in which no key can stand.
    """
    opened, parsed, honest = list[bytes](), list[bytes](), bodies.opened
    monkeypatch.setattr("router.body.opened", lambda raw, encoding: (opened.append(raw), honest(raw, encoding))[1])
    monkeypatch.setattr("router.body.parsed", lambda text, **_: parsed.append(text))
    log = Log(STRETCH)
    log.rounds.add(Job(b"{}", None, Visit(received=NOW), log.done.append))
    log.rounds.add(Job(b"[]", Sender(name="x", enabled=False, door=SENDER.door), Visit(received=NOW), log.done.append))
    await log.turns(2)

    assert ["unauthorized", "source_disabled"] == [each.code for each in log.done]
    assert ([b"{}"], []) == (opened, parsed)


async def test_a_fault_is_one_requests_own(monkeypatch: pytest.MonkeyPatch):
    """
    Whatever goes wrong in the rules, only the request that met it is told so.
    """
    log = Log(1_000_000)
    log.add(1)
    broken = job(1, log.done.append)
    monkeypatch.setattr(
        broken.body.items[0].__class__, "problem", property(lambda self: 1 / 0 if self.size == 7 else None)
    )
    broken.body.items[:] = [Item(value={}, size=7)]
    log.rounds.add(broken)
    log.add(1)
    await log.turns(2)

    assert [ZeroDivisionError] == [type(each) for each in log.done]
    assert [[1, 1]] == [sizes for _, sizes in log.told]


async def test_where_several_come_at_a_time_they_come_together(monkeypatch: pytest.MonkeyPatch):
    """
    Half a round's time later it is one round again, and so one append.
    """
    monkeypatch.setattr("router.collect.rounds.GATHER", 0.05)
    log = Log(1_000_000)
    log.add(1, 1)
    await log.turns(2)
    log.add(2)
    await log.turns(3)
    log.add(3)
    await log.several.wait()

    assert [[1, 1], [2, 3]] == [sizes for _, sizes in log.told]


async def test_when_enough_have_come_nobody_waits_for_more(monkeypatch: pytest.MonkeyPatch):
    """
    Where all of many senders wait for their answers, no other request will come.
    """
    monkeypatch.setattr("router.collect.rounds.GATHER", 3600.0)
    log = Log(1_000_000)
    log.add(1, 1)
    await log.turns(2)
    log.add(*[1] * (ENOUGH - 1))
    await log.turns(3)
    assert [[1, 1]] == [sizes for _, sizes in log.told]
    log.add(1)
    await log.turns(2)

    assert [[1, 1], [1] * ENOUGH] == [sizes for _, sizes in log.told]


async def test_whoever_comes_alone_waits_for_nobody(monkeypatch: pytest.MonkeyPatch):
    """
    One sender that waits for each answer has each at once.
    """
    monkeypatch.setattr("router.collect.rounds.GATHER", 3600.0)
    log = Log(1_000_000)
    for number in range(1, 4):
        log.add(number)
        await log.turns(2)

    assert [[1], [2], [3]] == [sizes for _, sizes in log.told]


async def test_under_pressure_nobody_waits_for_others(monkeypatch: pytest.MonkeyPatch):
    """
    Where something was refused since the last round, the next one begins at once.
    """
    monkeypatch.setattr("router.collect.rounds.GATHER", 3600.0)
    log = Log(STRETCH)
    for number in range(1, 4):
        log.rounds.set_aside()
        log.add(number, number)
        await log.turns(2)

    assert [[1, 1], [2, 2], [3, 3]] == [sizes for _, sizes in log.told]
