"""The body: the bytes of one request become items, each of which the door takes or turns away.

Here are the limits, the encodings, the shapes (object, array, wrapper, NDJSON, pixel) and what is repaired in the text.
What an item means is not decided here. Pure, and total: whatever the bytes are, the answer is a value.

A batch is first cut into its members without decoding them (``msgspec.Raw``). So each one's size is known as it was sent,
and a member that cannot be decoded does not sink its neighbours.

Sources: RFC 8259 (JSON), RFC 1952 (gzip), RFC 9110 section 8.4 (Content-Encoding); Commanders Act, HTTP tracking API (32 KB an
event, 500 KB a request); msgspec, whose decoder does not check UTF-8 in the parts that it skips.
"""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import DecodeError, Raw, Struct, ValidationError

from router.problem import Malformed, Problem

MAX_EVENT = 32_768  # bytes as sent, after inflating; Commanders Act says "32 KB" and "500 KB"
MAX_REQUEST = 512_000
MAX_EVENTS = 1_000
MAX_DEPTH = 32
MAX_KEYS = 1_000
BOTTOMLESS = 900  # levels; what is deeper sinks its request. Python 3.13 reads some more, 3.14 a hundred thousand


class Item(Struct, frozen=True, kw_only=True):
    """One member of a request. With a ``problem`` it is not admitted, and ``value`` is what could still be decoded."""

    value: Any = None
    size: int  # bytes as sent, after inflating
    problem: Problem | None = None
    notes: tuple[str, ...] = ()


class Members(Sequence[Item]):
    """The members of a batch, cut but not decoded: each is when it is asked for, in memory that the last one has left."""

    def __init__(self, sent: Sequence[bytes | Raw], *, suspect: bool) -> None:
        self._sent, self._suspect = sent, suspect

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def size(self) -> int:
        """Bytes of them all, as sent."""
        return sum(map(len, self._sent))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        sent = bytes(self._sent[index])
        try:
            return _item(sent, index, suspect=self._suspect)
        except RecursionError:  # whoever cut it had more room
            return Item(size=len(sent), problem=_problem("too_deep", index))


class Body(Struct, frozen=True, kw_only=True):
    """The items in the order sent. ``wrapper`` holds the other keys of ``{"batch": [...]}`` or ``{"events": [...]}``."""

    items: Sequence[Item]
    wrapper: dict[str, Any] = {}
    single: bool = False  # one object by itself: its answer carries its id

    @property
    def size(self) -> int:
        """Bytes of its items, as sent."""
        return self.items.size if isinstance(self.items, Members) else sum(each.size for each in self.items)


_value = msgspec.json.Decoder()
_syntax = msgspec.json.Decoder(Raw)
_array = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])

_BLANK = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_WRAPPED = re.compile(rb'\{\s*"(?:batch|events)"')  # a guess that saves decoding twice; the members decide
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")  # of those that are not blank, of which there may be half a million
_CONTAINERS = (dict, list)
_REPAIRED = ("repaired",)


def read(raw: bytes, encoding: str | None = None, *, strict_utf8: bool = False) -> Body | Malformed:
    """
    The items of a request, or why none of it can be taken.

    ``encoding`` is the Content-Encoding header; Content-Type is not asked for, because senders get it wrong. Bytes that
    are not UTF-8 become U+FFFD, and their item is noted as repaired, unless ``strict_utf8`` refuses them; escapes that
    stand for no character are always repaired.
    """
    text = opened(raw, encoding)
    return text if isinstance(text, Malformed) else parsed(text, strict_utf8=strict_utf8)


def opened(raw: bytes, encoding: str | None = None) -> bytes | Malformed:
    """The first half of ``read``: the text that was sent, as far as its size and its first bytes are right."""
    text = _decoded(raw, encoding)
    if isinstance(text, Malformed):
        return text
    if len(text) > MAX_REQUEST:
        return _request_too_large()
    return _unreadable(text) or text


