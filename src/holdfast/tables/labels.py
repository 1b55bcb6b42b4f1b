"""Labels that come later than their rows: which label of a row was known at a given time.

A label feed keeps every label that it received. A row of it has the key of the labelled row, the label, and the time at which
the label became known. A correction is another row of the same key, so the history stays and any past state can be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from holdfast.records import Corrections

KNOWN_AT: Final = "_label_known_at_us"
"""The column with the time at which a label became known, microseconds since 1970 UTC. No contract can name it so."""

LABEL_LOADS: Final = "_label_loads"
"""The column with the loads of label feeds that a label was taken from: a list of structs of `feed` and `batch`.

It is null for a label that the row brought itself. No contract can name a column so.
"""

_FIRST: Final = "_first_label_of_others_us"


def known_labels(
    history: pl.DataFrame, *, key: Sequence[str], label: str, until_us: int, corrections: Corrections
) -> pl.DataFrame:
    """Return the label of each key that was known at `until_us`, one row for each key.

    Parameters
    ----------
    history
        Rows with `key`, `label` and `KNOWN_AT`, in any order, with repetitions. Rows without a label are ignored.
    key
        The columns that identify the labelled row.
    label
        The boolean column of the label.
    until_us
        Microseconds since 1970 UTC. A label that became known later is ignored.
    corrections
        Which of several labels counts.

    Returns the columns `key`, `label` and `KNOWN_AT`: since when the label is known without a change. A repeated label counts
    once and moves no time. Of two labels of one key at one time, true counts as the later, so the result depends on no order.

    >>> rows = [("a", 10, False), ("a", 20, True), ("a", 30, True), ("b", 40, True)]
    >>> history = pl.DataFrame(rows, schema=["id", KNOWN_AT, "repaid"], orient="row")
    >>> known_labels(history, key=["id"], label="repaid", until_us=35, corrections="latest").rows()
    [('a', True, 20)]
    """
    keys = list(key)
    known = (
        history.select(*keys, label, KNOWN_AT)
        .filter(pl.col(KNOWN_AT) <= until_us, pl.col(label).is_not_null())
        .sort(*keys, KNOWN_AT, label)
    )
    if corrections == "latest":
        # Where the value changed: the last of these places is since when the value is known.
        known = known.filter((pl.col(label) != pl.col(label).shift(1)).over(keys).fill_null(value=True))
    return known.unique(keys, keep="first" if corrections == "first" else "last", maintain_order=True)


def before_others(own: pl.DataFrame, others: Sequence[pl.DataFrame], *, key: Sequence[str]) -> pl.DataFrame:
    """Return the labels that rows brought themselves as the first of their history.

    `own` and each of `others` have the columns `key` and `KNOWN_AT`. A label that was known after another one of its key gets
    the time right before that one.
    """
    if not others:
        return own
    first = pl.concat(others).group_by(list(key)).agg(pl.col(KNOWN_AT).min().alias(_FIRST))
    known_at = pl.min_horizontal(KNOWN_AT, pl.col(_FIRST) - 1).alias(KNOWN_AT)
    return (
        own.join(first, on=list(key), how="left", maintain_order="left").with_columns(known_at).drop(_FIRST)
    )
