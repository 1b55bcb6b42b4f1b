"""The contract compiled for batches: one pass of Polars finds the bad rows, and bitmasks list the reasons of each.

The first pass keeps one bit per row. Bitmasks of the good rows would move 64 times as many bytes, and lists of
reasons many more. The row check in `row/compiler.py` states the same rules as closures; a property test compares
both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, assert_never

import polars as pl

from holdfast.contract import Boolean, Category, Column, Contract, Integer, Label, Number, Text, Timestamp
from holdfast.contract.batch.aliases import AliasCounts, map_aliases
from holdfast.contract.batch.input_columns import require_columns
from holdfast.contract.batch.reasons import (
    REASONS,
    Reason,
    bitmasks,
    count_reasons,
    find_incomplete,
    find_repeats,
    is_any_broken,
    list_reasons,
    possible_repeats,
    reasons_of,
)
from holdfast.contract.batch.text_input import TypedBatch
from holdfast.contract.schema.missing import Reject

LINE: Final = "_line"
"""The column of the quarantine that holds a line which could not be split into columns."""


@dataclass(frozen=True, slots=True)
class BatchVerdict:
    """The result of a batch check.

    `valid` has the columns of the contract in its order and dtypes, with null for a missing word. `quarantined` has
    the columns as delivered and `_reasons`, a list of "column|rule" that is never empty. Both keep the order of the
    batch, and every row is in exactly one of them. Lines that could not be split into columns come last, whole in the
    column `_line`, with the reason "_line|fields" (CSV: a wrong number of fields) or "_line|json". `counts` is the
    number of rows per reason. `valid` has the word of each alias, `quarantined` the alias itself, and `aliases` how often each
    was delivered, by column.
    """

    valid: pl.DataFrame
    quarantined: pl.DataFrame
    counts: dict[str, int]
    aliases: AliasCounts = field(default_factory=dict)


BatchCheck: TypeAlias = Callable[[pl.DataFrame | TypedBatch], BatchVerdict]


def dtype(column: Column) -> pl.DataType:
    """Return the only Polars dtype that a column may have in a frame."""
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
    """Return the dtype of each column, in the contract's order.

    >>> from holdfast.contract import Contract, Integer, Timestamp
    >>> dtypes(Contract(Integer("id"), Timestamp("at", tz="UTC"), key="id", event_time="at"))
    {'id': Int64, 'at': Datetime(time_unit='us', time_zone='UTC')}
    """
    return {column.name: dtype(column) for column in contract.columns}


def compile_batch(contract: Contract) -> BatchCheck:
    """Return a function from a batch to its valid and its quarantined rows.

    Returns
    -------
    A pure function of a frame, or of the result of `from_text`. For each row it gives the reasons that
    `compile_row` gives. In addition the key is unique among the valid rows: the first otherwise valid row of
    the batch is kept, each later one with its key gets the reason "<key>|duplicate" ("+" between the columns
    of a composite key). So a row sent again is harmless, and a row that was first sent damaged is not lost.
    Each of `unique` is then checked alike, with the reason "<columns>|unique", among the rows that are valid
    until then and in which none of its columns is missing.

    Raises
    ------
    InputError
        HF202, from the returned function, if a column is missing, is not in the contract or has another
        dtype than `dtype`; nothing is cast.

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
    return _CompiledCheck(contract)


