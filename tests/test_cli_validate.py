"""``turnout validate``: two verdicts side by side over real HTTP, and nothing private in either."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from aiohttp import web
from click.testing import CliRunner, Result

import destinations
from router.cli import turnout as command_line
from router.clock import SystemClock
from router.destination import Destination, Request, Response, Verdict
from router.mocks.partner import Trouble, running
from router.mocks.snap import Snap
from router.outcome import Refusal
from router.secret import Secret
from tests.running import KEY
from tests.test_cli_preview import EMAIL, IP, PHONE, PURCHASE

TOKEN = "token-canary-8f3a"
ENVIRON = {"SHOP_TOKEN": KEY, "TOKEN": TOKEN, "TURNOUT_CONFIG": None}
CONFIG = """\
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
[destinations.snap]
type = "snap"
pixel_id = "11111111-2222-3333-4444-555555555555"
access_token = "env:TOKEN"
consent = ["marketing"]
base_url = "{url}"
allow_private = true
[destinations.asking]
type = "asking"
key = "env:TOKEN"
base_url = "{url}"
allow_private = true
[destinations.linktrace]
type = "linktrace"
api_key = "env:TOKEN"
"""


class Asking(Destination, tag="asking", frozen=True, kw_only=True):
    """A partner with a check, whose answer is the verdict itself. It takes purchases with a value."""

    key: Annotated[Secret, msgspec.Meta(description="Key.")]

    title = "Asking"
    home = "https://asking.example"
    docs = ""
    dedup_key = "id"
    window = "7d"
    clear = frozenset({"ip"})

    def requests(self, events: Sequence[Any], now: int) -> Any:
        for event in events:
            if event.money.value is None:
                yield Refusal(event, "no value: send one")
            else:
                yield Request.json(self.endpoint("/take"), {"id": event.id}, [event], headers={"x-key": self.key})

    def validation(self, request: Request) -> Request:
        return msgspec.structs.replace(request, url=self.endpoint("/check"))

    def verdict(self, response: Response) -> Verdict:
        return msgspec.json.decode(response.body, type=Verdict)

    def reports(self) -> Mapping[str, Request]:
        return {"logs": Request(url=self.endpoint("/logs"), body=b"", events=(), method="GET")}

    def report_rows(self, response: Response) -> Any:
        return response.object()["logs"]


class Inside(Asking, tag="inside", frozen=True, kw_only=True):
    home = "https://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The partner of these tests beside the shipped ones, as a package would bring it."""
    known = destinations.Known({**destinations.registry(), "asking": Asking, "inside": Inside}, {})
    monkeypatch.setattr("destinations.known", lambda: known)


