"""Mistakes that the simulation must find: each is planted in the real code while a run is played."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any
from unittest.mock import patch

import greenlet
from sqlalchemy import update

from holdfast.control.collect import collector, evidence_fold
from holdfast.control.rollout import reconcile
from holdfast.rollout import MetricState, State
from holdfast.rollout.decision.decisions import ProbeSeen
from holdfast.rollout.evidence.windows import Gathered
from holdfast.store.db import leases, schema
from holdfast.store.rollout import evidence, rollouts, traffic_plans
from holdfast.store.serving import servers
from holdfast.store.telemetry import collected_log


@contextmanager
def no_epoch() -> Iterator[None]:
    """Nothing checks whether the lease is still held."""
    places = [
        (leases, "assert_epoch"),
        (reconcile, "assert_epoch"),
        (collector, "assert_epoch"),
        (servers, "assert_epoch"),
    ]
    with _all(*(patch.object(module, name, lambda *_: None) for module, name in places)):
        yield


@contextmanager
def no_comparison() -> Iterator[None]:
    """A decision is acted on as it was read, whatever has happened since."""
    read: dict[Any, rollouts.RolloutRow | None] = {}
    really = rollouts.under_way

    def remembered(connection: Any, model: str) -> rollouts.RolloutRow | None:
        me = greenlet.getcurrent()
        if connection.get_execution_options().get("holdfast_writes"):
            return read.pop(me, None) or really(connection, model)
        read[me] = really(connection, model)
        return read[me]

    def moved(connection: Any, before: Any, *, now_us: int, **values: Any) -> None:
        changed = values | {"step_started_at_us": now_us, "changed_at_us": now_us}
        connection.execute(
            update(schema.rollouts).where(schema.rollouts.c.rollout_id == before.rollout_id).values(**changed)
        )

    with patch.object(rollouts, "under_way", remembered), patch.object(rollouts, "move", moved):
        yield


@contextmanager
def wall_clock() -> Iterator[None]:
    """A lease is dead when it looks old, by any clock."""

    def looks_old(now: leases.Sighting, _before: Any, duration_us: int) -> bool:
        return now.since_us - now.renewed_at_us >= duration_us

    with patch.object(leases, "is_expired", looks_old):
        yield


@contextmanager
def any_plan() -> Iterator[None]:
    """An answer by the right version counts, whatever plan it was given under."""

    def under_the_newest(given: Any, plan: int) -> Any:
        if isinstance(given, tuple) and given and isinstance(given[0], ProbeSeen):
            return tuple(replace(each, plan_id=plan) for each in given)
        return given

    with _deciding(lambda row, given: under_the_newest(given, row.plan_id)):
        yield


@contextmanager
def deaf() -> Iterator[None]:
    """Harm is shown, and ignored."""

    def harmless(given: Any) -> Any:
        return tuple(replace(each, log_e=0.0) for each in given) if _is_evidence(given) else given

    with _deciding(lambda _row, given: harmless(given)):
        yield


@contextmanager
def creeping() -> Iterator[None]:
    """A rollback leaves the challenger a small share."""
    really = reconcile.traffic_of

    def almost(connection: Any, store: Any, row: Any, following: State, step: int, *more: Any) -> Any:
        traffic = really(connection, store, row, following, step, *more)
        if traffic is not None and following is State.ROLLING_BACK and traffic.champion != row.challenger:
            return replace(traffic, challenger=row.challenger, share_ppm=1000)
        return traffic

    with patch.object(reconcile, "traffic_of", almost):
        yield


@contextmanager
def counted_twice() -> Iterator[None]:
    """What was delivered again is counted again."""
    really = collected_log.advance

    def anyway(connection: Any, found: Any, to: int, **counts: Any) -> None:
        here = {each.segment: each for each in _positions(connection, found.server)}
        really(connection, here.get(found.segment, found), to, **counts)

    with patch.object(collected_log, "advance", anyway):
        yield


@contextmanager
def untold() -> Iterator[None]:
    """A plan is written that no transition explains."""
    really = traffic_plans.append

    def twice(connection: Any, plan: Any, **named: Any) -> int:
        really(connection, plan, **named)
        return really(connection, plan, **named)

    with patch.object(traffic_plans, "append", twice):
        yield


@contextmanager
def every_second() -> Iterator[None]:
    """Of what is collected every second window is lost."""
    really, windows = evidence_fold.fold_requests, count()

    def fold(states: Any, *given: Any, **named: Any) -> Any:
        return really(states, *given, **named) if next(windows) % 2 else states

    with patch.object(evidence_fold, "fold_requests", fold):
        yield


@contextmanager
def pooled() -> Iterator[None]:
    """Requests under all shares meet in one window of their minute."""
    with _gathering(lambda groups: [replace(each, share_ppm=0) for each in groups]):
        yield


@contextmanager
def twice_in_a_window() -> Iterator[None]:
    """What one round found of one server is a window, so that a unit counts once for each server."""
    really = evidence_fold.gather

    def at_once(opened: Any, groups: Any, **named: Any) -> Any:
        found = really(opened, groups, **named)
        return Gathered((), (*found.closed, *(each.window for each in found.opened)))

    with patch.object(evidence_fold, "gather", at_once):
        yield


@contextmanager
def late_is_lost() -> Iterator[None]:
    """What is collected after the window of its minute has closed is dropped."""
    really = evidence_fold.gather
    closed: set[tuple[int, int, int]] = set()

    def gather(opened: Any, groups: Any, **named: Any) -> Any:
        groups = list(groups)
        places = {(each.rollout_id, each.minute_start_us, each.share_ppm) for each in groups}
        in_time = [
            each for each in groups if (each.rollout_id, each.minute_start_us, each.share_ppm) not in closed
        ]
        found = really(opened, in_time, **named)
        still = {(each.window.minute_start_us, each.window.share_ppm) for each in found.opened}
        closed.update(place for place in places if place[1:] not in still)
        return found

    with patch.object(evidence_fold, "gather", gather):
        yield


@contextmanager
def windows_of_old_shares_count() -> Iterator[None]:
    """What was answered under the share of the step before counts towards the next."""
    really = evidence_fold.fold_requests

    def fold(*given: Any, of_step: bool) -> Any:
        return really(*given, of_step=True)

    with patch.object(evidence_fold, "fold_requests", fold):
        yield


@contextmanager
def left_out() -> Iterator[None]:
    """The read position moves on past a record that was not read."""
    really = collected_log.advance

    def further(connection: Any, found: Any, to: int, **counts: Any) -> None:
        really(connection, found, to + (found.collected_bytes > 0), **counts)

    with patch.object(collected_log, "advance", further):
        yield


@contextmanager
def anew() -> Iterator[None]:
    """The loop that takes the lease over keeps where the logs were read to, and begins to count anew."""
    with _after_a_take_over(
        lambda state: replace(
            state, challenger_units=0, challenger_total=0.0, champion_units=0, champion_total=0.0
        )
    ):
        yield


@contextmanager
def half_forgotten() -> Iterator[None]:
    """The loop that takes the lease over knows half of the units of the step."""

    def half(state: MetricState) -> MetricState:
        return replace(state, step_units=state.step_units // 2)

    with _after_a_take_over(half):
        yield


@contextmanager
def nothing_is_well() -> Iterator[None]:
    """No data is taken for success."""

    def enough(state: MetricState) -> MetricState:
        return replace(
            state, step_units=state.step_units or 10**6, champion_units=state.champion_units or 10**6
        )

    def taken(_row: Any, given: Any) -> Any:
        return tuple(enough(each) for each in given) if _is_evidence(given) else given

    with _deciding(taken):
        yield


@contextmanager
def one_step_for_all() -> Iterator[None]:
    """What one step has shown is good for the next."""
    with patch.object(reconcile, "begin_step", lambda states: states):
        yield


@contextmanager
def hasty() -> Iterator[None]:
    """Nothing checks how long a step has lasted."""
    really = reconcile.decide

    def at_once(row: Any, *given: Any) -> Any:
        return really(replace(row, policy=replace(row.policy, min_step_duration=timedelta(0))), *given)

    with patch.object(reconcile, "decide", at_once):
        yield


PLANTED: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
    "no_epoch": no_epoch,
    "no_comparison": no_comparison,
    "wall_clock": wall_clock,
    "any_plan": any_plan,
    "deaf": deaf,
    "creeping": creeping,
    "counted_twice": counted_twice,
    "untold": untold,
    "every_second": every_second,
    "pooled": pooled,
    "twice_in_a_window": twice_in_a_window,
    "late_is_lost": late_is_lost,
    "windows_of_old_shares_count": windows_of_old_shares_count,
    "left_out": left_out,
    "anew": anew,
    "half_forgotten": half_forgotten,
    "nothing_is_well": nothing_is_well,
    "one_step_for_all": one_step_for_all,
    "hasty": hasty,
}


def _positions(connection: Any, server: str) -> list[collected_log.Position]:
    table = schema.log_positions
    rows = connection.execute(table.select().where(table.c.server == server)).mappings()
    return [collected_log.Position(server, row["segment"], row["collected_bytes"]) for row in rows]


@contextmanager
def _deciding(change: Callable[[Any, Any], Any]) -> Iterator[None]:
    really = reconcile.decide

    def decide(row: Any, *given: Any, **named: Any) -> Any:
        return really(row, *(change(row, each) for each in given), **named)

    with patch.object(reconcile, "decide", decide):
        yield


@contextmanager
def _after_a_take_over(change: Callable[[MetricState], MetricState]) -> Iterator[None]:
    """The first fold under a lease that was taken from another begins with evidence that was changed."""
    really_kept, really_read, really_folded = (
        collector.commit_stretch, evidence.canary_of_running, evidence_fold.fold_requests,
    )  # fmt: skip
    epochs: dict[Any, int] = {}
    read: dict[Any, int] = {}
    last: dict[int, int] = {}

    def keep(store: Any, lease: Any, *given: Any, **named: Any) -> None:
        epochs[greenlet.getcurrent()] = lease.epoch
        really_kept(store, lease, *given, **named)

    def of_running(connection: Any, number: int) -> tuple[MetricState, ...]:
        read[greenlet.getcurrent()] = number
        return really_read(connection, number)

    def fold(states: Any, *given: Any, **named: Any) -> Any:
        me = greenlet.getcurrent()
        epoch = epochs.get(me, 0)
        before = last.get(read[me], epoch)
        last[read[me]] = epoch
        changed = tuple(change(each) for each in states) if 0 < before < epoch else states
        return really_folded(changed, *given, **named)

    with (
        patch.object(collector, "commit_stretch", keep),
        patch.object(evidence, "canary_of_running", of_running),
        patch.object(evidence_fold, "fold_requests", fold),
    ):
        yield


@contextmanager
def _gathering(change: Callable[[Any], Any]) -> Iterator[None]:
    """What is collected is changed before it is gathered."""
    really = evidence_fold.gather

    def gather(opened: Any, groups: Any, **named: Any) -> Any:
        return really(opened, change(groups), **named)

    with patch.object(evidence_fold, "gather", gather):
        yield


def _is_evidence(given: Any) -> bool:
    return isinstance(given, tuple) and bool(given) and isinstance(given[0], MetricState)


@contextmanager
def _all(*patches: Any) -> Iterator[None]:
    if not patches:
        yield
        return
    with patches[0], _all(*patches[1:]):
        yield
