"""Canaries of an hour at 1,200 requests a minute, many at once: what both arms show in each minute, and what Holdfast says.

The streams are drawn as counts, scores and latencies; Holdfast's verdict is its own likelihood over all runs at once.
`check_against_product` folds a sample of the same runs minute by minute through `fold_requests`, `fold_counts`,
`fold_scores` and `decide`, and compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from holdfast.monitor.latency import bucket_of, quantile_seconds
from holdfast.records import Arm
from holdfast.rollout import (
    Canary,
    RequestOutcome,
    State,
    begin,
    decide,
    fold_counts,
    fold_requests,
    fold_scores,
)
from holdfast.rollout.decision.decisions import RollBack, RolloutState
from holdfast.rollout.evidence.evidence import ERRORS, LATENCY, QUALITY
from holdfast.stats import betting, hypergeometric

MINUTES = 60
REQUESTS = 1200
LABELLED = 120
KNOWN = 2000  # of the champion's requests, from which the latency bound is frozen
CLICKS = 5  # of a session, one a minute


@dataclass(frozen=True)
class Setting:
    """How the traffic behaves, and what is wrong with the challenger (nothing by default)."""

    name: str
    error_rate: float = 0.01
    share: float = 0.10
    surge: float = 1.0  # by what the rate of errors and slow requests of both arms is multiplied for a quarter of an hour
    sessions: bool = False  # sessions are randomised, and a bad one is bad at every click
    carry: float = 0.0  # how much of a minute's deviation of both arms the next minute repeats
    skew: float = 0.35  # standard deviation of the logarithm of a latency
    delayed: bool = (
        False  # labels come after a median of 10 minutes, and the level of scores drifts meanwhile
    )
    risk_ratio: float = 1.0
    slow_ratio: float = (
        1.0  # how many times as often the challenger takes the slow path, which the champion takes in 1 %
    )
    loss: float = 0.0  # of mean score


NULLS = tuple(
    Setting(f"{words}, {rate:.1%} errors", error_rate=rate, **how)
    for rate in (0.001, 0.01)
    for words, how in (
        ("plain", {}),
        ("share 15 % where 10 % is configured", {"share": 0.15}),
        ("shared surge to five times", {"surge": 5.0}),
        ("sessions of 5 clicks that fail whole", {"sessions": True}),
        ("autocorrelated rates", {"carry": 0.9}),
        ("skewed latency", {"skew": 1.5}),
        ("delayed labels", {"delayed": True}),
    )
)

HARMS = (
    Setting("errors 1 % to 2 %", risk_ratio=2.0),
    Setting("errors 1 % to 2 %, shared surge", risk_ratio=2.0, surge=5.0),
    Setting("errors 1 % to 2 %, share 15 %", risk_ratio=2.0, share=0.15),
    Setting("errors 1 % to 5 %", risk_ratio=5.0),
    Setting("errors 0.1 % to 0.5 %", error_rate=0.001, risk_ratio=5.0),
    Setting("slow path 1 % to 2 %", slow_ratio=2.0),
    Setting("slow path 1 % to 5 %", slow_ratio=5.0),
    Setting("mean score 0.80 to 0.75", loss=0.05),
    Setting("mean score 0.80 to 0.70", loss=0.10),
    Setting("mean score 0.80 to 0.70, delayed labels", loss=0.10, delayed=True),
)


@dataclass(frozen=True)
class Windows:
    """Units at risk and bad ones of both arms, each of shape (runs, minutes)."""

    challenger_units: np.ndarray
    challenger_bad: np.ndarray
    champion_units: np.ndarray
    champion_bad: np.ndarray


@dataclass(frozen=True)
class Streams:
    """What all runs of a setting show. Of series, the first is the champion's, the second the challenger's."""

    quantile_seconds: np.ndarray  # of shape (runs,): what was known of the champion's p99 before
    errors: Windows
    latency: Windows
    challenger_scores: list[np.ndarray]  # for each minute, of shape (runs, labels that came)
    champion_scores: list[np.ndarray]
    series: dict[
        str, tuple[np.ndarray, np.ndarray]
    ]  # per minute, as a controller that knows no requests sees them


@dataclass(frozen=True)
class Latency:
    """A body around 10 ms and a path ten times as slow, both log-normal: tables of the latency by what share is slower."""

    survival: np.ndarray
    ms: np.ndarray

    @classmethod
    @lru_cache
    def of(cls, skew: float, slow: float) -> Latency:
        at = np.linspace(-7.0, 12.0, 5000)
        body, path = ((at - shift) / skew for shift in (0.0, np.log(10.0)))
        upper = np.vectorize(lambda z: NormalDist().cdf(-z))
        table = (1.0 - slow) * upper(body) + slow * upper(path)
        return cls(table[::-1], 10.0 * np.exp(at[::-1]))

    def slower_than(self, ms: np.ndarray) -> np.ndarray:
        return np.interp(np.log(ms), np.log(self.ms[::-1]), self.survival[::-1])

    def at(self, survival: np.ndarray) -> np.ndarray:
        return np.exp(np.interp(survival, self.survival, np.log(self.ms)))


def draw(
    setting: Setting, runs: int, rng: np.random.Generator, policy: Canary, *, peers: bool = True
) -> Streams:
    """The streams of `runs` canaries, with the series that peers look at, or without."""
    shape = (runs, MINUTES)
    surge, drift = _level(setting, shape, rng)
    arrivals = REQUESTS // CLICKS if setting.sessions else REQUESTS
    new = rng.binomial(arrivals, setting.share, shape)
    sizes = (arrivals - new, new)
    champion, challenger = (Latency.of(setting.skew, 0.01 * ratio) for ratio in (1.0, setting.slow_ratio))
    known = _frozen(champion, runs, rng)
    bound_ms = np.vectorize(policy.latency_bound_us)(known)[:, None] / 1e3
    rates = [
        np.minimum(1.0, setting.error_rate * surge * drift * ratio) for ratio in (1.0, setting.risk_ratio)
    ]
    slow = [np.minimum(1.0, surge * law.slower_than(bound_ms / drift)) for law in (champion, challenger)]
    failed = [rng.binomial(n, rate) for n, rate in zip(sizes, rates, strict=True)]
    slowed = [rng.binomial(n, share) for n, share in zip(sizes, slow, strict=True)]
    scores = _scores(setting, runs, rng)
    errors, latency = _at_risk(sizes, failed, setting), _at_risk(sizes, slowed, setting)
    series = {}
    if peers:
        requests = [_clicks(n, setting) for n in sizes]
        rates = [_clicks(x, setting) / n for x, n in zip(failed, requests, strict=True)]
        tails = [
            drift * law.at(np.minimum(1.0, _nth_largest(n, _clicks(x, setting), share, rng) / surge))
            for law, n, x, share in zip((champion, challenger), requests, slowed, slow, strict=True)
        ]
        means = [np.stack([_mean(each) for each in arm], axis=1) for arm in scores]
        came = np.isfinite(means[0][0]) & np.isfinite(means[1][0])
        series = {
            ERRORS: (rates[0], rates[1]),
            LATENCY: (tails[0], tails[1]),
            QUALITY: (means[0][:, came], means[1][:, came]),
        }
    return Streams(known, errors, latency, scores[1], scores[0], series)


def log_e(streams: Streams, policy: Canary) -> dict[str, np.ndarray]:
    """Holdfast's evidence of each metric after each minute: natural logarithms, shape (runs, minutes)."""
    counts = (
        (ERRORS, streams.errors, policy.error_margin),
        (LATENCY, streams.latency, policy.latency_margin),
    )
    found = {
        metric: hypergeometric.log_e_paths(
            of.challenger_units, of.challenger_bad, of.champion_units, of.champion_bad, margin
        )
        for metric, of, margin in counts
    }
    found[QUALITY] = _score_log_e(streams, policy.quality_margin)
    return found


