"""Request the consent of webhooks before a step of a rollout.

The loop that decides never waits for a webhook. It stores a request in the ledger and finds the response there in a later
round; another thread sends it. A webhook that hangs delays its step and nothing else, never a rollback. A killed loop finds
its requests again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final, TypeAlias

from holdfast.control.integrations.notifications import notify, send_signed
from holdfast.errors import InputError, UnavailableError
from holdfast.records import Verdict, canonical_json
from holdfast.rollout import Canary, Hook, State
from holdfast.rollout.decision.decisions import Advance, Decision, RollBack, Wait
from holdfast.rollout.decision.webhooks import (
    CONSENT_US,
    RETRY_US,
    HookResponse,
    next_us,
    question,
    understood,
    upheld,
)
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, webhooks
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.rollout.webhooks import HookResponseRow

_MAX_CONCURRENT: Final = 8
_NOT_SENT: Final = "it got no request yet"
_KINDS: Final = {
    Verdict.PASS: "hook.consented",
    Verdict.FAIL: "hook.refused",
    Verdict.INCONCLUSIVE: "hook.silent",
    Verdict.ERROR: "hook.silent",
}

Clock: TypeAlias = Callable[[], int]


def declare(store: Store, model: str, declared: Sequence[Hook], *, now_us: int) -> None:
    """Store the webhooks of the declaration as those of `model`; others are removed."""
    with store.ledger.read() as connection:
        same = webhooks.of_model(connection, model) == tuple(sorted(declared, key=lambda hook: hook.name))
    if not same:
        with store.ledger.write() as connection:
            webhooks.declare(connection, model, declared, now_us=now_us)


def may(store: Store, lease: Lease, row: RolloutRow, decision: Decision, *, now_us: int) -> bool:
    """Return True if `decision` may be committed: every consulted webhook consents, or the policy's timeout has passed.

    A request that is missing or too old is put into the ledger under `lease`. A rollback needs no consent. Raises
    `ConflictError` HF304 when `lease` has gone to another loop.
    """
    with store.ledger.read() as connection:
        if not isinstance(allowed(connection, row, decision, now_us=now_us), Wait):
            return True
        wanted = _questions(connection, row, decision, now_us)
    if wanted:
        with store.ledger.write() as connection:
            assert_epoch(connection, lease.name, lease.epoch)
            for each in wanted:
                webhooks.put_question(connection, each)
    return False


def allowed(connection: Transaction, row: RolloutRow, decision: Decision, *, now_us: int) -> Decision:
    """Return `decision`, or what replaces it without consent: a wait, and after the policy's timeout a rollback."""
    consulted = _consulted(connection, row, decision)
    if not consulted:
        return decision
    found = _responses(connection, row, decision)
    reasons = {hook.name: _against(hook, found.get(hook.name), now_us) for hook in consulted}
    against = {name: reason for name, reason in reasons.items() if reason is not None}
    waited_us = _waited_us(row, [found[name] for name in against if name in found], now_us)
    return upheld(decision, list(against.values()), Canary.from_json(row.policy_json), waited_us=waited_us)


def ask(store: Store, model: str, *, clock_us: Clock) -> int:
    """Send every request that is due, concurrently, and store the responses; return how many were sent."""
    with store.ledger.read() as connection:
        declared = {hook.name: hook for hook in webhooks.of_model(connection, model)}
        now_us = clock_us()
        due = [
            (declared[each.webhook], each)
            for each in webhooks.open_questions(connection, model)
            if each.webhook in declared and _is_due(each, now_us)
        ]
    if not due:
        return 0
    with ThreadPoolExecutor(max_workers=_MAX_CONCURRENT) as pool:
        received = pool.map(lambda pair: _request_consent(pair[0], pair[1], clock_us), due)
        for (hook, each), response in zip(due, received, strict=True):
            _record(store, hook, each, response, clock_us())
    return len(due)


def jobs(
    store: Store, model: str, declared: Sequence[Hook], *, clock_us: Clock
) -> dict[str, Callable[[], object]]:
    """Return what the control loop's process repeats for webhooks, by name: each in a thread of its own.

    Parameters
    ----------
    model, declared
        The model and the webhooks of its declaration.
    clock_us
        Gives the current time, microseconds since 1970.
    """
    found: dict[str, Callable[[], object]] = {}
    if any(hook.consent_events for hook in declared):
        found["consulting webhooks"] = partial(ask, store, model, clock_us=clock_us)
    for hook in declared:
        if hook.notified_of:
            found[f"notifying webhook {hook.name}"] = partial(notify, store, model, hook, clock_us=clock_us)
    return found


