"""``turnout tail``: beside a running server, through a lost connection, and on the files alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from router import cli
from router.app import App
from router.cli import tail
from router.cli.console_client import Console
from router.event import Consent, Event, Money, User
from router.outbox.outbox import Outbox
from router.outbox.reads.views import Gap, Settled, instant
from router.outbox.state.deliveries import Attempt, Mark
from router.quality import Match
from router.secret import Secret
from router.settings import Console as ConsoleTable
from tests import running
from tests.builders import NOW, an_event, many, rows
from tests.running import running_app, settings
from tests.stepped import SteppedClock

GOOD = {"user": User(id="u-1"), "consent": Consent(known=True)}


def command(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(cli.turnout, ["tail", *arguments], catch_exceptions=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at, and the server asked again, sooner than in the product; nothing tested depends on it."""
    monkeypatch.setattr(tail, "POLL", 0.02)
    monkeypatch.setattr(tail, "ASK_AGAIN", 0.1)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path, port: int) -> str:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[console]\nlisten = "127.0.0.1:{port}"\ntoken = "env:CONSOLE_TOKEN"\n'
        f'[outbox]\npath = "{tmp_path / "outbox"}"\n[sources.shop]\ntokens = ["env:NOT_SET"]\n'
    )
    return str(path)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_TOKEN", "s3cret")


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, port: int) -> AsyncIterator[App]:
    """The application, its console on this port, with a lane "links" that nobody works on."""
    console = ConsoleTable(listen=f"127.0.0.1:{port}", token=Secret("s3cret"))
    chosen = msgspec.structs.replace(settings(tmp_path), console=console)
    async with running_app(chosen) as app:
        await app.store.lane("links", "linktrace")
        yield app


async def filled(directory: Path) -> None:
    """An outbox without a server: five events, of which two were given an end at "links"."""
    store = await Outbox.open(directory, SteppedClock())
    lane = await store.lane("links", "linktrace")
    await store.append(rows(*(an_event(f"e-{n}", name="purchase" if n == 4 else "page_view") for n in range(1, 6))))
    await store.settle(
        lane,
        [
            Mark(seqs=[1], state="delivered", at=NOW + 90, attempts=1, status=202),
            Mark(seqs=[2], state="waiting", at=NOW, attempts=1, due=NOW + 30_000, status=503, reason="HTTP 503"),
        ],
        [Attempt(seqs=[2], began=NOW, at=NOW, outcome="retry", status=503)],
    )
    await store.close()


def objects(result: Result) -> list[dict[str, Any]]:
    """What it printed; a server of the same process may log in between."""
    return [json.loads(each) for each in result.stdout.splitlines() if each.startswith("{")]


def seqs(result: Result) -> list[int]:
    return [each["seq"] for each in objects(result) if each["event"] == "accepted"]