def alarms(evidence: dict[str, np.ndarray], policy: Canary) -> np.ndarray:
    """The minute in which each run is rolled back, 0 where it is not: all metrics together, each at its own bound."""
    harmful = np.stack([evidence[each] >= policy.log_bound_of(each) for each in policy.metrics]).any(axis=0)
    return np.where(harmful.any(axis=1), harmful.argmax(axis=1) + 1, 0)


def check_against_product(streams: Streams, policy: Canary, runs: int, *, by_request: bool) -> float:
    """Fold `runs` runs through the product; the largest difference to `log_e`. The minute of a rollback must be equal."""
    evidence = log_e(streams, policy)
    expected = alarms(evidence, policy)
    worst = 0.0
    for run in range(runs):
        states = begin(policy, float(streams.quantile_seconds[run]))
        most, ended = dict.fromkeys(policy.metrics, 0.0), 0
        for minute in range(MINUTES):
            states = _fold(states, streams, run, minute, by_request=by_request)
            for state in states:
                most[state.metric] = max(most[state.metric], float(evidence[state.metric][run, minute]))
                worst = max(worst, abs(state.log_e - most[state.metric]))
            rollout = RolloutState("v2", "v1", "v1", State.CANARY, 0, policy, 0, 1)
            if not ended and isinstance(decide(rollout, states, [], 0), RollBack):
                ended = minute + 1
        assert ended == expected[run], (run, ended, int(expected[run]))
    return worst


