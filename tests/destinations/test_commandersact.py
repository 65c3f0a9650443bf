"""Commanders Act: what it is sent and in what sizes, what its answers mean, and the fake that reads strictly."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from destinations.commandersact import MAX_EVENT, MAX_REQUEST, CommandersAct
from router import route
from router.body import Body, read
from router.destination import Request, Response
from router.door import admit
from router.event import Clear, Event
from router.mocks import commandersact as mock
from router.mocks.partner import Answer, Call
from router.outcome import Outcome, Refusal
from router.secret import Secret
from router.visit import Door, Visit

CASES = json.loads((Path(__file__).parent / "cases" / "commandersact.json").read_text())
PAYLOADS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parents[1] / "dialects" / "cases").glob("commandersact*.json"))
}
NOW = 1_795_212_480_000
TOKEN = "7183b9d4-1031-11ee-be56-0242ac120002"
DOOR = Door(source="shop", default_country="FR", keep_clear=CommandersAct.clear)


def ca(**settings: Any) -> CommandersAct:
    return CommandersAct(**{"site": "29", "token": Secret(TOKEN), **settings})


def event(**fields: Any) -> Event:
    least = {"id": "e-1", "name": "search", "time": NOW, "received": NOW, "source": "shop", "dialect": "plain"}
    return msgspec.convert({**least, "user": {"anonymous_id": "67892"}, **fields}, Event)


def sent(destination: CommandersAct, events: Sequence[Event]) -> list[Request]:
    found = list(destination.requests(events, NOW))
    assert not [one for one in found if isinstance(one, Refusal)]
    return [one for one in found if isinstance(one, Request)]


def call(request: Request) -> Call:
    """The request as it arrives there."""

    def plain(values: Any) -> dict[str, str]:
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}

    return Call(
        method=request.method,
        path=urlsplit(request.url).path,
        query=plain(request.query),
        headers={name.lower(): value for name, value in plain(request.headers).items()},
        body=request.body,
        at=NOW,
    )


def posted(body: Any, path: str = "/events", **changes: Any) -> Call:
    query, headers = {"tc_s": "29", "token": TOKEN}, {"content-type": "application/json"}
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Call(**{"path": path, "query": query, "headers": headers, "body": raw, "at": NOW, **changes})


def partner(**known: str) -> mock.CommandersAct:
    return mock.CommandersAct(now=lambda: NOW, **known)


def named(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", CASES[name], ids=[case["id"] for case in CASES[name]])


class TestRequests:
    @named("requests")
    def test_an_event_becomes_exactly_this(self, case: dict[str, Any]) -> None:
        """
        Field by field what their pages describe, and they would process it.
        """
        [request] = sent(ca(**case.get("settings", {})), [msgspec.convert(case["event"], Event)])
        taken = partner(site="29", token=TOKEN).answer(call(request))

        assert {**case["body"], **digits(case["body"], request.body)} == msgspec.json.decode(request.body)
        assert (200, True, (case["event"]["id"],)) == (taken.status, taken.took(), taken.keys)

    def test_where_it_goes(self) -> None:
        """
        The page's address, with site and key in its query, as JSON.
        """
        [request] = sent(ca(), [event()])

        assert ("POST", "https://collect.commander1.com/events") == (request.method, request.url)
        assert {"tc_s": "29", "token": Secret(TOKEN)} == request.query
        assert {"Content-Type": "application/json"} == request.headers

    def test_several_go_to_the_batch_endpoint(self) -> None:
        """
        A batch has its own address and wrapper; one event alone never needs the closed beta.
        """
        events = [event(id=f"e-{number}") for number in range(5)]

        two, two_more, one = sent(ca(batch=2), events)

        assert ["/events/batch", "/events/batch", "/events"] == [
            urlsplit(each.url).path for each in (two, two_more, one)
        ]
        assert ["e-0", "e-1"] == [each["context"]["event_id"] for each in msgspec.json.decode(two.body)["batch"]]
        assert "e-4" == msgspec.json.decode(one.body)["context"]["event_id"]
        assert tuple(events) == (*two.events, *two_more.events, *one.events)

    def test_one_event_a_request_unless_asked_for(self) -> None:
        """
        The batch endpoint is a closed beta, so nobody uses it without having said so.
        """
        assert ["/events"] * 3 == [urlsplit(each.url).path for each in sent(ca(), [event()] * 3)]

    def test_the_key_is_never_printed(self) -> None:
        """
        Neither the destination nor its requests show the source key.
        """
        assert TOKEN not in f"{ca()!r} {sent(ca(), [event()])!r}"

    def test_a_retry_sends_the_same_bytes(self) -> None:
        """
        The moment of sending changes nothing.
        """
        carried = [msgspec.convert(case["event"], Event) for case in CASES["requests"]]

        assert list(ca().requests(carried, NOW)) == list(ca().requests(carried, NOW + 86_400_000))

    def test_a_map_leaves_the_event_as_it_was(self) -> None:
        """
        What is mapped into an object of the sender's is sent and changes nothing of the event, which others read too.
        """
        objects = {"partners": {"facebook": {"fbp": "1"}}, "properties": {"x": {"y": 1}, "context": {"app": {"z": 1}}}}
        carried, targets = event(**objects), ("partners.facebook.id", "x.id", "context.app.id")

        [request] = sent(ca(map=dict.fromkeys(targets, "id")), [carried])

        assert event(**objects) == carried
        body = msgspec.json.decode(request.body)
        assert ["e-1"] * 3 == [each["id"] for each in (body["partners"]["facebook"], body["x"], body["context"]["app"])]
        assert {"fbp": "1"} == body["integrations"]["facebook"]

    def test_what_is_kept_in_clear_for_it(self) -> None:
        """
        Everything readable that its format has a field for, and nothing else.
        """
        assert set(Clear.__struct_fields__) == CommandersAct.clear

    @pytest.mark.parametrize(("code", "taken"), [(None, False), ("T", True)], ids=["without a code", "with one"])
    def test_test_traffic_needs_a_code(self, code: str | None, taken: bool) -> None:
        """
        A test event goes to Commanders Act only where test_event_code says so.
        """
        rule = route.compile("ca", ca(test_event_code=code))

        assert taken is (route.decide(rule, event(test="T-7")) is None)

    def test_identifiers_are_paths_of_an_event(self) -> None:
        """
        What it knows a person by is what is sent under those names.
        """
        digests = {"email": "a" * 64, "phone_plus": "b" * 64}
        carried = event(user={"id": "u", "anonymous_id": "a", "digests": digests})
        [request] = sent(ca(), [carried])
        user = msgspec.json.decode(request.body)["user"]

        assert {"id": "u", "consistent_anonymous_id": "a", "email_sha256": "a" * 64, "phone_sha256": "b" * 64} == user
        assert user.keys() == CommandersAct.identifiers.keys()

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            pytest.param({}, ["no consent", "no user id and no e-mail"], id="anonymous, consent unknown"),
            pytest.param({"user": {"id": "1"}, "consent": {"known": True}}, ["no anonymous id"], id="a user id alone"),
            pytest.param(
                {"user": {"id": "1", "anonymous_id": "2"}, "consent": {"known": True}, "money": {"value": "1"}},
                ["no currency"],
                id="an amount of what",
            ),
        ],
    )
    def test_hints(self, fields: dict[str, Any], words: list[str]) -> None:
        """
        What would be taken and help little is said to whoever previews it.
        """
        assert words == [hint.partition(":")[0] for hint in ca().hints(event(**fields))]


def digits(expected: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Amounts of which every digit counts: found in the bytes, and then as JSON reads them."""
    exact = {name: value["digits"] for name, value in expected.items() if isinstance(value, dict) and "digits" in value}
    assert all(f'"{name}":{text}'.encode() in body for name, text in exact.items())
    return {name: float(text) for name, text in exact.items()}


