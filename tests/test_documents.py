"""The documents are true: every block in them is run or read, every table is made again from the code and compared.

Each fenced block stands under ``<!-- test: name -->``, each made table between ``<!-- table: name -->`` and ``<!-- end -->``.
In shown output ``...`` stands for anything, and times, ids, ports and durations for others of their kind.

``python -m tests.test_documents`` writes the made tables into the README.
"""

from __future__ import annotations

import ast
import asyncio
import configparser
import contextlib
import doctest
import gzip
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
from aiohttp import web
from click.testing import CliRunner

import destinations
from router import body, config, door, route, scrub
from router.app import App
from router.cli import COMMANDS
from router.cli import turnout as command_line
from router.cli.destinations import Partner, Setting, partner, setting_of
from router.clock import SystemClock
from router.destination import Destination
from router.event import Event
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import LaneSum
from router.preview import preview
from router.secret import Secret
from router.settings import Collect, Console, Outbox, Settings, Snitcher, Source
from tests.running import KEY, collect_url, free_port, running_app, settings, stored, turnout

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / ".github").glob("*.md"))]

_FENCE = re.compile(r"^(?P<mark>```|~~~)(?P<language>\w*)\n(?P<text>.*?)^(?P=mark)$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"<!-- test: ([a-z0-9-]+) -->\n\Z")
_TABLE = re.compile(r"<!-- table: (?P<name>[a-z-]+) -->\n(?P<rows>.*?)<!-- end -->\n", re.DOTALL)


class Block(NamedTuple):
    file: str
    line: int
    name: str | None
    language: str
    text: str


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        named = _NAMED.search(text[: found.start()])
        line = text.count("\n", 0, found.start()) + 1
        yield Block(path.name, line, named[1] if named else None, found["language"], found["text"])


BLOCKS = [block for path in DOCUMENTS for block in blocks(path)]
COVERED: set[str] = set()


def block(name: str) -> Block:
    """The block of this name, which a test takes upon itself by asking for it here, at import."""
    COVERED.add(name)
    found = [each for each in BLOCKS if each.name == name]
    assert 1 == len(found), f"{len(found)} blocks stand under <!-- test: {name} -->"
    return found[0]


def test_every_block_is_tested():
    """
    No block stands in a document without a test, none has two names or a name that no test knows.
    """
    assert [] == [f"{each.file}:{each.line} has no name" for each in BLOCKS if each.name is None]
    assert sorted(COVERED) == sorted(str(each.name) for each in BLOCKS)


# What is shown is what comes

_SHAPES: Sequence[tuple[re.Pattern[str], str]] = tuple(
    (re.compile(pattern), shape)
    for pattern, shape in (
        (r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b(?<!5555)", "UUID"),
        (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z)?", "DAY"),
        (r"\b\d\d:\d\d:\d\d(?:\.\d+)?Z?", "TIME"),
        (r"\b\d+ ms\b", "N ms"),
        (r"\b\d+\.\d s\b", "N s"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"\b\d{13}\b", "INSTANT"),
        (r"\b3\.\d+\.\d+, \w+", "PYTHON"),
    )
)


def shape(text: str) -> str:
    """The text without what is another one at each run."""
    for pattern, word in _SHAPES:
        text = pattern.sub(word, text)
    return text


def agrees(shown: str, came: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(shape(shown), shape(came), flags)


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output shown below it."""
    parts = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)
    assert "" == parts[0], f"{block.file}:{block.line} does not begin with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


DEMO, SUITE, AGAIN, CHECKS = block("demo"), block("suite"), block("suite-again"), block("checks")
INSTALL = re.compile(r"python3 -m venv \.venv && \.venv/bin/pip install -q (.*?) && \.venv/bin/(.*)")


class TestTwoCommands:
    def test_the_suite_is_run_as_ci_runs_it(self):
        """
        The command that installs and tests is, to the letter, the one that a clean clone is checked with.
        """
        ((command, shown),) = commands(SUITE)

        assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
        assert re.search(r"^(?:\d+|\.\.\.) passed in ", shown, re.MULTILINE)

    def test_contributors_are_told_the_same(self):
        """
        The commands that contributors are asked to run are those of CI, in its order.
        """
        lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
        asked = [*AGAIN.text.splitlines(), *CHECKS.text.splitlines()]

        assert asked == [line for line in lines if line.startswith(("python3 ", ".venv/"))]

    def test_both_begin_alike(self):
        """
        Both make their environment themselves; one installs what it runs, the other with the extra of the tests.
        """
        found = [INSTALL.fullmatch(commands(each)[0][0]) for each in (DEMO, SUITE)]

        assert [(".", "turnout demo"), ("-e '.[test]'", "pytest")] == [each.groups() for each in found if each]

    async def test_the_demo_shows_what_is_shown(self):
        """
        The demo, ended by Ctrl-C once some events went through, prints the addresses, a line for each partner and a sum.
        """
        ((command, shown),) = commands(DEMO)
        found = INSTALL.fullmatch(command)
        assert found is not None
        async with turnout(*found[2].split()[1:], PYTHONUNBUFFERED="1") as process:
            came = ""
            while not (accepted := re.search(r"accepted (\d+).*\n\Z", came)) or int(accepted[1]) < 12:
                line = await process.line()
                assert line, came
                came += line
            process.signal(signal.SIGINT)
            code, rest, _ = await process.ended()

        assert 0 == code
        assert agrees(_figures(shown), _figures(came + rest)), came + rest


def _figures(text: str) -> str:
    """Without figures, and of a partner's row without its note, which is another at each moment."""
    plain = re.sub(r"\b\d+\b", "N", text)
    return re.sub(r"^([a-z]+(?: +N){4}) .*$", r"\1", plain, flags=re.MULTILINE)


# The first minute, and everything after it that needs a server

FIRST, METRICS = block("first-config"), block("metrics")
SESSION = [
    block(name)
    for name in (
        "enter", "start", "ready", "first-event", "explain", "on-disk", "trouble", "recovery",
        "pixel", "mixed-batch", "error-form", "preview", "preview-refused", "validate", "reload", "metrics", "hold", "tail", "retry", "export",
        "doctor", "replay", "backup", "forget",
    )
]  # fmt: skip
PARTNERS_CONFIG = block("partners-config")
PARTNERS_SESSION = [block("partners-enter"), block("partners-start"), block("partners-events")]
_READS = re.compile(
    r"turnout (?:explain|ledger|doctor|outbox list|sources list|tail)|curl -s http://\S+/(?:readyz|received|metrics)|grep "
)
PATIENCE = 20.0  # seconds in which a command that only looks must come to show what is shown
PORTS = ("8080", "8081", "8090", "8091", "9001", "9002", "9003", "9004", "9005")
END = "\x01"


class Shell:
    """A bash in which the blocks are typed, one after the other, with this tree's ``turnout`` on its path."""

    def __init__(self, directory: Path) -> None:
        self._ports = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in PORTS}
        tools = directory / "bin"
        tools.mkdir()
        (tools / "turnout").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m router "$@"\n')
        (tools / "turnout").chmod(0o755)
        (directory / ".venv" / "bin").mkdir(parents=True)
        (directory / ".venv" / "bin" / "activate").write_text(f"PATH={shlex.quote(str(tools))}:$PATH\n")
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TURNOUT_CONFIG": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.run('curl() { command curl -sS "$@"; }')

    def local(self, text: str) -> str:
        """The text with the ports that are free here."""
        for documented, ours in self._ports.items():
            text = text.replace(documented, ours)
        for port in PORTS[4:]:
            text = text.replace(f"--port {port}", f"--port {self._ports[f'127.0.0.1:{port}'].rpartition(':')[2]}")
        return text

    def run(self, command: str) -> str:
        """What the command prints."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{self.local(command)}\nprintf '\\n{END}\\n'\n")
        self._bash.stdin.flush()
        lines = iter(self._bash.stdout.readline, f"{END}\n")
        return "".join(self._checked(line) for line in lines).removesuffix("\n")

    def _checked(self, line: str) -> str:
        assert line, "the shell has ended"
        return line

    def shown(self, command: str, shown: str) -> str:
        """What it prints; what only looks is asked again until it shows what is shown, or patience ends."""
        until, pause = time.monotonic() + PATIENCE, 0.05
        came = self.run(command)
        while not agrees(shown, came) and _READS.match(command) and time.monotonic() < until:
            time.sleep(pause)  # what is waited for needs the processor, too
            pause = min(2 * pause, 1.0)
            came = self.run(command)
        return came

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
        self._bash.communicate(timeout=30)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_the_first_minute(shell: Shell, tmp_path: Path):
    """
    Typed in order by a newcomer, every command of the README prints what stands below it.
    """
    for each in SESSION:
        typed(shell, each)
        if each.name == "enter":
            (tmp_path / "first" / "config.toml").write_text(shell.local(LISTENS + FIRST.text))


LISTENS = f'[collect]\nlisten = "127.0.0.1:{PORTS[0]}"\n[console]\nlisten = "127.0.0.1:{PORTS[1]}"\n'


def typed(shell: Shell, each: Block) -> None:
    """Every command of a block prints what stands below it."""
    if each.language == "sh":
        assert "" == shell.run(each.text), f"README.md:{each.line}"
        return
    for command, shown in commands(each):
        came = shell.shown(command, shown)

        assert agrees(shown, came), f"README.md:{each.line}: {command}\n{came}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_every_partner(shell: Shell, tmp_path: Path):
    """
    Of the three systems that are tried side by side, each is reached with the README's configuration alone.
    """
    for each in PARTNERS_SESSION:
        typed(shell, each)
        if each.name == "partners-enter":
            (tmp_path / "partners" / "config.toml").write_text(shell.local(PARTNERS_CONFIG.text))


TYPO, CHECK = block("snap-typo"), block("check")


def test_check(shell: Shell, tmp_path: Path):
    """
    The deliberate typos are found where they are, with what to write instead.
    """
    (tmp_path / "config.toml").write_text(TYPO.text)
    shell.run(". .venv/bin/activate; export SHOP_TOKEN=shop-key SNAP_TOKEN=snap-key")
    for command, shown in commands(CHECK):
        came = shell.run(command)

        assert agrees(shown, came), came


def test_every_command_that_is_named_exists():
    """
    Whatever word follows ``turnout`` in a document is a command that can be imported.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = set(re.findall(r"(?:`|\$ |bin/)turnout ([a-z]+)", text))

    assert set() == named - COMMANDS.keys()
    assert [] == [name for name in sorted(named) if importlib.util.find_spec(f"router.cli.{name}") is None]


def test_every_metric_that_is_named_is_shown():
    """
    A metric to alert on is one that the server was just seen to have.
    """
    named = set(re.findall(r"`(turnout_\w+)", README.read_text(encoding="utf-8")))

    assert named
    assert set() == named - set(re.findall(r"^(turnout_\w+)", METRICS.text, re.MULTILINE))


# Senders

PYTHON_SDKS, PLAIN, BEACON = block("python-sdks"), block("plain-event"), block("beacon")
ORIGIN = "https://shop.example"


def keyed(text: str) -> str:
    """With the key that the source has here."""
    return text.replace("shop-key", KEY)


def to_snap(event: Event) -> str:
    """What would become of it now at the Snap of the first minute."""
    snap = destinations.Snap(pixel_id="p", access_token=Secret("t"))
    return preview("snap", snap, event, SystemClock().now()).result


class TestSenders:
    async def test_python_sdks(self, tmp_path: Path):
        """
        Both vendors' SDKs, with nothing but address and key changed, deliver, and Snap can be sent what they do.
        """
        async with running_app(settings(tmp_path)) as app:
            code = keyed(PYTHON_SDKS.text).replace("http://127.0.0.1:8080", collect_url(app))
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
            async with asyncio.timeout(60):
                assert 0 == await process.wait()

            events = await stored(app)
        assert [("purchase", "user-78", "27.5"), ("purchase", "user-79", "12")] == [
            (each.name, each.user.id, each.money.value or each.money.revenue) for each in events
        ]
        assert ["sent", "sent"] == [to_snap(each) for each in events]

    async def test_plain_event(self, tmp_path: Path):
        """
        Everything in the plain event arrives where destinations look for it, and Snap can be sent it.
        """
        async with running_app(settings(tmp_path)) as app:
            await _post(app, PLAIN.text.encode())
            (event,) = await stored(app)

        assert ("order-1045", "purchase", "42.5", "1045") == (
            event.id,
            event.name,
            event.money.value,
            event.money.order_id,
        )
        assert ("tea-1", 2) == (event.items[0].id, event.items[0].quantity)
        assert {"ScCid": "a-click-id"} == event.clicks
        assert ("marketing",) == event.consent.granted
        assert None not in (event.user.digests.email, event.user.digests.phone)
        assert "sent" == to_snap(event)

    async def test_beacon(self, tmp_path: Path):
        """
        What the script sends, as browsers send a beacon of text, is stored, and the page's origin is allowed.
        """
        path = re.search(r'"https://collect\.example(/[^"]*)"', BEACON.text)
        sent = re.search(r"const event = (.*);", BEACON.text)
        assert path is not None
        assert sent is not None
        values = sent[1].replace("location.href", f'"{ORIGIN}/"').replace("document.title", '"Tea"')
        payload = re.sub(r"(\w+):(?= )", r'"\1":', values)
        async with running_app(settings(tmp_path, origins=(ORIGIN,))) as app:
            headers = {"Content-Type": "text/plain;charset=UTF-8", "Origin": ORIGIN}
            answer = await _post(app, payload.encode(), path[1], headers)
            (event,) = await stored(app)

        assert ORIGIN == answer.headers["Access-Control-Allow-Origin"]
        assert ("page_view", f"{ORIGIN}/", ("marketing",)) == (event.name, event.page.url, event.consent.granted)

    @pytest.mark.parametrize("setting", ["host", "dataPlaneUrl"])
    def test_node_sdks(self, setting: str):
        """
        The settings that are named are those with which the Node SDKs themselves are run in tests/test_sdks.py.
        """
        used = (ROOT / "tests" / "test_sdks.py").read_text(encoding="utf-8")

        assert f"{setting}: process.env.HOST" in used
        assert f'{setting}: "https://collect.example"' in README.read_text(encoding="utf-8")


async def _post(
    app: App, content: bytes, path: str = "/collect?token=shop-key", headers: Mapping[str, str] | None = None
) -> aiohttp.ClientResponse:
    url = collect_url(app) + keyed(path)
    async with aiohttp.ClientSession() as session, session.post(url, data=content, headers=headers) as answer:
        assert 200 == answer.status, await answer.text()
        return answer


# Codes


def code_rows() -> dict[str, set[int]]:
    """code -> its statuses, as the README has them."""
    rows = re.findall(r"^\| ([\d, ]+) \| `(\w+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    return {code: {int(status) for status in statuses.split(",")} for statuses, code in rows}


_CODE = re.compile(r"[a-z]+(?:_[a-z0-9]+)*")
_MAKERS = {"refused", "_later", "_turned_away", "_problem", "_wrapper_refused"}


def codes_in(path: str) -> set[str]:
    """Every code that this file can answer with: arguments of what makes problems, assignments and returns of codes."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {code for node in ast.walk(tree) for code in _codes(node) if _CODE.fullmatch(code)}


def _codes(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.keyword(arg="code", value=value):
            yield from _texts(value)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args) if name in _MAKERS:
            yield from next(([text] for each in args for text in _texts(each) if _CODE.fullmatch(text)), [])
        case ast.Assign(targets=[ast.Name(id="code")], value=value):
            yield from _texts(value)
        case ast.FunctionDef(name="_exceeded" | "_name_problem"):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    first = inner.value.elts[0] if isinstance(inner.value, ast.Tuple) else inner.value
                    yield from (text for leaf in ast.walk(first) for text in _texts(leaf))


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


PROVOKED: Sequence[tuple[str, int, str, dict[str, Any]]] = (
    ("missing", 200, "one event without a name", {"data": b'{"value": 1}'}),
    ("bad_event_name", 200, "an empty name", {"data": b'{"event_name": ""}'}),
    ("bad_key", 200, "a long key", {"data": json.dumps({"event": "a", "k" * 300: 1}).encode()}),
    ("unknown_format", 200, "a CloudEvent", {"data": b'{"specversion": "1.0", "name": "a"}'}),
    ("not_an_object", 200, "a number among events", {"data": b'[1, {"event": "a"}]'}),
    ("not_an_object", 400, "text as a body", {"data": b'"text"'}),
    ("event_too_large", 200, "a large member", {"data": b'[{"event": "%s"}]' % (b"a" * body.MAX_EVENT)}),
    ("event_too_large", 400, "one large event", {"data": b'{"event": "%s"}' % (b"a" * body.MAX_EVENT)}),
    ("too_deep", 200, "a deep event", {"data": b'{"event": "a", "b": %s1%s}' % (b"[" * 40, b"]" * 40)}),
    ("too_deep", 400, "deep beyond reading", {"data": b"[" * 200_000}),
    ("too_many_keys", 200, "many keys", {"data": json.dumps({"event": "a"} | {f"k{n}": n for n in range(1001)}).encode()}),
    ("too_many_keys", 400, "many keys beside the batch", {"data": json.dumps({"batch": [], "c": {f"k{n}": n for n in range(1001)}}).encode()}),
    ("number_out_of_range", 200, "an enormous quantity", {"data": b'{"event": "a", "items": [{"quantity": 1e30}]}'}),
    ("number_out_of_range", 400, "an enormous number beside the batch", {"data": b'{"batch": [], "n": 1e999}'}),
    ("malformed_json", 400, "half an object", {"data": b'{"event": '}),
    ("empty_body", 400, "nothing", {"data": b" "}),
    ("not_utf8", 400, "UTF-16", {"data": "{}".encode("utf-16")}),
    ("bad_gzip", 400, "no gzip", {"data": b"{}", "headers": {"Content-Encoding": "gzip"}}),
    ("request_too_large", 400, "a bomb", {"data": gzip.compress(b" " * 10**6), "headers": {"Content-Encoding": "gzip"}}),
    ("too_many_events", 400, "many events", {"data": b"[%s{}]" % (b"{}," * 1000)}),
    ("unauthorized", 401, "a wrong key", {"data": b"{}", "params": {"token": "another"}}),
    ("not_found", 404, "another path", {"data": b"{}", "path": "/other"}),
    ("method_not_allowed", 405, "PUT", {"data": b"{}", "method": "PUT"}),
    ("bad_encoding", 415, "brotli", {"data": b"{}", "headers": {"Content-Encoding": "br"}}),
    ("bad_charset", 415, "Latin-1", {"data": b"{}", "headers": {"Content-Type": "application/json; charset=latin1"}}),
)  # fmt: skip


class TestCodes:
    def test_every_code_is_listed(self):
        """
        The README lists every code that a sender can get, and no other.
        """
        files = (
            "body.py",
            "door.py",
            "collect/http.py",
            "collect/intake.py",
            "collect/preparing.py",
            "collect/server.py",
            "collect/webhooks.py",
            "outbox/errors.py",
        )

        assert set().union(*(codes_in(f"router/{file}") for file in files)) == code_rows().keys()

    @pytest.mark.parametrize(
        ("code", "status", "request_"),
        [pytest.param(code, status, asked, id=f"{status} {code}: {words}") for code, status, words, asked in PROVOKED],
    )
    async def test_a_code_comes_with_its_status(self, tmp_path: Path, code: str, status: int, request_: dict[str, Any]):
        """
        A request with this fault is answered as the table says.
        """
        asked = {"method": "POST", "path": "/collect", "params": {"token": KEY}, **request_}
        async with running_app(settings(tmp_path)) as app, aiohttp.ClientSession() as session:
            url = collect_url(app) + asked.pop("path")
            async with session.request(asked.pop("method"), url, **asked) as answer:
                said = await answer.json()

        assert status in code_rows()[code]
        assert (status, code) == (answer.status, said["problems"][0]["code"] if status == 200 else said["code"])

    async def test_a_source_that_is_switched_off(self, tmp_path: Path):
        """
        403 with its code, as the table says.
        """
        async with running_app(settings(tmp_path, enabled=False)) as app, aiohttp.ClientSession() as session:
            url = f"{collect_url(app)}/collect?token={KEY}"
            async with session.post(url, data=b'{"event": "a"}') as answer:
                said = await answer.json()

        assert {answer.status} == code_rows()[said["code"]]


# Configuration

TOML = {name: block(name) for name in ("snap", "snap-tests", "acme-config")} | {"first-config": FIRST}
UNIT, ENTRY_POINT, ACME = block("unit"), block("entry-point"), block("acme")
ENVIRONMENT = {"SHOP_TOKEN": KEY, "SNAP_TOKEN": "snap-key", "ACME_KEY": "acme-key"}
SHOP = '[sources.shop]\ntokens = ["env:SHOP_TOKEN"]\n'


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Destination]]:
    """The partner of the README, installed as a package with its entry point."""
    package = tmp_path / "site"
    information = package / "acme-1.0.dist-info"
    information.mkdir(parents=True)
    (package / "acme.py").write_text(ACME.text)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    groups = tomllib.loads(ENTRY_POINT.text)["project"]["entry-points"]
    lines = [f"[{group}]\n{name} = {target}\n" for group, points in groups.items() for name, target in points.items()]
    (information / "entry_points.txt").write_text("".join(lines))
    monkeypatch.syspath_prepend(str(package))
    importlib.invalidate_caches()
    yield destinations.registry()["acme"]
    sys.modules.pop("acme", None)


@pytest.mark.parametrize("name", TOML)
def test_configurations(name: str, tmp_path: Path, acme: type[Destination]):
    """
    Every configuration of the README is taken as it stands, without a warning.
    """
    text = TOML[name].text
    path = tmp_path / "config.toml"
    path.write_text(text if "[sources." in text else SHOP + text)

    settings, findings = config.examine(path, ENVIRONMENT, destinations={**destinations.registry(), "acme": acme})

    assert [] == findings
    assert settings is not None


def test_snap_in_ten_lines():
    """
    What the heading says.
    """
    assert 10 >= len(TOML["snap"].text.splitlines())


def test_unit():
    """
    The unit starts commands and options that exist, with more patience than a stop takes.
    """
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd tells upper and lower case apart
    unit.read_string(UNIT.text)
    service = unit["Service"]

    for line in (service["ExecStartPre"], service["ExecStart"]):
        program, command, option, _ = shlex.split(line)
        assert program.endswith("/turnout")
        assert command in COMMANDS
        assert "--config" == option
    assert 10 < int(service["TimeoutStopSec"])


class TestAcme:
    def test_it_is_short(self):
        """
        Under 60 lines, as the README says of it, and formatted and typed as this repository's own.
        """
        assert 60 > len(ACME.text.splitlines())

    @pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--diff"]], ids=["lint", "format"])
    def test_it_is_clean(self, tool: list[str], tmp_path: Path):
        """
        A newcomer's copy passes what the repository's own files must pass.
        """
        (tmp_path / "acme.py").write_text(ACME.text)
        command = [sys.executable, "-m", *tool, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run([*command, "acme.py"], cwd=tmp_path, capture_output=True, text=True, check=False)

        assert (0, "") == (done.returncode, done.stdout if done.returncode else "")

    async def test_it_delivers(self, tmp_path: Path, acme: type[Destination]):
        """
        Installed by its entry point and configured as shown, it delivers with digests only, refuses in words, splits a
        batch in which one is known already, and holds where the account says so.
        """
        async with sink([409, 202, 409, 402]) as (url, taken):
            (tmp_path / "config.toml").write_text(
                f'{SHOP}[outbox]\npath = "{tmp_path}/outbox"\n[collect]\nlisten = "127.0.0.1:0"\n'
                f'[console]\nlisten = "127.0.0.1:0"\n{TOML["acme-config"].text}base_url = "{url}"\nallow_private = true\n'
            )
            known = {**destinations.registry(), "acme": acme}
            loaded = config.load(tmp_path / "config.toml", ENVIRONMENT, destinations=known)
            assert isinstance(loaded, Settings), loaded
            async with running_app(loaded) as app:
                await _post(app, _conversions("a", "b"))
                await taken.reached(3)
                await _post(app, _conversions("c"))
                lane = await _held(app)

        together, *halves, last = taken.calls
        assert "acme-key" == together.headers["x-acme-key"]
        assert "/v1/accounts/4711/conversions" == together.path
        assert [{"a", "b"}, {"a"}, {"b"}, {"c"}] == [
            each.ids for each in (together, *sorted(halves, key=lambda half: sorted(half.ids)), last)
        ]
        assert ("sale", "12.5", "EUR", "spring") == tuple(
            last.conversions[0][name] for name in ("kind", "value", "currency", "campaign")
        )
        assert "jane@example.com" not in json.dumps([each.conversions for each in taken.calls])
        assert (2, 1, 1) == (lane.delivered, lane.dead, lane.waiting)
        assert "the account has no budget left: top it up, then resume" == lane.hold_reason


def _conversions(*names: str) -> bytes:
    """Purchases with these ids, and, with the first ones, one by nobody known."""
    made: list[dict[str, Any]] = [
        {
            "event": "purchase",
            "event_id": name,
            "value": 12.5,
            "currency": "EUR",
            "campaign": "spring",
            "user": {"email": "jane@example.com"},
        }
        for name in names
    ]
    if "a" in names:
        made.append({"event": "purchase", "event_id": "nobody", "value": 1, "currency": "EUR"})
    return json.dumps(made).encode()


async def _held(app: App) -> LaneSum:
    """The lane, once it is held and what was answered before is written down."""
    async with asyncio.timeout(20):
        while True:
            lane = (await Reader(app.store.directory).ledger()).destinations["acme"]
            if lane.held and lane.delivered + lane.dead == 3:
                return lane
            await asyncio.sleep(0.02)


class Taken(NamedTuple):
    path: str
    headers: Mapping[str, str]
    conversions: list[dict[str, Any]]

    @property
    def ids(self) -> set[str]:
        return {each["conversion_id"] for each in self.conversions}


class Sink:
    """What the made-up partner was sent."""

    def __init__(self) -> None:
        self.calls: list[Taken] = []
        self._changed = asyncio.Condition()

    async def add(self, call: Taken) -> None:
        async with self._changed:
            self.calls.append(call)
            self._changed.notify_all()

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self.calls) >= count)


@contextlib.asynccontextmanager
async def sink(statuses: Sequence[int]) -> AsyncIterator[tuple[str, Sink]]:
    """The made-up partner, which gives these answers one after the other, and 202 from then on."""
    taken = Sink()

    async def take(request: web.Request) -> web.Response:
        number = len(taken.calls)
        await taken.add(Taken(request.path, dict(request.headers), (await request.json())["conversions"]))
        return web.Response(status=statuses[number] if number < len(statuses) else 202)

    application = web.Application()
    application.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", taken
    finally:
        await runner.cleanup()


# Tables that are made


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|")


def _made(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in lines)


def _code(value: object) -> str:
    return f"`{value}`" if value not in ("", None) else ""


def _partners() -> list[Partner]:
    return [partner(str(kind.__struct_config__.tag), kind) for kind in destinations.SHIPPED]


def _limits() -> str:
    rows = (
        ("One event", f"{body.MAX_EVENT} bytes, after inflating"),
        ("One request", f"{body.MAX_REQUEST} bytes, after inflating"),
        ("Events in one request", body.MAX_EVENTS),
        ("Levels of nesting", body.MAX_DEPTH),
        ("Keys in one event", body.MAX_KEYS),
        ("An event's name", f"{door.MAX_NAME} characters"),
        ("An event's id", f"{door.MAX_ID} characters of text; for anything else, a number too, an id of ours is made"),
        ("A key", f"{scrub.LONGEST_KEY} characters"),
    )
    return _made(("What", "At most"), rows)


def _operators() -> str:
    rows = [(_code(word), means or "is there; with `false` is not") for word, (means, _) in route._OPERATORS.items()]
    return _made(("Word", "The field"), rows)


def _destinations() -> str:
    rows = [
        (
            _code(each.type),
            f"[{each.title}]({each.docs})",
            _names(each),
            ", ".join(each.identifiers) or "nothing",
            each.dedup_key,
            _most(each),
            each.test_endpoint or "none",
            ", ".join(each.clear) or "nothing",
        )
        for each in _partners()
    ]
    headings = ("Type", "Partner", "Events", "Matched by", "Knows a resend by", "Limits", "Its own check", "In clear")
    return _made(headings, rows)


def _most(each: Partner) -> str:
    """What the partner takes at most: events in a request, their age, requests a second, events a month."""
    limits = [
        f"{each.max_batch} a request" if each.max_batch == 1 else f"{each.batch} a request, {each.max_batch} at most"
    ]
    limits += [f"the last {each.window}"] if each.window else []
    limits += [each.rate] if each.rate else []
    limits += [f"{each.monthly_quota} a month"] if each.monthly_quota else []
    return "; ".join(limits)


def _names(each: Partner) -> str:
    if each.events is None:
        return "all"
    return ", ".join(each.events) if len(each.events) < 5 else f"{len(each.events)} names, below"


def _snap_events() -> str:
    found = next(each for each in _partners() if each.type == "snap")
    return _made(("Event", "Snap's"), [(_code(ours), _code(theirs)) for ours, theirs in (found.events or {}).items()])


def _commands() -> str:
    there = [name for name in COMMANDS if importlib.util.find_spec(f"router.cli.{name}") is not None]
    return _made(("Command", "Does"), [(_code(f"turnout {name}"), COMMANDS[name]) for name in there])


def _settings() -> str:
    sections: dict[str, type[msgspec.Struct]] = {
        "[collect]": Collect,
        "[console]": Console,
        "[outbox]": Outbox,
        "[sources.NAME]": Source,
        '[sources.NAME]` with `type = "snitcher"': Snitcher,
    }
    parts = [
        f"`{name}`\n\n{_rows([setting_of(field, {}) for field in msgspec.structs.fields(struct)])}"
        for name, struct in sections.items()
    ]
    partners = _partners()
    for each in partners:
        own = [setting for setting in each.settings if not setting.common]
        parts.append(f'`[destinations.NAME]` with `type = "{each.type}"`\n\n{_rows(own)}')
    general = [_varying(field, partners) for field in msgspec.structs.fields(Destination)]
    parts.append(f"Every `[destinations.NAME]`\n\n{_rows(general)}")
    return "\n" + "\n".join(parts) + "\n"


def _varying(field: msgspec.structs.FieldInfo, partners: Sequence[Partner]) -> Setting:
    """A setting that every destination takes; its default only where it is the same for all."""
    defaults = [each.default for one in partners for each in one.settings if each.name == field.name]
    same = all(default == defaults[0] for default in defaults)
    return msgspec.structs.replace(setting_of(field, {}), default=defaults[0] if same else PARTNERS_OWN)


PARTNERS_OWN = "the partner's"


def _rows(settings: Sequence[Setting]) -> str:
    rows = [(_code(each.name), _form(each), _default(each), each.description) for each in settings]
    return _made(("Key", "Form", "Default", "Meaning"), rows)


def _form(setting: Setting) -> str:
    """With its limits, where they are numbers; patterns are the check's to explain."""
    found = re.findall(r"[<>]=? \d+", setting.limits)
    return f"{setting.form}, {', '.join(found)}" if found else setting.form


def _default(setting: Setting) -> str:
    if setting.required:
        return "required"
    if setting.default in (None, PARTNERS_OWN):
        return setting.default or "none"
    return _code(json.dumps(setting.default))


TABLES: Mapping[str, Callable[[], str]] = {
    "limits": _limits,
    "operators": _operators,
    "settings": _settings,
    "destinations": _destinations,
    "snap-events": _snap_events,
    "commands": _commands,
}


def made_again(text: str) -> str:
    """A document with every table that can be made from the code made again."""

    def replaced(found: re.Match[str]) -> str:
        rows = TABLES[found["name"]]() if found["name"] in TABLES else found["rows"]
        return f"<!-- table: {found['name']} -->\n{rows}<!-- end -->\n"

    return _TABLE.sub(replaced, text)


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str):
    """
    The table is what the code says; where it is not, python -m tests.test_documents writes it.
    """
    found = {each["name"]: each["rows"] for each in _TABLE.finditer(README.read_text(encoding="utf-8"))}

    assert TABLES[name]() == found[name]


@pytest.mark.parametrize("kind", destinations.SHIPPED, ids=lambda kind: kind.title)
def test_facts_of_a_destination(kind: type[Destination]):
    """
    turnout destinations TYPE tells what the class knows of its partner: by what it matches, its limits, its own check.
    """
    told = CliRunner().invoke(command_line, ["destinations", str(kind.__struct_config__.tag)]).stdout

    for fact in (*kind.identifiers, *kind.clear, kind.window, kind.default_rate, kind.test_endpoint, kind.dedup_key):
        assert (fact or "") in told
    quota = f"{kind.monthly_quota} at most" if kind.monthly_quota else "any number"
    assert f"events in a calendar month: {quota}\n" in told


# Form


class TestForm:
    def test_the_first_screen(self):
        """
        Within forty lines: what it is, both commands, the picture and the promise.
        """
        screen = "\n".join(README.read_text(encoding="utf-8").splitlines()[:40])

        for part in (commands(DEMO)[0][0], commands(SUITE)[0][0], ".github/flow.svg", "**The promise.**"):
            assert part in screen

    @pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
    def test_one_sentence_per_line(self, path: Path):
        """
        In the source a line of prose holds one sentence, so that a change shows what it changed.
        """
        text = _FENCE.sub("", _TABLE.sub("", path.read_text(encoding="utf-8")))
        prose = [
            line for line in text.splitlines() if line and not line.startswith(("|", "#", "<!--", "!", "Contents"))
        ]
        joined = [
            line for line in prose if re.search(r"[a-z`)][.?!] [A-Z]", re.sub(r"^\*\*.*?\*\* |\]\(.*?\)", "", line))
        ]

        assert [] == joined

    @pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
    def test_links_lead_somewhere(self, path: Path):
        """
        A link inside the repository leads to a file that exists, and to a heading that stands in it.
        """
        for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", path.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = path.parent / name if name else path
            assert file.exists(), target
            if anchor:
                assert anchor in _anchors(file), target

    def test_the_picture(self):
        """
        It is well-formed, loads nothing, runs nothing, says in words what it shows, and names every partner.
        """
        picture = (ROOT / ".github" / "flow.svg").read_text(encoding="utf-8")
        names = {element.tag.rpartition("}")[2] for element in ET.fromstring(picture).iter()}

        assert {"title", "desc"} <= names
        assert {"script", "image", "foreignObject", "a"}.isdisjoint(names)
        assert [] == re.findall(r"(?:href|url)\s*[=(]\s*[\"']?(?!#)[^)\"'#]", picture)
        assert [] == [each.title for each in destinations.SHIPPED if f">{each.title}<" not in picture]


def _anchors(path: Path) -> set[str]:
    """As GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


if __name__ == "__main__":
    README.write_text(made_again(README.read_text(encoding="utf-8")), encoding="utf-8")