def _decoded(raw: bytes, encoding: str | None) -> bytes | Malformed:
    """What the sender encoded: identity, or exactly one layer of gzip."""
    match (encoding or "").strip().lower():
        case "" | "identity":
            return raw
        case "gzip" | "x-gzip":  # RFC 9110, 8.4.1.3: x-gzip should be taken for gzip
            return _inflated(raw)
        case _:
            return Malformed(
                status=415,
                code="bad_encoding",
                message="this Content-Encoding is not supported; send the body as it is, or with one layer of gzip",
            )


def _inflated(raw: bytes) -> bytes | Malformed:
    """One gzip member that is whole, with nothing after it. Inflating stops one byte past the limit."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        text = stream.decompress(raw, MAX_REQUEST + 1)
    except zlib.error:
        return _bad_gzip()
    if len(text) > MAX_REQUEST:
        return _request_too_large()
    return text if stream.eof and not stream.unused_data else _bad_gzip()


def inflated_size(raw: bytes) -> int:
    """Bytes that a body takes once it is inflated, at most ``MAX_REQUEST`` or what came.

    Gzip says it in its last four bytes (RFC 1952, ISIZE). Whoever says less than there is, is refused: zlib compares.
    """
    packed = raw[:2] == _GZIP and len(raw) >= 18  # a header of 10 and a trailer of 8
    return max(len(raw), min(int.from_bytes(raw[-4:], "little"), MAX_REQUEST)) if packed else len(raw)


def most_inflated(raw: bytes) -> int:
    """Bytes that a body can become, however it lies: deflate makes at most 1032 of one (zlib, Technical Details)."""
    return min(1032 * len(raw), MAX_REQUEST)


def _unreadable(sent: bytes) -> Malformed | None:
    """What the first bytes alone give away."""
    start = sent[:2]
    if start in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in start:
        return Malformed(code="not_utf8", message="the body is UTF-16 or UTF-32; send UTF-8", position=0)
    if start == _GZIP:
        message = "the body is gzip and no header says so; send Content-Encoding: gzip"
        return Malformed(code="malformed_json", message=message, position=0)
    if not sent.strip(_BLANK + _BOM):
        return Malformed(code="empty_body", message="the body is empty; send one JSON object or an array of them")
    return None


def parsed(sent: bytes, *, strict_utf8: bool = False) -> Body | Malformed:
    """The second half of ``read``."""
    broken_at = None if sent.isascii() else _broken_at(sent)
    if strict_utf8 and broken_at is not None:
        message = f"the body is not UTF-8 at byte {broken_at}; send UTF-8"
        return Malformed(code="not_utf8", message=message, position=broken_at)
    # The mark is blanked and not cut off, so that positions count what was sent.
    text = b"   " + sent[3:] if sent.startswith(_BOM) else sent
    mended = _mended(text) if b"\\" in text else text
    try:
        read = _items(mended, suspect=broken_at is not None or mended != text)
    except DecodeError as error:
        read = _malformed_json(error, 0, len(text))
    except RecursionError:
        return _bottomless()
    return _bottomless() if isinstance(read, Malformed) and is_bottomless(text) else read


def _broken_at(text: bytes) -> int | None:
    """Where the text stops being UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


# An escape that stands for no character that can be kept: NUL (SQLite's text functions stop there), or half of a surrogate
# pair without the other (JavaScript cuts emoji in two). It holds where every \u is an escape, see below.
_HIGH = rb"[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE = re.compile(rb"\\u(?:0000|%b(?!\\u%b)|%b(?<!\\u%b\\u%b))" % (_HIGH, _LOW, _LOW, _HIGH, _LOW))
# U+FFFD in an escape of the same length, so that sizes and positions stay. Nobody else spells it so: a member that was
# repaired is known by it.
_MARK = rb"\uFfFd"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}".encode()


def _mended(text: bytes) -> bytes:
    """The same text, as long as before, with U+FFFD for every escape that stands for no character."""
    # A raw NUL is no JSON, and so two of them may stand for an escaped backslash, after which a \u is no escape.
    if b"\\u" not in text or b"\0" in text:
        return text
    masked = text.replace(rb"\\", b"\0\0")
    if _LONE.search(masked) is None:
        return text
    return _LONE.sub(rb"\\uFfFd", masked).replace(b"\0\0", rb"\\")


