"""`check` refuses every declaration that `train` refuses, with the same code, and neither ends in a defect.

    python -m tests.soak.check_and_train --models 5000 --seed 1

Model files are drawn from the public declarations (`drawn_models.py`): columns of every type, features, aggregates, learners,
gates, selections, windows and policies, right ones and wrong ones. Each is checked, its deliveries are loaded, and it is
trained, by the commands themselves. What the rows decide, such as too few of them, is for `train` alone. Prints the seed of
each failure, and exits with 1 if there is any.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.command import Command
from tests.soak.drawn_models import DrawnModel, as_json_lines, draw_model
from tests.support.project import run_here

OF_ROWS: Final = frozenset({"HF204", "HF207", "HF208", "HF401", "HF405", "HF407", "HF410", "HF411"})
"""The codes that depend on the rows: a declaration alone does not show them."""
_OF_VALUES: Final = ("whole numbers that a model merges", "failed to converge", "groups, more than")
"""What depends on the rows under a code of a declaration or of a learner."""


@dataclass
class Outcome:
    """What became of the model files: counts, the codes of refusals, and the failures."""

    models: int = 0
    refused: int = 0
    trained: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Refusal:
    """The code of an error and what it names; both empty if the command succeeded."""

    code: str = ""
    what: str = ""


def judge(outcome: Outcome, drawn: DrawnModel, directory: Path, name: str) -> None:
    """Check, load and train `drawn` in `directory`, and record in `outcome` what was wrong with that."""
    (directory / "model.py").write_text(drawn.text, encoding="utf-8")
    outcome.models += 1
    checked = run(directory, "check")
    _expect(outcome, name, "check", checked)
    if checked.code:
        outcome.refused += 1
        outcome.codes[checked.code] += 1
        trained = run(directory, "train")
        if trained.code != checked.code:
            outcome.failures.append(f"{name}: check ends with {checked}, train with {trained}")
        return
    for feed, rows in drawn.rows.items():
        (directory / f"{feed}.jsonl").write_text(as_json_lines(rows))
        loaded = run(directory, "ingest", feed, f"{feed}.jsonl")
        _expect(outcome, name, f"ingest {feed}", loaded, accepted=OF_ROWS)
    trained = run(directory, "train")
    _expect(outcome, name, "train", trained, accepted=OF_ROWS | ({"HF402"} if drawn.own_learner else set()))
    outcome.codes[trained.code or "trained"] += 1
    outcome.trained += not trained.code


def _expect(
    outcome: Outcome,
    name: str,
    command: str,
    found: Refusal,
    accepted: frozenset[str] | set[str] | None = None,
) -> None:
    of_values = any(words in found.what for words in _OF_VALUES)
    is_right = accepted is None or not found.code or found.code in accepted or of_values
    if found.code in ("HF901", "none") or not is_right:
        outcome.failures.append(f"{name}: {command} ends with {found}")


def run(directory: Path, *arguments: str) -> Refusal:
    """Run a command of the project in `directory`; the code "none" is that of an end without an error of ours."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(directory)}
    try:
        done = run_here((*arguments, "--json"), directory, environment)
    except BaseException as error:
        return Refusal("none", f"{type(error).__name__}: {error}")
    if done.status in (0, 1) and "Traceback" not in done.stderr:
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = None
        if isinstance(document, dict) and "error" not in document:
            return Refusal()
    for line in reversed((done.stdout + done.stderr).splitlines()):
        try:
            error = json.loads(line)
        except ValueError:
            continue
        if isinstance(error, dict) and "error" in error:
            return Refusal(error["error"]["code"], error["error"]["what"])
    return Refusal("none", f"status {done.status}: {done.stdout[-300:]}{done.stderr[-300:]}")


def soak(models: int, seed: int) -> Outcome:
    """Judge `models` model files, each drawn by its own seed from `seed` on."""
    outcome = Outcome()
    for number in range(seed, seed + models):
        drawn = draw_model(random.Random(number))
        with tempfile.TemporaryDirectory(prefix="holdfast-models-") as directory:
            judge(outcome, drawn, Path(directory), f"seed {number}")
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    command = Command("tests.soak.check_and_train", __doc__)
    command.size("--models", 5_000, 24, help="model files to draw")
    command.size("--seed", 1, 2013, help="of the first one; each next has the next seed")
    options = command.parse(arguments)
    outcome = soak(options.models, options.seed)
    for failure in outcome.failures[:20]:
        print(f"FAILED: {failure}")
    figures = {
        "models": outcome.models, "seed": options.seed, "refused_by_check": outcome.refused, "trained": outcome.trained,
        "codes": dict(sorted(outcome.codes.items())), "failures": len(outcome.failures),
    }  # fmt: skip
    return command.finish(figures, passed=not outcome.failures)


if __name__ == "__main__":
    sys.exit(main())
