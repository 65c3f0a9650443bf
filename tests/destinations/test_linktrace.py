"""LinkTrace: what we send is what its page asks for, and every documented answer means what it should."""

import datetime as dt
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from destinations import linktrace
from destinations.linktrace import LinkTrace, NewLink, snake_case
from router import route
from router.destination import Request, Response
from router.event import Event, Money, Page, User
from router.mocks import linktrace as mock
from router.mocks.partner import Call
from router.outcome import Closed, Delivered, Hold, Outcome, Refusal, Rejected
from router.secret import Secret

CASES = json.loads((Path(__file__).parent / "cases" / "linktrace.json").read_text())
NOW = 1_795_176_000_000  # 2026-11-20T12:00:00Z
KEY = "your-api-key"


def destination(**settings) -> LinkTrace:
    return msgspec.convert({**CASES["settings"], **settings}, LinkTrace, dec_hook=lambda _, value: Secret(value))


def event(**fields) -> Event:
    always = {"id": "m-1", "time": NOW, "received": NOW, "source": "shop", "dialect": "segment"}
    return msgspec.convert({**always, **fields}, Event)


def sent(request: Request, at: int = NOW) -> Call:
    """The request as the partner receives it."""
    headers = {n.lower(): v.reveal() if isinstance(v, Secret) else v for n, v in request.headers.items()}
    path = request.url.removeprefix(LinkTrace.home)
    return Call(method=request.method, path=path, query=dict(request.query), headers=headers, body=request.body, at=at)


def partner(**setup) -> mock.LinkTrace:
    return mock.LinkTrace(now=lambda: NOW, key=KEY, **setup)


def answered(request: Request, answer: mock.Answer) -> Response:
    """What the fake partner says, as it comes back."""
    return Response(status=answer.status, request=request, at=NOW, body=msgspec.json.encode(answer.body))


def ids(cases):
    return [case["id"] for case in cases]


def milliseconds(iso: str) -> int:
    return int(dt.datetime.fromisoformat(iso).timestamp() * 1000)


@pytest.mark.parametrize("case", CASES["requests"], ids=ids(CASES["requests"]))
class TestRequests:
    def test_is_the_documented_call(self, case):
        """
        Method, address, headers and body are those of LinkTrace's page.
        """
        carried = msgspec.convert(case["event"], Event)

        [request] = destination(**case.get("settings", {})).requests([carried], NOW)

        assert ("POST", "https://api.linktrace.in/api/v1/events") == (request.method, request.url)
        assert {} == request.query
        assert {"Content-Type": "application/json", "x-api-key": Secret(KEY)} == request.headers
        assert case["body"] == json.loads(request.body)
        assert (carried,) == request.events

    def test_is_taken_once_and_known_the_second_time(self, case):
        """
        LinkTrace queues the event, and a resend of it is a duplicate.
        """
        [request] = destination(**case.get("settings", {})).requests([msgspec.convert(case["event"], Event)], NOW)
        linktrace = partner()

        answers = [linktrace.answer(sent(request)).status for _ in range(2)]

        assert [202, 200] == answers


@pytest.mark.parametrize("case", CASES["answers"], ids=ids(CASES["answers"]))
def test_answer_means(case):
    """
    Every row of LinkTrace's answers, in both of its error shapes, leads to the outcome that serves it.
    """
    body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
    at = milliseconds(case["at"]) if "at" in case else NOW
    request = Request.json("https://api.linktrace.in/api/v1/events", {}, [event(name="purchase")])

    outcome = destination().outcome(Response(status=case["status"], request=request, at=at, body=body.encode()))

    wanted = {"reason": getattr(outcome, "reason", None), **case["outcome"]}
    if "until" in case:
        wanted["until"] = milliseconds(case["until"])
    assert msgspec.convert(wanted, Outcome) == outcome
    assert case.get("says", "") in (getattr(outcome, "reason", "") or "")


