"""IP Snare: clicks on job adverts, verified one by one, one click a request.

It judges raw IP addresses and user agents and can do nothing with digests, so it is a destination in clear: enable it
knowingly. A click may be reported again until ``is_final``. Source: https://ipsnare.com/docs (Track API Reference).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from router.destination import Destination, Request, Response, mapped
from router.event import Event
from router.identifiers import alpha2
from router.outcome import Delivered, Hold, Outcome, Refusal, Rejected, Retry
from router.secret import Secret

FLAGS = {"expired": False, "is_bot": False, "is_final": True}  # what holds where the sender says nothing

_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,.'-]{0,79}", re.ASCII)  # words alone: such a message repeats nobody's data


class IpSnare(Destination, tag="ipsnare", frozen=True, kw_only=True):
    """Takes the events ``job_click`` and ``click`` unless ``events`` names others.

    The fourteen fields are properties of the event under IP Snare's own names; ``map`` finds them elsewhere.
    """

    api_key: Annotated[Secret, Meta(description="Settings, API key.")]

    title: ClassVar[str] = "IP Snare"
    home: ClassVar[str] = "https://api.ipsnare.com"
    docs: ClassVar[str] = "https://ipsnare.com/docs"
    dedup_key: ClassVar[str] = "click_id"
    clear: ClassVar[frozenset[str]] = frozenset({"ip", "user_agent", "country"})
    default_events: ClassVar[Mapping[str, str] | None] = {"job_click": "job_click", "click": "click"}

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request | Refusal]:  # noqa: ARG002 - unsigned
        headers = {"Authorization": Secret(f"Bearer {self.api_key.reveal()}", self.api_key.reference)}
        for event in events:
            given = mapped(_given(event), event, self.map)
            click = given | {name: read(given.get(name)) for name, read in _READ.items()}
            if wrong := [_fault(name, given.get(name)) for name in _READ if click[name] is None]:
                yield Refusal(event, f"{', '.join(wrong)}: send them as properties, or name their fields in map")
            else:
                click |= {"expired_at": click["expired_at"] or None}
                yield Request.json(self.endpoint("/v1/track"), click, [event], headers=headers)

    def outcome(self, response: Response) -> Outcome:
        match response.status, response.object().get("success"):
            case 200, True:
                return Delivered()
            case 200, False:
                return Rejected(f"IP Snare refused the click: {_errors(response)}")
            case 200, _:
                return Delivered(unverified=True)
            case 401, _:
                return Hold("API key refused: set api_key to the key on the Settings page, then resume")
            case 422, _:
                return Rejected(f"IP Snare finds fields missing or not valid: {_errors(response)}")
            case 500, _:
                return Retry("IP Snare failed")
        return super().outcome(response)


def _given(event: Event) -> dict[str, Any]:
    """What the event says of each field. Address, agent and country travel apart; the rest are properties."""
    said = {name: event.properties.get(name) for name in _READ}
    in_clear = {"user_ip": event.clear.ip, "user_agent": event.clear.user_agent, "user_country": event.clear.country}
    said |= {name: value for name, value in in_clear.items() if value is not None}
    defaults = {**FLAGS, "click_id": event.id, "click_time": _written(event.time), "expired_at": ""}
    return said | {name: value for name, value in defaults.items() if said[name] is None}


def _written(time: int) -> str:
    """UTC milliseconds as ISO 8601; the fraction only where there is one, as in the page's example."""
    moment = dt.datetime.fromtimestamp(time / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds" if time % 1000 else "seconds").replace("+00:00", "Z")


def _text(value: Any) -> str | None:
    """Text, or a whole number as text: ids are often numbers where they come from."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _address(value: Any) -> str | None:
    try:
        return str(ipaddress.ip_address(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _instant(value: Any) -> str | None:
    """ISO 8601 with a time zone, kept as it came."""
    try:
        msgspec.convert(value, Annotated[dt.datetime, Meta(tz=True)])
    except msgspec.ValidationError:
        return None
    return str(value)


def _expired_at(value: Any) -> str | None:
    return "" if value == "" else _instant(value)


Reader = Callable[[Any], str | bool | None]

_READ: Mapping[str, Reader] = {
    "source_id": _text,
    "source_click_id": _text,
    "user_ip": _address,
    "job_id": _text,
    "click_id": _text,
    "user_agent": _text,
    "job_country": alpha2,
    "user_country": alpha2,
    "click_time": _instant,
    "expired": _flag,
    "is_bot": _flag,
    "is_final": _flag,
    "expired_at": _expired_at,
    "destination_id": _text,
}

_MUST: Mapping[Reader, str] = {
    _text: "text",
    _address: "an IP address",
    alpha2: "an ISO 3166-1 alpha-2 code",
    _flag: "true or false",
    _instant: "ISO 8601 with a time zone",
    _expired_at: "ISO 8601 with a time zone, or null",
}


def _fault(name: str, value: Any) -> str:
    if value is None or value == "":
        return f"{name} is missing"
    return f"{name} must be {_MUST[_READ[name]]}"


def _errors(response: Response) -> str:
    """The fields that the answer points at. Only our own field names and plain words are repeated."""
    errors = response.object().get("errors")
    told = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    known = {error["field"]: error.get("message") for error in told if error.get("field") in tuple(_READ)}
    words = [f"{name}: {_plain(message)}" for name, message in known.items()]
    return f"{', '.join(words)}: correct the properties or map" if words else "it names no field: preview the event"


def _plain(message: Any) -> str:
    return message if isinstance(message, str) and _PLAIN.fullmatch(message) else "not valid"
