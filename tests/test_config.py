"""config.toml: what is read from it, that every fault is found in one run and at its place, and that no secret shows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

import destinations
from router import config
from router.config import positions
from router.destination import Complaint, Destination
from router.secret import Secret
from router.settings import Collect, Console, Outbox, Settings, Source

SHIPPED = Path(__file__).parent.parent / "config.toml"


class Ads(Destination, tag="ads", frozen=True, kw_only=True):
    account: Annotated[str, Meta(pattern=r"^[0-9]{3}\Z", description="Three digits.")]
    access_token: Annotated[Secret, Meta(description="From the partner's settings.")]
    mode: Literal["web", "app"] = "web"
    headers: dict[str, str | Secret] = msgspec.field(default_factory=dict)

    title: ClassVar[str] = "Ads"
    home: ClassVar[str] = "https://ads.example"
    dedup_key: ClassVar[str] = "id"
    max_batch: ClassVar[int] = 100
    default_events: ClassVar[dict[str, str]] = {"purchase": "BUY"}


class Careful(Destination, tag="careful", frozen=True, kw_only=True):
    low: int = 0
    high: int = 9
    key: Secret | None = None

    title: ClassVar[str] = "Careful"
    dedup_key: ClassVar[str] = "id"

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high: swap them")
        if self.low == self.high:
            raise ValueError("nothing lies between low and high: set them apart")
        if self.key is not None and self.short():
            raise ValueError("key is too short: copy it whole")

    def short(self) -> bool:
        return self.key is not None and len(self.key.reveal()) < 4


class Pointing(Destination, tag="pointing", frozen=True, kw_only=True):
    at: str = "money.order_id"
    of: tuple[str, ...] = ()
    installs: tuple[str, ...] = ()
    app: Annotated[
        Annotated[str, Meta(pattern=r"^[0-9]+\Z", extra={"looks": "the number of your app"})] | None,
        Meta(description="Your app."),
    ] = None
    key: Secret | None = None

    title: ClassVar[str] = "Pointing"
    dedup_key: ClassVar[str] = "id"
    paths: ClassVar[tuple[str, ...]] = ("at", "of")
    named: ClassVar[tuple[str, ...]] = ("installs",)

    def complaints(self) -> Iterator[Complaint]:
        yield from self._reserved()
        yield from self._numbered()
        yield from self._short()

    def _reserved(self) -> Iterator[Complaint]:
        for ours, theirs in self.events.items() if isinstance(self.events, dict) else ():
            if theirs == "click":
                yield Complaint(("events", ours), "click is taken", "give it another name")

    def _numbered(self) -> Iterator[Complaint]:
        if self.app is not None and len(self.app) > 3:
            yield Complaint(("app",), "app is a long number", "look again", "warning")

    def _short(self) -> Iterator[Complaint]:
        if self.key is not None and len(self.key.reveal()) < 4:
            yield Complaint(("key",), "key is too short", "copy it whole")


class Named(Destination, tag="named", frozen=True, kw_only=True):
    title: ClassVar[str] = "Named"
    dedup_key: ClassVar[str] = "id"
    default_events: ClassVar[dict[str, str]] = {"purchase": "BUY", "view_item": "VIEW"}
    partner_names: ClassVar[frozenset[str]] = frozenset({"BUY", "VIEW", "CUSTOM_1"})


TYPES: dict[str, type[Destination]] = {"ads": Ads, "careful": Careful, "named": Named, "pointing": Pointing}
ENVIRON = {"SHOP_TOKEN": "shop-canary", "ADS_TOKEN": "ads-canary", "TWO": "ab", "EMPTY": ""}

SHOP = """\
[sources.shop]
tokens = ["env:SHOP_TOKEN"]
"""
NAMED = """\
[destinations.n]
type = "named"
"""
POINTING = """\
[destinations.p]
type = "pointing"
"""
ADS = """\
[destinations.eu]
type = "ads"
account = "123"
access_token = "env:ADS_TOKEN"
"""


def examine(tmp_path: Path, text: str, environ: dict[str, str] = ENVIRON) -> config.Examined:
    path = tmp_path / "config.toml"
    path.write_text(text)
    return config.examine(path, environ, destinations=TYPES)


def said(tmp_path: Path, text: str, environ: dict[str, str] = ENVIRON) -> list[str]:
    """The findings as "line:column severity message | help"."""
    return [
        f"{one.line}:{one.column} {one.severity} {one.message}" + (f" | {one.help}" if one.help else "")
        for one in examine(tmp_path, text, environ).findings
    ]


def settings(tmp_path: Path, text: str, environ: dict[str, str] = ENVIRON) -> Settings:
    found = examine(tmp_path, text, environ)
    assert found.settings is not None, found.findings
    return found.settings


class TestReading:
    def test_whole_file(self, tmp_path):
        """
        Every table becomes its struct, with secrets resolved, in the order of the file.
        """

        text = f'[outbox]\ndedup = "7d"\n{SHOP}{ADS}\nheaders = {{ a = "plain", b = "env:ADS_TOKEN" }}\n[destinations.b]\ntype = "careful"\n'
        read = settings(tmp_path, text)

        assert Outbox(path=str(tmp_path / "outbox"), dedup="7d") == read.outbox
        assert (Secret("shop-canary"),) == read.sources["shop"].tokens
        assert ["eu", "b"] == list(read.destinations)
        expected = Ads(
            account="123",
            access_token=Secret("ads-canary"),
            headers={"a": "plain", "b": Secret("ads-canary")},
        )
        assert expected == read.destinations["eu"]

    def test_marked_and_windows(self, tmp_path):
        """
        A byte order mark and Windows line ends change nothing, nor do they shift a place.
        """

        path = tmp_path / "config.toml"
        path.write_bytes(b"\xef\xbb\xbf" + f"{SHOP}{ADS}batch = 101\n".replace("\n", "\r\n").encode())
        found = config.examine(path, ENVIRON, destinations=TYPES).findings

        assert [(7, 9)] == [(one.line, one.column) for one in found]

    def test_load(self, tmp_path):
        """
        ``load`` gives settings where warnings are all there is to say, and findings where it must not be started.
        """

        path = tmp_path / "config.toml"
        path.write_text(SHOP)
        assert isinstance(config.load(path, ENVIRON, destinations=TYPES), Settings)
        findings = config.load(path, {}, destinations=TYPES)
        assert isinstance(findings, list)
        assert ["error", "warning"] == sorted({one.severity for one in findings})

    @pytest.mark.parametrize(
        ("explicit", "environ", "expected"),
        [
            ("a.toml", {"TURNOUT_CONFIG": "b.toml"}, "a.toml"),
            (None, {"TURNOUT_CONFIG": "b.toml"}, "b.toml"),
            (None, {}, "config.toml"),
        ],
        ids=["--config", "the environment", "the directory"],
    )
    def test_find(self, explicit, environ, expected):
        """
        --config wins over $TURNOUT_CONFIG, which wins over ./config.toml.
        """

        assert Path(expected) == config.find(explicit, environ)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (None, (1, 1, "no such file or directory", "name the file with --config PATH or $TURNOUT_CONFIG")),
            (b"\xff\xfe[\0", (1, 1, "is not UTF-8 text", "save the file in the encoding UTF-8")),
            ("# é\r\n# é".encode() + b"\xfc", (2, 4, "is not UTF-8 text", "save the file in the encoding UTF-8")),
        ],
        ids=["absent", "UTF-16", "Latin 1"],
    )
    def test_unreadable(self, tmp_path, content, expected):
        """
        A file that cannot be read is a finding too, with the place and what to do about it.
        """

        path = tmp_path / "config.toml"
        if content is not None:
            path.write_bytes(content)

        (one,) = config.examine(path, {}, destinations=TYPES).findings
        assert expected == (one.line, one.column, one.message, one.help)


FAULTS = [
    ("[colect]", "1:2 error unknown table", 'did you mean "collect"?'),
    ("sources = 1", "1:1 error sources are tables with a name each", "[sources.NAME]"),
    ("[[destinations]]", "1:3 error destinations are tables with a name each", "[destinations.NAME]"),
    ("collect = 1", "1:1 error collect is not a table", "write [collect]"),
    ("sources.shop = 1", "1:9 error sources.shop is not a table", "write [sources.shop]"),
    ('[sources."a b"]', "1:10 error a name has letters", "rename it"),
    ("[collect]\nlisten_on = 1", '2:1 error unknown key "listen_on" in [collect]', 'did you mean "listen"?'),
    ("[collect]\nlisten = 8080", "2:10 error collect.listen: expected text, got a whole number", "Address and port"),
    ('[collect]\nlisten = "8080"', "2:10 error collect.listen cannot be read", '"127.0.0.1:8080"'),
    ('[collect]\nlisten = "::1:80"', "2:10 error collect.listen cannot be read", '"[::1]:8080"'),
    ('[collect]\nlisten = "a:70000"', "2:10 error collect.listen cannot be read", '"127.0.0.1:8080"'),
    ('[collect]\ntrusted_proxies = ["10.0.0.0/8",\n "10.0.0.1/8"]', "3:2 error not a network", '"10.0.0.0/8"?'),
    ('[collect]\ntrusted_proxies = ["x"]', "2:20 error not a network", "write a CIDR"),
    ('[collect]\ntrusted_proxies = ["::/0"]', "2:20 warning anybody's X-Forwarded-For", "name your proxies"),
    ('[console]\nlisten = "0.0.0.0:1"', "2:10 error the console is open to others without a token", "token ="),
    ('[console]\nlisten = "127.0.0.1:8080"', "2:1 error collect listens there already", "its own port"),
    ('[outbox]\ndedup = "8d"', "2:9 error dedup reaches back 7d at most", 'dedup = "7d"'),
    ('[outbox]\nkeep_dead = "7 days"', "2:13 error outbox.keep_dead cannot be read", '"72h"'),
    ('[outbox]\nkeep_delivered = "' + "9" * 400 + 'd"', "2:18 error outbox.keep_delivered", 'at most: "3653d"'),
    ('[outbox]\nkeep_dead = "3654d"', "2:13 error outbox.keep_dead cannot be read", 'at most: "3653d"'),
    ('[outbox]\nballast = "9999999999GB"', "2:11 error outbox.ballast cannot be read", '"64MB"'),
    ('[collect]\nsession = "99999999d"', "2:11 error collect.session cannot be read", 'at most: "3653d"'),
    ('[console]\nhosts = ["a.b", "a.b:80"]', "2:17 error not the name of a host", "without scheme and port"),
    ('[outbox]\nmin_free = "200M"', "2:12 error outbox.min_free cannot be read", '"64MB"'),
    ('[outbox]\nballast = "1MB"', "2:11 error so little is used up at once", 'ballast = "64MB"'),
    ("[sources.a]", '1:10 error missing key "tokens" in [sources.a]', 'tokens = ["env:A_TOKEN"]'),
    ("[sources.a]\ntokens = []", "2:10 error sources.a.tokens: expected a list of length >= 1", "Keys of this source"),
    ('[sources.a]\ntoken = ["env:SHOP_TOKEN"]', '2:1 error unknown key "token"', 'did you mean "tokens"?'),
    (
        SHOP + 'default_country = "fr"',
        "3:19 error sources.shop.default_country: expected text that looks like [A-Z]{2}",
        "For",
    ),
    (SHOP + 'origins = ["https://shop.example/"]', "3:12 error not an origin", "scheme and host"),
    (SHOP + 'default_country = "UK"', '3:19 error no phone numbers of a country "UK"', 'did you mean "GB"?'),
    (SHOP + 'default_country = "XX"', '3:19 error no phone numbers of a country "XX"', '"FR", "GB", "US"'),
    (SHOP + 'default_country = "AQ"', '3:19 error no phone numbers of a country "AQ"', '"FR", "GB", "US"'),
    (SHOP + 'origins = ["https://Shop.Example"]', "3:12 warning no browser", 'write "https://shop.example"'),
    (SHOP + 'origins = ["https://shop.example:443"]', "3:12 warning no browser", 'write "https://shop.example"'),
    (SHOP + 'origins = ["https://exämple.fr"]', "3:12 warning no browser", 'write "https://xn--exmple-cua.fr"'),
    (SHOP + 'origins = ["https://shop.example:99999"]', "3:12 error not an origin", "scheme and host"),
    (SHOP + 'origins = ["*"]', "3:12 error not an origin", "scheme and host"),
    (SHOP + '[sources.b]\ntokens = ["env:SHOP_TOKEN"]', "4:11 error sources.shop has this token too", "its own"),
    (
        SHOP + 'site = "1"\n[sources.b]\ntokens = ["env:ADS_TOKEN"]\nsite = "1"',
        "6:1 error sources.shop has this site too",
        "give each its own",
    ),
    ("[destinations.a]", '1:15 error missing key "type" in [destinations.a]', "there are: ads, careful"),
    ('[destinations.a]\ntype = "asd"', "2:8 error unknown destination type", 'did you mean "ads"?'),
    ("[destinations.a]\ntype = 1", "2:8 error unknown destination type", "there are: ads, careful"),
    (
        '[destinations.a]\ntype = "ads"\naccount = "123"',
        '1:15 error missing key "access_token" in [destinations.a] (type = "ads")',
        'access_token = "env:A_ACCESS_TOKEN"  # From the partner',
    ),
    (ADS + 'mode = "wep"', '5:8 error destinations.eu.mode: write one of "web", "app"', None),
    (
        ADS + 'concurrency = "2"',
        "5:15 error destinations.eu.concurrency: expected a whole number, got text",
        "Requests",
    ),
    (ADS + "events = 1", "5:10 error destinations.eu.events: expected a table or a list, got a whole number", "Event"),
    (ADS + "concurrency = 0", "5:15 error destinations.eu.concurrency: expected a whole number >= 1", "Requests under"),
    (ADS + "batch = 101", "5:9 error the partner takes 100 in one request", "batch = 100"),
    (ADS + 'rate = "fast"', "5:8 error destinations.eu.rate cannot be read", '"10/s"'),
    (ADS + f'rate = "{"9" * 400}/s"', "5:8 error destinations.eu.rate cannot be read", "a million a second at most"),
    (ADS + 'rate = "0/s"', "5:8 error destinations.eu.rate cannot be read", "more than nothing"),
    (ADS + 'timeout = "0s"', "5:11 error destinations.eu.timeout is nothing", "longer time"),
    (ADS + 'retry_for = "3"', "5:13 error destinations.eu.retry_for cannot be read", '"72h"'),
    (ADS + 'base_url = "ads.example"', "5:12 error base_url is not the address of a server", '"https://host"'),
    (ADS + 'base_url = "https://ads.example/a b"', "5:12 error base_url is not the address", '"https://host"'),
    (ADS + 'consent = ["a", ""]', "5:17 error a category without a name", 'consent = ["marketing"]'),
    (ADS + 'base_url = "https://a.example/?k=1"', "5:12 error base_url is not the address", "without key"),
    (ADS + 'base_url = "http://a.example"', "5:12 error base_url is plain http", "allow_private = true"),
    (ADS + 'base_url = "https://10.0.0.1"', "5:12 error base_url is a private address", "allow_private = true"),
    (ADS + 'consent = "marketing"', "5:11 error destinations.eu.consent: expected a list, got text", "Consent"),
    (ADS + 'consent = ["a", 3]', "5:17 error destinations.eu.consent: expected text, got a whole number", "Consent"),
    (
        ADS + 'events = { a = "b", c = 3 }',
        "5:25 error destinations.eu.events: expected text, got a whole number",
        "Event",
    ),
    (
        ADS + '[destinations.eu.map]\n"custom.a" = "properties.v"\n"custom.b" = 5',
        "7:14 error destinations.eu.map: expected text, got a whole number",
        "Target path",
    ),
    (SHOP + 'site = "3311 "', "3:8 error sources.shop.site: a blank or a line end stands before or", "take it away"),
    (ADS + 'consent = ["a", " b"]', "5:17 error destinations.eu.consent: a blank or a line end", "take it away"),
    (ADS + 'map = { "a.b " = "properties.v" }', "5:9 error destinations.eu.map: a blank or a line end", "take it away"),
    (ADS + 'events = ["purchase\u00a0"]', "5:11 error destinations.eu.events: a blank or a line end", "take it away"),
    (POINTING + 'at = """\nuser.id\n"""', "3:6 error destinations.p.at: a blank or a line end", "take it away"),
    (
        ADS + SHOP + '[destinations.b]\ntype="careful"\nsources = ["shpo"]',
        '9:12 error unknown source "shpo"',
        '"shop"?',
    ),
    (ADS + "events = []", "5:1 warning no event is sent there", "leave events out"),
    (ADS + 'events = ["purchse"]', '5:11 warning no standard event is called "purchse"', 'did you mean "purchase"?'),
    (NAMED + 'events = { vip = "CUSTOM_l" }', '3:18 error Named has no event "CUSTOM_l"', 'did you mean "CUSTOM_1"?'),
    (NAMED + 'events = { vip = "Lead" }', '3:18 error Named has no event "Lead"', "there are: BUY, CUSTOM_1, VIEW"),
    (NAMED + 'events = ["buy", "purchse"]', '3:18 error "purchse" has no name at Named', 'did you mean "purchase"?'),
    (NAMED + 'events = ["lead in"]', '3:11 error "lead in" has no name at Named', '{ "lead in" = "..." }'),
    (ADS + 'match = { "propertis.v" = 1 }', "5:11 error unknown field", '"properties.v"?'),
    (ADS + 'match = { "properties.v" = { gtt = 1 } }', '5:11 error "properties.v": unknown condition', 'mean "gt"?'),
    (ADS + 'map = { "custom.a" = "propertis.v" }', "5:22 error unknown field", '"properties.v"?'),
    (
        ADS + 'match = { "clear.country" = "FR" }',
        "5:11 error clear.country is not stored: no enabled",
        "under properties",
    ),
    (
        ADS + 'match = { name = { in = ["Order Completed"] } }',
        '5:11 error "Order Completed" arrives as "',
        '"purchase"',
    ),
    (
        ADS + 'match = { name = "Lead" }',
        '5:11 warning "Lead" arrives as "generate_lead", and in Segment\'s dialect as it is',
        "or both",
    ),
    (
        ADS + 'match = { name = { ne = "purchse" } }',
        '5:11 warning no standard event is called "purchse"',
        '"purchase"?',
    ),
    (ADS + 'match = { source = "shop" }', '5:11 error unknown source "shop"', "there are none"),
    (ADS + 'map = { "a.b" = "clear.ip" }', "5:17 error Ads is not given clear.ip", "under properties"),
    (POINTING + 'of = ["clear.ip"]', "3:7 error Pointing is not given clear.ip", "under properties"),
    (ADS + 'map = { "custom." = "properties.v" }', "5:9 error the target is not a path", "custom_data.brands"),
    (ADS + ADS.replace("eu", "us"), "5:15 warning the same account as destinations.eu", "keep one"),
    ('[destinations.c]\ntype = "careful"\nlow = 10', "3:1 error low is above high: swap them", None),
    ('[destinations.c]\ntype = "careful"\nlow = 9', "1:15 error nothing lies between", None),
    ('[destinations.c]\ntype = "careful"\nkey = "env:TWO"', "3:1 error key is too short: copy it whole", None),
    (
        '[destinations.c]\ntype = "careful"\nmax_age = "env:AGE"',
        "3:11 error destinations.c.max_age is not a secret",
        "write",
    ),
    (NAMED + 'events = { Purchase = "BUY" }', '3:12 error "Purchase" arrives as "purchase"', '"purchase", or both'),
    (ADS + 'events = ["Order Completed"]', '5:11 error "Order Completed" arrives as "purchase"', '"purchase"'),
    (POINTING + 'events = { AddToCart = "x" }', '3:12 error "AddToCart" arrives as "add_to_cart"', '"add_to_cart"'),
    (POINTING + 'installs = ["PURCHASE"]', '3:13 error "PURCHASE" arrives as "purchase"', '"purchase"'),
    (POINTING + 'installs = ["app_instal"]', '3:13 warning no standard event is called "app_instal"', "app_install"),
    (NAMED + 'events = { purchas = "BUY" }', '3:12 warning no standard event is called "purchas"', '"purchase"?'),
    (POINTING + 'events = { add-to-cart = "x" }', '3:12 warning no standard event is called "add-', '"add_to_cart"?'),
    (POINTING + 'at = "money.ordr_id"', '3:6 error unknown field "money.ordr_id"', '"money.order_id"?'),
    (POINTING + 'of = ["page.url", "page.ulr"]', '3:19 error unknown field "page.ulr" of an event', '"page.url"?'),
    (POINTING + 'events = { tap = "click" }', "3:18 error click is taken", "give it another name"),
    (
        POINTING + 'app = "com.example.app"',
        "3:7 error destinations.p.app: expected the number of your app",
        "Your app.",
    ),
    ("", "1:1 warning no sources: nobody can send events", "[sources.NAME]"),
]


@pytest.mark.parametrize(("text", "expected", "remedy"), FAULTS, ids=[expected for _, expected, _ in FAULTS])
def test_fault(tmp_path, text, expected, remedy):
    """
    Each fault is found at its line and column, in plain words, with what to write instead.
    """

    found = [one for one in said(tmp_path, text) if one.startswith(expected)]
    assert 1 == len(found), said(tmp_path, text)
    assert (remedy or "") in found[0]


@pytest.mark.parametrize("events", ['["purchase", "view"]', '{ lead = "custom_1", order = "Buy" }'])
def test_names_that_the_partner_has(tmp_path, events):
    """
    A partner's own names are taken in any case, in a list and in a table, and its defaults by ours.
    """

    assert [] == [one for one in said(tmp_path, SHOP + NAMED + f"events = {events}") if "event" in one]


@pytest.mark.parametrize(
    "events",
    ['{ tapped = "x" }', '["uninstall", "app_uninstall"]', '{ purchase = "x", Purchase = "x" }', "[]"],
    ids=["a name of one's own", "near in letters, far in sense", "for senders whose words stay, too", "nothing"],
)
def test_names_that_arrive(tmp_path, events):
    """
    Names that events can have behind the door are taken without a word.
    """

    found = said(tmp_path, SHOP + POINTING + f"events = {events}")
    assert [] == [one for one in found if "standard" in one or "arrives" in one]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['app = "x"', 'key = "env:TWO"'], ["3:7 error", "4:1 error key is too short"]),
        (['key = "env:NOPE"', 'app = "1234"'], ["3:7 error", "4:1 warning app is a long number"]),
        (['app = "1234"', 'key = "env:TWO"', 'events = { a = "click" }'], ["3:1 warning", "4:1 error", "5:16 error"]),
    ],
    ids=["beside a field that is none", "beside a secret that is not there", "all of them"],
)
def test_each_check_of_a_type_is_heard(tmp_path, lines, expected):
    """
    A check that needs only what could be read is made, whatever another one needs.
    """

    found = said(tmp_path, "\n".join([POINTING.strip(), *lines]))[1:]
    assert len(expected) == len(found), found
    assert all(one.startswith(words) for words, one in zip(expected, found, strict=True)), found


def test_a_webhook_in_one_run(tmp_path):
    """
    A wrong address does not hide a wrong secret, and each is said at its own key, in words.
    """

    path = tmp_path / "config.toml"
    text = f'{SHOP}[destinations.w]\ntype = "webhook"\nurl = "%s"\nsecrets = ["env:TWO"]\n'
    for url, column, words in (("ftp://x", 7, "expected the address of a server"), ("http://x", 1, "must begin with")):
        path.write_text(text % url)
        found = config.examine(path, ENVIRON, destinations=destinations.registry()).findings

        assert [(5, column), (6, 1)] == [(one.line, one.column) for one in found]
        assert words in found[0].message
        assert "[^" not in found[0].message
        assert "secrets must be base64" in found[1].message


def test_clear_values_that_are_there(tmp_path):
    """
    A condition may be on a clear value that the destination is given, or that is stored for another one; what is only
    stored for one that is switched off is not there. Where both are switched off, the condition stands in nobody's way.
    """

    path = tmp_path / "config.toml"
    snap = 'type = "snap"\npixel_id = "p-1"\naccess_token = "env:ADS_TOKEN"\n'
    site = 'type = "commandersact"\nsite = "1"\ntoken = "env:ADS_TOKEN"\n'
    match = 'match = { "clear.user_agent" = { exists = true }, "clear.country" = "FR" }\n'
    path.write_text(f"{SHOP}[destinations.s]\n{snap}{match}[destinations.c]\n{site}")
    assert [] == config.examine(path, ENVIRON, destinations=destinations.registry()).findings

    path.write_text(f"{SHOP}[destinations.s]\n{snap}{match}[destinations.c]\n{site}enabled = false\n")
    (found,) = config.examine(path, ENVIRON, destinations=destinations.registry()).findings
    assert (7, 'destinations.s.match."clear.country"') == (found.line, found.key)

    off = "enabled = false\n"
    path.write_text(f"{SHOP}[destinations.s]\n{snap}{off}{match}[destinations.c]\n{site}{off}")
    assert [] == config.examine(path, ENVIRON, destinations=destinations.registry()).findings


def test_a_blank_hides_nothing(tmp_path):
    """
    What else is wrong with a list is said in the same run, of the text without its blank as well.
    """

    found = said(tmp_path, SHOP + ADS + 'events = ["Order Completed ", "PURCHASE"]')
    assert ["7:11", "7:11", "7:31"] == [one.partition(" ")[0] for one in found]
    assert "blank" in found[0]
    assert all('arrives as "purchase"' in one for one in found[1:])


def test_conditions_that_are_meant(tmp_path):
    """
    A condition may be about a text that begins or ends with a blank, and leave out a source that was removed.
    """

    text = (
        SHOP + ADS + 'match = { source = { ne = "gone" }, "properties.v" = "a ", "properties.w" = { contains = " b" } }'
    )
    assert [] == said(tmp_path, text)


def test_headers_of_a_webhook(tmp_path):
    """
    Each header that cannot be sent is said at its name or its value, in words that show neither a pattern nor the value.
    """

    path = tmp_path / "config.toml"
    head = f'{SHOP}[destinations.w]\ntype = "webhook"\nurl = "https://x"\nsecrets = ["env:LONG"]\n'
    path.write_text(f'{head}[destinations.w.headers]\n"X Key" = "a"\nX-Two = "hídden"\nHost = "b"\n')
    found = config.examine(
        path, {**ENVIRON, "LONG": "C2FVsBQIhrscChlQIMVyZ5sS"}, destinations=destinations.registry()
    ).findings

    assert [(8, 1), (9, 9), (10, 1)] == [(one.line, one.column) for one in found]
    assert all("expected a header's name in letters" in found[index].message for index in (0, 2))
    assert "expected text in ASCII without a line end" in found[1].message
    assert not any("hídden" in f"{one.message}{one.excerpt}" for one in found)


def snap(tmp_path, *lines: str) -> list[config.Finding]:
    path = tmp_path / "config.toml"
    head = [SHOP.strip(), "[destinations.s]", 'type = "snap"', 'pixel_id = "p-1"', 'access_token = "env:ADS_TOKEN"']
    path.write_text("\n".join([*head, *lines]))
    return config.examine(path, ENVIRON, destinations=destinations.registry()).findings


@pytest.mark.parametrize(
    ("age", "severity"), [("7d", None), ("168h", None), ("8d", "warning"), ("37d", "warning"), ("60d", "error")]
)
def test_the_age_that_snap_takes(tmp_path, age, severity):
    """
    Beyond seven days only offline uploads are taken, which is a warning; beyond 37 nothing is. Both are at their line.
    """

    expected = [] if severity is None else [(severity, 7, 1)]
    assert expected == [(one.severity, one.line, one.column) for one in snap(tmp_path, f'max_age = "{age}"')]


def test_snaps_test_code(tmp_path):
    """
    Whoever leaves the code of a trial in the file is told that nothing of what is delivered counts, but not where only
    tests go there.
    """

    assert [] == snap(tmp_path, 'test_event_code = "TEST123"', 'match = { "test" = { exists = true } }')
    (found,) = snap(tmp_path, 'test_event_code = "TEST123"')

    assert ("warning", 7, 1) == (found.severity, found.line, found.column)
    assert "Snap takes every event as a test, and counts none" == found.message


def test_snaps_app_id(tmp_path):
    """
    A bundle id in the place of Snap's own id is told as what it is, without a pattern.
    """

    (found,) = snap(tmp_path, 'app_id = "com.example.app"')
    assert "the id that Snap gave your app, from Ads Manager" in found.message
    assert "not the bundle id" in found.message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('events = { signed = "click" }', (6, 21, "error", "LinkTrace keeps click, install")),
        ('events = { purchase = "Open" }', (6, 23, "error", "LinkTrace keeps click, install")),
        ('events = ["purchase", "impression"]', (6, 23, "error", "LinkTrace keeps click, install")),
        ('events = { purchase = "1st" }', (6, 23, "error", "a name must begin with a letter")),
        ('short_code = ["properties.code", "page.ulr"]', (6, 34, "error", 'unknown field "page.ulr"')),
        ('entity = "money.ordr_id"', (6, 10, "error", 'unknown field "money.ordr_id"')),
        ('user = "user.idd"', (6, 8, "error", 'unknown field "user.idd"')),
        ('attributions = ["app_instal"]', (6, 17, "warning", 'no standard event is called "app_instal"')),
        ('attributions = ["Application Installed"]', (6, 17, "error", '"Application Installed" arrives as')),
        ('map = { "amount" = "money.value" }', (6, 1, "error", "map fills linkShortCode")),
        ('events = ["install"]\nattributions = ["install"]', None),
        ('events = ["click"]\nmap = { "eventName" = "properties.name" }', None),
    ],
)
def test_what_linktrace_can_only_refuse(tmp_path, line, expected):
    """
    Names that LinkTrace keeps or cannot take, and fields that no event has, are told before anything is sent.
    """

    path = tmp_path / "config.toml"
    path.write_text(f'{SHOP}[destinations.l]\ntype = "linktrace"\napi_key = "env:ADS_TOKEN"\n{line}\n')
    found = config.examine(path, ENVIRON, destinations=destinations.registry()).findings

    said = [(one.line, one.column, one.severity, one.message) for one in found]
    assert (1 if expected else 0) == len(said), said
    assert expected is None or (expected[:3] == said[0][:3] and said[0][3].startswith(expected[3]))


def test_a_wrong_name_of_snaps(tmp_path):
    """
    A table that gives an event a name that Snap does not have is an error before anything is sent.
    """

    text = SHOP + '[destinations.snap]\ntype = "snap"\npixel_id = "p-1"\naccess_token = "env:ADS_TOKEN"\n'
    text += 'events = { lead = "LEAD", vip = "custom_event_2" }\nmax_age = "38d"\n'
    path = tmp_path / "config.toml"
    path.write_text(text)
    found = config.examine(path, ENVIRON, destinations=destinations.registry()).findings

    assert ["destinations.snap.events.lead"] == [one.key for one in found if one.line == 7]
    assert any("at most" in one.message and '"37d"' in one.message for one in found)


def test_every_fault_in_one_run(tmp_path):
    """
    One run finds the faults of every table and of every field, those of a table with an unknown key too.
    """

    text = """\
