"""The door: what is let in, what is turned away, and that nothing of a person comes through readable."""

import hashlib
import json
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router import door, identifiers, normalise
from router.dialects import people
from router.door import Event, admit, forget
from router.event import Clear, Digests, opened, written
from router.identifiers import countries
from router.scrub import persons, texts, trees, urls
from router.visit import Door, TurnedAway, Visit

NOW = 1765566661266
ALL_CLEAR = frozenset(Clear.__struct_fields__)
SHOP = Door(source="shop", default_country="FR")
EVERYTHING = Door(source="shop", default_country="FR", keep_clear=ALL_CLEAR)


def let_in(item, *, door=SHOP, **visit):
    event = admit(item, door, Visit(received=NOW, **visit), lambda: "own-id")
    assert isinstance(event, Event), event
    return event


def turned_away(item, **visit):
    answer = admit(item, SHOP, Visit(received=NOW, **visit), lambda: "own-id")
    assert isinstance(answer, TurnedAway), answer
    return answer


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


class TestTurnedAway:
    @pytest.mark.parametrize("item", [None, True, 5, 1.5, "purchase", [], [{"event_name": "x"}]])
    def test_not_an_object(self, item):
        """
        An event is an object.
        """
        assert "not_an_object" == turned_away(item).problem.code

    @pytest.mark.parametrize(
        ("item", "field"),
        [
            ({}, "event_name"),
            ({"value": 12}, "event_name"),
            ({"user": {"id": "u1"}, "context": {}}, "event_name"),
            ({"type": "track", "userId": "u1"}, "event"),
            ({"userId": "u1", "properties": {}}, "event"),
        ],
    )
    def test_nameless(self, item, field):
        """
        An event without a name is told where its dialect has the name.
        """
        problem = turned_away(item).problem

        assert ("missing", field) == (problem.code, problem.field)

    @pytest.mark.parametrize(
        "name", [None, 5, True, "", "  ", [], {}, "a\nb", "a\x00", "a\u2028b", "x" * 129, "x" * 10_000]
    )
    @pytest.mark.parametrize("key", ["event_name", "event"])
    def test_bad_name(self, key, name):
        """
        A name is 1 to 128 characters of text, in every dialect.
        """
        problem = turned_away({key: name}).problem

        assert ("bad_event_name", key) == (problem.code, problem.field)

    def test_foreign_envelope(self):
        """
        A format nobody here reads is named as that.
        """
        assert "unknown_format" == turned_away({"specversion": "1.0", "type": "x", "source": "/"}).problem.code

    @pytest.mark.parametrize(
        "item",
        [
            {"event_name": "x", "k" * 257: 1},
            {"event_name": "x", "a": [{"b": {"k" * 257: 1}}]},
            {"event_name": "x", "user": {"k" * 257: 1}},
            {"event_name": "x", "items": [{"k" * 257: 1}]},
            {"event": "x", "type": "track", "properties": {"k" * 257: 1}},
        ],
    )
    def test_long_key(self, item):
        """
        A key of more than 256 characters is data in the wrong place, wherever it stands.
        """
        assert "bad_key" == turned_away(item).problem.code

    def test_key_of_256(self):
        """
        The longest key is let in.
        """
        assert {"k" * 256: 1} == let_in({"event_name": "x", "k" * 256: 1}).properties

    @pytest.mark.parametrize(
        ("item", "field"),
        [
            ({"event_name": "x", "items": [{"quantity": 1}, {"quantity": 2**60}]}, "items.1.quantity"),
            ({"event_name": "x", "context": {"device": {"screen": {"width": 10**20}}}}, "screen.width"),
        ],
    )
    def test_number_out_of_range(self, item, field):
        """
        A typed number that no partner could read back is pointed at.
        """
        problem = turned_away(item).problem

        assert ("number_out_of_range", field) == (problem.code, problem.field)

    def test_big_number_of_unknown_meaning(self):
        """
        A number that is nobody's field is kept as it is.
        """
        assert {"serial": 2**70} == let_in({"event_name": "x", "serial": 2**70}).properties

    def test_names_the_event(self):
        """
        The sender's id stands in the answer, so that the event can be found on both sides.
        """
        assert "e-1" == turned_away({"event_name": "", "context": {"event_id": "e-1"}}).problem.id

    def test_keeps_no_person(self):
        """
        What is kept for a developer to look at holds nobody.
        """
        item = {
            "event_name": 5,
            "user": {"email": "jane@example.com", "name": "Jane Doe", "city": "Lyon", "plan": "pro"},
            "context": {"device": {"ip": "203.0.113.9", "user_agent": "Mozilla", "cookie": "_ga=1"}},
            "note": "call jane@example.com",
            "customer": [{"firstname": "Jane", "address": {"street": "Rue 1"}}],
        }

        kept = turned_away(item).scrubbed

        assert {
            "event_name": 5,
            "user": {"plan": "pro"},
            "context": {"device": {}},
            "note": "call [email]",
            "customer": [{}],
        } == kept


