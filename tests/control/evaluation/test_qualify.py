"""Each gate is tried on a planted bad model that it must refuse (R105), with real training and processes."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper
from sqlalchemy import insert, update

from holdfast.contract import Category, Contract, Label, Number, Text, Timestamp
from holdfast.control.evaluation import qualify as judging
from holdfast.control.evaluation.qualify import qualify
from holdfast.control.evaluation.sandbox import SandboxReport, run_sandbox
from holdfast.control.ingest.contract_changes import accept_for_callers
from holdfast.control.ingest.ingest import ingest
from holdfast.control.training.train import Trained, train
from holdfast.declaration import Model
from holdfast.errors import ConflictError, InputError, NotFoundError, RefusedError
from holdfast.features import Aggregate, Hour, Log, Ordinal, Passthrough, Weekday
from holdfast.feeds import Feed
from holdfast.qualify import Gates, GoldenQuery, Objective
from holdfast.records import Verdict, sha256_hex
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.db import schema
from holdfast.store.feeds import contracts
from holdfast.store.files import blobs, data_files
from holdfast.store.models import gate_results, versions
from holdfast.store.models.versions import VersionRow
from holdfast.train import GroupMean, LightGBM, LogisticRegression
from holdfast.train.artifact import VersionMetadata, open_version, pack_version
from tests.support.queries import read, write

pytestmark = pytest.mark.process

NOW_US = 1_400_000_000_000_000
START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS = 40
ROUTES = ("a", "b", "c")


def trips() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A trip every five minutes, late when its hour, distance and the route's recent delay demand it."""
    random = np.random.default_rng(11)
    count = DAYS * 288
    minutes = np.arange(count) * 5
    route = random.integers(0, 3, count)
    distance = random.uniform(10, 1000, count)
    disruption = np.repeat(random.normal(0, 1, (count // 48 + 1, 3)), 48, axis=0)[np.arange(count), route]
    hour = minutes // 60 % 24
    odds = -1.0 + 0.08 * (hour - 12) + 0.002 * (distance - 500) + 1.2 * disruption + 0.5 * (route == 2)
    late = random.random(count) < 1 / (1 + np.exp(-odds))
    at = [START + timedelta(minutes=int(minute)) for minute in minutes]
    rows = pl.DataFrame(
        {
            "id": [f"t{number}" for number in range(count)],
            "route": [ROUTES[place] for place in route],
            "distance": distance,
            "at": at,
            "late": late,
        }
    )
    rows = rows.with_columns(late=pl.when(pl.int_range(pl.len()) < count - 30).then("late"))
    arrivals = pl.DataFrame(
        {
            "id": rows["id"],
            "route": rows["route"],
            "known_at": at,
            "delay": disruption * 10 + random.normal(0, 3, count),
        }
    )
    return rows, arrivals


TRIPS = Feed(
    "trips",
    Contract(
        Text("id"),
        Category("route", values=ROUTES, unseen="other"),
        Number("distance", unit="km", low=0, high=2000),
        Timestamp("at", tz="UTC"),
        key="id",
        event_time="at",
        label=Label("late", delay="1h", missing="keep"),
    ),
)
ARRIVALS = Feed(
    "arrivals",
    Contract(
        Text("id"),
        Category("route", values=ROUTES, unseen="other"),
        Timestamp("known_at", tz="UTC"),
        Number("delay", unit="min"),
        key="id",
        event_time="known_at",
    ),
)
RECENT = Aggregate(
    "recent_delay",
    over="arrivals",
    by="route",
    value="delay",
    known_at="known_at",
    window="2h",
    every="10min",
)
NEAR_DAWN = {"route": "a", "distance": 20.0, "at": datetime(2013, 3, 1, 1, tzinfo=UTC), "recent_delay": -15.0}
NEAR_MIDNIGHT = {
    "route": "c",
    "distance": 990.0,
    "at": datetime(2013, 3, 1, 23, tzinfo=UTC),
    "recent_delay": 15.0,
}
MODEL = Model(
    "trip-delay",
    examples=TRIPS,
    feeds=(TRIPS, ARRIVALS),
    contract=Contract(
        Category("route", values=ROUTES, unseen="other"),
        Number("distance", unit="km", low=0, high=2000),
        Timestamp("at", tz="UTC"),
        key=("route", "at"),
        event_time="at",
        label=Label("late", delay="1h", missing="keep"),
    ),
    aggregates=(RECENT,),
    features=(Ordinal("route"), Log("distance"), Hour("at"), Passthrough("recent_delay")),
    learner=LightGBM(trees=40, leaves=15, min_rows_per_leaf=40, threads=1),
    heuristic=GroupMean(by=(Ordinal("route"), Hour("at"))),
    holdout="10d",
    objective=Objective("brier", at_most=0.2),
    golden=(
        GoldenQuery("short trip at dawn, no delays", NEAR_DAWN, between=(0.0, 0.35), owner="tests"),
        GoldenQuery("long trip at midnight, delays", NEAR_MIDNIGHT, value=0.9, tolerance=0.3, owner="tests"),
    ),
    gates=Gates(trial_seconds=20),
)


_REPORTS: dict[object, SandboxReport] = {}


def run_once(
    file: Path, digest: str, gates: Gates, *, rows: pl.DataFrame | None = None, **more: Any
) -> SandboxReport:
    """Run a version on the same rows in one process only: starting one takes longer than all that it does."""
    content = sha256_hex(file.read_bytes()) if file.exists() else None
    of_rows = None if rows is None else sha256_hex(pickle.dumps(rows.to_dict(as_series=False)))
    key = (file, content, digest, repr(gates), of_rows, repr(sorted(more.items())))
    key = key[1:] if content else key
    if key not in _REPORTS:
        _REPORTS[key] = run_sandbox(file, digest, gates, rows=rows, **more)
    return _REPORTS[key]


@pytest.fixture(scope="module", autouse=True)
def _sandboxes_run_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(judging, "run_sandbox", run_once)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str, Trained]:
    """A store with two feeds loaded, a snapshot, and one training of `MODEL`."""
    root = tmp_path_factory.mktemp("qualify")
    store = Store.open(root / "store")
    for feed, frame in zip((TRIPS, ARRIVALS), trips(), strict=True):
        source = root / f"{feed.name}.parquet"
        frame.with_columns(pl.selectors.datetime().dt.cast_time_unit("us")).write_parquet(source)
        ingest(store, feed, "all", source, now_us=NOW_US)
    snapshot = write(
        store,
        snapshots.create,
        store.root,
        ["trips", "arrivals"],
        contract_hash=MODEL.contract.hash,
        now_us=NOW_US,
    ).snapshot
    made = train(store, MODEL, snapshot, now_us=NOW_US, seed=5)
    assert set(verdicts(store, made.heuristic).values()) == {Verdict.PASS}
    return store, snapshot, made


@pytest.fixture
def store(trained: tuple[Store, str, Trained], tmp_path: Path) -> Store:
    """A copy of the trained store that a test may change."""
    return copied(trained[0], tmp_path)


@pytest.fixture(scope="module")
def crowned(trained: tuple[Store, str, Trained], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The trained store, with the good version judged and made champion."""
    store = copied(trained[0], tmp_path_factory.mktemp("crowned"))
    good = trained[2]
    assert set(verdicts(store, good.version).values()) == {Verdict.PASS}
    promote(store, good.version, good.heuristic)
    return store


@pytest.fixture
def served(crowned: Store, tmp_path: Path) -> Store:
    """A copy of the store with a champion, that a test may change."""
    return copied(crowned, tmp_path)


def copied(store: Store, directory: Path) -> Store:
    store.ledger.close()
    shutil.copytree(store.root, directory / "store")
    return Store.open(directory / "store")


def promote(store: Store, version: str, heuristic: str) -> None:
    with store.ledger.write() as connection:
        plan = {
            "model": MODEL.name,
            "champion": version,
            "share_ppm": 0,
            "shadow_ppm": 0,
            "fallback": heuristic,
            "committed_at_us": NOW_US,
        }
        connection.execute(insert(schema.traffic_plans).values(plan))


def verdicts(store: Store, version: str, model: Model = MODEL) -> dict[str, Verdict]:
    return {result.gate: result.verdict for result in qualify(store, model, version, now_us=NOW_US + 1)}


def plant(store: Store, data: bytes, about: VersionMetadata) -> VersionRow:
    """Register `data` without training."""
    digest = blobs.put(store.root, data)
    with store.ledger.write() as connection:
        return versions.register(connection, about, digest=digest, size_bytes=len(data), now_us=NOW_US)


def packed(store: Store, version: str) -> tuple[onnx.ModelProto, VersionMetadata]:
    return open_version(blobs.get(store.root, read(store, versions.get, version).digest))


def behind(
    graph: onnx.ModelProto, *nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...] = ()
) -> onnx.ModelProto:
    """`graph` with `nodes` behind it, which make `probability` from `before`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    for node in changed.graph.node:
        node.output[:] = ["before" if name == "probability" else name for name in node.output]
    changed.graph.node.extend(nodes)
    changed.graph.initializer.extend(constants)
    return changed


# --- the good one --------------------


def test_a_good_version_passes_every_gate_and_may_be_rolled_out(
    store: Store, trained: tuple[Store, str, Trained]
) -> None:
    version = trained[2].version
    assert read(store, versions.get, version).state == "registered"
    results = qualify(store, MODEL, version, now_us=NOW_US + 1)
    assert [result.gate for result in results] == [
        "load_test",
        "signature",
        "golden",
        "size",
        "baseline",
        "objective",
        "champion",
    ]
    assert {result.verdict for result in results} == {Verdict.PASS}, results
    assert "first version" in results[-1].explanation
    ahead = results[4]
    assert ahead.low is not None
    assert ahead.observed is not None
    assert 0 < ahead.low < ahead.observed
    assert read(store, versions.get, version).state == "qualified"
    assert read(store, versions.get, trained[2].heuristic).state == "qualified"
    assert read(store, gate_results.newest, version) == results
    assert qualify(store, MODEL, version, now_us=NOW_US + 9) == results  # final: judged once


def test_training_again_makes_the_same_versions(store: Store, trained: tuple[Store, str, Trained]) -> None:
    """R67, R94: same snapshot, declaration, seed and environment, same bytes."""
    _, snapshot, first = trained
    steps: list[tuple[int, int]] = []
    again = train(
        store, MODEL, snapshot, now_us=NOW_US + 7, seed=5, progress=lambda done, of: steps.append((done, of))
    )
    assert again == replace(first, is_new=False)
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1]
    other_seed = train(
        store, replace(MODEL, learner=replace(MODEL.learner, feature_share=0.5)), snapshot, now_us=NOW_US
    )
    assert other_seed.version not in (first.version, first.heuristic)
    assert other_seed.heuristic != first.heuristic  # another seed was used
    assert first.rows_unlabelled == 30
    assert (first.rows_not_due, first.rows_embargoed) == (0, 12)  # the hour before the first held-out day
    assert first.rows_trained + 12 + first.rows_held_out + sum(first.dropped.values()) == DAYS * 288 - 30


def test_the_file_reports_where_it_comes_from(trained: tuple[Store, str, Trained]) -> None:
    store, snapshot, result = trained
    graph, about = packed(store, result.version)
    assert (about.model, about.role, about.snapshot, about.seed) == ("trip-delay", "candidate", snapshot, 5)
    assert about.contract_hash == MODEL.contract.hash
    assert about.environment["python"]
    assert about.environment["lightgbm"]
    assert about.trained_before_us == round(datetime(2013, 1, 31, tzinfo=UTC).timestamp() * 1e6)
    assert pack_version(graph, about) == blobs.get(
        store.root, read(store, versions.get, result.version).digest
    )


# --- planted bad ones --------------------


def truncated(graph: onnx.ModelProto, about: VersionMetadata) -> bytes:
    data = pack_version(graph, about)
    return data[: len(data) // 2]


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def wants_float32(graph: onnx.ModelProto, about: VersionMetadata) -> bytes:
    given = helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["N"])
    made = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])
    body = helper.make_graph(
        [helper.make_node("Sigmoid", ["distance"], ["probability"])], "g", [given], [made]
    )
    return pack_version(
        helper.make_model(body, opset_imports=graph.opset_import, ir_version=graph.ir_version), about
    )


