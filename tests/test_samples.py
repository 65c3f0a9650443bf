"""The sample events: in every dialect the door understands them fully, and the partners take them."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from urllib.parse import urlsplit

import msgspec
import pytest

from destinations import IpSnare, LinkTrace, Snap, Webhook
from router import door, samples
from router.destination import Destination, Request, Response
from router.event import Event
from router.mocks import PARTNERS
from router.mocks.partner import Call
from router.outcome import Delivered
from router.secret import Secret
from router.visit import Door, Visit
from tests.builders import NOW

KEY = Secret("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")
DESTINATIONS: dict[str, Destination] = {
    "snap": Snap(pixel_id="11111111-2222-3333-4444-555555555555", access_token=KEY),
    "linktrace": LinkTrace(api_key=KEY, events=("sign_up", "purchase")),
    "ipsnare": IpSnare(api_key=KEY),
    "webhook": Webhook(url="https://backend.example/", secrets=(KEY,)),
}
DOOR = Door(source="shop", keep_clear=frozenset().union(*(each.clear for each in DESTINATIONS.values())))
STANDARD = {"referral_purchase": "purchase"}
GOES_TO = {
    "snap": set(samples.NAMES) - {"job_click"},
    "linktrace": {"sign_up", "referral_purchase"},
    "ipsnare": {"job_click"},
    "webhook": set(samples.NAMES),
}


def a_sample(name: str, dialect: str, visitor: int = 0, seed: int = 1) -> samples.Object:
    return samples.sample(name, dialect, visitor, random.Random(seed), NOW)


def admitted(item: samples.Object) -> Event:
    event = door.admit(item, DOOR, Visit(received=NOW), lambda: "an id of ours")
    assert isinstance(event, Event), event
    return event


every = pytest.mark.parametrize(
    ("name", "dialect"), [(name, dialect) for name in samples.NAMES for dialect in samples.DIALECTS]
)


@every
def test_the_door_has_nothing_to_say(name: str, dialect: str):
    """
    The dialect is recognised, the id is the sample's own, and no note says that something was guessed or dropped.
    """
    for visitor in range(12):
        event = admitted(a_sample(name, dialect, visitor))

        assert (STANDARD.get(name, name), dialect, (), NOW) == (event.name, event.dialect, event.notes, event.time)
        assert event.id.startswith(name.removeprefix("referral_"))


@every
def test_one_visitor_is_one_person_in_every_dialect(name: str, dialect: str):
    """
    The dialects say the same in different words: digests, money, items, consent and clear values do not depend on them.
    """
    plain, other = admitted(a_sample(name, "plain")), admitted(a_sample(name, dialect))

    assert plain.user.digests == other.user.digests
    assert plain.user.digests.email is not None
    assert (plain.id, plain.money.value, plain.money.order_id) == (other.id, other.money.value, other.money.order_id)
    assert [(each.id, each.price, each.quantity) for each in plain.items] == [
        (each.id, each.price, each.quantity) for each in other.items
    ]
    assert plain.clear == other.clear
    assert ("marketing" in plain.consent.granted) == ("marketing" in other.consent.granted)


@pytest.mark.parametrize(
    ("partner", "name", "dialect"),
    [
        (partner, name, dialect)
        for partner, names in GOES_TO.items()
        for name in sorted(names)
        for dialect in samples.DIALECTS
    ],
)
def test_the_partners_take_them(partner: str, name: str, dialect: str):
    """
    Every destination that a sample is meant for can express it, and the fake partner, by its own rules, accepts it.
    """
    destination, fake = DESTINATIONS[partner], PARTNERS[partner](now=lambda: NOW)
    for visitor in range(6):
        (request,) = destination.requests([admitted(a_sample(name, dialect, visitor, seed=visitor))], NOW)

        assert isinstance(request, Request), request
        answer = fake.take(call(request))
        said = Response(status=answer.status, request=request, at=NOW, body=msgspec.json.encode(answer.body))
        assert isinstance(destination.outcome(said), Delivered), answer


def call(request: Request) -> Call:
    def clear(value: str | Secret) -> str:
        return value.reveal() if isinstance(value, Secret) else value

    return Call(
        path=urlsplit(request.url).path,
        query={name: clear(value) for name, value in request.query.items()},
        headers={name.lower(): clear(value) for name, value in request.headers.items()},
        body=request.body,
        at=NOW,
    )


def test_a_seed_repeats_a_stream():
    """
    The same seed gives the same visits and the same events, to the byte; another seed gives others.
    """

    def some(seed: int) -> str:
        dice = random.Random(seed)
        moments = itertools.islice(samples.stream(dice), 200)
        return json.dumps([samples.sample(name, dialect, who, dice, NOW) for name, dialect, who in moments])

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_a_visit_is_one_visitor_in_one_dialect():
    """
    A visitor keeps the dialect, so that its identifiers stay together; ids never repeat; every sample name occurs.
    """
    dice = random.Random(3)
    moments = list(itertools.islice(samples.stream(dice), 1000))
    dialects = defaultdict(set)
    for _, dialect, who in moments:
        dialects[who].add(dialect)
    ids = [admitted(samples.sample(name, dialect, who, dice, NOW)).id for name, dialect, who in moments]

    assert {1} == {len(each) for each in dialects.values()}
    assert 1000 == len(set(ids))
    assert set(samples.NAMES) == {name for name, _, _ in moments}
