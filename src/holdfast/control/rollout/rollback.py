"""Roll a push back: version, serving config and runtime, by one plan in one transaction.

`rollout_to_undo` and `plan_rollback` decide and touch nothing. `rollback` reads the ledger, decides, writes and commits,
all in one transaction: after a crash everything is rolled back, or nothing. An operator or a script may give the command
twice; the second time must not roll back the version that the first returned to (R118).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.control.rollout import drill_traffic, plan_parts, reconcile, start
from holdfast.control.rollout.plan_parts import ROLLED_BACK, Part
from holdfast.control.rollout.reconcile import Transition
from holdfast.control.rollout.traffic import traffic_of
from holdfast.errors import NotFoundError, RefusedError
from holdfast.rollout import Event, State, next_state
from holdfast.rollout.model.abort import REPEATED_US
from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.rollout.model.state_machine import TERMINAL
from holdfast.store import Store
from holdfast.store.db import events
from holdfast.store.db.ledger import Transaction
from holdfast.store.models import runtimes, serving_configs
from holdfast.store.rollout import queue, rollouts, traffic_plans
from holdfast.store.rollout.rollouts import RolloutRow


@dataclass(frozen=True, slots=True)
class Request:
    """A rollback as an operator requests it: of the rollout of `version`, and of one part `only`; None leaves it open."""

    model: str
    actor: str
    reason: str
    version: str | None = None
    only: Part | None = None


@dataclass(frozen=True, slots=True)
class Rollouts:
    """What the ledger knows of the rollouts of a model."""

    champion: str | None
    """The champion of the newest plan."""
    running: RolloutRow | None
    promotion: RolloutRow | None
    """The promotion of the champion."""
    of_version: RolloutRow | None
    """The newest rollout of the version that the operator names."""
    rolled_back: RolloutRow | None
    """The rollout that was rolled back or cancelled last."""


@dataclass(frozen=True, slots=True)
class History:
    """The values of one part in the plans of a model.

    `periods` are the two newest, the newest first, each with its first plan; `initial` served before the first.
    """

    periods: Sequence[tuple[int, str]]
    initial: str | None
    is_rolled_back: bool
    """True if the last operation on the part was its rollback."""


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a rollback: traffic or servers leave `undone` and return to `returns_to`."""

    part: Part
    undone: str
    returns_to: str
    reason: str
    is_done: bool
    """True if it was rolled back before; then nothing is written."""

    def describe(self) -> str:
        """Return the step in one line.

        >>> Step(Part.RUNTIME, "b-2", "b-1", "pushed since rollout 3 began", False).describe()
        'runtime: b-2 is rolled back to b-1 (pushed since rollout 3 began)'
        """
        verb = "was rolled back before" if self.is_done else "is rolled back"
        return f"{self.part}: {self.undone} {verb} to {self.returns_to} ({self.reason})"


@dataclass(frozen=True, slots=True)
class RolledBack:
    """A committed rollback: its steps, its rollout as it is now, and the plan that servers must follow.

    `plan` is 0 and `intended`, the version that must answer, None before the model's first plan. `dropped` is the queued
    version, which is not rolled out; None if none was queued.
    """

    steps: tuple[Step, ...]
    rollout: RolloutRow | None
    plan: int
    intended: str | None
    dropped: str | None = None

    def returns_to(self, part: Part) -> str | None:
        """Return what `part` was returned to; None if it was left as it is."""
        return next((step.returns_to for step in self.steps if step.part is part), None)


# --- decisions --------------------------------------------------------------------------------------------------------


def rollout_to_undo(request: Request, known: Rollouts, *, now_us: int) -> RolloutRow:
    """Return the rollout that a rollback is about; it may be rolled back already.

    It is that of the named version; without a name the running one, else the promotion of the champion, however many
    rollouts have ended since.

    Raises
    ------
    RefusedError
        HF404 if the version has no traffic and none was taken from it, if there is no promotion to undo, or if no version
        is named shortly after another was rolled back.
    """
    version, running = request.version, known.running
    if version is None:
        return running or _promotion(request.model, known, now_us)
    if running is not None and running.challenger == version:
        return running
    if known.champion == version:
        if running is not None:
            raise RefusedError(
                "HF404",
                f"rollout {running.rollout_id} of {running.challenger} against {version} is {running.state}, and comes first",
                state="nothing was written",
                next_command=f"holdfast rollback --version {running.challenger}, then the same command again",
            )
        return _promoted(request.model, known)
    if known.of_version is not None and known.of_version.state in TERMINAL:
        return known.of_version
    raise RefusedError(
        "HF404",
        f"{version[:64]} has no traffic of {request.model!r} to give back: {known.champion or 'no version'} serves",
        state="nothing was written",
        next_command="holdfast status",
    )


