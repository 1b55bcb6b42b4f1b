"""The laws of what is folded, value by value, into a verdict: control charts, detectors and sequential tests."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np

from holdfast.testing.law import Law, require

_ALPHA: Final = 0.05


class Alarming(Protocol):
    """What a chart or a detector shows."""

    @property
    def alarm(self) -> bool:
        """Return True if the newest value raises an alarm."""
        ...


class Evident(Protocol):
    """What a sequential test shows."""

    @property
    def log_e(self) -> float:
        """Return the natural logarithm of the e-value."""
        ...


S = TypeVar("S")
A = TypeVar("A", bound=Alarming)
E = TypeVar("E", bound=Evident)
Fold = Callable[[S, np.random.Generator], S]


@dataclass(frozen=True, slots=True)
class Part(Generic[S]):
    """How a chart, a detector or a sequential test is begun, fed and kept.

    Parameters
    ----------
    name
        Name of the part, for the ids and messages of a test run.
    begin
        Returns the part before its first value.
    quiet
        Folds one more value, or one more look, in which nothing is wrong; draws it from the given generator.
    harmed
        The same with the harm that the part is there to find.
    to_json, from_json
        Write the state as JSON values, and read it back.
    """

    name: str
    begin: Callable[[], S]
    quiet: Fold[S]
    harmed: Fold[S]
    to_json: Callable[[S], Mapping[str, Any]]
    from_json: Callable[[Mapping[str, Any]], S]


def chart_laws(
    part: Part[A], *, run_length: float, harmed_run_length: float, runs: int = 200, seed: int = 0
) -> list[Law]:
    """Return the laws of a control chart or a detector.

    Parameters
    ----------
    part
        How it is begun, fed and kept.
    run_length
        Mean number of values until a false alarm that the part promises, at least.
    harmed_run_length
        Mean number of values until an alarm under harm that the part promises, at most.
    runs
        Number of simulated runs per law. The tolerance is 4 standard errors of a mean run length.
    seed
        Seed of the simulated values.
    """
    laws: dict[str, Callable[[], None]] = {
        "begins without an alarm": lambda: require(not part.begin().alarm, "it begins with an alarm"),
        "false alarms are as rare as promised": partial(_is_quiet, part, run_length, runs, seed),
        "harm is found as soon as promised": partial(_finds, part, harmed_run_length, runs, seed),
        **_state_laws(part, seed),
    }
    return [Law(part.name, name, check) for name, check in laws.items()]


def sequential_test_laws(
    part: Part[E], *, looks: int = 40, power: float = 0.8, runs: int = 400, seed: int = 0
) -> list[Law]:
    """Return the laws of a sequential test: an e-process that may be looked at after every fold.

    Parameters
    ----------
    part
        How it is begun, fed and kept. `quiet` draws from the null at its border, where errors are most frequent.
    looks
        Number of folds per simulated run.
    power
        Share of the runs under harm in which the test must reach evidence of 1 in 20 within `looks` folds.
    runs
        Number of simulated runs per law. The tolerance is 4 standard errors.
    seed
        Seed of the simulated values.
    """
    laws: dict[str, Callable[[], None]] = {
        "begins without evidence": partial(_begins_empty, part),
        "false alarms stay within alpha at every look": partial(_keeps_alpha, part, looks, runs, seed),
        "harm is found": partial(_has_power, part, looks, power, runs, seed),
        **_state_laws(part, seed),
    }
    return [Law(part.name, name, check) for name, check in laws.items()]


def _state_laws(part: Part[Any], seed: int) -> dict[str, Callable[[], None]]:
    return {
        "folding leaves the earlier state alone": partial(_is_pure, part, seed),
        "the state survives JSON": partial(_survives_json, part, seed),
        "the same values give the same state": partial(_is_deterministic, part, seed),
    }


def _length(part: Part[A], fold: Fold[A], draw: np.random.Generator, limit: int) -> int:
    state = part.begin()
    for number in range(1, limit + 1):
        state = fold(state, draw)
        if state.alarm:
            return number
    return limit


def _is_quiet(part: Part[A], run_length: float, runs: int, seed: int) -> None:
    # A run ends at a quarter of the promise: of lengths that are nearly exponential, 22 % then end before that.
    limit = max(2, math.ceil(run_length / 4))
    draw = np.random.default_rng(seed)
    ended = sum(_length(part, part.quiet, draw, limit) < limit for _ in range(runs))
    expected = 1.0 - math.exp(-limit / run_length)
    allowed = expected + 4.0 * math.sqrt(expected * (1.0 - expected) / runs)
    require(
        ended / runs <= allowed,
        f"{ended} of {runs} runs gave a false alarm within {limit} values; "
        f"a run length of {run_length:g} allows {math.floor(allowed * runs)}",
    )


def _finds(part: Part[A], run_length: float, runs: int, seed: int) -> None:
    limit = math.ceil(run_length * 20)
    draw = np.random.default_rng(seed)
    lengths = [_length(part, part.harmed, draw, limit) for _ in range(runs)]
    found = float(np.mean(lengths))
    allowed = run_length + 4.0 * float(np.std(lengths)) / math.sqrt(runs)
    require(found <= allowed, f"harm is found after {found:.1f} values on average, later than {run_length:g}")


def _begins_empty(part: Part[E]) -> None:
    found = part.begin().log_e
    require(abs(found) < 1e-9, f"it begins with evidence of {found:g}")


def _greatest(part: Part[E], fold: Fold[E], draw: np.random.Generator, looks: int) -> float:
    state, greatest = part.begin(), -math.inf
    for _ in range(looks):
        state = fold(state, draw)
        require(not math.isnan(state.log_e), "its evidence is not a number")
        greatest = max(greatest, state.log_e)
    return greatest


def _keeps_alpha(part: Part[E], looks: int, runs: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    alarms = sum(_greatest(part, part.quiet, draw, looks) >= -math.log(_ALPHA) for _ in range(runs))
    allowed = _ALPHA * runs + 4.0 * math.sqrt(_ALPHA * (1.0 - _ALPHA) * runs)
    require(
        alarms <= allowed,
        f"{alarms} of {runs} runs without harm reached evidence of 1 in 20; at most {math.floor(allowed)} may",
    )


def _has_power(part: Part[E], looks: int, power: float, runs: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    found = sum(_greatest(part, part.harmed, draw, looks) >= -math.log(_ALPHA) for _ in range(runs))
    least = power * runs - 4.0 * math.sqrt(power * (1.0 - power) * runs)
    require(found >= least, f"harm was found in {found} of {runs} runs; at least {math.ceil(least)} must")


def _is_pure(part: Part[Any], seed: int) -> None:
    state = part.quiet(part.begin(), np.random.default_rng(seed))
    before = _written(part, state)
    part.harmed(state, np.random.default_rng(seed + 1))
    require(_written(part, state) == before, "a fold changed the state that it was given")


def _survives_json(part: Part[Any], seed: int) -> None:
    state = part.begin()
    for fold in (part.quiet, part.harmed, part.quiet):
        back = part.from_json(json.loads(_written(part, state)))
        require(_written(part, back) == _written(part, state), "a state that was read back is another one")
        one = fold(state, np.random.default_rng(seed))
        other = fold(back, np.random.default_rng(seed))
        require(
            _written(part, one) == _written(part, other), "a state that was read back goes on differently"
        )
        state = one


def _is_deterministic(part: Part[Any], seed: int) -> None:
    one, other = (part.harmed(part.begin(), np.random.default_rng(seed)) for _ in range(2))
    require(_written(part, one) == _written(part, other), "the same values gave two states")


def _written(part: Part[Any], state: object) -> str:
    try:
        return json.dumps(part.to_json(state), sort_keys=True)
    except TypeError as error:
        raise AssertionError(f"its state holds what is no JSON value: {error}") from error
