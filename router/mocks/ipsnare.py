"""IP Snare as its documentation describes it: ``POST /v1/track``.

Stricter than the page in three points: a parameter it does not name is refused, a country code must be in upper case,
and a time needs its zone. What IP Snare says to a state that is not final after the final one of the same click is not
documented: it is taken here, and counted. Source: https://ipsnare.com/docs (Track API Reference).
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from router.mocks.partner import Answer, Call, Partner

TEXTS = ("source_id", "source_click_id", "job_id", "click_id", "user_agent", "destination_id")
COUNTRIES = ("job_country", "user_country")
FLAGS = ("expired", "is_bot", "is_final")
FIELDS = frozenset({*TEXTS, *COUNTRIES, *FLAGS, "user_ip", "click_time", "expired_at"})

# ISO 3166-1 alpha-2, officially assigned.
_CODES = """
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK
    FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR
    IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK
    ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM
    PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF
    TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
_ALPHA2 = frozenset(_CODES.split())


class IpSnare(Partner):
    """``key`` None takes any key. ``regressions`` counts states that came after the final one and were not final."""

    name: ClassVar[str] = "ipsnare"

    def __init__(self, *, now: Callable[[], int], seed: int = 0, key: str | None = None) -> None:
        super().__init__(now=now, seed=seed)
        self.key = key

    def reset(self) -> None:
        super().reset()
        self.regressions = 0
        self.final: set[str] = set()  # clicks whose final state was taken

    def answer(self, call: Call) -> Answer:
        if (call.method, call.path) != ("POST", "/v1/track"):
            return _errors(404, {"": "Not found"})
        given = call.bearer()
        if given is None or (self.key is not None and given != self.key):
            return _errors(401, {"api_key": "Invalid API key"})
        if call.media_type() != "application/json":
            return _errors(422, {"": "Content-Type must be application/json"})
        body = call.json()
        if not isinstance(body, dict):
            return _errors(422, {"": "The body must be a JSON object"})
        if errors := faults(body):
            return _errors(422, errors)
        return Answer(200, {"success": True}, keys=(body["click_id"],), reason=self._state(body))

    def _state(self, click: dict[str, Any]) -> str:
        """Remember a final state; a remark where one that is not final follows it."""
        if click["is_final"]:
            self.final.add(click["click_id"])
        elif click["click_id"] in self.final:
            self.regressions += 1
            return "not final, after the final state of this click"
        return ""


def faults(body: dict[str, Any]) -> dict[str, str]:
    """What is wrong with a click: field -> message. Missing parameters are reported alone, as the page shows them."""
    missing = [name for name in FIELDS if _absent(body, name)]
    if missing:
        return dict.fromkeys(sorted(missing), "Missing required parameter")
    errors = dict.fromkeys(sorted(body.keys() - FIELDS), "Unknown parameter")
    errors |= {name: "Must be a string" for name in TEXTS if not isinstance(body[name], str)}
    errors |= {name: "Invalid country code" for name in COUNTRIES if not _is_country(body[name])}
    errors |= {name: "Must be a boolean" for name in FLAGS if not isinstance(body[name], bool)}
    if not _is_address(body["user_ip"]):
        errors["user_ip"] = "Invalid IP address"
    if not _is_datetime(body["click_time"]):
        errors["click_time"] = "Invalid datetime"
    if not _is_empty(body["expired_at"]) and not _is_datetime(body["expired_at"]):
        errors["expired_at"] = "Invalid datetime"
    return errors


def _absent(body: dict[str, Any], name: str) -> bool:
    """Whether a parameter counts as missing. Only expired_at "can be null or empty string", and its key is needed too."""
    return name not in body or (name != "expired_at" and _is_empty(body[name]))


def _is_empty(value: Any) -> bool:
    return value is None or value == ""


def _is_country(value: Any) -> bool:
    return isinstance(value, str) and value in _ALPHA2


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def _is_datetime(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(msgspec.convert(value, Annotated[dt.datetime, Meta(tz=True)]))
    except msgspec.ValidationError:
        return False


def _errors(status: int, errors: dict[str, str]) -> Answer:
    body = {"success": False, "errors": [{"field": name, "message": text} for name, text in errors.items()]}
    return Answer(status, body, reason=", ".join(f"{name}: {text}" for name, text in errors.items()))
