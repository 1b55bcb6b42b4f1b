"""What a request is charged for when it is answered together with others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serve.conftest import MODEL, Served, row, sealed, tensors

from holdfast.records import TrafficPlan, sha256_hex
from holdfast.serve.plane import Call, Plane, Serving
from holdfast.serve.version import load
from holdfast.store.prediction_log import LogWriter, PredictionRecord, read, segments

Start = Callable[..., Served]
PER_ROW_SECONDS = 0.002


class Slow:
    """A session that takes its time for each row."""

    def run(self, _outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        rows = len(feed["distance"])
        time.sleep(PER_ROW_SECONDS * rows)
        return [np.full(rows, 0.5, np.float32)]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    data = sealed("half")
    version = load("v1-0", sha256_hex(data), data, created_us=1)
    log = LogWriter(tmp_path, "s1", MODEL)
    made = Plane(MODEL, log, lambda: 1)
    plan = TrafficPlan(MODEL, 1, "v1-0", None, 0, None, None, None)
    made.serving = Serving.of(plan, {"v1-0": replace(version, session=Slow())})
    yield made
    log.close()


def test_a_request_is_charged_for_its_own_rows(plane: Plane, tmp_path: Path) -> None:
    """Or an arm with small batches would look faster than one whose requests share theirs."""
    sizes = (1, 20, 1)
    calls = [
        Call(json.dumps(tensors([row()] * size)).encode(), None, None, time.perf_counter()) for size in sizes
    ]
    assert all(isinstance(outcome, tuple) for outcome in plane.answer(calls))
    [(_, path)] = segments(tmp_path)
    records, _ = read(path)
    charged = [record.latency_us / 1e6 for record in records if isinstance(record, PredictionRecord)]
    for seconds, size in zip(charged, sizes, strict=True):
        assert PER_ROW_SECONDS * size <= seconds < PER_ROW_SECONDS * (size + 4)
