"""Labels that cannot be verified wait within bounds, and those that wait cost the others nothing (B4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from holdfast.control.collect import arriving_labels, collector
from holdfast.control.collect.arriving_labels import Rejection, WaitingRoom, check_labels
from holdfast.feedback import IdCheck, IdKey, LabelRules, PredictionId, parse_id
from holdfast.serve.protocol.oip import MAX_ROWS
from holdfast.store import Store
from holdfast.store.db import events, leases
from holdfast.store.db.leases import Lease
from holdfast.store.db.ledger import Transaction
from holdfast.store.serving import label_rules, servers
from holdfast.store.serving.prediction_log import FeedbackRecord, PredictionRecord, Record, frame
from holdfast.store.serving.servers import Server
from holdfast.store.telemetry import labels, outcomes, quarantined_labels
from holdfast.store.telemetry.labels import NewLabel

MODEL = "m"
NOW = 1_700_000_000_000_000
SECRET = bytes(range(32))
KEY = IdKey(SECRET)
RULES = LabelRules("first", SECRET, {"old": None, "s2": 3})


def tagged(place: str) -> str:
    return f"{place}.{KEY.tag(place)}"


def label(name: str, value: float = 1.0, source: str = "crm", at_us: int = NOW) -> FeedbackRecord:
    return FeedbackRecord(f"{name}/0", value, source, at_us)


def prediction(name: str, rows: int = 1) -> PredictionRecord:
    return PredictionRecord(
        id=name, at_us=NOW, event_time_us=NOW, unit=b"u", arm="champion", version="v1", challenger_failed="",
        rollout=None, result="ok", latency_us=9, probabilities=[0.25] * rows, inputs=[["AA"]] * rows,
    )  # fmt: skip


class World:
    """Two servers with a ledger that has a secret, and the control loop's lease."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store.open(root / "store")
        with self.store.ledger.write() as connection:
            for name, segment in (("s1", 1), ("s2", 1)):
                (root / name).mkdir()
                server = Server(name, MODEL, "http://127.0.0.1:1", root / name, NOW)
                servers.announce(connection, server, tagged_from_segment=segment)
            label_rules.ensure_secret(connection, SECRET, now_us=NOW)
            lease = leases.acquire(connection, "control-m", holder="t", duration_us=10**12, now_us=NOW)
        assert isinstance(lease, Lease)
        self.lease = lease

    def log(self, server: str, *records: Record, segment: int = 1) -> None:
        with (self.root / server / f"{segment:08d}.log").open("ab") as file:
            file.writelines(map(frame, records))

    def round(self, now_us: int = NOW) -> int:
        """Collect and join; return how many labels were settled."""
        collector.collect(self.store, MODEL, self.lease, now_us=now_us)
        return collector.join(self.store, MODEL, self.lease, now_us=now_us)

    def counts(self) -> tuple[int, int]:
        with self.store.ledger.read() as connection:
            return labels.count(connection)

    def joined(self) -> set[str]:
        with self.store.ledger.read() as connection:
            ids = [tagged(f"s{server}-1-{number}") for server in (1, 2) for number in range(1, 40)]
            return {
                name.partition(".")[0]
                for name in outcomes.labels_of(connection, [f"{each}/0" for each in ids])
            }

    def events(self, kind: str) -> list[str]:
        with self.store.ledger.read() as connection:
            return [each.explanation for each in events.newest(connection, kind=kind)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.ledger.close()


def checked(*records: FeedbackRecord, room: int = 9, of_source: int = 2) -> arriving_labels.CheckedLabels:
    """Check labels of servers of which nothing is collected yet."""
    return check_labels(
        records,
        {},
        RULES,
        lambda _: True,
        {
            IdCheck.UNVERIFIED: WaitingRoom(lambda source: room if source is None else of_source),
            IdCheck.ROW_UNVERIFIED: WaitingRoom(lambda source: room if source is None else of_source + 1),
        },
    )


@pytest.mark.parametrize(
    ("name", "is_accepted"),
    [
        (tagged("s1-1-1"), True),
        (tagged("old-9-9"), True),
        ("s1-1-1", False),
        ("s1-1-1.0000000000000000", False),
        (f"s1-1-2.{KEY.tag('s1-1-1')}", False),
        (f"s1-1-1.{IdKey(bytes(32)).tag('s1-1-1')}", False),
        ("old-9-9", True),
        ("s2-2-9", True),
        ("s2-3-1", False),
        ("never-1-1", False),
    ],
)
def test_an_id_that_no_server_made_is_rejected(name: str, is_accepted: bool) -> None:
    found = checked(label(name))
    assert len(found.accepted) == is_accepted
    assert [why for _, why in found.rejected] == [Rejection.NOT_ISSUED] * (not is_accepted)


def test_a_row_that_no_request_has_is_rejected() -> None:
    for row, is_accepted in ((MAX_ROWS - 1, True), (MAX_ROWS, False)):
        found = checked(FeedbackRecord(f"{tagged('s1-1-1')}/{row}", 1.0, "crm", NOW))
        assert bool(found.accepted) == is_accepted


def test_what_cannot_be_verified_waits_within_the_bounds_of_its_source_and_of_all() -> None:
    flood = [label(f"old-1-{number}", source="flood") for number in range(1, 5)]
    others = [label(f"old-2-{number}", source=f"s{number}") for number in range(1, 5)]
    sure = [label(tagged(f"s1-1-{number}"), source="flood") for number in range(1, 9)]
    found = checked(*flood, *others, *sure, room=4)
    assert [(record.source, why) for record, why in found.rejected] == [
        ("flood", Rejection.OVER_QUOTA), ("flood", Rejection.OVER_QUOTA),
        ("s3", Rejection.OVER_QUOTA), ("s4", Rejection.OVER_QUOTA),
    ]  # fmt: skip
    assert len(found.accepted) == 4 + len(sure), "what is verified has no such bound"


def test_rows_that_only_the_log_can_show_wait_within_a_bound_of_their_own() -> None:
    """One id has a tag for 10,000 rows: without a bound, its caller fills the waiting labels with rows that never were."""
    name = tagged("s1-1-1")
    flood = [FeedbackRecord(f"{name}/{row}", 1.0, "flood", NOW) for row in range(6)]
    others = [FeedbackRecord(f"{name}/{row}", 1.0, "crm", NOW) for row in range(6, 8)]
    found = checked(*flood, *others)
    assert [(record.source, record.prediction[-1]) for record, _ in found.rejected] == [
        ("flood", "4"), ("flood", "5"),
    ]  # fmt: skip
    assert {why for _, why in found.rejected} == {Rejection.OVER_QUOTA}
    assert f"{name}/0" in found.ahead, "every request has its first row"


def test_a_row_that_its_request_did_not_have_is_given_up_with_the_reason(world: World) -> None:
    name = tagged("s1-1-1")
    rows = [FeedbackRecord(f"{name}/{row}", 1.0, "crm", NOW) for row in (0, 7)]
    world.log("s2", *rows)
    world.round()
    assert world.counts() == (2, 2)
    world.log("s1", prediction(name))
    world.round()
    world.round(NOW + 11 * 60_000_000)
    assert world.counts() == (1, 0)
    (why,) = world.events("labels.unmatched")
    assert f"{name}/7" in why
    assert "the log was collected beyond this record, and has no such prediction" in why


def test_labels_for_collected_logs_need_no_room() -> None:
    """Those of before the upgrade come in bulk, and are joined in the next round."""
    many = [label(f"old-1-{number}") for number in range(1, 100)]
    found = check_labels(many, {}, RULES, lambda _: False, {IdCheck.UNVERIFIED: WaitingRoom(lambda _: 0)})
    assert (len(found.accepted), found.rejected) == (len(many), [])


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 3)),
        max_size=12,
    ),
    st.sampled_from(["first", "latest"]),
)
def test_one_source_owns_a_label_and_its_history_rises(
    sent: list[tuple[str, float, int]], corrections: str
) -> None:
    """Against brute force: the first sender owns the prediction; its values count as they came."""
    rules = LabelRules("latest" if corrections == "latest" else "first", SECRET)
    name = tagged("s1-1-1")
    records = [label(name, value, source, NOW + at) for source, value, at in sent]
    found = check_labels(records, {}, rules, lambda _: True, {IdCheck.UNVERIFIED: WaitingRoom(lambda _: 0)})
    owner = sent[0][0] if sent else ""
    values: list[float] = []
    strangers = contradictions = 0
    for source, value, _ in sent:
        if values and value == values[-1]:
            continue
        if source != owner:
            strangers += 1
        elif values and corrections == "first":
            contradictions += 1
        else:
            values.append(value)
    history = [*found.accepted, *found.corrected]
    assert [each.value for each in history] == values
    assert {each.source for each in history} <= {owner}
    times = [each.received_at_us for each in history]
    assert times == sorted(set(times)), "no two have one time"
    assert (len(found.quarantined), len(found.rejected)) == (strangers, contradictions)


