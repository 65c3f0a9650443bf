"""What a stall leaves behind: the server stands still for a moment, while the load goes on and three lanes deliver.

``python -m tests.bench.paused [--rounds 3] [--rate 5300] [--seconds 10] [--pause 0.5] [--workers 0]``: the server of
``together`` is stopped (SIGSTOP) two seconds into the load and let go again. What was to come meanwhile comes then, and the
lanes are behind. A server that recovers answers half of all requests in some milliseconds; one that falls into a slower
state answers each half a second late for as long as the load goes on.

Prints one JSON line: p50 of acceptance of the whole load in each round, and how many events the slowest lane was behind,
look by look, a second apart.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time

from tests.bench.accept import EVENT, load
from tests.bench.drain import Sink
from tests.bench.together import Server

BEFORE = 2.0  # seconds of load


def measured(sink: Sink, rate: float, seconds: float, pause: float, workers: int) -> tuple[float, list[int]]:
    server, told, behind = Server(sink, held=False, workers=workers), dict[str, float](), list[int]()
    body, first = json.dumps(EVENT), os.getpid() * 10**6
    try:
        load(server.url, body=body, seconds=1.0, rate=rate, first=first)
        sending = threading.Thread(
            target=lambda: told.update(load(server.url, body=body, seconds=seconds, rate=rate, first=first + 10**9))
        )
        sending.start()
        time.sleep(BEFORE)  # the load is under way
        server.signal(signal.SIGSTOP)
        time.sleep(pause)  # this is the stall
        server.signal(signal.SIGCONT)
        while sending.is_alive():
            sending.join(1.0)
            behind.append(server.behind())
        return told["p50"], behind
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=5300.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--pause", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=0)
    asked = parser.parse_args()
    sink = Sink()
    try:
        seen = [measured(sink, asked.rate, asked.seconds, asked.pause, asked.workers) for _ in range(asked.rounds)]
    finally:
        sink.stop()
    p50, behind = zip(*seen, strict=True)
    print(json.dumps({"name": "paused", **vars(asked), "p50_ms": [round(each, 1) for each in p50], "behind": behind}))


if __name__ == "__main__":
    main()
