"""How long the event loop belongs to one request: bodies of half a megabyte, of the shapes that cost most.

    python -m tests.bench.slices

A body is read at one go, and an item goes through the rules at one go; between those everybody else has a turn. Both are
given in processor time, the least of some rounds, since a shared machine stalls by itself. Prints one JSON line.
"""

from __future__ import annotations

import gzip
import itertools
import json
import time
from collections.abc import Callable

from router import door
from router.body import MAX_REQUEST, Body, read
from router.visit import Door, Visit

ROUNDS = 3
EVENT = {"event": "purchase", "user": {"email": "jane@shop.example", "phone": "+33612345678"}}


def batch(number: int, **more: object) -> bytes:
    return json.dumps([{**EVENT, **more, "id": str(each)} for each in range(number)]).encode()


def bodies() -> dict[str, bytes]:
    """Each just below the limits of a request and of an event, or beyond them in the dearest way."""
    long = {name: part * (31_000 // len(part)) for name, part in LONG.items()}
    keys = {f"key{number}": "jane@shop.example" for number in range(900)}
    return {
        "1 000 events": batch(1000, note="y" * 330),
        "900 keys of e-mail addresses": batch(15, properties=keys),
        **{f"15 events of 32 KB, {name}": batch(15, note=text) for name, text in long.items()},
        "halves of surrogate pairs": batch(900, note="y" * 330).replace(b"yyyyyy", rb"\ud83d"),
        "bytes that are not UTF-8": batch(900, note="y" * 330).replace(b"yyyyyy", b"\xff\xfe\xfd\xf0\xf1\xf2"),
        "170 000 empty objects": b"[" + b"{}," * 169_000 + b"{}]",
        "170 000 lines": b"{}\n" * 170_000,
        "250 000 levels": b"[" * 250_000 + b"]" * 250_000,
        "a gzip bomb of 256 MB": gzip.compress(bytes(256 << 20)),
    }


LONG = {
    "phones and addresses": "call 06 12 34 56 78 or jane@shop.example ",
    "cards": "4539 5787 6362 1486 ",
    "dashes": "1-",
    "one run of digits": "1",
    "at signs": "a@",
}


def timed(work: Callable[[], object]) -> float:
    """ms of processor time, the least of some rounds."""

    def once() -> float:
        began = time.thread_time()
        work()
        return 1000 * (time.thread_time() - began)

    return min(once() for _ in range(ROUNDS))


def measured(raw: bytes) -> tuple[float, float]:
    """ms for reading the body, and for the worst of its items."""
    encoding = "gzip" if raw.startswith(b"\x1f\x8b") else None
    numbers, at, here = itertools.count(), Visit(received=1_795_000_000_000), Door(source="shop", default_country="FR")
    assert len(raw) <= MAX_REQUEST
    body = read(raw, encoding)
    items = body.items if isinstance(body, Body) else []
    return timed(lambda: read(raw, encoding)), max(
        (
            timed(lambda item=item: door.admit(item.value, here, at, lambda: f"id-{next(numbers)}", item.notes))
            for item in items
            if item.problem is None
        ),
        default=0.0,
    )


def main() -> None:
    found = {name: measured(raw) for name, raw in bodies().items()}
    print(
        json.dumps(
            {
                "bench": "slices",
                "worst_body_ms": round(max(whole for whole, _ in found.values()), 1),
                "worst_item_ms": round(max(item for _, item in found.values()), 1),
                "ms": {name: [round(whole, 1), round(item, 1)] for name, (whole, item) in found.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
