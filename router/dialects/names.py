"""Standard event names: which of them a sender's name means.

They are GA4's, which Commanders Act uses as they are. Sources: Segment "Ecommerce Events" v2 and its older spellings
(segmentio/analytics-events), Meta "Standard events", Snap Conversions API v3 "Event names".
"""

from __future__ import annotations

_PHRASES = {
    "products searched": "search",
    "product list viewed": "view_item_list",
    "product category viewed": "view_item_list",
    "product clicked": "select_item",
    "product viewed": "view_item",
    "product added": "add_to_cart",
    "product removed": "remove_from_cart",
    "cart viewed": "view_cart",
    "checkout started": "begin_checkout",
    "order started": "begin_checkout",
    "payment info entered": "add_payment_info",
    "shipping info entered": "add_shipping_info",
    "order completed": "purchase",
    "order refunded": "refund",
    "product added to wishlist": "add_to_wishlist",
    "wishlist product added to cart": "add_to_cart",
    "product shared": "share",
    "cart shared": "share",
    "promotion viewed": "view_promotion",
    "promotion clicked": "select_promotion",
    "signed up": "sign_up",
    "signed in": "login",
    "application installed": "app_install",
    "application opened": "app_open",
}
_PARTICIPLES = frozenset(
    {
        *("searched", "viewed", "clicked", "added", "removed", "started", "entered", "completed"),
        *("refunded", "shared", "installed", "opened"),
    }
)

_META = {
    "PageView": "page_view",
    "ViewContent": "view_item",
    "Search": "search",
    "AddToCart": "add_to_cart",
    "AddToWishlist": "add_to_wishlist",
    "InitiateCheckout": "begin_checkout",
    "AddPaymentInfo": "add_payment_info",
    "Purchase": "purchase",
    "Lead": "generate_lead",
    "CompleteRegistration": "sign_up",
}

# In any case: its page writes PURCHASE, its sample Purchase, its own code purchase.
_SNAP = {
    "VIEW_CONTENT": "view_item",
    "LIST_VIEW": "view_item_list",
    "ADD_CART": "add_to_cart",
    "START_CHECKOUT": "begin_checkout",
    "ADD_BILLING": "add_payment_info",
    "COMPLETE_TUTORIAL": "tutorial_complete",
    **{
        name: name.lower()
        for name in (
            *("PAGE_VIEW", "SEARCH", "ADD_TO_WISHLIST", "PURCHASE", "SIGN_UP", "LOGIN", "SHARE", "START_TRIAL"),
            *("SUBSCRIBE", "AD_VIEW", "AD_CLICK", "APP_INSTALL", "APP_OPEN", "SAVE", "LEVEL_COMPLETE", "INVITE"),
            *("RESERVE", "RATE", "ACHIEVEMENT_UNLOCKED", "SPENT_CREDITS"),
            *(f"CUSTOM_EVENT_{slot}" for slot in range(1, 6)),
        )
    },
}


def _older(phrase: str) -> str:
    """The order of words before version 2 of Segment's specification: "Viewed Product" for "Product Viewed"."""
    words = phrase.split()
    verb = next((word for word in words if word in _PARTICIPLES), None)
    return phrase if verb is None else " ".join([verb, *(word for word in words if word != verb)])


_STANDARD = {
    spelling.replace(" ", joint): standard
    for phrase, standard in _PHRASES.items()
    for spelling in (phrase, _older(phrase))
    for joint in ("", " ", "_")
}


# Every standard name, and those that a call has by its kind.
NAMES = frozenset({*_STANDARD.values(), *_META.values(), *_SNAP.values(), "screen_view", "identify", "group", "alias"})


def standard(name: object) -> str | None:
    """The standard name for a Segment name in either order of words, any case, with spaces, underscores or neither."""
    return _STANDARD.get(name.lower().strip()) if isinstance(name, str) else None


def standard_of_any(name: object) -> str | None:
    """The same, and the words that advertisers' own interfaces use."""
    return (_META.get(name) or _SNAP.get(name.upper()) or standard(name)) if isinstance(name, str) else None
