"""What the types of ``router.settings`` cannot say: addresses, durations, and what needs several tables at once."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Container, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec

from router import route
from router.config.findings import At, Report, dotted
from router.config.positions import Key
from router.config.tables import suggestion
from router.destination import Destination
from router.dialects.names import NAMES, standard, standard_of_any
from router.identifiers.countries import country_code
from router.identifiers.forms import reads_national_numbers
from router.secret import Secret
from router.settings import Settings, Snitcher, Source, per_second, seconds, size

LONGEST_DEDUP = "7d"
LEAST_BALLAST = 32 << 20  # bytes: the WALs of the log and of the state grow to 8 MB each before SQLite folds them in
SHORTEST_INTERVAL, LONGEST_INTERVAL = 10.0, 86_400.0  # seconds, of Snitcher
MOST_PER_PAGE = 100  # Snitcher, "List endpoints support pagination"

_ORIGIN = re.compile(r"https?://[^/\s*?#@]+", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)


def address(listen: str) -> tuple[str, int]:
    """Host and port of "127.0.0.1:8080" or "[::1]:8080"; port 0 is any free one. ValueError with what to write."""
    host, colon, port = listen.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bracketless = ":" in host and not listen.startswith("[")
    if not colon or not host or bracketless or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError('write an address and a port: "127.0.0.1:8080" or "[::1]:8080"')
    return host, int(port)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Rules:
    """Checks that need several fields or several tables, on whatever could be decoded."""

    def __init__(self, report: Report, settings: Settings, document: dict[str, Any], drafts: AbstractSet[Key]) -> None:
        self.report, self.settings, self.document, self.drafts = report, settings, document, drafts

    def check(self) -> None:
        self._listening()
        self._proxies()
        self._outbox()
        self._hosts()
        for name, source in self.settings.sources.items():
            self._country(name, source)
            if isinstance(source, Snitcher):
                _SnitcherRules(self.report, name, source).check()
            else:
                self._origins(name, source)
        self._distinct_sources()
        self._distinct_accounts()
        lanes = self.settings.destinations
        kept = frozenset[str]().union(*(each.clear for each in lanes.values() if each.enabled))
        for name, destination in lanes.items():
            _DestinationRules(self.report, name, destination, self._source_names(), kept).check()
        self._distinct_destinations()
        for table, meaning in (("sources", "nobody can send events"), ("destinations", "events are sent nowhere")):
            if not self.document.get(table):
                self.report.warning((), f"no {table}: {meaning}", f"add a table [{table}.NAME]")

    def _source_names(self) -> list[str]:
        named = self.document.get("sources", {})
        return list(named) if isinstance(named, dict) else []

    def _listening(self) -> None:
        collect, console = self.settings.collect.listen, self.settings.console.listen
        ours = _attempt(self.report, ("collect", "listen"), partial(address, collect))
        _attempt(self.report, ("collect", "session"), partial(seconds, self.settings.collect.session))
        theirs = _attempt(self.report, ("console", "listen"), partial(address, console))
        if theirs and not _loopback(theirs[0]) and self.settings.console.token is None:
            key: Key = ("console", "listen")
            missing = "token" not in self.document["console"]
            if missing:  # else its own fault is reported already
                remedy = 'token = "env:TURNOUT_CONSOLE_TOKEN", or listen on 127.0.0.1'
                self.report.error(key, "the console is open to others without a token", remedy, at="value")
        if ours and ours == theirs and ours[1] != 0:
            self.report.error(("console", "listen"), "collect listens there already", "give each its own port")

    def _proxies(self) -> None:
        for place, text in enumerate(self.settings.collect.trusted_proxies):
            key: Key = ("collect", "trusted_proxies", place)
            try:
                network = ipaddress.ip_network(text)
            except ValueError:
                self.report.error(key, "not a network", _network_help(text), at="value")
            else:
                if network.prefixlen == 0:
                    self.report.warning(key, "anybody's X-Forwarded-For is believed", "name your proxies", at="value")

    def _hosts(self) -> None:
        for place, host in enumerate(self.settings.console.hosts):
            if not _HOST.fullmatch(host):
                key: Key = ("console", "hosts", place)
                remedy = 'the name alone, without scheme and port: "turnout.example"'
                self.report.error(key, "not the name of a host", remedy, at="value")

    def _country(self, name: str, source: Source | Snitcher) -> None:
        """A country that libphonenumber does not know costs every national number its digest."""
        country = source.default_country
        if country is not None and not reads_national_numbers(country):
            known = country_code(country)
            usual = known if known is not None and reads_national_numbers(known) else None
            remedy = f'did you mean "{usual}"?' if usual else 'write two letters of ISO 3166: "FR", "GB", "US"'
            key: Key = ("sources", name, "default_country")
            self.report.error(key, f'no phone numbers of a country "{country}" are known', remedy, at="value")

    def _outbox(self) -> None:
        outbox = self.settings.outbox
        for name in ("keep_delivered", "keep_dead", "dedup"):
            key: Key = ("outbox", name)
            kept = _attempt(self.report, key, partial(seconds, getattr(outbox, name)))
            if kept is not None and name == "dedup" and kept > seconds(LONGEST_DEDUP):
                self.report.error(key, f"dedup reaches back {LONGEST_DEDUP} at most", 'dedup = "7d"', at="value")
        _attempt(self.report, ("outbox", "min_free"), partial(size, outbox.min_free))
        ballast = _attempt(self.report, ("outbox", "ballast"), partial(size, outbox.ballast))
        if ballast and ballast < LEAST_BALLAST:
            self.report.error(("outbox", "ballast"), "so little is used up at once", 'ballast = "64MB"', at="value")

    def _origins(self, name: str, source: Source) -> None:
        for place, origin in enumerate(source.origins):
            key: Key = ("sources", name, "origins", place)
            sent = _sent_origin(origin)
            if sent is None:
                self.report.error(key, "not an origin", 'scheme and host alone: "https://shop.example"', at="value")
            elif sent != origin:
                self.report.warning(key, "no browser sends this origin so", f'write "{sent}"', at="value")

    def _distinct_sources(self) -> None:
        sites: dict[str, str] = {}
        tokens: dict[Secret, str] = {}
        for name, source in self.settings.sources.items():
            if isinstance(source, Snitcher):
                continue
            if source.site is not None and sites.setdefault(source.site, name) != name:
                other = sites[source.site]
                self.report.error(("sources", name, "site"), f"sources.{other} has this site too", "give each its own")
            for place, token in enumerate(source.tokens or ()):
                if tokens.setdefault(token, name) != name:
                    key: Key = ("sources", name, "tokens", place)
                    words = f"sources.{tokens[token]} has this token too, so nobody could tell whose event it is"
                    self.report.error(key, words, "give each source its own", at="hidden")

    def _distinct_accounts(self) -> None:
        """Two sources that fetch one workspace bring each of its events twice, once under each name."""
        seen: dict[str, Snitcher] = {}
        for name, source in self.settings.sources.items():
            if not isinstance(source, Snitcher) or not source.enabled or ("sources", name) in self.drafts:
                continue
            for other, earlier in seen.items():
                if _same_workspaces(source, earlier):
                    words = f"the same workspaces as sources.{other}: each of their events comes in twice"
                    self.report.warning(("sources", name), words, "keep one, or give each its own workspaces")
            seen[name] = source

    def _distinct_destinations(self) -> None:
        seen: dict[str, Destination] = {}
        for name, destination in self.settings.destinations.items():
            if not destination.enabled or ("destinations", name) in self.drafts:
                continue
            for other, earlier in seen.items():
                if _same_account(destination, earlier):
                    words = f"the same account as destinations.{other}: it may get every event twice"
                    self.report.warning(("destinations", name), words, "keep one, or give them different sources")
            seen[name] = destination


def _sent_origin(origin: str) -> str | None:
    """An origin as browsers send it: in lower case, punycode, without the usual port; None where it is none.

    Source: HTML, "ASCII serialization of an origin".
    """
    from yarl import URL  # noqa: PLC0415 - 20 ms that only a file with origins pays

    try:
        return str(URL(origin).origin()) if _ORIGIN.fullmatch(origin) else None
    except ValueError:
        return None


def _same_workspaces(one: Snitcher, other: Snitcher) -> bool:
    """Fetched with the same token and the same filters, so far as one can tell."""
    if one.token is None or one.token != other.token:
        return False
    apart = one.workspaces and other.workspaces and not set(one.workspaces) & set(other.workspaces)
    return not apart and all(getattr(one, name) == getattr(other, name) for name in ("segment", "url", "referrer"))


def _attempt(report: Report, key: Key, read: Callable[[], Any]) -> Any:
    """What ``read`` gives, or None with its ValueError reported at the value."""
    try:
        return read()
    except ValueError as error:
        report.error(key, f"{dotted(key)} cannot be read", str(error), at="value")
        return None


def _network_help(text: str) -> str:
    try:
        return f'did you mean "{ipaddress.ip_network(text, strict=False)}"?'
    except ValueError:
        return 'write a CIDR: "10.0.0.0/8" or "192.0.2.7/32"'


_COMMON = frozenset(field.name for field in msgspec.structs.fields(Destination))


def _same_account(one: Destination, other: Destination) -> bool:
    """The same partner with the same settings of its own, reached by events of the same source."""
    if type(one) is not type(other):
        return False
    own = [name for name in one.__struct_fields__ if name not in _COMMON or name == "base_url"]
    apart = one.sources and other.sources and not set(one.sources) & set(other.sources)
    return not apart and all(getattr(one, name) == getattr(other, name) for name in own)


class _SnitcherRules:
    def __init__(self, report: Report, name: str, source: Snitcher) -> None:
        self.report, self.source = report, source
        self.key: Key = ("sources", name)

    def check(self) -> None:
        self._interval()
        self._page_size()
        if self.source.base_url is not None:  # else its own fault is reported already
            _base_url(self.report, (*self.key, "base_url"), self.source.base_url, private=self.source.allow_private)

    def _interval(self) -> None:
        key = (*self.key, "interval")
        every = _attempt(self.report, key, partial(seconds, self.source.interval))
        if every is not None and not SHORTEST_INTERVAL <= every <= LONGEST_INTERVAL:
            words = "is not between 10s and 1d: what is asked for overlaps by a day only"
            self.report.error(key, f"{dotted(key)} {words}", 'interval = "5m"', at="value")

    def _page_size(self) -> None:
        if self.source.page_size_parameter == "per_page" and self.source.page_size > MOST_PER_PAGE:
            remedy = f'page_size = {MOST_PER_PAGE}, or page_size_parameter = "size"'
            key = (*self.key, "page_size")
            self.report.error(key, f"per_page is {MOST_PER_PAGE} at most", remedy, at="value")


def _base_url(report: Report, key: Key, base: str, *, private: bool) -> None:
    try:
        url = urlsplit(base)
        host, _ = url.hostname, url.port
    except ValueError:
        host = None
    bare = base.isprintable() and " " not in base
    if not host or not bare or url.scheme not in {"http", "https"} or url.query or url.fragment or url.username:
        remedy = 'write "https://host" or "https://host/path", without key, query or fragment'
        report.error(key, "base_url is not the address of a server", remedy, at="hidden")
    elif not private and (url.scheme == "http" or _private(host)):
        what = "plain http" if url.scheme == "http" else "a private address"
        report.error(key, f"base_url is {what}", "set allow_private = true if this is meant", at="value")


class _DestinationRules:
    """``kept``: the clear values that are stored, for whichever destination."""

    def __init__(
        self, report: Report, name: str, destination: Destination, sources: list[str], kept: frozenset[str]
    ) -> None:
        self.report, self.destination, self.sources, self.kept = report, destination, sources, kept
        self.key: Key = ("destinations", name)

    def check(self) -> None:
        self._sources()
        self._consent()
        self._durations()
        self._batch()
        self._address()
        self._names()
        self._spellings()
        self._paths()

    def _sources(self) -> None:
        for place, name in enumerate(self.destination.sources):
            if name not in self.sources:
                self._unknown_source((*self.key, "sources", place), name, "value")

    def _unknown_source(self, key: Key, name: str, at: At) -> None:
        known = suggestion(name, dict.fromkeys(self.sources)) if self.sources else "there are none"
        self.report.error(key, f'unknown source "{name}"', known, at=at)

    def _consent(self) -> None:
        for place, category in enumerate(self.destination.consent):
            if not category.strip():
                key = (*self.key, "consent", place)
                words = "a category without a name is never granted"
                self.report.error(key, words, 'consent = ["marketing"]', at="value")

    def _durations(self) -> None:
        for name, read in (("rate", per_second), ("timeout", seconds), ("max_age", seconds), ("retry_for", seconds)):
            text = getattr(self.destination, name)
            key = (*self.key, name)
            value = None if text is None else _attempt(self.report, key, partial(read, text))
            if value == 0:
                self.report.error(key, f"{dotted(key)} is nothing", "write a longer time, or leave it out", at="value")

    def _batch(self) -> None:
        batch, most = self.destination.batch, self.destination.max_batch
        if batch is not None and batch > most:
            self.report.error(
                (*self.key, "batch"), f"the partner takes {most} in one request", f"batch = {most}", at="value"
            )

    def _address(self) -> None:
        if (base := self.destination.base_url) is not None:
            _base_url(self.report, (*self.key, "base_url"), base, private=self.destination.allow_private)

    def _names(self) -> None:
        """Names are checked against what the partner is known to take."""
        if self.destination.events is not None and not self.destination.events:
            self.report.warning((*self.key, "events"), "no event is sent there", "name some, or leave events out")
        if self.destination.partner_names is not None:
            self._partner_names(self.destination.partner_names)

    def _spellings(self) -> None:
        """Every dialect gives an event its standard name first, so another spelling of one is asked for in vain. Only those of
        advertisers' own interfaces stay what they are in Segment's dialect.
        """
        named = [("events", self.destination.events)]
        named += [(setting, getattr(self.destination, setting)) for setting in self.destination.named]
        for setting, names in named:
            ours = names or ()
            for place, name in enumerate(ours):
                key: Key = (*self.key, setting, name if isinstance(ours, dict) else place)
                at: At = "key" if isinstance(ours, dict) else "value"
                self._spelling(key, name, ours, at)

    def _spelling(self, key: Key, name: str, beside: Container[str], at: At) -> None:
        defaults, taken = self.destination.default_events or {}, self.destination.partner_names
        arrives = standard_of_any(name)
        if arrives is not None and arrives != name:
            if arrives in beside:  # it is there for senders whose words stay as they are
                return
            words, remedy, say = f'"{name}" arrives as "{arrives}"', f'write "{arrives}"', self.report.error
            if standard(name) is None:
                words, remedy = f"{words}, and in Segment's dialect as it is", f"{remedy}, or both"
                say = self.report.warning if key[2] == "match" else say
            say(key, words, remedy, at=at)
        elif name not in defaults and (at == "key" or taken is None) and (near := _near(name, defaults)) is not None:
            words = f'no standard event is called "{name}"'
            self.report.warning(key, words, f'did you mean "{near}"? A name of your own can stay', at=at)

    def _partner_names(self, names: AbstractSet[str]) -> None:
        """A partner with names of its own refuses every event under another one."""
        events, defaults, title = self.destination.events, self.destination.default_events or {}, self.destination.title
        if isinstance(events, dict):
            for ours, theirs in events.items():
                if theirs.upper() not in names:
                    close = difflib.get_close_matches(theirs.upper(), sorted(names), n=1)
                    remedy = f'did you mean "{close[0]}"?' if close else f"there are: {', '.join(sorted(names))}"
                    key = (*self.key, "events", ours)
                    self.report.error(key, f'{title} has no event "{theirs}"', remedy, at="value")
        for place, name in enumerate(events if isinstance(events, tuple) else ()):
            if name not in defaults and name.upper() not in names:
                close = difflib.get_close_matches(name, list(defaults), n=1, cutoff=0.85)
                table = f'write events as a table with {title}\'s name for it: {{ {_toml_key(name)} = "..." }}'
                remedy = f'did you mean "{close[0]}"?' if close else table
                key = (*self.key, "events", place)
                self.report.error(key, f'"{name}" has no name at {title}', remedy, at="value")

    def _paths(self) -> None:
        for setting in self.destination.paths:
            named = getattr(self.destination, setting)
            for place, path in enumerate(named if isinstance(named, tuple) else (named,)):
                if path is not None:
                    inside: Key = (place,) if isinstance(named, tuple) else ()
                    self._origin((*self.key, setting, *inside), path)
        for path, wanted in self.destination.match.items():
            try:
                route.conditions(path, wanted)
            except ValueError as error:
                self.report.error((*self.key, "match", path), str(error))
            else:
                self._asked_for(path, wanted)
                if self.destination.enabled and _lacks(path, self.kept):
                    words = f"{path} is not stored: no enabled destination is given it in clear"
                    self.report.error((*self.key, "match", path), words, _INSTEAD)
        for target, origin in self.destination.map.items():
            self._origin((*self.key, "map", target), origin)
            if not all(target.split(".")):
                self.report.error((*self.key, "map", target), "the target is not a path", 'write "custom_data.brands"')

    def _asked_for(self, path: str, wanted: Any) -> None:
        """A condition on an event's name or source is in vain where none is called so; a source may have been removed."""
        key = (*self.key, "match", path)
        if path == "name":
            names = _texts(wanted, "eq", "ne", "in", "not_in")
            for name in names:
                self._spelling(key, name, names, "key")
        elif path == "source":
            for name in _texts(wanted, "eq", "in"):
                if name not in self.sources:
                    self._unknown_source(key, name, "key")

    def _origin(self, key: Key, path: str) -> None:
        """A field that this destination takes something from."""
        if (wrong := route.unknown_field(path)) is not None:
            self.report.error(key, wrong, at="value")
        elif _lacks(path, self.destination.clear):
            self.report.error(key, f"{self.destination.title} is not given {path}", _INSTEAD, at="value")


def _texts(wanted: Any, *words: str) -> list[str]:
    """The texts that a condition compares with by these words."""
    told = wanted if isinstance(wanted, dict) else {"eq": wanted}
    operands = [told[word] for word in words if word in told]
    return [each for one in operands for each in (one if isinstance(one, list) else [one]) if isinstance(each, str)]


_INSTEAD = "use a field that your senders put under properties"


def _lacks(path: str, given: Container[str]) -> bool:
    """Is it a path to a clear value that is not among those ``given``?"""
    room, _, name = path.partition(".")
    return room == "clear" and name not in given


def _near(name: str, defaults: Mapping[str, str]) -> str | None:
    """The standard name that this one misses by a letter or a sign; None where it is one, or too far from any."""
    known = NAMES | defaults.keys()
    if name in known:
        return None
    folded = re.sub(r"[\s-]+", "_", name.strip()).lower()
    close = difflib.get_close_matches(folded, sorted(known), n=1, cutoff=0.85)
    return close[0] if close and abs(len(close[0]) - len(folded)) <= 1 else None


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else msgspec.json.encode(name).decode()


def _private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
