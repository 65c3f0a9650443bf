"""IP Snare: clicks on job adverts, verified one by one, one click a request.

It judges raw IP addresses and user agents and can do nothing with digests, so it is a destination in clear: enable it
knowingly. A click may be reported again until ``is_final``, in order: after its final state only another final one goes.
Source: https://ipsnare.com/docs (Track API Reference).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from router import bots
from router.destination import Destination, Request, Response, field, is_scrubbed
from router.event import Event
from router.identifiers import alpha2
from router.outcome import Closed, Delivered, Hold, Outcome, Refusal, Rejected, Retry
from router.secret import Secret

FINAL_FOR = 7 * 86_400.0  # seconds that a state which is not final is kept from following the final one
FINAL = Closed("an earlier event was the final state of this click", FINAL_FOR)

_PLAIN = re.compile(r"[A-Za-z][A-Za-z ,.'-]{0,79}", re.ASCII)  # words alone: such a message repeats nobody's data


class IpSnare(Destination, tag="ipsnare", frozen=True, kw_only=True):
    """Takes the events ``job_click`` and ``click`` unless ``events`` names others.

    The fourteen fields are properties of the event under IP Snare's own names; ``map`` finds them elsewhere. Without a
    word of the sender's a click is final, not expired, and a bot's where the user agent says so.
    """

    api_key: Annotated[Secret, Meta(description="Settings, API key.")]
    detect_bots: Annotated[
        bool, Meta(description="Tell is_bot by the user agent where the sender does not; needs the extra bots.")
    ] = True

    title: ClassVar[str] = "IP Snare"
    home: ClassVar[str] = "https://api.ipsnare.com"
    docs: ClassVar[str] = "https://ipsnare.com/docs"
    dedup_key: ClassVar[str] = "click_id"
    clear: ClassVar[frozenset[str]] = frozenset({"ip", "user_agent", "country"})
    default_events: ClassVar[Mapping[str, str] | None] = {"job_click": "job_click", "click": "click"}
    identifiers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {
            "user_ip": ("clear.ip",),
            "user_agent": ("clear.user_agent",),
            "source_click_id": ("properties.source_click_id",),
        }
    )
    ordered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.map.keys() <= _READ.keys():
            raise ValueError(f"map fills {', '.join(_READ)}: IP Snare takes no other field")

    def subject(self, event: Event) -> str | None:
        """The click_id that the request will carry."""
        return _id(self._given(event, "click_id"))

    def kept_out(self, event: Event) -> bool:
        """The final state may be sent again, or corrected; one that is not final comes too late."""
        return self._given(event, "is_final") is False

    def lacking(self, event: Event) -> Mapping[str, Sequence[str]]:
        """What will be sent counts, wherever it was found."""
        return {name: () if self._said(event, name) else paths for name, paths in self.identifiers.items()}

    def hints(self, event: Event) -> Iterable[str]:
        if self._given(event, "expired") is True and not self._given(event, "expired_at"):
            yield "expired without expired_at: send when the click expired as well"
        if self.detect_bots and self._said(event, "is_bot") is None and not bots.installed():
            yield "is_bot goes as false, for nobody looked: install turnout[bots], or send is_bot"

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request | Refusal]:  # noqa: ARG002 - unsigned
        headers = {"Authorization": Secret(f"Bearer {self.api_key.reveal()}", self.api_key.reference)}
        for event in events:
            given = {name: self._given(event, name) for name in _READ}
            click = {name: read(given[name]) for name, read in _READ.items()}
            if wrong := [_fault(name, given[name], event.notes) for name in _READ if click[name] is None]:
                yield Refusal(event, f"{', '.join(wrong)}: send them as properties, or name their fields in map")
            else:
                click |= {"expired_at": click["expired_at"] or None}
                yield Request.json(self.endpoint("/v1/track"), click, [event], headers=headers)

    def outcome(self, response: Response) -> Outcome:
        match response.status, response.object().get("success"):
            case 200, True:
                return Delivered(closes=FINAL if _is_final(response.request) else None)
            case 200, False:
                return Rejected(f"IP Snare refused the click: {_errors(response)}")
            case status, _ if 200 <= status < 300:  # taken, as far as one can tell: nothing earlier may follow it
                return Delivered(unverified=True, closes=FINAL if _is_final(response.request) else None)
            case 401, _:
                return Hold("API key refused: set api_key to the key on the Settings page, then resume")
            case 404, _:  # its one address takes every click, so it is the address that is wrong
                return Hold("nothing at this address: remove or correct base_url, then resume")
            case 422, _:
                return Rejected(f"IP Snare finds fields missing or not valid: {_errors(response)}")
            case 500, _:
                return Retry("IP Snare failed")
        return super().outcome(response)

    def _given(self, event: Event, name: str) -> Any:
        """What one field is made from: the sender's word, else what holds without it."""
        said = self._said(event, name)
        if said is not None:
            return said
        match name:
            case "click_id":
                return event.id
            case "click_time":
                return _written(event.time)
            case "is_bot":
                return self._looks_like_bot(event)
        return _SILENT.get(name)

    def _said(self, event: Event, name: str) -> Any:
        """``map`` before what is kept in clear, which travels apart, before the properties."""
        places = (self.map.get(name), _IN_CLEAR.get(name), f"properties.{name}")
        said = (field(event, place) for place in places if place is not None)
        return msgspec.to_builtins(next((value for value in said if value is not None), None))

    def _looks_like_bot(self, event: Event) -> bool:
        agent = self._said(event, "user_agent")
        return self.detect_bots and isinstance(agent, str) and bots.is_bot(agent) is True


