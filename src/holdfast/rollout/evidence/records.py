"""Evidence of a rollout as typed records, one per metric, and their JSON form.

While both arms have traffic, a metric is in phase `Comparing`. Once the challenger has all traffic it is `AtLevel`: what it
does alone is tested against a level that was frozen from the champion. After the promotion it is `Detecting`.

Guarantee: `evidence_from_json(to_json(evidence)) == evidence`, and JSON with an unknown, missing or mistyped key is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

import msgspec
import numpy as np

from holdfast.errors import IntegrityError
from holdfast.records import Arm, sha256_hex
from holdfast.rollout.model.metric import SHADOW_PREFIX
from holdfast.stats import BettingTest, Detector, DiscordantTest, HypergeometricTest, LevelTest, RateTest

T = TypeVar("T")

Points: TypeAlias = tuple[tuple[int, float], ...]
"""Seconds since 1970 UTC, and `log_e` at that time, oldest first."""

Totals: TypeAlias = tuple[int, float, int, float]
"""Units of the challenger and their total (bad units, or scores), and the champion's."""

POINTS: Final = 240
"""How many points are kept at most; a longer rollout has them further apart."""

_SECOND_US: Final = 1_000_000
_HASH_DIGITS: Final = 8


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the evidence. Immutable; change it with `msgspec.structs.replace`."""


class Counts(Record, frozen=True):
    """Units of both arms, and how many of them were bad."""

    challenger_units: int
    challenger_bad: int
    champion_units: int
    champion_bad: int

    @property
    def totals(self) -> Totals:
        """Return the counts as totals."""
        return self.challenger_units, self.challenger_bad, self.champion_units, self.champion_bad

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.challenger_units + other.challenger_units,
            self.challenger_bad + other.challenger_bad,
            self.champion_units + other.champion_units,
            self.champion_bad + other.champion_bad,
        )


class CountWindow(Record, frozen=True, tag="counts"):
    """The current window of a detector of bad units; it began at `minute_start_us`."""

    minute_start_us: int
    units: int
    bad: int


class LossWindow(Record, frozen=True, tag="losses"):
    """The current window of a detector of losses. `log_gains`: what its losses add to each stake's log-wealth."""

    minute_start_us: int
    log_gains: tuple[float, ...]


class WindowedDetector(Record, frozen=True):
    """A detector, and the window that is not folded into it yet; None before the first unit."""

    detector: Detector
    window: CountWindow | LossWindow | None = None

    def current(self) -> Detector:
        """Return the detector with its current window folded in.

        Reading before a window has ended costs no guarantee: the bet that begins with it continues from its beginning.
        """
        match self.window:
            case CountWindow(units=units, bad=bad):
                return self.detector.fold_counts(units=units, bad=bad)
            case LossWindow(log_gains=gains):
                return self.detector.fold_gains(np.array(gains))
            case None:
                return self.detector


class Comparing(Record, frozen=True, tag="comparing"):
    """Both arms have traffic: the challenger is compared with the champion."""


class AtLevel(Record, frozen=True, tag="at_level"):
    """The challenger has all traffic: what it does alone is tested against a frozen level."""

    test: LevelTest


class Detecting(Record, frozen=True, tag="detecting"):
    """The challenger is promoted: a detector looks for a change above the frozen level."""

    test: LevelTest
    detecting: WindowedDetector


Phase: TypeAlias = Comparing | AtLevel | Detecting


class Comparison(Record, frozen=True):
    """Evidence on one kind of bad unit. The comparison goes on in every phase: a log may be read late."""

    test: HypergeometricTest
    phase: Phase = Comparing()


class UnitEvidence(Record, frozen=True, tag="units"):
    """Evidence of "errors" or "latency".

    `bad_units`: the newest units that were bad and count no more. `seen`: units of the current step (`remember`), until
    it has the `needed` ones. `requests` and `failed`: those of the challenger.
    """

    comparison: Comparison
    needed: int
    seen: str = ""
    bad_units: tuple[str, ...] = ()
    requests: int = 0
    failed: int = 0


class WaitingScores(Record, frozen=True):
    """Scores of one stratum that wait for scores of the other arm."""

    challenger: tuple[float, ...] = ()
    champion: tuple[float, ...] = ()


