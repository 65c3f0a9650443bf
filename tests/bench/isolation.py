"""How much a dead, a slow and a flapping destination cost the healthy ones beside them.

``python -m tests.bench.isolation [--among 8] [--rounds 3] [--seconds 8] [--sabotage]``: A is the healthy destinations
alone, B the same beside one that never answers, one that takes 40 ms where the others take about two, and one that fails
every other second; A B A B in one run, medians. The server is on one core, partners and load on the other. Events come by
the clock, at a rate that one core can carry: each of them is one request to every destination.

Prints one JSON line: deliveries a second to the healthy ones and ms from receipt to them, alone and beside. "ok" means at
most 5 % fewer, and p99 at most 10 ms later. The control must not be ok: with ``--sabotage`` all lanes share the
connections of one pool.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.accept import HEAD, SERVER, load, on_core
from tests.bench.drain import SIGNING, Sink
from tests.bench.load import MARK

DELIVERIES = 1000  # a second, over all healthy destinations
LANE = """
[destinations.{name}]
type = "webhook"
url = "{url}"
secrets = ["file:{key}"]
allow_private = true
"""
SABOTAGE = """
from router import transport
honest, shared = transport.Transport._session, []
def one(self, *, fresh):
    if not shared:
        self._concurrency = 8
        shared.append(honest(self, fresh=fresh))
    return shared[0]
transport.Transport._session = one
"""


class Seen(NamedTuple):
    throughput: float
    p50: float
    p99: float


def measured(sink: Sink, among: int, seconds: float, *, troubled: bool, sabotage: bool) -> Seen:
    """What reached the healthy ones of so many destinations."""
    healthy = {f"well-{number}": f"{sink.url}/timed/{number}" for number in range(among - 3)}
    bad = {name: f"{sink.url}{path}" for name, path in (("dead", "/hang"), ("slow", "/slow/40"), ("flaps", "/flap"))}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        key, config = Path(name) / "key", Path(name) / "config.toml"
        key.write_text(SIGNING)
        key.chmod(0o600)
        lanes = {**(bad if troubled else {}), **healthy}
        words = [LANE.format(name=name, url=url, key=key) for name, url in lanes.items()]
        config.write_text(HEAD.format(path=Path(name) / "outbox", workers=0) + "".join(words))
        code = f"{SABOTAGE if sabotage else ''}\nfrom router.__main__ import main\nmain()"
        process = on_core(SERVER, "-c", code, "serve", "--json", "--log-level", "error", "--config", str(config))
        assert process.stdout is not None
        try:
            url = f"{json.loads(process.stdout.readline())['collect']}/collect?token=foo"
            asked = {"body": f'{{"event":"e","id":"{MARK}"}}', "connections": 16}
            asked["rate"] = DELIVERIES / len(healthy)
            load(url, seconds=2.0, **asked)  # connections are made, trouble has begun
            time.sleep(0.5)
            sink.told()
            answered = load(url, seconds=seconds, first=10**9, **asked)["answered"]
            return _seen(sink, int(answered) * len(healthy))
        finally:
            process.terminate()
            process.wait(30)


def _seen(sink: Sink, expected: int) -> Seen:
    """Once everything has arrived, or what has after ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and len(sink.heard()["ages"]) < expected:
        time.sleep(0.1)
    told = sink.told()
    ages = sorted(told["ages"])
    return Seen(len(ages) / (told["until"] - told["since"]), ages[len(ages) // 2], ages[int(0.99 * (len(ages) - 1))])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--among", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sabotage", action="store_true")
    asked = parser.parse_args()
    told = compared(asked.among, asked.rounds, asked.seconds, sabotage=asked.sabotage)
    print(json.dumps(told))
    sys.exit(told["verdict"] != "ok")


def compared(among: int, rounds: int, seconds: float, *, sabotage: bool) -> dict[str, Any]:
    sink = Sink()
    seen: dict[bool, list[Seen]] = {False: [], True: []}
    try:
        for _ in range(rounds):
            for troubled in (False, True):
                seen[troubled].append(measured(sink, among, seconds, troubled=troubled, sabotage=sabotage))
    finally:
        sink.stop()
    alone, beside = (Seen(*map(statistics.median, zip(*seen[key], strict=True))) for key in (False, True))
    ratio, later = beside.throughput / alone.throughput, beside.p99 - alone.p99
    return {
        "name": "isolation",
        "among": among,
        "rounds": rounds,
        "alone": {name: round(value, 1) for name, value in alone._asdict().items()},
        "beside": {name: round(value, 1) for name, value in beside._asdict().items()},
        "throughput": round(ratio, 3),
        "p99_later_ms": round(later, 1),
        "control": sabotage,
        "verdict": "ok" if ratio >= 0.95 and later <= 10 else "not isolated",
    }


if __name__ == "__main__":
    main()
