"""A partner's own words, fit to be kept: without our secrets, without what it was told of a person, and cut. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from router import scrub

KEPT = 4096  # characters


def redacted(body: bytes, private: Iterable[str]) -> str:
    """``body`` as text. Every private value goes, in the spellings that JSON and URLs give it, before the cut: a cut
    through the middle of a secret would leave the rest of it unrecognised.
    """
    text = body.decode("utf-8", "replace")
    for value in sorted(set(private), key=len, reverse=True):
        for spelling in _spellings(value):
            text = text.replace(spelling, "***")
    return scrub.text(text)[:KEPT]


def _spellings(value: str) -> set[str]:
    escaped = json.dumps(value)[1:-1]
    plain = json.dumps(value, ensure_ascii=False)[1:-1]
    return {
        value,
        escaped,
        plain,
        escaped.replace("/", "\\/"),
        plain.replace("/", "\\/"),
        quote(value, safe=""),
        quote(value, safe="").lower(),
        quote(value),
        quote_plus(value),
    }