def _promotion(model: str, known: Rollouts, now_us: int) -> RolloutRow:
    row, last = _promoted(model, known), known.rolled_back
    recent = last is not None and now_us - last.changed_at_us < REPEATED_US
    if last is not None and recent and last.changed_at_us >= row.changed_at_us:
        seconds = max(0, now_us - last.changed_at_us) / 1e6
        raise RefusedError(
            "HF404",
            f"rollout {last.rollout_id} of {last.challenger} is {last.state} since {seconds:.0f} s, and "
            f"{row.challenger} serves: it is rolled back only if it is named",
            state="nothing was written",
            next_command=f"nothing, or holdfast rollback --version {row.challenger}",
        )
    return row


def _promoted(model: str, known: Rollouts) -> RolloutRow:
    if known.promotion is not None:
        return known.promotion
    why = f"{known.champion} was not promoted by a rollout" if known.champion else "no version serves"
    raise RefusedError(
        "HF404",
        f"{model!r} has no promotion to undo: {why}, and no rollout is running",
        state="nothing was written",
        next_command="holdfast status",
    )


def is_undone(row: RolloutRow) -> bool:
    """Return True if the rollout is rolled back already, or about to be."""
    return row.state is State.ROLLING_BACK or row.state in TERMINAL


def plan_rollback(
    request: Request,
    row: RolloutRow | None,
    returns_to: str,
    since_plan: int,
    histories: dict[Part, History],
) -> tuple[Step, ...]:
    """Return the steps of a rollback, in the order in which they are written.

    Parameters
    ----------
    request
        What the operator requests.
    row
        The rollout to undo; None if the model version stays.
    returns_to
        The version that traffic returns to when `row` is undone.
    since_plan
        The number of the last plan before the rollout; a serving config or runtime pushed by a later plan goes back with
        it. 0: however long ago it was pushed.
    histories
        What was pushed of each other part that may be rolled back.

    Raises
    ------
    RefusedError
        HF404 if nothing was pushed that could be rolled back.
    """
    steps: list[Step] = []
    why = "the newest that was pushed"
    if row is not None:
        reason = f"rollout {row.rollout_id}, {row.state}"
        steps.append(Step(Part.MODEL, row.challenger, returns_to, reason, is_undone(row)))
        why = f"pushed since rollout {row.rollout_id} began"
    for part, history in histories.items():
        step = _step(part, history, since_plan, why)
        if step is not None:
            steps.append(step)
    if not steps:
        raise RefusedError(
            "HF404",
            f"no {request.only} of {request.model!r} was pushed",
            state="nothing was written",
            next_command="holdfast status",
        )
    return tuple(steps)


def _step(part: Part, history: History, since_plan: int, why: str) -> Step | None:
    if not history.periods or history.periods[0][0] <= since_plan:
        return None
    current = history.periods[0][1]
    before = history.periods[1][1] if len(history.periods) > 1 else history.initial
    if before is None:
        return None
    undone, returns_to = (before, current) if history.is_rolled_back else (current, before)
    return Step(part, undone, returns_to, why, history.is_rolled_back)


# --- carried out ------------------------------------------------------------------------------------------------------


def rollback(store: Store, request: Request, *, now_us: int) -> RolledBack:
    """Roll back what `request` names, regardless of the evidence, and commit it all at once.

    A repeated request for what is rolled back writes nothing.

    Raises
    ------
    NotFoundError
        HF410 if the model was never rolled out, or serves no version.
    RefusedError
        HF404 if there is nothing to undo or no version to return to, HF406 if that version is tainted.
    ConflictError
        HF304 if the rollout moved meanwhile; then repeat.
    """
    with store.ledger.write() as connection:
        drill_traffic.settle(connection, request.model, now_us)
        row, since_plan, returns_to, dropped = None, 0, "", None
        if request.only in (None, Part.MODEL):
            dropped, unqueued = _unqueue(connection, request, now_us)
            if unqueued is not None:
                return unqueued
            row = rollout_to_undo(request, _rollouts(connection, request), now_us=now_us)
            before = traffic_plans.before_rollout(connection, request.model, row.rollout_id)
            since_plan = 0 if before is None else before.plan.plan_id
            returns_to = _returns_to(connection, store, row)
        steps = plan_rollback(request, row, returns_to, since_plan, _histories(connection, request))
        _write(connection, store, request, row, steps, now_us)
        plan = traffic_plans.newest(connection, request.model)
        after = None if row is None else rollouts.get(connection, row.rollout_id)
    if plan is None:
        return RolledBack(steps, after, 0, None, dropped)
    return RolledBack(steps, after, plan.plan_id, plan.intended, dropped)


