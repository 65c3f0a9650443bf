"""Proof: how long a wrong key takes says nothing about the right one, nor about which sites there are.

Two classes of wrong credentials are looked up in random order, 20 000 of each, and Welch's t says whether their times
differ: below 4.5 there is no evidence that they do. The slowest twentieth of all is left out, which is the machine's; and
what differs must differ again with other samples, up to three times, for a busy machine is not a leak.
Source: Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?" (2016).

    python -m tests.proof.timing

The control must fail: with ``--sabotage`` keys are compared byte by byte until one differs.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from router.collect.keys import Keyring, Sender, sender
from router.secret import Secret
from router.settings import Source

LIMIT = 4.5
TRIES = 3
KEPT = 0.95  # of all samples, the quickest
SITE = "3311"

Lookup = Callable[[str, str | None], object]
Credential = tuple[str, str | None]
Pair = tuple[list[Credential], list[Credential]]


def welch(one: list[int], other: list[int]) -> float:
    """Welch's t of two samples."""
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / math.sqrt(spread)


def measured(lookup: Lookup, classes: Pair, dice: random.Random) -> float:
    """The t of two classes of credentials, looked up in random order."""
    mixed = [(number, each) for number, credentials in enumerate(classes) for each in credentials]
    dice.shuffle(mixed)
    clock, times = time.perf_counter_ns, []
    for number, (key, site) in mixed:
        key.encode()  # so that it is in the cache, whichever class it is of
        began = clock()
        lookup(key, site)
        times.append((clock() - began, number))
    limit = sorted(took for took, _ in times)[int(KEPT * len(times))]
    return welch(*([took for took, number in times if number == which and took <= limit] for which in (0, 1)))


def confirmed(lookup: Lookup, make: Callable[[], Pair], dice: random.Random) -> float:
    """The t of the first samples that do not differ, or of the last of ``TRIES``."""
    t = 0.0
    for _ in range(TRIES):
        t = round(measured(lookup, make(), dice), 2)
        if abs(t) < LIMIT:
            break
    return t


def pairs(right: str, samples: int, dice: random.Random) -> dict[str, Callable[[], Pair]]:
    """What must not be told apart, made anew at each call. All keys are wrong and as long as the right one."""

    def wrong(known: int) -> str:
        """The first ``known`` characters are right, the next one is not, the rest is anything."""
        other = "0" if right[known] != "0" else "1"
        rest = f"{dice.getrandbits(4 * len(right)):0{len(right)}x}"
        return right[:known] + other + rest[known + 1 :]

    def keys(known: int) -> list[Credential]:
        return [(wrong(known), None) for _ in range(samples)]

    def sites(site: str) -> list[Credential]:
        return [(wrong(0), site) for _ in range(samples)]

    return {
        "first byte right or wrong": lambda: (keys(1), keys(0)),
        "all but the last byte, or none": lambda: (keys(len(right) - 1), keys(0)),
        "site known or unknown": lambda: (sites(SITE), sites("9999")),
    }


def naive(ring: Keyring, right: str) -> Lookup:
    """What must be noticed: the comparison ends at the first byte that differs."""

    def lookup(key: str, site: str | None) -> Sender | None:
        for given, known in zip(key, right, strict=True):
            if given != known:
                return None
        return ring.sender(key, site)

    return lookup


def prove(*, samples: int, seed: int, sabotage: bool) -> dict[str, Any]:
    """Run it; the verdict is "ok" or names what can be told apart."""
    dice = random.Random(seed)
    right = secrets.token_hex(32)
    sources = {f"s{number}": Source(tokens=(Secret(secrets.token_hex(32)),)) for number in range(3)}
    sources["shop"] = Source(tokens=(Secret(right),), site=SITE)
    ring = Keyring([sender(name, source, frozenset()) for name, source in sources.items()])
    lookup = naive(ring, right) if sabotage else ring.sender
    assert lookup(right, SITE) is not None
    gc.disable()
    try:
        t = {name: confirmed(lookup, make, dice) for name, make in pairs(right, samples, dice).items()}
    finally:
        gc.enable()
    told = [name for name, value in t.items() if abs(value) >= LIMIT]
    return {
        "proof": "timing",
        "seed": seed,
        "samples": samples,
        "t": t,
        "limit": LIMIT,
        "control": sabotage,
        "verdict": "ok" if not told else f"told apart: {', '.join(told)}",
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--samples", type=int, default=20_000, help="of each class")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--sabotage", action="store_true")
    result = prove(**vars(options.parse_args()))
    print(json.dumps(result))
    sys.exit(result["verdict"] != "ok")


if __name__ == "__main__":
    main()
