"""Versions and their verdicts: one row per file, numbers that grow, one transaction per judgement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError as BrokenRule

from holdfast.errors import ConflictError, NotFoundError
from holdfast.qualify import GateResult
from holdfast.records import Verdict, sha256_hex
from holdfast.store import Store
from holdfast.store.catalog import name_lookup
from holdfast.store.db import events, schema
from holdfast.store.models import gate_results, versions
from holdfast.store.models.versions import VersionRow
from holdfast.train.artifact import VersionMetadata
from tests.support.queries import read

pytestmark = pytest.mark.usefixtures("each_ledger")

ABOUT = VersionMetadata(
    model="flights",
    role="candidate",
    contract_json="{}",
    contract_hash="c" * 64,
    features_json="{}",
    features_hash="f" * 64,
    aggregates_json="[]",
    snapshot="s1",
    learner="group_mean",
    parameters={},
    seed=0,
    environment={},
    rows=100,
    trained_before_us=0,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "store")
    with store.ledger.write() as connection:
        connection.execute(
            insert(schema.table_versions).values(table_version=1, committed_at_us=0, reason="load")
        )
        for name in ("s1", "s2"):
            row = {"snapshot": name, "table_version": 1, "contract_hash": "c" * 64, "created_at_us": 0}
            connection.execute(insert(schema.snapshots).values(row))
    return store


def register(store: Store, content: str, about: VersionMetadata = ABOUT) -> VersionRow:
    with store.ledger.write() as connection:
        return versions.register(
            connection, about, digest=sha256_hex(content), size_bytes=len(content), now_us=5
        )


def test_the_same_file_is_the_same_version(store: Store) -> None:
    first, again = register(store, "a"), register(store, "a")
    assert first == again == read(store, versions.get, first.version)
    assert first.version == f"v1-{sha256_hex('a')[:8]}"
    with store.ledger.read() as connection:
        assert len(events.newest(connection, subject=first.version)) == 1


def test_numbers_count_per_model(store: Store) -> None:
    names = [
        register(store, text, replace(ABOUT, model=model)).number
        for text, model in zip("abc", "xxy", strict=True)
    ]
    assert names == [1, 2, 1]
    assert [row.number for row in read(store, versions.of_model, "x")] == [2, 1]


def test_a_number_names_a_version_the_models_own_first(store: Store) -> None:
    mine = [register(store, text).version for text in "abcdefghijkl"]
    other = register(store, "other", replace(ABOUT, model="other")).version
    assert read(store, name_lookup.version, "v1", "flights") == mine[0]
    assert read(store, name_lookup.version, "v12") == mine[11]
    assert read(store, name_lookup.version, mine[1][:-3], "other") == mine[1]
    assert read(store, name_lookup.version, "v1", "other") == other
    assert read(store, name_lookup.version, other, "flights") == other
    with pytest.raises(NotFoundError, match=f"HF314: 'v1' may be .*{other}.*more of the name"):
        read(store, name_lookup.version, "v1")
    with pytest.raises(NotFoundError, match="there is no version 'v77'"):
        read(store, versions.get, read(store, name_lookup.version, "v77"))


def test_newest_by_role_and_state(store: Store) -> None:
    candidate = register(store, "a")
    heuristic = register(store, "b", replace(ABOUT, role="heuristic"))
    other = register(store, "c", replace(ABOUT, role="heuristic", snapshot="s2"))
    assert read(store, versions.newest, "flights", role="candidate") == candidate
    assert read(store, versions.newest, "flights", role="heuristic") == other
    assert read(store, versions.heuristic_of, candidate) == heuristic
    with pytest.raises(NotFoundError, match="no qualified candidate"):
        read(store, versions.newest, "flights", role="candidate", state="qualified")
    with pytest.raises(NotFoundError, match="no heuristic of the snapshot"):
        read(store, versions.heuristic_of, replace(candidate, snapshot="s3"))
    with pytest.raises(NotFoundError, match="no version 'v9'"):
        read(store, versions.get, "v9")


def test_the_champion_is_what_the_newest_plan_declares(store: Store) -> None:
    first, second = register(store, "a"), register(store, "b")
    assert read(store, versions.champion, "flights") is None
    for row in (first, second):
        plan = {
            "model": "flights",
            "champion": row.version,
            "share_ppm": 0,
            "shadow_ppm": 0,
            "committed_at_us": 0,
        }
        with store.ledger.write() as connection:
            connection.execute(insert(schema.traffic_plans).values(plan))
    assert read(store, versions.champion, "flights") == second
    assert read(store, versions.champion, "other") is None


def test_a_state_is_set_once(store: Store) -> None:
    row = register(store, "a")
    with store.ledger.write() as connection:
        versions.set_state(connection, row.version, "qualified", before="registered")
    with pytest.raises(ConflictError) as late, store.ledger.write() as connection:
        versions.set_state(connection, row.version, "refused", before="registered")
    assert late.value.code == "HF304"
    assert read(store, versions.get, row.version).state == "qualified"


def test_a_version_of_an_unknown_snapshot_is_refused_by_the_ledger(store: Store) -> None:
    with pytest.raises(BrokenRule):
        register(store, "a", replace(ABOUT, snapshot="nowhere"))


def test_verdicts_are_kept_and_the_newest_judgement_is_reported(store: Store) -> None:
    row = register(store, "a")
    unsure: list[GateResult] = [GateResult("baseline", Verdict.INCONCLUSIVE, "few")]
    sure = [
        GateResult("loads", Verdict.PASS, "ok", observed=0.1, bound=1.0),
        GateResult("baseline", Verdict.PASS, "ok", low=0.01),
    ]
    assert read(store, gate_results.newest, row.version) == []
    for timestamp, results in ((1, unsure), (2, sure)):
        with store.ledger.write() as connection:
            gate_results.append(connection, row.version, results, now_us=timestamp)
    assert read(store, gate_results.newest, row.version) == sure
