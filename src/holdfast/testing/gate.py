"""The laws of a gate: what a version's state and the words on its page rely on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from holdfast.qualify import GateResult
from holdfast.records import Verdict
from holdfast.testing.law import Law, require

Judge = Callable[[], GateResult]


@dataclass(frozen=True, slots=True)
class GateCases:
    """A gate on evidence that is good, bad, and too little.

    Parameters
    ----------
    passing
        Judges evidence that must pass.
    failing
        Judges evidence that must fail.
    too_little
        Judges evidence that allows no verdict; None for a gate that can always judge.
    """

    passing: Judge
    failing: Judge
    too_little: Judge | None = None

    def all(self) -> dict[str, Judge]:
        """Return the cases by name."""
        named = {"passing": self.passing, "failing": self.failing}
        return named if self.too_little is None else {**named, "too little": self.too_little}


def gate_laws(name: str, cases: GateCases) -> list[Law]:
    """Return the laws of a gate.

    Parameters
    ----------
    name
        Name that the gate gives its results.
    cases
        The gate on good, bad and too little evidence.
    """
    laws: dict[str, Callable[[], None]] = {
        "good evidence passes": partial(_has_verdict, cases.passing, Verdict.PASS),
        "bad evidence fails": partial(_has_verdict, cases.failing, Verdict.FAIL),
        "every result names the gate": partial(_names_itself, name, cases),
        "the same evidence gives the same result": partial(_is_pure, cases),
        "a verdict is explained on one line": partial(_explains, cases),
        "numbers are finite and in order": partial(_has_sound_numbers, cases),
        "a result is JSON": partial(_is_json, cases),
    }
    if cases.too_little is not None:
        laws["too little evidence is no success"] = partial(
            _has_verdict, cases.too_little, Verdict.INCONCLUSIVE
        )
    return [Law(name, law, check) for law, check in laws.items()]


def _has_verdict(judge: Judge, expected: Verdict) -> None:
    found = judge()
    require(found.verdict is expected, f"the verdict is {found.verdict}, not {expected}: {found.explanation}")


def _names_itself(name: str, cases: GateCases) -> None:
    for case, judge in cases.all().items():
        require(judge().gate == name, f"the result on {case} evidence names the gate {judge().gate!r}")


def _is_pure(cases: GateCases) -> None:
    for case, judge in cases.all().items():
        require(judge() == judge(), f"two looks at the {case} evidence gave two results")


def _explains(cases: GateCases) -> None:
    for case, judge in cases.all().items():
        words = judge().explanation
        require(words.strip() and "\n" not in words, f"the {case} evidence is explained by {words!r}")


def _has_sound_numbers(cases: GateCases) -> None:
    for case, judge in cases.all().items():
        found = judge()
        numbers = {
            "observed": found.observed, "low": found.low, "high": found.high, "bound": found.bound,
        }  # fmt: skip
        for what, number in numbers.items():
            require(number is None or math.isfinite(number), f"{what} is {number} on {case} evidence")
        require((found.low is None) == (found.high is None), f"an interval has one end on {case} evidence")
        if found.low is not None and found.high is not None and found.observed is not None:
            require(
                found.low <= found.observed <= found.high,
                f"{found.observed} is outside its interval [{found.low}, {found.high}] on {case} evidence",
            )


def _is_json(cases: GateCases) -> None:
    for case, judge in cases.all().items():
        try:
            json.dumps(asdict(judge()), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"the result on {case} evidence is no JSON: {error}") from error