class TestRefusals:
    @named("refusals")
    def test_what_they_would_not_process_is_not_sent(self, case: dict[str, Any]) -> None:
        """
        Their answer would be 200 all the same, so it is refused here, by the name of the field.
        """
        destination, carried = ca(**case.get("settings", {})), event(**case["changes"])
        [refusal] = destination.requests([carried], NOW)

        assert isinstance(refusal, Refusal)
        assert carried is refusal.event
        assert case["says"] in refusal.reason
        taken = partner().answer(posted(destination.body(carried)))
        assert (200, False) == (taken.status, taken.took())

    def test_a_refusal_repeats_nothing_sent(self) -> None:
        """
        A reason is safe to show whatever the event holds.
        """
        fields = ("event_name", "user.email_sha256", "context.event_timestamp", "context.event_id")
        destination = ca(map={**dict.fromkeys(fields, "properties.x"), "user.consistent_anonymous_id": "properties.x"})

        [refusal] = destination.requests([event(properties={"x": ["Jane"]})], NOW)

        assert isinstance(refusal, Refusal)
        assert "Jane" not in refusal.reason

    @pytest.mark.parametrize(("more", "refused"), [(0, False), (1, True)], ids=["32 000 bytes", "32 001 bytes"])
    def test_an_event_has_a_size(self, more: int, refused: bool) -> None:
        """
        An event above 32 KB, in the smaller reading of KB, is refused; one of exactly that is taken.
        """
        size = len(sent(ca(), [event(properties={"x": ""})])[0].body)
        carried = event(properties={"x": "x" * (MAX_EVENT - size + more)})

        [made] = ca().requests([carried], NOW)

        assert refused is isinstance(made, Refusal)
        if isinstance(made, Request):
            assert MAX_EVENT == len(made.body)
            assert 200 == partner().answer(call(made)).status