class TestIds:
    @pytest.mark.parametrize("given", [None, 5, {}, [], "", " ", "x" * 129, "x" * 10_000, "a\x00b", "a\nb"])
    def test_unusable(self, given):
        """
        An event whose id is none gets ours, and a note says that a resend will not be recognised.
        """
        event = let_in({"event_name": "x", "context": {"event_id": given}})

        assert ("own-id", ("own_id",)) == (event.id, event.notes)

    def test_longest(self):
        """
        128 characters are an id.
        """
        assert "x" * 128 == let_in({"event_name": "x", "context": {"event_id": "x" * 128}}).id

    def test_address_as_id(self):
        """
        An e-mail address used as an id becomes its digest, the same every time, so dedup still works.
        """
        event = let_in({"type": "track", "event": "x", "messageId": "jane@example.com", "userId": "jane@example.com"})

        assert (sha256("jane@example.com"), sha256("jane@example.com")) == (event.id, event.user.id)

    def test_order_with_phone_number_as_id(self):
        """
        Orders stay apart when their numbers may not be kept.
        """
        first, second = (
            let_in({"event_name": "purchase", "id": number}).money.order_id
            for number in ("+33612345678", "+33612345679")
        )

        assert first != second
        assert "612345678" not in f"{first}{second}"


class TestIdentifiers:
    @pytest.mark.parametrize(
        "item",
        [
            {"event_name": "x", "user": {"email": "Jane@Example.com "}},
            {"event_name": "x", "email": "Jane@Example.com "},
            {"event_name": "x", "customer": {"email": "Jane@Example.com "}},
            {"event_name": "x", "properties": {"user": {"email": "jane@example.com"}}},
            {"event_name": "x", "user_data": {"em": ["jane@example.com"]}},
            {"event_name": "x", "client_id": "1", "user_data": {"email_address": "jane@example.com"}},
            {"event": "x", "user": {"email": "jane@example.com"}},
            {"type": "identify", "traits": {"email": "jane@example.com"}},
            {"type": "track", "event": "x", "context": {"traits": {"email": "jane@example.com"}}},
            {"type": "track", "event": "x", "properties": {"email": "jane@example.com"}},
            {"event_name": "x", "user": {"email_sha256": sha256("jane@example.com").upper()}},
        ],
    )
    def test_email_wherever_it_stands(self, item):
        """
        Every place in which senders put an address gives the same digest.
        """
        assert sha256("jane@example.com") == let_in(item).user.digests.email

    def test_clear_value_before_its_hash(self):
        """
        The address itself gives every form, its hash only one.
        """
        digests = let_in(
            {"event_name": "x", "user": {"email_sha256": "0" * 64, "email": "jane@example.com"}}
        ).user.digests

        assert sha256("jane@example.com") == digests.email

    def test_md5(self):
        """
        An MD5 matches nobody: it is dropped, and a note says so.
        """
        event = let_in({"event_name": "x", "user": {"email_md5": "0" * 32}})

        assert event.user.digests.email is None
        assert {} == event.user.traits
        assert "hash_not_sha256" in event.notes

    def test_sha256_before_md5(self):
        """
        Of two hashes the usable one counts, in whatever order they came.
        """
        event = let_in({"event_name": "x", "user": {"email_md5": "0" * 32, "email_sha256": sha256("jane@example.com")}})

        assert sha256("jane@example.com") == event.user.digests.email
        assert "hash_not_sha256" not in event.notes

    @pytest.mark.parametrize("key", ["phone", "phone_sha256"])
    def test_prehashed_phone(self, key):
        """
        Commanders Act hashes phone numbers with their +, which fits only partners that do so too.
        """
        digest = sha256("+33612345678")

        digests = let_in({"event_name": "x", "user": {key: digest}}).user.digests

        assert (None, digest) == (digests.phone, digests.phone_plus)

    def test_whole_name(self):
        """
        Segment's ``name`` trait is a first name up to its first space.
        """
        digests = let_in({"type": "identify", "userId": "u", "traits": {"name": "Jane van Dyk"}}).user.digests

        assert (sha256("jane"), sha256("van dyk")) == (digests.first_name, digests.last_name)

    def test_address_object(self):
        """
        An address may be an object of its own.
        """
        address = {"street": "Rue 1", "city": "Lyon", "postalCode": "69001", "country": "France", "floor": 3}

        user = let_in({"type": "identify", "userId": "u", "traits": {"address": address}}).user

        assert (sha256("lyon"), sha256("69001"), sha256("fr")) == (
            user.digests.city,
            user.digests.zip,
            user.digests.country,
        )
        assert {"address": {"floor": 3}} == user.traits

    def test_recipient(self):
        """
        Where a parcel goes may be somebody else's address: it is hashed for nobody, and not kept.
        """
        event = let_in({"event_name": "x", "shipping_address": {"first_name": "Bob", "city": "Lyon", "floor": 3}})

        assert (None, None) == (event.user.digests.first_name, event.user.digests.city)
        assert {"shipping_address": {"floor": 3}} == event.properties

    def test_company_is_nobody(self):
        """
        A group's traits are a company's: its address identifies no person.
        """
        event = let_in(
            {"type": "group", "userId": "u", "groupId": "g", "traits": {"email": "info@example.com", "plan": "x"}}
        )

        assert event.user.digests.email is None
        assert {"traits": {"plan": "x"}} == event.properties

    @pytest.mark.parametrize(
        "item",
        [
            {"event": "x", "context": {"traits": {"email": "a@b.co", "name": "Jane Doe", "city": "Lyon", "zip": "1"}}},
            {"event": "x", "context": {"user": {"email": "a@b.co", "name": "Jane Doe", "city": "Lyon", "zip": "1"}}},
            {
                "event_name": "x",
                "context": {"user": {"email": "a@b.co", "name": "Jane Doe", "city": "Lyon", "zip": "1"}},
            },
            {
                "event": "x",
                "customer_email": "a@b.co",
                "customer_name": "Jane Doe",
                "user_city": "Lyon",
                "billingZip": 1,
            },
            {"event": "x", "em": sha256("a@b.co"), "fn": "Jane", "ln": "Doe", "ct": "Lyon", "zp": "1"},
            {
                "event": "x",
                "billing": {
                    "email": "a@b.co",
                    "firstName": "Jane",
                    "lname": "Doe",
                    "city": "Lyon",
                    "address": {"zip": "1"},
                },
            },
        ],
    )
    def test_a_person_wherever_senders_put_one(self, item):
        """
        In the context, under a word that says whose it is, in Meta's short names: it becomes digests and is not kept.
        """
        event = let_in(item)
        digests = event.user.digests

        assert [sha256(each) for each in ("a@b.co", "jane", "doe", "lyon", "1")] == [
            *(digests.email, digests.first_name, digests.last_name, digests.city, digests.zip)
        ]
        assert {} == event.properties

    def test_the_usual_place_wins(self):
        """
        What is said of the visitor counts before what is said beside, in whatever order.
        """
        beside = {"home_phone": "+33612345670", "context": {"traits": {"phone": "+33612345671"}}}

        first = let_in({"event": "x", **beside, "user": {"phone": "+33612345678"}}).user.digests
        second = let_in({"event": "x", **beside, "phone": "+33612345678"}).user.digests

        assert {sha256("33612345678")} == {first.phone, second.phone}

    def test_anothers_number_is_hashed_for_nobody(self):
        """
        Of a flat order the recipient's words go without becoming the buyer's.
        """
        event = let_in(
            {
                "event": "x",
                "shipping_first_name": "Bob",
                "recipient_name": "Bob Roe",
                "shipping_method": "s",
                "driver_last_name": "Roe",
                "driver_phone_number": {"phone": "+33612345678", "country": "FR"},
                "guest_email": "bob@x.com",
            }
        )

        assert Digests() == event.user.digests
        assert {"shipping_method": "s"} == event.properties

    @pytest.mark.parametrize(
        "said",
        [
            {"contact_email": "hr@acme.com", "contact_phone": "+33143163030", "contact_name": "Marie Curie"},
            {"contact_city": "Paris", "contact_number": "+33143163030"},
        ],
    )
    def test_an_advertisers_contact_is_no_visitor(self, said):
        """
        Whom a job or a house is to be asked about goes, and is hashed for nobody.
        """
        event = let_in({"event": "x", "job_id": "7", **said})

        assert (Digests(), {"job_id": "7"}) == (event.user.digests, event.properties)

    @pytest.mark.parametrize(
        "said",
        [
            {"ln": "en", "st": "clicked", "ct": "shoes", "db": "prod"},
            {"account_address": "0xabc"},
            {"mailing_name": "Spring newsletter"},
        ],
    )
    def test_what_names_nobody_is_hashed_for_nobody(self, said):
        """
        A language, a status, a wallet and a newsletter stay as they are.
        """
        event = let_in({"event": "x", **said})

        assert (Digests(), said) == (event.user.digests, event.properties)

    def test_a_functions_name_is_no_first_name(self):
        """
        One short name by itself is not hashed.
        """
        assert Digests() == let_in({"event": "x", "fn": "openModal"}).user.digests

    @pytest.mark.parametrize("said", [("email_id", "email"), ("email", "email_id")])
    def test_the_id_of_a_mail_hides_no_address(self, said):
        """
        Segment's e-mail events carry the id of a campaign beside the address, in whatever order.
        """
        values = {"email_id": "em_123", "email": "bob@example.com"}
        event = let_in({"event": "x", **{key: values[key] for key in said}})

        assert sha256("bob@example.com") == event.user.digests.email

    def test_lines_of_an_address(self):
        """
        Stripe's address has a line1 and a line2.
        """
        address = {"line1": "1 Rue", "line2": "apt 4", "city": "Lyon", "postal_code": "69001", "country": "FR"}

        user = let_in({"event": "x", "user": {"address": address}}).user

        assert sha256("1 rue") == user.digests.street
        assert {} == user.traits

    def test_what_is_addressed_to_a_partner_names_nobody(self):
        """
        A partner's own object is kept, but for a clear person in it.
        """
        said = {"fn": "jane", "ct": "lyon", "user": {"name": "Jane Doe"}, "phone": "0612345678", "pixel": "1"}

        event = let_in({"event_name": "x", "integrations": {"facebook": said, "snapchat": {"city": "Rome"}}})

        assert {"facebook": {"user": {}, "pixel": "1"}, "snapchat": {"city": "Rome"}} == event.partners

    def test_city_of_a_trip(self):
        """
        A city among an event's own properties is a destination, not a home.
        """
        assert {"city": "Rome"} == let_in({"event_name": "x", "city": "Rome"}).properties


