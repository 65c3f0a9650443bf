"""Who sends: the key of a request, and the source it belongs to.

A wrong key, a missing key, an unknown site and a key of another site are one and the same answer. Keys are compared as
SHA-256 digests, each with each in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from router.settings import Snitcher, Source
from router.visit import Door

_DIGEST = "sha256:"


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """A source, ready to receive from. Nothing of it is secret: a collecting process is told no more."""

    name: str
    enabled: bool
    door: Door
    digests: tuple[bytes, ...] = ()
    origins: frozenset[str] = frozenset()


def sender(name: str, source: Source | Snitcher, keep_clear: frozenset[str]) -> Sender:
    """Prepare a source; ``keep_clear`` names the clear values that some destination needs.

    One that is fetched from has no key of its own: nobody can send as it, but for webhooks with its signature.
    """
    if isinstance(source, Snitcher):
        door = Door(source=name, default_country=source.default_country, keep_clear=keep_clear)
        return Sender(name=name, enabled=source.enabled, door=door)
    return Sender(
        name=name,
        enabled=source.enabled,
        door=Door(source=name, site=source.site, default_country=source.default_country, keep_clear=keep_clear),
        digests=tuple(_digest(token.reveal()) for token in source.tokens),
        origins=frozenset(source.origins),
    )


def _digest(token: str) -> bytes:
    """Of a token, or the digest itself where the configuration gives that."""
    if token.startswith(_DIGEST):
        return bytes.fromhex(token.removeprefix(_DIGEST))
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def presented(headers: Mapping[str, str], query: Sequence[tuple[str, str]]) -> str | None:
    """The key that a request brings outside its body, or None. Two different keys are as good as a wrong one."""
    found = {value for name, value in query if name in _QUERY_NAMES} or {value for name, value in query if name == "k"}
    authorization = headers.get("Authorization", "")
    scheme, _, credentials = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            found.add(credentials.strip())
        case "basic":
            found.add(_user_name(credentials.strip()))
    if (key := headers.get("x-api-key")) is not None:
        found.add(key)
    if not found:
        return None
    return found.pop() if len(found) == 1 else ""


# Commanders Act and its SDKs; Segment and RudderStack beacons. A tag manager's short ``k`` counts where none of them is.
_QUERY_NAMES = frozenset({"token", "tc_skey", "writeKey"})


def _user_name(credentials: str) -> str:
    """Segment and RudderStack send the key as user name with an empty password; a missing colon is tolerated."""
    try:
        text = base64.b64decode(credentials, validate=True).decode("utf-8", "surrogateescape")
    except (binascii.Error, ValueError):
        return ""
    return text.partition(":")[0]


def in_body(wrapper: Mapping[str, Any], first: Any) -> str | None:
    """The ``writeKey`` of Segment's wrapper or single call."""
    for holder in (wrapper, first):
        if isinstance(holder, Mapping) and isinstance(key := holder.get("writeKey"), str):
            return key
    return None


def may_be_in(text: bytes) -> bool:
    """Can ``in_body`` find a key in what this text says? Its name is there, or some letter as an escape."""
    return b"writeKey" in text or rb"\u" in text


class Keyring(msgspec.Struct, frozen=True):
    """All sources and their keys, and the names of those whose partner posts to /webhooks/NAME."""

    senders: tuple[Sender, ...]
    hooks: frozenset[str] = frozenset()

    def sender(self, key: str, site: str | None) -> Sender | None:
        """Whose key it is, or None. ``site`` is Commanders Act's tc_s, checked where the source has one."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found: Sender | None = None
        for each in self.senders:
            for known in each.digests:
                if hmac.compare_digest(digest, known):
                    found = each
        if found is None or (site is not None and found.door.site is not None and site != found.door.site):
            return None
        return found

    def listed(self, origin: str) -> bool:
        """Does any source take posts from pages of this origin? A preflight brings no key."""
        return any(origin in each.origins for each in self.senders)
