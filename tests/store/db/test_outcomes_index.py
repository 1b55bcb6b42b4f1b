"""Outcomes of one version are found by an index, not by reading every outcome of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from holdfast.store import Store
from holdfast.store.backout import impact
from holdfast.store.telemetry import comparison_inputs, outcomes
from holdfast.store.telemetry.outcomes import PushedPredictions

pytestmark = pytest.mark.sqlite


@pytest.mark.parametrize(
    "read",
    [
        lambda connection: comparison_inputs.labelled(connection, "m", "v1", most=10),
        lambda connection: impact.feedback_of(connection, "m", "v1"),
        lambda connection: outcomes.count_wrong(connection, "m", PushedPredictions(1, "v1")),
    ],
    ids=["labelled", "feedback_of", "count_wrong"],
)
def test_outcomes_of_a_version_are_read_by_their_index(
    tmp_path: Path, read: Callable[[Connection], object]
) -> None:
    statements: list[tuple[str, object]] = []
    with Store.open(tmp_path).ledger.read() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda *given: statements.append((given[2], given[3]))
        )
        read(connection)
        text, values = statements[-1]
        plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all())
    assert "ix_outcomes_model_version_predicted_at_us (model=? AND version=?)" in plan
