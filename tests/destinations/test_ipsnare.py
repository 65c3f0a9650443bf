"""IP Snare: what we send is what its page asks for, and every documented answer means what it should."""

import json
import sys
from pathlib import Path

import msgspec
import pycountry
import pytest
from hypothesis import given
from hypothesis import strategies as st

from destinations.ipsnare import IpSnare
from router import bots
from router.destination import Request, Response
from router.event import Clear, Event
from router.mocks import ipsnare as mock
from router.mocks.partner import Call
from router.outcome import Closed, Delivered, Outcome, Refusal
from router.secret import Secret

CASES = json.loads((Path(__file__).parent / "cases" / "ipsnare.json").read_text())
NOW = 1_773_230_400_000  # 2026-03-11T12:00:00Z
KEY = "YOUR_API_KEY"
EXAMPLE = CASES["requests"][0]["body"]  # the page's own click


def destination(**settings) -> IpSnare:
    return msgspec.convert({**CASES["settings"], **settings}, IpSnare, dec_hook=lambda _, value: Secret(value))


def event(**fields) -> Event:
    return Event(**{"id": "m-1", "name": "click", "time": NOW, "received": NOW, "source": "jobs", "dialect": "segment"}
                 | fields)  # fmt: skip


def sent(request: Request) -> Call:
    """The request as the partner receives it."""
    headers = {n.lower(): v.reveal() if isinstance(v, Secret) else v for n, v in request.headers.items()}
    path = request.url.removeprefix(IpSnare.home)
    return Call(method=request.method, path=path, headers=headers, body=request.body, at=NOW)


def partner() -> mock.IpSnare:
    return mock.IpSnare(now=lambda: NOW, key=KEY)


def ids(cases):
    return [case["id"] for case in cases]


@pytest.mark.parametrize("case", CASES["requests"], ids=ids(CASES["requests"]))
def test_is_the_documented_call(case):
    """
    Method, address, headers and all fourteen fields are those of IP Snare's page, and it takes them.
    """
    carried = msgspec.convert(case["event"], Event)

    [request] = destination(**case.get("settings", {})).requests([carried], NOW)

    assert ("POST", "https://api.ipsnare.com/v1/track") == (request.method, request.url)
    assert {} == request.query
    assert {"Content-Type": "application/json", "Authorization": Secret(f"Bearer {KEY}")} == request.headers
    assert case["body"] == json.loads(request.body)
    assert list(EXAMPLE) == list(json.loads(request.body))
    assert (carried,) == request.events
    assert 200 == partner().answer(sent(request)).status


@pytest.mark.parametrize("case", CASES["answers"], ids=ids(CASES["answers"]))
def test_answer_means(case):
    """
    Every answer of IP Snare's page, and the general rules beside them, lead to the outcome that serves them.
    """
    body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
    request = Request.json("https://api.ipsnare.com/v1/track", {}, [event()])

    outcome = destination().outcome(Response(status=case["status"], request=request, at=NOW, body=body.encode()))

    assert msgspec.convert({"reason": getattr(outcome, "reason", None), **case["outcome"]}, Outcome) == outcome
    assert case.get("says", "") in (getattr(outcome, "reason", "") or "")


@pytest.mark.parametrize("case", CASES["refusals"], ids=ids(CASES["refusals"]))
def test_refuses_what_ip_snare_would_refuse(case):
    """
    What IP Snare would answer with 422 is refused before a request, by the name of the field.
    """
    click = {name: value for name, value in (EXAMPLE | case["set"]).items() if name not in case["drop"]}
    as_it_came = Request.json(f"{IpSnare.home}/v1/track", click, [], headers={"Authorization": f"Bearer {KEY}"})
    carried = event(properties=click)

    [refusal] = destination().requests([carried], NOW)

    assert isinstance(refusal, Refusal)
    assert carried == refusal.event
    assert case["says"] in refusal.reason
    assert 422 == partner().answer(sent(as_it_came)).status


@pytest.mark.parametrize("name", ["source_id", "source_click_id", "job_id", "click_id", "destination_id"])
def test_an_id_that_was_scrubbed_is_none(name):
    """
    An id that the door took for personal data is many clicks' and is refused with the reason; no click closes another's.
    """
    scrubbed = event(properties={**EXAMPLE, name: "[card]"})
    [refusal] = destination().requests([scrubbed], NOW)

    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith(f"{name} looks like an e-mail address, a phone or a card number")
    assert (None if name == "click_id" else EXAMPLE["click_id"]) == destination().subject(scrubbed)


