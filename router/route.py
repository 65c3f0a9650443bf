"""Which events a destination is sent, and why not: sources, names, consent, conditions, the sender's own switches.

A rule is compiled once from a destination's common settings; ``decide`` then answers for one event, and ``explain``
gives every check in words. Pure. What a destination cannot express is its own refusal, not a matter of routing.

The words of ``match``: a table of field path = condition, all of which must hold. A bare value means ``eq``.
Paths are those of ``router.destination.field``. An absent field meets only ``ne``, ``not_in`` and ``exists = false``.
"""

from __future__ import annotations

import builtins
import difflib
import fnmatch
import math
import operator
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from router.destination import Destination, field
from router.event import Event

_DECIMAL_TEXT = re.compile(r"-?[0-9]{1,30}(?:\.[0-9]{1,30})?", re.ASCII)

Test = Callable[[Any], bool]


class Check(NamedTuple):
    """One check of one event, for people. ``words`` is the reason where ``ok`` is False."""

    name: str
    ok: bool
    words: str


class Part(NamedTuple):
    """One check, compiled: the reason to refuse an event, or None; and what to say of an event that passes."""

    name: str
    reason: Callable[[Event], str | None]
    passed: Callable[[Event], str]
    open: bool = False  # it can refuse nothing: ``decide`` leaves it out


@dataclass(frozen=True, slots=True)
class Rule:
    """One destination's settings, ready to decide. ``apart``: a condition is on what is kept apart from the event."""

    parts: tuple[Part, ...]
    reasons: tuple[Callable[[Event], str | None], ...]
    apart: bool


def compile(name: str, destination: Destination) -> Rule:  # noqa: A001 - used as route.compile, as re.compile is
    """The rule of the lane ``name``. ValueError, in plain words, for a condition that cannot be understood."""
    parts = (
        _source(frozenset(destination.sources)),
        _test(takes=bool(getattr(destination, "test_event_code", None))),
        _name(destination),
        _switch(name, kind := str(type(destination).__struct_config__.tag), getattr(destination, "title", kind)),
        _consent(destination.consent),
        *(_match(made) for path, wanted in destination.match.items() for made in conditions(path, wanted)),
    )
    apart = any(path.startswith("clear.") for path in destination.match)
    return Rule(parts, tuple(part.reason for part in parts if not part.open), apart)


def decide(rule: Rule, event: Event) -> str | None:
    """None: send it. Else the first reason not to, in plain words that repeat nothing personal."""
    for check in rule.reasons:
        if (reason := check(event)) is not None:
            return reason
    return None


def explain(rule: Rule, event: Event) -> list[Check]:
    """Every check, in the order in which ``decide`` makes them; the first that is not ok is its reason."""
    return [
        Check(part.name, ok=True, words=part.passed(event))
        if (reason := part.reason(event)) is None
        else Check(part.name, ok=False, words=reason)
        for part in rule.parts
    ]


def _source(sources: frozenset[str]) -> Part:
    return Part(
        "source",
        lambda event: None if not sources or event.source in sources else "not from one of its sources",
        lambda event: f'from source "{event.source}"',
        open=not sources,
    )


def _test(*, takes: bool) -> Part:
    """Test traffic goes only where the operator has set a partner's test code; it must not become a real conversion."""
    words = "sent as a test, with test_event_code" if takes else "not test traffic"
    return Part(
        "test",
        lambda event: None if event.test is None or takes else "test event, and no test_event_code is set there",
        lambda _: words,
        open=takes,
    )


def _name(destination: Destination) -> Part:
    theirs = _partner_names(destination)
    return Part(
        "event",
        lambda event: (
            None if theirs(event) is not None else f'"{event.name}" is not among the events of this destination'
        ),
        lambda event: f'"{event.name}" goes as "{theirs(event)}"',
        open=theirs is _own_name,
    )


def _own_name(event: Event) -> str:
    return event.name


def _partner_names(destination: Destination) -> Callable[[Event], str | None]:
    """The destination's own ``partner_name``, with the table made once where the method is the inherited one."""
    if type(destination).partner_name is not Destination.partner_name:
        return lambda event: _told(destination, event)
    if destination.events is None and not destination.default_events:
        return _own_name
    names = dict(destination.event_names())
    return lambda event: names.get(event.name)


def _told(destination: Destination, event: Event) -> str | None:
    """What the destination's own method says. A fault in it is one of the mapping, which ends this event and no other
    where its request is made.
    """
    try:
        return destination.partner_name(event)
    except Exception:  # noqa: BLE001 - whatever a partner's file raises
        return event.name