class TestLive:
    async def test_it_follows_the_server(self, tmp_path: Path, port: int, config: str):
        """
        Every event and delivery is one object a line, with the keys of the stream, as it happens.
        """
        async with serving(tmp_path, port) as app:
            running_tail = asyncio.create_task(
                asyncio.to_thread(command, "--since", "0", "--limit", "3", "--json", "--config", config)
            )
            await app.store.append(many(2))
            await told_to(app)
            await app.store.settle(app.store.lanes["links"], [Mark(seqs=[1], state="dead", at=NOW, reason="no")])
            await told_to(app)
            await app.store.append(many(1, 3))
            result = await running_tail

        assert (0, "") == (result.exit_code, result.stderr)
        assert [1, 2, 3] == seqs(result)
        assert ["accepted", "accepted", "delivery", "accepted"] == [each["event"] for each in objects(result)]
        assert list(objects(result)[0]) == [
            "event", "seq", "id", "name", "source", "dialect", "kind", "received", "time", "quality", "matches", "notes",
            "test", "damaged", "erased",
        ]  # fmt: skip
        assert list(objects(result)[2]) == [
            "event", "seq", "to", "state", "attempts", "id", "at", "due", "status", "reason", "duplicate", "unverified",
            "earlier",
        ]  # fmt: skip

    async def test_a_lost_connection_is_taken_up(self, tmp_path: Path, port: int, config: str):
        """
        When the server goes and comes back, every event is shown once, and stderr says what happened.
        """
        async with serving(tmp_path, port) as app:
            running_tail = asyncio.create_task(
                asyncio.to_thread(command, "--since", "0", "--limit", "6", "--json", "--config", config)
            )
            await app.store.append(many(3))
            await told_to(app)
        async with serving(tmp_path, port) as app:
            await app.store.append(many(2, 4))
            await told_to(app)
            await app.store.append(many(1, 6))
            result = await running_tail

        assert [1, 2, 3, 4, 5, 6] == seqs(result)
        assert "The connection was lost: trying again, behind event 3.\n" in result.stderr
        assert "The server answers again.\n" in result.stderr

    async def test_only_what_is_poor(self, tmp_path: Path, port: int, config: str):
        """
        --quality shows events so good or worse, and of deliveries only theirs.
        """
        money = Money(value="1", currency="EUR")
        events = [
            an_event("good", name="purchase", money=money, **GOOD),
            an_event("fair", name="purchase", money=money, user=GOOD["user"]),
            an_event("poor", name="purchase", **GOOD),
            an_event("last", name="purchase", **GOOD),
        ]

        async def shown(level: str, count: str) -> list[str]:
            result = await asyncio.to_thread(
                command, "--since", "0", "--quality", level, "--limit", count, "--json", "--config", config
            )
            return [f"{each['event']} {each['id']}" for each in objects(result)]

        async with serving(tmp_path, port) as app:
            await app.store.append(rows(*events[:3]))
            await app.store.settle(
                app.store.lanes["links"], [Mark(seqs=[1, 2, 3], state="filtered", at=NOW, reason="no")]
            )
            watching = asyncio.create_task(shown("poor", "2"))
            await told_to(app)
            await app.store.append(rows(events[3]))
            assert ["accepted poor", "delivery poor", "accepted last"] == await watching
            assert ["accepted fair", "accepted poor", "accepted last"] == [
                each for each in await shown("fair", "3") if each.startswith("accepted")
            ]

    @pytest.mark.parametrize(
        ("arguments", "environ", "words"),
        [
            (["--to", "typo"], {}, "There is no such destination: turnout ledger lists them.\n"),
            ([], {"CONSOLE_TOKEN": "wr0ng"}, "send Authorization: Bearer and the token of [console].\n"),
        ],
        ids=["destination", "token"],
    )
    async def test_a_refusal_is_told(
        self, tmp_path: Path, port: int, config: str, arguments: list[str], environ: dict[str, str], words: str
    ):
        """
        What the console refuses exits 1 with its words, and is not tried again.
        """
        async with serving(tmp_path, port):
            result = await asyncio.to_thread(lambda: command(*arguments, "--config", config, **environ))

        assert (1, words) == (result.exit_code, result.stderr)

    async def test_ctrl_c_is_an_end(self, tmp_path: Path, port: int, config: str):
        """
        Ctrl-C ends it with 0 and without a word.
        """
        async with (
            serving(tmp_path, port) as app,
            running.turnout("tail", "--since", "0", "--config", config) as process,
        ):
            await app.store.append(many(1))
            assert "#1" in await process.line()
            process.signal(signal.SIGINT)
            assert (0, "", "") == await process.ended()


async def told_to(app: App) -> None:
    """Until a stream is open that has told everything there is."""
    async with asyncio.timeout(20):
        while not any(_has_told(each, app.store.last) for each in app.store.watchers):  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.01)


def _has_told(watcher: Any, last: int) -> bool:
    at_rest = getattr(watcher, "_position", -1) == last and not watcher._notices.waiting()
    return at_rest and not watcher._wake.is_set() and bool(watcher._wake._waiters)  # nothing is under way either


