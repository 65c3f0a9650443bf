"""What the machine counts, as Prometheus reads it: counters fed by collect and delivery, gauges read from the outbox.

Labels are names of the configuration and small closed sets, never an event's name, id, address or reason, so the number
of series is bounded by the number of sources and destinations. Names follow Prometheus, "Metric and label naming".
"""

from __future__ import annotations

import datetime as dt
import itertools
import platform
import shutil
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from router.collect.intake import Tally
from router.delivery.observer import Observer
from router.outbox import SQLITE
from router.outbox.disk import space
from router.outbox.outbox import Outbox
from router.outbox.reads.reader import Reader
from router.outbox.reads.views import LaneView, Ledger

_CODES = 32  # different words a label learns before it says "other"
_STATUSES = {429: "429"}
_INGEST = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_ATTEMPT = (0.05, 0.25, 1.0, 5.0, 15.0)
_AGE = (0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0)

disable_created_metrics()  # type: ignore[no-untyped-call] # a third of all series, for a time that nobody asks


class Metrics(Observer, Tally):
    """One process's numbers, in a registry of their own. Tell it what happens; ``exposition`` is the page."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known_codes: set[str] = set()
        own = self.registry
        self._received = Counter("turnout_events_received", "Events stored.", ["source", "dialect"], registry=own)
        self._sources: dict[tuple[str, str], Counter] = {}
        self._duplicate = Counter(
            "turnout_events_duplicate", "Events that were there already.", ["source"], registry=own
        )
        self._rejected = Counter("turnout_events_rejected", "Events turned away.", ["source", "code"], registry=own)
        self._refused = Counter(
            "turnout_requests_refused",
            "Requests of which nothing was taken; without a source where no right key came or was looked for.",
            ["source", "code"],
            registry=own,
        )
        self._refusals: dict[tuple[str, str], Counter] = {}
        self._ingest = _Durations(
            "turnout_ingest_duration_seconds", "From a request's last byte to its answer.", _INGEST
        )
        own.register(self._ingest)
        self._attempts = Counter(
            "turnout_delivery_attempts", "Requests to partners.", ["destination", "outcome", "code"], registry=own
        )
        self._attempt = Histogram(
            "turnout_delivery_attempt_duration_seconds",
            "Of one request.",
            ["destination"],
            buckets=_ATTEMPT,
            registry=own,
        )
        self._age = Histogram(
            "turnout_event_age_at_delivery_seconds",
            "Oldest event of a batch.",
            ["destination"],
            buckets=_AGE,
            registry=own,
        )
        self._reloaded = Gauge(
            "turnout_config_last_reload_success_timestamp_seconds", "Last configuration in force.", registry=own
        )
        self._info = Gauge("turnout_build_info", "Always 1.", ["version", "python", "sqlite", "config"], registry=own)
        self._ages: dict[str, Histogram] = {}
        self._told: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._stored = _Stored()
        self.registry.register(self._stored)

    # Collect

    def received(self, source: str, dialect: str, count: int = 1) -> None:
        counter = self._sources.get((source, dialect))  # a look-up of labels costs as much as all else of an event here
        if counter is None:
            counter = self._sources[source, dialect] = self._received.labels(source, dialect)
        counter.inc(count)

    def duplicate(self, source: str, count: int = 1) -> None:
        self._duplicate.labels(source).inc(count)

    def rejected(self, source: str, code: str) -> None:
        self._rejected.labels(source, self._code(code)).inc()

    def refused(self, source: str, code: str, count: int = 1) -> None:
        counter = self._refusals.get((source, code))
        if counter is None:
            counter = self._refusals[source, code] = self._refused.labels(source, code)
        counter.inc(count)

    def ingest(self, seconds: Sequence[float]) -> None:
        self._ingest.observe(seconds)

    def _code(self, code: str) -> str:
        if code not in self._known_codes:
            if len(self._known_codes) >= _CODES:
                return "other"
            self._known_codes.add(code)
        return code

    # Delivery

    def attempted(self, lane: str, outcome: str, status: int | None, duration: float) -> None:
        series = (lane, outcome, bucketed(status))
        if (told := self._told.get(series)) is None:  # finding a series by its labels takes longer than to count in it
            told = self._told[series] = self._attempts.labels(*series), self._attempt.labels(lane)
        told[0].inc()
        told[1].observe(duration)

    def delivered(self, lane: str, count: int, oldest: float) -> None:  # noqa: ARG002 - counted from the ledger, durably
        if (age := self._ages.get(lane)) is None:
            age = self._ages[lane] = self._age.labels(lane)
        age.observe(max(0.0, oldest))

    # The process

    def configured(self, version: str, config: int, at: int) -> None:
        """A configuration is in force since ``at`` (UTC ms)."""
        self._reloaded.set(at / 1000)
        self._info.clear()
        self._info.labels(version, platform.python_version(), ".".join(map(str, SQLITE)), str(config)).set(1)

    async def exposition(self, reader: Reader, store: Outbox, now: int) -> bytes:
        """Everything as Prometheus text. ``now`` is UTC ms."""
        self._stored.families = _families(await reader.ledger(), await reader.lanes(), store, now)
        return generate_latest(self.registry)


def bucketed(status: int | None) -> str:
    if status is None:
        return "none"
    return _STATUSES.get(status, f"{status // 100}xx" if 100 <= status < 600 else "other")


class _Durations(Collector):
    """A histogram of what the event loop alone tells, many at a time: the library's locks cost 2 us for each one."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: Sequence[float]) -> None:
        bounds, counts = self._bounds, self._counts
        for each in seconds:
            counts[bisect_left(bounds, each)] += 1
        self._sum += sum(seconds)

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric([], list(zip(names, itertools.accumulate(self._counts), strict=True)), self._sum)
        return [family]


