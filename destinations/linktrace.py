"""LinkTrace: named events attributed to a referral link, and installs by their user, one a request.

An event takes a short code, a name and an entity; amounts and people cannot be sent. The entity makes a resend harmless.
Here are also the requests by which an operator makes a link and looks one up.

Sources: https://linktrace.in/documentation/api-reference/ (Event Tracking, Errors, Plan requirements) and
https://linktrace.in/documentation/how-it-works/ (links, attributions). Nowhere public is the name of the query parameter
of link metadata, nor an attribution's answer: what is taken for them is said where it is taken.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from router.destination import Complaint, Destination, Request, Response, field, is_scrubbed, mapped
from router.event import Event
from router.outcome import Closed, Delivered, Hold, Outcome, Refusal, Rejected, Retry
from router.secret import Secret

EVENTS = "/api/v1/events"
ATTRIBUTIONS = "/api/v1/attributions"
LINKS = "/api/v1/referral-links"
METADATA = "/api/v1/referral-links/metadata"

QUOTA = 5_000  # events a calendar month (UTC), of production links
RESERVED = frozenset({"click", "install", "impression", "open"})
LONGEST_NAME = 128
LONGEST_ENTITY = 255
MOST_PAYLOAD = 3  # pairs of a link's customPayload
LONGEST_HOLD = 45 * 86_400_000  # ms; a quota is monthly, so a later instant is a mistake
UNKNOWN_FOR = 600.0  # seconds that a short code stays unasked after LinkTrace did not know it

_EVENT_FIELDS = ("linkShortCode", "eventName", "entityId")
_USER = "userId"

_CODE = re.compile(r"[A-Za-z0-9]{4,32}", re.ASCII)
_LINK = re.compile(r"(?i:(?:https?://)?app\.linktrace\.in)/r/([A-Za-z0-9]{4,32})(?:[/?#].*)?", re.ASCII | re.DOTALL)
_LINK_WITHIN = re.compile(
    r"(?<![\w.@:/-])(?i:(?:(?:https?:)?//)?app\.linktrace\.in)/r/([A-Za-z0-9]{4,32})(?![\w%-])", re.ASCII
)
_PAGE_PARAMETERS = ("link_short_code", "linkShortCode", "short_code")
_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{LONGEST_NAME - 1}}}", re.ASCII)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", re.ASCII)
_UNFOLDED = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})  # fmt: skip


class NewLink(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A referral link to be made. ``referrer_identifier`` is who gets the credit, and comes back on attribution."""

    referrer_identifier: str
    source: str | None = None
    campaign: str | None = None
    medium: str | None = None
    environment: Literal["production", "stage"]
    custom_payload: dict[str, str] = {}  # three pairs at most


