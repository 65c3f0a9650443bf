"""The partners, one file each: what to send them and what their answers mean. No IO, no clock.

A destination may import the words, ``router.identifiers``, ``router.bots`` and ``router.destination`` only. To add
one: its file, its line here, its case files. Packages outside this repository use the entry-point group
``turnout.destinations``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from destinations.commandersact import CommandersAct
from destinations.ipsnare import IpSnare
from destinations.linktrace import LinkTrace
from destinations.snap import Snap
from destinations.webhook import Webhook
from router.destination import Complaint, Destination, unfit

SHIPPED: tuple[type[Destination], ...] = (Snap, LinkTrace, IpSnare, CommandersAct, Webhook)


class Known(NamedTuple):
    """Destinations by their type in TOML; and what is wrong with packages that cannot be used, by their entry points."""

    types: Mapping[str, type[Destination]]
    unusable: Mapping[str, Complaint]


def known() -> Known:
    """Those of other packages too; the shipped ones win over a package's of the same name."""
    points = [(point.name, _loaded(point)) for point in entry_points(group="turnout.destinations")]
    outside = [found for _, found in points if not isinstance(found, Complaint)]
    return Known(
        {str(each.__struct_config__.tag): each for each in (*outside, *SHIPPED)},
        {name: found for name, found in points if isinstance(found, Complaint)},
    )


def registry() -> Mapping[str, type[Destination]]:
    """Every destination that can be used, by its type in TOML."""
    return known().types


def _loaded(point: EntryPoint) -> type[Destination] | Complaint:
    """The class; where it is none that can be used, what to do. Nothing in a package may end whoever asks."""
    package = (point.dist.name if point.dist is not None else None) or point.value
    module, _, name = point.value.partition(":")  # point.module raises where there is no such form
    try:
        kind: type[Destination] = point.load()
        wrong = unfit(kind)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may do anything while it is imported
        words = f"the package {package} cannot be loaded ({type(error).__name__})"
        why = f"python -c 'from {module} import {name or '*'}'"
        return Complaint((), words, f"mend it, or uninstall it; {why} shows what is wrong")
    if wrong is not None:
        words = f"the package {package} cannot be used: {name or module}{wrong}"
        return Complaint((), words, "correct the class, or uninstall the package")
    return kind