[collect]
listen = "8080"
lisen = 1
[sources.shop]
tokens = ["env:NOPE", "literal"]
origins = ["*"]
[destinations.eu]
type = "ads"
account = "12"
acces_token = "env:ADS_TOKEN"
rate = "fast"
match = { "propertis.v" = 1, "properties.v" = { gt = "x" } }
[destinations.us]
type = "sda"
"""
    places = [(2, 10), (3, 1), (5, 11), (5, 23), (6, 12), (9, 11), (10, 1), (11, 8), (12, 11), (12, 30), (14, 8)]
    assert places == [(one.line, one.column) for one in examine(tmp_path, text).findings]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["low = 10", 'key = "env:NOPE"'], ["low is above high", "NOPE is not set"]),
        (["low = 10", 'rate = "fast"'], ["low is above high", "rate cannot be read"]),
        (["low = true", "high = 1"], ["low: expected a whole number"]),
        (["lo = 1", "high = -1"], ['unknown key "lo"']),
        (['key = "env:NOPE"'], ["NOPE is not set"]),
        (["low = 10", "batch = 0"], ["low is above high", "batch: expected a whole number"]),
    ],
    ids=[
        "beside a secret that is not there",
        "beside a rate that is none",
        "not where a field it needs cannot be read",
        "not where a field it needs may be misspelt",
        "not of a secret that is not there",
        "beside a number that is too small",
    ],
)
def test_what_a_type_says_itself(tmp_path, lines, expected):
    """
    A type's own check is heard in the same run as every other, unless what it judges could not be read.
    """

    text = "\n".join(["[destinations.c]", 'type = "careful"', *lines, 'match = { "properties.v" = { gtt = 1 } }', SHOP])
    found = [one.message for one in examine(tmp_path, text).findings]

    assert len(expected) + 1 == len(found), found
    assert all(words in message for words, message in zip([*expected, "unknown condition"], found, strict=True)), found


class TestSwitchedOff:
    """A destination with ``enabled = false``."""

    OFF = '[destinations.c]\ntype = "careful"\nenabled = false\n'

    def test_its_key_may_be_gone(self, tmp_path):
        """
        A key that is not there any more is a warning, the file can be started with, and the rest is checked.
        """

        text = SHOP + self.OFF + 'key = "env:GONE"\n'
        (one,) = said(tmp_path, text)

        assert one.startswith("6:7 warning destinations.c.key: environment variable GONE is not set; it is needed once")
        off = settings(tmp_path, text).destinations["c"]
        assert ("careful", False) == (type(off).__struct_config__.tag, off.enabled)
        assert off == settings(tmp_path, text).destinations["c"]
        assert any("low is above high" in one for one in said(tmp_path, text + "low = 10"))
        assert any("is nothing" in one for one in said(tmp_path, text + 'timeout = "0s"'))

    def test_two_whose_keys_are_gone(self, tmp_path):
        """
        Keys that nobody can read are not taken for the same account.
        """

        text = SHOP + self.OFF + 'key = "env:GONE"\n' + self.OFF.replace(".c]", ".d]") + 'key = "env:LOST"\n'
        assert [True, True] == ["it is needed once" in one for one in said(tmp_path, text)]

    @pytest.mark.parametrize(
        "text",
        [
            OFF + 'key = "a literal"\n',
            OFF.replace("false", "true") + 'key = "env:GONE"\n',
            OFF.replace("enabled = false\n", "") + 'key = "env:GONE"\n',
            OFF + "key = 1\n",
        ],
        ids=["a key in the file itself", "switched on", "on, as nothing else is said", "not a reference"],
    )
    def test_what_stays_an_error(self, tmp_path, text):
        """
        A secret in the file is an error wherever it stands, and so is a missing one of what shall run.
        """

        assert examine(tmp_path, SHOP + text).settings is None


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("[collect]\nlisten = 127.0.0.1:80\n", 2, 15),
        ("[collect\n", 1, 9),
        ("[a]\n[a]\n", 2, 3),
        ('a = "unfinished', 1, 16),
        ("a = [1,\n2,\n", 3, 1),
    ],
    ids=["no quotes", "no bracket", "twice", "unfinished text", "unfinished list"],
)
def test_syntax(tmp_path, text, line, column):
    """
    What is not TOML is one error at its place.
    """

    (found,) = examine(tmp_path, text).findings
    assert (line, column, "error") == (found.line, found.column, found.severity)
    assert found.message.startswith("not TOML: ")


@pytest.mark.parametrize(
    "text",
    [ADS + ADS, ADS + "batch = 1\nbatch = 2", "a = { b = 1, b = 2 }", "a.b = 1\na = 2"],
    ids=["a table", "a key", "inside braces", "a key that is a table"],
)
def test_what_stands_there_twice(tmp_path, text):
    """
    A table or key that was copied and not renamed is told so, and not that it lacks quotes.
    """

    (found,) = examine(tmp_path, text).findings
    assert "it stands above already: write both into one, or give one of them another name" == found.help


CANARY = "c4n4ry-9f8e7d6c5b4a"
LEAKS = [
    f'[console]\ntoken = "{CANARY}"',
    f'[console]\ntokn = "{CANARY}"',
    f'[sources.a]\ntokens = ["{CANARY}", "env:NOPE"]',
    f'[sources.a]\ntokens = ["sha256:{CANARY}"]',
    f'[sources.a]\ntokens = "{CANARY}"',
    f'[destinations.a]\ntype = "ads"\naccount = "{CANARY}"\naccess_token = "env:ADS_TOKEN"',
    f'[destinations.a]\ntype = "ads"\nacces_token = "{CANARY}"',
    f'[destinations]\na = {{ type = "ads", access_token = "{CANARY}", mode = "x" }}',
    f'[destinations.a]\ntype = "careful"\nbase_url = "https://me:{CANARY}@a.example"',
    f"[console]\ntoken = {CANARY}",
    f'[console]\ntoken = "{CANARY}',
    f'[sources.a]\ntokens = [\n"{CANARY}\n]',
    f"[sources.a]\ntokens = [\n  {CANARY}==\n]",
    f'[sources.a]\ntokens = ["""\n{CANARY}"""]',
    "[console]\ntoken = 'env:LEAK'\nlisten = 'env:LEAK'",
    '[sources.a]\ntokens = ["env:LEAK"]\n[sources.b]\ntokens = ["env:LEAK"]',
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_secret_shown(tmp_path, text):
    """
    Whatever is wrong with a secret, or with its line, no part of a finding shows it.
    """

    findings = examine(tmp_path, text, {**ENVIRON, "LEAK": CANARY}).findings
    assert "error" in {one.severity for one in findings}
    assert CANARY not in repr(findings)


class TestCaret:
    @pytest.mark.parametrize(
        ("line", "under"),
        [
            ('mode = "wep"', '"wep"'),
            ('headers = { a = "env:ADS_TOKEN", b = "env:NOPE" }', '"env:NOPE"'),
            ('headers = { a = "hidden", b = "env:NOPE" }', '"env:NOPE"'),
            ('access_tokens = "hidden"', "access_tokens"),
            ('account = "x" # """ \' [', '"***"'),
        ],
        ids=["a value", "after a reference", "after a hidden value", "a key", "a hidden value"],
    )
    def test_under(self, tmp_path, line, under):
        """
        The caret stands under what is meant, though values before it are hidden.
        """

        text = '[destinations.eu]\ntype = "ads"\naccess_token = "env:ADS_TOKEN"\n' + line
        found = next(one for one in examine(tmp_path, text).findings if one.line == 4)
        start, length = found.caret
        assert under == (found.excerpt or "")[start - 1 : start - 1 + length]


