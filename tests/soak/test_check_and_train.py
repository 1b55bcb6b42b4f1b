"""A short run of the soak of declarations, and ones that Hypothesis makes smaller; the long run is a command."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.soak import check_and_train
from tests.soak.drawn_models import DrawnModel, draw_model
from tests.support.profile import examples
from tests.support.smoke import Smoke


def test_check_refuses_what_train_refuses_in_two_dozen_models(smoke: Smoke) -> None:
    outcome = smoke("tests.soak.check_and_train")
    assert outcome["failures"] == 0
    assert min(outcome["trained"], outcome["refused_by_check"]) >= 3


@examples(8)
@given(st.randoms(use_true_random=False))
def test_no_declaration_is_refused_by_train_alone(draw: random.Random) -> None:
    outcome = check_and_train.Outcome()
    with tempfile.TemporaryDirectory() as directory:
        check_and_train.judge(outcome, draw_model(draw, 0.01), Path(directory), "model")
    assert outcome.failures == []


def test_a_refusal_by_train_alone_is_a_failure(tmp_path: Path) -> None:
    """The judgement itself: a learner that fails is excused in a file that has one of its own, and in no other."""
    drawn = draw_model(random.Random(7), 0.0)
    text = drawn.text.split("\ncolumns = ")[0] + (
        "\nrows = Contract(Integer('id'), Number('x', unit='1'), Timestamp('at', tz='UTC'), key='id', event_time='at',\n"
        "    label=Label('bought', delay='1h'))\n"
        "visits = Feed('visits', rows)\n"
        "class Failing(Own):\n    def fit(self, x, y, names, *, seed, weights=None):\n        raise ValueError('no fit')\n"
        "model = Model('shop', examples=visits, feeds=(visits,), contract=rows, features=(Passthrough('x'),),\n"
        "    learner=Failing(), heuristic=GroupMean(by=(Hour('at'),)))\n"
    )
    rows = [
        {"id": place, "x": place % 5, "at": row["at"], "bought": place % 3 == 0}
        for place, row in enumerate(drawn.rows["visits"])
    ]
    for own_learner in (True, False):
        outcome = check_and_train.Outcome()
        place = tmp_path / str(own_learner)
        place.mkdir()
        check_and_train.judge(outcome, DrawnModel(text, {"visits": rows}, own_learner), place, "model")
        assert bool(outcome.failures) is not own_learner
        assert outcome.codes == {"HF402": 1}
