"""Compare the declared rollout policy with an earlier one: policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Final

import typer

from holdfast.cli.app import command
from holdfast.cli.output import Output, escape
from holdfast.cli.project import Run, now_us, with_project
from holdfast.control.reports import policy_power
from holdfast.declaration import Model
from holdfast.formatting import counted, percent
from holdfast.records import DAY_US, MINUTE_US
from holdfast.rollout import Canary
from holdfast.rollout.expected_duration import Forecast, forecast, span, suggest, to_python
from holdfast.rollout.power import MeasuredTraffic, PowerRow
from holdfast.store import Store
from holdfast.store.rollout import rollouts


@command("Versions")
@with_project
def policy(
    run: Run,
    against: Annotated[
        int | None,
        typer.Option("--against", help="The rollout whose policy is the old one.", show_default="the last"),
    ] = None,
) -> None:
    """Compare the declared rollout policy with that of an earlier rollout: false rollbacks, and harm found.

    Shows how long a rollout takes with the measured traffic against its timeout, how often a good version would be rolled
    back, and which harm would be found how soon.

    Example: holdfast policy --against 4
    """
    store = run.store
    declared: Canary = run.model.rollout
    before, number = declared, None
    with store.ledger.read() as connection:
        known = (
            rollouts.of_model(connection, run.model.name)
            if against is None
            else [rollouts.get(connection, against)]
        )
    if known:
        before, number = Canary.from_json(known[0].policy_json), known[0].rollout_id
    with run.out.progress("simulating the tests"):
        traffic = _measured(store, run.model)
        found = policy_power.compare(before, declared, traffic)
    ahead = forecast_of(run.model, traffic)
    settings = policy_power.settings_of(declared)
    words = [(name, policy_power.in_words(name, value)) for name, value in settings.items()]
    run.out.table("The declared policy", ["setting", "value"], words)
    _print_comparison(run.out, found, number)
    print_forecast(run.out, run.model, ahead)
    run.out.result({"policy": settings, "against": number, **asdict(found), "forecast": _document(ahead)})


def _measured(store: Store, model: Model) -> MeasuredTraffic | None:
    return policy_power.measured(store, model.name, label_delay=model.label_delay, now_us=now_us())


def forecast_of(model: Model, traffic: MeasuredTraffic | None) -> Forecast | None:
    """Return how long a rollout of `model` takes at the measured `traffic`; None without any."""
    if traffic is None:
        return None
    day = DAY_US / MINUTE_US
    return forecast(
        model.rollout,
        units_per_day=traffic.units_per_minute * day,
        labelled_share=labelled_share(traffic),
        label_delay=model.label_delay,
        basis=basis_of(traffic),
    )


def basis_of(traffic: MeasuredTraffic) -> str:
    """Return what a day's traffic is taken from: less than a day of it is an assumption about the rest."""
    if not traffic.minutes or traffic.minutes >= DAY_US / MINUTE_US:
        return ""
    return f"assumed from {_counted(traffic)}"


def _counted(traffic: MeasuredTraffic) -> str:
    return f"{counted(traffic.requests, 'request')} in {span(traffic.minutes * MINUTE_US / DAY_US)}"


def labelled_share(traffic: MeasuredTraffic) -> float:
    """Return the share of units that get a label, 0 to 1; 1 as long as none is due, as `init` assumes."""
    if not traffic.labels_due:
        return 1.0
    return min(1.0, traffic.labelled_per_minute / traffic.units_per_minute)


def print_forecast(out: Output, model: Model, found: Forecast | None) -> None:
    """Print how long a rollout takes at the measured traffic, and a policy that would end if it does not."""
    if found is None:
        return
    out.print(("" if found.ends else "[yellow]too little traffic[/]: ") + found.describe())
    if not found.ends:
        # Of labels nothing is known before the first arrive: then no step of the suggestion waits for them.
        share = 1.0 if all(step.days < math.inf for step in found.steps) else 0.0
        better = suggest(
            units_per_day=found.units_per_day, labelled_share=share, label_delay=model.label_delay
        )
        taken = forecast(
            better, units_per_day=found.units_per_day, labelled_share=share, label_delay=model.label_delay
        )
        out.print(f"  next: rollout={escape(to_python(better))} in the model file takes {span(taken.days)}")


