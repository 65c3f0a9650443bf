"""Personal data and secrets leave no trace: unique canaries go in everywhere, and everything that is left is searched."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import random
import re
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner

from destinations.ipsnare import IpSnare
from destinations.linktrace import LinkTrace
from destinations.snap import Snap
from destinations.webhook import Webhook
from router import cli, logs, mocks
from router.app import App
from router.clock import SystemClock
from router.mocks.partner import Partner, Trouble, running
from router.secret import Secret
from router.settings import Console
from tests.running import collect_url, running_app, settings
from tests.unpacked import unpacked

SEED = random.SystemRandom().getrandbits(32)  # other people in every run; a failure says it
_dice = random.Random(SEED)


def _name() -> str:
    return "Zq" + "".join(_dice.choices("aeioubcdfglmnprstvx", k=12))


def _card() -> str:
    """Sixteen digits with the check digit that makes them a card's (Luhn)."""
    digits = [4, 5, 3, 9, *_dice.choices(range(10), k=11)]
    total = sum(sum(divmod(2 * digit, 10)) if place % 2 == 0 else digit for place, digit in enumerate(digits))
    number = "".join(map(str, [*digits, -total % 10]))
    return " ".join(number[at : at + 4] for at in range(0, 16, 4))


PERSON = {
    "email": f"canary.{_dice.getrandbits(32):08x}@mail.example",
    "phone": "+33 6 " + " ".join(f"{_dice.randint(10, 99)}" for _ in range(4)),
    "first_name": _name(),
    "last_name": _name(),
    "street": f"17 Rue {_name()}",
    "birth": f"19{_dice.randint(50, 99)}-03-{_dice.randint(10, 28)}",
    "card": _card(),
    "ip": f"93.184.{_dice.randint(100, 255)}.{_dice.randint(100, 254)}",
    "agent": f"{_name()}/77.1 ({_name()})",
}
KEY = f"canary-key-{uuid.uuid4().hex}"
TOKENS = {
    "snap": f"canary-snap-{uuid.uuid4().hex}",
    "linktrace": f"canary-linktrace-{uuid.uuid4().hex}",
    "ipsnare": f"canary-ipsnare-{uuid.uuid4().hex}",
    "webhook": "whsec_" + base64.b64encode(f"canary-{uuid.uuid4().hex}".encode()).decode(),
}
CONSOLE = f"canary-console-{uuid.uuid4().hex}"
ENVIRON = {"KEY": KEY, "CONSOLE": CONSOLE, "SNAP": TOKENS["snap"], "LT": TOKENS["linktrace"]} | {
    "IS": TOKENS["ipsnare"],
    "WH": TOKENS["webhook"],
}


def spellings() -> list[bytes]:
    """What must be found nowhere, in the spellings in which it might be written."""
    texts = [
        *PERSON.values(),
        *TOKENS.values(),
        KEY,
        CONSOLE,
        PERSON["phone"].replace(" ", ""),
        PERSON["card"].replace(" ", ""),
    ]
    phone = PERSON["phone"].replace(" ", "")
    texts += [text.lower() for text in texts] + [phone.removeprefix("+"), "0" + phone.removeprefix("+33")]
    encoded = [urllib.parse.quote(text) for text in texts] + [urllib.parse.quote_plus(text) for text in texts]
    return [text.encode() for text in {*texts, *encoded}]


