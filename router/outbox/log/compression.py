"""How payloads lie in the log: each by itself, so that one can be erased, moved or damaged without the others.

The digests of one person repeat each other and field names repeat from event to event: zstd against a fixed dictionary
makes 330 bytes of a 2 KB payload. Many are done in one call, without Python's lock, which is what makes it cheap beside a
busy event loop: 6 us an event to pack, 2 us to unpack (measured).

The first byte says what it is: ``{`` begins plain JSON, 1 a zstd frame against ``_FIRST``. Stored bytes depend on that text:
it is never changed; a better one gets the next number beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from zstandard import DICT_TYPE_RAWCONTENT, ZstdCompressionDict, ZstdCompressor, ZstdDecompressor, ZstdError

_FIRST: Final = (
    b'"kind":"identify","kind":"screen","sent_time":"session_id":"group_id":"previous_id":"traits":{"partners":{"routing":{'
    b'"All":true,"test":"bot","notes":["bad_phone","bad_email","unit_guessed","referrer":"https://www.google.com/",'
    b'"app":{"name":"version":"1.0.0","build":"1","namespace":"com.example"},"type":"mobile","manufacturer":"Apple",'
    b'"model":"iPhone","os_name":"iOS","os_version":"18.6","locale":"en-US","timezone":"Europe/Paris","carrier":'
    b'"screen_width":1920,"screen_height":1080,"screen_density":2.0,"cpu_cores":8,"storage":"128","tracking_enabled":true'
    b'"kind":"page","sent_name":"Products Searched""Product Viewed""Product Added""Checkout Started""Signed Up"'
    b'"name":"identify""search""sign_up""login""view_item_list""add_to_wishlist""add_payment_info""generate_lead"'
    b'"order_completed""job_click","clicks":{"ScCid":"","fbclid":"","ttclid":"","gclid":""},"cookies":{"_scid":"","_fbp":"fb.1.",'
    b'"_fbc":"fb.1.","_ga":"GA1.1.","_ttp":""},"opt_out":true,"denied":["marketing"]},"denied":["1","2","3"]},'
    b'"properties":{"search_term":"method":"email","link_short_code":"source_id":"source_click_id":"job_id":"job_country":'
    b'"destination_id":"expired":false,"is_bot":false,"is_final":true},"coupon":"discount":"revenue":"tax":"shipping":'
    b'"context":{"library":{"name":"analytics.js","version":"next-1.81.0"}},"transaction_id":"affiliation":"list":'
    b'"page_type":"page_name":"environment":"prod","campaign":{"source":"medium":"cpc","name":"term":"content":'
    b'?utm_source=google&utm_medium=cpc&utm_campaign=","city":"","city_letters":"","state":"","zip":"","zip_dashless":"",'
    b'"zip_digits":"","street":"","gender":"","gender_neutral":"","birth_date":"","advertising_id":"","country":"",'
    b'{"id":"","name":"page_view","time":17950,"received":17950,"source":"shop","dialect":"plain","user":{"anonymous_id":"'
    b'"name":"view_item""add_to_cart""begin_checkout","dialect":"segment","sent_name":"Order Completed","user":{"id":"'
    b'"},"properties":{"value":1,"currency":"USD","clear":{}}'
    b'{"id":"","name":"purchase","time":17950,"received":17950,"source":"shop","dialect":"commandersact",'
    b'"user":{"id":"u-","anonymous_id":"","digests":{"email":"","email_gmail":"","email_bare":"","phone":"","phone_plus":"",'
    b'"first_name":"","first_name_tight":"","first_name_letters":"","first_name_plain":"","last_name":"",'
    b'"last_name_tight":"","last_name_letters":"","last_name_plain":"","country":"","external_id":""}},'
    b'"page":{"url":"https://shop.example/","title":"","referrer":"https://","language":"en"},"device":{"locale":"fr"},'
    b'"consent":{"known":true,"granted":["marketing"]},"consent":{"known":true,"granted":["1","2","3"]},'
    b'"money":{"value":"","currency":"EUR","order_id":"O"},"items":[{"id":"","name":"","price":"","quantity":1,"brand":"",'
    b'"category":"","variant":"","extra":{"product":{"id":""}}},{"id":"sku","name":"","price":"9.99","quantity":2,'
    b'"properties":{"id":"O","value":9.9,"currency":"EUR","order_id":""},"clear":{}}'
)
_PACKED: Final = b"\x01"
_LEVEL: Final = 1
_DAMAGED: Final = (ZstdError, ValueError, MemoryError)  # the length of what comes out is part of the frame
_dictionary = ZstdCompressionDict(_FIRST, dict_type=DICT_TYPE_RAWCONTENT)


class _Tools(threading.local):
    """Neither is to be used by two threads at a time."""

    def __init__(self) -> None:
        self.compressor = ZstdCompressor(level=_LEVEL, dict_data=_dictionary, write_checksum=False)
        self.decompressor = ZstdDecompressor(dict_data=_dictionary)


_tools = _Tools()


def pack(payloads: Sequence[bytes]) -> list[bytes]:
    """As they are stored, in order."""
    if len(payloads) == 1:
        return [_PACKED + _tools.compressor.compress(payloads[0])]  # a third of the time that a list of one takes
    frames = _tools.compressor.multi_compress_to_buffer(list(payloads))
    return [_PACKED + frames[number].tobytes() for number in range(len(frames))]


def unpack(stored: Sequence[bytes]) -> list[bytes | None]:
    """The payloads, in order; None for what cannot be read."""
    frames: list[bytes | bytearray | memoryview] = [each[1:] for each in stored if each[:1] == _PACKED]
    try:
        opened = iter(_opened(frames))
    except _DAMAGED:
        return [_one(each) for each in stored]  # one of them is damaged
    return [next(opened) if each[:1] == _PACKED else each for each in stored]


def _opened(frames: list[bytes | bytearray | memoryview]) -> list[bytes]:
    if len(frames) < 2:
        return [_tools.decompressor.decompress(each) for each in frames]
    opened = _tools.decompressor.multi_decompress_to_buffer(frames)
    return [opened[number].tobytes() for number in range(len(opened))]


def _one(stored: bytes) -> bytes | None:
    if stored[:1] != _PACKED:
        return stored
    try:
        return bytes(_tools.decompressor.decompress(stored[1:]))
    except _DAMAGED:
        return None
