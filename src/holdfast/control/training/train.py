"""Train a candidate and its heuristic on a named snapshot.

The same snapshot, declaration, seed and environment give the same files. So an interrupted training can be run again: it
gives the same version, never a second one. So does another snapshot with the same training and held-out rows, such as one with
newer rows whose labels are not due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import polars as pl

from holdfast.control import user_code
from holdfast.control.ingest import contract_changes
from holdfast.control.ingest.online_features import backfill
from holdfast.control.interrupted_operations import report_interrupted
from holdfast.control.training import failed_trainings
from holdfast.control.training.environment import environment
from holdfast.control.training.examples import choose, read_examples, split_days
from holdfast.control.training.snapshots import refuse_poor
from holdfast.control.training.untrained_loads import find_untrained
from holdfast.control.user_code import UserCodeError
from holdfast.declaration import Model
from holdfast.errors import RefusedError
from holdfast.features import Feature, aggregates_to_json, tensors_from_frame
from holdfast.features.fitting import fit
from holdfast.features.graph import check_estimator, compose, feature_graph
from holdfast.features.precision import refuse_merged
from holdfast.feeds.measurements import digest_of
from holdfast.formatting import first_line, with_article
from holdfast.records import METADATA_COLUMNS, BatchId, Progress, sha256_hex
from holdfast.store import Store
from holdfast.store.backout import taints
from holdfast.store.catalog import lineage, selections, snapshots
from holdfast.store.db.failed_operations import Operation
from holdfast.store.feeds import violations
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.models.versions import VersionRow
from holdfast.tables.labels import LABEL_LOADS
from holdfast.tables.row_selection import SelectedRows, SliceCount
from holdfast.train import Learner, Split
from holdfast.train.artifact import (
    Role,
    UntrainedLoad,
    VersionMetadata,
    pack_version,
    training_digest,
)
from holdfast.train.conversion_check import TOLERANCE, predict, run_rows

STEPS: Final = 5
_COMPARED_ROWS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of training. Row counts are of the base feed's rows in the snapshot.

    `rows_unlabelled` had no label, and `rows_not_due` one that could not be known yet when the snapshot was
    made; `dropped` is the number of the others that each broken rule of the contract rejected. `rows_embargoed` have
    labels that were not due, or not known, before the held-out days. `left_out` is the number of training rows that each
    filter, the sample and each cap of the selection left out. Nothing was trained on them. `warnings` names quotas that were
    missed; `slices` has the training rows by slice before and after the selection. `is_new` is False if `version` was
    registered before: the same rows, declaration, seed and environment give the same version, also from another snapshot.
    """

    version: str
    heuristic: str
    snapshot: str
    rows_trained: int
    rows_held_out: int
    rows_unlabelled: int
    rows_not_due: int
    rows_embargoed: int
    dropped: dict[str, int]
    file_bytes: int
    left_out: dict[str, int]
    warnings: tuple[str, ...]
    slices: tuple[SliceCount, ...] = ()
    is_new: bool = True


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The common inputs of the two versions of one training."""

    model: Model
    snapshot: str
    split: Split
    selected: SelectedRows
    seed: int
    untrained: tuple[UntrainedLoad, ...]
    rows_digest: str


@dataclass(frozen=True, slots=True)
class _Made:
    """The file of a version with its metadata, and the digest of what it was trained on."""

    data: bytes
    about: VersionMetadata
    digest: str


def train(
    store: Store,
    model: Model,
    snapshot: str,
    *,
    now_us: int,
    clock_us: Callable[[], int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trained:
    """Train `model` and its heuristic on the older labelled days of `snapshot`, and register both versions.

    Both files are durable before one transaction registers the two versions. Features are fitted on the training days
    only. A label is used only if it was due: at the time of the snapshot, and for training before the first held-out day.
    A training that fails is the event `training.failed`. So is one whose process is killed: the next command that loads or
    trains, or the control loop, reports it.

    Parameters
    ----------
    store, model
        The store, and the model to train.
    snapshot
        The name of the snapshot.
    now_us
        When the training begins, microseconds since 1970 UTC.
    clock_us
        Returns the time, likewise, when the versions are registered or the training fails; None for `now_us`.
    seed
        The seed of the learner and the selection.
    progress
        Called with the number of finished steps and of all steps.

    Raises
    ------
    InputError
        HF401 if the snapshot has too few rows, also for a quota. Nothing is registered after any error.
    RefusedError
        HF405 or HF407 if the selection refuses the rows, HF411 if the snapshot's quality is below the declared one, HF402
        if a learner fails, HF208 if the snapshot has a suspect batch, HF406 if it is tainted, HF210 if a declared contract
        would misread loaded rows.
    NotFoundError
        HF303 if there is no such snapshot.
    """
    report_interrupted(store, now_us=now_us)
    with store.ledger.read() as connection:
        snapshots.get(connection, snapshot)
    operation, clock_us = Operation(now_us, snapshot), clock_us or (lambda: now_us)
    with failed_trainings.reported(store, model.name, operation, clock_us):
        return _train(store, model, operation, clock_us, seed, progress or (lambda _done, _of: None))


def _train(
    store: Store,
    model: Model,
    operation: Operation,
    clock_us: Callable[[], int],
    seed: int,
    step: Progress,
) -> Trained:
    snapshot, now_us = operation.source, operation.begun_at_us
    step(0, STEPS)
    with store.ledger.read() as connection:
        taints.refuse(connection, "snapshot", snapshot)
    refuse_suspects(store, snapshot)
    refuse_poor(store, snapshot, model.snapshot_quality, now_us=now_us)
    with store.ledger.read() as connection:
        for feed in model.feeds:
            contract_changes.refuse_misreading(connection, feed, state="nothing was trained")
    backfill(store, model.feeds, model.aggregates, now_us=now_us)  # online before the version can be
    examples = read_examples(store, model, model.aggregates, snapshot, with_batches=True)
    step(1, STEPS)
    split = split_days(model, examples.frame)
    selected = choose(model, split.train, examples.rejected, seed)
    with store.ledger.read() as connection:
        untrained = find_untrained(model, lineage.loads_in(connection, snapshot), split, selected.frame)
    recipe = _Recipe(model, snapshot, split, selected, seed, untrained, _digest_rows(split, selected))
    candidate = _make(recipe, model.features, model.learner, "candidate")
    step(3, STEPS)
    heuristic = _make(recipe, model.heuristic_features, model.heuristic, "heuristic")
    step(4, STEPS)
    (heuristic_row, row), is_new = _register(store, recipe, (heuristic, candidate), operation, clock_us)
    step(STEPS, STEPS)
    return Trained(
        version=row.version,
        heuristic=heuristic_row.version,
        snapshot=snapshot,
        rows_trained=selected.frame.height,
        rows_held_out=split.holdout.height,
        rows_unlabelled=examples.unlabelled,
        rows_not_due=examples.not_due,
        rows_embargoed=split.embargoed,
        dropped=examples.dropped,
        file_bytes=row.bytes,
        left_out=selected.counts,
        warnings=selected.warnings,
        slices=selected.slices,
        is_new=is_new,
    )


def _digest_rows(split: Split, selected: SelectedRows) -> str:
    """Return a digest of the rows that are trained on, with their weights, and of those held out, without their loads."""
    train = selected.frame
    if selected.weights is not None:
        train = train.with_columns(pl.Series("_weight", selected.weights))
    parts = (
        digest_of(each.drop(*METADATA_COLUMNS, LABEL_LOADS, strict=False)) for each in (train, split.holdout)
    )
    return sha256_hex(" ".join(parts))


def refuse_suspects(store: Store, snapshot: str) -> None:
    """Raise `RefusedError` HF208 if `snapshot` holds a suspect batch: nothing trains on it (R5, R15).

    The error names each suspect batch, and its first violation.
    """
    with store.ledger.read() as connection:
        found = violations.suspects_in(connection, snapshot)
    if not found:
        return
    wrong = dict[BatchId, str]()
    for row in found:
        wrong.setdefault(BatchId(row.feed, row.batch), row.explanation)
    first = next((row for row in found if row.check_name != violations.REREGISTERED), None)
    listed = "; ".join(f"{batch}: {why}" for batch, why in list(wrong.items())[:5])
    raise RefusedError(
        "HF208",
        f"snapshot {snapshot} holds {len(wrong)} suspect batch{'es' if len(wrong) > 1 else ''}: {listed}",
        state="nothing was trained",
        next_command=f"holdfast accept {found[0].feed} --all --reason WHY"
        if first is None
        else f"holdfast backout {first.feed} {first.batch}, or holdfast accept {first.feed} {first.batch} --reason WHY",
    )


def _make(recipe: _Recipe, features: Sequence[Feature], learner: Learner, role: Role) -> _Made:
    model, rows = recipe.model, recipe.selected.frame
    # A candidate gets every aggregate; the heuristic only those that it groups by, so that it can always predict.
    aggregates = model.aggregates if role == "candidate" else model.aggregates_read_by(features)
    fitted = fit(features, aggregates, model.contract, rows)
    feed = tensors_from_frame(fitted.inputs, rows)
    refuse_merged(features, feed)
    x = run_rows(feature_graph(fitted), feed, "features")
    y = rows[model.label].cast(pl.Float64).to_numpy()
    weights = recipe.selected.weights
    estimator = _fit(learner, x, y, fitted.names, recipe.seed, weights)
    check_estimator(fitted, estimator)
    expected = _predict(learner, estimator, x[:_COMPARED_ROWS])
    graph = compose(fitted, estimator)
    _check_composed(graph, feed, expected)
    about = VersionMetadata(
        model=model.name,
        role=role,
        contract_json=model.contract.to_json(),
        contract_hash=model.contract.hash,
        features_json=fitted.to_json(),
        features_hash=fitted.hash,
        aggregates_json=aggregates_to_json(aggregates),
        snapshot=recipe.snapshot,
        learner=learner.name,
        parameters=learner.parameters,
        seed=recipe.seed,
        environment=environment(model.learner, model.heuristic),
        rows=rows.height,
        trained_before_us=recipe.split.split_at_us,
        selection_json=model.selection.to_json(),
        untrained_loads=recipe.untrained,
    )
    return _Made(pack_version(graph, about), about, training_digest(graph, about, recipe.rows_digest))


def _fit(
    learner: Learner,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.float64],
    names: Sequence[str],
    seed: int,
    weights: npt.NDArray[np.float64] | None,
) -> onnx.ModelProto:
    """Return the graph that `learner` fits.

    Raises `RefusedError` HF402, which names the line, for whatever its code raises, and for what is no graph.
    """
    # A user's own learner needs no parameter for weights unless some are declared.
    weighted = {} if weights is None else {"weights": weights}
    try:
        fitted = user_code.call(learner.fit, x, y, names, seed=seed, **weighted)
    except UserCodeError as error:
        raise _learner_error(learner, f"failed: {error}") from error
    if not isinstance(fitted, onnx.ModelProto):
        raise _learner_error(learner, f"gave {with_article(type(fitted).__name__)} and no onnx.ModelProto")
    return fitted


def _predict(
    learner: Learner, estimator: onnx.ModelProto, x: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the probabilities of `estimator` for `x`. Raises `RefusedError` HF402 if there is not one for each row."""
    try:
        found = predict(estimator, x)
    except Exception as error:  # ONNX Runtime's own exceptions share no narrower base class
        raise _learner_error(learner, f"gave a graph that does not run: {first_line(error)}") from error
    if found.shape != (len(x),) or not ((found >= 0.0) & (found <= 1.0)).all():
        what = (
            f"gave predictions of shape {found.shape} for {len(x)} rows; one for each is needed, from 0 to 1"
        )
        raise _learner_error(learner, what)
    return found