class TestClear:
    ITEM: ClassVar = {
        "event_name": "x",
        "user": {"country": "france"},
        "context": {
            "device": {
                "ip": "203.0.113.9",
                "user_agent": "UA",
                "advertising_id": "AEBE52E7-03EE-455A-B3C4-E57283966239",
            }
        },
    }

    def test_nothing_declared(self):
        """
        Where no destination needs them, address and browser are forgotten at the door.
        """
        event = let_in(self.ITEM)

        assert Clear() == event.clear
        assert b"203.0.113.9" not in msgspec.json.encode(event)

    def test_declared(self):
        """
        What some destination declares is kept, and no more.
        """
        door = Door(source="shop", keep_clear=frozenset(("ip", "country", "advertising_id")))

        assert (
            Clear(ip="203.0.113.9", country="FR", advertising_id="aebe52e7-03ee-455a-b3c4-e57283966239")
            == let_in(self.ITEM, door=door).clear
        )

    @pytest.mark.parametrize(("said", "kept"), [("GB", "GB"), ("nowhere", "FR"), (None, "FR")])
    def test_country_of_the_event(self, said, kept):
        """
        What the event says of its visitor's country counts before the profile, if it is a country.
        """
        door = Door(source="shop", keep_clear=frozenset(("country",)))
        event = let_in({"event": "x", "user": {"country": "FR"}, "user_country": said}, door=door)

        assert (kept, sha256(kept.lower())) == (event.clear.country, event.user.digests.country)

    def test_connection(self):
        """
        The connection's address stands in where the item has none.
        """
        door = Door(source="shop", keep_clear=ALL_CLEAR)

        assert "198.51.100.7" == let_in({"event_name": "x"}, door=door, ip="198.51.100.7").clear.ip
        assert "203.0.113.9" == let_in(self.ITEM, door=door, ip="198.51.100.7").clear.ip

    def test_private(self):
        """
        An address inside somebody's network is no visitor's.
        """
        event = let_in(
            {"event_name": "x", "context": {"device": {"ip": "192.168.1.1"}}},
            door=Door(source="s", keep_clear=ALL_CLEAR),
        )

        assert event.clear.ip is None
        assert "bad_ip" in event.notes

    def test_zeros(self):
        """
        All zeros are what a device gives where the person refused.
        """
        item = {"event_name": "x", "context": {"device": {"idfv": "00000000-0000-0000-0000-000000000000"}}}

        assert let_in(item, door=Door(source="s", keep_clear=ALL_CLEAR)).clear.idfv is None


