"""Snap: what it is sent, what is refused before it is asked, what its answers mean, and the fake that plays it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from destinations.snap import EVENT_NAMES, MAX_BYTES, Snap, faults
from destinations.snap import body as fields
from router.destination import Request, Response, Verdict, field
from router.door import admit
from router.event import Event
from router.mocks.partner import Answer, Call
from router.mocks.snap import DAY, HOUR, OLDEST
from router.mocks.snap import Snap as FakeSnap
from router.mocks.snap import faults as snaps_faults
from router.outcome import Delivered, Hold, Outcome, Refusal, Rejected, Split
from router.secret import Secret
from router.visit import Door, Visit

PIXEL = "11111111-2222-3333-4444-555555555555"
APP = "99999999-8888-7777-6666-555555555555"
TOKEN = "do-not-print-me"
NOW = 1_795_212_480_000
EMAIL = "542d240129883c019e106e3b1b2d3f3cb3537c43c425364de8e951d5a3083345"

PAGE_VIEW: dict[str, Any] = {
    "id": "e-0",
    "name": "page_view",
    "time": NOW - 5000,
    "received": NOW - 4000,
    "source": "shop",
    "dialect": "segment",
    "user": {"digests": {"email": EMAIL}},
    "page": {"url": "https://www.mywebsite.com/landing-page"},
}


def cases(name: str) -> list[Any]:
    found = json.loads(Path(__file__).with_name("cases").joinpath(f"{name}.json").read_bytes())
    return [pytest.param(case, id=case["name"]) for case in found]


def snap(**changes: Any) -> Snap:
    return Snap(**{"pixel_id": PIXEL, "access_token": Secret(TOKEN), "app_id": APP, **changes})


def an_event(**changes: Any) -> Event:
    return msgspec.convert({**PAGE_VIEW, **changes}, Event)


def sent(destination: Snap, events: Sequence[Event]) -> list[Request]:
    found = list(destination.requests(events, NOW))
    assert not [one for one in found if isinstance(one, Refusal)]
    return [one for one in found if isinstance(one, Request)]


def refused(destination: Snap, event: Event) -> str:
    [found] = destination.requests([event], NOW)
    assert isinstance(found, Refusal)
    assert event is found.event
    return found.reason


def call(request: Request, at: int = NOW) -> Call:
    """The request as it arrives there."""

    def plain(values: Any) -> dict[str, str]:
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in values.items()}

    return Call(
        method=request.method,
        path=urlsplit(request.url).path,
        query=plain(request.query),
        headers={name.lower(): value for name, value in plain(request.headers).items()},
        body=request.body,
        at=at,
    )


def posted(*bodies: dict[str, Any], asset: str = PIXEL, rest: str = "", token: str = TOKEN, at: int = NOW) -> Call:
    return Call(
        path=f"/v3/{asset}/events{rest}",
        query={"access_token": token} if token else {},
        headers={"content-type": "application/json"},
        body=msgspec.json.encode({"data": bodies}),
        at=at,
    )


def response(request: Request, answer: Answer) -> Response:
    return Response(status=answer.status, request=request, at=NOW, body=msgspec.json.encode(answer.body))


DIALECTS = sorted((Path(__file__).parents[1] / "dialects" / "cases").glob("*.json"))


class TestRequests:
    @pytest.mark.parametrize("case", cases("snap_requests"))
    def test_an_event_becomes_exactly_this(self, case: dict[str, Any]) -> None:
        """
        An event is sent to its asset as the vendor's page describes it, field by field.
        """
        [request] = sent(snap(**case["settings"]), [msgspec.convert(case["event"], Event)])

        assert {"data": [case["expected"]]} == msgspec.json.decode(request.body)
        assert f"https://tr.snapchat.com/v3/{case['asset']}/events" == request.url

    @pytest.mark.parametrize("case", cases("snap_requests"))
    def test_snap_would_take_it(self, case: dict[str, Any]) -> None:
        """
        Every case is one that the fake Snap takes at the time it came.
        """
        event = msgspec.convert(case["event"], Event)
        [request] = sent(snap(**case["settings"]), [event])

        assert 200 == FakeSnap(now=lambda: NOW).answer(call(request, at=event.received)).status

    def test_the_token_is_in_the_query(self) -> None:
        """
        The token goes where Snap's page puts it.
        """
        [request] = sent(snap(), [an_event()])

        assert {"access_token": Secret(TOKEN)} == request.query
        assert {"Content-Type": "application/json"} == request.headers

    def test_the_token_is_in_a_header_where_asked_for(self) -> None:
        """
        With token_in_header no URL holds the token.
        """
        [request] = sent(snap(token_in_header=True), [an_event()])

        assert {} == request.query
        assert Secret(f"Bearer {TOKEN}") == request.headers["Authorization"]
        assert 200 == FakeSnap(now=lambda: NOW).answer(call(request)).status

    @pytest.mark.parametrize("in_header", [False, True], ids=["in the query", "in a header"])
    def test_the_token_is_never_printed(self, *, in_header: bool) -> None:
        """
        Neither the destination nor its requests show the token.
        """
        destination = snap(token_in_header=in_header)

        assert TOKEN not in f"{destination!r} {sent(destination, [an_event()])!r}"

    def test_one_more_than_a_batch_is_two_requests(self) -> None:
        """
        A request holds at most 2000 events, and the order is kept.
        """
        events = [an_event(id=f"e-{number}") for number in range(2001)]

        requests = sent(snap(batch=5000), events)

        assert [2000, 1] == [len(request.events) for request in requests]
        assert [event.id for event in events] == [
            body["event_id"] for request in requests for body in msgspec.json.decode(request.body)["data"]
        ]

    def test_the_configured_batch_is_kept(self) -> None:
        """
        A smaller batch than Snap's is the operator's choice.
        """
        requests = sent(snap(batch=2), [an_event(id=f"e-{number}") for number in range(5)])

        assert [2, 2, 1] == [len(request.events) for request in requests]

    def test_a_request_has_a_size(self) -> None:
        """
        Large events make smaller batches.
        """
        url = "https://www.mywebsite.com/" + "x" * 30_000

        requests = sent(snap(batch=2000), [an_event(id=f"e-{number}", page={"url": url}) for number in range(100)])

        assert [66, 34] == [len(request.events) for request in requests]
        assert all(len(request.body) <= MAX_BYTES + 100 for request in requests)

    def test_app_and_web_never_share_a_request(self) -> None:
        """
        App events go to the app's address and everything else to the pixel's, each in its order.
        """
        web, app, web_again = an_event(id="1"), an_event(id="2", kind="screen"), an_event(id="3")

        requests = sent(snap(), [web, app, web_again])

        assert [(PIXEL, ("1", "3")), (APP, ("2",))] == [
            (request.url.split("/")[4], tuple(event.id for event in request.events)) for request in requests
        ]

    def test_validation_asks_without_sending(self) -> None:
        """
        The validate endpoint is the same request at one more path segment.
        """
        [request] = sent(snap(), [an_event()])
        question = snap().validation(request)

        assert f"https://tr.snapchat.com/v3/{PIXEL}/events/validate" == question.url
        assert request.body == question.body

    @pytest.mark.parametrize(
        ("event", "expected"),
        [
            pytest.param({}, "WEB", id="a page is web"),
            pytest.param({"app": {"name": "x"}}, "WEB", id="a page in an app is web"),
            pytest.param({"page": {}, "app": {"name": "x"}}, "MOBILE_APP", id="an app without a page is an app"),
            pytest.param({"kind": "screen"}, "MOBILE_APP", id="a screen is an app"),
            pytest.param({"properties": {"action_source": "app"}}, "MOBILE_APP", id="Meta's app is an app"),
            pytest.param({"properties": {"action_source": "PHONE_CALL"}}, "OFFLINE", id="Meta's phone_call is offline"),
            pytest.param({"properties": {"action_source": "moon"}}, "WEB", id="an unknown word says nothing"),
            pytest.param({"properties": {"type": "offline"}}, "WEB", id="type is read on purchases only"),
        ],
    )
    def test_where_it_happened(self, event: dict[str, Any], expected: str) -> None:
        """
        The sender's word decides, then the shape of the event.
        """
        assert expected == snap().body(an_event(**event))["action_source"]

    def test_test_traffic_is_marked(self) -> None:
        """
        A sender's test event never becomes a conversion, even where no code is configured.
        """
        assert "T-1" == snap().body(an_event(test="T-1"))["test_event_code"]


class TestRefusals:
    @pytest.mark.parametrize("case", cases("snap_refusals"))
    def test_what_snap_would_refuse_is_not_sent(self, case: dict[str, Any]) -> None:
        """
        A refusal names each field at fault, and Snap would have refused the same.
        """
        destination = snap(**case.get("settings", {}))
        event = an_event(**case["changes"])
        body = destination.body(event)

        assert case["fields"] == [fault.split(":")[0] for fault in faults(body)]
        assert ". ".join(faults(body)) == refused(destination, event)
        assert 400 == FakeSnap(now=lambda: NOW).answer(posted(body)).status

    @pytest.mark.parametrize(
        ("notes", "expected"),
        [
            ((), ["currency with the purchase", "value with the purchase"]),
            (("bad_currency",), ["that was sent cannot be read; send its ISO 4217 code", "value with the purchase"]),
            (("bad_value",), ["currency with the purchase", "that was sent cannot be read; send decimal numbers"]),
        ],
        ids=["neither was sent", "a currency that is none", "an amount that is none"],
    )
    def test_what_was_sent_is_not_called_missing(self, notes: tuple[str, ...], expected: list[str]) -> None:
        """
        A currency or an amount that the door could not read is told apart from one that nobody sent.
        """
        reasons = refused(snap(), an_event(name="purchase", money={}, notes=notes)).split(". ")

        assert all(words in reason for words, reason in zip(expected, reasons, strict=True))

    def test_app_events_need_an_app(self) -> None:
        """
        Without a Snap App ID an app event is refused rather than sent to the pixel.
        """
        reason = refused(snap(app_id=None), an_event(kind="screen"))

        assert "action_source: app events need a Snap App ID; set app_id" == reason

    def test_an_event_needs_an_id(self) -> None:
        """
        Snap would take an event without id, and count it again at every resend.
        """
        assert "event_id: without it a resend would count twice; send an id with the event" == refused(
            snap(), an_event(id="")
        )

    @pytest.mark.parametrize(
        ("time", "age", "expected"),
        [
            pytest.param(NOW // 1000, 7 * 86_400, [], id="now"),
            pytest.param(NOW, 7 * 86_400, [], id="now in milliseconds"),
            pytest.param((NOW - OLDEST) // 1000, 7 * 86_400, [], id="seven days back"),
            pytest.param((NOW - OLDEST) // 1000 - 1, 7 * 86_400, ["older than Snap accepts"], id="a second more"),
            pytest.param((NOW - OLDEST) // 1000 - 1, None, [], id="a second more where no age is given"),
            pytest.param(NOW + 1, None, ["in the future"], id="a millisecond ahead"),
        ],
    )
    def test_the_time_is_judged_where_it_is_known(self, time: int, age: float | None, expected: list[str]) -> None:
        """
        A time in the future and one older than the window are said; without a now neither can be.
        """
        found = list(faults(valid(event_time=time), NOW, age))

        assert len(expected) == len(found)
        assert all(words in fault for words, fault in zip(expected, found, strict=True))
        assert [] == list(faults(valid(event_time=time)))

    def test_a_refusal_repeats_nothing_sent(self) -> None:
        """
        A reason is safe to show whatever the event holds.
        """
        destination = snap(map={"user_data.fn": "properties.name", "event_time": "properties.name"})
        event = an_event(
            name="purchase",
            properties={"name": "Jane"},
            user={"digests": {"email": "Jane"}},
            clear={"ip": "Jane"},
            page={"url": "Jane"},
            money={"currency": "Jane"},
        )

        assert "Jane" not in refused(destination, event)


class TestOutcome:
    @pytest.mark.parametrize("case", cases("snap_answers"))
    def test_an_answer_means_exactly_this(self, case: dict[str, Any]) -> None:
        """
        Each documented answer, and each that is not, has one meaning and one plain sentence.
        """
        [request] = sent(snap(), [an_event(id=f"e-{number}") for number in range(case["events"])])
        body = case["text"].encode() if "text" in case else msgspec.json.encode(case["body"])
        expected = msgspec.convert(case["expected"], Outcome, strict=False)

        assert expected == snap().outcome(Response(status=case["status"], request=request, at=NOW, body=body))

    def test_a_quotation_is_cut(self) -> None:
        """
        However much Snap says, at most 200 characters of it are shown.
        """
        [request] = sent(snap(), [an_event()])
        body = msgspec.json.encode({"status": "INVALID", "reason": "too long " * 200})

        outcome = snap().outcome(Response(status=400, request=request, at=NOW, body=body))

        assert isinstance(outcome, Rejected)
        assert 200 == len(outcome.reason.removeprefix("Snap refused the event: ").partition(";")[0])

    @settings(deadline=None)
    @given(
        status=st.integers(200, 599),
        body=st.binary(max_size=200)
        | st.recursive(
            st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["status", "event", "errors", "codes", "error_msgs", "reason"]), inner, max_size=4
                )
            ),
        ).map(msgspec.json.encode),
        events=st.integers(1, 3),
    )
    def test_no_answer_is_a_fault_of_ours(self, status: int, body: bytes, events: int) -> None:
        """
        Whatever comes back, it has a meaning, and only members of the batch are pointed at.
        """
        [request] = sent(snap(), [an_event(id=f"e-{number}") for number in range(events)])

        outcome = snap().outcome(Response(status=status, request=request, at=NOW, body=body))

        if isinstance(outcome, Split):
            assert events > 1
            assert set(outcome.rejected) <= set(range(events))


class TestVerdict:
    @pytest.mark.parametrize("case", cases("snap_verdicts"))
    def test_an_answer_means_exactly_this(self, case: dict[str, Any]) -> None:
        """
        The answer to a question is told event by event; one that is not about events says nothing of them.
        """
        [request] = sent(snap(), [an_event(id=f"e-{number}") for number in range(case["events"])])
        body = case["text"].encode() if "text" in case else msgspec.json.encode(case["body"])
        answer = Response(status=case["status"], request=snap().validation(request), at=NOW, body=body)

        assert msgspec.convert(case["expected"], Verdict) == snap().verdict(answer)

    def test_snap_and_ours_agree_on_a_bad_event(self) -> None:
        """
        What the fake Snap says of an event that is too old is read back with its index and without the event's words.
        """
        [request] = sent(snap(), [an_event(), an_event(id="e-1", time=NOW - 30 * DAY, clicks={"ScCid": "c"})])
        question = snap().validation(request)
        verdict = snap().verdict(response(question, FakeSnap(now=lambda: NOW).answer(call(question))))

        assert False is verdict.valid
        assert {
            (0, "warning", "sc_click_id … sc_cookie1 are recommended"),
            (1, "error", "TIMESTAMP_OUT_OF_RANGE"),
            (1, "error", "event_time is out of range"),
        } == {(index, severity, words.replace(" and ", " … ")) for index, severity, words in verdict.findings}


class TestReports:
    @pytest.mark.parametrize("case", cases("snap_reports"))
    def test_an_answer_becomes_exactly_these_rows(self, case: dict[str, Any]) -> None:
        """
        Snap's logs and counters are shown without anything that they repeat from an event.
        """
        request = snap().reports()["logs"]
        body = case["text"].encode() if "text" in case else msgspec.json.encode(case["body"])

        assert case["expected"] == snap().report_rows(
            Response(status=case["status"], request=request, at=NOW, body=body)
        )

    @pytest.mark.parametrize("in_header", [False, True], ids=["token in the query", "token in a header"])
    def test_each_is_a_question_without_events(self, *, in_header: bool) -> None:
        """
        Pixel and app each have logs and counters, asked for with GET and the token.
        """
        found = snap(token_in_header=in_header).reports()
        fake = FakeSnap(now=lambda: NOW)

        assert ["logs", "stats", "app logs", "app stats"] == list(found)
        assert [PIXEL, PIXEL, APP, APP] == [request.url.split("/")[4] for request in found.values()]
        assert {("GET", b"", ())} == {(request.method, request.body, request.events) for request in found.values()}
        assert {200} == {fake.answer(call(request)).status for request in found.values()}

    def test_without_an_app_there_is_nothing_of_it(self) -> None:
        """
        Without a Snap App ID only the pixel is asked about.
        """
        assert ["logs", "stats"] == list(snap(app_id=None).reports())

    def test_what_was_validated_is_listed(self) -> None:
        """
        What the fake Snap judged comes back as rows, of its own asset alone.
        """
        fake, destination = FakeSnap(now=lambda: NOW), snap()
        [request] = sent(destination, [an_event(clicks={"ScCid": "c"})])
        fake.take(call(destination.validation(request)))
        fake.take(call(request))
        rows = {
            name: destination.report_rows(response(question, fake.answer(call(question))))
            for name, question in destination.reports().items()
        }

        assert [("PAGE_VIEW", "VALID", [])] == [
            (row["event_name"], row["status"], row["warning_records"]) for row in rows["logs"]
        ]
        assert {"live": 1, "test": 1} == {row["events"]: row["event_count_past_hour"] for row in rows["stats"]}
        assert [] == rows["app logs"]
        assert {"live": 0, "test": 0} == {row["events"]: row["event_count_past_hour"] for row in rows["app stats"]}


SOUND_WEB: dict[str, Any] = {
    "clicks": {"ScCid": "c"},
    "cookies": {"_scid": "s"},
    "clear": {"ip": "192.0.2.7", "user_agent": "x"},
}
SOUND_APP: dict[str, Any] = {
    "kind": "screen",
    "clear": {"advertising_id": "38400000-8cf0-11bd-b23e-10b96e40000d"},
    "device": {"tracking_enabled": False},
}


class TestHints:
    @pytest.mark.parametrize(
        ("event", "words"),
        [
            pytest.param(SOUND_WEB, [], id="nothing to say of a whole web event"),
            pytest.param(SOUND_APP, [], id="nothing to say of a whole app event"),
            pytest.param({**SOUND_WEB, "page": {}, "properties": {"action_source": "offline"}}, [], id="nor offline"),
            pytest.param({**SOUND_WEB, "user": {}}, ["no e-mail and no phone"], id="nobody by name"),
            pytest.param({**SOUND_WEB, "clicks": {"gclid": "g"}}, ["no click id"], id="no click id"),
            pytest.param({**SOUND_WEB, "cookies": {}}, ["no _scid cookie"], id="no cookie"),
            pytest.param(
                {**SOUND_WEB, "cookies": {}, "user": {"anonymous_id": "v", "digests": {"email": EMAIL}}},
                [],
                id="a cookie of one's own",
            ),
            pytest.param(
                {**SOUND_WEB, "clear": {"ip": "192.0.2.7"}}, ["no IP address with user agent"], id="no browser"
            ),
            pytest.param({**SOUND_APP, "clear": {}}, ["no advertising id"], id="no advertising id"),
            pytest.param({**SOUND_APP, "device": {}}, ["nothing is said of App Tracking"], id="no answer on tracking"),
            pytest.param({**SOUND_WEB, "money": {"value": "1"}}, ["a value without currency"], id="no currency"),
            pytest.param(
                {**SOUND_WEB, "name": "purchase", "money": {"value": "1", "currency": "EUR"}},
                ["a purchase without order id"],
                id="no order id",
            ),
            pytest.param({**SOUND_WEB, "notes": ["own_id"]}, ["no event id of the sender's"], id="an id of ours"),
        ],
    )
    def test_what_is_allowed_and_a_pity(self, event: dict[str, Any], words: list[str]) -> None:
        """
        Each thing that costs matches or a true report is said once, in words that begin with it.
        """
        found = list(snap().hints(an_event(**event)))

        assert len(words) == len(found)
        assert all(hint.startswith(begin) for hint, begin in zip(found, words, strict=True))


class TestFromTheSender:
    def test_the_pages_own_body_goes_out_as_it_came_in(self) -> None:
        """
        Whoever posts the body of Snap's page to us has it delivered whole: the sixteen texts, the opt-out, the person.
        """
        case = json.loads((Path(__file__).parents[1] / "dialects/cases/plain-snap-example.json").read_bytes())
        event = admit(case["item"], Door(source="shop", keep_clear=Snap.clear), Visit(received=NOW), lambda: "own-id")
        assert isinstance(event, Event)
        body = snap(map={f"custom_data.{name}": f"properties.{name}" for name in ("referrer_url", "custom_id")}).body(
            event
        )

        expected = {
            **case["item"],
            "integration": "turnout",
            "event_name": "PURCHASE",
            "event_id": "own-id",
            "data_processing_options": ["LMU"],
            "app_data": {**case["item"]["app_data"], "app_id": "com.some.app"},
        }
        assert expected == body

    @pytest.mark.parametrize("path", DIALECTS, ids=lambda path: path.stem)
    def test_every_documented_payload_is_judged(self, path: Path) -> None:
        """
        Whatever sender's page an event is from, Snap takes what we would send of it and refuses what we refuse.
        """
        case = json.loads(path.read_bytes())
        visit = Visit(received=NOW, call=case.get("call"), wrapper=case.get("wrapper", {}), dialect=case.get("dialect"))
        event = admit(case["item"], Door(source="shop", keep_clear=Snap.clear), visit, lambda: "own-id")
        assert isinstance(event, Event)
        event = msgspec.structs.replace(event, time=NOW)
        body = snap().body(event)

        assert bool(list(faults(body))) == bool(list(snaps_faults(body, NOW)))


class TestSettings:
    @pytest.mark.parametrize(
        ("table", "rate"),
        [
            pytest.param({}, None, id="a long-lived token has the class's rate"),
            pytest.param({"oauth": True}, "10/s", id="an OAuth token has Snap's smaller rate"),
            pytest.param({"oauth": True, "rate": "5/s"}, "5/s", id="the operator's rate wins"),
        ],
    )
    def test_the_rate_follows_the_token(self, table: dict[str, Any], rate: str | None) -> None:
        """
        OAuth tokens are allowed 10 requests a second, long-lived ones 1000.
        """
        assert rate == snap(**table).rate
        assert "1000/s" == Snap.default_rate

    @pytest.mark.parametrize("age", ["38d", "889h", "3196801s"])
    def test_nothing_older_than_snap_reports(self, age: str) -> None:
        """
        An age beyond the 37 days that Snap reports is refused with the configuration, with what to write instead.
        """
        with pytest.raises(ValueError, match='at most "37d"'):
            snap(max_age=age)

    @pytest.mark.parametrize("age", ["37d", "888h", "1ms", "soon"])
    def test_a_shorter_age_is_the_operators_choice(self, age: str) -> None:
        """
        Up to 37 days anything goes; what is no duration at all is said where durations are read.
        """
        assert age == snap(max_age=age).max_age

    def test_what_snap_matches_by(self) -> None:
        """
        Every identifier names fields that an event has, and Snap's name of it.
        """
        event = an_event(
            user={"digests": {"email": EMAIL, "phone": EMAIL, "external_id": EMAIL}},
            clear={"ip": "192.0.2.7", "user_agent": "x", "advertising_id": "38400000-8cf0-11bd-b23e-10b96e40000d"},
            clicks={"ScCid": "c"},
            cookies={"_scid": "s"},
            kind="screen",
        )
        sent_by = snap().body(event)["user_data"]

        assert all(field(event, path) for paths in Snap.identifiers.values() for path in paths)
        assert sent_by.keys() - {"client_ip_address", "client_user_agent"} == Snap.identifiers.keys() - {"ip+ua"}

    @pytest.mark.parametrize("name", ["pixel_id", "app_id"])
    @pytest.mark.parametrize("asset", ["", "a/b", "x?y", "ü"])
    def test_an_id_is_one_path_segment(self, name: str, asset: str) -> None:
        """
        An id that would change the address is refused with the configuration.
        """
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(asset, get_type_hints(Snap, include_extras=True)[name])

    def test_every_default_name_is_one_of_snaps(self) -> None:
        """
        The default mapping names only events that Snap documents.
        """
        assert set((Snap.default_events or {}).values()) == EVENT_NAMES == Snap.partner_names
        assert 31 == len(EVENT_NAMES)


DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
WORDS = st.text(min_size=1, max_size=12)
ANYTHING = st.none() | st.booleans() | st.integers(-10, 10) | st.floats(-10, 10) | WORDS | st.lists(WORDS, max_size=3)
AMOUNTS = st.decimals(0, 9999, places=2).map(str)
URLS = st.sampled_from(["https://a.example/x?ScCid=1", "HTTP://a.example"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


# Names that Snap's page gives to what a sender may have said, in any form.
SAID = [
    *("num_adults", "content_ids", "contents", "custom_fields", "predicted_ltv", "num_items", "brands", "status"),
    *("travel_start", "hotel_score", "suggested_hotels", "city", "anon_id", "lead_id", "app_data", "app_id"),
    *("extinfo", "url_schemes", "campaign_ids", "advertiser_tracking_enabled", "application_tracking_enabled"),
    *("data_processing_options", "content_category", "install_referrer"),
]
ITEMS = some(
    id=WORDS, name=WORDS, price=AMOUNTS, quantity=st.integers(0, 9), brand=WORDS, category=WORDS, extra=some(x=ANYTHING)
)
# Events that Snap would take, with more or less in them ...
SOUND = st.fixed_dictionaries(
    {
        "id": st.uuids().map(str),
        "name": st.sampled_from(["purchase", *(Snap.default_events or {})]),
        "time": st.integers(NOW - OLDEST + HOUR, NOW + DAY),
        "received": st.integers(NOW - OLDEST + HOUR, NOW),
        "user": st.builds(
            lambda traits, digests: {"anonymous_id": "v", "traits": traits, "digests": {"email": EMAIL, **digests}},
            st.dictionaries(st.sampled_from(SAID), ANYTHING, max_size=2),
            some(**dict.fromkeys(["email", "phone", "first_name", "zip", "country", "external_id"], DIGESTS)),
        ),
        "page": st.fixed_dictionaries({"url": URLS}),
        "money": st.fixed_dictionaries({"value": AMOUNTS, "currency": st.sampled_from(["EUR", "USD"])}),
    },
    optional={
        "kind": st.sampled_from(["track", "page", "screen"]),
        "device": some(
            os_name=st.sampled_from(["Android", "iOS", "HaikuOS"]),
            timezone=WORDS,
            screen_density=st.floats(0, 9),
            tracking_enabled=st.booleans(),
            model=WORDS,
            cpu_cores=st.integers(1, 64),
            storage=AMOUNTS,
        ),
        "app": some(namespace=WORDS, version=WORDS),
        "consent": some(opt_out=st.booleans()),
        "items": st.lists(ITEMS, max_size=3),
        "clicks": some(ScCid=WORDS, fbclid=WORDS),
        "cookies": some(_scid=WORDS),
        "partners": some(
            snapchat=some(click_id=ANYTHING, test_code=ANYTHING)
            | WORDS
            | st.dictionaries(st.sampled_from(SAID), ANYTHING, max_size=2)
        ),
        "properties": st.dictionaries(
            st.sampled_from(["action_source", "type", "brand", "search_term", "label", *SAID]),
            ANYTHING | st.dictionaries(st.sampled_from(["a", *SAID]), ANYTHING, max_size=3),
            max_size=4,
        )
        | some(action_source=st.sampled_from(["offline", "website", "app"]), type=st.sampled_from(["call", "online"])),
        "clear": some(
            ip=st.ip_addresses().map(str),
            user_agent=WORDS,
            advertising_id=st.uuids().map(str),
            idfv=st.uuids().map(str),
        ),
    },
)
# ... and what may be wrong with one.
FLAWS: list[dict[str, Any]] = [
    {"name": "refund"},
    {"name": "lead"},
    {"name": "vip"},
    {"user": {}},
    {"user": {}, "clear": {"ip": "192.0.2.7", "user_agent": "x"}},
    {"user": {}, "kind": "screen", "clear": {"advertising_id": "38400000-8cf0-11bd-b23e-10b96e40000d"}},
    {"user": {"digests": {"email": EMAIL.upper()}}},
    {"user": {"digests": {"email": "jane@example.com", "phone": EMAIL}}},
    {"user": {"digests": {"email": EMAIL, "zip": sha256(b"").hexdigest()}}},
    {"page": {}},
    {"page": {"url": "/x"}},
    {"page": {"url": "ftp://a"}},
    {"page": {"url": "https://"}},
    {"money": {}},
    {"money": {"revenue": "1", "currency": "EUR"}},
    {"money": {"value": "1"}},
    {"money": {"value": "1", "currency": "eur"}},
    {"clear": {"ip": EMAIL, "user_agent": "x"}},
    {"clear": {"ip": "1.2.3"}},
]
EVENTS = st.builds(lambda event, flaw: an_event(**{**event, **flaw}), SOUND, st.just({}) | st.sampled_from(FLAWS))
BATCHES = st.lists(EVENTS, max_size=6, unique_by=lambda event: event.id)
DESTINATIONS = st.builds(
    snap,
    batch=st.none() | st.integers(1, 3),
    app_id=st.sampled_from([APP, APP, None]),
    ios_app_id=st.sampled_from([None, "389801252"]),
    opt_out_field=st.sampled_from(["data_processing_options", "data_use"]),
    time_unit=st.sampled_from(["s", "ms"]),
    events=st.none() | st.just({**(Snap.default_events or {}), "vip": "custom_event_1", "lead": "LEAD"}),
    map=st.just({})
    | st.dictionaries(
        st.sampled_from(
            [
                *("custom_data.label", "custom_data.value", "custom_data", "user_data.em", "app_data", "data_use"),
                *("event_source_url", "custom_data.custom_fields.label", "custom_data.num_items", "app_data.app_id"),
            ]
        ),
        st.sampled_from(["properties.label", "user.digests.email", "page.url", "money.value"]),
        max_size=1,
    ),
)


# Every field that Snap's page names, but event_id: an event without one is acceptable to Snap, and not to us.
ROOT = [
    *("event_name", "event_time", "action_source", "event_source_url", "integration", "test_event_code"),
    *("data_processing_options", "data_use", "user_data", "custom_data", "app_data"),
]
USER = [
    *("em", "ph", "fn", "ln", "ge", "ct", "st", "zp", "country", "db", "external_id", "client_ip_address"),
    *("client_user_agent", "sc_click_id", "sc_cookie1", "madid", "idfv", "subscription_id", "lead_id", "download_id"),
    *("partner_id", "anon_id"),
]
CUSTOM = [
    *("currency", "value", "content_ids", "contents", "content_type", "content_name", "content_category"),
    *("num_items", "order_id", "search_string", "sign_up_method", "delivery_category", "status", "event_tag", "brands"),
    *("predicted_ltv", "custom_fields", "checkin_date", "travel_start", "travel_end", "departing_departure_date"),
    *("departing_arrival_date", "returning_departure_date", "returning_arrival_date", "origin_airport"),
    *("destination_airport", "country", "city", "region", "neighborhood", "postal_code", "hotel_score", "num_adults"),
    *("num_children", "num_infants", "suggested_destinations", "suggested_hotels", "preferred_neighborhoods"),
    *("preferred_star_ratings", "destination_ids", "a_field_of_ones_own"),
]
APP_DATA = [
    *("app_id", "advertiser_tracking_enabled", "application_tracking_enabled", "extinfo", "campaign_ids"),
    *("install_referrer", "installer_package", "windows_attribution_id", "url_schemes"),
]
FIELDS = [
    *ROOT,
    *(f"user_data.{name}" for name in USER),
    *(f"custom_data.{name}" for name in CUSTOM),
    *(f"app_data.{name}" for name in APP_DATA),
]
GONE: Any = object()
SETTINGS_OF_A_FIELD: list[Any] = [
    *(GONE, None, True, False, 0, 1, 2, 12345, 1.5),
    *("", "x", "12", "1.50", ".5", "1.", "EUR", "eur", "WEB", "Purchase", "search", str(NOW)),
    *(EMAIL, EMAIL.upper(), sha256(b"").hexdigest()),
    *([], ["x"], [1], [EMAIL], [EMAIL, "x"], {}, {"a": "b"}, {"a": 1}),
    *([{}], [{"id": 1}], [{"brand": "x", "id": []}], [{"quantity": True}]),
    *([""] * 15, [""] * 16, ["i2", *[""] * 15]),
    *("192.0.2.7", "2001:db8::7", "192.0.2", "https://a.example/x", "https://", " https://a.example", "//a.example"),
    *(NOW, NOW // 1000, NOW - 38 * DAY, NOW // 1000 + 3600),
]


def a_body(source: str) -> dict[str, Any]:
    event = an_event(kind="screen") if source == "MOBILE_APP" else an_event(properties={"action_source": source})
    return snap().body(event)


def change(body: dict[str, Any], path: str, value: Any) -> None:
    part, _, name = path.rpartition(".")
    holder = body.setdefault(part, {}) if part else body
    if isinstance(holder, dict):
        if value is GONE:
            holder.pop(name, None)
        else:
            holder[name] = value


def acceptable_to_us(body: dict[str, Any]) -> bool:
    return not list(faults(body, NOW, 7 * 86_400))


def acceptable_to_snap(body: dict[str, Any]) -> bool:
    return not list(snaps_faults(body, NOW))


class TestLaws:
    @settings(max_examples=120, deadline=None)
    @given(DESTINATIONS, BATCHES)
    def test_snap_takes_what_is_sent(self, destination: Snap, events: list[Event]) -> None:
        """
        Every request, from any events, keeps every rule that the fake Snap knows.
        """
        for request in destination.requests(events, NOW):
            if isinstance(request, Request):
                assert "VALID" == FakeSnap(now=lambda: NOW).answer(call(request)).body["status"]

    @settings(max_examples=120, deadline=None)
    @given(DESTINATIONS, EVENTS)
    def test_snap_would_refuse_what_is_refused(self, destination: Snap, event: Event) -> None:
        """
        Nothing is refused here that Snap would take, but app events that have no address.
        """
        body = destination.body(event)
        for found in destination.requests([event], NOW):
            if isinstance(found, Refusal) and destination.asset(body) is not None:
                assert "INVALID" == FakeSnap(now=lambda: NOW).answer(posted(body)).body["status"]

    @pytest.mark.parametrize("source", ["WEB", "MOBILE_APP", "OFFLINE"])
    def test_both_judge_every_field_alike(self, source: str) -> None:
        """
        Whatever one documented field is set to, the lint and the fake Snap agree on whether the event is acceptable.
        """
        apart = []
        for path in FIELDS:
            for value in SETTINGS_OF_A_FIELD:
                body = a_body(source)
                change(body, path, value)
                if acceptable_to_us(body) != acceptable_to_snap(body):
                    apart.append((path, value))

        assert [] == apart

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from(["WEB", "MOBILE_APP", "OFFLINE"]),
        st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(SETTINGS_OF_A_FIELD)), min_size=2, max_size=4),
    )
    def test_both_judge_alike(self, source: str, changes: list[tuple[str, Any]]) -> None:
        """
        So they do where several fields are set: those that depend on each other, too.
        """
        body = a_body(source)
        for path, value in changes:
            change(body, path, value)

        assert acceptable_to_us(body) == acceptable_to_snap(body)

    @settings(deadline=None)
    @given(DESTINATIONS, BATCHES)
    def test_every_event_ends_once(self, destination: Snap, events: list[Event]) -> None:
        """
        The events of the requests and of the refusals are exactly those given, each once.
        """
        ended: list[str] = []
        for found in destination.requests(events, NOW):
            ended += [event.id for event in found.events] if isinstance(found, Request) else [found.event.id]

        assert sorted(event.id for event in events) == sorted(ended)

    @settings(deadline=None)
    @given(DESTINATIONS, BATCHES)
    def test_a_retry_sends_the_same_bytes(self, destination: Snap, events: list[Event]) -> None:
        """
        The same events give the same requests, whatever the time.
        """
        assert list(destination.requests(events, NOW)) == list(destination.requests(events, NOW + DAY))


def valid(**changes: Any) -> dict[str, Any]:
    return {**snap().body(an_event()), **changes}


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != name}


class TestFake:
    """The other side, written from the vendor's page alone."""

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            pytest.param({"event_time": (NOW - OLDEST) // 1000 - 60}, "event_time", id="older than seven days"),
            pytest.param({"event_time": NOW // 1000 + 3600}, "event_time", id="in the future"),
            pytest.param({"event_time": str(NOW)}, "event_time", id="a time as text"),
            pytest.param({"event_time": 12345}, "event_time", id="a time of few digits"),
            pytest.param({"action_source": "website"}, "action_source", id="not a native action_source"),
            pytest.param({"data_processing_options": "['LMU']"}, "data_processing_options", id="options as text"),
            pytest.param({"user_data": []}, "user_data", id="user_data as a list"),
            pytest.param({"custom_data": {"value": True}}, "value", id="a value that is no number"),
            pytest.param({"custom_data": []}, "custom_data", id="custom_data as a list"),
            pytest.param({"app_data": []}, "app_data", id="app_data as a list"),
            pytest.param({"event_id": 7}, "event_id", id="an id as a number"),
        ],
    )
    def test_a_fault_is_named(self, change: dict[str, Any], field: str) -> None:
        """
        What the page documents as invalid is answered 400 with the index and the field.
        """
        answer = FakeSnap(now=lambda: NOW).answer(posted(valid(), valid(**change)))

        assert (400, "INVALID", 1) == (answer.status, answer.body["status"], answer.body["event"])
        assert field in answer.body["errors"]["error_msgs"][0]

    @pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}], ids=["none", "another"])
    def test_the_body_is_json_by_its_header(self, headers: dict[str, str]) -> None:
        """
        The page's request says Content-Type: application/json; one that does not is refused.
        """
        answer = FakeSnap(now=lambda: NOW).answer(msgspec.structs.replace(posted(valid()), headers=headers))

        assert (400, ["INVALID_CONTENT_TYPE"]) == (answer.status, answer.body["errors"]["codes"])

    def test_advice_is_a_warning(self) -> None:
        """
        What the page recommends and what it does not know is said of a valid event, and refuses none.
        """
        sent_ = valid(user_data={"em": [EMAIL], "hobby": "x"}, opt_out=True)
        answer = FakeSnap(now=lambda: NOW).answer(posted(without(sent_, "event_id"), rest="/validate"))

        assert [
            "event_id is recommended for deduplication",
            "sc_click_id and sc_cookie1 are recommended",
            "Unknown field opt_out",
            "Unknown field user_data.hobby",
        ] == answer.body["event_logs"][0]["warnings"]
        assert 200 == answer.status

    def test_offline_events_may_be_older(self) -> None:
        """
        Offline uploads reach back 37 days.
        """
        offline = valid(action_source="OFFLINE", event_time=(NOW - 36 * DAY) // 1000)

        assert 200 == FakeSnap(now=lambda: NOW).answer(posted(offline)).status

    def test_names_are_taken_in_any_case(self) -> None:
        """
        The page's own sample writes Purchase.
        """
        purchase = valid(event_name="Purchase", custom_data={"currency": "USD", "value": 142.52})

        assert 200 == FakeSnap(now=lambda: NOW).answer(posted(purchase)).status

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param([], id="no event"),
            pytest.param([valid()] * 2001, id="2001 events"),
            pytest.param([1], id="an event that is no object"),
            pytest.param([valid(), valid(action_source="MOBILE_APP")], id="events of two assets"),
        ],
    )
    def test_a_wrong_envelope_is_refused(self, data: list[Any]) -> None:
        """
        A request holds 1 to 2000 events of one asset.
        """
        assert 400 == FakeSnap(now=lambda: NOW).answer(posted(*data)).status

    @pytest.mark.parametrize(
        ("asset", "token", "status"),
        [
            pytest.param(PIXEL, "", 401, id="no token"),
            pytest.param(PIXEL, "expired", 401, id="an expired token"),
            pytest.param(PIXEL, "forbidden", 403, id="somebody else's token"),
            pytest.param(PIXEL, "invalid", 400, id="an invalid token, as Snap answers it"),
            pytest.param("unknown", TOKEN, 404, id="an unknown pixel"),
        ],
    )
    def test_bad_access_holds_the_lane(self, asset: str, token: str, status: int) -> None:
        """
        Each refusal of access means that the lane waits and no event dies.
        """
        [request] = sent(snap(), [an_event()])
        answer = FakeSnap(now=lambda: NOW).answer(posted(valid(), asset=asset, token=token))

        assert status == answer.status
        assert isinstance(snap().outcome(response(request, answer)), Hold)

    @pytest.mark.parametrize(
        ("points", "rejected"),
        [pytest.param(True, {2}, id="Snap names the event"), pytest.param(False, set(), id="Snap names nobody")],
    )
    def test_one_bad_event_splits_the_batch(self, *, points: bool, rejected: set[int]) -> None:
        """
        With an index the bad event is taken out; without one the batch is bisected.
        """
        events = [an_event(id=f"e-{number}", time=NOW - (30 * DAY if number == 2 else 0)) for number in range(4)]
        [request] = sent(snap(), events)

        outcome = snap().outcome(response(request, FakeSnap(now=lambda: NOW, points=points).answer(call(request))))

        assert isinstance(outcome, Split)
        assert rejected == set(outcome.rejected)

    def test_a_resend_is_known(self) -> None:
        """
        The same event id and name count once, whatever the case of the name.
        """
        fake = FakeSnap(now=lambda: NOW)
        fake.take(posted(valid()))
        fake.take(posted(valid(event_name="page_view"), valid(event_id="other", test_event_code="T")))

        assert (3, 2) == (fake.counts.events, fake.counts.distinct)
        assert ["1 events, 0 duplicate, 0 test", "2 events, 1 duplicate, 1 test"] == [
            one.reason for one in fake.received
        ]

    def test_an_event_without_id_is_new_every_time(self) -> None:
        """
        Without an event id Snap cannot tell a resend.
        """
        fake = FakeSnap(now=lambda: NOW)
        nameless = without(valid(), "event_id")
        fake.take(posted(nameless))
        fake.take(posted(nameless))

        assert 2 == fake.counts.distinct

    def test_the_rate_is_limited(self) -> None:
        """
        Past its limit in one second it answers 429, and takes events again in the next.
        """
        fake = FakeSnap(now=lambda: NOW, limit=1)
        statuses = [fake.answer(posted(valid(), at=at)).status for at in (NOW, NOW + 1, NOW + 1000)]

        assert [200, 429, 200] == statuses

    def test_validation_judges_every_event_and_takes_none(self) -> None:
        """
        The validate endpoint answers per event; its logs and counters tell of it for a day.
        """
        fake = FakeSnap(now=lambda: NOW)
        answer = fake.take(posted(valid(), valid(event_time=1), rest="/validate"))
        logs, later = (
            fake.answer(msgspec.structs.replace(posted(rest="/validate/logs", at=at), method="GET")).body["logs"]
            for at in (NOW, NOW + 2 * DAY)
        )
        stats = fake.answer(msgspec.structs.replace(posted(rest="/validate/stats"), method="GET")).body["stats"]

        assert ["VALID", "INVALID"] == [log["status"] for log in answer.body["event_logs"]]
        assert ["VALID", "INVALID"] == [log["status"] for log in logs]
        assert [] == later
        assert 2 == stats["test"]["event_count_past_hour"]
        assert 0 == fake.counts.events

    def test_a_sound_validation_is_delivered_nowhere(self) -> None:
        """
        A valid question is answered 200 VALID.
        """
        [request] = sent(snap(), [an_event()])
        question = snap().validation(request)

        assert Delivered() == snap().outcome(response(question, FakeSnap(now=lambda: NOW).answer(call(question))))

    @pytest.mark.parametrize(
        ("change", "status"),
        [
            pytest.param({"path": "/v2/conversion"}, 404, id="another path"),
            pytest.param({"method": "GET"}, 405, id="another method"),
            pytest.param({"body": b"{"}, 400, id="no JSON"),
            pytest.param({"path": "/v3/a/events/validate", "body": b"{"}, 400, id="no JSON to validate"),
        ],
    )
    def test_other_calls_are_refused(self, change: dict[str, Any], status: int) -> None:
        """
        Only the documented calls are answered.
        """
        assert status == FakeSnap(now=lambda: NOW).answer(msgspec.structs.replace(posted(valid()), **change)).status


class _Noting(dict[str, Any]):
    """Properties that note what they are asked for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)


def test_no_property_is_forgotten_where_most_events_have_none():
    """
    What is looked for before the properties are read is all that is read of them.
    """
    properties = _Noting({"travel_start": "2026-11-29", "custom_fields": {"a": "b"}})
    fields.custom_data(msgspec.structs.replace(an_event(), name="sign_up", items=(), properties=properties))

    assert {"travel_start", "num_items", "search_term", "brand", "country"} <= properties.asked
    assert properties.asked - fields._READ <= set(fields._PLACES)