class TestShown:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ('[collect]\nlisten = "8080"\nlisen = "1.2.3.4:1"', 'lisen = "1.2.3.4:1"'),
            ('[collect]\nlisten = "127.0.0.1:1"\n[console]\nlisten = "127.0.0.1:1"', 'listen = "127.0.0.1:1"'),
            (POINTING + 'app = "12"\napple = "123"', 'apple = "***"'),
            (ADS.replace("account", "acount"), 'acount = "123"'),
            (ADS.replace('account = "123"', f'acount = "{CANARY}"'), 'acount = "***"'),
            (ADS + 'batch = 1\nbase_ur = "https://a.example/key"', 'base_ur = "***"'),
            (ADS + 'account_key = "123"', 'account_key = "***"'),
            (ADS + 'headrs = { a = "b" }', 'headrs = { a = "***" }'),
            (ADS + 'password = "123"', 'password = "***"'),
            (ADS + 'map = { "a." = "properties.v" }', 'map = { "a." = "properties.v" }'),
        ],
        ids=[
            "nearly a setting of ours",
            "a setting of ours",
            "not near enough",
            "nearly a partner's, of its form",
            "nearly a partner's, of another form",
            "an address",
            "what sounds like a secret",
            "what may hold one",
            "unknown",
            "map",
        ],
    )
    def test_line(self, tmp_path, text, line):
        """
        What can be no secret is shown on its line; what may be one never is.
        """

        assert line in [one.excerpt for one in examine(tmp_path, text).findings]