_SILENT: Mapping[str, Any] = {"expired": False, "is_final": True, "expired_at": ""}  # what holds without a word
_IN_CLEAR: Mapping[str, str] = {
    "user_ip": "clear.ip",
    "user_agent": "clear.user_agent",
    "user_country": "clear.country",
}


def _is_final(request: Request) -> bool:
    """Did this request carry the final state of its click?"""
    return msgspec.json.decode(request.body).get("is_final") is True


def _written(time: int) -> str:
    """UTC milliseconds as ISO 8601; the fraction only where there is one, as in the page's example."""
    moment = dt.datetime.fromtimestamp(time / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds" if time % 1000 else "seconds").replace("+00:00", "Z")


def _text(value: Any) -> str | None:
    """Text, or a whole number as text: ids are often numbers where they come from."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _id(value: Any) -> str | None:
    """As text, where it is one: from another, personal data was taken at the door, and what is left is many clicks'."""
    text = _text(value)
    return None if text is None or is_scrubbed(text) else text


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
    "source_id": _id,
    "source_click_id": _id,
    "user_ip": _address,
    "job_id": _id,
    "click_id": _id,
    "user_agent": _text,
    "job_country": alpha2,
    "user_country": alpha2,
    "click_time": _instant,
    "expired": _flag,
    "is_bot": _flag,
    "is_final": _flag,
    "expired_at": _expired_at,
    "destination_id": _id,
}

_MUST: Mapping[Reader, str] = {
    _text: "text",
    _id: "text",
    _address: "an IP address",
    alpha2: "an ISO 3166-1 alpha-2 code",
    _flag: "true or false",
    _instant: "ISO 8601 with a time zone",
    _expired_at: "ISO 8601 with a time zone, or null",
}


def _fault(name: str, value: Any, notes: Sequence[str]) -> str:
    if name == "user_ip" and value is None and "bad_ip" in notes:
        return "user_ip was sent and is not a public IP address"
    if value is None or value == "":
        return f"{name} is missing"
    if isinstance(value, str) and is_scrubbed(value):
        return f"{name} looks like an e-mail address, a phone or a card number, which is not kept: give it another"
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
