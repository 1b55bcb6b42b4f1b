"""An abort that this server is asked for: kept on its disk, and obeyed before the answer goes out."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.errors import NotFoundError, RefusedError, UnavailableError
from holdfast.records import TrafficPlan
from holdfast.rollout.model.abort import Abort, UnderWay, is_repeated, target
from holdfast.serve.follower.abort_follower import AbortFollower
from holdfast.serve.follower.plan_switch import Swap
from holdfast.serve.inference.data_plane import Plane
from holdfast.store.catalog import name_lookup
from holdfast.store.serving import aborts


def give(
    plane: Plane,
    swap: Swap,
    follower: AbortFollower,
    under_way: UnderWay | None,
    rollout: int,
    wanted: tuple[str | None, str, str],
    clock_us: Callable[[], int],
) -> dict[str, object]:
    """Let the version of `wanted` (version or None, reason, actor) answer no more; which one, and who answers now.

    Raises `UnavailableError` HF503 when no version is loaded, `NotFoundError` HF303 for a version without traffic here,
    `RefusedError` HF404 when nobody can answer in its place, or when none is named and that would be the champion a moment
    after another version was taken back: then nothing changes.
    """
    version, reason, actor = wanted
    plan = swap.plan
    if plan is None:
        raise UnavailableError("HF503", "no version is loaded yet")
    known = {*plan.versions(), *([under_way.challenger] if under_way else [])}
    version = name_lookup.meant(version, known) if version else _target(plan, swap, under_way, clock_us())
    if version not in known:
        raise NotFoundError("HF303", f"{version[:64]!r} has no traffic here")
    abort = Abort(version, plan.plan_id, max(rollout, plan.rollout_id or 0), reason, actor, clock_us())
    durable = True
    try:
        abort = aborts.add(follower.directory, abort)
    except UnavailableError:
        durable = False  # the traffic goes back all the same; a restart would not know of it, and the answer says so
    swap.obey([*swap.aborts.values(), abort])
    if why := swap.held.get(version):
        aborts.remove(follower.directory, [abort])
        swap.obey(each for each in swap.aborts.values() if each != abort)
        raise RefusedError("HF404", f"{version} cannot be done without: {why}")
    serving = plane.serving
    return {
        "version": version,
        "answers": None if serving is None else serving.intended,
        "rollout": abort.rollout_id,
        "durable": durable,
    }


def _target(plan: TrafficPlan, swap: Swap, under_way: UnderWay | None, now_us: int) -> str:
    """Whom an abort that names nobody is about."""
    version = target(plan, under_way)
    deployed_us = swap.deployed_us.get(version, 0)
    if version not in swap.aborts and is_repeated(
        version,
        plan,
        under_way,
        deployed_us=deployed_us,
        rolled_back_us=swap.rolled_back_us,
        now_us=now_us,
    ):
        raise RefusedError(
            "HF404", f"traffic has just gone back to {version}: it is not taken back unless it is named"
        )
    return version