class TestFiles:
    async def test_where_no_server_answers(
        self, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str], clock: SteppedClock
    ):
        """
        The files are read on while somebody else writes them, deliveries as they change, and stderr says so once.
        """
        await filled(tmp_path / "outbox")
        store = await Outbox.open(tmp_path / "outbox", clock)
        lane = await store.lane("links", "linktrace")
        messages = tail.Tail(Path(config), Console(Path(config)), tail.Choice(None, None, None, "good")).following(
            1, None
        )

        async def shown(count: int) -> list[tuple[Any, ...]]:
            found = [await asyncio.to_thread(next, messages) for _ in range(count)]
            return [(each.seq, each.id, getattr(each, "state", "accepted")) for each in found]

        events = [(seq, f"e-{seq}", "accepted") for seq in range(2, 6)]
        assert [*events, (2, "e-2", "waiting")] == await shown(5)
        await store.settle(lane, [Mark(seqs=[2], state="delivered", at=NOW, attempts=2, status=202, parked=True)])
        assert [(2, "e-2", "delivered")] == await shown(1)
        for number in (6, 7):
            await store.append(many(1, number))
            assert [(number, f"e-{number}", "accepted")] == await shown(1)
        await store.close()
        assert 1 == capsys.readouterr().err.count("No server answers")

    async def test_events_that_are_gone(self, tmp_path: Path, config: str, clock: SteppedClock):
        """
        Events that are no longer stored are counted where they were.
        """
        store = await Outbox.open(tmp_path / "outbox", clock, segment_events=2)
        for number in range(1, 6):
            await store.append(many(1, number))
        await store.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox" / "state.db")) as connection:
            connection.execute("DELETE FROM segment WHERE first < 3")
            connection.commit()
        result = await asyncio.to_thread(command, "--since", "0", "--limit", "3", "--json", "--config", config)

        assert {"event": "gap", "left_out": 2, "of": "events"} == objects(result)[0]
        assert [3, 4, 5] == seqs(result)

    async def test_the_newest(self, tmp_path: Path, config: str):
        """
        --no-follow shows the newest events with what became of each, in their order, and ends.
        """
        await filled(tmp_path / "outbox")

        lines = (await asyncio.to_thread(command, "--no-follow", "--config", config)).stdout.splitlines()
        assert 7 == len(lines)
        assert (
            "11:06:40.000  ! poor  #1  page_view  shop  plain  e-1  nothing says who it was; consent is unknown:"
            " destinations that need it are not sent this. Send a user or visitor id, an e-mail address, a phone number,"
            " a click id or a partner's cookie."
        ) == lines[0]
        assert "11:06:40.090  ->      #1  links  delivered  202" == lines[1]
        assert "11:06:40.000  ->      #2  links  waiting  503, HTTP 503, next try 2026-11-18 11:07:10Z" == lines[3]

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["--limit", "2"], [4, 5]),
            (["--since", "3"], [4, 5]),
            (["--name", "page_view", "--limit", "2"], [3, 5]),
            (["--source", "blog"], []),
            (["--quality", "fair"], [1, 2, 3, 4, 5]),
        ],
        ids=lambda value: " ".join(map(str, value)),
    )
    async def test_which_of_the_newest(
        self, tmp_path: Path, config: str, arguments: list[str], expected: list[int], monkeypatch: pytest.MonkeyPatch
    ):
        """
        The newest are the newest of those that are asked for, however far back they are.
        """
        monkeypatch.setattr(tail, "WINDOW", 2)
        await filled(tmp_path / "outbox")

        result = await asyncio.to_thread(command, "--no-follow", "--json", *arguments, "--config", config)
        assert (0, expected) == (result.exit_code, seqs(result))

    async def test_a_source_that_is_not_configured(self, tmp_path: Path, config: str):
        """
        A source that the configuration does not have is said to be none, for it may be a typo; an other one is not.
        """
        await filled(tmp_path / "outbox")

        wrong, right = [
            await asyncio.to_thread(command, "--no-follow", "--source", name, "--config", config)
            for name in ("shpo", "shop")
        ]
        assert "The configuration has no source of this name: only its older events can be shown.\n" == wrong.stderr
        assert (0, "") == (right.exit_code, right.stderr)

    @pytest.mark.parametrize("follow", [[], ["--no-follow"]], ids=["following", "the newest"])
    async def test_a_destination_that_is_none(self, tmp_path: Path, config: str, follow: list[str]):
        """
        On the files, too, a destination that there is not ends it, with the server's words.
        """
        await filled(tmp_path / "outbox")

        wrong = await asyncio.to_thread(command, *follow, "--to", "lnks", "--config", config)
        assert 1 == wrong.exit_code
        assert wrong.stderr.endswith("There is no such destination: turnout ledger lists them.\n")

    async def test_a_name_that_arrives_as_another(self, tmp_path: Path, config: str):
        """
        Events of a name that the door changes are never shown under it, and that is said.
        """
        await filled(tmp_path / "outbox")

        wrong = await asyncio.to_thread(command, "--no-follow", "--name", "Order Completed", "--config", config)
        assert 'Events of this name arrive as "purchase": write --name purchase.\n' == wrong.stderr

    def test_nothing_there(self, config: str):
        """
        Without a server and an outbox it exits 1 and says what to start.
        """
        result = command("--config", config)

        assert 1 == result.exit_code
        assert "start turnout serve" in result.stderr

    @pytest.mark.parametrize(
        "arguments", [["--since", "yesterday"], ["--since", "-1"], ["--quality", "bad"], ["--limit", "0"]]
    )
    def test_usage(self, config: str, arguments: list[str]):
        """
        What cannot be meant exits 2.
        """
        assert 2 == command(*arguments, "--config", config).exit_code