class _Stored(Collector):
    """What the outbox itself knows, as it was read for this page."""

    def __init__(self) -> None:
        self.families: Sequence[Metric] = ()

    def collect(self) -> Iterable[Metric]:
        return self.families


def _families(ledger: Ledger, lanes: Sequence[LaneView], store: Outbox, now: int) -> list[Metric]:
    entries = GaugeMetricFamily("turnout_outbox_entries", "Deliveries by state.", labels=["destination", "state"])
    ended = CounterMetricFamily(
        "turnout_deliveries", "Deliveries that ended, since ever.", labels=["destination", "outcome"]
    )
    # Parts of the delivered, and apart from them, so that a sum over turnout_deliveries counts each delivery once.
    duplicate = CounterMetricFamily(
        "turnout_deliveries_duplicate", "Delivered, and known there already.", labels=["destination"]
    )
    unverified = CounterMetricFamily(
        "turnout_deliveries_unverified", "Delivered, by an answer that proves nothing.", labels=["destination"]
    )
    filtered = CounterMetricFamily("turnout_events_filtered", "Events not meant for it.", labels=["destination"])
    oldest = GaugeMetricFamily(
        "turnout_outbox_oldest_age_seconds", "Age of the longest waiting event.", labels=["destination"]
    )
    up = GaugeMetricFamily("turnout_destination_up", "1 unless held.", labels=["destination"])
    quota = GaugeMetricFamily(
        "turnout_destination_quota_used_ratio", "Of a month's quota, by our own count.", labels=["destination"]
    )
    hold = GaugeMetricFamily("turnout_destination_hold", "1 where held, and by whom.", labels=["destination", "by"])
    for lane in lanes:
        for state in ("waiting", "dead", "erased"):
            entries.add_metric([lane.name, state], getattr(lane, state))
        ended.add_metric([lane.name, "delivered"], lane.delivered)
        duplicate.add_metric([lane.name], lane.duplicate)
        unverified.add_metric([lane.name], lane.unverified)
        filtered.add_metric([lane.name], lane.filtered)
        oldest.add_metric([lane.name], _age_of(lane.oldest, now))
        up.add_metric([lane.name], 0 if lane.held else 1)
        if lane.quota:
            quota.add_metric([lane.name], lane.quota.used / lane.quota.limit)
        if lane.held:
            hold.add_metric([lane.name, lane.hold_by or "operator"], 1)
    return [
        entries,
        ended,
        duplicate,
        unverified,
        filtered,
        oldest,
        up,
        hold,
        quota,
        CounterMetricFamily("turnout_events_accepted", "Events in the log, since ever.", value=ledger.accepted),
        GaugeMetricFamily("turnout_ledger_difference", "0 where nothing is lost.", value=ledger.difference),
        GaugeMetricFamily("turnout_outbox_bytes", "Size of the outbox on disk.", value=_size(store.directory)),
        GaugeMetricFamily(
            "turnout_outbox_waiting_bytes", "Events that wait for the disk.", value=store.waiting_bytes()
        ),
        GaugeMetricFamily(
            "turnout_disk_free_bytes", "Where the outbox is.", value=shutil.disk_usage(store.directory).free
        ),
        GaugeMetricFamily(
            "turnout_quarantine_full",
            "1 while what is turned away is counted and not kept.",
            value=store.quarantine_full,
        ),
        GaugeMetricFamily("turnout_disk_full", "1 while events are refused for want of space.", value=store.space.full),
    ]


def _age_of(oldest: dt.datetime | None, now: int) -> float:
    return 0.0 if oldest is None else max(0.0, now / 1000 - oldest.timestamp())


def _size(directory: Path) -> int:
    """Bytes of every file but the ballast; one that goes away while we look counts nothing."""
    total = 0
    for path in (*directory.glob("*"), *directory.glob("log/*")):
        try:
            total += path.stat().st_size if path.is_file() and path.name != space.FILE else 0
        except FileNotFoundError:
            continue
    return total
