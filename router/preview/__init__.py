"""Preview: what a destination would be sent for one event, why or why not, and where every value of it comes from.

The event is routed, aged, shown and written by what delivery uses for it, so the body is the one that goes on the wire
when the event goes alone. Secrets are masked in everything that is made for people here. Pure.

``origins`` says where a value comes from, ``shown`` how a request is shown. What only the running server knows is not
said: whether the lane is held, or the event's subject closed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from router import quality, route
from router.destination import Destination, Request
from router.event import Clear, Event, telling, withheld, without
from router.outcome import Refusal
from router.preview.origins import as_text, dotted, origins, untraced
from router.preview.shown import MASK, masked
from router.settings import seconds

Result = Literal["sent", "filtered", "too_old", "refused"]

_LONGEST: Final = 60  # characters of a value that are shown


class Leaf(msgspec.Struct, frozen=True, rename={"origin": "from"}):
    """One value of a body. ``value`` is fit to be shown; ``origin`` is where it comes from, None where nobody can tell."""

    path: str
    value: str
    origin: str | None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one event at one destination.

    ``request`` is there whenever one could be written, also where the event is too old to be sent; ``window`` is the
    age that is accepted, in words, None where any is.
    """

    to: str
    destination: Destination
    event: Event
    result: Result
    reason: str | None
    checks: tuple[route.Check, ...]
    request: Request | None
    hints: tuple[str, ...]
    match: quality.Match
    age: float  # seconds
    window: str | None

    def leaves(self) -> list[Leaf]:
        """Every value of the body, in its order; none where it is not JSON."""
        body = _body(self.request)
        private = list(telling(self.event.clear, Clear.__struct_fields__))
        return [
            Leaf(dotted(path), self._fit(value, origin, private), origin)
            for path, value, origin in origins(
                body, self.destination, self.event, without(self.event, withheld(self.destination.clear))
            )
        ]

    def _fit(self, value: Any, origin: str | None, private: Sequence[str]) -> str:
        text = masked(as_text(value), self.destination)
        if (origin or "").startswith("clear.") or any(each in text for each in private):
            return MASK
        if _DIGEST.fullmatch(text):
            return f"{text[:8]}...{text[-4:]}"
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

    def untraced(self) -> list[str]:
        """The fields of the event whose values are nowhere in the body; they may have shaped it all the same."""
        return [] if self.request is None else untraced(_body(self.request), self.event)


_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def preview(name: str, destination: Destination, event: Event, now: int) -> Preview:
    """What the lane ``name`` would do with the event at the instant ``now`` (UTC ms), as soon as it gets to it."""
    checks = tuple(route.explain(route.compile(name, destination), event))
    against = next((check.words for check in checks if not check.ok), None)
    visible, window = without(event, withheld(destination.clear)), destination.age_limit()
    request, refusal = (None, against) if against is not None else _written(destination, visible, now)
    age = (now - event.time) / 1000
    result, reason = _result(against, _too_old(age, window), refusal)
    return Preview(
        to=name,
        destination=destination,
        event=event,
        result=result,
        reason=reason,
        checks=checks,
        request=request,
        hints=() if against is not None else tuple(destination.hints(visible)),
        match=quality.for_destination(destination, visible),
        age=age,
        window=window,
    )


def _result(against: str | None, late: str | None, refusal: str | None) -> tuple[Result, str | None]:
    """In the order in which a lane asks."""
    if against is not None:
        return "filtered", against
    if late is not None:
        return "too_old", late
    return ("refused", refusal) if refusal is not None else ("sent", None)


def _too_old(age: float, window: str | None) -> str | None:
    return "expired: older than the partner accepts" if window and age > seconds(window) else None


def _written(destination: Destination, event: Event, now: int) -> tuple[Request | None, str | None]:
    """The request that carries the event alone, or why there is none."""
    try:
        (piece,) = destination.requests([event], now)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a partner's file raises ends an event in delivery, too
        return None, f"the mapping failed ({type(error).__name__}): report it with the event's id"
    return (None, piece.reason) if isinstance(piece, Refusal) else (piece, None)


def _body(request: Request | None) -> Any:
    try:
        return None if request is None else msgspec.json.decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
