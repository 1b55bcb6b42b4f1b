"""What can be alerted on is in the metrics of the control loop and the page, from the first scrape on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.control.reports.metrics import LoopCounters, StatusCollector
from holdfast.control.reports.status import StatusReader
from holdfast.errors import UnavailableError
from holdfast.feeds.state_machine import State as FeedState
from holdfast.records import PROBLEMS
from holdfast.rollout import State
from holdfast.serve.inference.metrics import (
    FAILURES,
    RESULTS,
    Counters,
    ServerCollector,
    ServerFacts,
    VersionFacts,
)
from tests.support.labelled import predict
from tests.support.rollout_world import MODEL, World


def series(collector: object) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    if isinstance(collector, StatusCollector):
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        collector = registry
    text = generate_latest(collector).decode()  # type: ignore[arg-type]
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "model"}
            found.setdefault(sample.name, {})[tuple(sorted(labels.items()))] = sample.value
    return found


def test_every_known_label_value_has_a_series_from_the_start(tmp_path: Path) -> None:
    """The increase of a first failure is 0 in Prometheus if its series begins with it."""
    world = World.open(tmp_path)
    counters = LoopCounters()
    concerns = counters.count({"probing": lambda *_args, **_kwargs: 1 / 0})
    reader = StatusReader(world.store, MODEL)
    collector = StatusCollector(MODEL, lambda: reader.read(now_us=world.now_us), counters)
    found = series(collector)
    assert {labels[0][1]: value for labels, value in found["holdfast_problem"].items()} == {
        kind: float(kind == "no_version") for kind in PROBLEMS
    }
    assert set(found["holdfast_rollout_state"].values()) == {0.0}
    assert len(found["holdfast_rollout_state"]) == len(State)
    assert found["holdfast_control_failures_total"] == {(("concern", "probing"),): 0.0}
    with pytest.raises(ZeroDivisionError):
        concerns["probing"](world.store, MODEL, world.lease, now_us=world.now_us)
    concerns["counting the round"](world.store, MODEL, world.lease, now_us=world.now_us)
    found = series(collector)
    assert found["holdfast_control_failures_total"] == {(("concern", "probing"),): 1.0}
    assert found["holdfast_control_round_timestamp_seconds"] == {(): world.now_us / 1e6}


def test_a_rollout_and_a_champion_are_series(tmp_path: Path) -> None:
    world = World.open(tmp_path)
    champion = world.add_version()
    world.promote(champion)
    world.begin(world.add_version())
    reader = StatusReader(world.store, MODEL)
    found = series(StatusCollector(MODEL, lambda: reader.read(now_us=world.now_us)))
    assert found["holdfast_rollout_state"][("state", "pending"),] == 1.0
    assert found["holdfast_predictions"][("place", "champion"), ("version", champion)] == 0.0
    assert found["holdfast_champion_tainted"] == {(): 0.0}
    assert found["holdfast_ledger_up"] == {(): 1.0}
    assert len(FeedState) == 3


def test_a_version_that_serves_no_longer_has_its_quality_in_the_window(tmp_path: Path) -> None:
    """Labels that take weeks come when the version that predicted has been replaced."""
    world = World.open(tmp_path)
    before, between, champion = (world.add_version() for _ in range(3))
    world.promote(before)
    for number in range(40):
        predict(world.store, number, world.now_us, world.now_us, version=before)
    world.promote(between)
    world.promote(champion)
    reader = StatusReader(world.store, MODEL)
    found = series(StatusCollector(MODEL, lambda: reader.read(now_us=world.now_us)))
    places = {
        dict(labels)["version"]: dict(labels)["place"] for labels in found["holdfast_labelled_predictions"]
    }
    assert (places[before], places[between], places[champion]) == ("", "previous", "champion")
    assert [dict(labels)["version"] for labels in found["holdfast_auc"]] == [before]


def test_a_ledger_that_cannot_be_read_is_a_metric() -> None:
    def fail() -> None:
        raise UnavailableError("HF302", "it is away")

    assert series(StatusCollector(MODEL, fail))["holdfast_ledger_up"] == {(): 0.0}  # type: ignore[arg-type]


def test_a_server_has_every_series_before_its_first_request() -> None:
    contract = SimpleNamespace(request_columns=(), rules=(), hash="c")
    facts = SimpleNamespace(features_hash="f", snapshot="s", learner="l")
    loaded = [
        SimpleNamespace(name=name, contract=contract, facts=facts, created_at_us=0, words={"town": ("oslo",)})
        for name in ("v1", "v2", "v3")
    ]
    roles = ("champion", "challenger", "shadow")
    versions = tuple(VersionFacts(each, role, 0.0) for each, role in zip(loaded, roles, strict=True))  # type: ignore[arg-type]
    found = series(ServerCollector(ServerFacts(MODEL, 1.0, {}, versions), Counters()))
    results = found["holdfast_requests_total"]
    assert set(results.values()) == {0.0}
    assert len(results) == 2 * len(RESULTS), "a shadow answers nothing"
    assert len(found["holdfast_challenger_failures_total"]) == len(FAILURES)
    assert found["holdfast_contract_violations_total"] == {(("reason", "*|extra"),): 0.0}
    assert found["holdfast_request_duration_seconds_count"][("arm", "champion"), ("version", "v1")] == 0.0
    assert found["holdfast_shadow_dropped_total"] == {(("version", "v3"),): 0.0}
    assert len(found["holdfast_unseen_words_total"]) == 2
