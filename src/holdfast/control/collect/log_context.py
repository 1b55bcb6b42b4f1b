"""The context for reading a log: the slices of the model's rollouts, and the promotion that is baking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from holdfast.contract import Contract
from holdfast.errors import InputError, IntegrityError, NotFoundError
from holdfast.rollout import Canary
from holdfast.store import Store
from holdfast.store.files import blobs
from holdfast.store.models import versions
from holdfast.store.rollout import pushes, rollouts
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.train.artifact import read_metadata

_LONGEST: Final = 63
"""A longer value is truncated: it is a name in a table, not data."""

Slicer: TypeAlias = Callable[[str, Sequence[Any]], tuple[str, ...]]
"""Returns the slices of a row, such as "carrier=AA", from the version that predicted it and its logged inputs."""


def no_slices(_version: str, _inputs: Sequence[Any]) -> tuple[str, ...]:
    """Return no slices: the slicer of a policy that names no columns."""
    return ()


@dataclass(frozen=True, slots=True)
class Baking:
    """A promotion in its bake time.

    Its evidence is all predictions of `challenger` since `since_us` (microseconds since 1970 UTC), under any plan.
    """

    rollout_id: int
    challenger: str
    since_us: int


@dataclass(frozen=True, slots=True)
class LogContext:
    """The context of the records of a log."""

    slicer: Slicer = no_slices
    baking: Baking | None = None


def read_context(store: Store, model: str) -> LogContext:
    """Return the context of the model's rollouts now."""
    with store.ledger.read() as connection:
        row = rollouts.under_way(connection, model)
        push = pushes.baking(connection, model)
        promoted = None if push is None else rollouts.get(connection, push.rollout_id)
    baking = None
    if promoted is not None:
        baking = Baking(promoted.rollout_id, promoted.challenger, promoted.changed_at_us)
    columns: tuple[str, ...] = ()
    for each in (row, promoted):
        if each is not None:
            columns = columns or _comparable(store, each)
    return LogContext(slicer_of(store, columns) if columns else no_slices, baking)


def _comparable(store: Store, row: RolloutRow) -> tuple[str, ...]:
    """Return the columns of the policy's slices that both versions have.

    With a column of the champion alone, the challenger's predictions would be in no slice, but its failures, which the
    champion serves, would be in one.
    """
    columns = tuple(Canary.from_json(row.policy_json).slices)
    for version in (row.challenger, row.champion):
        if version is not None and columns:
            known = _known_columns(store, version)
            columns = tuple(name for name in columns if name in known)
    return columns


def refuse_unguarded(store: Store, policy: Canary, challenger: str, champion: str | None) -> None:
    """Refuse a policy that guards slices by a column that one of the versions lacks.

    A version whose file is unreadable is skipped: other checks report it.

    Parameters
    ----------
    store
        The store.
    policy
        The policy of the rollout.
    challenger, champion
        The versions; the champion is None if there is none.

    Raises
    ------
    InputError
        HF107, because such a guard would get no request.
    """
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
    """Return a slicer by the values in `columns`. It ignores columns that the predicting version does not have.

    Logged inputs are in the order of that version's request columns. Rows of a version whose file cannot be read are in no
    slice: the log must be collected all the same.
    """

    def slices(version: str, inputs: Sequence[Any]) -> tuple[str, ...]:
        known = _known_columns(store, version)
        places = ((name, known.index(name)) for name in columns if name in known)
        return tuple(f"{name}={_value(inputs[at])}" for name, at in places if at < len(inputs))

    return slices


def _known_columns(store: Store, version: str) -> tuple[str, ...]:
    """Return the request columns of a version in order; none if its file cannot be read."""
    try:
        return _request_columns(store, version)
    except (IntegrityError, NotFoundError):
        return ()


@lru_cache(maxsize=64)
def _request_columns(store: Store, version: str) -> tuple[str, ...]:
    # Cached without end: a version never changes.
    with store.ledger.read() as connection:
        about = read_metadata(blobs.get(store.root, versions.get(connection, version).digest))
    return tuple(column.name for column in Contract.from_json(about.contract_json).request_columns)


def _value(value: object) -> str:
    """Return `value` as text, as the slices of a snapshot have it."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)[:_LONGEST]
