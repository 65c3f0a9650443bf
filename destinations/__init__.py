"""The partners, one file each: what to send them and what their answers mean. No IO, no clock.

A destination may import the words, ``router.identifiers``, ``router.bots`` and ``router.destination`` only. To add
one: its file, its line here, its case files. Packages outside this repository use the entry-point group
``turnout.destinations``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points

from destinations.commandersact import CommandersAct
from destinations.ipsnare import IpSnare
from destinations.linktrace import LinkTrace
from destinations.snap import Snap
from destinations.webhook import Webhook
from router.destination import Destination

SHIPPED: tuple[type[Destination], ...] = (Snap, LinkTrace, IpSnare, CommandersAct, Webhook)


def registry() -> Mapping[str, type[Destination]]:
    """Every known destination by its type in TOML; the shipped ones win over a package's of the same name."""
    outside = (point.load() for point in entry_points(group="turnout.destinations"))
    return {str(each.__struct_config__.tag): each for each in (*outside, *SHIPPED)}
