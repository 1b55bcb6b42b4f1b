"""The gate `check_baseline`: pass only a candidate that is better than the heuristic (R82)."""

from __future__ import annotations

from typing import Final

from holdfast.qualify.gate_config import Gates
from holdfast.qualify.holdout_pair import HoldoutPair, Messages, compare_auc
from holdfast.qualify.result import GateResult

GATE: Final = "baseline"

_MESSAGES: Final = Messages(
    passed="is better than the heuristic",
    failed="is not better than the heuristic",
    inconclusive="is not surely better than the heuristic",
)


def check_baseline(pair: HoldoutPair | None, gates: Gates) -> GateResult:
    """Pass if the candidate's AUC is surely above the heuristic's on the newest labelled days.

    Parameters
    ----------
    pair
        The predictions of candidate and heuristic; None if one of them gave none.

    Guarantee: a candidate whose true AUC exceeds the heuristic's by no more than `gates.beat_heuristic_by`
    passes with a probability of about (1 - confidence) / 2 at most, for independent rows. Rows of one day resemble each
    other, which makes the true probability somewhat larger.
    """
    return compare_auc(GATE, pair, gates, bound=gates.beat_heuristic_by, messages=_MESSAGES)
