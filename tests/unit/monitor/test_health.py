"""One sentence reports whether a model is well, and what to do."""

import dataclasses

import pytest

from holdfast.monitor.health import FailedGates, FeedFacts, HealthFacts, judge_health
from holdfast.records import PROBLEMS, Verdict

GOOD = HealthFacts("v2", quality="AUC 0.741 (0.722 to 0.760) of 4,310 labelled predictions", requests=500)
BAD = {
    "no_version": {"champion": None},
    "tainted_champion": {"taint": "its rows of day 3 were backed out"},
    "data_incident": {
        "data_incidents": {"backout-3": "v2 is tainted, and no clean version serves since 2 h"}
    },
    "servers_not_as_declared": {
        "servers": Verdict.ERROR,
        "servers_explanation": "1 of 1 servers: are silent.",
    },
    "control_loop_silent": {"probe_age_us": 90_000_000},
    "no_requests": {"usage": Verdict.FAIL, "usage_explanation": "No request for 6 min; unusual."},
    "requests_failed": {"failed": 1},
    "requests_refused": {"refused": 300},
    "objective_missed": {"missed_objective": "v2 misses its objective: auc 0.577, needed at least 0.6"},
    "feed_suspect": {"feeds": [FeedFacts("weather", suspect={"2026-09-03": "Median 12 -> 54 degF."})]},
    "feed_refusing": {"feeds": [FeedFacts("weather", refused={"2026-09-04": "no column temp"})]},
    "feed_overdue": {"feeds": [FeedFacts("weather", overdue_us=7_300_000_000)]},
    "server_conflict": {"server_conflicts": {"s1": "two living processes have the name s1"}},
    "server_lost": {"lost_servers": {"s2": "server s2 was last heard from 11 min ago"}},
    "rollout_stalled": {"rollout": "needs about 119 d more", "is_rollout_stalled": True},
    "training_failed": {"failed_training": "the training of delay failed: HF402 no graph"},
    "gate_failed": {"failed_gates": FailedGates("v3", ("baseline",))},
    "rate_changed": {"rollout_id": 7, "changed_rate": "after the promotion of v2 the rate is 0.5"},
    "feed_warned": {"feeds": [FeedFacts("weather", warned={"2026-09-05": "80 % are of one carrier"})]},
    "label_shifted": {"label_shift": "28 % of training rows are positive, by labels 60 %"},
    "unseen_slice": {"unseen_slices": ["carrier = ZZ"]},
    "drill_expired": {"expired_drills": ["rollback"]},
}


def test_a_model_that_is_well_is_reported_with_its_quality():
    found = judge_health(GOOD)
    assert found.is_healthy
    assert found.sentence == "healthy: v2 serves, AUC 0.741 (0.722 to 0.760) of 4,310 labelled predictions"


@pytest.mark.parametrize("kind", PROBLEMS)
def test_each_problem_is_one_sentence_with_what_to_do(kind):
    found = judge_health(dataclasses.replace(GOOD, **BAD[kind]))
    assert [problem.kind for problem in found.problems] == [kind]
    (problem,) = found.problems
    assert found.sentence == f"needs attention: {problem.text}; next: {problem.next_command}"
    assert problem.next_command
    assert not problem.next_command.endswith("holdfast status"), "which shows this sentence"
    assert "\n" not in found.sentence
    assert not problem.text.endswith(".")


def test_the_worst_problem_comes_first_and_the_others_are_counted():
    every = {name: value for kind in BAD if kind != "no_version" for name, value in BAD[kind].items()}
    found = judge_health(dataclasses.replace(GOOD, **every))
    assert found.problems[0].kind == "tainted_champion"
    assert found.sentence.endswith(f"(and {len(found.problems) - 1} more)")


def test_some_refused_requests_are_no_reason_for_attention():
    """10 of 33,531 requests were refused, all by their callers' fault, and the page was red."""
    assert judge_health(dataclasses.replace(GOOD, requests=33_531, refused=10)).is_healthy


def test_every_problem_has_a_subject_that_lasts_as_long_as_it_does():
    """The key of an alert: text and numbers change from look to look, kind and subject do not."""
    facts = dataclasses.replace(
        GOOD,
        feeds=[
            FeedFacts("a", suspect={"1": "x", "2": "y"}, reregistered=3, refused={"3": "z"}, overdue_us=1)
        ],
        unseen_slices=["carrier = ZZ", "carrier = YY"],
        expired_drills=["rollback"],
    )
    keys = [(each.kind, each.subject) for each in judge_health(facts).problems]
    assert keys == [
        ("feed_suspect", "a/1"),
        ("feed_suspect", "a/2"),
        ("feed_suspect", "a"),
        ("feed_refusing", "a/3"),
        ("feed_overdue", "a"),
        ("unseen_slice", "carrier = ZZ"),
        ("unseen_slice", "carrier = YY"),
        ("drill_expired", "rollback"),
    ]
    later = dataclasses.replace(facts, feeds=[dataclasses.replace(facts.feeds[0], overdue_us=7_200_000_000)])
    assert [(each.kind, each.subject) for each in judge_health(later).problems] == keys


def test_a_failed_gate_of_a_version_with_traffic_is_no_problem():
    assert judge_health(dataclasses.replace(GOOD, failed_gates=FailedGates("v2"))).is_healthy