@pytest.mark.parametrize("case", CASES["attributions"], ids=ids(CASES["attributions"]))
def test_an_install_is_the_documented_call(case):
    """
    An event of ``attributions`` goes to the other endpoint with its user alone, and the fake LinkTrace takes it.
    """
    settings = {"attributions": ["sign_up"], **case.get("settings", {})}
    carried = msgspec.convert(case["event"], Event)

    [request] = destination(**settings).requests([carried], NOW)

    assert ("POST", "https://api.linktrace.in/api/v1/attributions") == (request.method, request.url)
    assert {"Content-Type": "application/json", "x-api-key": Secret(KEY)} == request.headers
    assert case["body"] == json.loads(request.body)
    assert (carried,) == request.events
    assert 200 == partner(plan="free").answer(sent(request)).status


@pytest.mark.parametrize("case", CASES["attribution_answers"], ids=ids(CASES["attribution_answers"]))
def test_answer_to_an_install_means(case):
    """
    An attribution's answers lead to the outcome that serves them; that nobody's link led there is no failure.
    """
    body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
    request = Request.json("https://api.linktrace.in/api/v1/attributions", {}, [event(name="sign_up")])

    outcome = destination().outcome(Response(status=case["status"], request=request, at=NOW, body=body.encode()))

    assert msgspec.convert({"reason": getattr(outcome, "reason", None), **case["outcome"]}, Outcome) == outcome
    assert case.get("says", "") in (getattr(outcome, "reason", "") or "")


class TestAttributions:
    def test_needs_somebody(self):
        """
        An install of nobody is refused with what to send.
        """
        [refusal] = destination(attributions=["sign_up"]).requests([event(name="sign_up")], NOW)

        assert isinstance(refusal, Refusal)
        assert "send user.id" in refusal.reason

    @pytest.mark.parametrize(
        ("settings", "routed"),
        [
            ({}, [True, True, True]),
            ({"attributions": ["sign_up"]}, [True, True, True]),
            ({"attributions": ["sign_up"], "events": ["purchase"]}, [True, True, False]),
            ({"attributions": ["sign_up"], "events": {"purchase": "bought"}}, [True, True, False]),
            ({"events": ["purchase"]}, [False, True, False]),
        ],
        ids=["neither set", "attributions alone", "with a list of events", "with a table", "events alone"],
    )
    def test_are_routed_beside_the_events(self, settings, routed):
        """
        What attributions names is sent there, whatever events says of the others.
        """
        rule = route.compile("links", destination(**settings))
        carried = [event(name=name) for name in ("sign_up", "purchase", "page_view")]

        assert routed == [route.decide(rule, each) is None for each in carried]

    def test_that_no_link_led_to_is_delivered_unproved(self):
        """
        LinkTrace's answer that it knows of no link is an answer: taken, and proof of nothing.
        """
        [request] = destination(attributions=["sign_up"]).requests([event(name="sign_up", user=User(id="u-1"))], NOW)
        answer = partner(installs=["u-2"]).answer(sent(request))

        assert 404 == answer.status
        assert Delivered(unverified=True, free=True) == destination().outcome(answered(request, answer))


LINK = "https://app.linktrace.in/r/497b3422"