class TestSizes:
    @given(st.lists(st.integers(0, 31_000), max_size=60), st.integers(1, 60))
    def test_a_request_has_a_size(self, sizes: list[int], batch: int) -> None:
        """
        Whatever the events weigh, they go in order, no request is above 500 KB, and none is smaller than it must be.
        """
        events = [event(id=f"e-{n}", properties={"x": "x" * size}) for n, size in enumerate(sizes)]

        requests = sent(ca(batch=batch), events)

        assert events == [each for request in requests for each in request.events]
        assert all(len(request.body) <= MAX_REQUEST and len(request.events) <= batch for request in requests)
        for one, after in itertools.pairwise(requests):
            first = len(sent(ca(), after.events[:1])[0].body)
            wrapped = len(one.body) + (len(b'{"batch":[]}') if len(one.events) == 1 else 0)
            assert len(one.events) == batch or wrapped + 1 + first > MAX_REQUEST

    def test_the_largest_batch(self) -> None:
        """
        Events that fill 500 KB to the byte are one request, and the fake takes it.
        """
        size = len(sent(ca(), [event(properties={"x": ""})])[0].body)
        sixteen = [event(properties={"x": "x" * (31_000 - size)})] * 16
        last = event(properties={"x": "x" * (MAX_REQUEST - len(b'{"batch":[]}') - 16 * 31_001 - size)})

        [request] = sent(ca(batch=100), [*sixteen, last])

        assert MAX_REQUEST == len(request.body)
        assert 200 == partner().answer(call(request)).status
        assert [17, 1] == [len(each.events) for each in sent(ca(batch=100), [*sixteen, last, event()])]


class TestOutcome:
    @named("answers")
    def test_an_answer_means_exactly_this(self, case: dict[str, Any]) -> None:
        """
        200 is accepted and unverified, 400 is about the events, everything else by the general rules.
        """
        request = Request(url="https://x.example", body=b"", events=(event(),) * case["events"])

        outcome = ca().outcome(Response(status=case["status"], request=request, at=NOW))

        assert msgspec.convert({"reason": getattr(outcome, "reason", None), **case["outcome"]}, Outcome) == outcome
        assert case.get("says", "") in (getattr(outcome, "reason", "") or "")

    @given(st.integers(100, 599), st.binary(max_size=50), st.integers(1, 3))
    def test_no_answer_breaks_it(self, status: int, body: bytes, events: int) -> None:
        """
        Any status with any body has an outcome.
        """
        request = Request(url="https://x.example", body=b"", events=(event(),) * events)

        assert isinstance(ca().outcome(Response(status=status, request=request, at=NOW, body=body)), Outcome)


