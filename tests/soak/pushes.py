"""Pushes through the whole system: bad versions of ten kinds and good ones, on the flights, without a person.

A store with three months of flights, weather and departures loaded through `ingest`; a champion trained, qualified and
promoted; a server process, a control loop process, and a process of callers that asks about the three weeks after, in a
circle, and reports each flight's truth a day later. Then pushes, one after another in an order drawn from the seed: each is a
registered and qualified version that is put to a rollout and never touched again by anybody but the control loop.

Alpha and the margins are the defaults of the policy; only times are short: a step lasts as long as its evidence needs, and
a watch some seconds. Every other push shadows first. A good push is another training: other seed, months, rows and
hyperparameters. A bad push is such a version with a fault in its graph (`push_faults`). The gates judge each kind first. A
kind that they refuse has stopped before anybody was answered; it is pushed all the same, as a version whose fault waits for
the days after those that gates can ask about, and no gate is weakened for it.

Run: python -m tests.soak.pushes --bad 20 --good 20 --seed 20131 --json pushes.json
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.command import Command
from holdfast.control.rollout import pushes
from holdfast.rollout import Canary, PushOutcome, Shadow, State
from holdfast.rollout.evidence.evidence import requests_of
from holdfast.rollout.model.state_machine import RESTING
from holdfast.store.db import events
from holdfast.store.rollout import evidence, rollouts
from tests.soak.push_faults import FAULTS, Fault
from tests.soak.push_stage import Callers, Extent, World
from tests.support.queries import read

CONNECTIONS = 8
WARM_REQUESTS = 1_000
PUSH_SECONDS = 600.0
POLL_SECONDS = 0.05
DECISION = 0.5
SMALL = Extent(first=date(2013, 3, 1), last=date(2013, 3, 20), live_days=2, trees=30, holdout="6d")
SMALL_KINDS = ("raises", "slow path")
"""What `--smoke` plays: one kind that its shadow stops, and one that its canary stops."""
BAD_LABELS = (PushOutcome.BAD, PushOutcome.ESCAPED)


@dataclass(frozen=True)
class Planned:
    """A version that is to be pushed. `waits` reports that its fault waits for days that no gate can ask about."""

    version: str
    kind: str
    bad: bool
    shadow: bool
    waits: bool = False


@dataclass(frozen=True)
class Judged:
    """What the gates decided of one kind of bad version."""

    kind: str
    lives: str
    refused_by: list[str]


@dataclass
class Pushed:
    """What became of a push.

    Counts are of requests, from requesting for the rollout until callers were seen to be answered by the intended version:
    `requested` all of them, `copies` those that were copied to the shadow, `challenger` those that were the challenger's, of
    which it `failed` some, which the champion answered in its place. Of the challenger's answers that reached users,
    `differing` would be decided otherwise by the champion, which is requested the same rows afterwards; `slow` were
    beyond the bound on latency. `found_by` are the metrics that showed harm, `at` where it was shown.
    """

    planned: Planned
    rollout: int
    state: str
    actor: str
    outcome: str
    labelled_by: str
    reason: str
    found_by: list[str]
    at: str
    seconds: float
    requested: int
    copies: int
    challenger: int
    failed: int
    slow: int
    differing: int
    ledger_failed_or_wrong: int

    @property
    def bad_responses(self) -> int:
        """Answers that users got and that were bad, and requests that the challenger failed."""
        return self.failed + self.slow + self.differing

    @property
    def right(self) -> bool:
        """Whether it ended as it should, without a person."""
        alone = (self.actor, self.labelled_by) == (events.SYSTEM, events.SYSTEM)
        if self.planned.bad:
            return alone and self.state in (State.ROLLED_BACK, State.CANCELLED) and self.outcome in BAD_LABELS
        return alone and self.state == State.PROMOTED and self.outcome == PushOutcome.GOOD


@dataclass
class Soak:
    """All pushes of one run, and what they found."""

    world: World
    callers: Callers
    labelled: int
    units: int
    latency_slack: str = "1ms"
    observe_seconds: float = 0.0
    pushed: list[Pushed] = field(default_factory=list)

    def warm_up(self, day_requests: int) -> None:
        """Let the champion be known, and measure how many requests a second there are: a watch has to see labels, which
        come a day of flights later, whatever the machine is busy with."""
        began, before = time.monotonic(), self.callers.requests
        while self.callers.requests - before < WARM_REQUESTS:
            time.sleep(POLL_SECONDS)
        rate = WARM_REQUESTS / (time.monotonic() - began)
        self.observe_seconds = max(4.0, 5.0 * day_requests / rate)

    def policy(self, *, shadow: bool) -> Canary:
        """Default alpha and margins. It has half of the units until there are enough labels to show a loss of score of 0.04."""
        return Canary(
            steps=(10, 50),
            units_per_step=min(
                self.units // 20, Canary.units_per_step
            ),  # half of those that the first step can ever see
            min_labels_total=self.labelled,
            latency_slack=self.latency_slack,
            slices=("carrier",),
            shadow=Shadow(units=1000, disagreement=0.1) if shadow else None,
            timeout=timedelta(seconds=PUSH_SECONDS),
            bake=timedelta(seconds=self.observe_seconds),
        )

    def push(self, planned: Planned) -> Pushed:
        """Put one version to a rollout, wait until it is over, and ask what happened."""
        world = self.world
        before, began = self.callers.requests, time.monotonic()
        number = world.begin(planned.version, self.policy(shadow=planned.shadow))
        requested = 0

        def over() -> bool:
            nonlocal requested
            row = read(world.store, rollouts.get, number)
            if not requested and row.state in (State.ROLLING_BACK, State.PROMOTED, *RESTING):
                requested = self.callers.requests - before
            return row.state in RESTING and self.label(number).outcome is not PushOutcome.OPEN

        world.wait(over, f"the end of the push of {planned.version}", seconds=2 * PUSH_SECONDS)
        done = self._pushed(planned, number, time.monotonic() - began, requested)
        self.pushed.append(done)
        return done

    def label(self, number: int) -> pushes.Push:
        """The push in the ledger."""
        return next(
            each for each in pushes.listed(self.world.store, self.world.name) if each.rollout_id == number
        )

    def _pushed(self, planned: Planned, number: int, seconds: float, requested: int) -> Pushed:
        row, label = read(self.world.store, rollouts.get, number), self.label(number)
        with self.world.store.ledger.read() as connection:
            states = evidence.canary_of_rollout(connection, number)
            copied = evidence.shadow_of_rollout(connection, number)
            canary_us = rollouts.first_reached_us(connection, number, (State.CANARY,))
            promoted_us = rollouts.first_reached_us(connection, number, (State.PROMOTED,))
        found_by = [each.metric for each in (*copied, *states) if each.is_harmful]
        at = "watch" if promoted_us else f"canary {row.step + 1}" if canary_us else "shadow"
        challenger, failed = requests_of(states)
        return Pushed(
            planned=planned,
            rollout=number,
            state=row.state,
            actor=row.actor,
            outcome=label.outcome,
            labelled_by=label.labelled_by,
            reason=row.reason,
            found_by=found_by,
            at=at if planned.bad else "",
            seconds=round(seconds, 1),
            requested=requested,
            copies=sum(each.challenger_units for each in copied if each.metric == "shadow.errors"),
            challenger=challenger,
            failed=failed,
            slow=sum(int(each.challenger_total) for each in states if each.metric == "latency")
            if planned.bad
            else 0,
            differing=self._differing(planned.version, row.champion) if planned.bad else 0,
            ledger_failed_or_wrong=label.failed_or_wrong,
        )

    def _differing(self, version: str, champion: str | None) -> int:
        """How many answers of `version` that users got the champion would have decided otherwise."""
        known = self.callers.ask("answers", version=version)["rows"]
        theirs = self.callers.ask("pinned", version=champion, rows=[row for row, _, _ in known])[
            "probabilities"
        ]
        return sum(
            count
            for (_, count, ours), other in zip(known, theirs, strict=True)
            if other is None or (ours >= DECISION) != (other >= DECISION)
        )


def prepared(
    world: World, first: str, counts: tuple[int, int], faults: Sequence[Fault], rng: random.Random
) -> tuple[list[Judged], list[Planned]]:
    """Train, judge and break as many bad and good versions as `counts` reports, in the order in which they will be pushed.

    The two versions of a kind come from two trainings; one of them shadows, and the other does not.
    """
    bad, good = counts
    candidates = good_candidates(world)
    goods = [Planned(next(candidates), "good", bad=False, shadow=number % 2 == 0) for number in range(good)]
    sources = [*(each.version for each in goods), first]
    kinds = faults[:bad]
    judged: list[Judged] = []
    bads: list[Planned] = []
    for number in range(bad):
        again, at = divmod(number, len(kinds))
        source = sources[(at + again) % len(sources)]
        if not again:
            judged.append(judge(world, source, kinds[at]))
        waits = bool(judged[at].refused_by)
        version = world.broken(source, kinds[at], world.live_from_us if waits else None)
        if not world.qualifies(version):
            raise RuntimeError(f"{kinds[at].kind}: the gates refuse it: {world.refusals(version)}")
        bads.append(Planned(version, kinds[at].kind, bad=True, shadow=(at + again) % 2 == 0, waits=waits))
    planned = [*goods, *bads]
    rng.shuffle(planned)
    return judged, planned


def judge(world: World, source: str, fault: Fault) -> Judged:
    """What the gates decide of a version whose fault is there from the beginning."""
    version = world.broken(source, fault, None)
    world.qualifies(version)
    return Judged(fault.kind, fault.lives, world.refusals(version))


def good_candidates(world: World) -> Iterator[str]:
    """Qualified versions, each trained anew. What a gate refuses is no push."""
    seed = 0
    while True:
        seed += 1
        version = world.trained(seed)
        if world.qualifies(version):
            yield version


def soak(
    bad: int,
    good: int,
    seed: int,
    directory: Path,
    *,
    extent: Extent | None = None,
    faults: Sequence[Fault] = FAULTS,
    labelled: int = 2_500,
    rate: float = 1_000.0,
    latency_slack: str = "1ms",
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Play it all; the document that is printed. `labelled` answers of a challenger must be known before it is promoted, and
    `rate` requests a second are sent at most. A machine that does other work at the same time needs a larger `latency_slack`.
    """
    began = time.monotonic()
    rng = random.Random(seed)
    extent = extent or Extent()
    world = World.build(directory, extent)
    report(f"{time.monotonic() - began:6.1f} s  {extent.first} to {extent.last} are loaded")
    first = world.trained(0)
    if not world.qualifies(first):
        raise RuntimeError(f"the first version is refused: {world.refusals(first)}")
    judged, planned = prepared(world, first, (bad, good), faults, rng)
    report(f"{time.monotonic() - began:6.1f} s  {len(planned)} versions are trained, broken and judged")
    world.begin(first)
    with world.running(CONNECTIONS, rate) as callers:
        play = Soak(world, callers, labelled, world.requests_a_day * extent.live_days, latency_slack)
        play.warm_up(world.requests_a_day)
        pushing = time.monotonic()
        for each in planned:
            report(in_words(play.push(each), time.monotonic() - began))
        totals = callers.ask("totals")
        pushing = time.monotonic() - pushing
        ledger = asdict(pushes.totals(pushes.listed(world.store, world.name)))
    return {
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "pushing_seconds": round(pushing, 1),
        "watch_seconds": round(play.observe_seconds, 1),
        "requests": totals["requests"],
        "statuses": totals["statuses"],
        **summary(play.pushed),
        "ledger": ledger,
        "judged": [asdict(each) for each in judged],
        "pushes": [
            asdict(each) | {"bad_answers": each.bad_responses, "right": each.right} for each in play.pushed
        ],
    }


