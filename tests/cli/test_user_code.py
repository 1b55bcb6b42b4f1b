"""Whatever the code of the user raises is an error of the user's code: a command neither ends in silence nor in a traceback."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from holdfast.cli.output import INTERRUPTED
from holdfast.settings import Settings
from holdfast.store import Store
from holdfast.store.models import versions
from tests.soak.drawn_models import as_json_lines
from tests.support.project import run_here
from tests.support.queries import read

MODEL = """
from holdfast import *
contract = Contract(Integer("id"), Number("x", unit="1"), Timestamp("at", tz="UTC"), key="id", event_time="at",
                    label=Label("y", delay="1h"))
rows = Feed("rows", contract)

class Own:
    name, parameters = "own", {{}}
    def fit(self, x, y, names, *, seed, weights=None):
        {body}

model = Model("m", examples=rows, feeds=(rows,), contract=contract, features=(Passthrough("x"),), learner={learner},
              heuristic=GroupMean(by=(Hour("at"),)), holdout="1d")
"""
RAISED = {
    "SystemExit: 0": "import sys; sys.exit(0)",
    "SystemExit: None": "raise SystemExit(None)",
    "SystemExit: 130": "raise SystemExit(130)",
    "KeyboardInterrupt: ": "raise KeyboardInterrupt",
    "GeneratorExit: ": "raise GeneratorExit",
    "Own: stop": "raise type('Own', (BaseException,), {})('stop')",
    "Exit: 1": "import typer; raise typer.Exit(1)",
    "Mute": "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()",
    "RecursionError": "f = lambda: f(); f()",
}
COMMANDS = (
    "check", "ingest rows x.jsonl", "snapshot create", "train", "qualify", "rollout start v1", "policy", "backout rows x",
    "serve", "control", "page", "up", "status",
)  # fmt: skip


def refused(directory: Path, *words: str) -> dict[str, str]:
    done = run_here((*words, "--json"), directory, dict(os.environ))
    text = done.stdout or done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.status in (1, 2), done
    if "--json" in text:  # commands without a result have no such option
        done = run_here(words, directory, dict(os.environ))
        return {"code": done.stderr.split(":")[0].split()[-1], "what": done.stderr}
    error: dict[str, str] = json.loads(text)["error"]
    return error


@pytest.mark.parametrize("raised", RAISED)
def test_a_model_file_that_ends_python_is_refused(tmp_path: Path, raised: str) -> None:
    (tmp_path / "model.py").write_text(RAISED[raised] + "\n")
    error = refused(tmp_path, "check")
    assert error["code"] == "HF102"
    assert f"running model.py failed: {raised}" in error["what"]
    assert "model.py, line 1)" in error["what"]


@pytest.mark.parametrize("words", COMMANDS)
def test_no_command_ends_as_the_model_file_wants(tmp_path: Path, words: str) -> None:
    (tmp_path / "model.py").write_text("from neighbour import model\n")
    (tmp_path / "neighbour.py").write_text("raise SystemExit(0)\n")
    done = run_here(tuple(words.split()), tmp_path, dict(os.environ))
    assert done.status == 2
    assert "HF102" in done.stderr
    assert "SystemExit: 0 (neighbour.py, line 1)" in done.stderr.replace("\n", " ")


def test_an_interrupt_by_the_operator_is_one(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
    )
    done = run_here(("check",), tmp_path, dict(os.environ))
    assert done.status == INTERRUPTED
    assert "interrupted" in done.stderr


def test_a_model_file_may_change_the_path_of_modules(tmp_path: Path) -> None:
    before = list(sys.path)
    (tmp_path / "model.py").write_text(
        "import sys\nsys.path.pop(0)\n" + MODEL.format(body="pass", learner="LogisticRegression()")
    )
    try:
        assert run_here(("check",), tmp_path, dict(os.environ)).status == 0
    finally:
        sys.path[:] = before


def test_what_the_code_prints_is_not_in_the_json(project: Path) -> None:
    """In the model file, in a module of its directory, and in a learner."""
    body = "print('fitting'); return LogisticRegression().fit(x, y, names, seed=seed)"
    text = MODEL.format(body=body, learner="Own()")
    (project / "neighbour.py").write_text("print('imported')\n")
    (project / "model.py").write_text(f"import neighbour\nprint('declared')\n{text}")
    done = run_here(("train", "--json"), project, dict(os.environ))
    assert done.status == 0
    assert json.loads(done.stdout)["version"]
    assert all(word in done.stderr for word in ("imported", "declared", "fitting"))


def test_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("a = 1\nb = = 2\n")
    error = refused(tmp_path, "check")
    assert error["code"] == "HF102"
    assert error["what"].endswith("invalid syntax (model.py, line 2)")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL.format(body="pass", learner="LogisticRegression()"))
    rows = [
        {"id": number, "x": number % 7, "at": f"2013-09-{1 + number // 24:02}T{number % 24:02}:00:00Z", "y": number % 3 == 0}
        for number in range(240)
    ]  # fmt: skip
    (tmp_path / "x.jsonl").write_text(as_json_lines(rows))
    assert run_here(("ingest", "rows", "x.jsonl"), tmp_path, dict(os.environ)).status == 0
    return tmp_path


NO_SHARE = """
        import numpy
        from holdfast.features.graph import op
        from spox import Tensor, argument, build
        rows = argument(Tensor(numpy.float32, ("N", 1)))
        above = op.add(rows, op.constant(value_float=9.0))
        return build({"features": rows}, {"probability": op.reshape(above, op.constant(value_ints=[-1]))})
"""
GIVEN = {
    **{why: (body, f"failed: {why}") for why, body in RAISED.items()},
    "None": ("return None", "gave a NoneType"),
    "bytes": ("return b'graph'", "gave a bytes"),
    "no names": ("import onnx; return onnx.ModelProto()", "an estimator maps 'features' to 'probability'"),
    "no operator": (
        "graph = LogisticRegression().fit(x, y, names, seed=seed); graph.graph.node[0].op_type = 'None'; return graph",
        "gave a graph that does not run",
    ),
    "no share": (NO_SHARE, "one for each is needed, from 0 to 1"),
}


def test_a_learner_that_ends_python_or_gives_no_graph_registers_nothing(project: Path) -> None:
    for body, words in GIVEN.values():
        (project / "model.py").write_text(MODEL.format(body=body, learner="Own()"))
        error = refused(project, "train")
        assert error["code"] == "HF402", error
        assert words in error["what"]
    store = Store.of(Settings.read(project))
    assert read(store, versions.of_model, "m") == []
