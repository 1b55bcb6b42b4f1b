"""The context of the templates: one dataclass, each field with its help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from markupsafe import Markup

from holdfast import formatting
from holdfast.control.reports.status import RolloutStatus, Status, VersionStatus
from holdfast.errors import InputError
from holdfast.formatting import counted
from holdfast.monitor.health import format_reasons
from holdfast.records import Verdict
from holdfast.rollout import State
from holdfast.web import formatting as web_formatting
from holdfast.web.charts import Drawings, Spec, evidence_chart, marks, quality_chart, traffic_chart
from holdfast.web.feeds_section import FeedData, slice_chart, volume_chart
from holdfast.web.rollout_section import RolloutSection

WIDE_PIXELS: Final = 1040
NARROW_PIXELS: Final = 350
REFRESH_SECONDS: Final = 3


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart in two widths; the stylesheet shows the one that fits the screen.

    `unavailable` has the reason why it cannot be drawn here, or nothing.
    """

    wide: Markup
    narrow: Markup
    unavailable: str = ""


@dataclass(frozen=True, slots=True)
class FeedPart:
    """One feed in the section "Data": charts of its volume and of its slices, with explanations."""

    feed: str
    unusual: tuple[str, ...]
    volume: Chart | None
    slices: tuple[tuple[str, bool, Chart | None], ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure at the top of the page. `tone` is a verdict's name or empty."""

    name: str
    figure: str
    detail: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The page of one model."""

    status: Status = field(metadata={"help": "The state of the model, as in /api/status."})
    headline: str = field(metadata={"help": "Which version serves, in one sentence."})
    tiles: tuple[Tile, ...] = field(metadata={"help": "The figures at the top, most important first."})
    rollout: RolloutSection = field(
        metadata={"help": "The running or baking rollout, pushes, and the results of drills."}
    )
    evidence: Chart | None = field(metadata={"help": "Evidence of harm by metric over time."})
    past: tuple[RolloutStatus, ...] = field(metadata={"help": "Rollouts that have ended, newest first."})
    quality: Chart | None = field(metadata={"help": "AUC by version over time; None without enough labels."})
    traffic: Chart | None = field(
        metadata={"help": "Requests per minute by version; None without a request."}
    )
    data: tuple[FeedPart, ...] = field(
        metadata={"help": "The newest batches of each feed: volume, and shares of slices."}
    )
    refresh_seconds: int = field(metadata={"help": "How often the live part is fetched again."})


def page(status: Status, rollout: RolloutSection, drawings: Drawings, data: Sequence[FeedData] = ()) -> Page:
    """Return the context of the page that shows `status`, the running `rollout`, and `data` of the feeds."""
    versions = [row.version for row in sorted(status.versions, key=lambda row: row.number)]
    decided = marks(status.rollouts)
    return Page(
        status=status,
        headline=headline(status),
        tiles=_tiles(status),
        rollout=rollout,
        evidence=_drawn(drawings, partial(evidence_chart, rollout.curves), 220, 230),
        past=tuple(each for each in status.rollouts if not each.running),
        quality=_drawn(drawings, partial(quality_chart, status.quality, decided, versions), 340, 300),
        traffic=_drawn(drawings, partial(traffic_chart, status.use.minutes), 190, 190),
        data=tuple(_feed_part(each, drawings) for each in data),
        refresh_seconds=REFRESH_SECONDS,
    )


def _feed_part(each: FeedData, drawings: Drawings) -> FeedPart:
    slices = tuple(
        (chart.explanation, chart.alarm, _drawn(drawings, partial(slice_chart, chart), 150, 150))
        for chart in each.slices
    )
    volume = _drawn(drawings, partial(volume_chart, each), 150, 150)
    return FeedPart(each.feed, each.unusual, volume, slices)


def headline(status: Status) -> str:
    """Return which version serves, in one sentence."""
    plan = status.plan
    if plan is None:
        return "No version has been rolled out yet."
    if plan.challenger is None or plan.share_ppm == 0:
        tainted = ", although it is tainted" if status.last_resort is not None else ""
        return f"{plan.champion} serves all traffic{tainted}."
    share = formatting.share(plan.share_ppm)
    if plan.share_ppm >= 1_000_000:
        is_verified = any(each.running and each.state == State.VERIFYING for each in status.rollouts)
        return (
            f"{plan.challenger} has all traffic and is {'being verified' if is_verified else 'the canary'}."
        )
    return f"{plan.champion} serves; {plan.challenger} is the canary with {share} of the traffic."


def _tiles(status: Status) -> tuple[Tile, ...]:
    champion = next((row for row in status.versions if row.place == "champion"), None)
    return (
        _convergence_tile(status),
        _quality_tile(champion, status.versions),
        _usage_tile(status),
        _error_tile(status),
        _latency_tile(status),
        _label_tile(status),
    )


def _convergence_tile(status: Status) -> Tile:
    age = status.presence.age_seconds
    figure = {
        Verdict.PASS: "as declared",
        Verdict.FAIL: "not as declared",
        Verdict.ERROR: "no response",
        Verdict.INCONCLUSIVE: "unknown",
    }[status.presence.verdict]
    detail = status.presence.explanation if age is None else f"champion is {formatting.span(age)} old"
    if status.last_resort is not None:
        return Tile(
            "Convergence", f"{figure}, tainted", f"there is no clean fallback version; {detail}", Verdict.FAIL
        )
    return Tile("Convergence", figure, detail, status.presence.verdict)


def _quality_tile(champion: VersionStatus | None, versions: Sequence[VersionStatus]) -> Tile:
    if champion is None or champion.quality.auc is None:
        before = next((row for row in versions if row.role == "candidate" and row.auc is not None), None)
        if champion is None or before is None:
            return Tile("AUC of the champion", "–", "appears with the first labels")
        return Tile(
            "AUC of the champion",
            "–",
            f"{champion.labelled:,} of its {champion.predictions:,} predictions are labelled; {before.version} had "
            f"{web_formatting.number(before.auc)} of {counted(before.labelled, 'label')}",
        )
    auc = champion.quality.auc
    heuristic = next((row for row in versions if row.place == "fallback" and row.auc is not None), None)
    heuristic_text = f"; heuristic {web_formatting.number(heuristic.auc)}" if heuristic is not None else ""
    return Tile(
        "AUC of the champion",
        web_formatting.number(auc.estimate),
        f"{web_formatting.number(auc.low)} to {web_formatting.number(auc.high)}, "
        f"{counted(champion.quality.rows, 'label')}{heuristic_text}",
    )


def _usage_tile(status: Status) -> Tile:
    usage = status.use
    return Tile(
        "Requests, last hour",
        web_formatting.count(usage.requests),
        web_formatting.rate(usage.rate_per_second) if usage.requests else usage.explanation,
        usage.verdict,
    )


def _error_tile(status: Status) -> Tile:
    usage = status.use
    if not usage.requests:
        return Tile("Errors at the server, last hour", "–", "no requests")
    tone = Verdict.FAIL if usage.failed else Verdict.PASS
    reasons = format_reasons(usage.reasons)
    refused = f"{usage.refused:,} more refused, by their callers' fault{reasons}" if usage.refused else ""
    failed = web_formatting.count(usage.failed)
    detail = f"of {counted(usage.requests, 'request')}" if usage.failed else "every request succeeded"
    return Tile("Errors at the server, last hour", failed, refused or detail, tone)


def _latency_tile(status: Status) -> Tile:
    champion = None if status.plan is None else status.plan.champion
    found = next((each for each in status.use.versions if each.version == champion), None)
    if found is None:
        return Tile("Response time, p99", "–", "of the champion, at the server")
    return Tile(
        "Response time, p99",
        formatting.latency(found.p99_seconds),
        f"p50 {formatting.latency(found.p50_seconds)}, at the server; "
        f"processor time, p99 {formatting.latency(found.processor_p99_seconds)}",
    )


def _label_tile(status: Status) -> Tile:
    labels, coverage = status.labels, status.coverage
    if not labels.taken and not coverage.predictions:
        return Tile("Labelled predictions", "–", "no prediction yet")
    waiting = (
        f"; {counted(labels.waiting, 'label', 'waits', 'wait')} for a prediction" if labels.waiting else ""
    )
    refused = f"; {counted(labels.rejected_labels, 'label')} rejected" if labels.rejected_labels else ""
    held = f"; {labels.quarantined:,} quarantined" if labels.quarantined else ""
    return Tile(
        "Labelled predictions",
        web_formatting.percent(coverage.share, 0),
        f"{coverage.labelled:,} of {coverage.predictions:,} {coverage.population}{waiting}{refused}{held}",
    )


def _drawn(
    drawings: Drawings, chart: Callable[..., Spec | None], wide_height: int, narrow_height: int
) -> Chart | None:
    """Return `chart`, a function of width and height, in both widths; None if there is nothing to draw."""
    wide = chart(width=WIDE_PIXELS, height=wide_height)
    narrow = chart(width=NARROW_PIXELS, height=narrow_height)
    if wide is None or narrow is None:
        return None
    try:
        # The SVG comes from our own specification, and Vega escapes the text in it.
        return Chart(Markup(drawings.draw(wide)), Markup(drawings.draw(narrow)))  # noqa: S704 - see above
    except InputError as error:
        return Chart(Markup(), Markup(), unavailable=str(error))