def accepted(event: Event, **matches: Match) -> Any:
    from router.outbox.reads import views

    return views.accepted(7, event, matches)


class TestLines:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            pytest.param(
                tail.event_line(accepted(an_event(**GOOD))), "+ good  #7  page_view  shop  plain  e-1", id="good"
            ),
            pytest.param(
                tail.event_line(accepted(an_event(test="T-1", **GOOD))),
                "#7  page_view  shop  plain  e-1  test",
                id="test",
            ),
            pytest.param(
                tail.event_line(
                    accepted(
                        an_event(**GOOD), snap=Match("fair", ("em",), ("ph",), "send the phone number"), a=Match("good")
                    )
                ),
                "e-1  [snap fair: send the phone number, a good]",
                id="matches",
            ),
            pytest.param(
                tail.event_line(accepted(an_event(name="\x1b[31mred\n", **GOOD))), r"\x1b[31mred\x0a", id="controls"
            ),
            pytest.param(
                tail.delivery_line(
                    Settled(seq=7, to="hook", state="delivered", attempts=1, status=200, duplicate=True)
                ),
                "->      #7  hook  delivered  200, known there already",
                id="duplicate",
            ),
            pytest.param(
                tail.delivery_line(
                    Settled(seq=7, to="hook", state="dead", attempts=3, at=instant(NOW), reason="\x1b[2J")
                ),
                r"11:06:40.000  ->      #7  hook  dead  \x1b[2J, 3 tries",
                id="dead",
            ),
        ],
    )
    def test_what_is_said(self, line: str, expected: str):
        """
        A line says what there is to say, and nothing that was sent can take over the terminal.
        """
        from click import unstyle

        assert expected in unstyle(line)
        assert "\n" not in line

    def test_damaged(self):
        """
        An event whose bytes are damaged is a line too.
        """
        from router.outbox.reads import views

        assert "#9" in tail.event_line(views.accepted(9, None))

    def test_colours(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
        """
        Marks are coloured where colours are wanted, and plain in a pipe.
        """
        tail.show(accepted(an_event()), as_json=False)
        monkeypatch.setenv("FORCE_COLOR", "1")
        tail.show(accepted(an_event()), as_json=False)

        plain, coloured = capsys.readouterr().out.splitlines()
        assert "\x1b" not in plain
        assert "\x1b[31m! poor\x1b[0m" in coloured

    def test_a_gap(self, capsys: pytest.CaptureFixture[str]):
        """
        What was not shown is said to people on stderr, and is an object for programs.
        """
        tail.show(Gap(left_out=1), as_json=False)
        tail.show(Gap(left_out=2, of="events"), as_json=False)
        tail.show(Gap(left_out=12), as_json=True)

        out, err = capsys.readouterr()
        assert [
            "1 delivery is not shown, they came too fast: turnout outbox list has them.",
            "2 events are no longer stored.",
        ] == err.splitlines()
        assert {"event": "gap", "left_out": 12, "of": "deliveries"} == json.loads(out)
