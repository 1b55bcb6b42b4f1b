"""Rows of `problems`: what health found, from the event of its begin to that of its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, or_, select, update

from holdfast.records import Severity, shortened
from holdfast.store.db import events, rows, schema

FOUND: Final = "problem.found"
ENDED: Final = "problem.ended"
"""The kinds of the events. Their subject is `<model>/<kind>/<subject>`."""

_PROBLEMS: Final = schema.problems
_EVENTS: Final = schema.events
_LONGEST_SUBJECT: Final = 127


@dataclass(frozen=True, slots=True)
class NewProblem:
    """A problem to store. `subject` is empty for the model as a whole."""

    model: str
    kind: str
    subject: str
    severity: Severity
    explanation: str
    next_command: str

    @property
    def key(self) -> tuple[str, str]:
        """Return what stays the same as long as the problem lasts."""
        return self.kind, self.subject


@dataclass(frozen=True, slots=True)
class ProblemRow(NewProblem):
    """A stored problem with the numbers of its events; `ended_event_id` is None while it lasts."""

    problem_id: int
    found_event_id: int
    ended_event_id: int | None


def open_ones(connection: Connection, model: str) -> list[ProblemRow]:
    """Return the problems of `model` that last, in the order in which they were found."""
    query = select(_PROBLEMS).where(_PROBLEMS.c.model == model, _PROBLEMS.c.ended_event_id.is_(None))
    return rows.read(connection, query.order_by(_PROBLEMS.c.problem_id), ProblemRow)


def find(connection: Connection, problem: NewProblem, *, now_us: int) -> None:
    """Store a problem that begins, with its event, in the caller's transaction."""
    event = events.append(
        connection,
        at_us=now_us,
        kind=FOUND,
        subject=event_subject(problem.model, problem.kind, problem.subject),
        explanation=f"{problem.explanation}; next: {problem.next_command}",
    )
    values = {name: getattr(problem, name) for name in NewProblem.__dataclass_fields__}
    rows.add(connection, _PROBLEMS, values | {"found_event_id": event, "ended_event_id": None})


def end(connection: Connection, problem: ProblemRow, *, explanation: str, now_us: int) -> None:
    """Store that a problem has ended, with its event, in the caller's transaction."""
    event = events.append(
        connection,
        at_us=now_us,
        kind=ENDED,
        subject=event_subject(problem.model, problem.kind, problem.subject),
        explanation=explanation,
    )
    connection.execute(
        update(_PROBLEMS).where(_PROBLEMS.c.problem_id == problem.problem_id).values(ended_event_id=event)
    )


def of_event(connection: Connection, event: int) -> ProblemRow | None:
    """Return the problem whose begin or end is the event with this number; None if it is another event."""
    query = select(_PROBLEMS).where(
        or_(_PROBLEMS.c.found_event_id == event, _PROBLEMS.c.ended_event_id == event)
    )
    return rows.first(connection, query, ProblemRow)


def found_at_us(connection: Connection, problem: ProblemRow) -> int:
    """Return when a problem was found, microseconds since 1970 UTC."""
    query = select(_EVENTS.c.at_us).where(_EVENTS.c.event_id == problem.found_event_id)
    return int(connection.execute(query).scalar_one())


def event_subject(model: str, kind: str, subject: str) -> str:
    """Return the subject of a problem's events; a long one is shortened and gets a digest.

    >>> event_subject("m", "feed_suspect", "flights/2013-01-05"), event_subject("m", "no_requests", "")
    ('m/feed_suspect/flights/2013-01-05', 'm/no_requests')
    """
    name = f"{model}/{kind}/{subject}" if subject else f"{model}/{kind}"
    return shortened(name, _LONGEST_SUBJECT)