def test_the_ledger_decides_over_the_labels_of_every_server(world: World) -> None:
    """A server knows neither the labels of others nor those of before its start."""
    one, other = tagged("s1-1-1"), tagged("s2-1-1")
    world.log("s1", prediction(one), label(one))
    world.log("s2", prediction(other), label(other, source="bank"))
    assert world.round() == 2
    world.log(
        "s2", label(one, 0.0, "stranger"), label(one, 1.0, "stranger"), label("s1-1-1", 0.0), label(one, 0.0)
    )
    assert world.round() == 0
    assert world.counts() == (2, 0)
    (rejected,) = world.events("labels.rejected")
    assert "1 contradict an earlier label" in rejected
    assert "1 name a prediction that no server of this ledger made (s1-1-1/0)" in rejected
    (quarantined,) = world.events("labels.quarantined")
    assert "1 labels contradict the label of another source" in quarantined
    with world.store.ledger.read() as connection:
        (kept,) = quarantined_labels.newest(connection, MODEL, limit=9)
    assert (kept.prediction_id, kept.value, kept.source) == (f"{one}/0", 0.0, "stranger")
    assert kept.reason == "source 'crm' labelled it 1 before, and only that source can correct it"


def test_the_quarantine_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantined_labels, "MOST_OF_SOURCE", 2)
    monkeypatch.setattr(quarantined_labels, "MOST_OF_MODEL", 3)
    name = tagged("s1-1-1")
    world.log(
        "s1", label(name), *[label(name, value, source) for source in "ab" for value in (0.0, 0.25, 0.5)]
    )
    world.round()
    with world.store.ledger.read() as connection:
        assert [each.source for each in quarantined_labels.newest(connection, MODEL, limit=9)] == [
            "b",
            "a",
            "a",
        ]
    assert "6 labels contradict" in world.events("labels.quarantined")[0]


