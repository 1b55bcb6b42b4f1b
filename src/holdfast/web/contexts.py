"""What the templates may use: one dataclass per page, each field with its help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup

from holdfast import formatting
from holdfast.control.reports.status import RolloutStatus, Status, VersionStatus
from holdfast.records import Verdict
from holdfast.web import formatting as words
from holdfast.web.charts import Drawings, Spec, marks, quality_chart, traffic_chart
from holdfast.web.evidence_chart import evidence_chart
from holdfast.web.feeds_section import FeedData, slice_chart, volume_chart
from holdfast.web.rollout_section import Delivery

WIDE_PIXELS: Final = 1040
NARROW_PIXELS: Final = 350
REFRESH_SECONDS: Final = 3


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart in two drawings: the stylesheet shows the one that fits the screen."""

    wide: Markup
    narrow: Markup


@dataclass(frozen=True, slots=True)
class FeedPart:
    """One feed in the section "Data": the charts of its volume and of its slices with what they found in words."""

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

    status: Status = field(
        metadata={"help": "Everything that is known about the model, as /api/status has it."}
    )
    headline: str = field(metadata={"help": "Which version answers, in one sentence."})
    tiles: tuple[Tile, ...] = field(metadata={"help": "The figures at the top, most important first."})
    delivery: Delivery = field(
        metadata={
            "help": "The rollout that is under way or watched, pushes, and whether a roll-back is ready."
        }
    )
    evidence: Chart | None = field(metadata={"help": "Evidence of harm by metric over time."})
    past: tuple[RolloutStatus, ...] = field(metadata={"help": "Rollouts that have ended, newest first."})
    quality: Chart | None = field(metadata={"help": "AUC by version and day; None without enough labels."})
    traffic: Chart | None = field(
        metadata={"help": "Requests per minute by version; None without a request."}
    )
    data: tuple[FeedPart, ...] = field(
        metadata={"help": "What the newest batches of each feed look like: volume, and shares of slices."}
    )
    refresh_seconds: int = field(metadata={"help": "How often the live part is fetched again."})


def page(status: Status, delivery: Delivery, drawings: Drawings, data: Sequence[FeedData] = ()) -> Page:
    """The page that shows `status`, the rollout in `delivery`, and `data` of the feeds."""
    versions = [row.version for row in sorted(status.versions, key=lambda row: row.number)]
    decided = marks(status.rollouts)
    return Page(
        status=status,
        headline=headline(status),
        tiles=_tiles(status),
        delivery=delivery,
        evidence=_drawn(
            drawings,
            evidence_chart(delivery.curves, width=WIDE_PIXELS, height=220),
            evidence_chart(delivery.curves, width=NARROW_PIXELS, height=230),
        ),
        past=tuple(each for each in status.rollouts if not each.running),
        quality=_drawn(
            drawings,
            quality_chart(status.quality, decided, versions, width=WIDE_PIXELS, height=340),
            quality_chart(status.quality, decided, versions, width=NARROW_PIXELS, height=300),
        ),
        traffic=_drawn(
            drawings,
            traffic_chart(status.use.minutes, width=WIDE_PIXELS, height=190),
            traffic_chart(status.use.minutes, width=NARROW_PIXELS, height=190),
        ),
        data=tuple(_feed_part(each, drawings) for each in data),
        refresh_seconds=REFRESH_SECONDS,
    )


def _feed_part(each: FeedData, drawings: Drawings) -> FeedPart:
    return FeedPart(
        each.feed,
        each.unusual,
        _drawn(
            drawings,
            volume_chart(each, width=WIDE_PIXELS, height=150),
            volume_chart(each, width=NARROW_PIXELS, height=150),
        ),
        tuple(
            (
                drawn.explanation,
                drawn.alarm,
                _drawn(
                    drawings,
                    slice_chart(drawn, width=WIDE_PIXELS, height=150),
                    slice_chart(drawn, width=NARROW_PIXELS, height=150),
                ),
            )
            for drawn in each.slices
        ),
    )


