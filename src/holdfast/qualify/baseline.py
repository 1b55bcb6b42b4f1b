"""Is it better than the answer that needs no learning (R82)?"""

from __future__ import annotations

from typing import Final

from holdfast.qualify.gate_config import Gates
from holdfast.qualify.holdout_pair import UNANSWERED, Pair
from holdfast.qualify.result import GateResult, judged
from holdfast.records import Verdict

GATE: Final = "baseline"


def baseline(pair: Pair | None, gates: Gates) -> GateResult:
    """Pass when the candidate's AUC is surely above the heuristic's on the newest labelled days.

    Parameters
    ----------
    pair
        The candidate's and the heuristic's answers; None when one of them could not be asked.

    Guarantee: a candidate whose true AUC exceeds the heuristic's by no more than `gates.beat_heuristic_by`
    passes with a probability of about (1 - confidence) / 2 at most, for independent rows (DeLong et al.
    1988, doi 10.2307/2531595). Rows of one day resemble each other, which makes the true probability
    somewhat larger.
    """
    if pair is None:
        return judged(
            GATE,
            Verdict.INCONCLUSIVE,
            UNANSWERED,
        )
    if reason := pair.unusable():
        return judged(GATE, Verdict.FAIL, reason)
    if reason := pair.too_few(gates):
        return judged(GATE, Verdict.INCONCLUSIVE, reason)
    ahead = pair.difference(gates)
    bound = gates.beat_heuristic_by
    if ahead.low > bound:
        verdict, words = Verdict.PASS, "is better than the heuristic"
    elif ahead.high <= bound:
        verdict, words = Verdict.FAIL, "is not better than the heuristic"
    else:
        verdict, words = Verdict.INCONCLUSIVE, "is not surely better than the heuristic"
    return judged(
        GATE,
        verdict,
        f"{words}: AUC difference {ahead} on {len(pair.labels)} rows, needed above {bound:g}",
        observed=ahead.estimate,
        low=ahead.low,
        high=ahead.high,
        bound=bound,
    )
