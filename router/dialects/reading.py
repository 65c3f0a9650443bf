"""A sender's item, sorted: every dialect fills this one form, and ``router.door`` makes the event from it.

Values are as the sender wrote them, of any type, personal data still raw; a reading is never stored or printed. A
dialect takes each key it knows out of a copy of the item, and what is left becomes ``properties``, so an unknown key
is kept and not lost. Objects inside the item and what ``router.recall`` remembers of them are shared, and never changed.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct

from router.event import Kind
from router.identifiers import Raw

Object: TypeAlias = dict[str, Any]


class Reading(Struct, kw_only=True):
    dialect: str
    raw: Raw
    kind: Kind = "track"
    name: Any = None  # what happened, in the sender's words; None for a page, screen, identify, group or alias call
    named: bool = False  # the key is there, whatever it holds
    name_field: str = "event_name"  # where this dialect says so, for the answer to the sender
    standard: str | None = None  # the standard name, where the dialect has one for it
    id: Any = None
    time: Any = None
    sent_at: Any = None  # when the request left, by the sender's clock; None where ``time`` needs no correction
    anonymous_id: Any = None
    session_id: Any = None
    group_id: Any = None
    previous_id: Any = None
    traits: Object = {}
    url: Any = None
    title: Any = None
    referrer: Any = None
    language: Any = None
    ip: Any = None
    user_agent: Any = None
    device: Object = {}  # texts, by the field names of Device
    locale: Any = None
    screen: Object = {}  # width, height, density
    hardware: Object = {}  # cpu_cores; storage and free_storage in GB
    tracking_enabled: Any = None
    att_status: Any = None  # Apple's App Tracking Transparency, which tells more than a yes or no
    idfv: Any = None
    app: Object = {}  # name, version, build, namespace
    granted: Any = None  # consent as the list of what is granted ...
    preferences: Any = None  # ... or as an object: category -> bool
    money: Object = {}  # by the field names of Money
    items: Any = None
    cookie_header: Any = None
    cookies: Object = {}  # by any name; only partners' first-party cookies are kept
    properties: Object = {}
    partners: Object = {}
    routing: Object = {}
    test: Any = None
