"""Show the state of the model: status."""

from __future__ import annotations

from typing import Any

from holdfast.cli.app import command
from holdfast.cli.output import Output, escape
from holdfast.cli.project import Run, now_us, with_project
from holdfast.control.reports.status import status as assemble_status
from holdfast.formatting import ago, counted, latency, percent, share, timestamp
from holdfast.monitor.drift import JUDGED
from holdfast.monitor.health import format_reasons

_STALE_US = 30_000_000
"""The age in microseconds from which a probe is stale."""
_SHOWN_EVENTS = 6
_EVENT_CHARACTERS = 100


@command("Running")
@with_project
def status(run: Run) -> None:
    """Show feeds, versions, the rollout, servers and the quality of predictions.

    Example: holdfast status
    """
    model = run.model
    document = assemble_status(
        run.store,
        model.name,
        feeds=model.feeds,
        label_delay=model.label_delay,
        objective=model.objective,
        recover_within=model.recovery_span,
        silent_after=model.silence_span,
        now_us=now_us(),
    )
    _print_status(run.out, document)
    run.out.result(document)


def _print_status(out: Output, document: dict[str, Any]) -> None:
    now_us = document["now_us"]
    plan = document["plan"]
    out.print(f"model [bold]{document['model']}[/]")
    _print_health(out, document["health"])
    if plan is not None:
        challenger = plan["challenger"]
        part = f", challenger {challenger} at {share(plan['share_ppm'])}" if challenger else ""
        out.print(f"champion [bold]{plan['champion']}[/]{part} (plan {plan['plan_id']})")
    for server in document["servers"]:
        probed_at_us = server["probed_at_us"]
        stale = probed_at_us is None or now_us - probed_at_us > _STALE_US
        out.print(
            f"server {escape(server['server'])} at {escape(server['address'])}: {'unknown' if stale else server['verdict']}, "
            f"probed {ago(probed_at_us, now_us)}: {escape(server['explanation'])}"
        )
        if stale:
            out.print("  no control loop is running; next: [cyan]holdfast up[/]")
    _print_use(out, document["use"])
    if document["progress"] is not None:
        run = document["progress"]
        out.print(
            f"rollout {run['rollout_id']} of {run['challenger']}, {run['state']}: {escape(run['next'])}"
        )
    if document["queued"] is not None:
        out.print(f"queued: {document['queued']}, until the rollout under way ends")
    if document["dropped"]:
        out.print(f"[yellow]dropped from the queue[/]: {escape(document['dropped'])}")
    for hook in document["waiting_webhooks"]:
        out.print(f"[yellow]the rollout waits for a webhook[/]: {escape(hook)}")
    _print_traffic(out, document["traffic_comparison"])
    _print_labels(out, document)
    _print_drills(out, document["drills"])
    _tables(out, document)


def _print_health(out: Output, health: dict[str, Any]) -> None:
    """Print in one sentence whether the model is well, and each further problem in a line."""
    out.print(f"[{'green' if health['is_healthy'] else 'yellow'}]{escape(health['sentence'])}[/]")
    for problem in health["problems"][1:]:
        out.print(f"  {escape(problem['text'])}; next: [cyan]{escape(problem['next_command'])}[/]")


def _print_use(out: Output, use: dict[str, Any]) -> None:
    """Print how many requests the last hour had, and how soon each version responded."""
    for each in use["versions"]:
        out.print(
            f"requests of the last hour by {each['version']}: {each['requests']:,}, {each['failed']:,} failed, "
            f"{each['refused']:,} refused; "
            f"response time p50 {latency(each['p50_seconds'])}, p99 {latency(each['p99_seconds'])}; "
            f"processor time p99 {latency(each['processor_p99_seconds'])}"
        )
    if use["refused"]:
        out.print(
            f"refused by their callers' fault: {use['refused']:,} of {use['requests']:,} requests"
            f"{escape(format_reasons(use['reasons']))}"
        )