class LinkTrace(Destination, tag="linktrace", frozen=True, kw_only=True):
    """Events go to a link's short code; the events named in ``attributions`` say that a user installed.

    An event that is to be sent both ways takes two destinations of this type. LinkTrace describes an attribution as a
    call of the app's own, from the device that clicked; sent from here it has the userId alone to go by.
    """

    api_key: Annotated[Secret, Meta(description="Settings, API Key; events need an account on the Scale plan.")]
    short_code: Annotated[
        tuple[str, ...],
        Meta(
            description="Fields that may hold the short code or its link, tried in order; then the parameters "
            "link_short_code, linkShortCode and short_code of page.url; then any LinkTrace link within page.url, "
            "page.referrer and the properties."
        ),
    ] = ("properties.link_short_code", "properties.linkShortCode", "properties.short_code", "properties.link")
    entity: Annotated[
        str, Meta(description="Field for entityId, by which LinkTrace knows a repeat; where empty, the event id.")
    ] = "money.order_id"
    attributions: Annotated[
        tuple[str, ...],
        Meta(
            description="Event names of ours that mean an install: they go to attributions, with a userId and no short "
            "code, and not to events. To send one both ways, add a second destination."
        ),
    ] = ()
    user: Annotated[
        str, Meta(description="Field for the userId of an attribution; where empty, user.anonymous_id.")
    ] = "user.id"
    events_a_month: Annotated[int, Meta(ge=1, description="Events a month of your plan; Turnout warns at 80 %.")] = (
        msgspec.field(default=QUOTA, name="quota")
    )

    title: ClassVar[str] = "LinkTrace"
    home: ClassVar[str] = "https://api.linktrace.in"
    docs: ClassVar[str] = "https://linktrace.in/documentation/api-reference/"
    dedup_key: ClassVar[str] = "linkShortCode, eventName, entityId"
    identifiers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType(
        {"linkShortCode": ("properties.link_short_code",)}
    )
    monthly_quota: ClassVar[int | None] = QUOTA
    paths: ClassVar[tuple[str, ...]] = ("short_code", "entity", "user")
    named: ClassVar[tuple[str, ...]] = ("attributions",)

    def __post_init__(self) -> None:
        if not self.map.keys() <= {*_EVENT_FIELDS, _USER}:
            raise ValueError(f"map fills {', '.join(_EVENT_FIELDS)} and {_USER}: LinkTrace takes no other field")

    def complaints(self) -> Iterable[Complaint]:
        yield from self._unusable_names()

    def _unusable_names(self) -> Iterator[Complaint]:
        """A name that every event of it would be refused for; ``map`` can give it another."""
        if self.events is None or "eventName" in self.map:
            return
        for place, ours in enumerate(self.events):
            theirs = self.events[ours] if isinstance(self.events, dict) else ours
            if ours not in self.attributions and (wrong := _name_fault(snake_case(theirs))) is not None:
                words, _, remedy = wrong.partition(": ")
                yield Complaint(("events", ours if isinstance(self.events, dict) else place), words, remedy)

    def quota(self) -> int:
        return self.events_a_month

    def event_names(self) -> Mapping[str, str]:
        """Those of ``attributions`` are routed too where ``events`` names others only."""
        names = super().event_names()
        return {**{name: name for name in self.attributions}, **names} if names else names

    def subject(self, event: Event) -> str | None:
        """The short code that the request will carry, so that an unknown one is not asked for again and again."""
        code = None if event.name in self.attributions else self._event(event)["linkShortCode"]
        return code if isinstance(code, str) else None

    def lacking(self, event: Event) -> Mapping[str, Sequence[str]]:
        """What will be sent counts, wherever it was found: a short code, or for an attribution the user."""
        if event.name in self.attributions:
            return {_USER: () if self._attribution(event)[_USER] else (self.user,)}
        found = short_code(self._event(event)["linkShortCode"])
        return {name: () if found else self.short_code[:1] or paths for name, paths in self.identifiers.items()}

    def hints(self, event: Event) -> Iterable[str]:
        entity = field(event, self.map.get("entityId", self.entity))
        if event.name not in self.attributions and _text(entity) is None:
            yield f"no {self.entity}: LinkTrace knows a repeat by the event id alone, so two events are never one there"

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request | Refusal]:  # noqa: ARG002 - unsigned
        for event in events:
            if event.name in self.attributions:
                body, path = self._attribution(event), ATTRIBUTIONS
                reason = None if body[_USER] is not None else _NO_USER
            else:
                body, path = self._event(event), EVENTS
                reason = _fault(body)
            if reason is not None:
                yield Refusal(event, reason)
            else:
                yield Request.json(self.endpoint(path), body, [event], headers={"x-api-key": self.api_key})

    def outcome(self, response: Response) -> Outcome:
        of_attribution = _attributed(response) if response.request.url.endswith(ATTRIBUTIONS) else None
        return of_attribution or self._answered(response)

    def _answered(self, response: Response) -> Outcome:
        answer = response.object()
        match response.status, answer.get("code"):
            case status, _ if 200 <= status < 300:
                known = status in {200, 202} and answer.get("success") is True
                return Delivered(duplicate=answer.get("deduplicated") is True, unverified=not known)
            case 400, _:
                return Rejected("LinkTrace finds a field missing or invalid: preview the event and check map")
            case 401, _:
                return Hold("API key refused: set api_key to the key under Settings, API Key, then resume")
            case 403, "PLAN_UPGRADE_REQUIRED":
                return Hold("the account is not on the Scale plan, which events need: upgrade, then resume")
            case 403, _:
                return Hold("API key refused: check api_key and the account's rights, then resume")
            case 404, "LINK_NOT_FOUND":
                reason = "the short code is not in this account: check short_code, or create the link"
                return Rejected(reason, closes=Closed(reason, UNKNOWN_FOR))
            case 404, _:
                return Hold("nothing at this address: remove or correct base_url, then resume")
            case 429, "QUOTA_EXCEEDED":
                used = f"{self.events_a_month:,}".replace(",", " ")
                reason = f"monthly quota of {used} events used: wait for the reset, upgrade, or send fewer events"
                return Hold(reason, until=_resets_on(answer.get("resetsOn"), response.at))
            case 429, _:
                return Retry("LinkTrace asks for fewer requests")
        return super().outcome(response)

    # What is sent

    def _event(self, event: Event) -> dict[str, Any]:
        """The body of an event, ``map`` applied, each field as LinkTrace writes it; what cannot be so is ``_fault``'s."""
        said = {
            "linkShortCode": self._short_code(event),
            "eventName": self.partner_name(event),
            "entityId": field(event, self.entity),
        }
        said = mapped(said, event, self.map)
        return {
            "linkShortCode": short_code(said["linkShortCode"]) or said["linkShortCode"],
            "eventName": snake_case(said["eventName"]) if isinstance(said["eventName"], str) else None,
            "entityId": _entity(said["entityId"], event.id),
        }

    def _attribution(self, event: Event) -> dict[str, str | None]:
        """The body of an attribution. The id of a person is never an address or number here: the door saw to that."""
        fields = (self.map[_USER],) if _USER in self.map else ()
        ids = (_text(field(event, path)) for path in (*fields, self.user, "user.anonymous_id"))
        return {_USER: next((each for each in ids if each is not None), None)}

    def _short_code(self, event: Event) -> str | None:
        given = [value for path in self.short_code if isinstance(value := field(event, path), str)]
        url, referrer = event.page.url or "", event.page.referrer or ""
        found = itertools.chain(
            (value for value in given if _CODE.fullmatch(value)),
            _linked(given),
            _of_page(url),
            _linked(itertools.chain((url, referrer), _texts(event.properties))),
        )
        return next(found, None)

    # Links

    def link_creation(self, link: NewLink) -> Request:
        """Makes a link: 201 with ``data.shortCode`` and ``data.referralLink``. Two calls make two links."""
        return Request.json(self.endpoint(LINKS), link, [], headers={"x-api-key": self.api_key})

    def link_lookup(self, code: str) -> Request:
        """What LinkTrace knows of a link. The parameter's name is not public; ``shortCode`` is what its answers say."""
        return Request(
            url=self.endpoint(METADATA),
            body=b"",
            events=(),
            headers={"x-api-key": self.api_key},
            query={"shortCode": code},
            method="GET",
        )


