"""Everything at once: single events accepted at half of the most, while three lanes deliver them.

``python -m tests.bench.together [--rounds 5] [--seconds 5]``: a round is the most that this build accepts one by one with
its lanes held, and then, at half of that rate, A with the lanes held and B with three lanes delivering. The ratio is the
median of the rounds' own, because what the machine has to give changes from minute to minute. The server is on one
core, the load and the partners on the other; with ``--workers 1`` or more it has both. The lanes are Snap and two
webhooks, in batches of 100.

Prints one JSON line: p99 of acceptance in both, B ÷ A, and what was delivered ÷ accepted, at the end of the load and a
second later. Singles to three partners would be more requests a second than the load itself; batches are what a site of
this size uses.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.accept import BOTH, EVENT, HEAD, SERVER, load, on_core
from tests.bench.drain import SIGNING, Sink

LANES = """
[destinations.snap]
type = "snap"
pixel_id = "snap"
access_token = "file:{key}"
base_url = "{url}"
allow_private = true
[destinations.one]
type = "webhook"
url = "{url}/hook/1"
secrets = ["file:{key}"]
allow_private = true
batch = 100
[destinations.two]
type = "webhook"
url = "{url}/hook/2"
secrets = ["file:{key}"]
allow_private = true
batch = 100
"""
NAMES = ("snap", "one", "two")


class Seen(NamedTuple):
    accepted: float  # a second
    p50: float
    p99: float
    delivered: float  # of what was accepted, the slowest lane, when the load ended
    later: float  # and a second after that


class Server:
    """The real one, with three lanes, held or not."""

    def __init__(self, sink: Sink, *, held: bool, workers: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        key, config = Path(self._directory.name) / "key", Path(self._directory.name) / "config.toml"
        key.write_text(SIGNING)
        key.chmod(0o600)
        outbox = Path(self._directory.name) / "outbox"
        config.write_text(HEAD.format(path=outbox, workers=workers) + LANES.format(url=sink.url, key=key))
        self._process = on_core(BOTH if workers else SERVER, "-m", "router", "serve", "--json", "--config", str(config))
        assert self._process.stdout is not None
        started = json.loads(self._process.stdout.readline())
        self.url, self._console = f"{started['collect']}/collect?token=foo", started["console"].rstrip("/")
        for name in NAMES if held else ():
            asked = {"Content-Type": "application/json"}
            url = f"{self._console}/api/v1/destinations/{name}:hold"
            urllib.request.urlopen(urllib.request.Request(url, b"{}", asked)).read()

    def delivered(self) -> float:
        """Of what was accepted, the share that the slowest lane has delivered."""
        accepted, delivered = self._ledger()
        return delivered / max(1, accepted)

    def behind(self) -> int:
        """Events that the slowest lane has not delivered."""
        accepted, delivered = self._ledger()
        return accepted - delivered

    def _ledger(self) -> tuple[int, int]:
        with urllib.request.urlopen(f"{self._console}/api/v1/ledger") as answer:
            ledger: dict[str, Any] = json.load(answer)
        return ledger["accepted"], min(lane["delivered"] for lane in ledger["destinations"].values())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._directory.cleanup()


def measured(sink: Sink, seconds: float, rate: float | None, *, held: bool, workers: int) -> Seen:
    """One server, from its start to its end; its first second does not count."""
    server, body, first = Server(sink, held=held, workers=workers), json.dumps(EVENT), os.getpid() * 10**6
    try:
        load(server.url, body=body, seconds=1.0, rate=rate, first=first)
        told = load(server.url, body=body, seconds=seconds, rate=rate, first=first + 10**9)
        at_once = server.delivered()
        time.sleep(1.0)
        return Seen(told["answered"] / told["seconds"], told["p50"], told["p99"], at_once, server.delivered())
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=0)
    asked = parser.parse_args()
    sink = Sink()
    most: list[float] = []
    held: list[Seen] = []
    together: list[Seen] = []
    try:
        for _ in range(asked.rounds):
            most.append(measured(sink, 2.0, None, held=True, workers=asked.workers).accepted)
            held.append(measured(sink, asked.seconds, most[-1] / 2, held=True, workers=asked.workers))
            together.append(measured(sink, asked.seconds, most[-1] / 2, held=False, workers=asked.workers))
    finally:
        sink.stop()
    alone, beside = (Seen(*map(statistics.median, zip(*seen, strict=True))) for seen in (held, together))
    ratios = [each.p99 / before.p99 for before, each in zip(held, together, strict=True)]
    print(
        json.dumps(
            {
                "name": "together",
                "rounds": asked.rounds,
                "workers": asked.workers,
                "most_s": round(statistics.median(most)),
                "accepted_s": round(beside.accepted),
                "held_p50_ms": round(alone.p50, 1),
                "held_p99_ms": round(alone.p99, 1),
                "together_p50_ms": round(beside.p50, 1),
                "together_p99_ms": round(beside.p99, 1),
                "p99_ratio": round(statistics.median(ratios), 2),
                "p99_ratios": [round(each, 2) for each in sorted(ratios)],
                "delivered": round(beside.delivered, 3),
                "delivered_1s_later": round(beside.later, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
