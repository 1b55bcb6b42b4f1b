"""The contract of a row: types, ranges, units, time zones, missing and unseen policy.

Declared once, checked for batches (Polars) and for single rows (plain closures), with the same reasons. The rules:

=========== =========================================================================
missing     the value is null, absent, or an empty word, and the policy is `Reject`
type        the value is of another type, or a text that does not read as one
not_finite  a number is NaN, infinite, or too large for double precision
not_exact   an integer's magnitude is above 2**53; of a number, an integer that no double is
range       a value is outside its bounds; a timestamp outside the years 1 to 9999
unseen      a category is not among the values, and the policy is "reject"
zone        a timestamp has no offset
gap, fold   a wall clock time that the zone skips, or shows twice
nul         a text or a key contains NUL
repeated    a JSON object has the name twice
not_unicode a word holds a lone surrogate, which UTF-8 cannot encode
too_long    a text is longer than its maximum
pattern     a text does not match its pattern
rule        the row breaks a rule of the contract: "name of the rule|rule"
duplicate   an earlier valid row of the batch has the same key
unique      an earlier valid row of the batch has the same values in columns that are to be unique
extra       a row has a key that no column has; a whole delivery with one is refused (HF202)
fields      a line has another number of fields than the header: "_line|fields"
json        a line is not a JSON object: "_line|json"
unit        a request's tensor is in a unit that does not convert; a whole delivery is refused (HF202)
semantic    a request's tensor declares another semantic; a whole delivery is refused (HF202)
=========== =========================================================================

Functions on frames are imported on first use, so that a server, which checks rows only, starts without Polars.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from holdfast.contract.row.compiler import EXTRA, compile_row, compile_rules
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
from holdfast.contract.schema.expressions import Expression, Rule, col
from holdfast.contract.schema.missing import (
    Constant,
    Keep,
    Mean,
    Median,
    Missing,
    Reject,
    Scalar,
    as_policy,
    fill_values,
)
from holdfast.contract.schema.source_metadata import ColumnFacts, Facts
from holdfast.contract.schema.timestamps import microseconds, read_timestamp, timestamp_us

if TYPE_CHECKING:
    from holdfast.contract.batch.compiler import (
        LINE,
        BatchCheck,
        BatchVerdict,
        compile_batch,
        dtype,
        dtypes,
        to_text_rows,
    )
    from holdfast.contract.batch.json_input import from_objects
    from holdfast.contract.batch.reasons import REASONS
    from holdfast.contract.batch.text_input import MISSING_WORDS, TypedBatch, from_text
    from holdfast.contract.batch.typed_input import from_frame

_FRAME_MODULES = {
    "LINE": "batch.compiler",
    "REASONS": "batch.reasons",
    "to_text_rows": "batch.compiler",
    "BatchCheck": "batch.compiler",
    "BatchVerdict": "batch.compiler",
    "compile_batch": "batch.compiler",
    "dtype": "batch.compiler",
    "dtypes": "batch.compiler",
    "from_frame": "batch.typed_input",
    "from_objects": "batch.json_input",
    "MISSING_WORDS": "batch.text_input",
    "TypedBatch": "batch.text_input",
    "from_text": "batch.text_input",
}

__all__ = [
    "EXTRA",
    "LINE",
    "MISSING_WORDS",
    "REASONS",
    "BatchCheck",
    "BatchVerdict",
    "Boolean",
    "Category",
    "Column",
    "ColumnFacts",
    "Constant",
    "Contract",
    "Expression",
    "Facts",
    "Integer",
    "Keep",
    "Label",
    "Mean",
    "Median",
    "Missing",
    "Number",
    "Reject",
    "Rule",
    "Scalar",
    "Text",
    "Timestamp",
    "TypedBatch",
    "as_policy",
    "col",
    "compile_batch",
    "compile_row",
    "compile_rules",
    "dtype",
    "dtypes",
    "fill_values",
    "from_frame",
    "from_objects",
    "from_text",
    "microseconds",
    "read_timestamp",
    "timestamp_us",
    "to_text_rows",
]


def __getattr__(name: str) -> Any:
    if name in _FRAME_MODULES:
        return getattr(import_module(f"{__name__}.{_FRAME_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
