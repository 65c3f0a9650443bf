"""Snitcher beside the fetching: how its answers are cut into items, its webhooks, its settings, and the fake one."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router import config
from router.app import App, described
from router.body import MAX_EVENT, MAX_REQUEST
from router.collect import packing
from router.dialects import snitcher
from router.door import admit
from router.event import Event
from router.mocks.partner import Call
from router.mocks.snitcher import COMPANY, SESSION, WORKSPACE, Workspace, example_session, stamp
from router.mocks.snitcher import Snitcher as Fake
from router.outbox.errors import Broken, Busy
from router.secret import Secret
from router.settings import Snitcher
from router.visit import Door, TurnedAway, Visit
from tests.running import KEY, collect_url, running_app, settings, stored
from tests.unpacked import unpacked

CASES = sorted((Path(__file__).parent / "dialects" / "cases").glob("snitcher-*.json"))
NOW = 1_795_000_000_000
PAGE = {"event_type": "pageview", "url": "https://acme.com/", "triggered_at": "2026-11-18T10:00:00+00:00"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=12), inside, max_size=4),
    max_leaves=12,
)


def read(item: dict[str, Any]) -> Event | TurnedAway:
    return admit(item, Door(source="leads"), Visit(received=NOW, dialect="snitcher"), lambda: "own-id")


def cut(*events: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    return snitcher.session_items({"uuid": SESSION, "events": list(events)}, **options)


class TestCutting:
    @pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
    def test_a_documented_answer(self, path):
        """
        What Snitcher documents becomes exactly the item whose event the same case gives.
        """
        case = json.loads(path.read_text())
        if "session" in case:
            items = snitcher.session_items(case["session"], case.get("form_fields", ()))
        elif "company" in case:
            items = [snitcher.company_item(case["company"], 1)]
        else:
            items = snitcher.webhook_items(case["webhook"])

        assert case["item"] == json.loads(msgspec.json.encode(items[case.get("place", 0)]))

    def test_the_same_answer_gives_the_same_ids(self):
        """
        Ids come from what happened alone: not from how long a page was looked at, nor from what else is in the list.
        """
        first = cut(PAGE | {"time_on_page": 3})
        again = cut(PAGE | {"time_on_page": 45}, PAGE | {"url": "https://acme.com/b"})

        assert first[0]["id"] == again[0]["id"] != again[1]["id"]

    @pytest.mark.parametrize(
        "other",
        [
            {"event_type": "click"},
            {"url": "https://acme.com/b"},
            {"triggered_at": "2026-11-18T10:00:01+00:00"},
            {"name": "x"},
            {"form_id": "x"},
        ],
        ids=lambda other: next(iter(other)),
    )
    def test_what_makes_another_event(self, other):
        """
        Each of these tells one event of a session from another.
        """
        assert cut(PAGE)[0]["id"] != cut(PAGE | other)[0]["id"]

    def test_identical_events_count(self):
        """
        Two clicks in one second are two events; which is which does not matter, how many does.
        """
        ids = [item["id"] for item in cut(PAGE, PAGE, PAGE)]

        assert 3 == len(set(ids))
        assert ids[:2] == [item["id"] for item in cut(PAGE, PAGE)]

    def test_unknown_types_can_be_skipped(self):
        """
        By configuration; the documented ones stay.
        """
        odd = PAGE | {"event_type": "scroll"}

        assert 2 == len(cut(PAGE, odd))
        assert 1 == len(cut(PAGE, odd, unknown=False))

    def test_views_beside_events_are_left_out(self):
        """
        The deprecated views hold the same pages again.
        """
        session = {"uuid": SESSION, "events": [], "views": [{"url": "u", "visited_at": "t"}]}

        assert [] == snitcher.session_items(session)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("email", "email"),
            ("E-Mail Address", "email"),
            ("your-email", "email"),
            ("Work email", "email"),
            ("contact[phone_number]", "phone"),
            ("tel-647", "phone"),
            ("FNAME", "first_name"),
            ("lastName", "last_name"),
            ("Company Name", None),
            ("message", None),
            ("x" * 500, None),
        ],
    )
    def test_forms_name_their_fields_as_they_like(self, name, expected):
        """
        What names a person is recognised under the usual names, and becomes a digest of the right kind.
        """
        values = {"email": "j@acme.com", "phone": "+33142685300"}
        form = {"event_type": "form_submit", "fields": [{"name": name, "value": values.get(expected or "", "Jane")}]}
        event = read(cut(form)[0])

        assert isinstance(event, Event)
        found = {each for each in ("email", "phone", "first_name", "last_name") if getattr(event.user.digests, each)}
        assert ({expected} if expected else set()) == found
        assert "Jane" not in msgspec.json.encode(event).decode().replace('"company":"Jane"', "")

    @given(JSON, JSON)
    def test_whatever_is_in_a_session(self, value, other):
        """
        No answer makes it stumble, and every event is let in or turned away with a reason.
        """
        for key in ("event_type", "url", "triggered_at", "name", "form_id", "fields", "properties"):
            for kind in ("pageview", "form_submit", "track", "click", "download", value):
                session = {"uuid": value, "location": other, "events": [{"event_type": kind, key: value, "x": other}]}
                for item in snitcher.session_items(session, ("a",)):
                    assert read(item) is not None
        for item in snitcher.webhook_items({"event": value, "company": other, "session": value, "contact": other}):
            assert read(item) is not None

    @pytest.mark.parametrize("odd", ["1e999", "-1e999", "NaN", "Infinity", "1" * 5000])
    def test_a_number_that_nothing_holds_spoils_no_page(self, odd: str):
        """
        It is None, and everything around it is there.
        """
        text = f'{{"a": [1, 2.5, -3, 1e3, {odd}], "b": "x"}}'

        assert {"a": [1, 2.5, -3, 1000, None], "b": "x"} == snitcher.decoded(text.encode())

    @given(JSON)
    @example(-100_000_000_000_000_001)
    @example(10**30 + 1)
    def test_any_json_is_decoded_as_it_is(self, value):
        """
        The second way to decode gives the same as the first.
        """
        text = json.dumps(value).encode()
        assert msgspec.json.decode(text) == snitcher.decoded(text)
        assert [value, "?"] == snitcher.decoded(b"[" + text + b', "\\ud800"]') or "\\ud" in text.decode()

    def test_nothing_is_taken_for_snitchers_by_its_looks(self):
        """
        An item of a sender's that looks like one of ours is not read as one.
        """
        item = cut(PAGE)[0]
        entered = admit(item, Door(source="shop"), Visit(received=NOW), lambda: "own-id")

        assert not isinstance(entered, Event) or entered.dialect != "snitcher"


class TestPacking:
    def test_bodies_are_within_the_limits(self):
        """
        Many events become as few bodies as the limits allow, in order; the one that is too large stands by itself.
        """
        items = [{"n": number, "t": "x" * 20_000} for number in range(60)]
        items.insert(3, {"n": -1, "t": "x" * MAX_EVENT})
        bodies = list(packing.packed(items))
        whole = [item.value["n"] for body in bodies for item in body.items if item.problem is None]

        assert list(range(60)) == whole
        assert 4 == len(bodies)
        assert max(sum(item.size for item in body.items) for body in bodies) < MAX_REQUEST
        assert 1 == sum(item.problem is not None for body in bodies for item in body.items)
        assert [] == list(packing.packed([]))
        assert [500, 1] == [len(body.items) for body in packing.packed([{"n": 1}] * 501)]


# Webhooks

SECRET = "a-webhook-secret"
TOLD = {
    "event": "company.identified",
    "timestamp": "2026-11-18T10:00:00+00:00",
    "workspace": {"uuid": WORKSPACE, "name": "My Website"},
    "company": {"uuid": COMPANY, "name": "Acme Corp", "domain": "acme.com"},
    "session": {"uuid": SESSION, "started_at": "2026-11-18T09:55:00+00:00", "pages_viewed": 3},
}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    chosen = settings(tmp_path)
    sources = {
        **chosen.sources,
        "leads": Snitcher(webhook_secret=Secret(SECRET)),
        "bare": Snitcher(webhook_secret=Secret(SECRET), companies=False, unknown_events="skip"),
        "off": Snitcher(webhook_secret=Secret(SECRET), enabled=False),
        "fetched": Snitcher(token=Secret("t"), enabled=False),
        "unset": Snitcher(webhook_secret=Secret("", "env:GONE"), enabled=False),
    }
    async with running_app(msgspec.structs.replace(chosen, sources=sources)) as app:
        yield app


@pytest.fixture
async def http(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(collect_url(app)) as session:
        yield session


def signature(raw: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Snitcher-Signature": "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()}


async def post(http: Any, payload: Any, path: str = "/webhooks/leads", **headers: str) -> tuple[int, Any]:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    async with http.post(path, data=raw, headers=headers or signature(raw)) as answer:
        return answer.status, await answer.json()


class TestWebhooks:
    async def test_what_it_tells(self, app, http):
        """
        The company becomes a group event, what happened a track event; 200 once both are on disk.
        """
        status, answer = await post(http, TOLD)

        assert (200, 2) == (status, answer["accepted"])
        assert [("group", "group"), ("Company Identified", "track")] == [
            (each.name, each.kind) for each in await stored(app)
        ]
        assert {("leads", "snitcher", COMPANY)} == {
            (each.source, each.dialect, each.user.group_id) for each in await stored(app)
        }

    async def test_again(self, app, http):
        """
        A repeat of the same webhook is recognised, in any order of its keys; another moment is another event.
        """
        await post(http, TOLD)
        repeated = await post(http, dict(reversed(TOLD.items())))
        later = await post(http, TOLD | {"timestamp": "2026-11-18T11:00:00+00:00"})

        assert (0, 2) == (repeated[1]["accepted"], repeated[1]["duplicate"])
        assert 2 == later[1]["accepted"]

    async def test_two_at_once(self, app, http):
        """
        Two people of a company who are revealed in the same second are two events, whether or not they have ids.
        """
        for contact in ({"uuid": "c-1"}, {"uuid": "c-2"}, {"job_title": "Buyer"}, {"job_title": "Owner"}):
            await post(http, TOLD | {"event": "contact.revealed", "contact": contact}, "/webhooks/bare")

        assert ["Contact Revealed"] * 4 == [each.name for each in await stored(app)]

    @pytest.mark.parametrize(
        ("trigger", "name"),
        [
            ("company.returned", "Company Returned"),
            ("session.started", "Session Started"),
            ("segment.entered", "Segment Entered"),
            ("something_new", "Something New"),
            (7, "Snitcher webhook"),
        ],
    )
    async def test_other_triggers(self, app, http, trigger, name):
        """
        Each is a track event by its own words, those that are not documented too.
        """
        await post(http, TOLD | {"event": trigger}, "/webhooks/bare")

        assert [name] == [each.name for each in await stored(app)]

    async def test_a_session_with_its_events(self, app, http):
        """
        A webhook that brings events brings them under the ids that fetching gives them.
        """
        session = example_session(app.clock.now())
        await post(http, TOLD | {"session": session}, "/webhooks/bare")
        expected = {item["id"] for item in snitcher.session_items(session)}

        assert expected == {each.id for each in await stored(app)} & expected
        assert 6 == len(await stored(app))

    async def test_a_contact_is_hashed(self, app, http):
        """
        Who was revealed is kept as digests only.
        """
        contact = {"name": "Canaria Birdsong", "emails": ["canary@acme.com"], "phones": ["+33142685300"]}
        more = {"linkedin": "https://linkedin.com/in/canaria", "job_title": "Buyer"}
        status, _ = await post(http, TOLD | {"event": "contact.revealed", "contact": contact | more})
        (event,) = [each for each in await stored(app) if each.name == "Contact Revealed"]

        assert 200 == status
        assert event.user.digests.email == hashlib.sha256(b"canary@acme.com").hexdigest()
        assert event.user.digests.phone_plus == hashlib.sha256(b"+33142685300").hexdigest()
        assert {"job_title": "Buyer"} == event.user.traits
        for path in [each for each in app.store.directory.rglob("*") if each.is_file()]:
            assert not [word for word in (b"anaria", b"Birdsong", b"canary", b"142685300") if word in unpacked(path)]

    @pytest.mark.parametrize(
        "headers",
        [
            {"X-Other": "1"},
            signature(b"another body"),
            signature(json.dumps(TOLD).encode(), "another secret"),
            {"X-Snitcher-Signature": signature(json.dumps(TOLD).encode())["X-Snitcher-Signature"][7:]},
            {"X-Snitcher-Signature": "sha256=ü"},
            {"Authorization": f"Bearer {KEY}"},
        ],
        ids=["missing", "of another body", "of another secret", "without its scheme", "no hex", "a key instead"],
    )
    async def test_a_wrong_signature(self, app, http, headers):
        """
        401, and nothing is stored.
        """
        status, answer = await post(http, TOLD, **headers)

        assert (401, "bad_signature") == (status, answer["code"])
        assert "sha256=<hex of HMAC-SHA256 of the body>" in answer["message"]
        assert [] == await stored(app)

    @pytest.mark.parametrize("payload", [{}, {"event": None}, {"event": " "}, {"company": {"uuid": COMPANY}}])
    async def test_without_a_name(self, app, http, payload):
        """
        Signed, and yet nothing that happened: 400 by the name of the field, and nothing is stored.
        """
        status, answer = await post(http, payload)

        assert (400, "missing") == (status, answer["code"])
        assert answer["message"].startswith("event is missing: send")
        assert [] == await stored(app)

    @pytest.mark.parametrize(
        "path", ["/webhooks/fetched", "/webhooks/shop", "/webhooks/unset", "/webhooks/nobody", "/webhooks/"]
    )
    async def test_where_there_is_none(self, app, http, path):
        """
        A source without the secret, of another kind or of no name: 404, whatever is posted.
        """
        status, answer = await post(http, TOLD, path)

        assert (404, "not_found") == (status, answer["code"])

    @pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 9000])
    async def test_no_object(self, app, http, raw):
        """
        Signed, and still not what is documented: 400.
        """
        status, answer = await post(http, raw)

        assert (400, "malformed_json") == (status, answer["code"])

    async def test_the_limits_of_a_body(self, app, http):
        """
        A body that is too large is refused as anywhere; an event in it that is too large is put aside.
        """
        assert 400 == (await post(http, b" " * (MAX_REQUEST + 1)))[0]
        session = TOLD["session"] | {"events": [PAGE, PAGE | {"event_type": "x", "t": "x" * MAX_EVENT}]}
        status, answer = await post(http, TOLD | {"session": session})

        assert (200, 3, 1) == (status, answer["accepted"], answer["rejected"])

    @pytest.mark.parametrize("levels", [40, 910])
    async def test_an_event_that_is_too_deep(self, app, http, levels: int):
        """
        It is put aside, also where what is deeper sinks a whole request; its neighbours are taken.
        """
        deep = json.dumps(
            TOLD | {"session": TOLD["session"] | {"events": [PAGE, PAGE | {"event_type": "x", "t": "?"}]}}
        )
        status, answer = await post(http, deep.replace('"?"', "[" * levels + "]" * levels).encode())

        assert (200, 3, 1) == (status, answer["accepted"], answer["rejected"])

    async def test_other_answers(self, app, http, monkeypatch):
        """
        Only POST; 403 where the source is switched off; come back later while it stops or cannot store.
        """
        async with http.get("/webhooks/leads") as answer:
            assert (405, "POST") == (answer.status, answer.headers["Allow"])
        assert (403, "source_disabled") == _code(await post(http, TOLD, "/webhooks/off"))
        for fault, expected in ((Busy("full"), (429, "busy")), (Broken("disk"), (503, "broken"))):
            monkeypatch.setattr(app.store, "append", _raising(fault))
            assert expected == _code(await post(http, TOLD))
        app.collector.draining = True
        assert (503, "draining") == _code(await post(http, TOLD))

    async def test_no_key_sends_as_it(self, app, http):
        """
        Nobody can post to /collect as a source that is fetched from, not with its token nor with its secret.
        """
        for key in (SECRET, "t"):
            async with http.post(f"/collect?token={key}", data=b'{"event":"x"}') as answer:
                assert 401 == answer.status


def _code(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]


def _raising(fault: Exception) -> Any:
    async def append(_: Any) -> Any:
        raise fault

    return append


# Settings

LEADS = '[sources.leads]\ntype = "snitcher"\n'
WITH_TOKEN = LEADS + 'token = "env:PAT"\n'
ENVIRON = {"PAT": "pat-canary", "HOOK": "hook-canary", "SHOP_TOKEN": "shop-canary"}

FAULTS = [
    (LEADS, "1:10 error neither token nor webhook_secret is given", None),
    ('[sources.leads]\ntype = "snitchr"', "2:8 error unknown source type", 'did you mean "snitcher"?'),
    ("[sources.leads]\ntype = 1", "2:8 error unknown source type", "without a type it sends to /collect"),
    (LEADS + 'token = "pat"', "3:9 error sources.leads.token", None),
    (LEADS + 'token = "env:NOPE"', "3:9 error sources.leads.token: environment variable NOPE is not set", None),
    (LEADS + f'token = "sha256:{"0" * 64}"', "3:9 error sources.leads.token", None),
    (WITH_TOKEN + 'intervall = "5m"', '4:1 error unknown key "intervall"', 'did you mean "interval"?'),
    (WITH_TOKEN + 'interval = "often"', "4:12 error sources.leads.interval cannot be read", '"15m"'),
    (WITH_TOKEN + 'interval = "5s"', "4:12 error sources.leads.interval is not between 10s and 1d", '"5m"'),
    (WITH_TOKEN + 'interval = "2d"', "4:12 error sources.leads.interval is not between 10s and 1d", '"5m"'),
    (WITH_TOKEN + "page_size = 101", "4:13 error per_page is 100 at most", 'page_size_parameter = "size"'),
    (WITH_TOKEN + "page_size = 0", "4:13 error sources.leads.page_size: expected a whole number >= 1", None),
    (WITH_TOKEN + 'page_size_parameter = "limit"', "4:23 error sources.leads.page_size_parameter: write one of", None),
    (
        WITH_TOKEN + 'unknown_events = "drop"',
        '4:18 error sources.leads.unknown_events: write one of "track", "skip"',
        None,
    ),
    (WITH_TOKEN + 'workspaces = ["a/b"]', "4:15 error sources.leads.workspaces: expected text that looks like", None),
    (WITH_TOKEN + 'base_url = "http://a.example/v1"', "4:12 error base_url is plain http", "allow_private = true"),
    (WITH_TOKEN + 'base_url = "a.example"', "4:12 error base_url is not the address of a server", '"https://host"'),
    (WITH_TOKEN + WITH_TOKEN.replace("leads", "b"), "4:10 warning the same workspaces as sources.leads", "keep one"),
    (WITH_TOKEN + 'tokens = ["env:SHOP_TOKEN"]', '4:1 error unknown key "tokens"', 'did you mean "token"?'),
]


def said(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return [
        f"{one.line}:{one.column} {one.severity} {one.message} | {one.help or ''}"
        for one in config.examine(path, ENVIRON, destinations={}).findings
    ]


class TestSettings:
    @pytest.mark.parametrize(("text", "expected", "remedy"), FAULTS, ids=[expected for _, expected, _ in FAULTS])
    def test_fault(self, tmp_path, text, expected, remedy):
        """
        Each fault of such a source is found at its place, with what to write instead.
        """
        found = [one for one in said(tmp_path, text) if one.startswith(expected)]

        assert 1 == len(found), said(tmp_path, text)
        assert (remedy or "") in found[0]

    @pytest.mark.parametrize(
        "text",
        [
            WITH_TOKEN,
            LEADS + 'webhook_secret = "env:HOOK"',
            LEADS + 'enabled = false\ntoken = "env:PAT"',
            WITH_TOKEN + 'page_size = 1000\npage_size_parameter = "size"',
            WITH_TOKEN + 'workspaces = ["a"]\n' + WITH_TOKEN.replace("leads", "b") + 'workspaces = ["b"]',
            WITH_TOKEN + 'segment = "x"\n' + WITH_TOKEN.replace("leads", "b"),
        ],
        ids=["fetched", "told", "switched off", "large pages", "two with a workspace each", "two with other filters"],
    )
    def test_no_fault(self, tmp_path, text):
        """
        A source that is right has nothing said of it.
        """
        assert [] == [one for one in said(tmp_path, text) if "destinations" not in one]

    def test_off_needs_no_secret(self, tmp_path):
        """
        The token of a source that is switched off may be gone: a warning.
        """
        (found,) = [one for one in said(tmp_path, LEADS + 'enabled = false\ntoken = "env:NOPE"') if "NOPE" in one]

        assert "4:9 warning" in found
        assert "once the source is enabled again" in found

    def test_its_secrets_are_shown_nowhere(self, tmp_path):
        """
        Neither a finding nor the description of a configuration holds one; the description names its reference.
        """
        path = tmp_path / "config.toml"
        path.write_text(WITH_TOKEN + 'webhook_secret = "env:HOOK"\n')
        loaded = config.load(path, ENVIRON, destinations={})
        assert not isinstance(loaded, list)
        text = described(loaded)[1]

        assert "canary" not in text
        assert "env:PAT" in text
        assert '"type": "snitcher"' in text

    @pytest.mark.parametrize("key", ["workspaces", "segment", "base_url"])
    def test_a_secret_in_the_wrong_place(self, tmp_path, key):
        """
        A token that was pasted under another key is not repeated with the finding.
        """
        path = tmp_path / "config.toml"
        path.write_text(WITH_TOKEN + f'{key} = ["pat canary"]')
        found = config.examine(path, ENVIRON, destinations={}).findings

        assert [one for one in found if one.severity == "error"]
        assert not [one for one in found if "canary" in f"{one.message} {one.help} {one.excerpt}"]


# The fake one


def call(path: str, method: str = "GET", body: Any = None, **query: str) -> Call:
    headers = {"authorization": "Bearer t"}
    raw = b"" if body is None else msgspec.json.encode(body)
    return Call(method=method, path=path, query=query, headers=headers, body=raw, at=NOW)


SESSIONS = f"/v1/workspaces/{WORKSPACE}/sessions"
ORGANISATIONS = f"/v1/workspaces/{WORKSPACE}/organisations"


class TestFake:
    @pytest.fixture
    def fake(self) -> Fake:
        return Fake(now=lambda: NOW)

    def test_the_documented_example(self, fake):
        """
        It begins with one workspace, one company and its session, in the documented envelope.
        """
        answer = fake.take(call(f"{ORGANISATIONS}/{COMPANY}/sessions", date=stamp(NOW)[:10]))

        assert {"data", "current_page", "last_page", "per_page", "total", "from", "to", "next_page_url", "success"} <= {
            *answer.body
        }
        assert example_session(NOW) == answer.body["data"][0]
        assert WORKSPACE == fake.take(call("/v1/workspaces")).body["data"][0]["uuid"]

    def test_sixty_requests_a_minute(self, fake):
        """
        The 61st of a token is refused in the documented words; a minute later it is not.
        """
        statuses = [fake.take(call("/v1/workspaces")).status for _ in range(61)]
        refused = fake.take(call("/v1/workspaces"))
        later = fake.take(msgspec.structs.replace(call("/v1/workspaces"), at=NOW + 60_000))
        other = fake.take(msgspec.structs.replace(call("/v1/workspaces"), headers={"authorization": "Bearer u"}))

        assert [200] * 60 + [429] == statuses
        assert {"message": "Too Many Attempts."} == refused.body
        assert (200, 200) == (later.status, other.status)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ({"per_page": "101"}, "per_page"),
            ({"per_page": "x"}, "per_page"),
            ({"size": "1001"}, "size"),
            ({"page": "0"}, "page"),
            ({"date": "2026-11-18", "date_from": "2026-11-18", "date_to": "2026-11-18"}, "date"),
            ({"date_from": "2026-11-18"}, "date_to"),
            ({"date_to": "2026-11-18"}, "date_from"),
            ({"date_from": "2026-11-19", "date_to": "2026-11-18"}, "date_to"),
            ({"date": "2026-02-30"}, "date"),
            ({"date": "today"}, "date"),
        ],
    )
    def test_refuses(self, fake, query, field):
        """
        422 with the field, as documented.
        """
        answer = fake.take(call(SESSIONS, **query))

        assert 422 == answer.status
        assert [field] == list(answer.body["errors"])

    def test_filters(self, fake):
        """
        By day, address, referrer and segment; each leaves out what it should.
        """
        fake.add_organisation({"uuid": COMPANY, "segments": [{"uuid": "seg"}]})
        day = stamp(NOW)[:10]
        found = {
            name: len(fake.take(call(SESSIONS, **query)).body["data"])
            for name, query in {
                "date": {"date": day},
                "another day": {"date": "2020-01-01"},
                "range": {"date_from": day, "date_to": day},
                "url": {"url": "pricing"},
                "another url": {"url": "blog"},
                "referrer": {"referrer": "google"},
                "another referrer": {"referrer": "bing"},
                "segment": {"segmentUuid": "seg"},
                "another segment": {"segmentUuid": "x"},
            }.items()
        }

        assert {name for name, count in found.items() if count == 0} == {n for n in found if n.startswith("another")}

    @pytest.mark.parametrize(
        ("filters", "count"),
        [
            ({"industry": "Software", "size": ["51-200 employees", "201-500 employees"]}, 1),
            ({"industry": "Media"}, 0),
            ({"operator": "AND", "conditions": [{"field": "industry", "comparison": "is", "value": "Software"}]}, 1),
            ({"operator": "AND", "conditions": [{"field": "name", "comparison": "contains", "value": "Beta"}]}, 0),
            (
                {
                    "operator": "OR",
                    "conditions": [
                        {"field": "name", "comparison": "is_not", "value": "Acme Corp"},
                        {"field": "name", "comparison": "contains", "value": "Acme"},
                    ],
                },
                1,
            ),
        ],
    )
    def test_searches_companies(self, fake, filters, count):
        """
        POST takes filters in both of the forms that are documented.
        """
        assert count == len(fake.take(call(ORGANISATIONS, "POST", {"filters": filters})).body["data"])

    def test_truncates(self, fake):
        """
        Beyond the limit of companies the list says that it is not whole.
        """
        fake.organisation_limit = 1
        fake.add_session({"uuid": "s-2", "organisation_uuid": "org-2", "started_at": stamp(NOW)})
        body = fake.take(call(SESSIONS)).body

        assert (True, 2, 1, 1) == (
            body["truncated"],
            body["organisation_count"],
            body["organisation_limit"],
            len(body["data"]),
        )

    def test_is_told_more(self, fake):
        """
        POST /sessions and /organisations put one in, or add to the one that is there.
        """
        fake.workspaces["ws-2"] = Workspace("Second")
        assert 201 == fake.take(call("/sessions", "POST", {"uuid": SESSION, "events": [PAGE]})).status
        assert 201 == fake.take(call("/organisations", "POST", {"uuid": "o"}, workspace="ws-2")).status
        bad = [fake.take(call("/sessions", "POST", body)).status for body in (None, [], {}, {"uuid": "x", "events": 1})]

        assert 6 == len(fake.take(call(SESSIONS)).body["data"][0]["events"])
        assert ["o"] == list(fake.workspaces["ws-2"].organisations)
        assert [400] * 4 == bad

    @pytest.mark.parametrize(
        ("asked", "status"),
        [
            (msgspec.structs.replace(call("/v1/workspaces"), headers={}), 401),
            (call("/v1/workspaces/none/sessions"), 404),
            (call(f"{ORGANISATIONS}/none/sessions"), 404),
            (call("/v1/contacts"), 404),
            (call("/v1/workspaces", "POST"), 404),
            (call(ORGANISATIONS, "POST", {"filters": 1}), 422),
            (call(ORGANISATIONS, "POST", {"filters": {"conditions": 1}}), 422),
            (call(ORGANISATIONS, "POST", {"filters": {"conditions": [{"comparison": "like"}]}}), 422),
        ],
    )
    def test_other_refusals(self, fake, asked, status):
        """
        No token, no such thing, no such filter.
        """
        assert status == fake.take(asked).status
