"""Rows of `versions`: what was trained, by which recipe, and whether it may be rolled out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import Connection, func, insert, select, update

from holdfast.errors import ConflictError, NotFoundError
from holdfast.formatting import counted
from holdfast.store.db import events, schema
from holdfast.store.models import untrained_loads

if TYPE_CHECKING:
    from holdfast.train.artifact import Role, VersionMetadata

State = Literal["registered", "qualified", "refused"]
"""The evaluation of a registered version has not ended; the other two states are final."""

_VERSIONS: Final = schema.versions
_TAINTS: Final = schema.taints


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version.

    `version` is ``v<number>-<first 8 digits of the digest>``; `digest` names its file among the blobs.
    `created_at_us` is when it was registered, `begun_at_us` when its training began; None if that is not known.
    `training_digest` is as in `train.artifact.training_digest`; None if it is not known.
    """

    version: str
    model: str
    number: int
    digest: str
    bytes: int
    snapshot: str
    contract_hash: str
    features_hash: str
    learner: str
    role: Role
    state: State
    created_at_us: int
    begun_at_us: int | None = None
    training_digest: str | None = None


def register(
    connection: Connection,
    metadata: VersionMetadata,
    *,
    digest: str,
    size_bytes: int,
    now_us: int,
    begun_at_us: int | None = None,
    training_digest: str | None = None,
) -> VersionRow:
    """Add a version, with its event, to the caller's transaction; the blob `digest` must be durable already.

    The same digest again is the same version: its row is returned as it is and nothing is written. `begun_at_us` is when the
    training began, microseconds since 1970 UTC, and `training_digest` states what it was trained on; None if that is not known.
    """
    known = find(connection, digest)
    if known is not None:
        return known
    largest = select(func.max(_VERSIONS.c.number)).where(_VERSIONS.c.model == metadata.model)
    number = (connection.execute(largest).scalar_one() or 0) + 1
    row = VersionRow(
        version=f"v{number}-{digest[:8]}",
        model=metadata.model,
        number=number,
        digest=digest,
        bytes=size_bytes,
        snapshot=metadata.snapshot,
        contract_hash=metadata.contract_hash,
        features_hash=metadata.features_hash,
        learner=metadata.learner,
        role=metadata.role,
        state="registered",
        created_at_us=now_us,
        begun_at_us=begun_at_us,
        training_digest=training_digest,
    )
    connection.execute(insert(_VERSIONS).values(asdict(row)))
    untrained_loads.put(connection, row.version, metadata.untrained_loads)
    events.append(
        connection,
        at_us=now_us,
        kind="version.registered",
        subject=row.version,
        explanation=(
            f"{row.role} of {row.model} by {row.learner}: {counted(metadata.rows, 'row')} of snapshot {row.snapshot}, "
            f"{row.bytes} bytes"
        ),
    )
    return row


def find(connection: Connection, digest: str) -> VersionRow | None:
    """Return the version whose file has `digest`; None if there is none."""
    query = select(_VERSIONS).where(_VERSIONS.c.digest == digest)
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else VersionRow(**found)


def is_trained(connection: Connection, model: str, snapshot: str, begun_at_us: int) -> bool:
    """Return True if the training of `model` on `snapshot` that began then, microseconds since 1970 UTC, has a version."""
    query = select(_VERSIONS.c.version).where(
        _VERSIONS.c.model == model, _VERSIONS.c.snapshot == snapshot, _VERSIONS.c.begun_at_us == begun_at_us
    )
    return connection.execute(query.limit(1)).first() is not None


def find_equal(connection: Connection, model: str, role: Role, training_digest: str) -> VersionRow | None:
    """Return the newest version of `model` with that `training_digest` that is not tainted; None if there is none."""
    tainted = select(_TAINTS.c.subject).where(_TAINTS.c.kind == "version")
    query = (
        select(_VERSIONS)
        .where(
            _VERSIONS.c.model == model,
            _VERSIONS.c.role == role,
            _VERSIONS.c.training_digest == training_digest,
            _VERSIONS.c.version.not_in(tainted),
        )
        .order_by(_VERSIONS.c.number.desc())
        .limit(1)
    )
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else VersionRow(**found)


def get(connection: Connection, version: str) -> VersionRow:
    """Return the version of that name. Raises `NotFoundError` HF303 when there is none."""
    query = select(_VERSIONS).where(_VERSIONS.c.version == version)
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        raise NotFoundError("HF303", f"there is no version {version!r}", next_command="holdfast status")
    return VersionRow(**found)


def of_model(connection: Connection, model: str) -> list[VersionRow]:
    """Return every version of a model, the newest first."""
    query = select(_VERSIONS).where(_VERSIONS.c.model == model).order_by(_VERSIONS.c.number.desc())
    return [VersionRow(**row) for row in connection.execute(query).mappings()]


def newest(connection: Connection, model: str, *, role: Role, state: State | None = None) -> VersionRow:
    """Return the newest version of a model in a role and, if given, a state.

    Raises `NotFoundError` HF303 when there is none.
    """
    for row in of_model(connection, model):
        if row.role == role and state in (None, row.state):
            return row
    described = f"{state} {role}" if state else role
    raise NotFoundError("HF303", f"the model {model!r} has no {described}", next_command="holdfast train")


def heuristic_of(connection: Connection, candidate: VersionRow) -> VersionRow:
    """Return the newest heuristic trained on the candidate's own snapshot. Raises `NotFoundError` HF303 when there is none."""
    for row in of_model(connection, candidate.model):
        if row.role == "heuristic" and row.snapshot == candidate.snapshot:
            return row
    raise NotFoundError(
        "HF303",
        f"there is no heuristic of the snapshot of {candidate.version}: {candidate.snapshot}",
        next_command="holdfast train",
    )


def champion(connection: Connection, model: str) -> VersionRow | None:
    """Return the champion of the model's newest traffic plan; None before the first plan."""
    plans = schema.traffic_plans
    newest_plan = (
        select(plans.c.champion).where(plans.c.model == model).order_by(plans.c.plan_id.desc()).limit(1)
    )
    name = connection.execute(newest_plan).scalar_one_or_none()
    return None if name is None else get(connection, name)


def set_state(connection: Connection, version: str, state: State, *, before: State) -> None:
    """Move a version from state `before` to `state` in the caller's transaction.

    Raises `ConflictError` HF304 when it is no longer in `before`: another process ended its evaluation.
    """
    changed = connection.execute(
        update(_VERSIONS)
        .where(_VERSIONS.c.version == version, _VERSIONS.c.state == before)
        .values(state=state)
    )
    if changed.rowcount != 1:
        raise ConflictError(
            "HF304",
            f"{version} is not {before} any more: another evaluation ended first",
            state="the result of the other evaluation is kept",
            next_command="holdfast status",
        )