_NO_USER = "no user id: send user.id or an anonymous id, or name its field in user"


def link_data(response: Response) -> dict[str, Any] | None:
    """The link in an answer to ``link_creation`` or ``link_lookup``, under LinkTrace's names; None where it has none."""
    answer = response.object()
    data = answer.get("data")
    if not 200 <= response.status < 300 or answer.get("success") is False or not isinstance(data, dict):
        return None
    return data


def link_refusal(response: Response) -> str:
    """Why an answer holds no link, with what to do."""
    status, code = response.status, response.object().get("code")
    told = _REFUSALS.get((status, code if isinstance(code, str) else None)) or _REFUSALS.get((status, None))
    if told is not None:
        return told
    if 300 <= status < 400:
        return "redirected: the address is wrong, correct base_url"
    if status >= 500:
        return f"LinkTrace failed (HTTP {status}): try again later"
    return f"the answer holds no link (HTTP {status}): look at the dashboard"


_REFUSALS: Mapping[tuple[int, str | None], str] = {
    (400, None): "LinkTrace finds an option missing or invalid: correct it",
    (401, None): "API key refused: set api_key to the key under Settings, API Key",
    (403, "PLAN_UPGRADE_REQUIRED"): "the account's plan does not include this call: upgrade",
    (403, None): "API key refused: check api_key and the account's rights",
    (404, "LINK_NOT_FOUND"): "the short code is not in this account: check it, or create the link",
    (404, None): "nothing at this address: remove or correct base_url",
    (429, None): "LinkTrace asks for fewer requests: try again later",
}


def short_code(value: Any) -> str | None:
    """A short code, from itself or from its link."""
    if not isinstance(value, str):
        return None
    if _CODE.fullmatch(value):
        return value
    return found[1] if (found := _LINK.fullmatch(value)) else None


