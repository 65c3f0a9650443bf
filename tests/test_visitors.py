"""Visitors' sessions: a click id from the landing page counts for everything the visitor does there."""

from __future__ import annotations

import aiohttp
import msgspec
from hypothesis import given
from hypothesis import strategies as st

from router.collect.visitors import KEPT, Visitors
from router.event import User
from router.outbox.log import entries
from router.person import Person
from tests.builders import NOW, an_event
from tests.running import KEY, collect_url, running_app, settings, stored

SESSION = 30 * 60_000
CLICK = {"ScCid": "7b3a7917-a82a-47e8-9728-e1b3b045abb2"}


def seen(visitors: Visitors, event_id: str, *, person: str | None = "a-1", at: int = 0, **fields):
    event = an_event(event_id, user=User(anonymous_id=person), received=NOW + at, **fields)
    [attended], written = visitors.attend([entries.row(event)])
    return attended.read(), written


class TestSession:
    def test_later_events_of_the_session_carry_the_click_id(self):
        """
        The landing page brings the click id, every later page of that visitor has it, and a note says whence.
        """
        visitors = Visitors(SESSION)
        landing, _ = seen(visitors, "e-1", clicks=CLICK)
        later, _ = seen(visitors, "e-2", at=60_000)

        assert (CLICK, ()) == (landing.clicks, landing.notes)
        assert (CLICK, (KEPT,)) == (later.clicks, later.notes)

    def test_nobody_elses(self):
        """
        Another visitor, the same id at another source, and an event without an anonymous id get nothing.
        """
        visitors = Visitors(SESSION)
        seen(visitors, "e-1", clicks=CLICK)

        assert {} == seen(visitors, "e-2", person="a-2")[0].clicks
        assert {} == seen(visitors, "e-3", source="blog")[0].clicks
        assert {} == seen(visitors, "e-4", person=None)[0].clicks

    def test_a_session_lasts_as_long_as_the_visitor_is_active(self):
        """
        Every event prolongs the session; half an hour of silence ends it.
        """
        visitors = Visitors(SESSION)
        seen(visitors, "e-1", clicks=CLICK)
        assert CLICK == seen(visitors, "e-2", at=SESSION)[0].clicks
        assert CLICK == seen(visitors, "e-3", at=2 * SESSION)[0].clicks

        assert {} == seen(visitors, "e-4", at=3 * SESSION + 1)[0].clicks

    def test_a_newer_click_wins_and_others_stay(self):
        """
        A second click on an advert replaces the first; another advertiser's id stays beside it.
        """
        visitors = Visitors(SESSION)
        seen(visitors, "e-1", clicks={**CLICK, "fbclid": "f"})
        seen(visitors, "e-2", clicks={"ScCid": "new"})

        assert {"ScCid": "new", "fbclid": "f"} == seen(visitors, "e-3")[0].clicks

    def test_switched_off(self):
        """
        With a session of no length nothing is remembered.
        """
        visitors = Visitors(0)
        seen(visitors, "e-1", clicks=CLICK)

        assert {} == seen(visitors, "e-2")[0].clicks
        assert 0 == len(visitors)

    @given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=200))
    def test_memory_is_bounded_and_the_longest_gone_give_way(self, visits):
        """
        Never more visitors than allowed, and the latest ones with a click id are among them.
        """
        visitors, latest = Visitors(SESSION, most=10), []
        for person, lands in visits:
            known = f"a-{person}" in latest
            seen(visitors, "e", person=f"a-{person}", clicks=CLICK if lands else {})
            if lands or known:
                latest = [*[each for each in latest if each != f"a-{person}"][-9:], f"a-{person}"]

        assert len(visitors) == len(latest) <= 10
        assert all(seen(visitors, "e", person=person)[0].clicks == CLICK for person in reversed(latest))

    def test_little_is_written(self):
        """
        A visitor without click ids costs no write, one with them a write at the landing and one now and then.
        """
        visitors = Visitors(SESSION)
        writes = [len(seen(visitors, f"e-{n}", at=n * 60_000, clicks=CLICK if n == 0 else {})[1]) for n in range(25)]

        assert 4 == sum(writes)
        assert [] == seen(visitors, "e", person="a-2")[1]


async def post(app, event_id: str, page: str, **user: str) -> None:
    body = {
        "event_name": "page_view",
        "user": {"consistent_anonymous_id": "a-1", **user},
        "context": {"event_id": event_id, "page": {"url": page}},
    }
    url = f"{collect_url(app)}/collect?token={KEY}"
    async with aiohttp.ClientSession() as session, session.post(url, data=msgspec.json.encode(body)) as answer:
        assert answer.status == 200


async def test_a_restart_does_not_end_sessions(tmp_path):
    """
    The click id of a landing page reaches the purchase that the visitor makes after a restart.
    """
    chosen = settings(tmp_path)
    async with running_app(chosen) as app:
        await post(app, "e-1", f"https://shop.example/landing?ScCid={CLICK['ScCid']}")
    async with running_app(chosen) as app:
        await post(app, "e-2", "https://shop.example/thanks")
        [first, second] = await stored(app)

    assert CLICK == first.clicks == second.clicks
    assert (KEPT,) == second.notes


async def test_the_session_of_who_was_forgotten_is_forgotten(tmp_path):
    """
    She is forgotten by her address; the visitor of her events has no click id any more, neither at once nor after a restart.
    """
    chosen = settings(tmp_path)
    async with running_app(chosen) as app:
        await post(app, "e-1", f"https://shop.example/landing?ScCid={CLICK['ScCid']}", email="jane@example.com")
        await app.store.erase([Person(email="jane@example.com")], "test")
        await post(app, "e-2", "https://shop.example/thanks")
    async with running_app(chosen) as app:
        await post(app, "e-3", "https://shop.example/thanks")
        [erased, *others] = await app.store.read(0, 10)

    assert erased.erased
    assert [("e-2", {}), ("e-3", {})] == [(each.event.id, each.event.clicks) for each in others]
