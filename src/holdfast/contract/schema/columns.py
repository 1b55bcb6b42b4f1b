"""The column types of a row, and what each guarantees.

A declaration that contradicts itself fails here, with HF104, before any row is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

from holdfast.contract.schema.missing import REJECT, Constant, Keep, Mean, Median, Missing, Reject, as_policy
from holdfast.contract.schema.timestamps import EARLIEST_US, LATEST_US, read_timestamp
from holdfast.errors import InputError
from holdfast.field_types import checked, is_unicode
from holdfast.records import NAME, check_name, duration, microseconds

EXACT: Final = 2**53
"""Integers up to this magnitude are exact in double precision, in which models compute (IEEE 754)."""

_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*\Z")

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")

_NOT_PLACES: Final = ("Factory", "localtime", "posixrules")
"""Files of the zone database that name no place, or a different one on each machine."""


def _column_error(name: str, why: str) -> InputError:
    return InputError("HF104", f"column {name!r}: {why}")


def _check_bounds(name: str, low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise _column_error(name, f"low {low} is above high {high}, so no value is valid")


def _check_unit(name: str, unit: object) -> None:
    if not isinstance(unit, str) or not unit.strip():
        raise _column_error(name, "a number needs its unit; write '1' for none")


def _check_column(column: Column) -> None:
    """Check what all columns declare, and resolve the shorthand of the missing policy."""
    check_name(column.name, "column")
    semantic: object = column.semantic
    if semantic is not None and (not isinstance(semantic, str) or not NAME.match(semantic)):
        raise _column_error(
            column.name,
            f"semantic is a word such as 'postal_code', of a-z, 0-9, '_' and '-', not {semantic!r}",
        )
    object.__setattr__(column, "missing", as_policy(column.missing))


def _check_window(column: Number | Integer) -> None:
    """Write the window in one form, so that "5min" and "300s" are one window, and one hash."""
    if column.window is None:
        return
    try:
        span = duration(column.window, "window")
    except InputError as error:
        raise _column_error(column.name, error.what) from error
    if span <= timedelta(0):
        raise _column_error(column.name, f"the window must be positive, not {column.window!r}")
    object.__setattr__(column, "window", window_text(span))


def window_text(span: timedelta) -> str:
    """Return the one form of a window.

    >>> window_text(timedelta(minutes=5)), window_text(timedelta(milliseconds=250))
    ('300s', '250ms')
    """
    milliseconds = span / timedelta(milliseconds=1)
    return f"{milliseconds:.0f}ms" if milliseconds % 1000 else f"{milliseconds / 1000:.0f}s"


def _check_not_replaced(column: Timestamp | Label) -> None:
    if not isinstance(column.missing, (Reject, Keep)):
        kind = type(column).__name__.lower()
        raise _column_error(column.name, f"a missing {kind} can be rejected or kept, not replaced")


CATEGORY_CHARACTERS: Final = 1024
"""The longest word of a category that is not declared, in Unicode characters. Words are logged, collected and compared."""


@dataclass(frozen=True, slots=True)
@checked()
class Number:
    """A finite real number in a stated unit (R21, R22).

    Parameters
    ----------
    unit
        "mi", "min", "degF", "USD"; "1" for a pure number. Part of the contract's hash: a feed that changes
        from miles to kilometres has another contract.
    low, high
        Inclusive bounds; None is no bound.
    missing
        `Reject` (default), `Constant`, `Median`, `Mean` or `Keep`, or the shorthand of one.
    semantic
        The meaning of the values, in a word that producer and consumer share: "postal_code", "price". It is
        compared with the metadata of sources and callers, so a zip code renamed to cost is refused.
    window
        How much time one value is computed over, such as "5min", where senders or callers aggregate; None if it is
        of one timestamp, or unknown. It is compared like the semantic: a mean over 10 seconds is not one over 5 minutes.
    """

    name: str
    unit: str
    low: float | None = None
    high: float | None = None
    missing: Missing | str = REJECT
    semantic: str | None = None
    window: str | None = None

    def __post_init__(self) -> None:
        _check_column(self)
        _check_unit(self.name, self.unit)
        _check_window(self)
        for end in ("low", "high"):
            object.__setattr__(self, end, self._finite(getattr(self, end)))
        _check_bounds(self.name, self.low, self.high)
        if isinstance(self.missing, Constant):
            value = self._finite(self.missing.value)
            if value is None or not _is_within(value, self.low, self.high):
                raise _column_error(
                    self.name, f"the constant {self.missing.value!r} breaks the column's own range"
                )
            object.__setattr__(self, "missing", replace(self.missing, value=value))

    def _finite(self, value: object) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
            raise _column_error(
                self.name, f"{_format_number(value)} is not a finite number of double precision"
            )
        return float(value) + 0.0  # -0.0 and 0 hash like 0.0


@dataclass(frozen=True, slots=True)
@checked()
class Integer:
    """A whole number of magnitude up to 2**53. Beyond it, double precision merges neighbouring integers.

    A model computes in float32: training refuses whole numbers above 2**24 that a feature would merge.

    `unit`, `low`, `high`, `missing`, `semantic` and `window` are as in `Number`.
    """

    name: str
    unit: str = "1"
    low: int | None = None
    high: int | None = None
    missing: Missing | str = REJECT
    semantic: str | None = None
    window: str | None = None

    def __post_init__(self) -> None:
        _check_column(self)
        _check_unit(self.name, self.unit)
        _check_window(self)
        for end in (self.low, self.high):
            if end is not None and not self._exact(end):
                raise _column_error(self.name, f"{end!r} is not a whole number of at most 2**53")
        _check_bounds(self.name, self.low, self.high)
        if isinstance(self.missing, Constant):
            value = self.missing.value
            if not self._exact(value) or not _is_within(value, self.low, self.high):
                raise _column_error(self.name, f"the constant {value!r} is not a valid value of the column")

    @staticmethod
    def _exact(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= EXACT


@dataclass(frozen=True, slots=True)
@checked()
class Category:
    """One of few words (R25). The empty string is missing; any other text, NUL and emoji included, is a word.

    A word that is not declared has at most `CATEGORY_CHARACTERS` characters; a longer one is the reason `too_long`.

    Parameters
    ----------
    values
        The known words; None takes those of the training snapshot.
    unseen
        "other" accepts an unknown word and encodes it as one common category. "reject" makes it the reason
        `unseen`, and needs `values`.
    missing, semantic
        As in `Number`, without median and mean.
    aliases
        Other words for known ones, such as `{"NYC": "New York"}`. Each is read as its word before anything is checked, in
        deliveries of every kind and in requests; what is kept as received keeps the alias. An alias is no word itself, and
        what it stands for is one of `values`, where they are declared.
    """

    name: str
    values: tuple[str, ...] | None = None
    unseen: Literal["other", "reject"] = "other"
    missing: Missing | str = REJECT
    semantic: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_column(self)
        if self.unseen not in ("other", "reject"):
            raise _column_error(self.name, f"unseen is 'other' or 'reject', not {self.unseen!r}")
        if self.values is None:
            if self.unseen == "reject":
                raise _column_error(self.name, "unseen='reject' needs values")
        else:
            self._check_values(self.values)
            object.__setattr__(self, "values", tuple(self.values))
        _check_word_policy(self.name, self.missing)
        self._check_aliases()
        # In one order, so that equal aliases are written alike.
        object.__setattr__(self, "aliases", dict(sorted(self.aliases.items())))

    @property
    def longest(self) -> int:
        """Return how many characters a word may have."""
        return max(CATEGORY_CHARACTERS, *map(len, (*(self.values or ()), *self.aliases)), 0)

    def _check_aliases(self) -> None:
        for alias, word in self.aliases.items():
            for text in (alias, word):
                if not text or not is_unicode(text):
                    raise _column_error(
                        self.name, f"the alias {alias!r} of {word!r}: both must be a text that is not empty"
                    )
            if alias == word or alias in (self.values or ()):
                raise _column_error(self.name, f"the alias {alias!r} of {word!r} is a word itself")
            if word in self.aliases:
                raise _column_error(self.name, f"the alias {alias!r} stands for {word!r}, which is an alias")
            if self.values is not None and word not in self.values:
                raise _column_error(
                    self.name, f"the alias {alias!r} stands for {word!r}, which is not one of its values"
                )
        if isinstance(self.missing, Constant) and self.missing.value in self.aliases:
            raise _column_error(self.name, f"the constant {self.missing.value!r} is an alias")

    def _check_values(self, values: object) -> None:
        if isinstance(values, str) or not isinstance(values, (tuple, list)) or not values:
            raise _column_error(self.name, "values must be a tuple of at least one word")
        if any(not isinstance(value, str) or not value or not is_unicode(value) for value in values):
            raise _column_error(self.name, "every value must be a text that is not empty")
        if len(set(values)) != len(values):
            raise _column_error(self.name, "a value is listed twice")


@dataclass(frozen=True, slots=True)
@checked("low", "high")
class Timestamp:
    """A point in time, displayed in a stated time zone (R23).

    Parameters
    ----------
    tz
        An IANA zone such as "America/New_York". There is no default: a guessed zone puts a model off by hours.
    missing
        `Reject` (default) or `Keep`.
    naive
        What a text or `datetime` without an offset is. "reject" (default): the reason `zone`. "local": the
        wall clock of `tz`. Then a time that the clock skips is the reason `gap`, one that it shows twice is
        the reason `fold`, and one before 1900 or after 2099, where zone rules are guesses, is `range`.
    semantic
        As in `Number`.
    low, high
        Inclusive bounds (R21): a `datetime`, a text of RFC 3339, or a date such as "2013-01-01", which is its midnight in
        `tz`. Whole seconds, kept in UTC. A timestamp beyond is the reason `range`, in a batch as in a request. A
        bound such as "1971-01-01" detects seconds that were read as microseconds.
    """

    name: str
    tz: str
    missing: Missing | str = REJECT
    naive: Literal["reject", "local"] = "reject"
    semantic: str | None = None
    low: str | datetime | None = None
    high: str | datetime | None = None

    def __post_init__(self) -> None:
        _check_column(self)
        if not _ZONE.match(str(self.tz)) or self.tz in _NOT_PLACES:
            raise _column_error(
                self.name, f"{self.tz!r} is not a time zone; write one such as 'UTC' or 'America/New_York'"
            )
        try:
            ZoneInfo(self.tz)
        except (KeyError, ValueError, OSError) as error:
            raise _column_error(self.name, f"{self.tz!r} is not a time zone of the IANA database") from error
        if self.naive not in ("reject", "local"):
            raise _column_error(self.name, f"naive is 'reject' or 'local', not {self.naive!r}")
        _check_not_replaced(self)
        for end in ("low", "high"):
            object.__setattr__(self, end, self._read_bound(getattr(self, end)))
        if self.bounds_us[0] > self.bounds_us[1]:
            raise _column_error(self.name, f"low {self.low} is above high {self.high}, so no value is valid")

    @property
    def bounds_us(self) -> tuple[int, int]:
        """Return the earliest and the latest valid timestamp, microseconds since 1970 UTC."""
        ends = [None if end is None else datetime.fromisoformat(str(end)) for end in (self.low, self.high)]
        low, high = (None if end is None else microseconds(end) for end in ends)
        return EARLIEST_US if low is None else low, LATEST_US if high is None else high

    def _read_bound(self, value: object) -> str | None:
        """Return a bound as UTC text, so that equal bounds are equal texts and order like their times."""
        if value is None:
            return None
        text = value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value
        if isinstance(text, str) and _DATE.match(text):
            with suppress(ValueError):  # no day of that month: refused below
                text = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(self.tz))
        found = read_timestamp(text, UTC, local=False)
        if isinstance(found, str) or found.microsecond:
            raise _column_error(
                self.name,
                f"the bound {value!r} is not a date such as '2013-01-01' or a timestamp with an offset in whole seconds",
            )
        return found.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
@checked()
class Boolean:
    """True or false; 0 and 1 are numbers. `missing` is any policy but a median or mean; `semantic` as in `Number`."""

    name: str
    missing: Missing | str = REJECT
    semantic: str | None = None

    def __post_init__(self) -> None:
        _check_column(self)
        if isinstance(self.missing, (Median, Mean)):
            raise _column_error(self.name, "a boolean has no median or mean")
        if isinstance(self.missing, Constant) and not isinstance(self.missing.value, bool):
            raise _column_error(self.name, f"the constant {self.missing.value!r} is not True or False")


@dataclass(frozen=True, slots=True)
@checked()
class Text:
    """Free text without NUL. The empty string is missing.

    Parameters
    ----------
    max_length
        In Unicode characters, at least 1.
    pattern
        A regular expression of Python's `re` that the whole text must match.
    missing, semantic
        As in `Number`, without median and mean.
    """

    name: str
    max_length: int = 256
    missing: Missing | str = REJECT
    pattern: str | None = None
    semantic: str | None = None

    def __post_init__(self) -> None:
        _check_column(self)
        if type(self.max_length) is not int or self.max_length < 1:
            raise _column_error(
                self.name, f"max_length must be a whole number of at least 1, not {self.max_length!r}"
            )
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise _column_error(self.name, f"the pattern is not a regular expression: {error}") from error
        _check_word_policy(self.name, self.missing)


@dataclass(frozen=True, slots=True)
@checked()
class Label:
    """The value that the model predicts: a boolean that becomes known `delay` after the event time.

    Parameters
    ----------
    delay
        A duration such as "12h"; not negative. No training or evaluation before it may use the label of a row.
    missing
        `Reject` (default), or `Keep` if a row may be loaded before its label is known, or without one. A delivery may then
        lack the column, and a share of rows without a label is no drift.
    semantic
        As in `Number`.
    """

    name: str
    delay: timedelta | str
    missing: Missing | str = REJECT
    semantic: str | None = None

    def __post_init__(self) -> None:
        _check_column(self)
        object.__setattr__(self, "delay", duration(self.delay, "delay"))
        if self.delay_span < timedelta(0):
            raise _column_error(self.name, "a label cannot be known before its event")
        _check_not_replaced(self)

    @property
    def delay_span(self) -> timedelta:
        """Return `delay` as a `timedelta`."""
        return duration(self.delay)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that is larger than any double
        return False


def _format_number(value: object) -> str:
    # Python refuses to format an int of more than 4300 digits.
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    return repr(value)


Column: TypeAlias = Number | Integer | Category | Timestamp | Boolean | Text | Label


def _is_within(value: float | str, low: float | None, high: float | None) -> bool:
    number = float(value)
    return (low is None or low <= number) and (high is None or number <= high)


def _check_word_policy(name: str, missing: Missing | str) -> None:
    if isinstance(missing, (Median, Mean)):
        raise _column_error(name, "words have no median or mean")
    if isinstance(missing, Constant) and (
        not isinstance(missing.value, str) or not missing.value or not is_unicode(missing.value)
    ):
        raise _column_error(name, f"the constant {missing.value!r} is not a text, or is empty")