WORDS = st.text(min_size=1, max_size=12)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**15) | st.floats(-10, 10) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
AMOUNTS = st.decimals(-9999, 9999, places=2).map(lambda amount: format(amount.normalize() + 0, "f"))
RESERVED = ("event_name", "event", "event_id", "event_timestamp", "user", "context", "test_code", "token", "properties")
SHARED = ("items", "integrations", "partners", "id", "value", "currency", "page", "device", "property_user")
OF_USERS = ("consistent_anonymous_id", "consent_categories", "email_sha256", "phone_md5")
TAKEN = st.sampled_from((*RESERVED, *SHARED, *OF_USERS))


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


OBJECTS = st.dictionaries(TAKEN | WORDS, ANYTHING, max_size=4)
ITEMS = some(
    id=WORDS, name=WORDS, price=AMOUNTS | WORDS, quantity=st.integers(0, 9), brand=WORDS, category=WORDS,
    variant=WORDS, extra=OBJECTS | st.fixed_dictionaries({"product": OBJECTS}),
)  # fmt: skip
USERS = some(
    id=WORDS, anonymous_id=WORDS, session_id=WORDS, group_id=WORDS, traits=OBJECTS,
    digests=some(**dict.fromkeys(["email", "phone", "phone_plus", "first_name", "gender", "city"], DIGESTS)),
)  # fmt: skip
ANY_EVENT = st.fixed_dictionaries(
    {"id": st.uuids().map(str), "name": WORDS, "time": st.integers(10**11, 9_999_999_999_999)},
    optional={
        "user": USERS,
        "page": some(url=WORDS, title=WORDS, referrer=WORDS, language=WORDS),
        "device": some(os_name=WORDS, locale=WORDS, screen_density=st.floats(0, 9), tracking_enabled=st.booleans()),
        "app": some(name=WORDS, namespace=WORDS),
        "consent": st.fixed_dictionaries({"known": st.booleans()}, optional={"granted": st.lists(WORDS, max_size=3)}),
        "money": some(value=AMOUNTS | WORDS, currency=st.just("EUR"), order_id=WORDS),
        "items": st.lists(ITEMS, max_size=3),
        "clicks": some(ScCid=WORDS, gclid=WORDS),
        "cookies": some(_ga=WORDS, _scid=WORDS),
        "properties": OBJECTS,
        "partners": st.dictionaries(st.sampled_from(["snapchat", "facebook"]), ANYTHING, max_size=2),
        "test": WORDS,
        "clear": some(ip=st.ip_addresses().map(str), user_agent=WORDS, country=st.just("FR")),
    },
).map(lambda fields: event(**fields))


class TestLaws:
    @given(st.lists(ANY_EVENT, max_size=4), st.integers(1, 4))
    def test_whatever_is_sent_would_be_processed(self, events: list[Event], batch: int) -> None:
        """
        Every event ends in one request or one refusal, and the strict fake processes every request.
        """
        commanders = partner(site="29", token=TOKEN)

        made = list(ca(batch=batch).requests(events, NOW))
        answers = [commanders.answer(call(one)) for one in made if isinstance(one, Request)]

        assert sorted(each.id for each in events) == sorted(
            each.id for one in made for each in (one.events if isinstance(one, Request) else [one.event])
        )
        assert [""] * len(answers) == ["" if answer.took() else answer.reason for answer in answers]

    @given(ANY_EVENT)
    def test_only_what_has_no_identifier_is_refused(self, carried: Event) -> None:
        """
        Of events that the door lets in, one is refused only where nothing says whose it is.
        """
        [made] = ca().requests([carried], NOW)
        user = carried.user

        assert isinstance(made, Refusal) is not bool(
            user.anonymous_id or user.id or user.digests.email or user.digests.phone_plus
        )

    @given(ANY_EVENT)
    def test_no_property_is_lost_or_overwrites(self, carried: Event) -> None:
        """
        What a sender's property is called changes nothing of what we say, and its value is there under some name.
        """
        body, bare = (
            msgspec.json.decode(msgspec.json.encode(ca().body(each)))
            for each in (carried, msgspec.structs.replace(carried, properties={}))
        )
        theirs = {name: value for name, value in carried.properties.items() if name not in {*carried.clicks, *AMOUNT}}

        assert holds(body, bare)
        assert holds(body, theirs)


