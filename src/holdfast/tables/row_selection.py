"""Select the rows that train a model, as a `Selection` declares it, and count what was left out.

The declaration is in `selection.py`, which needs no Polars: a server reads it too.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from holdfast.contract.batch.reasons import REASONS, has_reason_of
from holdfast.contract.batch.rules import compile_rule_for_frame
from holdfast.contract.schema.columns import Category, Column
from holdfast.contract.schema.expressions import Rule
from holdfast.errors import InputError, RefusedError
from holdfast.formatting import percent
from holdfast.records import METADATA_COLUMNS, SOURCE_COLUMN
from holdfast.tables.selection import Cap, DiscardBudget, Forbidden, Quota, Selection, Weights

_MISSING = "(missing)"


@dataclass(frozen=True, slots=True)
class SliceCount:
    """Rows of one value of a column: the number found, the number trained on, and their weight in the training.

    `weight` is the sum of the weights of the rows trained on, whose mean over all values is 1; None in records of earlier
    releases.
    """

    column: str
    value: str
    found: int
    kept: int
    weight: float | None = None


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
        Columns whose values are counted, besides those of quotas and caps, and `_source` if the selection reads it.
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
    single = (cap.columns[0] for cap in selection.caps if len(cap.columns) == 1 and not cap.every_us)
    of_load = (SOURCE_COLUMN,) if SOURCE_COLUMN in selection.columns else ()
    counted = dict.fromkeys((*slices, *(quota.column for quota in selection.quotas), *single, *of_load))
    weights = _row_weights(kept, selection.weights) if selection.weights else None
    return SelectedRows(
        kept,
        weights,
        counts,
        tuple(line for name in counted for line in _slice_counts(name, frame, kept, weights)),
        tuple(warnings),
    )


def name_sources(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """Return `frame`, whose `_source` is what each row was read from, with the source that `selection` names instead.

    Frames without the column, and selections without sources, are returned as they are.
    """
    if not selection.sources or SOURCE_COLUMN not in frame.columns:
        return frame
    loads = frame.select(METADATA_COLUMNS).unique(maintain_order=True)
    names = [None if None in load else selection.source_of(*load) for load in loads.iter_rows()]
    named = loads.with_columns(pl.Series("_named", names, pl.String))
    joined = frame.join(named, on=list(METADATA_COLUMNS), how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.col("_named").alias(SOURCE_COLUMN)).drop("_named")


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
            what = (
                f"{found - left:,} of {found:,} rows{where} ({percent(share, 1)}) were discarded; "
                f"the limit is {percent(budget.at_most, 1)}"
            )
        elif left < budget.at_least_rows:
            what = f"{left:,} rows{where} are left; the minimum is {budget.at_least_rows:,}"
        else:
            continue
        raise RefusedError(
            "HF405",
            what,
            state="nothing was trained",
            next_command="holdfast snapshot create, which shows what each filter leaves out",
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
            fewer = ranked.filter(pl.col("_rank").rank("ordinal").over(_groups(cap, ranked)) <= most)
            name = f"cap:{'+'.join(cap.columns)}"
            counts[name] = counts.get(name, 0) + ranked.height - fewer.height
            ranked = fewer
    return ranked.drop("_rank")


def _groups(cap: Cap, frame: pl.DataFrame) -> list[pl.Expr]:
    """Return the expressions whose values together make a group of rows of `frame` for `cap`."""
    return [
        pl.col(name).dt.truncate(f"{cap.every_us}us")
        if cap.every_us and isinstance(frame.schema[name], pl.Datetime)
        else pl.col(name)
        for name in cap.columns
    ]


def _most_of_share(cap: Cap, rows: pl.DataFrame) -> int:
    """Return the largest number of rows of each value with which none has more than the share of all rows that are left."""
    counts = rows.group_by(_groups(cap, rows)).len()["len"].to_list()

    def holds(most: int) -> bool:
        left: int = sum(min(count, most) for count in counts)
        return most <= cap.at_most * left + 1e-9

    if not holds(1) and counts:
        names = "+".join(cap.columns)
        raise InputError(
            "HF401",
            f"Cap({names!r}, {cap.at_most}): the rows have {len(counts)} values of {names}, so one of them has at least "
            f"{percent(1 / len(counts), 1)} of any choice",
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


def _slice_counts(
    name: str, found: pl.DataFrame, kept: pl.DataFrame, weights: NDArray[np.float64] | None
) -> list[SliceCount]:
    before, after = _value_counts(found, name), _value_counts(kept, name)
    weights_of_values = pl.DataFrame(
        {"value": _texts(kept, name), "weight": np.ones(kept.height) if weights is None else weights}
    )
    sums = dict(
        weights_of_values.group_by("value", maintain_order=True).agg(pl.col("weight").sum()).iter_rows()
    )
    return [
        SliceCount(name, value, rows, after.get(value, 0), sums.get(value, 0.0))
        for value, rows in sorted(before.items())
    ]


def _value_counts(frame: pl.DataFrame, name: str) -> dict[str, int]:
    """Return the number of rows per value of a column."""
    return dict(_texts(frame, name).value_counts(name="rows").sort("value").iter_rows())


def _texts(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return the values of a column as text; booleans as "true" and "false"."""
    return frame[name].cast(pl.String).fill_null(_MISSING).rename("value")
