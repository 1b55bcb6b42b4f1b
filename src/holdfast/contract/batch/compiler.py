"""The contract compiled for batches: one pass of Polars finds the bad rows, a bitmask says what each breaks.

The first pass keeps one bit for a row and rule; bitmasks of the good rows would move 64 times as many bytes,
and lists of words many more. The row check in `row.py` states the same rules as closures; a property test
holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

import polars as pl

from holdfast.contract.batch.reason_bitmask import (
    REASONS,
    any_broken,
    bitmasks,
    counts,
    each_broken,
    in_words,
)
from holdfast.contract.batch.reasons import Reason, reasons_of
from holdfast.contract.batch.text_input import Typed
from holdfast.contract.batch.uniqueness import incomplete, may_repeat, repeated, suspects
from holdfast.contract.schema.columns import (
    Boolean,
    Category,
    Column,
    Integer,
    Label,
    Number,
    Text,
    Timestamp,
)
from holdfast.contract.schema.contract import Contract
from holdfast.contract.schema.missing import Reject
from holdfast.errors import InputError

LINE: Final = "_line"
"""The column of the quarantine that holds a line which could not be taken apart into columns."""

_FEW_ROWS: Final = 2_000
"""Of so many rows it is asked first whether any is bad: mostly none is."""


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """What the check found.

    `valid` has the columns of the contract in its order and dtypes, a missing word as null. `quarantined`
    has the columns as they were delivered and `_reasons`, a list of "column|rule" that is never empty. Both
    keep the order of the batch, and every row is in exactly one of them. Lines of a delivery that could not be taken
    apart come after them, whole in the column `_line`, with the reason "_line|fields" (CSV: not the header's number of
    fields) or "_line|json".
    `counts` says how many rows each reason struck.
    """

    valid: pl.DataFrame
    quarantined: pl.DataFrame
    counts: dict[str, int]


BatchCheck: TypeAlias = Callable[[pl.DataFrame | Typed], BatchVerdict]


def dtype(column: Column) -> pl.DataType:
    """The one Polars dtype that a column may have in a frame."""
    match column:
        case Number():
            return pl.Float64()
        case Integer():
            return pl.Int64()
        case Category() | Text():
            return pl.String()
        case Timestamp():
            return pl.Datetime("us", column.tz)
        case Boolean() | Label():
            return pl.Boolean()
        case _:
            assert_never(column)


def dtypes(contract: Contract) -> dict[str, pl.DataType]:
    """The dtype of each column, in the contract's order.

    >>> from holdfast.contract import Contract, Integer, Timestamp
    >>> dtypes(Contract(Integer("id"), Timestamp("at", tz="UTC"), key="id", event_time="at"))
    {'id': Int64, 'at': Datetime(time_unit='us', time_zone='UTC')}
    """
    return {column.name: dtype(column) for column in contract.columns}


def compile_batch(contract: Contract) -> BatchCheck:
    """A function from a batch to its valid and its quarantined rows.

    Returns
    -------
    A pure function of a frame, or of what `from_text` read. Row for row it gives the reasons that
    `compile_row` gives. In addition the key is unique among the valid rows: the first row of the batch that
    is valid otherwise is kept, each later one with its key gets the reason "<key>|duplicate" ("+" between
    the columns of a composite key). So a resent row is harmless, and a row that was sent damaged and then
    again in order is not lost. The same then holds for each of `unique`, with the reason "<columns>|unique", among
    the rows that are valid until then and in which none of its columns is missing.

    Raises
    ------
    InputError
        HF202, from the returned function, when a column is missing, is not in the contract or has another
        dtype than `dtype` says; nothing is cast to fit.

    Examples
    --------
    >>> from holdfast.contract import Contract, Integer, Timestamp
    >>> from datetime import UTC, datetime
    >>> pings = Contract(Integer("id", low=0), Timestamp("at", tz="UTC"), key="id", event_time="at")
    >>> batch = pl.DataFrame({"id": [7, -1, 7], "at": [datetime(2013, 1, 1, tzinfo=UTC)] * 3},
    ...                      schema={"id": pl.Int64, "at": pl.Datetime("us", "UTC")})
    >>> compile_batch(pings)(batch).counts
    {'id|range': 1, 'id|duplicate': 1}
    """
    schema = dtypes(contract)
    place = {name: number for number, name in enumerate(schema)}
    # Stable: of one column the missing value comes first.
    reasons = tuple(sorted(reasons_of(contract), key=lambda reason: place.get(reason.column, len(place))))
    any_reason, each_reason = any_broken(reasons).alias("bad"), each_broken(reasons)
    duplicate = f"{'+'.join(contract.key)}|duplicate"
    unique = [(f"{'+'.join(names)}|unique", names) for names in contract.unique]
    words = [
        column.name
        for column in contract.columns
        if isinstance(column, (Category, Text)) and not isinstance(column.missing, Reject)
    ]

    def check(batch: pl.DataFrame | Typed) -> BatchVerdict:
        typed = batch if isinstance(batch, Typed) else Typed(batch, batch, {})
        verdict = check_columns(typed)
        return _with_lines(verdict, typed) if typed.lines else verdict

    def check_columns(typed: Typed) -> BatchVerdict:
        _check_schema(typed.frame, schema)
        frame = typed.frame.select(list(schema)).rechunk()
        if frame.height <= _FEW_ROWS and not typed.faults and is_surely_good(frame):
            return BatchVerdict(_words_null(frame, words), _with_no_reasons(typed.original), {})
        wide, every, bad_row = frame, reasons, any_reason
        if typed.faults:
            # No column is named like a reason, so that the faults can stand beside the columns.
            wide = frame.with_columns(rows.alias(word) for word, rows in typed.faults.items())
            faults = [Reason(word, pl.col(word)) for word in typed.faults]
            # Stable: of one column the faults come first, since what could not be read is not missing.
            every = tuple(
                sorted((*faults, *reasons), key=lambda reason: place.get(reason.column, len(place)))
            )
            bad_row = any_broken(every).alias("bad")
        first = wide.select(bad_row, suspects(frame, contract.key))
        bad, struck = strike(frame, first.get_column("bad"), first.get_column("suspect"))
        if not bad.any():
            return BatchVerdict(_words_null(frame, words), _with_no_reasons(typed.original), {})
        masks = wide.filter(bad).select(bitmasks(every))
        told = in_words(masks, every, [(word, rows.filter(bad)) for word, rows in struck])
        quarantined = typed.original.filter(bad).with_columns(told.alias(REASONS))
        order = [*(reason.word for reason in every), duplicate, *(word for word, _ in unique)]
        return BatchVerdict(_words_null(frame.filter(~bad), words), quarantined, counts(told, order))

    def is_surely_good(frame: pl.DataFrame) -> bool:
        """A quick proof for few rows, of which mostly none is bad."""
        return (
            not unique
            and not may_repeat(frame, contract.key)
            and not any(frame.select_seq(each_reason).row(0))
        )

    def strike(
        frame: pl.DataFrame, bad: pl.Series, suspect: pl.Series
    ) -> tuple[pl.Series, list[tuple[str, pl.Series]]]:
        """Each in its turn, so that a row repeats only rows that are kept."""
        struck = []
        rows = repeated(frame, contract.key, bad, suspect)
        if rows is not None:
            struck.append((duplicate, rows))
            bad = bad | rows
        for word, names in unique:
            apart = incomplete(frame, names)
            rows = repeated(frame, names, bad if apart is None else bad | apart)
            if rows is not None:
                struck.append((word, rows))
                bad = bad | rows
        return bad, struck

    return check


def as_delivered(quarantined: pl.DataFrame) -> pl.DataFrame:
    """`quarantined` as the quarantine keeps it: every value as text, so that rows of one feed stand in one table whether
    they came as text or typed, and whatever was wrong with them. Moments are ISO 8601.

    >>> from datetime import UTC, datetime
    >>> bad = pl.DataFrame({"v": [9e9], "at": [datetime(2013, 1, 1, tzinfo=UTC)], "_reasons": [["v|range"]]})
    >>> as_delivered(bad).row(0)
    ('9000000000.0', '2013-01-01T00:00:00.000000+00:00', ['v|range'], None)
    """
    texts = [
        pl.col(name).dt.to_string("iso:strict") if kind.is_temporal() else pl.col(name).cast(pl.String)
        for name, kind in quarantined.schema.items()
        if name not in (REASONS, LINE)
    ]
    line = pl.col(LINE) if LINE in quarantined.columns else pl.lit(None, pl.String).alias(LINE)
    return quarantined.select(*texts, REASONS, line)


def _with_lines(verdict: BatchVerdict, typed: Typed) -> BatchVerdict:
    reason = f"{LINE}|{typed.line_rule}"
    held = pl.DataFrame({LINE: typed.lines}, schema={LINE: pl.String}).with_columns(
        pl.lit([reason], pl.List(pl.String)).alias(REASONS)
    )
    quarantined = pl.concat([verdict.quarantined, held], how="diagonal")
    return BatchVerdict(verdict.valid, quarantined, verdict.counts | {reason: len(typed.lines)})


def _check_schema(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> None:
    found = frame.schema
    missing = [name for name in schema if name not in found]
    extra = [name for name in found if name not in schema]
    wrong = [
        f"{name} is {found[name]}, not {wanted}"
        for name, wanted in schema.items()
        if name in found and found[name] != wanted
    ]
    parts = [
        f"{what}: {', '.join(names)}"
        for what, names in (("missing", missing), ("not in the contract", extra), ("of another type", wrong))
        if names
    ]
    if parts:
        raise InputError(
            "HF202",
            "; ".join(parts),
            state="no row was checked",
            next_command="correct the source, or the contract if the source is meant to look so",
        )


def _words_null(frame: pl.DataFrame, words: list[str]) -> pl.DataFrame:
    """`frame` with each empty word as null, so that what follows sees one form of missing."""
    if frame.height <= _FEW_ROWS:  # a list of few is made faster than a query is put together
        empty: Sequence[bool] = [bool("" in frame.get_column(name).to_list()) for name in words]
    else:
        empty = frame.select((pl.col(words).str.len_bytes() == 0).any()).row(0) if words else ()
    changed = [name for name, has_empty in zip(words, empty, strict=True) if has_empty]
    return frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in changed)


def _with_no_reasons(original: pl.DataFrame) -> pl.DataFrame:
    return original.clear().with_columns(pl.lit(None, pl.List(pl.String)).alias(REASONS))