class TestSecrets:
    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("env:NOPE", "environment variable NOPE is not set"),
            ("env:EMPTY", "env:EMPTY is empty"),
            ("file:absent", "file absent: no such file or directory"),
            ("file:a\0b", "file a\0b: cannot be read"),
            ("file:open", "file open can be changed by other users"),
            ("file:group", "file group can be changed by other users"),
            ("file:empty", "file:empty is empty"),
            ("file:binary", "file binary is not UTF-8 text"),
            ("file:large", "file large is too large for a secret"),
            ("credential:absent", "file absent: no such file or directory"),
            ("credential:../closed", "a credential's name is not a path"),
            ("literal", "a secret does not stand in the file itself"),
            ("${ADS_TOKEN}", "variables are not filled in here"),
            ("sha256:" + "0" * 64, "a secret does not stand in the file itself"),
        ],
    )
    def test_refused(self, tmp_path, reference, message):
        """
        A reference that gives nothing is an error that names it.
        """

        modes = {"open": 0o606, "group": 0o660}
        for name, content in {
            "open": b"x",
            "group": b"x",
            "empty": b"\n",
            "binary": b"\xff",
            "large": b"x" * 65_537,
        }.items():
            (tmp_path / name).write_bytes(content)
            (tmp_path / name).chmod(modes.get(name, 0o600))
        environ = {**ENVIRON, "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}

        assert message == config.resolve(reference, environ, tmp_path).message

    def test_credentials_directory(self, tmp_path):
        """
        Outside a unit with credentials, the unit's line is what to add; in a shell, where a running unit has them.
        """

        found = config.resolve("credential:snap", {}, tmp_path)
        assert "LoadCredential=snap:PATH" in found.help
        assert "sudo env CREDENTIALS_DIRECTORY=/run/credentials/turnout.service turnout" in found.help

    @pytest.mark.parametrize(
        "copied", ["k3y\r", "k3y\n", " k3y", "k3y ", "k3y\t", "k3y\u00a0", "k3\r\ny", "k3\x00y"], ids=ascii
    )
    def test_copied_with_something(self, tmp_path, copied):
        """
        A secret copied with a blank or a line end is an error: no partner knows it, and a header cannot carry it.
        """

        found = config.resolve("env:COPIED", {"COPIED": copied}, tmp_path)
        assert found.message.startswith("env:COPIED begins or ends with a blank, or has a line end")

    @pytest.mark.parametrize("content", ["k3y", "k3y\n", "k3y\r\n", "\ufeffk3y\r\n"])
    def test_file(self, tmp_path, content):
        """
        A secret file gives its text without the newline at its end and the mark at its start, and is found beside
        config.toml.
        """

        (tmp_path / "token").write_bytes(content.encode())
        (tmp_path / "token").chmod(0o600)
        text = ADS.replace("env:ADS_TOKEN", "file:token")

        assert "k3y" == settings(tmp_path, text).destinations["eu"].access_token.reveal()

    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            (0o444, ["2:11 warning sources.shop.tokens[0]: file token can be read by every user | chmod 600 token"]),
            (0o644, ["2:11 warning sources.shop.tokens[0]: file token can be read by every user | chmod 600 token"]),
            (0o640, []),
            (0o400, []),
        ],
        ids=["as Docker mounts secrets", "as Kubernetes mounts secrets", "its group", "its owner"],
    )
    def test_who_can_read_a_file(self, tmp_path, mode, expected):
        """
        A secret that every user can read is taken, with a warning that says what to type.
        """

        (tmp_path / "token").write_text("k3y\n")
        (tmp_path / "token").chmod(mode)
        text = f'[sources.shop]\ntokens = ["file:token"]\n{ADS}'

        assert expected == said(tmp_path, text)
        assert "k3y" == settings(tmp_path, text).sources["shop"].tokens[0].reveal()

    def test_credential(self, tmp_path):
        """
        A systemd credential is read from the directory that systemd names.
        """

        (tmp_path / "snap").write_text("k3y\n")
        found = config.resolve("credential:snap", {"CREDENTIALS_DIRECTORY": str(tmp_path)}, Path("/nowhere"))
        assert ("k3y", "credential:snap") == (found.reveal(), found.reference)

    def test_digest(self, tmp_path):
        """
        A source's token may be given by its digest, which is kept as it is for the collector to compare.
        """

        digest = "sha256:" + "0a" * 32
        (token,) = settings(tmp_path, f'[sources.shop]\ntokens = ["{digest}"]').sources["shop"].tokens
        assert (digest, digest) == (token.reveal(), token.reference)

    def test_same_text_twice(self, tmp_path):
        """
        One source may name a token twice during a rotation that has not begun.
        """

        assert settings(tmp_path, '[sources.a]\ntokens = ["env:SHOP_TOKEN", "env:SHOP_TOKEN"]')


