"""Charts of slices over batches: quiet while nothing is wrong, and soon there when something is (R32, R33, R51, R53)."""

from __future__ import annotations

import numpy as np

from holdfast.contract.profile.column_profile import WordProfile
from holdfast.contract.profile.profile import Profile
from holdfast.monitor.slice_charts import BASELINE, make_charts, unseen_slices


def batches(
    count: int, seed: int, *, share: float = 0.3, since: int = 10_000, to: float = 0.3, wobble: float = 0.0
) -> list[tuple[str, Profile]]:
    """Batches of 500 rows, `share` of them of the north, from batch `since` on `to`; `wobble` is a deviation of the share."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        level = (share if number < since else to) + wobble * draw.standard_normal()
        north = int(draw.binomial(500, min(1.0, max(0.0, level))))
        words = WordProfile({"north": north, "south": 500 - north}, 0, 0)
        made.append((f"b{number}", Profile(500, {"site": words}, {})))
    return made


def test_a_share_that_moves_is_reported_soon_and_since_when():
    north = make_charts("site", batches(60, 1, since=40, to=0.4))[1]
    assert north.value == "north"
    assert north.alarm
    alarms = [int(point.batch[1:]) for point in north.points if point.alarm]
    assert 40 <= alarms[0] <= 45
    assert "more than usual since batch b4" in north.explanation
    assert "a false alarm every 499 batches" in north.explanation


def test_batches_that_vary_more_than_their_rows_explain_alarm_rarely():
    """200 series of 100 batches: with a false alarm every 499 batches about 15 % would; without Laney's correction nearly
    all of them do."""
    alarmed = sum(
        any(point.alarm for point in make_charts("site", batches(100, seed, wobble=0.06))[0].points)
        for seed in range(60)
    )
    assert alarmed <= 60 * 0.4


def test_the_mean_of_a_chart_lies_among_its_shares_when_the_newest_batch_is_small():
    history = batches(59, 1, since=40, to=0.6)
    words = WordProfile({"north": 15, "south": 10}, 0, 0)
    north = make_charts("site", [*history, ("b59", Profile(25, {"site": words}, {}))])[1]
    assert north.value == "north"
    assert north.alarm
    assert max(point.smoothed for point in north.points) <= max(point.share for point in north.points)
    tested = [point for point in north.points if not point.baseline]
    assert abs(tested[-1].smoothed - tested[-2].smoothed) < 0.05
    for point in tested:
        assert point.alarm == (not point.low <= point.smoothed <= point.high)


def test_few_batches_and_a_constant_share_make_no_chart():
    assert make_charts("site", batches(12, 2)) == ()
    assert make_charts("elsewhere", batches(40, 2)) == ()
    constant = [(f"b{n}", Profile(9, {"site": WordProfile({"north": 9}, 0, 0)}, {})) for n in range(40)]
    assert make_charts("site", constant) == ()
    drawn = make_charts("site", batches(40, 2))[0]
    assert sum(point.baseline for point in drawn.points) == BASELINE


def test_live_values_that_no_training_row_had_are_named():
    assert unseen_slices({"north": 5, "west": 0}, {"north": 90, "west": 9, "east": 1}) == {
        "east": 0.01,
        "west": 0.09,
    }
