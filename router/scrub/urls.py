"""URLs: without user name, password and personal parameters. Click ids that hold no e-mail address stay byte for byte.

They are remembered up to twice the length of other texts. Source: WHATWG URL.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal
from urllib.parse import quote, unquote, unquote_plus

from router.scrub import persons
from router.scrub.keys import FORBIDDEN, VISITOR, folded
from router.scrub.numbers import is_shops_number
from router.scrub.texts import LEAST, REMEMBERED, SHORT, contains_personal, is_ordinary, text, without_emails

URL_LENGTH: Final = 4096
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}:")


def url(value: str) -> str | None:
    """A URL without user name, password and personal parameters; None where its scheme is not a page's or an app's.

    Paths and queries without a scheme are URLs too. Cut at ``URL_LENGTH``.
    """
    cleaned = _url(value, 2) if len(value) > 2 * SHORT else _remembered_url(value)
    if cleaned is None:
        return None
    if cleaned == value:
        cleaned = value  # the very object that was given
    return cleaned if len(cleaned) <= URL_LENGTH else cleaned[:URL_LENGTH]


def forget() -> None:
    """Empty the memory."""
    _remembered_url.cache_clear()
    _parameter_kind.cache_clear()


def looks_like_url(value: str) -> bool:
    if value.startswith(("/", "?", "#")):
        told = "=" in value or (value.startswith("//") and "@" in value)
        return " " not in value and (told or value.isprintable())  # else of an address a caption's line ends would go
    return "://" in value and " " not in value and _SCHEME.match(value) is not None


_NO_SCHEMES: Final = frozenset({"javascript", "data", "file", "vbscript", "blob", "about", "filesystem", "view-source"})
# The advertisers' click ids, in lower case. Their values are opaque and may look like anything.
_CLICK_IDS: Final = frozenset(
    {"sccid", "sc_click_id", "fbclid", "gclid", "gclsrc", "gbraid", "wbraid", "dclid", "ttclid", "msclkid", "twclid"}
    | {"li_fat_id", "epik", "rdt_cid", "irclickid", "yclid", "awc", "cjevent"}
)
_PARAMETERS: Final = (
    FORBIDDEN
    | VISITOR
    | {"key", "auth", "sig", "signature", "login", "username", "sid", "session", "sessionid"}
    | {"resettoken", "verificationtoken", "invitetoken", "nonce", "pin"}
)
# What may be a product's in an object is a form's in an address: nobody names a product by its name there, but by its id.
_OF_A_FORM: Final = frozenset({"name", "fn", "ln", "address", "zip", "zipcode", "postalcode", "postcode"})

_HOST_END: Final = re.compile(r"[/?#\\]")


def _url(value: str, depth: int) -> str | None:
    whole = value.strip() if value[:1] <= " " or value[-1:] <= " " else value
    if not whole.isprintable():  # browsers drop tabs and line ends inside a URL, and so hide "java\nscript:"
        whole = "".join(filter(str.isprintable, whole)).strip()
    rest = whole
    prefix = ""
    if (scheme := _SCHEME.match(whole)) is not None:
        name = scheme[0][:-1].lower()
        rest = whole[scheme.end() :]
        prefix = scheme[0]
        port = rest[:1].isdecimal()  # localhost:8080/cart
        if name in _NO_SCHEMES or not (rest.startswith("//") or port):
            return None
    if not whole:
        return None
    if rest.startswith("//"):
        end = len(rest) if (found := _HOST_END.search(rest, 2)) is None else found.start()
        prefix += "//"
        host, rest = rest[2:end].rpartition("@")[2], rest[end:]
        prefix += host
    path, hash_, fragment = rest.partition("#")
    path, mark, query = path.partition("?")
    cleaned = prefix + _path(path)
    if mark and (kept := _parameters(query, depth)) is not None:
        cleaned += mark + kept
    if hash_ and (kept := _fragment(fragment, depth)) is not None:
        cleaned += hash_ + kept
    return cleaned.rstrip()  # what stood behind may be gone


_remembered_url: Final = lru_cache(maxsize=REMEMBERED)(lambda value: _url(value, 2))


def _fragment(fragment: str, depth: int) -> str | None:
    route, mark, query = fragment.partition("?")
    if mark:
        kept = _parameters(query, depth)
        return _path(route) + (mark + kept if kept is not None else "")
    return _parameters(fragment, depth) if "=" in fragment else _path(fragment)


def _path(path: str) -> str:
    """Each part by itself, as written and as decoded: between slashes a number is not joined to more. Then all of it."""
    if is_ordinary(unquote(path)):
        return text(path)
    parts = [part if len(part) < LEAST or is_shops_number(part) else _value(part, 0) for part in path.split("/")]
    return text("/".join(parts))


def _parameters(query: str, depth: int) -> str | None:
    """The parameters that may stay, byte for byte where nothing was found in them; None where none of them may."""
    parameters = query.split("&")
    kept = [cleaned for one in parameters if (cleaned := _parted(one, depth)) is not None]
    return "&".join(kept) if kept else None


def _parted(parameter: str, depth: int) -> str | None:
    """Some servers part parameters with a semicolon; one that no name follows is of the value, and all of them are in the
    value of a click id.
    """
    if ";" not in parameter or _kind(parameter.partition("=")[0]) == "opaque":
        return _parameter(parameter, depth)
    kept = [cleaned for one in _PARTED.split(parameter) if (cleaned := _parameter(one, depth)) is not None]
    return ";".join(kept) if kept else None


_PARTED: Final = re.compile(r";(?=[^;=]{1,64}=)")


def _parameter(parameter: str, depth: int) -> str | None:
    name, equals, value = parameter.partition("=")
    match _kind(name):
        case "personal":
            return None
        case "opaque":  # click ids, and ids and names of campaigns, have many digits: only an address is none of theirs
            cleaned = without_emails(value) if equals else value
        case _:
            cleaned = _value(value, depth)
    return parameter if cleaned == value else f"{name}={cleaned}"


def _kind(name: str) -> Literal["opaque", "personal", "free"]:
    return _parameter_kind(name) if len(name) <= 64 else _parameter_kind.__wrapped__(name)


@lru_cache(maxsize=4096)
def _parameter_kind(name: str) -> Literal["opaque", "personal", "free"]:
    plain = unquote_plus(name)
    if plain.lower() in _CLICK_IDS or plain.lower().startswith("utm_"):
        return "opaque"
    inner = re.split(r"[\[.]", plain)[-1]  # user[email], user.email
    personal = folded(plain) in _OF_A_FORM or _is_personal(plain) or _is_personal(inner)
    return "personal" if personal or contains_personal(plain) else "free"


def _is_personal(name: str) -> bool:
    word = persons.word(name)
    return folded(name) in _PARAMETERS or (word is not None and word.tells and word.field != persons.PERSON)


def _value(value: str, depth: int) -> str:
    """A parameter's value, scrubbed as written and as decoded, and as a URL where it is one."""
    cleaned = text(value)
    if "%" not in cleaned and "+" not in cleaned:
        return _nested(cleaned, depth) if "//" in cleaned else cleaned
    for decoded in (unquote(cleaned), unquote_plus(cleaned)) if "+" in cleaned else (unquote(cleaned),):
        inner = _nested(decoded, depth) if "//" in decoded else text(decoded)
        if inner != decoded:
            return text(quote(inner, safe="[]/:"))  # a sign's digits may make an address of what was none
    return cleaned


def _nested(value: str, depth: int) -> str:
    if not depth or not looks_like_url(value):
        return text(value)
    return _url(value, depth - 1) or ""
