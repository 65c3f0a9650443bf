"""Words for a person: what the name of a key says of the value under it, whoever made the key up.

One table for both sides: ``router.dialects.people`` makes identifiers of what stands under these words, ``trees`` and
``urls`` take out what no dialect took. A name is read without case, separators, the words that say whose it is, and a
last number: ``customerBillingPhone_2`` is a phone. What is written out whole in the table is not taken apart.

A word is sure where it means a person wherever it stands. A city may be a trip's and a name a product's: these count
inside an object that is a person's, or where their own name says whose they are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from router.scrub.keys import folded

NAME, ADDRESS, PERSON, NOTHING = "name", "address", "person", "nothing"


class Word(NamedTuple):
    field: str  # of ``Raw``; or NAME, ADDRESS, PERSON (an object), NOTHING (no partner matches on it)
    sure: bool = True
    rank: int = 0  # the least counts first: the thing itself, a clear text that somebody's word stands before, digests
    hashed: Literal["", "sha256", "broken"] = ""
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
        "email": "email emailaddress emailid mail",
        "phone": "phone phonenumber phoneno telephone telephonenumber tel telno telnumber mobile mobileno mobilenumber"
        " mobilephone mobilephonenumber cellphone cellphonenumber msisdn whatsapp whatsappnumber smsnumber contactnumber",
        "first_name": "firstname givenname forename fname",
        "last_name": "lastname familyname surname lname",
        "birth_date": "birthdate birthday dateofbirth dob",
        "street": "street streetaddress addressline1 address1 street1",
        NAME: "fullname",
        NOTHING: "middlename maidenname addressline2 addressline3 address2 address3 street2 fax faxnumber nameoncard"
        " cardholder",
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
        NOTHING: "line2",
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
_TELLING_SHORT: Final = frozenset(("em", "ph", "fn", "ln"))

_OWN: Final = (
    *("billing", "invoice", "mailing", "customer", "user", "contact", "buyer", "client", "cardholder"),
    *("home", "work", "account"),
)
_ANOTHERS: Final = frozenset(("shipping", "recipient", "delivery"))
_WHOSE: Final = (*_OWN, *_ANOTHERS)
# An account's name is a company's, a delivery's is a carrier's; the city of a work or a home is an advertisement's.
_NOT_A_PERSON: Final = frozenset(("account", "delivery", "work", "home"))
_PERSONS: Final = {
    **dict.fromkeys(("user", "userdata", "customer", "customerdata", "buyer", "contact"), False),
    **dict.fromkeys(("billing", "billingdetails"), False),
    **dict.fromkeys(("shipping", "shippingdetails", "recipient"), True),
}
_DIGESTS: Final[dict[str, Literal["sha256", "broken"]]] = {
    **dict.fromkeys(("sha256", "hashed", "hash"), "sha256"),
    **dict.fromkeys(("md5", "sha1"), "broken"),
}
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
    name, hashed = _undigested(name)
    name, whose = _taken_apart(name)
    if (field := _WORDS.get(name)) is None or (hashed and field in (NAME, ADDRESS, NOTHING)):
        return None
    sure = name in _SURE or _is_somebodys(field, whose)
    if whose and not sure:
        return None
    rank = (bool(whose) or field == NAME) + 2 * bool(hashed) + 2 * (hashed == "broken")
    return Word(field, sure, rank, hashed, another=not _ANOTHERS.isdisjoint(whose))


def _undigested(name: str) -> tuple[str, Literal["", "sha256", "broken"]]:
    """Commanders Act: "any user property may be sent as X_sha256 or X_md5"; Google's user-provided data: sha256_X."""
    for mark, kind in _DIGESTS.items():
        for rest in (name.removeprefix(mark), name.removesuffix(mark)):
            if rest != name:
                return rest, kind
    return name, ""


def _taken_apart(name: str) -> tuple[str, list[str]]:
    """The word without those that say whose it is, and these; an e-mail address or a phone may be numbered."""
    whose: list[str] = []
    while name not in _WORDS and (first := next(filter(name.startswith, _WHOSE), None)) is not None:
        whose.append(first)
        name = name.removeprefix(first)
    bare = name.rstrip("0123456789")
    numbered = name not in _WORDS and len(name) - len(bare) < 3 and _SURE.get(bare) in ("email", "phone")
    return (bare if numbered else name), whose


def _is_somebodys(field: str, whose: list[str]) -> bool:
    if field in _PLACES.values():
        return "billing" in whose
    return bool(whose) if field == ADDRESS else not _NOT_A_PERSON.issuperset(whose)
