"""LinkTrace as its documentation describes it: ``POST /api/v1/events``.

Stricter than the page in one point: a body field that it does not name is refused, so that a mapping nobody reads
is noticed. Stage links use up no quota. Source: https://linktrace.in/documentation/api-reference/ (Event Tracking).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Collection
from typing import Any, ClassVar

from router.mocks.partner import Answer, Call, Partner

QUOTA = 5_000
RESERVED = frozenset({"click", "install", "impression", "open"})

_CODE = re.compile(r"[A-Za-z0-9]{4,32}", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,127}", re.ASCII)
_FIELDS = frozenset({"linkShortCode", "eventName", "entityId"})


class LinkTrace(Partner):
    """``links`` are the short codes of the account and ``stage`` those of its test environment.

    ``links`` None knows every well-formed code; ``key`` None takes any key.
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
    ) -> None:
        super().__init__(now=now, seed=seed)
        self.key = key
        self.plan = plan
        self.quota = quota
        self.links = links
        self.stage = stage

    def reset(self) -> None:
        super().reset()
        self.used: dict[str, int] = {}  # events written, by month
        self.rows: set[tuple[str, str, str]] = set()

    def answer(self, call: Call) -> Answer:
        if (call.method, call.path) != ("POST", "/api/v1/events"):
            return _error(404, "Not found")
        given = call.headers.get("x-api-key", "")
        if not given or (self.key is not None and given != self.key):
            return _error(401, "Missing or invalid API key")
        if self.plan != "scale":
            return Answer(403, {"code": "PLAN_UPGRADE_REQUIRED"}, reason="plan")
        if call.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _error(400, "Content-Type must be application/json")
        body = call.json()
        if (fault := _fault(body)) is not None:
            return _error(400, fault)
        return self._write(body["linkShortCode"], body["eventName"].lower(), body.get("entityId"), call.at)

    def _write(self, link: str, name: str, entity: str | None, at: int) -> Answer:
        if self.links is not None and link not in self.links and link not in self.stage:
            return _error(404, "Link not found", code="LINK_NOT_FOUND")
        row = (link, name, entity or "")
        if entity is not None and row in self.rows:
            return Answer(200, {"success": True, "deduplicated": True}, keys=("|".join(row),))
        if link not in self.stage:
            month, resets_on = _month(at)
            if self.used.get(month, 0) >= self.quota:
                return Answer(429, {"code": "QUOTA_EXCEEDED", "resetsOn": resets_on}, reason="quota")
            self.used[month] = self.used.get(month, 0) + 1
        self.rows.add(row)
        return Answer(202, {"success": True, "queued": True}, keys=("|".join(row),))


def _fault(body: Any) -> str | None:
    """The first thing wrong with a body by the table of the request body, or None."""
    if not isinstance(body, dict):
        return "the body must be a JSON object"
    if not body.keys() <= _FIELDS:
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