def _items(text: bytes, *, suspect: bool) -> Body | Malformed:
    """The body by its shape. ``suspect``: something in it was repaired or must be. Raises the decoder's exceptions."""
    match text.lstrip(_BLANK)[:1]:
        case b"{":
            try:
                return _document(text, suspect=suspect)
            except DecodeError as error:
                return _lines(text, suspect=suspect) or _broken(text, error)
        case b"[":
            return _batch(_array.decode(text), {}, suspect=suspect)
        case _:
            _syntax.decode(text)
            message = "the body is neither an object nor an array; send one JSON object or an array of them"
            return Malformed(code="not_an_object", message=message)


def _document(text: bytes, *, suspect: bool) -> Body | Malformed:
    """One object: an event, or a wrapper around many."""
    sent = text.strip(_BLANK)
    if len(sent) <= MAX_EVENT and not _WRAPPED.match(sent):
        item = _item(sent, 0, suspect=suspect)
        if item.problem is None and _list_name(item.value) is None:
            return Body(items=[item], single=True)
    members, size = _members(sent, suspect=suspect)
    if (name := _list_name(members)) is not None:
        return _unwrapped(name, members, size, suspect=suspect)
    item = _item(sent, 0, suspect=suspect)
    if item.problem is not None and is_bottomless(sent):
        return _bottomless()
    if item.problem is not None and item.problem.code == "event_too_large":
        return Malformed(code=item.problem.code, message=item.problem.message)
    return Body(items=[item], single=True)


def _members(text: bytes, *, suspect: bool) -> tuple[dict[str, Raw], int]:
    """The members of one object, cut, and the bytes that they were cut from: repaired ones are more than were sent."""
    try:
        return _object.decode(text), len(text)
    except (
        DecodeError,
        UnicodeDecodeError,
    ):  # a key that is not UTF-8 is the first from msgspec 0.23 on, before it the second
        text = _repaired(text) if suspect else text
        return _object.decode(text), len(text)


def _list_name(members: dict[str, Any]) -> str | None:
    """Which member holds the events, if this is a wrapper. What names an event itself is one, lists or not."""
    if "event_name" in members or "event" in members:
        return None
    for name in ("batch", "events"):
        if _is_list(members.get(name)):
            return name
    return None


def _is_list(member: Any) -> bool:
    return isinstance(member, list) or (isinstance(member, Raw) and bytes(member).startswith(b"["))


def _unwrapped(name: str, members: dict[str, Raw], size: int, *, suspect: bool) -> Body | Malformed:
    """A wrapper of so many bytes taken apart. What it says holds for every event in it, so it keeps an event's limits
    itself, the one of its size before it is decoded: that costs a hundred times as much as to cut it.
    """
    listed = members[name]
    if size - len(listed) > MAX_EVENT:
        return _wrapper_refused("event_too_large")
    try:
        wrapper = {
            key: _value.decode(_repaired(bytes(member)) if suspect else member)
            for key, member in members.items()
            if key != name
        }
    except ValidationError:
        return _wrapper_refused("number_out_of_range")
    if (code := _exceeded(wrapper)) is not None:
        return _wrapper_refused(code)
    return _batch(_array.decode(listed), wrapper, suspect=suspect)


def _lines(text: bytes, *, suspect: bool) -> Body | Malformed | None:
    """NDJSON: every line one complete object. None where already the first line is not."""
    lines: list[bytes] = []
    for line in _LINE.finditer(text):
        if len(lines) == MAX_EVENTS:
            return _too_many_events()
        try:
            _syntax.decode(line[0])
        except DecodeError as fault:
            return _malformed_json(fault, *line.span()) if lines else None
        if not line[0].startswith(b"{"):
            return _not_valid("this line is not an object", line.start())
        lines.append(line[0].rstrip(_BLANK))
    return _batch(lines, {}, suspect=suspect)


