import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.feedback import Arrival, KnownLabel, classify_label, parse_id


@given(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True), st.integers(0, 10**6), st.integers(0, 10**9)
)
def test_an_id_reads_back_as_it_was_written(server, segment, number):
    found = parse_id(f"{server}-{segment}-{number}/3")
    assert (found.server, found.segment, found.number, found.row) == (server, segment, number, 3)


@given(st.text(max_size=60))
def test_no_text_is_more_than_one_key_of_a_response(text):
    found = parse_id(text)
    assert found is None or str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s-1-1",
        "s-1-1/",
        "s-01-1/0",
        "S-1-1/0",
        "s-1-1/0\n",
        "../../x-1-1/0",
        "s-1-١/0",
        "s" * 60 + "-1-1/0",
    ],
)
def test_what_no_server_gave_out_is_not_an_id(text):
    assert parse_id(text) is None


@pytest.mark.parametrize(
    ("value", "known", "becomes"),
    [
        (1.0, None, Arrival.ACCEPTED),
        (1.0, 1.0, Arrival.REPEATED),
        (0.0, 1.0, Arrival.CONTRADICTS),
        (1.5, None, Arrival.MALFORMED),
        (-0.1, 1.0, Arrival.MALFORMED),
        (math.nan, None, Arrival.MALFORMED),
        (math.inf, None, Arrival.MALFORMED),
    ],
)
def test_a_label_counts_once_and_never_contradicts(value, known, becomes):
    """R147: the same label again counts once; another value for the same answer is refused."""
    standing = None if known is None else KnownLabel(known, "a")
    assert classify_label("s1-1-1/0", KnownLabel(value, "a"), standing, "first") is becomes