def _switch(lane: str, kind: str, title: str) -> Part:
    """Segment's ``integrations``: the lane's name, its type or the partner's before ``All``, which is on unless said.

    Segment compares its destinations' names by case; ours are not theirs, so neither case nor spaces are held against the
    sender, and a partner's name counts by its beginning as well: "Snapchat Conversions API" is Snapchat.
    """
    names = [_folded(lane), _folded(kind), _folded(title)]

    def reason(event: Event) -> str | None:
        if not event.routing:
            return None
        asked: dict[str, bool] = {}
        for key, on in event.routing.items():  # one name in two spellings: off wins
            folded = _folded(key)
            name = next((each for each in names if each == folded), None) or (
                names[-1] if folded.startswith(names[-1]) else folded
            )
            asked[name] = on and asked.get(name, True)
        decisive = next((name for name in (*names, "all") if name in asked), None)
        if decisive is None or asked[decisive]:
            return None
        said = "All" if decisive == "all" else dict(zip(names[::-1], (title, kind, lane), strict=True))[decisive]
        return f'the sender switched "{said}" off'

    return Part("routing", reason, lambda _: "not switched off by the sender")


def _folded(name: str) -> str:
    return "".join(name.casefold().split())


def _consent(needed: tuple[str, ...]) -> Part:
    """Every category must be granted and not denied as well: what contradicts itself is a no.

    Ids compare as they are. ``tcf2_3`` is purpose 3 of the IAB's framework and ``3`` a category of the sender's own;
    taking one for the other would invent a consent. Source: Commanders Act, "The consent object".
    """

    def reason(event: Event) -> str | None:
        consent = event.consent
        for category in needed:
            if category not in consent.granted or category in consent.denied:
                said = "was not granted" if consent.known else "is unknown: the event says nothing of consent"
                return f'consent "{category}" {said}'
        return None

    words = f"granted: {', '.join(needed)}" if needed else "none needed"
    return Part("consent", reason, lambda _: words, open=not needed)


def _match(condition: Condition) -> Part:
    read, test = _reader(condition.path), condition.test
    met, unmet = f"{condition.path} {condition.words}", f"it does not hold that {condition.path} {condition.words}"
    return Part("match", lambda event: None if test(read(event)) else unmet, lambda _: met)


# Conditions


class Condition(NamedTuple):
    """One condition of ``match``: ``words`` say what must hold, without the event's own value."""

    path: str
    words: str
    test: Test


def conditions(path: str, wanted: Any) -> list[Condition]:
    """What ``match`` says of one path, as conditions. ValueError, with what to write, where it cannot be understood."""
    if (wrong := unknown_field(path)) is not None:
        raise ValueError(wrong)
    if not isinstance(wanted, dict):
        wanted = {"eq": wanted}
    if not wanted:
        raise ValueError(f'"{path}" needs a condition, for example {{ exists = true }}')
    return [_condition(path, word, operand) for word, operand in wanted.items()]


def _condition(path: str, word: str, operand: Any) -> Condition:
    if word in _OPERATORS:
        words, make = _OPERATORS[word]
        if (test := make(operand)) is None:
            raise ValueError(f'"{path}": {word} needs {_NEEDS[word]}')
        return Condition(path, f"{words} {_shown(operand)}" if words else _presence(operand), test)
    if close := difflib.get_close_matches(word, _OPERATORS, n=1):
        raise ValueError(f'"{path}": unknown condition "{word}", did you mean "{close[0]}"?')
    if isinstance(operand, dict) or _FIELDS.get(path, {}) != {}:  # TOML reads properties.v = 1 as a table in a table
        raise ValueError(f'write the whole path in quotes: "{path}.{word}" = ...')
    raise ValueError(f'"{path}": unknown condition "{word}", there are {", ".join(_OPERATORS)}')


def _shown(operand: Any) -> str:
    return msgspec.json.encode(operand, enc_hook=str).decode()


def _presence(operand: Any) -> str:
    return "is present" if operand else "is absent"


def _equal(value: Any, operand: Any) -> bool:
    """Numbers by their value, also as decimal text ("142.52" is 142.52); text exactly; a truth value only to itself."""
    if isinstance(operand, bool) or isinstance(value, bool):
        return value is operand
    if isinstance(operand, str):
        return value == operand or (isinstance(value, int | float) and str(value) == operand)
    number = _number(value)
    return number is not None and number == _number(operand)


