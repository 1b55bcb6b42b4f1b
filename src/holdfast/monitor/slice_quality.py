"""Quality by slice: one value of a column that the contract names, and one version (R143)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from holdfast.monitor.quality import Outcomes, Quality, compute_quality
from holdfast.records import SLICE_CHARACTERS, shortened

MOST_VALUES: Final = 20
"""How many values of a column are shown, those with the most labels. So the number of series is bounded."""
UNSEEN: Final = "(unseen)"
"""All values of a column that no training row had, as one: callers choose them."""
OTHER: Final = "(other)"
"""All further values that training rows had."""
MISSING: Final = "(missing)"


@dataclass(frozen=True, slots=True)
class SliceQuality:
    """The quality of one version for the rows whose `column` has `value`.

    It is conclusive if there are enough labels of both classes for an AUC. A slice with fewer proves nothing, good or bad.
    """

    column: str
    value: str
    version: str
    is_conclusive: bool
    quality: Quality


def slice_value(value: object) -> str:
    """Return a value as text, as the slices of a snapshot have it.

    >>> slice_value(None), slice_value(True), slice_value("AA")
    ('(missing)', 'true', 'AA')
    """
    match value:
        case None:
            return MISSING
        case bool():
            return "true" if value else "false"
        case _:
            return shortened(str(value), SLICE_CHARACTERS)


def quality_by_slice(
    outcomes: Outcomes,
    values: Mapping[str, NDArray[np.str_]],
    trained: Mapping[str, Collection[str]],
    *,
    most: int = MOST_VALUES,
) -> tuple[SliceQuality, ...]:
    """Return the quality of each slice and version with a label: by column, then by number of labels, then by version.

    Parameters
    ----------
    outcomes
        N labelled predictions.
    values
        Their values (N,) by column, as `slice_value` writes them; empty for a row of a version without the column.
    trained
        The values that training rows had, by column. For a column that is not named here every value counts as trained.
    most
        How many values of a column stand for themselves.
    """
    found: list[SliceQuality] = []
    for column, raw in sorted(values.items()):
        named = _named(raw, trained.get(column), most)
        counts = Counter(str(value) for value in named if value)
        for value in sorted(counts, key=lambda each: (each in (OTHER, UNSEEN), -counts[each], each)):
            inside = named == value
            for version in sorted({str(each) for each in outcomes.version[inside]}):
                quality = compute_quality(outcomes.where(inside & (outcomes.version == version)))
                found.append(SliceQuality(column, value, version, quality.auc is not None, quality))
    return tuple(found)


def _named(raw: NDArray[np.str_], trained: Collection[str] | None, most: int) -> NDArray[np.str_]:
    """Return the values under which rows are reported: themselves, or one name for the unseen or the rare ones."""
    counts = Counter(str(value) for value in raw if value)
    known = [value for value in counts if trained is None or value in trained]
    shown = set(sorted(known, key=lambda value: (-counts[value], value))[:most])
    names = {"": ""} | {
        value: value if value in shown else OTHER if value in known else UNSEEN for value in counts
    }
    return np.array([names[str(value)] for value in raw], dtype=np.str_)
