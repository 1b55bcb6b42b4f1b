"""Train again what a back-out tainted: a new snapshot, a new version, its gates, its rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.control.evaluation.qualify import qualify
from holdfast.control.rollout.start import Started, request
from holdfast.control.training.train import train
from holdfast.qualify import decide_status
from holdfast.store import Store
from holdfast.tables import Snapshot

if TYPE_CHECKING:
    from holdfast.declaration import Model


@dataclass(frozen=True, slots=True)
class Retrained:
    """The result of training again. `started` is None if the version did not pass its gates.

    `rollout_id` is None then, and while the rollout is queued behind another.
    """

    snapshot: str
    version: str
    state: str
    rollout_id: int | None
    started: Started | None


def retrain(
    store: Store,
    model: Model,
    snapshot: Snapshot,
    *,
    actor: str,
    now_us: int,
    clock_us: Callable[[], int] | None = None,
    trial: Callable[[str], object] = lambda _: None,
) -> Retrained:
    """Train `model` on `snapshot`, run the gates of the version, and request its rollout if it is qualified.

    Parameters
    ----------
    store, model
        The store, and the model to train.
    snapshot
        The snapshot to train on.
    actor
        The operator, kept with the rollout.
    now_us
        The current time, microseconds since 1970 UTC.
    clock_us
        As for `train`.
    trial
        Called with a qualified version before its rollout, to load it with the current runtime.

    Raises as `train`, `qualify` and `request` do. Finished steps stay, and each step has a command of its own.
    """
    trained = train(store, model, snapshot.snapshot, now_us=now_us, clock_us=clock_us)
    state = decide_status(qualify(store, model, trained.version, now_us=now_us))
    rollout, started = None, None
    if state == "qualified":
        trial(trained.version)
        requested = request(store, model, trained.version, actor=actor, now_us=now_us)
        rollout, started = requested.rollout, requested.state
    return Retrained(snapshot.snapshot, trained.version, state, rollout, started)
