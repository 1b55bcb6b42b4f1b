"""Open a file that no gate has passed, in a process that `holdfast.control.evaluation.sandbox` starts and that may die.

    python -m holdfast.control.evaluation.sandbox_worker DIRECTORY

reads `request.json` in DIRECTORY, limits itself, tries the file, and leaves `report.json` after every stage,
so that the parent knows what it was doing when it died.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

REQUEST: Final = "request.json"
REPORT: Final = "report.json"
ROWS: Final = "rows.arrow"
SINGLE_ROWS: Final = "single_rows.json"
PROBABILITIES: Final = "probabilities.npy"

_CHUNK_ROWS: Final = 65_536
_CHUNK_SINGLE_ROWS: Final = 256


class _Diary:
    """What is known so far, on disk after every stage."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / REPORT
        self._facts: dict[str, Any] = {"stage": "starting"}

    @property
    def stage(self) -> str:
        """What is being done."""
        return str(self._facts["stage"])

    def note(self, stage: str, **facts: object) -> None:
        """Write that `stage` has begun, with new facts. The old report stays whole until the new one is."""
        self._facts |= {"stage": stage, **facts}
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self._facts, allow_nan=True))
        unfinished.replace(self._path)


def main(directory: Path) -> None:
    """Try the file that the request names; see the module's text."""
    request = json.loads((directory / REQUEST).read_text())
    diary = _Diary(directory)
    _limit(int(request["cpu_seconds"]), int(request["address_bytes"]))
    diary.note("reading")
    try:
        _try(request, directory, diary)
    except (
        Exception
    ) as error:  # whatever the file makes a parser or the runtime raise is the verdict on the file
        diary.note(diary.stage, refused=f"{type(error).__name__}: {error}")


def _try(request: dict[str, Any], directory: Path, diary: _Diary) -> None:
    # Imported under the limits, and after the first report: what they cost is part of what a server would
    # pay.
    import numpy as np
    import onnxruntime

    from holdfast.features import FittedFeatures, tensors_from_frame, tensors_from_rows
    from holdfast.records import sha256_hex
    from holdfast.train.artifact import open_version

    data = Path(request["file"]).read_bytes()
    found = sha256_hex(data)
    if found != request["digest"]:
        raise ValueError(f"the file's digest is {found}, not {request['digest']}")
    about = open_version(data)[1]
    inputs = FittedFeatures.from_json(about.features_json).inputs
    diary.note("loading", metadata={name: getattr(about, name) for name in about.__slots__})

    began = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # The very bytes that were hashed: the file may be another one by now.
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    diary.note(
        "predicting", inputs=_described(session.get_inputs()), outputs=_described(session.get_outputs())
    )

    def ask(feed: dict[str, Any]) -> Any:
        return session.run(["probability"], feed)[0]

    ask(tensors_from_rows(inputs, [{}]))
    load_seconds = time.perf_counter() - began
    golden = [float(ask(tensors_from_rows(inputs, [row]))[0]) for row in request["golden"]]
    if request["rows"]:
        import polars as pl

        feed = tensors_from_frame(inputs, pl.read_ipc(directory / ROWS))
        rows = len(next(iter(feed.values())))
        chunks = [
            ask({name: column[low : low + _CHUNK_ROWS] for name, column in feed.items()})
            for low in range(0, rows, _CHUNK_ROWS)
        ]
        np.save(directory / PROBABILITIES, np.concatenate(chunks).astype(np.float64), allow_pickle=False)
    failed = dict[str, str]()
    if request["single_rows"]:
        single_rows = json.loads((directory / SINGLE_ROWS).read_text())
        predictions, failed = _predict_each(lambda rows: ask(tensors_from_rows(inputs, rows)), single_rows)
        np.save(directory / PROBABILITIES, np.array(predictions, np.float64), allow_pickle=False)
    diary.note("done", failed=failed, golden=golden, load_seconds=load_seconds, peak_bytes=_peak_bytes())


def _predict_each(ask: Callable[[list[Any]], Any], rows: list[Any]) -> tuple[list[float], dict[str, str]]:
    """Predict each row as a server would: NaN for a row that raised, and the errors by position."""
    predictions: list[float] = []
    failed = dict[str, str]()
    for low in range(0, len(rows), _CHUNK_SINGLE_ROWS):
        part = rows[low : low + _CHUNK_SINGLE_ROWS]
        try:
            found = ask(part).astype(float).tolist()
            # A file that returns more or fewer rows raises here; below, each row then gets its first value.
            predictions += [value for value, _ in zip(found, part, strict=True)]
        except Exception:  # one row may have spoilt it for the others: each alone
            for at, row in enumerate(part, low):
                try:
                    predictions.append(float(ask([row])[0]))
                except Exception as error:  # whatever the runtime raises is the result of this row
                    predictions.append(float("nan"))
                    failed[str(at)] = type(error).__name__
    return predictions, failed


def _limit(cpu_seconds: int, address_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (address_bytes, address_bytes))


def _described(tensors: Any) -> list[list[object]]:
    return [[tensor.name, tensor.type, len(tensor.shape)] for tensor in tensors]


def _peak_bytes() -> int:
    # ru_maxrss would count what the parent had resident when it started this process.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
