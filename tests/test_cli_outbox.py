"""The commands that look into the outbox, and those that change it through a running console."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from destinations.linktrace import LinkTrace
from router import cli, console
from router.cli import console_client
from router.cli.ledger import _quota
from router.delivery.engine import Delivery
from router.event import Clear, Digests, User
from router.metrics import Metrics
from router.outbox.disk.writer import READERS
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import LaneSum, QuotaView
from router.outbox.state.cursors import Held
from router.outbox.state.deliveries import Attempt, Mark
from router.outbox.state.registers import Quarantined
from router.person import Person
from router.secret import Secret
from router.settings import Console, Settings
from tests import running
from tests.builders import NOW, an_event, many, rows
from tests.stepped import SteppedClock

DIGESTS = Digests(email="a" * 64, email_gmail="a" * 64, last_name="b" * 64, last_name_tight="b" * 64)
REASON = 'consent "marketing" is unknown: the event says nothing of consent'


def turnout(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(cli.turnout, list(arguments), input=typed, catch_exceptions=False)


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A configuration whose destination needs a secret that is not there: reads must not ask for it."""
    path = tmp_path / "config.toml"
    path.write_text(
        f'[outbox]\npath = "{tmp_path / "outbox"}"\n[destinations.links]\ntype = "linktrace"\napi_key = "env:NOT_SET"\n'
    )
    return str(path)


@pytest.mark.parametrize(
    ("used", "says"),
    [(3, "3 of 12 in 2026-11"), (10, "10 of 12 in 2026-11, nearly used up"), (14, "14 of 12 in 2026-11, used up")],
)
def test_how_much_of_a_quota_is_used(used: int, says: str):
    """
    From four fifths on it is nearly used up, and from all of it on used up.
    """
    lane = LaneSum(
        delivered=used,
        waiting=0,
        filtered=0,
        dead=0,
        erased=0,
        held=False,
        hold_reason=None,
        hold_until=None,
        quota=QuotaView(month="2026-11", used=used, limit=12),
    )

    assert says == _quota(lane)


def fill(directory: Path) -> None:
    """Two destinations that saw five events to every kind of end, and then no server."""

    async def filled() -> None:
        store = await Outbox.open(directory, SteppedClock())
        await store.configure("digest", "text")
        links = await store.lane("links", "linktrace")
        await store.append(
            rows(
                an_event("e-1", clear=Clear(ip="203.0.113.7"), user=User(digests=DIGESTS)),
                *(an_event(f"e-{number}", name="purchase", notes=("unit_guessed",)) for number in range(2, 6)),
            )
        )
        await store.append(rows(an_event("e-1")))
        await store.lane("late", "webhook")
        first = Attempt(
            seqs=[2, 3],
            began=NOW + 40,
            at=NOW + 140,
            outcome="retry",
            status=429,
            reason="HTTP 429",
            answer="slow\x1b[31m",
        )
        second = Attempt(seqs=[2], began=NOW + 30_000, at=NOW + 30_118, outcome="delivered", status=200)
        await store.settle(
            links, [Mark(seqs=[1], state="delivered", at=NOW + 90, began=NOW + 50, attempts=1, status=200)]
        )
        parked = Mark(seqs=[2, 3], state="waiting", at=NOW + 140, attempts=1, due=NOW + 30_000, reason="HTTP 429")
        await store.settle(links, [parked], [first])
        await store.settle(
            links, [Mark(seqs=[2], state="delivered", at=NOW + 30_118, attempts=2, parked=True, status=200)], [second]
        )
        await store.settle(
            links,
            [
                Mark(seqs=[4], state="filtered", at=NOW, reason=REASON),
                Mark(seqs=[5], state="dead", at=NOW, attempts=3, status=404, reason="unknown link"),
            ],
        )
        await store.quarantine(
            [
                Quarantined(
                    at=NOW, source="shop", code="missing", field="event_name", message="send a name", event_id="bad"
                )
            ]
        )
        await store.close()

    asyncio.run(filled())


