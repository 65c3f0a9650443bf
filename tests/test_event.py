"""The event and its stored form."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from router.event import NOTHING, Clear, Event, bare, opened, payload, written
from tests.builders import an_event

words = st.text(max_size=8)
clears = st.builds(Clear, ip=st.none() | words, user_agent=st.none() | words, country=st.none() | words)


@given(name=words, said=st.dictionaries(words, st.none() | st.integers(-9, 9) | words), clear=clears)
def test_what_is_stored_is_the_event_without_its_clear_values(name: str, said: dict[str, object], clear: Clear):
    """
    An event and its payload with its clear values are the same; the payload and what is bare hold none of these.
    """
    event = an_event(name=name, properties=said, clear=clear)
    stored = payload(event)
    back = opened(stored, clear)

    assert event == back
    assert msgspec.json.encode(msgspec.structs.replace(event, clear=NOTHING)) == stored
    assert [bare(event)] * 2 == [bare(back), opened(stored)]
    assert NOTHING is bare(event).clear is bare(back).clear

    known = msgspec.structs.replace(event)
    text = written(known)
    assert [stored, event] == [text, known]
    assert text is payload(known) is payload(bare(known))


def test_a_stored_event_is_sent_on_as_the_bytes_that_are_stored():
    """
    Nobody encodes it again, not even where another version would write it in another way; what is changed on the way is
    another event.
    """
    stored = b'{ "id":"e-1","name":"n","time":1,"received":1,"source":"shop","dialect":"plain","of_a_later_version":1}'
    event = opened(stored, Clear(ip="203.0.113.7"))

    assert stored is payload(event) is payload(bare(event))
    assert b'"m"' in payload(msgspec.structs.replace(event, name="m"))
    assert isinstance(event, Event)