AMOUNT = ("id", "value", "currency")  # a property of that name may be the same written otherwise


def holds(whole: Any, part: Any) -> bool:
    """Is all of ``part`` in ``whole``, objects in objects, under the same name or one that stands for it?"""
    if not isinstance(whole, dict) or not isinstance(part, dict):
        return bool(whole == part)
    return all(
        any(re.fullmatch(f"(property_)*{re.escape(name)}", there) and holds(whole[there], value) for there in whole)
        for name, value in part.items()
    )


def again(carried: Event) -> Event:
    """The event as our own collect endpoint reads what is sent of it."""
    [request] = sent(ca(), [carried])
    found = read(request.body)
    assert isinstance(found, Body)
    entered = admit(found.items[0].value, DOOR, Visit(received=carried.received), lambda: "another id")
    assert isinstance(entered, Event)
    return entered


def first_read(item: dict[str, Any]) -> Event:
    entered = admit(item, DOOR, Visit(received=NOW), lambda: "own-id")
    assert isinstance(entered, Event)
    return entered


SENDERS_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=12)
SENDERS_ITEM = st.fixed_dictionaries(
    {
        "id": st.just("SKU"),
        "product": some(id=st.just("1"), name=SENDERS_WORDS, price=st.just(9.99), colors=st.just(["red"])),
    },
    optional={
        "quantity": st.integers(0, 9),
        "variant": st.just("red"),
        "discount": st.just(1.5),
        "price": st.just("8"),
    },
)
SENDERS_EVENT = st.fixed_dictionaries(
    {
        "event_name": st.sampled_from(["purchase", "page_view", "my_event"]),
        "user": st.fixed_dictionaries(
            {"consistent_anonymous_id": st.just("67892")},
            optional={
                "id": st.just("12345"),
                "email_sha256": DIGESTS,
                "phone_sha256": DIGESTS,
                "firstname_sha256": DIGESTS,
                "gender_sha256": DIGESTS,
                "country": st.sampled_from(["FR", "USA"]),
                "consent_categories": st.lists(st.integers(1, 9) | st.sampled_from(["tcf2_1", "acm_7"]), max_size=4),
                "refused_vendors": st.just("ALL"),
            },
        ),
        "context": st.fixed_dictionaries(
            {"event_id": st.uuids().map(str), "event_timestamp": st.integers(10**12, NOW)},
            optional={
                "page": some(url=st.just("https://a.example/x?ScCid=1"), title=st.just("T"), lang=st.just("fr"),
                             viewport=st.just({"width": 320})),
                "device": some(ip=st.just("192.0.2.7"), user_agent=st.just("UA"), cookie=st.just("_ga=1; _scid=x"),
                               os=some(name=st.just("iOS"), version=st.just("18"), build=st.just("x")),
                               screen=some(width=st.integers(1, 9), density=st.just(2.5), depth=st.just(24)),
                               lifecycle=some(session_id=st.just("s"), visit_number=st.just("4")),
                               network=some(carrier=st.just("C"), wifi=st.booleans()), sdk_id=st.just("sdk"),
                               ad_tracking_enabled=st.booleans(), lang=st.just("fr")),
                "app": some(name=st.just("A"), version=st.just("1"), core_version=st.just("5.0.2")),
                "generatorVersion": st.just("10.0"),
            },
        ),
    },
    optional={
        "id": st.just("O_1"),
        "value": st.sampled_from([22.53, "22.53", 0, 16.0]),
        "currency": st.sampled_from(["EUR", "usd"]),
        "tax_amount": st.just(3.2),
        "items": st.lists(SENDERS_ITEM, max_size=3),
        "partners": some(snapchat=st.just({"uuid_c1": "u"}), facebook=st.just({"fbp": "fb.1.2"})),
        "test_code": st.just("T-1"),
        "search_term": st.just("boots"),
    },
)  # fmt: skip


