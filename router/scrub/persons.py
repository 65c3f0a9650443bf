"""Words for a person: what the name of a key says of the value under it, whoever made the key up.

One table for both sides: ``router.dialects.people`` makes identifiers of what stands under these words, ``trees`` and
``urls`` take out what no dialect took. A name is read without case, separators, the words that say whose it is, and a
last number: ``customerBillingPhone_2`` is a phone. What is written out whole in the table is not taken apart.

A word is sure where it means a person wherever it stands. A city may be a trip's and a name a product's: these count
inside an object that is a person's, or where their own name says whose they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from router.scrub.keys import folded

NAME, ADDRESS, PERSON, NOTHING = "name", "address", "person", "nothing"


class Word(NamedTuple):
    field: str  # of ``Raw``; or NAME, ADDRESS, PERSON (an object), NOTHING (no partner matches on it)
    sure: bool = True
    rank: int = 0  # the least counts first: the thing itself, one that is somebody's or numbered, then digests
    hashed: bool = False
    another: bool = False  # where a parcel goes may be somebody else's
    short: bool = False

    @property
    def tells(self) -> bool:
        """Is a clear value under it a person's, wherever it stands?"""
        return self.sure and not self.hashed


def _table(words: dict[str, str]) -> dict[str, str]:
    return {word: field for field, listed in words.items() for word in listed.split()}


_SURE: Final = _table(
    {
        "email": "email emailaddress emailid mail courriel",
        "phone": "phone phonenumber phoneno telephone telephonenumber tel telno telnumber mobile mobileno mobilenumber"
        " mobilephone mobilephonenumber cellphone cellphonenumber msisdn whatsapp whatsappnumber smsnumber"
        " téléphone telefon telefono telefone telefoonnummer telefonnummer",
        "first_name": "firstname givenname forename fname prenom prénom vorname voornaam",
        "last_name": "lastname familyname surname lname nomdefamille nachname apellido apellidos cognome achternaam",
        "birth_date": "birthdate birthday dateofbirth dob datenaissance datedenaissance geburtsdatum fechanacimiento"
        " fechadenacimiento datadinascita geboortedatum",
        "street": "street streetaddress addressline1 address1 street1",
        NAME: "fullname",
        NOTHING: "middlename maidenname addressline2 addressline3 address2 address3 street2 fax faxnumber nameoncard"
        " cardholder contactnumber",
    }
)
_SOMEBODYS: Final = _table(
    {
        NAME: "name",
        "gender": "gender",
        "city": "city",
        "zip": "zip zipcode postalcode postcode",
        ADDRESS: "address addresses",
        "street": "line1",  # Stripe's
        NOTHING: "line2 displayname nickname preferredname",
    }
)
# A user's or an account's state is whether it is active, and ``user_country`` is IP Snare's: only a bill's is a place.
_PLACES: Final = _table({"state": "state region province", "country": "country countrycode"})
_WORDS: Final = _SURE | _SOMEBODYS | _PLACES
# Meta's and Snap's short names, whose values are digests as a rule (their "Customer information parameters").
_SHORT: Final = {
    "em": "email",
    "ph": "phone",
    "fn": "first_name",
    "ln": "last_name",
    "ge": "gender",
    "db": "birth_date",
    "ct": "city",
    "st": "state",
    "zp": "zip",
}
# Two letters mean many things: a ``ct`` is a count and a ``st`` a status, but not beside one of these.
_TELLING_SHORT: Final = frozenset(("em", "ph", "fn"))

