"""Rows of `webhooks` and `webhook_responses`: declared webhooks, and their responses before steps of a rollout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, update

from holdfast.records import Verdict, sha256_hex
from holdfast.rollout import RESTING, Hook
from holdfast.store.db import event_chain, event_cursors, schema

_HOOKS: Final = schema.webhooks
_RESPONSES: Final = schema.webhook_responses
_ROLLOUTS: Final = schema.rollouts
_NAME_LETTERS: Final = 63


@dataclass(frozen=True, slots=True)
class HookResponseRow:
    """The response of a webhook to one decision, `event` at `step` of a rollout.

    `attempts` is how often it got the request; with 0, `requested_at_us` is when the request was put. `request_json` is its
    body.
    """

    rollout_id: int
    event: str
    step: int
    webhook: str
    verdict: Verdict
    explanation: str
    requested_at_us: int
    request_json: str
    attempts: int


_COLUMNS: Final = tuple(_RESPONSES.c[field.name] for field in fields(HookResponseRow))


def declare(connection: Connection, model: str, hooks: Sequence[Hook], *, now_us: int) -> None:
    """Replace the webhooks of `model`. A new one is notified of later events only."""
    before = {hook.name for hook in of_model(connection, model)}
    connection.execute(delete(_HOOKS).where(_HOOKS.c.model == model))
    newest = event_chain.newest_head(connection)
    for hook in hooks:
        connection.execute(
            insert(_HOOKS).values(
                model=model, webhook=hook.name, webhook_json=hook.to_json(), declared_at_us=now_us
            )
        )
        if hook.name not in before and newest is not None:
            event_cursors.advance(connection, follower_of(model, hook.name), newest.event_id)


def of_model(connection: Connection, model: str) -> tuple[Hook, ...]:
    """Return the webhooks of `model`, by name."""
    query = select(_HOOKS.c.webhook_json).where(_HOOKS.c.model == model).order_by(_HOOKS.c.webhook)
    return tuple(Hook.from_json(document) for document in connection.execute(query).scalars())


def follower_of(model: str, hook: str) -> str:
    """Return the name under which a webhook's position in the event log is stored; a long name is shortened and gets a digest.

    >>> follower_of("m", "pager")
    'hook-m/pager'
    """
    name = f"hook-{model}/{hook}"
    return name if len(name) <= _NAME_LETTERS else f"{name[:46]}-{sha256_hex(name)[:16]}"


def responses(connection: Connection, rollout: int) -> tuple[HookResponseRow, ...]:
    """Return every response in a rollout, in the order of the requests."""
    query = (
        select(*_COLUMNS)
        .where(_RESPONSES.c.rollout_id == rollout)
        .order_by(_RESPONSES.c.requested_at_us, _RESPONSES.c.webhook)
    )
    return _rows(connection, query)


def open_questions(connection: Connection, model: str) -> tuple[HookResponseRow, ...]:
    """Return the requests that the running rollout of `model` waits for: put since its last transition, without consent."""
    query = (
        select(*_COLUMNS, _ROLLOUTS.c.step_started_at_us)
        .join(_ROLLOUTS, _ROLLOUTS.c.rollout_id == _RESPONSES.c.rollout_id)
        .where(_ROLLOUTS.c.model == model, _ROLLOUTS.c.state.not_in(sorted(RESTING)))
        .where(_RESPONSES.c.verdict != Verdict.PASS)
        .order_by(_RESPONSES.c.requested_at_us, _RESPONSES.c.webhook)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    return tuple(
        _response(row)
        for row in found
        if row.pop("step_started_at_us") <= json.loads(row["request_json"])["at_us"]
    )


def put_question(connection: Connection, question: HookResponseRow) -> None:
    """Store a request, new or repeated; a repeated one discards its response."""
    values = {field.name: getattr(question, field.name) for field in fields(HookResponseRow)}
    changed = connection.execute(update(_RESPONSES).where(*_is(question)).values(**values))
    if changed.rowcount == 0:
        connection.execute(insert(_RESPONSES).values(**values))


def put_response(
    connection: Connection, request: HookResponseRow, *, verdict: Verdict, explanation: str, now_us: int
) -> bool:
    """Store the response to `request`; return False if the request was repeated or served by another loop meanwhile."""
    changed = connection.execute(
        update(_RESPONSES)
        .where(
            *_is(request),
            _RESPONSES.c.requested_at_us == request.requested_at_us,
            _RESPONSES.c.attempts == request.attempts,
        )
        .values(
            verdict=verdict, explanation=explanation, requested_at_us=now_us, attempts=request.attempts + 1
        )
    )
    return changed.rowcount == 1


def _is(response: HookResponseRow) -> tuple[ColumnElement[bool], ...]:
    return (
        _RESPONSES.c.rollout_id == response.rollout_id,
        _RESPONSES.c.event == response.event,
        _RESPONSES.c.step == response.step,
        _RESPONSES.c.webhook == response.webhook,
    )


def _rows(connection: Connection, query: Select[Any]) -> tuple[HookResponseRow, ...]:
    return tuple(_response(dict(row)) for row in connection.execute(query).mappings())


def _response(row: dict[str, Any]) -> HookResponseRow:
    return HookResponseRow(**row | {"verdict": Verdict(row["verdict"])})
