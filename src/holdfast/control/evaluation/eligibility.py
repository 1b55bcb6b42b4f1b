"""Read from ledger and files which versions may serve in place of another, and apply the rule of `decision.fallback`."""

from __future__ import annotations

from collections.abc import Collection

from holdfast.contract.evolution.compatibility import Boundary, Compatibility, worst
from holdfast.contract.evolution.diff import compare
from holdfast.errors import IntegrityError, NotFoundError
from holdfast.rollout import PushOutcome, State
from holdfast.rollout.decision import fallback as rule
from holdfast.rollout.decision.fallback import Candidate, Choice
from holdfast.rollout.model.state_machine import WITHOUT_TRAFFIC
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import rollouts, withdrawals


def fallback(
    connection: Transaction,
    store: Store,
    model: str,
    preferred: str | None,
    *,
    warm: str | None,
    tainted: Collection[str],
    unfit: Collection[str] = (),
) -> Choice:
    """Return the version of `model` that serves by the rule of `decision.fallback`, whose file is intact.

    Parameters
    ----------
    preferred
        The version that serves if it is clean.
    warm
        The heuristic that servers have loaded.
    tainted, unfit
        Versions that must not serve, and candidates that cannot.
    """
    known = candidates(connection, model)
    unfit = set(unfit)
    while True:
        choice = rule.fallback(known, preferred, warm, tainted, unfit)
        chosen = next((each for each in known if each.version == choice.version), None)
        # Servers have the preferred version and every heuristic in memory; the file of another may be damaged.
        if chosen is None or chosen.is_heuristic or chosen.version == preferred:
            return choice
        if is_intact(connection, store, chosen.version):
            return choice
        unfit.add(chosen.version)


def heuristic(connection: Transaction, model: str, warm: str | None, tainted: Collection[str]) -> str | None:
    """Return the heuristic of `model` that serves when no model can: `warm` if it is clean, else the newest clean one."""
    return rule.heuristic(candidates(connection, model), warm, tainted)


def candidates(connection: Transaction, model: str) -> list[Candidate]:
    """Return every version of `model` as the rule sees it, the newest first."""
    registered = versions.of_model(connection, model)
    last = withdrawals.last_with_traffic(connection, model)
    standings = withdrawals.standings(connection, model, [row.version for row in registered])
    harmful = harmful_versions(connection, model)
    return [
        Candidate(
            version=row.version,
            is_heuristic=row.role == "heuristic",
            state=row.state,
            standing=standings[row.version],
            is_promoted=row.version in last and last[row.version].state is State.PROMOTED,
            is_harmful=row.version in harmful,
        )
        for row in registered
    ]


def harmful_versions(connection: Transaction, model: str) -> frozenset[str]:
    """Return the versions of `model` whose newest push showed harm: no rollback returns to them (R118).

    A push that ended before it had traffic counts only if it showed harm.
    """
    outcomes = {push.rollout_id: push.outcome for push in rollouts.pushes_of(connection, model)}
    harmful: dict[str, bool] = {}
    for row in rollouts.of_model(connection, model):
        is_harmful = outcomes.get(row.rollout_id) in (PushOutcome.BAD, PushOutcome.ESCAPED)
        if is_harmful or row.state not in WITHOUT_TRAFFIC:
            harmful.setdefault(row.challenger, is_harmful)
    return frozenset(version for version, is_harmful in harmful.items() if is_harmful)


def barred_versions(connection: Transaction, model: str) -> frozenset[str]:
    """Return the versions of `model` that no rollback and no drill returns to.

    They are tainted, did harm, or were withdrawn.
    """
    return (
        harmful_versions(connection, model)
        | taints.versions_of(connection, model)
        | withdrawn_versions(connection, model)
    )


def withdrawn_versions(connection: Transaction, model: str) -> frozenset[str]:
    """Return the versions of `model` that were withdrawn, and that no newer rollout pushed."""
    return frozenset(each.version for each in candidates(connection, model) if not each.standing.may_serve)


def breaking_callers_of(connection: Transaction, version: str) -> frozenset[str]:
    """Return the versions of the same model whose contract refuses or misreads what callers of `version` may send (R133).

    A contract that is not in the ledger breaks no caller here; servers read it in the version's file and decide themselves.
    """
    row = versions.get(connection, version)
    known = contracts.find(connection, row.contract_hash)
    if known is None:
        return frozenset()
    breaking: dict[str, bool] = {row.contract_hash: False}
    rows = versions.of_model(connection, row.model)
    for each in rows:
        if each.contract_hash not in breaking:
            other = contracts.find(connection, each.contract_hash)
            breaking[each.contract_hash] = other is not None and (
                worst(map(compare(known, other).at, (Boundary.CALLERS, Boundary.MODELS)))
                is Compatibility.BREAKING
            )
    return frozenset(each.version for each in rows if breaking[each.contract_hash])


def is_intact(connection: Transaction, store: Store, version: str) -> bool:
    """Return True if the file of `version` exists and is the one that was registered."""
    try:
        blobs.get(store.root, versions.get(connection, version).digest)
    except (IntegrityError, NotFoundError, OSError):
        return False
    return True