class TestShortCode:
    @pytest.mark.parametrize(
        "fields",
        [
            {"page": Page(url=f"https://shop.example/?ref={LINK}")},
            {"page": Page(url=f"https://shop.example/?a=1&ref={LINK}?utm_source=x#top")},
            {"page": Page(url="https://shop.example/?ref=https%3A%2F%2Fapp.linktrace.in%2Fr%2F497b3422")},
            {"page": Page(url="https://shop.example/?ref=app.linktrace.in%2Fr%2F497b3422%26x")},
            {"page": Page(referrer="https://out.example/?to=https%3a%2f%2fAPP.LinkTrace.in%2fr%2f497b3422")},
            {"page": Page(url="https://shop.example/?link_short_code=497b3422")},
            {"page": Page(url="https://shop.example/?x=%2&linkShortCode=497b3422#top")},
            {"page": Page(url=f"https://shop.example/?short_code={LINK}")},
            {"properties": {"note": "see app.linktrace.in/r/497b3422."}},
            {"properties": {"deep": [{"note": f"see {LINK}, please"}]}},
            {"properties": {"link": f"came by {LINK}/"}},
            {"properties": {"note": "//app.linktrace.in/r/497b3422"}},
        ],
        ids=[
            "in the query",
            "with a query of its own",
            "encoded",
            "encoded, without scheme",
            "in the referrer's",
            "a parameter",
            "another parameter",
            "a parameter with the link",
            "in a text without scheme",
            "deep in the properties",
            "in a field of short_code",
            "without its scheme",
        ],
    )
    def test_is_found_where_the_link_is(self, fields):
        """
        A link counts wherever it stands, and so does a parameter of the page that is named for the short code.
        """
        [request] = destination().requests([event(name="purchase", **fields)], NOW)

        assert "497b3422" == json.loads(request.body)["linkShortCode"]

    @pytest.mark.parametrize(
        "fields",
        [
            {"page": Page(url="https://shop.example/?ref=497b3422")},
            {"page": Page(url="https://shop.example/r/497b3422?short_codes=497b3422")},
            {"page": Page(url="https://shop.example/?ref=https://myapp.linktrace.in/r/497b3422")},
            {"page": Page(url="https://shop.example/?ref=https://app.linktrace.in.evil.example/r/497b3422")},
            {"page": Page(url="https://shop.example/app.linktrace.in/r/497b3422")},
            {"page": Page(url="https://shop.example/#short_code=497b3422")},
            {"page": Page(referrer="https://shop.example/?short_code=497b3422")},
            {"properties": {"note": "the code is 497b3422"}},
            {"properties": {"note": "jane@app.linktrace.in/r/497b3422"}},
            {"properties": {"note": "app.linktrace.in/r/497b_3422"}},
            {"properties": {"note": "app.linktrace.in/r/" + "a" * 33}},
        ],
    )
    def test_is_never_guessed(self, fields):
        """
        A word that could be a code is none, and a link of another host neither.
        """
        [made] = destination().requests([event(name="purchase", **fields)], NOW)

        assert isinstance(made, Refusal)

    def test_what_is_named_comes_first(self):
        """
        The fields of short_code count before the page's parameters, and these before any link.
        """
        page = Page(url=f"https://shop.example/?ref={LINK}&short_code=aaaa1111")
        [named] = destination().requests([event(name="x", page=page, properties={"short_code": "bbbb2222"})], NOW)
        [of_page] = destination().requests([event(name="x", page=page)], NOW)

        assert ["bbbb2222", "aaaa1111"] == [json.loads(each.body)["linkShortCode"] for each in (named, of_page)]


class TestSubject:
    @pytest.mark.parametrize(
        ("settings", "fields", "subject"),
        [
            ({}, {"properties": {"short_code": "497b3422"}}, "497b3422"),
            ({}, {"page": Page(referrer="https://app.linktrace.in/r/56ff9241")}, "56ff9241"),
            ({"map": {"linkShortCode": "properties.c"}}, {"properties": {"c": "9999aaaa", "link": "497b3422"}}, "9999aaaa"),
            ({"attributions": ["purchase"]}, {"properties": {"short_code": "497b3422"}}, None),
            ({}, {}, None),
        ],
        ids=["a property", "the referrer", "map", "an install", "none"],
    )  # fmt: skip
    def test_is_the_short_code_that_is_sent(self, settings, fields, subject):
        """
        The subject is the code of the request, whichever way it came there; an install has none.
        """
        carried, chosen = event(name="purchase", user=User(id="u"), **fields), destination(**settings)

        [made] = chosen.requests([carried], NOW)

        assert subject == chosen.subject(carried)
        assert subject == (json.loads(made.body).get("linkShortCode") if isinstance(made, Request) else None)

    def test_that_linktrace_does_not_know_is_not_asked_for_again(self):
        """
        An unknown short code closes its subject for ten minutes, for every event about it.
        """
        carried = event(name="purchase", properties={"link": "497b3422"})
        [request] = destination().requests([carried], NOW)

        outcome = destination().outcome(answered(request, partner(links=["other123"]).answer(sent(request))))

        assert isinstance(outcome, Rejected)
        assert Closed(outcome.reason, 600.0) == outcome.closes
        assert destination().kept_out(carried)


class TestHints:
    def test_an_event_without_entity(self):
        """
        Who previews an event is told that LinkTrace could not tell it from a second one.
        """
        [hint] = destination().hints(event(name="purchase"))

        assert "money.order_id" in hint

    @pytest.mark.parametrize(
        ("settings", "fields"),
        [
            ({}, {"money": Money(order_id="o-1")}),
            ({"map": {"entityId": "properties.o"}}, {"properties": {"o": 7}}),
            ({"attributions": ["purchase"]}, {}),
        ],
        ids=["an order", "a field of map", "an install"],
    )
    def test_nothing_to_say(self, settings, fields):
        """
        An event that names its entity, and an install, are as good as they can be.
        """
        assert [] == list(destination(**settings).hints(event(name="purchase", **fields)))