class TestConsent:
    @pytest.mark.parametrize(
        ("item", "known", "granted", "denied"),
        [
            ({"event_name": "x", "user": {"consent_categories": [1, "3"]}}, True, ("1", "3"), ()),
            ({"event_name": "x", "user": {"consent_categories": ["tcf2_1", "acm_2"]}}, True, ("tcf2_1", "acm_2"), ()),
            ({"event_name": "x", "user": {"consent_categories": []}}, True, (), ()),
            ({"event_name": "x", "user": {"consent_categories": "1,3"}}, True, ("1", "3"), ()),
            ({"event_name": "x", "user": {"consent_categories": 3}}, True, ("3",), ()),
            ({"event_name": "x", "user": {"consent_categories": {"1": True}}}, False, (), ()),
            ({"event_name": "x", "user": {}}, False, (), ()),
            ({"event": "x", "consent": {"marketing": True, "ads": False}}, True, ("marketing",), ("ads",)),
            ({"event": "x", "consent": {"ad_storage": "granted", "x": "denied"}}, True, ("ad_storage",), ("x",)),
            ({"event": "x", "consent": {"marketing": "perhaps"}}, True, (), ("marketing",)),
            ({"event": "x", "consent": True}, False, (), ()),
            ({"type": "track", "event": "x", "context": {"consent": {"categoryPreferences": {}}}}, True, (), ()),
            ({"type": "track", "event": "x", "context": {"consent": {}}}, False, (), ()),
        ],
    )
    def test_consent(self, item, known, granted, denied):
        """
        Only a plain yes grants; what nobody can read counts as nothing said.
        """
        consent = let_in(item).consent

        assert (known, granted, denied) == (consent.known, consent.granted, consent.denied)

    def test_opt_out(self):
        """
        Limited use stands beside consent.
        """
        assert let_in({"event_name": "x", "data_processing_options": ["LDU"]}).consent.opt_out


