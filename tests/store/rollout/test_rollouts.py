"""What the ledger itself refuses, whatever the code above it does."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError as Refused

from holdfast.errors import ConflictError, NotFoundError
from holdfast.records import TrafficPlan
from holdfast.rollout import Canary, begin, begin_step
from holdfast.store import Store
from holdfast.store.db import schema
from holdfast.store.rollout import evidence, rollouts, traffic_plans
from tests.support.queries import read

pytestmark = pytest.mark.usefixtures("each_ledger")

MODEL = {"model": "m", "policy": Canary().to_json(), "reason": "r", "actor": "a", "now_us": 5}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path)
    with store.ledger.write() as connection:
        connection.execute(insert(schema.table_versions).values(committed_at_us=1, reason="t"))
        connection.execute(
            insert(schema.snapshots).values(snapshot="s", table_version=1, contract_hash="c", created_at_us=1)
        )
        for number, name in enumerate(("v1", "v2"), start=1):
            connection.execute(
                insert(schema.versions).values(
                    version=name, model="m", number=number, digest=name, bytes=1, snapshot="s",
                    contract_hash="c", features_hash="f", learner="l", role="candidate",
                    state="qualified", created_at_us=1,
                )
            )  # fmt: skip
    return store


def test_one_rollout_of_a_model_is_under_way(store: Store) -> None:
    with store.ledger.write() as connection:
        rollouts.insert_pending(connection, challenger="v2", champion="v1", **MODEL)
    with pytest.raises(ConflictError, match="HF404"), store.ledger.write() as connection:
        rollouts.insert_pending(connection, challenger="v1", champion=None, **MODEL)
    assert len(read(store, rollouts.of_model, "m")) == 1


def test_a_state_that_does_not_exist_cannot_be_written(store: Store) -> None:
    with store.ledger.write() as connection:
        rollouts.insert_pending(connection, challenger="v2", champion="v1", **MODEL)
    with pytest.raises(Refused), store.ledger.write() as connection:
        connection.execute(update(schema.rollouts).values(state="half done"))


def test_evidence_comes_back_as_it_was_written(store: Store) -> None:
    states = begin_step(begin(Canary(), 0.02))
    with store.ledger.write() as connection:
        number = rollouts.insert_pending(connection, challenger="v2", champion="v1", **MODEL)
        evidence.begin(connection, number, states, now_us=5)
    assert read(store, evidence.of_rollout, number) == states


@pytest.mark.parametrize(
    "wrong",
    [
        {"champion": "v1", "challenger": "v1", "share_ppm": 1},
        {"champion": "v1", "challenger": "v2", "share_ppm": 1_000_001},
        {"champion": "v1", "share_ppm": 1},
        {"champion": "absent"},
    ],
)
def test_a_plan_that_means_nothing_is_refused(store: Store, wrong: dict[str, object]) -> None:
    with pytest.raises(Refused), store.ledger.write() as connection:
        traffic_plans.append(connection, TrafficPlan("m", 0, **wrong), now_us=5)
    assert read(store, traffic_plans.newest, "m") is None


def test_the_newest_plan_of_a_model_counts_and_plans_only_grow(store: Store) -> None:
    with store.ledger.write() as connection:
        first = traffic_plans.append(connection, TrafficPlan("m", 0, "v1"), now_us=5)
        second = traffic_plans.append(connection, TrafficPlan("m", 0, "v2", previous="v1"), now_us=6)
        traffic_plans.append(connection, TrafficPlan("other", 0, "v1"), now_us=7)
    found = read(store, traffic_plans.newest_committed, "m")
    assert found is not None
    assert second > first
    assert (found.plan.plan_id, found.plan.champion, found.committed_at_us) == (second, "v2", 6)


def test_what_is_not_there_is_reported_to_be_missing(store: Store) -> None:
    for find, code in (
        (lambda: read(store, rollouts.get, 9), "HF303"),
        (lambda: read(store, rollouts.newest, "m"), "HF410"),
    ):
        with pytest.raises(NotFoundError, match=code):
            find()
