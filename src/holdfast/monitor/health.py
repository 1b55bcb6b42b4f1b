"""Judge in one sentence whether a model is well, and what to do if it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from holdfast.formatting import span
from holdfast.records import Verdict

PROBLEMS: Final = (
    "no_version", "tainted_champion", "servers_not_as_declared", "control_loop_silent", "no_requests", "requests_failed",
    "requests_refused", "objective_missed", "feed_suspect", "feed_refusing", "feed_overdue", "rollout_stalled", "gate_failed",
    "label_shifted", "unseen_slice", "drill_expired",
)  # fmt: skip
"""Every kind of problem, the most harmful first."""

PROBE_STALE_US: Final = 30_000_000
"""A probe of this age, microseconds, is of no control loop that runs."""
REFUSED_SHARE: Final = 0.05
"""From this share of refused requests on, their callers and the contract disagree; fewer are single mistakes."""
LEAST_REFUSED: Final = 10


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """One feed: its state, why it is in it, and how long its next batch is overdue; None if it is not."""

    feed: str
    state: str
    reason: str = ""
    overdue_us: int | None = None


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
    rollout, is_rollout_stalled
        What comes next of the running rollout in words, and whether it ends inconclusive as it goes on.
    missed_objective
        How the champion misses its objective, in words; empty if it does not.
    failed_gates
        The gates that the newest candidate failed, as text; empty if it has passed them.
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
    feeds: Sequence[FeedFacts] = ()
    rollout: str = ""
    is_rollout_stalled: bool = False
    failed_gates: str = ""
    label_shift: str = ""
    unseen_slices: Sequence[str] = ()
    expired_drills: Sequence[str] = ()
    missed_objective: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that needs attention: its kind, one of `PROBLEMS`, in words, and what to do."""

    kind: str
    text: str
    next_command: str


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
    found = sorted(_problems(facts), key=lambda problem: PROBLEMS.index(problem.kind))
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


def _problems(facts: HealthFacts) -> list[Problem]:
    if facts.champion is None:
        return [Problem("no_version", "no version serves yet", facts.next_command), *_of_feeds(facts)]
    found = []
    if facts.taint:
        text = f"{facts.champion} serves although it is tainted: {facts.taint}"
        found.append(Problem("tainted_champion", text, "holdfast train"))
    if facts.missed_objective:
        found.append(
            Problem(
                "objective_missed",
                facts.missed_objective,
                "holdfast rollback, or holdfast train on newer rows",
            )
        )
    if facts.probe_age_us is not None and facts.probe_age_us > PROBE_STALE_US:
        text = f"no control loop has probed a server for {span(facts.probe_age_us / 1e6)}"
        found.append(Problem("control_loop_silent", text, "holdfast up"))
    elif facts.servers in (Verdict.FAIL, Verdict.ERROR):
        found.append(
            Problem("servers_not_as_declared", _clause(facts.servers_explanation), "holdfast status")
        )
    if facts.usage is Verdict.FAIL:
        found.append(Problem("no_requests", _clause(facts.usage_explanation), "look at the callers"))
    if facts.failed:
        text = f"{facts.failed:,} of {facts.requests:,} requests of the last hour failed at the server"
        found.append(Problem("requests_failed", text, "holdfast events"))
    if is_refusing(facts.requests, facts.refused):
        text = f"{facts.refused:,} of {facts.requests:,} requests of the last hour were refused, by their callers' fault"
        found.append(
            Problem("requests_refused", text, "compare the callers with the contract: holdfast contract show")
        )
    return found + _of_feeds(facts) + _of_versions(facts)


def _of_feeds(facts: HealthFacts) -> list[Problem]:
    found = []
    for feed in facts.feeds:
        command = f"holdfast feeds {feed.feed}"
        reason = f": {_clause(feed.reason)}" if feed.reason else ""
        if feed.state == "suspect":
            found.append(Problem("feed_suspect", f"feed {feed.feed} is suspect{reason}", command))
        elif feed.state == "refusing":
            found.append(
                Problem("feed_refusing", f"the newest delivery of {feed.feed} was refused{reason}", command)
            )
        if feed.overdue_us is not None:
            text = f"the next batch of {feed.feed} is overdue by {span(feed.overdue_us / 1e6)}"
            found.append(Problem("feed_overdue", text, command))
    return found


def _of_versions(facts: HealthFacts) -> list[Problem]:
    found = []
    if facts.is_rollout_stalled:
        found.append(Problem("rollout_stalled", f"the rollout {facts.rollout}", "holdfast rollout status"))
    if facts.failed_gates:
        found.append(Problem("gate_failed", facts.failed_gates, "holdfast status"))
    if facts.label_shift:
        found.append(Problem("label_shifted", _clause(facts.label_shift), "holdfast train"))
    if facts.unseen_slices:
        text = f"callers send what no training row had: {', '.join(facts.unseen_slices)}"
        found.append(Problem("unseen_slice", text, "holdfast train, with rows of it"))
    for kind in facts.expired_drills:
        found.append(
            Problem("drill_expired", f"the drill {kind} is no longer valid", f"holdfast drill {kind}")
        )
    return found


def _clause(text: str) -> str:
    """Return a sentence as a clause of another: its first line, without its capital letter and full stop.

    >>> _clause("No request for 6 min.")
    'no request for 6 min'
    """
    line = text.splitlines()[0].rstrip(".") if text else ""
    return line[:1].lower() + line[1:] if line[1:2].islower() or line[1:2] == " " else line
