"""Reports of unexpected errors, for the developers: a bounded number of files of a bounded size."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

from holdfast.formatting import visible

KEPT: Final = 20
"""So many reports of one user stay in a directory: the newest. A command that is restarted for ever fills no disk."""
REPORT_BYTES: Final = 64 * 1024
"""The largest report. The middle of a longer traceback is left out."""
_PREFIX: Final = "holdfast-crash-"
_SUFFIX: Final = ".log"


def write(error: BaseException, directory: Path | None = None) -> Path:
    """Write the traceback of `error` to a new file, which its owner alone can read, and return its path.

    Older reports beyond `KEPT` are removed. `directory` is by default that of temporary files. Raises `OSError` when
    the disk does not take the report.
    """
    directory = Path(tempfile.gettempdir()) if directory is None else directory
    _remove_oldest(directory)
    lines = "".join(traceback.format_exception(error)).split("\n")
    data = _shortened("\n".join(visible(line, sys.maxsize) for line in lines).encode())
    descriptor, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=directory)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as report:
            report.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path


def _remove_oldest(directory: Path) -> None:
    own = []
    for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            status = path.lstat()
            if status.st_uid == os.getuid():
                own.append((status.st_mtime_ns, path))
    for _, path in sorted(own, reverse=True)[KEPT - 1 :]:
        with suppress(OSError):
            path.unlink()


def _shortened(data: bytes) -> bytes:
    if len(data) <= REPORT_BYTES:
        return data
    left_out = b"\n... %d bytes are left out ...\n" % (len(data) - REPORT_BYTES)
    half = (REPORT_BYTES - len(left_out)) // 2
    return data[:half] + left_out + data[-half:]
