"""When to try again: pure functions of the attempt, the partner's Retry-After and a random number.

Source: the vendors' retry pages and RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import datetime as dt
import re
from email.utils import parsedate_to_datetime

FIRST_WAIT = 1.0  # seconds
LONGEST_WAIT = 900.0
LONGEST_RETRY_AFTER = 86_400.0

_SECONDS = re.compile(r"[0-9]{1,7}", re.ASCII)
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", re.ASCII)


def delay(attempts: int, chance: float) -> float:
    """Seconds to wait after ``attempts`` failed tries: factor 2 from 1 s, capped at 15 min, with full jitter.

    ``chance`` is uniform in [0, 1). Full jitter spreads a crowd best (AWS Architecture Blog, "Exponential Backoff And
    Jitter"); the floor of 50 ms keeps an unlucky draw from hammering.
    """
    ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 20))
    return max(0.05, ceiling * chance)


def retry_after(value: str | None, now: int) -> float | None:
    """Seconds that a Retry-After header asks for, within 1 s to 24 h, or None where it cannot be read.

    Only ASCII digits and an IMF-fixdate count: Python's own int() and float() would take "1e9", "inf" and Arabic
    digits for a wait. ``now`` is UTC ms.
    """
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        wait = float(value)
    elif _HTTP_DATE.fullmatch(value):
        try:
            wait = parsedate_to_datetime(value).astimezone(dt.UTC).timestamp() - now / 1000
        except ValueError:
            return None
    else:
        return None
    return min(max(wait, 1.0), LONGEST_RETRY_AFTER)
