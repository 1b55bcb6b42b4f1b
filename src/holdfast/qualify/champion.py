"""Is it not worse than the version that answers now (R75)?"""

from __future__ import annotations

from typing import Final

from holdfast.qualify.gate_config import Gates
from holdfast.qualify.holdout_pair import UNANSWERED, Pair
from holdfast.qualify.result import GateResult, judged
from holdfast.records import Verdict

GATE: Final = "champion"


def first_version() -> GateResult:
    """The verdict when no version answers yet: there is nothing to be worse than."""
    return judged(GATE, Verdict.PASS, "first version: there is no champion to be compared with")


def champion(pair: Pair | None, gates: Gates) -> GateResult:
    """Pass when the candidate's AUC is surely not below the champion's by `gates.worse_than_champion_by` or
    more.

    Parameters
    ----------
    pair
        The candidate's and the champion's answers on the newest labelled days; None when one could not be
        asked.

    Guarantee: a candidate that is worse by the margin or more passes with a probability of about
    (1 - confidence) / 2 at most, for independent rows (non-inferiority by interval; DeLong et al. 1988,
    doi 10.2307/2531595).
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
    bound = -gates.worse_than_champion_by
    if ahead.low > bound:
        verdict, words = Verdict.PASS, "is not worse than the champion"
    elif ahead.high <= bound:
        verdict, words = Verdict.FAIL, "is worse than the champion"
    else:
        verdict, words = Verdict.INCONCLUSIVE, "may be worse than the champion"
    return judged(
        GATE,
        verdict,
        f"{words}: AUC difference {ahead} on {len(pair.labels)} rows, needed above {bound:g}",
        observed=ahead.estimate,
        low=ahead.low,
        high=ahead.high,
        bound=bound,
    )
