"""What the vendors' own example payloads become. Each case file names the page its payload is written after."""

import json
from pathlib import Path

import msgspec
import pytest

from router.door import Event, admit
from router.visit import Door, Visit

RECEIVED = 1765566661266  # 2025-12-12T19:11:01.266Z
CLEAR = frozenset(("ip", "user_agent", "country", "advertising_id", "idfv"))
CASES = sorted((Path(__file__).parent / "cases").glob("*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_payload_becomes_event(path):
    """
    A documented payload becomes exactly this event: every field, and no other.
    """
    case = json.loads(path.read_text())
    door = Door(source="shop", default_country="FR", keep_clear=CLEAR)
    visit = Visit(
        received=RECEIVED, call=case.get("call"), wrapper=case.get("wrapper", {}), dialect=case.get("dialect")
    )

    event = admit(case["item"], door, visit, lambda: "own-id")

    assert isinstance(event, Event)
    stored = json.loads(msgspec.json.encode(event))
    clear = stored.pop("clear", {})
    assert {"source": "shop", "received": RECEIVED, **case["event"]} == stored
    assert case.get("clear", {}) == clear


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_payload_is_left_as_it_was(path):
    """
    Reading an item changes nothing in it: the request's other items may share its wrapper.
    """
    case = json.loads(path.read_text())
    before = json.dumps(case)

    visit = Visit(received=RECEIVED, wrapper=case.get("wrapper", {}), dialect=case.get("dialect"))
    admit(case["item"], Door(source="shop"), visit, lambda: "own-id")

    assert before == json.dumps(case)


def test_case_files_name_their_source():
    """
    Wire truth comes from somewhere that can be read again.
    """
    pages = [json.loads(path.read_text())["page"] for path in CASES]

    assert len(pages) >= 19
    assert all(pages)
