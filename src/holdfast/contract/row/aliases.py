"""Aliases in rows: each is replaced by its word, as `batch/aliases.py` does in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.contract.schema.contract import Contract


def map_row(contract: Contract, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `row` with the word of each alias of `contract`.

    >>> from holdfast.contract import Category, Timestamp
    >>> town = Category("town", aliases={"NYC": "New York"})
    >>> map_row(Contract(town, Timestamp("at", tz="UTC"), key="at", event_time="at"), {"town": "NYC"})
    {'town': 'New York'}
    """
    return dict(row) | {name: contract.word(name, row[name]) for name in contract.aliases if name in row}


def map_columns(
    columns: dict[str, list[Any]], aliases: Mapping[str, Mapping[str, str]]
) -> dict[str, list[Any]]:
    """Return `columns` with the word of each alias, as a new mapping if anything is replaced.

    >>> map_columns({"town": ["NYC", None]}, {"town": {"NYC": "New York"}})
    {'town': ['New York', None]}
    """
    changed = {
        name: [words.get(value, value) if isinstance(value, str) else value for value in columns[name]]
        for name, words in aliases.items()
        if name in columns
    }
    return {**columns, **changed} if changed else columns