def test_the_bound_counts_what_waits_in_the_ledger(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving_labels, "MAX_WAITING_OF_SOURCE", 2)
    with world.store.ledger.write() as connection:
        servers.announce(connection, Server("old", MODEL, "http://127.0.0.1:1", world.root / "old", NOW))
    for number in range(1, 4):
        world.log("s1", label(f"old-1-{number}"))
        world.round()
    assert world.counts() == (2, 2)
    assert "as many of their source or of all sources wait as may" in world.events("labels.rejected")[0]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("predict"), st.integers(1, 2), st.integers(1, 12)),
        st.tuples(st.just("label"), st.integers(1, 2), st.integers(1, 12)),
        st.tuples(st.just("round"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_the_order_a_label_is_joined_in_the_round_of_its_prediction(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """The time of the next look is never later than the collection of the prediction."""
    world = World(tmp_path_factory.mktemp("order"))
    predicted: set[str] = set()
    labelled: set[str] = set()
    for step, server, number in [*steps, ("round", 0, 0)]:
        place = f"s{server}-1-{number}"
        if step == "predict" and place not in predicted:
            world.log(f"s{server}", prediction(tagged(place)))
            predicted.add(place)
        elif step == "label":
            world.log(f"s{3 - server}", label(tagged(place)))
            labelled.add(place)
        elif step == "round":
            world.round()
            assert world.joined() == predicted & labelled
    world.store.ledger.close()


def test_a_label_whose_record_was_skipped_is_decided_when_the_log_is_beyond_it(world: World) -> None:
    """Not after seven days: a number that is not logged lies before one that is."""
    world.log("s1", label(tagged("s1-1-2")), label(tagged("s1-1-9")))
    world.round()
    world.log("s1", prediction(tagged("s1-1-1")))
    world.round()
    world.log("s1", prediction(tagged("s1-1-3")))
    assert world.round(NOW + 1) == 0
    assert world.round(NOW + 11 * 60_000_000) == 1
    world.log("s1", prediction(tagged("s1-2-1")), segment=2)
    assert world.round(NOW + 22 * 60_000_000) == 1, "the segment was closed"
    assert len(world.events("labels.unmatched")) == 2


def plan_of(connection: Transaction, run: Callable[[], object]) -> str:
    """SQLite's plan of the last statement of `run`."""
    statements: list[tuple[str, object]] = []

    def keep(*given: object) -> None:
        statements.append((str(given[2]), given[3]))

    event.listen(connection, "before_cursor_execute", keep)
    run()
    event.remove(connection, "before_cursor_execute", keep)
    text, values = statements[-1]
    return str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all())  # type: ignore[arg-type]


@pytest.mark.sqlite
def test_labels_that_wait_are_not_read_with_those_that_are_due(world: World) -> None:
    """300,000 waiting labels made every label late, because each round read all of them."""
    waiting = [NewLabel(f"{tagged(f's2-7-{number}')}/0", 1.0, "flood", NOW) for number in range(1, 3001)]
    with world.store.ledger.write() as connection:
        labels.add(connection, waiting, {each.prediction_id: NOW + 10**12 for each in waiting})
    with world.store.ledger.write() as connection:
        due = plan_of(connection, lambda: labels.due(connection, now_us=NOW, limit=9, without_servers={"x"}))
        bound = plan_of(
            connection, lambda: labels.count_waiting(connection, now_us=NOW, at_most=10, source="flood")
        )
        woken = plan_of(connection, lambda: labels.wake(connection, "s1", 1, 1, 9, now_us=NOW))
    assert "ix_labels_look_at_us (look_at_us<?)" in due
    assert "ix_labels_source_look_at_us (source=? AND look_at_us>?)" in bound
    assert "ix_labels_server_segment_number (server=? AND segment=? AND number>? AND number<?)" in woken
    name = tagged("s1-1-1")
    world.log("s1", prediction(name), label(name))
    read: list[int] = []
    whole = labels.due

    def counted(*args: object, **options: object) -> object:
        found = whole(*args, **options)  # type: ignore[arg-type]
        read.append(len(found))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "due", counted)
        assert world.round() == 1
    assert read == [1, 0], "only what is due is read"


def test_ids_name_their_places() -> None:
    name = f"{tagged('web-1-3-17')}/2"
    found = parse_id(name)
    assert found == PredictionId("web-1", 3, 17, 2, KEY.tag("web-1-3-17"))
    assert found is not None
    assert KEY.has_tagged(found)


@pytest.mark.parametrize("is_collected_first", [True, False])
def test_an_id_without_a_row_labels_the_only_row_and_none_of_several(
    world: World, is_collected_first: bool
) -> None:
    """A server that cannot know the rows of a request stores the id as sent; the log has them."""
    one, many = tagged("s1-1-1"), tagged("s1-1-2")
    if is_collected_first:
        world.log("s1", prediction(one), prediction(many, 3))
        world.round()
    world.log("s2", *[FeedbackRecord(name, 1.0, "crm", NOW) for name in (one, many)])
    world.round()
    if not is_collected_first:
        assert world.counts() == (2, 2), "they wait for the log"
        world.log("s1", prediction(one), prediction(many, 3))
        world.round()
    assert world.counts() == (1, 0)
    with world.store.ledger.read() as connection:
        names = [f"{name}/{row}" for name in (one, many) for row in range(3)]
        assert outcomes.labels_of(connection, names) == {f"{one}/0": 1.0}
        (kept,) = quarantined_labels.newest(connection, MODEL, limit=9)
    assert (kept.prediction_id, kept.value, kept.source) == (many, 1.0, "crm")
    assert kept.reason == (
        f"the request had 3 rows, and {many} names none of them: send {many}/0 to {many}/2, each with its label"
    )
    (quarantined,) = world.events("labels.quarantined")
    assert (
        f"1 labels have the id of a request of several rows and name none of them ({many[:48]})"
        in quarantined
    )


@pytest.mark.parametrize(("rows", "rejected"), [(1, 1), (2, 0)])
def test_a_label_that_names_its_row_outlives_one_that_waited_without(
    world: World, rows: int, rejected: int
) -> None:
    """Neither is a repeated label lost, nor does the older one correct the newer."""
    name = tagged("s1-1-1")
    with world.store.ledger.write() as connection:
        label_rules.declare_corrections(connection, MODEL, "latest", now_us=NOW)
    world.log("s2", FeedbackRecord(name, 0.0, "crm", NOW), FeedbackRecord(name, 0.5, "crm", NOW + 1))
    world.log("s2", label(name, 1.0, at_us=NOW + 2))
    world.round()
    world.log("s1", prediction(name, rows))
    world.round()
    with world.store.ledger.read() as connection:
        assert outcomes.labels_of(connection, [f"{name}/0"]) == {f"{name}/0": 1.0}
        assert quarantined_labels.count(connection, MODEL) == (2 if rows == 2 else 0)
    assert world.counts() == (1, 0)
    assert len(world.events("labels.rejected")) == rejected


def test_a_waiting_label_is_corrected_before_its_request_is_collected(world: World) -> None:
    name = tagged("s1-1-1")
    with world.store.ledger.write() as connection:
        label_rules.declare_corrections(connection, MODEL, "latest", now_us=NOW)
    world.log("s2", FeedbackRecord(name, 0.0, "crm", NOW), FeedbackRecord(name, 1.0, "crm", NOW + 1))
    world.round()
    world.log("s1", prediction(name))
    world.round()
    with world.store.ledger.read() as connection:
        assert outcomes.labels_of(connection, [f"{name}/0"]) == {f"{name}/0": 1.0}
        assert [each.value for each in labels.histories(connection, [f"{name}/0"])] == [0.0, 1.0]
    assert world.counts() == (1, 0)
