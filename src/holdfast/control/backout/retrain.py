"""Building again what a back-out has tainted: a new cut, a new version, its judgement, its rollout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast.control.evaluation.qualify import qualify
from holdfast.control.rollout.reconcile import begin
from holdfast.control.training.train import train
from holdfast.qualify import decide_status
from holdfast.store import Store
from holdfast.tables import Snapshot

if TYPE_CHECKING:
    from holdfast.declaration import Model


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was built. `rollout` is None when the version did not pass its gates, and so is not rolled out."""

    snapshot: str
    version: str
    state: str
    rollout_id: int | None

    def as_dict(self) -> dict[str, Any]:
        """The result in plain JSON types."""
        return asdict(self)


def rebuild(
    store: Store,
    model: Model,
    cut: Snapshot,
    *,
    actor: str,
    now_us: int,
    trial: Callable[[str], object] = lambda _: None,
) -> Rebuilt:
    """Train `model` on `cut`, judge the version, and ask for its rollout when it is qualified.

    A qualified version is given to `trial` first, which may try it with the binary in force.

    Raises as `train`, `qualify` and `begin` do; what was done before that stays, and each can be done by its own command.
    """
    trained = train(store, model, cut.snapshot, now_us=now_us)
    state = decide_status(qualify(store, model, trained.version, now_us=now_us))
    rollout = None
    if state == "qualified":
        trial(trained.version)
        rollout = begin(store, model, trained.version, actor=actor, now_us=now_us)
    return Rebuilt(cut.snapshot, trained.version, state, rollout)
