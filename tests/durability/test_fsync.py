"""Every acknowledgement of everything that the store does is durable, by the fsync lint (R1, P2)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.durability.durable_operations import deliver
from tests.durability.fsync_lint import NoTraceError, lint, traced
from tests.support import loader

LOADER = Path(loader.__file__)


def _traced(command: list[str], trace: Path) -> str:
    try:
        return traced(command, trace)
    except NoTraceError as error:
        pytest.skip(str(error))


def test_every_acknowledgement_is_durable(tmp_path: Path) -> None:
    """Loads, a model's file, a compaction, a snapshot, an exported table, a tombstone, a backup, a repair."""
    root, trace = tmp_path / "home", tmp_path / "trace"
    root.mkdir()
    out = _traced([sys.executable, "-m", "tests.durability.durable_operations", str(root)], trace)
    done = [line.split()[1] for line in out.splitlines()]
    assert done == ["ingest"] * 3 + [
        "blob",
        "compact",
        "snapshot",
        "export",
        "tombstone",
        "backup",
        "repair",
    ]
    found = dict(
        zip([f"{number} {name}" for number, name in enumerate(done)], lint(trace, root), strict=True)
    )
    assert found == dict.fromkeys(found, (set(), set()))


def test_a_backout_a_training_and_a_rebuilt_ledger_are_durable(tmp_path: Path) -> None:
    """Ledger, tombstones, online values, the files of models, and what a recovery sets aside (R6, R68)."""
    root, trace = tmp_path / "home", tmp_path / "trace"
    root.mkdir()
    out = _traced([sys.executable, "-m", "tests.durability.backout_and_rebuild", str(root)], trace)
    assert out.splitlines() == ["ACK backout", "ACK reload", "ACK train", "ACK recover 9 2"]
    assert lint(trace, root) == [(set(), set())] * 4


def test_a_loader_that_only_finds_out_that_all_is_there_is_durable_too(tmp_path: Path) -> None:
    """It may answer for one that was killed before its own sync."""
    root, trace = tmp_path / "store", tmp_path / "trace"
    deliveries = tmp_path / "in"
    deliveries.mkdir()
    paths = [str(deliver(deliveries, day)) for day in range(2)]
    out = _traced([sys.executable, str(LOADER), str(root), "-", *paths, paths[0]], trace)
    assert [line.split()[2] for line in out.splitlines()] == ["loaded"] * 2 + ["already_loaded"]
    assert lint(trace, root) == [(set(), set())] * 3


def test_the_lint_sees_what_is_not_synced(tmp_path: Path) -> None:
    """The lint itself: a plain write without fsync, acknowledged, is found with its name."""
    trace, file = tmp_path / "trace", tmp_path / "store" / "file"
    file.parent.mkdir()
    program = (
        "import os, sys; path = sys.argv[1]; f = os.open(path, os.O_CREAT | os.O_WRONLY);"
        "os.write(f, b'x'); os.write(1, b'ACK 1\\n');"
        "os.fsync(f); os.write(1, b'ACK 2\\n');"
        "os.fsync(os.open(os.path.dirname(path), 0)); os.write(1, b'ACK 3\\n')"
    )
    _traced([sys.executable, "-c", program, str(file)], trace)
    name = str(file)
    assert lint(trace, file.parent) == [({name}, {name}), (set(), {name}), (set(), set())]