@pytest.mark.parametrize("case", CASES["refusals"], ids=ids(CASES["refusals"]))
def test_refuses_what_linktrace_would_refuse(case):
    """
    What LinkTrace would answer with 400 is refused before a request, with what to do.
    """
    carried = event(**case["event"])
    code = carried.properties.get("link_short_code")
    as_it_came = {"linkShortCode": code, "eventName": carried.name, "entityId": carried.id}

    [refusal] = destination().requests([carried], NOW)

    assert isinstance(refusal, Refusal)
    assert carried == refusal.event
    assert case["says"] in refusal.reason
    assert 400 == partner().answer(sent(Request.json(LinkTrace.home + "/api/v1/events", as_it_came, [carried],
                                                     headers={"x-api-key": KEY}))).status  # fmt: skip


@pytest.mark.parametrize(("name", "written"), CASES["names"].items())
def test_names_become_snake_case(name, written):
    """
    Spaces, dots, humps and accents are written the way LinkTrace asks.
    """
    assert written == snake_case(name)


@given(st.text(max_size=60))
def test_a_name_that_was_written_once_stays(name):
    """
    Writing a name as snake_case again changes nothing where LinkTrace takes it.
    """
    written = snake_case(name)

    assert not written.isascii() or not written[:1].isalpha() or written == snake_case(written)


@given(
    st.from_regex(r"[A-Za-z0-9]{2,34}", fullmatch=True) | st.text(max_size=34),
    st.text(max_size=60) | st.text("aZ_9 .", max_size=20) | st.sampled_from(["click", "Open_", "IN_STALL", "install"]),
)
def test_nothing_is_refused_that_linktrace_would_take(code, name):
    """
    An event refused here would have been refused there, had it been sent as it came.
    """
    [made] = destination().requests([event(name=name, properties={"link_short_code": code})], NOW)

    as_it_came = {"linkShortCode": code, "eventName": name, "entityId": "m-1"}
    call = Request.json(LinkTrace.home + "/api/v1/events", as_it_came, [], headers={"x-api-key": KEY})
    assert isinstance(made, Request) or 400 == partner().answer(sent(call)).status


events = st.builds(
    lambda ident, name, code, order, link, user: event(
        id=ident,
        name=name,
        money=Money(order_id=order),
        page=Page(referrer=link),
        user=User(id=user),
        properties={} if code is None else {"link_short_code": code},
    ),
    ident=st.text(min_size=1, max_size=300),
    name=st.one_of(st.text(max_size=60), st.sampled_from(["click", "Open", "purchase", "Order Completed", "9lives"])),
    code=st.one_of(st.none(), st.text(max_size=34), st.from_regex(r"[A-Za-z0-9]{3,33}", fullmatch=True)),
    order=st.one_of(st.none(), st.text(max_size=300)),
    link=st.one_of(st.none(), st.just("https://app.linktrace.in/r/497b3422")),
    user=st.one_of(st.none(), st.text(max_size=300)),
)
anywhere = st.sampled_from(["id", "name", "money.order_id", "properties", "properties.link_short_code", "time", "page"])
settings = st.fixed_dictionaries(
    {"map": st.dictionaries(st.sampled_from(["linkShortCode", "eventName", "entityId", "userId"]), anywhere)},
    optional={"attributions": st.just(["purchase", "click"]), "entity": anywhere, "user": anywhere},
)


@given(st.lists(events, max_size=6), settings)
def test_whatever_is_sent_is_taken(carried, chosen):
    """
    Every event ends in one request or one refusal, in order, and LinkTrace takes every request.
    """
    linktrace = partner()

    made = list(destination(**chosen).requests(carried, NOW))

    assert carried == [one.event if isinstance(one, Refusal) else one.events[0] for one in made]
    assert all(linktrace.answer(sent(one)).status in {200, 202} for one in made if isinstance(one, Request))


