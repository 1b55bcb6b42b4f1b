"""Input tensors of the graph, from a whole frame in training or a few rows in serving: the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from holdfast.contract.schema.timestamps import read_timestamp
from holdfast.errors import InputError
from holdfast.features.fitted import MISSING_US, Input, InputType
from holdfast.records import microseconds

if TYPE_CHECKING:
    import polars as pl

Tensors = dict[str, npt.NDArray[Any]]
"""Input name to a tensor of shape (N,): float64, int64, or objects that are str."""

_NAN: Final = float("nan")
_PLAIN_NUMBERS: Final = frozenset({float, int, bool, type(None)})


def tensors_from_frame(inputs: Sequence[Input], frame: pl.DataFrame) -> Tensors:
    """Return the input tensors of all rows of a frame that was checked against the contract.

    Raises
    ------
    InputError
        HF408 if a column is absent, or a timestamp has no zone.
    """
    absent = [part.name for part in inputs if part.name not in frame.columns]
    if absent:
        raise InputError("HF408", f"the rows lack {', '.join(absent)}, which the features read")
    return {part.name: _column_tensor(part, frame[part.name]) for part in inputs}


def tensors_from_rows(inputs: Sequence[Input], rows: Sequence[Mapping[str, object]]) -> Tensors:
    """Return the input tensors of rows that passed the contract's row check.

    Values are those of the contract; a timestamp may also be an integer, microseconds since 1970 UTC. None and an
    absent key are missing.

    Raises
    ------
    InputError
        HF502 if a value's type does not fit the input, which never happens to rows that passed the contract.
    """
    return {part.name: _FROM_ROWS[part.kind](part, [row.get(part.name) for row in rows]) for part in inputs}


def _column_tensor(part: Input, column: pl.Series) -> npt.NDArray[Any]:
    import polars as pl  # here, so that a server starts without Polars

    match part.kind:
        case InputType.NUMBER | InputType.BOOLEAN:
            return column.cast(pl.Float64).fill_null(_NAN).to_numpy()
        case InputType.CATEGORY:
            return column.cast(pl.String).fill_null("").to_numpy().astype(object, copy=False)
        case InputType.TIMESTAMP:
            if not isinstance(column.dtype, pl.Datetime) or column.dtype.time_zone is None:
                raise InputError(
                    "HF408", f"column {part.name!r} is {column.dtype}, not a timestamp with a time zone"
                )
            return column.dt.cast_time_unit("us").to_physical().fill_null(MISSING_US).to_numpy()


def _read_numbers(part: Input, values: list[Any]) -> npt.NDArray[Any]:
    # NumPy alone would read the text "1.5" as a number and a list as a row of them; the contract does not.
    # The set of types costs a tenth of a look at every value, and is enough for ordinary rows.
    if not _PLAIN_NUMBERS.issuperset(map(type, values)) and any(
        isinstance(value, (str, bytes, list, tuple)) for value in values
    ):
        raise InputError("HF502", f"{part.name} holds something that is not a number")
    try:
        return np.array([_NAN if value is None else value for value in values], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("HF502", f"{part.name} holds something that is not a number") from error


def _read_words(part: Input, values: list[Any]) -> npt.NDArray[Any]:
    words = np.empty(len(values), object)
    for place, value in enumerate(values):
        if value is None:
            words[place] = ""
        elif isinstance(value, str):
            words[place] = value if value.isascii() else value.encode("utf-8", "replace").decode()
        else:
            raise InputError("HF502", f"{part.name} holds something that is not a text")
    return words


def _read_timestamps(part: Input, values: list[Any]) -> npt.NDArray[Any]:
    return np.array([_read_timestamp_us(part, value) for value in values], np.int64)


def _read_timestamp_us(part: Input, value: object) -> int:
    if value is None:
        return MISSING_US
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else MISSING_US
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return microseconds(value)
    timestamp = read_timestamp(value, _zone_info(part.tz), local=part.local)
    if isinstance(timestamp, str):
        raise InputError("HF502", f"{value!r} breaks {part.name}|{timestamp}")
    return microseconds(timestamp)


@lru_cache(maxsize=256)
def _zone_info(name: str) -> ZoneInfo:
    return ZoneInfo(name or "UTC")


_FROM_ROWS: Final[dict[InputType, Callable[[Input, list[Any]], npt.NDArray[Any]]]] = {
    InputType.NUMBER: _read_numbers,
    InputType.BOOLEAN: _read_numbers,
    InputType.CATEGORY: _read_words,
    InputType.TIMESTAMP: _read_timestamps,
}
