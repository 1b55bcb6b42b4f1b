"""The read position of a log moves once for each part, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import ConflictError
from holdfast.store import Store
from holdfast.store.telemetry import collected_log
from holdfast.store.telemetry.collected_log import Position

pytestmark = pytest.mark.usefixtures("each_ledger")


def test_a_position_moves_from_where_it_is_and_from_nowhere_else(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    first, second = Position("s1", 1, 0), Position("s1", 1, 100)
    with store.ledger.write() as connection:
        collected_log.advance(connection, first, 100, predictions=3, feedback=1)
        collected_log.advance(connection, second, 250, predictions=4, feedback=0)
    for stale in (first, second):
        with pytest.raises(ConflictError, match="HF304"), store.ledger.write() as connection:
            collected_log.advance(connection, stale, 300, predictions=1, feedback=0)
    with store.ledger.read() as connection:
        assert collected_log.positions(connection, "s1") == {1: Position("s1", 1, 250)}
    store.ledger.close()