def _consulted(connection: Transaction, row: RolloutRow, decision: Decision) -> list[Hook]:
    """Return the hooks whose consent `decision` needs. The end of a rollback needs none."""
    if isinstance(decision, Wait | RollBack) or row.state is State.ROLLING_BACK:
        return []
    return [
        hook for hook in webhooks.of_model(connection, row.model) if decision.event in hook.consent_events
    ]


def _responses(connection: Transaction, row: RolloutRow, decision: Decision) -> dict[str, HookResponseRow]:
    assert not isinstance(decision, Wait), "a wait needs no consent"
    step = _step(row, decision)
    return {
        each.webhook: each
        for each in webhooks.responses(connection, row.rollout_id)
        if (each.event, each.step) == (decision.event, step)
    }


def _waited_us(row: RolloutRow, held_by: Sequence[HookResponseRow], now_us: int) -> int:
    """Return how long the step has waited for hooks that got a request, without the time before it was ready itself."""
    since_us: list[int] = [json.loads(each.request_json)["since_us"] for each in held_by if each.attempts > 0]
    if row.champion is None or not since_us:
        return 0  # a first version has no version to return to: it waits without a limit
    return now_us - max(row.step_started_at_us, min(since_us))


def _questions(
    connection: Transaction, row: RolloutRow, decision: Decision, now_us: int
) -> list[HookResponseRow]:
    """Return the requests to put: new ones, those with an old consent, and open ones with newer numbers."""
    assert not isinstance(decision, Wait), "a wait needs no consent"
    step = _step(row, decision)
    body = question(row.model, row.rollout_id, (row.challenger, row.champion), decision, step)
    body["at_us"] = now_us
    found = _responses(connection, row, decision)
    wanted = []
    for hook in _consulted(connection, row, decision):
        known = found.get(hook.name)
        if known is None or _is_stale(known, now_us):
            explanation = _NOT_SENT if known is None else "its consent is too old and is requested again"
            text = canonical_json(body | {"since_us": now_us})
            about = (row.rollout_id, decision.event, step, hook.name)
            wanted.append(HookResponseRow(*about, Verdict.INCONCLUSIVE, explanation, now_us, text, 0))
        elif known.verdict is not Verdict.PASS:
            before = json.loads(known.request_json)
            if now_us - before["at_us"] >= RETRY_US:
                since_us = before["since_us"] if known.attempts > 0 else now_us
                text = canonical_json(body | {"since_us": since_us})
                wanted.append(replace(known, request_json=text))
    return wanted


def _against(hook: Hook, known: HookResponseRow | None, now_us: int) -> str | None:
    """Return why `hook` has not consented; None if it has."""
    if known is None:
        return f"hook {hook.name}: {_NOT_SENT}"
    if known.verdict is Verdict.PASS and not _is_stale(known, now_us):
        return None
    prefix = "refuses: " if known.verdict is Verdict.FAIL else ""
    return f"hook {hook.name}: {prefix}{known.explanation}"


def _is_stale(known: HookResponseRow, now_us: int) -> bool:
    return known.verdict is Verdict.PASS and now_us - known.requested_at_us > CONSENT_US


def _is_due(known: HookResponseRow, now_us: int) -> bool:
    due_us = next_us(known.verdict, known.attempts, known.requested_at_us)
    return due_us is not None and now_us >= due_us


def _step(row: RolloutRow, decision: Decision) -> int:
    return decision.step if isinstance(decision, Advance) else row.step


def _request_consent(hook: Hook, request: HookResponseRow, clock_us: Clock) -> HookResponse:
    body = request.request_json.encode()
    key = f"{request.rollout_id}/{request.event}/{request.step}"
    try:
        response = send_signed(hook, body, key, clock_us())
        return understood(response.status, response.body)
    except UnavailableError as error:
        return HookResponse(Verdict.INCONCLUSIVE, error.what)
    except InputError as error:
        return HookResponse(Verdict.INCONCLUSIVE, f"the key of its signature is not available: {error.what}")


def _record(store: Store, hook: Hook, request: HookResponseRow, response: HookResponse, now_us: int) -> None:
    """Store the response, with an event if it differs from the one before."""
    news = response.verdict is not request.verdict or request.attempts == 0
    with store.ledger.write() as connection:
        kept = webhooks.put_response(
            connection, request, verdict=response.verdict, explanation=response.explanation, now_us=now_us
        )
        if kept and news:
            events.append(
                connection,
                at_us=now_us,
                kind=_KINDS[response.verdict],
                subject=rollouts.subject_of(request.rollout_id),
                explanation=f"{hook.name}, before {request.event}, step {request.step + 1}: {response.explanation}",
            )