def _fold(states, streams: Streams, run: int, minute: int, *, by_request: bool):
    errors, latency, quality = states
    scores = [each[minute][run].tolist() for each in (streams.challenger_scores, streams.champion_scores)]
    quality = fold_scores(quality, *scores)
    if by_request:
        return fold_requests((errors, latency, quality), _requests(streams, run, minute))
    return (
        _fold_counts(errors, streams.errors, run, minute),
        _fold_counts(latency, streams.latency, run, minute),
        quality,
    )


def _fold_counts(state, windows: Windows, run: int, minute: int):
    return fold_counts(
        state,
        challenger_units=int(windows.challenger_units[run, minute]),
        challenger_bad=int(windows.challenger_bad[run, minute]),
        champion_units=int(windows.champion_units[run, minute]),
        champion_bad=int(windows.champion_bad[run, minute]),
    )


def _requests(streams: Streams, run: int, minute: int) -> list[RequestOutcome]:
    """One request of each unit: the first ones fail, the last ones are slow."""
    found = []
    for arm in (Arm.CHALLENGER, Arm.CHAMPION):
        units, bad, slow = (
            int(getattr(windows, f"{arm}_{what}")[run, minute])
            for windows, what in (
                (streams.errors, "units"),
                (streams.errors, "bad"),
                (streams.latency, "bad"),
            )
        )
        found += [
            RequestOutcome(
                f"{arm}{minute}.{unit}".encode(), arm, unit < bad, 9e9 if unit >= units - slow else 1.0
            )
            for unit in range(units)
        ]
    return found


