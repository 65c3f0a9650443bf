"""Which dialect an item is in, where two of them could claim it."""

import pytest

from router import dialects

TRACK = {"event": "Song Played", "properties": {"artist": "A"}}

DETECTED = {
    "a Commanders Act purchase has a type of its own": ({"event_name": "purchase", "type": "online"}, "commandersact"),
    "an old page view has a type too": ({"event_name": "page_view", "type": "product_list"}, "commandersact"),
    "even a type that is one of Segment's words": ({"event_name": "page_view", "type": "page"}, "commandersact"),
    "properties without context are version 1": ({"event_name": "x", "properties": {}}, "commandersact-1"),
    "properties with context are not": ({"event_name": "x", "properties": {}, "context": {}}, "commandersact"),
    "event with the user among properties is older still": (
        {"event": "x", "properties": {"user": {"id": "u1"}}},
        "commandersact-1",
    ),
    "event and properties alone are Segment's": (TRACK, "segment"),
    "a Segment type without event_name": ({"type": "track", "event": "x"}, "segment"),
    "a Segment id": ({"event": "x", "anonymousId": "a"}, "segment"),
    "event beside properties of its own is plain": ({"event": "purchase", "value": 12, "properties": {}}, "plain"),
    "event with a user is plain": ({"event": "purchase", "user": {"email": "a@example.com"}}, "plain"),
    "a name alone is plain": ({"name": "order complete", "data": {}}, "plain"),
    "flat event data of Google's is plain": ({"event_name": "purchase", "client_id": "1.2"}, "plain"),
    "user_data is Meta's and Snap's": ({"event_name": "Purchase", "user_data": {}}, "plain"),
    "event_name alone is the seed's": ({"event_name": "purchase"}, "commandersact"),
}


@pytest.mark.parametrize(("item", "expected"), DETECTED.values(), ids=DETECTED)
def test_dialect(item, expected):
    """
    The item alone decides.
    """
    assert expected == dialects.read(item, None, {}).dialect


KINDS = {
    "previousId": ({"previousId": "a", "userId": "u"}, None, "alias"),
    "groupId and traits": ({"groupId": "g", "traits": {}, "userId": "u"}, None, "group"),
    "traits": ({"traits": {}, "userId": "u"}, None, "identify"),
    "event": ({"event": "x", "userId": "u"}, None, "track"),
    "name": ({"name": "Home", "userId": "u"}, None, "page"),
    "the path's screen": ({"name": "Home", "userId": "u"}, "screen", "screen"),
    "its own type before the path's": ({"type": "identify", "userId": "u"}, "track", "identify"),
}


@pytest.mark.parametrize(("item", "call", "expected"), KINDS.values(), ids=KINDS)
def test_segment_kind(item, call, expected):
    """
    A single Segment call does not say which it is: its fields or its path do.
    """
    assert expected == dialects.read(item, call, {}).kind


def test_path_is_only_a_hint():
    """
    A Commanders Act event posted to a Segment path stays one.
    """
    assert "commandersact" == dialects.read({"event_name": "purchase"}, "track", {}).dialect


@pytest.mark.parametrize("item", [{"specversion": "1.0", "type": "x"}, {"batch": []}, {"events": [{}]}])
def test_foreign_envelope(item):
    """
    An envelope we do not read is not taken for an event without a name.
    """
    assert dialects.read(item, None, {}) is None


NAMES = {
    "Order Completed": "purchase",
    "Completed Order": "purchase",
    "order_completed": "purchase",
    "ORDERCOMPLETED": "purchase",
    "Products Searched": "search",
    "Viewed Product Category": "view_item_list",
    "Product Added to Wishlist": "add_to_wishlist",
    "Added Product to Wishlist": "add_to_wishlist",
    "Checkout Started": "begin_checkout",
    "Order Refunded": "refund",
    "Promotion Clicked": "select_promotion",
    "Signed Up": "sign_up",
    "Signed In": "login",
    "Order Cancelled": None,
    "Song Played": None,
}


@pytest.mark.parametrize(("sent", "expected"), NAMES.items(), ids=NAMES)
def test_segment_name(sent, expected):
    """
    Segment's e-commerce names have a standard one, in both orders of their words; other names stay.
    """
    assert expected == dialects.read({"event": sent, "properties": {}}, None, {}).standard


def test_wrapper_is_merged_into_each_item():
    """
    What a Segment batch says once holds for each of its calls, unless the call says otherwise.
    """
    wrapper = {"context": {"locale": "fr", "timezone": "UTC"}, "integrations": {"All": False}}
    item = {"type": "track", "event": "x", "context": {"locale": "en"}, "integrations": {"Snap": {"click_id": "c"}}}

    reading = dialects.read(item, None, wrapper)

    assert ("en", "UTC") == (reading.locale, reading.device["timezone"])
    assert {"All": False, "Snap": True} == reading.routing
