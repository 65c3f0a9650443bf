"""Bots by their user agent, from the list that CrawlerDetect's people keep, where the extra ``bots`` is installed.

One answer costs 0.1 to 0.3 ms the first time, so the last ones are remembered. That memory is bounded, the process's
alone and written nowhere; ``forget`` empties it. Pure otherwise: no look-up leaves the machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

_REMEMBERED: Final = 8192  # user agents
# CrawlerDetect's time grows with the square of a word without a break: 18 ms for 500 letters, a minute for 32 000.
_LONGEST: Final = 512  # characters, the most that the door keeps of a user agent
_LONGEST_WORD: Final = 64


def is_bot(user_agent: str) -> bool | None:
    """Whether a program says that it is one. None where nobody can tell: the extra is not installed.

    Only what is at the beginning counts of an agent, and of a word in it, that no browser would send.
    """
    return _is_bot(" ".join(word[:_LONGEST_WORD] for word in user_agent[:_LONGEST].split(" ")))


def installed() -> bool:
    return _detector() is not None


def forget() -> None:
    """Empty the memory of user agents, as an erasure asks. The detector has one of its own, so it goes as well."""
    _is_bot.cache_clear()
    _detector.cache_clear()


@lru_cache(maxsize=_REMEMBERED)
def _is_bot(user_agent: str) -> bool | None:
    detector = _detector()
    return None if detector is None else bool(detector.is_crawler(user_agent))


@lru_cache(maxsize=1)
def _detector() -> Any:
    """CrawlerDetect, its list read; None without the extra."""
    try:
        from crawlerdetect import CrawlerDetect  # noqa: PLC0415 - an extra, and not for everybody
    except ImportError:
        return None
    return CrawlerDetect()
