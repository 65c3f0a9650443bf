"""Which events a destination is sent: every switch, every condition, and that the reason given is the true one."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import route
from router.destination import Destination, field
from router.event import App, Clear, Consent, Event, Item, Money, User


class Shop(Destination, tag="shopads", frozen=True, kw_only=True):
    """A partner with names of its own."""

    test_event_code: str | None = None

    title: ClassVar[str] = "Shop Advertising"
    dedup_key: ClassVar[str] = "id"
    default_events: ClassVar[dict[str, str]] = {"purchase": "BUY", "search": "SEARCH"}


class Anything(Destination, tag="anything", frozen=True, kw_only=True):
    """A partner that takes every event under its own name."""


def event(name: str = "purchase", **parts: Any) -> Event:
    return Event(id="e-1", name=name, time=1, received=1, source="shop", dialect="segment", **parts)


def decide(destination: Destination, sent: Event, lane: str = "ads-eu") -> str | None:
    return route.decide(route.compile(lane, destination), sent)


class TestSources:
    @pytest.mark.parametrize("sources", [(), ("shop",), ("blog", "shop")], ids=["of all", "its own", "one of two"])
    def test_taken(self, sources):
        """
        A destination takes events of the sources it names, and of all where it names none.
        """

        assert None is decide(Anything(sources=sources), event())

    def test_other(self):
        """
        An event of a source that is not named stays away.
        """

        expected = "not from one of its sources"
        assert expected == decide(Anything(sources=("blog",)), event())


class TestNames:
    @pytest.mark.parametrize(
        ("events", "name", "goes"),
        [
            pytest.param(None, "purchase", True, id="by the partner's defaults"),
            pytest.param(None, "view_item", False, id="not among the partner's defaults"),
            pytest.param(("search",), "search", True, id="in the list"),
            pytest.param(("search",), "purchase", False, id="not in the list"),
            pytest.param(("view_item",), "view_item", True, id="in the list without a name there"),
            pytest.param({"view_item": "VIEW"}, "view_item", True, id="in the table"),
            pytest.param({"view_item": "VIEW"}, "purchase", False, id="not in the table"),
            pytest.param((), "purchase", False, id="in an empty list"),
        ],
    )
    def test_goes(self, events, name, goes):
        """
        An event goes where the partner has a name for it, by default, list or table; the reason names the event.
        """

        expected = None if goes else f'"{name}" is not among the events of this destination'
        assert expected == decide(Shop(events=events), event(name))

    def test_own_rule(self):
        """
        A destination that decides names by itself is asked for each event.
        """

        class Peculiar(Destination, tag="peculiar", frozen=True, kw_only=True):
            def partner_name(self, event: Event) -> str | None:
                return "APP" if event.app.name else None

        assert None is decide(Peculiar(), event(app=App(name="Shop")))
        expected = '"purchase" is not among the events of this destination'
        assert expected == decide(Peculiar(), event())


class TestConsent:
    @pytest.mark.parametrize(
        ("consent", "reason"),
        [
            (Consent(known=True, granted=("marketing", "3")), None),
            (Consent(known=True, granted=("marketing",)), 'consent "3" was not granted'),
            (Consent(known=True, granted=("marketing", "3"), denied=("3",)), 'consent "3" was not granted'),
            (Consent(known=True, granted=("marketing", "tcf2_3")), 'consent "3" was not granted'),
            (Consent(), 'consent "marketing" is unknown: the event says nothing of consent'),
        ],
        ids=["all granted", "one missing", "granted and denied at once", "another framework's 3", "nothing said"],
    )
    def test_needed(self, consent, reason):
        """
        Every needed category must be granted; silence, contradiction and look-alikes are a no.
        """

        assert reason == decide(Anything(consent=("marketing", "3")), event(consent=consent))

    def test_not_needed(self):
        """
        A destination that needs no consent is sent events that say nothing of it.
        """

        assert None is decide(Anything(), event())


class TestSwitches:
    @pytest.mark.parametrize(
        ("routing", "off"),
        [
            ({"All": True}, None),
            ({"All": False}, "All"),
            ({"all": False, "Ads-EU": True}, None),
            ({"All": False, "ShopAds": True}, None),
            ({"ads-eu": False, "shopads": True}, "ads-eu"),
            ({"ads-eu": True, "shopads": False}, None),
            ({"shopads": False}, "shopads"),
            ({"ADS-EU": True, "ads-eu": False}, "ads-eu"),
            ({"ads-eu": False, "ADS-EU": True}, "ads-eu"),
            ({"Shop Advertising": False}, "Shop Advertising"),
            ({"shopadvertising conversions (API)": False, "All": True}, "Shop Advertising"),
            ({"ads-eu": True, "Shop Advertising": False}, None),
            ({"Salesforce": False}, None),
        ],
        ids=[
            "all on",
            "all off",
            "all off but this lane, in other case",
            "all off but this type",
            "lane off, type on",
            "lane on, type off",
            "type off",
            "lane on and off: off",
            "lane off and on: off",
            "the partner by its name off",
            "the partner by the beginning of a longer name off",
            "lane on, partner off",
            "somebody else off",
        ],
    )
    def test_switch(self, routing, off):
        """
        The sender's switches are obeyed: the lane's name before its type, its partner's name and All.
        """

        expected = None if off is None else f'the sender switched "{off}" off'
        assert expected == decide(Shop(), event(routing=routing))


class TestTestTraffic:
    def test_kept_away(self):
        """
        A test event never becomes a conversion at a partner that was given no test code.
        """

        reason = "test event, and no test_event_code is set there"
        assert reason == decide(Anything(), event(test="T1"))
        assert reason == decide(Shop(), event(test="T1"))

    def test_sent_with_code(self):
        """
        Where the operator set the partner's test code, test events go.
        """

        assert None is decide(Shop(test_event_code="TEST123"), event(test="T1"))

    def test_a_test_code_makes_every_event_one(self):
        """
        Where one is set, no event is said to be real: the destination marks them all.
        """
        rule = route.compile("shop", Shop(test_event_code="TEST123"))

        assert "sent as a test, with test_event_code" in [each.words for each in route.explain(rule, event())]


SENT = event(
    money=Money(value="142.52", order_id="010"),
    items=(Item(id="sku-1", price="9.99"),),
    user=User(id="u1", traits={"plan": "pro"}),
    properties={
        "value": 12,
        "ratio": 0.1,
        "yes": True,
        "text": "job_click",
        "list": ["a", 3],
        "count": "7",
        "none": None,
    },
)

CONDITIONS = [
    ("properties.value", 12, True),
    ("properties.value", 13, False),
    ("properties.value", "12", True),
    ("properties.count", 7, True),
    ("properties.yes", True, True),
    ("properties.yes", 1, False),
    ("properties.value", True, False),
    ("properties.ratio", 0.1, True),
    ("money.value", 142.52, True),
    ("money.order_id", "10", False),
    ("money.order_id", 10, True),
    ("properties.text", {"ne": "other"}, True),
    ("properties.text", {"ne": "job_click"}, False),
    ("properties.absent", {"ne": "x"}, True),
    ("properties.value", {"in": [11, 12]}, True),
    ("properties.value", {"in": [11, 13]}, False),
    ("properties.absent", {"in": ["x"]}, False),
    ("properties.value", {"not_in": [11, 12]}, False),
    ("properties.absent", {"not_in": ["x"]}, True),
    ("money.value", {"gt": 142.51}, True),
    ("money.value", {"gt": 142.52}, False),
    ("money.value", {"gte": 142.52}, True),
    ("money.value", {"gte": "142.53"}, False),
    ("properties.ratio", {"lt": 0.2}, True),
    ("properties.ratio", {"lt": 0.1}, False),
    ("properties.value", {"lte": 12}, True),
    ("properties.value", {"gte": 10, "lt": 12}, False),
    ("properties.text", {"gte": 1}, False),
    ("properties.yes", {"gte": 0}, False),
    ("properties.absent", {"lt": 5}, False),
    ("properties.value", {"exists": True}, True),
    ("properties.none", {"exists": True}, False),
    ("properties.absent", {"exists": False}, True),
    ("properties.value", {"exists": False}, False),
    ("properties.text", {"glob": "job_*"}, True),
    ("properties.text", {"glob": "JOB_*"}, False),
    ("properties.text", {"glob": "job"}, False),
    ("properties.value", {"glob": "1*"}, False),
    ("properties.text", {"contains": "_cl"}, True),
    ("properties.list", {"contains": 3}, True),
    ("properties.list", {"contains": "b"}, False),
    ("properties.value", {"contains": 1}, False),
    ("items.0.price", {"lt": 10}, True),
    ("items.1.price", {"lt": 10}, False),
    ("user.traits.plan", "pro", True),
]


@pytest.mark.parametrize(
    ("path", "wanted", "holds"), CONDITIONS, ids=[f"{path} {wanted}" for path, wanted, _ in CONDITIONS]
)
def test_condition(path, wanted, holds):
    """
    A condition means what its word says, with numbers exact and decimal text counted as a number.
    """

    assert holds is (decide(Anything(match={path: wanted}), SENT) is None)


def test_all_conditions():
    """
    One condition that fails is enough, and the reason names it without the event's value.
    """

    match = {"properties.text": "job_click", "properties.value": {"gte": 20}}
    expected = "it does not hold that properties.value is at least 20"
    assert expected == decide(Anything(match=match), SENT)


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ({"propertis.value": 1}, 'did you mean "properties.value"?'),
        ({"value": 1}, 'did you mean "money.value"?'),
        ({"money.valu": 1}, 'did you mean "money.value"?'),
        ({"zzz": 1}, "what senders add is under properties"),
        ({"items.0.colour": "A"}, "what senders add is under items.0.extra"),
        ({"user.plan": "A"}, "what senders add is under user.traits"),
        ({"page.zzz": "A"}, "what senders add is under properties"),
        ({"items.brand": "A"}, 'did you mean "items.0.brand"?'),
        ({"items.0.brnd": "A"}, 'did you mean "items.0.brand"?'),
        ({"page.url.path": "/x"}, "there is nothing inside page.url"),
        ({"name.purchase": True}, "there is nothing inside name"),
        ({"consent.granted.0.x": 1}, "there is nothing inside consent.granted.0"),
        ({"properties": {"value": {"gte": 1}}}, 'in quotes: "properties.value"'),
        ({"money": {"value": 3}}, 'in quotes: "money.value"'),
        ({"properties.v": {"gtt": 1}}, 'did you mean "gt"?'),
        ({"properties.v": {"regex": ".*"}}, "there are eq, ne, in,"),
        ({"name": {"is": "purchase"}}, "there are eq, ne, in,"),
        ({"properties.v": {}}, "needs a condition"),
        ({"properties.v": {"gt": "much"}}, "gt needs a number"),
        ({"properties.v": {"gt": True}}, "gt needs a number"),
        ({"properties.v": {"gt": float("nan")}}, "gt needs a number"),
        ({"properties.v": [1, 2]}, "for several use in"),
        ({"properties.v": {"in": "a"}}, "in needs a list"),
        ({"properties.v": {"in": []}}, "in needs a list"),
        ({"properties.v": {"exists": "yes"}}, "exists needs true or false"),
        ({"properties.v": {"glob": 1}}, "glob needs a pattern"),
    ],
)
def test_bad_condition(match, words):
    """
    A condition that cannot be understood is refused when it is compiled, with what to write instead.
    """

    with pytest.raises(ValueError) as caught:
        route.compile("ads", Anything(match=match))

    assert words in str(caught.value)


class TestExplain:
    def test_every_check(self):
        """
        An explanation shows every check, those after the first that failed too.
        """

        rule = route.compile("ads", Shop(consent=("marketing",), match={"properties.value": {"gte": 10}}))
        checks = route.explain(rule, event("view_item", properties={"value": 12}))

        expected = [
            ("source", True, 'from source "shop"'),
            ("test", True, "not test traffic"),
            ("event", False, '"view_item" is not among the events of this destination'),
            ("routing", True, "not switched off by the sender"),
            ("consent", False, 'consent "marketing" is unknown: the event says nothing of consent'),
            ("match", True, "properties.value is at least 10"),
        ]
        assert expected == checks

    @given(
        sources=st.sampled_from([(), ("shop",), ("blog",)]),
        events=st.sampled_from([None, ("search",), {"purchase": "P"}]),
        consent=st.sampled_from([(), ("marketing",)]),
        match=st.dictionaries(st.sampled_from(["properties.value", "money.value"]), st.sampled_from([1, {"gte": 1}])),
        name=st.sampled_from(["purchase", "search", "other"]),
        granted=st.sampled_from([(), ("marketing",)]),
        routing=st.dictionaries(st.sampled_from(["All", "ads", "SHOPADS"]), st.booleans()),
        value=st.none() | st.integers(0, 2),
        test=st.none() | st.just("T"),
    )
    def test_agrees(self, sources, events, consent, match, name, granted, routing, value, test):
        """
        The decision is the first check of the explanation that is not ok, and None where all are.
        """

        rule = route.compile("ads", Shop(sources=sources, events=events, consent=consent, match=match))
        sent = event(
            name,
            consent=Consent(known=True, granted=granted),
            routing=routing,
            test=test,
            properties={} if value is None else {"value": value},
            money=Money(value=None if value is None else str(value)),
        )
        failed = [check.words for check in route.explain(rule, sent) if not check.ok]

        assert (failed[0] if failed else None) == route.decide(rule, sent)


PATHS = ["name", "money", "money.value", "properties", "properties.a", "properties.a.b.c", "items.0.id", "items.x",
         "user.digests.email", "user.traits.plan", "clear.country", "money.value.deeper"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@given(
    inner=st.recursive(
        st.none() | st.integers(), lambda one: st.dictionaries(st.sampled_from("abc"), one), max_leaves=5
    )
)
def test_paths(path, inner):
    """
    A compiled path reads what ``field`` reads: ``match``, ``map`` and settings share one language.
    """

    sent = event(properties={"a": inner}, money=Money(value="1"), items=(Item(id="i"),), clear=Clear(country="FR"))
    assert field(sent, path) == route._reader(path)(sent)
