"""Where senders put what identifies a person, and under which spellings.

``identify`` takes those keys out of an object and into ``Raw``, so that nothing of them can reach the stored event.
What is done with the values is ``router.identifiers``' subject.
"""

from __future__ import annotations

from typing import Any

from router.dialects.reading import Object
from router.identifiers import Raw

_PLAIN = {
    "email": ("email", "email_address", "e_mail", "mail"),
    "phone": ("phone", "phone_number", "mobile", "mobile_phone", "telephone"),
    "first_name": ("first_name", "firstname", "given_name"),
    "last_name": ("last_name", "lastname", "family_name", "surname"),
    "gender": ("gender",),
    "birth_date": ("birth_date", "birthdate", "birthday", "date_of_birth", "dob"),
    "street": ("street", "street_address", "address_line1", "address1"),
    "city": ("city",),
    "state": ("state", "region", "province"),
    "zip": ("zip", "zip_code", "zipcode", "postal_code", "postalcode", "postcode"),
    "country": ("country", "country_code"),
}
# Meta's and Snap's short names, whose values are digests as a rule (their "Customer information parameters").
_SHORT = {
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
_WHOLE_NAMES = frozenset({"name", "full_name", "fullName", "fullname"})
_FORGOTTEN = frozenset({"middle_name", "middleName", "address2", "address_line2", "addressLine2"})


def _spellings(snake: str) -> set[str]:
    first, *others = snake.split("_")
    camel = first + "".join(word.title() for word in others)
    return {snake, camel, snake.replace("_", "-"), camel[:1].upper() + camel[1:], snake.upper()}


def _table(suffixes: tuple[str, ...], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    names = {
        decorated: field
        for field, bases in _PLAIN.items()
        for base in bases
        for decorated in (
            *(f"{base}{suffix}" for suffix in suffixes),
            *(f"{prefix}{base}" for prefix in prefixes),
        )
    }
    return {spelling: field for name, field in names.items() for spelling in _spellings(name)}


# Commanders Act: "any user property may be sent as X_sha256 or X_md5"; Google's user-provided data: sha256_X.
_FIELDS = _table(("",)) | _SHORT
_HASHED = _table(("_sha256", "_hash", "_hashed"), ("sha256_", "hashed_"))
_BROKEN_HASHES = _table(("_md5", "_sha1"), ("md5_", "sha1_"))
_ADDRESSES = frozenset({"address", "addresses", "location", "Address"})

# Readable on purpose, and stored apart from the event; what is turned away is not stored apart.
_READABLE = frozenset(
    {
        "user_ip",
        "client_ip",
        "ip",
        "ip_address",
        "ip_override",
        "client_ip_address",
        "user_agent",
        "userAgent",
        "client_user_agent",
    }
    | {"cookie", "cookies", "advertising_id", "advertisingId", "idfv", "madid", "em", "ph", "fn", "ln", "db"}
)
_HASHES = _HASHED | _BROKEN_HASHES
_SPECIAL = frozenset(_HASHES) | _ADDRESSES | _WHOLE_NAMES | _FORGOTTEN
# Keys that mean a person wherever they stand. A city or a country may be a trip's, a name a product's.
_UNMISTAKABLE = frozenset(
    key
    for key, field in (_FIELDS | _HASHES).items()
    if field in {"email", "phone", "first_name", "last_name", "birth_date", "street"} and key not in _SHORT
)
_PERSONS = frozenset(
    {"user", "user_data", "customer", "buyer", "billing", "billing_address", "billingAddress"} | {"contact", "traits"}
)
_SOMEBODY_ELSE = frozenset({"shipping", "shipping_address", "shippingAddress", "recipient"})  # a gift's, perhaps
_TELLING = _UNMISTAKABLE | _PERSONS | _SOMEBODY_ELSE | _ADDRESSES - {"location"} | _WHOLE_NAMES - {"name"}


def identify(person: Object, raw: Raw) -> None:
    """Take every identifier out of ``person``; a value already in ``raw`` stays. Changes both.

    A clear value wins over its own SHA-256, and that over MD5 or SHA-1, which can only be dropped with a note.
    """
    hashed = []
    for key in list(person):
        if (field := _FIELDS.get(key)) is not None:
            _give(raw, field, person.pop(key))
        elif key in _SPECIAL:
            if key in _HASHES:
                hashed.append(key)
            elif key in _ADDRESSES:
                _address(person, key, raw)
            else:
                _whole_name(key, person.pop(key), raw)
    for key in sorted(hashed, key=_BROKEN_HASHES.__contains__):
        _hash(raw, key, person.pop(key))


def glean(properties: Object, raw: Raw) -> None:
    """Take what can only mean a person out of an event's own properties. Changes both, but no object inside."""
    if _TELLING.isdisjoint(properties):
        return
    for key in [key for key in properties if key in _TELLING]:
        value = properties[key]
        if isinstance(value, dict):
            person = dict(properties.pop(key))
            identify(person, Raw() if key in _SOMEBODY_ELSE else raw)
            if person:
                properties[key] = person
        elif key in _UNMISTAKABLE:
            _hash(raw, key, properties.pop(key)) if key in _HASHES else _give(raw, _FIELDS[key], properties.pop(key))
        elif key in _ADDRESSES:
            _address(properties, key, raw)
        elif key in _WHOLE_NAMES:
            _whole_name(key, properties.pop(key), raw)


def strip(value: Any, depth: int = 40) -> Any:
    """A copy of any JSON value without the identifiers that have a key of their own; for items that are turned away."""
    if depth == 0:
        return None
    if isinstance(value, list):
        return [strip(member, depth - 1) for member in value]
    if not isinstance(value, dict):
        return value
    rest = {key: member for key, member in value.items() if key not in _READABLE}
    glean(rest, Raw())
    return {key: strip(member, depth - 1) for key, member in rest.items()}


def _give(raw: Raw, field: str, value: Any) -> bool:
    """Whether the value was taken. Meta and Snap allow a list, which ``router.identifiers`` reads."""
    if value is None or value in ("", []) or isinstance(value, dict) or getattr(raw, field) is not None:
        return False
    setattr(raw, field, value)
    return True


def _address(person: Object, key: str, raw: Raw) -> None:
    value = person.pop(key)
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        inner = dict(value)
        identify(inner, raw)
        if inner:
            person[key] = inner
    elif key == "location":
        person[key] = value  # of a profile: "somewhere over the rainbow"
    elif isinstance(value, str):
        _give(raw, "street", value)


def _hash(raw: Raw, key: str, value: Any) -> None:
    if _give(raw, field := _HASHES[key], value) and field == "phone":
        raw.phone_hash_has_plus = True  # Commanders Act and Google both write E.164


def _whole_name(key: str, value: Any, raw: Raw) -> None:
    """Segment's own rule for ``traits.name``: up to the first space, and the rest (segmentio/facade, lib/identify.ts)."""
    if key in _FORGOTTEN or not isinstance(value, str) or raw.first_name is not None or raw.last_name is not None:
        return
    given, _, family = value.strip().partition(" ")
    if given and family:
        raw.first_name, raw.last_name = given, family.strip()
