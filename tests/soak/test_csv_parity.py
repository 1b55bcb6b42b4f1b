"""A short run of the CSV soak, and files that Hypothesis makes smaller; the long run is a command (R12)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.soak import csv_parity
from tests.support.profile import examples
from tests.support.smoke import Smoke


def test_two_thousand_hostile_files_are_taken_apart_as_python_does(smoke: Smoke) -> None:
    outcome = smoke("tests.soak.csv_parity")
    assert outcome["differences"] == 0
    assert outcome["read"] > 900
    assert min(outcome["refused_by_both"], outcome["refused_as_truncated"]) > 100


@examples(300)
@given(
    st.sampled_from(csv_parity.SEPARATORS),
    st.lists(st.sampled_from(csv_parity.PIECES), max_size=30).map("".join),
    st.integers(1, 12),
)
def test_any_file_is_taken_apart_as_python_does_or_refused(separator: str, body: str, size: int) -> None:
    outcome = csv_parity.Outcome()
    csv_parity.compare(outcome, f"a{separator}b\n{body}", separator, size)
    assert outcome.differences == []
