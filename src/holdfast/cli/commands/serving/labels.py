"""Labels of predictions in quarantine: labels quarantined, labels drop."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.app import command_group
from holdfast.cli.output import escape
from holdfast.cli.project import Run, misused, now_us, with_project
from holdfast.control.collect import arriving_labels
from holdfast.formatting import counted, timestamp
from holdfast.store.telemetry import quarantined_labels
from holdfast.store.telemetry.quarantined_labels import QuarantinedLabel

MOST_SHOWN = 1_000

group = command_group("labels", "Running", "Labels in quarantine: list and drop them.")

OfSource = Annotated[str | None, typer.Option("--source", help="Only those that this source sent.")]


@group.command()
@with_project
def quarantined(
    run: Run,
    source: OfSource = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=MOST_SHOWN, help="At most so many, the newest first.")
    ] = 20,
    before: Annotated[
        int | None,
        typer.Option("--before", min=1, help="Those before the label with this number: the next part."),
    ] = None,
) -> None:
    """List the labels that contradict the label of another source, with what stands against each.

    They label nothing. If one is right, its value must come from the source whose label stands, or from a label feed.

    Example: holdfast labels quarantined --source crm --json
    """
    model = run.model.name
    with run.store.ledger.read() as connection:
        total = quarantined_labels.count(connection, model, source=source)
        found = quarantined_labels.newest(connection, model, limit=limit + 1, before=before, source=source)
    shown, has_more = found[:limit], len(found) > limit
    if shown:
        run.out.records(
            "Quarantined labels",
            shown,
            {
                "number": lambda label: label.quarantined_label_id,
                "received": lambda label: timestamp(label.received_at_us),
                "of": _subject,
                "value": lambda label: f"{label.value:g}",
                "source": lambda label: label.source,
                "reason": lambda label: label.reason,
            },
        )
    of = "" if source is None else f" of source {escape(source)}"
    run.out.print(f"[green]ok[/] {counted(total, 'label')}{of} in quarantine" + _and_shown(shown, total))
    if has_more:
        before = shown[-1].quarantined_label_id
        run.out.print(f"  next: holdfast labels quarantined --before {before}")
    if shown:
        run.out.print(
            "  if one is right: send its value from the source whose label stands (holdfast feedback ... --source), "
            "or load it with a label feed; then holdfast labels drop"
        )
    run.out.result(
        {"quarantined": shown, "total": total, "before": shown[-1].quarantined_label_id if has_more else None}
    )


def _subject(label: QuarantinedLabel) -> str:
    return label.prediction_id or label.key_json or ""


def _and_shown(shown: list[QuarantinedLabel], total: int) -> str:
    return f", {len(shown):,} shown" if len(shown) < total else ""


@group.command()
@with_project
def drop(
    run: Run,
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[NUMBER]...", help="Numbers from `labels quarantined`.")
    ] = None,
    source: OfSource = None,
) -> None:
    """Drop labels from the quarantine, by number or all of a source; the event log records how many.

    The quarantine keeps at most 1,000 labels of a source: dropping makes room for new ones.

    Example: holdfast labels drop --source crm
    """
    if bool(numbers) == (source is not None):
        usage = "name the numbers of labels, or --source alone"
        raise misused(usage, "holdfast labels drop --help", state="nothing was dropped")
    dropped = arriving_labels.drop_quarantined(
        run.store, run.model.name, numbers=numbers or (), source=source, actor=run.actor, now_us=now_us()
    )
    run.out.print(f"[green]ok[/] {counted(dropped, 'label')} dropped from the quarantine")
    run.out.result({"dropped": dropped})
