"""How the records of a log are read for the rollouts of a model: which slices a row is in, and which promotion is watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from holdfast.contract import Contract
from holdfast.control.collect.shadow_pairs import Slicer, no_slices
from holdfast.errors import InputError, IntegrityError, NotFoundError
from holdfast.rollout import Canary
from holdfast.store import Store
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import pushes, rollouts
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.train.artifact import read_metadata

_LONGEST: Final = 63
"""A longer value is cut: it is a name in a table, and not data."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A promotion that is watched: the answers of `challenger` since `since_us` (microseconds since 1970 UTC) are its
    evidence, under whatever plan they were given."""

    rollout_id: int
    challenger: str
    since_us: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a stretch of a log is read for."""

    slicer: Slicer = no_slices
    watched: Watched | None = None


def reading_of(store: Store, model: str) -> Reading:
    """What the logs of `model` are read for now."""
    with store.ledger.read() as connection:
        row = rollouts.under_way_in(connection, model)
        push = pushes.watched_in(connection, model)
        promoted = None if push is None else rollouts.get_in(connection, push.rollout_id)
    watched = None
    if promoted is not None:
        watched = Watched(promoted.rollout_id, promoted.challenger, promoted.changed_at_us)
    columns: tuple[str, ...] = ()
    for each in (row, promoted):
        if each is not None:
            columns = columns or _comparable(store, each)
    return Reading(slicer_of(store, columns) if columns else no_slices, watched)


def _comparable(store: Store, row: RolloutRow) -> tuple[str, ...]:
    """The columns of the policy's slices that both versions have.

    By a column that only the champion has, the challenger's good answers would be in no slice, and the requests that it
    could not answer, which the champion answered, in one.
    """
    columns = tuple(Canary.from_json(row.policy_json).slices)
    for version in (row.challenger, row.champion):
        if version is not None and columns:
            known = _known_columns(store, version)
            columns = tuple(name for name in columns if name in known)
    return columns


def refuse_unguarded(store: Store, policy: Canary, challenger: str, champion: str | None) -> None:
    """Raise `InputError` HF107 where `policy` guards slices by a column that one of both versions is not asked with: the
    guard would see nothing. A version whose file cannot be read is for others to tell."""
    for version in (challenger, champion):
        known = () if version is None or not policy.slices else _known_columns(store, version)
        for name in policy.slices if known else ():
            if name not in known:
                raise InputError(
                    "HF107",
                    f"the slices of the rollout are by {name!r}, and {version} has no such column; "
                    f"it has {', '.join(known)}",
                    state="nothing was written",
                    next_command="holdfast check, when slices name columns that both versions have",
                )


def slicer_of(store: Store, columns: Sequence[str]) -> Slicer:
    """Names the slices of a row by its values in `columns`. What the version that answered does not know is left out.

    The inputs of a row stand in the order of the request columns of the version that answered. Rows of a version whose file
    cannot be read are in no slice: a log must be collected all the same.
    """

    def slices(version: str, inputs: Sequence[Any]) -> tuple[str, ...]:
        known = _known_columns(store, version)
        places = ((name, known.index(name)) for name in columns if name in known)
        return tuple(f"{name}={_value(inputs[at])}" for name, at in places if at < len(inputs))

    return slices


def _known_columns(store: Store, version: str) -> tuple[str, ...]:
    """The request columns of a version in order; none when its file cannot be read."""
    try:
        return _request_columns(store, version)
    except (IntegrityError, NotFoundError):
        return ()


@lru_cache(maxsize=64)
def _request_columns(store: Store, version: str) -> tuple[str, ...]:
    """A version never changes, so neither do its columns."""
    about = read_metadata(blobs.get(store, versions.get(store, version).digest))
    return tuple(column.name for column in Contract.from_json(about.contract_json).request_columns)


def _value(value: object) -> str:
    """A value as the slices of a snapshot have it."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)[:_LONGEST]