def _learner_error(learner: Learner, why: str) -> RefusedError:
    return RefusedError(
        "HF402",
        f"the learner {type(learner).__name__} {why}",
        state="nothing was registered",
        next_command="correct the learner or its parameters, then holdfast train",
    )


def _register(
    store: Store,
    recipe: _Recipe,
    made: Sequence[_Made],
    operation: Operation,
    clock_us: Callable[[], int],
) -> tuple[list[VersionRow], bool]:
    """Register what was `made`; return its rows, and True if the last of them is a new version.

    Nothing is registered if all were made before from the same rows, in another snapshot.
    """
    equal = _find_equal(store, recipe.model.name, made)
    with blobs.registering(store.root):
        kept = [] if equal else [(blobs.put(store.root, each.data), each) for each in made]
        with store.ledger.write() as connection:
            taints.refuse(connection, "snapshot", recipe.snapshot)
            selections.keep(
                connection,
                recipe.snapshot,
                recipe.model.selection,
                recipe.seed,
                recipe.selected,
                found=recipe.split.train.height,
            )
            now_us = clock_us()
            failed_trainings.record_recovery(connection, recipe.model.name, now_us=now_us)
            if equal:
                return equal, False
            is_new = versions.find(connection, kept[-1][0]) is None
            rows = [
                versions.register(
                    connection,
                    each.about,
                    digest=digest,
                    size_bytes=len(each.data),
                    now_us=now_us,
                    begun_at_us=operation.begun_at_us,
                    training_digest=each.digest,
                )
                for digest, each in kept
            ]
            return rows, is_new


def _find_equal(store: Store, model: str, made: Sequence[_Made]) -> list[VersionRow]:
    """Return the versions that differ from those `made` in the names of their snapshots alone; empty if one has none."""
    with store.ledger.read() as connection:
        found = [versions.find_equal(connection, model, each.about.role, each.digest) for each in made]
    return [] if None in found else [row for row in found if row is not None]


def _check_composed(
    graph: onnx.ModelProto, feed: dict[str, npt.NDArray[np.generic]], expected: npt.NDArray[np.float32]
) -> None:
    few = {name: column[: len(expected)] for name, column in feed.items()}
    difference = np.abs(run_rows(graph, few, "probability") - expected)
    if not difference.max() <= TOLERANCE:
        raise RefusedError(
            "HF402",
            f"the composed model differs from its estimator by {difference.max():.3g} on a training row",
            state="nothing was registered",
            next_command="holdfast train with another learner",
        )
