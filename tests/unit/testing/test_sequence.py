"""Our charts, detectors and sequential tests keep their laws, and each law is broken by a part that is made to break it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np
import pytest

from holdfast.stats import BettingTest, Detector, DiscordantTest, HypergeometricTest, LevelTest, RateTest
from holdfast.stats.control_charts import Cusum, Ewma, Shewhart
from holdfast.testing import Law, Part, chart_laws, sequential_test_laws


def _chart(name: str, chart) -> Part:
    return Part(
        name,
        lambda: chart,
        lambda state, draw: state.add(float(draw.standard_normal())),
        lambda state, draw: state.add(float(draw.standard_normal()) + 2.0),
        msgspec.to_builtins,
        partial(msgspec.convert, type=type(chart)),
    )


DETECTOR = Part(
    "detector",
    lambda: Detector.begin(0.05, 500.0),
    lambda state, draw: state.fold_counts(units=20, bad=int(draw.binomial(20, 0.05))),
    lambda state, draw: state.fold_counts(units=20, bad=int(draw.binomial(20, 0.2))),
    msgspec.to_builtins,
    partial(msgspec.convert, type=Detector),
)

TESTS = (
    Part(
        "hypergeometric test",
        HypergeometricTest.begin,
        lambda state, draw: _window(state, draw, 0.05),
        lambda state, draw: _window(state, draw, 0.15),
        msgspec.to_builtins,
        partial(msgspec.convert, type=HypergeometricTest),
    ),
    Part(
        "betting test",
        lambda: BettingTest.begin(0.0),
        lambda state, draw: state.fold(draw.beta(4, 2, 20).tolist(), draw.beta(4, 2, 20).tolist()),
        lambda state, draw: state.fold(draw.beta(3, 3, 20).tolist(), draw.beta(4, 2, 20).tolist()),
        msgspec.to_builtins,
        partial(msgspec.convert, type=BettingTest),
    ),
    Part(
        "level test",
        lambda: LevelTest.begin(0.05),
        lambda state, draw: state.fold_counts(units=50, bad=int(draw.binomial(50, 0.05))),
        lambda state, draw: state.fold_counts(units=50, bad=int(draw.binomial(50, 0.12))),
        msgspec.to_builtins,
        partial(msgspec.convert, type=LevelTest),
    ),
    Part(
        "test on discordant pairs",
        DiscordantTest.begin,
        lambda state, draw: state.fold(
            challenger_only=int(draw.poisson(2)), champion_only=int(draw.poisson(2))
        ),
        lambda state, draw: state.fold(
            challenger_only=int(draw.poisson(5)), champion_only=int(draw.poisson(2))
        ),
        msgspec.to_builtins,
        partial(msgspec.convert, type=DiscordantTest),
    ),
    Part(
        "rate test",
        lambda: RateTest.begin(1.0),
        lambda state, draw: _rates(state, draw, 40),
        lambda state, draw: _rates(state, draw, 20),
        msgspec.to_builtins,
        partial(msgspec.convert, type=RateTest),
    ),
)


def _window(state: HypergeometricTest, draw: np.random.Generator, rate: float) -> HypergeometricTest:
    return state.fold(
        challenger_units=40,
        challenger_bad=int(draw.binomial(40, rate)),
        champion_units=160,
        champion_bad=int(draw.binomial(160, 0.05)),
    )


def _rates(state: RateTest, draw: np.random.Generator, after: int) -> RateTest:
    return state.fold(
        after=int(draw.poisson(after)), after_seconds=60.0, before=int(draw.poisson(40)), before_seconds=60.0
    )


LAWS = [
    *(
        law
        for name, chart in (("shewhart chart", Shewhart(2.5)), ("ewma chart", Ewma(0.2, 2.5)), ("cusum chart", Cusum(0.5, 3.5)))
        for law in chart_laws(_chart(name, chart), run_length=chart.run_length(), harmed_run_length=chart.run_length(2.0))
    ),
    *chart_laws(DETECTOR, run_length=500.0, harmed_run_length=20.0, runs=60),
    *(law for part in TESTS for law in sequential_test_laws(part, runs=150)),
]  # fmt: skip


@pytest.mark.simulated
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_ours_keep_every_law(law: Law) -> None:
    law()


@dataclass
class Sum:
    """A part whose state can be written, changed in place, and read as evidence or as an alarm."""

    total: float = 0.0
    limit: float = 25.0

    @property
    def alarm(self) -> bool:
        return abs(self.total) > self.limit

    @property
    def log_e(self) -> float:
        return self.total


def _planted(**changed) -> Part:
    """Adds 0 to the sum while all is well, and 1 under harm."""
    part = Part(
        "planted",
        Sum,
        lambda state, _draw: state,
        lambda state, _draw: replace(state, total=state.total + 1.0),
        lambda state: {"total": state.total, "limit": state.limit},
        lambda state: Sum(**state),
    )
    return replace(part, **changed)


def _grow(state: Sum, _draw: np.random.Generator) -> Sum:
    state.total += 1.0
    return state


def _draw_and_add(state: Sum, _draw: np.random.Generator) -> Sum:
    return replace(state, total=state.total + float(np.random.default_rng().random()))


_ALWAYS = {
    "folding leaves the earlier state alone": _planted(harmed=_grow),
    "the state survives JSON": _planted(from_json=lambda _state: Sum()),
    "the same values give the same state": _planted(harmed=_draw_and_add),
}
PLANTED_CHARTS = _ALWAYS | {
    "begins without an alarm": _planted(begin=lambda: Sum(99.0)),
    "false alarms are as rare as promised": _planted(
        quiet=lambda state, _draw: replace(state, total=state.total + 1.0)
    ),
    "harm is found as soon as promised": _planted(
        harmed=lambda state, _draw: replace(state, total=state.total + 0.1)
    ),
}
PLANTED_TESTS = _ALWAYS | {
    "begins without evidence": _planted(begin=lambda: Sum(1.0)),
    "false alarms stay within alpha at every look": _planted(
        quiet=lambda state, draw: replace(state, total=state.total + float(draw.standard_normal()))
    ),
    "harm is found": _planted(harmed=lambda state, _draw: state),
}


def _chart_laws(part: Part) -> list[Law]:
    return chart_laws(part, run_length=200.0, harmed_run_length=30.0)


@pytest.mark.parametrize(
    ("laws", "planted"),
    [(_chart_laws, PLANTED_CHARTS), (sequential_test_laws, PLANTED_TESTS)],
    ids=["chart", "sequential test"],
)
def test_every_law_has_a_part_that_breaks_it(laws, planted: dict[str, Part]) -> None:
    assert {law.name for law in laws(_planted())} == set(planted)
    for law in laws(_planted()):
        law()
    for name, part in planted.items():
        (law,) = (law for law in laws(part) if law.name == name)
        with pytest.raises(AssertionError, match=f'planted breaks the law "{name}"'):
            law()