class TestPartners:
    def test_commanders_act_overrides_route_nothing(self):
        """
        Commanders Act's ``integrations`` speak to a partner; they are no switches.
        """
        event = let_in(
            {
                "event_name": "x",
                "integrations": {"facebook": {"fbp": "fb.1.2.3", "test_code": "T1"}},
                "partners": {"snapchat": {"click_id": "7b3a"}},
            }
        )

        assert {} == event.routing
        assert {"facebook", "snapchat"} == set(event.partners)
        assert {"_fbp": "fb.1.2.3"} == event.cookies
        assert {"ScCid": "7b3a"} == event.clicks

    def test_segment_switches(self):
        """
        Segment's ``integrations`` are switches, and an object is a yes.
        """
        event = let_in(
            {
                "type": "track",
                "event": "x",
                "integrations": {"All": False, "Snap": {"click_id": "c"}, "Meta": {}, "Bad": "yes"},
            }
        )

        assert {"All": False, "Snap": True, "Meta": True} == event.routing
        assert {"Snap": {"click_id": "c"}, "Meta": {}} == event.partners

    def test_click_id_by_name(self):
        """
        A click id that the sender names goes before the address's, and is not kept twice.
        """
        event = let_in({"event": "x", "sc_click_id": "named", "page": {"url": "https://a.example/?ScCid=url"}})

        assert {"ScCid": "named"} == event.clicks
        assert {} == event.properties