def _broken(text: bytes, error: DecodeError) -> Malformed:
    """What is wrong, at the place where it was sent: here nothing is stripped, and UTF-8 is not looked at."""
    try:
        _syntax.decode(text)
    except DecodeError as exact:
        error = exact
    return _malformed_json(error, 0, len(text))


def _batch(members: Sequence[bytes | Raw], wrapper: dict[str, Any], *, suspect: bool) -> Body | Malformed:
    if len(members) > MAX_EVENTS:
        return _too_many_events()
    # So many levels are as many brackets twice, because what was cut is whole.
    if any(len(member) > 2 * BOTTOMLESS and is_bottomless(bytes(member)) for member in members):
        return _bottomless()
    return Body(items=Members(members, suspect=suspect), wrapper=wrapper)


def _item(sent: bytes, index: int, *, suspect: bool) -> Item:
    """One member whose syntax is known to be good, or else the decoder's exception."""
    size = len(sent)
    if size > MAX_EVENT:
        return Item(size=size, problem=_problem("event_too_large", index))
    text = _repaired(sent) if suspect else sent
    notes = _REPAIRED if suspect and (_MARK in text or _REPLACEMENT in text) else ()
    try:
        value = _value.decode(text)
    except ValidationError:
        return Item(value=_remains(text), size=size, problem=_problem("number_out_of_range", index), notes=notes)
    code = None
    # Fewer brackets than levels, and fewer bytes than that many keys fill ("":0,): nothing to walk.
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH or size > 5 * MAX_KEYS:
        code = _exceeded(value)
    if code == "too_deep":
        value = _remains(text)
    elif not isinstance(value, dict):
        code = "not_an_object"
    if code is not None:
        return Item(value=value, size=size, problem=_problem(code, index), notes=notes)
    return Item(value=value, size=size, notes=notes)


def _repaired(text: bytes) -> bytes:
    """The same text with U+FFFD for what is not UTF-8."""
    return text.decode("utf-8", "replace").encode()


def _exceeded(value: Any) -> str | None:
    """The limit of one event that a value goes beyond. Level by level and not by recursion: its depth is in doubt."""
    depth = keys = 0
    level = [value] if isinstance(value, _CONTAINERS) else []
    while level:
        depth += 1
        keys += sum(len(each) for each in level if isinstance(each, dict))
        if depth > MAX_DEPTH:
            return "too_deep"
        members = (each.values() if isinstance(each, dict) else each for each in level)
        level = [member for inside in members for member in inside if isinstance(member, _CONTAINERS)]
    return "too_many_keys" if keys > MAX_KEYS else None


_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)  # or without an end
_STEP = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NO_BRACKETS = bytes(set(range(256)) - _STEP.keys())


def is_bottomless(text: bytes) -> bool:
    """Is it nested beyond what every Python reads? Hardly anything has as many brackets, and nothing else is walked."""
    if text.count(b"[") + text.count(b"{") <= BOTTOMLESS:
        return False
    brackets = _TEXT.sub(b"", text).translate(None, _NO_BRACKETS)
    return any(level > BOTTOMLESS for level in itertools.accumulate(map(_STEP.__getitem__, brackets)))


def _remains(text: bytes) -> dict[str, Any] | None:
    """The members of an object that are sound by themselves, for the quarantine."""
    if not text.startswith(b"{"):
        return None
    return {key: value for key, member in _object.decode(text).items() for value in _kept(member)}


def _kept(member: Raw) -> Iterator[Any]:
    try:
        value = _value.decode(member)
    except ValidationError:
        return
    if _exceeded({"": value}) != "too_deep":
        yield value


_MESSAGES = {
    "not_an_object": "this is not an object; send every event as one JSON object",
    "event_too_large": f"the event is larger than {MAX_EVENT} bytes; send less with it",
    "too_deep": f"the event is nested more than {MAX_DEPTH} levels deep; flatten it",
    "too_many_keys": f"the event has more than {MAX_KEYS} keys; send fewer",
    "number_out_of_range": "a number in the event is too large to be kept; send it as text or leave it out",
}


