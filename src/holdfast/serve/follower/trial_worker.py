"""Load and run a version in a process that may die, before a server loads it.

    python -m holdfast.serve.follower.trial_worker NAME DIGEST CPU_SECONDS MEMORY_BYTES < FILE

Exits with 0 if a server can load the file, and with `REFUSED` and the reason on stderr if not. A graph that never ends or
that allocates without end is ended by the limits.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final

from holdfast.errors import IntegrityError
from holdfast.serve.inference.loaded_model import load

REFUSED: Final = 3
_STATM: Final = Path("/proc/self/statm")
_ADDRESS_ROOM_BYTES: Final = 8 * 2**30
"""Address space of the libraries, where it cannot be read."""


def main(name: str, digest: str, cpu_seconds: int, memory_bytes: int) -> int:
    """Try the file on stdin; return the exit status."""
    data = sys.stdin.buffer.read()
    used = (
        int(_STATM.read_text().split()[0]) * resource.getpagesize()
        if _STATM.exists()
        else _ADDRESS_ROOM_BYTES
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, used + memory_bytes))
    try:
        load(name, digest, data, created_at_us=0)
    except IntegrityError as error:
        sys.stderr.write(error.what)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