class TestCommerce:
    def test_money_stays_among_properties(self):
        """
        Amounts are typed, and stay where the sender wrote them for an operator's ``match`` and ``map``.
        """
        event = let_in({"event": "purchase", "properties": {"value": "12.50", "currency": "eur"}, "user": {"id": "u"}})

        assert ("12.5", "EUR") == (event.money.value, event.money.currency)
        assert {"value": "12.50", "currency": "eur"} == event.properties

    def test_bad_amount(self):
        """
        Only the amount is dropped.
        """
        event = let_in({"event_name": "purchase", "value": "a lot", "currency": "doubloons"})

        assert (None, None) == (event.money.value, event.money.currency)
        assert ("own_id", "bad_value", "bad_currency") == event.notes

    def test_segment_single_product(self):
        """
        Segment's product events have the product among their properties.
        """
        event = let_in(
            {
                "type": "track",
                "event": "Product Added",
                "properties": {"product_id": "p1", "name": "Mat", "price": 5, "quantity": 2},
            }
        )

        (item,) = event.items
        assert ("p1", "Mat", "5", 2) == (item.id, item.name, item.price, item.quantity)

    @pytest.mark.parametrize(
        "given", [39897499729985, "39897499729985", 4222222222222, "4222222222222", "00812345678901", 10**19 - 1]
    )
    def test_a_long_number_is_a_products(self, given):
        """
        Shopify's ids have 13 and 14 digits, as numbers or as text, and some pass Luhn's test.
        """
        assert str(given) == let_in({"event_name": "x", "items": [{"id": given}]}).items[0].id

    @pytest.mark.parametrize("given", [378282246310005, "378282246310005", "4222 2222 2222 2", 4111111111111111])
    def test_a_card_is_no_products(self, given):
        """
        A card in use, or one with spaces, is hidden in whatever place it stands.
        """
        event = let_in({"event_name": "x", "items": [{"id": given, "name": given}]})

        assert ("[card]", "[card]") == (event.items[0].id, event.items[0].name)

    def test_a_long_number_is_an_orders(self):
        """
        An order and an event of a shop keep their numbers.
        """
        event = let_in({"event": "purchase", "event_id": "4222222222222", "order_id": "4222222222222"})

        assert ("4222222222222", "4222222222222") == (event.id, event.money.order_id)
        assert {"order_id": "4222222222222"} == event.properties

    def test_sku_stands_in(self):
        """
        A stock number is an id only where there is no other.
        """
        event = let_in({"event": "x", "items": [{"sku": "s1"}, {"sku": "s2", "product_id": "p2"}, "no item"]})

        assert [("s1", {}), ("p2", {"sku": "s2"})] == [(item.id, item.extra) for item in event.items]


class TestTestTraffic:
    def test_code(self):
        """
        The sender's test code marks test traffic.
        """
        assert "TC1" == let_in({"event_name": "x", "test_code": "TC1"}).test

    def test_visit(self):
        """
        A whole request may be a test.
        """
        assert "test" == let_in({"event_name": "x"}, test=True).test


class TestScrubbed:
    def test_name(self):
        """
        A person in an event's name is replaced, in the name kept and in the name sent.
        """
        event = let_in({"event_name": "mail to jane@example.com"})

        assert "mail to [email]" == event.name
        assert event.sent_name is None
        assert "pii_scrubbed" in event.notes

    def test_url(self):
        """
        Parameters that hold a person are taken out of an address, its click ids stay.
        """
        event = let_in({"event": "x", "page": {"url": "https://u:p@a.example/?email=a%40example.com&gclid=g1"}})

        assert "https://a.example/?gclid=g1" == event.page.url
        assert {"gclid": "g1"} == event.clicks

    @pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x"])
    def test_bad_url(self, url):
        """
        An address that is no page's is dropped with a note.
        """
        event = let_in({"event": "x", "page": {"url": url}})

        assert event.page.url is None
        assert "bad_url" in event.notes


def test_notes_of_the_body_come_first():
    """
    What was repaired before the door is told with what was found at it.
    """
    event = admit({"event_name": "x"}, SHOP, Visit(received=NOW), lambda: "own-id", ("repaired",))

    assert ("repaired", "own_id") == event.notes


# -- laws ------------------------------------------------------------------------------------------------------------

EMAIL, PHONE, NAME = "canary.jane@example.com", "+33698765432", "Canaryjane"
PHONES = (PHONE, "0698765432", "698765432")
CANARIES = [
    EMAIL,
    EMAIL.upper(),
    f"write to {EMAIL}!",
    "canary.jane%40example.com",
    PHONE,
    "+33 6 98 76 54 32",
    f"tel {PHONE}",
]
TRACES = ("canary.jane", "CANARY.JANE", "98765432", "98 76 54 32", NAME, "canaryjane")