def version_to_return_to(connection: Transaction, store: Store, model: str, champion: str) -> str | None:
    """Return the version that gets the traffic if `champion` is rolled back by its name; None if that would be refused."""
    row = rollouts.promotion(connection, model, champion)
    if row is None or rollouts.under_way(connection, model) is not None:
        return None
    try:
        return _returns_to(connection, store, row)
    except RefusedError:
        return None


def _unqueue(connection: Transaction, request: Request, now_us: int) -> tuple[str | None, RolledBack | None]:
    """Drop the queued version: no rollout starts by itself after an operator's rollback.

    Return the version, and the result if it is the named one and has no traffic, so that nothing else is to be done.
    """
    queued = queue.find(connection, request.model)
    plan = traffic_plans.newest(connection, request.model)
    running = rollouts.under_way(connection, request.model)
    why = f"{request.actor} rolled back: {request.reason}"
    dropped = start.drop(connection, request.model, why, actor=request.actor, now_us=now_us)
    serving = {None if plan is None else plan.champion, None if running is None else running.challenger}
    if queued is None or queued.version != request.version or queued.version in serving:
        return dropped, None
    champion = "nothing" if plan is None else plan.champion
    step = Step(Part.MODEL, queued.version, champion, "it was queued", False)
    number, intended = (0, None) if plan is None else (plan.plan_id, plan.intended)
    return dropped, RolledBack((step,), None, number, intended, dropped)


def _rollouts(connection: Transaction, request: Request) -> Rollouts:
    model, version = request.model, request.version
    if rollouts.find_newest(connection, model) is None:
        raise NotFoundError("HF410", f"{model!r} was never rolled out", next_command="holdfast rollout start")
    plan = traffic_plans.newest(connection, model)
    champion = None if plan is None else plan.champion
    return Rollouts(
        champion=champion,
        running=rollouts.under_way(connection, model),
        promotion=None if champion is None else rollouts.promotion(connection, model, champion),
        of_version=None if version is None else rollouts.last_of(connection, model, version),
        rolled_back=rollouts.last_ended(connection, model, TERMINAL),
    )


def _returns_to(connection: Transaction, store: Store, row: RolloutRow) -> str:
    """Return the version that answers once `row` is undone, as its transition will write it."""
    traffic = None
    if not is_undone(row):
        traffic = traffic_of(connection, store, row, next_state(row.state, Event.ROLLBACK), row.step)
    if traffic is not None:
        return traffic.champion
    plan = traffic_plans.newest(connection, row.model)
    return "nothing" if plan is None else plan.champion


def _histories(connection: Transaction, request: Request) -> dict[Part, History]:
    wanted = (Part.SERVING_CONFIG, Part.RUNTIME) if request.only is None else (request.only,)
    in_force = {Part.SERVING_CONFIG: serving_configs.in_force, Part.RUNTIME: runtimes.in_force}
    initial = {Part.SERVING_CONFIG: ConnectionLimits().id}
    return {
        part: History(
            read(connection, request.model),
            initial.get(part),
            plan_parts.is_rolled_back(connection, request.model, part),
        )
        for part, read in in_force.items()
        if part in wanted
    }


def _write(
    connection: Transaction,
    store: Store,
    request: Request,
    row: RolloutRow | None,
    steps: Sequence[Step],
    now_us: int,
) -> None:
    config = runtime = None
    for step in steps:
        if step.is_done:
            continue
        match step.part:
            case Part.MODEL:
                assert row is not None, "the plan has a step for it"
                reason = f"requested by {request.actor}: {request.reason}"
                reconcile.commit(
                    connection, store, row, Transition(Event.ROLLBACK, reason, request.actor), now_us=now_us
                )
            case Part.SERVING_CONFIG:
                limits = ConnectionLimits()
                if step.returns_to != limits.id:
                    limits = serving_configs.get(connection, step.returns_to)
                # The defaults of servers were never pushed, so they may not be registered yet.
                config = serving_configs.register(connection, limits, now_us=now_us)
                explanation = f"servers run with {limits.id} {limits.to_json()}: {request.reason}"
                _record(connection, request, step.part, explanation, now_us)
            case Part.RUNTIME:
                runtime = step.returns_to
                _record(connection, request, step.part, f"{runtime} serves: {request.reason}", now_us)
    if config is None and runtime is None:
        return
    newest = plan_parts.newest(connection, request.model, now_us)
    after = replace(newest, serving_config=config or newest.serving_config, runtime=runtime or newest.runtime)
    traffic_plans.append(connection, after, now_us=now_us)


def _record(connection: Transaction, request: Request, part: Part, explanation: str, now_us: int) -> None:
    events.append(
        connection,
        at_us=now_us,
        kind=ROLLED_BACK[part],
        subject=request.model,
        actor=request.actor,
        explanation=explanation,
    )
