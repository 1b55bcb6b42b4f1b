"""Rows of `labels` and `label_corrections`: every label of predictions, and when those that wait are decided again.

A label that waits has the place that its id names and the time of the next look. A look reads those that are due by an
index, so a label that waits costs nothing to the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from holdfast.errors import ConflictError
from holdfast.feedback import FEED_SOURCE, KnownLabel, Label, full_id, parse_id
from holdfast.store.db.schema import label_corrections, labels, outcomes, servers
from holdfast.store.db.statements import pieces, total

# As text: SQLite uses a partial index for its condition alone, and a parameter is none.
_WAITS: Final = labels.c.joined == literal_column("0")
_DONE: Final[Mapping[str, Any]] = {"server": None, "segment": None, "number": None, "look_at_us": None}


@dataclass(frozen=True, slots=True)
class NewLabel:
    """An accepted label or correction."""

    prediction_id: str
    value: float
    source: str
    received_at_us: int


@dataclass(frozen=True, slots=True)
class LabelledPrediction:
    """A label of a joined prediction with its number in the order of a reader, received at microseconds since 1970 UTC."""

    number: int
    prediction_id: str
    value: float
    received_at_us: int


def newest_labels(connection: Connection, predictions: Iterable[str]) -> dict[str, KnownLabel]:
    """Return the newest label of those among `predictions` that have one, of a caller; of label feeds if no caller sent one."""
    found: dict[str, KnownLabel] = {}
    for prediction, history in known_labels(connection, predictions).items():
        of_callers = [each for each in history if each.source != FEED_SOURCE]
        found[prediction] = (of_callers or history)[-1]
    return found


def known_labels(connection: Connection, predictions: Iterable[str]) -> dict[str, list[KnownLabel]]:
    """Return every label of those among `predictions` that have one: the first label, then the others in their order."""
    found: dict[str, list[KnownLabel]] = {}
    for each in histories(connection, sorted(set(predictions))):
        known = KnownLabel(each.value, each.source, each.received_at_us)
        found.setdefault(each.prediction_id, []).append(known)
    return found


def histories(connection: Connection, predictions: Sequence[str]) -> list[NewLabel]:
    """Return every label of `predictions`: of each one the first label, then its corrections in their order."""
    found: list[NewLabel] = []
    for table, order in ((labels, None), (label_corrections, label_corrections.c.received_at_us)):
        columns = (table.c.prediction_id, table.c.value, table.c.source, table.c.received_at_us)
        for part in pieces(predictions):
            query = select(*columns).where(table.c.prediction_id.in_(part)).order_by(order)
            found.extend(NewLabel(*row) for row in connection.execute(query))
    return found


def labelled(connection: Connection, predictions: Sequence[str]) -> set[str]:
    """Return those among `predictions` that have a label, joined or not."""
    found: set[str] = set()
    for part in pieces(predictions):
        query = select(labels.c.prediction_id).where(labels.c.prediction_id.in_(part))
        found.update(connection.execute(query).scalars())
    return found


def add(connection: Connection, accepted: Sequence[NewLabel], look_at_us: Mapping[str, int]) -> None:
    """Insert first labels, in the caller's transaction. Each waits to be decided at its time of `look_at_us`."""
    rows = []
    for label in accepted:
        place = parse_id(full_id(label.prediction_id))
        assert place is not None, "the id of an accepted label is one"
        rows.append(
            asdict(label)
            | {"joined": 0, "look_at_us": look_at_us[label.prediction_id]}
            | {"server": place.server, "segment": place.segment, "number": place.number}
        )
    if rows:
        connection.execute(insert(labels), rows)


def due(
    connection: Connection, *, now_us: int, limit: int, without_servers: Collection[str] = ()
) -> list[Label]:
    """Return up to `limit` labels that are to be decided at `now_us`, the longest due first.

    Those that name one of `without_servers` are left out: their model has a control loop of its own.
    """
    query = select(labels.c.prediction_id, labels.c.value, labels.c.received_at_us).where(
        _WAITS, labels.c.look_at_us <= now_us
    )
    if without_servers:
        query = query.where(labels.c.server.not_in(without_servers))
    query = query.order_by(labels.c.look_at_us, labels.c.prediction_id).limit(limit)
    return [Label(*row) for row in connection.execute(query)]


def look_again(connection: Connection, look_at_us: Mapping[str, int]) -> None:
    """Set when each of these labels is decided again, by prediction id."""
    if look_at_us:
        statement = update(labels).where(labels.c.prediction_id == bindparam("which"), _WAITS)
        connection.execute(
            statement.values(look_at_us=bindparam("at")),
            [{"which": prediction, "at": at_us} for prediction, at_us in look_at_us.items()],
        )


def wake(connection: Connection, server: str, segment: int, first: int, last: int, *, now_us: int) -> None:
    """Make labels due whose records are `first` to `last` of a segment: that part of the log was collected."""
    _wake(connection, now_us, server, labels.c.segment == segment, labels.c.number.between(first, last))


def wake_earlier_segments(connection: Connection, server: str, segment: int, *, now_us: int) -> None:
    """Make labels due that name a segment before `segment`: their log was closed."""
    _wake(connection, now_us, server, labels.c.segment < segment)


def _wake(connection: Connection, now_us: int, server: str, *which: ColumnElement[bool]) -> None:
    waiting = (_WAITS, labels.c.server == server, *which, labels.c.look_at_us > now_us)
    connection.execute(update(labels).where(*waiting).values(look_at_us=now_us))


