"""Roll versions out: rollout start, status, pause, resume, undo, history, label."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.cli.app import command_group
from holdfast.cli.commands.evaluation.replay import replay_if_due
from holdfast.cli.commands.rollout import history, rollback
from holdfast.cli.commands.rollout.policy import forecast_now, print_change, print_forecast
from holdfast.cli.commands.runtimes.compatibility_check import ensure_compatible
from holdfast.cli.output import COLOURS, Output, escape
from holdfast.cli.project import Reason, Run, VersionName, now_us, with_project
from holdfast.control.evaluation.equal_versions import find_equal_champion
from holdfast.control.rollout import pause as pausing
from holdfast.control.rollout import start as starting
from holdfast.control.rollout.progress import RolloutProgress, progress
from holdfast.control.rollout.start import Requested, Started
from holdfast.errors import RefusedError
from holdfast.formatting import ago, hours, share
from holdfast.records import Verdict
from holdfast.rollout import Canary
from holdfast.rollout.model.metric import SLICES
from holdfast.rollout.model.state_machine import State
from holdfast.store.backout import taints
from holdfast.store.models import versions
from holdfast.store.rollout import queue, rollouts

group = command_group(
    "rollout",
    "Versions",
    "Roll a version out: start, follow, pause, undo, and list what became of earlier ones.",
)


@group.command()
@with_project
def start(run: Run, version: VersionName = None) -> None:
    """Start the rollout of a qualified version. The control loop advances it, and rolls it back if it does harm.

    First replays recorded requests if the policy requires it, and tests the version with the runtime in force. While another
    rollout is under way, the version waits for its end, or ends it (`Canary(newer_version=)`). Repeating the command changes
    nothing.

    Example: holdfast rollout start v3-1f2e3d4c
    """
    store, model = run.acting_store, run.model
    version = run.candidate(version) if version else _newest(run)
    with store.ledger.read() as connection:
        before = rollouts.of_model(connection, model.name)
        is_qualified = versions.get(connection, version).state == "qualified"
    tested = None
    if is_qualified:
        if not any(row.running and row.challenger == version for row in before):
            tested = ensure_compatible(run, version)
        replay_if_due(run, version)
    found = starting.request(store, model, version, actor=run.actor, now_us=now_us())
    _print_requested(run.out, version, found)
    champion, why = find_equal_champion(store, model.name, version)
    if why:
        run.out.print(f"[yellow]same as the champion[/]: {why}")
    change = None
    if before and found.state in (Started.STARTED, Started.QUEUED):
        change = print_change(run.out, store, model, Canary.from_json(before[0].policy_json))
        print_forecast(run.out, model, forecast_now(run))
    run.out.result(
        {
            "rollout": found.rollout,
            "version": version,
            "state": found.state,
            "ended": None if found.ended is None else found.ended.rollout_id,
            "waits_for": None if found.waits_for is None else found.waits_for.rollout_id,
            "dropped": found.dropped,
            "equal_champion": champion or None,
            "policy": change,
            "tested_with": None if tested is None else tested.runtime,
        }
    )


def _print_requested(out: Output, version: str, found: Requested) -> None:
    if found.ended is not None:
        out.print(
            f"rollout {found.ended.rollout_id} of {found.ended.challenger} is ended: {version} is newer"
        )
    if found.dropped is not None:
        out.print(f"{found.dropped}, which was queued before, is not rolled out")
    match found.state:
        case Started.CHAMPION:
            out.print(f"{version} is the champion already; nothing was changed")
        case Started.RUNNING:
            out.print(f"rollout {found.rollout} of {version} is running already; nothing was changed")
        case Started.QUEUED:
            other = found.waits_for
            assert other is not None, "it waits for a rollout"
            out.print(
                f"[green]ok[/] {version} is queued: its rollout starts when rollout {other.rollout_id} of "
                f"{other.challenger} ends, which is {other.state}"
            )
        case Started.STARTED:
            out.print(
                f"[green]ok[/] rollout {found.rollout} of {version} has started; "
                "`holdfast up` or `holdfast control` advances it; a request to try: holdfast versions example-request"
            )


@group.command()
@with_project
def status(run: Run) -> None:
    """Show the running rollout, or the bake time after it: each metric against its bound.

    Example: holdfast rollout status
    """
    out, now = run.out, now_us()
    with run.store.ledger.read() as connection:
        found = progress(connection, run.model.name, now)
        queued = queue.find(connection, run.model.name)
        dropped = starting.last_dropped(connection, run.model.name)
    if queued is not None:
        out.print(
            f"queued: {queued.version}, requested by {escape(queued.actor)} {ago(queued.queued_at_us, now)}"
        )
    if dropped:
        out.print(f"[yellow]dropped from the queue[/]: {escape(dropped)}")
    waiting = {"queued": None if queued is None else queued.version, "dropped": dropped}
    if found is None:
        out.print(
            "no rollout is running or baking; next: holdfast rollout start, or holdfast rollout history"
        )
        out.result({"progress": None} | waiting)
        return
    out.print(
        f"rollout {found.rollout_id} of [bold]{found.challenger}[/] against {found.champion or 'nothing'}"
    )
    out.print(
        f"{found.state} {ago(found.step_started_at_us, now).removesuffix(' ago')}: {escape(found.reason)}"
    )
    out.print(f"next: {escape(found.next)}")
    if found.bake_until_us is not None:
        out.print(f"baking for {hours(max(0, found.bake_until_us - now))} more")
    else:
        steps = ", ".join(
            f"[bold]{share(ppm)}[/]" if step == found.step else share(ppm)
            for step, ppm in enumerate(found.steps_ppm)
        )
        copies = f", copies of {share(found.shadow_ppm)}" if found.shadow_ppm else ""
        out.print(f"share {share(found.share_ppm)}{copies}; steps {steps}")
        if found.enough_us is not None or found.harm_us is not None:
            enough, harm = _forecast(found.enough_us), _forecast(found.harm_us)
            out.print(f"enough evidence {enough}; at this rate harm is shown {harm}")
    _print_metrics(out, found)
    out.result({"progress": found} | waiting)


@group.command()
@with_project
def pause(run: Run, reason: Reason = pausing.DEFAULT_REASON) -> None:
    """Pause the canary at its share. Harm still rolls it back.

    Example: holdfast rollout pause --reason "lunch"
    """
    _move(run, pausing.pause, reason)


@group.command()
@with_project
def resume(run: Run, reason: Reason = pausing.DEFAULT_REASON) -> None:
    """Resume a paused canary.

    Example: holdfast rollout resume
    """
    _move(run, pausing.resume, reason)


group.command(name="undo")(rollback.rollback)
group.command(name="history")(history.history)
group.command(name="label")(history.label)


def _move(run: Run, move: Callable[..., int], reason: str) -> None:
    number = move(run.store, run.model.name, actor=run.actor, reason=reason, now_us=now_us())
    with run.store.ledger.read() as connection:
        row = rollouts.get(connection, number)
    run.out.print(f"[green]ok[/] rollout {number} is {row.state}: {escape(row.reason)}")
    run.out.result({"rollout": number, "state": row.state})


def _print_metrics(out: Output, found: RolloutProgress) -> None:
    rows = []
    for each in found.metrics:
        interval = "-"
        if each.estimate is not None and each.low is not None:
            high = "inf" if each.high is None else f"{each.high:.3g}"
            of = "" if each.difference == "odds ratio" else "difference of "
            interval = f"{of}{each.difference} {each.estimate:.3g} [{each.low:.3g}, {high}]"
        # A step needs so many units; more than that add nothing to its decision.
        seen = f"{each.units:,}" if not each.needed else f"{each.units:,} of {each.needed:,}"
        if each.needed and each.units >= each.needed:
            seen = f"enough ({each.needed:,})"
        rows.append((each.metric, each.verdict, seen, each.evidence, interval))
    out.table(
        "Evidence",
        ["metric", "verdict", "units", "evidence of harm", "challenger against champion, 95 %"],
        rows,
    )
    for each in found.metrics:
        if each.verdict is not Verdict.PASS or each.metric == SLICES:
            out.print(f"[{COLOURS[each.verdict]}]{each.metric}[/]: {escape(each.explanation)}")


def _forecast(us: int | None) -> str:
    """Return when something is expected, `us` microseconds from now; None if nothing suggests that it comes.

    >>> _forecast(None), _forecast(20_000_000), _forecast(7_200_000_000)
    ('at an unknown time', 'in 20.0 s', 'in 2.0 h')
    """
    return "at an unknown time" if us is None else f"in {hours(max(0, us))}"


def _newest(run: Run) -> str:
    """Return the newest candidate, if it may be rolled out without being named.

    Raises `RefusedError` HF403 if it did not pass its gates or was rolled back before, and HF406 if it is tainted; then the
    operator must name one.
    """
    with run.store.ledger.read() as connection:
        newest = versions.newest(connection, run.model.name, role="candidate")
        taints.refuse(connection, "version", newest.version)
        known = rollouts.of_model(connection, run.model.name)
    if newest.state != "qualified":
        raise RefusedError(
            "HF403",
            f"the newest version, {newest.version}, is {newest.state} and not qualified",
            state="nothing was changed",
            next_command=(
                f"holdfast qualify {newest.version}, or holdfast rollout start with the name of an older version"
                if newest.state == "registered"
                else "holdfast train, with newer rows, or holdfast rollout start with the name of an older version"
            ),
        )
    for row in known:
        if row.challenger == newest.version and row.state in (State.ROLLING_BACK, State.ROLLED_BACK):
            raise RefusedError(
                "HF403",
                f"the newest version, {newest.version}, was rolled back by {row.actor}: {row.reason}",
                state="nothing was changed",
                next_command=f"holdfast train, or holdfast rollout start {newest.version} to try it again",
            )
    return newest.version
