"""What may go, against brute force: no file that a table or a pinned snapshot needs, and every other that is old."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from holdfast.tables.retention import FileLifetime, ReadableSnapshot, plan_vacuum

NOW_US, KEEP_US = 1_000, 300


@st.composite
def stores(draw: st.DrawFn) -> tuple[list[FileLifetime], list[ReadableSnapshot]]:
    """Files of two tables with versions 1 to 12, made at 50 times their number, and snapshots of some of them."""
    files = []
    for number in range(draw(st.integers(0, 12))):
        added = draw(st.integers(1, 11))
        removed = draw(st.one_of(st.none(), st.integers(added + 1, 12)))
        removed_at_us = None if removed is None else 80 * removed
        files.append(
            FileLifetime(f"f{number}", draw(st.sampled_from("ab")), 10, added, removed, removed_at_us)
        )
    snapshots = []
    for number in range(draw(st.integers(0, 6))):
        version = draw(st.integers(1, 12))
        tables = draw(st.sampled_from([frozenset("a"), frozenset("ab")]))
        needed = draw(st.sampled_from([(), (), ("v1",)]))
        snapshots.append(ReadableSnapshot(f"s{number}", version, 80 * version + number, tables, needed))
    return files, snapshots


def _reads(snapshot: ReadableSnapshot, files: list[FileLifetime]) -> set[str]:
    """What reading the snapshot opens, reported again in other words."""
    return {
        file.path
        for file in files
        if file.table in snapshot.tables
        and snapshot.table_version in range(file.added_version, file.removed_version or 99)
    }


@given(stores(), st.integers(0, 3))
def test_nothing_that_is_needed_goes_and_everything_else_does(
    store: tuple[list[FileLifetime], list[ReadableSnapshot]], newest: int
) -> None:
    files, snapshots = store
    shown = plan_vacuum(files, snapshots, now_us=NOW_US, keep_us=KEEP_US, keep_last=newest)
    gone = {file.path for file in shown.files}
    ages = sorted(
        ((snapshot.created_at_us, snapshot.table_version, snapshot.snapshot) for snapshot in snapshots),
        reverse=True,
    )
    youngest = {name for *_, name in ages[:newest]}
    for snapshot in snapshots:
        must = (
            bool(snapshot.needed_by)
            or snapshot.snapshot in youngest
            or snapshot.created_at_us > NOW_US - KEEP_US
        )
        assert (snapshot.snapshot in shown.pinned) == must
        if must:
            assert not _reads(snapshot, files) & gone
        assert (snapshot.snapshot in shown.snapshots) == bool(_reads(snapshot, files) & gone)
    needed = {
        path
        for snapshot in snapshots
        if snapshot.snapshot in shown.pinned
        for path in _reads(snapshot, files)
    }
    for file in files:
        young = file.removed_at_us is None or file.removed_at_us > NOW_US - KEEP_US
        assert (file.path in gone) == (not young and file.path not in needed)
    assert shown == plan_vacuum(files[::-1], snapshots, now_us=NOW_US, keep_us=KEEP_US, keep_last=newest)
