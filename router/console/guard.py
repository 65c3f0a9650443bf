"""Who may use the console: Host, token, and whether a page of somebody else's sent the request. No clock, no network.

A page on the internet can make a browser call an address on loopback; its Host (DNS rebinding) or its Origin tells it
apart. Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet, "Fetch Metadata headers".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from router.secret import Secret

WINDOW = 60_000  # ms
GUESSES = 10  # wrong tokens an address may send in a window
REMEMBERED = 10_000  # addresses

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "turnout",  # else aiohttp says its version and Python's
}

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)


def known_host(host: str | None, listen: str, more: Collection[str] = ()) -> bool:
    """Does this Host header mean us? An IP literal always does: rebinding needs a name. ``more`` are names that a proxy
    in front forwards.
    """
    found = _HOST.fullmatch(host) if host else None
    if found is None:
        return False
    name = found["name"].strip("[]").lower().removesuffix(".")
    ours = {"localhost", listen.rpartition(":")[0].strip("[]").lower(), *(each.lower() for each in more)}
    return name in ours or _literal(name)


def _literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def foreign(headers: Mapping[str, str]) -> bool:
    """Was this request made by a page of another origin? Programs send neither header."""
    if headers.get("Sec-Fetch-Site", "none") not in {"same-origin", "none"}:
        return True
    origin = headers.get("Origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("Host", "").lower()
    except ValueError:
        return True


def authorised(header: str | None, token: Secret | None) -> bool:
    """Is this the Authorization header of the token, as Bearer or as the password of Basic (RFC 7617), which browsers ask
    for? Digests are compared, in constant time, whatever was sent.
    """
    if token is None:
        return True
    scheme, _, said = (header or "").partition(" ")
    given = said.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        given = _password(given)
    return hmac.compare_digest(hashlib.sha256(given).digest(), token.digest()) and scheme.lower() in {"bearer", "basic"}


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


class Guesses:
    """Wrong tokens by address. Forgets the oldest address first, so that nobody can fill the memory."""

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, int]] = {}

    def too_many(self, address: str, now: int) -> bool:
        began, count = self._wrong.get(address, (now, 0))
        return count >= GUESSES and now - began < WINDOW

    def wrong(self, address: str, now: int) -> None:
        began, count = self._wrong.pop(address, (now, 0))
        if now - began >= WINDOW:
            began, count = now, 0
        self._wrong[address] = began, count + 1
        if len(self._wrong) > REMEMBERED:
            del self._wrong[next(iter(self._wrong))]
