import pytest

from holdfast.feedback import Frontier, Impossible, Joined, Label, Prediction, Waiting, settle_labels
from holdfast.feedback.join import MAXIMUM_WAIT_US, PATIENCE_US

RESPONSE = Prediction("s1-2-5/0", "m", "v1", "champion", None, b"u", 0.3, 17, 16)


def settled(prediction, *, waited_us=PATIENCE_US + 1, frontiers=None, servers=("s1",)):
    (found,) = settle_labels(
        [Label(prediction, 1.0, 1000)],
        {RESPONSE.prediction_id: RESPONSE},
        {"s1": Frontier(2, 9)} if frontiers is None else frontiers,
        frozenset(servers),
        now_us=1000 + waited_us,
    )
    return found


def test_a_label_finds_its_response():
    assert settled("s1-2-5/0") == Joined(Label("s1-2-5/0", 1.0, 1000), RESPONSE)


@pytest.mark.parametrize("ahead", ["s1-2-10/0", "s1-3-1/0"])
def test_a_label_ahead_of_its_response_waits(ahead):
    assert isinstance(settled(ahead), Waiting)
    assert isinstance(settled(ahead, frontiers={}), Waiting)
    assert isinstance(settled(ahead, waited_us=MAXIMUM_WAIT_US + 1), Impossible)


@pytest.mark.parametrize("never", ["s1-2-5/1", "s1-2-4/0", "s1-1-99/0", "s9-1-1/0"])
def test_a_label_that_can_have_no_response_is_reported(never):
    found = settled(never)
    assert isinstance(found, Impossible)
    assert found.reason


def test_a_response_that_is_logged_a_little_late_is_waited_for():
    assert isinstance(settled("s1-2-4/0", waited_us=PATIENCE_US), Waiting)
