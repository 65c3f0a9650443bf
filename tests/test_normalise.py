"""Values, one table per rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.normalise import (
    Findings,
    amount,
    att_status,
    clicks_of,
    cookies_of,
    event_time,
    instant,
    named_cookies,
    opted_out,
    public_ip,
    same_site,
    user_agent,
    whole,
)

NOON = 1764676800000  # 2025-12-02T12:00:00Z
LEAP = 951782400000  # 2000-02-29T00:00:00Z
MINUTE = 60_000


class TestInstant:
    @pytest.mark.parametrize(
        ("value", "expected", "notes"),
        [
            (NOON, NOON, []),
            (str(NOON), NOON, []),
            (f" {NOON} ", NOON, []),
            (NOON // 1000, NOON, ["unit_guessed"]),
            (NOON / 1000, NOON, ["unit_guessed"]),
            (f"{NOON // 1000}.25", NOON + 250, ["unit_guessed"]),
            (NOON * 1000, NOON, ["unit_guessed"]),
            (NOON * 10**6 + 999_999, NOON, ["unit_guessed"]),
            (str(NOON * 10**6), NOON, ["unit_guessed"]),
        ],
    )
    def test_unit_by_magnitude(self, value, expected, notes):
        """
        Milliseconds are the norm; another unit is recognised and noted.
        """
        findings = Findings()

        assert expected == instant(value, findings)
        assert notes == findings.notes

    @pytest.mark.parametrize(
        ("text", "expected", "notes"),
        [
            ("2025-12-02T12:00:00.000Z", NOON, []),
            ("2025-12-02T12:00:00Z", NOON, []),
            ("2025-12-02t12:00:00z", NOON, []),
            ("2025-12-02T13:00:00+01:00", NOON, []),
            ("2025-12-02T07:00:00-0500", NOON, []),
            ("2025-12-02T12:00:00.123456789Z", NOON + 123, []),
            ("2025-12-02T12:00Z", NOON, []),
            ("2025-12-02 12:00:00 UTC", NOON, []),
            ("2025-12-2T12:00:00.984Z", NOON + 984, []),
            ("2000-2-29T0:00:00Z", LEAP, []),
            ("2025-12-02T12:00:00", NOON, ["naive_ts"]),
            ("2025-12-02", NOON - 12 * 60 * MINUTE, ["naive_ts"]),
        ],
    )
    def test_iso_8601(self, text, expected, notes):
        """
        Any spelling of ISO 8601, and the vendor's own sample whose month lacks its zero.
        """
        findings = Findings()

        assert expected == instant(text, findings)
        assert notes == findings.notes

    @pytest.mark.parametrize(
        "value",
        [
            0,
            -1,
            -NOON,
            10**30,
            1e30,
            "0",
            True,
            [],
            {},
            "",
            "soon",
            "2025-02-30T00:00:00Z",
            "2025-12-02T12:00:60Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-23:59",
            "1970-01-01T00:00:00Z",
            "٢٠٢٥-١٢-٠٢",
            "9" * 400,
        ],
    )
    def test_impossible(self, value):
        """
        What is no time is no time, and nothing overflows.
        """
        assert instant(value, Findings()) is None


class TestEventTime:
    def test_absent(self):
        """
        An event without a time happened when it came, and nobody is told off for it.
        """
        findings = Findings()

        assert (NOON, None) == event_time(None, None, NOON, findings)
        assert [] == findings.notes

    @pytest.mark.parametrize("claim", ["soon", 0, True, {"$date": NOON}])
    def test_bad(self, claim):
        """
        The moment of receipt stands in for a time that is none.
        """
        findings = Findings()

        assert (NOON, None) == event_time(claim, None, NOON, findings)
        assert ["bad_ts"] == findings.notes

    def test_little_ahead(self):
        """
        Ten minutes ahead is a clock, not a mistake.
        """
        findings = Findings()

        assert (NOON + 10 * MINUTE, None) == event_time(NOON + 10 * MINUTE, None, NOON, findings)
        assert [] == findings.notes

    @pytest.mark.parametrize("ahead", [10 * MINUTE + 1, 11 * MINUTE, 365 * 24 * 60 * MINUTE])
    def test_future(self, ahead):
        """
        Further ahead, partners get the moment of receipt and the claim is kept.
        """
        findings = Findings()

        assert (NOON, NOON + ahead) == event_time(NOON + ahead, None, NOON, findings)
        assert ["future_ts"] == findings.notes

    @pytest.mark.parametrize("off", [-365 * 24 * 60 * MINUTE, -5 * MINUTE, 5 * MINUTE, 365 * 24 * 60 * MINUTE])
    def test_skew(self, off):
        """
        A clock that is off, by whatever, is set right: received − (sent − happened).
        """
        findings = Findings()

        assert (NOON - 17, NOON + off - 17) == event_time(NOON + off - 17, NOON + off, NOON, findings)
        assert ["clock_skew"] == findings.notes

    def test_latency(self):
        """
        The way through the network is corrected like a clock, and is not worth a note.
        """
        findings = Findings()

        assert (NOON - 17, None) == event_time(NOON - 114, NOON - 97, NOON, findings)
        assert [] == findings.notes

    @pytest.mark.parametrize("sent_at", ["soon", NOON - 2 * MINUTE, None])
    def test_incredible_sent_at(self, sent_at):
        """
        A request that left before its event happened, or at no time at all, corrects nothing.
        """
        assert (NOON - MINUTE, None) == event_time(NOON - MINUTE, sent_at, NOON, Findings())


class TestAmount:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (142.52, "142.52"),
            ("142.52", "142.52"),
            ("142.520", "142.52"),
            ("142,52", "142.52"),
            ("1.000,50", "1000.5"),
            ("1,000.50", "1000.5"),
            ("1 000,50", "1000.5"),
            ("1\u202f234\u202f567,8", "1234567.8"),
            ("1'000.50", "1000.5"),
            ("1,000,000", "1000000"),
            ("1.000", "1"),
            (16.0, "16"),
            (16, "16"),
            (0, "0"),
            (0.0, "0"),
            (-0.0, "0"),
            ("-0.00", "0"),
            (-5, "-5"),
            (-5.5, "-5.5"),
            (".5", "0.5"),
            ("007.5", "7.5"),
            (1e-7, "0.0000001"),
            ("1e3", "1000"),
            (0.1 + 0.2, "0.30000000000000004"),
            (999999999999999, "999999999999999"),
            (100, "100"),
        ],
    )
    def test_canonical(self, value, expected):
        """
        One amount has one text, however it was written.
        """
        findings = Findings()

        assert expected == amount(value, findings)
        assert [] == findings.notes

    @pytest.mark.parametrize(
        "value",
        [
            "1,000",
            "1.000.50",
            "+33612345678",
            "+7",
            "12 EUR",
            "€12",
            "NaN",
            "Infinity",
            "--1",
            "1e99",
            "٣",
            "1_000",
            "0x10",
            "," * 60,
            True,
            1e21,
            10**15,
            -(10**15),
            1e15,
            float("nan"),
            float("inf"),
            [],
            {},
            "9" * 65,
        ],
    )
    def test_no_amount(self, value):
        """
        What is ambiguous, no number or beyond all money is dropped with a note.
        """
        findings = Findings()

        assert amount(value, findings) is None
        assert ["bad_value"] == findings.notes

    @pytest.mark.parametrize("value", [None, ""])
    def test_absent(self, value):
        """
        Nothing sent is nothing wrong.
        """
        findings = Findings()

        assert amount(value, findings) is None
        assert [] == findings.notes

    @given(st.decimals(min_value=-(10**12), max_value=10**12, places=2))
    def test_both_spellings(self, value):
        """
        A number and its text are one amount, and the canonical text is its own.
        """
        canonical = amount(str(value), Findings())

        assert canonical == amount(float(value), Findings())
        assert canonical == amount(canonical, Findings())


class TestWhole:
    @pytest.mark.parametrize(("value", "expected"), [(2, 2), ("2", 2), (2.0, 2), (" 3 ", 3), (-1, -1), (0, 0)])
    def test_whole(self, value, expected):
        """
        A count may come as text or as 2.0.
        """
        assert expected == whole(value, "quantity", Findings())

    @pytest.mark.parametrize("value", [1.5, "two", True, [], "²", "1" * 40])
    def test_bad(self, value):
        """
        What is no whole number is dropped with a note.
        """
        findings = Findings()

        assert whole(value, "quantity", findings) is None
        assert ["bad_value"] == findings.notes

    @pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, "9" * 20, 1e300])
    def test_out_of_range(self, value):
        """
        A number that JavaScript would change is named, for the event to be turned away.
        """
        findings = Findings()

        assert whole(value, "items.0.quantity", findings) is None
        assert "items.0.quantity" == findings.out_of_range


class TestPublicIp:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("8.8.8.8", "8.8.8.8"),
            (" 8.8.8.8 ", "8.8.8.8"),
            ("8.8.8.8:443", "8.8.8.8"),
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:8.8.8.8", "8.8.8.8"),
            ("2A00:1450:4007:80c::200e", "2a00:1450:4007:80c::200e"),
            ("[2a00:1450::1]:443", "2a00:1450::1"),
            ("2a00:1450::1%eth0", "2a00:1450::1"),
        ],
    )
    def test_public(self, value, expected):
        """
        One canonical text without port, brackets and zone.
        """
        assert expected == public_ip(value)

    @pytest.mark.parametrize(
        "value",
        [
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "fe80::1",
            "fc00::1",
            "::ffff:10.0.0.1",
            "ff02::1",
            "unknown",
            "",
            "8.8.8.8, 9.9.9.9",
            "8.8.8",
            "256.1.1.1",
            "08.8.8.8",
            "8.8.8.8\n1",
            "x" * 400,
            134744072,
            None,
        ],
    )
    def test_not_public(self, value):
        """
        No address, a list of them, or one that no visitor on the internet has.
        """
        assert public_ip(value) is None

    @pytest.mark.parametrize(
        "value", ["172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.167.1.1", "223.1.1.1"]
    )
    def test_neighbours(self, value):
        """
        The first address beyond a private range is public.
        """
        assert value == public_ip(value)


class TestUserAgent:
    def test_controls(self):
        """
        A header of ours can never be ended by a visitor's user agent.
        """
        assert "Mozilla X: y" == user_agent("Mozilla\r\nX: y\x00 ")

    def test_length(self):
        """
        512 characters tell every browser apart.
        """
        assert 512 == len(user_agent("x" * 10_000))

    @pytest.mark.parametrize("value", [None, 5, "", "\r\n", []])
    def test_none(self, value):
        """
        Nothing usable is nothing.
        """
        assert user_agent(value) is None


class TestClickIds:
    def test_query(self):
        """
        Every advertiser's parameter is found, whatever its case, and its value keeps its own.
        """
        url = "https://shop.example/?utm_source=x&ScCid=7b3a-AbC&fbclid=IwAR%2B1&GCLID=Cj0#ttclid=no"

        assert {"ScCid": "7b3a-AbC", "fbclid": "IwAR+1", "gclid": "Cj0"} == clicks_of(url)

    @pytest.mark.parametrize(
        "value", ["a%40example.com", "a@example.com", "%2B33612345678", "0612345678", "", "a b", "é"]
    )
    def test_not_a_click_id(self, value):
        """
        A click id is opaque: what may be a person's address or number is not kept.
        """
        assert {} == clicks_of(f"https://shop.example/?gclid={value}")

    @pytest.mark.parametrize("url", ["", "?", "https://shop.example", "https://shop.example/?&=&gclid"])
    def test_none(self, url):
        """
        No query, no click id.
        """
        assert {} == clicks_of(url)


class TestSameSite:
    @pytest.mark.parametrize(
        ("url", "other", "expected"),
        [
            ("https://shop.example/a", "http://SHOP.example:8080/?b", True),
            ("https://www.shop.example/", "https://shop.example", True),
            ("https://jane@shop.example/", "https://shop.example/", True),
            ("https://m.shop.example/", "https://shop.example/", False),
            ("https://shop.example.evil.example/", "https://shop.example/", False),
            ("https://pay.example/?https://shop.example/", "https://shop.example/", False),
            ("/a", "/a", False),
            (None, "https://shop.example/", False),
            ("https://", "https://", False),
        ],
    )
    def test_host(self, url, other, expected):
        """
        Two addresses are of one site by their host, with www or without; what has no host is of none.
        """
        assert same_site(url, other) is expected


class TestAttStatus:
    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            *(("authorized", True), ("Authorised", True), (3, True), ("3", True), (True, True), ("yes", True)),
            *(("denied", False), ("restricted", False), ("not-determined", False), ("notDetermined", False)),
            *((0, False), (1, False), (2, False), (False, False)),
            *(("perhaps", None), (4, None), (None, None), ([], None), (1.5, None)),
        ],
    )
    def test_apples_words(self, said, expected):
        """
        Only who was asked and has agreed may be tracked; 1 is Apple's number for restricted, and no yes.
        """
        assert att_status(said) is expected


class TestCookies:
    def test_header(self):
        """
        Partners' cookies are kept, the shop's session is not.
        """
        header = "_fbp=fb.1.1739044446636.1234567890; session=s3cret; _ga=GA1.1.12.34;_scid=7b3a; _ga_ABC123XYZ=GS1.1.5"

        assert {
            "_fbp": "fb.1.1739044446636.1234567890",
            "_ga": "GA1.1.12.34",
            "_scid": "7b3a",
            "_ga_ABC123XYZ": "GS1.1.5",
        } == cookies_of(header)

    def test_short_names(self):
        """
        The names that advertisers' interfaces use mean the cookies.
        """
        assert {"_fbp": "fb.1.2.3", "_scid": "x"} == named_cookies({"fbp": "fb.1.2.3", "sc_cookie1": "x", "other": "y"})

    def test_json_cookie(self):
        """
        X keeps percent-encoded JSON in its cookie, and an e-mail address in it is seen.
        """
        assert {"_twclid": "%7B%22twclid%22%3A%22a1%22%7D"} == cookies_of("_twclid=%7B%22twclid%22%3A%22a1%22%7D")
        assert {} == cookies_of("_twclid=%7B%22mail%22%3A%22a%40example.com%22%7D")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"data_processing_options": ["LMU"]}, True),
        ({"data_processing_options": "['lmu']"}, True),
        ({"data_processing_options": ["LDU"]}, True),
        ({"data_processing_options": []}, False),
        ({"data_use": ["lmu"]}, True),
        ({"us_privacy": "1YYN"}, True),
        ({"us_privacy": "1YNN"}, False),
        ({"limited_data_use": True}, True),
        ({"opt_out": "true"}, True),
        ({"opt_out": False}, False),
        ({"opt_out": {}}, False),
        ({}, False),
    ],
)
def test_opted_out(flags, expected):
    """
    Limited use may be asked for in Snap's, Meta's or the IAB's words.
    """
    assert expected == opted_out(flags)