@given(events, st.integers(0, 10**13))
def test_a_retry_sends_the_same_bytes(carried, later):
    """
    The moment of sending changes nothing.
    """
    first, second = (list(destination().requests([carried], now)) for now in (NOW, later))

    assert first == second


@given(st.one_of(st.none(), st.text(), st.integers(), st.datetimes().map(dt.datetime.isoformat),
                 st.datetimes(timezones=st.timezones()).map(dt.datetime.isoformat)),
       st.integers(0, 4_000_000_000_000))  # fmt: skip
def test_a_quota_always_ends(resets_on, at):
    """
    Whatever resetsOn says, the lane waits at least a minute and at most 45 days.
    """
    body = json.dumps({"code": "QUOTA_EXCEEDED", "resetsOn": resets_on}).encode()
    request = Request.json("https://api.linktrace.in/api/v1/events", {}, [event(name="purchase")])

    hold = destination().outcome(Response(status=429, request=request, at=at, body=body))

    assert at + 60_000 <= hold.until <= at + 45 * 86_400_000


@given(st.integers(100, 599), st.binary(max_size=200))
def test_no_answer_breaks_it(status, body):
    """
    Any status with any body has an outcome.
    """
    request = Request.json("https://api.linktrace.in/api/v1/events", {}, [event(name="purchase")])

    assert isinstance(destination().outcome(Response(status=status, request=request, at=NOW, body=body)), Outcome)


def test_a_text_that_was_scrubbed_is_no_entity():
    """
    Two orders whose number was taken out at the door are two events there.
    """
    carried = [event(id=i, name="purchase", properties={"link": "497b3422", "who": "[email]"}) for i in ("a", "b")]

    requests = destination(entity="properties.who").requests(carried, NOW)

    assert ["a", "b"] == [json.loads(request.body)["entityId"] for request in requests]


def test_the_key_is_not_shown():
    """
    Neither the settings nor a request print the key, and encoding them fails without it.
    """
    settings = destination()
    [request] = settings.requests([event(name="purchase", properties={"link": "497b3422"})], NOW)

    with pytest.raises(TypeError) as error:
        msgspec.json.encode(settings)

    assert KEY not in repr(settings) + repr(request) + str(error.value)


def test_map_fills_only_what_linktrace_takes():
    """
    A field that LinkTrace does not have is an error of the configuration, not a body that nobody reads.
    """
    with pytest.raises(msgspec.ValidationError, match="linkShortCode, eventName, entityId and userId"):
        destination(map={"value": "money.value"})


class TestQuota:
    def test_is_the_plans(self):
        """
        The documented 5 000 events a month, or what the setting says of the plan.
        """
        assert (5_000, 5_000, 20_000) == (
            LinkTrace.monthly_quota,
            destination().quota(),
            destination(quota=20_000).quota(),
        )

    def test_is_named_where_it_is_used_up(self):
        """
        The reason of the hold has the number that the operator knows.
        """
        request = Request.json("https://api.linktrace.in/api/v1/events", {}, [event(name="purchase")])
        response = Response(status=429, request=request, at=NOW, body=b'{"code": "QUOTA_EXCEEDED"}')

        assert "20 000 events" in destination(quota=20_000).outcome(response).reason
        assert "quota of 12 events" in destination(quota=12).outcome(response).reason

    def test_counts_a_month_of_utc(self):
        """
        The fake LinkTrace takes its quota, answers 429 with the first of next month, and takes again then; we wait so
        long and no longer.
        """
        linktrace = partner(quota=2)
        carried = [event(id=i, name="purchase", properties={"link": "497b3422"}) for i in "abc"]
        *_, third = requests = list(destination().requests(carried, NOW))

        answers = [linktrace.answer(sent(request)) for request in requests]
        refused = answers[-1]
        response = Response(status=refused.status, request=third, at=NOW, body=msgspec.json.encode(refused.body))
        hold = destination().outcome(response)
        again = linktrace.answer(sent(third, at=hold.until))
        response = Response(status=again.status, request=third, at=hold.until, body=msgspec.json.encode(again.body))

        assert [202, 202, 429] == [answer.status for answer in answers]
        assert milliseconds("2026-12-01T00:00:00Z") == hold.until
        assert Delivered() == destination().outcome(response)

    def test_does_not_count_stage_links(self):
        """
        Links of the test environment use up no quota.
        """
        linktrace = partner(quota=0, stage=["497b3422"])
        [request] = destination().requests([event(name="purchase", properties={"link": "497b3422"})], NOW)

        assert 202 == linktrace.answer(sent(request)).status


