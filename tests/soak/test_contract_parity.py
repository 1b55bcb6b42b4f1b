"""A short run of the parity soak; the long one is a command (R45, R47)."""

from __future__ import annotations

from tests.support.smoke import Smoke


def test_four_thousand_hostile_rows_get_one_verdict_from_batch_and_row(smoke: Smoke) -> None:
    outcome = smoke("tests.soak.contract_parity")
    assert outcome["differences"] == 0
    assert outcome["rows"] == 4_000
    assert outcome["valid"] > 500
    reported = {reason.partition("|")[2] for reason in outcome["rows_with_reason"]}
    expected = "missing type not_finite not_exact range unseen zone gap fold nul not_unicode too_long "
    expected += "pattern rule duplicate unique"
    assert reported >= set(expected.split())
