"""Where the repository is, and how the processes that tests start find its modules."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The root of the repository."""

PYTHONPATH: Final = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
"""Where a process finds `holdfast` and `tests`."""
