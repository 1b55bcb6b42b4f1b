"""Which users may use the files of a store: its owner alone, unless the settings declare a group too.

Files are made with these modes, and `declare` sets the umask for what a library makes, such as the write-ahead log of
SQLite. A reader is kept out as well as a writer: a user that may open a file may lock it, and a lock can stop the ledger.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_OWNER: Final = 0o700
_GROUP: Final = 0o770
_INHERITED_GROUP: Final = 0o2000
"""Files in such a directory get its group, whatever the first group of the user that makes them is."""

_allowed = _OWNER


def declare(*, group: bool) -> None:
    """Let the group of the root use what this process makes from now on, or its user alone."""
    global _allowed
    _allowed = _GROUP if group else _OWNER
    os.umask(0o777 & ~_allowed)


def has_group() -> bool:
    """Return True if the group of the root is declared to use what this process makes."""
    return _allowed == _GROUP


def file_mode() -> int:
    """Return the mode of a new file."""
    return _allowed & 0o666


def directory_mode() -> int:
    """Return the mode of a new directory."""
    return _allowed


def restrict_root(root: Path) -> None:
    """Give a new root its mode, whatever the umask is."""
    root.chmod(_allowed if _allowed == _OWNER else _allowed | _INHERITED_GROUP)


def share_root(root: Path) -> list[Path]:
    """Give a root that was made for its owner alone to its group, with everything in it; nothing if it is shared already.

    Directories get the root's group for what is made in them. The root itself is last, so that a call that was ended is made
    up by the next one. Returns what belongs to another user, which must do the same.
    """
    if not root.is_dir() or stat.S_IMODE(root.stat().st_mode) == _GROUP | _INHERITED_GROUP:
        return []
    group = root.stat().st_gid
    left = []
    for path in (*root.rglob("*"), root):
        try:
            _share(path, group)
        except FileNotFoundError:
            continue  # deleted meanwhile
        except PermissionError:
            left.append(path)
    return left


def _share(path: Path, group: int) -> None:
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode):
        wanted = _GROUP | _INHERITED_GROUP
    elif stat.S_ISREG(found.st_mode):
        wanted = _GROUP & 0o666
    else:
        return  # a link or socket has no mode of its own that matters
    if found.st_gid != group:
        os.chown(path, -1, group)
    if stat.S_IMODE(found.st_mode) != wanted:
        path.chmod(wanted)


def restrict_file(path: Path) -> None:
    """Give a file that a library has just made its mode; nothing if it is not there."""
    if path.exists():
        path.chmod(file_mode())


def width_of(root: Path) -> int | None:
    """Return the mode of `root` if more users may use it than declared; None if not, or if it does not exist."""
    try:
        mode = stat.S_IMODE(root.stat().st_mode)
    except OSError:
        return None
    return mode if mode & 0o777 & ~_allowed else None


def narrowing_command(root: Path) -> str:
    """Return the command that takes from others what is not declared."""
    return f"chmod -R {'go' if _allowed == _OWNER else 'o'}-rwx {root}"
