"""LinkTrace as its documentation describes it: events, attributions, and links made and looked up.

Stricter than the pages in one point: a field that they do not name is refused, so that a mapping nobody reads is
noticed. Ours, where they are silent: 404 in the error envelope for an install that no link led to, and the query
parameter ``shortCode``. Stage links use up no quota.

Sources: https://linktrace.in/documentation/api-reference/ (Event Tracking, Errors, Plan requirements) and
https://linktrace.in/documentation/how-it-works/ (links, attributions).
"""

from __future__ import annotations

import datetime as dt
import random
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from router.mocks.partner import Answer, Call, Partner

QUOTA = 5_000
RESERVED = frozenset({"click", "install", "impression", "open"})
LINK = "https://app.linktrace.in/r/"

_CODE = re.compile(r"[A-Za-z0-9]{4,32}", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}", re.ASCII)
_WORDS = ("source", "campaign", "medium")  # what may describe a link
_LINK_FIELDS = frozenset({"referrerIdentifier", "environment", "customPayload", *_WORDS})


class LinkTrace(Partner):
    """``links`` are the short codes of the account and ``stage`` those of its test environment; what is made joins them.

    ``links`` None knows every well-formed code, ``key`` None takes any key, and ``installs`` None attributes everybody:
    else they are the users whom a link led to an install within a day.
    """

    name: ClassVar[str] = "linktrace"

    def __init__(
        self,
        *,
        now: Callable[[], int],
        seed: int = 0,
        key: str | None = None,
        plan: str = "scale",
        quota: int = QUOTA,
        links: Collection[str] | None = None,
        stage: Collection[str] = (),
        installs: Collection[str] | None = None,
    ) -> None:
        super().__init__(now=now, seed=seed)
        self.key = key
        self.plan = plan
        self.quota = quota
        self.links = links
        self.stage = stage
        self.installs = installs

    def reset(self) -> None:
        super().reset()
        self.used: dict[str, int] = {}  # events written, by month
        self.rows: set[tuple[str, str, str]] = set()
        self.made: dict[str, dict[str, Any]] = {}  # links made here, by their short code
        self._codes = random.Random(self.seed)  # noqa: S311 - repeatable on purpose, guards nothing

    def answer(self, call: Call) -> Answer:
        endpoint = {
            ("POST", "/api/v1/events"): self._event,
            ("POST", "/api/v1/attributions"): self._attribution,
            ("POST", "/api/v1/referral-links"): self._creation,
            ("GET", "/api/v1/referral-links/metadata"): self._metadata,
        }.get((call.method, call.path))
        if endpoint is None:
            return Answer(404, "<!DOCTYPE html><pre>Not found</pre>", reason="Not found")
        given = call.headers.get("x-api-key", "")
        if not given or (self.key is not None and given != self.key):
            return _error(401, "Missing or invalid API key")
        if endpoint == self._event and self.plan != "scale":
            return Answer(403, {"code": "PLAN_UPGRADE_REQUIRED"}, reason="plan")
        if call.method == "POST" and call.media_type() != "application/json":
            return _error(400, "Content-Type must be application/json")
        return endpoint(call)

    def _event(self, call: Call) -> Answer:
        body = call.json()
        if (fault := _event_fault(body)) is not None:
            return _error(400, fault)
        return self._write(body["linkShortCode"], body["eventName"].lower(), body.get("entityId"), call.at)

    def _write(self, link: str, name: str, entity: str | None, at: int) -> Answer:
        if not self._knows(link):
            return _error(404, "Link not found", code="LINK_NOT_FOUND")
        row = (link, name, entity or "")
        if entity is not None and row in self.rows:
            return Answer(200, {"success": True, "deduplicated": True}, keys=("|".join(row),))
        if not self._is_stage(link):
            month, resets_on = _month(at)
            if self.used.get(month, 0) >= self.quota:
                return Answer(429, {"code": "QUOTA_EXCEEDED", "resetsOn": resets_on}, reason="quota")
            self.used[month] = self.used.get(month, 0) + 1
        self.rows.add(row)
        return Answer(202, {"success": True, "queued": True}, keys=("|".join(row),))

    def _knows(self, code: str) -> bool:
        return self.links is None or code in self.links or code in self.stage or code in self.made

    def _is_stage(self, code: str) -> bool:
        return code in self.stage or self.made.get(code, {}).get("environment") == "stage"

    def _attribution(self, call: Call) -> Answer:
        body = call.json()
        if not isinstance(body, dict) or body.keys() != {"userId"} or not _is_text(body["userId"]):
            return _error(400, "userId must be text, and nothing else is taken")
        user = body["userId"]
        if self.installs is not None and user not in self.installs:
            return _error(404, "No link led to this install")
        return Answer(200, {"success": True, "data": {"userId": user}}, keys=(user,))

    def _creation(self, call: Call) -> Answer:
        body = call.json()
        if (fault := _link_fault(body)) is not None:
            return _error(400, fault)
        code = f"{self._codes.getrandbits(32):08x}"
        link = {"shortCode": code, "referralLink": LINK + code, "environment": "production", **body}
        self.made[code] = link
        return Answer(201, {"success": True, "data": link})

    def _metadata(self, call: Call) -> Answer:
        code = call.query.get("shortCode", "")
        if call.query.keys() != {"shortCode"} or not _CODE.fullmatch(code):
            return _error(400, "shortCode must be 4-32 letters and digits, and nothing else is taken")
        if not self._knows(code):
            return _error(404, "Link not found", code="LINK_NOT_FOUND")
        environment = "stage" if self._is_stage(code) else "production"
        known = {"shortCode": code, "referralLink": LINK + code, "environment": environment}
        return Answer(200, {"success": True, "data": self.made.get(code, known)})


