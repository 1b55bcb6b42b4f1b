"""Point-in-time aggregates: what was known about an entity at a time, over a window that ends there.

One rule serves training (`join_as_of`) and the server (`OnlineTable`):

1. A row is *known* at `known_at + available_after`, and counts from that time on.
2. At each time of the grid (whole multiples of `every` since 1970-01-01 UTC) an entity has the aggregate of the rows
   that became known in the window `(time - window, time]`, and no value if there are none.
3. A reader at time `t` gets the value of the last grid time at or before `t` that has one, if it is no older than
   `window`; else it gets none.

So a reader sees no row that was unknown, and a value is at most `every` behind the newest known row. The time at
which a row was *known* counts. Joining on when it *happened* leaks late corrections into training
(https://github.com/feast-dev/feast/issues/6615).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final, Literal, get_args

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.records import canonical_json, check_name, duration, sha256_hex

AggregateFunction = Literal["mean", "last", "count"]

MICROSECOND: Final = timedelta(microseconds=1)

_SPANS: Final = ("window", "every", "available_after")
"""The fields that are durations."""

MOST_STEPS: Final = 10_000
"""The maximum number of grid steps in a window. Each row may make as many values, so a wrong unit could fill the disk."""


@dataclass(frozen=True, slots=True)
@checked()
class Aggregate:
    """A value per entity and grid time, made from the rows of one feed that were known by then (R44).

    Parameters
    ----------
    name
        The column of the model's rows that the value fills.
    over
        The name of the feed whose rows are aggregated.
    by
        The column that names the entity, in the feed and in the model's rows: a category, text or integer.
    value
        The number or boolean that is aggregated. Rows without it are ignored by every `agg`.
    known_at
        The timestamp column of the feed from which a row's value was known.
    window
        The duration that a value looks back over; a whole multiple of `every`.
    every
        The step of the grid. A finer grid has fresher values and more rows.
    available_after
        The delay from `known_at` until a row arrives, so that training does not see what the server could not.
    agg
        "mean", "count", or "last" (the row known last; among rows known at the same time the greatest value,
        so that the order of loading does not matter).

    Raises
    ------
    InputError
        HF105 if a duration is not positive, the window is not a multiple of the step, or `agg` is unknown.
    """

    name: str
    over: str
    by: str
    value: str
    known_at: str
    window: timedelta | str
    every: timedelta | str
    available_after: timedelta | str = timedelta(0)
    agg: AggregateFunction = "mean"

    def __post_init__(self) -> None:
        check_name(self.name, "aggregate")
        for span in _SPANS:
            object.__setattr__(self, span, duration(getattr(self, span), span))
        why = ""
        if self.every_us <= 0 or self.window_us <= 0 or self.available_after_us < 0:
            why = "window and every must be positive, available_after not negative"
        elif self.window_us % self.every_us:
            why = "the window must be a whole multiple of every"
        elif self.window_us // self.every_us > MOST_STEPS:
            why = f"the window holds more than {MOST_STEPS} steps of every"
        elif self.agg not in get_args(AggregateFunction):
            why = f"agg is one of {', '.join(get_args(AggregateFunction))}, not {self.agg!r}"
        if why:
            raise InputError("HF105", f"aggregate {self.name!r}: {why}")

    @property
    def key(self) -> str:
        """Return the name with 12 digits of the definition's SHA-256, so that values of two definitions never mix.

        >>> hourly = Aggregate("late", over="f", by="origin", value="d", known_at="left", window="1h", every="1h")
        >>> daily = Aggregate("late", over="f", by="origin", value="d", known_at="left", window="24h", every="1h")
        >>> hourly.key.startswith("late.") and hourly.key != daily.key
        True
        """
        return _key(self)

    @property
    def window_us(self) -> int:
        """Return `window` in microseconds."""
        return duration(self.window) // MICROSECOND

    @property
    def every_us(self) -> int:
        """Return `every` in microseconds."""
        return duration(self.every) // MICROSECOND

    @property
    def available_after_us(self) -> int:
        """Return `available_after` in microseconds."""
        return duration(self.available_after) // MICROSECOND

    @property
    def history(self) -> timedelta:
        """Return how far a caller must look back before its first new row: the window.

        Given every row whose `known_at` is later than the first new row's `known_at` minus this, `aggregate_rows` is
        right from `first_changed_us` on, where the new rows begin to matter.
        """
        return duration(self.window)

    def as_dict(self) -> dict[str, Any]:
        """Return the declaration in plain JSON types, durations in microseconds."""
        facts = asdict(self)
        for span in _SPANS:
            facts[f"{span}_us"] = facts.pop(span) // MICROSECOND
        return facts

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Aggregate:
        """Return the aggregate that `as_dict` wrote."""
        facts = dict(value)
        for span in _SPANS:
            facts[span] = timedelta(microseconds=facts.pop(f"{span}_us"))
        return cls(**facts)


@lru_cache(maxsize=1024)
def _key(aggregate: Aggregate) -> str:
    # Cached, because each online value is looked up by its key.
    return f"{aggregate.name}.{sha256_hex(canonical_json(aggregate.as_dict()))[:12]}"


def aggregates_to_json(aggregates: Iterable[Aggregate]) -> str:
    """Return the declarations as canonical JSON: equal declarations give equal text.

    >>> one = Aggregate("late", over="flights", by="origin", value="d", known_at="left", window="2h", every="1h")
    >>> aggregates_from_json(aggregates_to_json([one])) == (one,)
    True
    """
    return canonical_json([aggregate.as_dict() for aggregate in aggregates])


def aggregates_from_json(text: str) -> tuple[Aggregate, ...]:
    """Return the declarations that `aggregates_to_json` wrote."""
    return tuple(Aggregate.from_dict(value) for value in json.loads(text))


def entity_key(value: object) -> str | None:
    """Return an entity as text, as aggregates identify it; None if it is missing.

    >>> entity_key("EWR"), entity_key(7), entity_key(""), entity_key(None)
    ('EWR', '7', None, None)
    """
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else str(value)
