"""The workspace of a project's drills."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from holdfast.cli.project import Project, now_us
from holdfast.control.drills.live import Place
from holdfast.rollout.model.drills import Drills


def place_of(loaded: Project, declaration: Path | None, *, live: bool = False) -> Place:
    """Return the workspace of the project's drills; `live` lets them move the traffic of users."""
    file = [] if declaration is None else ["--file", str(declaration)]
    schedule = loaded.model.drills or Drills()
    return Place(
        store=loaded.store(),
        model=loaded.model,
        serve=[
            *(sys.executable, "-m", "holdfast", "serve", "--project", str(loaded.directory), *file),
            *("--exit-with-parent", str(os.getpid())),
        ],
        clock_us=now_us,
        within_us=schedule.rollback_timeout_us,
        live=live,
    )
