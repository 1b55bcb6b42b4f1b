"""The workspace of a project's drills."""

from __future__ import annotations

import os

from holdfast.cli.processes.supervisor import OWN
from holdfast.cli.project import Run, now_us
from holdfast.control.drills.live import Workspace
from holdfast.rollout.model.drills import Drills


def workspace_of(run: Run, *, live: bool = False) -> Workspace:
    """Return the workspace of the project's drills; `live` lets them move the traffic of users."""
    file = [] if run.declaration is None else ["--file", str(run.declaration)]
    arguments = [
        "serve",
        "--project",
        str(run.project.directory),
        *file,
        "--exit-with-parent",
        str(os.getpid()),
    ]
    schedule = run.model.drills or Drills()
    return Workspace(
        store=run.store,
        model=run.model,
        serve=[*OWN, *arguments],
        clock_us=now_us,
        within_us=schedule.rollback_timeout_us,
        live=live,
    )
