"""What may serve together: a version passed a trial with the binary and the configuration in force before it gets traffic
(R115, R116).

Asked where a combination comes about on purpose: by a rollout, and by the push of a binary. No roll-back asks: what it returns
to answered users before, and it may not wait.
"""

from __future__ import annotations

from holdfast.control.rollout import serving_config
from holdfast.errors import RefusedError
from holdfast.records import TrafficPlan, Verdict
from holdfast.rollout import State
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import runtimes, serving_configs
from holdfast.store.models.runtimes import Release
from holdfast.store.rollout import rollouts


def with_binary(connection: Transaction, model: str, version: str, binary: str) -> bool:
    """Whether `version` passed a trial with `binary` and the configuration in force."""
    found = runtimes.tried(connection, version, binary, serving_config.current(connection, model).id)
    return found is not None and found.verdict is Verdict.PASS


def must_be_tried(connection: Transaction, model: str, version: str, binary: str) -> None:
    """Raise `RefusedError` HF403 unless `version` passed a trial with `binary` and the configuration in force."""
    limits = serving_config.current(connection, model)
    found = runtimes.tried(connection, version, binary, limits.id)
    if found is None or found.verdict is not Verdict.PASS:
        why = "was not tried" if found is None else f"did not pass its trial ({found.explanation})"
        raise RefusedError(
            "HF403",
            f"{binary} {why} with {version} and {limits.id}",
            state="nothing was written",
            next_command=f"holdfast runtime test {binary} --version {version}",
        )


def lacking(connection: Transaction, model: str, version: str) -> str | None:
    """The binary in force that `version` has yet to pass a trial with; None when it passed, or where no plan names one."""
    spells = runtimes.in_force(connection, model)
    return spells[0][1] if spells and not with_binary(connection, model, version, spells[0][1]) else None


def refuse(connection: Transaction, model: str, version: str) -> None:
    """Raise `RefusedError` HF403 when `version` has yet to pass a trial with the binary in force."""
    binary = lacking(connection, model, version)
    if binary is not None:
        must_be_tried(connection, model, version, binary)


def answering(connection: Transaction, plan: TrafficPlan) -> tuple[str, ...]:
    """The versions that another binary would answer with at once or in time: the intended one under `plan`, and what is
    being rolled out."""
    row = rollouts.under_way(connection, plan.model)
    coming = () if row is None or row.state is State.ROLLING_BACK else (row.challenger,)
    return tuple(dict.fromkeys((plan.intended, *coming)))


def keep(
    connection: Transaction, model: str, version: str, binary: str, explanation: str, *, now_us: int
) -> None:
    """Keep that `version` passed with the registered `binary` and the configuration in force, in the caller's transaction.
    A trial of the three stands above it."""
    limits = serving_config.current(connection, model)
    serving_configs.register(connection, limits, now_us=now_us)
    if runtimes.tried(connection, version, binary, limits.id) is None:
        runtimes.judge(connection, Release(version, binary, limits.id, Verdict.PASS, explanation, now_us))
