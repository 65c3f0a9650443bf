"""``turnout send``: what it posts, what it says of each event, and what its exit code means."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from destinations import Webhook
from router import samples
from router.app import App
from router.cli import turnout as command_line
from router.cli.send import events
from router.clock import SystemClock
from router.mocks import webhook
from router.mocks.partner import Trouble, running
from router.secret import Secret
from tests.running import KEY, collect_url, running_app, settings, stored, turnout

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"

CONFIG = """\
[collect]
listen = "0.0.0.0:{collect}"
[console]
listen = "127.0.0.1:{console}"
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
[sources.other]
tokens = ["env:OTHER_TOKEN"]
[sources.hidden]
tokens = ["sha256:{zeros}"]
"""


@pytest.fixture
async def partner() -> AsyncIterator[tuple[webhook.Webhook, str]]:
    mock = webhook.Webhook(now=SystemClock().now, secret=SECRET)
    async with running(mock) as url:
        yield mock, url + "/"


@pytest.fixture
async def app(tmp_path: Path, partner: tuple[webhook.Webhook, str]) -> AsyncIterator[App]:
    """A server with one webhook, and a configuration file that says where it listens."""
    backend = Webhook(url=partner[1], secrets=(Secret(SECRET),), allow_private=True)
    async with running_app(settings(tmp_path, destinations={"backend": backend})) as app:
        text = CONFIG.format(collect=app.collect_port, console=app.console_port, zeros="0" * 64)
        (tmp_path / "config.toml").write_text(text)
        yield app


async def send(directory: Path, *arguments: str, given: str | None = None) -> Result:
    """The command in a thread of its own, with the configuration of the directory."""
    environ = {"TURNOUT_CONFIG": str(directory / "config.toml"), "SHOP_TOKEN": KEY, "OTHER_TOKEN": "no key of theirs"}
    return await asyncio.to_thread(
        CliRunner().invoke, command_line, ["send", *arguments], input=given, env=environ, catch_exceptions=False
    )


class TestSamples:
    @pytest.mark.parametrize("dialect", samples.DIALECTS)
    async def test_followed_to_the_end(self, app: App, tmp_path: Path, dialect: str):
        """
        A sample in any dialect is accepted, and --wait says what every destination did with it.
        """
        result = await send(tmp_path, "--sample", "purchase", "--dialect", dialect, "--wait", "--json")

        said = json.loads(result.stdout)
        (event,) = await stored(app)
        assert (0, "accepted", event.id) == (result.exit_code, said["result"], said["id"])
        assert {"backend": {"state": "delivered", "attempts": 1, "reason": None}} == said["destinations"]
        assert ("purchase", dialect) == (event.name, event.dialect)

    async def test_several(self, app: App, tmp_path: Path):
        """
        --count sends so many different ones, by different visitors.
        """
        result = await send(tmp_path, "--sample", "search", "--count", "3", "--rate", "1000")

        found = await stored(app)
        assert (0, 3) == (result.exit_code, len(result.stdout.splitlines()))
        assert 3 == len({event.id for event in found}) == len({event.user.anonymous_id for event in found})


class TestEvents:
    async def test_on_the_command_line(self, app: App, tmp_path: Path):
        """
        JSON as the argument is the event itself.
        """
        result = await send(tmp_path, '{"event": "test", "id": "e-1"}')

        assert (0, "accepted   e-1\n") == (result.exit_code, result.stdout)
        assert ["e-1"] == [event.id for event in await stored(app)]

    async def test_from_a_file(self, app: App, tmp_path: Path):
        """
        A file of one object a line is posted in order; an id that was there already is called a duplicate, which is fine.
        """
        (tmp_path / "events.ndjson").write_text(
            '{"event":"a","id":"1"}\n\n{"event":"b","id":"2"}\n{"event":"a","id":"1"}\n'
        )

        result = await send(tmp_path, str(tmp_path / "events.ndjson"))

        assert (0, ["accepted   1", "accepted   2", "duplicate  1"]) == (result.exit_code, result.stdout.splitlines())
        assert ["1", "2"] == [event.id for event in await stored(app)]

    async def test_a_bad_one_among_them(self, app: App, tmp_path: Path):
        """
        The reason stands beside the event that was rejected, the others are stored, and the exit code is 1.
        """
        result = await send(tmp_path, "-", given='[{"event": "a", "id": "1"}, {"event": 7}]')

        accepted, rejected = result.stdout.splitlines()
        assert (1, "accepted   1") == (result.exit_code, accepted)
        assert rejected.startswith("rejected   -  event: send event as 1 to 128 characters")

    async def test_a_bad_one_is_named(self, app: App, tmp_path: Path):
        """
        What was not taken is told by the id that its sender gave it, where that is safe to repeat.
        """
        given = '[{"event": 7, "id": "m-1"}, {"event": 7, "id": "jane@example.com"}]'
        rejected = await send(tmp_path, "-", given=given)
        refused = await send(tmp_path, "--source", "other", '{"event": "a", "id": "m-2"}')

        first, second = rejected.stdout.splitlines()
        assert first.startswith("rejected   m-1  event: send")
        assert "jane" not in second
        assert "refused    m-2  no source has this key" in refused.stdout

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b'{"event": "a"}', [{"event": "a"}]),
            (b'[{"event": "a"}, {"event": "b"}]', [{"event": "a"}, {"event": "b"}]),
            (b'{"event": "a"}\n{"event": "b"}\r\n\n', [{"event": "a"}, {"event": "b"}]),
            (b'{\n"event": "a"\n}', [{"event": "a"}]),
            (b"[]", []),
            (b"", []),
        ],
        ids=["an object", "an array", "one a line", "an object over lines", "none", "nothing"],
    )
    def test_shapes(self, content: bytes, expected: list[object]):
        """
        An object, an array, and one object a line all give events.
        """
        assert expected == events(content)

    def test_the_line_that_is_wrong(self):
        """
        Of lines, the first that is not JSON is named by its number.
        """
        with pytest.raises(click.UsageError, match="line 3 is not JSON"):
            events(b'{"a": 1}\n\n{"a"\n')


class TestWaiting:
    async def test_given_up(self, app: App, tmp_path: Path, partner: tuple[webhook.Webhook, str]):
        """
        A destination that gave an event up makes the exit code 1 and shows why.
        """
        partner[0].trouble = [Trouble(status=400)]

        result = await send(tmp_path, '{"event": "a"}', "--wait")

        assert 1 == result.exit_code
        assert "backend          dead  HTTP 400" in result.stdout

    async def test_on_hold(self, app: App, tmp_path: Path, partner: tuple[webhook.Webhook, str]):
        """
        A lane on hold is not waited for: its reason is shown at once.
        """
        partner[0].trouble = [Trouble(status=401)]

        result = await send(tmp_path, '{"event": "a"}', "--wait")

        assert 1 == result.exit_code
        assert "backend          waiting  credentials refused" in result.stdout

    async def test_patience(self, app: App, tmp_path: Path, partner: tuple[webhook.Webhook, str]):
        """
        What still waits after --timeout seconds is exit code 1.
        """
        partner[0].trouble = [Trouble(status=503, retry_after="600")]

        result = await send(tmp_path, '{"event": "a"}', "--wait", "--timeout", "0.1")

        assert 1 == result.exit_code
        assert "backend          waiting" in result.stdout


class TestAddresses:
    async def test_without_a_configuration(self, app: App, tmp_path: Path):
        """
        With --to and --token no configuration is read; the path of the collect endpoint is added where there is none.
        """
        (tmp_path / "config.toml").write_text("this is not TOML")

        result = await send(tmp_path, "--to", collect_url(app), "--token", KEY, '{"event": "a"}')

        assert 0 == result.exit_code, result.output

    async def test_a_wrong_key(self, app: App, tmp_path: Path):
        """
        A request that was refused as a whole shows the server's words, with exit code 1.
        """
        result = await send(tmp_path, "--source", "other", '{"event": "a"}')

        assert 1 == result.exit_code
        assert "refused    -  no source has this key" in result.stdout

    async def test_nobody_there(self, tmp_path: Path):
        """
        Where nobody listens the exit code is 3, and the words say what to start.
        """
        result = await send(tmp_path, "--to", "http://127.0.0.1:9", "--token", KEY, '{"event": "a"}')

        assert 3 == result.exit_code
        assert "Nobody answers at http://127.0.0.1:9: start it with turnout serve" in result.stderr

    @pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
    async def test_what_is_no_answer(self, tmp_path: Path, said: bytes):
        """
        Something that speaks no HTTP, or whose answer breaks off, counts as nobody: nothing is known of the event.
        """

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"}")
            writer.write(said)
            writer.close()

        async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            result = await send(tmp_path, "--to", url, "--token", KEY, '{"event": "a"}')

        assert 3 == result.exit_code
        assert f"Nobody answers at {url}: start it with turnout serve" in result.stderr

    async def test_a_server_that_dies(self, tmp_path: Path):
        """
        It is said how many of the file had an answer, and that all of it may be sent again.
        """
        seen: list[bytes] = []

        async def dying(request: web.Request) -> web.Response:
            seen.append(await request.read())
            if len(seen) > 2 and request.transport is not None:
                request.transport.abort()
            return web.json_response({"success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "id": "e"})

        async with listening(dying) as url:
            result = await send(tmp_path, "--to", url, "--token", KEY, json.dumps([{"event": "a"}] * 4))

        assert (3, 2) == (result.exit_code, len(result.stdout.splitlines()))
        assert "2 of 4 events had an answer: send the same again" in result.stderr

    async def test_it_is_ended(self, tmp_path: Path):
        """
        Ctrl-C says how many had an answer.
        """
        seen: list[bytes] = []

        async def answering(request: web.Request) -> web.Response:
            seen.append(await request.read())
            if len(seen) == 3:
                process.signal(signal.SIGINT)
            return web.json_response({"success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "id": "e"})

        async with listening(answering) as url:
            arguments = ["send", "--to", url, "--token", KEY, "--sample", "search", "--count", "500", "--rate", "20"]
            async with turnout(*arguments) as process:
                code, out, err = await process.ended()

        assert 1 == code
        assert f"{len(out.splitlines())} of 500 events had an answer.\n" == err

    async def test_a_busy_server(self, tmp_path: Path):
        """
        429 and 503 are not the end: the same body is sent again when the server asks for it.
        """
        bodies: list[bytes] = []

        async def busy(request: web.Request) -> web.Response:
            bodies.append(await request.read())
            if len(bodies) < 3:
                return web.json_response(
                    {"code": "busy"}, status=(429, 503)[len(bodies) - 1], headers={"Retry-After": "0"}
                )
            return web.json_response({"success": True, "accepted": 1, "duplicate": 0, "rejected": 0, "id": "e"})

        async with listening(busy) as url:
            result = await send(tmp_path, "--to", url, "--token", KEY, '{"event": "a"}')

        assert (0, 3, 1) == (result.exit_code, len(bodies), len(set(bodies)))

    @pytest.mark.parametrize("status", [200, 404])
    async def test_somebody_else_there(self, tmp_path: Path, status: int):
        """
        A server that is no collect endpoint is told apart from one that refuses an event, and took none whatever it says.
        """

        async def other(_: web.Request) -> web.Response:
            return web.Response(status=status, text="<h1>Not found</h1>")

        async with listening(other) as url:
            result = await send(tmp_path, "--to", url, "--token", KEY, '{"event": "a"}')

        assert 1 == result.exit_code
        assert "this is no collect endpoint" in result.stdout

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((), "give either events"),
            (("--sample", "search", "{}"), "give either events"),
            (("{}", "--count", "2"), "--count goes with --sample"),
            (("--source", "nobody", "{}"), "--source is one of shop, other, hidden"),
            (("--source", "hidden", "{}"), "by its digest only"),
            (("--to", "ftp://x", "--token", "k", "{}"), "--to is not an address"),
            (("--to", "http://x:99999", "--token", "k", "{}"), "--to is not an address"),
            (("/no/such/file",), "the file cannot be read: no such file"),
            (("--sample", "nosuch"), "is not one of"),
            (("[]",), "there is no event in it"),
        ],
        ids=[
            "nothing to send",
            "two things to send",
            "the same event twice",
            "an unknown source",
            "a key that is not known",
            "no address",
            "no port",
            "no file",
            "no sample",
            "an empty array",
        ],
    )
    async def test_usage(self, app: App, tmp_path: Path, arguments: tuple[str, ...], words: str):
        """
        What cannot be meant is exit code 2, with the remedy, and nothing is sent.
        """
        result = await send(tmp_path, *arguments)

        assert 2 == result.exit_code
        assert words in result.stderr
        assert [] == await stored(app)


@contextlib.asynccontextmanager
async def listening(handler: web.RequestHandler) -> AsyncIterator[str]:
    """The handler on a free port."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