def count_waiting(connection: Connection, *, now_us: int, at_most: int, source: str | None = None) -> int:
    """Return how many labels (of `source`) wait for a log that was not collected yet; `at_most` if there are more."""
    query = select(labels.c.prediction_id).where(_WAITS, labels.c.look_at_us > now_us)
    if source is not None:
        query = query.where(labels.c.source == source)
    counted = select(func.count()).select_from(query.limit(at_most).subquery())
    return int(connection.execute(counted).scalar_one())


def mark_joined(connection: Connection, predictions: Sequence[str]) -> None:
    """Mark these labels as joined with their predictions, and number their corrections anew.

    A reader of corrections goes by their numbers and reads those of joined labels alone, so none may get behind it.
    Raises `ConflictError` HF304 when another loop has joined one of them since; the transaction must not commit.
    """
    changed = 0
    for part in pieces(predictions):
        changed += connection.execute(
            update(labels).where(labels.c.prediction_id.in_(part), _WAITS).values(joined=1, **_DONE)
        ).rowcount
    if changed != len(predictions):
        raise ConflictError(
            "HF304", "the same labels were joined by another loop", state="nothing of this join was written"
        )
    for part in pieces(predictions):
        of_these = label_corrections.c.prediction_id.in_(part)
        query = select(label_corrections).where(of_these).order_by(label_corrections.c.label_correction_id)
        early = [dict(row) for row in connection.execute(query).mappings()]
        if early:
            connection.execute(delete(label_corrections).where(of_these))
            add_corrections(
                connection,
                [NewLabel(**{name: row[name] for name in NewLabel.__slots__}) for row in early],
            )


def remove(connection: Connection, predictions: Sequence[str], *, waiting: bool = False) -> None:
    """Delete the labels of `predictions` with their corrections; with `waiting` only those that are not joined."""
    for part in pieces(predictions):
        which: list[ColumnElement[bool]] = [labels.c.prediction_id.in_(part), *([_WAITS] if waiting else [])]
        named = select(labels.c.prediction_id).where(*which)
        connection.execute(delete(label_corrections).where(label_corrections.c.prediction_id.in_(named)))
        connection.execute(delete(labels).where(*which))


def replace_first(connection: Connection, replaced: Sequence[NewLabel]) -> None:
    """Replace the first label of each prediction. Only for those of label feeds: what a caller sent stays as it was sent."""
    for label in replaced:
        of_feeds = (labels.c.prediction_id == label.prediction_id, labels.c.source == FEED_SOURCE)
        connection.execute(update(labels).where(*of_feeds).values(**asdict(label)))


def add_corrections(connection: Connection, corrected: Sequence[NewLabel]) -> None:
    """Insert corrections, in the caller's transaction. Each is received later than what it corrects."""
    if corrected:
        connection.execute(insert(label_corrections), [asdict(label) for label in corrected])


def newest_correction(connection: Connection) -> int:
    """Return the number of the newest correction of every model; 0 if there is none."""
    newest = func.coalesce(func.max(label_corrections.c.label_correction_id), 0)
    return int(connection.execute(select(newest)).scalar_one())


def corrections_since(connection: Connection, model: str, number: int) -> list[LabelledPrediction]:
    """Return the corrections of joined predictions of `model` after number `number`, in their order."""
    columns = (
        label_corrections.c.label_correction_id,
        label_corrections.c.prediction_id,
        label_corrections.c.value,
        label_corrections.c.received_at_us,
    )
    query = (
        select(*columns)
        .join(outcomes, outcomes.c.prediction_id == label_corrections.c.prediction_id)
        .where(outcomes.c.model == model, label_corrections.c.label_correction_id > number)
        .order_by(label_corrections.c.label_correction_id)
    )
    return [LabelledPrediction(*row) for row in connection.execute(query)]


def first_since(
    connection: Connection, model: str, outcome_id: int, *, without: str
) -> list[LabelledPrediction]:
    """Return the first labels of joined predictions of `model` after the outcome `outcome_id`, not those from `without`."""
    columns = (outcomes.c.outcome_id, labels.c.prediction_id, labels.c.value, labels.c.received_at_us)
    query = (
        select(*columns)
        .join(labels, labels.c.prediction_id == outcomes.c.prediction_id)
        .where(outcomes.c.model == model, outcomes.c.outcome_id > outcome_id, labels.c.source != without)
        .order_by(outcomes.c.outcome_id)
    )
    return [LabelledPrediction(*row) for row in connection.execute(query)]


def count(connection: Connection, model: str | None = None) -> tuple[int, int]:
    """Return the number of labels (of `model`), and how many of them still wait for their predictions.

    A label that waits is of the model of the server that its id names; one of a server that never was is of no model.
    """
    if model is None:
        every, unjoined = connection.execute(select(func.count(), total(1 - labels.c.joined))).one()
        return every, unjoined
    joined = select(func.count()).select_from(outcomes).where(outcomes.c.model == model)
    of_model = select(servers.c.server).where(servers.c.model == model)
    waiting = select(func.count()).select_from(labels).where(_WAITS, labels.c.server.in_(of_model))
    found = connection.execute(select(joined.scalar_subquery(), waiting.scalar_subquery())).one()
    return found[0] + found[1], found[1]
