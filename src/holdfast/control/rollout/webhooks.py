"""Asks the hooks that have a veto before a step of a rollout is taken, and tells the others after.

The loop that decides never waits for a hook. It puts a question into the ledger and finds the answer there in a later round;
a thread beside it asks. So a hook that hangs delays its step and nothing else, a roll-back least of all, and a killed loop
finds its questions again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Final, TypeAlias

from holdfast.control.http.client import Response
from holdfast.control.http.post import SIGNATURE, post, signature
from holdfast.control.integrations import exporter
from holdfast.control.integrations.exporter import forward
from holdfast.errors import InputError, UnavailableError
from holdfast.records import Verdict, canonical_json
from holdfast.rollout import Advance, Canary, Decision, Hook, RollBack, State, Wait
from holdfast.rollout.decision.webhooks import (
    AGAIN_US,
    CONSENT_US,
    Answer,
    next_us,
    question,
    understood,
    upheld,
)
from holdfast.settings import resolve
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.events import EventRow
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, webhooks
from holdfast.store.rollout.rollouts import RolloutRow
from holdfast.store.rollout.webhooks import HookAnswer

_ASKED_AT_ONCE: Final = 8
_NEVER_ASKED: Final = "it was not asked yet"
_KINDS: Final = {
    Verdict.PASS: "hook.consented",
    Verdict.FAIL: "hook.refused",
    Verdict.INCONCLUSIVE: "hook.silent",
    Verdict.ERROR: "hook.silent",
}

Clock: TypeAlias = Callable[[], int]


def declare(store: Store, model: str, declared: Sequence[Hook], *, now_us: int) -> None:
    """From now on `model` has the hooks that its declaration names, and no others."""
    with store.ledger.read() as connection:
        same = webhooks.of_model(connection, model) == tuple(sorted(declared, key=lambda hook: hook.name))
    if not same:
        with store.ledger.write() as connection:
            webhooks.declare(connection, model, declared, now_us=now_us)


def may(store: Store, lease: Lease, row: RolloutRow, decision: Decision, *, now_us: int) -> bool:
    """Whether `decision` may be committed now: every hook that is asked before it consents, or patience is over.

    When a hook has not been asked, or too long ago, the question is put into the ledger under `lease`. A roll-back is never
    asked about. Raises `ConflictError` HF304 when `lease` has gone to another loop.
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
    """`decision`, or what becomes of it while a hook has not consented: a wait, and after the policy's patience a
    roll-back."""
    asked = _asked(connection, row, decision)
    if not asked:
        return decision
    found = _answers(connection, row, decision)
    against = {
        hook.name: words
        for hook in asked
        if (words := _against(hook, found.get(hook.name), now_us)) is not None
    }
    waited_us = _waited_us(row, [found[name] for name in against if name in found], now_us)
    return upheld(decision, list(against.values()), Canary.from_json(row.policy_json), waited_us=waited_us)


def ask(store: Store, model: str, *, clock_us: Clock) -> int:
    """Ask every question that is due, at the same time, and keep the answers; how many were asked."""
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
    with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE) as pool:
        said = pool.map(lambda pair: _asked_over_http(pair[0], pair[1], clock_us), due)
        for (hook, each), answer in zip(due, said, strict=True):
            _keep(store, hook, each, answer, clock_us())
    return len(due)


def notify(store: Store, model: str, hook: Hook, *, clock_us: Clock) -> int:
    """Post the events since the last call to `hook`, each at least once and in order, and return how many.

    The number of the event is the idempotency key.

    Parameters
    ----------
    model
        Only events of rollouts of this model are posted.
    hook
        Its `on` names the events.
    clock_us
        Gives the time that the signature covers.

    Raises
    ------
    UnavailableError
        HF601 if the webhook did not accept an event; the next call sends it again.
    InputError
        HF103 if the secret of its signature is not set.
    """

    def read(connection: Transaction, event: EventRow) -> list[bytes]:
        row = _rollout_of(connection, model, hook, event)
        return [] if row is None else [_notification(event, row)]

    def send(event: EventRow, body: bytes) -> None:
        status = _sent(hook, body, str(event.event_id), clock_us()).status
        if not 200 <= status < 300:
            raise UnavailableError("HF601", f"it responded with status {status}", state="it is sent again")

    return forward(store, webhooks.follower_of(model, hook.name), read, send)


def run(
    store: Store,
    model: str,
    declared: Sequence[Hook],
    *,
    clock_us: Clock,
    wait: Callable[[float], bool],
    pause_seconds: float = 0.2,
) -> None:
    """Put open questions to webhooks and notify them, until `wait` returns True.

    Parameters
    ----------
    model, declared
        The model and the webhooks of its declaration.
    clock_us
        Gives the current time, microseconds since 1970.
    wait
        Sleeps for `pause_seconds` and returns True when it is time to stop.
    """
    jobs: dict[str, Callable[[], object]] = {
        "consulting webhooks": partial(ask, store, model, clock_us=clock_us)
    }
    for hook in declared:
        if hook.told_after:
            jobs[f"notifying webhook {hook.name}"] = partial(notify, store, model, hook, clock_us=clock_us)
    exporter.run(jobs, wait=wait, pause_seconds=pause_seconds)


def _asked(connection: Transaction, row: RolloutRow, decision: Decision) -> list[Hook]:
    """The hooks whose consent `decision` needs. The end of a roll-back needs none."""
    if isinstance(decision, Wait | RollBack) or row.state is State.ROLLING_BACK:
        return []
    return [hook for hook in webhooks.of_model(connection, row.model) if decision.event in hook.asked_before]


