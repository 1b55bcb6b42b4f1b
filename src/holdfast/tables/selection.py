"""Selection of the rows of a snapshot to train on, and their weights (R28-R31, R39, R43, R50, R54).

Filters, forbidden rows, samples, caps, quotas, weights and the discard budget. Every row that is left out is counted
by the name of the rule. The same rows, selection and seed give the same choice, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from holdfast.contract.schema.columns import Category, Column, Number, Timestamp
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.rule_types import check_rule
from holdfast.errors import InputError
from holdfast.field_types import check_fields, checked
from holdfast.records import (
    BATCH_COLUMN,
    METADATA_COLUMNS,
    SOURCE_COLUMN,
    canonical_json,
    check_column_name,
    check_name,
    duration,
    sha256_hex,
)

_Otherwise = Literal["refuse", "warn"]


@checked("expression")
class Filter(Rule):
    """A policy for training rows: those for which `expression` is false are left out, and counted under `name`.

    A row for which it is missing is kept.
    """


@checked("expression")
class Forbidden(Rule):
    """Rows that must not be trained on. One row for which `expression` is true refuses the training (HF407)."""


@dataclass(frozen=True, slots=True)
@checked()
class Sample:
    """A sample of `share` (above 0, at most 1) of the rows, drawn by the hash of their key and the seed."""

    share: float

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise _declaration_error(f"Sample: the share {self.share} is not above 0 and at most 1")


@dataclass(frozen=True, slots=True)
@checked()
class Cap:
    """The maximum number of rows of each combination of values of `columns`.

    `at_most` is a number of rows (int, at least 1), or a share of the rows that are left after the cap (float, above 0
    and below 1). A share that no number of rows can hold, as 0.3 of two values, refuses the training (HF401). The hash
    of their key and the seed decide which rows are kept.

    With `every`, such as "1h", a timestamp among the columns counts by the span that it lies in, in the column's time zone:
    `Cap("at", 500, every="1h")` keeps one hour, such as that of a match, from filling the training.
    """

    columns: tuple[str, ...] | str
    at_most: int | float
    every: timedelta | str | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            object.__setattr__(self, "every", duration(self.every, "every"))
            if self.every_us <= 0:
                raise _declaration_error(f"Cap({self.columns!r}): every must be positive, not {self.every}")
        names = [self.columns] if isinstance(self.columns, str) else self.columns
        object.__setattr__(self, "columns", tuple(check_column_name(name) for name in names))
        as_rows = isinstance(self.at_most, int) and not isinstance(self.at_most, bool) and self.at_most >= 1
        as_share = isinstance(self.at_most, float) and 0.0 < self.at_most < 1.0
        if not self.columns or not (as_rows or as_share):
            raise _declaration_error(
                f"Cap({self.columns!r}): at_most is {self.at_most!r}; give rows (1, 2, ...) or a share between 0 and 1"
            )

    @property
    def every_us(self) -> int:
        """Return `every` in microseconds; 0 without it."""
        return 0 if self.every is None else duration(self.every) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
@checked()
class Quota:
    """The minimum number of rows of each value of `column`, including values in the contract without any row.

    Fewer refuse the training (HF401), or are reported if `otherwise` is "warn".
    """

    column: str
    at_least: int
    otherwise: _Otherwise = "refuse"

    def __post_init__(self) -> None:
        if self.at_least < 1 or self.otherwise not in ("refuse", "warn"):
            raise _declaration_error(
                f"Quota({self.column!r}): at_least {self.at_least}, otherwise {self.otherwise!r}; at least 1, and "
                "'refuse' or 'warn'"
            )


@dataclass(frozen=True, init=False)
class Weights:
    """The weight of a row by its value of `column`: `factors` by value, `default` for the others.

    Several of them multiply. Only ratios matter, because the mean weight is set to 1. The gates evaluate rows
    unweighted.
    """

    column: str
    factors: Mapping[object, float]
    default: float

    def __init__(self, column: str, factors: Mapping[Any, float], default: float = 1.0) -> None:
        object.__setattr__(self, "column", column)
        stated: object = factors
        object.__setattr__(self, "factors", dict(stated) if isinstance(stated, Mapping) else stated)
        object.__setattr__(self, "default", default)
        check_fields(self)
        factors_used = (*self.factors.values(), default)
        if not all(math.isfinite(factor) and factor >= 0.0 for factor in factors_used) or not any(
            factors_used
        ):
            raise _declaration_error(
                f"Weights({column!r}): factors are finite, not negative and not all 0, not {factors_used}"
            )

    def __hash__(self) -> int:
        return hash((self.column, frozenset(self.factors.items()), self.default))


@dataclass(frozen=True, slots=True)
@checked()
class DiscardBudget:
    """The maximum loss of rows to filters and to the contract, overall or, with `by`, within each value of a column.

    Rows that the contract of the feed quarantined when they were loaded count too, overall and, unless the value of `by`
    itself is what broke the contract, within their value. At most the share `at_most` (0 to 1), with at least
    `at_least_rows` left. More refuse the training (HF405).
    """

    at_most: float
    at_least_rows: int = 0
    by: str | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.at_most <= 1.0 or self.at_least_rows < 0:
            raise _declaration_error(
                f"DiscardBudget: at_most is {self.at_most}, a share, and at_least_rows {self.at_least_rows}, not negative"
            )


@dataclass(frozen=True, slots=True)
@checked("loads")
class Source:
    """The name of a source: what the metadata column `_source` is for the rows of the loads that `loads` matches.

    `loads` is a pattern, or several, such as "acme-*": of the id of a batch, or of what it was read from (the name of the
    file, the URL or the query). `*` matches any text, `?` one character, `[ab]` one of some.
    """

    name: str
    loads: tuple[str, ...] | str

    def __post_init__(self) -> None:
        check_name(self.name, "source")
        given: object = (self.loads,) if isinstance(self.loads, str) else self.loads
        if (
            not isinstance(given, (tuple, list))
            or not given
            or not all(isinstance(each, str) and each for each in given)
        ):
            raise _declaration_error(
                f"Source({self.name!r}): loads is a pattern such as 'acme-*', or several, not {self.loads!r}"
            )
        object.__setattr__(self, "loads", tuple(given))

    def matches(self, batch: str, read_from: str) -> bool:
        """Return True if the load of `batch`, read from `read_from`, is of this source.

        >>> Source("acme", "acme-*").matches("acme-2013-05-01", "may.csv"), Source("acme", "acme-*").matches("b-1", "may.csv")
        (True, False)
        """
        return any(fnmatchcase(text, pattern) for text in (batch, read_from) for pattern in self.loads)


@dataclass(frozen=True, slots=True)
@checked()
class Selection:
    """The rows to train on. The parts apply in this order: filters, forbidden, discard, sample, caps, quotas, weights.

    Held-out rows are never selected, so a version is evaluated on real rows. Columns are those of the model's
    contract, its aggregates, and of the feed of its rows, and the metadata columns of the load that brought the row:
    `_batch` is the batch's id; `_source` is the first of `sources` that matches the load, else what it was read from.

    >>> from holdfast.contract import col
    >>> chosen = Selection(filters=[Filter("no_tests", col("carrier") != "TEST")], caps=[Cap("carrier", 0.3)])
    >>> chosen.columns
    ('carrier',)
    """

    filters: tuple[Filter, ...] = ()
    forbidden: tuple[Forbidden, ...] = ()
    discard: tuple[DiscardBudget, ...] = ()
    sample: Sample | None = None
    caps: tuple[Cap, ...] = ()
    quotas: tuple[Quota, ...] = ()
    weights: tuple[Weights, ...] = ()
    sources: tuple[Source, ...] = ()
    _json: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for part in ("filters", "forbidden", "discard", "caps", "quotas", "weights", "sources"):
            parts = getattr(self, part)
            object.__setattr__(self, part, tuple(parts) if isinstance(parts, (list, tuple)) else (parts,))
        names = [rule.name for rule in (*self.filters, *self.forbidden)]
        if len(set(names)) != len(names):
            raise _declaration_error("two filters or forbidden rows have the same name")
        if len({source.name for source in self.sources}) != len(self.sources):
            raise _declaration_error("two sources have the same name")
        object.__setattr__(self, "_json", canonical_json(self._as_json()))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that it reads, each once."""
        of_rules = (name for rule in (*self.filters, *self.forbidden) for name in rule.columns)
        return tuple(dict.fromkeys((*of_rules, *self._by())))

    @property
    def metadata_columns(self) -> tuple[str, ...]:
        """Return the metadata columns that must be read with the rows: those that it reads, and what names their source."""
        found = {name for name in self.columns if name in METADATA_COLUMNS}
        return METADATA_COLUMNS if SOURCE_COLUMN in found else tuple(found)

    def source_of(self, batch: str, read_from: str) -> str:
        """Return the source of the load of `batch` that was read from `read_from`."""
        return next((each.name for each in self.sources if each.matches(batch, read_from)), read_from)

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the JSON form."""
        return sha256_hex(self._json)

    def to_json(self) -> str:
        """Return the selection as canonical JSON."""
        return self._json

    def check(self, columns: Mapping[str, Column]) -> None:
        """Raise `InputError` HF107 if it reads a column that is not among `columns`, or if an expression does not fit."""
        for name in self.columns:
            if name not in columns:
                raise _declaration_error(
                    f"the selection reads {name!r}, which is not a column of the model, its aggregates or its rows"
                )
        for rule in (*self.filters, *self.forbidden):
            check_rule(rule, columns)
        for cap in self.caps:
            if cap.every_us and not any(isinstance(columns[name], Timestamp) for name in cap.columns):
                raise _declaration_error(
                    f"Cap({cap.columns!r}): every is of a timestamp, and none is among its columns"
                )
        for name in self._by():
            if isinstance(columns[name], Number):
                raise _declaration_error(
                    f"the selection counts by {name!r}, a number; count by a category, text, integer or boolean"
                )

    def _by(self) -> Iterator[str]:
        yield from (budget.by for budget in self.discard if budget.by is not None)
        for cap in self.caps:
            yield from cap.columns
        yield from (quota.column for quota in self.quotas)
        yield from (weights.column for weights in self.weights)

    def _as_json(self) -> dict[str, object]:
        # Without sources the text, and so the hash, is that of earlier releases.
        sources = (
            {"sources": [[each.name, list(each.loads)] for each in self.sources]} if self.sources else {}
        )
        return {
            "filters": [rule.to_json() for rule in self.filters],
            "forbidden": [rule.to_json() for rule in self.forbidden],
            "discard": [[part.at_most, part.at_least_rows, part.by] for part in self.discard],
            "sample": None if self.sample is None else self.sample.share,
            "caps": [
                [list(cap.columns), cap.at_most, *([cap.every_us] if cap.every_us else [])]
                for cap in self.caps
            ],
            "quotas": [[part.column, part.at_least, part.otherwise] for part in self.quotas],
            "weights": [
                [
                    part.column,
                    sorted([str(value), factor] for value, factor in part.factors.items()),
                    part.default,
                ]
                for part in self.weights
            ],
            **sources,
        }


ALL_ROWS: Final = Selection()
"""The selection of a model that declares none."""


def selectable_columns(
    *parts: Iterable[Column], aggregates: Iterable[str], sources: Iterable[Source] = ()
) -> dict[str, Column]:
    """Return the columns that a selection may read: those of `parts`, the first of a name, aggregates as numbers, metadata."""
    found: dict[str, Column] = {name: Number(name, unit="1", missing="keep") for name in aggregates}
    found[BATCH_COLUMN] = Category("batch")
    found[SOURCE_COLUMN] = Category("source", values=tuple(source.name for source in sources) or None)
    for part in parts:
        for column in part:
            found.setdefault(column.name, column)
    return found


def _declaration_error(why: str) -> InputError:
    return InputError("HF107", why)
