"""Compatibility: a version passes a test with the runtime and serving config in force before it gets traffic (R115, R116).

A rollout and the push of a runtime require it. A rollback does not: what it returns to served before, and it must not wait.
"""

from __future__ import annotations

from holdfast.control.rollout import plan_parts
from holdfast.errors import RefusedError
from holdfast.records import TrafficPlan, Verdict
from holdfast.rollout import State
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import runtimes, serving_configs
from holdfast.store.models.runtimes import CompatibilityResult
from holdfast.store.rollout import rollouts


def is_tested(connection: Transaction, model: str, version: str, runtime: str) -> bool:
    """Return True if `version` passed a test with `runtime` and the serving config in force."""
    found = runtimes.compatibility_result(
        connection, version, runtime, plan_parts.serving_config_in_force(connection, model).id
    )
    return found is not None and found.verdict is Verdict.PASS


def require_tested(connection: Transaction, model: str, version: str, runtime: str) -> None:
    """Raise `RefusedError` HF403 unless `version` passed a test with `runtime` and the serving config in force."""
    limits = plan_parts.serving_config_in_force(connection, model)
    found = runtimes.compatibility_result(connection, version, runtime, limits.id)
    if found is None or found.verdict is not Verdict.PASS:
        why = "was not tested" if found is None else f"did not pass its test ({found.explanation})"
        raise RefusedError(
            "HF403",
            f"{runtime} {why} with {version} and {limits.id}",
            state="nothing was written",
            next_command=f"holdfast runtime test {runtime} --version {version}",
        )


def untested_runtime(connection: Transaction, model: str, version: str) -> str | None:
    """Return the runtime in force that `version` has yet to pass a test with; None if it passed, or no plan names a runtime."""
    periods = runtimes.in_force(connection, model)
    return periods[0][1] if periods and not is_tested(connection, model, version, periods[0][1]) else None


def refuse(connection: Transaction, model: str, version: str) -> None:
    """Raise `RefusedError` HF403 if `version` has yet to pass a test with the runtime in force."""
    runtime = untested_runtime(connection, model, version)
    if runtime is not None:
        require_tested(connection, model, version, runtime)


def versions_to_test(connection: Transaction, plan: TrafficPlan) -> tuple[str, ...]:
    """Return the versions that another runtime would serve: the intended one under `plan`, and the challenger of a rollout."""
    row = rollouts.under_way(connection, plan.model)
    coming = () if row is None or row.state is State.ROLLING_BACK else (row.challenger,)
    return tuple(dict.fromkeys((plan.intended, *coming)))


def record(
    connection: Transaction, model: str, version: str, runtime: str, explanation: str, *, now_us: int
) -> None:
    """Record that `version` passed with the registered `runtime` and the serving config in force.

    A compatibility test of the three takes precedence.
    """
    limits = plan_parts.serving_config_in_force(connection, model)
    serving_configs.register(connection, limits, now_us=now_us)
    if runtimes.compatibility_result(connection, version, runtime, limits.id) is None:
        runtimes.judge(
            connection, CompatibilityResult(version, runtime, limits.id, Verdict.PASS, explanation, now_us)
        )
