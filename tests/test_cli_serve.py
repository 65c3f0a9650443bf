"""``turnout serve`` as a process: how it starts, stops, restarts, and refuses to start."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from structlog.testing import capture_logs

from router import app as program
from router.cli.serve import loop_factory
from router.clock import SystemClock
from router.mocks.partner import running
from router.mocks.webhook import Webhook
from router.outbox.reads.reader import Reader
from tests.running import running_app, settings, turnout

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
ENVIRON = {"SHOP_TOKEN": "a-token", "HOOK_SECRET": SECRET}
HEADERS = {"Authorization": "Bearer a-token"}

CONFIG = """\
[collect]
listen = "127.0.0.1:{collect}"
[console]
listen = "127.0.0.1:0"
[outbox]
path = "{directory}/outbox"
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
[destinations.backend]
type = "webhook"
url = "{url}"
secrets = ["env:HOOK_SECRET"]
allow_private = true
enabled = {enabled}
"""


def config(directory: Path, *, url: str = "http://127.0.0.1:9/", enabled: bool = False, collect: int = 0) -> str:
    path = directory / "config.toml"
    text = CONFIG.format(directory=directory, url=url, enabled=str(enabled).lower(), collect=collect)
    path.write_text(text)
    return str(path)


async def ids(directory: Path) -> set[str]:
    """The ids of all events in the outbox."""
    reader, found, after = Reader(directory / "outbox"), set[str](), None
    while True:
        page = await reader.recent(500, after)
        found |= {event.id for event in page.items}
        if (after := page.next) is None:
            return found


class TestStop:
    async def test_what_was_acknowledged_is_there(self, tmp_path: Path):
        """
        SIGTERM while posts are under way: exit code 0 within ten seconds, and every event that got a 200 is on disk.
        """
        acknowledged: set[str] = set()
        enough = asyncio.Event()

        async def post(session: aiohttp.ClientSession, url: str, name: int) -> None:
            with contextlib.suppress(aiohttp.ClientError):
                for number in range(100_000):
                    event = {"event": "page_view", "id": f"e-{name}-{number}"}
                    async with session.post(url, json=event) as answer:
                        if answer.status == 200:
                            acknowledged.add(event["id"])
                        elif answer.status == 503:
                            return
                    if len(acknowledged) >= 200:
                        enough.set()

        async with (
            turnout("serve", "--config", config(tmp_path), "--json", **ENVIRON) as server,
            aiohttp.ClientSession(headers=HEADERS) as session,
        ):
            url = (await server.object())["collect"] + "/collect"
            posts = [asyncio.create_task(post(session, url, name)) for name in range(8)]
            await enough.wait()
            server.signal(signal.SIGTERM)
            code, _, err = await server.ended(10)
            await asyncio.gather(*posts)

        assert 0 == code, err
        assert "Traceback" not in err
        assert len(acknowledged) >= 200
        assert set() == acknowledged - await ids(tmp_path)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_at_rest(self, tmp_path: Path, number: signal.Signals):
        """
        Both signals end an idle server in good order.
        """
        async with turnout("serve", "--config", config(tmp_path), "--json", **ENVIRON) as server:
            await server.object()
            server.signal(number)
            code, _, err = await server.ended(10)

        assert 0 == code, err

    async def test_twice(self, tmp_path: Path):
        """
        A second signal ends the process at once, though a request is still being sent to it.
        """
        async with (
            turnout("serve", "--config", config(tmp_path), "--json", **ENVIRON) as server,
            aiohttp.ClientSession() as session,
        ):
            said = await server.object()
            _, slow = await asyncio.open_connection(*said["collect"].removeprefix("http://").split(":"))
            slow.write(b"POST /collect?token=a-token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            await slow.drain()
            server.signal(signal.SIGTERM)
            while True:
                async with session.get(said["console"] + "/readyz") as answer:
                    if answer.status == 503:
                        break
            server.signal(signal.SIGTERM)
            code, _, _ = await server.ended(10)
            slow.close()

        assert -signal.SIGTERM == code


class TestStart:
    async def test_the_backlog_goes_out(self, tmp_path: Path):
        """
        What was stored while a destination was switched off is delivered within two seconds of the next start.
        """
        mock = Webhook(now=SystemClock().now, secret=SECRET)
        async with running(mock) as url:
            path = config(tmp_path, url=url + "/")
            async with (
                turnout("serve", "--config", path, "--json", **ENVIRON) as server,
                aiohttp.ClientSession(headers=HEADERS) as session,
            ):
                collect = (await server.object())["collect"] + "/collect"
                async with session.post(collect, json=[{"event": "x", "id": f"e-{n}"} for n in range(50)]) as answer:
                    assert 50 == (await answer.json())["accepted"]
                server.signal(signal.SIGTERM)
                await server.ended(10)
            assert {} == mock.taken

            config(tmp_path, url=url + "/", enabled=True)
            async with turnout("serve", "--config", path, "--json", **ENVIRON) as server:
                await server.object()
                async with asyncio.timeout(2):
                    await mock.wait_for_events(50)

        assert {f"e-{n}": 1 for n in range(50)} == mock.taken

    async def test_says_where_and_what(self, tmp_path: Path):
        """
        It prints both addresses and what a 200 is worth here.
        """
        async with turnout("serve", "--config", config(tmp_path), **ENVIRON) as server:
            collect, console, promise = [await server.line() for _ in range(3)]
            server.signal(signal.SIGTERM)

        assert "http://127.0.0.1:" in collect
        assert collect.rstrip().endswith("/collect")
        assert "http://127.0.0.1:" in console
        assert str(tmp_path / "outbox") in promise
        assert "at least once" in promise


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class TestRefusal:
    async def test_a_second_instance(self, tmp_path: Path):
        """
        Another process on the same outbox exits 75 and names the one that has it, which goes on.
        """
        path = config(tmp_path)
        async with turnout("serve", "--config", path, "--json", **ENVIRON) as first:
            collect = (await first.object())["collect"]
            async with turnout("serve", "--config", path, "--log-level", "error", **ENVIRON) as second:
                code, out, err = await second.ended(30)
            async with (
                aiohttp.ClientSession(headers=HEADERS) as session,
                session.post(collect + "/collect", json={"event": "x"}) as answer,
            ):
                assert 200 == answer.status

        assert (75, "") == (code, out)
        assert f"process {first.pid} already owns the outbox" in err

    async def test_two_at_the_same_instant(self, tmp_path: Path):
        """
        One of them serves; the other exits 75 and names it. A lock that a kill leaves behind stops nobody.
        """
        path = config(tmp_path)
        for _ in range(2):
            async with contextlib.AsyncExitStack() as stack:
                both = [
                    await stack.enter_async_context(turnout("serve", "--config", path, "--json", **ENVIRON))
                    for _ in range(2)
                ]
                lines = await asyncio.gather(*(each.line() for each in both))
                winner, loser = both if lines[0] else both[::-1]
                code, _, err = await loser.ended(30)
                winner.signal(signal.SIGKILL)
                await winner.ended(30)

            assert 1 == sum(map(bool, lines))
            assert 75 == code
            assert f"process {winner.pid} already owns" in err

    async def test_a_bad_configuration(self, tmp_path: Path):
        """
        All its problems are said at once, as ``check`` says them; nothing is printed as started, nothing is made.
        """
        path = tmp_path / "config.toml"
        path.write_text(
            f'[outbox]\npath = "{tmp_path}/outbox"\nkept = 1\n[sources.shop]\ntokens = ["env:NOT_SET"]\n'
            '[destinations.a]\ntype = "snpa"\n'
        )
        async with turnout("serve", "--config", str(path)) as server:
            code, out, err = await server.ended(30)

        assert (1, "") == (code, out)
        for word in ("kept", "NOT_SET", 'did you mean "snap"', "Nothing was started"):
            assert word in err
        assert not (tmp_path / "outbox").exists()

    async def test_a_port_in_use(self, tmp_path: Path, taken_port: int):
        """
        It says so in plain words, without a trace, and ends with 1.
        """
        path = config(tmp_path, collect=taken_port, url="http://127.0.0.1:9/", enabled=True)
        async with turnout("serve", "--config", path, "--log-level", "error", **ENVIRON) as server:
            code, out, err = await server.ended(30)

        assert (1, "") == (code, out)
        assert f"Another program listens on 127.0.0.1:{taken_port}" in err
        assert "Traceback" not in err

    async def test_no_outbox_there(self, tmp_path: Path):
        """
        A file where the outbox should be is said in words, too.
        """
        (tmp_path / "outbox").write_text("")
        async with turnout("serve", "--config", config(tmp_path), "--log-level", "error", **ENVIRON) as server:
            code, _, err = await server.ended(30)

        assert 1 == code
        assert "It cannot start" in err
        assert "Traceback" not in err


class TestLoop:
    def test_the_faster_one(self):
        """
        uvloop runs the server where it is installed.
        """
        loop = pytest.importorskip("uvloop", reason="uvloop is not on this machine")

        assert loop.new_event_loop is loop_factory()

    def test_the_standard_one(self, monkeypatch: pytest.MonkeyPatch):
        """
        Without uvloop the standard loop does.
        """
        monkeypatch.setitem(sys.modules, "uvloop", None)

        assert loop_factory() is None


class TestReload:
    async def test_a_destination_is_added_while_it_runs(self, tmp_path: Path):
        """
        SIGHUP after a change: the new destination takes what comes from then on, and no connection is dropped.
        """
        partner = Webhook(now=SystemClock().now, secret=SECRET)
        async with (
            running(partner) as url,
            turnout("serve", "--config", config(tmp_path), "--json", **ENVIRON) as server,
        ):
            at = await server.object()
            async with aiohttp.ClientSession(at["collect"], headers=HEADERS) as http:
                async with http.post("/collect", json={"event": "before", "id": "before"}) as answer:
                    assert 200 == answer.status
                with (tmp_path / "config.toml").open("a") as file:
                    file.write(
                        f'[destinations.new]\ntype = "webhook"\nurl = "{url}"\nsecrets = ["env:HOOK_SECRET"]\n'
                        "allow_private = true\n"
                    )
                server.signal(signal.SIGHUP)
                async with asyncio.timeout(10):
                    number = 0
                    while partner.counts.distinct == 0:
                        number += 1
                        async with http.post("/collect", json={"event": "after", "id": f"after-{number}"}) as answer:
                            assert 200 == answer.status
            server.signal(signal.SIGTERM)
            code, _, _ = await server.ended()

        assert 0 == code
        assert "before" not in partner.taken

    async def test_a_storm_of_signals(self, tmp_path: Path):
        """
        Two hundred SIGHUPs while events come, and one more with SIGTERM: few reloads, no event lost, exit code 0.
        """
        path, acknowledged = config(tmp_path, enabled=True), set[str]()
        async with (
            turnout("serve", "--config", path, "--json", **ENVIRON) as process,
            aiohttp.ClientSession(headers=HEADERS) as session,
        ):
            collect = (await process.object())["collect"]
            for number in range(200):
                process.signal(signal.SIGHUP)
                if number % 5 == 0:
                    async with session.post(collect + "/collect", json={"event": "x", "id": str(number)}) as answer:
                        assert 200 == answer.status
                    acknowledged.add(str(number))
            process.signal(signal.SIGHUP)
            process.signal(signal.SIGTERM)
            code, _, err = await process.ended(30)

        assert 0 == code
        assert 0 < err.count("reloaded") < 100
        assert acknowledged <= await ids(tmp_path)

    async def test_a_bad_file_changes_nothing(self, tmp_path: Path):
        """
        SIGHUP with errors in the file: they are said with their place, and everything goes on as it was.
        """
        async with turnout("serve", "--config", config(tmp_path), "--json", **ENVIRON) as server:
            at = await server.object()
            path = tmp_path / "config.toml"
            path.write_text(path.read_text().replace("allow_private", "alow_private"))
            for _ in range(20):
                server.signal(signal.SIGHUP)
            async with (
                aiohttp.ClientSession(at["collect"], headers=HEADERS) as http,
                http.post("/collect", json={"event": "e"}) as answer,
            ):
                assert 200 == answer.status
            await asyncio.sleep(0.3)
            server.signal(signal.SIGTERM)
            code, _, err = await server.ended()

        assert 0 == code
        assert "alow_private" in err
        assert "reload_refused" in err

    async def test_what_needs_a_restart_is_said_each_time(self, tmp_path: Path):
        """
        Until the restart every reload says that the file has settings that are not in force, and none once it has not.
        """
        running = settings(tmp_path)
        other = msgspec.structs.replace(running, collect=msgspec.structs.replace(running.collect, session="1h"))
        async with running_app(running) as app:
            with capture_logs() as told:
                for file in (running, other, other, running):
                    await app.reload(file)

        said = [each["event"] for each in told if each["event"] in {"restart_needed", "reloaded"}]
        assert ["reloaded", *["restart_needed", "reloaded"] * 2, "reloaded"] == said

    async def test_a_look_that_fails_is_no_end(self, tmp_path: Path):
        """
        Where reading the configuration raises, as on a closed stderr or in a partner's own check, the server goes on and
        the next signal is answered.
        """
        asked, hang_up = asyncio.Queue[None](), asyncio.Event()
        loop = asyncio.get_running_loop()

        def reread() -> None:
            loop.call_soon_threadsafe(asked.put_nowait, None)
            raise BrokenPipeError

        async with running_app(settings(tmp_path)) as app:
            reloading = asyncio.create_task(program._reload_for_ever(app, hang_up, reread))
            for _ in range(2):
                hang_up.set()
                await asyncio.wait_for(asked.get(), 5)
            assert not reloading.done()
            reloading.cancel()