def test_an_address_that_the_door_dropped():
    """
    What was sent and is not public is not called missing: the sender would look in the wrong place.
    """
    click = {name: value for name, value in EXAMPLE.items() if name != "user_ip"}

    [refusal] = destination().requests([event(properties=click, notes=("bad_ip",))], NOW)

    assert "user_ip was sent and is not a public IP address" in refusal.reason


anything = st.one_of(
    st.sampled_from(
        ["UK", "FRA", "ZZ", "2026-03-11", "2026-03-11T12:00:00", "2026-03-11 12:00:00+01:00", "::1", "1.2.3.4:80"]
    ),
    st.none(),
    st.booleans(),
    st.integers(-10, 10**12),
    st.text(max_size=8),
    st.lists(st.text(max_size=3), max_size=2),
)
properties = st.fixed_dictionaries({}, optional={name: st.just(value) | anything for name, value in EXAMPLE.items()})
clears = st.builds(
    Clear,
    ip=st.one_of(st.none(), st.ip_addresses().map(str)),
    user_agent=st.one_of(st.none(), st.text(max_size=20)),
    country=st.sampled_from([None, "FR", "GB"]),
)


anywhere = st.sampled_from(["id", "name", "time", "clear.ip", "properties", "properties.job_id", "properties.is_final"])
maps = st.dictionaries(st.sampled_from(sorted(EXAMPLE)), anywhere, max_size=3)


@given(
    st.lists(st.builds(lambda said, clear: event(properties=said, clear=clear), properties, clears), max_size=4), maps
)
def test_whatever_is_sent_is_taken(carried, chosen):
    """
    Every event ends in one request or one refusal, in order, and IP Snare takes every request.
    """
    ipsnare = partner()

    made = list(destination(map=chosen).requests(carried, NOW))

    assert carried == [one.event if isinstance(one, Refusal) else one.events[0] for one in made]
    assert {200} >= {ipsnare.answer(sent(one)).status for one in made if isinstance(one, Request)}


@given(st.dictionaries(st.sampled_from(sorted(EXAMPLE)), anything, max_size=3))
def test_a_click_is_refused_only_where_ip_snare_would(changes):
    """
    A complete click with some fields changed is refused by us only if IP Snare refuses it as well.
    """
    click = EXAMPLE | changes
    [made] = destination().requests([event(properties=click)], NOW)

    assert isinstance(made, Request) or mock.faults(click)


@given(st.integers(100, 599), st.binary(max_size=200) | st.builds(
    lambda ok, errors: json.dumps({"success": ok, "errors": errors}).encode(), anything,
    st.lists(st.fixed_dictionaries({"field": anything, "message": anything}) | anything) | anything))  # fmt: skip
def test_no_answer_breaks_it(status, body):
    """
    Any status with any body has an outcome.
    """
    request = Request.json("https://api.ipsnare.com/v1/track", {}, [event()])

    assert isinstance(destination().outcome(Response(status=status, request=request, at=NOW, body=body)), Outcome)


def test_a_retry_sends_the_same_bytes():
    """
    The moment of sending changes nothing.
    """
    carried = [event(properties=EXAMPLE)]

    assert list(destination().requests(carried, NOW)) == list(destination().requests(carried, NOW + 86_400_000))


def test_only_clicks_are_meant_for_it():
    """
    Without a word in the settings only the events job_click and click go to IP Snare.
    """
    names = ["job_click", "click", "purchase", "page_view"]

    assert ["job_click", "click", None, None] == [destination().partner_name(event(name=name)) for name in names]


def test_needs_what_is_kept_in_clear():
    """
    It declares the three clear fields it cannot do without, so that they are kept for it.
    """
    assert frozenset({"ip", "user_agent", "country"}) == IpSnare.clear


def test_the_key_is_not_shown():
    """
    Neither the settings nor a request print the key, and encoding them fails without it.
    """
    settings = destination()
    [request] = settings.requests([event(properties=EXAMPLE)], NOW)

    with pytest.raises(TypeError) as error:
        msgspec.json.encode(settings)

    assert KEY not in repr(settings) + repr(request) + str(error.value)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {}}, 401),
        ({"headers": {"authorization": f"Bearer {KEY}"}}, 422),
        ({"path": "/v2/track"}, 404),
        ({"body": b"[]"}, 422),
        ({"body": b'{"a":'}, 422),
    ],
    ids=["no key", "no content type", "another path", "a list", "half a body"],
)
def test_the_fake_refuses(changes, status):
    """
    The fake IP Snare checks key, path and shape as the page says.
    """
    [request] = destination().requests([event(properties=EXAMPLE)], NOW)

    assert status == partner().answer(msgspec.structs.replace(sent(request), **changes)).status


