"""Versions of models, their gates, and their way to the users."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from holdfast.records import Verdict
from holdfast.rollout.model.pushes import PushOutcome
from holdfast.rollout.model.state_machine import RESTING
from holdfast.rollout.model.state_machine import State as RolloutState
from holdfast.store.db.schema.events import events
from holdfast.store.db.schema.metadata import METADATA, SERIAL, one_of
from holdfast.store.db.schema.snapshots import snapshots

versions = Table(
    "versions",
    METADATA,
    Column("version", String(32), primary_key=True, comment="v<number>-<first 8 digits of the digest>"),
    Column("model", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column(
        "digest",
        String(64),
        nullable=False,
        unique=True,
        comment="SHA-256 of the ONNX file with its metadata",
    ),
    Column("bytes", BigInteger, nullable=False),
    Column("snapshot", String(32), ForeignKey(snapshots.c.snapshot), nullable=False),
    Column("contract_hash", String(64), nullable=False),
    Column("features_hash", String(64), nullable=False),
    Column("learner", String(63), nullable=False),
    Column(
        "role",
        String(16),
        nullable=False,
        comment="a candidate may be rolled out; a heuristic is the baseline and the fallback",
    ),
    Column("state", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    one_of("role", ("candidate", "heuristic")),
    one_of("state", ("registered", "qualified", "refused")),
    Index("uq_versions_model_number", "model", "number", unique=True),
    Index("ix_versions_snapshot", "snapshot"),
)

gate_results = Table(
    "gate_results",
    METADATA,
    Column("gate_result", SERIAL, primary_key=True, autoincrement=True),
    Column("version", String(32), ForeignKey(versions.c.version), nullable=False, index=True),
    Column("gate", String(63), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("observed", Double, nullable=True),
    Column("low", Double, nullable=True, comment="lower end of the interval of what was observed"),
    Column("high", Double, nullable=True),
    Column("bound", Double, nullable=True),
    Column("explanation", Text, nullable=False),
    Column("judged_us", BigInteger, nullable=False),
    one_of("verdict", Verdict),
)

binaries = Table(
    "binaries",
    METADATA,
    Column("binary", String(32), primary_key=True, comment="b-<first 12 digits of the digest of its facts>"),
    Column("facts", Text, nullable=False, comment="releases of what it is made of, canonical JSON"),
    Column("command", Text, nullable=True, comment="how a server of it is started; null when nobody said"),
    Column("registered_us", BigInteger, nullable=False),
    comment="What servers can be: the release of Holdfast with all that it runs on.",
)

configurations = Table(
    "configurations",
    METADATA,
    Column("configuration", String(32), primary_key=True, comment="c-<first 12 digits of its digest>"),
    Column("document", Text, nullable=False, comment="the options of serving, canonical JSON"),
    Column("registered_us", BigInteger, nullable=False),
    comment="With which options servers run.",
)

releases = Table(
    "releases",
    METADATA,
    Column("version", String(32), ForeignKey(versions.c.version), primary_key=True),
    Column("binary", String(32), ForeignKey(binaries.c.binary), primary_key=True),
    Column("configuration", String(32), ForeignKey(configurations.c.configuration), primary_key=True),
    Column("verdict", String(16), nullable=False),
    Column("explanation", Text, nullable=False),
    Column("judged_us", BigInteger, nullable=False),
    one_of("verdict", Verdict),
    comment="Which version was tried with which binary and configuration: what was not tried together is not served.",
)

rollouts = Table(
    "rollouts",
    METADATA,
    Column("rollout", SERIAL, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False),
    Column("challenger", String(32), ForeignKey(versions.c.version), nullable=False),
    Column(
        "champion",
        String(32),
        ForeignKey(versions.c.version),
        nullable=True,
        comment="null for a model's first version",
    ),
    Column("state", String(16), nullable=False),
    Column("step", Integer, nullable=False, comment="index into the policy's steps"),
    Column(
        "policy",
        Text,
        nullable=False,
        comment="the policy as declared when the rollout began, canonical JSON",
    ),
    Column("started_us", BigInteger, nullable=False),
    Column("step_started_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, comment="why it is in this state, in words and numbers"),
    Column("actor", String(63), nullable=False, comment="who brought it here: 'holdfast' or a person"),
    Column(
        "binary", String(32), ForeignKey(binaries.c.binary), nullable=True, comment="pushed together with it"
    ),
    Column(
        "configuration",
        String(32),
        ForeignKey(configurations.c.configuration),
        nullable=True,
        comment="pushed together with it",
    ),
    one_of("state", RolloutState),
    CheckConstraint("challenger <> champion", name="two_versions"),
    Index("ix_rollouts_challenger", "challenger"),
)

_UNDER_WAY: Final = text("state NOT IN (" + ", ".join(f"'{state}'" for state in sorted(RESTING)) + ")")
Index(
    "uq_rollouts_one_under_way",
    rollouts.c.model,
    unique=True,
    sqlite_where=_UNDER_WAY,
    postgresql_where=_UNDER_WAY,
)

rollout_evidence = Table(
    "rollout_evidence",
    METADATA,
    Column("rollout", SERIAL, ForeignKey(rollouts.c.rollout), primary_key=True),
    Column("metric", String(63), primary_key=True),
    Column("challenger_units", BigInteger, nullable=False),
    Column("challenger_total", Double, nullable=False, comment="bad requests, or the sum of scores"),
    Column("champion_units", BigInteger, nullable=False),
    Column("champion_total", Double, nullable=False),
    Column("log_e", Double, nullable=False, comment="natural logarithm of the largest e-value reached"),
    Column(
        "log_bound",
        Double,
        nullable=False,
        comment="the e-value at which harm is declared, natural logarithm",
    ),
    Column("state", Text, nullable=False, comment="the sequential test's own state, canonical JSON"),
    Column("updated_us", BigInteger, nullable=False),
    comment="What is known about a running rollout. Counts are realised, never configured shares.",
)

traffic_plans = Table(
    "traffic_plans",
    METADATA,
    Column("plan", SERIAL, primary_key=True, autoincrement=True),
    Column("model", String(63), nullable=False, index=True),
    Column("champion", String(32), ForeignKey(versions.c.version), nullable=False),
    Column("challenger", String(32), ForeignKey(versions.c.version), nullable=True),
    Column("share_ppm", Integer, nullable=False),
    Column("previous", String(32), ForeignKey(versions.c.version), nullable=True),
    Column("fallback", String(32), ForeignKey(versions.c.version), nullable=True),
    Column("rollout", SERIAL, ForeignKey(rollouts.c.rollout), nullable=True),
    Column("committed_us", BigInteger, nullable=False),
    Column("shadow", String(32), ForeignKey(versions.c.version), nullable=True),
    Column("shadow_ppm", Integer, nullable=False),
    Column("configuration", String(32), ForeignKey(configurations.c.configuration), nullable=True),
    Column("binary", String(32), ForeignKey(binaries.c.binary), nullable=True),
    CheckConstraint("shadow_ppm BETWEEN 0 AND 1000000", name="shadow_is_a_part"),
    CheckConstraint("share_ppm BETWEEN 0 AND 1000000", name="share_is_a_part"),
    CheckConstraint("challenger IS NOT NULL OR share_ppm = 0", name="no_share_without_challenger"),
    CheckConstraint("challenger <> champion", name="two_versions"),
    Index("ix_traffic_plans_rollout", "rollout"),
    Index("ix_traffic_plans_champion", "champion"),
    comment="Append-only. The newest row of a model is what its servers must do.",
)

pushes = Table(
    "pushes",
    METADATA,
    Column("rollout", SERIAL, ForeignKey(rollouts.c.rollout), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, nullable=False, comment="why it is called so, in words and numbers"),
    Column("labelled_by", String(63), nullable=False, comment="'holdfast' or a person"),
    Column("labelled_us", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=True, comment="that the challenger was sent until its end"),
    Column("watch_until_us", BigInteger, nullable=True, comment="until when a promotion is watched"),
    one_of("outcome", PushOutcome),
    comment="The ledger of pushes. What was not seen to its end is censored, and not called good.",
)

hooks = Table(
    "hooks",
    METADATA,
    Column("model", String(63), primary_key=True),
    Column("hook", String(63), primary_key=True),
    Column("document", Text, nullable=False, comment="the hook as declared, canonical JSON"),
    Column("declared_us", BigInteger, nullable=False),
    comment="What the newest control loop of a model was started with.",
)

hook_answers = Table(
    "hook_answers",
    METADATA,
    Column("rollout", SERIAL, ForeignKey(rollouts.c.rollout), primary_key=True),
    Column("event", String(16), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("hook", String(63), primary_key=True),
    Column("verdict", String(16), nullable=False),
    Column("explanation", Text, nullable=False),
    Column("asked_us", BigInteger, nullable=False),
    Column("question", Text, nullable=False, comment="what the hook is told of the decision, canonical JSON"),
    Column("tries", Integer, nullable=False, comment="how often this question was asked without an answer"),
    one_of("verdict", Verdict),
    comment="What hooks said of a step before it was taken; each is asked until it has answered.",
)

decisions = Table(
    "decisions",
    METADATA,
    Column("event", BigInteger, ForeignKey(events.c.event), primary_key=True, autoincrement=False),
    Column("rollout", BigInteger, ForeignKey(rollouts.c.rollout), nullable=False, index=True),
    Column("kind", String(16), nullable=False, comment="what was decided, as the state machine calls it"),
    Column(
        "evidence",
        Text,
        nullable=False,
        comment="the verdict on each metric with its numbers then, canonical JSON",
    ),
    comment="What was known when a rollout was decided about; the event says why in words.",
)

drills = Table(
    "drills",
    METADATA,
    Column("drill", SERIAL, primary_key=True, autoincrement=True),
    Column("kind", String(31), nullable=False),
    Column("model", String(63), nullable=False, index=True),
    Column("verdict", String(16), nullable=False),
    Column("took_us", BigInteger, nullable=True, comment="what the drill is timed by, such as traffic back"),
    Column("evidence", Text, nullable=False, comment="what was seen, canonical JSON"),
    Column("explanation", Text, nullable=False),
    Column("actor", String(63), nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False, comment="until when it says that this works"),
    one_of("verdict", Verdict),
    comment="What was exercised, when, and until when that is believed.",
)