def traffic() -> list[tuple[str, dict[str, str], Any]]:
    """Requests in every dialect with personal data in its proper places, in wrong ones, and in events that are refused."""
    text = f"call {PERSON['phone']} or {PERSON['email']}, card {PERSON['card']}"
    url = f"https://shop.example/thanks?email={urllib.parse.quote(PERSON['email'])}&q={urllib.parse.quote(text)}"
    commandersact = {
        "event_name": "purchase",
        "id": "O-1",
        "value": 12.5,
        "currency": "EUR",
        "note": text,
        "user": {
            "id": PERSON["email"],
            "email": PERSON["email"],
            "phone": PERSON["phone"],
            "firstname": PERSON["first_name"],
            "lastname": PERSON["last_name"],
            "street": PERSON["street"],
            "birthdate": PERSON["birth"],
            "consent_categories": [1],
        },
        "context": {
            "event_id": PERSON["email"],
            "page": {"url": url, "title": text, "referrer": url},
            "device": {"ip": PERSON["ip"], "user_agent": PERSON["agent"], "cookie": f"_ga=1; login={PERSON['email']}"},
        },
    }
    segment = {
        "type": "identify",
        "userId": "u-1",
        "traits": {
            "email": PERSON["email"],
            "phone": PERSON["phone"],
            "firstName": PERSON["first_name"],
            "lastName": PERSON["last_name"],
            "address": {"street": PERSON["street"], "city": "Paris"},
            "birthday": PERSON["birth"],
            "password": PERSON["card"],
        },
        "context": {"ip": PERSON["ip"], "userAgent": PERSON["agent"], "page": {"url": url}},
    }
    plain = {
        "event": "sign_up",
        "user": {"email": PERSON["email"], "phone": PERSON["phone"], "first_name": PERSON["first_name"]},
        "properties": {
            "comment": text,
            "deep": [{"er": text, "recipient": {"name": PERSON["last_name"]}}],
            PERSON["email"]: 1,
        },
        "customerBillingLastName": PERSON["last_name"],
        "billing_address_1": PERSON["street"],
        "context": {"traits": {"name": f"{PERSON['first_name']} {PERSON['last_name']}"}},
        "integrations": {"facebook": {"fn": PERSON["first_name"], "user": {"name": PERSON["last_name"]}}},
    }
    click = {
        "event": "job_click",
        "user_ip": PERSON["ip"],
        "user_agent": PERSON["agent"],
        "source_id": "s",
        "source_click_id": "sc",
        "job_id": "j",
        "job_country": "FR",
        "user_country": "FR",
        "destination_id": "d",
    }
    refused = {"user": {"email": PERSON["email"], "first_name": PERSON["first_name"]}, "context": {}, "note": text}
    pixel = urllib.parse.urlencode({"token": KEY, "event_name": "page_view", "user[email]": PERSON["email"], "n": text})
    bearer = {"Authorization": f"Bearer {KEY}"}
    return [
        ("/events", bearer, commandersact),
        ("/v1/batch", bearer, {"batch": [segment, {**segment, "type": "track", "event": text}]}),
        (f"/collect?token={KEY}", {}, [plain, click, refused, text, {"event": text}]),
        (f"/collect?token={KEY}", {"Origin": "https://shop.example", "User-Agent": PERSON["agent"]}, plain),
        (f"/events?{pixel}", {}, None),
        ("/collect", bearer, text),
    ]


def destinations(urls: dict[str, str]) -> dict[str, Any]:
    common = {"allow_private": True}
    return {
        "snap": Snap(
            pixel_id="11111111-2222-3333-4444-555555555555",
            access_token=Secret(TOKENS["snap"], "env:SNAP"),
            base_url=urls["snap"],
            **common,
        ),
        "linktrace": LinkTrace(api_key=Secret(TOKENS["linktrace"], "env:LT"), base_url=urls["linktrace"], **common),
        "ipsnare": IpSnare(api_key=Secret(TOKENS["ipsnare"], "env:IS"), base_url=urls["ipsnare"], **common),
        "webhook": Webhook(url=urls["webhook"] + "/hook", secrets=(Secret(TOKENS["webhook"], "env:WH"),), **common),
    }


