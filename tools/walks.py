"""Record which files of src/holdfast three real runs visit, in order, and write docs/walks.md.

Run from the root of the repository: `python tools/walks.py`. It makes a project with `holdfast init` and traces

- `holdfast ingest`, then `holdfast train` until the rows of the snapshot are split;
- one inference request to `holdfast serve`, from the socket to the response and the prediction log;
- a canary, from records in a prediction log to a new traffic plan, in rounds of the control loop.

A file counts when a function of it is called. What an import runs does not count, nor what the model file declares. A climb
is a call from a function of `store` to one of `control`.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = f"{ROOT}/src/holdfast/"
PAGE: Final = ROOT / "docs" / "walks.md"

INTRODUCTION: Final = """\
The files of `src/holdfast` that three real runs visit, in the order of their first visit. A file counts when a function of it
is called; loading the model file is left out. A climb is a call from `store` up to `control`. Written by
`python tools/walks.py`.
"""
ROW = [
    {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
    for name, datatype, value in (
        ("parcel", "BYTES", "p00001"),
        ("handed_in", "BYTES", "2026-03-02T16:30:00Z"),
        ("town", "BYTES", "oslo"),
        ("weight_kg", "FP64", 2.5),
        ("express", "BOOL", False),
    )
]


class Recorder:
    """Records the files whose functions are called while `is_on`."""

    def __init__(self, until: str | None = None, under: str = "") -> None:
        self.is_on = False
        self.files: dict[str, None] = {}
        self.climbs: set[str] = set()
        self._until = until
        self._under = under

    def install(self) -> None:
        """Record calls of this thread and of threads that begin from now on."""
        threading.setprofile(self._call)
        sys.setprofile(self._call)

    def result(self) -> dict[str, list[str]]:
        """Return the files in the order of their first visit, and the climbs."""
        return {"files": list(self.files), "climbs": sorted(self.climbs)}

    def _call(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.is_on or event != "call":
            return
        path = _path_of(frame)
        if path is None or frame.f_code.co_name == "<module>":
            return
        if path not in self.files:
            if _is_import(frame) or not _is_under(frame, self._under):
                return
            if path == self._until:
                self.is_on = False
                return
            self.files[path] = None
        if path.startswith("control/"):
            caller = frame.f_back
            while caller is not None and _path_of(caller) is None:
                caller = caller.f_back
            if caller is not None and str(_path_of(caller)).startswith("store/"):
                self.climbs.add(f"{_path_of(caller)} -> {path}")


def _path_of(frame: FrameType) -> str | None:
    name = frame.f_code.co_filename
    return name[len(SOURCE) :] if name.startswith(SOURCE) else None


def _is_import(frame: FrameType | None) -> bool:
    """Return True if a module of ours or the model file of the project is being loaded."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "<module>" and (_path_of(frame) or code.co_filename.endswith("/model.py")):
            return True
        frame = frame.f_back
    return False


def _is_under(frame: FrameType | None, folder: str) -> bool:
    """Return True if a function below `folder` is on the stack; what a helper of the tests calls is not."""
    while frame is not None:
        if str(_path_of(frame)).startswith(folder):
            return True
        frame = frame.f_back
    return not folder


def traced(out: Path, until: str, arguments: list[str]) -> None:
    """Run a command of holdfast in this process, and record it while the file `<out>.on` exists."""
    from holdfast.cli import main

    recorder = Recorder(until or None)
    flag = out.with_suffix(".on")
    recorder.is_on = flag.exists()

    def follow() -> None:
        while True:
            time.sleep(0.005)
            if not flag.exists():
                recorder.is_on = False
            elif flag.read_text() == "go":
                flag.write_text("on")
                recorder.is_on = True

    threading.Thread(target=follow, daemon=True).start()
    recorder.install()
    sys.argv = ["holdfast", *arguments]
    try:
        main()
    finally:
        sys.setprofile(None)
        out.write_text(json.dumps(recorder.result()))


def walk_row(project: Path) -> dict[str, list[str]]:
    """Trace a row from the command to the rows that training splits."""
    found: dict[str, list[str]] = {"files": [], "climbs": []}
    for number, (command, until) in enumerate(
        ((["ingest", "rows", "parcels.csv"], ""), (["train"], "features/fitting.py"))
    ):
        out = project / f"walk{number}.json"
        out.with_suffix(".on").write_text("on")
        _run(project, [sys.executable, __file__, "--trace", str(out), until, *command])
        walk = json.loads(out.read_text())
        found["files"] += [path for path in walk["files"] if path not in found["files"]]
        found["climbs"] += walk["climbs"]
    return found


