"""Preview, show and compare snapshots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from holdfast.control.training.examples import choose, read_examples, split_days
from holdfast.declaration import Model
from holdfast.errors import RefusedError
from holdfast.monitor.traffic_record import TrafficComparison
from holdfast.store import Store
from holdfast.store.catalog import selections, snapshots
from holdfast.store.catalog.selections import KeptSelection
from holdfast.store.db.ledger import Transaction
from holdfast.store.feeds import batch_profiles, snapshot_quality
from holdfast.store.telemetry import traffic_comparison
from holdfast.tables import Snapshot
from holdfast.tables.row_selection import SelectedRows
from holdfast.tables.snapshot_diff import TableChange, compare_tables
from holdfast.tables.snapshot_quality import SnapshotQuality, assess_quality


@dataclass(frozen=True, slots=True)
class Preview:
    """The rows that training on a snapshot would use.

    `found` is the number of training rows before the selection, without held-out ones.
    """

    snapshot: Snapshot
    found: int
    held_out: int
    selected: SelectedRows

    def as_dict(self) -> dict[str, Any]:
        """Return the preview in plain JSON types."""
        return {
            **shown(self.snapshot),
            "rows_total": self.found,
            "rows_selected": self.selected.frame.height,
            "rows_held_out": self.held_out,
            "left_out": self.selected.counts,
            "slices": [asdict(each) for each in self.selected.slices],
            "warnings": list(self.selected.warnings),
        }


def shown(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot in plain JSON types."""
    return {
        "snapshot": snapshot.snapshot,
        "table_version": snapshot.table_version,
        "contract": snapshot.contract_hash,
        "created_at_us": snapshot.created_at_us,
        "tables": [asdict(table) for table in snapshot.tables],
        "incomplete_loads": [list(load) for load in snapshot.incomplete_loads],
    }


def preview(store: Store, model: Model, snapshot: Snapshot, *, seed: int = 0) -> Preview:
    """Choose the rows of `snapshot` that `model` would be trained on, and record the choice.

    Training on it with the same seed and selection chooses the same rows.

    Parameters
    ----------
    store, model
        The store, and the model.
    snapshot
        The snapshot.
    seed
        Decides which rows a sample or a cap keeps.

    Raises
    ------
    InputError
        HF401 if there are too few rows, or a quota is missed.
    RefusedError
        HF405 or HF407 if the selection refuses the rows.
    """
    examples = read_examples(store, model, model.aggregates, snapshot.snapshot)
    split = split_days(model, examples.frame)
    chosen = choose(model, split.train, examples.rejected, seed)
    with store.ledger.write() as connection:
        selections.keep(
            connection, snapshot.snapshot, model.selection, seed, chosen, found=split.train.height
        )
    return Preview(snapshot, split.train.height, split.holdout.height, chosen)


def assess(store: Store, snapshot: str, *, now_us: int) -> SnapshotQuality:
    """Return how good the data of `snapshot` are now, and keep it."""
    with store.ledger.write() as connection:
        found = assess_quality(snapshot_quality.loads_of(connection, snapshots.get(connection, snapshot)))
        snapshot_quality.put(connection, snapshot, found, now_us=now_us)
    return found


def kept_quality(connection: Transaction, snapshot: str) -> SnapshotQuality | None:
    """Return how good the data of `snapshot` were when it was last assessed; None if it never was."""
    return snapshot_quality.find(connection, snapshot)


def refuse_poor(store: Store, snapshot: str, at_least: float | None, *, now_us: int) -> None:
    """Assess `snapshot`, and raise `RefusedError` HF411 if its quality is below `at_least` (R38)."""
    found = assess(store, snapshot, now_us=now_us)
    if at_least is not None and found.score < at_least:
        raise RefusedError(
            "HF411",
            f"snapshot {snapshot} has {found.describe()}; the model needs {100 * at_least:.1f} %",
            state="nothing was trained",
            next_command="holdfast feeds, which lists the violations, or a lower snapshot_quality in the model file",
        )


def show(connection: Transaction, name: str) -> tuple[Snapshot, list[KeptSelection]]:
    """Return the snapshot of that name and every selection of it. Raises `NotFoundError` HF303 if there is none."""
    return snapshots.get(connection, name), selections.of_snapshot(connection, name)


def diff(connection: Transaction, before: str, after: str) -> tuple[TableChange, ...]:
    """Compare the tables of two snapshots. Raises `NotFoundError` HF303 if one does not exist."""
    first, second = snapshots.get(connection, before), snapshots.get(connection, after)
    return compare_tables(
        batch_profiles.of_snapshot(connection, first), batch_profiles.of_snapshot(connection, second)
    )


def last_traffic_comparison(store: Store, model: str) -> TrafficComparison | None:
    """Return the control loop's last comparison of live traffic with training data; None before the first."""
    with store.ledger.read() as connection:
        return traffic_comparison.last(connection, model)
