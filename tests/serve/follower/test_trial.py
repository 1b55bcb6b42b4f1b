"""A version that loops or takes all memory ends a process that is there for that, never the one that serves (P14)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from holdfast.errors import IntegrityError
from holdfast.records import sha256_hex
from holdfast.serve.follower import trial
from holdfast.serve.follower.local_copy import LocalCopy
from holdfast.serve.follower.trial import Trials
from tests.support.serving_world import Served, World, packed

Start = Callable[..., Served]


def test_a_graph_that_never_ends_is_ended_and_not_tried_again_at_once(tmp_path: Path) -> None:
    data, now = packed("loops"), [0.0]
    trials = Trials(tmp_path, cpu_seconds=2, monotonic=lambda: now[0])
    for _ in range(2):
        with pytest.raises(
            IntegrityError, match=r"HF301.*version v1: .*ended by SIGXCPU; its limits are 2 s"
        ):
            trials.require("v1", sha256_hex(data), data)
    # What is known needs no process, so that a follower that tries a plan again and again is not held up.
    trials._cpu_seconds = 0
    began = time.process_time()
    with pytest.raises(IntegrityError, match=r"limits are 2 s"):
        trials.require("v1", sha256_hex(data), data)
    assert time.process_time() - began < 1
    now[0] = trial.REPEATED_SECONDS
    with pytest.raises(IntegrityError, match=r"SIGXCPU|SIGKILL"):
        trials.require("v1", sha256_hex(data), data)


def test_a_trial_that_does_not_end_is_not_repeated_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A starved machine is no fault of the file, but plans wait while a trial runs."""
    data, now = packed("half"), [0.0]
    trials = Trials(tmp_path, monotonic=lambda: now[0])
    with monkeypatch.context() as starved:
        starved.setattr(trial, "WALL_SECONDS", 0.001)
        with pytest.raises(IntegrityError, match=r"HF301.*limit of 0.001 s"):
            trials.require("v1", sha256_hex(data), data)
    with pytest.raises(IntegrityError, match=r"HF301.*limit of 0.001 s"):
        trials.require("v1", sha256_hex(data), data)
    now[0] = trial.RETRY_SECONDS
    trials.require("v1", sha256_hex(data), data)


def test_a_graph_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    data = packed("explodes")
    with pytest.raises(IntegrityError, match=r"HF301.*version v1: it cannot be (run|loaded)"):
        Trials(tmp_path).require("v1", sha256_hex(data), data)


def test_what_no_runtime_opens_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"HF301.*version v1: it cannot be loaded"):
        Trials(tmp_path).require("v1", sha256_hex(b"no model"), b"no model")


def test_a_file_that_passed_is_not_tried_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = packed("half")
    Trials(tmp_path).require("v1", sha256_hex(data), data)
    later = Trials(tmp_path, cpu_seconds=0)  # no process could end well
    later.require("v1", sha256_hex(data), data)
    other = packed("tenth")
    with pytest.raises(IntegrityError, match=r"HF301.*SIG"):
        later.require("v2", sha256_hex(other), other)
    # Another release of the runtime may run a graph in another way.
    monkeypatch.setattr(onnxruntime, "__version__", "0.0")
    with pytest.raises(IntegrityError, match=r"HF301.*SIG"):
        Trials(tmp_path, cpu_seconds=0).require("v1", sha256_hex(data), data)


def test_a_note_that_was_altered_costs_a_trial_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "tried.json").write_text("{")
    data = packed("half")
    Trials(tmp_path).require("v1", sha256_hex(data), data)
    Trials(tmp_path, cpu_seconds=0).require("v1", sha256_hex(data), data)


def test_a_server_goes_on_while_a_version_that_takes_all_memory_is_tried(world: World, serve: Start) -> None:
    for kind in ("half", "explodes"):
        world.version(kind)
    world.plan("half")
    served = serve()
    plan = world.plan("half", "explodes", 1_000_000)
    served.wait_for_plan(plan)
    status = served.wait(lambda status: len(status["unavailable"]) == 1)
    assert set(status["unavailable"]) == {world.names["explodes"]}
    assert served.infer(unit="u")[0] == 200
    assert served.process.poll() is None


def test_the_note_is_next_to_the_local_copy(world: World, serve: Start) -> None:
    world.version("half")
    plan = world.plan("half")
    serve().wait_for_plan(plan)
    assert [each.name for each in world.root.rglob("tried.json")] == ["tried.json"]
    assert isinstance(LocalCopy(next(world.root.rglob("tried.json")).parent).load(), object)