_OWN: Final = (
    *("billing", "invoice", "mailing", "customer", "user", "buyer", "client", "cardholder"),
    *("home", "work", "account", "member", "subscriber"),
    *("primary", "personal", "private"),
)
_ANOTHERS: Final = frozenset(
    (
        *("shipping", "recipient", "delivery", "contact", "guest", "passenger", "traveler", "traveller", "attendee"),
        *("secondary", "alternate", "emergency"),
    )
)
_WHOSE: Final = (*_OWN, *_ANOTHERS)
# Which of several: anything has a primary name and a secondary address.
_WHICH: Final = frozenset(("primary", "personal", "private", "secondary", "alternate", "emergency"))
# An account's name is a company's, a delivery's is a carrier's; the city of a work or a home is an advertisement's.
_NOT_A_PERSON: Final = _WHICH | {"account", "delivery", "work", "home"}
_PERSONS: Final = {
    **dict.fromkeys(("user", "userdata", "customer", "customerdata", "buyer", "contact"), False),
    **dict.fromkeys(("billing", "billingdetails", "defaultaddress"), False),
    **dict.fromkeys(("shipping", "shippingdetails", "recipient"), True),
}
# Commanders Act: "any user property may be sent as X_sha256 or X_md5"; Google's user-provided data: sha256_X.
_DIGEST: Final = "(sha256|hashed|hash|md5|sha1)?"
_ONE_OF: Final = re.compile("|".join(_WHOSE))
_SHAPE: Final = re.compile(
    rf"{_DIGEST}((?:{_ONE_OF.pattern})*)({'|'.join(sorted(_WORDS, key=len, reverse=True))})([0-9]{{1,2}})?{_DIGEST}"
)
# What is nothing but a person's, whoever that is: ``driver_first_name`` is nobody's whose digest a partner wants.
_WHOEVERS: Final = re.compile(
    r".+(?:firstname|lastname|givenname|familyname|surname|phonenumber|mobilenumber|emailaddress|dateofbirth|birthdate)"
    r"[0-9]{0,2}"
)
_LONGEST: Final = 64


def word(key: str) -> Word | None:
    """What ``key`` says about a person; None where it says nothing."""
    return _word(key) if len(key) <= _LONGEST else None


def said(keys: tuple[str, ...], *, alone: bool = False) -> tuple[tuple[str, Word], ...]:
    """The keys that say something about a person, the ones that count first in front.

    A short name counts ``alone``, in a person's own object, or else beside one that can hardly be anything else.
    """
    found = [(key, what) for key in keys if (what := word(key)) is not None]
    if not alone and _TELLING_SHORT.isdisjoint(keys):
        found = [(key, what) for key, what in found if not what.short]
    return tuple(sorted(found, key=lambda each: each[1].rank))


def forget() -> None:
    """Empty the memory."""
    _word.cache_clear()


@lru_cache(maxsize=4096)
def _word(key: str) -> Word | None:
    if (field := _SHORT.get(key)) is not None:
        return Word(field, sure=False, short=True)
    if key == "location":  # of a profile; elsewhere it is anything's
        return Word(ADDRESS, sure=False)
    name = folded(key)
    if (another := _PERSONS.get(name)) is not None:
        return Word(PERSON, another=another)
    if (found := _SHAPE.fullmatch(name)) is not None:
        return _of_shape(*found.groups(""))
    return Word(NOTHING, another=True) if _WHOEVERS.fullmatch(name) else None


def _of_shape(before: str, whose: str, name: str, number: str, after: str) -> Word | None:
    field, owners, digest = _WORDS[name], set(_ONE_OF.findall(whose)), before or after
    if (number and name not in _SURE) or (digest and field in (NAME, ADDRESS, NOTHING)):
        return None
    sure = name in _SURE or _is_somebodys(field, owners)
    if owners and not sure:
        return None
    broken = digest in ("md5", "sha1")
    return Word(
        field,
        sure,
        rank=(bool(owners or number) or field == NAME or name == "emailid") + 2 * bool(digest) + 2 * broken,
        hashed=bool(digest),
        another=not _ANOTHERS.isdisjoint(owners),
    )


def _is_somebodys(field: str, owners: set[str]) -> bool:
    if field in _PLACES.values():
        return "billing" in owners
    if field == ADDRESS:  # an account's is a wallet's
        return bool(owners - _WHICH - {"account"})
    return not (_NOT_A_PERSON | {"mailing"} if field == NAME else _NOT_A_PERSON).issuperset(owners)
