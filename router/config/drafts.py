"""Drafts of tables with faults in them, so that one run can say what else is wrong.

A struct's own checks (``complaints``, ``__post_init__``) may count on fields that could not be read, and a draft is made
without them. They are then asked about the draft, and what they say is believed only where they looked at no such field.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from router.destination import Complaint

_FIRST_WORD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def broken(error: BaseException) -> tuple[str, str]:
    """What to say where a check itself fails."""
    return f"the check of this type fails ({type(error).__name__})", "report it to whoever wrote the type"


def draft(struct: type[msgspec.Struct], given: Mapping[str, Any]) -> Any:
    """``struct`` with these fields, and without its own check."""
    return _unchecked(struct)(**given)


@functools.cache  # the same draft after a reload is of the same type, so it compares as equal
def _unchecked(struct: type[msgspec.Struct]) -> type[Any]:
    if not hasattr(struct, "__post_init__"):
        return struct
    return msgspec.defstruct(
        struct.__name__,
        (),
        bases=(struct,),
        namespace={"__post_init__": lambda _: None, "__module__": struct.__module__},
        tag=struct.__struct_config__.tag,
        frozen=True,
        kw_only=True,
    )


def complaints(struct: type[Any], made: Any, unsure: AbstractSet[str]) -> list[Complaint]:
    """What the struct's own checks say of a draft, as far as they need none of the ``unsure`` fields for that."""
    sure = _Sure(struct, made, unsure)
    ask = getattr(struct, "complaints", None)
    found = [] if ask is None else list(_heard(functools.partial(ask, sure)))
    if (said := _refusal(struct, sure)) is not None and not any(said.words == one.words for one in found):
        found.append(said)
    return found


def _heard(ask: Callable[[], Any]) -> Iterator[Any]:
    """What ``ask`` gives, up to where it comes to an unsure field."""
    try:
        yield from ask()
    except (AttributeError, TypeError):
        return
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a partner's file raises
        yield Complaint((), *broken(error))


def _refusal(struct: type[Any], sure: _Sure) -> Complaint | None:
    """What ``__post_init__`` raises. Where its words begin with the name of a setting, they are about that one."""
    check = getattr(struct, "__post_init__", None)
    try:
        if check is not None:
            check(sure)
    except ValueError as error:
        words, first = str(error), _FIRST_WORD.match(str(error))
        about = (first[0],) if first is not None and first[0] in struct.__struct_encode_fields__ else ()
        return Complaint(about, words, "")
    except (Exception, SystemExit):  # noqa: BLE001 - it came to an unsure field, or wanted to set one
        return None
    return None


class _Sure:
    """A draft through which an unsure field cannot be read, not by the struct's own methods either.

    A generator method that comes to one ends there, and whoever asked it goes on.
    """

    def __init__(self, struct: type[Any], made: Any, unsure: AbstractSet[str]) -> None:
        self.__struct, self.__made, self.__unsure = struct, made, unsure

    def __getattr__(self, name: str) -> Any:
        if name in self.__unsure:
            raise AttributeError(name)
        if isinstance(method := getattr(self.__struct, name, None), types.FunctionType):
            bound = types.MethodType(method, self)
            if inspect.isgeneratorfunction(method):
                return lambda *given: _heard(functools.partial(bound, *given))
            return bound
        return getattr(self.__made, name)