async def run(directory: Path) -> dict[str, bytes]:
    """Everything that is left of a run, by where it was found: files, log lines at DEBUG, answers, console, metrics."""
    written = io.StringIO()
    logs.configure("debug", written, json=True)
    left: dict[str, bytes] = {}
    partners: dict[str, Partner] = {kind: mocks.PARTNERS[kind](now=SystemClock().now) for kind in TOKENS}
    # Partners repeat what they know, key and all, in an error page.
    echo = [TOKENS["webhook"], PERSON["email"], PERSON["phone"], PERSON["card"]]
    partners["webhook"].trouble = [Trouble(status=500, body=echo, times=1), Trouble(status=422, body=echo, times=1)]
    echo = [TOKENS["ipsnare"], PERSON["ip"], PERSON["agent"]]
    partners["ipsnare"].trouble = [Trouble(status=422, body=echo, times=1)]
    async with (
        running(partners["snap"]) as snap,
        running(partners["linktrace"]) as linktrace,
        running(partners["ipsnare"]) as ipsnare,
        running(partners["webhook"]) as webhook,
    ):
        urls = {"snap": snap, "linktrace": linktrace, "ipsnare": ipsnare, "webhook": webhook}
        chosen = msgspec.structs.replace(
            settings(directory, default_country="FR", origins=("https://shop.example",)),
            destinations=destinations(urls),
        )
        (source,) = chosen.sources.values()
        chosen.sources["shop"] = msgspec.structs.replace(source, tokens=(Secret(KEY, "env:KEY"),))
        chosen = msgspec.structs.replace(
            chosen, console=Console(listen="127.0.0.1:0", token=Secret(CONSOLE, "env:CONSOLE"))
        )
        async with running_app(chosen) as app:
            async with _watched(app) as stream:
                left |= await _talk(app)
                await partners["webhook"].wait_for(3)
                ids = [event.id for each in await app.store.read(0, 100) if (event := each.event) is not None]
                left |= await _read_console(app, ids)
                left |= await asyncio.to_thread(_command_line, directory, configured(directory, app, urls), ids)
            left["stream"] = b"".join(stream)
            left |= {f"live {path.name}": unpacked(path) for path in (directory / "outbox").rglob("*.db*")}
    left |= {str(path.relative_to(directory)): unpacked(path) for path in directory.rglob("*") if path.is_file()}
    left["log"] = written.getvalue().encode()
    return left


async def _talk(app: App) -> dict[str, bytes]:
    answers: dict[str, bytes] = {}
    async with aiohttp.ClientSession(collect_url(app)) as http:
        for number, (path, headers, body) in enumerate(traffic()):
            method = "GET" if body is None else "POST"
            async with http.request(method, path, headers=headers, data=json.dumps(body) if body else None) as answer:
                answers[f"answer {number}"] = await answer.read() + str(answer.headers).encode()
    return answers


def _console(app: App) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(f"http://127.0.0.1:{app.console_port}", headers={"Authorization": f"Bearer {CONSOLE}"})


@contextlib.asynccontextmanager
async def _watched(app: App) -> AsyncIterator[list[bytes]]:
    """What the live stream says meanwhile."""
    said: list[bytes] = []

    async def listen() -> None:
        async for part in answer.content.iter_any():
            said.append(part)  # noqa: PERF401 - it has no end

    async with _console(app) as http, http.get("/api/v1/stream?after=0") as answer:
        listening = asyncio.create_task(listen())
        yield said
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def _read_console(app: App, ids: Sequence[str]) -> dict[str, bytes]:
    """Every address that can be read; of what has a name or a number in it, all that there are."""
    found: dict[str, bytes] = {}
    async with _console(app) as http:
        async with http.get("/openapi.json") as answer:
            document = await answer.json()
        paths = [path for path, acts in document["paths"].items() if "get" in acts and "{" not in path]
        paths.remove("/api/v1/stream")  # it has no end; see ``_watched``
        paths += ["/", "/openapi.json", *(f"/api/v1/deliveries?to={kind}" for kind in TOKENS)]
        paths += [f"/api/v1/events/{urllib.parse.quote(each, safe='')}" for each in ids]
        async with http.get("/api/v1/quarantine") as answer:
            paths += [f"/api/v1/quarantine/{each['id']}" for each in (await answer.json())["items"]]
        pages = ["/", "/live", "/deliveries", "/quarantine", "/audit"]
        pages += [path.removeprefix("/api/v1") for path in paths if re.match(r"/api/v1/(events|quarantine)/", path)]
        for kind, accept, path in [
            *(("console", "*/*", path) for path in paths),
            *(("page", "text/html", path) for path in pages),
        ]:
            async with http.get(path, headers={"Accept": accept}) as answer:
                found[f"{kind} {path}"] = await answer.read()
                assert answer.status == 200, (path, answer.status)
    return found


