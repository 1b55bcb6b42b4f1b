"""Rows of `runtimes` and `compatibility_tests`, and the runtime of this process."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from sqlalchemy import Connection, select, update

from holdfast.errors import NotFoundError
from holdfast.records import Verdict
from holdfast.rollout.model.runtime import Runtime
from holdfast.store.db import rows, schema
from holdfast.store.db.statements import inserting
from holdfast.store.rollout.traffic_plans import in_force as _in_force

MADE_OF: Final = ("holdfast", "httptools", "msgspec", "numpy", "onnxruntime", "polars", "uvloop")
"""The distributions that serve a request."""

_RUNTIMES: Final = schema.runtimes
_TESTS: Final = schema.compatibility_tests


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """A registered runtime. `command` starts it, without `serve`; empty if none was given."""

    runtime: str
    facts: Runtime
    command: tuple[str, ...]
    registered_at_us: int


@dataclass(frozen=True, slots=True)
class CompatibilityResult:
    """The result of a compatibility test of a version with a runtime and a serving config."""

    version: str
    runtime: str
    serving_config: str
    verdict: Verdict
    explanation: str
    evaluated_at_us: int


def here(build: str) -> Runtime:
    """Return the runtime of this process; `build` is the deployer's own name for it, such as that of an image."""
    facts = {name: _release(name) for name in MADE_OF}
    libc = " ".join(platform.libc_ver()).strip()
    return Runtime(
        facts
        | {"python": platform.python_version(), "machine": platform.machine(), "libc": libc, "build": build}
    )


def _release(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "0"  # run from a source tree that was not installed


def register(connection: Connection, runtime: Runtime, command: Sequence[str], *, now_us: int) -> str:
    """Store `runtime` in the caller's transaction; return its id. A `command` that is not empty replaces the known one."""
    kept = json.dumps(list(command)) if command else None
    values = {
        "runtime": runtime.id,
        "packages_json": runtime.to_json(),
        "command": kept,
        "registered_at_us": now_us,
    }
    connection.execute(inserting(connection, _RUNTIMES).values(values).on_conflict_do_nothing())
    if kept is not None:
        connection.execute(update(_RUNTIMES).where(_RUNTIMES.c.runtime == runtime.id).values(command=kept))
    return runtime.id


def get(connection: Connection, runtime: str) -> RuntimeRow:
    """Return the runtime of that id. Raises `NotFoundError` HF303 when it was never registered."""
    for row in listed(connection):
        if row.runtime == runtime:
            return row
    raise NotFoundError(
        "HF303",
        f"there is no runtime {runtime[:64]!r}",
        state="nothing was changed",
        next_command="holdfast runtime register -- COMMAND, or holdfast runtime list",
    )


def listed(connection: Connection) -> tuple[RuntimeRow, ...]:
    """Return every runtime, in the order of registration."""
    query = select(_RUNTIMES).order_by(_RUNTIMES.c.registered_at_us, _RUNTIMES.c.runtime)
    return tuple(
        RuntimeRow(
            row.runtime,
            Runtime.from_json(row.packages_json),
            tuple(json.loads(row.command)) if row.command else (),
            row.registered_at_us,
        )
        for row in connection.execute(query)
    )


def judge(connection: Connection, result: CompatibilityResult) -> None:
    """Store the result of a compatibility test; it replaces an earlier one of the same three."""
    rows.put(connection, _TESTS, asdict(result))


def compatibility_result(
    connection: Connection, version: str, runtime: str, config: str
) -> CompatibilityResult | None:
    """Return the result of testing the three together; None if they never were."""
    query = select(_TESTS).where(
        _TESTS.c.version == version,
        _TESTS.c.runtime == runtime,
        _TESTS.c.serving_config == config,
    )
    return rows.first(connection, query, CompatibilityResult)


def passed(connection: Connection, version: str) -> tuple[str, ...]:
    """Return the runtimes that passed with `version` under any serving config, by test or gates, the newest result first."""
    query = (
        select(_TESTS.c.runtime)
        .where(_TESTS.c.version == version, _TESTS.c.verdict == Verdict.PASS)
        .order_by(_TESTS.c.evaluated_at_us.desc(), _TESTS.c.runtime)
    )
    return tuple(dict.fromkeys(connection.scalars(query)))


def in_force(connection: Connection, model: str) -> tuple[tuple[int, str], ...]:
    """Return the two newest runtimes in plans of `model`, each with the first plan of its last period, the newest first."""
    return _in_force(connection, model, "runtime")


def current(connection: Connection, model: str) -> tuple[int, RuntimeRow] | None:
    """Return the runtime that the plans of `model` name, with the plan that did first; None while none does."""
    periods = in_force(connection, model)
    return (periods[0][0], get(connection, periods[0][1])) if periods else None
