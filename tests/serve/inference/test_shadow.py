"""A shadow may do what it likes: what it gets, what is kept of it, and that no caller notices (R111)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.records import TrafficPlan, sha256_hex
from holdfast.serve.inference.active_plan import ActivePlan
from holdfast.serve.inference.data_plane import DataPlane, InferenceCall
from holdfast.serve.inference.loaded_model import LoadedVersion, load
from holdfast.serve.inference.shadow import ShadowThread
from holdfast.store.serving.log_directory import segments
from holdfast.store.serving.log_writer import LogWriter
from holdfast.store.serving.prediction_log import PredictionRecord, ShadowRecord, read
from tests.support.serving_world import MODEL, RECENT, START, US, packed, row, tensors
from tests.support.waiting import wait_until

KINDS = ("half", "tenth", "delay", "nan", "above")


class Session:
    """A session that does what the test reports before it answers."""

    def __init__(self, does: Callable[[], object], value: float = 0.5) -> None:
        self._does = does
        self._value = value

    def run(self, _outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        self._does()
        return [np.full(len(feed["distance"]), self._value, np.float32)]


def loaded(kind: str) -> LoadedVersion:
    data = packed(kind)
    return load(kind, sha256_hex(data), data, created_at_us=1)


VERSIONS = {kind: loaded(kind) for kind in KINDS}


class Server:
    """A plane with a shadow, without a socket."""

    def __init__(self, root: Path) -> None:
        self.log = LogWriter(root, "s1", MODEL)
        self.plane = DataPlane(MODEL, self.log, lambda: 1_700_000_000_000_000)
        self.root = root

    def shadow(self, version: LoadedVersion, share_ppm: int = 1_000_000, **options: Any) -> ShadowThread:
        thread = self.plane.shadow = ShadowThread(lambda: None, lambda: 1_700_000_000_000_000, **options)
        self.serve(version, share_ppm)
        return thread

    def serve(
        self,
        version: LoadedVersion | None,
        share_ppm: int = 1_000_000,
        champion: str = "half",
        rollout: int = 7,
    ) -> None:
        name = None if version is None else version.name
        plan = TrafficPlan(MODEL, 1, champion, None, 0, None, None, rollout, name, share_ppm)
        versions = {champion: VERSIONS[champion]} | ({} if version is None else {version.name: version})
        self.plane.active = ActivePlan.of(plan, versions)

    def ask(
        self, request: dict[str, Any] | None = None, unit: str | None = None, rows: int = 1
    ) -> list[float]:
        body = {**tensors([request or row()] * rows), "parameters": {"unit": unit} if unit else {}}
        call = InferenceCall(json.dumps(body).encode(), None, None, time.perf_counter())
        [outcome] = self.plane.infer([call])
        self.plane.mirror()
        assert isinstance(outcome, tuple), outcome
        return [float(each) for each in outcome[0].probabilities]

    def kept(self, many: int) -> list[ShadowRecord]:
        """The shadow records of the log once there are `many`."""
        return wait_until(lambda: found if len(found := self._shadowed()) >= many else None, f"{many} pairs")

    def _shadowed(self) -> list[ShadowRecord]:
        self.plane.log_shadow_records()
        return [record for record in self.logged() if isinstance(record, ShadowRecord)]

    def logged(self) -> list[Any]:
        return [record for _, path in segments(self.root) for record in read(path)[0]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    if made.plane.shadow is not None:
        made.plane.shadow.stop()
    made.log.close()


def test_each_pair_is_one_record_with_both_sides(server: Server) -> None:
    server.shadow(VERSIONS["tenth"])
    assert server.ask(rows=2) == [0.5, 0.5]
    [pair] = server.kept(1)
    [response] = [record for record in server.logged() if isinstance(record, PredictionRecord)]
    assert (pair.id, pair.unit, pair.rollout) == (response.id, response.unit, 7)
    assert (pair.version, pair.result, pair.probabilities) == ("tenth", "ok", [pytest.approx(0.1)] * 2)
    assert (pair.champion, pair.champion_result) == ("half", "ok")
    assert (pair.champion_latency_us, pair.champion_probabilities) == (response.latency_us, [0.5, 0.5])
    assert pair.latency_us > 0
    assert pair.champion_rerun_us is not None


def test_the_user_gets_the_champions_bytes_with_and_without_a_shadow(server: Server) -> None:
    requests = [row(flight_id=f"F{number}", distance=number * 40.0) for number in range(50)]
    alone = Server(server.root.parent / "alone")
    alone.serve(None)
    server.shadow(VERSIONS["delay"])
    assert [server.ask(each) for each in requests] == [alone.ask(each) for each in requests]
    alone.log.close()


def test_units_are_copied_as_often_as_the_plan_declares_and_always_the_same_ones(server: Server) -> None:
    """By another salt than the canary's: the copied units are not the moved ones."""
    server.shadow(VERSIONS["tenth"], share_ppm=300_000)
    units = [f"u{number}" for number in range(300)]
    for unit in (*units, *units):
        server.ask(unit=unit)
    time.sleep(0.1)
    found = server.kept(2)
    wait_until(lambda: server.plane.shadow is None or not server.plane.shadow.queue_length, "nothing waits")
    time.sleep(0.05)
    found = server.kept(2)
    copied = [record.unit for record in found]
    assert 60 <= len(set(copied)) <= 120
    assert len(copied) == 2 * len(set(copied))
    assert server.plane.active is not None
    assert server.plane.active.salt != server.plane.active.shadow_salt


