"""Fitted features: declarations whose every open question has become a constant. Frozen, hashed, plain
JSON."""

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
"""Grows when the meaning of the JSON changes; an older Holdfast refuses a newer one."""

MISSING_US: Final = -(2**63)
"""A missing timestamp as an input of the graph; like every moment outside 1970 to 2099 its hour, weekday and
month are NaN."""

CODE_MISSING: Final = 0
CODE_UNSEEN: Final = 1
CODE_FIRST: Final = 2


class Kind(enum.StrEnum):
    """What an input of the graph is: its ONNX type, and what stands for a missing value."""

    NUMBER = "number"  # float64, NaN
    BOOLEAN = "boolean"  # float64 0 or 1, NaN
    CATEGORY = "category"  # string, ""
    TIMESTAMP = "timestamp"  # int64 microseconds UTC, MISSING_US


class Input(msgspec.Struct, frozen=True):
    """One input of the feature graph: a column of the contract or an aggregate, by name.

    `tz` and `local` matter to timestamps alone: the zone of the column, and whether a text without an offset
    is that zone's wall clock.
    """

    name: str
    kind: Kind
    tz: str = ""
    local: bool = False


class Clock(enum.StrEnum):
    """What a clock or calendar in a time zone shows."""

    HOUR = "hour"
    WEEKDAY = "weekday"
    MONTH = "month"


class Fitted(msgspec.Struct, frozen=True, tag_field="op"):
    """One column of the feature matrix. `fill` is what a missing value becomes; None leaves it NaN."""

    name: str


class Plain(Fitted, frozen=True, tag="plain"):
    """The number itself."""

    column: str
    fill: float | None


class Logarithm(Fitted, frozen=True, tag="log"):
    """The natural logarithm of the number, or of `floor` (above 0) where the number is smaller."""

    column: str
    fill: float | None
    floor: float


class Clipped(Fitted, frozen=True, tag="clip"):
    """The number within the bounds that are there."""

    column: str
    fill: float | None
    low: float | None
    high: float | None


class Bucketed(Fitted, frozen=True, tag="bucket"):
    """How many of the rising edges are at or under the number."""

    column: str
    fill: float | None
    edges: tuple[float, ...]


class Flagged(Fitted, frozen=True, tag="missing"):
    """1 where the column is missing, else 0."""

    column: str


class Coded(Fitted, frozen=True, tag="ordinal"):
    """The place of the word among `values` plus 2; 1 for another word, `missing` for none."""

    column: str
    values: tuple[str, ...]
    missing: int


class Clocked(Fitted, frozen=True, tag="clock"):
    """What a clock in `zone` shows at the instant."""

    column: str
    part: Clock
    zone: str


class Quotient(Fitted, frozen=True, tag="ratio"):
    """numerator / denominator; `by_zero` where the denominator is 0."""

    numerator: str
    numerator_fill: float | None
    denominator: str
    denominator_fill: float | None
    by_zero: float


class Subtracted(Fitted, frozen=True, tag="difference"):
    """left - right."""

    left: str
    left_fill: float | None
    right: str
    right_fill: float | None


AnyFitted = Plain | Logarithm | Clipped | Bucketed | Flagged | Coded | Clocked | Quotient | Subtracted


class _Document(msgspec.Struct, frozen=True):
    format: int
    contract_hash: str
    inputs: tuple[Input, ...]
    features: tuple[AnyFitted, ...]
    zones: tuple[Zone, ...]
    aggregates: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class FittedFeatures:
    """Everything that the feature graph is made of.

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
        The aggregates among the inputs: what the server has to look up, and by which rule (R44).
    """

    contract_hash: str
    inputs: tuple[Input, ...]
    features: tuple[AnyFitted, ...]
    zones: tuple[Zone, ...]
    aggregates: tuple[Aggregate, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the feature matrix, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the JSON, as 64 hexadecimal digits."""
        return sha256_hex(self.to_json())

    def to_json(self) -> str:
        """Canonical JSON: equal features give equal text."""
        aggregates = tuple(aggregate.as_dict() for aggregate in self.aggregates)
        document = _Document(FORMAT, self.contract_hash, self.inputs, self.features, self.zones, aggregates)
        return canonical_json(msgspec.to_builtins(document))

    @classmethod
    def from_json(cls, text: str) -> FittedFeatures:
        """The inverse of `to_json`.

        Raises
        ------
        IntegrityError
            HF301 when the text is not fitted features, or those of a newer Holdfast.
        """
        try:
            document = msgspec.json.decode(text, type=_Document)
            if document.format != FORMAT:
                raise msgspec.ValidationError(f"format {document.format} is not {FORMAT}")
            aggregates = tuple(Aggregate.from_dict(aggregate) for aggregate in document.aggregates)
        except (msgspec.DecodeError, KeyError) as error:
            raise IntegrityError("HF301", f"the fitted features cannot be read: {error}") from error
        return cls(document.contract_hash, document.inputs, document.features, document.zones, aggregates)
