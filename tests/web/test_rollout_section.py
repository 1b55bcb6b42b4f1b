"""How the page words a rollout: its way, its intervals, its next decision."""

from dataclasses import asdict, replace

import pytest

from holdfast.control.reports.progress import MetricProgress, RolloutProgress
from holdfast.records import Verdict
from holdfast.rollout import State
from holdfast.web import rollout_section
from holdfast.web.charts import evidence_chart
from holdfast.web.rollout_section import Curve, decision_text, interval_text, mean_text, states_of

RUN = RolloutProgress(
    1, "v2", "v1", State.CANARY, 0, (10_000,), 10_000, 0, False, 0, 0, None, "why", (), None, None, None
)
METRIC = MetricProgress(
    "errors", 1, 0.5, 1, 0.25, 0.0, 5.0, 0.0, Verdict.PASS, "why", 1, 1, "odds ratio", 2.0, 1.5, 4.0
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
    assert "paused by an operator" in decision_text(replace(RUN, paused=True))


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


def test_the_next_decision_is_a_guess_in_words():
    assert decision_text(replace(RUN, decision_us=150_000_000)) == "decision in about 2 min"
    assert decision_text(replace(RUN, decision_us=0)) == "is being decided now"
    assert decision_text(RUN) == "the time of the decision is unknown"


def test_scores_are_numbers_and_shares_are_percent():
    assert mean_text(METRIC, "challenger") == "50.00 %"
    assert mean_text(replace(METRIC, metric="quality"), "champion") == "0.250"
    assert mean_text(replace(METRIC, champion_mean=None), "champion") == "–"


def test_there_is_no_chart_before_there_are_two_points():
    assert evidence_chart([Curve("Errors", ((0, 0.0),))], width=300, height=200) is None


def test_what_is_read_is_plain_json(store, history):
    found = rollout_section.read(store, "flight-delay", now_us=history.now_us)
    assert found.progress is not None
    assert [len(curve.points) > 1 for curve in found.curves] == [True, True, True]
    assert asdict(found)["chapters"][0]["kind"] == "rollout.canary"


def test_a_model_without_a_rollout_has_a_page(empty_store, history):
    found = rollout_section.read(empty_store, "flight-delay", now_us=history.now_us)
    assert found.progress is None
    assert found.pushes.pushes == 0
