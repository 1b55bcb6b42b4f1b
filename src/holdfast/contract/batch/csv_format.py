"""How a sender writes the values of a CSV file: what a feed declares, so that no reader guesses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from holdfast.errors import InputError
from holdfast.field_types import checked

SEPARATORS: Final = (",", ";", "\t", "|")
DATES: Final = {
    "yyyy-mm-dd": "-",
    "yyyy/mm/dd": "/",
    "yyyymmdd": "",
    "d.m.yyyy": ".",
    "d/m/yyyy": "/",
    "m/d/yyyy": "/",
    "d-m-yyyy": "-",
    "m-d-yyyy": "-",
}
"""The orders of a date that can be declared, with what stands between its parts. A year has four digits."""

THOUSANDS: Final = (".", ",", " ", "'", "\u2019", "\u00a0", "\u202f")
"""What may stand between groups of three digits: the last three are the right apostrophe and the two no-break spaces."""

TRUE: Final = ("true", "1", "1.0")
FALSE: Final = ("false", "0", "0.0")

_PARTS: Final = {"yyyy": r"(?<y>[0-9]{4})", "mm": r"(?<m>[0-9]{2})", "dd": r"(?<d>[0-9]{2})"} | {
    "m": r"(?<m>[0-9]{1,2})",
    "d": r"(?<d>[0-9]{1,2})",
}


@dataclass(frozen=True, slots=True)
@checked("dates", "true", "false")
class Csv:
    r"""The form of a feed's CSV files. What is not of this form is a fault of its row: nothing is guessed.

    Parameters
    ----------
    separator
        What stands between two values: ',', ';', a tab or '|'.
    decimal
        What stands before the decimals of a number: '.' or ','.
    thousands
        What stands between groups of three digits: '.', ',', a blank, an apostrophe or a no-break space; empty if nothing does.
        A number may then be written with all of its groups, or with none: '1,234.5' and '1234.5'.
    dates
        Further forms of timestamps, each the order of a date: 'yyyy-mm-dd', 'yyyy/mm/dd', 'yyyymmdd', 'd.m.yyyy',
        'd/m/yyyy', 'm/d/yyyy', 'd-m-yyyy' or 'm-d-yyyy'; days and months have one digit or two. A time may follow after a
        blank or 'T', with or without seconds, and an offset after the time; a date alone is midnight. Timestamps of
        RFC 3339 are read always.
    true, false
        The words of a boolean, in any case of letters.

    Raises `InputError` HF106 on a form that cannot be, and on two that read one text in two ways.

    >>> Csv(separator=";", decimal=",", dates=("d.m.yyyy",), true=("ja",), false=("nein",)).separator
    ';'
    """

    separator: str = ","
    decimal: str = "."
    thousands: str = ""
    dates: tuple[str, ...] = ()
    true: tuple[str, ...] = TRUE
    false: tuple[str, ...] = FALSE

    def __post_init__(self) -> None:
        if self.separator not in SEPARATORS:
            raise _refused(f"separator is one of {', '.join(map(repr, SEPARATORS))}, not {self.separator!r}")
        if self.decimal not in {".", ","}:
            raise _refused(f"decimal is '.' or ',', not {self.decimal!r}")
        if self.thousands not in {"", *THOUSANDS} or self.thousands == self.decimal:
            listed = ", ".join(map(repr, THOUSANDS))
            raise _refused(
                f"thousands is empty or one of {listed}, other than decimal, not {self.thousands!r}"
            )
        for name in ("dates", "true", "false"):
            words: object = getattr(self, name)
            if not isinstance(words, (tuple, list)) or not all(isinstance(word, str) for word in words):
                raise _refused(f"{name} is a tuple of texts, not {words!r}")
            object.__setattr__(self, name, tuple(words))
        self._check_dates()
        true, false = ({word.lower() for word in words} for words in (self.true, self.false))
        if not true or not false or true & false or "" in true | false:
            raise _refused("true and false are words of their own, and none of them is empty")

    def _check_dates(self) -> None:
        for date in self.dates:
            if date not in DATES:
                raise _refused(f"dates are written as {', '.join(DATES)}, not as {date!r}")
        for one, other in combinations(sorted(set(self.dates)), 2):
            if is_ambiguous(one, other):
                raise _refused(f"a date cannot be both {one} and {other}")


def is_ambiguous(one: str, other: str) -> bool:
    """Return True if one text can be a date of two different orders.

    >>> is_ambiguous("d/m/yyyy", "m/d/yyyy"), is_ambiguous("d/m/yyyy", "yyyy/mm/dd"), is_ambiguous("", "d/m/yyyy")
    (True, False, False)
    """
    if one == other or one not in DATES or other not in DATES:
        return False
    return DATES[one] == DATES[other] and one.startswith("yyyy") == other.startswith("yyyy")


def number_pattern(csv: Csv) -> str:
    r"""Return the pattern of a number with groups of three digits; empty if `csv` has none.

    >>> number_pattern(Csv(thousands=",")), number_pattern(Csv())
    ('^[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\\.[0-9]*)?$', '')
    """
    if not csv.thousands:
        return ""
    return f"^[+-]?[1-9][0-9]{{0,2}}(?:{re.escape(csv.thousands)}[0-9]{{3}})+(?:{re.escape(csv.decimal)}[0-9]*)?$"


def date_pattern(date: str) -> str:
    r"""Return the pattern of a date of `DATES`, with its parts as the groups y, m and d.

    >>> date_pattern("d.m.yyyy")
    '(?<d>[0-9]{1,2})\\.(?<m>[0-9]{1,2})\\.(?<y>[0-9]{4})'
    """
    return "".join(_PARTS.get(part, re.escape(part)) for part in re.findall("y+|m+|d+|.", date))


def _refused(reason: str) -> InputError:
    return InputError("HF106", f"csv: {reason}")
