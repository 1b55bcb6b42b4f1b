"""What the quality of predictions must be, from the responses to callers and from the files of labels alone.

Written for the comparison in `nights`: it uses nothing of Holdfast. An AUC is counted pair by pair and divided once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import fsum

DAY_US = 86_400_000_000
MONDAY = 3  # 1970-01-01 was a Thursday
LEAST_OF_A_CLASS = 5


@dataclass(frozen=True)
class Response:
    """A response to a caller: by which version, with which probability, and when it was requested."""

    key: str
    version: str
    probability: float
    at_us: int


@dataclass(frozen=True)
class Known:
    """A line of a file of labels."""

    key: str
    value: bool
    known_at_us: int


@dataclass(frozen=True)
class Figures:
    """The figures of some responses. `auc` needs five of each class, `brier` two labels."""

    predictions: int
    labelled: int
    positives: int
    auc: float | None
    brier: float | None


def current_labels(lines: Iterable[Known], now_us: int) -> dict[str, bool]:
    """Return the newest label of each key that was known at `now_us`."""
    found: dict[str, tuple[int, bool]] = {}
    for line in lines:
        if line.known_at_us <= now_us:
            found[line.key] = max(found.get(line.key, (-1, False)), (line.known_at_us, line.value))
    return {key: value for key, (_, value) in found.items()}


def figures(responses: Iterable[Response], labels: Mapping[str, bool]) -> Figures:
    """Return the figures of `responses` by `labels`."""
    every = list(responses)
    pairs = [(each.probability, labels[each.key]) for each in every if each.key in labels]
    positives = sum(label for _, label in pairs)
    enough = min(positives, len(pairs) - positives) >= LEAST_OF_A_CLASS
    squares = [(probability - label) ** 2 for probability, label in pairs]
    return Figures(
        len(every),
        len(pairs),
        positives,
        auc([p for p, label in pairs if label], [p for p, label in pairs if not label]) if enough else None,
        fsum(squares) / len(squares) if len(squares) > 1 else None,
    )


def auc(positives: list[float], negatives: list[float]) -> float:
    """Return the share of pairs in which the positive has the larger probability; a tie is a half.

    >>> auc([0.4, 0.9], [0.1, 0.4])
    0.875
    """
    ordered = sorted(negatives)
    twice = sum(bisect_left(ordered, each) + bisect_right(ordered, each) for each in positives)
    return float(Fraction(twice, 2 * len(positives) * len(negatives)))


def window(now_us: int, delay_us: int, days: int = 60) -> int:
    """Return the begin of the first UTC day whose predictions count at `now_us`."""
    return ((now_us - delay_us) // DAY_US - days + 1) * DAY_US


def by_version(
    responses: Iterable[Response], labels: Mapping[str, bool], since_us: int
) -> dict[str, Figures]:
    """Return the figures of each version's responses since `since_us`."""
    found: dict[str, list[Response]] = {}
    for each in responses:
        if each.at_us >= since_us:
            found.setdefault(each.version, []).append(each)
    return {version: figures(its, labels) for version, its in found.items()}


def by_period(
    responses: Iterable[Response], labels: Mapping[str, bool], since_us: int, days: int
) -> dict[tuple[str, int], Figures]:
    """Return the figures by version and begin of a period of `days` UTC days, where there is a label.

    Periods of several days begin on a Monday.
    """
    shift = MONDAY if days > 1 else 0
    found: dict[tuple[str, int], list[Response]] = {}
    for each in responses:
        if each.at_us >= since_us and each.key in labels:
            period = (each.at_us // DAY_US + shift) // days
            found.setdefault((each.version, (period * days - shift) * DAY_US), []).append(each)
    return {cell: figures(its, labels) for cell, its in found.items()}
