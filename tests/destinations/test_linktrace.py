"""LinkTrace: what we send is what its page asks for, and every documented answer means what it should."""

import datetime as dt
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from destinations.linktrace import LinkTrace, snake_case
from router.destination import Request, Response
from router.event import Event, Money, Page
from router.mocks import linktrace as mock
from router.mocks.partner import Call
from router.outcome import Delivered, Outcome, Refusal
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
    return Call(method=request.method, path=path, headers=headers, body=request.body, at=at)


def partner(**setup) -> mock.LinkTrace:
    return mock.LinkTrace(now=lambda: NOW, key=KEY, **setup)


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


events = st.builds(
    lambda ident, name, code, order, link: event(
        id=ident,
        name=name,
        money=Money(order_id=order),
        page=Page(url=link),
        properties={} if code is None else {"link_short_code": code},
    ),
    ident=st.text(min_size=1, max_size=300),
    name=st.one_of(st.text(max_size=60), st.sampled_from(["click", "Open", "purchase", "Order Completed", "9lives"])),
    code=st.one_of(st.none(), st.text(max_size=34), st.from_regex(r"[A-Za-z0-9]{3,33}", fullmatch=True)),
    order=st.one_of(st.none(), st.text(max_size=300)),
    link=st.one_of(st.none(), st.just("https://app.linktrace.in/r/497b3422")),
)


@given(st.lists(events, max_size=6))
def test_whatever_is_sent_is_taken(carried):
    """
    Every event ends in one request or one refusal, in order, and LinkTrace takes every request.
    """
    linktrace = partner()

    made = list(destination().requests(carried, NOW))

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


class TestQuota:
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
