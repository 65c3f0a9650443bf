"""Forgetting people: nothing of them is in any file, the numbers add up, and they do not come back."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner, Result

from router import body as bodies
from router import cli, identifiers
from router.cli.forget import AT_ONCE, _found
from router.collect.intake import Intake
from router.collect.keys import sender
from router.delivery.engine import Delivery
from router.event import Clear, Money, User
from router.identifiers import Raw
from router.mocks.partner import Trouble, running
from router.mocks.webhook import Webhook as Partner
from router.outbox.disk import writer
from router.outbox.errors import Busy
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.memory import Visitor
from router.outbox.state.registers import Quarantined
from router.person import Part, Person, marks, marks_of
from router.secret import Secret
from router.settings import Source
from router.visit import Visit
from tests.builders import NOW, an_event, rows
from tests.running import KEY, collect_url, running_app, settings
from tests.stepped import SteppedClock
from tests.test_delivery import asked, settled, until
from tests.test_delivery import settings as destination
from tests.unpacked import unpacked

JANE = "jane.canary@example.com"
JANES = identifiers.digests(Raw(email=JANE))[0]
IP = "198.51.100.77"


def janes(number: int, **fields):
    user = User(id="u-jane-4711", anonymous_id="a-jane-4711", digests=JANES)
    return an_event(f"jane-{number}", user=user, clear=Clear(ip=IP), properties={"note": "janes-shoes"}, **fields)


def others(number: int):
    return an_event(f"other-{number}", user=User(id=f"u-{number}"))


async def opened(tmp_path: Path, clock: SteppedClock) -> Outbox:
    return await Outbox.open(tmp_path / "outbox", clock, segment_events=10)


def found_in(directory: Path, *needles: str) -> list[str]:
    """Which of the texts is in which file of a directory."""
    return [
        f"{needle} in {path.name}"
        for path in directory.rglob("*")
        if path.is_file()
        for needle in needles
        if needle.encode() in unpacked(path)
    ]


TRACES = ("u-jane-4711", "a-jane-4711", "janes-shoes", "jane-", JANES.email or "")


class TestMarks:
    @pytest.mark.parametrize(
        "person",
        [
            Person(email=" Jane.Canary@Example.com"),
            Person(user_id="u-jane-4711"),
            Person(anonymous_id="a-jane-4711"),
            Person(phone="+33 6 12 34 56 78"),
            Person(phone="06 12 34 56 78", country="FR"),
        ],
    )
    def test_any_identifier_finds_the_events(self, person):
        """
        One identifier, in any spelling that the door reads, is enough.
        """
        known, _ = identifiers.digests(Raw(email=JANE, phone="+33612345678", user_id="u-jane-4711"))
        event = an_event(user=User(id="u-jane-4711", anonymous_id="a-jane-4711", digests=known))

        assert not marks(person).isdisjoint(marks_of(event))

    @pytest.mark.parametrize(
        "person",
        [
            Person(email="janecanary@example.com"),
            Person(email="jane.canary+shop@example.com"),
            Person(user_id="a-jane-4711"),
            Person(anonymous_id="u-jane-4711"),
            Person(email="no address"),
            Person(),
        ],
    )
    def test_nobody_else_is_found(self, person):
        """
        An address that some partner would take for the same, and an id of another kind, are other people.
        """
        event = an_event(user=User(id="u-jane-4711", anonymous_id="a-jane-4711", digests=JANES))

        assert marks(person).isdisjoint(marks_of(event))

    @pytest.mark.parametrize(
        "fields",
        [
            {"event_id": JANES.email},
            {"money": Money(order_id=JANES.email)},
            {"user": User(id=JANES.email)},
            {"user": User(anonymous_id=JANES.email)},
        ],
    )
    def test_an_id_that_was_the_address_finds_the_event(self, fields):
        """
        Where a sender used the address for an id, of the event, the order or the visitor, its digest is that person's.
        """
        assert not marks(Person(email=JANE)).isdisjoint(marks_of(an_event(**fields)))
        assert marks(Person(email="other@example.com")).isdisjoint(marks_of(an_event(**fields)))

    def test_a_person_is_not_printed(self):
        """
        The raw values of a request for erasure show in no log and no error.
        """
        assert JANE not in repr(Person(email=JANE))


class TestErasure:
    async def test_nothing_is_left_in_any_file(self, tmp_path, clock: SteppedClock):
        """
        In sealed segments and the open one, in the state, the WALs and the quarantine: no trace; others stay whole.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        for start in range(3):
            await store.append(
                rows(*(janes(10 * start + n) for n in range(4)), *(others(10 * start + n) for n in range(6)))
            )
        await store.append(rows(janes(90), others(90)))
        await store.journal.sealing
        await store.settle(lane, [Mark(seqs=range(1, 32), state="delivered", at=NOW, attempts=1)])
        await store.quarantine(
            [
                Quarantined(at=NOW, source="shop", code="x", message="y", item='{"user":{"id":"u-jane-4711"}}'),
                Quarantined(at=NOW, source="shop", code="x", message="y", item='{"user":{"id":"u-1"}}'),
            ]
        )
        await store.remember_visitors([Visitor("shop", "a-jane-4711", {"ScCid": "c"}, NOW)], 0)
        assert found_in(store.directory, *TRACES)  # control: the search finds what is there
        receipt = await store.erase([Person(email=JANE, user_id="u-jane-4711", anonymous_id="a-jane-4711")], "test")

        assert [] == found_in(store.directory, *TRACES)
        assert (13, {"a": 13}, 1, 1) == (receipt.events, receipt.delivered, receipt.quarantined, receipt.sessions)
        left = [each for seq in range(0, 32, 10) for each in await store.segments.read(seq, 100)]
        assert 19 == sum(each.event is not None for each in left)
        assert [] == await Reader(store.directory).recount()
        await store.close()
        assert [] == found_in(tmp_path / "outbox", *TRACES)

    @pytest.mark.parametrize("name", ["1", "state", "session", "w", "%", "_1"])
    async def test_notes_of_others_stay(self, tmp_path, clock: SteppedClock, name: str):
        """
        However short an id is: a source without its notes stores again, after the next start, what it has stored already.
        """
        store = await opened(tmp_path, clock)
        await store.remember("visits", dict.fromkeys(["state", f"session w {name}", "session w 21"], ("x", NOW + 1000)))
        await store.erase([Person(anonymous_id=name)], "test")

        assert {"state": "x", "session w 21": "x"} == await store.recall("visits")
        await store.close()

    async def test_what_waits_or_is_dead_ends_as_erased(self, tmp_path, clock: SteppedClock):
        """
        Nothing of an erased person is sent any more, and every destination's sum still adds up.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(rows(janes(1), janes(2), janes(3), others(1)))
        await store.settle(lane, [Mark(seqs=(1,), state="waiting", at=NOW, due=NOW, attempts=1)])
        await store.settle(lane, [Mark(seqs=(2,), state="dead", at=NOW, attempts=1, reason="refused")])
        receipt = await store.erase([Person(email=JANE)], "test")
        ledger = await Reader(store.directory).ledger()

        assert {"a": 2} == receipt.ended
        sums = ledger.destinations["a"]
        assert (2, 0, 2, 0) == (sums.erased, sums.dead, sums.waiting, ledger.difference)
        partner = Partner(now=clock.now)
        async with running(partner) as url:
            delivery = Delivery(store, clock)
            await delivery.apply({"a": destination("webhook", url)})
            await settled(store, "a", delivered=1, dead=0, parked=0)
            await delivery.stop(1.0)
        ledger = await Reader(store.directory).ledger()
        assert (3, 1, 0) == (ledger.destinations["a"].erased, ledger.destinations["a"].delivered, ledger.difference)
        assert {"other-1": 1} == dict(partner.taken)
        await store.close()

    async def test_what_a_partner_said_of_her_goes_and_nothing_else(self, tmp_path, clock: SteppedClock):
        """
        Its words about a request that carried one of her events, first, last or in between; those about others stay.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(rows(others(1), others(2), janes(1), others(3), others(4)))
        about = {"hers": [3], "first": [3, 4, 5], "last": [1, 2, 3], "between": [2, 3, 4], "apart": [1, 3, 5]}
        of_others = {"before": [1, 2], "behind": [4, 5], "around": [1, 2, 4, 5]}
        tries = [
            Attempt(seqs=seqs, began=NOW, at=NOW, outcome="retry", status=503, answer=words)
            for words, seqs in {**about, **of_others}.items()
        ]
        await store.settle(lane, [], tries)
        await store.erase([Person(email=JANE)], "test")
        left = await store._state.read(lambda unit: unit.execute("SELECT answer FROM attempt ORDER BY id").fetchall())
        await store.close()

        assert [None] * len(about) + [*of_others] == [words for (words,) in left]

    async def test_what_was_cut_short_is_finished_when_asked_again(self, tmp_path, clock: SteppedClock, monkeypatch):
        """
        A process that ended just after the events were emptied has ended their deliveries, answers and sessions before:
        no second look could find whose they are.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(rows(janes(1), others(2)))
        tried = Attempt(seqs=[1, 2], began=NOW, at=NOW, outcome="retry", answer="what of jane-1")
        await store.settle(lane, [Mark(seqs=[1, 2], state="dead", at=NOW, attempts=1)], [tried])
        await store.remember_visitors([Visitor("shop", "a-jane-4711", {}, NOW)], 0)
        honest = store.journal.on_open

        async def cut_short(*arguments):
            await honest(*arguments)
            raise Busy("cut short")

        monkeypatch.setattr(store.journal, "on_open", cut_short)
        with pytest.raises(Busy):
            await store.erase([Person(email=JANE)], "test")
        monkeypatch.undo()
        await store.erase([Person(email=JANE)], "test")

        told = (await Reader(store.directory).ledger()).destinations["a"]
        assert (1, 1) == (told.erased, told.dead)
        assert [] == await store.visitors(0, 10)
        await store.close()
        assert [] == found_in(tmp_path, *TRACES)

    async def test_a_request_under_way_finishes(self, tmp_path, clock: SteppedClock):
        """
        What is with the partner already is not called erased before it is known; a retry of it is not sent.
        """
        store = await opened(tmp_path, clock)
        partner = Partner(now=clock.now)
        partner.trouble = [Trouble(status=503, times=1)]
        async with running(partner) as url:
            delivery = Delivery(store, clock)
            await delivery.apply({"a": destination("webhook", url)})
            await store.append(rows(janes(1)))
            await settled(store, "a", parked=1)
            await store.erase([Person(email=JANE)], "test")
            for _ in range(5):
                clock.step(30)
                await asyncio.sleep(0.02)
            await delivery.stop(1.0)

        assert {} == dict(partner.taken)
        assert 1 == (await Reader(store.directory).ledger()).destinations["a"].erased
        await store.close()

    async def test_what_is_in_hand_behind_a_hold_is_not_sent(self, tmp_path, clock: SteppedClock):
        """
        Events that a lane had read before their person was forgotten end as erased when the lane goes on.
        """
        store = await opened(tmp_path, clock)
        partner = Partner(now=clock.now)
        partner.trouble = [Trouble(status=401)]
        async with running(partner) as url:
            delivery = Delivery(store, clock)
            await delivery.apply({"a": destination("webhook", url)})
            await store.append(rows(janes(1), janes(2), others(1)))
            await until(lambda: asked(store, "SELECT hold_reason FROM lane")[0][0])
            await store.erase([Person(email=JANE)], "test")
            partner.trouble = []
            await delivery.lanes["a"].resume("test")
            await settled(store, "a", delivered=1)
            await delivery.stop(1.0)

        assert {"other-1": 1} == dict(partner.taken)
        assert 2 == (await Reader(store.directory).ledger()).destinations["a"].erased
        await store.close()

    async def test_what_is_being_admitted_is_not_stored(self, tmp_path, clock: SteppedClock):
        """
        Of a large request that was begun before somebody is forgotten nothing of theirs is stored after it.
        """
        store = await opened(tmp_path, clock)
        intake = Intake(store, lambda: "x")
        who = sender("shop", Source(tokens=(Secret("k"),)), frozenset())
        hers = [{"event": "login", "event_id": f"jane-{n}", "user": {"email": JANE}} for n in range(5)]
        rest = [{"event": "login", "event_id": f"o-{n}", "user": {"email": f"o{n}@example.com"}} for n in range(400)]
        body = bodies.read(msgspec.json.encode(hers + rest), None, strict_utf8=False)
        taking = asyncio.create_task(intake.take(body, who, Visit(received=clock.now())))
        await asyncio.sleep(0)
        assert not taking.done()
        await store.erase([Person(email=JANE)], "test")
        answer = await taking
        left = [each.event.id for seq in range(0, 410, 10) for each in await store.read(seq, 10) if each.event]

        assert 405 == answer.accepted + answer.rejected
        assert not any(each.startswith("jane") for each in left)
        await store.close()

    async def test_a_copy_under_way_is_erased_as_well(self, tmp_path, clock: SteppedClock):
        """
        While retention moves an event to those that are kept, an erasure waits and reaches the copy.
        """
        store = await opened(tmp_path, clock)
        lane = await store.lane("a", "webhook")
        await store.append(rows(janes(1), *(others(n) for n in range(9))))
        await store.append(rows(*(others(n) for n in range(20, 31))))
        await store.append(rows(others(99)))
        await store.journal.settled()
        await store.settle(lane, [Mark(seqs=range(2, 23), state="delivered", at=NOW, attempts=1)])
        await store.settle(lane, [Mark(seqs=(1,), state="dead", at=NOW, attempts=1, reason="refused")])
        await store.retention.look()
        clock.step(8 * 86_400)
        looking = asyncio.create_task(store.retention.look())
        await asyncio.sleep(0)
        await store.erase([Person(email=JANE)], "test")
        await looking

        assert [] == found_in(store.directory, *TRACES)
        await store.close()

    async def test_it_is_told_as_erased(self, tmp_path, clock: SteppedClock):
        """
        Whoever looks at the number sees that something was there and is no more, and no damage.
        """
        store = await opened(tmp_path, clock)
        await store.append(rows(janes(1)))
        await store.erase([Person(email=JANE)], "test")
        story = await Reader(store.directory).story(1)

        assert ("erased-1", True, False) == (story.id, story.erased, story.damaged)
        await store.close()


class TestReaders:
    async def test_a_snapshot_is_waited_for_and_holds_up_nobody(self, tmp_path, clock: SteppedClock):
        """
        While somebody reads the log, what was emptied is still in its WAL: the receipt comes when it is not, and events
        are stored meanwhile.
        """
        store = await opened(tmp_path, clock)
        await store.append(rows(janes(1), others(1)))
        reading, looking = (
            sqlite3.connect(store.segments.newest.path(store.directory), isolation_level=None) for _ in range(2)
        )
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM event").fetchone()
        receipt = asyncio.create_task(store.erase([Person(email=JANE)], "test"))
        await until(lambda: looking.execute("SELECT 1 FROM event WHERE payload = x''").fetchone())
        looking.close()

        assert [False] == await asyncio.wait_for(store.append(rows(others(2))), 2)  # SQLite would wait for five
        assert not receipt.done()
        assert found_in(store.directory, "u-jane-4711")  # control: it is there as long as that
        reading.close()
        assert 1 == (await receipt).events
        assert [] == found_in(store.directory, *TRACES)
        await store.close()

    async def test_a_reader_that_stays_is_named(self, tmp_path, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch):
        """
        After so long the erasure says what is in the way; asked for again, it ends what it began. What it did is in the
        audit from the first time on.
        """
        monkeypatch.setattr(writer, "READERS", 0.0)
        store = await opened(tmp_path, clock)
        await store.append(rows(janes(1)))
        reading = sqlite3.connect(store.segments.newest.path(store.directory), isolation_level=None)
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM event").fetchone()
        with pytest.raises(Busy, match="somebody reads"):
            await store.erase([Person(email=JANE)], "test")
        assert [("forget", 1)] == [(each.what, each.count) for each in (await Reader(store.directory).audit()).items]
        reading.close()

        assert 0 == (await store.erase([Person(email=JANE)], "test")).events
        assert [] == found_in(store.directory, *TRACES)
        await store.close()


class TestLinked:
    async def linked(self, tmp_path: Path, clock: SteppedClock) -> Outbox:
        """Jane's events: one with everything, one with her user id alone, one with her anonymous id alone; and another's."""
        store = await opened(tmp_path, clock)
        with_id, anonymous = User(id="u-jane-4711"), User(anonymous_id="a-jane-4711")
        await store.append(rows(janes(1), an_event("x-2", user=with_id), an_event("x-3", user=anonymous), others(1)))
        return store

    async def test_what_else_there_is_is_told_before(self, tmp_path, clock: SteppedClock):
        """
        One identifier finds its events, and says which others these carry and how many events only those have.
        """
        store = await self.linked(tmp_path, clock)
        traces = await store.traces([Person(email=JANE)])

        assert (1, 2) == (traces.events, traces.beyond)
        assert {"user", "anonymous"} <= traces.linked.keys()
        await store.close()

    async def test_all_to_which_the_events_lead(self, tmp_path, clock: SteppedClock):
        """
        With linked, one e-mail address erases what carries the user id and the anonymous id beside it, and nobody else.
        """
        store = await self.linked(tmp_path, clock)
        receipt = await store.erase([Person(email=JANE)], "test", linked=True)

        assert 3 == receipt.events
        assert [] == found_in(store.directory, *TRACES)
        assert store.suppression.blocks(Part(user=User(anonymous_id="a-jane-4711")))
        assert 1 == sum(each.event is not None for each in await store.read(0, 10))
        await store.close()

    async def test_without_it_only_what_was_said(self, tmp_path, clock: SteppedClock):
        """
        Without it the other two stay, and later events with these ids are taken.
        """
        store = await self.linked(tmp_path, clock)
        receipt = await store.erase([Person(email=JANE)], "test")

        assert 1 == receipt.events
        assert not store.suppression.blocks(Part(user=User(anonymous_id="a-jane-4711")))
        await store.close()


class TestSuppression:
    async def test_they_do_not_come_back(self, tmp_path):
        """
        A later event of the person is turned away with the reason and kept nowhere, after a restart as well.
        """
        chosen = settings(tmp_path)
        body = msgspec.json.encode({"event": "login", "id": "m-77", "user": {"email": JANE.upper(), "id": "u-9"}})
        async with running_app(chosen) as app:
            await app.store.erase([Person(email=JANE)], "test")
            first = await posted(app, body)
        async with running_app(chosen) as app:
            second = await posted(app, body)
            other = await posted(app, body.replace(b"JANE", b"JOHN"))
            assert 1 == app.store.last

        for answer in (first, second):
            problem = answer["problems"][0]
            assert (0, 1, "erased_person", "m-77") == (
                answer["accepted"],
                answer["rejected"],
                problem["code"],
                problem["id"],
            )
        assert 1 == other["accepted"]
        assert [] == found_in(tmp_path / "outbox", JANES.email or "", "jane")

    async def test_the_list_is_of_no_use_elsewhere(self, tmp_path, clock: SteppedClock):
        """
        Who is on the list cannot be told from the file without its key: digests that partners use are not in it.
        """
        store = await opened(tmp_path, clock)
        await store.erase([Person(email=JANE, user_id="u-jane-4711")], "test")

        assert [] == found_in(store.directory, *(value for value in marks_values() if value))
        await store.close()


def marks_values() -> list[str]:
    return [mark.partition(":")[2] for mark in marks(Person(email=JANE, user_id="u-jane-4711"))]


async def posted(app, body: bytes) -> dict:
    url = f"{collect_url(app)}/collect?token={KEY}"
    async with aiohttp.ClientSession() as session, session.post(url, data=body) as answer:
        assert answer.status == 200
        return await answer.json()


class TestCommand:
    def test_an_identifier_is_named_once(self, capsys: pytest.CaptureFixture[str]):
        """
        The forms in which one phone number or user id is kept are not told as several of them.
        """
        forms = {"anonymous": 1, "phone": 1, "user": 2, "external": 2, "phone_plus": 1}
        _found({"events": 1, "linked": forms, "beyond": 0}, linked=False)

        assert ": anonymous id (1), phone number (1), user id (2); 0 more events" in capsys.readouterr().err

    async def test_people_of_a_file_are_forgotten(self, tmp_path):
        """
        The command asks, sends them to the server and prints the receipt; e-mail addresses are in no output.
        """
        chosen = settings(tmp_path)
        async with running_app(chosen) as app:
            path = tmp_path / "config.toml"
            path.write_text(
                f'[console]\nlisten = "127.0.0.1:{app.console_port}"\n[outbox]\npath = "{app.store.directory}"\n'
            )
            await app.store.append(rows(janes(1), others(1)))
            people = f'{{"email": "{JANE}"}}\n\n{{"user_id": "u-1", "anonymous_id": "nobody"}}\n'

            async def run(*arguments: str, typed: str = "") -> Result:
                whole = ["forget", *arguments, "--config", str(path)]
                return await asyncio.to_thread(CliRunner().invoke, cli.turnout, whole, input=typed)

            refused = await run("--email", JANE, typed="n\n")
            assert 1 == refused.exit_code
            assert (await app.store.read(0, 1))[0].event is not None
            done = await run("--file", "-", "--yes", "--json", typed=people)
            receipt = msgspec.json.decode(done.stdout)
            plain = await run("--email", JANE, "--yes")

        assert (0, 2, 2) == (done.exit_code, receipt["people"], receipt["events"])
        assert "1 person forgotten: 0 events emptied" in plain.stdout
        assert "1 event of theirs found" in refused.output
        assert not any(JANE in result.output for result in (refused, done, plain))

    @pytest.mark.parametrize(
        ("arguments", "typed", "says"),
        [
            ([], "", "say who"),
            (["--country", "FR"], "", "say who"),
            (["--file", "-"], '{"email": "a@example.com"}\n{"mail": "b"}\n', "line 2"),
            (["--file", "-"], '{"user_id": "u-1"}\n' * 1200 + '{"email": "no address"}\n', "line 1201"),
            (["--file", "-"], '{"country": "FR"}\n', "line 1"),
            (["--file", "-", "--email", "a@example.com"], "{}", "one person by options"),
        ],
    )
    def test_what_names_nobody_is_refused(self, tmp_path, arguments, typed, says):
        """
        A misspelt or missing identifier is an error with the remedy, before anything is erased.
        """
        (tmp_path / "config.toml").write_text("")
        found = CliRunner().invoke(
            cli.turnout, ["forget", *arguments, "--yes", "--config", str(tmp_path / "config.toml")], input=typed
        )

        assert 2 == found.exit_code
        assert says in found.output

    async def test_a_thousand_by_all_their_identifiers(self, tmp_path):
        """
        However long the identifiers are, as many people as the command sends at once fit into one request.
        """
        person = {"email": f"{'e' * 242}@example.com", "phone": "+33612345678", "user_id": "é" * 128}
        body = {"people": [{**person, "anonymous_id": "é" * 128}] * AT_ONCE, "dry_run": True}
        async with running_app(settings(tmp_path)) as app, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{app.console_port}/api/v1/people:forget"
            async with session.post(
                url, data=msgspec.json.encode(body), headers={"Content-Type": "application/json"}
            ) as answer:
                assert 200 == answer.status

    async def test_an_identifier_that_is_none_erases_nothing(self, tmp_path):
        """
        Where one of many cannot be identified, nobody is erased and the place is named.
        """
        async with running_app(settings(tmp_path)) as app:
            await app.store.append(rows(janes(1)))
            url = f"http://127.0.0.1:{app.console_port}/api/v1/people:forget"
            body = {"people": [{"email": JANE}, {"email": "no address"}]}
            async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
                said = await answer.json()
            [event] = await app.store.read(0, 1)

        assert (400, "people.1") == (answer.status, said["errors"][0]["field"])
        assert event.event is not None


async def test_addresses_of_requests_are_forgotten(tmp_path: Path):
    """
    An address that was looked up may name a person in its query; an erasure empties that memory, too.
    """
    async with running_app(settings(tmp_path)) as app:
        assert app.collector is not None
        url = f"{collect_url(app)}/collect?email=jane%40example.com"
        async with aiohttp.ClientSession(headers={"x-api-key": KEY}) as http:
            async with http.post(url, json={"event": "e"}) as answer:
                assert 200 == answer.status
            async with http.post(url, json={"writeKey": "unknown", "event": "e"}, headers={"x-api-key": ""}) as answer:
                assert 401 == answer.status
        known = len(app.collector._known)
        await app.store.erase([Person(email="jane@example.com")], "test")

        assert (1, 0) == (known, len(app.collector._known))
