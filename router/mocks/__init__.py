"""Fake partners: the other side of every destination and of every source that is fetched from.

They are for tests, for the demo and for ``turnout mock TYPE``.

A mock applies the rules its partner documents and refuses what the partner would refuse. It is written from the
partner's page alone and imports no destination, so that two readings of one page meet in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from router.mocks.partner import Partner


class _Partners(Mapping[str, type[Partner]]):
    """Type of destination -> its fake partner, imported when asked for."""

    _CLASSES: Mapping[str, str] = {
        "commandersact": "CommandersAct",
        "ipsnare": "IpSnare",
        "linktrace": "LinkTrace",
        "snap": "Snap",
        "webhook": "Webhook",
    }

    def __getitem__(self, name: str) -> type[Partner]:
        class_name = self._CLASSES[name]
        found: type[Partner] = getattr(import_module(f"router.mocks.{name}"), class_name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._CLASSES)

    def __len__(self) -> int:
        return len(self._CLASSES)


class _Sources(_Partners):
    """Type of source -> the fake partner that it is fetched from."""

    _CLASSES: Mapping[str, str] = {"snitcher": "Snitcher"}


PARTNERS: Mapping[str, type[Partner]] = _Partners()
SOURCES: Mapping[str, type[Partner]] = _Sources()