def _number(value: Any) -> Decimal | int | None:
    """A number, or decimal text, exactly; None for anything else, the infinities and exponents in text among it."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    return Decimal(value) if isinstance(value, str) and _DECIMAL_TEXT.fullmatch(value) else None


def _scalar(operand: Any) -> bool:
    return isinstance(operand, str | bool) or _number(operand) is not None


def _eq(operand: Any) -> Test | None:
    return (lambda value: _equal(value, operand)) if _scalar(operand) else None


def _ne(operand: Any) -> Test | None:
    return (lambda value: not _equal(value, operand)) if _scalar(operand) else None


def _in(operand: Any) -> Test | None:
    if not isinstance(operand, list) or not operand or not all(map(_scalar, operand)):
        return None
    return lambda value: any(_equal(value, one) for one in operand)


def _not_in(operand: Any) -> Test | None:
    inside = _in(operand)
    return None if inside is None else lambda value: not inside(value)


def _compared(holds: Callable[[Any, Any], bool]) -> Callable[[Any], Test | None]:
    def make(operand: Any) -> Test | None:
        if (limit := _number(operand)) is None:
            return None
        return lambda value: (number := _number(value)) is not None and holds(number, limit)

    return make


def _exists(operand: Any) -> Test | None:
    return (lambda value: (value is not None) is operand) if isinstance(operand, bool) else None


def _glob(operand: Any) -> Test | None:
    """Shell patterns, upper and lower case told apart. Not regular expressions: one slow pattern would stop a lane."""
    if not isinstance(operand, str):
        return None
    fits = re.compile(fnmatch.translate(operand)).match
    return lambda value: isinstance(value, str) and fits(value) is not None


def _contains(operand: Any) -> Test | None:
    """Text inside text, or a member of a list."""
    if not _scalar(operand):
        return None

    def holds(value: Any) -> bool:
        if isinstance(value, str):
            return isinstance(operand, str) and operand in value
        return isinstance(value, list | tuple) and any(_equal(one, operand) for one in value)

    return holds


_OPERATORS: Mapping[str, tuple[str, Callable[[Any], Test | None]]] = {
    "eq": ("is", _eq),
    "ne": ("is not", _ne),
    "in": ("is one of", _in),
    "not_in": ("is none of", _not_in),
    "gt": ("is more than", _compared(lambda number, limit: number > limit)),
    "gte": ("is at least", _compared(lambda number, limit: number >= limit)),
    "lt": ("is less than", _compared(lambda number, limit: number < limit)),
    "lte": ("is at most", _compared(lambda number, limit: number <= limit)),
    "exists": ("", _exists),
    "glob": ("looks like", _glob),
    "contains": ("contains", _contains),
}

_NEEDS: Mapping[str, str] = {
    **dict.fromkeys(("eq", "ne", "contains"), "one text, number or truth value; for several use in"),
    **dict.fromkeys(("in", "not_in"), 'a list with something in it: ["a", "b"]'),
    **dict.fromkeys(("gt", "gte", "lt", "lte"), "a number"),
    "exists": "true or false",
    "glob": 'a pattern in quotes: "job_*"',
}


# Paths


def unknown_field(path: str) -> str | None:
    """What is wrong with a path into an event, with the nearest that exists; None where nothing is.

    Only names that this program fixes are checked: below ``properties`` and the like the sender decides.
    """
    parts = path.split(".")
    known: Inside | None = _FIELDS
    for depth, part in enumerate(parts):
        if known is None:
            return None
        if not known:
            return f'unknown field "{path}" of an event: there is nothing inside {".".join(parts[:depth])}'
        name = _ANY if part.isdecimal() else part
        if name not in known:
            nearest = _nearest(part, known)
            hint = f', did you mean "{".".join([*parts[:depth], nearest, *parts[depth + 1 :]])}"?' if nearest else ""
            own = next((name for name, inside in known.items() if inside is None), None) if depth else None
            under = ".".join([*parts[:depth], own]) if own else "properties"
            return f'unknown field "{path}" of an event{hint or f": what senders add is under {under}"}'
        known = known[name]
    return None


def _nearest(part: str, known: Inside) -> str | None:
    """A name spelt nearly so, or the same name one table further in ("value" is "money.value")."""
    if close := difflib.get_close_matches(part, list(known), n=1):
        return close[0]
    return next((f"{name}.{part}" for name, inside in known.items() if part in (inside or ())), None)


_ANY = "0"  # stands for every place of a list
Inside = dict[str, Any]  # names, each with the names inside it: none in a text or number, None where the sender decides


def _inside(hint: Any) -> Inside | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return {name: _inside(each) for name, each in typing.get_type_hints(hint).items()}
    match typing.get_origin(hint):
        case builtins.dict:
            return None
        case builtins.tuple:
            return {_ANY: _inside(typing.get_args(hint)[0])}
    return {}


_FIELDS: Inside = _inside(Event) or {}


def _reader(path: str) -> Callable[[Event], Any]:
    """``field`` for one path, with the way through the event's own structs found beforehand: half the time."""
    parts, fixed = path.split("."), 0
    known: Inside | None = _FIELDS
    while fixed < len(parts) and known and _ANY not in known:
        known = known[parts[fixed]]
        fixed += 1
    own, rest = operator.attrgetter(".".join(parts[:fixed])), ".".join(parts[fixed:])
    return (lambda event: field(own(event), rest)) if rest else own
