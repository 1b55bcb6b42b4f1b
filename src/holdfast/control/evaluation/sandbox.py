"""Load and run a version in a process of its own, and report the result however it ended."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from holdfast.control.evaluation.sandbox_worker import PROBABILITIES, REPORT, REQUEST, ROWS, SINGLE_ROWS
from holdfast.qualify import Gates, LoadReport, TensorType
from holdfast.qualify.load_test import Outcome

Scores = npt.NDArray[np.float64]

_WALL_PER_CPU: Final = 4
_ADDRESS_ROOM_BYTES: Final = 8 * 2**30
"""Address space beyond the memory bound: libraries reserve much that they never touch."""

_WORDS_OF_ERRORS: Final = 500


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """The report of a sandbox, and the predictions for the given rows: shape (N,), None if it made none."""

    trial: LoadReport
    probabilities: Scores | None
    failed: Mapping[int, str] = field(default_factory=dict)
    """Errors of rows that were predicted one by one, by the position of the row."""


def run_sandbox(
    file: Path,
    digest: str,
    gates: Gates,
    *,
    golden: Sequence[Mapping[str, object]] = (),
    rows: pl.DataFrame | None = None,
    single_rows: Sequence[Mapping[str, object]] = (),
) -> SandboxReport:
    """Open `file` in a fresh process and predict the golden rows, and `rows` if given.

    The process runs without our environment, in a session of its own, with bounds on processor time and
    address space, and is killed when it stays too long. Nothing that it does can end the caller.

    Parameters
    ----------
    digest
        SHA-256 that the file must have; the bytes that are loaded are the bytes that were hashed.
    gates
        `trial_seconds` and `memory_bytes` bound the process.
    rows
        Rows checked against the contract, with a column for each aggregate; the label is better left out.
    single_rows
        Rows as a server has them, in place of `rows`: each succeeds or fails for itself.
    """
    with tempfile.TemporaryDirectory(prefix="holdfast-trial-") as name:
        directory = Path(name)
        if rows is not None:
            rows.write_ipc(directory / ROWS)
        request = {
            "file": str(file.resolve()),
            "digest": digest,
            "cpu_seconds": math.ceil(gates.trial_seconds),
            "address_bytes": gates.memory_bytes + _ADDRESS_ROOM_BYTES,
            "golden": [dict(row) for row in golden],
            "rows": rows is not None,
            "single_rows": bool(single_rows),
        }
        if single_rows:
            (directory / SINGLE_ROWS).write_text(json.dumps([dict(row) for row in single_rows]))
        (directory / REQUEST).write_text(json.dumps(request, default=_as_text))
        status, errors = _run(directory, gates.trial_seconds * _WALL_PER_CPU)
        trial = _report(directory, status, errors)
        has_predictions = trial.loaded and (rows is not None or bool(single_rows))
        scores = np.load(directory / PROBABILITIES, allow_pickle=False) if has_predictions else None
        failed = _facts(directory).get("failed", {}) if has_predictions else {}
    return SandboxReport(trial, scores, {int(place): what for place, what in failed.items()})


def _run(directory: Path, wall_seconds: float) -> tuple[int | None, str]:
    """Run the worker. Returns its exit status (negative: a signal; None: the deadline) and its last error output."""
    search = [entry for entry in sys.path if entry and not entry.endswith(".zip")]
    with (directory / "errors.txt").open("w+b") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.control.evaluation.sandbox_worker", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={"PYTHONPATH": os.pathsep.join(search), "LC_ALL": "C.UTF-8"} | _libraries(),
            cwd=directory,
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(timeout=wall_seconds)
        except subprocess.TimeoutExpired:
            pass  # `status` stays None: this process killed it
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        errors.seek(0)
        return status, errors.read()[-_WORDS_OF_ERRORS:].decode(errors="replace").strip()


def _report(directory: Path, status: int | None, errors: str) -> LoadReport:
    facts = _facts(directory)
    outcome, explanation = _ending(facts, status, errors)
    return LoadReport(
        outcome=outcome,
        stage=facts["stage"],
        explanation=explanation,
        load_seconds=facts.get("load_seconds"),
        peak_bytes=facts.get("peak_bytes"),
        inputs=tuple(TensorType(*tensor) for tensor in facts.get("inputs", ())),
        outputs=tuple(TensorType(*tensor) for tensor in facts.get("outputs", ())),
        metadata=facts.get("metadata"),
        golden=tuple(facts.get("golden", ())),
    )


def _facts(directory: Path) -> dict[str, Any]:
    path = directory / REPORT
    facts: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"stage": "starting"}
    return facts


def _ending(facts: Mapping[str, Any], status: int | None, errors: str) -> tuple[Outcome, str]:
    if status is None:
        return "timed out", "it was killed after its time was up"
    if status < 0:
        return "died", f"signal {signal.Signals(-status).name} ended it"
    if "refused" in facts:
        return "refused", str(facts["refused"])
    if status != 0 or facts["stage"] != "done":
        return "died", f"exit status {status}; {errors or 'no output'}"
    return "succeeded", ""


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be sent to the process that tries a version")


def _libraries() -> dict[str, str]:
    """Return where the loader of this process finds shared libraries, if that is set: without them nothing is imported."""
    found = os.environ.get("LD_LIBRARY_PATH")
    return {} if found is None else {"LD_LIBRARY_PATH": found}
