"""Bodies of notifications, in the formats that receivers take. Pure: a fact becomes bytes.

Slack: incoming webhooks, `text` with `&`, `<` and `>` escaped, so that no text from outside mentions a channel.
PagerDuty: Events API v2, https://developer.pagerduty.com/docs/send-alert-event. CloudEvents: 1.0.2, JSON, structured mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from holdfast.formatting import visible
from holdfast.records import Severity, canonical_json
from holdfast.rollout.decision.webhooks import Hook

_SUMMARY_CHARACTERS: Final = 1024
"""The longest summary that PagerDuty takes."""
_MESSAGE_CHARACTERS: Final = 3000
_REJECTED: Final = frozenset({400, 413, 422})
"""Statuses by which a receiver rejects the content: the same content again would be rejected too."""

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ProblemNotice:
    """The problem that a notification is about. `key` stays the same from its begin to its end."""

    kind: str
    subject: str
    severity: Severity
    text: str
    next_command: str
    is_over: bool
    key: str


@dataclass(frozen=True, slots=True)
class Notification:
    """One event of the ledger that a hook is notified of.

    Parameters
    ----------
    event, at_us, kind
        Number, timestamp (microseconds since 1970 UTC) and kind of the event, such as "rollout.promoted".
    model, subject
        The model, and the subject of the event.
    explanation
        What happened and why, in words.
    document
        All of it as plain JSON: the body of the format "json".
    problem
        The problem that began or ended; None for an event of a rollout.
    """

    event: int
    at_us: int
    kind: str
    model: str
    subject: str
    explanation: str
    document: Json
    problem: ProblemNotice | None = None


def is_rejected(status: int) -> bool:
    """Return True if a response with `status` means that the content is rejected for good."""
    return status in _REJECTED


def media_type(hook: Hook) -> str:
    """Return the Content-Type of the notifications of `hook`."""
    return (
        "application/cloudevents+json; charset=utf-8" if hook.format == "cloudevents" else "application/json"
    )


def render(notification: Notification, hook: Hook, *, routing_key: str = "") -> bytes:
    """Return the body of a notification in the format of `hook`. `routing_key` is its value, for PagerDuty alone."""
    match hook.format:
        case "slack":
            # An address in a text from outside becomes no preview of what stands there.
            document: Json = {"text": _message(notification), "unfurl_links": False, "unfurl_media": False}
        case "pagerduty":
            document = _alert(notification, routing_key)
        case "cloudevents":
            document = _cloudevent(notification)
        case _:
            document = notification.document
    return canonical_json(document).encode()


def _message(notification: Notification) -> str:
    """Return a message of a few lines in Slack's mrkdwn."""
    problem = notification.problem
    if problem is None:
        what = notification.kind.partition(".")[2].replace("_", " ")
        lines = [f"*{notification.model}*: {_escaped(notification.subject.replace('/', ' '))} {what}"]
        lines.append(_escaped(notification.explanation))
    else:
        state = "resolved" if problem.is_over else str(problem.severity)
        lines = [f"*{notification.model}*: {state}: {problem.kind.replace('_', ' ')}"]
        lines.append(_escaped(notification.explanation if problem.is_over else problem.text))
        if not problem.is_over:
            lines.append(f"next: {_escaped(problem.next_command)}")
    text = "\n".join(lines)
    return text if len(text) <= _MESSAGE_CHARACTERS else f"{text[: _MESSAGE_CHARACTERS - 1]}…"


def _escaped(text: str) -> str:
    """Return `text` as Slack shows it literally, on one line.

    >>> _escaped("<!channel> a & b")
    '&lt;!channel&gt; a &amp; b'
    """
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _alert(notification: Notification, routing_key: str) -> Json:
    problem = notification.problem
    assert problem is not None, "a hook of this format is on problems only"
    event = {"routing_key": routing_key, "dedup_key": problem.key}
    if problem.is_over:
        return {**event, "event_action": "resolve"}
    return {
        **event,
        "event_action": "trigger",
        "client": "Holdfast",
        "payload": {
            "summary": visible(f"{notification.model}: {problem.text}", _SUMMARY_CHARACTERS),
            "source": notification.model,
            "severity": str(problem.severity),
            "timestamp": _timestamp(notification.at_us),
            "component": visible(problem.subject) or notification.model,
            "group": notification.model,
            "class": problem.kind,
            "custom_details": {"next": problem.next_command, "event": notification.event},
        },
    }


def _cloudevent(notification: Notification) -> Json:
    return {
        "specversion": "1.0",
        "id": str(notification.event),
        "source": f"/holdfast/{notification.model}",
        "type": f"holdfast.{notification.kind}",
        "subject": notification.subject,
        "time": _timestamp(notification.at_us),
        "datacontenttype": "application/json",
        "data": notification.document,
    }


def _timestamp(at_us: int) -> str:
    timestamp = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds")
    return timestamp.replace("+00:00", "Z")