class TestExport:
    @pytest.fixture(autouse=True)
    def _filled(self, tmp_path: Path) -> None:
        fill(tmp_path / "outbox")

    def test_it_is_the_list_with_the_events(self, config: str, monkeypatch: pytest.MonkeyPatch):
        """
        Every delivery of every page, as the list shows it, and its event as it is stored: without what is kept encrypted.
        """
        monkeypatch.setattr("router.cli.outbox.AT_ONCE", 2)
        listed = turnout("outbox", "list", "--config", config, "--json")
        result = turnout("outbox", "export", "--config", config)

        exported = [json.loads(each) for each in result.stdout.splitlines()]
        events = [each.pop("event") for each in exported]
        assert [json.loads(each) for each in listed.stdout.splitlines()] == exported
        assert [each["id"] for each in exported] == [each["id"] for each in events]
        assert {"a" * 64} == {each["user"]["digests"]["email"] for each in events if each["id"] == "e-1"}
        assert "203.0.113.7" not in result.stdout
        assert (0, "") == (result.exit_code, result.stderr)

    def test_only_what_is_asked_for(self, config: str):
        """
        Of one destination, in one state.
        """
        result = turnout("outbox", "export", "--config", config, "--to", "links", "--state", "dead")

        (only,) = map(json.loads, result.stdout.splitlines())
        assert ("links", "dead", "e-5", "purchase") == (only["to"], only["state"], only["id"], only["event"]["name"])

    def test_an_erased_event_is_none(self, config: str, tmp_path: Path):
        """
        What became of it is told, and nothing of the event.
        """

        async def forgotten() -> None:
            store = await Outbox.open(tmp_path / "outbox", SteppedClock())
            await store.erase([Person(email="a" * 64)], "tester")
            await store.close()

        asyncio.run(forgotten())
        result = turnout("outbox", "export", "--config", config, "--to", "links", "--state", "delivered")

        found = {each["seq"]: each.get("event") for each in map(json.loads, result.stdout.splitlines())}
        assert found[1] is None
        assert "e-2" == found[2]["id"]

    def test_a_file_is_new_and_its_owners(self, config: str, tmp_path: Path):
        """
        Nobody else may read it, nothing that was there is written over, and what fails leaves none behind.
        """
        out = tmp_path / "out.ndjson"
        assert 1 == turnout("outbox", "export", "--config", config, "--to", "nobody", "--out", str(out)).exit_code
        assert not out.exists()
        assert 0 == turnout("outbox", "export", "--config", config, "--to", "links", "--out", str(out)).exit_code
        written = out.read_bytes()

        assert (0o600, 5) == (out.stat().st_mode & 0o777, len(written.splitlines()))
        again = turnout("outbox", "export", "--config", config, "--out", str(out))
        assert (2, written) == (again.exit_code, out.read_bytes())
        assert 2 == turnout("outbox", "export", "--config", config, "--out", str(out / "in")).exit_code

    def test_a_disk_that_is_full_is_told(self, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        In a sentence, and half a file is not left for a whole one.
        """

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("router.cli.outbox.line", full)
        out = tmp_path / "out.ndjson"
        result = turnout("outbox", "export", "--config", config, "--out", str(out))

        assert (1, True) == (result.exit_code, "free some space" in result.stderr)
        assert not out.exists()


class TestReads:
    @pytest.fixture(autouse=True)
    def _filled(self, tmp_path: Path) -> None:
        fill(tmp_path / "outbox")

    def test_the_ledger_is_one_object_with_the_documented_keys(self, config: str):
        """
        turnout ledger --json is the object of GET /api/v1/ledger, without a server and without secrets.
        """
        result = turnout("ledger", "--config", config, "--json")

        ledger = json.loads(result.output)
        assert (0, 7, 1, 1, 5, 0) == (
            result.exit_code,
            *(ledger[key] for key in ("received", "duplicate", "rejected", "accepted", "difference")),
        )
        assert {"delivered": 2, "waiting": 1, "filtered": 1, "dead": 1, "erased": 0} == {
            key: ledger["destinations"]["links"][key] for key in ("delivered", "waiting", "filtered", "dead", "erased")
        }

    def test_the_ledger_reads_as_a_sum(self, config: str):
        """
        For people it is a table and one line that adds up; --verify says that every row was counted.
        """
        result = turnout("ledger", "--config", config, "--verify")

        assert "received 7 = duplicate 1 + rejected 1 + accepted 5; difference 0" in result.output
        assert "verified" in result.output
        assert 0 == result.exit_code

    def test_a_ledger_that_does_not_come_out_fails(self, config: str, tmp_path: Path):
        """
        A difference is exit 1, and --verify says where it is.
        """
        import sqlite3

        with sqlite3.connect(tmp_path / "outbox" / "state.db") as connection:
            connection.execute("UPDATE lane SET dead = dead + 2 WHERE name = 'links'")
        connection.close()

        assert 1 == turnout("ledger", "--config", config).exit_code
        result = turnout("ledger", "--config", config, "--verify")
        assert "links: dead: 1 counted, 3 in the books" in result.output

    def test_deliveries_are_listed(self, config: str):
        """
        The list shows every delivery with its state and reason, newest first, and filters by destination and state.
        """
        lines = turnout("outbox", "list", "--config", config, "--json").output.splitlines()
        states = [(each["id"], each["state"]) for each in map(json.loads, lines)]
        expected = [
            ("e-5", "dead"),
            ("e-4", "filtered"),
            ("e-3", "waiting"),
            ("e-2", "delivered"),
            ("e-1", "delivered"),
        ]
        assert expected == states

        shown = turnout("outbox", "list", "--config", config, "--to", "links", "--state", "dead").output
        assert "unknown link" in shown
        assert "e-4" not in shown
        typo = turnout("outbox", "list", "--config", config, "--to", "typo")
        assert (1, "There is no such destination: turnout ledger lists them.\n") == (typo.exit_code, typo.stderr)

    async def test_what_waits_is_told_last(self, tmp_path: Path):
        """
        A try that held the lane spends none of the event's and moves no row: what the event waits for stands below it.
        """
        store = await Outbox.open(tmp_path / "held" / "outbox", SteppedClock())
        lane = await store.lane("links", "linktrace")
        await store.append(rows(an_event("e-1")))
        parked = Mark(seqs=[1], state="waiting", at=NOW + 10, attempts=1, due=NOW + 1000, reason="HTTP 503")
        await store.settle(lane, [parked], [Attempt(seqs=[1], began=NOW, at=NOW + 10, outcome="retry", status=503)])
        await store.settle(lane, [], [Attempt(seqs=[1], began=NOW + 2000, at=NOW + 2010, outcome="hold", status=401)])
        await store.hold(lane, Held(reason="key refused", by="partner", at=NOW + 2010))
        await store.close()
        path = tmp_path / "held" / "config.toml"
        path.write_text("")
        told = (await asyncio.to_thread(turnout, "explain", "e-1", "--config", str(path))).output.splitlines()

        assert "links         waiting, the destination is held (key refused): HTTP 503" in told[-1]

    async def test_a_terminal_that_lacks_a_character_is_told_its_number(self, tmp_path: Path):
        """
        What a sender wrote is shown as far as the terminal's encoding has it: it ends no command.
        """
        store = await Outbox.open(tmp_path / "outbox", SteppedClock())
        await store.lane("hook", "webhook")
        await store.append(rows(an_event("été→")))
        await store.close()
        (tmp_path / "config.toml").write_text("")
        path = str(tmp_path / "config.toml")
        async with running.turnout("outbox", "list", "--config", path, PYTHONIOENCODING="ascii") as listed:
            code, out, err = await listed.ended()

        assert (0, "") == (code, err)
        assert "\\xe9t\\xe9\\u2192" in out

        async with running.turnout("outbox", "list", "--json", "--config", path, PYTHONIOENCODING="ascii") as listed:
            _, out, _ = await listed.ended()
        assert "été→" == json.loads(out.splitlines()[0])["id"]

    def test_a_list_goes_on(self, config: str):
        """
        Where there is more, stderr says how to see it, and the next page begins there.
        """
        first = turnout("outbox", "list", "--config", config, "--limit", "2", "--json")
        place = first.stderr.split("--after ")[1].strip()

        second = turnout("outbox", "list", "--config", config, "--limit", "2", "--json", "--after", place)
        assert ["e-3", "e-2"] == [json.loads(each)["id"] for each in second.stdout.splitlines()]

    def test_a_list_goes_on_nowhere_else(self, config: str):
        """
        What is no place is refused: the first page again would be taken for the next one.
        """
        refused = turnout("outbox", "list", "--config", config, "--after", "e-3")

        assert (2, "") == (refused.exit_code, refused.stdout)

    @pytest.mark.parametrize("name", ["e-2", "#2"])
    def test_one_event_is_shown(self, config: str, name: str):
        """
        An event is found by its id and by its number; a destination of later days says so.
        """
        shown = turnout("outbox", "show", name, "--config", config)

        assert 0 == shown.exit_code
        assert "links" in shown.output
        assert "it came before this destination was there" in shown.output

    def test_an_event_is_explained_line_by_line(self, config: str):
        """
        The story tells receipt, repair, storage, every try with the partner's words, and the end, with times in UTC.
        """
        told = turnout("explain", "e-2", "--config", config).output.splitlines()

        assert [
            "e-2  purchase, 2026-11-18 UTC",
            "11:06:40.000  received      plain, source shop",
            "11:06:40.000  normalised    7 fields; notes: unit_guessed (a time was not in milliseconds: its unit was guessed)",
            "11:06:40.000  stored        number 2, log segment 1; answered after the commit",
            r"11:06:40.040  links 1       429 slow\x1b[31m in 100 ms, with 1 other: retry: HTTP 429",
            "11:07:10.000  links 2       200 in 118 ms: delivered",
            "11:07:10.118  links         delivered 30.1 s after receipt (configuration 1)",
            "              late          not sent: it came before this destination was there",
        ] == told

    def test_a_replay_comes_after_what_it_came_after(self, config: str):
        """
        What was not sent at first, or came before the destination, and is replayed is said in that order.
        """

        async def replayed() -> None:
            store = await Outbox.open(Path(config).parent / "outbox", SteppedClock())
            again = Attempt(seqs=[4], began=NOW + 60_000, at=NOW + 60_010, outcome="delivered", reason="replay 1")
            for name, kind in (("links", "linktrace"), ("late", "webhook")):
                await store.settle(await store.lane(name, kind), [], [again])
            await store.close()

        asyncio.run(replayed())
        told = turnout("explain", "e-4", "--config", config).output.splitlines()

        links = next(place for place, line in enumerate(told) if f"links         not sent: {REASON}" in line)
        late = next(place for place, line in enumerate(told) if "late          not sent: it came before" in line)
        assert any("links 1       no answer in 10 ms: delivered: replay 1" in line for line in told[links:late])
        assert "11:07:40.000  late 1        no answer in 10 ms: delivered: replay 1" == told[late + 1]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            pytest.param("e-1", "delivered 0.1 s after receipt", id="delivered"),
            pytest.param(
                "e-1",
                "digests of email, last_name; some held apart, encrypted",
                id="personal data by name, not by form",
            ),
            pytest.param("e-3", "waiting, next try not before 2026-11-18 11:07:10Z: HTTP 429", id="waiting"),
            pytest.param("e-4", f"not sent: {REASON} (configuration 1)", id="filtered"),
            pytest.param("e-5", "given up after 3 tries: unknown link", id="dead"),
        ],
    )
    def test_every_end_has_its_sentence(self, config: str, name: str, expected: str):
        """
        Whatever became of an event is said in plain words with its reason.
        """
        assert expected in turnout("explain", name, "--config", config).output

    def test_the_configuration_of_now_is_compared(self, config: str, monkeypatch: pytest.MonkeyPatch):
        """
        Where the configuration of now would decide otherwise than was done, the story says so.
        """
        monkeypatch.setenv("NOT_SET", "key")

        assert "by the configuration of now it is sent" in turnout("explain", "e-4", "--config", config).output
        assert "configuration of now" not in turnout("explain", "e-1", "--config", config).output

    def test_a_story_is_an_object(self, config: str):
        """
        --json tells the same as one object a line.
        """
        (story,) = [
            json.loads(each) for each in turnout("explain", "e-5", "--config", config, "--json").stdout.splitlines()
        ]

        assert ("e-5", ["dead", "earlier"]) == (story["id"], [each["state"] for each in story["destinations"]])
        assert "203.0.113.7" not in json.dumps(story)

    @pytest.mark.parametrize("arguments", [("explain",), ("outbox", "show"), ("outbox", "list", "--to")])
    def test_what_is_no_utf_8_is_no_id(self, config: str, arguments: tuple[str, ...]):
        """
        A byte that is none comes as half of a surrogate pair, which neither JSON nor SQLite takes.
        """
        result = turnout(*arguments, "e-\udcff", "--config", config)

        assert (2, True) == (result.exit_code, "type it again, in UTF-8" in result.stderr)

    def test_what_was_refused_is_said(self, config: str):
        """
        An id that was refused exits 1 and says why; an unknown one too.
        """
        refused = turnout("explain", "bad", "--config", config)
        assert 1 == refused.exit_code
        assert "missing, field event_name: send a name" in refused.output
        assert 1 == turnout("explain", "nobody", "--config", config).exit_code
        assert 1 == turnout("outbox", "show", "nobody", "--config", config).exit_code


class TestElsewhere:
    def test_the_outbox_is_beside_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """
        A relative path is counted from the configuration, wherever the command is called; a whole one stands.
        """
        there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
        for each in (there, elsewhere):
            each.mkdir()
        (there / "config.toml").write_text('[outbox]\npath = "box"\n')
        (there / "whole.toml").write_text(f'[outbox]\npath = "{elsewhere}"\n')
        monkeypatch.chdir(elsewhere)

        for name, place in (("config.toml", there / "box"), ("whole.toml", elsewhere)):
            assert f"there is no outbox in {place}:" in turnout("ledger", "--config", str(there / name)).output
            assert f"there is none in {place} yet" in turnout("doctor", "--config", str(there / name)).output


class TestNothingThere:
    def test_no_outbox(self, config: str):
        """
        Without an outbox a read exits 1 and says what to check.
        """
        result = turnout("ledger", "--config", config)

        assert 1 == result.exit_code
        assert "check [outbox] path, or start turnout serve" in result.stderr

    @pytest.mark.parametrize("command", ["ledger", "check", "doctor", "serve", "send {}", "preview {}", "tail"])
    def test_no_configuration(self, tmp_path: Path, command: str):
        """
        Without a configuration it is a question of usage: every command exits 2.
        """
        assert 2 == turnout(*command.split(), "--config", str(tmp_path / "none.toml")).exit_code

    def test_no_server(self, tmp_path: Path):
        """
        An act with nobody to do it exits 3, and says what to start.
        """
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        path = tmp_path / "config.toml"
        path.write_text(f'[console]\nlisten = "127.0.0.1:{port}"\n')
        result = turnout("outbox", "hold", "--to", "links", "--config", str(path))

        assert 3 == result.exit_code
        assert "start turnout serve" in result.stderr


Run = Callable[..., Awaitable[Result]]


class TestSilence:
    """A console that takes the question and has not answered yet."""

    @pytest.fixture
    def silent(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        monkeypatch.setattr(console_client, "TIMEOUT", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            path = tmp_path / "config.toml"
            path.write_text(f'[console]\nlisten = "127.0.0.1:{listening.getsockname()[1]}"\n')
            yield str(path)

    def test_it_is_not_said_to_be_away(self, silent: str):
        """
        The act may go on there: whoever starts another server for it, or asks again at once, was told wrong.
        """
        result = turnout("forget", "--user-id", "u-1", "--yes", "--config", silent)

        assert 3 == result.exit_code
        assert "has not answered within" in result.stderr
        assert "start turnout serve" not in result.stderr

    def test_an_id_that_is_no_utf_8_is_not_asked_for(self, silent: str):
        """
        Nor is the console blamed for it.
        """
        result = turnout("outbox", "retry", "--to", "links", "e-\udcff", "--config", silent)

        assert (2, True) == (result.exit_code, "type it again, in UTF-8" in result.stderr)

    def test_the_outbox_has_the_last_word(self):
        """
        What waits for a reader of both kinds of file ends in time to say who is in the way.
        """
        assert 2 * READERS < console_client.TIMEOUT


class TestActs:
    @pytest.fixture
    async def run(
        self, store: Outbox, clock: SteppedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Run]:
        """The command line beside a running server with a token, whose lane "links" is held: one dead, two waiting."""
        lane = await store.lane("links", "linktrace")
        await store.hold(lane, Held(reason="key refused", by="operator", at=NOW))
        await store.append(many(3))
        await store.settle(lane, [Mark(seqs=[1], state="dead", at=NOW, attempts=1, reason="HTTP 400")])
        delivery = Delivery(store, clock)
        await delivery.apply({"links": LinkTrace(api_key=Secret("k"))})
        app = console.application(
            reader=Reader(store.directory),
            store=store,
            delivery=delivery,
            settings=Settings(console=Console(token=Secret("s3cret"))),
            metrics=Metrics(),
        )
        server = TestServer(app)
        await server.start_server()
        path = tmp_path / "config.toml"
        console_table = f'[console]\nlisten = "127.0.0.1:{server.port}"\ntoken = "env:CONSOLE_TOKEN"\n'
        path.write_text(f'{console_table}[outbox]\npath = "{store.directory}"\n')
        monkeypatch.setenv("CONSOLE_TOKEN", "s3cret")

        async def command(*arguments: str, typed: str | None = None) -> Result:
            return await asyncio.to_thread(turnout, "outbox", *arguments, "--config", str(path), typed=typed)

        yield command
        await server.close()
        await delivery.stop(0.0)

    async def test_ids_with_nothing_to_do(self, run: Run):
        """
        Where no id has what is asked for, the act has failed.
        """
        assert 1 == (await run("drop", "--to", "links", "e-1", "--yes")).exit_code
        assert 0 == (await run("drop", "--to", "links", "e-1", "e-2", "--yes")).exit_code

    async def test_ids_that_are_not_stored(self, run: Run):
        """
        Where none of the ids is stored the act has failed; where one is, it was done.
        """
        none, some = (
            await run("retry", "--to", "links", "nope", "--yes"),
            await run("retry", "--to", "links", "nope", "#1", "--yes"),
        )

        assert (1, "1 id is not stored.\n") == (none.exit_code, none.stderr)
        assert (0, "1 id is not stored.\n") == (some.exit_code, some.stderr)

    async def states(self, store: Outbox) -> tuple[int, int]:
        links = (await Reader(store.directory).ledger()).destinations["links"]
        return links.waiting, links.dead

    async def test_dead_ones_go_again(self, run: Run, store: Outbox):
        """
        Retry says the count and does it; the audit names user and machine.
        """
        result = await run("retry", "--to", "links", "--yes")

        assert (0, "1 delivery will be sent again.\n") == (result.exit_code, result.stdout)
        assert (3, 0) == await self.states(store)
        (row,) = (await Reader(store.directory).audit()).items
        assert "@" in row.who

    async def test_it_asks_first(self, run: Run, store: Outbox):
        """
        Without --yes the count is shown and asked for; no means no.
        """
        result = await run("drop", "--to", "links", typed="n\n")

        assert "Give 2 waiting deliveries of links up?" in result.stderr
        assert 1 == result.exit_code
        assert (2, 1) == await self.states(store)
        assert 0 == (await run("drop", "--to", "links", "e-2", typed="y\n")).exit_code
        assert (1, 2) == await self.states(store)

    async def test_a_dry_run_changes_nothing(self, run: Run, store: Outbox):
        """
        --dry-run tells the count, asks nothing and does nothing.
        """
        result = await run("drop", "--to", "links", "--dry-run", "--json")

        assert (2, True) == (json.loads(result.stdout)["count"], json.loads(result.stdout)["dry_run"])
        assert (2, 1) == await self.states(store)

    @pytest.mark.parametrize(
        ("arguments", "out", "err"),
        [
            (["retry", "--dry-run"], "1 delivery would be sent again.\n", ""),
            (["drop", "--dry-run"], "2 deliveries would be given up.\n", ""),
            (["drop", "--dry-run", "e-2"], "1 delivery would be given up.\n", ""),
            (["retry", "--yes", "x"], "0 deliveries will be sent again.\n", "1 id is not stored.\n"),
            (["retry", "--yes", "x", "y"], "0 deliveries will be sent again.\n", "2 ids are not stored.\n"),
            (["drop", "--yes"], "2 deliveries given up.\n", ""),
            (
                ["drop", "--yes", "e-1"],
                "0 deliveries given up.\n",
                "1 id has nothing waiting at links: turnout outbox show ID says how it stands.\n",
            ),
            (
                ["retry", "--yes", "x", "e-2", "e-3"],
                "0 deliveries will be sent again.\n",
                "1 id is not stored.\n2 ids have nothing dead at links: turnout outbox show ID says how it stands.\n",
            ),
        ],
        ids=[
            "retry one",
            "drop both",
            "drop one",
            "an unknown id",
            "unknown ids",
            "dropped both",
            "in vain",
            "two ways in vain",
        ],
    )
    async def test_what_is_said(self, run: Run, arguments: list[str], out: str, err: str):
        """
        The count is told in a sentence that says what would be done, or was.
        """
        result = await run(arguments[0], "--to", "links", *arguments[1:])

        assert (out, err) == (result.stdout, result.stderr)

    async def test_hold_and_resume(self, run: Run, store: Outbox):
        """
        A destination is held with a reason, and goes on.
        """
        assert "links goes on.\n" == (await run("resume", "--to", "links")).stdout
        assert None is store.lanes["links"].held
        await run("hold", "--to", "links", "--reason", "maintenance")
        held: Any = store.lanes["links"].held
        assert "maintenance" == held.reason

    async def test_the_hold_is_the_reason(self, run: Run):
        """
        In a list of what waits, the reason is why its destination is held; of what is dead, why it is.
        """
        assert 2 == (await run("list", "--state", "waiting")).stdout.count("key refused")
        assert "HTTP 400" in (await run("list", "--state", "dead")).stdout

    async def test_a_refusal_is_told(self, run: Run):
        """
        What the console refuses exits 1 with its words.
        """
        result = await run("resume", "--to", "typo/../x")

        assert 1 == result.exit_code
        assert "There is no such destination: turnout ledger lists them.\n" == result.stderr

    async def test_a_wrong_token_is_told(self, run: Run, monkeypatch: pytest.MonkeyPatch):
        """
        A token that is wrong or not set exits 1 and is not printed.
        """
        monkeypatch.setenv("CONSOLE_TOKEN", "wr0ng")
        result = await run("resume", "--to", "links")
        assert (1, False) == (result.exit_code, "wr0ng" in result.output)
        monkeypatch.delenv("CONSOLE_TOKEN")
        result = await run("resume", "--to", "links")
        assert 1 == result.exit_code
        assert "CONSOLE_TOKEN is not set" in result.stderr
