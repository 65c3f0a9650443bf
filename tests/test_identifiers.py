"""Identifiers: known answers from the vendors' pages (``cases/identifiers.json``), what is dropped, and the laws."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router import identifiers
from router.event import Digests
from router.identifiers import NOTES, Raw, alpha2, currency, digests, email, sha256

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "cases" / "identifiers.json").read_bytes())
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
DIGEST = "542d240129883c019e106e3b1b2d3f3cb3537c43c425364de8e951d5a3083345"
FIELDS = tuple(name for name in Raw.__struct_fields__ if name != "phone_hash_has_plus")
PRIMARY = {name: name for name in FIELDS} | {"user_id": "external_id"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text("0123456789abcdefABCDEF", min_size=64, max_size=64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
people = st.builds(
    Raw,
    **dict.fromkeys(FIELDS, json_values),
    phone_hash_has_plus=st.booleans(),
)


def forms(given: Digests) -> dict[str, str]:
    return {name: value for name, value in msgspec.structs.asdict(given).items() if value is not None}


class TestKnownAnswers:
    @pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
    def test_every_form_is_the_one_its_vendor_documents(self, case):
        """
        The raw value becomes the text the vendor's page asks for, hashed as the page shows.
        """
        found, notes = digests(Raw(**case["raw"]), case.get("default_country"))

        assert case["digest"] == getattr(found, case["form"])
        assert case["digest"] == sha256(case["text"])
        assert () == notes

    def test_equal_texts_keep_every_form(self):
        """
        A form that reads like the primary one is there all the same: no destination has to guess.
        """
        found, _ = digests(Raw(email="john@example.com"))

        assert {"email", "email_gmail", "email_bare"} == set(forms(found))
        assert 1 == len(set(forms(found).values()))


class TestDropped:
    @pytest.mark.parametrize(
        ("raw", "country", "note"),
        [
            pytest.param({"email": value}, None, "bad_email", id=f"e-mail {value!a}"[:40])
            for value in (
                "no at", "a@@b.example", "a@b@c.example", "@b.example", "a@", "a b@c.example", "a@b\r\nc.example",
                "a@b.example.", "a@b..example", "null", "undefined", "x" * 250 + "@b.example", "a＠b@c.example", True, {"a": 1}, 7,
                "\ud800", "a\ufffd@b.example", "a@b.example <c@d.example>", "a@b.example,c@d.example",
            )
        ]
        + [
            pytest.param({"phone": value}, country, "bad_phone", id=f"phone {value!a} in {country}"[:50])
            for value, country in (
                ("call me", "FR"), ("123456", "FR"), ("+1234567890123456", None), ("0612345678", None), (33612345678, None),
                ("1-800-FLOWERS", "US"), ("5551212", "US"), ("+999 12345678", None), ("++33612345678", None),
                ("06 12 34 56 78", "XX"), ("12+33612345678", None), (-33612345678, "FR"), (0.5, "FR"), (10**30, "FR"), (True, "FR"),
            )
        ]
        + [
            pytest.param({"birth_date": value}, None, "bad_birth_date", id=f"birth date {value!a}")
            for value in ("1997-02-30", "05/06/1997", "1997-12-25T23:00:00.000Z", "97-12-26", "26 Dec 1997", 0, "2500-01-01")
        ]
        + [
            pytest.param({"gender": "unknown"}, None, "bad_gender", id="gender unknown"),
            pytest.param({"country": "XX"}, None, "bad_country", id="country XX"),
            pytest.param({"zip": "none"}, None, "bad_zip", id="zip none"),
            pytest.param({"zip": "ABC", "country": "US"}, None, "bad_zip", id="letters as American zip"),
            pytest.param({"first_name": "..."}, None, "bad_first_name", id="name of dots"),
            pytest.param({"last_name": "undefined"}, None, "bad_last_name", id="name undefined"),
            pytest.param({"city": "--"}, None, "bad_city", id="city of dashes"),
            pytest.param({"state": "-"}, None, "bad_state", id="state of a dash"),
            pytest.param({"street": ","}, None, "bad_street", id="street of a comma"),
            pytest.param({"user_id": "null"}, None, "bad_user_id", id="user id null"),
            pytest.param({"advertising_id": "00000000-0000-0000-0000-000000000000"}, None, "bad_advertising_id", id="advertising id of zeros"),
            pytest.param({"email": "d41d8cd98f00b204e9800998ecf8427e"}, None, "hash_not_sha256", id="MD5"),
            pytest.param({"phone": "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709"}, "FR", "hash_not_sha256", id="SHA-1"),
            pytest.param({"email": NOTHING.upper()}, None, "hash_of_nothing", id="SHA-256 of an empty text"),
        ],
    )  # fmt: skip
    def test_what_is_not_certain_yields_a_note_and_no_digest(self, raw, country, note):
        """
        A value that cannot be read for certain is dropped, and the event says which.
        """
        found, notes = digests(Raw(**raw), country)

        assert (note,) == notes
        assert not {name for name in forms(found) if name != "country"}

    @pytest.mark.parametrize("value", [None, "", "   ", "\u200b", "\x00\r\n", [], [None, ""]], ids=ascii)
    @pytest.mark.parametrize("field", FIELDS)
    def test_an_empty_value_is_no_value(self, field, value):
        """
        Empty and invisible text yields neither a digest nor a note.
        """
        assert (Digests(), ()) == digests(Raw(**{field: value}), "FR")


class TestPrehashed:
    @pytest.mark.parametrize("field", FIELDS)
    def test_a_digest_passes_in_lower_case_into_the_primary_form_only(self, field):
        """
        What is a SHA-256 already is never hashed again, and no other form is invented from it.
        """
        found, notes = digests(Raw(**{field: f" {DIGEST.upper()} "}))

        assert {PRIMARY[field]: DIGEST} == forms(found)
        assert () == notes

    def test_a_phone_hash_made_with_the_plus_goes_where_the_plus_is_wanted(self):
        """
        Commanders Act's phone_sha256 fits partners that hash +digits, and the note says that others cannot match it.
        """
        found, notes = digests(Raw(phone=DIGEST, phone_hash_has_plus=True))

        assert {"phone_plus": DIGEST} == forms(found)
        assert ("prehashed_phone_plus",) == notes

    def test_a_raw_phone_has_both_forms_whatever_the_sender_hashes(self):
        """
        The flag speaks of hashes only.
        """
        found, notes = digests(Raw(phone="+33612345678", phone_hash_has_plus=True))

        assert {"phone": sha256("33612345678"), "phone_plus": sha256("+33612345678")} == forms(found)
        assert () == notes

    def test_a_user_id_of_32_hex_digits_is_an_id(self):
        """
        An undashed UUID is not mistaken for an MD5.
        """
        found, _ = digests(Raw(user_id="550e8400e29b41d4a716446655440000"))

        assert sha256("550e8400e29b41d4a716446655440000") == found.external_id


class TestLists:
    def test_the_first_usable_member_counts(self):
        """
        Members that cannot be read are passed over without a note when one can.
        """
        found, notes = digests(Raw(email=[None, "x", "john@contoso.com", "mary@contoso.com"]))

        assert sha256("john@contoso.com") == found.email
        assert () == notes


class TestLaws:
    @given(people, st.sampled_from([None, "FR", "US", "xx", ""]))
    @example(Raw(phone=True, email=1), "FR")
    def test_no_json_value_raises_and_every_answer_is_a_digest(self, raw, country):
        """
        Whatever is sent, the answer is 64 lower-case hex digits in known forms, notes are of the closed set, and the
        hash of nothing never appears.
        """
        found, notes = digests(raw, country)

        assert set(notes) <= NOTES
        for digest in forms(found).values():
            assert 64 == len(digest)
            assert set(digest) <= set("0123456789abcdef")
            assert NOTHING != digest

    @given(st.sampled_from(FIELDS), json_values, st.booleans())
    def test_a_digest_fed_back_gives_itself(self, field, value, has_plus):
        """
        Hashing is idempotent: the primary form of an answer, sent again, is the answer.
        """
        form = "phone_plus" if field == "phone" and has_plus else PRIMARY[field]
        first, _ = digests(Raw(**{field: value}, phone_hash_has_plus=has_plus), "FR")
        once = getattr(first, form)
        second, _ = digests(Raw(**{field: once}, phone_hash_has_plus=has_plus), "FR")

        assert once == getattr(second, form)

    @given(st.sampled_from(FIELDS), st.uuids().map(lambda one: f"Jane {one}@example.com"))
    def test_the_answer_never_contains_the_raw_value(self, field, value):
        """
        Neither a digest nor a note nor the printed ``Raw`` shows what was sent.
        """
        raw = Raw(**{field: value})

        assert value not in f"{raw!r} {raw} {digests(raw, 'FR')!r}"

    @given(st.text())
    def test_an_email_normalised_twice_is_the_same(self, value):
        """
        The normal form is its own normal form.
        """
        once = email(value)

        assert once is None or once == email(once)

    @given(st.emails())
    def test_case_and_outer_space_do_not_matter(self, address):
        """
        An address means the same in capitals and between spaces.
        """
        assert email(address.lower()) == email(f"\t{address.upper()} ")


class TestTables:
    @pytest.mark.parametrize(
        ("value", "code"),
        [
            ("UK", "GB"), ("uk", "GB"), ("gb", "GB"), ("Great Britain", "GB"), ("GBR", "GB"), ("USA", "US"), ("U.S.A.", "US"),
            ("United States of America", "US"), ("france", "FR"), ("Cote d'Ivoire", "CI"), ("Republic of Korea", "KR"),
            ("South Korea", "KR"), ("Russia", "RU"), ("Türkiye", "TR"), ("Turkey", "TR"), ("EL", "GR"), (["", "DE"], "DE"),
            ("XX", None), ("EU", None), ("", None), (None, None), (33, None), (True, None), ({}, None), ("\ud800", None),
        ],
        ids=ascii,
    )  # fmt: skip
    def test_a_country_is_two_letters_or_none(self, value, code):
        """
        Codes, alpha-3 codes, names and usual aliases are read; the rest is unknown, not guessed.
        """
        assert code == alpha2(value)

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            ("usd", "USD"),
            (" EUR ", "EUR"),
            ("€", None),
            ("US", None),
            ("BTC", None),
            ("XXX", None),
            (None, None),
            (978, None),
        ],
    )
    def test_a_currency_is_an_iso_code_or_none(self, value, code):
        """
        ISO 4217 in any case; signs and other monies are not guessed.
        """
        assert code == currency(value)


class TestMemory:
    def test_forgetting_empties_every_memory(self):
        """
        After an erasure the process remembers no raw value.
        """
        digests(Raw(**dict.fromkeys(FIELDS, "Jane")), "FR")
        identifiers.forget()

        remembered = [memory.cache_info().currsize for memory in identifiers._MEMORIES]
        assert [0] * len(FIELDS) == remembered[: len(FIELDS)]
        assert 0 == sum(remembered)

    def test_the_import_reads_no_table(self):
        """
        The command line starts without the country tables and the numbering plans.
        """
        code = "import sys, router.identifiers; print('pycountry' in sys.modules, 'phonenumbers' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert "False False" == done.stdout.strip()
