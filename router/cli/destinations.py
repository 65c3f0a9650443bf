"""``turnout destinations``: the partners and every setting of theirs, made from the structs that read the settings."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union

import click
import msgspec

import destinations
from router.cli import USAGE
from router.cli.options import json_option
from router.cli.output import line, table
from router.config import bare_pattern, description, suggestion, takes_secret
from router.destination import Destination
from router.terminal import escaped

_COMMON = frozenset(field.name for field in msgspec.structs.fields(Destination))


class Setting(msgspec.Struct, frozen=True):
    """One key of a destination's table, as the reference shows it."""

    name: str
    required: bool
    secret: bool
    common: bool  # every destination takes it
    form: str
    default: Any
    limits: str
    description: str


class Partner(msgspec.Struct, frozen=True):
    """One type of destination. The keys are those of ``--json``."""

    type: str
    title: str
    docs: str
    home: str
    max_batch: int
    batch: int
    rate: str | None
    window: str | None
    monthly_quota: int | None
    dedup_key: str
    identifiers: tuple[str, ...]
    clear: tuple[str, ...]
    test_endpoint: str | None
    events: dict[str, str] | None
    settings: tuple[Setting, ...]


@click.command("destinations")
@click.argument("kind", metavar="[TYPE]", required=False)
@json_option
def command(kind: str | None, as_json: bool) -> None:
    """The destination types; with TYPE, every setting of that one."""
    known, unusable = destinations.known()
    for said in unusable.values():
        click.echo(f"{escaped(said.words)}: {escaped(said.help)}.", err=True)
    if kind is not None and kind not in known:
        if kind not in unusable:
            click.echo(f"There is no such destination type, {suggestion(kind, known)}", err=True)
        sys.exit(USAGE)
    chosen = [partner(name, known[name]) for name in ([kind] if kind else sorted(known))]
    if as_json:
        for one in chosen:
            line(one)
    elif kind:
        _show(chosen[0])
    else:
        table(("TYPE", "PARTNER", "BATCH", "TAKES EVENTS OF", "RESENDS KNOWN BY", "NEEDS"), map(_row, chosen))


def _row(one: Partner) -> tuple[object, ...]:
    needs = ", ".join(setting.name for setting in one.settings if setting.required)
    return one.type, one.title, one.max_batch, one.window or "any age", one.dedup_key, needs


def _show(one: Partner) -> None:
    facts = {
        one.type: one.title,
        "described at": one.docs,
        "events in one request": f"{one.batch}, {one.max_batch} at most",
        "requests": f"{one.rate} at most" if one.rate else "as many as it answers",
        "takes events of": f"the last {one.window}" if one.window else "any age",
        "events in a calendar month": f"{one.monthly_quota} at most" if one.monthly_quota else "any number",
        "knows a resend by": one.dedup_key,
        "can be matched by": ", ".join(one.identifiers) or "nothing",
        "is given in clear": ", ".join(one.clear) or "nothing",
        "its own check of an event": one.test_endpoint or "none",
        "events": ", ".join(f"{ours} ({theirs})" for ours, theirs in one.events.items()) if one.events else "all",
    }
    for name, value in facts.items():
        click.echo(escaped(f"{name}: {value}"))
    click.echo()
    own = [setting for setting in one.settings if not setting.common]
    common = [setting for setting in one.settings if setting.common]
    table(("SETTING", "FORM", "DEFAULT", "LIMITS", "DESCRIPTION"), map(setting_row, [*own, *common]))


def setting_row(setting: Setting) -> tuple[str, ...]:
    given = "-" if setting.default is None else msgspec.json.encode(setting.default).decode()
    return setting.name, setting.form, "(required)" if setting.required else given, setting.limits, setting.description


def _general(kind: type[Destination]) -> dict[str, object]:
    """What the class gives where a setting that every destination takes is left out."""
    return {
        "base_url": getattr(kind, "home", None) or None,
        "rate": kind.default_rate,
        "concurrency": kind.default_concurrency,
        "batch": kind.default_batch,
        "timeout": kind.default_timeout,
        "max_age": kind.window,
    }


def partner(name: str, kind: type[Destination]) -> Partner:
    """What the class says of itself, as data."""
    return Partner(
        type=name,
        title=kind.title,
        docs=kind.docs,
        home=getattr(kind, "home", ""),
        max_batch=kind.max_batch,
        batch=kind.default_batch,
        rate=kind.default_rate,
        window=kind.window,
        monthly_quota=kind.monthly_quota,
        dedup_key=kind.dedup_key,
        identifiers=tuple(kind.identifiers),
        clear=tuple(sorted(kind.clear)),
        test_endpoint=kind.test_endpoint,
        events=dict(kind.default_events) if kind.default_events else None,
        settings=tuple(setting_of(field, _general(kind)) for field in msgspec.structs.fields(kind)),
    )


def setting_of(field: msgspec.structs.FieldInfo, general: Mapping[str, object]) -> Setting:
    """One key as the reference shows it; ``general`` has the defaults that a class gives in place of None."""
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if field.required:
        default = None
    elif default is None:
        default = general.get(field.name)
    return Setting(
        name=field.encode_name,
        required=field.required,
        secret=takes_secret(field.type),
        common=field.name in _COMMON,
        form=" or ".join(dict.fromkeys(_forms(field.type))),
        default=msgspec.to_builtins(default, enc_hook=str),
        limits=", ".join(dict.fromkeys(_limits(field.type))),
        description=description(field.type) or "",
    )


_FORMS: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def _forms(hint: Any) -> Iterator[str]:
    """The forms a value may have, in words."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if takes_secret(hint) and not inside:
        yield "secret reference"
    elif origin is Annotated:
        yield from _forms(inside[0])
    elif origin is Literal:
        yield " or ".join(msgspec.json.encode(value).decode() for value in inside)
    elif origin in {Union, types.UnionType}:
        for one in inside:
            if one is not types.NoneType:
                yield from _forms(one)
    elif origin in {tuple, list, frozenset}:
        yield f"list of {' or '.join(_forms(inside[0]))}"
    elif origin is dict:
        yield f"table of {' or '.join(_forms(inside[1]))}"
    else:
        yield _FORMS.get(hint, "table")


def _looks(pattern: str) -> Iterator[str]:
    """A pattern where it is simple enough for people; else turnout check has to do."""
    if not {"\\", "("} & set(shown := bare_pattern(pattern)):
        yield f"looks like {shown}"


_SIGNS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "multiple_of": "a multiple of {}"}


def _limits(hint: Any) -> Iterator[str]:
    """What ``Meta`` demands, at any depth."""
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta):
            for name, words in _SIGNS.items():
                if (limit := getattr(meta, name)) is not None:
                    yield words.format(limit)
            if meta.pattern is not None:
                yield from _looks(meta.pattern)
            if meta.min_length is not None:
                yield f"at least {meta.min_length} long"
            if meta.max_length is not None:
                yield f"at most {meta.max_length} long"
    for inside in typing.get_args(hint):
        if not isinstance(inside, str):
            yield from _limits(inside)
