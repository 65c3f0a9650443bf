"""A sender of Commanders Act's that changes nothing but the address: its payloads, its keys, its answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from destinations import CommandersAct, Webhook
from router import route
from router.app import App
from router.door import admit
from router.event import Event
from router.mocks.commandersact import CommandersAct as FakeCommandersAct
from router.mocks.partner import running
from router.outbox.reads.reader import Reader
from router.secret import Secret
from router.visit import Door, TurnedAway, Visit
from tests.running import KEY, collect_url, running_app, settings, stored

SITE = "29"
NOW = 1_795_212_480_000
EMAIL_DIGEST = "836f82db99121b3481011f16b49dfa5fbc714a0d1b1b9f784a1ebbbf5b39577f"  # the page's, of john.doe@example.com
PHONE_DIGEST = "42d573cfc315801d4cd8eddd5416b416a0bf298b9b9e12d6b07442c91db42bd8"  # the page's, of +33612345678
DOOR = Door(source="shop", keep_clear=frozenset({"ip", "user_agent", "advertising_id", "idfv"}))

# "HTTP tracking API source, version 2.0", Example
SEARCH: dict[str, Any] = {
    "event_name": "search",
    "search_term": "t-shirts",
    "user": {
        "id": "12345",
        "consistent_anonymous_id": "67892",
        "email": "toto@domain.fr",
        "consent_categories": ["1", "3"],
    },
    "context": {
        "event_id": "202110130000000000",
        "page": {
            "title": "Search page",
            "url": "https://shop.com/search?q=...",
            "lang": "en",
            "referrer": "https://www.google.fr",
            "viewport": {"width": 320, "height": 568},
        },
        "device": {
            "user_agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_0)",
            "ip": "102.3.4.56",
            "lang": "fr",
            "cookie": "_fbp=123; _fbc=456; _ga=789",
            "timezone": "Europe/Paris",
        },
        "event_timestamp": "1639044446636",
    },
}
# The same page, Batch Example, with the comma that it lacks
BATCH: dict[str, Any] = {
    "batch": [
        {
            "event_name": "add_payment_info",
            "payment_method": "card",
            "revenue": 16.00,
            "value": 22.53,
            "currency": "EUR",
            "user": {"id": "12345", "consistent_anonymous_id": "67892", "consent_categories": [1, 3]},
            "context": {"event_id": "202210310000000000", "page": {}, "device": {}},
            "event_timestamp": "1639044446636",
        },
        {
            "event_name": "generate_lead",
            "method": "LinkedIn",
            "user": {"consistent_anonymous_id": "5689865", "consent_categories": [1, 2, 3]},
            "context": {"event_id": "202210180000000000", "page": {}, "device": {}},
            "event_timestamp": "1639094446633",
        },
    ]
}
# "Mobile SDK event specificity", which is written in the shape of version 1.0
MOBILE: dict[str, Any] = {
    "event_name": "search",
    "event_id": "202110130000000000",
    "properties": {"search_term": "t-shirts", "user": {"id": "12345", "consent_categories": [1, 3]}},
    "device": {
        "sdk_id": "C32272DB0-C21E-11E4-8DFC-AA07A5B093DB",
        "manufacturer": "Apple",
        "model": "iPhone7.3",
        "name": "maguro",
        "type": "ios",
        "network": {"bluetooth": False, "carrier": "T-Mobile US", "cellular": True, "wifi": False},
        "os": {"name": "iPhone OS", "version": "8.1.3"},
        "screen": {"width": 320, "height": 568, "density": 2},
        "lifecycle": {"session_id": "99b0289e-0934-403e-a27c-3585f7ee32f7", "visit_number": "4"},
        "timezone": "Europe/Amsterdam",
    },
    "app": {"name": "MyApp", "version": "58", "build": "2.0.755", "core_version": "5.0.2", "namespace": "com.p.ca"},
    "event_timestamp": "1639044446636",
}
# "Pixel tracking", both examples in one
PIXEL = (
    "event_name=purchase&page_name=Best%20sellers&id=O_12345&revenue=16.00&value=22.53&shipping_amount=3.33"
    "&tax_amount=3.20&currency=EUR&user[id]=12356&user[email]=toto%40domain.fr&user[consent_categories][]=1"
    "&user[consent_categories][]=3&items[0][id]=SKU_12345&items[0][quantity]=1&items[0][product][id]=12345"
    "&items[0][product][name]=Trex%20tshirt&items[0][product][category_1]=clothes&items[0][product][colors][]=red"
    "&items[0][product][price]=9.99&items[1][id]=SKU_12346&items[1][product][colors][]=blue"
    "&items[1][product][colors][]=white"
)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    hook = Webhook(url="https://backend.example/", secrets=(Secret("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),))
    off = msgspec.structs.replace(hook, enabled=False)
    async with running_app(settings(tmp_path, destinations={"hook": off}, site=SITE)) as app:
        yield app


@pytest.fixture
async def http(app: App) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(collect_url(app)) as session:
        yield session


async def post(http: aiohttp.ClientSession, body: Any, path: str = "/events", **more: Any) -> tuple[int, Any]:
    data = body if isinstance(body, (bytes, str)) else json.dumps(body)
    async with http.post(f"{path}?tc_s={SITE}&token={KEY}", data=data, **more) as response:
        return response.status, await response.json()


async def only(app: App) -> Event:
    (event,) = await stored(app)
    return event


def read(item: dict[str, Any]) -> Event:
    event = admit(item, DOOR, Visit(received=NOW), lambda: "own-id")
    assert isinstance(event, Event), event
    return event


def with_user(**user: Any) -> dict[str, Any]:
    return {"event_name": "login", "user": user, "context": {"event_id": "e-1", "event_timestamp": NOW}}


class TestPayloads:
    async def test_version_2(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        The page's example is stored with all it says.
        """
        status, answer = await post(http, SEARCH, headers={"Content-Type": "application/json"})

        event = await only(app)
        assert (200, "202110130000000000", 1) == (status, answer["id"], answer["accepted"])
        assert ("search", 1_639_044_446_636, "12345", "67892") == (
            event.name, event.time, event.user.id, event.user.anonymous_id,
        )  # fmt: skip
        assert ("https://shop.com/search?q=...", "Search page", "en", "https://www.google.fr") == (
            event.page.url, event.page.title, event.page.language, event.page.referrer,
        )  # fmt: skip
        assert ({"_fbp": "123", "_fbc": "456", "_ga": "789"}, "fr", "Europe/Paris") == (
            event.cookies, event.device.locale, event.device.timezone,
        )  # fmt: skip
        assert ("1", "3") == event.consent.granted
        assert {
            "search_term": "t-shirts",
            "context": {"page": {"viewport": {"width": 320, "height": 568}}},
        } == event.properties

    async def test_a_batch(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        Both events of the page's batch are stored in order, their time read from where the page puts it.
        """
        status, answer = await post(http, BATCH, "/events/batch")

        assert (200, 2, []) == (status, answer["accepted"], answer["problems"])
        assert [
            ("202210310000000000", "add_payment_info", 1_639_044_446_636, ("1", "3")),
            ("202210180000000000", "generate_lead", 1_639_094_446_633, ("1", "2", "3")),
        ] == [(event.id, event.name, event.time, event.consent.granted) for event in await stored(app)]

    async def test_version_1(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        The retired format, as the mobile SDKs still write it, keeps device, app and session.
        """
        await post(http, MOBILE)

        event = await only(app)
        assert ("commandersact-1", "search", "202110130000000000", "12345") == (
            event.dialect, event.name, event.id, event.user.id,
        )  # fmt: skip
        assert ("iPhone7.3", "iPhone OS", "8.1.3", "T-Mobile US", 320) == (
            event.device.model, event.device.os_name, event.device.os_version, event.device.carrier,
            event.device.screen_width,
        )  # fmt: skip
        assert ("MyApp", "99b0289e-0934-403e-a27c-3585f7ee32f7") == (event.app.name, event.user.session_id)
        assert {
            "device": {
                "sdk_id": "C32272DB0-C21E-11E4-8DFC-AA07A5B093DB",
                "name": "maguro",
                "network": {"bluetooth": False, "cellular": True, "wifi": False},
                "lifecycle": {"visit_number": "4"},
            },
            "app": {"core_version": "5.0.2"},
        } == event.properties["context"]

    @pytest.mark.parametrize(
        "properties",
        [
            pytest.param({"user": {"id": "u1"}, "id": "O_1", "tax_amount": 3.2}, id="with a user"),
            pytest.param({"id": "O_1", "tax_amount": 3.2}, id="with Commanders Act's amounts"),
            pytest.param({"id": "O_1", "items": [{"id": "1", "product": {"id": "2"}}]}, id="with products in items"),
        ],
    )
    async def test_before_version_1(self, app: App, http: aiohttp.ClientSession, properties: dict[str, Any]) -> None:
        """
        The oldest format says event and properties; it is told from Segment's by what only Commanders Act writes.
        """
        await post(http, {"event": "purchase", "properties": properties})

        event = await only(app)
        assert ("commandersact-1", "purchase", "O_1") == (event.dialect, event.name, event.money.order_id)

    async def test_a_pixel(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        Nested parameters are objects and lists, texts are amounts, and the time comes in seconds.
        """
        async with http.get(f"/events?tc_s={SITE}&token={KEY}&{PIXEL}&ts_override=1639044446") as response:
            assert 200 == response.status

        event = await only(app)
        assert (1_639_044_446_000, ("own_id",)) == (event.time, event.notes)
        assert ("22.53", "16", "3.2", "3.33", "EUR", "O_12345") == (
            event.money.value, event.money.revenue, event.money.tax, event.money.shipping, event.money.currency,
            event.money.order_id,
        )  # fmt: skip
        assert ("12356", ("1", "3")) == (event.user.id, event.consent.granted)
        first, second = event.items
        assert ("SKU_12345", "Trex tshirt", "9.99", 1, "clothes") == (
            first.id, first.name, first.price, first.quantity, first.category,
        )  # fmt: skip
        assert {"product": {"colors": ["blue", "white"]}} == second.extra

    def test_a_pixel_that_counts_from_one(self) -> None:
        """
        Items whose numbers leave some out are still items, in their order.
        """
        items = {"10": {"id": "c"}, "2": {"id": "b"}, "1": {"id": "a"}}

        assert ["a", "b", "c"] == [item.id for item in read({"event_name": "view_cart", "items": items}).items]

    def test_the_web_container(self) -> None:
        """
        Commanders Act's own script says eventId and created, sends the page twice and addresses Meta.
        """
        event = read(
            {
                "event_name": "page_view",
                "context": {"eventId": "97", "created": "2021-12-09T10:07:26.636Z", "version": 2, "page": {
                    "title": "T", "url": "https://shop.example/a"}},
                "title": "T",
                "path": "/a",
                "url": "https://shop.example/a",
                "page_type": "home",
                "user": {"consent_categories": [], "rejected_vendors": "ALL"},
                "integrations": {"facebook": {"fbp": "fb.1.2", "event_id": "97"}},
            }
        )  # fmt: skip

        assert ("97", 1_639_044_446_636, "https://shop.example/a") == (event.id, event.time, event.page.url)
        assert (True, (), {"rejected_vendors": "ALL"}) == (
            event.consent.known, event.consent.granted, event.user.traits,
        )  # fmt: skip
        assert ({"facebook": {"fbp": "fb.1.2", "event_id": "97"}}, {"_fbp": "fb.1.2"}) == (
            event.partners, event.cookies,
        )  # fmt: skip
        assert {"page_type": "home", "context": {"created": "2021-12-09T10:07:26.636Z", "version": 2}} == (
            event.properties
        )

    def test_another_address_at_the_root_is_kept(self) -> None:
        """
        The page of the context counts; a different one beside it is not lost.
        """
        event = read(
            {
                "event_name": "page_view",
                "url": "https://a.example/x",
                "context": {"page": {"url": "https://b.example/"}},
            }
        )

        assert ("https://b.example/", "https://a.example/x") == (event.page.url, event.properties["url"])


class TestKeys:
    @pytest.mark.parametrize(
        ("query", "headers"),
        [
            pytest.param(f"tc_s={SITE}&token={KEY}", {}, id="both parameters"),
            pytest.param(f"tc_s={SITE}", {"Authorization": f"Bearer {KEY}"}, id="the site, and the key as Bearer"),
            pytest.param("", {"Authorization": f"Bearer {KEY}"}, id="Bearer alone"),
            pytest.param(f"tc_s={SITE}&tc_skey={KEY}&tc_firsttime=1", {}, id="as the SDK's log shows it"),
        ],
    )
    async def test_a_known_key_is_taken(
        self, app: App, http: aiohttp.ClientSession, query: str, headers: dict[str, str]
    ) -> None:
        """
        The key is found in both places that Commanders Act documents.
        """
        async with http.post(f"/events?{query}", json=SEARCH, headers=headers) as response:
            assert 200 == response.status

        assert "search" == (await only(app)).name

    @pytest.mark.parametrize("query", [f"tc_s=30&token={KEY}", f"tc_s={SITE}&token=other", f"tc_s={SITE}"])
    async def test_another_site_or_key_is_told(self, app: App, http: aiohttp.ClientSession, query: str) -> None:
        """
        Where Commanders Act would answer 200 and forget, a wrong key or site is a 401 and nothing is stored.
        """
        async with http.post(f"/events?{query}", json=SEARCH) as response:
            assert 401 == response.status

        assert [] == await stored(app)


def of_size(size: int) -> bytes:
    """An event of exactly so many bytes."""
    head = b'{"event_name":"search","search_term":"'
    return head + b"x" * (size - len(head) - 2) + b'"}'


class TestAnswers:
    @pytest.mark.parametrize(
        ("path", "body", "counts"),
        [
            pytest.param("/events", SEARCH, (1, 0), id="an event"),
            pytest.param("/events", of_size(32_768), (1, 0), id="an event of 32 KB"),
            pytest.param("/events", {}, (0, 1), id="nothing in it"),
            pytest.param("/events", {"user": {"id": "1"}, "context": {}}, (0, 1), id="no name"),
            pytest.param("/events", {"event_name": 7}, (0, 1), id="a name that is a number"),
            pytest.param("/events", {"event_name": ""}, (0, 1), id="an empty name"),
            pytest.param("/events", {"event_name": "x", "user": 7, "context": "?", "items": 1}, (1, 0), id="odd types"),
            pytest.param("/events", {"specversion": "1.0"}, (0, 1), id="something else altogether"),
            pytest.param("/events", [], (0, 0), id="an empty array"),
            pytest.param("/events", [SEARCH, 7, None], (1, 2), id="an array with members that are no objects"),
            pytest.param("/events", BATCH, (2, 0), id="a batch at the address of single events"),
            pytest.param("/events/batch", SEARCH, (1, 0), id="a single event at the address of batches"),
            pytest.param("/events/batch", {"batch": []}, (0, 0), id="an empty batch"),
            pytest.param("/events/batch", {"batch": {}}, (0, 1), id="a batch that is no list"),
            pytest.param("/events/batch", {"batch": [{}, SEARCH, "x"]}, (1, 2), id="a batch with bad members"),
            pytest.param(
                "/events/batch", b'{"batch":[%b,{"event_name":"small"}]}' % of_size(32_769), (1, 1),
                id="a batch with an event that is too large",
            ),
        ],
    )  # fmt: skip
    async def test_what_is_json_and_not_too_large_is_a_200(
        self, app: App, http: aiohttp.ClientSession, path: str, body: Any, counts: tuple[int, int]
    ) -> None:
        """
        As Commanders Act's: an accepted key has a 200 for everything else, and the body tells what was not taken.
        """
        status, answer = await post(http, body, path)

        assert (200, True) == (status, answer["success"])
        assert counts == (answer["accepted"], answer["rejected"]) == (len(await stored(app)), len(answer["problems"]))

    @pytest.mark.parametrize(
        ("path", "body", "code"),
        [
            pytest.param("/events", of_size(32_769), "event_too_large", id="an event above 32 KB"),
            pytest.param("/events/batch", b'{"batch":[%b]}' % b",".join([of_size(30_000)] * 18), "request_too_large",
                         id="a batch above 500 KB"),
            pytest.param("/events", b"", "empty_body", id="nothing"),
            pytest.param("/events", b"{", "malformed_json", id="half an object"),
            pytest.param("/events", b'{"event_name":"x",}', "malformed_json", id="a comma too many, as in their pages"),
            pytest.param("/events", b'{"a":1 "b":2}', "malformed_json", id="a comma too few, as in their batch sample"),
            pytest.param("/events", b'{"a":1} //Automatically added', "malformed_json", id="a comment, as in their pages"),
            pytest.param("/events/batch", b'{"batch":[{"event_name":"x"}', "malformed_json", id="half a batch"),
            pytest.param("/events", b'"search"', "not_an_object", id="a text is no payload"),
        ],
    )  # fmt: skip
    async def test_only_too_large_or_no_json_is_a_400(
        self, app: App, http: aiohttp.ClientSession, path: str, body: bytes, code: str
    ) -> None:
        """
        The two exceptions of Commanders Act's page; nothing of such a request is stored.
        """
        status, answer = await post(http, body, path)

        assert (400, False, code) == (status, answer["success"], answer["code"])
        assert [] == await stored(app)

    async def test_an_encoding_that_is_not_known_is_a_415(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        What cannot even be unpacked is told by its own status, and by a sentence.
        """
        status, answer = await post(http, json.dumps(SEARCH).encode(), headers={"Content-Encoding": "br"})

        assert (415, "bad_encoding") == (status, answer["code"])
        assert [] == await stored(app)

    async def test_the_content_type_is_not_held_against_a_sender(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        sendBeacon labels JSON as text; it is read all the same.
        """
        await post(http, SEARCH, headers={"Content-Type": "text/plain;charset=UTF-8"})

        assert "search" == (await only(app)).name

    async def test_what_was_not_taken_is_kept_for_the_inspector(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        An event without a name is in quarantine, without the person in it.
        """
        await post(http, {"user": {"email": "jane@example.com"}, "x_size": "L"})

        reader = Reader(app.store.directory)
        (turned_away,) = (await reader.quarantined()).items
        whole = await reader.quarantine_item(turned_away.id)
        assert whole is not None
        assert ("missing", "event_name", '{"x_size":"L"}') == (whole.code, whole.field, whole.item)


class TestFields:
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            pytest.param({"context": {"event_timestamp": "1639044446636"}}, 1_639_044_446_636, id="text, in context"),
            pytest.param({"context": {"event_timestamp": 1639044446636}}, 1_639_044_446_636, id="number, in context"),
            pytest.param({"event_timestamp": "1639044446636"}, 1_639_044_446_636, id="text, at the root"),
            pytest.param({"event_timestamp": 1639044446636}, 1_639_044_446_636, id="number, at the root"),
            pytest.param(
                {"event_timestamp": 1, "context": {"event_timestamp": 1639044446636}}, 1_639_044_446_636,
                id="the context's wins",
            ),
            pytest.param({"ts_override": "1639044446"}, 1_639_044_446_000, id="ts_override in seconds"),
            pytest.param({"ts_override": 1639044446636}, 1_639_044_446_636, id="ts_override in milliseconds"),
            pytest.param({}, NOW, id="none"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("shape", [{}, {"properties": {}}], ids=["version 2", "version 1"])
    def test_the_time(self, shape: dict[str, Any], changes: dict[str, Any], expected: int) -> None:
        """
        The time is found in every place and form that their pages show, and no unit has to be guessed.
        """
        event = read({"event_name": "x", **shape, **changes})

        assert expected == event.time
        assert ("own_id",) == event.notes

    @pytest.mark.parametrize(
        ("said", "granted"),
        [
            pytest.param([1, 3], ("1", "3"), id="numbers"),
            pytest.param(["1", "3"], ("1", "3"), id="texts"),
            pytest.param(["tcf2_1", "tcf2_sf_1", "acm_1", 1], ("tcf2_1", "tcf2_sf_1", "acm_1", "1"), id="prefixes"),
            pytest.param([], (), id="nothing granted"),
            pytest.param("1,3", ("1", "3"), id="one text"),
        ],
    )
    def test_consent(self, said: Any, granted: tuple[str, ...]) -> None:
        """
        Categories are texts, whatever they were written as, and keep their prefix.
        """
        event = read(with_user(id="1", consent_categories=said))

        assert (True, granted) == (event.consent.known, event.consent.granted)

    @pytest.mark.parametrize(
        ("needed", "said", "sent"),
        [
            pytest.param("1", [1], True, id="a number for a text"),
            pytest.param("tcf2_1", ["tcf2_1"], True, id="a purpose of the framework"),
            pytest.param("tcf2_1", [1], False, id="category 1 is not purpose 1"),
            pytest.param("1", ["tcf2_1"], False, id="purpose 1 is not category 1"),
            pytest.param("tcf2_1", ["tcf2_sf_1"], False, id="a special feature is no purpose"),
            pytest.param("1", ["acm_1"], False, id="a vendor of Google's is no category"),
            pytest.param("1", [], False, id="nothing granted"),
            pytest.param("1", None, False, id="nothing said"),
        ],
    )
    def test_a_lane_that_needs_consent(self, needed: str, said: Any, sent: bool) -> None:
        """
        A category compares as it is written, prefix and all: taking one for the other would invent a consent.
        """
        hook = Webhook(
            url="https://backend.example/",
            secrets=(Secret("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"),),
            consent=(needed,),
        )
        event = read(with_user(id="1", consent_categories=said))

        assert sent is (route.decide(route.compile("hook", hook), event) is None)

    @pytest.mark.parametrize("name", ["refused_vendors", "rejected_vendors"])
    @pytest.mark.parametrize("vendors", ["ALL", ["1", "acm_7"]], ids=["all", "some"])
    def test_a_refused_vendor_is_no_refused_category(self, name: str, vendors: Any) -> None:
        """
        Vendors are numbered apart from categories; they are kept where ``match`` finds them.
        """
        event = read(with_user(id="1", consent_categories=["1"], **{name: vendors}))

        assert (("1",), ()) == (event.consent.granted, event.consent.denied)
        assert {name: vendors} == event.user.traits

    @pytest.mark.parametrize("name", ["consistent_anonymous_id", "tcId", "tcid", "tc_id"])
    def test_the_visitor(self, name: str) -> None:
        """
        The visitor's id has the names of older containers too, and the user's id those of the mobile SDKs.
        """
        event = read(with_user(ID="12345", **{name: "67892"}))

        assert ("12345", "67892", {}) == (event.user.id, event.user.anonymous_id, event.user.traits)

    def test_a_user_that_is_an_id(self) -> None:
        """
        A user written as one text is the user's id.
        """
        assert "12345" == read({"event_name": "login", "user": "12345"}).user.id

    def test_hashed_fields(self) -> None:
        """
        Every field of the user may come hashed: the page's own digests are the ones of the values themselves.
        """
        hashed = read(
            with_user(email_sha256=EMAIL_DIGEST.upper(), phone_sha256=PHONE_DIGEST, firstname_sha256="a" * 64)
        )
        plain = read(with_user(email="john.doe@example.com", phone="+33612345678"))

        assert hashed.user.digests.email == plain.user.digests.email == EMAIL_DIGEST
        assert hashed.user.digests.phone_plus == plain.user.digests.phone_plus == PHONE_DIGEST
        assert (None, "a" * 64) == (hashed.user.digests.phone, hashed.user.digests.first_name)

    def test_md5_helps_nobody(self) -> None:
        """
        No partner matches on MD5: it is dropped, and the event says so; a SHA-256 beside it counts.
        """
        alone = read(with_user(email_md5="8eb1b522f60d11fa897de1dc6351b7e8"))
        both = read(with_user(email_md5="8eb1b522f60d11fa897de1dc6351b7e8", email_sha256=EMAIL_DIGEST))

        assert ("hash_not_sha256",) == alone.notes
        assert EMAIL_DIGEST == both.user.digests.email

    @pytest.mark.parametrize("where", ["device", "context", "both"])
    def test_cookies(self, where: str) -> None:
        """
        The raw header is found under the device and directly in the context; only partners' cookies are kept.
        """
        header = "_fbp=123; session=secret; _scid=abc"
        context: dict[str, Any] = {} if where == "device" else {"cookie": header}
        context |= {} if where == "context" else {"device": {"cookie": "_fbp=123" if where == "both" else header}}

        assert {"_fbp": "123", "_scid": "abc"} == read({"event_name": "x", "context": context}).cookies

    @pytest.mark.parametrize(
        ("cookie", "kept"), [({"_ga": "1", "session": "secret"}, {"_ga": "1"}), (7, {})], ids=["an object", "a number"]
    )
    def test_cookies_that_are_no_header(self, cookie: Any, kept: dict[str, str]) -> None:
        """
        Cookies by name are read too; what is neither header nor object is no cookie.
        """
        assert kept == read({"event_name": "x", "context": {"device": {"cookie": cookie}}}).cookies

    def test_what_is_addressed_to_partners(self) -> None:
        """
        integrations and partners are one, and neither hides what the other says.
        """
        event = read(
            {
                "event_name": "x",
                "integrations": {"snapchat": {"test_code": "T"}, "facebook": {"fbp": "fb.1"}},
                "partners": {"snapchat": {"click_id": "sc-1"}},
            }
        )

        assert {"snapchat": {"test_code": "T", "click_id": "sc-1"}, "facebook": {"fbp": "fb.1"}} == event.partners
        assert ({"ScCid": "sc-1"}, {}) == (event.clicks, event.routing)

    @pytest.mark.parametrize(
        ("said", "test"),
        [("TEST-1", "TEST-1"), (7, "7"), (True, "test"), (False, None), ("", None), ({"on": 1}, "test")],
        ids=["a code", "a number", "yes", "no", "empty", "an object"],
    )
    def test_test_traffic(self, said: Any, test: str | None) -> None:
        """
        Whoever gives a test code, or only says yes, never makes a conversion.
        """
        assert test == read({"event_name": "x", "test_code": said}).test


# Nothing is lost

MARK = "kept-7f3a"
# Neither addresses nor numbers, which are scrubbed out of names, too.
_LETTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Nd"), exclude_characters="@")
NAMES = st.text(_LETTERS, max_size=20).map("x_{}".format)
VERSION_2 = (
    (),
    ("context",),
    ("context", "page"),
    ("context", "page", "location"),
    ("context", "page", "viewport"),
    ("context", "device"),
    ("context", "device", "os"),
    ("context", "device", "network"),
    ("context", "device", "screen"),
    ("context", "device", "lifecycle"),
    ("context", "app"),
    ("context", "anything"),
    ("user",),
    ("items", 0),
    ("items", 0, "product"),
    ("integrations",),
    ("integrations", "facebook"),
    ("partners", "snapchat"),
    ("anything", "deeper"),
)
VERSION_1 = (
    (),
    ("properties",),
    ("properties", "user"),
    ("properties", "items", 0),
    ("page",),
    ("device",),
    ("device", "os"),
    ("app",),
)


def planted(path: tuple[str | int, ...], key: str, value: Any, start: dict[str, Any]) -> dict[str, Any]:
    """``start`` with one key more at a path."""
    item: Any = json.loads(json.dumps(start))
    inside = item
    for part, after in zip(path, [*path[1:], ""], strict=False):
        if isinstance(part, str):
            inside = inside.setdefault(part, [{}] if isinstance(after, int) else {})
        else:
            inside = inside[part]
    inside[key] = value
    return dict(item)


def remains(item: dict[str, Any]) -> str:
    """All that is stored of an item: the event, or what the quarantine keeps."""
    entered = admit(item, DOOR, Visit(received=NOW), lambda: "own-id")
    return json.dumps(entered.scrubbed) if isinstance(entered, TurnedAway) else msgspec.json.encode(entered).decode()


class TestUnknown:
    @given(path=st.sampled_from(VERSION_2), name=NAMES, full=st.booleans())
    def test_an_unknown_field_of_version_2_is_kept(self, path: tuple[str | int, ...], name: str, full: bool) -> None:
        """
        Any field we do not know is kept, wherever it stands and whatever stands beside it.
        """
        assert MARK in remains(planted(path, name, MARK, SEARCH if full else {"event_name": "search"}))

    @given(path=st.sampled_from(VERSION_1), name=NAMES, full=st.booleans())
    def test_an_unknown_field_of_version_1_is_kept(self, path: tuple[str | int, ...], name: str, full: bool) -> None:
        """
        The retired format loses nothing either.
        """
        assert MARK in remains(planted(path, name, MARK, MOBILE if full else {"event_name": "x", "properties": {}}))

    @pytest.mark.parametrize(
        "path",
        [
            *(path for path in VERSION_2 if path and isinstance(path[-1], str) and "user" not in path),
            ("items",),
            ("context", "device", "name"),
        ],
        ids=lambda path: ".".join(map(str, path)),
    )
    @pytest.mark.parametrize("value", [MARK, [MARK], {"x": MARK}], ids=["text", "list", "object"])
    def test_a_known_field_of_another_type_is_kept(self, path: tuple[str | int, ...], value: Any) -> None:
        """
        A container that is something else is not understood, and not thrown away.
        """
        *parents, last = path

        assert MARK in remains(planted(tuple(parents), str(last), value, {"event_name": "search"}))

    def test_what_two_places_of_version_1_say_differently_is_kept(self) -> None:
        """
        Where root and properties disagree, the root counts and the other is kept.
        """
        event = read({"event_name": "x", "colour": "red", "properties": {"colour": "blue"}})

        assert {"colour": "red", "properties": {"colour": "blue"}} == event.properties

    async def test_over_the_wire(self, app: App, http: aiohttp.ClientSession) -> None:
        """
        What was posted with unknown fields is on disk with them.
        """
        await post(http, planted(("context", "device", "os"), "x_build", MARK, SEARCH))

        assert {"os": {"x_build": MARK}} == (await only(app)).properties["context"]["device"]


class TestForwarded:
    async def test_what_comes_in_goes_on_to_commanders_act(self, tmp_path: Path) -> None:
        """
        The page's example and its batch, posted here, arrive there as events that would be processed.
        """
        partner = FakeCommandersAct(now=lambda: NOW, site="there", token="their-key")
        async with running(partner) as url:
            lane = CommandersAct(site="there", token=Secret("their-key"), base_url=url, allow_private=True)
            async with (
                running_app(settings(tmp_path, destinations={"ca": lane}, site=SITE)) as app,
                aiohttp.ClientSession(collect_url(app)) as http,
            ):
                await post(http, SEARCH)
                await post(http, BATCH, "/events/batch")
                await partner.wait_for(3)

        assert {"202110130000000000", "202210310000000000", "202210180000000000"} == set(partner.taken)
        assert {"/events"} == {each.path for each in partner.received}
        assert "toto@domain.fr" not in str(partner.received)
        (search,) = [each.body for each in partner.received if each.body["event_name"] == "search"]
        assert (SEARCH["context"]["page"], "t-shirts") == (search["context"]["page"], search["search_term"])
        assert SEARCH["context"]["device"] == search["context"]["device"]