PLACES = [
    (dialect, path)
    for dialect, paths in {
        "commandersact": """event_name note id coupon test_code items.0.name items.0.id items.0.product.brand items.0.colour
            user.id user.ID user.consistent_anonymous_id user.email user.phone user.note user.email_sha256 user.consent_categories
            user.firstname context.event_id context.event_timestamp context.page.url context.page.title context.page.referrer
            context.page.lang context.page.location.href context.page.viewport context.device.model context.device.ip
            context.device.user_agent context.device.cookie context.device.lang context.device.os.name context.device.timezone
            context.device.lifecycle.session_id context.device.advertising_id context.device.sdk_id context.app.name
            context.generatorVersion integrations.facebook.em integrations.facebook.fbp partners.snapchat.click_id value currency""",
        "commandersact-1": """properties.search_term properties.user.email properties.user.id page.title page.location
            device.model device.cookie event_id properties.id""",
        "segment": """event messageId userId anonymousId groupId previousId timestamp properties.note properties.email properties.phone
            properties.query properties.products.0.name properties.products.0.note properties.order_id properties.coupon
            properties.total context.traits.email context.traits.phone context.traits.note context.traits.address context.page.url
            context.page.title context.page.referrer context.page.search context.page.path context.ip context.userAgent
            context.locale context.timezone context.device.id context.device.name context.device.advertisingId context.os.name
            context.network.carrier context.campaign.name context.groupId context.sessionId context.app.name
            context.consent.categoryPreferences integrations.Snap.click_id integrations.Snap.em version channel extra""",
        "plain": """event id timestamp user user.id user.email user.phone user.note user.anonymous_id user_data.em user_data.ph
            user_data.external_id user_data.fbp user_data.sc_click_id url page.url page.title page.path referrer title note
            properties.note properties.email custom_data.note device.model device.locale ip user_agent cookies._fbp cookies.other
            consent gclid fbp partners.snap.note transaction_id items.0.item_name app.name client_id session_id context.cookie""",
    }.items()
    for path in paths.split()
]
BASES = {
    "commandersact": {"event_name": "x", "context": {}},
    "commandersact-1": {"event_name": "x", "properties": {}},
    "segment": {"type": "track", "event": "x", "userId": "u1"},
    "plain": {"event": "x", "value": 1},
}


def put(item, path, value):
    *parents, last = path.split(".")
    for index, part in enumerate(parents):
        following = [*parents, last][index + 1]
        empty = [] if following.isdigit() else {}
        if part.isdigit():
            item.append(empty)
            item = item[0]
        else:
            item = item.setdefault(part, empty)
    item[last] = value


def stored(answer):
    """Everything that may be written: ``clear`` is kept apart, encrypted, and holds only what a destination declared."""
    return msgspec.json.encode(answer).decode()


@pytest.mark.parametrize(("dialect", "path"), PLACES)
def test_no_address_or_number_survives(dialect, path):
    """
    An e-mail address or phone number is nowhere in what is kept, in whatever place of whatever dialect it came.
    """
    for canary in CANARIES:
        item = json.loads(json.dumps(BASES[dialect]))
        put(item, path, canary)

        kept = stored(admit(item, SHOP, Visit(received=NOW), lambda: "own-id"))

        assert not [trace for trace in TRACES if trace in kept], canary


@pytest.mark.parametrize(("dialect", "path"), PLACES)
def test_none_survives_in_what_is_turned_away(dialect, path):
    """
    The same of an event that is turned away.
    """
    item = json.loads(json.dumps(BASES[dialect]))
    put(item, path, EMAIL)
    item["k" * 300] = PHONE
    name = "event_name" if dialect.startswith("commandersact") else "event"
    item[name] = f"{EMAIL}\n"

    kept = stored(turned_away(item))

    assert not [trace for trace in TRACES if trace in kept]


@pytest.mark.parametrize("key", ["name", "first_name", "firstName", "lastname", "birthday", "street", "address", "dob"])
def test_no_name_survives(key):
    """
    Names, streets and birth dates have no shape: the key they stand under takes them out, in every dialect.
    """
    items = [
        {"event_name": "x", "user": {key: f"{NAME} Doe"}},
        {"event_name": "x", "properties": {"user": {key: f"{NAME} Doe"}}},
        {"type": "identify", "userId": "u", "traits": {key: f"{NAME} Doe"}},
        {"event": "x", "user": {key: f"{NAME} Doe"}},
        {"event": "x", "user_data": {"address": {key: f"{NAME} Doe"}}},
        {"event_name": 5, "user": {key: f"{NAME} Doe"}},
        {"event_name": "x", "customer": {key: f"{NAME} Doe"}, "billing_address": {key: f"{NAME} Doe"}},
    ]

    for item in items:
        kept = stored(admit(item, SHOP, Visit(received=NOW), lambda: "own-id"))
        assert NAME not in kept


KEYS = sorted(
    {part for _, path in PLACES for part in path.split(".") if not part.isdigit()}
    | {
        "type",
        "properties",
        "context",
        "traits",
        "products",
        "data",
        "contents",
        "batch",
        "writeKey",
        "receivedAt",
        "sentAt",
    }
    | {
        "originalTimestamp",
        "address",
        "price",
        "quantity",
        "screen",
        "width",
        "os",
        "extinfo",
        "app_data",
        "location",
        "name",
    }
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**18, max_value=10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["track", "page", "2025-2-02T00:30:12Z", "https://a.example/?ScCid=1", "1,5", "\x00", "[::1]:1", *CANARIES]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=30,
)


