"""How the page words a rollout: its way, its intervals, its next decision."""

from dataclasses import asdict, replace

import pytest

from holdfast.control.rollout.metric_summary import summarise
from holdfast.control.rollout.progress import MetricProgress, RolloutProgress
from holdfast.records import Verdict
from holdfast.rollout import Canary, State
from holdfast.rollout.decision.post_promotion import ComparedPeriods, begin_rate, fold_rate
from holdfast.web import rollout_section
from holdfast.web.charts import evidence_chart
from holdfast.web.rollout_section import Curve, interval_text, mean_text, states_of

RUN = RolloutProgress(
    1, "v2", "v1", State.CANARY, 0, (10_000,), 10_000, 0, False, 0, 0, None, "why", (), None, None, None
)
METRIC = MetricProgress(
    "errors", 1, 0.5, 1, 0.25, 0.0, 5.0, 0.0, Verdict.PASS, "why", "little", 1, 1, "odds ratio", 2.0, 1.5, 4.0
)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("shadow_ppm", [0, 1_000_000])
@pytest.mark.parametrize("champion", [None, "v1"])
def test_every_state_has_its_place_on_a_way(state, shadow_ppm, champion):
    way = states_of(replace(RUN, state=state, shadow_ppm=shadow_ppm, champion=champion))
    places = [place for _, place in way]
    assert places.count("now") == 1
    assert places == sorted(places, key=["done", "now", "ahead"].index)


def test_a_paused_canary_stands_at_the_canary():
    assert ("canary", "now") in states_of(replace(RUN, state=State.PAUSED, paused=True))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.5, 4.0, "odds ratio 2 (1.5 to 4)"),
        (1.5, None, "odds ratio 2 (at least 1.5)"),
        (0.0, None, ""),
        (None, None, ""),
    ],
)
def test_an_interval_reports_what_is_known(low, high, words):
    assert interval_text(replace(METRIC, low=low, high=high)) == words


def test_a_change_of_the_rate_has_no_bar_of_harm():
    """ "ln e-value 8785.8 of 4.6" next to a full bar and the verdict inconclusive is no evidence of harm."""
    changed = fold_rate(
        begin_rate(Canary(), 0), ComparedPeriods(0, -3_600_000_000, 3_600_000_000), after=9_000, before=100
    )
    assert changed.is_harmful
    found = summarise(changed, Canary())
    assert (found.verdict, found.reached, found.evidence) == (Verdict.INCONCLUSIVE, 0.0, "changed; no harm")
    assert "times that before the switch" in found.explanation
    assert found.explanation.endswith("nothing is rolled back for it, and the push ends censored.")


def test_scores_are_numbers_and_shares_are_percent():
    assert mean_text(METRIC, "challenger") == "50.00 %"
    assert mean_text(replace(METRIC, metric="quality"), "champion") == "0.250"
    assert mean_text(replace(METRIC, champion_mean=None), "champion") == "–"


def test_there_is_no_chart_before_there_are_two_points():
    assert evidence_chart([Curve("Errors", ((0, 0.0),))], width=300, height=200) is None


def test_what_is_read_is_plain_json(store, history):
    found = rollout_section.read(store, "flight-delay", now_us=history.now_us)
    assert found.progress is not None
    assert found.realised_since_us % 60_000_000 == 0
    assert history.now_us - found.realised_since_us <= 3_600_000_000
    assert [len(curve.points) > 1 for curve in found.curves] == [True, True, True]
    assert asdict(found)["chapters"][0]["kind"] == "rollout.canary"


def test_a_model_without_a_rollout_has_a_page(empty_store, history):
    found = rollout_section.read(empty_store, "flight-delay", now_us=history.now_us)
    assert found.progress is None
    assert found.pushes.pushes == 0