def test_shadow_and_champion_see_the_same_aggregates(server: Server) -> None:
    """A value of the same time that came after the answer is not the shadow's to know."""
    timestamp = int(START.timestamp()) * US
    table = server.plane.table
    table.add(RECENT.key, "EWR", timestamp, 30.0)
    gate = threading.Event()
    champion = VERSIONS["delay"]
    waiting = replace(champion, name="copy", session=_Gated(champion.session, gate))
    server.shadow(waiting)
    server.serve(waiting, champion="delay")
    response = server.ask(row(scheduled="2013-03-01T07:30:00-05:00"))
    assert response == [pytest.approx(0.3)]
    server.ask(row(scheduled="2013-03-01T07:30:00-05:00"))  # waits while the first is held
    table.add(RECENT.key, "EWR", timestamp + US, 90.0)
    gate.set()
    for pair in server.kept(2):
        assert pair.probabilities == [pytest.approx(0.3)] == pair.champion_probabilities


class _Gated:
    def __init__(self, session: Any, gate: threading.Event) -> None:
        self._session = session
        self._gate = gate

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> Any:
        self._gate.wait(10)
        return self._session.run(outputs, feed)


def test_what_a_shadow_cannot_do_is_its_failure_alone(server: Server) -> None:
    def broken() -> None:
        raise RuntimeError

    cases = [
        (VERSIONS["nan"], "not_finite"),
        (VERSIONS["above"], "not_a_probability"),
        (replace(VERSIONS["tenth"], name="raises", session=Session(broken)), "exception"),
        (replace(VERSIONS["tenth"], name="negative", session=Session(int, -0.5)), "not_a_probability"),
    ]
    server.shadow(VERSIONS["tenth"])
    for number, (version, kind) in enumerate(cases, 1):
        server.serve(version)
        assert server.ask(row(distance=5500.0)) == [0.5]
        assert (server.kept(number)[-1].result, server.kept(number)[-1].probabilities) == (kind, [])
    assert server.plane.counters.requests["half", "champion", "ok"] == len(cases)


def test_copies_that_do_not_fit_are_dropped_and_counted(server: Server) -> None:
    gate = threading.Event()
    slow = replace(VERSIONS["tenth"], session=Session(lambda: gate.wait(10)))
    thread = server.shadow(slow, max_queued=5)
    for number in range(40):
        assert server.ask(unit=f"u{number}") == [0.5]
    assert thread.queue_length <= 5
    assert thread.dropped["tenth"] >= 34
    gate.set()
    kept = server.kept(40 - thread.dropped["tenth"])
    assert len(kept) + thread.dropped["tenth"] == 40


def test_requests_that_are_large_together_are_not_held(server: Server) -> None:
    gate = threading.Event()
    slow = replace(VERSIONS["tenth"], session=Session(lambda: gate.wait(10)))
    thread = server.shadow(slow, max_queued_bytes=3000)
    for _ in range(10):
        server.ask(rows=4)
    assert 1 <= thread.queue_length <= 4
    gate.set()
    server.kept(10 - thread.dropped["tenth"])


def test_a_shadow_that_hangs_is_abandoned_and_reported(server: Server) -> None:
    gate = threading.Event()
    hung = replace(VERSIONS["tenth"], session=Session(lambda: gate.wait(30)))
    thread = server.shadow(hung, deadline_seconds=0.2)
    for number in range(20):
        assert server.ask(unit=f"u{number}") == [0.5]
    [pair] = server.kept(1)
    assert (pair.result, pair.probabilities, pair.champion_probabilities) == ("hung", [], [0.5])
    assert "did not come back" in thread.disabled_reason
    assert thread.dropped["tenth"] == 19
    before = threading.active_count()
    for number in range(20):
        assert server.ask(unit=f"v{number}") == [0.5]
    assert threading.active_count() <= before
    gate.set()  # it comes back at last, too late
    time.sleep(0.1)
    assert [record.result for record in server.kept(1)] == ["hung"]
    server.serve(VERSIONS["delay"])  # another version is another matter
    server.ask()
    assert server.kept(2)[-1].version == "delay"


@pytest.mark.parametrize("between", [True, False], ids=["after a pause", "at once"])
def test_a_hang_is_held_against_its_rollout_alone(server: Server, between: bool) -> None:
    """R111: what hung in one rollout, for want of memory or of a machine, may shadow again in the next."""
    gate = threading.Event()
    waits = replace(VERSIONS["tenth"], session=Session(lambda: gate.wait(30)))
    thread = server.shadow(waits, deadline_seconds=0.2)
    server.ask()
    server.kept(1)
    gate.set()
    server.serve(None)
    server.ask()
    server.serve(waits)  # paused and resumed: still the rollout in which it hung
    server.ask()
    assert thread.disabled_reason
    if between:
        server.serve(None)
        server.ask()
    server.serve(waits, rollout=8)
    server.ask()
    assert not thread.disabled_reason
    assert [(each.rollout, each.result) for each in server.kept(2)] == [(7, "hung"), (8, "ok")]


def test_a_slow_shadow_is_not_taken_for_hung(server: Server) -> None:
    slow = replace(VERSIONS["tenth"], session=Session(lambda: time.sleep(0.05)))
    thread = server.shadow(slow, deadline_seconds=1.0)
    for number in range(10):
        server.ask(unit=f"u{number}")
    assert {record.result for record in server.kept(10)} == {"ok"}
    assert not thread.disabled_reason


def test_probes_and_named_versions_are_not_copied(server: Server) -> None:
    server.shadow(VERSIONS["tenth"])
    body = json.dumps({"inputs": [], "parameters": {"probe": True}}).encode()
    server.plane.infer([InferenceCall(body, None, None, time.perf_counter())])
    server.plane.mirror()
    pinned = json.dumps(tensors([row()])).encode()
    server.plane.infer([InferenceCall(pinned, None, "tenth", time.perf_counter())])
    server.plane.mirror()
    server.ask()
    assert len(server.kept(1)) == 1
