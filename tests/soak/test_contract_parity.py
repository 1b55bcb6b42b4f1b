"""A short run of the parity soak; the long one is a command (R45, R47)."""

from __future__ import annotations

from tests.soak import contract_parity


def test_four_thousand_hostile_rows_get_one_verdict_from_batch_and_row() -> None:
    outcome = contract_parity.soak(4_000, 2013)
    assert outcome.differences == []
    assert outcome.rows == 4_000
    assert outcome.valid > 500
    reported = {reason.partition("|")[2] for reason in outcome.reasons}
    expected = "missing type not_finite not_exact range unseen zone gap fold nul not_unicode too_long "
    expected += "pattern rule duplicate unique"
    assert reported >= set(expected.split())
