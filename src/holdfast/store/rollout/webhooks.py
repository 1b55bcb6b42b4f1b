"""Rows of `webhooks` and `webhook_responses`: who is asked before a step of a rollout, and what was answered."""

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
_ANSWERS: Final = schema.webhook_responses
_ROLLOUTS: Final = schema.rollouts
_NAME_LETTERS: Final = 63


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What a hook said of one decision, `event` at `step` of a rollout. `tries` is how often it was asked; with none,
    `requested_at_us` is when the question was put. `question` is JSON."""

    rollout_id: int
    event: str
    step: int
    webhook: str
    verdict: Verdict
    explanation: str
    requested_at_us: int
    request_json: str
    attempts: int


_COLUMNS: Final = tuple(_ANSWERS.c[field.name] for field in fields(HookAnswer))


def declare(connection: Connection, model: str, hooks: Sequence[Hook], *, now_us: int) -> None:
    """From now on `model` has these hooks and no others. A new one is told of what comes, not of what was."""
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
    """The hooks of `model`, in the order of their names."""
    query = select(_HOOKS.c.webhook_json).where(_HOOKS.c.model == model).order_by(_HOOKS.c.webhook)
    return tuple(Hook.from_json(document) for document in connection.execute(query).scalars())


def follower_of(model: str, hook: str) -> str:
    """The name under which a hook's place in the story is kept; one that is cut off keeps a digest of the whole.

    >>> follower_of("m", "pager")
    'hook-m/pager'
    """
    name = f"hook-{model}/{hook}"
    return name if len(name) <= _NAME_LETTERS else f"{name[:46]}-{sha256_hex(name)[:16]}"


def answers(connection: Connection, rollout: int) -> tuple[HookAnswer, ...]:
    """Every answer of a rollout, in the order in which they were asked."""
    query = (
        select(*_COLUMNS)
        .where(_ANSWERS.c.rollout_id == rollout)
        .order_by(_ANSWERS.c.requested_at_us, _ANSWERS.c.webhook)
    )
    return _rows(connection, query)


def open_questions(connection: Connection, model: str) -> tuple[HookAnswer, ...]:
    """Questions that the rollout of `model` which is under way waits for: put since its last transition, no consent yet."""
    query = (
        select(*_COLUMNS, _ROLLOUTS.c.step_started_at_us)
        .join(_ROLLOUTS, _ROLLOUTS.c.rollout_id == _ANSWERS.c.rollout_id)
        .where(_ROLLOUTS.c.model == model, _ROLLOUTS.c.state.not_in(sorted(RESTING)))
        .where(_ANSWERS.c.verdict != Verdict.PASS)
        .order_by(_ANSWERS.c.requested_at_us, _ANSWERS.c.webhook)
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    return tuple(
        _answer(row)
        for row in found
        if row.pop("step_started_at_us") <= json.loads(row["request_json"])["at_us"]
    )


def put_question(connection: Connection, question: HookAnswer) -> None:
    """A question that was not put before, or that is put anew: what was answered to it is forgotten."""
    values = {field.name: getattr(question, field.name) for field in fields(HookAnswer)}
    changed = connection.execute(update(_ANSWERS).where(*_is(question)).values(**values))
    if changed.rowcount == 0:
        connection.execute(insert(_ANSWERS).values(**values))


def put_answer(
    connection: Connection, asked: HookAnswer, *, verdict: Verdict, explanation: str, now_us: int
) -> bool:
    """Keep the answer to `asked`; False when the question was put anew or answered by another loop meanwhile."""
    changed = connection.execute(
        update(_ANSWERS)
        .where(
            *_is(asked),
            _ANSWERS.c.requested_at_us == asked.requested_at_us,
            _ANSWERS.c.attempts == asked.attempts,
        )
        .values(verdict=verdict, explanation=explanation, requested_at_us=now_us, attempts=asked.attempts + 1)
    )
    return changed.rowcount == 1


def _is(answer: HookAnswer) -> tuple[ColumnElement[bool], ...]:
    return (
        _ANSWERS.c.rollout_id == answer.rollout_id,
        _ANSWERS.c.event == answer.event,
        _ANSWERS.c.step == answer.step,
        _ANSWERS.c.webhook == answer.webhook,
    )


def _rows(connection: Connection, query: Select[Any]) -> tuple[HookAnswer, ...]:
    return tuple(_answer(dict(row)) for row in connection.execute(query).mappings())


def _answer(row: dict[str, Any]) -> HookAnswer:
    return HookAnswer(**row | {"verdict": Verdict(row["verdict"])})
