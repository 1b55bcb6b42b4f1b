"""A short run of the parity soak; the long one is a command (R45, R47)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def test_four_thousand_hostile_rows_get_one_verdict_from_batch_and_row() -> None:
    path = Path(__file__).parents[2] / "soak" / "contract_parity.py"
    spec = importlib.util.spec_from_file_location("contract_parity", path)
    assert spec is not None
    assert spec.loader is not None
    parity = importlib.util.module_from_spec(spec)
    sys.modules["contract_parity"] = parity
    spec.loader.exec_module(parity)
    outcome = parity.soak(4_000, 2013)
    assert outcome.differences == []
    assert outcome.rows == 4_000
    assert outcome.valid > 500
    told = {reason.partition("|")[2] for reason in outcome.reasons}
    expected = "missing type not_finite not_exact range unseen zone gap fold nul not_unicode too_long "
    expected += "pattern rule duplicate unique"
    assert told >= set(expected.split())
