"""The gate `check_champion`: pass only a candidate that is not worse than the champion (R75)."""

from __future__ import annotations

from typing import Final

from holdfast.qualify.gate_config import Gates
from holdfast.qualify.holdout_pair import HoldoutPair, Messages, compare_auc
from holdfast.qualify.result import GateResult, gate_result
from holdfast.records import Verdict

GATE: Final = "champion"

_MESSAGES: Final = Messages(
    passed="is not worse than the champion",
    failed="is worse than the champion",
    inconclusive="may be worse than the champion",
)


def pass_first_version() -> GateResult:
    """Return a pass for the first version, which has no champion to compare with."""
    return gate_result(GATE, Verdict.PASS, "first version: there is no champion to compare with")


def check_champion(pair: HoldoutPair | None, gates: Gates) -> GateResult:
    """Pass if the candidate's AUC is surely not below the champion's by `gates.worse_than_champion_by` or more.

    Parameters
    ----------
    pair
        The predictions of candidate and champion on the newest labelled days; None if one gave none.

    Guarantee: a candidate that is worse by the margin or more passes with a probability of about
    (1 - confidence) / 2 at most, for independent rows (non-inferiority by interval).
    """
    return compare_auc(GATE, pair, gates, bound=-gates.worse_than_champion_by, messages=_MESSAGES)