def _level(
    setting: Setting, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What happens to both arms alike in each minute: by what the shares of failing and of slow requests are multiplied in a
    surge, and by what the rate of errors and each latency are in a slow drift."""
    surge, deviation = np.ones(shape), np.zeros(shape)
    surge[:, 20:35] = setting.surge
    if setting.carry:
        deviation = rng.normal(0.0, 0.5, shape)
        for before, after in pairwise(range(shape[1])):
            deviation[:, after] *= np.sqrt(1.0 - setting.carry**2)
            deviation[:, after] += setting.carry * deviation[:, before]
    return surge, np.exp(deviation)


def _frozen(law: Latency, runs: int, rng: np.random.Generator) -> np.ndarray:
    """The champion's p99 in seconds as the product knows it: from its histogram of `KNOWN` requests before the canary."""
    rank = int(np.ceil(0.99 * KNOWN))
    ms = law.at(rng.beta(KNOWN - rank + 1, rank, runs))
    return np.array([quantile_seconds({bucket_of(each * 1e3): 1}, 0.99) for each in ms])


def _clicks(new: np.ndarray, setting: Setting) -> np.ndarray:
    """Requests in each minute of what began in it, or in the minutes before when sessions click on."""
    if not setting.sessions:
        return new
    total = new.copy()
    for later in range(1, CLICKS):
        total[:, later:] += new[:, :-later]
    return total


def _at_risk(sizes: tuple[np.ndarray, np.ndarray], bad: list[np.ndarray], setting: Setting) -> Windows:
    """Units in each minute, each bad once: a session that was bad is no longer at risk when it clicks again."""
    champion, challenger = (_clicks(n - x, setting) + x for n, x in zip(sizes, bad, strict=True))
    return Windows(challenger, bad[1], champion, bad[0])


def _nth_largest(n: np.ndarray, above: np.ndarray, share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The survival of the sample p99 of `n` latencies, of which `above` are the ones that lie beyond `share`."""
    rank = n - np.ceil(0.99 * n).astype(np.int64) + 1
    inside = above >= rank
    beyond = share * rng.beta(rank, np.where(inside, above - rank + 1, 1))
    within = share + (1.0 - share) * rng.beta(np.where(inside, 1, rank - above), np.maximum(1, n - rank + 1))
    return np.where(inside, beyond, within)


def _scores(
    setting: Setting, runs: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scores of the champion and of the challenger, in the order in which their labels come."""
    ours = round(LABELLED * setting.share)
    arms = []
    for many, mean in ((LABELLED - ours, 0.8), (ours, 0.8 - setting.loss)):
        size = mean * (1.0 - mean) / 0.2**2 - 1.0
        # A table is drawn from instead of the beta law itself, which takes ten times as long.
        table = np.sort(np.random.Generator(np.random.PCG64(1)).beta(mean * size, (1.0 - mean) * size, 8192))
        asked = np.repeat(np.arange(MINUTES), many)
        order = asked
        if setting.delayed:
            order = asked + rng.lognormal(np.log(10.0), 1.0, asked.size).astype(np.int64)
        arm = []
        for minute in range(MINUTES):
            came = asked[order == minute]
            drawn = table[rng.integers(0, table.size, (runs, came.size))]
            drift = 0.1 * np.sin(came / 8.0) if setting.delayed else 0.0
            arm.append(np.clip(drawn + drift, 0.0, 1.0))
        arms.append(arm)
    return arms[0], arms[1]


def _mean(scores: np.ndarray) -> np.ndarray:
    return scores.mean(axis=1) if scores.shape[1] else np.full(len(scores), np.nan)


def _score_log_e(streams: Streams, margin: float) -> np.ndarray:
    runs = len(streams.quantile_seconds)
    counts, found = np.zeros((runs, betting.POINTS.size)), []
    ours = theirs = np.zeros((runs, 0))
    for minute in range(MINUTES):
        ours = np.concatenate([ours, streams.challenger_scores[minute]], axis=1)
        theirs = np.concatenate([theirs, streams.champion_scores[minute]], axis=1)
        pairs = min(ours.shape[1], theirs.shape[1])
        if pairs:
            counts = counts + betting.counts_of(
                betting.run_means(ours, pairs) - betting.run_means(theirs, pairs)
            )
            ours = theirs = np.zeros((runs, 0))
        ours, theirs = (each[:, -betting.WAITING_LIMIT :] for each in (ours, theirs))
        found.append(betting.log_e_values(counts, margin))
    return np.stack(found, axis=1)
