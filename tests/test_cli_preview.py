"""``turnout preview``: what it shows is what delivery sends, nothing of it is private, and every reason is in words."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from destinations import IpSnare, LinkTrace, Snap, Webhook
from router import body, door, samples
from router.cli import turnout as command_line
from router.clock import SystemClock
from router.delivery.ends import Job
from router.delivery.sender import Sender
from router.destination import Destination, Request
from router.event import Clear, Device, Digests, Event, Item, Money, User
from router.mocks import PARTNERS
from router.mocks.partner import running
from router.preview import Preview, preview
from router.preview.shown import address, body_text, curl
from router.secret import Secret
from router.visit import Door, Visit
from tests.builders import NOW, an_event
from tests.running import KEY, Wire, collect_url, running_app, settings, stored
from tests.stepped import SteppedClock

TOKEN = "token-canary-8f3a"
HOOK = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
ENVIRON = {"SHOP_TOKEN": KEY, "TOKEN": TOKEN, "HOOK": HOOK, "TURNOUT_CONFIG": None}
CONFIG = """\
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
[outbox]
path = "{outbox}"
[destinations.snap]
type = "snap"
pixel_id = "11111111-2222-3333-4444-555555555555"
access_token = "env:TOKEN"
consent = ["marketing"]
map = {{ "custom_data.content_name" = "properties.campaign" }}
base_url = "{url}"
allow_private = true
[destinations.linktrace]
type = "linktrace"
api_key = "env:TOKEN"
base_url = "{url}"
allow_private = true
[destinations.ipsnare]
type = "ipsnare"
api_key = "env:TOKEN"
base_url = "{url}"
allow_private = true
[destinations.backend]
type = "webhook"
url = "{url}/hook?key=query-canary"
secrets = ["env:HOOK"]
headers = {{ "X-Key" = "header-canary" }}
allow_private = true
[destinations.off]
type = "linktrace"
enabled = false
api_key = "env:NOT_SET"
"""
EMAIL, PHONE, IP = "jane.canary@example.com", "+33639981234", "198.51.100.77"
PURCHASE: dict[str, Any] = {
    "event": "purchase",
    "event_id": "order-1042",
    "value": 42.5,
    "currency": "EUR",
    "order_id": "O-1042",
    "campaign": "spring sale",
    "link_short_code": "SUMMER24",
    "user": {"email": EMAIL, "phone": PHONE, "id": "c-9"},
    "page": {"url": "https://shop.example/thanks"},
    "device": {"ip": IP, "user_agent": "agent-canary/1.0"},
    "consent": {"marketing": True},
}


def written(directory: Path, url: str = "http://127.0.0.1:9") -> Path:
    """The configuration, in a directory of its own."""
    path = directory / "config.toml"
    path.write_text(CONFIG.format(url=url, outbox=directory / "outbox"))
    return path


def run(path: Path, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(
        command_line, ["preview", "--config", str(path), *arguments], input=given, env=ENVIRON, catch_exceptions=False
    )


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(each) for each in result.stdout.splitlines()]


def lanes(url: str = "https://partner.example") -> dict[str, Destination]:
    """One of each kind."""
    more: dict[str, Any] = {"base_url": url, "allow_private": True}
    token = Secret(TOKEN, "env:TOKEN")
    return {
        "snap": Snap(pixel_id="pixel", app_id="app", access_token=token, **more),
        "linktrace": LinkTrace(api_key=token, **more),
        "ipsnare": IpSnare(api_key=token, **more),
        "webhook": Webhook(url=f"{url}/", secrets=(Secret(HOOK, "env:HOOK"),), allow_private=True),
        "webhook-batch": Webhook(url=f"{url}/", secrets=(Secret(HOOK, "env:HOOK"),), allow_private=True, batch=10),
    }


def entered(item: Any, keep: frozenset[str] = frozenset(Clear.__struct_fields__)) -> Event:
    """The item behind a door that keeps all that somebody needs in clear."""
    (one,) = body.read(msgspec.json.encode(item)).items  # type: ignore[union-attr]  # it is there
    found = door.admit(one.value, Door(source="shop", keep_clear=keep), Visit(received=NOW), lambda: "own")
    assert isinstance(found, Event)
    return found


class TestSameAsDelivery:
    @given(
        name=st.sampled_from(samples.NAMES),
        dialect=st.sampled_from(list(samples.DIALECTS)),
        number=st.integers(0, 500),
        seed=st.integers(0, 2**32),
        lane=st.sampled_from(list(lanes())),
    )
    def test_every_sample_everywhere(self, name: str, dialect: str, number: int, seed: int, lane: str):
        """
        Whoever sends whatever in whichever dialect: the previewed request is the lane's, to the byte, or its reason is.
        """
        event = entered(samples.sample(name, dialect, number, random.Random(seed), NOW))
        destination, clock = lanes()[lane], SteppedClock(NOW)

        seen = preview(lane, destination, event, NOW)
        sent = Sender(lane, destination, clock, 1).write([Job(1, event)])

        if seen.result == "filtered":
            assert seen.request is None
            return
        assert [seen.request] == ([one for one, _ in sent.requests] or [None])
        assert [seen.reason] == ([reason for _, reason in sent.ended] or [None])

    @pytest.mark.parametrize("kind", ["snap", "linktrace", "ipsnare", "webhook"])
    async def test_the_wire(self, kind: str, tmp_path: Path):
        """
        What a partner receives over HTTP is the previewed body of the same event, byte for byte.
        """
        item = samples.sample(
            {"ipsnare": "job_click", "linktrace": "referral_purchase"}.get(kind, "purchase"),
            "plain",
            0,
            random.Random(7),
            SystemClock().now(),
        )
        async with wired(kind) as (wire, partner):
            lane = lanes(wire.url)[kind]
            async with running_app(settings(tmp_path, destinations={kind: lane})) as app:
                await posted(collect_url(app), item)
                await partner.wait_for(1)
                (event,) = await stored(app)

        seen = preview(kind, lane, event, SystemClock().now())
        assert seen.request is not None
        assert wire.seen[0].body == seen.request.body

    async def test_the_command(self, tmp_path: Path):
        """
        The body that the command shows for an event is the one that the running server then sends Snap.
        """
        item = {**PURCHASE, "timestamp": SystemClock().now() - 5000}
        async with wired("snap") as (wire, partner):
            path = written(tmp_path, wire.url)
            shown = await asyncio.to_thread(run, path, json.dumps(item), "--to", "snap", "--json")
            lane = lanes(wire.url)["snap"]
            lane = msgspec.structs.replace(lane, map={"custom_data.content_name": "properties.campaign"})
            async with running_app(settings(tmp_path, destinations={"snap": lane})) as app:
                await posted(collect_url(app), item)
                await partner.wait_for(1)

        (row,) = rows(shown)
        assert wire.seen[0].body.decode() == row["request"]["body"]

    async def test_an_event_of_the_outbox(self, tmp_path: Path):
        """
        --id shows what was sent for a stored event, while the server runs, and says what it does not open.
        """
        async with wired("webhook") as (wire, partner):
            path = written(tmp_path, wire.url)
            clear = msgspec.structs.replace(
                lanes(wire.url)["snap"], events={"nothing": "SAVE"}
            )  # says and logs nothing
            chosen = {"backend": lanes(wire.url)["webhook"], "snap": clear}
            async with running_app(settings(tmp_path, destinations=chosen)) as app:
                await posted(collect_url(app), PURCHASE)
                await partner.wait_for(1)
                shown = await asyncio.to_thread(run, path, "--id", "order-1042", "--to", "backend", "--json")
                missing = await asyncio.to_thread(run, path, "--id", "order-1", "--to", "backend")

        (row,) = rows(shown)
        assert (0, wire.seen[0].body.decode()) == (shown.exit_code, row["request"]["body"])
        assert any("not opened here" in words for words in row["remarks"])
        assert 1 == missing.exit_code

    @pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
    async def test_curl_is_runnable(self, tmp_path: Path):
        """
        Run in a shell that has the secret in its environment, the shown command sends Snap the same request.
        """
        async with wired("snap") as (wire, partner):
            shown = await asyncio.to_thread(
                run, written(tmp_path, wire.url), json.dumps(PURCHASE), "--to", "snap", "--format", "curl"
            )
            process = await asyncio.create_subprocess_exec(
                "bash", "-c", shown.stdout, env={**os.environ, "TOKEN": TOKEN}, stdout=asyncio.subprocess.PIPE
            )
            answer, _ = await process.communicate()

        assert TOKEN not in shown.stdout
        assert "VALID" == json.loads(answer)["status"]
        assert 1 == partner.counts.accepted


@contextlib.asynccontextmanager
async def wired(kind: str) -> AsyncIterator[tuple[Wire, Any]]:
    """A fake partner behind a wire that keeps every byte."""
    partner = PARTNERS[kind](now=SystemClock().now)
    async with running(partner) as url, Wire(url).running() as wire:
        yield wire, partner


async def posted(url: str, item: Any) -> None:
    async with aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with session.post(f"{url}/collect", json=item, headers=headers) as answer:
            assert 200 == answer.status


class TestNothingPrivate:
    CANARIES = (EMAIL, "jane.canary", PHONE, PHONE[1:], TOKEN, HOOK, HOOK[6:], "query-canary", "header-canary", KEY)

    @pytest.mark.parametrize("form", ["table", "json", "curl"])
    @pytest.mark.parametrize(
        "item", [PURCHASE, {**PURCHASE, "event": EMAIL}, {**PURCHASE, "event": ""}], ids=["good", "odd name", "no name"]
    )
    def test_canaries(self, form: str, item: Mapping[str, Any], tmp_path: Path):
        """
        Neither the person's raw values nor any secret of the file or of a destination's own headers is printed.
        """
        result = run(written(tmp_path), json.dumps(item), "--format", form)

        assert [] == [canary for canary in self.CANARIES if canary in result.output]

    def test_what_goes_in_clear_is_masked_in_the_table(self, tmp_path: Path):
        """
        The table tells that IP address and user agent go to the partner, and not which they are.
        """
        result = run(written(tmp_path), json.dumps(PURCHASE), "--to", "snap")

        assert "clear.ip" in result.stdout
        assert IP not in result.stdout
        assert "agent-canary" not in result.stdout

    def test_nothing_to_look_at(self, tmp_path: Path):
        """
        An array without an event is wrong usage, and is said.
        """
        result = run(written(tmp_path), "[]")

        assert 2 == result.exit_code
        assert "there is no event in it" in result.stderr

    @pytest.mark.parametrize("text", [f'{{"email": "{EMAIL}"', EMAIL, f"@{EMAIL}"], ids=["half", "name", "file"])
    def test_bad_input_is_not_repeated(self, text: str, tmp_path: Path):
        """
        What cannot be read ends as wrong usage, in words that hold nothing of it.
        """
        result = run(written(tmp_path), text)

        assert 2 == result.exit_code
        assert EMAIL not in result.output

    def test_a_secret_is_masked_wherever_a_partner_wants_it(self):
        """
        In a body, a path or a query, and in the spelling that each gives it.
        """
        key = 'se"cret/canary+1'
        lane = Keyed(sent={"key": key}, key=Secret(key, "env:KEY"))
        seen = preview("keyed", lane, an_event(), NOW)
        assert seen.request is not None

        assert "https://plain.example/***/take?mode=x&key=***" == address(seen.request, lane)
        assert '{"key":"***"}' == body_text(seen.request, lane)
        short = Keyed(sent={"+k1": "+k1 x+k1", "path": "k1"}, key=Secret("+k1", "env:KEY"))
        (request,) = short.requests([an_event()], NOW)
        assert '{"+k1":"*** x***","path":"k1"}' == body_text(request, short)
        assert ["***"] == [leaf.value for leaf in seen.leaves()]
        assert "canary" not in curl(seen.request, lane)

    @pytest.mark.parametrize("key", ["k", "token", "data"])
    def test_a_short_secret_leaves_the_words_around_it(self, key: str):
        """
        A secret that is a part of other words is masked where it stands, and those words stay readable.
        """
        lane = msgspec.structs.replace(lanes()["snap"], access_token=Secret(key, "env:TOKEN"))
        seen = preview("snap", lane, entered({**PURCHASE, "campaign": "kayak tokens"}), NOW)
        assert seen.request is not None

        assert "https://partner.example/v3/pixel/events?access_token=***" == address(seen.request, lane)
        assert seen.request.body.decode() == body_text(seen.request, lane)
        assert '"access_token=$TOKEN"' in curl(seen.request, lane)

    def test_what_stands_in_an_address_is_masked(self):
        """
        Values in the query of an address, and a user in it, may be credentials though nobody says so.
        """
        request = Request(url="https://user:canary@partner.example/hook?key=canary&b=", body=b"", events=())

        assert "https://partner.example/hook?key=***&b=***" == address(request, lanes()["linktrace"])
        assert "canary" not in curl(request, lanes()["linktrace"])

    def test_nothing_takes_over_the_terminal(self, tmp_path: Path):
        """
        Characters that steer a terminal are escaped in the table and in the shell's words.
        """
        item = {**PURCHASE, "campaign": "a\u202eb'\\c"}
        for form in ("table", "curl"):
            result = run(written(tmp_path), json.dumps(item), "--to", "snap", "--format", form)

            assert "\u202e" not in result.stdout

    def test_escaped_words_are_the_same_to_the_shell(self, tmp_path: Path):
        """
        A body with odd characters is what it was once bash has read it.
        """
        text = b'{"a":"x\xe2\x80\xaey\'\\\\z"}'
        request = Request(url="https://partner.example/", body=text, events=())
        shown = curl(request, lanes()["linktrace"]).rpartition("--data-raw ")[2]

        assert text == subprocess.check_output(["bash", "-c", f"printf %s {shown}"])


class TestCurl:
    @pytest.mark.parametrize(
        ("reference", "shown"),
        [
            ("env:SNAP_TOKEN", '"Authorization: Bearer $SNAP_TOKEN"'),
            ("file:keys/snap token", "\"Authorization: Bearer $(cat 'keys/snap token')\""),
            ("credential:snap", '"Authorization: Bearer $(cat "$CREDENTIALS_DIRECTORY"/snap)"'),
            ("", '"Authorization: ***"'),
        ],
    )
    def test_secrets_are_where_their_reference_says(self, reference: str, shown: str):
        """
        A secret is read where the configuration reads it; where nobody can tell, it is masked.
        """
        lane = Snap(pixel_id="p", access_token=Secret(TOKEN, reference), token_in_header=True)
        seen = preview("snap", lane, entered(PURCHASE), NOW)
        assert seen.request is not None

        assert f"-H {shown}" in curl(seen.request, lane)


def origins(seen: Preview) -> dict[str, str | None]:
    return {leaf.path: leaf.origin for leaf in seen.leaves()}


class Plain(Destination, tag="plain", frozen=True, kw_only=True):
    """Sends what a test says."""

    sent: Any = None
    title = "Plain"
    home = "https://plain.example"
    docs = ""
    dedup_key = ""

    def requests(self, events: Sequence[Event], now: int) -> Any:
        yield Request.json(self.home, self.sent, events)


def sent(what: Any, event: Event, **more: Any) -> dict[str, str | None]:
    return origins(preview("plain", Plain(sent=what, **more), event, NOW))


class TestOrigins:
    def test_snap(self):
        """
        Digests, clear values, amounts, time, name, settings and mapped fields are told by where they are in the event.
        """
        lane = msgspec.structs.replace(lanes()["snap"], map={"custom_data.content_name": "properties.campaign"})

        assert {
            "data.0.integration": "setting integration",
            "data.0.event_name": 'name "purchase"',
            "data.0.event_time": "time, in seconds",
            "data.0.action_source": None,
            "data.0.event_source_url": "page.url",
            "data.0.event_id": "id",
            "data.0.custom_data.currency": "money.currency",
            "data.0.custom_data.value": "money.value",
            "data.0.custom_data.order_id": "money.order_id",
            "data.0.custom_data.content_name": "properties.campaign, by map",
            "data.0.user_data.em.0": "user.email: sha256",
            "data.0.user_data.ph.0": "user.phone: sha256",
            "data.0.user_data.external_id": "user.id: sha256",
            "data.0.user_data.client_ip_address": "clear.ip",
            "data.0.user_data.client_user_agent": "clear.user_agent",
        }.items() <= origins(preview("snap", lane, entered(PURCHASE), NOW)).items()

    @pytest.mark.parametrize(
        ("what", "fields", "expected"),
        [
            pytest.param({"num": 3}, {"items": (Item(quantity=3),)}, None, id="a short value may be chance"),
            pytest.param({"flag": True}, {"properties": {"vip": True}}, None, id="so may a truth value"),
            pytest.param({"vip": True}, {"properties": {"vip": True}}, "properties.vip", id="unless it is named alike"),
            pytest.param({"x": "same"}, {"properties": {"a": "same", "b": "same"}}, None, id="one of two is unknown"),
            pytest.param({"x": "web-shop"}, {"source": "web-shop"}, None, id="the house's own words are no origin"),
            pytest.param({"total": 42.5}, {"money": Money(value="42.5")}, "money.value", id="a number and its text"),
            pytest.param({"x": "a, b"}, {"properties": {"a": "a", "b": "b"}}, None, id="what was computed is not told"),
            pytest.param(
                {"money": {"value": "9.99"}},
                {"money": Money(value="9.99"), "items": (Item(price="9.99"),)},
                "money.value",
                id="the same path decides",
            ),
        ],
    )
    def test_nothing_is_guessed(self, what: Any, fields: dict[str, Any], expected: str | None):
        """
        An origin is said where equal value and name leave no doubt, and nowhere else.
        """
        assert [expected] == list(sent(what, an_event(**fields)).values())

    def test_members_of_a_list(self):
        """
        Of equal items the one with the same number is meant; where no number tells, all are.
        """
        event = an_event(items=(Item(price="59.9"), Item(price="59.9")))
        found = sent({"items": [{"item_price": "59.9"}, {"item_price": "59.9"}], "dearest_price": "59.9"}, event)

        assert ["items.0.price", "items.1.price", "items.*.price"] == list(found.values())

    def test_digests_in_several_forms(self):
        """
        A digest is told by what it is of, whichever of its forms is equal.
        """
        digest = "8" * 64
        event = an_event(user=User(digests=Digests(email=digest, email_gmail=digest)))

        assert {"em": "user.email: sha256"} == sent({"em": digest}, event)

    def test_untraced(self):
        """
        A field of the event is not traced where its value is nowhere in the body, be it as a part of a text.
        """
        event = an_event(
            money=Money(value="9.5", currency="EUR"),
            items=(Item(brand="Alpa"), Item(brand="Carry", variant="red")),
            user=User(digests=Digests(email="8" * 64, email_gmail="9" * 64, phone="7" * 64)),
        )
        seen = preview("plain", Plain(sent={"v": 9.5, "brands": "Alpa, Carry", "em": "9" * 64}), event, NOW)

        assert ["id", "user.phone", "money.currency", "items.*.variant"] == seen.untraced()

    @pytest.mark.parametrize(
        ("body", "fields"),
        [
            ({"extinfo": ["i2", "fr_FR"]}, {"device": Device(locale="fr-FR")}),
            ({"currency": "EUR"}, {"properties": {"currency": "eur"}}),
            ({"job_country": "GB"}, {"properties": {"job_country": "UK"}}),
            (
                {"madid": "abcd-1"},
                {"clear": Clear(advertising_id="abcd-1"), "user": User(digests=Digests(advertising_id="8" * 64))},
            ),
            ({"kind": "Web-Shop"}, {"properties": {"shop": "web_shop"}}),
        ],
        ids=["a locale", "a currency", "a country", "in clear, not as a digest", "upper and lower case"],
    )
    def test_traced_in_another_form(self, body: Any, fields: dict[str, Any]):
        """
        A value that a partner is sent in its own form is traced there.
        """
        assert ["id"] == preview("plain", Plain(sent=body), an_event(**fields), NOW).untraced()

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            pytest.param("UK", "properties.job_country", id="in another form"),
            pytest.param("GB", "properties.job_country", id="as it is"),
            pytest.param("FR", None, id="something else"),
            pytest.param(None, "clear.country", id="nothing"),
        ],
    )
    def test_a_property_of_that_name_counts(self, said: str | None, expected: str | None):
        """
        A value is told by the property of its own name, once both are in one form, and never by another beside it.
        """
        properties = {} if said is None else {"job_country": said}
        event = an_event(clear=Clear(country="GB"), properties=properties)

        assert {"job_country": expected} == origins(preview("open", Open(sent={"job_country": "GB"}), event, NOW))

    def test_countries_of_ip_snare(self):
        """
        With a job in the UK and a visitor from GB, each country is told by its own field, and the job's is shown.
        """
        item = {"event": "job_click", "source_id": "s", "source_click_id": "c", "job_id": "j", "destination_id": "d"}
        item |= {"job_country": "UK", "user_country": "GB", "user_ip": "8.8.8.8", "user_agent": "agent/1.0"}
        seen = preview("ipsnare", lanes()["ipsnare"], entered(item), NOW)
        countries = {leaf.path: (leaf.value, leaf.origin) for leaf in seen.leaves() if "country" in leaf.path}

        assert {"job_country": ("GB", "properties.job_country"), "user_country": ("***", "clear.country")} == countries
        assert "properties.job_country" not in seen.untraced()

    def test_a_body_that_is_no_json(self):
        """
        A form or any other text has no fields to tell of.
        """
        seen = preview("plain", Plain(sent={}), an_event(), NOW)
        assert seen.request is not None
        other = msgspec.structs.replace(seen, request=msgspec.structs.replace(seen.request, body=b"a=1&b=2"))

        assert [] == other.leaves()


class Open(Plain, tag="open", frozen=True, kw_only=True):
    clear = frozenset({"country"})


class Keyed(Plain, tag="keyed", frozen=True, kw_only=True):
    key: Secret

    def requests(self, events: Sequence[Event], now: int) -> Any:
        url = f"{self.home}/{quote(self.key.reveal(), safe='')}/take"
        yield Request.json(url, self.sent, events, query={"mode": "x", "key": self.key})


class Broken(Plain, tag="broken", frozen=True, kw_only=True):
    def requests(self, events: Sequence[Event], now: int) -> Any:
        raise KeyError(EMAIL)


class Hinting(Plain, tag="hinting", frozen=True, kw_only=True):
    def hints(self, event: Event) -> Sequence[str]:
        return [f"no click id: {event.clear.ip}"]


class TestReasons:
    def test_too_old(self):
        """
        Older than the partner takes is not sent, though it could be written.
        """
        event = entered({**PURCHASE, "timestamp": NOW - 8 * 86_400_000})
        seen = preview("snap", lanes()["snap"], event, NOW)

        assert ("too_old", "expired: older than the partner accepts") == (seen.result, seen.reason)
        assert 8 * 86_400 == seen.age
        assert seen.request is not None

    def test_a_fault_in_the_mapping(self):
        """
        A partner's file that raises refuses the event, as in delivery, without a word of the event.
        """
        seen = preview("broken", Broken(), an_event(), NOW)

        assert ("refused", None) == (seen.result, seen.request)
        assert "KeyError" in str(seen.reason)
        assert EMAIL not in str(seen.reason)

    def test_hints_see_what_the_partner_sees(self):
        """
        What was allowed and yet a pity is told, of an event without what the destination may not have.
        """
        seen = preview("hinting", Hinting(sent={}), an_event(clear=Clear(ip=IP)), NOW)

        assert ("no click id: None",) == seen.hints

    def test_refused(self, tmp_path: Path):
        """
        What Snap would refuse is refused here, with what to send, and the exit code says so.
        """
        result = run(written(tmp_path), json.dumps({**PURCHASE, "page": {}}), "--to", "snap")

        assert 1 == result.exit_code
        assert "WOULD NOT SEND  to snap: event_source_url" in result.stdout

    def test_filtered_names_the_line(self, tmp_path: Path):
        """
        A check that the configuration asks for is told with the line that asks.
        """
        path = written(tmp_path)
        result = run(path, json.dumps({**PURCHASE, "consent": {"marketing": False}}), "--to", "snap", "--json")
        line = 1 + CONFIG.splitlines().index('consent = ["marketing"]')

        (row,) = rows(result)
        assert (1, "filtered", None) == (result.exit_code, row["result"], row["request"])
        assert {"consent": f"{path}:{line}"} == {each["name"]: each["line"] for each in row["checks"] if not each["ok"]}

    def test_match_names_its_condition(self, tmp_path: Path):
        """
        Of several conditions the line of the one in question is told.
        """
        path = tmp_path / "config.toml"
        path.write_text(
            '[sources.shop]\ntokens = ["env:SHOP_TOKEN"]\n[destinations.l]\ntype = "linktrace"\napi_key = "env:TOKEN"\n'
            '[destinations.l.match]\n"properties.a" = 1\n"properties.ab" = 2\n'
        )
        (row,) = rows(run(path, '{"event": "x", "a": 1, "ab": 1}', "--json"))

        assert [f"{path}:7", f"{path}:8"] == [each["line"] for each in row["checks"] if each["name"] == "match"]

    def test_age_in_words(self, tmp_path: Path):
        """
        How old it is, and how old it may be.
        """
        item = {**PURCHASE, "timestamp": SystemClock().now() - 8 * 86_400_000}

        assert "against   age: 8 d old, accepted for 7d" in run(written(tmp_path), json.dumps(item)).stdout

    def test_turned_away(self, tmp_path: Path):
        """
        What the door would not let in is told with its code, and its neighbours are shown.
        """
        result = run(written(tmp_path), json.dumps([{"value": 1}, PURCHASE]), "--to", "backend", "--json")

        away, shown = rows(result)
        assert (1, "turned_away", "missing", "sent") == (
            result.exit_code,
            away["result"],
            away["problem"]["code"],
            shown["result"],
        )

    def test_notes_in_words(self, tmp_path: Path):
        """
        What was dropped at the door is told with what to send instead.
        """
        item = {**PURCHASE, "user": {"email": "no address", "id": "c-9"}}
        result = run(written(tmp_path), json.dumps(item), "--to", "backend")

        assert "note      the e-mail address was none and was dropped" in result.stdout

    def test_switched_off(self, tmp_path: Path):
        """
        A destination that is off is left out unless it is named; then it is shown, and not taken for sent.
        """
        path = written(tmp_path)
        named, all_of_them = run(path, json.dumps(PURCHASE), "--to", "off"), run(path, json.dumps(PURCHASE), "--json")

        assert 1 == named.exit_code
        assert "enabled = false" in named.stdout
        assert ["snap", "linktrace", "ipsnare", "backend"] == [row["to"] for row in rows(all_of_them)]

    def test_browsers(self, tmp_path: Path):
        """
        Where pages post themselves, it is said that their connection brings address and agent.
        """
        path = written(tmp_path)
        path.write_text(path.read_text().replace("[outbox]", 'origins = ["https://shop.example"]\n[outbox]'))
        (row,) = rows(run(path, json.dumps({**PURCHASE, "device": {}}), "--to", "snap", "--json"))

        assert any("browser's own" in words for words in row["remarks"])


class TestWaysIn:
    @pytest.mark.parametrize("form", ["{}", "@{}", "-"])
    def test_files(self, form: str, tmp_path: Path):
        """
        A file, @file and standard input are the same as the JSON itself.
        """
        (tmp_path / "event.json").write_text(json.dumps(PURCHASE))
        result = run(
            written(tmp_path), form.format(tmp_path / "event.json"), "--to", "snap", given=json.dumps(PURCHASE)
        )

        assert 0 == result.exit_code
        assert "WOULD SEND  to snap: POST http://127.0.0.1:9/v3/" in result.stdout

    @pytest.mark.parametrize("dialect", samples.DIALECTS)
    def test_samples(self, dialect: str, tmp_path: Path):
        """
        A sample goes through the door in any dialect.
        """
        (row,) = rows(
            run(written(tmp_path), "--sample", "purchase", "--dialect", dialect, "--to", "snap", "--format", "json")
        )

        assert (dialect, "sent") == (row["dialect"], row["result"])

    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param([], id="nothing"),
            pytest.param(["{}", "--sample", "purchase"], id="two things"),
            pytest.param(["--sample", "purchase", "--to", "snpa"], id="no such destination"),
            pytest.param(["--sample", "purchase", "--source", "none"], id="no such source"),
            pytest.param(["/nowhere/event.json"], id="no such file"),
        ],
    )
    def test_usage(self, arguments: list[str], tmp_path: Path):
        """
        What cannot be meant is wrong usage.
        """
        assert 2 == run(written(tmp_path), *arguments).exit_code

    def test_near_misses_are_named(self, tmp_path: Path):
        """
        A misspelt destination is told with the one that was meant.
        """
        assert 'did you mean "snap"?' in run(written(tmp_path), "--sample", "purchase", "--to", "snpa").stderr

    def test_no_source(self, tmp_path: Path):
        """
        Where nobody posts there is no door to go through, and what to add is said.
        """
        path = tmp_path / "config.toml"
        sources = '[sources.s]\ntype = "snitcher"\ntoken = "env:TOKEN"\n'
        path.write_text(sources + '[destinations.l]\ntype = "linktrace"\napi_key = "env:TOKEN"\n')
        result = run(path, "--sample", "purchase")

        assert 2 == result.exit_code
        assert "no source that is posted to" in result.stderr

    def test_several(self, tmp_path: Path):
        """
        Events of one file are shown one after the other; one that no door takes costs its neighbours nothing.
        """
        deep: Any = {"event": "a"}
        for _ in range(40):
            deep = {"event": "a", "x": deep}
        found = run(written(tmp_path), "-", "--to", "snap", given=json.dumps([PURCHASE, deep, PURCHASE]))

        assert 1 == found.exit_code
        assert ["WOULD SEND", "turned away", "WOULD SEND"] == [
            each[:10] if each.startswith("WOULD") else each[:11]
            for each in found.stdout.splitlines()
            if each.startswith(("WOULD", "turned"))
        ]

    def test_no_destination(self, tmp_path: Path):
        """
        Without any destination there is nothing to preview, and what to add is said.
        """
        (tmp_path / "config.toml").write_text('[sources.shop]\ntokens = ["env:SHOP_TOKEN"]\n')
        result = run(tmp_path / "config.toml", "--sample", "purchase")

        assert 2 == result.exit_code
        assert "add one" in result.stderr