@settings(max_examples=150, deadline=None)
@given(
    item=JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=10),
    wrapper=st.dictionaries(st.sampled_from(["context", "integrations", "sentAt", "writeKey"]), JSON),
    call=st.sampled_from([None, "track", "page", "screen", "identify", "group", "alias", "batch"]),
)
def test_any_json_is_let_in_or_turned_away(item, wrapper, call):
    """
    Whatever JSON comes, the answer is an event or a reason, it can be stored, and it holds no canary.
    """
    answer = admit(item, SHOP, Visit(received=NOW, wrapper=wrapper, call=call), lambda: "own-id")

    assert isinstance(answer, Event | TurnedAway)
    kept = stored(answer)
    assert msgspec.json.decode(kept, type=type(answer)) == answer
    assert not [trace for trace in TRACES if trace in kept]


@settings(max_examples=150, deadline=None)
@given(
    item=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=10),
    call=st.sampled_from([None, "track", "page", "screen", "identify"]),
)
def test_who_is_given_the_event_itself_reads_what_is_on_disk(item, call):
    """
    An event that a lane gets from memory is to the type and the order of its keys what it would read from disk.
    """
    answer = admit(item, EVERYTHING, Visit(received=NOW, call=call, ip="203.0.113.9"), lambda: "own-id")
    if isinstance(answer, Event):
        assert repr(opened(written(answer), answer.clear)) == repr(answer)


def lookalike(value, swap):
    """The same value to a dictionary, another one to JSON: 1, 1.0 and true are equal."""
    if isinstance(value, dict):
        return {key: lookalike(member, swap) for key, member in value.items()}
    if isinstance(value, list):
        return [lookalike(member, swap) for member in value]
    return swap(value) if isinstance(value, (bool, int, float)) and value in {0, 1} else value


PRODUCTS = st.lists(
    st.dictionaries(
        st.sampled_from(["id", "sku", "name", "price", "quantity", "product", "category", "email", "gift", "x" * 257]),
        SCALARS | st.sampled_from([0, 1, 1.0, True, 2**60]) | JSON,
        max_size=5,
    ),
    max_size=3,
)
PERSONS = st.dictionaries(
    st.sampled_from(["id", "email", "phone", "zip", "country", "gender", "firstname", "consent_categories"]),
    SCALARS | st.sampled_from([0, 1, 1.0, True, ["a@b.co"], "+33612345678"]),
    max_size=5,
)


@settings(max_examples=120, deadline=None)
@given(
    item=st.fixed_dictionaries({"event_name": st.just("x"), "items": PRODUCTS, "user": PERSONS, "note": SCALARS}),
    swap=st.sampled_from([bool, int, float, str]),
)
def test_what_was_seen_before_changes_no_answer(item, swap):
    """
    An event is the same whether its parts are remembered, remembered of a lookalike, or new.
    """
    forget()
    new = stored(let_in_or_not(item))
    again = stored(let_in_or_not(item))
    forget()
    let_in_or_not(lookalike(item, swap))
    after_a_lookalike = stored(let_in_or_not(item))

    assert [new, new] == [again, after_a_lookalike]


def let_in_or_not(item):
    return admit(item, SHOP, Visit(received=NOW), lambda: "own-id")


def test_forgetting_empties_every_memory():
    """
    After an erasure nothing of what a sender sent is remembered.
    """
    let_in({"event_name": "x", "items": [{"id": "Jane Doe"}], "user": {"email": "a@b.co"}, "note": "Jane Doe was here"})
    forget()
    modules = (door, people, persons, texts, trees, urls, normalise, identifiers, countries)
    memories = [
        each
        for module in modules
        for name, each in vars(module).items()
        if hasattr(each, "cache_info") and name not in {"_countries", "_subdivisions", "_currencies"}
    ]

    assert len(memories) > 8
    assert [0] * len(memories) == [memory.cache_info().currsize for memory in memories]


def test_what_is_recalled_of_a_visitor_takes_nothing_from_one_event_to_the_next():
    """
    An e-mail address, a cookie and a click beside a visitor's object belong to that event alone.
    """
    whose = {"event_name": "x", "user": {"id": "u-1"}, "context": {"device": {"ip": "203.0.113.7", "os": "iOS"}}}
    before = let_in({**whose, "id": "1"})
    more = {"email": "jane@example.com", "opt_out": True, "ScCid": "c", "_scid": "s"}
    between = let_in({**whose, **more, "id": "1", "context": {**whose["context"], "cookie": "_ga=1"}})
    after = let_in({**whose, "id": "1"})

    assert between.user.digests.email is not None
    assert before.user.digests.email is None
    assert before == after