class _CompiledCheck:
    """The function that `compile_batch` returns."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._schema = dtypes(contract)
        self._positions = {name: number for number, name in enumerate(self._schema)}
        self._reasons = self._in_column_order(reasons_of(contract))
        self._any_reason = is_any_broken(self._reasons).alias("bad")
        self._key = contract.key
        self._key_reason = f"{'+'.join(contract.key)}|duplicate"
        self._unique = {f"{'+'.join(names)}|unique": names for names in contract.unique}
        self._optional_words = [
            column.name
            for column in contract.columns
            if isinstance(column, (Category, Text)) and not isinstance(column.missing, Reject)
        ]

    def __call__(self, batch: pl.DataFrame | TypedBatch) -> BatchVerdict:
        typed = batch if isinstance(batch, TypedBatch) else TypedBatch(batch, batch, {})
        _check_schema(typed.frame, self._schema)
        # Before anything is checked: a key, a rule and what is unique are those of the words.
        frame, aliases = map_aliases(self._contract, typed.frame)
        verdict = replace(self._check_columns(replace(typed, frame=frame)), aliases=aliases)
        return _add_lines(verdict, typed) if typed.lines else verdict

    def _check_columns(self, typed: TypedBatch) -> BatchVerdict:
        frame = typed.frame.select(list(self._schema)).rechunk()
        reasons, bad_row, checked = self._reasons, self._any_reason, frame
        if typed.faults:
            # A reason contains "|" and a column name does not, so faults fit next to the columns.
            checked = frame.with_columns(rows.alias(word) for word, rows in typed.faults.items())
            # Faults first: a value that could not be read is not missing.
            reasons = self._in_column_order(
                (*(Reason(word, pl.col(word)) for word in typed.faults), *self._reasons)
            )
            bad_row = is_any_broken(reasons).alias("bad")
        first = checked.select(bad_row, possible_repeats(frame, self._key))
        bad, repeats = self._find_repeats(frame, first.get_column("bad"), first.get_column("suspect"))
        if not bad.any():
            no_rows = typed.original.clear().with_columns(pl.lit(None, pl.List(pl.String)).alias(REASONS))
            return BatchVerdict(_null_empty_words(frame, self._optional_words), no_rows, {})
        places = bad.arg_true()  # mostly few: looking them up takes less time than a pass over every column
        masks = checked[places].select(bitmasks(reasons))
        listed = list_reasons(masks, reasons, [(word, rows.gather(places)) for word, rows in repeats])
        quarantined = typed.original[places].with_columns(listed.alias(REASONS))
        order = [*(reason.word for reason in reasons), self._key_reason, *self._unique]
        valid = _null_empty_words(frame.filter(~bad), self._optional_words)
        return BatchVerdict(valid, quarantined, count_reasons(listed, order))

    def _in_column_order(self, reasons: Sequence[Reason]) -> tuple[Reason, ...]:
        """Return the reasons by column, those of rules last; stable, so a column keeps the order of its reasons."""
        last = len(self._positions)
        return tuple(sorted(reasons, key=lambda reason: self._positions.get(reason.column, last)))

    def _find_repeats(
        self, frame: pl.DataFrame, bad: pl.Series, suspect: pl.Series
    ) -> tuple[pl.Series, list[tuple[str, pl.Series]]]:
        """Return the bad rows with repeated ones included, and the repeated rows by reason."""
        repeats = []
        rows = find_repeats(frame, self._key, bad, suspect)
        if rows is not None:
            repeats.append((self._key_reason, rows))
            bad = bad | rows
        # One after the other: a row repeats only rows that are kept until then.
        for word, names in self._unique.items():
            incomplete = find_incomplete(frame, names)
            rows = find_repeats(frame, names, bad if incomplete is None else bad | incomplete)
            if rows is not None:
                repeats.append((word, rows))
                bad = bad | rows
        return bad, repeats


def to_text_rows(quarantined: pl.DataFrame) -> pl.DataFrame:
    """Return `quarantined` with every value as text, timestamps as ISO 8601.

    So rows of one feed fit into one table, whether they came as text or typed, and whatever is wrong with them.

    >>> from datetime import UTC, datetime
    >>> bad = pl.DataFrame({"v": [9e9], "at": [datetime(2013, 1, 1, tzinfo=UTC)], "_reasons": [["v|range"]]})
    >>> to_text_rows(bad).row(0)
    ('9000000000.0', '2013-01-01T00:00:00.000000+00:00', ['v|range'], None)
    """
    texts = [
        pl.col(name).dt.to_string("iso:strict") if kind.is_temporal() else pl.col(name).cast(pl.String)
        for name, kind in quarantined.schema.items()
        if name not in (REASONS, LINE)
    ]
    line = pl.col(LINE) if LINE in quarantined.columns else pl.lit(None, pl.String).alias(LINE)
    return quarantined.select(*texts, REASONS, line)


def _add_lines(verdict: BatchVerdict, typed: TypedBatch) -> BatchVerdict:
    reason = f"{LINE}|{typed.line_rule}"
    lines = pl.DataFrame({LINE: typed.lines}, schema={LINE: pl.String}).with_columns(
        pl.lit([reason], pl.List(pl.String)).alias(REASONS)
    )
    quarantined = pl.concat([verdict.quarantined, lines], how="diagonal")
    return replace(verdict, quarantined=quarantined, counts=verdict.counts | {reason: len(typed.lines)})


def _check_schema(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> None:
    found = frame.schema
    mistyped = [
        f"{name} is {found[name]}, not {wanted}"
        for name, wanted in schema.items()
        if name in found and found[name] != wanted
    ]
    require_columns(schema, found, {"of another type": mistyped}, state="no row was checked")


def _null_empty_words(frame: pl.DataFrame, words: list[str]) -> pl.DataFrame:
    """Return `frame` with each empty word as null, so that missing has one form from here on."""
    empty = frame.select((pl.col(words).str.len_bytes() == 0).any()).row(0) if words else ()
    changed = [name for name, has_empty in zip(words, empty, strict=True) if has_empty]
    return frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in changed)
