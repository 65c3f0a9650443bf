"""LinkTrace: named events attributed to a referral link, one event a request.

It takes a short code, a name and an entity; amounts and people cannot be sent. The entity makes a resend harmless.
Source: https://linktrace.in/documentation/api-reference/ (Event Tracking, Errors).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from router.destination import Destination, Request, Response, field, mapped
from router.event import Event
from router.outcome import Delivered, Hold, Outcome, Refusal, Rejected, Retry
from router.secret import Secret

RESERVED = frozenset({"click", "install", "impression", "open"})
LONGEST_ENTITY = 255
LONGEST_HOLD = 45 * 86_400_000  # ms; a quota is monthly, so a later instant is a mistake

_CODE = re.compile(r"[A-Za-z0-9]{4,32}", re.ASCII)
_LINK = re.compile(r"(?i:https?://app\.linktrace\.in)/r/([A-Za-z0-9]{4,32})(?:[/?#].*)?", re.ASCII | re.DOTALL)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}", re.ASCII)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", re.ASCII)
_SCRUBBED = re.compile(r"\[(?:email|phone|iban|card|secret)\]")  # the marks of router.scrub
_UNFOLDED = str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})  # fmt: skip


class LinkTrace(Destination, tag="linktrace", frozen=True, kw_only=True):
    api_key: Annotated[Secret, Meta(description="Settings, API Key, of an account on the Scale plan.")]
    short_code: Annotated[
        tuple[str, ...],
        Meta(description="Fields that may hold the short code or its link, tried in order, before page.url."),
    ] = ("properties.link_short_code", "properties.linkShortCode", "properties.short_code", "properties.link")
    entity: Annotated[
        str, Meta(description="Field for entityId, by which LinkTrace knows a repeat; where empty, the event id.")
    ] = "money.order_id"

    title: ClassVar[str] = "LinkTrace"
    home: ClassVar[str] = "https://api.linktrace.in"
    docs: ClassVar[str] = "https://linktrace.in/documentation/api-reference/"
    dedup_key: ClassVar[str] = "linkShortCode, eventName, entityId"

    def requests(self, events: Sequence[Event], now: int) -> Iterator[Request | Refusal]:  # noqa: ARG002 - unsigned
        for event in events:
            body = {
                "linkShortCode": self._short_code(event),
                "eventName": snake_case(self.partner_name(event) or ""),
                "entityId": self._entity(event),
            }
            body = mapped(body, event, self.map)
            if (reason := _fault(body)) is not None:
                yield Refusal(event, reason)
            else:
                yield Request.json(self.endpoint("/api/v1/events"), body, [event], headers={"x-api-key": self.api_key})

    def outcome(self, response: Response) -> Outcome:
        answer = response.object()
        match response.status, answer.get("code"):
            case 200 | 202, _:
                known = answer.get("success") is True
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
                return Rejected("the short code is not in this account: check short_code, or create the link")
            case 404, _:
                return Hold("nothing at this address: remove or correct base_url, then resume")
            case 429, "QUOTA_EXCEEDED":
                reason = "monthly quota of 5 000 events used: wait for the reset, upgrade, or send fewer events"
                return Hold(reason, until=_resets_on(answer.get("resetsOn"), response.at))
            case 429, _:
                return Retry("LinkTrace asks for fewer requests")
        return super().outcome(response)

    def _short_code(self, event: Event) -> str | None:
        given = [field(event, path) for path in self.short_code]
        codes = [value for value in given if isinstance(value, str) and _CODE.fullmatch(value)]
        links = [*given, event.page.url, event.properties.get("url")]
        found = [match[1] for value in links if isinstance(value, str) and (match := _LINK.fullmatch(value))]
        return next(iter([*codes, *found]), None)

    def _entity(self, event: Event) -> str:
        """The same text for the same event, for ever; a longer one is replaced by its SHA-256.

        Text from which personal data was taken at the door is many people's: it would make one event of all theirs.
        """
        value = field(event, self.entity)
        usable = isinstance(value, str | int) and not isinstance(value, bool) and not _SCRUBBED.search(str(value))
        text = (str(value) if usable else "") or event.id
        return text if len(text) <= LONGEST_ENTITY else hashlib.sha256(text.encode()).hexdigest()


def snake_case(name: str) -> str:
    """A name as LinkTrace writes it: "Order Completed" and "orderCompleted" are order_completed, "Bestätigt" bestatigt.

    Letters that are not Latin have no such form and are kept, so that the name is refused and never half of it sent.
    """
    if _NAME.fullmatch(name):
        return name
    folded = unicodedata.normalize("NFKD", name.translate(_UNFOLDED))
    folded = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", "_", _HUMP.sub("_", folded)).strip("_").lower()


def _fault(body: dict[str, Any]) -> str | None:
    code, name, entity = body["linkShortCode"], body["eventName"], body["entityId"]
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return "no link short code: send properties.link_short_code, or name its field in short_code"
    if not isinstance(name, str) or not name:
        return "no name that LinkTrace can take: give the event one in events"
    if name in RESERVED:
        return "LinkTrace keeps click, install, impression and open for itself: give the event another name in events"
    if len(name) > 128:
        return "the name is longer than 128 characters: give the event a shorter one in events"
    if not _NAME.fullmatch(name):
        return "a name must begin with a letter and have only a-z, digits and _: give the event one in events"
    if not isinstance(entity, str) or not 0 < len(entity) <= LONGEST_ENTITY:
        return "entityId must be text of 1 to 255 characters: check map"
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