def _of_page(url: str) -> Iterator[str]:
    """Short codes that an address names as such in its query, or whose links it names so."""
    query = _query(url) if any(name in url for name in _PAGE_PARAMETERS) else []
    for wanted in _PAGE_PARAMETERS:
        yield from (code for name, value in query if name == wanted and (code := short_code(value)) is not None)


def _linked(texts: Iterable[str]) -> Iterator[str]:
    """The short codes of the links that stand in texts, or in the query of an address. A word alone is none."""
    for text in texts:
        if "linktrace.in" in text.lower():
            for part in (text, *(value for _, value in _query(text))):
                yield from _LINK_WITHIN.findall(part)


def _query(address: str) -> list[tuple[str, str]]:
    """Names and values of the query, decoded."""
    return parse_qsl(address.partition("?")[2].partition("#")[0])


def snake_case(name: str) -> str:
    """A name as LinkTrace writes it: "Order Completed" and "orderCompleted" are order_completed, "Bestätigt" bestatigt.

    Letters that are not Latin have no such form and are kept, so that the name is refused and never half of it sent.
    """
    if _NAME.fullmatch(name):
        return name
    folded = unicodedata.normalize("NFKD", name.translate(_UNFOLDED))
    folded = "".join(letter for letter in folded if not unicodedata.combining(letter))
    spaced = re.sub(r"\W+", " ", _HUMP.sub(" ", folded)).strip()
    return re.sub(r"_* [_ ]*", "_", spaced).lstrip("_").lower()


def _texts(value: Any) -> Iterator[str]:
    """Every text in a tree of properties, in its order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _texts(member)


def _text(value: Any) -> str | None:
    """Text that can name one thing or person, or a whole number as text.

    Text from which personal data was taken at the door is many people's: it would make one of all of them.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value and not is_scrubbed(value) else None


def _entity(value: Any, event_id: str) -> str:
    """The same text for the same event, for ever; a longer one is replaced by its SHA-256."""
    text = _text(value) or event_id
    return text if len(text) <= LONGEST_ENTITY else hashlib.sha256(text.encode()).hexdigest()


def _attributed(response: Response) -> Outcome | None:
    """What is particular to the answers about an attribution; None where they mean what they mean for an event.

    Most installs follow no link, so "not found" in LinkTrace's own envelope is its answer to the question, not a fault
    of the event: it was taken, and nothing proves that anything came of it.
    """
    answer = response.object()
    match response.status, answer.get("code"):
        case 404, code if answer.get("success") is False or code == "LINK_NOT_FOUND":
            return Delivered(unverified=True, free=True)
        case 200 | 201, _:
            return Delivered(unverified=answer.get("success") is not True, free=True)
        case 400, _:
            return Rejected("LinkTrace refuses the userId: check user and map")
        case 403, "PLAN_UPGRADE_REQUIRED":
            return Hold("the account's plan does not include attributions: upgrade, then resume")
    return None


def _fault(body: dict[str, Any]) -> str | None:
    code, name = body["linkShortCode"], body["eventName"]
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return "no link short code: send properties.link_short_code, or name its field in short_code"
    return _name_fault(name)


def _name_fault(name: str | None) -> str | None:
    if not name:
        return "no name that LinkTrace can take: give the event one in events"
    if name in RESERVED:
        return "LinkTrace keeps click, install, impression and open for itself: give the event another name in events"
    if len(name) > LONGEST_NAME:
        return "the name is longer than 128 characters: give the event a shorter one in events"
    if not _NAME.fullmatch(name):
        return "a name must begin with a letter and have only a-z, digits and _: give the event one in events"
    return None


def _resets_on(value: Any, at: int) -> int:
    """When the quota starts anew (UTC ms): what LinkTrace says, or the first of the next month where it makes no sense.

    At least a minute from ``at``, so that a clock a little off does not make the lane knock in a loop.
    """
    now = dt.datetime.fromtimestamp(at / 1000, dt.UTC)
    reset = (now.replace(day=1) + dt.timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    try:
        said = msgspec.convert(value, Annotated[dt.datetime, Meta(tz=True)])
        reset = said if said > now else reset
    except msgspec.ValidationError:
        pass
    until = int(reset.timestamp() * 1000)
    return min(max(until, at + 60_000), at + LONGEST_HOLD)
