"""Fitted features: declarations with all constants known. Frozen, hashed, plain JSON."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from holdfast.errors import IntegrityError
from holdfast.features.aggregate import Aggregate
from holdfast.features.timezone_tables import Zone
from holdfast.records import canonical_json, sha256_hex

FORMAT: Final = 1
"""The version of the JSON; another version is refused."""

MISSING_US: Final = -(2**63)
"""A missing timestamp as an input of the graph. As for any timestamp outside 1970 to 2099, its parts are NaN."""

CODE_MISSING: Final = 0
CODE_UNSEEN: Final = 1
CODE_FIRST: Final = 2


class InputType(enum.StrEnum):
    """The type of a graph input: its ONNX type, and the value that represents missing."""

    NUMBER = "number"  # float64, NaN
    BOOLEAN = "boolean"  # float64 0 or 1, NaN
    CATEGORY = "category"  # string, ""
    TIMESTAMP = "timestamp"  # int64 microseconds UTC, MISSING_US


class Input(msgspec.Struct, frozen=True):
    """One input of the feature graph: a column of the contract or an aggregate, by name.

    `tz` and `local` apply to timestamps: the zone of the column, and whether a text without an offset is that zone's
    wall clock.
    """

    name: str
    kind: InputType
    tz: str = ""
    local: bool = False


class DatetimePart(enum.StrEnum):
    """A part of the local date and time."""

    HOUR = "hour"
    WEEKDAY = "weekday"
    MONTH = "month"


class Fitted(msgspec.Struct, frozen=True, tag_field="op"):
    """One column of the feature matrix. `fill` replaces a missing value; None leaves it NaN."""

    name: str


class OfNumber(Fitted, frozen=True):
    """A feature of one number."""

    column: str
    fill: float | None


class FittedNumber(OfNumber, frozen=True, tag="plain"):
    """The number itself."""


class FittedLog(OfNumber, frozen=True, tag="log"):
    """The natural logarithm of the number, or of `floor` (above 0) if the number is smaller."""

    floor: float


class FittedClip(OfNumber, frozen=True, tag="clip"):
    """The number limited to the bounds that are set."""

    low: float | None
    high: float | None


class FittedBucket(OfNumber, frozen=True, tag="bucket"):
    """The number of edges at or under the number."""

    edges: tuple[float, ...]


class MissingFlag(Fitted, frozen=True, tag="missing"):
    """1 if the column is missing, else 0."""

    column: str


class FittedOrdinal(Fitted, frozen=True, tag="ordinal"):
    """The position of the word among `values` plus 2; 1 for another word, `missing` for none."""

    column: str
    values: tuple[str, ...]
    missing: int


class FittedDatetime(Fitted, frozen=True, tag="clock"):
    """A part of the local time in `zone` at the timestamp."""

    column: str
    part: DatetimePart
    zone: str


class FittedRatio(Fitted, frozen=True, tag="ratio"):
    """numerator / denominator; `by_zero` where the denominator is 0."""

    numerator: str
    numerator_fill: float | None
    denominator: str
    denominator_fill: float | None
    by_zero: float


class FittedDifference(Fitted, frozen=True, tag="difference"):
    """left - right."""

    left: str
    left_fill: float | None
    right: str
    right_fill: float | None


FittedFeature = (
    FittedNumber
    | FittedLog
    | FittedClip
    | FittedBucket
    | MissingFlag
    | FittedOrdinal
    | FittedDatetime
    | FittedRatio
    | FittedDifference
)


class _Document(msgspec.Struct, frozen=True):
    format: int
    contract_hash: str
    inputs: tuple[Input, ...]
    features: tuple[FittedFeature, ...]
    zones: tuple[Zone, ...]
    aggregates: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class FittedFeatures:
    """All inputs of the feature graph's construction.

    Parameters
    ----------
    contract_hash
        The contract whose rows these features read (R48).
    inputs
        The columns and aggregates that are read, in the order of the contract, aggregates last.
    features
        One per column of the matrix, in that order.
    zones
        The clock changes of every time zone that a feature needs.
    aggregates
        The aggregates among the inputs, which the server has to look up, with their rule (R44).
    """

    contract_hash: str
    inputs: tuple[Input, ...]
    features: tuple[FittedFeature, ...]
    zones: tuple[Zone, ...]
    aggregates: tuple[Aggregate, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns of the feature matrix, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """Return, by column, the words that some feature has a code for, in order."""
        found: dict[str, set[str]] = {}
        for feature in self.features:
            if isinstance(feature, FittedOrdinal):
                found.setdefault(feature.column, set()).update(feature.values)
        return {column: tuple(sorted(words)) for column, words in found.items()}

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 of the JSON, as 64 hexadecimal digits."""
        return sha256_hex(self.to_json())

    def to_json(self) -> str:
        """Return canonical JSON: equal features give equal text."""
        aggregates = tuple(aggregate.as_dict() for aggregate in self.aggregates)
        document = _Document(FORMAT, self.contract_hash, self.inputs, self.features, self.zones, aggregates)
        return canonical_json(msgspec.to_builtins(document))

    @classmethod
    def from_json(cls, text: str) -> FittedFeatures:
        """Return the features that `to_json` wrote.

        Raises
        ------
        IntegrityError
            HF301 if the text is not fitted features, or has another format.
        """
        try:
            document = msgspec.json.decode(text, type=_Document)
            if document.format != FORMAT:
                raise msgspec.ValidationError(f"format {document.format} is not {FORMAT}")
            aggregates = tuple(Aggregate.from_dict(aggregate) for aggregate in document.aggregates)
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise IntegrityError("HF301", f"the fitted features cannot be read: {error}") from error
        return cls(document.contract_hash, document.inputs, document.features, document.zones, aggregates)
