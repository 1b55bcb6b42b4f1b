"""Where the repository is, how the processes that tests start find its modules, and how tests are kept from starting any."""

from __future__ import annotations

import multiprocessing.process
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The root of the repository."""

PYTHONPATH: Final = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
"""Where a process finds `holdfast` and `tests`."""

_STARTS: Final[tuple[tuple[Any, str], ...]] = (
    (subprocess.Popen, "__init__"),
    (multiprocessing.process.BaseProcess, "start"),
    (os, "fork"),
    (socket.socket, "listen"),
)


def forbid() -> None:
    """Make every way to start a process or to listen on a port an error, for the rest of this process."""
    for owner, name in _STARTS:
        setattr(owner, name, _refusing(getattr(owner, name)))


def _refusing(original: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise AssertionError(
            f"{original.__qualname__}: this test starts a process or listens on a port; mark it `process`"
        )

    return refuse
