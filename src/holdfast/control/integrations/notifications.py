"""Notify webhooks of what happened to rollouts, and of problems that begin and end: each at least once, and in order.

Each hook has a cursor in the event log and a thread of its own, so a receiver that hangs delays nothing but itself. A
notification is repeated until it is accepted, at most for a day; one whose content is rejected is given up at once. What
was given up is an event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.control.http.client import Response
from holdfast.control.http.post import SIGNATURE, post, signature
from holdfast.control.integrations.exporter import forward
from holdfast.errors import InputError, UnavailableError
from holdfast.records import DAY_US
from holdfast.rollout import Hook
from holdfast.rollout.decision.notifications import (
    Notification,
    ProblemNotice,
    is_rejected,
    media_type,
    render,
)
from holdfast.rollout.decision.webhooks import is_url
from holdfast.settings import resolve
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.events import EventRow
from holdfast.store.db.ledger import Transaction
from holdfast.store.rollout import rollouts, webhooks
from holdfast.store.telemetry import problems

GIVEN_UP: Final = "hook.given_up"
GIVE_UP_AFTER_US: Final = DAY_US
"""The age of an event, microseconds, from which a notification that fails is not repeated."""

_OF_EVENT: Final = ("at_us", "kind", "actor", "explanation", "digest")


def notify(store: Store, model: str, hook: Hook, *, clock_us: Callable[[], int]) -> int:
    """Post the events since the last call to `hook`, each at least once and in order, and return how many.

    The number of the event is the idempotency key.

    Parameters
    ----------
    model
        Only events of this model are posted.
    hook
        Its `on` names the events.
    clock_us
        Gives the time that the signature covers, and by which an event is too old.

    Raises
    ------
    UnavailableError
        HF601 if the webhook did not accept an event; the next call sends it again.
    InputError
        HF103 if its URL, its routing key or the secret of its signature is not set.
    """

    def read(connection: Transaction, event: EventRow) -> list[bytes]:
        found = _notification(connection, model, hook, event)
        if found is None:
            return []
        key = resolve(hook.routing_key) if hook.routing_key is not None else ""
        return [render(found, hook, routing_key=key)]

    def send(event: EventRow, body: bytes) -> None:
        now_us = clock_us()
        try:
            status = send_signed(
                hook, body, str(event.event_id), now_us, content_type=media_type(hook)
            ).status
            reason = "" if 200 <= status < 300 else f"it responded with status {status}"
            is_final = is_rejected(status)
        except UnavailableError as error:
            reason, is_final = error.what, False
        if not reason:
            return
        if is_final or now_us - event.at_us > GIVE_UP_AFTER_US:
            _give_up(store, hook, event, reason, now_us)
        else:
            raise UnavailableError("HF601", reason, state="it is sent again")

    return forward(store, webhooks.follower_of(model, hook.name), read, send)


def send_signed(
    hook: Hook, body: bytes, key: str, now_us: int, *, content_type: str = "application/json"
) -> Response:
    """Post `body` to the URL of `hook`, signed if it has a secret.

    Parameters
    ----------
    hook, body
        The webhook and what it gets.
    key
        The idempotency key.
    now_us
        The time that the signature covers, microseconds since 1970 UTC.
    content_type
        The type of the body.

    Raises
    ------
    UnavailableError
        HF601 if there was no complete response in time.
    InputError
        HF103 if its URL or its secret is not set, or the URL is none.
    """
    headers = {"Idempotency-Key": key, "User-Agent": "holdfast", "Content-Type": content_type}
    if hook.secret is not None:
        headers[SIGNATURE] = signature(resolve(hook.secret), body, now_us=now_us)
    url = resolve(hook.url)
    if not is_url(url):
        raise InputError("HF103", f"what {hook.url} stands for is no URL of http or https")
    return post(url, body, headers, within_seconds=hook.timeout_seconds)


def _notification(connection: Transaction, model: str, hook: Hook, event: EventRow) -> Notification | None:
    """Return what `hook` is notified of by `event`; None if it is not."""
    document = {"event": event.event_id, "model": model} | {name: getattr(event, name) for name in _OF_EVENT}
    if event.kind in (problems.FOUND, problems.ENDED):
        row = problems.of_event(connection, event.event_id)
        if row is None or row.model != model or row.kind not in hook.notified_of:
            return None
        notice = ProblemNotice(
            kind=row.kind,
            subject=row.subject,
            severity=row.severity,
            text=row.explanation,
            next_command=row.next_command,
            is_over=event.kind == problems.ENDED,
            key=f"holdfast/{problems.event_subject(row.model, row.kind, row.subject)}",
        )
        document |= {
            "problem": row.kind,
            "subject": row.subject,
            "severity": row.severity,
            "is_over": notice.is_over,
            "next_command": row.next_command,
            "dedup_key": notice.key,
        }
        return _of(event, model, document, notice)
    noun, _, state = event.kind.partition(".")
    subject, _, number = event.subject.partition("/")
    if noun != "rollout" or subject != "rollout" or state not in hook.notified_of or not number.isdigit():
        return None
    rollout = rollouts.get(connection, int(number))
    document |= {
        "rollout": rollout.rollout_id,
        "challenger": rollout.challenger,
        "champion": rollout.champion,
    }
    return _of(event, model, document) if rollout.model == model else None


def _of(
    event: EventRow, model: str, document: dict[str, object], notice: ProblemNotice | None = None
) -> Notification:
    return Notification(
        event.event_id, event.at_us, event.kind, model, event.subject, event.explanation, document, notice
    )


def _give_up(store: Store, hook: Hook, event: EventRow, reason: str, now_us: int) -> None:
    text = (
        f"hook {hook.name} was not notified of event {event.event_id}, {event.kind} {event.subject}: {reason}"
    )
    with store.ledger.write() as connection:
        events.append(connection, at_us=now_us, kind=GIVEN_UP, subject=f"hook/{hook.name}", explanation=text)
