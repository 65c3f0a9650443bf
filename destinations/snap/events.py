"""Snap's events, and which of our names each is sent for.

The names that Snap's tag template and the public connectors agree on. There is no LEAD: Snap's template files
generate_lead under SIGN_UP, Commanders Act under SUBSCRIBE; ``events`` in the configuration overrides it.

Source: Snap, "Parameters", event_name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Sent for one of our names that is spelt otherwise, or for several.
_TRANSLATED = {
    "page_view": "PAGE_VIEW",
    "view_item": "VIEW_CONTENT",
    "view_item_list": "LIST_VIEW",
    "search": "SEARCH",
    "add_to_cart": "ADD_CART",
    "add_to_wishlist": "ADD_TO_WISHLIST",
    "begin_checkout": "START_CHECKOUT",
    "add_payment_info": "ADD_BILLING",
    "purchase": "PURCHASE",
    "sign_up": "SIGN_UP",
    "generate_lead": "SIGN_UP",
    "login": "LOGIN",
    "share": "SHARE",
    "tutorial_complete": "COMPLETE_TUTORIAL",
    "start_trial": "START_TRIAL",
    "subscribe": "SUBSCRIBE",
    "ad_view": "AD_VIEW",
    "ad_click": "AD_CLICK",
    "view_promotion": "AD_VIEW",
    "select_promotion": "AD_CLICK",
    "app_install": "APP_INSTALL",
    "app_open": "APP_OPEN",
    "unlock_achievement": "ACHIEVEMENT_UNLOCKED",
    "spend_virtual_currency": "SPENT_CREDITS",
}
# Snap's own, for which nobody else has a word; a sender who writes to Snap's page uses these.
_OWN = (
    *("SAVE", "LEVEL_COMPLETE", "INVITE", "RESERVE", "RATE", "ACHIEVEMENT_UNLOCKED", "SPENT_CREDITS"),
    *(f"CUSTOM_EVENT_{slot}" for slot in range(1, 6)),
)

DEFAULT_EVENTS: Mapping[str, str] = MappingProxyType({**_TRANSLATED, **{name.lower(): name for name in _OWN}})
EVENT_NAMES = frozenset(DEFAULT_EVENTS.values())
