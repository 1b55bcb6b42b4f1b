import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.monitor.latency import LATENCY_EDGES_SECONDS, RESOLUTION, bucket_of, merge, quantile_seconds
from tests.support.profile import examples

latencies = st.lists(st.integers(101, 9_900_000), min_size=1, max_size=60)


def histogram(values):
    return merge({bucket_of(value): 1} for value in values)


@examples(50)
@given(latencies, st.floats(0.001, 1.0))
def test_a_quantile_is_within_the_stated_resolution(values, share):
    """R141: latency quantiles come with a resolution that holds."""
    truth = sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)] / 1e6
    found = quantile_seconds(histogram(values), share)
    assert abs(found - truth) <= (RESOLUTION + 1e-9) * truth


@examples(50)
@given(latencies, latencies)
def test_histograms_add_up_in_any_order(first, second):
    assert merge([histogram(first), histogram(second)]) == histogram(second + first)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_without_a_request_there_is_no_quantile(share):
    assert quantile_seconds({}, share) is None


def test_what_lies_outside_the_edges_is_at_the_edge():
    assert quantile_seconds({bucket_of(1): 1}, 0.5) == LATENCY_EDGES_SECONDS[0]
    assert quantile_seconds({bucket_of(3_600_000_000): 1}, 0.5) == LATENCY_EDGES_SECONDS[-1] == 10.0