@pytest.mark.parametrize(
    ("setup", "key", "status"),
    [({}, "wrong", 401), ({"plan": "free"}, KEY, 403), ({"links": ["other123"]}, KEY, 404)],
    ids=["another key", "the free plan", "a link of another account"],
)
def test_the_fake_refuses(setup, key, status):
    """
    The fake LinkTrace checks key, plan and link as the page says.
    """
    [request] = destination(api_key=key).requests([event(name="buy", properties={"link": "497b3422"})], NOW)

    assert status == partner(**setup).answer(sent(request)).status


LINK = NewLink(
    referrer_identifier="user_9821",
    source="home_tab",
    campaign="summer_referral",
    medium="social",
    environment="production",
    custom_payload={"cta": "friend_invite_popup", "date": "Apr 2026"},
)
# https://linktrace.in/documentation/how-it-works/, Create the Link: its body, and the data of its 201
LINK_BODY = {
    "referrerIdentifier": "user_9821",
    "source": "home_tab",
    "campaign": "summer_referral",
    "medium": "social",
    "environment": "production",
    "customPayload": {"cta": "friend_invite_popup", "date": "Apr 2026"},
}
LINK_DATA = {
    "shortCode": "56ff9241",
    "referralLink": "https://app.linktrace.in/r/56ff9241",
    "referrerIdentifier": "user_9821",
    "source": "home_tab",
    "campaign": "summer_referral",
    "environment": "production",
}


class TestLinks:
    def test_made_by_the_documented_call(self):
        """
        Method, address, headers and body are those of LinkTrace's page.
        """
        request = destination().link_creation(LINK)

        assert ("POST", "https://api.linktrace.in/api/v1/referral-links") == (request.method, request.url)
        assert {"Content-Type": "application/json", "x-api-key": Secret(KEY)} == request.headers
        assert LINK_BODY == json.loads(request.body)

    def test_looked_up_by_a_get_with_the_key(self):
        """
        A look-up asks for one short code, with the key and without a body.
        """
        request = destination().link_lookup("56ff9241")

        address = ("GET", "https://api.linktrace.in/api/v1/referral-links/metadata", {"shortCode": "56ff9241"}, b"")
        assert address == (request.method, request.url, request.query, request.body)
        assert {"x-api-key": Secret(KEY)} == request.headers

    def test_the_documented_answer_is_read(self):
        """
        The link of the page's 201 is found in it.
        """
        body = msgspec.json.encode({"success": True, "data": LINK_DATA})
        response = Response(status=201, request=destination().link_creation(LINK), at=NOW, body=body)

        assert LINK_DATA == linktrace.link_data(response)

    @pytest.mark.parametrize(
        ("status", "body", "says"),
        [
            (200, b"<html>", "look at the dashboard"),
            (200, b'{"success": false, "data": {}}', "look at the dashboard"),
            (302, b"", "correct base_url"),
            (400, b"{}", "missing or invalid"),
            (401, b"{}", "set api_key"),
            (403, b'{"code": "PLAN_UPGRADE_REQUIRED"}', "upgrade"),
            (403, b'{"code": ["?"]}', "check api_key"),
            (404, b'{"code": "LINK_NOT_FOUND"}', "not in this account"),
            (404, b"<html>", "correct base_url"),
            (429, b"", "try again later"),
            (500, b"", "HTTP 500"),
        ],
    )
    def test_an_answer_without_a_link_says_what_to_do(self, status, body, says):
        """
        Every other answer is no link, and comes with its remedy.
        """
        response = Response(status=status, request=destination().link_lookup("56ff9241"), at=NOW, body=body)

        assert linktrace.link_data(response) is None
        assert says in linktrace.link_refusal(response)

    def test_the_fake_knows_what_it_made(self):
        """
        A link made at the fake LinkTrace is looked up there, takes events, and uses no quota where it is for trying.
        """
        fake = partner(links=[], quota=0)
        made = {
            where: fake.answer(sent(destination().link_creation(msgspec.structs.replace(LINK, environment=where)))).body
            for where in ("production", "stage")
        }
        codes = {where: answer["data"]["shortCode"] for where, answer in made.items()}
        found = fake.answer(sent(destination().link_lookup(codes["stage"])))
        requests = destination().requests(
            [event(name="buy", properties={"link": code}) for code in codes.values()], NOW
        )

        assert {**LINK_BODY, "environment": "stage"} == {name: found.body["data"][name] for name in LINK_BODY}
        assert [429, 202] == [fake.answer(sent(request)).status for request in requests]

    @pytest.mark.parametrize(
        "changes",
        [
            {"referrerIdentifier": ""},
            {"referrerIdentifier": None},
            {"environment": "test"},
            {"medium": 7},
            {"customPayload": {"a": "1", "b": "2", "c": "3", "d": "4"}},
            {"customPayload": {"a": 1}},
            {"customPayload": []},
            {"name": "unknown"},
        ],
        ids=json.dumps,
    )
    def test_the_fake_refuses_a_link(self, changes):
        """
        The fake LinkTrace takes a link's documented fields with their types, and no other.
        """
        body = {**LINK_BODY, **changes}
        request = Request.json(LinkTrace.home + "/api/v1/referral-links", body, [], headers={"x-api-key": KEY})

        assert 400 == partner().answer(sent(request)).status

    @pytest.mark.parametrize(
        ("query", "status"),
        [({}, 400), ({"shortCode": "a-b"}, 400), ({"shortCode": "497b3422", "x": "1"}, 400), ({"shortCode": "none0000"}, 404),
         ({"shortCode": "497b3422"}, 200)],
        ids=["nothing", "no code", "something else too", "an unknown code", "a known code"],
    )  # fmt: skip
    def test_the_fake_looks_up_one_code(self, query, status):
        """
        The fake LinkTrace's look-up takes one well-formed short code of the account.
        """
        request = msgspec.structs.replace(destination().link_lookup("497b3422"), query=query)

        assert status == partner(links=["497b3422"]).answer(sent(request)).status