def configured(directory: Path, app: App, urls: dict[str, str]) -> Path:
    """The configuration of this run as a file, for the command line."""
    path = directory / "config.toml"
    path.write_text(
        f'[collect]\nlisten = "127.0.0.1:{app.collect_port}"\n'
        f'[console]\nlisten = "127.0.0.1:{app.console_port}"\ntoken = "env:CONSOLE"\n'
        f'[outbox]\npath = "{directory / "outbox"}"\n'
        '[sources.shop]\ntokens = ["env:KEY"]\ndefault_country = "FR"\norigins = ["https://shop.example"]\n'
        '[destinations.snap]\ntype = "snap"\npixel_id = "11111111-2222-3333-4444-555555555555"\n'
        f'access_token = "env:SNAP"\nbase_url = "{urls["snap"]}"\nallow_private = true\n'
        f'[destinations.linktrace]\ntype = "linktrace"\napi_key = "env:LT"\nbase_url = "{urls["linktrace"]}"\n'
        f'allow_private = true\n[destinations.ipsnare]\ntype = "ipsnare"\napi_key = "env:IS"\n'
        f'base_url = "{urls["ipsnare"]}"\nallow_private = true\n'
        f'[destinations.webhook]\ntype = "webhook"\nurl = "{urls["webhook"]}/hook"\nsecrets = ["env:WH"]\n'
        "allow_private = true\n"
    )
    return path


def _command_line(directory: Path, config: Path, ids: Sequence[str]) -> dict[str, bytes]:
    """What every command says that reads the outbox, the configuration or the console; and two backups."""
    commands: list[list[str]] = [
        *(["check", *more] for more in ([], ["--json"])),
        *(["ledger", "--verify", *more] for more in ([], ["--json"])),
        *(["doctor", *more] for more in ([], ["--json"])),
        *(["outbox", "list", "--limit", "500", *more] for more in ([], ["--json"])),
        *(["tail", "--no-follow", "--limit", "100", *more] for more in ([], ["--json"])),
        ["tail", "--since", "0", "--limit", str(len(ids)), "--json"],
        ["sources", "list", "--json"],
        *(["outbox", "retry", "--to", kind, "--dry-run", "--json"] for kind in TOKENS),
        *(["outbox", "replay", "--to", kind, "--since", "24h", "--dry-run", "--json"] for kind in TOKENS),
        ["forget", "--email", PERSON["email"], "--phone", PERSON["phone"], "--dry-run", "--json"],
        *([what, each, *more] for what in ("explain",) for each in ids for more in ([], ["--json"])),
        *(["outbox", "show", each, "--json"] for each in ids),
        *(["preview", "--id", each] for each in ids),  # as JSON it is what the partner gets, and says so
        ["backup", str(directory / "backup")],
        ["backup", "--without-keys", "--json", str(directory / "backup-without-keys")],
    ]
    said = {}
    for command in commands:
        result = CliRunner(env=ENVIRON).invoke(cli.turnout, [*command, "--config", str(config)])
        assert result.exit_code in {0, 1}, (command, result.output)
        assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
        said[f"turnout {' '.join(command)}"] = result.output.encode()
    return said


def hits(left: dict[str, bytes]) -> dict[str, list[str]]:
    """Where a canary was found."""
    wanted = spellings()
    found = {place: [each.decode() for each in wanted if each in content] for place, content in left.items()}
    return {place: each for place, each in found.items() if each}


async def test_no_canary_is_found_anywhere(tmp_path: Path):
    """
    E-mail, phone, names, street, card, IP, user agent, keys: in no file, WAL, backup, log line, answer, page, metric or
    live stream, and no command says one.
    """
    left = await run(tmp_path)

    assert {} == hits(left), f"seed {SEED}"
    assert {
        "log",
        "outbox/state.db",
        "backup/state.db",
        "console /metrics",
        "page /audit",
        "turnout ledger --verify",
    } <= set(left)
    assert b"purchase" in left["stream"]
    assert any(b"purchase" in said for place, said in left.items() if place.startswith("turnout tail"))
    assert b"purchase" in left["backup/log/00000001.db"]
    assert b"purchase" in left["outbox/log/00000001.db"], "nothing was stored, so nothing was proven"


async def test_the_search_finds_a_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    The control: with scrubbing switched off the same search must find something, in files and in their copies.
    """
    monkeypatch.setattr("router.scrub.tree", lambda value: (value, False))
    found = hits(await run(tmp_path))

    assert {"outbox/log/00000001.db", "backup/log/00000001.db"} <= set(found), list(found)


async def test_the_search_finds_a_secret_that_a_command_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    The control of what is said: secrets that are written as they are must be found in it.
    """
    monkeypatch.setattr("router.app._reference", lambda secret: secret.reveal())
    found = hits(await run(tmp_path))

    assert {"outbox/state.db", "backup/state.db"} <= set(found), list(found)