class TestAccounts:
    def test_apart(self, tmp_path):
        """
        Two lanes to one account are meant where each takes other sources.
        """

        sources = SHOP + '[sources.b]\ntokens = ["env:ADS_TOKEN"]\n'
        text = sources + ADS + 'sources = ["shop"]\n' + ADS.replace("eu", "us") + 'sources = ["b"]\n'
        assert [] == said(tmp_path, text)

    def test_switched_off(self, tmp_path):
        """
        Who gives a destination another name, and switches the old one off, is not told of events that come twice.
        """

        assert [] == said(tmp_path, SHOP + ADS + "enabled = false\n" + ADS.replace("eu", "us"))

    def test_other_account(self, tmp_path):
        """
        Two accounts at one partner are two destinations.
        """

        assert [] == said(tmp_path, SHOP + ADS + ADS.replace("eu", "us").replace("123", "124"))


@pytest.mark.parametrize("struct", [Collect, Console, Outbox, Source], ids=lambda struct: struct.__name__)
def test_every_setting_is_described(struct):
    """
    Whoever reads the reference or a finding learns of every key what it does.
    """

    assert [] == [one.name for one in msgspec.structs.fields(struct) if not config.description(one.type)]


class TestShippedFile:
    def test_as_shipped(self):
        """
        The shipped file starts once its one token is set, and says that events go nowhere yet.
        """

        found = config.examine(SHIPPED, {"SHOP_TOKEN": "x"}, destinations=destinations.registry())
        assert found.settings is not None
        assert ["no destinations: events are sent nowhere"] == [one.message for one in found.findings]

    def test_opened(self, tmp_path):
        """
        With every comment opened, all that is missing are the secrets.
        """

        text = re.sub(r"^#(?=[\[a-z])", "", SHIPPED.read_text(), flags=re.MULTILINE)
        path = tmp_path / "config.toml"
        path.write_text(text)
        found = config.examine(path, {}, destinations=destinations.registry()).findings

        expected = [f"environment variable {name} is not set" for name in re.findall(r'"env:([A-Z_]+)"', text)[1:]]
        assert expected == [one.message.partition(": ")[2] for one in found]
        assert 6 <= len(expected)


