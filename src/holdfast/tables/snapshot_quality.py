"""How good the data of a snapshot are: the share of its rows that came, were valid, and met the expectations (R38)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadQuality:
    """One load of a snapshot. `rows_expected` is None if the sender declared no number.

    `met_expectations` is False if it has a violation of any level, accepted or not.
    """

    rows_received: int
    rows_loaded: int
    rows_expected: int | None
    met_expectations: bool


@dataclass(frozen=True, slots=True)
class SnapshotQuality:
    """Three shares, each from 0 to 1; `score` is their product.

    Parameters
    ----------
    complete
        Rows that came, of those that the senders declared; 1 if they declared nothing.
    valid
        Rows that the contracts accepted, of those that came.
    as_expected
        Accepted rows in loads without a violation of an expectation, of all accepted rows.
    """

    complete: float
    valid: float
    as_expected: float

    @property
    def score(self) -> float:
        """Return the product of the shares."""
        return self.complete * self.valid * self.as_expected

    def describe(self) -> str:
        """Return the score and its parts in words.

        >>> SnapshotQuality(1.0, 0.98, 0.9).describe()
        'quality 88.2 %: complete 100.0 %, valid 98.0 %, as expected 90.0 %'
        """
        return (
            f"quality {100 * self.score:.1f} %: complete {100 * self.complete:.1f} %, valid {100 * self.valid:.1f} %, "
            f"as expected {100 * self.as_expected:.1f} %"
        )


def assess_quality(loads: Iterable[LoadQuality]) -> SnapshotQuality:
    """Return the quality of a snapshot of `loads`.

    >>> assess_quality([LoadQuality(90, 81, 100, True), LoadQuality(10, 9, None, False)])
    SnapshotQuality(complete=0.9, valid=0.9, as_expected=0.9)
    """
    found = list(loads)
    declared = [each for each in found if each.rows_expected is not None]
    expected = sum(each.rows_expected or 0 for each in declared)
    came = sum(min(each.rows_received, each.rows_expected or 0) for each in declared)
    received, loaded = sum(each.rows_received for each in found), sum(each.rows_loaded for each in found)
    good = sum(each.rows_loaded for each in found if each.met_expectations)
    return SnapshotQuality(_share(came, expected), _share(loaded, received), _share(good, loaded))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
