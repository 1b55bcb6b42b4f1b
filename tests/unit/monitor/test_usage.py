from dataclasses import replace

from holdfast.monitor.health import format_reasons
from holdfast.monitor.latency import bucket_of
from holdfast.monitor.usage import UsageRow, silent_after_us, summarise_usage
from holdfast.records import Verdict

MINUTE = 60_000_000


def row(version="v1", minute=0, requests=10, result="ok", arm="champion", latency_us=1000):
    return UsageRow(
        version,
        arm,
        result,
        minute * MINUTE,
        requests,
        requests,
        requests * latency_us,
        {bucket_of(latency_us): requests},
        {bucket_of(latency_us * 20): requests},
    )


def seen(rows, until=10):
    return summarise_usage(rows, since_us=0, until_us=until * MINUTE, silent_after_us=5 * MINUTE)


def test_errors_are_split_by_kind_and_version():
    """R141: error rate by type."""
    found = seen([row(minute=8), row(minute=8, result="model", requests=3), row("v2", 9, 7, "contract")])
    first, second = found.versions
    assert (first.failed, first.error_rate) == (3, 3 / 13)
    assert [(kind.kind, kind.requests) for kind in first.errors] == [("model", 3)]
    assert (second.failed, second.refused, second.share) == (0, 7, 7 / 20)
    assert second.error_rate == 1.0
    assert [(kind.kind, kind.requests) for kind in second.errors] == [("contract", 7)]
    assert (found.requests, found.failed, found.refused) == (20, 3, 7), (
        "what callers sent is no failure of ours"
    )
    for part in ("failed", "refused"):  # one meaning each, of the model and of a version
        assert sum(getattr(each, part) for each in found.versions) == getattr(found, part)


def test_an_hour_without_requests_that_is_usual_is_reported_as_such():
    """Between two times of day at which requests come, "0 requests" and "Requests arrive." stood side by side."""
    window = {"since_us": 60 * MINUTE, "until_us": 120 * MINUTE, "silent_after_us": 600 * MINUTE}
    found = summarise_usage([], **window, last_minute_us=9 * MINUTE)
    assert (found.requests, found.verdict) == (0, Verdict.PASS)
    assert found.explanation == "The last request came 1 h ago, no longer than usual."
    assert summarise_usage([row(minute=60)], **window).explanation == "Requests arrive."


def test_silence_is_a_failure_and_no_data_is_not_success():
    """R140: zero traffic is reported."""
    assert seen([]).verdict is Verdict.INCONCLUSIVE
    assert seen([row(minute=1)]).verdict is Verdict.FAIL
    assert "8 min" in seen([row(minute=1)]).explanation
    assert seen([row(minute=6)]).verdict is Verdict.PASS


def test_a_model_that_was_never_requested_is_silent_since_it_serves():
    """R140: it was inconclusive for ever, and nothing stated since when."""
    window = {"since_us": 0, "until_us": 60 * MINUTE, "silent_after_us": 5 * MINUTE}
    early = summarise_usage([], **window, served_since_us=56 * MINUTE)
    assert early.verdict is Verdict.INCONCLUSIVE
    assert (
        early.explanation == "No request has been counted since the first version began to serve 4 min ago."
    )
    late = summarise_usage([], **window, served_since_us=54 * MINUTE)
    assert (late.verdict, "6 min ago" in late.explanation) == (Verdict.FAIL, True)
    assert summarise_usage([], **window).verdict is Verdict.INCONCLUSIVE, "no version serves"
    declared = summarise_usage([], **{**window, "silent_after_us": 60 * MINUTE}, served_since_us=0)
    assert declared.verdict is Verdict.INCONCLUSIVE
    assert seen([row(minute=6)]).verdict is Verdict.PASS


def test_few_pauses_or_little_time_show_no_usual_pause():
    steady = [minute * MINUTE for minute in range(30)]
    assert silent_after_us(steady) == 5 * MINUTE
    assert silent_after_us(steady[:29]) is None, "within less than half an hour"
    assert silent_after_us([0, *(minute * MINUTE for minute in range(100, 119))]) is None, "19 pauses"
    assert silent_after_us([0, *(minute * MINUTE for minute in range(100, 120))]) == 5 * MINUTE


def test_the_rate_counts_from_the_first_request():
    assert seen([row(minute=8, requests=120)]).rate_per_second == 1.0


def test_latency_is_by_version_over_all_results_and_arms():
    found = seen(
        [row(minute=9, requests=99), row(minute=9, requests=1, arm="challenger", latency_us=1_000_000)]
    )
    (only,) = found.versions
    assert only.processor_p50_seconds < 0.0012
    assert only.processor_p99_seconds < 0.0012
    assert seen([row(minute=9, latency_us=1_000_000)]).versions[0].processor_p50_seconds > 0.8


def test_the_time_to_the_response_is_apart_from_the_processor_time():
    """The page showed 0.45 ms of processor time where callers waited for 9.5 ms."""
    (only,) = seen([row(minute=9, latency_us=450)]).versions
    assert 0.008 < only.p50_seconds < 0.011
    assert 0.008 < only.p99_seconds < 0.011
    before = replace(row(minute=9), response={})
    assert seen([before]).versions[0].p99_seconds is None, "what was not measured is not invented"


def test_the_commonest_reasons_of_refused_requests_are_named():
    reasons = {"carrier|unseen": 30, "at|zone": 30, "*|extra": 2, "km|range": 1}
    found = seen([replace(row(minute=minute, result="contract"), reasons=reasons) for minute in (7, 8)])
    assert found.reasons == (("at|zone", 60), ("carrier|unseen", 60), ("*|extra", 4), ("km|range", 2))
    assert format_reasons(found.reasons) == ": at|zone (60), carrier|unseen (60), *|extra (4) and 1 more"


def test_minutes_outside_the_window_are_left_out():
    found = summarise_usage(
        [row(minute=1), row(minute=20)], since_us=10 * MINUTE, until_us=30 * MINUTE, silent_after_us=MINUTE
    )
    assert [minute.minute_start_us for minute in found.minutes] == [20 * MINUTE]
