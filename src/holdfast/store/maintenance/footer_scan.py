"""Footers of files: which loads they hold, complete or in part, without a ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from holdfast.errors import IntegrityError
from holdfast.feeds import Manifest
from holdfast.store.files import parquet
from holdfast.store.files.data_files import ROWS_DIRECTORY
from holdfast.store.telemetry.collected_log import PREDICTIONS, SHADOWS
from holdfast.tables.snapshots import LoadKey

_SOURCES: Final = (IntegrityError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one load in one file, from `row_group` on; file `number` of `manifest.files` of that load."""

    manifest: Manifest
    number: int
    row_group: int
    rows: int

    @property
    def load(self) -> LoadKey:
        """Return its load."""
        return (self.manifest.feed, self.manifest.batch, self.manifest.epoch)


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """One file with its footer. `modified_us` is when it was last written, microseconds UTC."""

    path: str
    table: str
    feed: str
    rows: int
    bytes: int
    sha256: str
    modified_us: int
    parts: tuple[Part, ...]
    predictions: Mapping[str, Any] | None = None

    @property
    def attempt(self) -> str:
        """Return the attempt that wrote it."""
        return Path(self.path).name.partition("-")[0]


@dataclass(frozen=True, slots=True)
class CompleteLoad:
    """A load with all its files."""

    manifest: Manifest
    written_us: int


@dataclass(slots=True)
class Choice:
    """The files that together are the tables: each part of each load once.

    `left` gives the reason for every other file, `open` for each incomplete load.
    """

    loads: dict[LoadKey, CompleteLoad] = field(default_factory=dict)
    files: list[ScannedFile] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    open: dict[LoadKey, str] = field(default_factory=dict)


def on_disk(root: Path) -> list[str]:
    """Return every file of rows, by its path relative to the store's root, in order."""
    directory = root / ROWS_DIRECTORY
    found = directory.glob("*.parquet") if directory.is_dir() else ()
    return sorted(str(path.relative_to(root)) for path in found)


def footer_of(root: Path, path: str) -> tuple[Part, ...]:
    """Return the loads in the file at `path` by its footer alone; empty if it names none."""
    try:
        return _parts(parquet.manifest(root / path))
    except _SOURCES:
        return ()


def scan(root: Path, path: str) -> ScannedFile:
    """Read the file at `path` and verify the checksum of every page.

    Raises `IntegrityError` HF301 if it is damaged or lacks a manifest.
    """
    target = root / path
    footer = parquet.manifest(target)
    rows = parquet.read(target).height
    data = target.read_bytes()
    try:
        is_predictions = footer["table"] in (PREDICTIONS.name, SHADOWS.name)
        parts = () if is_predictions else _parts(footer)
        declared = int(footer["rows"]) if is_predictions else sum(part.rows for part in parts)
        scanned = ScannedFile(
            path=path,
            table=str(footer["table"]),
            feed="" if is_predictions else parts[0].manifest.feed,
            rows=rows,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            modified_us=target.stat().st_mtime_ns // 1000,
            parts=parts,
            predictions=footer if is_predictions else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise parquet.damaged(target, ValueError(str(error))) from error
    if rows != declared:
        raise parquet.damaged(target, ValueError(f"it has {rows} rows, {declared} in its footer"))
    return scanned


def choose(found: Iterable[ScannedFile]) -> Choice:
    """Choose the files that make up the tables. The same files give the same choice.

    A compacted file replaces those that it was made of, and the newest replaces earlier ones: it left out what was backed
    out by then, and nothing else. Of several attempts at one load the complete one is taken, and the first of these if
    their content is the same. Two attempts with different content contradict each other, and neither is taken.
    """
    choice = Choice()
    files = sorted(
        (each for each in found if each.parts),
        key=lambda each: (-len(each.parts), each.modified_us, each.path),
    )
    contradicted = _contradicted(files)
    chosen: dict[tuple[LoadKey, int], Part] = {}
    complete = _complete_attempts(files)
    for each in sorted(files, key=lambda each: _rank(each, complete)):
        if any(part.load in contradicted for part in each.parts):
            choice.left[each.path] = "another delivery with the same id and other content is there too"
        elif any((part.load, part.number) in chosen for part in each.parts):
            choice.left[each.path] = "its rows are in another file too"
        else:
            choice.files.append(each)
            chosen |= {(part.load, part.number): part for part in each.parts}
    choice.open |= dict.fromkeys(contradicted, "two deliveries with other content have its id")
    _sort_loads(choice, chosen)
    return choice


def _rank(each: ScannedFile, complete: set[str]) -> tuple[int, bool, int, str]:
    if len(each.parts) > 1:
        return (0, False, -each.modified_us, each.path)
    return (1, each.attempt not in complete, each.modified_us, each.path)


def _complete_attempts(files: list[ScannedFile]) -> set[str]:
    """Return the attempts that wrote every file of their load."""
    counted: dict[str, set[int]] = {}
    wanted: dict[str, int] = {}
    for each in files:
        for part in each.parts:
            counted.setdefault(each.attempt, set()).add(part.number)
            wanted[each.attempt] = part.manifest.files
    return {attempt for attempt, numbers in counted.items() if numbers == set(range(wanted[attempt]))}


def _contradicted(files: list[ScannedFile]) -> set[LoadKey]:
    declared: dict[LoadKey, set[tuple[str, str]]] = {}
    for each in files:
        for part in each.parts:
            declared.setdefault(part.load, set()).add((part.manifest.digest, part.manifest.contract_hash))
    return {load for load, contents in declared.items() if len(contents) > 1}


def _sort_loads(choice: Choice, chosen: Mapping[tuple[LoadKey, int], Part]) -> None:
    parts: dict[LoadKey, list[Part]] = {}
    for (load, _), part in chosen.items():
        parts.setdefault(load, []).append(part)
    written: dict[LoadKey, int] = {}
    for each in choice.files:
        for part in each.parts:
            written[part.load] = min(written.get(part.load, each.modified_us), each.modified_us)
    for load, there in parts.items():
        manifest, rows = there[0].manifest, sum(part.rows for part in there)
        if {part.number for part in there} != set(range(manifest.files)):
            choice.open[load] = f"{len(there)} of its {manifest.files} files are there"
        elif rows != manifest.rows_loaded + manifest.rows_quarantined:
            declared = f"{manifest.rows_loaded} + {manifest.rows_quarantined}"
            choice.open[load] = f"its files have {rows} rows, not {declared}"
        else:
            choice.loads[load] = CompleteLoad(manifest, written[load])
    for each in [file for file in choice.files if all(part.load in choice.open for part in file.parts)]:
        choice.files.remove(each)
        choice.left[each.path] = choice.open[each.parts[0].load]


def _parts(footer: Mapping[str, Any]) -> tuple[Part, ...]:
    listed = footer.get("parts")
    entries = listed if isinstance(listed, list) else [{**footer, "row_group": 0}]
    return tuple(_part(entry) for entry in entries)


def _part(entry: Mapping[str, Any]) -> Part:
    manifest = Manifest.from_dict(entry)
    if manifest is None or manifest.files < 1:
        raise ValueError("its footer lacks its load or the number of files")
    return Part(manifest, int(entry["file"]), int(entry["row_group"]), int(entry["rows"]))