class QualityEvidence(Record, frozen=True, tag="quality"):
    """Evidence of "quality". `waiting`: by the start of the stratum, microseconds since 1970 UTC.

    A second detector, at `warning_level`, only warns: so low a mean score may be the world's doing.
    """

    test: BettingTest
    phase: Phase = Comparing()
    waiting: Mapping[int, WaitingScores] = {}
    warning_level: float | None = None
    warning: WindowedDetector | None = None
    has_warned: bool = False


class SliceComparison(Record, frozen=True):
    """Evidence on one kind of bad unit in one slice; `log_e` is the largest reached."""

    comparison: Comparison
    counts: Counts = Counts(0, 0, 0, 0)
    log_e: float = 0.0


class GuardedSlice(Record, frozen=True):
    """One slice: its slot, from 1 on, and its evidence by the metric whose bad units it counts."""

    slot: int
    metrics: Mapping[str, SliceComparison] = {}


class SliceEvidence(Record, frozen=True, tag="slices"):
    """Evidence of "slices".

    `margins`: the tolerated odds ratio, and `bad_units`: the units that count no more (`remember`), by metric.
    `columns_seen`: the columns by which a unit of the challenger was seen in this step; `seen` and `needed` as in
    `UnitEvidence`. `latency_bound_us` is None when no latency is judged.
    """

    margins: Mapping[str, float]
    latency_bound_us: float | None
    needed: int
    bad_units: Mapping[str, str]
    slices: Mapping[str, GuardedSlice] = {}
    seen: str = ""
    columns_seen: tuple[str, ...] = ()
    at_level: bool = False


class SliceDisagreement(Record, frozen=True):
    """Units of one slice, how many were decided differently, and the sum of their shifts of probability."""

    units: int = 0
    differing: int = 0
    shift: float = 0.0


class DisagreementEvidence(Record, frozen=True, tag="disagreement"):
    """Evidence of "shadow.disagreement". `tolerated` is a share of the units, `threshold` a probability."""

    test: LevelTest
    tolerated: float
    threshold: float
    slices: Mapping[str, SliceDisagreement] = {}


class PairEvidence(Record, frozen=True, tag="pairs"):
    """Evidence of "shadow.errors" or "shadow.latency". `failures`: requests by kind of failure."""

    test: DiscordantTest
    seen: str = ""
    failures: Mapping[str, int] = {}


class DifferenceEvidence(Record, frozen=True, tag="differences"):
    """Evidence of "shadow.score" or "shadow.quality"."""

    test: BettingTest
    seen: str = ""


class RateEvidence(Record, frozen=True, tag="rate"):
    """Evidence of "rate": folded until `folded_us`; traffic was switched at `switched_us`."""

    test: RateTest
    switched_us: int
    folded_us: int


Evidence: TypeAlias = (
    UnitEvidence
    | QualityEvidence
    | SliceEvidence
    | DisagreementEvidence
    | PairEvidence
    | DifferenceEvidence
    | RateEvidence
)


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """One request as the canary sees it.

    Parameters
    ----------
    unit
        What was randomised.
    arm
        Where the request was sent, also when the fallback answered it instead.
    failed
        True if that arm could not answer. Leave out malformed requests: they are no evidence about either version.
    latency_us
        Processor time of the request in microseconds.
    slices
        The slices of its rows, such as "carrier=AA"; empty for a failed request, whose rows are not logged.
    requests
        How many requests of the unit were alike in all this; `latency_us` is then that of the slowest.
    """

    unit: bytes
    arm: Arm
    failed: bool
    latency_us: float
    slices: tuple[str, ...] = ()
    requests: int = 1


