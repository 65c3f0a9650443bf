"""A source that is fetched from: nothing lost, nothing twice, and the partner's limits kept, whatever happens between."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from destinations.webhook import Webhook
from router.app import App
from router.collect.intake import Intake
from router.collect.preparing import new_id
from router.mocks.partner import Trouble, running
from router.mocks.snitcher import COMPANY, WORKSPACE, Workspace, stamp
from router.mocks.snitcher import Snitcher as Fake
from router.mocks.webhook import Webhook as WebhookPartner
from router.outbox.errors import DiskFull
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.upkeep.retention import Policy
from router.pull.engine import Pull
from router.pull.memory import State, state_of
from router.pull.puller import UNLISTED, window
from router.secret import Secret
from router.sources.budget import Budget
from tests.fetching import MINUTE, TOKEN, Quiet, account, asked, elapse, fetching, names, told, visit
from tests.running import running_app, settings
from tests.stepped import SteppedClock
from tests.unpacked import unpacked

SIGNS = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY = 24 * 60 * MINUTE


@pytest.fixture
async def store(tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Outbox]:
    outbox = await Outbox.open(tmp_path / "outbox", Quiet(clock))
    yield outbox
    await outbox.close()


@pytest.fixture
async def fake(clock: SteppedClock) -> Fake:
    return Fake(now=clock.now, empty=True)


@pytest.fixture
async def url(fake: Fake) -> AsyncIterator[str]:
    async with running(fake) as url:
        yield url


async def one_round(store: Outbox, clock: SteppedClock, url: str, /, **chosen: Any) -> None:
    """One round of a process that begins and ends with it."""
    async with fetching(store, clock, account(url, **{"companies": False, **chosen})) as puller:
        await elapse(clock, puller.round())


async def state(store: Outbox, source: str = "leads") -> State:
    return state_of(await store.recall(source))


async def pages(store: Outbox) -> list[str | None]:
    return [event.page.url for event in await told(store)]


class TestExactlyOnce:
    async def test_every_page_is_read(self, store, clock, fake, url):
        """
        Three pages of sessions come in whole, in their order, and a second round tells nothing again.
        """
        for number in range(25):
            visit(fake, number, f"https://acme.com/{number}")
        await one_round(store, clock, url, page_size=10)
        await one_round(store, clock, url, page_size=10)

        assert [f"https://acme.com/{number}" for number in range(25)] == await pages(store)
        assert ["1", "2", "3"] * 2 == [call.query["page"] for call in asked(fake)]
        assert {"10"} == {call.query["per_page"] for call in asked(fake)}

    async def test_a_page_of_half_a_megabyte(self, store, clock, fake, url):
        """
        A page may be far larger than any partner's answer to an event.
        """
        for number in range(100):
            session = visit(fake, number, f"https://acme.com/{number}")
            fake.add_session({"uuid": session, "more": "x" * 5_000})
        await one_round(store, clock, url)

        assert 1 == len(asked(fake))
        assert 100 == len(await told(store))

    async def test_the_other_parameter(self, store, clock, fake, url):
        """
        Where the account wants size instead of per_page, it is asked so.
        """
        await one_round(store, clock, url, page_size=500, page_size_parameter="size")

        assert ["500"] == [call.query["size"] for call in asked(fake)]
        assert "per_page" not in asked(fake)[0].query

    async def test_a_session_that_grows(self, store, clock, fake, url):
        """
        Events are told as soon as they appear, and those of before are not told again; identical ones count.
        """
        visit(fake, 1, "https://acme.com/a")
        await one_round(store, clock, url)
        clock.step(120)
        visit(fake, 1, "https://acme.com/b", "https://acme.com/b")
        await one_round(store, clock, url)
        clock.step(3600)
        visit(fake, 1, "https://acme.com/late")
        await one_round(store, clock, url)

        assert ["a", "b", "b", "late"] == [str(page).rpartition("/")[2] for page in await pages(store)]
        assert 4 == len({event.id for event in await told(store)})

    async def test_a_process_that_dies_between(self, store, clock, fake, url, monkeypatch):
        """
        Killed after the events are on disk and before its notes are: the next process tells nothing twice.
        """

        async def killed(*_: Any) -> None:
            raise asyncio.CancelledError

        visit(fake, 1, "https://acme.com/a")
        monkeypatch.setattr(store, "remember", killed)
        with pytest.raises(asyncio.CancelledError):
            await one_round(store, clock, url)
        monkeypatch.undo()
        assert ["page_view"] == await names(store)
        visit(fake, 2, "https://acme.com/b")
        await one_round(store, clock, url)

        assert ["https://acme.com/a", "https://acme.com/b"] == await pages(store)

    async def test_long_after_the_outbox_has_forgotten(self, tmp_path: Path, clock, fake, url):
        """
        A session stays listed for days, the outbox knows ids for an hour here: it is told once all the same.
        """
        for hours in range(0, 72, 6):
            outbox = await Outbox.open(tmp_path / "short", Quiet(clock), policy=Policy(dedup=3_600_000))
            if hours == 0:
                visit(fake, 1, "https://acme.com/a")
            await one_round(outbox, clock, url)
            found = await pages(outbox)
            await outbox.close()
            clock.step(6 * 3600)

        assert len(asked(fake)) == 12
        assert ["https://acme.com/a"] == found

    async def test_after_a_long_time_off(self, store, clock, fake, url):
        """
        The first round after ten days asks from the last one on: what came between is not lost, what was told stays told.
        """
        visit(fake, 1, "https://acme.com/before")
        await one_round(store, clock, url)
        clock.step(3 * 86_400)
        visit(fake, 2, "https://acme.com/meanwhile")
        clock.step(7 * 86_400)
        await one_round(store, clock, url)

        assert ["https://acme.com/before", "https://acme.com/meanwhile"] == await pages(store)

    async def test_what_is_not_listed_any_more_is_forgotten(self, store, clock, fake, url):
        """
        Notes do not grow without end: a session's goes once it cannot be asked for.
        """
        visit(fake, 1, "https://acme.com/a")
        await one_round(store, clock, url)
        assert 2 == len(await store.recall("leads"))
        for _ in range(8):
            clock.step(86_400)
            await one_round(store, clock, url)

        assert ["state"] == list(await store.recall("leads"))

    @pytest.mark.parametrize("size", [1, 3])
    async def test_sessions_without_an_id(self, store, clock, fake, url, size):
        """
        Sessions whose uuid is missing are told as well, each event once, on pages of their own and on one.
        """
        at = stamp(clock.now() - 60 * MINUTE)
        rows = [
            {"ended_at": at, "events": [{"event_type": "pageview", "url": f"https://acme.com/{n}", "triggered_at": at}]}
            for n in range(3)
        ]
        for _ in range(2):
            fake.trouble = [
                Trouble(status=200, body={"data": rows[n : n + size], "last_page": 3 // size}, times=1)
                for n in range(0, 3, size)
            ]
            await one_round(store, clock, url, workspaces=(WORKSPACE,), page_size=size)

        assert ["https://acme.com/0", "https://acme.com/1", "https://acme.com/2"] == await pages(store)
        assert 0 == (await Reader(store.directory).ledger()).duplicate

    async def test_a_full_disk(self, store, clock, fake, url, monkeypatch):
        """
        While nothing can be stored nothing is noted as told; it goes on by itself.
        """
        visit(fake, 1, "https://acme.com/a")
        append, full = store.append, [DiskFull("no space"), DiskFull("no space")]

        async def appended(rows: Any) -> Any:
            if full:
                raise full.pop()
            return await append(rows)

        monkeypatch.setattr(store, "append", appended)
        await one_round(store, clock, url)

        assert ["https://acme.com/a"] == await pages(store)
        assert "no space" == (await state(store)).trouble.reason

    async def test_an_event_that_is_too_large(self, store, clock, fake, url):
        """
        It is put aside with its reason, once, and its neighbours come in.
        """
        session = visit(fake, 1, "https://acme.com/a")
        huge = {
            "event_type": "track",
            "name": "x",
            "triggered_at": stamp(clock.now()),
            "properties": {"t": "x" * 40_000},
        }
        fake.add_session({"uuid": session, "events": [huge, {"event_type": "click", "triggered_at": "", "url": "u"}]})
        await one_round(store, clock, url)
        await one_round(store, clock, url)
        refused = (await Reader(store.directory).quarantined()).items

        assert ["page_view", "Element Clicked"] == await names(store)
        assert ["event_too_large"] == [each.code for each in refused]


class TestWindow:
    def test_days(self):
        """
        Yesterday, today and a day more on both sides, in UTC; from the last round's day on where that is earlier.
        """
        now = int(dt.datetime(2026, 3, 1, 0, 5, tzinfo=dt.UTC).timestamp() * 1000)

        assert ("2026-02-27", "2026-03-02") == tuple(map(str, window(now, None)))
        assert ("2026-02-26", "2026-03-02") == tuple(map(str, window(now, now - 10 * MINUTE)))
        assert ("2026-02-17", "2026-03-02") == tuple(map(str, window(now, now - 10 * DAY)))
        assert ("2025-11-29", "2026-03-02") == tuple(map(str, window(now, now - 900 * DAY)))
        assert ("2026-02-27", "2026-03-02") == tuple(map(str, window(now, now + 900 * DAY)))

    async def test_is_what_is_asked_for(self, store, clock, fake, url):
        """
        Both ends travel with the source's filters, under the partner's names.
        """
        await one_round(store, clock, url, segment="seg-1", url="/pricing", referrer="google")
        (call,) = asked(fake)

        assert {"date_from": "2026-11-16", "date_to": "2026-11-19"}.items() <= call.query.items()
        assert {"segmentUuid": "seg-1", "url": "/pricing", "referrer": "google"}.items() <= call.query.items()


class TestTruncated:
    async def test_missing_companies_are_fetched_one_by_one(self, store, clock, fake, url):
        """
        Where the list leaves companies out, their sessions come from their own lists, and only theirs.
        """
        fake.organisation_limit = 2
        for number in range(5):
            fake.add_organisation({"uuid": f"org-{number}", "last_seen": stamp(clock.now())})
            visit(fake, number, f"https://acme.com/{number}", company=f"org-{number}")
        fake.add_organisation({"uuid": "org-gone", "last_seen": stamp(clock.now() - 30 * DAY)})
        await one_round(store, clock, url)

        assert {f"https://acme.com/{number}" for number in range(5)} == set(await pages(store))
        assert 5 == len(await told(store))
        own = [call.path.split("/")[-2] for call in fake.received if "/organisations/" in call.path]
        assert ["org-2", "org-3", "org-4"] == own

    async def test_not_again_while_nobody_came(self, store, clock, fake, url):
        """
        A company whose sessions have ended is not fetched again before its next visit.
        """
        fake.organisation_limit = 1
        for number in range(3):
            fake.add_organisation({"uuid": f"org-{number}", "last_seen": stamp(clock.now())})
            visit(fake, number, f"https://acme.com/{number}", company=f"org-{number}")
        clock.step(3600)
        await one_round(store, clock, url)
        fake.add_organisation({"uuid": "org-2", "last_seen": stamp(clock.now())})
        visit(fake, 2, "https://acme.com/again", company="org-2")
        await one_round(store, clock, url)

        own = [call.path.split("/")[-2] for call in fake.received if "/organisations/" in call.path]
        assert ["org-1", "org-2", "org-2"] == own
        assert 4 == len(await told(store))

    async def test_a_company_that_is_gone_is_skipped(self, store, clock, fake, url):
        """
        404 on one company costs the others nothing.
        """
        fake.organisation_limit = 1
        for number in range(3):
            fake.add_organisation({"uuid": f"org-{number}", "last_seen": stamp(clock.now())})
            visit(fake, number, f"https://acme.com/{number}", company=f"org-{number}")
        listed = fake.answer

        def answer(call: Any) -> Any:
            return listed(
                msgspec.structs.replace(call, path="/v1/none") if "organisations/org-1/" in call.path else call
            )

        fake.answer = answer  # type: ignore[method-assign]  # watched
        await one_round(store, clock, url)

        assert {"https://acme.com/0", "https://acme.com/2"} == set(await pages(store))
        assert (await state(store)).workspaces[WORKSPACE].paused is None

    async def test_filters_hold_there_too(self, store, clock, fake, url):
        """
        A company's own list has no filters, so they are applied here.
        """
        fake.organisation_limit = 1
        for number, page in enumerate(("/pricing/a", "/pricing/b", "/pricing/c")):
            fake.add_organisation({"uuid": f"org-{number}", "last_seen": stamp(clock.now())})
            visit(fake, number, f"https://acme.com{page}", company=f"org-{number}")
        visit(fake, 9, "https://acme.com/blog", company="org-1")
        await one_round(store, clock, url, url="/pricing")

        assert 3 == len(await told(store))
        assert "https://acme.com/blog" not in await pages(store)

    async def test_a_session_may_pass_later(self, store, clock, fake, url):
        """
        A company is not done with while one of its sessions goes on, though the filters keep that one out so far.
        """
        fake.organisation_limit = 1
        for number, page in enumerate(("/pricing/a", "/blog", "/pricing/c")):
            fake.add_organisation({"uuid": f"org-{number}", "last_seen": stamp(clock.now())})
            visit(fake, number, f"https://acme.com{page}", company=f"org-{number}")
        visit(fake, 9, "https://acme.com/pricing/x", company="org-9")
        await one_round(store, clock, url, url="/pricing")
        clock.step(60)
        visit(fake, 1, "https://acme.com/pricing/late", company="org-1")
        await one_round(store, clock, url, url="/pricing")

        assert "https://acme.com/pricing/late" in await pages(store)


class TestPaging:
    async def one(self, store: Outbox, clock: SteppedClock, url: str, fake: Fake, *answers: dict[str, Any]) -> None:
        sessions = [
            [{"uuid": f"s-{n}", "events": [{"event_type": "pageview", "url": f"https://acme.com/{n}"}]}]
            for n in range(len(answers))
        ]
        fake.trouble = [
            Trouble(status=200, body={"data": rows, **answer}, times=1)
            for rows, answer in zip(sessions, answers, strict=True)
        ]
        await one_round(store, clock, url, workspaces=(WORKSPACE,), page_size=1)

    async def test_by_the_last_page(self, store, clock, fake, url):
        """
        last_page ends the list, though the page was full.
        """
        await self.one(store, clock, url, fake, {"last_page": 2}, {"last_page": 2})

        assert 2 == len(asked(fake))

    async def test_an_address_is_never_followed(self, store, clock, fake, url):
        """
        A next_page_url says that there is a next page; the token goes to no host but the configured one.
        """
        await self.one(store, clock, url, fake, {"next_page_url": "http://127.0.0.1:9/steal"}, {"next_page_url": None})

        assert ["1", "2"] == [call.query["page"] for call in asked(fake)]
        assert 2 == len(await told(store))

    async def test_without_either(self, store, clock, fake, url):
        """
        Nothing is said of further pages: a full page is asked on, an empty one ends it.
        """
        await self.one(store, clock, url, fake, {}, {})

        assert ["1", "2", "3"] == [call.query["page"] for call in asked(fake)]

    async def test_without_an_end(self, store, clock, fake, url, monkeypatch):
        """
        A list that is longer than what is read of it is not called read: the round has not come to its end, and says so.
        """
        monkeypatch.setattr("router.sources.snitcher.MOST_PAGES", 3)
        for number in range(4):
            visit(fake, number, f"https://acme.com/{number}")
        await one_round(store, clock, url, workspaces=(WORKSPACE,), page_size=1)
        found = await state(store)

        assert 3 == len(await told(store))
        assert "the list goes on after 3 pages: raise page_size" == found.trouble.reason
        assert found.workspaces[WORKSPACE].polled is None


class TestFaults:
    async def test_too_many_requests(self, store, clock, fake, url):
        """
        Asked again after 1, 2, 4 ... at most 64 seconds, the same page, and nothing is lost.
        """
        visit(fake, 1, "https://acme.com/a")
        fake.trouble = [Trouble(status=429, body={"message": "Too Many Attempts."}, times=8)]
        await one_round(store, clock, url, workspaces=(WORKSPACE,))
        times = [call.at for call in fake.received]

        assert [1, 2, 4, 8, 16, 32, 64, 64] == [(later - at) // 1000 for at, later in pairwise(times)]
        assert {"1"} == {call.query["page"] for call in fake.received}
        assert ["https://acme.com/a"] == await pages(store)

    async def test_the_partner_says_when(self, store, clock, fake, url):
        """
        Retry-After counts where it is longer.
        """
        fake.trouble = [Trouble(status=429, retry_after="30", times=1)]
        await one_round(store, clock, url, workspaces=(WORKSPACE,))
        first, second = [call.at for call in fake.received]

        assert 30_000 == second - first

    async def test_begins_with_a_second_again(self, store, clock, fake, url):
        """
        An answer ends the doubling: the next refusal is the first of its own.
        """
        for _ in range(2):
            fake.trouble = [Trouble(status=429, times=2)]
            async with fetching(store, clock, account(url, companies=False, workspaces=(WORKSPACE,))) as puller:
                await elapse(clock, puller.round())
                fake.trouble = [Trouble(status=429, times=2)]
                await elapse(clock, puller.round())
        times = [call.at for call in fake.received]

        assert [1, 2, 0] * 3 + [1, 2] == [(later - at) // 1000 for at, later in pairwise(times)]

    @pytest.mark.parametrize(
        "trouble",
        [
            {"status": 500},
            {"status": 503, "body": "<html>"},
            {"reset": True},
            {"status": 200, "body": "<html>"},
            {"status": 200, "body": {"data": {"not": "a list"}}},
            {"status": 200, "body": "[" * 5000},
        ],
        ids=["500", "503", "reset", "HTML", "another shape", "too deep"],
    )
    async def test_a_fault_that_passes(self, store, clock, fake, url, trouble):
        """
        The same page is asked again, and comes in.
        """
        visit(fake, 1, "https://acme.com/a")
        fake.trouble = [Trouble(times=2, **trouble)]
        await one_round(store, clock, url, workspaces=(WORKSPACE,))

        assert {"1"} == {call.query["page"] for call in asked(fake)}
        assert ["https://acme.com/a"] == await pages(store)
        assert (await state(store)).paused is None

    async def test_a_fault_that_lasts(self, store, clock, fake, url):
        """
        It ends the round and not the source: how far it is stays as it was, the reason shows, the next round goes on.
        """
        await one_round(store, clock, url, workspaces=(WORKSPACE,))
        reached = (await state(store)).workspaces[WORKSPACE].polled
        visit(fake, 1, "https://acme.com/a")
        clock.step(300)
        fake.trouble = [Trouble(status=500)]
        await one_round(store, clock, url, workspaces=(WORKSPACE,))
        found = await state(store)
        assert (reached, None, "HTTP 500") == (found.workspaces[WORKSPACE].polled, found.paused, found.trouble.reason)
        fake.trouble = []
        await one_round(store, clock, url, workspaces=(WORKSPACE,))

        assert ["https://acme.com/a"] == await pages(store)
        assert reached < (await state(store)).workspaces[WORKSPACE].polled

    @pytest.mark.parametrize(
        ("trouble", "reason"),
        [
            (
                {
                    "status": 422,
                    "body": {"message": "jane@acme.com", "errors": {"date_from": ["jane@acme.com"], "a b": []}},
                },
                "HTTP 422: the query is refused (date_from): correct the source",
            ),
            ({"status": 400, "body": "x"}, "HTTP 400: the query is refused: correct the source"),
            ({"status": 401}, "HTTP 401: the token is refused: renew it, then reload"),
            ({"status": 403}, "HTTP 403: the token is refused: renew it, then reload"),
            (
                {"status": 302, "headers": {"Location": "/x"}},
                "HTTP 302: not what this address should answer: check base_url",
            ),
        ],
        ids=["422", "400", "401", "403", "302"],
    )
    async def test_a_fault_that_does_not_pass(self, store, clock, fake, url, trouble, reason):
        """
        One request, then the source is paused, with a reason that repeats no words of theirs; a reload tries again.
        """
        fake.trouble = [Trouble(**trouble)]
        async with fetching(store, clock, account(url)) as puller:
            await elapse(clock, puller.round())
            assert (1, reason) == (len(fake.received), (await state(store)).paused)
            fake.trouble = []
            puller.resume()
            await elapse(clock, puller.round())

        assert (await state(store)).paused is None
        assert (await state(store)).workspaces[WORKSPACE].polled is not None

    async def test_a_workspace_that_is_gone(self, store, clock, fake, url):
        """
        404 pauses this workspace alone, and it is not asked for again.
        """
        visit(fake, 1, "https://acme.com/a")
        async with fetching(store, clock, account(url, companies=False, workspaces=("gone", WORKSPACE))) as puller:
            await elapse(clock, puller.round())
            await elapse(clock, puller.round())
        found = await state(store)

        assert "HTTP 404" in found.workspaces["gone"].paused
        assert found.workspaces[WORKSPACE].paused is None
        assert 3 == len(asked(fake))
        assert ["https://acme.com/a"] == await pages(store)

    async def test_a_workspace_is_looked_at_again(self, store, clock, fake, url):
        """
        Once an hour one request asks whether a paused workspace is there again, and then it goes on.
        """
        async with fetching(store, clock, account(url, companies=False, workspaces=("gone", WORKSPACE))) as puller:
            await elapse(clock, puller.round())
            assert clock.now() + 3_600_000 == (await state(store)).workspaces["gone"].next
            clock.step(3599)
            await elapse(clock, puller.round())
            assert 1 == len(asked(fake, "/gone/sessions"))
            clock.step(1)
            await elapse(clock, puller.round())
            assert 2 == len(asked(fake, "/gone/sessions"))
            fake.workspaces["gone"] = Workspace("Back")
            clock.step(3600)
            await elapse(clock, puller.round())
        found = (await state(store)).workspaces["gone"]

        assert (None, None) == (found.paused, found.next)
        assert found.polled is not None

    async def test_half_a_character(self, store, clock, fake, url):
        """
        An escape that stands for no character, or a number beyond all, does not spoil the page around it.
        """
        body = (
            '{"data":[{"uuid":"s","events":[{"event_type":"track","name":"cut \\ud83d","triggered_at":null,'
            '"properties":[{"name":"n","value":123456789012345678901234567890}]}]}],"last_page":1}'
        )
        fake.trouble = [Trouble(status=200, body=body, times=1)]
        await one_round(store, clock, url, workspaces=(WORKSPACE,))

        assert ["cut ?"] == await names(store)


class TestWorkspaces:
    async def test_all_are_fetched_and_looked_up_once_an_hour(self, store, clock, fake, url):
        """
        Every workspace of the token; one that is added later is found within the hour.
        """
        async with fetching(store, clock, account(url, companies=False)) as puller:
            await elapse(clock, puller.round())
            fake.workspaces["ws-2"] = Workspace("Second")
            for _ in range(3):
                clock.step(1500)
                await elapse(clock, puller.round())

        assert 2 == len(asked(fake, "/workspaces"))
        assert ["My Website", "Second"] == [each.name for each in (await state(store)).workspaces.values()]

    async def test_one_that_is_not_listed_any_more(self, store, clock, fake, url):
        """
        It is left alone, with the reason, and goes on where it was once it is listed again.
        """
        fake.workspaces["ws-2"] = Workspace("Second")
        async with fetching(store, clock, account(url, companies=False)) as puller:
            await elapse(clock, puller.round())
            second = fake.workspaces.pop("ws-2")
            clock.step(3600)
            await elapse(clock, puller.round())
            found = (await state(store)).workspaces
            assert (None, UNLISTED) == (found[WORKSPACE].paused, found["ws-2"].paused)
            fake.workspaces["ws-2"] = second
            clock.step(3600)
            await elapse(clock, puller.round())

        assert (await state(store)).workspaces["ws-2"].paused is None
        assert 5 == len(asked(fake))


class TestCompanies:
    async def groups(self, store: Outbox) -> list[str]:
        return [event.properties["traits"]["industry"] for event in await told(store) if event.kind == "group"]

    async def test_once_and_again_on_change(self, store, clock, fake, url):
        """
        A company's traits are told when they change, and when they change back; not with every visit.
        """
        for industry in ("Software", "Software", "Media", "Software"):
            fake.add_organisation({"uuid": COMPANY, "industry": industry, "last_seen": stamp(clock.now())})
            await one_round(store, clock, url, companies=True)
            clock.step(3600)

        assert ["Software", "Media", "Software"] == await self.groups(store)
        assert {COMPANY} == {event.user.group_id for event in await told(store)}

    async def test_only_those_that_came(self, store, clock, fake, url):
        """
        Who was not there in the time that is asked for is told when it comes back.
        """
        fake.add_organisation({"uuid": COMPANY, "industry": "Software", "last_seen": stamp(clock.now() - 30 * DAY)})
        await one_round(store, clock, url, companies=True)
        assert [] == await self.groups(store)
        fake.add_organisation({"uuid": COMPANY, "last_seen": stamp(clock.now())})
        await one_round(store, clock, url, companies=True)

        assert ["Software"] == await self.groups(store)

    async def test_of_the_segment(self, store, clock, fake, url):
        """
        With a segment, only its companies are told.
        """
        for number, segments in enumerate([[{"uuid": "seg-1"}], [], ["seg-1"]]):
            company = {"uuid": f"org-{number}", "industry": f"I{number}", "segments": segments}
            fake.add_organisation({**company, "last_seen": stamp(clock.now())})
        await one_round(store, clock, url, companies=True, segment="seg-1")

        assert ["I0", "I2"] == await self.groups(store)

    async def test_how_to_reach_it_is_not_kept(self, store, clock, fake, url):
        """
        Neither a company's e-mail address nor its telephone is anywhere in the outbox.
        """
        fake.add_organisation(
            {
                "uuid": COMPANY,
                "industry": "Software",
                "email": "canary@acme.com",
                "phone": "+12025550123",
                "contacts": [{"name": "Canary Jane"}],
                "profiles": [{"type": "x", "url": "https://x.com/acme?email=canary@acme.com"}],
                "last_seen": stamp(clock.now()),
            }
        )
        await one_round(store, clock, url, companies=True)

        assert ["Software"] == await self.groups(store)
        assert_nowhere(store.directory, "canary", "Canary", "2025550123")


def assert_nowhere(directory: Path, *words: str) -> None:
    for path in [each for each in directory.rglob("*") if each.is_file()]:
        content = unpacked(path)
        for word in words:
            assert word.encode() not in content, (path, word)


async def test_forms_are_hashed_at_the_door(store, clock, fake, url):
    """
    What people typed into forms is nowhere in the outbox, but for digests of who they are and the listed fields.
    """
    typed = {
        "your-email": "canary@acme.com",
        "user[phone]": "+33 1 42 68 53 00",
        "FNAME": "Canaria",
        "last name": "Birdsong",
        "message": "I am Canaria and my number is 01 42 68 53 00",
        "topic": "pricing, says canary@acme.com",
    }
    fields = [{"name": name, "value": value} for name, value in typed.items()]
    form = {"event_type": "form_submit", "triggered_at": stamp(clock.now()), "fields": fields}
    long = {**form, "fields": [*fields, {"name": "topic" * 80, "value": "x"}], "form_id": "too-long"}
    huge = {**form, "fields": [*fields, {"name": "topic", "value": "x" * 33_000}], "form_id": "too-large"}
    url_too = {"event_type": "pageview", "url": "https://acme.com/?email=canary@acme.com"}
    session = visit(fake, 1)
    fake.add_session({"uuid": session, "events": [form, long, huge, url_too]})
    await one_round(store, clock, url, form_fields=("topic", "topic" * 80))
    event = (await told(store))[0]

    assert {"email", "phone", "first_name", "last_name"} <= {
        name for name in event.user.digests.__struct_fields__ if getattr(event.user.digests, name)
    }
    assert "pricing" in event.properties["topic"]
    assert 2 == len((await Reader(store.directory).quarantined()).items)
    assert_nowhere(store.directory, "canary@", "Canaria", "Birdsong", "42 68 53", "142685300")


class TestBudget:
    async def test_two_sources_with_one_token(self, store, clock, fake, url):
        """
        In no minute are more than 54 requests of a token let go, whoever makes them, and the partner refuses none.
        """
        times: list[int] = []

        class Counted(Budget):
            async def turn(self) -> None:
                await super().turn()
                times.append(clock.now())

        budget = Counted(clock)
        for number in range(100):
            visit(fake, number, f"https://acme.com/{number}")
        chosen = account(url, page_size=1, companies=False, workspaces=(WORKSPACE,))
        async with (
            fetching(store, clock, chosen, budget=budget) as one,
            fetching(store, clock, chosen, name="other", budget=budget) as other,
        ):
            await elapse(clock, _both(one.round(), other.round()), 1.0)

        assert 200 == len(times) == len(fake.received)
        assert 54 == max(sum(at <= each < at + MINUTE for each in times) for at in times)
        assert {200} == {call.status for call in fake.received}
        assert 200 == len(await told(store))

    async def test_outlives_a_restart(self, store, clock, fake, url):
        """
        A process that begins within the minute counts what the one before it asked.
        """
        for number in range(40):
            visit(fake, number, f"https://acme.com/{number}")
        for _ in range(2):
            await one_round(store, clock, url, page_size=1, workspaces=(WORKSPACE,))
        times = [call.at for call in fake.received]

        assert 80 == len(times)
        assert 54 == max(sum(at <= each < at + MINUTE for each in times) for at in times)

    async def test_a_clock_that_is_set_back(self, clock):
        """
        Nobody waits for a minute that seems to be of the future.
        """
        budget = Budget(clock, most=1)
        await budget.turn()
        clock.step(-86_400)

        await asyncio.wait_for(budget.turn(), 1)

    async def test_is_one_for_each_token(self, store, clock):
        """
        Sources share a budget by their token, not by their name.
        """
        pull = Pull(store, Intake(store, new_id), clock)
        mine, other = account("http://x"), account("http://x", token=Secret("another"))

        assert pull.budget(mine) is pull.budget(account("http://y"))
        assert pull.budget(mine) is not pull.budget(other)


async def _both(*rounds: Any) -> None:
    await asyncio.gather(*rounds)


class TestRunning:
    async def test_round_after_round(self, store, clock, fake, url):
        """
        The next round begins an interval after the last one began; when it is due can be read.
        """
        pull = Pull(store, Intake(store, new_id), clock)
        await pull.apply({"leads": account(url, companies=False, workspaces=(WORKSPACE,))}, frozenset())
        await fake.wait_for(1)
        await clock.somebody_sleeps()
        assert clock.now() + 5 * MINUTE == (await state(store)).next
        clock.step(299)
        assert 1 == len(fake.received)
        clock.step(1)
        await fake.wait_for(2)
        await pull.stop()

        assert 5 * MINUTE == fake.received[1].at - fake.received[0].at

    async def test_a_clock_that_is_set_back(self, store, clock, fake, url):
        """
        A round that began a day ahead of the right time does not keep the next one waiting for that day.
        """
        listed = fake.answer

        def answer(call: Any) -> Any:
            if not fake.received:
                clock.step(-86_400)
            return listed(call)

        fake.answer = answer  # type: ignore[method-assign]  # watched
        pull = Pull(store, Intake(store, new_id), clock)
        await pull.apply({"leads": account(url, companies=False, workspaces=(WORKSPACE,))}, frozenset())
        await fake.wait_for(1)
        await clock.somebody_sleeps()
        assert clock.now() + 5 * MINUTE == (await state(store)).next
        clock.step(300)
        async with asyncio.timeout(5):
            await fake.wait_for(2)
        await pull.stop()

    async def test_a_paused_source_looks_again(self, store, clock, fake, url):
        """
        Once an hour one request asks whether what was refused is taken again; when can be read, and then it goes on.
        """
        fake.trouble = [Trouble(status=401, times=2)]
        pull = Pull(store, Intake(store, new_id), clock)
        await pull.apply({"leads": account(url, companies=False, workspaces=(WORKSPACE,))}, frozenset())
        await fake.wait_for(1, accepted=False)
        await clock.somebody_sleeps()
        found = await state(store)
        assert "HTTP 401" in found.paused
        assert clock.now() + 60 * MINUTE == found.next
        for asked_so_far in (1, 2):
            clock.step(3599)
            assert asked_so_far == len(fake.received)
            clock.step(1)
            await fake.wait_for(asked_so_far + 1, accepted=False)
            await clock.somebody_sleeps()
        found = await state(store)
        await pull.stop()

        assert (None, clock.now() + 5 * MINUTE) == (found.paused, found.next)

    async def test_what_destinations_need_readable(self, store, clock, url, fake):
        """
        A country is kept in clear where a destination declares it, and not otherwise.
        """
        for name, clear in (("open", frozenset({"country"})), ("closed", frozenset[str]())):
            fake.reset()
            session = visit(fake, 1, "https://acme.com/a")
            fake.add_session({"uuid": session, "location": {"country": "United States"}})
            pull = Pull(store, Intake(store, new_id), clock)
            await pull.apply({name: account(url, companies=False, workspaces=(WORKSPACE,))}, clear)
            await clock.somebody_sleeps()
            await pull.stop()

        assert [("open", "US"), ("closed", None)] == [(each.source, each.clear.country) for each in await told(store)]

    async def test_a_reload(self, store, clock, fake, url, monkeypatch):
        """
        It starts what is new, stops what is gone or switched off, and wakes what was paused; the rest is left alone.
        """
        fake.trouble = [Trouble(status=401, times=1)]
        chosen = account(url, companies=False, workspaces=(WORKSPACE,))
        remember, noted = store.remember, asyncio.Event()

        async def remembered(source: str, notes: Any, forget: Any) -> None:
            await remember(source, notes, forget)
            if "paused" in notes["state"][0]:
                noted.set()

        monkeypatch.setattr(store, "remember", remembered)
        pull = Pull(store, Intake(store, new_id), clock)
        await pull.apply({"leads": chosen}, frozenset())
        await noted.wait()
        await pull.apply({"leads": chosen}, frozenset())
        await fake.wait_for(1)
        await pull.apply({"leads": msgspec.structs.replace(chosen, page_size=7)}, frozenset())
        await fake.wait_for(2)
        assert "7" == fake.received[-1].query["per_page"]
        await pull.apply({"leads": msgspec.structs.replace(chosen, enabled=False)}, frozenset())
        clock.step(3600)
        await pull.stop()

        assert 3 == len(fake.received)

    async def test_a_fault_of_ours(self, store, clock, fake, url, monkeypatch):
        """
        Whatever goes wrong here is logged and shown, and the next round is made.
        """
        monkeypatch.setattr("router.pull.puller.snitcher.session_items", lambda *_, **__: 1 / 0)
        visit(fake, 1, "https://acme.com/a")
        pull = Pull(store, Intake(store, new_id), clock)
        await pull.apply({"leads": account(url, companies=False, workspaces=(WORKSPACE,))}, frozenset())
        await clock.somebody_sleeps()
        assert "this could not be handled: the log says where" == (await state(store)).trouble.reason
        monkeypatch.undo()
        clock.step(300)
        await fake.wait_for(2)
        await clock.somebody_sleeps()
        await pull.stop()

        assert ["https://acme.com/a"] == await pages(store)


async def test_from_snitcher_to_a_destination(tmp_path: Path):
    """
    The whole program fetches the documented session, and a destination gets its five events and the company.
    """
    clock = App(settings(tmp_path)).clock
    source, target = Fake(now=clock.now), WebhookPartner(now=clock.now)
    async with running(source) as theirs, running(target) as ours:
        chosen = settings(
            tmp_path,
            destinations={"hook": Webhook(url=f"{ours}/", secrets=(Secret(SIGNS),), allow_private=True)},
        )
        leads = account(theirs)
        async with running_app(msgspec.structs.replace(chosen, sources={"leads": leads})) as app:
            async with asyncio.timeout(20):
                await target.wait_for_events(6)
            ledger = await Reader(app.store.directory).ledger()
    bodies = [call.body["data"] for call in target.received]

    assert ["page_view", "Form Submitted", "plan_selected", "Element Clicked", "File Downloaded", "group"] == [
        body["name"] for body in bodies
    ]
    assert {"leads"} == {body["source"] for body in bodies}
    assert "j@acme.com" not in msgspec.json.encode(bodies).decode()
    assert 0 == ledger.difference
    assert {f"Bearer {TOKEN}"} & {str(call) for call in source.received} == set()