def _event_fault(body: Any) -> str | None:
    """The first thing wrong with an event by the table of the request body, or None."""
    if not isinstance(body, dict):
        return "the body must be a JSON object"
    if not body.keys() <= {"linkShortCode", "eventName", "entityId"}:
        return "unknown field"
    code, name, entity = body.get("linkShortCode"), body.get("eventName"), body.get("entityId", "-")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return "linkShortCode must be 4-32 letters and digits"
    if not isinstance(name, str) or not _NAME.fullmatch(name.lower()):
        return "eventName must be snake_case, at most 128 characters"
    if name.lower() in RESERVED:
        return "eventName is reserved"
    if not isinstance(entity, str) or not 1 <= len(entity) <= 255:
        return "entityId must be at most 255 characters"
    return None


def _link_fault(body: Any) -> str | None:
    """The first thing wrong with a link that is to be made, or None."""
    if not isinstance(body, dict):
        return "the body must be a JSON object"
    if not body.keys() <= _LINK_FIELDS:
        return "unknown field"
    if not _is_text(body.get("referrerIdentifier")):
        return "referrerIdentifier is required"
    if not all(_is_text(body[name]) for name in _WORDS if name in body):
        return "source, campaign and medium must be text"
    if body.get("environment", "production") not in {"production", "stage"}:
        return "environment must be production or stage"
    payload = body.get("customPayload", {})
    if (
        not isinstance(payload, Mapping)
        or len(payload) > 3
        or not all(isinstance(each, str) for each in payload.values())
    ):
        return "customPayload must be at most three pairs of text"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _month(at: int) -> tuple[str, str]:
    """The calendar month (UTC) of an instant, and the first of the next one."""
    day = dt.datetime.fromtimestamp(at / 1000, dt.UTC)
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return f"{day:%Y-%m}", f"{year:04}-{month:02}-01T00:00:00.000Z"


def _error(status: int, message: str, code: str | None = None) -> Answer:
    body: dict[str, Any] = {"success": False, "message": message}
    if code is not None:
        body["code"] = code
    return Answer(status, body, reason=message)
