"""A partner's own words, fit to be kept: without our secrets, without what it was told of a person, and cut. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from router import scrub
from router.secret import spellings

KEPT = 4096  # characters


def redacted(body: bytes, private: Iterable[str]) -> str:
    """``body`` as text. Every private value goes, in the spellings that JSON and URLs give it, before the cut: a cut
    through the middle of a secret would leave the rest of it unrecognised.
    """
    text = body.decode("utf-8", "replace")
    for value in sorted(set(private), key=len, reverse=True):
        for spelling in spellings(value):
            text = text.replace(spelling, "***")
    return scrub.text(text)[:KEPT]
