"""File names: which files are no data, which are unfinished, and how their rows are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from holdfast.store.sources.delivery import File, Kind, refused

_PARQUET_MAGIC: Final = b"PAR1"
_PACKED: Final = frozenset({".gz", ".zst"})
_UNFINISHED: Final = frozenset(
    {".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".inprogress", ".incomplete"}
)
_KINDS: Final = {
    ".csv": Kind.CSV,
    ".txt": Kind.CSV,
    ".jsonl": Kind.JSON_LINES,
    ".ndjson": Kind.JSON_LINES,
    ".parquet": Kind.PARQUET,
    ".pq": Kind.PARQUET,
}


def is_data(name: str) -> bool:
    """Return True if `name`, a path below a directory, is a file of rows.

    Hadoop's markers, hidden files and control files are none.

    >>> [is_data(name) for name in ("a/day.csv", "_SUCCESS", ".day.csv.crc", "_tmp/day.csv", "day.csv~", "day.csv.count")]
    [True, False, False, False, False, False]
    """
    return not name.endswith(("~", ".count")) and not any(
        part.startswith((".", "_")) for part in PurePosixPath(name).parts
    )


def is_unfinished(name: str) -> bool:
    """Return True if a writer has not yet given the file its final name.

    >>> is_unfinished("day.csv.part"), is_unfinished("day.csv")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in _UNFINISHED


def as_file(name: str, data: bytes, shown: str) -> File:
    """Return the file with its kind; `InputError` HF201 if it is empty or of an unknown kind."""
    if not data:
        raise refused(shown, "is empty")
    if data.startswith(_PARQUET_MAGIC):
        return File(name, Kind.PARQUET, data)
    path = PurePosixPath(name.lower())
    packed = path.suffix in _PACKED
    inner = path.with_suffix("") if packed else path
    kind = _KINDS.get(inner.suffix, Kind.CSV if packed else None)
    if kind is None:
        raise refused(
            shown,
            "is neither Parquet nor CSV nor JSON lines: name the files *.csv or *.jsonl, packed *.csv.gz or *.jsonl.zst",
        )
    return File(name, kind, data)


def of_one_kind(files: Iterable[File], shown: str) -> tuple[File, ...]:
    """Return `files` in the order of their names; `InputError` HF201 if there is none, or several kinds."""
    found = tuple(sorted(files, key=lambda file: file.name))
    kinds = sorted({file.kind for file in found})
    if not found:
        raise refused(shown, "holds no file of rows")
    if len(kinds) > 1:
        examples = [next(file.name for file in found if file.kind is kind) for kind in kinds]
        listed = ", ".join(f"{kind} ({name})" for kind, name in zip(kinds, examples, strict=True))
        raise refused(
            shown,
            f"holds files of several kinds: {listed}",
            next_command="load each kind as a batch of its own",
        )
    return found


def all_finished(names: Iterable[str], shown: str) -> tuple[str, ...]:
    """Return the names of the files of rows, in order; `InputError` HF201 if one of them is still being written."""
    data = tuple(sorted(name for name in names if is_data(name)))
    unfinished = [name for name in data if is_unfinished(name)]
    if unfinished:
        raise refused(
            shown,
            f"is still being written: {unfinished[0]} is there",
            next_command="the same command when the delivery is complete",
        )
    return data