def _problem(code: str, index: int) -> Problem:
    return Problem(index=index, code=code, message=_MESSAGES[code])


def _wrapper_refused(code: str) -> Malformed:
    message = "what stands beside the list of events goes beyond the limits of one event; send less there"
    return Malformed(code=code, message=message)


def _bottomless() -> Malformed:
    return Malformed(code="too_deep", message=f"the body is nested too deeply; send at most {MAX_DEPTH} levels")


def _request_too_large() -> Malformed:
    message = f"the request is larger than {MAX_REQUEST} bytes; send it in smaller parts"
    return Malformed(code="request_too_large", message=message)


def _bad_gzip() -> Malformed:
    message = "the body is not one whole gzip member; compress it once, and send all of it and nothing after it"
    return Malformed(code="bad_gzip", message=message)


def _too_many_events() -> Malformed:
    message = f"the request holds more than {MAX_EVENTS} events; send fewer at a time"
    return Malformed(code="too_many_events", message=message)


_FAULT = re.compile(r"JSON is malformed: (.+) \(byte (\d+)\)")  # msgspec's words, which never hold input


def _malformed_json(error: DecodeError, start: int, end: int) -> Malformed:
    """The decoder's fault and its place, where it read the body from ``start`` to ``end``."""
    found = _FAULT.fullmatch(str(error))
    if found is None:
        return _not_valid("it ends before it is complete", end)
    position = start + int(found[2])
    if found[1] == "trailing characters":
        return _not_valid("something follows the end of it", position - 1)  # msgspec counts one more here
    return _not_valid(found[1], position)


def _not_valid(what: str, position: int) -> Malformed:
    message = f"the body is not valid JSON: {what}, at byte {position}; correct it there and send it again"
    return Malformed(code="malformed_json", message=message, position=position)


# What a pixel's query says to us and not about the event. Source: Commanders Act, Pixel tracking and its JavaScript SDK's log.
_OURS = frozenset({"tc_s", "token", "tc_skey", "tc_firsttime", "writeKey", "k"})
_NESTED = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])+)")
_UNFIT = re.compile("[\0\ud800-\udfff]")


def pixel(query: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """
    The event of a pixel's query: ``user[id]=7`` nests, ``colors[]=red`` appends, ``items[0][id]=1`` counts.

    Every value is text and the last one wins. A name with more brackets than levels allowed, or unbalanced ones, is one
    plain key. What comes after ``MAX_KEYS`` keys is left out. Source: Commanders Act, Pixel tracking.
    """
    tree: dict[str, Any] = {}
    keys = 0
    for name, text in query:
        path = _path(_UNFIT.sub("\ufffd", name))
        keys += len(path)
        if keys > MAX_KEYS:
            break
        if path[0] not in _OURS:
            _plant(tree, path, _UNFIT.sub("\ufffd", text))
    return {key: _listed(branch) for key, branch in tree.items()}


def _path(name: str) -> list[str]:
    found = _NESTED.fullmatch(name)
    if found is None or found[2].count("[") >= MAX_DEPTH:
        return [name]
    return [found[1], *found[2][1:-1].split("][")]


def _plant(tree: dict[str, Any], path: list[str], text: str) -> None:
    for name in path[:-1]:
        key = name or _next(tree)
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[path[-1] or _next(tree)] = text


def _next(tree: dict[str, Any]) -> str:
    """The place after all that are taken."""
    return next(place for place in map(str, itertools.count(len(tree))) if place not in tree)


def _listed(branch: Any) -> Any:
    """A branch whose keys are 0, 1, 2 ... is a list. ``items[7]`` alone stays an object: nothing is made up."""
    if not isinstance(branch, dict):
        return branch
    inside = {key: _listed(each) for key, each in branch.items()}
    places = [str(place) for place in range(len(inside))]
    return [inside[place] for place in places] if inside.keys() == set(places) else inside
