"""Personal data and secrets leave no trace: unique canaries go in everywhere, and everything that is left is searched."""

from __future__ import annotations

import base64
import io
import json
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from destinations.ipsnare import IpSnare
from destinations.linktrace import LinkTrace
from destinations.snap import Snap
from destinations.webhook import Webhook
from router import logs, mocks
from router.app import App
from router.clock import SystemClock
from router.mocks.partner import Partner, Trouble, running
from router.secret import Secret
from tests.running import collect_url, running_app, settings
from tests.unpacked import unpacked

PERSON = {
    "email": f"canary.{uuid.uuid4().hex[:8]}@mail.example",
    "phone": "+33 6 98 76 54 32",
    "first_name": "Zephyrinquana",
    "last_name": "Quastelborgi",
    "street": "17 Rue Xylofrantz",
    "birth": "1987-03-14",
    "card": "4539 5787 6362 1486",
    "ip": "93.184.216.77",
    "agent": "CanaryAgent/77.1 (Canarium)",
}
KEY = f"canary-key-{uuid.uuid4().hex}"
TOKENS = {
    "snap": f"canary-snap-{uuid.uuid4().hex}",
    "linktrace": f"canary-linktrace-{uuid.uuid4().hex}",
    "ipsnare": f"canary-ipsnare-{uuid.uuid4().hex}",
    "webhook": "whsec_" + base64.b64encode(f"canary-{uuid.uuid4().hex}".encode()).decode(),
}


def spellings() -> list[bytes]:
    """What must be found nowhere, in the spellings in which it might be written."""
    texts = [*PERSON.values(), *TOKENS.values(), KEY, PERSON["phone"].replace(" ", ""), PERSON["card"].replace(" ", "")]
    texts += [text.lower() for text in texts] + [PERSON["phone"].replace(" ", "").removeprefix("+"), "0698765432"]
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
        "properties": {"comment": text, "deep": [{"er": text}], PERSON["email"]: 1},
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
        async with running_app(chosen) as app:
            left |= await _talk(app)
            await partners["webhook"].wait_for(3)
            left |= await _read_console(app)
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


async def _read_console(app: App) -> dict[str, bytes]:
    paths = ["/", "/metrics", "/openapi.json", "/api/v1/ledger", "/api/v1/events", "/api/v1/destinations"]
    paths += ["/api/v1/quarantine", "/api/v1/deliveries?to=webhook", "/api/v1/deliveries?to=snap", "/api/v1/audit"]
    found: dict[str, bytes] = {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{app.console_port}") as http:
        async with http.get("/api/v1/events") as answer:
            events = msgspec.json.decode(await answer.read())
        ids = [each["id"] for each in next(each for each in events.values() if isinstance(each, list))]
        for path in [*paths, *(f"/api/v1/events/{urllib.parse.quote(each)}" for each in ids)]:
            async with http.get(path) as answer:
                found[f"console {path}"] = await answer.read()
                assert answer.status == 200, (path, answer.status)
    return found


def hits(left: dict[str, bytes]) -> dict[str, list[str]]:
    """Where a canary was found."""
    wanted = spellings()
    found = {place: [each.decode() for each in wanted if each in content] for place, content in left.items()}
    return {place: each for place, each in found.items() if each}


async def test_no_canary_is_found_anywhere(tmp_path: Path):
    """
    E-mail, phone, names, street, card, IP, user agent, keys: in no file, WAL, log line, answer, page or metric.
    """
    left = await run(tmp_path)

    assert {} == hits(left)
    assert {"log", "outbox/state.db", "console /metrics"} <= set(left)
    assert b"purchase" in left["outbox/log/00000001.db"], "nothing was stored, so nothing was proven"


async def test_the_search_finds_a_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """
    The control: with scrubbing switched off the same search must find something.
    """
    monkeypatch.setattr("router.scrub.tree", lambda value: (value, False))
    assert hits(await run(tmp_path))
