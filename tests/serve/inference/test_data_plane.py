"""What a request is charged for when it is answered together with others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.contract import Category, Contract, Number, Rule, col
from holdfast.contract.schema.units import is_loaded, load_definitions
from holdfast.control.collect.log_summary import Baking, LogContext, summarise
from holdfast.errors import UnavailableError
from holdfast.records import TrafficPlan, sha256_hex
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall, Outcome
from holdfast.serve.inference.loaded_model import load
from holdfast.serve.protocol.oip import RequestError
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, read
from tests.support.serving_world import CONTRACT, MODEL, Served, packed, row, tensors

Start = Callable[..., Served]
PER_ROW_SECONDS = 0.002
WAITED_SECONDS = 0.5


class Slow:
    """A session that takes its time for each row, and waits besides for a processor that others have."""

    def run(self, _outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        rows = len(feed["distance"])
        time.sleep(WAITED_SECONDS)
        until = time.thread_time() + PER_ROW_SECONDS * rows
        while time.thread_time() < until:
            pass
        return [np.full(rows, 0.5, np.float32)]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    data = packed("half")
    version = load("v1-0", sha256_hex(data), data, created_at_us=1)
    log = LogWriter(tmp_path, "s1", MODEL)
    made = DataPlane(MODEL, log, lambda: 1)
    plan = TrafficPlan(MODEL, 1, "v1-0", None, 0, None, None, None)
    made.active = ActivePlan.of(plan, {"v1-0": replace(version, session=Slow())})
    yield made
    log.close()


def test_a_request_is_charged_for_its_own_rows(plane: DataPlane, tmp_path: Path) -> None:
    """Or an arm with small batches would look faster than one whose requests share theirs, or slower on a busy machine."""
    sizes = (1, 20, 1)
    calls = [
        InferenceCall(json.dumps(tensors([row()] * size)).encode(), None, None, time.perf_counter())
        for size in sizes
    ]
    assert all(isinstance(outcome, tuple) for outcome in plane.infer(calls))
    [(_, path)] = segments(tmp_path)
    records, _ = read(path)
    charged = [record.latency_us / 1e6 for record in records if isinstance(record, PredictionRecord)]
    for seconds, size in zip(charged, sizes, strict=True):
        assert PER_ROW_SECONDS * size <= seconds < PER_ROW_SECONDS * (size + 4)


# --- versions of several contracts (R92) ------------------------------------------------------------------------------


def changed(**distance: Any) -> Contract:
    columns = [
        replace(each, **distance) if each.name == "distance" else each for each in CONTRACT.request_columns
    ]
    return Contract(*columns, key="flight_id", event_time="scheduled", label=CONTRACT.label)


def grown() -> Contract:
    return Contract(
        Number("wind", unit="m/s", missing="keep"),
        *CONTRACT.request_columns, key="flight_id", event_time="scheduled", label=CONTRACT.label,
    )  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., DataPlane]]:
    """A plane that follows a plan with versions "old" (the contract), "new" (the given one), and records roles."""
    log = LogWriter(tmp_path, "s1", MODEL)

    def start(
        new: Contract, champion: str, challenger: str | None = None, previous: str | None = None
    ) -> DataPlane:
        data = {"old": packed("half"), "new": packed("tenth", new)}
        loaded = {name: load(name, sha256_hex(file), file, created_at_us=1) for name, file in data.items()}
        plan = TrafficPlan(MODEL, 1, champion, challenger, 1_000_000 if challenger else 0, previous, None, 1)
        plane = DataPlane(MODEL, log, lambda: 1)
        plane.active = ActivePlan.of(plan, {name: loaded[name] for name in plan.versions()})
        return plane

    yield start
    log.close()


def requested(plane: DataPlane, request: dict[str, Any], pinned: str | None = None) -> str:
    """Which version predicted one row, or the code of the refusal."""
    [outcome] = plane.infer(
        [InferenceCall(json.dumps(tensors([request])).encode(), None, pinned, time.perf_counter())]
    )
    return outcome[0].version if isinstance(outcome, tuple) else outcome.code


def infer(plane: DataPlane, *requests: dict[str, Any], unit: str | None = None) -> list[Outcome]:
    """The outcomes of requests of one row that arrive together; `unit` is what they state of the column "wind"."""
    calls = []
    for request in requests:
        body = tensors([request])
        for each in body["inputs"]:
            if unit and each["name"] == "wind":
                each["parameters"] = {"unit": unit}
        calls.append(InferenceCall(json.dumps(body).encode(), None, None, time.perf_counter()))
    return plane.infer(calls)


def logged(tmp_path: Path) -> list[PredictionRecord]:
    [(_, path)] = segments(tmp_path)
    return [record for record in read(path)[0] if isinstance(record, PredictionRecord)]


def test_a_challenger_with_a_wider_contract_predicts_what_the_champions_callers_send(
    served: Callable[..., DataPlane],
) -> None:
    plane = served(changed(high=9000), "old", "new")
    assert requested(plane, row()) == "new"
    assert requested(plane, row(distance=8000.0)) == "HF502", (
        "the champion's contract is the callers' until the promotion"
    )
    assert requested(plane, row(distance=8000.0), pinned="new") == "new", (
        "a request that names a version is checked by that version's contract"
    )
    assert requested(plane, row(distance=8000.0), pinned="old") == "HF502"


def test_a_row_that_only_the_new_contract_lets_through_is_not_given_to_the_previous_version(
    served: Callable[..., DataPlane],
) -> None:
    """The champion fails, and the fallback is a version of the older, narrower contract."""
    plane = served(changed(high=9000), "new", previous="old")
    assert plane.active is not None
    broken = {**plane.active.versions, "new": replace(plane.active.versions["new"], session=None)}
    plane.active = replace(plane.active, versions=broken)
    assert requested(plane, row()) == "old"
    assert requested(plane, row(distance=8000.0)) == "HF503"


def test_a_challenger_that_refuses_what_callers_send_has_failed(served: Callable[..., DataPlane]) -> None:
    """Such a rollout does not begin; were it begun, the champion would answer and the failure be counted."""
    plane = served(changed(high=1000), "old", "new")
    assert requested(plane, row(distance=2000.0)) == "old"
    assert plane.counters.challenger_failures["new", "contract"] == 1


def test_a_bad_value_of_a_new_column_is_the_callers_and_not_a_failure_of_the_challenger(
    served: Callable[..., DataPlane], tmp_path: Path
) -> None:
    """R122: a caller that sends 500 of at most 100 rolled a good version back; on either arm it gets HTTP 400."""
    new = Contract(
        Number("dist", unit="km", high=100, missing="keep"), *changed(high=900).request_columns,
        Number("taxied", unit="mi", missing="keep"), rules=(Rule("short", col("taxied") < col("distance")),),
        key="flight_id", event_time="scheduled", label=CONTRACT.label,
    )  # fmt: skip
    plane = served(new, "old", "new")
    assert plane.active is not None
    assert requested(plane, row(dist=50.0)) == "new"
    [bad] = infer(plane, row(dist=500.0, distance=2000.0))
    assert isinstance(bad, RequestError)
    assert (bad.code, [reason.partition(" (")[0] for reason in bad.reasons]) == (
        "HF502",
        ["row 0: dist|range"],
    )
    assert requested(plane, row(taxied=600.0)) == "HF502", "a rule that reads a new column"
    plane.active = replace(plane.active, plan=replace(plane.active.plan, share_ppm=0))
    assert requested(plane, row(dist=500.0)) == "HF502"
    assert requested(plane, row(dist=500.0), pinned="old") == "old"
    assert not plane.counters.challenger_failures
    groups = summarise(logged(tmp_path), LogContext()).requests
    assert [each.failed for group in groups for each in group.requests] == [False]


def test_a_unit_that_is_not_loaded_yet_is_the_fate_of_its_request_alone(
    served: Callable[..., DataPlane],
) -> None:
    """R122: the whole batch got HTTP 503."""
    for champion, challenger, previous in (("old", "new", None), ("old", None, "new")):
        plane = served(grown(), champion, challenger, previous)
        assert plane.active is not None
        if previous:  # only the fallback reads the column
            broken = {**plane.active.versions, "old": replace(plane.active.versions["old"], session=None)}
            plane.active = replace(plane.active, versions=broken)
        load_definitions.cache_clear()
        good, bad = infer(plane, row(), row(wind=3.0), unit="km/h")
        assert isinstance(good, tuple)
        assert good[0].version == "new"
        assert isinstance(bad, UnavailableError)
        assert not plane.counters.challenger_failures
        while not is_loaded():
            time.sleep(0.01)


def test_a_shadow_gets_no_copy_with_a_bad_value_of_a_column_that_only_the_shadow_has(
    served: Callable[..., DataPlane],
) -> None:
    plane = served(grown(), "old", "new")
    assert plane.active is not None
    plan = replace(plane.active.plan, challenger=None, share_ppm=0, shadow="new", shadow_ppm=1_000_000)
    plane.active = replace(plane.active, plan=plan)
    offered: list[object] = []
    thread: Any = SimpleNamespace(offer=offered.append, set_target=lambda _: None)
    plane.shadow = thread
    for wind, copies in ((3.0, 1), ("calm", 1), (4.0, 2)):
        assert requested(plane, row(wind=wind)) == "old", "a shadow refuses no request"
        plane.mirror()
        assert len(offered) == copies


def test_a_request_that_names_a_version_is_never_held_against_the_champion(
    served: Callable[..., DataPlane], tmp_path: Path
) -> None:
    """Or a caller that names a broken version, again and again, would roll back a baking champion (R117)."""
    plane = served(changed(low=50), "new", previous="old")
    assert plane.active is not None
    broken = {**plane.active.versions, "old": replace(plane.active.versions["old"], session=None)}
    plane.active = replace(plane.active, versions=broken)
    assert requested(plane, row(), pinned="old") == "HF503"
    assert requested(plane, row(distance=8000.0), pinned="old") == "HF502"
    assert requested(plane, row()) == "new"
    records = logged(tmp_path)
    assert [(each.version, each.arm, each.result) for each in records] == [
        ("old", "fallback", "unavailable"),
        ("old", "fallback", "contract"),
        ("new", "champion", "ok"),
    ]
    observed = summarise(records, LogContext(baking=Baking(3, "new", 0)))
    assert [[each.failed for each in group.requests] for group in observed.requests] == [[False]]


def test_the_log_holds_rows_in_the_order_of_the_contract_that_predicted(
    served: Callable[..., DataPlane], tmp_path: Path
) -> None:
    plane = served(grown(), "old", "new")
    assert requested(plane, row()) == "new"
    [record] = logged(tmp_path)
    assert [record.inputs[0][0], record.inputs[0][1]] == [None, row()["flight_id"]]


WITH_NOTE = Contract(
    *(column for column in CONTRACT.columns if column is not CONTRACT.label),
    Category("note", values=("fragile", "heavy"), unseen="reject", missing="keep"),
    key=CONTRACT.key,
    event_time=CONTRACT.event_time,
    label=CONTRACT.label,
)


def outcome(plane: DataPlane, **changes: Any) -> Any:
    request = tensors([row(**changes)])
    for each in request["inputs"]:
        each["datatype"] = "BYTES" if each["name"] in ("note", "never") else each["datatype"]
    (found,) = plane.infer([InferenceCall(json.dumps(request).encode(), None, None, time.perf_counter())])
    return found


def test_a_new_column_is_accepted_while_the_challengers_contract_has_it_and_after_its_rollback(
    plane: DataPlane, tmp_path: Path
) -> None:
    """R122: 300 of 300 callers got a 400 before the promotion, and again after the rollback; the canary got no value."""
    old, new = packed("half"), packed("tenth", WITH_NOTE)
    versions = {
        "v1-0": load("v1-0", sha256_hex(old), old, created_at_us=1),
        "v2-0": load("v2-0", sha256_hex(new), new, created_at_us=1),
    }
    alone = TrafficPlan(MODEL, 1, "v1-0", None, 0, None, None, None)
    plane.active = ActivePlan.of(alone, {"v1-0": versions["v1-0"]})
    assert isinstance(outcome(plane, note="fragile"), RequestError)
    canary = replace(alone, plan_id=2, challenger="v2-0", share_ppm=500_000, rollout_id=1)
    plane.active = ActivePlan.of(canary, versions, plane.active)
    responding = {outcome(plane, note="fragile")[0].version for _ in range(40)}
    assert responding == {"v1-0", "v2-0"}
    # The challenger's contract checks its values, on both arms: a word that it rejects is the caller's fault.
    assert {outcome(plane, note="on fire").code for _ in range(40)} == {"HF502"}
    assert not plane.counters.challenger_failures
    plane.active = back = ActivePlan.of(replace(alone, plan_id=3), {"v1-0": versions["v1-0"]}, plane.active)
    assert outcome(plane, note="fragile")[0].version == "v1-0"
    assert isinstance(outcome(plane, never="x"), RequestError)  # a column that no version ever had
    # A server that starts after the rollback takes it from its local copy, or from the ledger.
    plane.active = ActivePlan.of(alone, {"v1-0": versions["v1-0"]}, None, back.inputs)
    assert outcome(plane, note="fragile")[0].version == "v1-0"
    notes = {each.inputs[0][-1] for each in logged(tmp_path) if each.version == "v2-0"}
    assert notes == {"fragile"}


def test_rows_with_a_word_that_the_model_has_no_code_for_are_counted_by_column(
    served: Callable[..., DataPlane],
) -> None:
    """R25: at serving they were counted nowhere, and predicted as any other unknown word."""
    columns = [
        Category("carrier", values=("AA", "UA", "B6"), missing="keep") if each.name == "carrier" else each
        for each in CONTRACT.request_columns
    ]
    plane = served(Contract(*columns, key="flight_id", event_time="scheduled"), "new")
    for carriers in (["AA"], ["ZZ"], ["ZZ", "UA", None, "YY", "B6"]):
        body = json.dumps(tensors([row(carrier=word) for word in carriers])).encode()
        [outcome] = plane.infer([InferenceCall(body, None, None, time.perf_counter())])
        assert isinstance(outcome, tuple), outcome
    assert plane.counters.unseen_words == {("new", "carrier"): 3}


@pytest.mark.parametrize("share_ppm", [0, 1_000_000])
def test_a_column_in_another_unit_that_a_request_leaves_out_is_missing(
    served: Callable[..., DataPlane], share_ppm: int
) -> None:
    """Found by the fuzzer: the unit of the champion was looked for in a column that was not sent."""
    new = Contract(
        Number("wind", unit="m/s", missing="keep"), *changed(unit="km", high=9700).request_columns,
        key="flight_id", event_time="scheduled", label=CONTRACT.label,
    )  # fmt: skip
    load_definitions()
    plane = served(new, "old", "new")
    assert plane.active is not None
    plane.active = replace(plane.active, plan=replace(plane.active.plan, share_ppm=share_ppm))
    without = row(distance=..., wind=1.5)
    assert requested(plane, without) == ("new" if share_ppm else "old")
    assert not plane.errors.by_step
    assert not plane.counters.challenger_failures
