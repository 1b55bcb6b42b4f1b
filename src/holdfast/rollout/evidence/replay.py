"""Replay of recorded requests with a candidate offline, before it gets any copy or traffic.

The pairs are judged as those of a shadow, with two differences. Latency is not compared. A request that the candidate's
contract refuses is no matter of chance: its callers will send it again, so one is enough to fail, unless an operator has
accepted that change of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from holdfast.records import Verdict
from holdfast.rollout.evidence.records import MetricState
from holdfast.rollout.evidence.shadow import LabelledPair, Pair, begin, describe, fold_labelled, fold_pairs
from holdfast.rollout.model.policy import Canary, Shadow

CONTRACT = "contract"
"""The result of a request that the candidate's contract refuses."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a replay ended: the verdict, why, and what each metric of the pairs showed."""

    verdict: Verdict
    explanation: str
    states: tuple[MetricState, ...]


def replayed(
    policy: Canary,
    pairs: Sequence[Pair],
    labelled: Iterable[LabelledPair],
    *,
    needed: int,
    refused: int,
    accepted: bool,
) -> Replayed:
    """Return the verdict on so many `pairs`, of which the candidate's contract refuses `refused` requests.

    Parameters
    ----------
    needed
        Number of requests that the policy requires; fewer are inconclusive, never a pass.
    accepted
        Whether an operator has accepted the change of the contract: then refusals are reported and do not fail it.

    Guarantee: a candidate that answers, pair by pair, within the policy's margins fails with probability at most
    `policy.alpha` (see `shadow`); each unit counts once. Refusals are counted, not estimated.

    >>> replayed(Canary(), [], [], needed=10, refused=0, accepted=False).verdict
    <Verdict.INCONCLUSIVE: 'inconclusive'>
    """
    judged = replace(policy, shadow=policy.shadow or Shadow())
    counted = [pair for pair in pairs if not (accepted and pair.result == CONTRACT)]
    states = fold_labelled(fold_pairs(begin(judged, None), counted), labelled)
    harm = [describe(state) for state in states if state.is_harmful]
    if refused and not accepted:
        harm.insert(0, f"its contract refuses {refused} of {len(pairs)} requests that callers sent")
    if harm:
        return Replayed(Verdict.FAIL, "; ".join(harm), states)
    if not pairs or len(pairs) < needed:
        wanting = f"{len(pairs)} of {max(1, needed)} recorded requests are there"
        return Replayed(Verdict.INCONCLUSIVE, wanting, states)
    metrics = "; ".join(describe(state) for state in states if state.challenger_units)
    also = f"; {refused} were refused, which an operator accepted" if refused else ""
    return Replayed(Verdict.PASS, f"{len(pairs)} recorded requests: {metrics}{also}", states)
