"""A warm interpreter that forks `holdfast` commands, so that a night of them costs no seconds of imports.

Nothing of Polars, PyArrow or LightGBM has run before the fork, only their import. Each command is a process of its own, as
cron starts it. One line of JSON comes in, {"arguments": [...], "out": PATH, "err": PATH}, and one goes out: {"status": 0}.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import lightgbm
import sklearn.linear_model

import holdfast.cli.commands.ingest.ingest
import holdfast.cli.commands.reports.status
import holdfast.cli.commands.rollout.rollout
import holdfast.cli.commands.training.train  # noqa: F401 - imported for the commands
from holdfast.cli import main

assert lightgbm, sklearn


def run(task: dict[str, Any]) -> None:
    """Run one command in this process, which is a fork, and end it."""
    for stream, path in ((1, task["out"]), (2, task["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    status = 0
    sys.argv = ["holdfast", *task["arguments"]]
    try:
        main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:  # the status that an interpreter ends with
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
        _, ended = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(ended)}), flush=True)