def walk_request(project: Path) -> dict[str, list[str]]:
    """Trace one request in a server that has a version."""
    from holdfast.control.http.client import Client

    for command in ("qualify", "rollout start"):
        _run(project, [sys.executable, "-m", "holdfast", *command.split()])
    out = project / "request.json"
    environment = {**_environment(), "HOLDFAST_PORT": str(_free_port())}
    serve = [sys.executable, __file__, "--trace", str(out), "", "serve"]
    server = subprocess.Popen(serve, cwd=project, env=environment, stdout=subprocess.DEVNULL)
    loop = subprocess.Popen([sys.executable, "-m", "holdfast", "control"], cwd=project, env=environment)
    try:
        with Client(f"http://127.0.0.1:{environment['HOLDFAST_PORT']}", timeout_seconds=10) as client:
            infer, body = "/v2/models/parcels/infer", json.dumps({"inputs": ROW})

            def is_ready() -> bool:
                try:
                    return client.request("GET", "/v2/models/parcels/ready").status == 200
                except OSError:
                    client.close()
                    return False

            _wait(is_ready)
            assert client.request("POST", infer, body).status == 200  # what happens once is over
            flag = out.with_suffix(".on")
            flag.write_text("go")
            _wait(lambda: flag.read_text() == "on")
            assert client.request("POST", infer, body).status == 200
            time.sleep(0.3)  # the log is written after the response
            flag.unlink()
            time.sleep(0.1)
    finally:
        for process in (loop, server):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    found: dict[str, list[str]] = json.loads(out.read_text())
    # The follower polls the ledger on its own; that is no part of a request.
    layers = ("serve/", "contract/", "features/", "rollout/", "store/serving/", "records", "formatting")
    found["files"] = [
        path for path in found["files"] if path.startswith(layers) and "serve/follower/" not in path
    ]
    return found


def walk_canary(directory: Path) -> dict[str, list[str]]:
    """Trace the control loop from records of a prediction log to the next traffic plan of a canary."""
    from holdfast.control import daemon, loop
    from holdfast.control.rollout import reconcile
    from tests.support.push_world import MODEL, Pushes

    pushes = Pushes.open(directory / "canary", directory / "log")
    pushes.promote()
    version = pushes.version()
    pushes.minutes(1)
    world = pushes.world
    world.begin(version)
    while world.row().state != "canary":
        pushes.step()
        world.probe()
    concerns = list(daemon.concerns().items())
    last = next(n for n, (_, concern) in enumerate(concerns) if concern is reconcile.reconcile)
    doing = dict(concerns[: last + 1])  # the plan is written by then
    recorder = Recorder(under="control/")
    recorder.install()
    before, deadline = world.plan(), time.monotonic() + 120
    while world.plan() == before:
        assert time.monotonic() < deadline, f"the canary is {world.row().state}"
        world.probe()
        for recorded in (lambda: pushes.minutes(3), pushes.label, lambda: loop.run_round(
            world.store, MODEL, world.lease, clock_us=world.tick, doing=doing
        )):  # fmt: skip
            recorder.is_on = True
            recorded()
            recorder.is_on = False
    sys.setprofile(None)
    threading.setprofile(None)
    return recorder.result()


def page(walks: dict[str, dict[str, list[str]]]) -> str:
    """Return the page: for each walk the counts, then the files in order."""
    parts = [
        "# Three walks\n",
        INTRODUCTION,
        "| walk | files | changes of layer | climbs from store to control |\n| --- | --- | --- | --- |",
        *(
            f"| {name} | {len(walk['files'])} | {changes(walk['files'])} | {len(walk['climbs'])} |"
            for name, walk in walks.items()
        ),
    ]
    for name, walk in walks.items():
        parts.append(f"\n## {name[0].upper()}{name[1:]}\n")
        parts.append(" → ".join(f"`{path.removesuffix('.py')}`" for path in walk["files"]))
        if walk["climbs"]:
            parts.append("\nClimbs: " + "; ".join(f"`{climb}`" for climb in walk["climbs"]))
    return "\n".join(parts) + "\n"


def changes(files: list[str]) -> int:
    """Count how often the layer changes from one file to the next."""
    layers = [path.split("/")[0] for path in files]
    return sum(one != other for one, other in itertools.pairwise(layers))


def _run(project: Path, command: list[str]) -> None:
    subprocess.run(command, cwd=project, env=_environment(), check=True, stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


def _free_port() -> int:
    from holdfast.cli.demo.sandbox import free_port

    return free_port(0)


def _wait(holds: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("the server did not become ready")
        time.sleep(0.02)


def run() -> None:
    """Do the three walks and write the page."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as home:
        project = Path(home) / "project"
        project.mkdir()
        _run(project, [sys.executable, "-m", "holdfast", "init", "--name", "parcels"])
        walks = {
            "row to snapshot": walk_row(project),
            "request to response": walk_request(project),
            "log to plan": walk_canary(Path(home)),
        }
    PAGE.write_text(page(walks))
    for name, walk in walks.items():
        print(name, len(walk["files"]), "files", len(walk["climbs"]), "climbs", walk["climbs"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        traced(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
    else:
        run()