DOCUMENTS = {
    "the shipped file": SHIPPED.read_text(),
    "every form": """\
a = 1 # c
"b.c" = "x#y"
'd' . e."f \\u0067" = [1, 2, # hi ]
 "z]", { q = 1, r.s = [ "m" ] } , ]
[t.u]
k = \"\"\"
multi "quoted" # no
=x
\"\"\"
l = '''it's'''
m = \"\"\"a\\\"\"\"\"\"\"
[ t . "v" ]
x = 1979-05-27 07:32:00Z
[[w.x]]
y = +inf
[w.x.z]
o = 0x_1f
[[w.x]]
p = {}
q = [[], [[1]], ["]", '}']]
[[w.x.deep]]
n = ""
[[w.x.deep]]
n = ''
""".replace("0x_1f", "0x1f"),
}


def paths(value: Any, path: positions.Key = ()) -> dict[positions.Key, Any]:
    """Every key path of a decoded document, with its value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {} if not path else {path: value}
    for part, one in inside:
        found |= paths(one, (*path, part))
    return found


def agrees(text: str) -> None:
    """``locate`` knows every path of the document, and what stands at a value's place is that value."""
    document = paths(tomllib.loads(text))
    places = positions.locate(text)
    lines = text.split("\n")

    assert set(document) == places.keys.keys() | places.values.keys()
    for path, place in places.values.items():
        stands = lines[place.line - 1][place.column - 1 : place.column - 1 + place.length]
        try:
            read = tomllib.loads(f"x = {stands}")["x"]
        except tomllib.TOMLDecodeError:  # it goes on in the next line
            assert place.column - 1 + place.length == len(lines[place.line - 1])
        else:
            assert document[path] == read


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=list(DOCUMENTS))
def test_positions(text):
    """
    Every key and value of a document is found where it stands, comments and all forms of text notwithstanding.
    """

    agrees(text)