def _print_traffic(out: Output, traffic: dict[str, Any] | None) -> None:
    """Print where live traffic differs from the champion's training data."""
    if traffic is None or not traffic["predictions"]:
        return
    for each in traffic["slices"]:
        if not each["covered"]:
            out.print(
                f"[yellow]unseen slice[/] {escape(each['column'])} = {escape(each['value'])}: {each['share']:.1%} of the "
                f"newest {traffic['predictions']:,} predictions, and no training row of {traffic['version']}"
            )
    if traffic["label"] is not None:
        shifted = "[yellow]label shifted[/] " if traffic["label"]["shifted"] else ""
        out.print(f"{shifted}{escape(traffic['label']['explanation'])}")


def _print_labels(out: Output, document: dict[str, Any]) -> None:
    """Print which share of which predictions is labelled, and how many events are far from their arrival."""
    coverage, apart = document["coverage"], document["distant_events"]
    if coverage["predictions"]:
        out.print(
            f"labelled: {coverage['labelled']:,} of {coverage['predictions']:,} {coverage['population']}, "
            f"{percent(coverage['share'])}"
        )
    if document["labels"]["quarantined"]:
        out.print(
            f"[yellow]{counted(document['labels']['quarantined'], 'quarantined label')}[/]; next: holdfast labels quarantined"
        )
    if apart["labelled"]:
        out.print(
            f"[yellow]{apart['labelled']:,} of these are for events more than a day from their arrival[/], by the "
            "clocks of their callers"
        )


def _print_drills(out: Output, drills: list[dict[str, Any]]) -> None:
    """Print which drills passed, and until when that counts; list those that never ran in one line."""
    never = [each["kind"] for each in drills if not each["ready"] and "never" in each["explanation"]]
    for each in drills:
        if each["ready"]:
            out.print(f"[green]{each['kind']} ready[/] until {timestamp(each['until_us'])}")
        elif each["kind"] not in never:
            out.print(
                f"[yellow]not ready[/]: {escape(each['explanation'])}; next: holdfast drill {each['kind']}"
            )
    if never:
        out.print(f"[dim]never drilled: {', '.join(never)}; next: holdfast drill --all[/]")


def _tables(out: Output, document: dict[str, Any]) -> None:
    if document["feeds"]:
        columns = ("feed", "batches", "rows_loaded", "rows_quarantined")
        rows = [[row[name] for name in columns] for row in document["feeds"]]
        out.table("Feeds", ["feed", "batches", "rows", "in quarantine"], rows)
    for feed, judged in document["drift"].items():
        if judged != JUDGED:
            out.print(f"drift of {feed}: {judged}")
    if document["versions"]:
        out.table(
            "Versions",
            ["version", "role", "state", "place", "AUC", "labelled", "of", "requests"],
            [
                (
                    *(row["version"], row["role"], _state(row), row["place"]),
                    *(row["auc"], row["labelled"], row["predictions"], row["requests"]),
                )
                for row in document["versions"]
            ],
        )
    _print_slices(out, document)
    if document["events"]:
        out.print("[bold]Newest events[/]")
        for row in document["events"][:_SHOWN_EVENTS]:
            first = row["explanation"].splitlines()[0]
            text = first if len(first) <= _EVENT_CHARACTERS else first[: _EVENT_CHARACTERS - 1] + "…"
            out.print(
                f"  [dim]{timestamp(row['at_us'])}[/] {row['kind']} {escape(row['subject'])}: {escape(text)}"
            )


def _print_slices(out: Output, document: dict[str, Any]) -> None:
    """Print the quality of the champion by slice."""
    champion = None if document["plan"] is None else document["plan"]["champion"]
    rows = [
        (
            f"{each['column']} = {each['value']}",
            _interval(each["quality"]["auc"]) if each["is_conclusive"] else "inconclusive, too few labels",
            _interval(each["quality"]["brier"]),
            each["quality"]["rows"],
        )
        for each in document["slices"]
        if each["version"] == champion
    ]
    if rows:
        out.table(f"Quality of {champion} by slice", ["slice", "AUC", "Brier", "labelled"], rows)


def _interval(found: dict[str, float] | None) -> str:
    return "" if found is None else f"{found['estimate']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _state(version: dict[str, Any]) -> str:
    """Return the state that a version counts as: a tainted one is tainted, whatever its gates found."""
    return f"{version['state']}, tainted" if version["taint"] else str(version["state"])
