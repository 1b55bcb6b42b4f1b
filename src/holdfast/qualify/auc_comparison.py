"""The gates `check_baseline` and `check_champion`: how well a candidate ranks against another version (R75, R82)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from holdfast.formatting import counted
from holdfast.qualify.gate_config import Gates
from holdfast.qualify.holdout_pair import HoldoutPair, reject_pair
from holdfast.qualify.result import GateResult
from holdfast.records import Verdict
from holdfast.stats import paired_auc_difference

BASELINE: Final = "baseline"
CHAMPION: Final = "champion"

_BASELINE_MESSAGES: Final = {
    Verdict.PASS: "is better than the heuristic",
    Verdict.FAIL: "is not better than the heuristic",
    Verdict.INCONCLUSIVE: "is not surely better than the heuristic",
}
_CHAMPION_MESSAGES: Final = {
    Verdict.PASS: "is not worse than the champion",
    Verdict.FAIL: "is worse than the champion",
    Verdict.INCONCLUSIVE: "may be worse than the champion",
}


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
    return _compare_auc(BASELINE, pair, gates, gates.beat_heuristic_by, _BASELINE_MESSAGES)


def pass_first_version() -> GateResult:
    """Return a pass for the first version, which has no champion to compare with."""
    return GateResult(CHAMPION, Verdict.PASS, "first version: there is no champion to compare with")


def check_champion(pair: HoldoutPair | None, gates: Gates) -> GateResult:
    """Pass if the candidate's AUC is surely not below the champion's by `gates.worse_than_champion_by` or more.

    Parameters
    ----------
    pair
        The predictions of candidate and champion on the newest labelled days; None if one gave none.

    Guarantee: a candidate that is worse by the margin or more passes with a probability of about
    (1 - confidence) / 2 at most, for independent rows (non-inferiority by interval).
    """
    return _compare_auc(CHAMPION, pair, gates, -gates.worse_than_champion_by, _CHAMPION_MESSAGES)


def _compare_auc(
    gate: str, pair: HoldoutPair | None, gates: Gates, bound: float, messages: Mapping[Verdict, str]
) -> GateResult:
    """Pass if the candidate's AUC minus the other's is surely above `bound`; fail if it surely is not.

    The interval is that of DeLong et al. (1988, doi 10.2307/2531595).
    """
    if rejected := reject_pair(gate, pair, gates):
        return rejected
    assert pair is not None
    difference = paired_auc_difference(pair.candidate, pair.other, pair.labels, gates.confidence)
    verdict = Verdict.INCONCLUSIVE
    if difference.low > bound:
        verdict = Verdict.PASS
    elif difference.high <= bound:
        verdict = Verdict.FAIL
    return GateResult(
        gate,
        verdict,
        f"{messages[verdict]}: AUC difference {difference} on {counted(len(pair.labels), 'row')}, needed above {bound:g}",
        observed=difference.estimate,
        low=difference.low,
        high=difference.high,
        bound=bound,
    )
