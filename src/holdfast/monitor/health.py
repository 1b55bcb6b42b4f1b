"""Judge from typed facts whether a model is well, what is wrong with it, and what to do about it.

The page, `holdfast status`, its JSON, the metrics and the events all read this judgement; none has a rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from holdfast.formatting import counted, span
from holdfast.records import PROBLEMS, Severity, Verdict

PROBE_STALE_US: Final = 30_000_000
"""A probe of this age, microseconds, is of no control loop that runs."""
_NAMED_REASONS: Final = 3
"""So many reasons of refused requests are named, the commonest ones."""
REFUSED_SHARE: Final = 0.05
"""From this share of refused requests on, their callers and the contract disagree; fewer are single mistakes."""
LEAST_REFUSED: Final = 10

_ORDER: Final = tuple(PROBLEMS)


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """What is wrong with one feed.

    Parameters
    ----------
    feed
        Its name.
    suspect
        Why each loaded batch is suspect, by batch.
    reregistered
        The number of batches that were found in files again and wait for an operator.
    refused
        Why each delivery was refused since the newest load, by batch.
    warned
        The warnings about the newest loaded batch, by batch.
    overdue_us
        How long the next batch is overdue, microseconds; None if it is not.
    """

    feed: str
    suspect: Mapping[str, str] = field(default_factory=dict)
    reregistered: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    warned: Mapping[str, str] = field(default_factory=dict)
    overdue_us: int | None = None


@dataclass(frozen=True, slots=True)
class FailedGates:
    """The gates that the newest candidate failed; none if it has traffic or is tainted.

    Metric, page and health read this one.
    """

    version: str
    gates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """What the judgement rests on.

    Parameters
    ----------
    champion
        The version that the plan declares; None before the first rollout.
    next_command
        The command that leads to a first version.
    taint
        Why the champion is tainted; empty for a clean one.
    quality
        The champion's quality in words; empty without labels.
    servers, servers_explanation
        The verdict on the probes of all servers.
    probe_age_us
        The age of the newest probe in microseconds; None without a server or a probe.
    usage, usage_explanation
        The verdict on silence.
    requests, failed, refused
        Requests of the last hour; those that we failed, and those that broke the contract or could not be read.
    refused_kinds, refused_reasons
        The kinds of error of the refused requests, and the rules that they broke most often with the number of requests.
    feeds
        What is wrong with each feed.
    rollout_id, rollout, is_rollout_stalled
        The running rollout, what comes next of it in words, and whether it ends inconclusive as it goes on.
    changed_rate
        How the requests of the baking promotion differ in rate from those before it, in words; empty if they do not.
    failed_gates
        The newest candidate with the gates that it failed; None without a candidate.
    failed_training
        Why the last training failed, in words; empty if it did not.
    label_shift
        How the share of positive labels has shifted, in words; empty if it has not.
    unseen_slices
        Slices that callers send and no training row had.
    expired_drills
        The kinds of drills that passed and are no longer valid.
    missed_objective
        How the champion misses its objective, in words; empty if it does not surely miss it.
    returns_to
        The version that gets the traffic if the champion is rolled back; None if it cannot be.
    data_incidents
        The open data incidents in words, by the back-out: no clean version has served since.
    server_conflicts
        The processes that state the name of another server, in words, by the name.
    lost_servers
        The servers that were silent for too long, in words, by the name.
    """

    champion: str | None = None
    next_command: str = "holdfast ingest FEED FILE"
    taint: str = ""
    quality: str = ""
    servers: Verdict = Verdict.PASS
    servers_explanation: str = ""
    probe_age_us: int | None = None
    usage: Verdict = Verdict.PASS
    usage_explanation: str = ""
    requests: int = 0
    failed: int = 0
    refused: int = 0
    refused_kinds: Sequence[str] = ()
    refused_reasons: Sequence[tuple[str, int]] = ()
    feeds: Sequence[FeedFacts] = ()
    rollout_id: int | None = None
    rollout: str = ""
    is_rollout_stalled: bool = False
    changed_rate: str = ""
    failed_gates: FailedGates | None = None
    failed_training: str = ""
    label_shift: str = ""
    unseen_slices: Sequence[str] = ()
    expired_drills: Sequence[str] = ()
    missed_objective: str = ""
    returns_to: str | None = None
    data_incidents: Mapping[str, str] = field(default_factory=dict)
    server_conflicts: Mapping[str, str] = field(default_factory=dict)
    lost_servers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that needs attention: its kind, one of `PROBLEMS`, what has it, in words, and what to do.

    `subject` is a feed with its batch, a version, a slice or a drill; empty for the model as a whole. Kind and subject
    stay the same as long as the problem lasts, `text` does not.
    """

    kind: str
    subject: str
    text: str
    next_command: str

    @property
    def severity(self) -> Severity:
        """Return how urgent it is."""
        return PROBLEMS[self.kind]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a model is well, in one sentence that names the worst problem and what to do about it."""

    is_healthy: bool
    sentence: str
    problems: tuple[Problem, ...]


def judge_health(facts: HealthFacts) -> Health:
    """Return the health of a model.

    >>> judge_health(HealthFacts("v2", quality="AUC 0.741")).sentence
    'healthy: v2 serves, AUC 0.741'
    >>> judge_health(HealthFacts("v2", usage=Verdict.FAIL, usage_explanation="no request for 6 min")).sentence
    'needs attention: no request for 6 min; next: look at the callers'
    """
    found = sorted(_problems(facts), key=lambda problem: _ORDER.index(problem.kind))
    if not found:
        known = [f"{facts.champion} serves", facts.quality or "no label has arrived yet", facts.rollout]
        return Health(True, "healthy: " + ", ".join(each for each in known if each), ())
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return Health(False, f"needs attention: {first.text}; next: {first.next_command}{more}", tuple(found))


def is_refusing(requests: int, refused: int) -> bool:
    """Return True if so many of `requests` were refused that callers and contract disagree (R133).

    >>> is_refusing(300, 300), is_refusing(33_531, 10), is_refusing(3, 3)
    (True, False, False)
    """
    return refused >= max(LEAST_REFUSED, REFUSED_SHARE * requests)


def format_reasons(reasons: Sequence[tuple[str, int]]) -> str:
    """Return why requests were refused, in words that follow a sentence; empty if no reason is known.

    >>> format_reasons([("carrier|unseen", 280), ("*|extra", 20)])
    ': carrier|unseen (280), *|extra (20)'
    >>> format_reasons([("a|range", 3), ("b|range", 2), ("c|range", 1), ("d|range", 1), ("e|range", 1)])
    ': a|range (3), b|range (2), c|range (1) and 2 more'
    """
    if not reasons:
        return ""
    listed = ", ".join(f"{reason} ({count:,})" for reason, count in reasons[:_NAMED_REASONS])
    more = len(reasons) - _NAMED_REASONS
    return f": {listed}{f' and {more} more' if more > 0 else ''}"


def _problems(facts: HealthFacts) -> Iterator[Problem]:
    for feed in facts.feeds:
        yield from _of_feed(feed)
    yield from _of_versions(facts)
    yield from _of_servers(facts)
    if facts.champion is None:
        yield Problem("no_version", "", "no version serves yet", facts.next_command)
    else:
        yield from _of_champion(facts, facts.champion)


def _of_champion(facts: HealthFacts, champion: str) -> Iterator[Problem]:
    if facts.taint:
        text = f"{champion} serves although it is tainted: {facts.taint}"
        yield Problem("tainted_champion", champion, text, "holdfast train")
    for backout, text in facts.data_incidents.items():
        yield Problem("data_incident", backout, f"data incident: {text}", "holdfast train")
    if facts.missed_objective:
        command = "holdfast train, with newer rows"
        if facts.returns_to is not None:
            # By its name: without one, a rollback shortly after another is refused.
            command = (
                f"holdfast rollback --version {champion}, which returns to {facts.returns_to}, or {command}"
            )
        yield Problem("objective_missed", champion, _clause(facts.missed_objective), command)
    if facts.probe_age_us is not None and facts.probe_age_us > PROBE_STALE_US:
        text = f"no control loop has probed a server for {span(facts.probe_age_us / 1e6)}"
        yield Problem("control_loop_silent", "", text, "holdfast up")
    elif facts.servers in (Verdict.FAIL, Verdict.ERROR):
        text = _clause(facts.servers_explanation)
        yield Problem("servers_not_as_declared", "", text, "look at the log of the server, then holdfast up")
    if facts.usage is Verdict.FAIL:
        yield Problem("no_requests", "", _clause(facts.usage_explanation), "look at the callers")
    if facts.failed:
        text = f"{facts.failed:,} of {facts.requests:,} requests of the last hour failed at the server"
        yield Problem("requests_failed", "", text, "holdfast events")
    if is_refusing(facts.requests, facts.refused):
        kinds = f" ({', '.join(facts.refused_kinds)})" if facts.refused_kinds else ""
        text = (
            f"{facts.refused:,} of {facts.requests:,} requests of the last hour were refused, by their callers' fault"
            f"{kinds}{format_reasons(facts.refused_reasons)}"
        )
        command = "compare the callers with the contract: holdfast contract show"
        yield Problem("requests_refused", "", text, command)
    if facts.label_shift:
        yield Problem("label_shifted", champion, _clause(facts.label_shift), "holdfast train")
    for each in facts.unseen_slices:
        text = f"callers send {each}, and no training row of {champion} had it"
        yield Problem("unseen_slice", each, text, "holdfast train, with rows of it")


def _of_servers(facts: HealthFacts) -> Iterator[Problem]:
    for server, text in facts.server_conflicts.items():
        yield Problem(
            "server_conflict", server, text, f"stop it, then on its host holdfast servers separate {server}"
        )
    for server, text in facts.lost_servers.items():
        yield Problem("server_lost", server, text, f"start it again, or holdfast servers forget {server}")


def _of_feed(facts: FeedFacts) -> Iterator[Problem]:
    feed, command = facts.feed, f"holdfast feeds {facts.feed}"
    for batch, why in facts.suspect.items():
        text = f"batch {batch} of {feed} is suspect, and no version trains on {feed}: {_clause(why)}"
        yield Problem("feed_suspect", f"{feed}/{batch}", text, command)
    if facts.reregistered:
        batches = counted(facts.reregistered, "batch")
        text = f"{batches} of {feed} were found again in files, and no version trains on {feed} before they are accepted"
        yield Problem("feed_suspect", feed, text, command)
    for batch, why in facts.refused.items():
        text = f"batch {batch} of {feed} was refused: {_clause(why)}"
        yield Problem("feed_refusing", f"{feed}/{batch}", text, command)
    for batch, why in facts.warned.items():
        text = f"the newest batch of {feed}, {batch}, has warnings: {_clause(why)}"
        yield Problem(
            "feed_warned",
            f"{feed}/{batch}",
            text,
            f"{command}, then holdfast accept {feed} {batch} --reason WHY",
        )
    if facts.overdue_us is not None:
        text = f"the next batch of {feed} is overdue by {span(facts.overdue_us / 1e6)}"
        yield Problem("feed_overdue", feed, text, command)


def _of_versions(facts: HealthFacts) -> Iterator[Problem]:
    if facts.is_rollout_stalled:
        text = f"the rollout {facts.rollout}"
        yield Problem("rollout_stalled", str(facts.rollout_id), text, "holdfast rollout status")
    if facts.failed_training:
        yield Problem("training_failed", "", _clause(facts.failed_training), "holdfast train")
    if facts.failed_gates is not None and facts.failed_gates.gates:
        version, gates = facts.failed_gates.version, facts.failed_gates.gates
        text = f"the newest version, {version}, failed its gates: {', '.join(gates)}"
        yield Problem("gate_failed", version, text, f"holdfast qualify {version}")
    if facts.changed_rate:
        text = _clause(facts.changed_rate)
        yield Problem(
            "rate_changed", str(facts.rollout_id), text, "look at the callers, then holdfast rollout status"
        )
    for kind in facts.expired_drills:
        text = f"the drill {kind} is no longer valid"
        yield Problem("drill_expired", kind, text, f"holdfast drill {kind}")


def _clause(text: str) -> str:
    """Return a sentence as a clause of another: its first line, without its capital letter and full stop.

    >>> _clause("No request for 6 min.")
    'no request for 6 min'
    """
    line = text.splitlines()[0].rstrip(".") if text else ""
    return line[:1].lower() + line[1:] if line[1:2].islower() or line[1:2] == " " else line
