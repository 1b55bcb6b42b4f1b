"""Who is asked before a step of a rollout is taken, and who is told of it: webhooks, as declared.

A hook with a veto is asked, and no answer is no consent: the step waits. A roll-back is never asked about, only told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Final

from holdfast.errors import InputError
from holdfast.formatting import hours
from holdfast.records import Verdict, canonical_json, check_name, duration
from holdfast.rollout.decision.decisions import Decision, RollBack, Wait
from holdfast.rollout.model.policy import Canary, microseconds
from holdfast.rollout.model.state_machine import Event, State

ASKED_BEFORE: Final = (Event.SHADOW, Event.START, Event.ADVANCE, Event.COMPLETE, Event.CONFIRM)
"""The decisions that a hook may veto. A pause is a person's, and a roll-back is nobody's to stop."""

TOLD_AFTER: Final = (*State, "advanced")
"""What a hook may be told: that a rollout reached a state, or that its share grew."""

ANSWER_BYTES: Final = 65_536
"""How long an answer may be."""

AGAIN_US: Final = 30_000_000
"""After how long a hook that refused is asked again, microseconds; silence is asked sooner at first, never later."""

CONSENT_US: Final = 300_000_000
"""How long a consent holds while the step that it is about is not taken, microseconds."""

_FIRST_PAUSE_US: Final = 1_000_000
_REASON_LETTERS: Final = 500
_LONGEST: Final = timedelta(seconds=60)
_URL: Final = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[^\s#]*)?")
_SECRET: Final = re.compile(r"\$\{(env|file):[^}]+\}|[A-Z][A-Z0-9_]*")


@dataclass(frozen=True)
class Hook:
    """A webhook of a model's rollouts.

    Parameters
    ----------
    name
        1 to 63 of a-z, 0-9, '_' and '-'; each hook of a model has its own.
    url
        Where it listens, http or https, without a user or a fragment. Nothing else is ever called: redirects are refused.
    on
        What it is about. Before a decision is taken: "shadow", "start", "advance", "complete", "confirm" (for hooks with a
        veto only). After it: a state such as "canary", "promoted", "rolled_back", or "advanced". Empty means every decision
        with a veto, and every state without one.
    veto
        Whether the decisions wait for its consent. One that does not answer, answers nonsense or with an error is asked again
        and the step waits: consent is never taken for granted. It waits for at most the policy's patience, counted from the
        first question about this step.
    timeout
        How long it may take to answer, above 0 and at most 60 s. Default 5 s.
    secret
        Where the key of the signature is: "${env:NAME}", "${file:/path}" or the bare NAME of a variable, never the key. None
        signs nothing.

    Raises `InputError` HF107 when a value cannot mean what it says.

    >>> Hook("change-freeze", "https://ops.example/freeze", on=("start",), veto=True).asked_before
    (<Event.START: 'start'>,)
    """

    name: str
    url: str
    on: Sequence[str] = ()
    veto: bool = False
    timeout: timedelta | str = "5s"
    secret: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "hook")
        object.__setattr__(self, "on", tuple(self.on))
        object.__setattr__(self, "timeout", duration(self.timeout, "timeout"))
        _require(
            self,
            bool(_URL.fullmatch(self.url)),
            f"has the URL {self.url!r}, which is not one of http or https",
        )
        _require(
            self,
            timedelta(0) < duration(self.timeout) <= _LONGEST,
            f"may take {self.timeout}; above 0, at most 60 s",
        )
        _require(
            self,
            self.secret is None or bool(_SECRET.fullmatch(self.secret)),
            "has a secret that is not a reference",
        )
        known = {*ASKED_BEFORE, *TOLD_AFTER}
        strange = [word for word in self.on if word not in known]
        _require(self, not strange, f"is on {strange}; known are {', '.join(sorted(known))}")
        vetoed = [word for word in self.on if word in set(ASKED_BEFORE)]
        _require(
            self, self.veto or not vetoed, f"is on {vetoed}, which only a hook with veto=True is asked before"
        )
        _require(
            self,
            not self.veto or not self.on or bool(vetoed),
            f"has a veto, and is on no decision: {self.on}",
        )

    @property
    def asked_before(self) -> tuple[Event, ...]:
        """The decisions that wait for its consent."""
        if not self.veto:
            return ()
        return tuple(event for event in ASKED_BEFORE if not self.on or event in self.on)

    @property
    def told_after(self) -> tuple[str, ...]:
        """The states that it is told of."""
        if not self.on:
            return () if self.veto else tuple(str(each) for each in TOLD_AFTER)
        return tuple(str(each) for each in TOLD_AFTER if each in self.on)

    @property
    def timeout_seconds(self) -> float:
        """How long it may take, in seconds."""
        return duration(self.timeout).total_seconds()

    def to_json(self) -> str:
        """The hook as canonical JSON, as the ledger keeps it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return canonical_json(values | {"on": list(self.on), "timeout": self.timeout_seconds})

    @classmethod
    def from_json(cls, text: str) -> Hook:
        """The hook that `to_json` wrote.

        >>> hook = Hook("a", "http://h/x", timeout="2s")
        >>> Hook.from_json(hook.to_json()) == hook
        True
        """
        known = json.loads(text)
        return cls(**known | {"timeout": timedelta(seconds=known["timeout"])})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hook said: pass is consent, fail a veto, inconclusive no answer that could be understood."""

    verdict: Verdict
    explanation: str


def understood(status: int, body: bytes) -> Answer:
    """The answer in an HTTP response: `{"allow": true or false, "reason": "..."}` with a status of 200 to 299.

    >>> understood(200, b'{"allow": false, "reason": "freeze until Monday"}')
    Answer(verdict=<Verdict.FAIL: 'fail'>, explanation='freeze until Monday')
    >>> understood(302, b"").explanation
    'it answered with status 302; redirects are not followed'
    """
    if not 200 <= status < 300:
        more = "; redirects are not followed" if 300 <= status < 400 else ""
        return Answer(Verdict.INCONCLUSIVE, f"it answered with status {status}{more}")
    if len(body) > ANSWER_BYTES:
        return Answer(Verdict.INCONCLUSIVE, f"its answer is longer than {ANSWER_BYTES:,} bytes")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return Answer(Verdict.INCONCLUSIVE, "its answer is not JSON")
    if not isinstance(said, dict) or not isinstance(said.get("allow"), bool):
        return Answer(Verdict.INCONCLUSIVE, 'its answer has no "allow" that is true or false')
    reason = said.get("reason", "")
    words = reason[:_REASON_LETTERS] if isinstance(reason, str) else ""
    if said["allow"]:
        return Answer(Verdict.PASS, words or "it consents")
    return Answer(Verdict.FAIL, words or "it refuses, and gives no reason")


def next_us(verdict: Verdict, tries: int, requested_at_us: int) -> int | None:
    """When a question is asked next, microseconds; None when it needs no asking. Silence is asked again after 1, 2, 4, ...
    seconds and at most `AGAIN_US`.

    >>> [next_us(Verdict.INCONCLUSIVE, tries, 0) for tries in (0, 1, 2, 9)]
    [0, 1000000, 2000000, 30000000]
    >>> next_us(Verdict.FAIL, 1, 0), next_us(Verdict.PASS, 1, 0)
    (30000000, None)
    """
    match verdict:
        case Verdict.PASS:
            return None
        case Verdict.FAIL:
            return requested_at_us + AGAIN_US
        case _ if tries == 0:
            return requested_at_us
        case _:
            return requested_at_us + min(AGAIN_US, _FIRST_PAUSE_US << min(tries - 1, 10))


def question(
    model: str, rollout: int, versions: tuple[str, str | None], decision: Decision, step: int
) -> dict[str, object]:
    """What a hook is told of a decision that waits for it: plain JSON.

    `versions` are the challenger and the champion.
    """
    assert not isinstance(decision, Wait), "a wait is not asked about"
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
    """`decision` when nobody is `against` it, in words; else a wait, and after the policy's patience a roll-back.

    `waited_us` is for how long hooks that were asked have kept it waiting.

    >>> upheld(Wait("x"), [], Canary(), waited_us=0).reason
    'x'
    """
    if not against or isinstance(decision, Wait | RollBack):
        return decision
    words = f"{decision.event} waits for {'; '.join(against)}"
    if waited_us <= microseconds(policy.timeout):
        return Wait(words, decision.verdicts)
    waited = f"{hours(waited_us)} of {hours(microseconds(policy.timeout))}"
    return RollBack(Verdict.INCONCLUSIVE, f"{words}; patience ran out after {waited}", decision.verdicts)


def problems(hooks: Sequence[Hook]) -> list[str]:
    """What is wrong with the hooks of one model together."""
    names = [hook.name for hook in hooks]
    return [
        f"two hooks are named {name!r}" for name in sorted({name for name in names if names.count(name) > 1})
    ]


def _require(hook: Hook, holds: bool, trouble: str) -> None:
    if not holds:
        raise InputError("HF107", f"hook {hook.name!r} {trouble}")
