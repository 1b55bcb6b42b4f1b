"""Rows of `rollouts` and `pushes`: which version is being rolled out, how far, why, and with which outcome."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, update
from sqlalchemy.exc import IntegrityError as UniqueError

from holdfast.errors import ConflictError, NotFoundError
from holdfast.rollout import RESTING, PushOutcome, State
from holdfast.store.db import events, rows, schema

_PUSHES: Final = schema.pushes
_ROLLOUTS: Final = schema.rollouts
BAKING: Final = and_(
    _ROLLOUTS.c.state == State.PROMOTED,
    _PUSHES.c.outcome == PushOutcome.OPEN,
    _PUSHES.c.bake_until_us.is_not(None),
)
"""True for a push whose promotion is in its bake time."""


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout.

    `champion` is the version that a rollback restores, None for a model's first version; `policy_json` is the policy
    as declared when it began.
    """

    rollout_id: int
    model: str
    challenger: str
    champion: str | None
    state: State
    step: int
    policy_json: str
    started_at_us: int
    step_started_at_us: int
    changed_at_us: int
    reason: str
    actor: str

    @property
    def running(self) -> bool:
        """Return True if the control loop still has work to do for it."""
        return self.state not in RESTING

    @property
    def subject(self) -> str:
        """Return the subject of its events."""
        return subject_of(self.rollout_id)


def subject_of(rollout: int) -> str:
    """Return the subject of the events of rollout number `rollout`."""
    return f"rollout/{rollout}"


def insert_pending(
    connection: Connection,
    *,
    model: str,
    challenger: str,
    champion: str | None,
    policy: str,
    reason: str,
    actor: str,
    now_us: int,
) -> int:
    """Insert a pending rollout in the caller's transaction; return its number.

    Raises `ConflictError` HF404 when another one is under way.
    """
    try:
        return rows.add(
            connection,
            _ROLLOUTS,
            {
                "model": model,
                "challenger": challenger,
                "champion": champion,
                "state": State.PENDING,
                "step": 0,
                "policy_json": policy,
                "started_at_us": now_us,
                "step_started_at_us": now_us,
                "changed_at_us": now_us,
                "reason": reason,
                "actor": actor,
            },
        )
    except UniqueError as error:
        raise ConflictError(
            "HF404",
            f"another rollout of {model!r} is under way",
            state="nothing was written",
            next_command="holdfast status, then holdfast rollback or wait for its end",
        ) from error


def move(
    connection: Connection,
    before: RolloutRow,
    *,
    state: State,
    step: int,
    reason: str,
    actor: str,
    now_us: int,
) -> None:
    """Compare and set: bring `before` to `state` and `step` in the caller's transaction.

    Raises `ConflictError` HF304 when another process moved it; then nothing is written.
    """
    changed = connection.execute(
        update(_ROLLOUTS)
        .where(
            _ROLLOUTS.c.rollout_id == before.rollout_id,
            _ROLLOUTS.c.state == before.state,
            _ROLLOUTS.c.step == before.step,
        )
        .values(
            state=state,
            step=step,
            step_started_at_us=now_us,
            changed_at_us=now_us,
            reason=reason,
            actor=actor,
        )
    )
    if changed.rowcount != 1:
        raise ConflictError(
            "HF304",
            f"rollout {before.rollout_id} is not {before.state} at step {before.step} any more",
            state="nothing was written",
            next_command="holdfast status",
        )


def update_reason(connection: Connection, row: RolloutRow, *, reason: str, actor: str) -> None:
    """Replace the reason and actor of `row`, whose state stays, in the caller's transaction."""
    connection.execute(
        update(_ROLLOUTS)
        .where(_ROLLOUTS.c.rollout_id == row.rollout_id, _ROLLOUTS.c.state == row.state)
        .values(reason=reason, actor=actor)
    )


def get(connection: Connection, rollout: int) -> RolloutRow:
    """Return rollout number `rollout`. Raises `NotFoundError` HF303 when there is none."""
    found = _first(connection, _ROLLOUTS.c.rollout_id == rollout)
    if found is None:
        raise NotFoundError("HF303", f"there is no rollout {rollout}", next_command="holdfast status")
    return found


def newest(connection: Connection, model: str) -> RolloutRow:
    """Return the newest rollout of `model`. Raises `NotFoundError` HF410 when there is none."""
    found = find_newest(connection, model)
    if found is None:
        raise NotFoundError("HF410", f"{model!r} was never rolled out", next_command="holdfast rollout start")
    return found


def find_newest(connection: Connection, model: str) -> RolloutRow | None:
    """Return the newest rollout of `model`; None when there is none."""
    return _first(connection, _ROLLOUTS.c.model == model)


def under_way(connection: Connection, model: str) -> RolloutRow | None:
    """Return the one rollout of `model` that is under way.

    It need not be the newest: a promotion that is rolled back may be older than rollouts that have ended.
    """
    return _first(connection, _ROLLOUTS.c.model == model, _ROLLOUTS.c.state.not_in(sorted(RESTING)))


