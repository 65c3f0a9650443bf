"""Scrub: personal data and secrets are taken out of what is not an identifier.

Free text, URLs, keys and trees of properties pass here before the first write. What a person's identifiers become is
``router.identifiers``'s; which field is which is a dialect's. Every function gives back the very object it was given when
nothing had to go, and scrubbing twice changes nothing more.

Page addresses, titles and the words of a shop repeat from event to event, so the last answers on short texts and on sets
of keys are remembered. That memory is bounded, the process's alone and written nowhere; ``forget`` empties it.
"""

from __future__ import annotations

from router.scrub import texts, trees, urls
from router.scrub.numbers import CARD, IBAN, PHONE, is_bar_code, is_shops_number
from router.scrub.texts import EMAIL, LEAST, SECRET, contains_personal, safe_id, text
from router.scrub.trees import DEPTH, LONG_KEY, LONGEST_KEY, tree
from router.scrub.urls import URL_LENGTH, url

__all__ = [
    "CARD",
    "DEPTH",
    "EMAIL",
    "IBAN",
    "LEAST",
    "LONGEST_KEY",
    "LONG_KEY",
    "PHONE",
    "SECRET",
    "URL_LENGTH",
    "contains_personal",
    "forget",
    "is_bar_code",
    "is_shops_number",
    "safe_id",
    "text",
    "tree",
    "url",
]


def forget() -> None:
    """Empty the memory of texts, keys and addresses, as an erasure asks."""
    for each in (texts, urls, trees):
        each.forget()
