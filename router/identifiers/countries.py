"""Countries, their subdivisions, and currencies: codes, from what people write.

Sources: ISO 3166 and ISO 4217 from pycountry, whose tables are read at the first question, or by ``load``.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from router.identifiers.characters import joined, visible

_REMEMBERED: Final = 8192

# What people write and ISO 3166 does not print: former and short names, the countries of the United Kingdom, the
# European Union's code for Greece, and the largest countries' own names.
_ALIASES: Final = {
    "GB": ("UK", "Great Britain", "Britain", "England", "Scotland", "Wales", "Northern Ireland"),
    "US": ("America", "The United States", "Estados Unidos", "États-Unis"),
    "GR": ("EL",),
    "AE": ("UAE",),
    "AT": ("Österreich",),
    "BE": ("Belgique", "België"),
    "BN": ("Brunei",),
    "BR": ("Brasil",),
    "CD": ("DR Congo", "DRC", "Congo-Kinshasa"),
    "CG": ("Congo-Brazzaville",),
    "CH": ("Schweiz", "Suisse", "Svizzera"),
    "CI": ("Ivory Coast",),
    "CV": ("Cape Verde",),
    "DE": ("Deutschland", "Allemagne"),
    "ES": ("España", "Espagne"),
    "FM": ("Micronesia",),
    "IT": ("Italia", "Italie"),
    "KR": ("Korea",),
    "MK": ("Macedonia",),
    "MM": ("Burma",),
    "MO": ("Macau",),
    "NL": ("Holland", "The Netherlands", "Nederland"),
    "PL": ("Polska",),
    "PS": ("Palestine",),
    "RU": ("Russia",),
    "SZ": ("Swaziland",),
    "TL": ("East Timor",),
    "TR": ("Turkey",),
    "VA": ("Vatican", "Vatican City"),
}


def _key(name: str) -> str:
    """A name without accents, marks, spaces and case, so that "Cote d'Ivoire" is Côte d’Ivoire."""
    if not name.isascii():
        name = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    return joined(name.casefold())


def _spellings(name: str) -> tuple[str, ...]:
    """Of "Korea, Republic of" also "Republic of Korea"; of "Holy See (Vatican City State)" also "Holy See"."""
    short = name.partition(" (")[0]
    head, comma, tail = short.partition(", ")
    return (name, short, f"{tail} {head}") if comma else (name, short)


@lru_cache(maxsize=1)
def _countries() -> Mapping[str, str]:
    import pycountry  # noqa: PLC0415 - 90 ms that only the first country pays

    table: dict[str, str] = {}
    for country in pycountry.countries:
        code = country.alpha_2
        names = (getattr(country, field, None) for field in ("name", "common_name", "official_name"))
        for name in names:
            for spelling in _spellings(name) if name else ():
                table.setdefault(_key(spelling), code)
    for code, aliases in _ALIASES.items():
        table.update((_key(alias), code) for alias in aliases)
    for country in pycountry.countries:
        table[country.alpha_2.lower()] = table[country.alpha_3.lower()] = country.alpha_2
    return table


@lru_cache(maxsize=1)
def _subdivisions() -> Mapping[str, Mapping[str, str]]:
    import pycountry  # noqa: PLC0415 - see _countries

    # Read from its file: as pycountry's own objects they are 6 MB that stay.
    with open(f"{pycountry.DATABASE_DIR}/iso3166-2.json", "rb") as file:  # noqa: PTH123 - no path beside this one
        parts = msgspec.json.decode(file.read(), type=dict[str, list[_Subdivision]])["3166-2"]
    table: dict[str, dict[str, str]] = {"US": {"washingtondc": "DC"}}
    for part in parts:
        country, _, code = part.code.partition("-")
        names = table.setdefault(country, {})
        names.setdefault(_key(part.name), code)
    for part in parts:  # codes last: no name may hide one
        country, _, code = part.code.partition("-")
        table[country][_key(code)] = table[country][_key(part.code)] = code
    return table


class _Subdivision(msgspec.Struct):
    code: str
    name: str


@lru_cache(maxsize=1)
def _currencies() -> frozenset[str]:
    import pycountry  # noqa: PLC0415 - see _countries

    return frozenset(money.alpha_3 for money in pycountry.currencies) - {"XXX", "XTS"}  # no currency, and a test's


@lru_cache(maxsize=_REMEMBERED)
def country_code(text: str) -> str | None:
    """ISO 3166-1 alpha-2 in upper case, from a code, an alpha-3 code, a name or a usual alias; else None."""
    return _countries().get(_key(visible(text)))


@lru_cache(maxsize=_REMEMBERED)
def subdivision(text: str, country: str) -> str | None:
    """The code of a part of a country (alpha-2), without the country's, from a code or a name; else None."""
    return _subdivisions().get(country.upper(), {}).get(_key(visible(text)))


def currency_code(text: str) -> str | None:
    """An ISO 4217 code in upper case, or None. Names and signs are not guessed: a dollar has many countries."""
    if text in _currencies():
        return text
    code = visible(text).upper()
    return code if code in _currencies() else None


def load() -> None:
    """Read the tables now."""
    _countries()
    _subdivisions()
    _currencies()


def forget() -> None:
    """Empty the memory of what was asked."""
    country_code.cache_clear()
    subdivision.cache_clear()