def carried_by_both(one: Event) -> Any:
    """An event without what only one side has: how its numbers and codes were written among its properties, the forms
    of its digests beyond the one that is sent, an item's id said twice, and Snap's click id said to Snap as well.
    """
    plain = msgspec.to_builtins(one)
    for name in ("id", "value", "revenue", "tax_amount", "shipping_amount", "currency", "coupon", "discount"):
        plain.get("properties", {}).pop(name, None)
    digests = one.user.digests
    forms = (digests.email, digests.phone_plus, digests.first_name, digests.last_name, digests.gender)
    plain["user"]["digests"] = [*forms, digests.external_id]
    for item in plain.get("items", []):
        extra = item.setdefault("extra", {})
        product = extra.pop("product", {})
        extra["product"] = {name: value for name, value in product.items() if (name, value) != ("id", item["id"])}
    snap = plain.get("partners", {}).get("snapchat", {})
    if snap.get("click_id") == one.clicks.get("ScCid"):
        snap.pop("click_id", None)
    plain["partners"] = {name: said for name, said in plain.get("partners", {}).items() if said}
    return {name: value for name, value in plain.items() if name not in {"notes", "properties", "partners"} or value}


class TestRoundTrip:
    @given(SENDERS_EVENT)
    def test_what_came_from_a_sender_of_theirs_goes_on_as_it_came(self, item: dict[str, Any]) -> None:
        """
        An event in their format, sent on to them and read again, is the same event in all that both carry.
        """
        came = first_read(item)

        assert carried_by_both(came) == carried_by_both(again(came))

    @given(SENDERS_EVENT)
    def test_the_second_time_nothing_changes(self, item: dict[str, Any]) -> None:
        """
        Sending what was read from our own request gives the same bytes: nothing wears off from hop to hop.
        """
        once = again(first_read(item))

        assert sent(ca(), [once])[0].body == sent(ca(), [again(once)])[0].body

    @pytest.mark.parametrize("name", [name for name, case in PAYLOADS.items() if case["event"]["user"]])
    def test_every_payload_of_their_pages_is_sent_on(self, name: str) -> None:
        """
        Each documented payload with a person in it becomes a request that they would process, and says the same.
        """
        came = first_read(PAYLOADS[name]["item"])
        [request] = sent(ca(), [came])
        back = again(came)

        assert partner().answer(call(request)).took()
        assert (came.name, came.id, came.time, came.money, came.consent, came.user.id) == (
            back.name, back.id, back.time, back.money, back.consent, back.user.id,
        )  # fmt: skip


GOOD: dict[str, Any] = {
    "event_name": "search",
    "user": {"consistent_anonymous_id": "67892"},
    "context": {"event_id": "e-1", "event_timestamp": "1639044446636"},
}