def test_map_fills_only_what_ip_snare_takes():
    """
    A parameter that IP Snare does not have is an error of the configuration.
    """
    with pytest.raises(msgspec.ValidationError, match="IP Snare takes no other field"):
        destination(map={"job": "properties.job"})


class TestStates:
    def test_the_subject_is_the_click_that_is_sent(self):
        """
        A click is known by the click_id of its request: the sender's, the field that map names, or the event's id.
        """
        said = {"click_id": "k-1", "uid": 77}
        mapped = destination(map={"click_id": "properties.uid"})

        assert ("k-1", "77", "m-1") == (
            destination().subject(event(properties=said)),
            mapped.subject(event(properties=said)),
            destination().subject(event()),
        )
        [request] = mapped.requests([event(properties=EXAMPLE | said)], NOW)
        assert "77" == json.loads(request.body)["click_id"]

    @pytest.mark.parametrize(("final", "kept_out"), [(None, False), (True, False), (False, True)])
    def test_only_a_state_that_is_not_final_comes_too_late(self, final, kept_out):
        """
        A final state may be repeated or corrected; another is not sent after it.
        """
        assert kept_out == destination().kept_out(event(properties={"is_final": final}))
        assert kept_out == destination(map={"is_final": "properties.f"}).kept_out(event(properties={"f": final}))

    @pytest.mark.parametrize(
        ("final", "body", "outcome"),
        [
            (True, b'{"success": true}', Delivered(closes=Closed("an earlier event was the final state of this click", 604_800.0))),
            (False, b'{"success": true}', Delivered()),
            (True, b"<html>", Delivered(unverified=True, closes=Closed("an earlier event was the final state of this click", 604_800.0))),
        ],
        ids=["final", "not final", "no proof that it is there"],
    )  # fmt: skip
    def test_a_final_state_that_was_taken_closes_the_click(self, final, body, outcome):
        """
        Seven days long nothing but a final state follows a final one, be its arrival proven or only likely.
        """
        [request] = destination().requests([event(properties=EXAMPLE | {"is_final": final})], NOW)

        assert outcome == destination().outcome(Response(status=200, request=request, at=NOW, body=body))

    def test_states_of_a_click_keep_their_order(self):
        """
        It asks that events of one click never overtake each other.
        """
        assert IpSnare.ordered

    def test_the_fake_counts_what_came_too_late(self):
        """
        A state that is not final after a final one is taken, counted, and remarked in the list of calls.
        """
        ipsnare = partner()
        states = [("k-1", False), ("k-1", True), ("k-2", False), ("k-1", True), ("k-1", False)]
        carried = [event(properties=EXAMPLE | {"click_id": click, "is_final": final}) for click, final in states]

        remarks = [ipsnare.take(sent(request)).reason for request in destination().requests(carried, NOW)]

        assert ["", "", "", "", "not final, after the final state of this click"] == remarks
        assert (1, remarks[-1]) == (ipsnare.regressions, ipsnare.received[-1].reason)
        ipsnare.reset()
        assert (0, set()) == (ipsnare.regressions, ipsnare.final)


class TestHints:
    def test_expired_without_an_instant(self):
        """
        It is allowed, and whoever previews it is told what would be better.
        """
        [hint] = destination().hints(event(properties={"expired": True}))

        assert "expired_at" in hint
        assert [] == list(
            destination().hints(event(properties={"expired": True, "expired_at": "2026-03-12T00:00:00Z"}))
        )

    def test_nobody_looks_for_bots(self, monkeypatch):
        """
        Without the extra a click goes as no bot's, and whoever previews it is told; not where the sender says it.
        """
        monkeypatch.setitem(sys.modules, "crawlerdetect", None)
        bots.forget()
        try:
            [hint] = destination().hints(event())
            quiet = [*destination(detect_bots=False).hints(event()), *destination().hints(event(properties=EXAMPLE))]
            [request] = destination().requests(
                [event(properties=EXAMPLE | {"is_bot": None, "user_agent": "GPTBot"})], NOW
            )
        finally:
            bots.forget()

        assert "turnout[bots]" in hint
        assert [] == quiet
        assert json.loads(request.body)["is_bot"] is False


def test_the_fake_knows_every_country():
    """
    Every officially assigned code is one that the fake IP Snare takes.
    """
    codes = [country.alpha_2 for country in pycountry.countries]

    assert [] == [code for code in codes if mock.faults(EXAMPLE | {"job_country": code})]
