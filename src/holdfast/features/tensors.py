"""From rows to the input tensors of the graph: a whole frame when training, a few rows when serving, the same
numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from holdfast.contract.schema.timestamps import microseconds, read_timestamp
from holdfast.errors import InputError
from holdfast.features.fitted import MISSING_US, Input, Kind

if TYPE_CHECKING:
    import polars as pl

Tensors = dict[str, npt.NDArray[Any]]
"""Input name to a tensor of shape (N,): float64, int64, or objects that are str."""

_NAN: Final = float("nan")
_PLAIN_NUMBERS: Final = frozenset({float, int, bool, type(None)})


def feed_from_frame(inputs: Sequence[Input], frame: pl.DataFrame) -> Tensors:
    """The input tensors of all rows of a frame that was checked against the contract.

    Raises
    ------
    InputError
        HF408 when a column is absent, or a timestamp has no zone.
    """
    absent = [part.name for part in inputs if part.name not in frame.columns]
    if absent:
        raise InputError("HF408", f"the rows lack {', '.join(absent)}, which the features read")
    return {part.name: _from_column(part, frame[part.name]) for part in inputs}


def feed_from_rows(inputs: Sequence[Input], rows: Sequence[Mapping[str, object]]) -> Tensors:
    """The input tensors of rows that passed the contract's row check.

    Values are as the contract takes them; a timestamp may also be an integer, microseconds since 1970 UTC.
    None and an absent key are missing.

    Raises
    ------
    InputError
        HF502 when a value is of no type that the input can be made from; rows that passed the contract never
        do that.
    """
    return {part.name: _FROM_ROWS[part.kind](part, [row.get(part.name) for row in rows]) for part in inputs}


def _from_column(part: Input, column: pl.Series) -> npt.NDArray[Any]:
    import polars as pl  # here, so that a server starts without Polars

    match part.kind:
        case Kind.NUMBER | Kind.BOOLEAN:
            return column.cast(pl.Float64).fill_null(_NAN).to_numpy()
        case Kind.CATEGORY:
            return column.cast(pl.String).fill_null("").to_numpy().astype(object, copy=False)
        case Kind.TIMESTAMP:
            if not isinstance(column.dtype, pl.Datetime) or column.dtype.time_zone is None:
                raise InputError(
                    "HF408", f"column {part.name!r} is {column.dtype}, and not a timestamp with a time zone"
                )
            return column.dt.cast_time_unit("us").to_physical().fill_null(MISSING_US).to_numpy()


def _numbers(part: Input, values: list[Any]) -> npt.NDArray[Any]:
    # NumPy alone would read the text "1.5" as a number and a list as a row of them; the contract does not.
    # Looking at the set of types first costs a tenth of looking at every value, and is enough for ordinary rows.
    if not _PLAIN_NUMBERS.issuperset(map(type, values)) and any(
        isinstance(value, (str, bytes, list, tuple)) for value in values
    ):
        raise InputError("HF502", f"{part.name} holds something that is not a number")
    try:
        return np.array([_NAN if value is None else value for value in values], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("HF502", f"{part.name} holds something that is not a number") from error


def _words(part: Input, values: list[Any]) -> npt.NDArray[Any]:
    words = np.empty(len(values), object)
    for place, value in enumerate(values):
        if value is None:
            words[place] = ""
        elif isinstance(value, str):
            words[place] = value if value.isascii() else value.encode("utf-8", "replace").decode()
        else:
            raise InputError("HF502", f"{part.name} holds something that is not a text")
    return words


def _instants(part: Input, values: list[Any]) -> npt.NDArray[Any]:
    return np.array([_instant(part, value) for value in values], np.int64)


def _instant(part: Input, value: object) -> int:
    if value is None:
        return MISSING_US
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else MISSING_US
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return microseconds(value)
    moment = read_timestamp(value, _zone(part.tz), local=part.local)
    if isinstance(moment, str):
        raise InputError("HF502", f"{value!r} breaks {part.name}|{moment}")
    return microseconds(moment)


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name or "UTC")


_FROM_ROWS: Final[dict[Kind, Callable[[Input, list[Any]], npt.NDArray[Any]]]] = {
    Kind.NUMBER: _numbers,
    Kind.BOOLEAN: _numbers,
    Kind.CATEGORY: _words,
    Kind.TIMESTAMP: _instants,
}
