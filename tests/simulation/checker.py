"""What the simulation may never show. The checker reads the ledger for itself after each commit, and knows what really
happened outside of it; it shares no code with what it checks but the table of transitions.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.rollout import RESTING, TERMINAL, TRANSITIONS, State
from holdfast.store.db.event_chain import FIRST, chain_digest
from tests.simulation.actors import Actor
from tests.simulation.expected_evidence import Reckoning
from tests.simulation.ledger_view import Seen, look, requested_by

ABORTED = TERMINAL | {State.ROLLING_BACK}
COMPARED = (State.CANARY, State.PAUSED, State.VERIFYING)
CONTROLLER = "control"


class RejectedError(AssertionError):
    """A history that must not happen."""


@dataclass
class History:
    """Reads the ledger after each commit, and rejects what contradicts a rule."""

    path: Path
    true_us: int = 0
    reported: list[str] = field(default_factory=list)
    observed: set[tuple[str, int, str]] = field(default_factory=set)
    """What probes really saw: server, plan and the version that answered."""
    aborted: dict[str, int] = field(default_factory=dict)
    """With which plan each version was rolled back last, until it is rolled out anew."""
    takeovers: int = 0
    _before: Seen | None = None

    def __post_init__(self) -> None:
        self._database = sqlite3.connect(self.path, isolation_level=None)
        self.reckoning = Reckoning(self._require)
        self._before = look(self._database)

    def again(self) -> None:
        """Take what the ledger is now for what was always so."""
        self._before = look(self._database)

    def close(self) -> None:
        self._database.close()

    @property
    def now(self) -> Seen:
        assert self._before is not None
        return self._before

    def committed(self, actor: Actor) -> None:
        """Look at what `actor` has just committed."""
        before, after = self.now, look(self._database)
        self._before = after
        self._lease(actor, before, after)
        moved = [n for n in after.rollouts if after.rollouts[n] != before.rollouts.get(n)]
        if actor.name.startswith(CONTROLLER) and (moved or before.fenced != after.fenced):
            self._require(
                after.lease[:2] == (actor.name.partition("#")[0], actor.believes),
                f"{actor.name} wrote under epoch {actor.believes}; the lease is {after.lease}",
            )
        self._require(len(moved) <= 1, f"one transaction moved rollouts {moved}")
        for number in moved:
            self._moved(actor, number, before, after)
        if after.plan != before.plan:
            self._planned(actor, moved, before, after)
        self.reckoning.committed(actor.name, before, after)
        under_way = [n for n, row in after.rollouts.items() if row[0] not in RESTING]
        self._require(len(under_way) <= 1, f"rollouts {under_way} are under way at once")

    def responded(self, server: str, follows: int, knows: int, version: str) -> None:
        """`server` follows plan `follows`, has kept plan `knows`, and answered a user by `version`."""
        since = self.aborted.get(version)
        self._require(
            since is None or max(follows, knows) < since,
            f"{server} answered by {version} under plan {follows}; it was rolled back by plan {since}",
        )

    def reported_once(self) -> None:
        """The whole history is a chain, and what was collected is all counted."""
        before = FIRST
        for at_us, kind, subject, actor, why, digest in self._database.execute(
            "SELECT at_us, kind, subject, actor, explanation, digest FROM events ORDER BY event_id"
        ):
            before = chain_digest(before, at_us, kind, subject, actor, why)
            self._require(digest == before, f"the history is broken at {kind} of {subject}")
        self.reckoning.ended(self._database)

    def _lease(self, actor: Actor, before: Seen, after: Seen) -> None:
        if before.lease == after.lease:
            return
        if after.lease[1] != before.lease[1]:
            name = actor.name.partition("#")[0]
            self._require(after.lease[0] == name, f"{actor.name} made {after.lease[0]} the holder")
            self._require(after.lease[1] == before.lease[1] + 1, "an epoch was left out or came again")
            if before.lease[0] not in ("", name):
                self.takeovers += 1
                elapsed = max(actor.looks, default=0) - min(actor.looks, default=0)
                self._require(
                    elapsed >= before.lease[2],
                    f"{actor.name} acquired the lease of {before.lease[0]} after it had seen it stand still for {elapsed} us",
                )
            actor.believes = after.lease[1]
        self.lease_changed()

    def lease_changed(self) -> None:
        """Set by the world: every actor begins to watch the lease anew."""

    def _moved(self, actor: Actor, number: int, before: Seen, after: Seen) -> None:
        state, step, challenger, champion, *_ = after.rollouts[number]
        self.reported.append(f"{self.true_us} {actor.name}: rollout {number} {state} step {step}")
        if number not in before.rollouts:
            self._require(state == State.PENDING, f"rollout {number} began as {state}")
            self.aborted.pop(challenger, None)
            return
        was, was_step, *_ = before.rollouts[number]
        ways = [event for (source, event), target in TRANSITIONS.items() if (source, target) == (was, state)]
        self._require(bool(ways), f"rollout {number} went from {was} to {state}")
        # A pause takes a share of nothing away and a resumption gives none.
        grown = step - was_step
        allowed = (1,) if (was, state) == (State.CANARY, State.CANARY) else (0,)
        self._require(grown in allowed, f"rollout {number} went from step {was_step} to {step} as {state}")
        if was in COMPARED and state not in ABORTED and actor.name.startswith(CONTROLLER) and champion:
            found = [row for row in after.evidence.values() if row.rollout == number]
            harm = [row.metric for row in found if row.log_e >= row.log_bound]
            self._require(not harm, f"rollout {number} became {state} although harm to {harm} was shown")
        if state in (State.PROMOTED, State.ROLLED_BACK):
            self._confirmed(number, state, before, challenger)
        if state in ABORTED:
            assert after.plan is not None or state is State.CANCELLED
            self.aborted.setdefault(challenger, 0 if after.plan is None else after.plan[0])

    def _confirmed(self, number: int, state: str, before: Seen, challenger: str) -> None:
        assert before.plan is not None
        plan, champion = before.plan[0], before.plan[1]
        version = challenger if state == State.PROMOTED else champion
        saw = [each for each in self.observed if each[1:] == (plan, version)]
        self._require(
            bool(saw), f"rollout {number} became {state}, and no probe saw {version} under plan {plan}"
        )
        other = [each for each in before.probes if each[3] != "error" and each[1:3] != (plan, version)]
        self._require(
            not other, f"rollout {number} became {state}, and {other} do not answer so under plan {plan}"
        )

    def _planned(self, actor: Actor, moved: list[int], before: Seen, after: Seen) -> None:
        assert after.plan is not None
        plan, champion, challenger, share_ppm, rollout, *warm = after.plan
        last = 0 if before.plan is None else before.plan[0]
        self._require(plan == last + 1, f"plan {plan} came after plan {last}")
        self._require(moved == [rollout], f"plan {plan} of rollout {rollout} came with moves of {moved}")
        state, step, *_, policy = after.rollouts[rollout]
        if state == State.CANARY:
            requested = requested_by(policy).shares_ppm[step]
            self._require(
                share_ppm == requested, f"plan {plan} gives {share_ppm} ppm, and step {step} is {requested}"
            )
        given = {champion, challenger if share_ppm else None, *warm}
        if state == State.ROLLING_BACK:
            self._require(after.rollouts[rollout][2] not in given, f"plan {plan} keeps what is rolled back")
            if not actor.name.startswith(CONTROLLER):
                self.aborted.pop(
                    champion, None
                )  # what a person returns to, whatever was reported of it since
        for version in {champion, challenger} & self.aborted.keys():
            self._require(
                False, f"plan {plan} gives traffic to {version}, rolled back by plan {self.aborted[version]}"
            )

    def _require(self, holds: bool, why: str) -> None:
        if not holds:
            raise RejectedError(why)


def explained(history: History) -> str:
    """The end of a history, to look for its mistake in."""
    return json.dumps({"last": history.reported[-12:], "lease": history.now.lease}, default=str)
