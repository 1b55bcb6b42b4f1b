"""The lineage that the ledger has equals a brute-force reading of the same history."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, insert, update

from holdfast.errors import NotFoundError
from holdfast.store import Store
from holdfast.store.catalog import lineage
from holdfast.store.db import schema
from holdfast.tables.lineage import Node, NodeKind
from tests.support.profile import repetitions

GRAPHS = repetitions(200)
SEED = 20_261_122
FEEDS = ("flights", "weather", "other")


@dataclass
class History:
    """A random history, reported to a ledger and kept next to it in plain sets."""

    connection: Connection
    rng: random.Random
    version: int = 0
    live: dict[tuple[str, str], int] = field(default_factory=dict)
    epochs: dict[tuple[str, str], int] = field(default_factory=dict)
    below: dict[Node, set[Node]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    rollouts: list[tuple[int, str]] = field(default_factory=list)

    def put(self, table: str, **values: object) -> int:
        result = self.connection.execute(insert(schema.METADATA.tables[table]).values(**values))
        return (
            int(result.inserted_primary_key[0])
            if table in ("rollouts", "traffic_plans", "table_versions")
            else 0
        )

    def edge(self, parent: Node, child: Node) -> None:
        self.below.setdefault(parent, set()).add(child)
        self.below.setdefault(child, set())

    def step(self) -> None:
        self.rng.choice(
            [self.load, self.load, self.remove, self.snapshot, self.train, self.roll_out, self.response]
        )()

    def advance(self) -> int:
        self.version = self.put("table_versions", committed_at_us=1, reason="x")
        return self.version

    def load(self, key: tuple[str, str] | None = None) -> None:
        key = key or (self.rng.choice(FEEDS), f"b{self.rng.randrange(4)}")
        if key in self.live:
            return
        epoch = self.epochs[key] = self.epochs.get(key, -1) + 1
        version = self.advance()
        feed, batch = key
        path = f"rows/{feed}-{batch}-{epoch}"
        common = {"feed": feed, "batch": batch, "epoch": epoch}
        digest = f"{version:064d}"
        self.put("batches", **common, digest=digest, contract_hash="c", state="published", rows_received=1,
                 rows_loaded=1, rows_quarantined=0, table_version=version, source="s")  # fmt: skip
        self.put(
            "files", path=path, table_name=feed, feed=feed, rows=1, bytes=1, sha256="x", added_version=version
        )
        self.put("file_row_groups", path=path, row_group=0, **common, rows=1)
        self.live[key] = epoch
        self.below.setdefault(Node.load(feed, batch, epoch), set())

    def remove(self) -> None:
        if not self.live:
            return
        key = self.rng.choice(sorted(self.live))
        epoch = self.live.pop(key)
        version = self.advance()
        for table, values in (
            ("batches", {"state": "backed_out"}),
            ("file_row_groups", {"removed_version": version}),
        ):
            rows = schema.METADATA.tables[table]
            here = (rows.c.feed == key[0]) & (rows.c.batch == key[1]) & (rows.c.epoch == epoch)
            self.connection.execute(update(rows).where(here).values(**values))

    def snapshot(self) -> None:
        if not self.version:
            return
        tables = self.rng.sample(FEEDS, self.rng.randrange(1, 4))
        name = f"s{self.version}-{len(self.below):08x}"
        self.put("snapshots", snapshot=name, table_version=self.version, contract_hash="c", created_at_us=1)
        node = Node(NodeKind.SNAPSHOT, name)
        self.below[node] = set()
        for table in tables:
            self.put("snapshot_tables", snapshot=name, table_name=table, rows=1, files=1)
        for (feed, batch), epoch in self.live.items():
            if feed in tables and self.rng.random() < 0.2:
                self.put("snapshot_incomplete_loads", snapshot=name, feed=feed, batch=batch, epoch=epoch)
            elif feed in tables:
                self.edge(Node.load(feed, batch, epoch), node)

    def train(self) -> None:
        snapshots = [node for node in self.below if node.kind is NodeKind.SNAPSHOT]
        if not snapshots:
            return
        snapshot = self.rng.choice(snapshots)
        number = len(self.made) + 1
        name = f"v{number}-00000000"
        self.put("versions", version=name, model="m", number=number, digest=f"{number:064d}", bytes=1,
                 snapshot=snapshot.name, contract_hash="c", features_hash="f", learner="l", role="candidate",
                 state="qualified", created_at_us=1)  # fmt: skip
        self.made.append(name)
        self.edge(snapshot, Node(NodeKind.VERSION, name))

    def roll_out(self) -> None:
        if not self.made:
            return
        version = self.rng.choice(self.made)
        number = self.put("rollouts", model="m", challenger=version, state="promoted", step=0, policy_json="{}",
                          started_at_us=1, step_started_at_us=1, changed_at_us=1, reason="r", actor="a")  # fmt: skip
        plan = self.put(
            "traffic_plans",
            model="m",
            champion=version,
            share_ppm=0,
            shadow_ppm=0,
            rollout_id=number,
            committed_at_us=1,
        )
        node = Node(NodeKind.ROLLOUT, str(number))
        self.edge(Node(NodeKind.VERSION, version), node)
        self.edge(node, Node(NodeKind.PLAN, str(plan)))
        self.edge(Node(NodeKind.VERSION, version), Node(NodeKind.PLAN, str(plan)))

    def response(self) -> None:
        quiet = [name for name in self.made if Node(NodeKind.PREDICTIONS, name) not in self.below]
        if not quiet:
            return
        version = self.rng.choice(quiet)
        self.put("request_counts", model="m", version=version, arm="champion", result="ok", minute_start_us=0,
                 requests=1, rows=1, latency_sum_us=1, latency_buckets_json="{}")  # fmt: skip
        self.edge(Node(NodeKind.VERSION, version), Node(NodeKind.PREDICTIONS, version))
        if self.rng.random() < 0.5:
            prediction = f"p{version}"
            self.put("labels", prediction_id=prediction, value=1.0, source="s", received_at_us=1, joined=1)
            self.put("outcomes", prediction_id=prediction, model="m", version=version, arm="champion", probability=0.5,
                     label=1.0, event_time_us=1, joined_at_us=1, predicted_at_us=1)  # fmt: skip
            self.edge(Node(NodeKind.PREDICTIONS, version), Node(NodeKind.LABELS, version))

    def impact(self) -> dict[Node, set[Node]]:
        impact = {node: {node, *below} for node, below in self.below.items()}
        for middle in self.below:
            for node in self.below:
                if middle in impact[node]:
                    impact[node] |= impact[middle]
        return impact


def test_back_out_reaches_what_brute_force_reaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """R7, R16: on 1,000 random histories with reloads, removals and groups held back, both ways."""
    rng = random.Random(SEED)
    store = Store.open(tmp_path)
    nodes = 0
    with store.ledger.engine.connect() as connection:
        for _ in range(GRAPHS):
            before = connection.begin_nested() if connection.in_transaction() else connection.begin()
            history = History(connection, rng)
            for _ in range(rng.randrange(5, 25)):
                history.step()
            impact = history.impact()
            nodes += len(impact)
            loads = sorted(each for each in impact if each.kind is NodeKind.BATCH)
            for node in rng.sample(loads, min(3, len(loads))):
                assert set(lineage.down(connection, node).nodes) == impact[node]
            for node in rng.sample(sorted(impact), min(2, len(impact))):
                above = {other for other, below in impact.items() if node in below}
                assert set(lineage.up(connection, node).nodes) == above
            before.rollback()
    with capsys.disabled():
        print(f" {GRAPHS} histories, {nodes} nodes, seed {SEED}", end="")


def test_a_batch_without_an_epoch_is_its_newest_load_and_what_is_unknown_is_reported(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    with store.ledger.write() as connection:
        history = History(connection, random.Random(1))
        history.load(("flights", "b0"))
        history.remove()
        history.load(("flights", "b0"))
        assert lineage.find(connection, "flights/b0") == Node.load("flights", "b0", 1)
        assert lineage.find(connection, "flights/b0@0") == Node.load("flights", "b0", 0)
        for text in (
            "flights/none",
            "s9-00000000",
            "v1-00000000",
            "rollout:1",
            "plan:x",
            "predictions:v1",
            "labels:v1",
        ):
            with pytest.raises(NotFoundError, match="HF303"):
                lineage.find(connection, text)


def test_a_load_whose_files_were_vacuumed_is_in_no_snapshot(tmp_path: Path) -> None:
    """Retention keeps the files of every snapshot that is left: where there is no file, no snapshot holds the load."""
    store = Store.open(tmp_path)
    with store.ledger.write() as connection:
        history = History(connection, random.Random(1))
        history.load(("flights", "b0"))
        history.remove()
        connection.execute(schema.file_row_groups.delete())
        history.load(("flights", "b1"))
        for _ in range(3):
            history.snapshot()
        assert lineage.down(connection, Node.load("flights", "b0", 0)).names(NodeKind.SNAPSHOT) == ()
        assert (
            lineage.loads_in(connection, next(n.name for n in history.below if n.kind is NodeKind.SNAPSHOT))
            is not None
        )


@pytest.mark.sqlite
def test_what_a_batch_reached_is_found_without_looking_at_all_history(tmp_path: Path) -> None:
    """No statement of a closure scans a table: what there is to read does not grow with what it did not touch."""
    store = Store.open(tmp_path)
    with store.ledger.write() as connection:
        history = History(connection, random.Random(7))
        for _ in range(120):
            history.step()
        load = next(node for node, below in history.below.items() if node.kind is NodeKind.BATCH and below)
    statements: list[tuple[str, object]] = []
    with store.ledger.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda *a: statements.append((a[2], a[3])))
        lineage.down(connection, load)
        requested = list(dict.fromkeys(text for text, _ in statements))
        given = dict(statements)
        for text in requested:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given[text]).all()
            assert not [row for row in plan if str(row[-1]).startswith("SCAN")], (text, plan)
