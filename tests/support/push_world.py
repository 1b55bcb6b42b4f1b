"""What tests of pushes share: the world of rollouts, and a server whose log is read as the control loop reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from onnx import TensorProto, helper
from sqlalchemy import update

from holdfast.contract import Contract, Label, Number, Text, Timestamp
from holdfast.control.collect import collector
from holdfast.control.rollout import post_promotion, pushes
from holdfast.records import EVERYTHING_PPM, Arm, TrafficPlan
from holdfast.rollout import Canary
from holdfast.rollout.model.assignment import arm_of, salt_of
from holdfast.store.db import events, schema
from holdfast.store.files import blobs
from holdfast.store.serving import servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, frame
from holdfast.store.serving.servers import Server
from holdfast.train.artifact import VersionMetadata, pack_version
from tests.support import rollout_world

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
MODEL = "m"
CONTRACT = Contract(
    Text("id"),
    Text("carrier"),
    Number("distance", unit="mi"),
    Timestamp("at", tz="UTC"),
    key="id",
    event_time="at",
    label=Label("late", delay="1h", missing="keep"),
)
Behaviour = Callable[[str, int], Mapping[str, Any]]
"""From the version that is requested and the number of the request to what differs: failed, latency_us, probability."""


def well(_version: str, _number: int) -> Mapping[str, Any]:
    return {}


@dataclass
class Pushes:
    """A world of rollouts with a log. Requests are numbered; every 33rd is of carrier YV, the others of AA, DL and UA."""

    world: Any
    directory: Path
    policy: Canary
    segment: int = 0
    requested: int = 0
    unlabelled: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, root: Path, directory: Path, **policy: Any) -> Pushes:
        """A store in `root`, and the log in `directory`."""
        world = rollout_world.World.open(root)
        directory.mkdir()
        with world.store.ledger.write() as connection:
            servers.announce(connection, Server("s1", MODEL, "127.0.0.1:1", directory, world.now_us))
        made = cls(world, directory, replace(rollout_world.POLICY, **policy))
        world.__class__ = type("Ruled", (world.__class__,), {"model": property(lambda _: made.model)})
        return made

    @property
    def model(self) -> Any:
        return SimpleNamespace(name=MODEL, rollout=self.policy)

    def version(self, contract: Contract = CONTRACT) -> str:
        """A qualified version whose file reports what its request columns are."""
        name: str = self.world.add_version()
        about = VersionMetadata(
            MODEL, "candidate", contract.to_json(), contract.hash, "{}", "f", "[]", "s", name, {}, 1, {}, 9, 1
        )  # fmt: skip
        graph = helper.make_graph(
            [], "empty", [], [helper.make_tensor_value_info("p", TensorProto.FLOAT, [1])]
        )
        digest = blobs.put(self.world.store.root, pack_version(helper.make_model(graph), about))
        with self.world.store.ledger.write() as connection:
            connection.execute(
                update(schema.versions).where(schema.versions.c.version == name).values(digest=digest)
            )
        return name

    def minutes(
        self, count: int, behaviour: Behaviour = well, *, requests: int = 100, plan: TrafficPlan | None = None
    ) -> None:
        """So many minutes of traffic under `plan`, else the newest, collected."""
        for _ in range(count):
            self.world.now_us += MINUTE_US - self.world.now_us % MINUTE_US
            self.segment += 1
            followed = plan or self.world.plan()
            records = [self._response(followed, behaviour, number) for number in range(1, requests + 1)]
            (self.directory / f"{self.segment:08d}.log").write_bytes(b"".join(map(frame, records)))
            self.world.now_us += MINUTE_US - 1
            while collector.collect(self.world.store, MODEL, self.world.lease, now_us=self.world.now_us):
                pass

    def label(self, value: Callable[[str], float] = lambda _: 1.0) -> None:
        """The truth about every answer that has none yet comes in, and is joined."""
        self.segment += 1
        reported = [FeedbackRecord(each, value(each), "t", self.world.now_us) for each in self.unlabelled]
        (self.directory / f"{self.segment:08d}.log").write_bytes(b"".join(map(frame, reported)))
        self.unlabelled.clear()
        for work in (collector.collect, collector.join):
            while work(self.world.store, MODEL, self.world.lease, now_us=self.world.now_us):
                pass

    def step(self) -> list[str]:
        """One round of the loop: the rollout, then the watch; the names of what was decided."""
        taken = self.world.reconcile()
        decided = post_promotion.carry(self.world.store, MODEL, self.world.lease, now_us=self.world.tick())
        return taken if decided is None else [*taken, type(decided).__name__]

    def promote(self) -> str:
        """Bring a new version all the way, with good traffic."""
        version = self.version()
        if self.world.plan() is not None:
            self.minutes(1)
        self.world.begin(version)
        for _ in range(12):
            self.step()
            self.world.probe()
            if self.world.row().state == "promoted":
                return version
            if self.world.plan() is not None and self.world.row().state == "canary":
                self.minutes(3)
                self.label()
        raise AssertionError(f"it is {self.world.row().state}: {self.world.row().reason}")

    def push(self, rollout: int | None = None) -> pushes.Push:
        """The newest push, or that of `rollout`."""
        listed = pushes.listed(self.world.store, MODEL)
        return next(each for each in listed if rollout in (None, each.rollout_id))

    def reported(self, kind: str) -> list[str]:
        with self.world.store.ledger.read() as connection:
            return [each.explanation for each in events.newest(connection, kind=kind)]

    def _response(self, plan: TrafficPlan, behaviour: Behaviour, number: int) -> PredictionRecord:
        """One request as a server that follows `plan` would log it."""
        self.requested += 1
        unit = self.requested.to_bytes(8, "big")
        version, arm, rollout = plan.champion, Arm.CHAMPION, None
        if plan.challenger is not None:
            rollout = plan.rollout_id
            if plan.share_ppm == EVERYTHING_PPM or (
                arm_of(unit, salt_of(MODEL, rollout or 0), plan.share_ppm) is Arm.CHALLENGER
            ):
                version, arm = plan.challenger, Arm.CHALLENGER
        carrier = "YV" if self.requested % 33 == 0 else ("AA", "DL", "UA")[self.requested % 3]
        does = {"failed": False, "latency_us": 900, "probability": 0.9, **behaviour(version, self.requested)}
        failure, result = "", "ok"
        if does["failed"] and arm is Arm.CHALLENGER:
            failure, version, arm = "exception", plan.champion, Arm.CHAMPION
        elif does["failed"]:
            result, version, arm = "champion_failed", plan.fallback, Arm.FALLBACK
        name = f"s1-{self.segment}-{number}"
        self.unlabelled.append(f"{name}/0")
        return PredictionRecord(
            name, self.world.now_us + number, self.world.now_us, unit, arm, version, failure, rollout, result,
            does["latency_us"], [does["probability"]], [[f"f{self.requested}", carrier, 700.0, "2013-03-01T10:00:00Z"]],
        )  # fmt: skip


def carrier_of(requested: int) -> str:
    """The carrier of request number `requested`."""
    return "YV" if requested % 33 == 0 else ("AA", "DL", "UA")[requested % 3]
