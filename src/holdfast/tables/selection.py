"""Selection of the rows of a snapshot to train on, and their weights (R28-R31, R39, R43, R50, R54).

Filters, forbidden rows, samples, caps, quotas, weights and the discard budget. Every row that is left out is counted
by the name of the rule. The same rows, selection and seed give the same choice, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from holdfast.contract.batch.reasons import REASONS, has_reason_of
from holdfast.contract.batch.rules import compile_rule_for_frame
from holdfast.contract.schema.columns import Category, Column, Number
from holdfast.contract.schema.expressions import Rule
from holdfast.contract.schema.rule_types import check_rule
from holdfast.errors import InputError, RefusedError
from holdfast.records import canonical_json, check_name, sha256_hex

_Otherwise = Literal["refuse", "warn"]

_MISSING = "(missing)"


class Filter(Rule):
    """A policy for training rows: those for which `expression` is false are left out, and counted under `name`.

    A row for which it is missing is kept.
    """


class Forbidden(Rule):
    """Rows that must not be trained on. One row for which `expression` is true refuses the training (HF407)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of `share` (above 0, at most 1) of the rows, drawn by the hash of their key and the seed."""

    share: float

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise _declaration_error(f"Sample: the share {self.share} is not above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Cap:
    """The maximum number of rows of each combination of values of `columns`.

    `at_most` is a number of rows (int, at least 1), or a share of the rows that are left after the cap (float, above 0
    and below 1). A share that no number of rows can hold, as 0.3 of two values, refuses the training (HF401). The hash
    of their key and the seed decide which rows are kept.
    """

    columns: tuple[str, ...] | str
    at_most: int | float

    def __post_init__(self) -> None:
        names = [self.columns] if isinstance(self.columns, str) else self.columns
        object.__setattr__(self, "columns", tuple(check_name(name, "column") for name in names))
        as_rows = isinstance(self.at_most, int) and not isinstance(self.at_most, bool) and self.at_most >= 1
        as_share = isinstance(self.at_most, float) and 0.0 < self.at_most < 1.0
        if not self.columns or not (as_rows or as_share):
            raise _declaration_error(
                f"Cap({self.columns!r}): at_most is {self.at_most!r}; give rows (1, 2, ...) or a share between 0 and 1"
            )


@dataclass(frozen=True, slots=True)
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
        object.__setattr__(self, "factors", dict(factors))
        object.__setattr__(self, "default", default)
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
class Selection:
    """The rows to train on. The parts apply in this order: filters, forbidden, discard, sample, caps, quotas, weights.

    Held-out rows are never selected, so a version is evaluated on real rows. Columns are those of the model's
    contract, its aggregates, and of the feed of its rows.

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
    _json: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for part in ("filters", "forbidden", "discard", "caps", "quotas", "weights"):
            parts = getattr(self, part)
            object.__setattr__(self, part, tuple(parts) if isinstance(parts, (list, tuple)) else (parts,))
        names = [rule.name for rule in (*self.filters, *self.forbidden)]
        if len(set(names)) != len(names):
            raise _declaration_error("two filters or forbidden rows have the same name")
        object.__setattr__(self, "_json", canonical_json(self._as_json()))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that it reads, each once."""
        of_rules = (name for rule in (*self.filters, *self.forbidden) for name in rule.columns)
        return tuple(dict.fromkeys((*of_rules, *self._by())))

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
        return {
            "filters": [rule.to_json() for rule in self.filters],
            "forbidden": [rule.to_json() for rule in self.forbidden],
            "discard": [[part.at_most, part.at_least_rows, part.by] for part in self.discard],
            "sample": None if self.sample is None else self.sample.share,
            "caps": [[list(cap.columns), cap.at_most] for cap in self.caps],
            "quotas": [[part.column, part.at_least, part.otherwise] for part in self.quotas],
            "weights": [
                [
                    part.column,
                    sorted([str(value), factor] for value, factor in part.factors.items()),
                    part.default,
                ]
                for part in self.weights
            ],
        }


ALL_ROWS: Final = Selection()
"""The selection of a model that declares none."""


def selectable_columns(*parts: Iterable[Column], aggregates: Iterable[str]) -> dict[str, Column]:
    """Return the columns that a selection may read: those of `parts`, the first of a name, and aggregates as numbers."""
    found: dict[str, Column] = {name: Number(name, unit="1", missing="keep") for name in aggregates}
    for part in parts:
        for column in part:
            found.setdefault(column.name, column)
    return found


@dataclass(frozen=True, slots=True)
class SliceCount:
    """Rows of one value of a column: the number found, and the number trained on."""

    column: str
    value: str
    found: int
    kept: int


@dataclass(frozen=True, slots=True)
class SelectedRows:
    """The rows to train on, in their order, and counts of the others.

    `weights` has one weight per row with mean 1, or is None if all are equal. `counts` is the number of rows left out
    by each filter, the sample and each cap; `warnings` lists missed quotas that only warn.
    """

    frame: pl.DataFrame
    weights: NDArray[np.float64] | None
    counts: dict[str, int]
    slices: tuple[SliceCount, ...]
    warnings: tuple[str, ...] = ()


def select_rows(
    frame: pl.DataFrame,
    selection: Selection,
    seed: int,
    *,
    columns: Mapping[str, Column],
    key: Sequence[str],
    slices: Sequence[str] = (),
    rejected: pl.DataFrame | None = None,
) -> SelectedRows:
    """Return the rows of `frame` that `selection` keeps.

    Parameters
    ----------
    frame, selection
        The training rows, without held-out ones, and the declared selection.
    seed
        Decides with the key which rows a sample or a cap keeps.
    columns, key
        The contract columns of `frame`, and those that identify a row.
    slices
        Columns whose values are counted, besides those of quotas and caps.
    rejected
        Rows that the contract rejected before; they count against the discard budget.

    Raises `RefusedError` HF407 (a forbidden row), HF405 (discard budget) and `InputError` HF401 (a missed quota, or
    no row left). Nothing is random: a sample is the rows whose keyed hash is small (BLAKE2b, RFC 7693). So it does
    not depend on the order of rows, and a sampled row stays sampled when others are added.
    """
    counts: dict[str, int] = {}
    kept = frame
    for rule in selection.filters:
        fewer = kept.filter(_holds(rule, columns, missing=True))
        counts[f"filter:{rule.name}"] = kept.height - fewer.height
        kept = fewer
    for kind in selection.forbidden:
        _refuse_forbidden(kept, kind, columns, key)
    for budget in selection.discard:
        _check_budget(budget, frame, kept, rejected)
    if selection.sample is not None or selection.caps:
        kept = _sample_and_cap(kept, selection, seed, key, counts)
    if kept.is_empty():
        raise InputError("HF401", "the selection leaves no row to train on", state="nothing was trained")
    warnings = [line for quota in selection.quotas for line in _missed_quotas(quota, kept, columns)]
    single = (cap.columns[0] for cap in selection.caps if len(cap.columns) == 1)
    counted = dict.fromkeys((*slices, *(quota.column for quota in selection.quotas), *single))
    return SelectedRows(
        kept,
        _row_weights(kept, selection.weights) if selection.weights else None,
        counts,
        tuple(line for name in counted for line in _slice_counts(name, frame, kept)),
        tuple(warnings),
    )


def count_forbidden(
    rows: pl.DataFrame, selection: Selection, columns: Mapping[str, Column]
) -> dict[str, int]:
    """Return the number of `rows` per forbidden rule, for rows that are not trained on, such as golden queries."""
    return {
        rule.name: rows.filter(_holds(rule, columns, missing=False)).height for rule in selection.forbidden
    }


def _holds(rule: Rule, columns: Mapping[str, Column], *, missing: bool) -> pl.Expr:
    return compile_rule_for_frame(rule, columns).fill_null(value=missing)


def _refuse_forbidden(
    kept: pl.DataFrame, rule: Forbidden, columns: Mapping[str, Column], key: Sequence[str]
) -> None:
    found = kept.filter(_holds(rule, columns, missing=False))
    if found.is_empty():
        return
    first = ", ".join(f"{name}={found[name][0]}" for name in key)
    raise RefusedError(
        "HF407",
        f"{found.height:,} of {kept.height:,} training rows are {rule.name!r}, which is forbidden; the first is {first}",
        state="nothing was trained",
        next_command="back out their batch, or declare a filter for them",
    )


def _check_budget(
    budget: DiscardBudget, frame: pl.DataFrame, kept: pl.DataFrame, rejected: pl.DataFrame | None
) -> None:
    lost_before = rejected if rejected is not None else frame.clear()
    if budget.by is None:
        pairs = {"": (frame.height + lost_before.height, kept.height)}
    else:
        before, after = Counter(_value_counts(frame, budget.by)), _value_counts(kept, budget.by)
        if budget.by in lost_before.columns:
            if REASONS in lost_before.columns:  # a value that the contract rejects is no slice
                lost_before = lost_before.filter(~has_reason_of(budget.by))
            before.update(_value_counts(lost_before, budget.by))
        pairs = {value: (found, after.get(value, 0)) for value, found in before.items()}
    for value, (found, left) in pairs.items():
        where = f" of {budget.by}={value}" if budget.by is not None else ""
        share = 1.0 - left / found if found else 0.0
        if share > budget.at_most:
            what = f"{found - left:,} of {found:,} rows{where} ({share:.1%}) were discarded; the limit is {budget.at_most:.1%}"
        elif left < budget.at_least_rows:
            what = f"{left:,} rows{where} are left; the minimum is {budget.at_least_rows:,}"
        else:
            continue
        raise RefusedError(
            "HF405",
            what,
            state="nothing was trained",
            next_command="holdfast snapshot, which shows what each filter leaves out",
        )


def _sample_and_cap(
    kept: pl.DataFrame, selection: Selection, seed: int, key: Sequence[str], counts: dict[str, int]
) -> pl.DataFrame:
    ranked = kept.with_columns(_rank=_key_hashes(kept, key, seed))
    if selection.sample is not None:
        below = min(2**64 - 1, math.floor(selection.sample.share * 2**64))
        fewer = ranked.filter(pl.col("_rank") <= below)
        counts["sample"], ranked = ranked.height - fewer.height, fewer
    before = -1
    # A cap may raise a share that an earlier one lowered, so they are repeated until all hold.
    while before != ranked.height:
        before = ranked.height
        for cap in selection.caps:
            most = cap.at_most if isinstance(cap.at_most, int) else _most_of_share(cap, ranked)
            # Equal hashes are as good as impossible; should two be equal, the earlier row comes first.
            fewer = ranked.filter(pl.col("_rank").rank("ordinal").over(list(cap.columns)) <= most)
            name = f"cap:{'+'.join(cap.columns)}"
            counts[name] = counts.get(name, 0) + ranked.height - fewer.height
            ranked = fewer
    return ranked.drop("_rank")


def _most_of_share(cap: Cap, rows: pl.DataFrame) -> int:
    """Return the largest number of rows of each value with which none has more than the share of all rows that are left."""
    counts = rows.group_by(list(cap.columns)).len()["len"].to_list()

    def holds(most: int) -> bool:
        left: int = sum(min(count, most) for count in counts)
        return most <= cap.at_most * left + 1e-9

    if not holds(1) and counts:
        names = "+".join(cap.columns)
        raise InputError(
            "HF401",
            f"Cap({names!r}, {cap.at_most}): the rows have {len(counts)} values of {names}, so one of them has at least "
            f"{1 / len(counts):.1%} of any choice",
            state="nothing was trained",
            next_command=f"raise the share to {math.ceil(100 / len(counts)) / 100} or more, or cap by a number of rows",
        )
    # If a number holds, each smaller one does: capped rows grow no faster than the number.
    low, high = 0, max(counts, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _key_hashes(frame: pl.DataFrame, key: Sequence[str], seed: int) -> pl.Series:
    """Return 64 bits per row that depend on its key and the seed, the same on every machine."""
    parts = (
        pl.col(name).dt.epoch("us") if frame.schema[name].is_temporal() else pl.col(name) for name in key
    )
    texts = frame.select(
        pl.concat_str([part.cast(pl.String).fill_null("") for part in parts], separator="\0")
    )
    salt = seed.to_bytes(16, "big", signed=True)
    digests = b"".join(
        hashlib.blake2b(text.encode(), digest_size=8, salt=salt).digest() for text in texts.to_series()
    )
    return pl.Series("_rank", np.frombuffer(digests, ">u8").astype(np.uint64))


def _missed_quotas(quota: Quota, kept: pl.DataFrame, columns: Mapping[str, Column]) -> list[str]:
    column = columns[quota.column]
    named = column.values or () if isinstance(column, Category) else ()
    counts = dict.fromkeys(named, 0) | _value_counts(kept, quota.column)
    lines = [
        f"{quota.column}={value} has {rows:,} rows; its quota is {quota.at_least:,}"
        for value, rows in sorted(counts.items())
        if rows < quota.at_least
    ]
    if lines and quota.otherwise == "refuse":
        raise InputError(
            "HF401", "; ".join(lines), state="nothing was trained", next_command="load more rows of the slice"
        )
    return lines


def _row_weights(kept: pl.DataFrame, parts: Sequence[Weights]) -> NDArray[np.float64]:
    weights = np.ones(kept.height)
    for part in parts:
        weights *= [part.factors.get(value, part.default) for value in kept[part.column].to_list()]
    mean = float(weights.mean())
    if mean == 0.0:
        raise InputError("HF401", "every row has the weight 0", state="nothing was trained")
    return weights / mean


def _slice_counts(name: str, found: pl.DataFrame, kept: pl.DataFrame) -> list[SliceCount]:
    before, after = _value_counts(found, name), _value_counts(kept, name)
    return [SliceCount(name, value, rows, after.get(value, 0)) for value, rows in sorted(before.items())]


def _value_counts(frame: pl.DataFrame, name: str) -> dict[str, int]:
    """Return the number of rows per value of a column, as text; booleans as "true" and "false"."""
    texts = frame[name].cast(pl.String).fill_null(_MISSING).rename("value")
    return dict(texts.value_counts(name="rows").sort("value").iter_rows())


def _declaration_error(why: str) -> InputError:
    return InputError("HF107", why)
