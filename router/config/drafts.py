"""Drafts of tables with faults in them, so that one run can say what else is wrong.

A struct's own check (``__post_init__``) may count on fields that could not be read, and a draft is made without it. The
check is then asked about the draft, and what it says is believed only where it looked at no such field.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec


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


def complaint(struct: type[Any], made: Any, unsure: AbstractSet[str]) -> str | None:
    """What the struct's own check says of a draft; None where it needs one of the ``unsure`` fields for that."""
    check = getattr(struct, "__post_init__", None)
    try:
        if check is not None:
            check(_Sure(struct, made, unsure))
    except ValueError as error:
        return str(error)
    except (AttributeError, TypeError):  # it came to an unsure field, or wanted to set one
        return None
    return None


class _Sure:
    """A draft through which an unsure field cannot be read, not by the struct's own methods either."""

    def __init__(self, struct: type[Any], made: Any, unsure: AbstractSet[str]) -> None:
        self.__struct, self.__made, self.__unsure = struct, made, unsure

    def __getattr__(self, name: str) -> Any:
        if name in self.__unsure:
            raise AttributeError(name)
        if isinstance(method := getattr(self.__struct, name, None), types.FunctionType):
            return types.MethodType(method, self)
        return getattr(self.__made, name)
