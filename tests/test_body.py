"""The body: whatever the bytes are, the answer is a value, and it is the one the corpus names."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import time
import tracemalloc
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.body import (
    MAX_DEPTH,
    MAX_EVENT,
    MAX_EVENTS,
    MAX_KEYS,
    MAX_REQUEST,
    Body,
    Item,
    pixel,
    read,
)
from router.door import admit
from router.event import Event
from router.problem import Malformed
from router.visit import Door, TurnedAway, Visit
from tests.corpus import CORPUS, RECEIVED, BodyCase, DoorCase, among, rows

CASES = CORPUS.body
ALONE = [name for name, case in CASES.items() if case.inside is not None]
UNENCODED = [name for name, case in CASES.items() if case.encoding is None and len(case.raw()) <= MAX_REQUEST]


def summary(answer: Body | Malformed) -> dict[str, Any]:
    """What a sender is told, without the words."""
    if isinstance(answer, Malformed):
        return {"status": answer.status, "code": answer.code}
    problems = [(item.problem.index, item.problem.code) for item in answer.items if item.problem is not None]
    return {"status": 200, "accepted": len(answer.items) - len(problems), "problems": problems}


def expected(case: BodyCase) -> dict[str, Any]:
    if case.status != 200:
        return {"status": case.status, "code": case.code}
    problems = case.problems or [(index, case.all_problems) for index in range(400) if case.all_problems]
    return {"status": 200, "accepted": case.accepted, "problems": problems}


class TestCorpus:
    @pytest.mark.parametrize("name", CASES)
    def test_alone(self, name: str) -> None:
        """
        Every body gets the answer of the corpus, with the place where it breaks, what was repaired, and what was read.
        """
        case = CASES[name]
        raw = case.raw()
        answer = read(raw, case.encoding, strict_utf8=case.strict_utf8)

        assert expected(case) == summary(answer)
        assert len(raw) == (case.length or len(raw))
        if isinstance(answer, Malformed):
            assert answer.position == (answer.position if case.position is None else case.position)
        if isinstance(answer, Body) and case.notes is not None:
            assert case.notes == [(index, note) for index, item in enumerate(answer.items) for note in item.notes]
        if isinstance(answer, Body) and case.values is not None:
            assert case.values == [item.value for item in answer.items]

    @pytest.mark.parametrize("name", ALONE)
    def test_in_a_batch_of_400_good_events(self, name: str) -> None:
        """
        What a bad event is answered does not depend on its neighbours, and they do not suffer from it.
        """
        case = CASES[name]
        answer = read(among(case.raw()), strict_utf8=case.strict_utf8)

        if case.inside == "refused":
            assert {"status": 400, "code": case.code} == summary(answer)
        else:
            problems = [] if case.inside == "taken" else [(200, case.inside)]
            assert {"status": 200, "accepted": 401 - len(problems), "problems": problems} == summary(answer)
            assert isinstance(answer, Body)
            assert [200] * bool(case.notes) == [index for index, item in enumerate(answer.items) if item.notes]

    @pytest.mark.parametrize("name", UNENCODED)
    def test_gzipped(self, name: str) -> None:
        """
        Gzip changes nothing but the bytes.
        """
        case = CASES[name]
        raw = case.raw()

        assert read(raw, strict_utf8=case.strict_utf8) == read(gzip.compress(raw), "gzip", strict_utf8=case.strict_utf8)


DOOR = Door(source="shop", keep_clear=frozenset({"ip", "user_agent", "country"}))
DIGEST = "sha256:"


def admitted(case: DoorCase) -> Event | TurnedAway:
    body = read(case.raw())
    assert isinstance(body, Body)
    [item] = body.items
    assert item.problem is None
    return admit(item.value, DOOR, Visit(received=RECEIVED), lambda: "own", item.notes)


def at(event: Any, path: str) -> Any:
    """What stands at a dotted path; None where nothing does."""
    for key in path.split("."):
        event = event.get(key) if isinstance(event, dict) else None
    return event


def spelled(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(DIGEST):
        return hashlib.sha256(value.removeprefix(DIGEST).encode()).hexdigest()
    return value


class TestDoor:
    @pytest.mark.parametrize("name", rows(CORPUS.door))
    def test_value(self, name: str) -> None:
        """
        A strange value makes the event the corpus names, or turns it away; nothing personal is left in either.
        """
        case = CORPUS.door[name]
        answer = admitted(case)
        kept = msgspec.json.decode(msgspec.json.encode(answer))

        if isinstance(answer, TurnedAway):
            assert case.problem == answer.problem.code
        else:
            assert case.problem is None
            assert set(case.notes) | {"own_id"} == set(answer.notes) | {"own_id"}
        assert {path: spelled(value) for path, value in case.event.items()} == {
            path: at(kept, path) for path in case.event
        }
        assert dict.fromkeys(case.absent) == {path: at(kept, path) for path in case.absent}
        assert [] == [text for text in case.nowhere if text in msgspec.json.encode(kept).decode()]


class TestLimits:
    def test_as_documented(self) -> None:
        """
        The limits are those of the README, and whoever changes one changes both.
        """

        assert (32_768, 512_000, 1_000, 32, 1_000) == (MAX_EVENT, MAX_REQUEST, MAX_EVENTS, MAX_DEPTH, MAX_KEYS)


class TestBomb:
    def test_is_not_inflated(self) -> None:
        """
        However far a body would inflate, no more memory is taken than a request may have.
        """
        bomb = gzip.compress(bytes(100_000_000), 1)
        tracemalloc.start()
        answer = read(bomb, "gzip")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert {"status": 400, "code": "request_too_large"} == summary(answer)
        assert peak < 4 * MAX_REQUEST


class TestCheap:
    """What is small when it is packed and refused in the end must not be much work in between."""

    @pytest.mark.parametrize("inside", [b'"a":[%b[]]', b'"a":{"a":[%b[]]}'])
    def test_what_stands_beside_the_events_is_refused_by_its_size(
        self, monkeypatch: pytest.MonkeyPatch, inside: bytes
    ) -> None:
        """
        It is not decoded: that would be 160 000 lists.
        """
        monkeypatch.setattr("router.body._exceeded", lambda _: 1 / 0)
        answer = read(b'{"batch":[{}],%b}' % (inside % (b"[]," * 160_000)))

        assert {"status": 400, "code": "event_too_large"} == summary(answer)

    def test_a_repaired_key_opens_no_way_around(self) -> None:
        """
        Bytes that are no UTF-8 grow when they are repaired: they count for no more than what they grew by. What stands
        beside the events would be a part of each of them.
        """
        events = b'"%b",%b' % (b"\xff" * 135_000, b",".join([b"{}"] * 999))
        answer = read(b'{"\xff":1,"batch":[%b],"context":{"a":"%b"}}' % (events, b"x" * 300_000))

        assert {"status": 400, "code": "event_too_large"} == summary(answer)

    def test_blank_lines_are_passed_over(self) -> None:
        """
        Half a million of them take no memory of their own.
        """
        text = b'{"a":1} \r\n \n{"a":2}' + b"\n" * 500_000
        tracemalloc.start()
        answer = read(text)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert isinstance(answer, Body)
        assert [{"a": 1}, {"a": 2}] == [item.value for item in answer.items]
        assert peak < 4 * MAX_REQUEST

    def test_size_beside_the_events_is_as_it_was_sent(self) -> None:
        """
        What is as large as an event may be is kept, what is a byte larger is not, and the events do not count.
        """
        around = b'{"a":"%b","batch":[{"event_name":"%b"}]}'
        room = MAX_EVENT - len(b'{"a":"","batch":}')

        assert isinstance(read(around % (b"x" * room, b"x" * 9_000)), Body)
        assert {"status": 400, "code": "event_too_large"} == summary(read(around % (b"x" * (room + 1), b"")))


class TestMessages:
    @pytest.mark.parametrize("name", CASES)
    def test_say_what_to_do(self, name: str) -> None:
        """
        Every refusal says in a sentence what is wrong and what to do, and never repeats what was sent.
        """
        case = CASES[name]
        raw = case.raw().replace(b"event_name", b"canary_key").replace(b'"a"', b'"canary"')
        answer = read(raw, case.encoding, strict_utf8=case.strict_utf8)
        faults = [answer] if isinstance(answer, Malformed) else [item.problem for item in answer.items if item.problem]

        for fault in faults:
            assert fault.message[0].islower()
            assert not fault.message.endswith(".")
            assert "canary" not in fault.message
            assert "; " in fault.message or ": " in fault.message

    def test_place_is_told(self) -> None:
        """
        Somebody who pastes the vendor's broken sample reads where it breaks, counted in bytes of what was sent.
        """
        text = b'\xef\xbb\xbf{"title":"caf\xc3\xa9",}'
        answer = read(text)

        assert isinstance(answer, Malformed)
        assert text.index(b"}") == answer.position
        assert f"at byte {answer.position}" in answer.message


EVENT = {"event_name": "a"}


class TestShapes:
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(b'[{"event_name":"a"},{"event_name":"a"}]', id="an array"),
            pytest.param(b'{"batch":[{"event_name":"a"},{"event_name":"a"}]}', id="a batch"),
            pytest.param(b'{"events":[{"event_name":"a"},{"event_name":"a"}]}', id="events"),
            pytest.param(b'{"event_name":"a"}\n{"event_name":"a"}', id="a line each"),
            pytest.param(b' \n[\n {"event_name":"a"} ,\t{"event_name":"a"}\n]\n', id="an array with white space"),
        ],
    )
    def test_many(self, sent: bytes) -> None:
        """
        Two events are the same two events in every shape that senders use.
        """
        items = [Item(value=EVENT, size=18)] * 2

        assert Body(items=items) == read(sent)

    def test_one(self) -> None:
        """
        A single event says so, because it is answered with its id.
        """

        assert Body(items=[Item(value=EVENT, size=18)], single=True) == read(b' {"event_name":"a"}\r\n')

    def test_wrapper(self) -> None:
        """
        What stands beside the list is kept for the events in it, wherever it stands and whatever its type.
        """
        sent = {
            "writeKey": "k",
            "batch": [EVENT],
            "context": {"ip": "192.0.2.7"},
            "tags": ["x", {"y": [1]}],
            "n": None,
        }
        body = read(msgspec.json.encode(sent))

        assert isinstance(body, Body)
        assert {key: value for key, value in sent.items() if key != "batch"} == body.wrapper
        assert [EVENT] == [item.value for item in body.items]

    def test_wrapper_far_from_the_start(self) -> None:
        """
        A short batch whose list comes late is a batch all the same, and so is one with white space.
        """
        late = read(b'{"writeKey":"k","sentAt":"2026-09-21T14:13:20Z","batch":[{"event_name":"a"}]}')
        spaced = read(b'{\n  "batch" : [ {"event_name":"a"} ]\n}')

        assert isinstance(late, Body)
        assert isinstance(spaced, Body)
        assert [False, False] == [late.single, spaced.single]
        assert late.items == spaced.items == [Item(value=EVENT, size=18)]

    @pytest.mark.parametrize(
        ("beside", "wrapper"),
        [
            pytest.param(b'"context":{"title":"\xff"}', {"context": {"title": "\ufffd"}}, id="in an object"),
            pytest.param(b'"tags":["\xff",1]', {"tags": ["\ufffd", 1]}, id="in a list"),
            pytest.param(
                b'"tags":["\xff"],"\xff":"\\ud83d"', {"tags": ["\ufffd"], "\ufffd": "\ufffd"}, id="everywhere"
            ),
        ],
    )
    def test_wrapper_is_repaired(self, beside: bytes, wrapper: dict[str, Any]) -> None:
        """
        Broken text beside the list is repaired as it is in the list.
        """
        body = read(b'{%b,"batch":[{"event_name":"a"}]}' % beside)

        assert isinstance(body, Body)
        assert wrapper == body.wrapper
        assert [EVENT] == [item.value for item in body.items]

    def test_size_is_what_was_sent(self) -> None:
        """
        Repairing makes nobody's event larger, and the limit counts the bytes that came.
        """
        sent = b'{"x":"%b"}' % (b"\xff" * (MAX_EVENT - 8))
        body = read(b"[%b]" % sent)

        assert isinstance(body, Body)
        assert [(MAX_EVENT, ("repaired",), None)] == [(item.size, item.notes, item.problem) for item in body.items]

    def test_what_is_left_of_a_bad_event(self) -> None:
        """
        The quarantine gets the members of a bad event that are sound by themselves.
        """
        deep = "[" * 40 + "]" * 40
        body = read(f'[{{"a":1,"b":1e400}},{{"a":1,"b":{deep}}},[1]]'.encode())

        assert isinstance(body, Body)
        assert [{"a": 1}, {"a": 1}, [1]] == [item.value for item in body.items]

    def test_a_text_without_an_end(self) -> None:
        """
        How deep a broken body is, is known at once: a text that never ends is walked once, not from each quote in it.
        """
        began = time.process_time()
        answer = read(b"[" * 901 + b'"' + rb"\"" * 200_000)

        assert {"status": 400, "code": "too_deep"} == summary(answer)
        assert time.process_time() - began < 5


def nested(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True)


class TestPixel:
    # Source of the first: Commanders Act, Pixel tracking.
    @pytest.mark.parametrize(
        ("query", "event"),
        [
            pytest.param(
                "tc_s=29&token=K&event_name=page_view&page_name=Best%20sellers&user[id]=u1&user[email]=x%40example.com"
                "&user[consent_categories][]=1&user[consent_categories][]=3&items[0][product][colors][]=red",
                {
                    "event_name": "page_view",
                    "page_name": "Best sellers",
                    "user": {"id": "u1", "email": "x@example.com", "consent_categories": ["1", "3"]},
                    "items": [{"product": {"colors": ["red"]}}],
                },
                id="the vendor's sample",
            ),
            pytest.param("a[1]=y&a[0]=x", {"a": ["x", "y"]}, id="counted in any order"),
            pytest.param("a[1]=x&a[]=y", {"a": {"1": "x", "2": "y"}}, id="nothing is overwritten by appending"),
            pytest.param("a[7]=x", {"a": {"7": "x"}}, id="a list is not made up"),
            pytest.param("a[][id]=1&a[][id]=2", {"a": [{"id": "1"}, {"id": "2"}]}, id="objects appended"),
            pytest.param("a=1&a=2", {"a": "2"}, id="the last one wins"),
            pytest.param("a=1&a[b]=2", {"a": {"b": "2"}}, id="an object after a text"),
            pytest.param("a[b=1&[c]=2&d]=3", {"a[b": "1", "[c]": "2", "d]": "3"}, id="brackets that do not match"),
            pytest.param("a[b][=1&a[b]c=2", {"a[b][": "1", "a[b]c": "2"}, id="brackets left over"),
            pytest.param("a=%00&b=", {"a": "\ufffd", "b": ""}, id="NUL and nothing"),
            pytest.param("__proto__[x]=1", {"__proto__": {"x": "1"}}, id="plain data"),
            pytest.param("", {}, id="nothing"),
        ],
    )
    def test_query(self, query: str, event: dict[str, Any]) -> None:
        """
        A query is the object that its brackets spell, without our own parameters.
        """

        assert event == pixel(nested(query))

    def test_bounded(self) -> None:
        """
        Neither a thousand brackets nor a thousand parameters make more than an event may hold.
        """
        deep = "a" + "[b]" * 1_000
        many = pixel([(f"k{number}", "1") for number in range(MAX_KEYS + 500)])

        assert {deep: "1"} == pixel([(deep, "1")])
        assert MAX_KEYS == len(many)

    def test_broken_text(self) -> None:
        """
        What no UTF-8 can hold is repaired, in names and in values.
        """

        assert {"a\ufffd": "\ufffd"} == pixel([("a\udcff", "\udcff")])


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS.filter(lambda key: key not in {"batch", "events"}), JSON, max_size=6)


class TestLaws:
    @given(st.binary(max_size=200), st.sampled_from([None, "", "gzip", "br"]), st.booleans())
    def test_any_bytes(self, raw: bytes, encoding: str | None, strict: bool) -> None:
        """
        Whatever comes, the answer is a value.
        """

        assert isinstance(read(raw, encoding, strict_utf8=strict), Body | Malformed)

    @given(
        st.text(r'{}[]",:\\u0dD8cCfF12eE+-. \n\0aé', max_size=60),
        st.sampled_from(["{%s}", '["%s"]', '{"a":"%s"}', "%s"]),
    )
    def test_nearly_json(self, text: str, around: str) -> None:
        """
        What is nearly JSON is a value too, and every item of it can be written down again.
        """
        answer = read((around % text).encode())

        assert isinstance(answer, Body | Malformed)
        if isinstance(answer, Body):
            msgspec.json.encode([item.value for item in answer.items])

    @given(st.lists(OBJECTS, max_size=8), st.sampled_from(["array", "batch", "events"]))
    def test_objects_come_back(self, objects: list[dict[str, Any]], shape: str) -> None:
        """
        Within the limits, what a sender wrote is what we read, in order and in every shape.
        """
        body = read(msgspec.json.encode(objects if shape == "array" else {shape: objects}))

        assert isinstance(body, Body)
        assert objects == [item.value for item in body.items]
        assert [] == [item for item in body.items if item.problem or item.notes]

    @given(OBJECTS)
    def test_one_object_comes_back(self, sent: dict[str, Any]) -> None:
        """
        A single object is read as it was written, and escaping everything changes nothing.
        """
        plain, escaped = read(msgspec.json.encode(sent)), read(json.dumps(sent).encode())

        assert isinstance(plain, Body)
        assert isinstance(escaped, Body)
        assert [sent] == [item.value for item in plain.items] == [item.value for item in escaped.items]
        assert [] == [item for item in escaped.items if item.notes]

    @given(st.lists(OBJECTS.filter(bool), min_size=2, max_size=5))
    def test_lines_are_an_array(self, objects: list[dict[str, Any]]) -> None:
        """
        NDJSON is another way to write an array.
        """
        lines = [msgspec.json.encode(each) for each in objects]

        assert read(b"[" + b",".join(lines) + b"]") == read(b"\n".join(lines))

    @given(st.text(st.characters(), max_size=40))
    def test_escapes(self, text: str) -> None:
        """
        Every character survives being escaped, but those that stand for none: they become U+FFFD, and a note says so.
        """
        lone = re.sub("[\0\ud800-\udfff]", "\ufffd", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
        body = read(json.dumps({"x": text}).encode())

        assert isinstance(body, Body)
        assert [lone] == [item.value["x"] for item in body.items]
        assert [("repaired",) if lone != text else ()] == [item.notes for item in body.items]

    @given(st.binary(max_size=60))
    def test_bytes(self, raw: bytes) -> None:
        """
        A text of any bytes but JSON's own is read as UTF-8 reads it, and noted where that had to replace something.
        """
        inside = re.sub(rb'["\\\x00-\x1f]', b"", raw)
        body = read(b'{"x":"%b"}' % inside)

        assert isinstance(body, Body)
        assert [inside.decode("utf-8", "replace")] == [item.value["x"] for item in body.items]

    @given(st.lists(OBJECTS, max_size=4))
    def test_gzip_changes_nothing(self, objects: list[dict[str, Any]]) -> None:
        """
        A body and its gzip are one body.
        """
        raw = msgspec.json.encode(objects)

        assert read(raw) == read(gzip.compress(raw), "gzip")

    @given(st.binary(max_size=400), st.integers(0, 400), st.binary(min_size=1, max_size=4))
    def test_gzip_is_whole_or_refused(self, raw: bytes, cut: int, after: bytes) -> None:
        """
        No part of a gzip member is taken for all of it, and nothing is taken behind it.
        """
        packed = gzip.compress(raw)

        for broken in (packed[: min(cut, len(packed) - 1)], packed + after):
            answer = read(broken, "gzip")
            assert isinstance(answer, Malformed)
            assert answer.code == "bad_gzip"

    @given(st.lists(st.tuples(st.text("ab[]01", max_size=12), TEXTS), max_size=30))
    def test_any_query(self, query: list[tuple[str, str]]) -> None:
        """
        Any query is an object that is small enough to be an event.
        """

        assert isinstance(read(msgspec.json.encode(pixel(query))), Body)