QUOTED = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters='"\\'), max_size=6)
SCALARS = st.integers(-9, 99).map(str) | st.booleans().map(lambda on: str(on).lower()) | QUOTED.map(lambda t: f'"{t}"')
KEYS = st.sampled_from(["a", "b-c", '"d.e"', "'f\"#'", '"="'])
VALUES = st.recursive(
    SCALARS,
    lambda one: (
        st.lists(one, max_size=3).map(lambda many: f"[{', '.join(many)}]")
        | st.lists(one, max_size=3).map(lambda many: "[ # ]\n" + ",\n\t".join(many) + "\n]")
        | st.dictionaries(KEYS, one, max_size=2).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=6,
)


@given(
    tables=st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3),
    array=st.lists(st.dictionaries(KEYS, VALUES, max_size=2), max_size=3),
)
def test_positions_anywhere(tables, array):
    """
    The same for any document: keys that need quotes, arrays over lines with comments, tables in tables.
    """

    body = lambda pairs: "".join(f"{key}={value}  # {value[:1]!r}\n" for key, value in pairs.items())  # noqa: E731
    text = "".join(f"[t.{name}]\n{body(pairs)}" for name, pairs in tables.items())
    agrees(text + "".join(f"[[many.ones]]\n{body(pairs)}" for pairs in array))
