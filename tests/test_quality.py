"""The marks of events and of matches: the formula as the module states it, and a meaning for every note."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import destinations
from destinations.ipsnare import IpSnare
from destinations.linktrace import LinkTrace
from router import body, identifiers, quality
from router.destination import Destination
from router.event import Clear, Consent, Digests, Event, Money, Page, User
from router.secret import Secret
from tests.builders import an_event

ROOT = Path(__file__).parent.parent
SAID = Consent(known=True, granted=("marketing",))
JANE = User(id="u-1")


def a_good_event(**fields: Any) -> Event:
    return an_event(**{"consent": SAID, "user": JANE, **fields})


class TestOfEvent:
    def test_nothing_wrong(self):
        """
        An event with an id of its own, somebody's identifier and a word of consent is good, without reasons.
        """
        assert quality.Quality("good") == quality.of_event(a_good_event())

    @pytest.mark.parametrize(
        ("fields", "level", "codes"),
        [
            pytest.param({"user": User()}, "poor", ["no_identifier"], id="of nobody"),
            pytest.param(
                {"user": User(digests=Digests(country="a" * 64)), "clear": Clear(ip="203.0.113.7")},
                "poor",
                ["no_identifier"],
                id="an address and a country are nobody",
            ),
            pytest.param({"user": User(digests=Digests(email="a" * 64))}, "good", [], id="an e-mail is enough"),
            pytest.param({"user": User(), "clicks": {"ScCid": "x"}}, "good", [], id="so is a click"),
            pytest.param({"user": User(), "cookies": {"_scid": "x"}}, "good", [], id="and a cookie"),
            pytest.param(
                {"user": User(), "clear": Clear(ip="203.0.113.7", user_agent="a browser")},
                "good",
                [],
                id="an address with its browser is somebody",
            ),
            pytest.param(
                {"user": User(), "properties": {"source_click_id": "c-1"}}, "good", [], id="a click on an advert"
            ),
            pytest.param({"user": User(), "properties": {"click_id": "c-1"}}, "good", [], id="by its other name"),
            pytest.param({"user": User(), "properties": {"click_id": ""}}, "poor", ["no_identifier"], id="no click"),
            pytest.param({"user": User(), "kind": "group"}, "good", [], id="a group needs no person"),
            pytest.param(
                {"dialect": "snitcher", "user": User(group_id="org-1"), "consent": Consent()},
                "good",
                [],
                id="a company that Snitcher saw",
            ),
            pytest.param({"user": User(group_id="org-1")}, "poor", ["no_identifier"], id="a company of another sender"),
            pytest.param({"consent": Consent()}, "fair", ["consent_unknown"], id="consent unknown"),
            pytest.param({"notes": ("bad_consent",), "consent": Consent()}, "fair", ["bad_consent"], id="said once"),
            pytest.param({"notes": ("own_id",)}, "fair", ["own_id"], id="a fair note"),
            pytest.param({"notes": ("hash_not_sha256",)}, "poor", ["hash_not_sha256"], id="a poor note"),
            pytest.param({"notes": ("click_kept",)}, "good", ["click_kept"], id="a note that is no fault"),
            pytest.param({"name": "purchase"}, "poor", ["no_value", "no_currency"], id="a purchase of nothing"),
            pytest.param(
                {"name": "purchase", "money": Money(revenue="1")}, "poor", ["no_currency"], id="in no currency"
            ),
            pytest.param(
                {"name": "purchase", "money": Money(value="1", currency="EUR")}, "good", [], id="a whole purchase"
            ),
            pytest.param(
                {"notes": ("own_id",), "user": User()}, "poor", ["no_identifier", "own_id"], id="the worst comes first"
            ),
        ],
    )
    def test_the_formula(self, fields: dict[str, Any], level: str, codes: list[str]):
        """
        Each rule of the module's first page, by an event that differs from a good one in that alone.
        """
        found = quality.of_event(a_good_event(**fields))

        assert (level, codes) == (found.level, [each.code for each in found.reasons])

    @given(st.lists(st.sampled_from(sorted(quality.NOTES)), unique=True))
    def test_the_worst_decides(self, notes: list[str]):
        """
        Whatever notes come together, the mark is that of the worst, and every one of them is a reason.
        """
        found = quality.of_event(a_good_event(notes=tuple(notes)))

        ranks = [quality.LEVELS.index(each.level) for each in found.reasons]
        assert max(ranks, default=0) == quality.LEVELS.index(found.level)
        assert sorted(notes) == sorted(each.code for each in found.reasons)

    def test_a_note_of_another_version(self):
        """
        A note that this version does not know (any more) is no reason, and no fault.
        """
        assert "good" == quality.of_event(a_good_event(notes=("of_tomorrow",))).level


def noted() -> Iterator[str]:
    """Every note that the code can give: the sets it declares, and every text given to ``note`` or found in ``notes``."""
    yield from identifiers.NOTES
    yield from body._REPAIRED
    for path in (ROOT / "router").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "note":
                yield from (each.value for each in node.args if isinstance(each, ast.Constant))


def documented() -> set[str]:
    """The notes in the table of ``router.normalise``."""
    import router.normalise

    return set(re.findall(r"^``(\w+)``  ", router.normalise.__doc__ or "", re.MULTILINE))


class TestNotes:
    def test_every_note_has_its_meaning(self):
        """
        No note can be given that people would read without what it means and what to send instead; and none is made up.
        """
        given = set(noted())

        assert set() == (given | documented()) - set(quality.NOTES)
        assert set() == set(quality.NOTES) - (given | documented())

    @pytest.mark.parametrize("note", quality.NOTES)
    def test_its_words(self, note: str):
        """
        A meaning is a sentence and an advice, in plain words.
        """
        _, words, instead = quality.NOTES[note]

        assert words
        assert instead
        assert not words.endswith(".")


class Partner(Destination, tag="partner", frozen=True, kw_only=True):
    identifiers: ClassVar[dict[str, tuple[str, ...]]] = {  # type: ignore[misc]  # a plain dict will do here
        "em": ("user.digests.email",),
        "ip+ua": ("clear.ip", "clear.user_agent"),
        "madid": ("clear.advertising_id",),
        "names": ("user.digests.first_name_tight", "user.digests.last_name", "properties.tier"),
    }


class One(Destination, tag="one", frozen=True, kw_only=True):
    identifiers: ClassVar[dict[str, tuple[str, ...]]] = {"link": ("properties.link",)}  # type: ignore[misc]  # a plain dict will do here


EMAIL = User(digests=Digests(email="a" * 64))


class TestForDestination:
    @pytest.mark.parametrize(
        ("fields", "level", "carried", "addition"),
        [
            pytest.param({}, "poor", (), "send the e-mail address", id="none: the first"),
            pytest.param({"user": EMAIL}, "fair", ("em",), "send the advertising id of the device", id="one"),
            pytest.param(
                {"user": EMAIL, "clear": Clear(ip="203.0.113.7")},
                "fair",
                ("em",),
                "send the visitor's user agent",
                id="half of one is none, and the rest of it helps first",
            ),
            pytest.param(
                {"user": EMAIL, "clear": Clear(advertising_id="x")},
                "good",
                ("em", "madid"),
                "send the visitor's IP address and the visitor's user agent",
                id="two",
            ),
            pytest.param(
                {"user": EMAIL, "clear": Clear(ip="203.0.113.7", user_agent="x", advertising_id="x")},
                "good",
                ("em", "ip+ua", "madid"),
                "send the first name and the last name and properties.tier",
                id="values by their names",
            ),
        ],
    )
    def test_the_formula(self, fields: dict[str, Any], level: str, carried: tuple[str, ...], addition: str):
        """
        None is poor, one fair, two good; the addition is what completes one more with the fewest values.
        """
        match = quality.for_destination(Partner(), an_event(**fields))

        assert (level, carried, addition) == (match.level, match.carried, match.addition)
        assert set(Partner.identifiers) == {*match.carried, *match.missing}

    def test_all_there_are_is_good(self):
        """
        Who has a single identifier is matched well by it; who has none matches nobody, and lacks nothing.
        """
        assert "poor" == quality.for_destination(One(), an_event()).level
        assert quality.Match("good", ("link",)) == quality.for_destination(One(), an_event(properties={"link": "x"}))

        class Everything(Destination, tag="everything", frozen=True, kw_only=True):
            pass

        assert quality.Match("good") == quality.for_destination(Everything(), an_event())

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"properties": {"link_short_code": "497b3422"}}, ("good", ("linkShortCode",), None)),
            ({"page": Page(url="https://shop.example/?link_short_code=497b3422")}, ("good", ("linkShortCode",), None)),
            ({"properties": {"ref": "497b3422"}}, ("good", ("linkShortCode",), None)),
            ({"properties": {"link_short_code": "a b"}}, ("poor", (), "send properties.link_short_code")),
            ({"name": "app_install", "user": User(id="u-1")}, ("good", ("userId",), None)),
            ({"name": "app_install"}, ("poor", (), "send the user id")),
        ],
        ids=["its property", "the page", "a field that was named", "no short code", "a user", "no user"],
    )
    def test_what_linktrace_knows_by(self, fields: dict[str, Any], expected: tuple[Any, ...]):
        """
        A short code counts wherever LinkTrace's lane finds it, and for an attribution its user.
        """
        lane = LinkTrace(
            api_key=Secret("k"),
            short_code=("properties.link_short_code", "properties.ref"),
            attributions=("app_install",),
        )
        match = quality.for_destination(lane, an_event(**fields))

        assert expected == (match.level, match.carried, match.addition)

    def test_what_ipsnare_knows_by(self):
        """
        A field that map finds elsewhere is carried, too.
        """
        lane = IpSnare(api_key=Secret("k"), map={"source_click_id": "properties.cid"})
        match = quality.for_destination(lane, an_event(properties={"cid": "c-1"}, clear=Clear(ip="203.0.113.7")))

        assert ("user_ip", "source_click_id") == match.carried

    def test_an_empty_value_is_none(self):
        """
        An identifier that is there and empty is not carried.
        """
        assert "poor" == quality.for_destination(One(), an_event(properties={"link": ""})).level

    @pytest.mark.parametrize("kind", sorted(destinations.registry()))
    def test_every_partner_can_be_told(self, kind: str):
        """
        What completes a partner's identifier is named in words, never by the path of a digest or of a clear value.
        """
        partner = destinations.registry()[kind]
        for paths in partner.identifiers.values():
            for path in paths:
                assert not re.match(r"(user\.digests|clear|clicks|cookies)\.", quality._named(path)), path