@dataclass(frozen=True, slots=True)
class MetricState:
    """One metric of one rollout: realised counts of both arms, and how strong the evidence of harm is.

    Parameters
    ----------
    challenger_total, champion_total
        The number of bad units, or the sum of scores.
    log_e, log_bound
        The natural logarithm of the largest e-value reached, and of the one at which harm is declared.
    step_units
        Different units of the challenger since the current step began, counted until the step has enough.
    latency_bound_us
        The latency in microseconds above which a request is slow; None for the other metrics.
    history
        How `log_e` grew, a few points for a chart.
    """

    metric: str
    log_bound: float
    evidence: Evidence
    challenger_units: int = 0
    challenger_total: float = 0.0
    champion_units: int = 0
    champion_total: float = 0.0
    log_e: float = 0.0
    step_units: int = 0
    latency_bound_us: float | None = None
    history: Points = ()

    @property
    def is_harmful(self) -> bool:
        """Return True if harm is shown. Once it is, it stays so."""
        return self.log_e >= self.log_bound

    @property
    def is_shadow(self) -> bool:
        """Return True if copies of requests show the metric; the canary's tests do not use it."""
        return self.metric.startswith(SHADOW_PREFIX)

    @property
    def has_warned(self) -> bool:
        """Return True if the mean score fell during the bake time by what the world may have done as well."""
        return isinstance(self.evidence, QualityEvidence) and self.evidence.has_warned

    def advance(self, evidence: Evidence, totals: Totals, log_e: float, step_units: int) -> MetricState:
        """Return the state with more `evidence`, what it counted in both arms, and the units of the step."""
        return replace(
            self,
            challenger_units=self.challenger_units + totals[0],
            challenger_total=self.challenger_total + totals[1],
            champion_units=self.champion_units + totals[2],
            champion_total=self.champion_total + totals[3],
            log_e=max(self.log_e, log_e),
            step_units=step_units,
            evidence=evidence,
        )


def record_point(state: MetricState, now_us: int) -> MetricState:
    """Return `state` with a point for `now_us` (microseconds since 1970 UTC).

    Points lie at least a second and a `POINTS`th of the rollout apart; the newest one moves along until it is as far from
    the one before. The first and the newest are always kept.
    """
    points = state.history
    newest = (now_us // _SECOND_US, round(state.log_e, 3))
    apart = max(1.0, (newest[0] - points[0][0]) / POINTS) if points else 1.0
    if len(points) >= 2 and newest[0] - points[-2][0] < apart:
        points = points[:-1]
    points = (*points, newest)
    if len(points) > POINTS:
        points = (*points[:-1:2], points[-1])
    return replace(state, history=points)


def points_of(state: MetricState) -> Points:
    """Return the timestamps (microseconds since 1970 UTC) and the log e-values at them, oldest first."""
    return tuple((seconds * _SECOND_US, log_e) for seconds, log_e in state.history)


# --- units that were seen before, by the first digits of their hashes in one short text ---


def name_of(unit: bytes | str) -> str:
    """Return the name by which a unit is remembered.

    >>> name_of(b"u1")
    'bb82030d'
    """
    return sha256_hex(unit)[:_HASH_DIGITS]


def names_in(text: str) -> frozenset[str]:
    """Return the names of the units that `text` remembers."""
    return frozenset(text[at : at + _HASH_DIGITS] for at in range(0, len(text), _HASH_DIGITS))


def remember(text: str, names: Iterable[str], newest: int) -> str:
    """Return `text` with more `names`, limited to the `newest` ones.

    >>> remember("aaaaaaaabbbbbbbb", ["cccccccc"], 2)
    'bbbbbbbbcccccccc'
    """
    return (text + "".join(names))[-_HASH_DIGITS * newest :]


# --- JSON ---

_EVIDENCE: Final[msgspec.json.Decoder[Evidence]] = msgspec.json.Decoder(Evidence)
_POINTS: Final[msgspec.json.Decoder[Points]] = msgspec.json.Decoder(Points)


def to_json(value: Evidence | Points) -> str:
    """Return evidence or the points of a chart as JSON."""
    return msgspec.json.encode(value).decode()


def evidence_from_json(text: str) -> Evidence:
    """Return the evidence that `to_json` wrote.

    Raises `IntegrityError` HF309 for an unknown, missing or mistyped key.

    >>> evidence_from_json('{"type": "rate"}')
    Traceback (most recent call last):
    ...
    holdfast.errors.IntegrityError: HF309: evidence of a rollout cannot be read: Object missing required field `test`...
    """
    found = _decode(_EVIDENCE, text)
    # Decoding fills in defaults and ignores unknown keys of the statistics, which are plain dataclasses.
    if msgspec.json.decode(text) != msgspec.json.decode(to_json(found)):
        raise _damaged("its keys are not those that this release writes")
    return found


def points_from_json(text: str) -> Points:
    """Return the points that `to_json` wrote. Raises `IntegrityError` HF309 if they are none."""
    return _decode(_POINTS, text)


def _decode(decoder: msgspec.json.Decoder[T], text: str) -> T:
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as error:
        raise _damaged(str(error)) from error


def _damaged(why: str) -> IntegrityError:
    return IntegrityError(
        "HF309",
        f"evidence of a rollout cannot be read: {why}",
        state="the ledger is unchanged",
        next_command="holdfast verify",
    )
