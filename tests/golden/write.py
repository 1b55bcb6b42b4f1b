"""Write a store as it is made today, for later code to open.

    python -m tests.golden.write

Makes `tests/golden/<n>/`, the next number: `project.tar.gz` with the declaration, the store and the log of a server, and
`expected.json` with what later code has to read from them. Everything is made by commands, as a user would: two batches, of
which one is backed out, a snapshot, a trained and qualified version, a rollout that ended, predictions and a label.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.support.project import Project
from tests.support.waiting import wait_until

GOLDEN: Final = Path(__file__).parent
MODEL: Final = "parcels"
LARGEST_BYTES: Final = 1_000_000
REQUESTS: Final = 12


def request(number: int) -> dict[str, Any]:
    """Return a golden request: one row of the model that `holdfast init` suggests."""
    towns = ("oslo", "bergen", "trondheim")
    row = {
        "parcel": ("BYTES", f"g{number:05d}"),
        "handed_in": ("BYTES", f"2026-03-02T{8 + number % 10:02d}:30:00Z"),
        "town": ("BYTES", towns[number % 3]),
        "weight_kg": ("FP64", 0.5 + number),
        "express": ("BOOL", number % 2 == 0),
    }
    inputs = [
        {"name": name, "shape": [1], "datatype": kind, "data": [value]} for name, (kind, value) in row.items()
    ]
    return {"id": f"g{number:05d}", "inputs": inputs}


def write(directory: Path) -> dict[str, Any]:
    """Make the project in `directory` and return what later code has to read from it."""
    project = Project(directory)
    project.run("init", "--name", MODEL)
    header, *rows = (directory / "parcels.csv").read_text().splitlines()
    second = [row.replace("p0", "q0", 1) for row in rows[:50]]
    (directory / "wrong.csv").write_text("\n".join([header, *second]) + "\n")
    project.run("ingest", "rows", "parcels.csv")
    project.run("ingest", "rows", "wrong.csv")
    project.run("backout", "rows", "wrong", "--apply", "--reason", "the golden batch that is backed out")
    project.run("train")
    project.run("qualify")
    project.run("snapshot", "create")
    project.run("rollout", "start")
    responses = []
    with project.running("up"):
        project.wait_for_server(MODEL)
        for number in range(REQUESTS):
            status, response = project.request("POST", f"/v2/models/{MODEL}/infer", request(number))
            assert status == 200, response
            responses.append(response)
        project.run("feedback", responses[0]["parameters"]["prediction_id"], "true")
        wait_until(
            lambda: sum(each["labelled"] for each in project.document("status")["versions"]) == 1,
            "the label is joined",
        )
    assert project.document("verify")["findings"] == []
    return {
        "model": MODEL,
        "requests": [
            {"request": request(number), "probability": response["outputs"][0]["data"][0]}
            for number, response in enumerate(responses)
        ],
        "versions": {each["version"]: each["state"] for each in project.document("status")["versions"]},
        "snapshots": [each["snapshot"] for each in project.document("snapshot", "list")["snapshots"]],
        "events": len(project.run("events", "--json").splitlines()),
    }


def main() -> int:
    """Write the next golden store; exit status 1 when it is too large to keep."""
    number = 1 + max((int(path.name) for path in GOLDEN.iterdir() if path.name.isdigit()), default=0)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / MODEL
        directory.mkdir()
        expected = write(directory)
        target = Path(temporary) / str(number)
        target.mkdir()
        with tarfile.open(target / "project.tar.gz", "w:gz") as archive:
            archive.add(directory, arcname=MODEL)
        (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
        size = sum(path.stat().st_size for path in target.iterdir())
        if size > LARGEST_BYTES:
            sys.stderr.write(f"{size:,} bytes are more than {LARGEST_BYTES:,}: nothing was written\n")
            return 1
        shutil.copytree(target, GOLDEN / str(number))
    sys.stdout.write(f"{GOLDEN / str(number)}: {size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