def summary(pushed: list[Pushed]) -> dict[str, Any]:
    """The line that matters."""
    bads = [each for each in pushed if each.planned.bad]
    goods = [each for each in pushed if not each.planned.bad]
    return {
        "bad": len(bads),
        "bad_right": sum(each.right for each in bads),
        "escaped": sum(each.outcome == PushOutcome.ESCAPED for each in bads),
        "good": len(goods),
        "good_right": sum(each.right for each in goods),
        "bad_answers": sum(each.bad_responses for each in bads),
        "right": all(each.right for each in pushed),
    }


def in_words(each: Pushed, seconds: float) -> str:
    """One push as a line."""
    label = f"{each.planned.kind}{' (waits)' if each.planned.waits else ''}"
    how = "shadow" if each.planned.shadow else "canary"
    found = f"{', '.join(each.found_by) or '-'} at {each.at}" if each.planned.bad else each.outcome
    return (
        f"{seconds:6.1f} s  {'right' if each.right else 'WRONG':5}  {label:22} {how:6} {each.state:11} {found:44} "
        f"{each.seconds:5.1f} s  requested {each.requested:6,}  copies {each.copies:5,}  challenger {each.challenger:6,}  "
        f"bad answers {each.bad_responses:5,}" + ("" if each.right else f"\n{'':16}{each.reason}")
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a command; the exit status is 1 when a push ended as it should not."""
    command = Command("tests.soak.pushes", __doc__)
    command.size("--bad", 20, 2, help="bad versions")
    command.size("--good", 20, 1, help="good versions")
    command.option("--seed", type=int, default=20131)
    command.size("--rate", 1_000.0, 400.0, help="requests a second, at most")
    command.size("--labelled", 2_500, 300, help="labelled predictions before a promotion")
    command.size("--latency-slack", "1ms", "4ms", help="more where the machine does other work")
    command.option("--json", type=Path, help="where the whole document is written")
    command.option("--directory", type=Path, help="where it is played, and kept")
    given = command.parse(arguments)
    with tempfile.TemporaryDirectory(prefix="holdfast-pushes-") as temporary:
        document = soak(
            given.bad,
            given.good,
            given.seed,
            given.directory or Path(temporary) / "stage",
            extent=SMALL if given.smoke else Extent(),
            faults=[fault for fault in FAULTS if fault.kind in SMALL_KINDS] if given.smoke else FAULTS,
            labelled=given.labelled,
            rate=given.rate,
            latency_slack=given.latency_slack,
        )
    if given.json:
        given.json.write_text(json.dumps(document, indent=1))
    for each in document["judged"]:
        refused = ", ".join(each["refused_by"]) or "none: it comes to the canary"
        print(f"{each['kind']:14} {each['lives']}; refused by {refused}")
    pushed = {
        f"{number}: {each['planned']['kind']}": _as_row(each)
        for number, each in enumerate(document["pushes"], 1)
    }
    figures = {name: value for name, value in document.items() if name not in ("judged", "pushes")}
    return command.finish(figures | {"pushes": pushed}, passed=document["right"])


def _as_row(each: dict[str, Any]) -> dict[str, object]:
    """One push, as `asdict` gives it, in the record."""
    planned = each["planned"]
    return {
        "bad": planned["bad"], "waits": planned["waits"], "shadow": planned["shadow"], "state": each["state"],
        "found_by": each["found_by"], "at": each["at"], "requested": each["requested"], "copies": each["copies"],
        "challenger": each["challenger"], "bad_answers": each["bad_answers"], "seconds": round(each["seconds"], 1),
        "right": each["right"],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