def promotion(connection: Connection, model: str, champion: str) -> RolloutRow | None:
    """Return the newest rollout that promoted `champion` and is not undone."""
    return _first(
        connection,
        _ROLLOUTS.c.model == model,
        _ROLLOUTS.c.challenger == champion,
        _ROLLOUTS.c.state == State.PROMOTED,
    )


def last_of(connection: Connection, model: str, challenger: str) -> RolloutRow | None:
    """Return the newest rollout of the version `challenger`; None when it was never rolled out."""
    return _first(connection, _ROLLOUTS.c.model == model, _ROLLOUTS.c.challenger == challenger)


def is_pushed_after(connection: Connection, model: str, version: str, rollout: int) -> bool:
    """Return True if a rollout that is newer than number `rollout` pushes `version`, or pushed it, however it ended.

    One that was cancelled before it had traffic pushed nothing.
    """
    pushed = (_ROLLOUTS.c.challenger == version, _ROLLOUTS.c.state != State.CANCELLED)
    last = _first(connection, _ROLLOUTS.c.model == model, *pushed)
    return last is not None and last.rollout_id > rollout


def last_ended(connection: Connection, model: str, states: Iterable[State]) -> RolloutRow | None:
    """Return the rollout that came last, by the clock, to one of `states`."""
    query = select(_ROLLOUTS).where(_ROLLOUTS.c.model == model, _ROLLOUTS.c.state.in_(sorted(states)))
    return rows.first(connection, query.order_by(_ROLLOUTS.c.changed_at_us.desc()), RolloutRow)


def of_model(connection: Connection, model: str) -> tuple[RolloutRow, ...]:
    """Return every rollout of `model`, the newest first."""
    return tuple(rows.read(connection, _newest(_ROLLOUTS.c.model == model), RolloutRow))


def contract_hashes(connection: Connection, model: str) -> frozenset[str]:
    """Return the hashes of the contracts of every version of `model` that was rolled out, or is about to be."""
    versions = schema.versions
    query = select(versions.c.contract_hash).join(_ROLLOUTS, _ROLLOUTS.c.challenger == versions.c.version)
    return frozenset(connection.scalars(query.where(_ROLLOUTS.c.model == model).distinct()))


def first_reached_us(connection: Connection, rollout: int, states: Iterable[State]) -> int | None:
    """Return when rollout number `rollout` first came to one of `states`, microseconds since 1970 UTC; None if it never did."""
    kinds = [f"rollout.{state}" for state in states]
    query = select(func.min(schema.events.c.at_us)).where(
        schema.events.c.subject == subject_of(rollout), schema.events.c.kind.in_(kinds)
    )
    return connection.execute(query).scalar_one_or_none()


def rollback_seconds(connection: Connection, rollout: int) -> float | None:
    """Return the seconds from the decision to roll back until a probe confirmed it; None without a rollback."""
    subject = subject_of(rollout)
    decided = events.newest(connection, subject=subject, kind="rollout.rolling_back", limit=1)
    confirmed = events.newest(connection, subject=subject, kind="rollout.rolled_back", limit=1)
    if not decided or not confirmed:
        return None
    return (confirmed[0].at_us - decided[0].at_us) / 1e6


def _newest(*which: ColumnElement[bool]) -> Select[Any]:
    return select(_ROLLOUTS).where(*which).order_by(_ROLLOUTS.c.rollout_id.desc())


def _first(connection: Connection, *which: ColumnElement[bool]) -> RolloutRow | None:
    return rows.first(connection, _newest(*which), RolloutRow)


@dataclass(frozen=True, slots=True)
class PushRow:
    """One push.

    `labelled_by` is "holdfast" or an operator; `requests` is how many its challenger got until its end, None before;
    `bake_until_us` is None before it is promoted.
    """

    rollout_id: int
    model: str
    outcome: PushOutcome
    reason: str
    labelled_by: str
    labelled_at_us: int
    requests: int | None = None
    bake_until_us: int | None = None


def put_push(connection: Connection, row: PushRow) -> None:
    """Label a push, or replace its label, in the caller's transaction."""
    rows.put(connection, _PUSHES, asdict(row))


def push_of(connection: Connection, rollout: int) -> PushRow | None:
    """Return the push of rollout number `rollout`; None before it is opened."""
    return rows.first(connection, select(_PUSHES).where(_PUSHES.c.rollout_id == rollout), PushRow)


def pushes_of(connection: Connection, model: str) -> tuple[PushRow, ...]:
    """Return every push of `model`, the newest first."""
    query = select(_PUSHES).where(_PUSHES.c.model == model).order_by(_PUSHES.c.rollout_id.desc())
    return tuple(rows.read(connection, query, PushRow))


def baking(connection: Connection, model: str) -> PushRow | None:
    """Return the promotion of `model` that is in its bake time; a newer promotion ends the bake time of an older one."""
    query = (
        select(_PUSHES)
        .join(_ROLLOUTS, _ROLLOUTS.c.rollout_id == _PUSHES.c.rollout_id)
        .where(_PUSHES.c.model == model, BAKING)
        .order_by(_PUSHES.c.rollout_id.desc())
    )
    return rows.first(connection, query, PushRow)
