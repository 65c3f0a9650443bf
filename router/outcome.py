"""What an attempt means: a closed set of values that each say what to do next.

A destination returns one of these for every answer of its partner. ``reason`` is written by us and is safe to show;
the partner's own words are kept apart, cut and redacted.
"""

from __future__ import annotations

import msgspec

from router.event import Event


class Closed(msgspec.Struct, frozen=True):
    """No further event about the same subject is worth sending for so many seconds, for this reason.

    What an event's subject is, and which events a close keeps out, the destination says (``subject``, ``kept_out``).
    """

    reason: str
    seconds: float


class Delivered(msgspec.Struct, frozen=True, kw_only=True, tag="delivered"):
    """The partner has it.

    ``duplicate``: it had it before. ``unverified``: its answer proves nothing. ``free``: it
    uses up none of the month's quota. ``rejected``: members of the batch, by
    their index in ``request.events``, that the partner refused for good while it took the rest. ``closes``: what this
    means for later events about the same subject.
    """

    duplicate: bool = False
    unverified: bool = False
    free: bool = False
    rejected: dict[int, str] = {}
    closes: Closed | None = None


class Retry(msgspec.Struct, frozen=True, tag="retry"):
    """A passing fault: the same body later. ``after`` (seconds) or ``until`` (UTC ms) come from the partner and move
    the whole lane; without them the delivery waits by our own schedule.
    """

    reason: str
    after: float | None = None
    until: int | None = None


class Rejected(msgspec.Struct, frozen=True, tag="rejected"):
    """This event can never succeed there. ``closes``: nor can, for a while, others about the same subject."""

    reason: str
    closes: Closed | None = None


class Split(msgspec.Struct, frozen=True, tag="split"):
    """Some member makes the batch fail. ``rejected`` names members the partner pointed at, by index: they are dead and
    the others go again at once. Where nobody is named, the batch is bisected.
    """

    reason: str
    rejected: dict[int, str] = {}


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """The lane must wait for its credentials, plan, quota or address; no attempt is spent and nothing is lost.

    ``until`` (UTC ms) when the partner said when; else a slow probe, the operator or a reload resumes it.
    """

    reason: str
    until: int | None = None


Outcome = Delivered | Retry | Rejected | Split | Hold


class Refusal(msgspec.Struct, frozen=True):
    """An event that a destination cannot express. Decided before any request."""

    event: Event
    reason: str