def forecast_now(run: Run) -> Forecast | None:
    """Return how long a rollout of the project's model takes at the traffic of its last week."""
    return forecast_of(run.model, _measured(run.store, run.model))


def _document(found: Forecast | None) -> dict[str, object] | None:
    if found is None:
        return None
    steps = [
        {"share_percent": step.share_percent, "days": step.days if step.days < math.inf else None}
        for step in found.steps
    ]
    return {
        "units_per_day": found.units_per_day,
        "timeout_days": found.timeout_days,
        "ends": found.ends,
        "steps": steps,
    }


def print_change(out: Output, store: Store, model: Model, before: Canary) -> policy_power.Comparison | None:
    """Print briefly what a change of the policy does to both error rates, and return it; None if it did not change."""
    if before == model.rollout:
        return None
    traffic = _measured(store, model)
    found = policy_power.compare(before, model.rollout, traffic, first_step_only=True)
    for change in found.changes:
        was, now = (policy_power.in_words(change.field, each) for each in (change.before, change.after))
        out.print(f"  policy: {change.field} was {escape(was)}, is {escape(now)}")
    out.print(
        f"  false rollbacks: at most {percent(found.alpha_before, 2)} before, {percent(found.alpha_after, 2)} now"
    )
    for each in found.power[:1]:
        out.print(
            f"  {each.metric}, {escape(each.effect)}, at {each.share_percent:g} %: half are found "
            f"{_minutes(each.before)} before, {_minutes(each.after)} now (all: holdfast policy)"
        )
    return found


def _print_comparison(out: Output, found: policy_power.Comparison, number: int | None) -> None:
    old = f"the policy of rollout {number}"
    if number is None:
        out.print("there is no earlier rollout: this is the declared policy alone")
    elif not found.changes:
        out.print(f"the declared policy is {old}")
    for change in found.changes:
        was, now = (policy_power.in_words(change.field, each) for each in (change.before, change.after))
        out.print(f"{change.field}: {escape(was)} in {old}, [bold]{escape(now)}[/] declared")
    before = f"{percent(found.alpha_before, 2)} before, " if found.changes else ""
    out.print(
        f"false rollbacks of a good version: at most {before}{percent(found.alpha_after, 2)} declared "
        "in all stages together (replay, shadow, canary, bake time)"
    )
    if found.traffic is None:
        out.print("what it would find is unknown: the model had no traffic in the last 7 days")
        return
    labelled = (
        f"{found.traffic.labelled_per_minute:,.1f} a minute labelled"
        if found.traffic.labels_due
        else "no label is due yet, so what it finds by quality is assumed"
    )
    out.print(
        f"measured: {_counted(found.traffic)}, {found.traffic.units_per_minute:,.1f} a minute; {labelled}; "
        f"{percent(found.traffic.error_rate, 3)} failed"
    )
    out.print(
        "assumed below: that traffic, errors and scores go on as measured, and that each request is a unit"
    )
    twice = bool(found.changes)  # the same policy twice adds nothing
    heads = [head for each in _MEASURES for head in ((each, "declared") if twice else (each,))]
    out.table(
        "What is found, before and declared" if twice else "What is found",
        ["metric", "harm", "share", *heads],
        [
            (
                each.metric,
                each.effect,
                f"{each.share_percent:g} %",
                *(
                    "-" if row is None else measure(row)
                    for measure in _MEASURES.values()
                    for row in ((each.before, each.after) if twice else (each.after,))
                ),
            )
            for each in found.power
        ],
    )


def _minutes(row: PowerRow | None) -> str:
    if row is None:
        return "-"
    if row.median_minutes is None:
        return f"after {span(row.looked_minutes / 1440)}"
    return f"in {span(row.median_minutes / 1440)}"


_MEASURES: Final[Mapping[str, Callable[[PowerRow], str]]] = {
    "in its step": lambda row: percent(row.within_step),
    "within an hour": lambda row: percent(row.within_hour),
    "half found": _minutes,
}
"""The columns of the table of what is found."""
