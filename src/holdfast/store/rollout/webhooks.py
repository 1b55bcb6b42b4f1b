"""Rows of `webhooks` and `webhook_responses`: declared webhooks, and their responses before steps of a rollout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from holdfast.records import Verdict, sha256_hex
from holdfast.rollout import RESTING, Hook
from holdfast.store.db import event_chain, event_cursors, rows, schema

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
        select(_RESPONSES)
        .where(_RESPONSES.c.rollout_id == rollout)
        .order_by(_RESPONSES.c.requested_at_us, _RESPONSES.c.webhook)
    )
    return tuple(rows.read(connection, query, HookResponseRow))


def open_questions(connection: Connection, model: str) -> tuple[HookResponseRow, ...]:
    """Return the requests that the running rollout of `model` waits for: put since its last transition, without consent."""
    query = (
        select(_RESPONSES, _ROLLOUTS.c.step_started_at_us)
        .join(_ROLLOUTS, _ROLLOUTS.c.rollout_id == _RESPONSES.c.rollout_id)
        .where(_ROLLOUTS.c.model == model, _ROLLOUTS.c.state.not_in(sorted(RESTING)))
        .where(_RESPONSES.c.verdict != Verdict.PASS)
        .order_by(_RESPONSES.c.requested_at_us, _RESPONSES.c.webhook)
    )
    return tuple(
        rows.record(row, HookResponseRow)
        for row in connection.execute(query).mappings()
        if row["step_started_at_us"] <= json.loads(row["request_json"])["at_us"]
    )


def put_question(connection: Connection, question: HookResponseRow) -> None:
    """Store a request, new or repeated; a repeated one discards its response."""
    rows.put(connection, _RESPONSES, asdict(question))


def put_response(
    connection: Connection, request: HookResponseRow, *, verdict: Verdict, explanation: str, now_us: int
) -> bool:
    """Store the response to `request`; return False if the request was repeated or served by another loop meanwhile."""
    changed = connection.execute(
        update(_RESPONSES)
        .where(
            _RESPONSES.c.rollout_id == request.rollout_id,
            _RESPONSES.c.event == request.event,
            _RESPONSES.c.step == request.step,
            _RESPONSES.c.webhook == request.webhook,
            _RESPONSES.c.requested_at_us == request.requested_at_us,
            _RESPONSES.c.attempts == request.attempts,
        )
        .values(
            verdict=verdict, explanation=explanation, requested_at_us=now_us, attempts=request.attempts + 1
        )
    )
    return changed.rowcount == 1
