"""What ``router.door`` is given beside an item (its source, the request around it), and its answer to what it refuses."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from router.problem import Problem


class Door(Struct, frozen=True, kw_only=True):
    """What is the same for all items of one source. ``keep_clear`` names the fields of ``Clear`` some destination needs."""

    source: str
    site: str | None = None
    default_country: str | None = None
    keep_clear: frozenset[str] = frozenset()


class Visit(Struct, frozen=True, kw_only=True):
    """What is the same for all items of one request.

    ``received`` is UTC ms. ``call`` is the kind that the path of a single call implies. ``wrapper`` has the other keys
    of a ``{"batch": [...]}`` body. ``dialect`` is given where it is not for the item to say. ``ip`` and ``user_agent``
    are the connection's, given only where it is the visitor's.
    """

    received: int
    call: str | None = None
    wrapper: dict[str, Any] = {}
    dialect: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    test: bool = False


class TurnedAway(Struct, frozen=True, kw_only=True):
    """Parseable but not acceptable. ``scrubbed`` is the item as it may be kept: without identifiers and scrubbed."""

    problem: Problem
    scrubbed: Any