@pytest.mark.parametrize("plan", ["free", "scale"])
@pytest.mark.parametrize(
    ("method", "path", "free"),
    [
        ("POST", "/api/v1/events", False),
        ("POST", "/api/v1/attributions", True),
        ("POST", "/api/v1/referral-links", True),
        ("GET", "/api/v1/referral-links/metadata", True),
    ],
)
class TestPlanRequirements:
    def test_the_fake_has_the_pages_table(self, plan, method, path, free):
        """
        Events need the Scale plan, everything else is free, and nothing goes without a key.
        """
        call = Call(method=method, path=path, headers={"x-api-key": KEY, "content-type": "application/json"}, at=NOW)

        assert (plan == "free" and not free) == (403 == partner(plan=plan).answer(call).status)
        assert 401 == partner(plan=plan).answer(msgspec.structs.replace(call, headers={})).status

    def test_the_fake_wants_json(self, plan, method, path, free):
        """
        A body of another type is refused.
        """
        call = Call(method=method, path=path, headers={"x-api-key": KEY, "content-type": "text/plain"}, at=NOW)

        assert {400} >= {partner(plan=plan).answer(call).status} - {403}


@pytest.mark.parametrize("path", ["events", "attributions", "referral-links"])
@pytest.mark.parametrize("body", [b"", b"[]", b'{"linkShortCode":', b'"text"', b"{}"])
def test_the_fake_wants_an_object(path, body):
    """
    Whatever is no JSON object with the fields needed is refused with 400.
    """
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    call = Call(method="POST", path=f"/api/v1/{path}", headers=headers, body=body, at=NOW)

    assert 400 == partner().answer(call).status


@pytest.mark.parametrize("path", ["/api/v1/event", "/api/v1/events/", "/"])
def test_the_fake_has_four_addresses(path):
    """
    Another address is not found, and not in LinkTrace's words, so that the lane is held.
    """
    [request] = destination().requests([event(name="buy", properties={"link": "497b3422"})], NOW)
    answer = partner().answer(Call(method="POST", path=path, headers={"x-api-key": KEY}, at=NOW))

    assert 404 == answer.status
    assert isinstance(destination().outcome(answered(request, answer)), Hold)
