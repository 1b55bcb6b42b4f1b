"""Translate events of versions into CDEvents, so that existing delivery tools can show them.

By the specification 0.5.1 of CDEvents (https://github.com/cdevents/spec/tree/v0.5.1), carried by CloudEvents 1.0 in JSON
(its "structured mode"). A model is a service, a version its artifact, the evaluation of its gates a run of a test suite. The
id of an event is a hash of its content, so an event that is sent twice has one id.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias, TypedDict, assert_never

from holdfast.records import Verdict

SPECIFICATION: Final = "0.5.1"

Json: TypeAlias = dict[str, object]


class Context(TypedDict):
    """The context of every CDEvent."""

    specversion: str
    id: str
    chainId: str
    source: str
    type: str
    timestamp: str


class Subject(TypedDict):
    """What a CDEvent is about."""

    id: str
    source: str
    content: Json


class CDEvent(TypedDict):
    """One CDEvent, as its JSON."""

    context: Context
    subject: Subject
    customData: Json
    customDataContentType: str


_IDS: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:holdfast:cdevents")
_DEPLOYED: Final = "service.deployed"
_PUBLISHED: Final = "service.published"
_TESTED: Final = "dev.cdevents.testsuiterun.finished.0.3.0"

SERVICE_EVENTS: Final[dict[str, tuple[str, ...]]] = {
    "rollout.shadowing": (_DEPLOYED,),  # it runs, and no caller sees its predictions
    "rollout.canary": (_DEPLOYED, _PUBLISHED),  # callers may get its predictions
    "rollout.verifying": (_DEPLOYED, _PUBLISHED),  # of a model's first version; others were there before
    "rollout.promoted": ("service.upgraded",),
    "rollout.rolled_back": ("service.rolledback",),
}
"""The CDEvents of each event of the ledger; each is sent once per rollout."""

_OUTCOMES: Final = {
    Verdict.PASS: "success",
    Verdict.FAIL: "failure",
    Verdict.INCONCLUSIVE: "cancel",  # there was not enough to judge by
    Verdict.ERROR: "error",
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version and the SHA-256 of its file."""

    model: str
    version: str
    digest: str

    @property
    def purl(self) -> str:
        """Return the version as a package URL (https://github.com/package-url/purl-spec).

        >>> Artifact("m", "v1-0a1b2c3d", "0a").purl
        'pkg:generic/m@v1-0a1b2c3d?checksum=sha256:0a'
        """
        return f"pkg:generic/{self.model}@{self.version}?checksum=sha256:{self.digest}"


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """One event of a rollout.

    `kind` is the ledger's; `before` are the kinds of the same rollout's earlier events. `serving` is the version that serves
    from here on: the challenger, or after a rollback the version before it.
    """

    event_id: int
    at_us: int
    kind: str
    rollout_id: int
    actor: str
    explanation: str
    serving: Artifact
    first: bool
    before: frozenset[str]


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The evaluation of a version by its gates: the worst verdict, and each gate's in words."""

    event_id: int
    at_us: int
    judged: Artifact
    verdict: Verdict
    explanation: str
    gates: tuple[tuple[str, str], ...]


Facts: TypeAlias = RolloutFacts | GateFacts


def cdevents(facts: Facts, *, environment: str = "production") -> list[CDEvent]:
    """Return the CDEvents of `facts`, none where CDEvents has no type for them; the same facts give the same bytes."""
    match facts:
        case RolloutFacts():
            return [_service(facts, kind, environment) for kind in _kinds(facts)]
        case GateFacts():
            return [_judgement(facts, environment)]
        case _:
            assert_never(facts)


def cloudevent(event: CDEvent) -> Json:
    """Return `event` as a CloudEvent in JSON, by CDEvents' binding.

    >>> context = {"id": "i", "source": "/s", "type": "t", "timestamp": "2026-01-01T00:00:00Z"}
    >>> cloudevent({"context": context, "subject": {"id": "m"}})["subject"]
    'm'
    """
    context = event["context"]
    return {
        "specversion": "1.0",
        "id": context["id"],
        "source": context["source"],
        "type": context["type"],
        "subject": event["subject"]["id"],
        "time": context["timestamp"],
        "datacontenttype": "application/json",
        "data": event,
    }


def _kinds(facts: RolloutFacts) -> list[str]:
    """Return the events of the service, without those that this rollout has sent."""
    if facts.kind == "rollout.promoted" and facts.first:
        return []  # it replaced no version: it was deployed and published when its traffic began
    sent = {kind for before in facts.before for kind in SERVICE_EVENTS.get(before, ())}
    return [kind for kind in SERVICE_EVENTS.get(facts.kind, ()) if kind not in sent]


def _service(facts: RolloutFacts, kind: str, environment: str) -> CDEvent:
    content: Json = {"environment": {"id": environment}}
    if kind != _PUBLISHED:  # whose content is the environment alone
        content["artifactId"] = facts.serving.purl
    custom = {
        "event": facts.event_id,
        "rollout": facts.rollout_id,
        "version": facts.serving.version,
        "actor": facts.actor,
        "reason": facts.explanation,
    }
    chain = f"{facts.serving.model}/rollout/{facts.rollout_id}"
    return _event(f"dev.cdevents.{kind}.0.3.0", facts, chain, facts.serving.model, content, custom)


def _judgement(facts: GateFacts, environment: str) -> CDEvent:
    content: Json = {
        "environment": {"id": environment},
        "outcome": _OUTCOMES[facts.verdict],
        "testSuite": {"id": f"{facts.judged.model}/gates", "name": f"gates of {facts.judged.model}"},
        "reason": facts.explanation,
    }
    if facts.verdict is not Verdict.PASS:
        content["severity"] = "critical"
    custom = {
        "event": facts.event_id,
        "version": facts.judged.version,
        "artifactId": facts.judged.purl,
        "gates": dict(facts.gates),
    }
    chain = f"{facts.judged.model}/version/{facts.judged.version}"
    subject = f"{facts.judged.version}/gates/{facts.event_id}"
    return _event(_TESTED, facts, chain, subject, content, custom)


def _event(kind: str, facts: Facts, chain: str, subject: str, content: Json, custom: Json) -> CDEvent:
    model = facts.serving.model if isinstance(facts, RolloutFacts) else facts.judged.model
    source = f"/holdfast/{model}"
    timestamp = datetime.fromtimestamp(facts.at_us / 1e6, UTC).isoformat(timespec="microseconds")
    return {
        "context": {
            "specversion": SPECIFICATION,
            "id": str(uuid.uuid5(_IDS, f"{source}/{facts.event_id}/{facts.at_us}/{kind}")),
            "chainId": str(uuid.uuid5(_IDS, chain)),
            "source": source,
            "type": kind,
            "timestamp": timestamp.replace("+00:00", "Z"),
        },
        "subject": {"id": subject, "source": source, "content": content},
        "customData": custom,
        "customDataContentType": "application/json",
    }