class Answering:
    """What the made-up partner answers, and what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = Verdict(valid=True, summary="fine")
        self.status = 200
        self.asked: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.Response(status=self.status, body=msgspec.json.encode(self.answer))


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Answering]:
    answering = Answering()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answering.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    written(tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield answering
    await runner.cleanup()


@contextlib.asynccontextmanager
async def snapped(directory: Path) -> AsyncIterator[Snap]:
    """The fake Snap, and a configuration that leads there."""
    partner = Snap(now=SystemClock().now)
    async with running(partner) as url:
        written(directory, url)
        yield partner


def written(directory: Path, url: str) -> None:
    (directory / "config.toml").write_text(CONFIG.format(url=url))


async def run(directory: Path, *arguments: str, given: str | None = None) -> Result:
    """The command in a thread of its own, for it has a loop of its own."""
    line = ["validate", "--config", str(directory / "config.toml"), *arguments]
    return await asyncio.to_thread(
        CliRunner().invoke, command_line, line, input=given, env=ENVIRON, catch_exceptions=False
    )


def row(result: Result) -> dict[str, Any]:
    return json.loads(result.stdout)


class TestSnap:
    async def test_valid(self, tmp_path: Path):
        """
        A good event is valid for both, and the partner processed nothing.
        """
        async with snapped(tmp_path) as partner:
            result = await run(tmp_path, "--to", "snap", json.dumps(PURCHASE), "--json")

        said = row(result)
        assert (0, "valid", "ok", True, None) == (
            result.exit_code,
            said["result"],
            said["ours"],
            said["theirs"]["valid"],
            said["differs"],
        )
        assert 0 == partner.counts.events
        assert [True] == [each.path.endswith("/validate") for each in partner.received]

    async def test_both_refuse(self, tmp_path: Path):
        """
        What Snap's own check finds too old is invalid there, as it is here.
        """
        async with snapped(tmp_path):
            old = {**PURCHASE, "timestamp": SystemClock().now() - 9 * 86_400_000}
            result = await run(tmp_path, "--to", "snap", json.dumps(old), "--json")

        said = row(result)
        assert (1, "invalid", False, None) == (
            result.exit_code,
            said["result"],
            said["theirs"]["valid"],
            said["differs"],
        )
        assert said["theirs"]["errors"]

    async def test_logs_and_stats(self, tmp_path: Path):
        """
        Snap's log and counts of what it was asked are shown, as rows and as lines of JSON.
        """
        async with snapped(tmp_path):
            await run(tmp_path, "--to", "snap", json.dumps(PURCHASE))
            logs = await run(tmp_path, "--to", "snap", "--logs")
            stats = await run(tmp_path, "--to", "snap", "--stats", "--json")

        assert (0, 0) == (logs.exit_code, stats.exit_code)
        assert "PURCHASE" in logs.stdout
        assert "VALID" in logs.stdout
        assert {"stats"} == {json.loads(each)["report"] for each in stats.stdout.splitlines()}

    async def test_reports_of_the_app_too(self, tmp_path: Path):
        """
        Where a Snap App ID is set, the app has its own log and counts beside the pixel's.
        """
        async with snapped(tmp_path):
            path = tmp_path / "config.toml"
            path.write_text(path.read_text().replace('type = "snap"', 'type = "snap"\napp_id = "app-1"'))
            stats = await run(tmp_path, "--to", "snap", "--stats", "--json")

        assert {"stats", "app stats"} == {json.loads(each)["report"] for each in stats.stdout.splitlines()}

    async def test_a_refused_token(self, tmp_path: Path):
        """
        A report that Snap does not give is told with what to do, and without the token.
        """
        async with snapped(tmp_path) as partner:
            partner.trouble = [Trouble(status=401)]
            result = await run(tmp_path, "--to", "snap", "--logs")

        assert 1 == result.exit_code
        assert "snap: HTTP 401" in result.stderr
        assert "access_token" in result.stderr


class TestTwoVerdicts:
    @pytest.mark.parametrize(
        ("theirs", "code", "result", "differs"),
        [
            (True, 0, "valid", None),
            (None, 1, "unclear", None),
            (
                False,
                1,
                "invalid",
                "Asking refuses what we would have sent: this is a gap in our rules; report it",
            ),
        ],
    )
    async def test_ours_is_ok(
        self, asking: Answering, tmp_path: Path, theirs: bool | None, code: int, result: str, differs: str | None
    ):
        """
        Their word counts, an unclear one is no yes, and a gap in our rules is called one.
        """
        asking.answer = Verdict(valid=theirs, summary="said")
        found = await run(tmp_path, "--to", "asking", json.dumps(PURCHASE), "--json")

        assert (code, result, differs) == (found.exit_code, row(found)["result"], row(found)["differs"])

    async def test_we_refuse_what_they_take(self, asking: Answering, tmp_path: Path):
        """
        An event that is too old for us, and not for them, is told as such, and is not sent by us all the same.
        """
        old = {**PURCHASE, "timestamp": SystemClock().now() - 9 * 86_400_000}
        found = await run(tmp_path, "--to", "asking", json.dumps(old))

        assert 1 == found.exit_code
        assert "differs  we refuse what Asking takes" in found.stdout

    async def test_refused_here_is_not_asked(self, asking: Answering, tmp_path: Path):
        """
        Where our own rules refuse the event there is nothing to show the partner, and that is said.
        """
        found = await run(tmp_path, "--to", "asking", json.dumps({**PURCHASE, "value": None}), "--json")

        assert (1, "no value: send one", "refused here, not asked") == (
            found.exit_code,
            row(found)["ours"],
            row(found)["unasked"],
        )
        assert [] == asking.asked

    async def test_without_consent_nobody_is_asked(self, asking: Answering, tmp_path: Path):
        """
        A check is a disclosure too: what consent keeps from a partner is not shown to its check.
        """
        item = {**PURCHASE, "consent": {"marketing": False}}
        found = await run(tmp_path, "--to", "snap", json.dumps(item), "--json")

        assert (1, "refused here, not asked") == (found.exit_code, row(found)["unasked"])
        assert [] == asking.asked

    async def test_what_is_not_known_here_is_said(self, asking: Answering, tmp_path: Path):
        """
        Where pages post themselves, what their connection would bring is missing, and that is said beside the verdicts.
        """
        path = tmp_path / "config.toml"
        path.write_text(
            path.read_text().replace("[destinations.snap]", 'origins = ["https://a.example"]\n[destinations.snap]')
        )
        found = await run(tmp_path, "--to", "asking", json.dumps({**PURCHASE, "device": {}}))

        assert "  remark   a browser's own IP address" in found.stdout

    async def test_findings(self, asking: Answering, tmp_path: Path):
        """
        Errors and warnings of the partner stand below its verdict, each on its line.
        """
        asking.answer = Verdict(
            valid=False, summary="INVALID: no good", findings=((0, "error", "no name"), (0, "warning", "no click id"))
        )
        found = await run(tmp_path, "--to", "asking", json.dumps(PURCHASE))

        assert [
            "order-1042  purchase to asking",
            "  ours     ok",
            "  theirs   INVALID (HTTP 200): no good",
            "  error    no name",
            "  warning  no click id",
            "  differs  Asking refuses what we would have sent: this is a gap in our rules; report it",
        ] == found.stdout.splitlines()

    async def test_an_answer_that_nobody_can_read(self, asking: Answering, tmp_path: Path):
        """
        A verdict that cannot be made is unclear, without a word of the answer.
        """
        asking.answer = {"echo": EMAIL}
        found = await run(tmp_path, "--to", "asking", json.dumps(PURCHASE), "--json")

        assert (1, "unclear") == (found.exit_code, row(found)["result"])
        assert EMAIL not in found.output

    async def test_no_check(self, asking: Answering, tmp_path: Path):
        """
        A partner without a check is not asked: our own rules decide, and that is said.
        """
        good = await run(tmp_path, "--to", "linktrace", json.dumps(PURCHASE))
        bad = await run(tmp_path, "--to", "linktrace", json.dumps({**PURCHASE, "link_short_code": None}))

        assert (0, 1) == (good.exit_code, bad.exit_code)
        assert "LinkTrace has no check of its own: our rules alone decide" in good.stdout
        assert [] == asking.asked

    async def test_several(self, asking: Answering, tmp_path: Path):
        """
        Every event is asked for by itself; one that the door turns away is named and asked for nowhere.
        """
        items = [PURCHASE, {"value": 1}, {**PURCHASE, "event_id": "order-1043"}]
        found = await run(tmp_path, "--to", "asking", "-", "--json", given=json.dumps(items))

        assert ["valid", "invalid", "valid"] == [json.loads(each)["result"] for each in found.stdout.splitlines()]
        assert (1, ["/check"] * 2) == (found.exit_code, asking.asked)


class TestNobodyAnswers:
    @pytest.mark.parametrize("more", [[], ["--logs"]], ids=["event", "logs"])
    async def test_unreachable(self, tmp_path: Path, more: list[str]):
        """
        Where nobody answers the exit code is 3, and the reason is in plain words.
        """
        written(tmp_path, "http://127.0.0.1:9")
        found = await run(tmp_path, "--to", "asking", *(more or [json.dumps(PURCHASE)]))

        assert 3 == found.exit_code
        assert "no connection to the partner" in found.output

    async def test_blocked(self, tmp_path: Path):
        """
        An address that the guard refuses is a matter of the configuration, not of the partner.
        """
        shop = '[sources.shop]\ntokens = ["env:SHOP_TOKEN"]\n'
        (tmp_path / "config.toml").write_text(f'{shop}[destinations.inside]\ntype = "inside"\nkey = "env:TOKEN"\n')
        found = await run(tmp_path, "--to", "inside", json.dumps(PURCHASE))

        assert 1 == found.exit_code
        assert "allow_private" in found.stdout


class TestReports:
    async def test_rows_without_secrets(self, asking: Answering, tmp_path: Path):
        """
        A report is shown row by row, without our key and without addresses that the partner repeats.
        """
        asking.answer = {"logs": [{"name": "a", "error": f"key {TOKEN} of {EMAIL}"}, {"name": "b", "list": ["x", "y"]}]}
        table = await run(tmp_path, "--to", "asking", "--logs")
        lines = await run(tmp_path, "--to", "asking", "--logs", "--json")

        assert ["NAME", "ERROR", "LIST"] == table.stdout.splitlines()[1].split()
        assert "x; y" in table.stdout
        assert {"name": "a", "error": "key *** of [email]"} == json.loads(lines.stdout.splitlines()[0])["row"]

    async def test_empty(self, asking: Answering, tmp_path: Path):
        """
        A report without rows is called empty.
        """
        asking.answer = {"logs": []}
        found = await run(tmp_path, "--to", "asking", "--logs")

        assert (0, "asking: logs: nothing yet\n") == (found.exit_code, found.stdout)

    @pytest.mark.parametrize(("name", "option"), [("asking", "--stats"), ("linktrace", "--logs")])
    async def test_none(self, asking: Answering, tmp_path: Path, name: str, option: str):
        """
        A partner that reports nothing of the kind is not asked.
        """
        found = await run(tmp_path, "--to", name, option)

        assert (1, []) == (found.exit_code, asking.asked)
        assert "has no report of this kind" in found.stderr

    async def test_an_event_is_not_wanted(self, asking: Answering, tmp_path: Path):
        """
        A report is about what is there already.
        """
        assert 2 == (await run(tmp_path, "--to", "asking", "--logs", "--sample", "purchase")).exit_code


async def test_nothing_private(asking: Answering, tmp_path: Path):
    """
    Whatever a partner repeats in its verdict, no raw value, clear value, digest or secret is printed.
    """
    asking.answer = Verdict(
        valid=False, summary=f"{EMAIL} {TOKEN}", findings=((0, "error", f"{PHONE} from {IP} with {TOKEN}"),)
    )
    for more in ([], ["--json"]):
        found = await run(tmp_path, "--to", "asking", json.dumps(PURCHASE), *more)

        assert [] == [canary for canary in (EMAIL, PHONE, IP, TOKEN, KEY) if canary in found.output]


async def test_to_is_needed(tmp_path: Path):
    """
    Whom to ask is said each time: it is a request to somebody else.
    """
    written(tmp_path, "http://127.0.0.1:9")

    assert 2 == (await run(tmp_path, "--sample", "purchase")).exit_code
