"""Webhook: signed as Standard Webhooks asks, the same bytes at every try, and nothing in clear."""

import base64
import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from destinations.webhook import Webhook
from router.destination import Request, Response
from router.event import Event
from router.mocks import webhook as mock
from router.mocks.partner import Call
from router.outcome import Outcome
from router.secret import Secret

CASES = json.loads((Path(__file__).parent / "cases" / "webhook.json").read_text())
NOW = 1_795_176_000_500  # 2026-11-20T12:00:00.5Z
SECRET = CASES["settings"]["secrets"][0]
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYob7oD8="


def destination(**settings) -> Webhook:
    return msgspec.convert({**CASES["settings"], **settings}, Webhook, dec_hook=lambda _, value: Secret(value))


def event(ident="e-1", time=NOW, **fields) -> Event:
    return Event(id=ident, name="purchase", time=time, received=time, source="shop", dialect="segment", **fields)


def sent(request: Request, at: int = NOW) -> Call:
    """The request as the receiver gets it."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Call(method=request.method, path="/in", headers=headers, body=request.body, at=at)


def receiver(secret=SECRET) -> mock.Webhook:
    return mock.Webhook(now=lambda: NOW, secret=secret)


def ids(cases):
    return [case["id"] for case in cases]


@pytest.mark.parametrize("case", CASES["requests"], ids=ids(CASES["requests"]))
def test_is_the_promised_message(case):
    """
    Address, id, body and signature are what the README promises, and a careful receiver takes them.
    """
    carried = [msgspec.convert(one, Event) for one in case["events"]]
    wanted = case["webhook_id"]
    if wanted.startswith("SHA256 of "):
        wanted = hashlib.sha256(wanted.removeprefix("SHA256 of ").encode()).hexdigest()

    [request] = destination(**case.get("settings", {})).requests(carried, NOW)

    assert ("POST", "https://hooks.example/in?team=3") == (request.method, request.url)
    assert (wanted, "1795176000") == (request.headers["webhook-id"], request.headers["webhook-timestamp"])
    assert case["body"] == json.loads(request.body)
    assert sorted(carried, key=lambda one: one.time) == list(request.events)
    assert 204 == receiver().answer(sent(request)).status


@pytest.mark.parametrize("case", CASES["answers"], ids=ids(CASES["answers"]))
def test_answer_means(case):
    """
    A receiver answers by status alone.
    """
    request = Request.json("https://hooks.example/in", {}, [event(str(n)) for n in range(case["events"])])

    outcome = destination().outcome(Response(status=case["status"], request=request, at=NOW, body=b"ok"))

    assert msgspec.convert({"reason": getattr(outcome, "reason", None), **case["outcome"]}, Outcome) == outcome


@pytest.mark.parametrize("case", CASES["settings_refused"], ids=ids(CASES["settings_refused"]))
def test_settings_that_would_fail_later_fail_at_once(case):
    """
    What no request could be made from safely is an error of the settings, which shows no secret.
    """
    with pytest.raises(msgspec.ValidationError) as error:
        destination(**case["settings"])

    assert case["says"] in str(error.value)
    assert not [secret for secret in case["settings"].get("secrets", []) if secret in str(error.value)]


def test_plain_http_is_for_those_who_ask():
    """
    With allow_private a receiver on this machine is reached without TLS.
    """
    [request] = destination(url="http://127.0.0.1:9/in", allow_private=True).requests([event()], NOW)

    assert "http://127.0.0.1:9/in" == request.url


def test_base_url_takes_the_place_of_url():
    """
    A proxy or a fake receiver is put in front by base_url alone.
    """
    [request] = destination(base_url="https://proxy.example").requests([event()], NOW)

    assert "https://proxy.example" == request.url


def test_own_headers_travel_but_do_not_replace_ours():
    """
    Headers of the settings are sent beside the three of Standard Webhooks.
    """
    [request] = destination(headers={"X-Team": "three"}).requests([event()], NOW)

    assert {"X-Team", "Content-Type", "webhook-id", "webhook-timestamp", "webhook-signature"} == set(request.headers)


class TestSignature:
    def test_known_answer(self):
        """
        The receiver that checks us finds the published example of Standard Webhooks in order, and only that.
        """
        known = dict(CASES["known_answer"])
        body = known.pop("body").encode()
        at = int(known["webhook-timestamp"]) * 1000
        call = Call(path="/", headers={"content-type": "application/json", **known}, body=body, at=at)

        answers = [receiver().answer(msgspec.structs.replace(call, body=body + extra)) for extra in (b"", b" ")]

        # 400: the signature is right and the body is not an event of ours.
        assert [400, 401] == [answer.status for answer in answers]

    @pytest.mark.parametrize("known", [SECRET, OTHER], ids=["the old secret", "the new secret"])
    def test_all_secrets_sign_during_a_rotation(self, known):
        """
        A receiver that knows either secret takes the message.
        """
        [request] = destination(secrets=[OTHER, SECRET]).requests([event()], NOW)

        assert 204 == receiver(known).answer(sent(request)).status

    @pytest.mark.parametrize("length", range(15, 34))
    def test_a_secret_without_its_padding(self, length):
        """
        A secret of any length that the settings take signs, with and without the = at its end, and signs the same.
        """
        padded = "whsec_" + base64.b64encode(bytes(range(length))).decode()
        [request] = destination(secrets=[padded.rstrip("=")]).requests([event()], NOW)

        assert 204 == receiver(padded).answer(sent(request)).status
        assert 204 == receiver(padded.rstrip("=")).answer(sent(request)).status

    def test_a_stranger_is_refused(self):
        """
        A receiver with another secret does not take the message.
        """
        [request] = destination().requests([event()], NOW)

        assert 401 == receiver(OTHER).answer(sent(request)).status

    @pytest.mark.parametrize(("late", "status"), [(300_000, 204), (302_000, 401), (-302_000, 401)])
    def test_is_good_for_five_minutes(self, late, status):
        """
        The timestamp is that of sending, so a retry is fresh and a replay is not.
        """
        [request] = destination().requests([event(time=NOW - 86_400_000)], NOW)

        assert status == receiver().answer(sent(request, at=NOW - 500 + late)).status


ANY_ID = st.text(min_size=1, max_size=40)
events = st.builds(
    lambda ident, time, properties: event(ident, time, properties=properties),
    ANY_ID,
    st.integers(0, 4_000_000_000_000),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.floats(allow_nan=False) | st.booleans(), max_size=3),
)
several = st.lists(events, min_size=1, max_size=5, unique_by=lambda one: one.id)


@given(several, st.sampled_from([None, 1, 100]), st.integers(0, 4_000_000_000_000))
def test_whatever_is_sent_is_taken_and_taken_again(carried, batch, later):
    """
    Every event ends in exactly one request; a retry has the same id and the same bytes; the receiver takes both.
    """
    hooks = receiver()

    first, second = (list(destination(batch=batch).requests(carried, now)) for now in (NOW, later))

    ordered = sorted(carried, key=lambda one: (one.time, one.id)) if batch == 100 else carried
    assert ordered == [one for request in first for one in request.events]
    assert [(r.headers["webhook-id"], r.body) for r in first] == [(r.headers["webhook-id"], r.body) for r in second]
    assert {204} == {hooks.answer(sent(request)).status for request in first}
    assert {204} == {hooks.answer(sent(request, at=later)).status for request in second}
    assert all(value.isascii() and value.isprintable() for request in first for value in request.headers.values())


@given(several.flatmap(lambda carried: st.tuples(st.just(carried), st.permutations(carried))))
def test_the_same_members_make_the_same_batch(orders):
    """
    In whatever order events meet, their batch has the same id and the same bytes.
    """
    one, other = (list(destination(batch=9).requests(carried, NOW)) for carried in orders)

    assert one == other


def test_an_event_read_back_is_sent_as_it_was():
    """
    An event that went through the outbox gives the bytes it gave before.
    """
    carried = event(properties={"price": 0.1, "list": [1, "ä", None], "empty": {}})
    read_back = msgspec.json.decode(msgspec.json.encode(carried), type=Event)

    assert list(destination().requests([carried], NOW)) == list(destination().requests([read_back], NOW))


def test_another_body_under_a_known_id_is_a_fault():
    """
    The fake receiver notices a retry that is not the same message.
    """
    hooks = receiver()
    changed = [event(), event(properties={"more": 1})]

    answers = [hooks.answer(sent(next(destination().requests([one], NOW)))).status for one in changed]

    assert [204, 409] == answers


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"content-type": "text/plain"}, "Content-Type"),
        ({"webhook-id": ""}, "webhook-id"),
        ({"webhook-timestamp": "1795176000.5"}, "seconds"),
        ({"webhook-timestamp": "1795176000500"}, "within five minutes"),
        ({"webhook-signature": "abc"}, "v1,"),
    ],
    ids=["another type", "no id", "half a second", "milliseconds", "no version"],
)
def test_the_fake_refuses_headers(headers, reason):
    """
    The receiver takes the three headers as Standard Webhooks writes them, and no other way.
    """
    call = sent(next(destination().requests([event()], NOW)))

    answer = receiver().answer(msgspec.structs.replace(call, headers=call.headers | headers))

    assert 401 == answer.status
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"more": 1}, "type, timestamp and data"),
        ({"type": ""}, "type must be text"),
        ({"timestamp": 1795176000}, "ISO 8601"),
        ({"timestamp": "2026-13-20T12:00:00.000Z"}, "ISO 8601"),
        ({"timestamp": "2026-11-20T12:00:00Z"}, "milliseconds"),
        ({"data": {"id": "e-1"}}, "an event must have"),
        ({"data": {**msgspec.to_builtins(event()), "id": 7}}, "must be text"),
        ({"data": {**msgspec.to_builtins(event()), "clear": {"ip": "203.0.113.42"}}}, "in clear"),
        ({"data": msgspec.to_builtins(event("other"))}, "webhook-id must be"),
        ({"type": "turnout.batch"}, "list of events"),
        ({"type": "turnout.batch", "data": [{}]}, "an event must have"),
        ({"type": "turnout.batch", "data": [msgspec.to_builtins(event())] * 2}, "must not repeat"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_fake_refuses_bodies(changes, reason):
    """
    The receiver takes the promised body, and no other.
    """
    call = sent(next(destination().requests([event()], NOW)))
    body = msgspec.json.encode(call.json() | changes)

    answer = receiver(secret=None).answer(msgspec.structs.replace(call, body=body))

    assert 400 == answer.status
    assert reason in answer.reason


def test_the_secret_is_not_shown():
    """
    Neither the settings nor a request print the secret, and encoding them fails without it.
    """
    settings = destination()
    [request] = settings.requests([event()], NOW)

    with pytest.raises(TypeError) as error:
        msgspec.json.encode(settings)

    assert SECRET not in repr(settings) + repr(request) + str(error.value)
