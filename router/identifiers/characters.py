"""Characters: what of a text counts, in any script."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final

FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_INVISIBLE: Final = frozenset({"Cf", "Zl", "Zp"})  # bidi marks, zero-width characters, separators


def _ascii_without(unwanted: Callable[[str], bool]) -> dict[int, None]:
    return {code: None for code in range(128) if unwanted(chr(code))}


_NO_MARKS: Final = _ascii_without(lambda char: not char.isalnum() and char != " ")
_NO_MARKS_OR_SPACES: Final = _ascii_without(lambda char: not char.isalnum())
_LETTERS: Final = _ascii_without(lambda char: not char.isalpha())
_DIGITS: Final = _ascii_without(lambda char: not char.isdigit())


def visible(text: str) -> str:
    """NFC, without bidi and zero-width characters, and without white space or controls at either end."""
    if not text.isascii():
        kept = (char for char in text if unicodedata.category(char) not in _INVISIBLE)
        text = unicodedata.normalize("NFC", "".join(kept))
    if not text.isprintable():
        text = text.strip(_CONTROLS)
    return text.strip()


_CONTROLS: Final = "".join(map(chr, [*range(0x21), *range(0x7F, 0xA1)]))


def _keep(text: str, table: dict[int, None], kinds: str) -> str:
    """What ``table`` leaves of ASCII; of other characters those whose Unicode category starts with one of ``kinds``."""
    if text.isascii():
        return text.translate(table)
    return "".join(
        char for char in text if (ord(char) not in table if char.isascii() else unicodedata.category(char)[0] in kinds)
    )


def words(text: str) -> str:
    """Letters and digits, one space between words."""
    return " ".join(_keep(text, _NO_MARKS, "LMNZ").split())


def joined(text: str) -> str:
    """Letters and digits alone."""
    return _keep(text, _NO_MARKS_OR_SPACES, "LMN")


def only_letters(text: str) -> str:
    """Letters with their accents."""
    return _keep(text, _LETTERS, "LM")


def only_digits(text: str) -> str:
    """Decimal digits of any script, as ASCII."""
    if text.isascii():
        return text.translate(_DIGITS)
    return "".join(str(unicodedata.decimal(char)) for char in text if char.isdecimal())
