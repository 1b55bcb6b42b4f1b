"""Reasons of each bad row: found as bitmasks, returned as words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import polars as pl

from holdfast.contract.batch.reasons import Reason

REASONS: Final = "_reasons"
"""The column of a quarantined row that lists its reasons; no contract can name a column so."""

_BITS: Final = 64

BitPosition: TypeAlias = tuple[int, int]
"""The mask and the bit in it of a reason. Two reasons may share a word: a time out of range as read, and as checked."""


def is_any_broken(reasons: tuple[Reason, ...]) -> pl.Expr:
    """Return an expression that is true in each row for which any reason holds."""
    # Null where one is null and none holds, so that one look at the end is enough.
    return pl.any_horizontal(reason.broken for reason in reasons if not reason.covered).fill_null(value=False)


def are_broken(reasons: tuple[Reason, ...]) -> list[pl.Expr]:
    """Return for each reason whether it holds in any row: a third of the work of `is_any_broken`, but not per row."""
    return [
        reason.broken.any().alias(str(number)) for number, reason in enumerate(reasons) if not reason.covered
    ]


def bitmasks(reasons: tuple[Reason, ...]) -> list[pl.Expr]:
    """Return one UInt64 column for every 64 reasons, with bit i set where reason i holds."""
    masks = []
    for start in range(0, len(reasons), _BITS):
        bits = [
            pl.when(reason.broken).then(pl.lit(1 << bit, pl.UInt64)).otherwise(pl.lit(0, pl.UInt64))
            for bit, reason in enumerate(reasons[start : start + _BITS])
        ]
        masks.append(pl.sum_horizontal(bits).alias(f"mask{start // _BITS}"))
    return masks


def list_reasons(
    masks: pl.DataFrame, reasons: tuple[Reason, ...], repeats: Iterable[tuple[str, pl.Series]]
) -> pl.Series:
    """Return the list of reasons of each row of `masks`.

    Each column gives the first reason that holds; then follow the rules whose columns are all valid, then those of
    `repeats`: the rows that repeat an earlier row, by reason.
    """
    found = masks.select(pl.all().bitwise_or()).row(0)
    chains: dict[str, list[tuple[BitPosition, Reason]]] = {}
    for number, reason in enumerate(reasons):
        mask, bit = divmod(number, _BITS)
        if found[mask] >> bit & 1:
            chains.setdefault(reason.column, []).append(((mask, bit), reason))
    listed = []
    for chain in chains.values():
        choice = pl.lit(None, pl.String)
        for place, reason in reversed(chain):
            of_read = [other for name in reason.reads for other, _ in chains.get(name, ())]
            holds = _any_bit([place]) & ~_any_bit(of_read) if of_read else _any_bit([place])
            choice = pl.when(holds).then(pl.lit(reason.word)).otherwise(choice)
        listed.append(choice)
    for word, rows in repeats:
        listed.append(pl.when(pl.lit(rows)).then(pl.lit(word)).otherwise(pl.lit(None, pl.String)))
    return masks.select(pl.concat_list(listed).list.drop_nulls().alias(REASONS)).to_series()


def count_reasons(reasons: pl.Series, order: list[str]) -> dict[str, int]:
    """Return the number of rows per reason, in the given order."""
    counted = dict(reasons.explode().value_counts().iter_rows())
    return {reason: counted[reason] for reason in dict.fromkeys(order) if reason in counted}


def _any_bit(places: list[BitPosition]) -> pl.Expr:
    wanted: dict[int, int] = {}
    for word, bit in places:
        wanted[word] = wanted.get(word, 0) | 1 << bit
    return pl.any_horizontal(
        (pl.col(f"mask{word}") & pl.lit(bits, pl.UInt64)) != 0 for word, bits in wanted.items()
    )
