"""Webhooks, as declared: their consent before a step of a rollout, and what they are notified of.

A hook with a veto must consent; without a response the step waits. A rollback needs no consent, it is only notified.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final, Literal

from holdfast.errors import InputError
from holdfast.field_types import checked
from holdfast.formatting import hours
from holdfast.records import PROBLEMS, Verdict, canonical_json, check_name, duration
from holdfast.rollout.decision.decisions import Decision, RollBack, Wait
from holdfast.rollout.model.policy import Canary, microseconds
from holdfast.rollout.model.state_machine import Event, State

CONSENT_EVENTS: Final = (Event.SHADOW, Event.START, Event.ADVANCE, Event.COMPLETE, Event.CONFIRM)
"""The decisions that a hook may veto. Operators pause, and nothing may stop a rollback."""

NOTIFIED_STATES: Final = (*State, "advanced")
"""What a hook may be notified of: that a rollout reached a state, or that its share grew."""

NOTIFIED: Final = (*map(str, NOTIFIED_STATES), *PROBLEMS)
"""All that a hook may be notified of: rollouts, and the begin and end of each kind of problem."""

Format = Literal["json", "slack", "pagerduty", "cloudevents"]

MAX_RESPONSE_BYTES: Final = 65_536
"""Maximum length of a response."""

RETRY_US: Final = 30_000_000
"""Time until a hook that refused gets the request again, microseconds; after silence sooner at first, never later."""

CONSENT_US: Final = 300_000_000
"""How long a consent stays valid while its step is not taken, microseconds."""

_FIRST_PAUSE_US: Final = 1_000_000
_REASON_LETTERS: Final = 500
_LONGEST: Final = timedelta(seconds=60)
_URL: Final = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[^\s#]*)?")
_SECRET: Final = re.compile(r"\$\{(env|file):[^}]+\}|[A-Z][A-Z0-9_]*")
_REFERENCE: Final = re.compile(r"\$\{(env|file):[^}]+\}")


@dataclass(frozen=True)
@checked()
class Hook:
    """A webhook of a model: it consents to steps of rollouts, or is notified of rollouts and problems.

    Parameters
    ----------
    name
        1 to 63 of a-z, 0-9, '_' and '-'; unique among the hooks of a model.
    url
        Where it listens, http or https, without a user or a fragment. Redirects are not followed. A URL that is a secret, as
        Slack's are, is a reference: "${env:NAME}" or "${file:/path}".
    on
        What it is about. Before a decision is taken: "shadow", "start", "advance", "complete", "confirm" (only for hooks with a
        veto). After it: a state such as "canary", "promoted", "rolled_back", or "advanced"; or a kind of problem, such as
        "feed_suspect", whose begin and end are sent. Empty means every decision with a veto, and everything else without one.
    veto
        True if the decisions wait for its consent. Without a valid response the request is repeated and the step waits, at most
        for the policy's timeout, counted from the first request about this step.
    timeout
        How long a response may take, above 0 and at most 60 s. Default 5 s.
    secret
        Where the key of the signature is: "${env:NAME}", "${file:/path}" or the bare NAME of a variable, never the key. None
        signs nothing.
    format
        The body of a notification: "json", "slack" (a message), "pagerduty" (Events API v2; problems only) or "cloudevents".
    routing_key
        For "pagerduty": where the integration's key is, as for `secret`.

    Raises `InputError` HF107 for an invalid value.

    >>> Hook("change-freeze", "https://ops.example/freeze", on=("start",), veto=True).consent_events
    (<Event.START: 'start'>,)
    """

    name: str
    url: str
    on: Sequence[str] = ()
    veto: bool = False
    timeout: timedelta | str = "5s"
    secret: str | None = None
    format: Format = "json"
    routing_key: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "hook")
        object.__setattr__(self, "on", tuple(self.on))
        object.__setattr__(self, "timeout", duration(self.timeout, "timeout"))
        in_time = timedelta(0) < duration(self.timeout) <= _LONGEST
        unknown = [word for word in self.on if word not in {*CONSENT_EVENTS, *NOTIFIED}]
        no_problems = [word for word in self.on if word not in PROBLEMS]
        is_pagerduty = self.format == "pagerduty"
        vetoed = [word for word in self.on if word in set(CONSENT_EVENTS)]
        rules = {
            f"has the URL {self.url!r}, which is not one of http or https": is_url(self.url)
            or _REFERENCE.fullmatch(self.url),
            f"may take {self.timeout}; above 0, at most 60 s": in_time,
            "has a secret that is not a reference": self.secret is None or _SECRET.fullmatch(self.secret),
            f"is on {unknown}; known are {', '.join(sorted({*CONSENT_EVENTS, *NOTIFIED}))}": not unknown,
            f"is on {vetoed}, which needs veto=True": self.veto or not vetoed,
            f"has a veto, and is on no decision: {self.on}": vetoed or not self.veto or not self.on,
            f"has a veto, and the format {self.format}: a question is json": not self.veto
            or self.format == "json",
            "needs a routing_key that is a reference, such as ${env:PAGERDUTY_KEY}": not is_pagerduty
            or (self.routing_key is not None and _SECRET.fullmatch(self.routing_key)),
            "has a routing_key, which only the format pagerduty has": is_pagerduty
            or self.routing_key is None,
            f"is on {no_problems}, and pagerduty takes problems only": not is_pagerduty or not no_problems,
        }
        for problem, holds in rules.items():
            if not holds:
                raise InputError("HF107", f"hook {self.name!r} {problem}")

    @property
    def consent_events(self) -> tuple[Event, ...]:
        """Return the decisions that wait for its consent."""
        if not self.veto:
            return ()
        return tuple(event for event in CONSENT_EVENTS if not self.on or event in self.on)

    @property
    def notified_of(self) -> tuple[str, ...]:
        """Return the states and the kinds of problems that it is notified of."""
        everything = tuple(PROBLEMS) if self.format == "pagerduty" else NOTIFIED
        wanted = self.on or (() if self.veto else everything)
        return tuple(each for each in NOTIFIED if each in wanted)

    @property
    def timeout_seconds(self) -> float:
        """Return the timeout in seconds."""
        return duration(self.timeout).total_seconds()

    def to_json(self) -> str:
        """Return the hook as canonical JSON, as the ledger stores it."""
        return canonical_json(self)

    @classmethod
    def from_json(cls, text: str) -> Hook:
        """Return the hook that `to_json` wrote.

        >>> hook = Hook("a", "http://h/x", timeout="2s")
        >>> Hook.from_json(hook.to_json()) == hook
        True
        """
        known = json.loads(text)
        return cls(**known | {"timeout": timedelta(seconds=known["timeout"])})


@dataclass(frozen=True, slots=True)
class HookResponse:
    """The response of a hook: pass is consent, fail a veto, inconclusive no valid response."""

    verdict: Verdict
    explanation: str


def is_url(text: str) -> bool:
    """Return True if a hook may listen at `text`.

    >>> is_url("https://ops.example/in"), is_url("https://user:key@ops.example/in")
    (True, False)
    """
    return _URL.fullmatch(text) is not None


def understood(status: int, body: bytes) -> HookResponse:
    """Decode an HTTP response: `{"allow": true or false, "reason": "..."}` with a status of 200 to 299.

    >>> understood(200, b'{"allow": false, "reason": "freeze until Monday"}')
    HookResponse(verdict=<Verdict.FAIL: 'fail'>, explanation='freeze until Monday')
    >>> understood(302, b"").explanation
    'it responded with status 302; redirects are not followed'
    """
    if not 200 <= status < 300:
        more = "; redirects are not followed" if 300 <= status < 400 else ""
        return HookResponse(Verdict.INCONCLUSIVE, f"it responded with status {status}{more}")
    if len(body) > MAX_RESPONSE_BYTES:
        return HookResponse(Verdict.INCONCLUSIVE, f"its response is longer than {MAX_RESPONSE_BYTES:,} bytes")
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return HookResponse(Verdict.INCONCLUSIVE, "its response is not JSON")
    if not isinstance(decoded, dict) or not isinstance(decoded.get("allow"), bool):
        return HookResponse(Verdict.INCONCLUSIVE, 'its response has no "allow" that is true or false')
    reason = decoded.get("reason", "")
    words = reason[:_REASON_LETTERS] if isinstance(reason, str) else ""
    if decoded["allow"]:
        return HookResponse(Verdict.PASS, words or "it consents")
    return HookResponse(Verdict.FAIL, words or "it refuses without a reason")


def next_us(verdict: Verdict, tries: int, requested_at_us: int) -> int | None:
    """Return when a request is sent next, microseconds; None after consent.

    After silence it is sent again after 1, 2, 4, ... seconds and at most `RETRY_US`.

    >>> [next_us(Verdict.INCONCLUSIVE, tries, 0) for tries in (0, 1, 2, 9)]
    [0, 1000000, 2000000, 30000000]
    >>> next_us(Verdict.FAIL, 1, 0), next_us(Verdict.PASS, 1, 0)
    (30000000, None)
    """
    match verdict:
        case Verdict.PASS:
            return None
        case Verdict.FAIL:
            return requested_at_us + RETRY_US
        case _ if tries == 0:
            return requested_at_us
        case _:
            return requested_at_us + min(RETRY_US, _FIRST_PAUSE_US << min(tries - 1, 10))


def question(
    model: str, rollout: int, versions: tuple[str, str | None], decision: Decision, step: int
) -> dict[str, object]:
    """Return the request that a hook gets about a decision that needs its consent: plain JSON.

    `versions` are the challenger and the champion.
    """
    assert not isinstance(decision, Wait), "a wait needs no consent"
    return {
        "model": model,
        "rollout": rollout,
        "challenger": versions[0],
        "champion": versions[1],
        "decision": str(decision.event),
        "step": step,
        "share_ppm": getattr(decision, "share_ppm", None),
        "reason": decision.reason,
        "metrics": [asdict(verdict) for verdict in decision.verdicts],
    }


def upheld(decision: Decision, against: Sequence[str], policy: Canary, *, waited_us: int) -> Decision:
    """Return `decision` if `against` is empty; else a wait, and after the policy's timeout a rollback.

    `against` explains why each hook has not consented; `waited_us` is how long the step has waited for hooks, microseconds.

    >>> upheld(Wait("x"), [], Canary(), waited_us=0).reason
    'x'
    """
    if not against or isinstance(decision, Wait | RollBack):
        return decision
    words = f"{decision.event} waits for {'; '.join(against)}"
    if waited_us <= microseconds(policy.timeout):
        return Wait(words, decision.verdicts)
    waited = f"{hours(waited_us)} of {hours(microseconds(policy.timeout))}"
    return RollBack(Verdict.INCONCLUSIVE, f"{words}; timeout after {waited}", decision.verdicts)


def problems(hooks: Sequence[Hook]) -> list[str]:
    """Return what is wrong with the hooks of one model together."""
    times = Counter(hook.name for hook in hooks)
    return [f"two hooks are named {name!r}" for name, count in sorted(times.items()) if count > 1]
