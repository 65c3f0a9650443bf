"""Bots: what CrawlerDetect says of a user agent, remembered, bounded, and nothing where it is not installed."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import bots, door

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Mobile/15E148 Safari/604.1"
)


@pytest.fixture
def not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "crawlerdetect", None)
    bots.forget()
    yield
    bots.forget()


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
        "curl/8.5.0",
        "python-requests/2.32",
    ],
)
def test_says_so_of_programs(agent):
    """
    Crawlers, headless browsers and command-line clients are bots.
    """
    assert bots.is_bot(agent) is True


@pytest.mark.parametrize("agent", [CHROME, IPHONE, "", "   "])
def test_does_not_say_so_of_people(agent):
    """
    Browsers, and an agent that says nothing, are not.
    """
    assert bots.is_bot(agent) is False


def test_nobody_can_tell_without_the_extra(not_installed):
    """
    Without the extra the answer is neither yes nor no.
    """
    assert (None, False) == (bots.is_bot("curl/8.5.0"), bots.installed())


def test_is_installed_with_it():
    """
    With the extra there is a detector.
    """
    assert bots.installed()


def test_forgets_with_the_door():
    """
    An erasure leaves no user agent behind, here or in the detector.
    """
    bots.is_bot(CHROME)
    detector = bots._detector()

    door.forget()

    assert 0 == bots._is_bot.cache_info().currsize
    assert detector is not bots._detector()


@given(st.text("aB-_ /(;", max_size=4000) | st.text(max_size=200))
def test_answers_whatever_it_is_asked(agent):
    """
    Any text has an answer, and only what a browser could send of it is looked at and remembered.
    """
    bots.forget()

    assert bots.is_bot(agent) in {True, False}
    assert bots.is_bot(agent[:512]) == bots.is_bot(agent)
    assert 1 == bots._is_bot.cache_info().currsize


def test_a_word_without_end_costs_little():
    """
    What takes the detector a minute by itself is not given to it whole.
    """
    bots.forget()
    given_whole: list[str] = []
    detector = bots._detector()
    detector.is_crawler, asked = given_whole.append, detector.is_crawler

    try:
        bots.is_bot("a" * 32_000)
        bots.is_bot(" ".join(["word"] * 1000))
    finally:
        detector.is_crawler = asked
        bots.forget()

    assert ["a" * 64, 512] == [given_whole[0], len(given_whole[1])]