def _answers(connection: Transaction, row: RolloutRow, decision: Decision) -> dict[str, HookAnswer]:
    assert not isinstance(decision, Wait), "a wait is not asked about"
    step = _step(row, decision)
    return {
        each.webhook: each
        for each in webhooks.answers(connection, row.rollout_id)
        if (each.event, each.step) == (decision.event, step)
    }


def _waited_us(row: RolloutRow, held_by: Sequence[HookAnswer], now_us: int) -> int:
    """For how long the step has waited for hooks that were asked: not for what it needed itself before it was ready."""
    since_us: list[int] = [json.loads(each.request_json)["since_us"] for each in held_by if each.attempts > 0]
    if row.champion is None or not since_us:
        return 0  # a first version has nothing that its traffic could return to: it waits for as long as it takes
    return now_us - max(row.step_started_at_us, min(since_us))


def _questions(connection: Transaction, row: RolloutRow, decision: Decision, now_us: int) -> list[HookAnswer]:
    """The questions that are to be put: never put, consented to too long ago, or asked again with newer numbers."""
    assert not isinstance(decision, Wait), "a wait is not asked about"
    step = _step(row, decision)
    told = question(row.model, row.rollout_id, (row.challenger, row.champion), decision, step)
    told["at_us"] = now_us
    found = _answers(connection, row, decision)
    wanted = []
    for hook in _asked(connection, row, decision):
        known = found.get(hook.name)
        if known is None or _is_stale(known, now_us):
            words = _NEVER_ASKED if known is None else "it consented too long ago and is asked again"
            text = canonical_json(told | {"since_us": now_us})
            wanted.append(
                HookAnswer(
                    row.rollout_id,
                    decision.event,
                    step,
                    hook.name,
                    Verdict.INCONCLUSIVE,
                    words,
                    now_us,
                    text,
                    0,
                )
            )
        elif known.verdict is not Verdict.PASS:
            before = json.loads(known.request_json)
            if now_us - before["at_us"] >= AGAIN_US:
                since_us = before["since_us"] if known.attempts > 0 else now_us
                text = canonical_json(told | {"since_us": since_us})
                wanted.append(HookAnswer(**asdict(known) | {"request_json": text}))
    return wanted


def _against(hook: Hook, known: HookAnswer | None, now_us: int) -> str | None:
    """Why `hook` has not consented, in words; None when it has."""
    if known is None:
        return f"hook {hook.name}: {_NEVER_ASKED}"
    if known.verdict is Verdict.PASS and not _is_stale(known, now_us):
        return None
    said = "refuses: " if known.verdict is Verdict.FAIL else ""
    return f"hook {hook.name}: {said}{known.explanation}"


def _is_stale(known: HookAnswer, now_us: int) -> bool:
    return known.verdict is Verdict.PASS and now_us - known.requested_at_us > CONSENT_US


def _is_due(known: HookAnswer, now_us: int) -> bool:
    due_us = next_us(known.verdict, known.attempts, known.requested_at_us)
    return due_us is not None and now_us >= due_us


def _step(row: RolloutRow, decision: Decision) -> int:
    return decision.step if isinstance(decision, Advance) else row.step


def _asked_over_http(hook: Hook, asked: HookAnswer, clock_us: Clock) -> Answer:
    body = asked.request_json.encode()
    key = f"{asked.rollout_id}/{asked.event}/{asked.step}"
    try:
        response = _sent(hook, body, key, clock_us())
        return understood(response.status, response.body)
    except UnavailableError as error:
        return Answer(Verdict.INCONCLUSIVE, error.what)
    except InputError as error:
        return Answer(Verdict.INCONCLUSIVE, f"the key of its signature cannot be had: {error.what}")


def _sent(hook: Hook, body: bytes, key: str, now_us: int) -> Response:
    headers = {"Idempotency-Key": key, "User-Agent": "holdfast"}
    if hook.secret is not None:
        headers[SIGNATURE] = signature(resolve(hook.secret), body, now_us=now_us)
    return post(hook.url, body, headers, within_seconds=hook.timeout_seconds)


def _keep(store: Store, hook: Hook, asked: HookAnswer, answer: Answer, now_us: int) -> None:
    """The answer, and an event where it is another than before."""
    news = answer.verdict is not asked.verdict or asked.attempts == 0
    with store.ledger.write() as connection:
        kept = webhooks.put_answer(
            connection, asked, verdict=answer.verdict, explanation=answer.explanation, now_us=now_us
        )
        if kept and news:
            events.append(
                connection,
                at_us=now_us,
                kind=_KINDS[answer.verdict],
                subject=rollouts.subject_of(asked.rollout_id),
                explanation=f"{hook.name} was asked before {asked.event}, step {asked.step + 1}: {answer.explanation}",
            )


def _rollout_of(connection: Transaction, model: str, hook: Hook, event: EventRow) -> RolloutRow | None:
    """The rollout of `model` that `event` is about, when `hook` is told of it."""
    noun, _, state = event.kind.partition(".")
    subject, _, number = event.subject.partition("/")
    if noun != "rollout" or subject != "rollout" or state not in hook.told_after or not number.isdigit():
        return None
    row = rollouts.get(connection, int(number))
    return row if row.model == model else None


def _notification(event: EventRow, row: RolloutRow) -> bytes:
    document = {
        "event": event.event_id,
        "at_us": event.at_us,
        "kind": event.kind,
        "model": row.model,
        "rollout": row.rollout_id,
        "challenger": row.challenger,
        "champion": row.champion,
        "actor": event.actor,
        "explanation": event.explanation,
        "digest": event.digest,
    }
    return canonical_json(document).encode()
