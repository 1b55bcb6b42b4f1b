"""Compare the champion's quality in production with the declared objective (R150)."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from holdfast.monitor.quality import compute_quality
from holdfast.qualify import Objective, ObjectiveComparison, compare_with_objective
from holdfast.records import DAY_US, MINUTE_US
from holdfast.store import Store
from holdfast.store.telemetry import outcomes

WINDOW_US: Final = 28 * DAY_US
"""Predictions of the last four weeks are compared, microseconds. The label's delay is added to it."""
EVERY_US: Final = MINUTE_US


class ObjectiveReader:
    """Compares once a minute, if labels were joined, corrected or withdrawn since, or a day has passed.

    Parameters
    ----------
    objective
        The declared objective; None if none is declared.
    label_delay
        The duration from an event until its label is known: younger predictions have none.
    """

    def __init__(self, objective: Objective | None, label_delay: timedelta = timedelta(0)) -> None:
        self._objective = objective
        self._window_us = WINDOW_US + label_delay // timedelta(microseconds=1)
        self._compared: tuple[str, tuple[int, int], int] | None = None
        self._compared_at_us = 0
        self._found: ObjectiveComparison | None = None

    def read(
        self, store: Store, model: str, champion: str | None, *, now_us: int
    ) -> ObjectiveComparison | None:
        """Return how `champion` compares with the objective; None without an objective or without enough labels."""
        if self._objective is None or champion is None:
            return None
        is_same = self._compared is not None and self._compared[0] == champion
        if is_same and 0 <= now_us - self._compared_at_us < EVERY_US:
            return self._found
        with store.ledger.read() as connection:
            current = champion, outcomes.newest_change(connection, model), now_us // DAY_US
            if current != self._compared:
                since_us = now_us - self._window_us
                predicted = outcomes.of_model(connection, model, since_us=since_us, version=champion)
                quality = compute_quality(predicted)
                observed = quality.auc if self._objective.metric == "auc" else quality.brier
                self._found = (
                    None
                    if observed is None
                    else compare_with_objective(self._objective, observed, quality.rows)
                )
                self._compared = current
        self._compared_at_us = now_us
        return self._found