def two_outputs(graph: onnx.ModelProto, about: VersionMetadata) -> bytes:
    changed = behind(graph, helper.make_node("Identity", ["before"], ["probability"]))
    changed.graph.output.append(helper.make_tensor_value_info("before", TensorProto.FLOAT, ["N"]))
    return pack_version(changed, about)


def outside_data(graph: onnx.ModelProto, about: VersionMetadata) -> bytes:
    stolen = onnx.TensorProto(name="stolen", data_type=TensorProto.UINT8, dims=[1])
    stolen.data_location = TensorProto.EXTERNAL
    stolen.external_data.add(key="location", value="../../../../etc/passwd")
    return pack_version(
        behind(graph, helper.make_node("Identity", ["before"], ["probability"]), constants=(stolen,)), about
    )


def foreign_operator(graph: onnx.ModelProto, about: VersionMetadata) -> bytes:
    changed = behind(graph, helper.make_node("Anything", ["before"], ["probability"], domain="my.library"))
    changed.opset_import.append(helper.make_opsetid("my.library", 1))
    return pack_version(changed, about)


def endless(graph: onnx.ModelProto, about: VersionMetadata) -> bytes:
    float_ = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["N"])
    scalar = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Sigmoid", ["p"], ["p2"])],
        "body",
        [*scalar, float_],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("p2", TensorProto.FLOAT, ["N"]),
        ],
    )
    constants = (
        helper.make_tensor("trips", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("go", TensorProto.BOOL, [], [True]),
    )
    loop = helper.make_node("Loop", ["trips", "go", "before"], ["probability"], body=body)
    return pack_version(behind(graph, loop, constants=constants), about)


def glutton(graph: onnx.ModelProto, about: VersionMetadata) -> bytes:
    constants = (helper.make_tensor("many", TensorProto.INT64, [1], [10**11]),)
    nodes = (
        helper.make_node("Shape", ["before"], ["rows"]),
        helper.make_node("Mul", ["rows", "many"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["before", "nothing"], ["probability"]),
    )
    return pack_version(behind(graph, *nodes, constants=constants), about)


@pytest.mark.parametrize(
    ("gate", "spoil", "words"),
    [
        ("load_test", truncated, "refused while reading"),
        ("load_test", outside_data, "refers to external data"),
        ("load_test", foreign_operator, "needs operators of my.library"),
        ("load_test", endless, "ended it"),
        ("load_test", glutton, "refused while predicting"),
        (
            "signature",
            wants_float32,
            "the input distance tensor(float)[1] should be distance tensor(double)[1]",
        ),
        ("signature", two_outputs, "the outputs are probability tensor(float)[1], before tensor(float)[1]"),
        (
            "signature",
            lambda graph, about: pack_version(graph, replace(about, contract_hash="0" * 64)),
            "made for contract 00000000",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_that_cannot_serve_is_refused(
    store: Store,
    trained: tuple[Store, str, Trained],
    gate: str,
    spoil: Callable[[onnx.ModelProto, VersionMetadata], bytes],
    words: str,
) -> None:
    """R76, R96; reliability A2, A7, F8."""
    graph, about = packed(store, trained[2].version)
    row = plant(store, spoil(graph, about), about)
    model = replace(MODEL, gates=replace(MODEL.gates, trial_seconds=3)) if spoil is endless else MODEL
    found = {result.gate: result for result in qualify(store, model, row.version, now_us=NOW_US)}
    assert found[gate].verdict is Verdict.FAIL
    assert words in found[gate].explanation
    assert found["baseline"].verdict is Verdict.INCONCLUSIVE
    assert read(store, versions.get, row.version).state == "refused"


def test_a_pickle_is_never_opened(store: Store, trained: tuple[Store, str, Trained], tmp_path: Path) -> None:
    """Reliability A1 and A2: the canary stays untouched, with and without a head that looks like ONNX."""
    canary = tmp_path / "canary"
    _, about = packed(store, trained[2].version)
    for protocol in (0, pickle.HIGHEST_PROTOCOL):
        for head in (b"", b"\x08\x08"):
            data = head + pickle.dumps(Canary(str(canary)), protocol=protocol)
            digest = blobs.put(store.root, data)
            seen = run_sandbox(blobs.path_of(store.root, digest), digest, Gates()).trial
            assert (seen.outcome, seen.stage) == ("refused", "reading")
    row = plant(store, pickle.dumps(Canary(str(canary))), about)
    assert verdicts(store, row.version)["load_test"] is Verdict.FAIL
    assert not canary.exists()


def test_turned_responses_break_golden_queries_and_fall_behind_the_heuristic(
    store: Store, trained: tuple[Store, str, Trained]
) -> None:
    """R83, R82."""
    graph, about = packed(store, trained[2].version)
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    turned = behind(graph, helper.make_node("Sub", ["one", "before"], ["probability"]), constants=(one,))
    row = plant(store, pack_version(turned, about), about)
    found = {result.gate: result for result in qualify(store, MODEL, row.version, now_us=NOW_US)}
    assert found["load_test"].verdict is found["signature"].verdict is Verdict.PASS
    assert found["golden"].verdict is Verdict.FAIL
    assert "short trip at dawn" in found["golden"].explanation
    assert found["baseline"].verdict is Verdict.FAIL
    assert read(store, versions.get, row.version).state == "refused"


def test_a_model_that_knows_less_than_the_heuristic_is_refused(
    store: Store, trained: tuple[Store, str, Trained]
) -> None:
    """R82."""
    useless = replace(
        MODEL, aggregates=(), features=(Weekday("at"),), learner=LogisticRegression(), golden=()
    )
    result = train(store, useless, trained[1], now_us=NOW_US)
    found = verdicts(store, result.version, useless)
    assert found["baseline"] is Verdict.FAIL
    assert read(store, versions.get, result.version).state == "refused"


def test_a_model_that_is_worse_than_the_champion_is_refused(
    served: Store, trained: tuple[Store, str, Trained]
) -> None:
    """R75: it would beat the heuristic, and is no match for what answers now."""
    weaker = replace(
        MODEL, features=(Ordinal("route"), Log("distance"), Hour("at")), aggregates=(), golden=()
    )
    result = train(served, weaker, trained[1], now_us=NOW_US, seed=5)
    found = verdicts(served, result.version, replace(weaker, aggregates=MODEL.aggregates))
    assert found["baseline"] is Verdict.PASS
    assert found["champion"] is Verdict.FAIL


def test_a_model_that_equals_the_champion_passes_and_the_snapshot_is_read_once(
    served: Store, trained: tuple[Store, str, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three versions are requested the same rows: one reading of each table, one champion for all gates."""
    equal = train(
        served, replace(MODEL, learner=replace(MODEL.learner, trees=45)), trained[1], now_us=NOW_US, seed=6
    )
    qualify(served, MODEL, equal.heuristic, now_us=NOW_US)
    read: list[str] = []
    read_rows, ask = data_files.read_rows, versions.champion
    monkeypatch.setattr(data_files, "read_rows", lambda *a: [read.append(a[2]), read_rows(*a)][1])
    monkeypatch.setattr(versions, "champion", lambda *a: [read.append("champion"), ask(*a)][1])
    assert set(verdicts(served, equal.version).values()) == {Verdict.PASS}
    assert sorted(read) == ["arrivals", "champion", "trips"]


def test_each_version_predicts_with_its_own_aggregates(
    served: Store, trained: tuple[Store, str, Trained]
) -> None:
    """A candidate may mean something else by an aggregate's name than the champion does."""
    brief = replace(MODEL, aggregates=(replace(RECENT, window="20min"),))
    days = judging._HeldOut(served, brief, trained[1])
    assert not days.rows(brief.aggregates).equals(days.rows(MODEL.aggregates))
    champion = read(served, versions.get, trained[2].version)
    own = days.predictions_of(champion, packed(served, champion.version)[1])
    alone = judging._HeldOut(served, MODEL, trained[1]).predictions_of(
        champion, packed(served, champion.version)[1]
    )
    assert own is not None
    assert alone is not None
    assert np.array_equal(own.scores, alone.scores)


def with_distance(**facts: float) -> Model:
    columns = [
        replace(column, **facts) if column.name == "distance" else column
        for column in MODEL.contract.request_columns
    ]
    contract = Contract(*columns, key=("route", "at"), event_time="at", label=MODEL.contract.label)
    return replace(MODEL, contract=contract)


def test_a_contract_that_evolved_without_harm_is_judged_next_to_the_champion(
    served: Store, trained: tuple[Store, str, Trained]
) -> None:
    """R92: the challenger's contract lets more through; both answer the same held-out days."""
    changed = with_distance(high=3000)
    result = train(served, changed, trained[1], now_us=NOW_US)
    found = {result.gate: result for result in qualify(served, changed, result.version, now_us=NOW_US)}
    assert {result.verdict for result in found.values()} == {Verdict.PASS}
    assert "distance: bound widened (2000.0 -> 3000.0)" in found["signature"].explanation


def test_a_change_for_callers_is_accepted_by_a_person_or_there_is_nothing_to_accept(served: Store) -> None:
    """HF210 for what no caller can follow; what is accepted is kept with every difference."""
    with pytest.raises(NotFoundError, match="no change to accept"):
        accept_for_callers(served, MODEL, reason="x", actor="ann", now_us=NOW_US)
    with pytest.raises(RefusedError, match=r"HF210.*distance: bound narrowed"):
        accept_for_callers(served, with_distance(high=1999), reason="x", actor="ann", now_us=NOW_US)
    wider = with_distance(high=3000)
    accept_for_callers(served, wider, reason="farther", actor="ann", now_us=NOW_US)
    with served.ledger.read() as connection:
        old, new = MODEL.contract.hash, wider.contract.hash
        assert contracts.is_accepted(connection, MODEL.name, old, new)
        assert not contracts.is_accepted(connection, MODEL.name, new, old)


def test_a_changed_contract_is_refused_with_the_way_out_which_works(
    served: Store, trained: tuple[Store, str, Trained]
) -> None:
    """R94: callers of the champion would break; under a name of its own the same declaration passes."""
    changed = with_distance(high=1999)
    result = train(served, changed, trained[1], now_us=NOW_US)
    found = {result.gate: result for result in qualify(served, changed, result.version, now_us=NOW_US)}
    assert found["signature"].verdict is Verdict.FAIL
    assert "declare it under another name" in found["signature"].explanation
    assert read(served, versions.get, result.version).state == "refused"

    renamed = replace(changed, name="trip-delay-near")
    result = train(served, renamed, trained[1], now_us=NOW_US)
    assert set(verdicts(served, result.version, renamed).values()) == {Verdict.PASS}


def test_a_model_that_misses_its_objective_is_refused(
    served: Store, trained: tuple[Store, str, Trained]
) -> None:
    """R82: halved answers rank the trips as well as before and promise too little."""
    graph, about = packed(served, trained[2].version)
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    halved = behind(graph, helper.make_node("Mul", ["half", "before"], ["probability"]), constants=(half,))
    row = plant(served, pack_version(halved, about), about)
    found = {
        result.gate: result
        for result in qualify(served, replace(MODEL, golden=()), row.version, now_us=NOW_US)
    }
    assert found["baseline"].verdict is found["champion"].verdict is Verdict.PASS
    assert found["objective"].verdict is Verdict.FAIL
    assert "misses the objective: brier" in found["objective"].explanation
    assert read(served, versions.get, row.version).state == "refused"


def test_a_bloated_file_is_refused_and_growth_is_reported(
    served: Store, trained: tuple[Store, str, Trained]
) -> None:
    """R95. The size is judged of any file, so these need not even be models."""
    champion = read(served, versions.get, trained[2].version)
    about = packed(served, champion.version)[1]
    for factor, verdict in ((1.2, Verdict.PASS), (2.5, Verdict.FAIL)):
        row = plant(served, bytes(int(champion.bytes * factor)), about)
        size = next(r for r in qualify(served, MODEL, row.version, now_us=NOW_US) if r.gate == "size")
        assert size.verdict is verdict
        assert size.explanation.startswith("ALARM")


# --- not judged to the end --------------------


def test_too_few_labels_are_no_success(store: Store, trained: tuple[Store, str, Trained]) -> None:
    """No data is never a pass: the version stays registered, and may be judged again."""
    strict = replace(MODEL, gates=replace(MODEL.gates, labelled_rows=10**6))
    version = trained[2].version
    found = {result.gate: result for result in qualify(store, strict, version, now_us=NOW_US)}
    assert found["baseline"].verdict is Verdict.INCONCLUSIVE
    assert "fewer than 1000000" in found["baseline"].explanation
    assert read(store, versions.get, version).state == "registered"
    assert set(verdicts(store, version).values()) == {Verdict.PASS}


def test_a_process_that_stays_too_long_is_ended(store: Store, trained: tuple[Store, str, Trained]) -> None:
    row = read(store, versions.get, trained[2].version)
    seen = run_sandbox(blobs.path_of(store.root, row.digest), row.digest, Gates(trial_seconds=0.01)).trial
    assert seen.outcome == "timed out"
    assert not seen.loaded


def test_a_file_that_is_not_the_registered_one_is_refused(
    store: Store, trained: tuple[Store, str, Trained]
) -> None:
    """Reliability A3: one byte changed."""
    row = read(store, versions.get, trained[2].version)
    path = blobs.path_of(store.root, row.digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = qualify(store, MODEL, row.version, now_us=NOW_US)
    assert found[0].verdict is Verdict.FAIL
    assert "digest" in found[0].explanation


def judged_meanwhile(
    store: Store, heuristic: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Verdict]]:
    """Makes the heuristic unjudged, and another judge end with it while the next one still tries its file.

    What that other judge decided is in the result, once it has decided.
    """
    with store.ledger.write() as connection:
        anew = update(schema.versions).where(schema.versions.c.version == heuristic)
        connection.execute(anew.values(state="registered"))
    rival = Store.open(store.root)
    unhindered = judging.run_sandbox
    reported: dict[str, dict[str, Verdict]] = {}

    def interrupted(path: Path, digest: str, *given: object, **more: object) -> object:
        seen = unhindered(path, digest, *given, **more)
        if digest == read(rival, versions.get, heuristic).digest:
            monkeypatch.setattr(judging, "run_sandbox", unhindered)
            reported["rival"] = verdicts(rival, heuristic)
        return seen

    monkeypatch.setattr(judging, "run_sandbox", interrupted)
    return reported


def test_a_second_judge_that_comes_too_late_changes_nothing(
    store: Store, trained: tuple[Store, str, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    heuristic = trained[2].heuristic
    reported = judged_meanwhile(store, heuristic, monkeypatch)
    strict = replace(MODEL, gates=replace(MODEL.gates, size_bytes=1))  # this judge would refuse it
    with pytest.raises(ConflictError, match="another evaluation ended first"):
        qualify(store, strict, heuristic, now_us=NOW_US + 5)
    assert set(reported["rival"].values()) == {Verdict.PASS}
    assert read(store, versions.get, heuristic).state == "qualified"
    assert {
        result.gate: result.verdict for result in read(store, gate_results.newest, heuristic)
    } == reported["rival"]


def test_a_heuristic_that_another_judge_ended_first_is_no_obstacle(
    store: Store, trained: tuple[Store, str, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two candidates of one snapshot share their heuristic, and are judged at the same time."""
    row = plant(store, b"no model", packed(store, trained[2].version)[1])
    reported = judged_meanwhile(store, trained[2].heuristic, monkeypatch)
    assert verdicts(store, row.version)["load_test"] is Verdict.FAIL
    assert set(reported["rival"].values()) == {Verdict.PASS}
    assert read(store, versions.get, row.version).state == "refused"
    assert read(store, versions.get, trained[2].heuristic).state == "qualified"


def test_a_version_of_another_model_is_not_judged(store: Store, trained: tuple[Store, str, Trained]) -> None:
    with pytest.raises(NotFoundError, match="not of 'other'"):
        qualify(store, replace(MODEL, name="other"), trained[2].version, now_us=NOW_US)


def test_a_snapshot_that_is_too_short_trains_nothing(
    store: Store, trained: tuple[Store, str, Trained]
) -> None:
    before = read(store, versions.of_model, MODEL.name)
    with pytest.raises(InputError, match="no row is left to train on") as refused:
        train(store, replace(MODEL, holdout="60d"), trained[1], now_us=NOW_US)
    assert refused.value.code == "HF401"
    assert read(store, versions.of_model, MODEL.name) == before