class TestFake:
    @pytest.mark.parametrize(
        ("changes", "status", "took", "reason"),
        [
            pytest.param({}, 200, True, "1 events, 0 test", id="the page's own form"),
            pytest.param({"path": "/v1/track"}, 404, False, "no such path", id="another path"),
            pytest.param({"method": "GET"}, 405, False, "events come by POST", id="another method"),
            pytest.param({"query": {"tc_s": "29"}}, 200, False, "token is not known", id="no key"),
            pytest.param({"query": {"tc_s": "29", "token": "x"}}, 200, False, "token is not known", id="another key"),
            pytest.param({"query": {"token": TOKEN}}, 200, False, "tc_s is not known", id="no site"),
            pytest.param({"headers": {}}, 200, False, "the Content-Type is not application/json", id="no label"),
            pytest.param({"body": b"{"}, 400, False, "the JSON is not valid", id="half an object"),
            pytest.param({"body": b""}, 400, False, "the JSON is not valid", id="nothing"),
            pytest.param({"body": b'"\xff"'}, 400, False, "the JSON is not valid", id="no UTF-8"),
            pytest.param({"body": b'"' + b"x" * 31_999 + b'"'}, 400, False, "the request is too large", id="32 001 bytes"),
            pytest.param({"body": b"[]"}, 200, False, "0: the event is not an object", id="a list"),
            pytest.param(
                {"body": b"{}", "path": "/events/batch"}, 200, False,
                "0: event_name is missing or not a string, user is missing or not an object, "
                "context is missing or not an object",
                id="a batch without its list",
            ),
            pytest.param(
                {"body": b'{"batch":["%b"]}' % (b"x" * 32_000), "path": "/events/batch"}, 400, False,
                "an event of the batch is too large", id="a batch with an event that is too large",
            ),
            pytest.param(
                {"body": b'{"batch":[%b]}' % b",".join([b"1"] * 250_000), "path": "/events/batch"}, 400, False,
                "the request is too large", id="a batch above 500 KB",
            ),
        ],
    )  # fmt: skip
    def test_requests(self, changes: dict[str, Any], status: int, took: bool, reason: str) -> None:
        """
        Only what is too large or no JSON is a 400; what a 200 hides is in the reason.
        """
        known = partner(site="29", token=TOKEN)

        answer = known.answer(msgspec.structs.replace(posted(GOOD), **changes))

        assert (status, took, reason) == (answer.status, answer.took(), answer.reason)

    @pytest.mark.parametrize(
        ("path", "value", "reason"),
        [
            ("event_name", None, "event_name is missing or not a string"),
            ("event_name", "", "event_name is missing or not a string"),
            ("user", None, "user is missing or not an object"),
            ("user.consistent_anonymous_id", None, "user.consistent_anonymous_id is missing or not a string"),
            ("user.consistent_anonymous_id", 7, "user.consistent_anonymous_id is missing or not a string"),
            ("user.id", 7, "user.id is not a string"),
            ("user.consent_categories", "1", "user.consent_categories is not a list of categories"),
            ("user.consent_categories", [True], "user.consent_categories is not a list of categories"),
            ("user.email_sha256", "ABC", "user.email_sha256 is not written in lower-case hex"),
            ("user.email_md5", "a" * 64, "user.email_md5 is not written in lower-case hex"),
            ("context", [], "context is missing or not an object"),
            ("context.event_id", None, "context.event_id is missing or not a string"),
            ("context.event_timestamp", None, "context.event_timestamp is missing or not in milliseconds"),
            ("context.event_timestamp", 1639044446, "context.event_timestamp is missing or not in milliseconds"),
            ("context.event_timestamp", "1639044446", "context.event_timestamp is missing or not in milliseconds"),
            ("context.event_timestamp", 1639044446636.5, "context.event_timestamp is missing or not in milliseconds"),
            ("context.page", "x", "context.page is not an object"),
        ],
    )
    def test_events(self, path: str, value: Any, reason: str) -> None:
        """
        The required fields of the OpenAPI file, times in milliseconds, hashes in hex.
        """
        wrong = json.loads(json.dumps(GOOD))
        *parents, last = path.split(".")
        inside = wrong[parents[0]] if parents else wrong
        inside[last] = value
        if value is None:
            del inside[last]

        answer = partner().answer(posted(wrong))

        assert (200, False, f"0: {reason}", ()) == (answer.status, answer.took(), answer.reason, answer.keys)

    def test_a_batch_in_part(self) -> None:
        """
        The good members of a batch count as taken, by their ids; the bad one is named by its place.
        """
        answer = partner().answer(posted({"batch": [GOOD, {}, {**GOOD, "test_code": "T"}]}, "/events/batch"))

        assert (200, ("e-1", "e-1")) == (answer.status, answer.keys)
        assert answer.reason.startswith("1: event_name is missing")
        assert not answer.took()

    def test_it_tells_tests(self) -> None:
        """
        A good batch says how many of its events were tests.
        """
        answer = partner().answer(posted({"batch": [GOOD, {**GOOD, "test_code": "T"}]}, "/events/batch"))

        assert Answer(200, keys=("e-1", "e-1"), reason="2 events, 1 test") == answer
