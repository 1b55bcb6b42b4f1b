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
window      a request's tensor declares another window; a whole delivery is refused (HF202)
=========== =========================================================================

The names here declare a contract. Its check of one row is in `contract.row`; that of frames in `contract.batch`, which
a server does not import, so that it starts without Polars.
"""

from __future__ import annotations

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
from holdfast.contract.schema.missing import Constant, Keep, Mean, Median, Missing, Reject
from holdfast.contract.schema.source_metadata import ColumnFacts

__all__ = [
    "Boolean",
    "Category",
    "Column",
    "ColumnFacts",
    "Constant",
    "Contract",
    "Expression",
    "Integer",
    "Keep",
    "Label",
    "Mean",
    "Median",
    "Missing",
    "Number",
    "Reject",
    "Rule",
    "Text",
    "Timestamp",
    "col",
]