def headline(status: Status) -> str:
    """Which version answers, in one sentence."""
    plan = status.plan
    if plan is None:
        return "No version has been rolled out yet."
    if plan.challenger is None or plan.share_ppm == 0:
        tainted = ", although it is tainted" if status.held is not None else ""
        return f"{plan.champion} answers all traffic{tainted}."
    share = formatting.share(plan.share_ppm)
    if plan.share_ppm >= 1_000_000:
        return f"{plan.challenger} was given all traffic and is being verified."
    return f"{plan.champion} answers; {plan.challenger} is tried on {share} of the traffic."


def _tiles(status: Status) -> tuple[Tile, ...]:
    champion = next((row for row in status.versions if row.place == "champion"), None)
    return (
        _presence_tile(status),
        _quality_tile(champion, status.versions),
        _use_tile(status),
        _error_tile(status),
        _latency_tile(status),
        _label_tile(status),
    )


def _presence_tile(status: Status) -> Tile:
    age = status.presence.age_seconds
    figure = {
        Verdict.PASS: "as declared",
        Verdict.FAIL: "not as declared",
        Verdict.ERROR: "no answer",
        Verdict.INCONCLUSIVE: "not known",
    }[status.presence.verdict]
    detail = status.presence.explanation if age is None else f"champion is {formatting.span(age)} old"
    if status.held is not None:
        return Tile("Presence", f"{figure}, tainted", f"no clean version can answer; {detail}", Verdict.FAIL)
    return Tile("Presence", figure, detail, status.presence.verdict)


def _quality_tile(champion: VersionStatus | None, versions: Sequence[VersionStatus]) -> Tile:
    if champion is None or champion.quality.auc is None:
        return Tile("AUC of the champion", "–", "appears as labels come back")
    auc = champion.quality.auc
    heuristic = next((row for row in versions if row.place == "fallback" and row.auc is not None), None)
    beside = f"; heuristic {words.number(heuristic.auc)}" if heuristic is not None else ""
    return Tile(
        "AUC of the champion",
        words.number(auc.estimate),
        f"{words.number(auc.low)} to {words.number(auc.high)}, {champion.quality.rows:,} labels{beside}",
    )


def _use_tile(status: Status) -> Tile:
    use = status.use
    return Tile(
        "Requests, last hour",
        words.count(use.requests),
        words.rate(use.rate_per_second) if use.requests else use.explanation,
        use.verdict,
    )


def _error_tile(status: Status) -> Tile:
    use = status.use
    if not use.requests:
        return Tile("Errors, last hour", "–", "nothing was asked")
    kinds = sorted({kind.kind for version in use.versions for kind in version.errors})
    tone = Verdict.FAIL if use.failed else Verdict.PASS
    return Tile(
        "Errors, last hour", words.count(use.failed), ", ".join(kinds) or "every request was answered", tone
    )


def _latency_tile(status: Status) -> Tile:
    champion = None if status.plan is None else status.plan.champion
    found = next((each for each in status.use.versions if each.version == champion), None)
    if found is None:
        return Tile("Latency, p99", "–", "of the champion, at the server")
    return Tile(
        "Latency, p99",
        words.latency(found.p99_seconds),
        f"half within {words.latency(found.p50_seconds)}; read to 12 %",
    )


def _label_tile(status: Status) -> Tile:
    labels = status.labels
    answers = sum(row.quality.rows / row.coverage for row in status.versions if row.coverage)
    share = sum(row.quality.rows for row in status.versions if row.coverage) / answers if answers else None
    waiting = f"{labels.waiting:,} wait for their answers" if labels.waiting else "all joined"
    refused = f", {labels.rejected_labels:,} refused" if labels.rejected_labels else ""
    detail = (
        f"{words.count(labels.taken)} labels, {waiting}{refused}" if labels.taken else "none came back yet"
    )
    return Tile("Answers with a label", words.percent(share, 0), detail)


def _drawn(drawings: Drawings, wide: Spec | None, narrow: Spec | None) -> Chart | None:
    if wide is None or narrow is None:
        return None
    # The drawing comes from our own specification; Vega escapes the texts in it.
    return Chart(Markup(drawings.draw(wide)), Markup(drawings.draw(narrow)))  # noqa: S704 - see above
