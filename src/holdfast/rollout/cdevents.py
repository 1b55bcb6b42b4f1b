"""What happens to versions as CDEvents, so that the tools of delivery that a company has already can show it.

By the specification 0.4.1 of CDEvents (https://github.com/cdevents/spec/tree/v0.4.1), carried by CloudEvents 1.0 in JSON
(its "structured mode"). A model is a service, a version its artifact, the judgement of its gates a run of a test suite. The id
of an event is made of what it tells, so telling it twice tells the same event.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, assert_never

from holdfast.records import Verdict

SPECIFICATION: Final = "0.4.1"

Json: TypeAlias = dict[str, Any]

_IDS: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:holdfast:cdevents")
_DEPLOYED: Final = "service.deployed"
_PUBLISHED: Final = "service.published"
_TESTED: Final = "dev.cdevents.testsuiterun.finished.0.2.0"

SERVICE_EVENTS: Final[dict[str, tuple[str, ...]]] = {
    "rollout.shadowing": (_DEPLOYED,),  # it runs, and nobody sees what it answers
    "rollout.canary": (_DEPLOYED, _PUBLISHED),  # users may be answered by it
    "rollout.verifying": (_DEPLOYED, _PUBLISHED),  # of a model's first version; others were there before
    "rollout.promoted": ("service.upgraded",),
    "rollout.rolled_back": ("service.rolledback",),
}
"""What each event of the ledger is in CDEvents; a row that was told of the same rollout before is not told again."""

_OUTCOMES: Final = {
    Verdict.PASS: "pass",
    Verdict.FAIL: "fail",
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
        """As a package URL (https://github.com/package-url/purl-spec).

        >>> Artifact("m", "v1-0a1b2c3d", "0a").purl
        'pkg:generic/m@v1-0a1b2c3d?checksum=sha256:0a'
        """
        return f"pkg:generic/{self.model}@{self.version}?checksum=sha256:{self.digest}"


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """One event of a rollout. `kind` is the ledger's; `before` are the kinds of the same rollout's earlier events; `answers`
    is the version that answers from here on, the challenger, or after a roll-back what was returned to."""

    event: int
    at_us: int
    kind: str
    rollout: int
    actor: str
    explanation: str
    answers: Artifact
    first: bool
    before: frozenset[str]


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The judgement of a version by its gates: the worst verdict, and each gate's in words."""

    event: int
    at_us: int
    judged: Artifact
    verdict: Verdict
    explanation: str
    gates: tuple[tuple[str, str], ...]


Facts: TypeAlias = RolloutFacts | GateFacts


def cdevents(facts: Facts, *, environment: str = "production") -> list[Json]:
    """The CDEvents that `facts` are, none for what CDEvents has no word for; the same facts give the same, to the byte."""
    match facts:
        case RolloutFacts():
            return [_service(facts, kind, environment) for kind in _kinds(facts)]
        case GateFacts():
            return [_judgement(facts, environment)]
        case _:
            assert_never(facts)


def cloudevent(event: Json) -> Json:
    """`event` as a CloudEvent in JSON, by CDEvents' binding.

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
    """The service's events, without those that an earlier event of this rollout stands for."""
    if facts.kind == "rollout.promoted" and facts.first:
        return []  # it replaced nothing: it was deployed and published when its traffic began
    told = {kind for before in facts.before for kind in SERVICE_EVENTS.get(before, ())}
    return [kind for kind in SERVICE_EVENTS.get(facts.kind, ()) if kind not in told]


def _service(facts: RolloutFacts, kind: str, environment: str) -> Json:
    content: Json = {"environment": {"id": environment}}
    if kind != _PUBLISHED:  # whose content is the environment alone
        content["artifactId"] = facts.answers.purl
    custom = {
        "event": facts.event,
        "rollout": facts.rollout,
        "version": facts.answers.version,
        "actor": facts.actor,
        "reason": facts.explanation,
    }
    chain = f"{facts.answers.model}/rollout/{facts.rollout}"
    return _event(
        f"dev.cdevents.{kind}.0.2.0", facts, chain, (facts.answers.model, "service"), content, custom
    )


def _judgement(facts: GateFacts, environment: str) -> Json:
    content: Json = {
        "environment": {"id": environment},
        "outcome": _OUTCOMES[facts.verdict],
        "testSuite": {"id": f"{facts.judged.model}/gates", "name": f"gates of {facts.judged.model}"},
        "reason": facts.explanation,
    }
    if facts.verdict is not Verdict.PASS:
        content["severity"] = "critical"
    custom = {
        "event": facts.event,
        "version": facts.judged.version,
        "artifactId": facts.judged.purl,
        "gates": dict(facts.gates),
    }
    chain = f"{facts.judged.model}/version/{facts.judged.version}"
    subject = (f"{facts.judged.version}/gates/{facts.event}", "testSuiteRun")
    return _event(_TESTED, facts, chain, subject, content, custom)


def _event(
    kind: str, facts: Facts, chain: str, subject: tuple[str, str], content: Json, custom: Json
) -> Json:
    model = facts.answers.model if isinstance(facts, RolloutFacts) else facts.judged.model
    source = f"/holdfast/{model}"
    moment = datetime.fromtimestamp(facts.at_us / 1e6, UTC).isoformat(timespec="microseconds")
    return {
        "context": {
            "version": SPECIFICATION,
            "id": str(uuid.uuid5(_IDS, f"{source}/{facts.event}/{facts.at_us}/{kind}")),
            "chainId": str(uuid.uuid5(_IDS, chain)),
            "source": source,
            "type": kind,
            "timestamp": moment.replace("+00:00", "Z"),
        },
        "subject": {"id": subject[0], "source": source, "type": subject[1], "content": content},
        "customData": custom,
        "customDataContentType": "application/json",
    }
