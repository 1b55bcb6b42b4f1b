"""What rollout tests share: a real store with versions to roll out, a server, a lease and a clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import insert

from holdfast.control.rollout import reconcile as rollout
from holdfast.control.rollout import start
from holdfast.control.rollout.rollback import Request, rollback
from holdfast.monitor.latency import bucket_of
from holdfast.monitor.usage import UsageRow
from holdfast.records import EVERYTHING_PPM, Arm, TrafficPlan, Verdict
from holdfast.rollout import Canary, RequestOutcome, fold_requests, fold_scores
from holdfast.store import Store
from holdfast.store.catalog import snapshots
from holdfast.store.db import leases, schema
from holdfast.store.db.leases import Lease
from holdfast.store.files import blobs
from holdfast.store.rollout import evidence, rollouts, traffic_plans
from holdfast.store.serving import servers
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import request_counts
from holdfast.tables import Snapshot
from tests.support.queries import read

MODEL = "m"
SECOND_US = 1_000_000
POLICY = Canary(
    steps=(10, 50, 100),
    units_per_step=20,
    labels_per_step=5,
    latency_requests=50,
    timeout=timedelta(hours=1),
)


@dataclass
class World:
    """One model, one server, one control loop, and a clock that the test moves."""

    store: Store
    lease: Lease
    now_us: int = 1_700_000_000_000_000
    made: int = 0
    units: int = 0

    @classmethod
    def open(cls, root: Path) -> World:
        store = Store.open(root)
        with store.ledger.write() as connection:
            connection.execute(insert(schema.table_versions).values(committed_at_us=1, reason="test"))
            connection.execute(
                insert(schema.snapshots).values(
                    snapshot="s", table_version=1, contract_hash="c", created_at_us=1
                )
            )
            snapshots.write_manifest(store.root, connection, Snapshot("s", 1, "c", 1, tables=()))
        world = cls(store, take(store, "loop"))
        world.add_version("heuristic", "registered")
        with store.ledger.write() as connection:
            servers.announce(connection, Server("srv", MODEL, "127.0.0.1:1", "log", world.now_us))
        return world

    @property
    def model(self) -> Any:
        """What `begin` reads of a declaration: its name and its policy."""
        return SimpleNamespace(name=MODEL, rollout=POLICY)

    def add_version(self, role: str = "candidate", state: str = "qualified", snapshot: str = "s") -> str:
        self.made += 1
        name = f"v{self.made}-00000000"
        digest = blobs.put(self.store.root, name.encode())
        with self.store.ledger.write() as connection:
            connection.execute(
                insert(schema.versions).values(
                    version=name,
                    model=MODEL,
                    number=self.made,
                    digest=digest,
                    bytes=1,
                    snapshot=snapshot,
                    contract_hash="c",
                    features_hash="f",
                    learner="l",
                    role=role,
                    state=state,
                    created_at_us=1,
                )
            )
        return name

    def begin(self, version: str) -> int:
        """Request the rollout of `version`; another one under way is a conflict here, the queue has tests of its own."""
        model: Any = SimpleNamespace(name=MODEL, rollout=replace(self.model.rollout, newer_version="refuse"))
        number = start.request(self.store, model, version, actor="ann", now_us=self.tick()).rollout
        assert number is not None
        return number

    def reconcile(self, lease: Lease | None = None) -> list[str]:
        """The names of the decisions that one round of the loop committed."""
        taken = rollout.reconcile(self.store, MODEL, lease or self.lease, now_us=self.tick())
        return [type(decision).__name__ for decision in taken]

    def rollback(self, version: str | None = None) -> int:
        request = Request(MODEL, "ann", "smoke", version)
        row = rollback(self.store, request, now_us=self.tick()).rollout
        assert row is not None
        return row.rollout_id

    def rollback_by_harm(self) -> None:
        """The canary does harm, is rolled back, and a probe confirms it."""
        self.traffic(failing=20)
        assert self.reconcile() == ["RollBack"]
        self.probe()
        assert self.reconcile() == ["Confirm"]

    def tick(self, us: int = SECOND_US) -> int:
        self.now_us += us
        return self.now_us

    def plan(self) -> TrafficPlan | None:
        return read(self.store, traffic_plans.newest, MODEL)

    def row(self) -> rollouts.RolloutRow:
        return read(self.store, rollouts.newest, MODEL)

    def champion_responses(self, requests: int = 100) -> None:
        """Traffic before a canary: what the bound on latency is frozen from."""
        plan = self.plan()
        assert plan is not None
        counted = UsageRow(
            plan.champion, Arm.CHAMPION, "ok", self.now_us, requests, requests, 0, {bucket_of(1000): requests}
        )
        with self.store.ledger.write() as connection:
            request_counts.add(connection, MODEL, [counted])

    def traffic(self, *, units: int = 25, failing: int = 0, labelled: int = 6, score: float = 0.8) -> None:
        """One window: `units` of the challenger, `failing` of them bad, and nine times the champion's, which has
        none once the challenger has everything."""
        plan = self.plan()
        assert plan is not None
        theirs = 9 if plan.share_ppm < EVERYTHING_PPM else 0
        window = []
        for arm, count in ((Arm.CHALLENGER, units), (Arm.CHAMPION, theirs * units)):
            for number in range(count):
                self.units += 1
                bad = arm is Arm.CHALLENGER and number < failing
                window.append(RequestOutcome(self.units.to_bytes(8, "big"), arm, bad, 900.0))
        number = self.row().rollout_id
        with self.store.ledger.write() as connection:
            states = fold_requests(evidence.canary_of_running(connection, number), window)
            states = tuple(
                fold_scores(state, [score] * labelled, [0.8] * theirs * labelled)
                if state.metric == "quality"
                else state
                for state in states
            )
            evidence.put(connection, number, states, now_us=self.now_us)

    def probe(self, responded: str | None = None) -> None:
        """The server is probed: it follows the newest plan and answers as intended, or with `answered`."""
        plan = self.plan()
        if plan is None:
            return
        version = responded or plan.intended
        seen = servers.Probe(
            "srv", MODEL, plan.plan_id, plan.intended, version, Verdict.PASS, "probed", self.tick()
        )
        with self.store.ledger.write() as connection:
            servers.record_probe(connection, seen, self.lease)

    def silence(self) -> None:
        """The server is probed and reports nothing."""
        seen = servers.Probe("srv", MODEL, None, None, None, Verdict.ERROR, "silent", self.tick())
        with self.store.ledger.write() as connection:
            servers.record_probe(connection, seen, self.lease)

    def promote(self, version: str) -> None:
        """Bring `version` all the way, with evidence that speaks for it."""
        self.begin(version)
        if self.plan() is not None:
            self.champion_responses()
        for _ in range(2 * len(POLICY.steps) + 3):
            self.reconcile()
            if self.row().state == "canary":
                self.traffic()
            self.probe()


def take(store: Store, holder: str) -> Lease:
    """The lease of the control loop, for `holder`."""
    with store.ledger.write() as connection:
        lease = leases.acquire(connection, "control-m", holder=holder, duration_us=SECOND_US, now_us=1)
    assert isinstance(lease, Lease)
    return lease
