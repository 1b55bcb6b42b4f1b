"""Where a backup keeps a file: by the SHA-256 of its bytes, so that what many backups hold lies there once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

OBJECTS_DIRECTORY: Final = "objects"
"""Under the backup's directory: `objects/<first two digits>/<SHA-256>`."""


def path_of(backup: Path, sha256: str) -> Path:
    """Where the bytes of that digest lie, or would lie."""
    return backup / OBJECTS_DIRECTORY / sha256[:2] / sha256
