"""Tables of models and rollouts: versions, gates, runtimes, traffic plans, pushes, webhooks and drills."""

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
    Column("version", String(32), primary_key=True, comment="v<number>-<first 8 digits of the digest>."),
    Column("model", String(63), nullable=False, comment="Model of the version."),
    Column("number", Integer, nullable=False, comment="Counts the versions of the model from 1."),
    Column(
        "digest", String(64), nullable=False, unique=True, comment="SHA-256 of the ONNX file with metadata."
    ),
    Column("bytes", BigInteger, nullable=False, comment="Size of the ONNX file."),
    Column(
        "snapshot",
        String(32),
        ForeignKey(snapshots.c.snapshot),
        nullable=False,
        comment="Snapshot that it was trained on.",
    ),
    Column("contract_hash", String(64), nullable=False, comment="Contract of its inputs."),
    Column("features_hash", String(64), nullable=False, comment="SHA-256 of its features."),
    Column("learner", String(63), nullable=False, comment="Algorithm that trained it."),
    Column(
        "role",
        String(16),
        nullable=False,
        comment="A candidate may be rolled out; a heuristic is baseline and fallback version.",
    ),
    Column("state", String(16), nullable=False, comment="Whether it passed its gates."),
    Column("created_at_us", BigInteger, nullable=False, comment="When it was registered."),
    one_of("role", ("candidate", "heuristic")),
    one_of("state", ("registered", "qualified", "refused")),
    Index("uq_versions_model_number", "model", "number", unique=True),
    Index("ix_versions_snapshot", "snapshot"),
    comment="Trained versions of models.",
)

gate_results = Table(
    "gate_results",
    METADATA,
    Column("gate_result_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the result."),
    Column(
        "version",
        String(32),
        ForeignKey(versions.c.version),
        nullable=False,
        index=True,
        comment="Version that was evaluated.",
    ),
    Column("gate", String(63), nullable=False, comment="Name of the gate."),
    Column("verdict", String(16), nullable=False, comment="Whether the version passed."),
    Column("observed", Double, nullable=True, comment="Observed value."),
    Column("low", Double, nullable=True, comment="Lower end of its confidence interval."),
    Column("high", Double, nullable=True, comment="Upper end of its confidence interval."),
    Column("bound", Double, nullable=True, comment="Limit of the gate."),
    Column("explanation", Text, nullable=False, comment="Why, with numbers."),
    Column("evaluated_at_us", BigInteger, nullable=False, comment="When it was evaluated."),
    one_of("verdict", Verdict),
    comment="Every verdict of every gate on every version.",
)

runtimes = Table(
    "runtimes",
    METADATA,
    Column(
        "runtime", String(32), primary_key=True, comment="b-<first 12 digits of the digest of its packages>."
    ),
    Column(
        "packages_json",
        Text,
        nullable=False,
        comment="Versions of Python and of its packages, canonical JSON.",
    ),
    Column("command", Text, nullable=True, comment="Command that starts a server of it; null if unknown."),
    Column("registered_at_us", BigInteger, nullable=False, comment="When it was registered."),
    comment="Registered runtimes: sets of Python and package versions that serve.",
)

serving_configs = Table(
    "serving_configs",
    METADATA,
    Column("serving_config", String(32), primary_key=True, comment="c-<first 12 digits of its digest>."),
    Column("config_json", Text, nullable=False, comment="Limits of a server, canonical JSON."),
    Column("registered_at_us", BigInteger, nullable=False, comment="When it was registered."),
    comment="Registered limits of servers.",
)

compatibility_tests = Table(
    "compatibility_tests",
    METADATA,
    Column(
        "version", String(32), ForeignKey(versions.c.version), primary_key=True, comment="Version tested."
    ),
    Column(
        "runtime",
        String(32),
        ForeignKey(runtimes.c.runtime),
        primary_key=True,
        comment="Runtime tested with.",
    ),
    Column(
        "serving_config",
        String(32),
        ForeignKey(serving_configs.c.serving_config),
        primary_key=True,
        comment="Serving config tested with.",
    ),
    Column("verdict", String(16), nullable=False, comment="Whether the three work together."),
    Column("explanation", Text, nullable=False, comment="Why, with numbers."),
    Column("evaluated_at_us", BigInteger, nullable=False, comment="When they were tested."),
    one_of("verdict", Verdict),
    comment="Tests of a version with a runtime and a serving config. Only tested combinations serve.",
)

rollouts = Table(
    "rollouts",
    METADATA,
    Column("rollout_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the rollout."),
    Column("model", String(63), nullable=False, comment="Model rolled out."),
    Column(
        "challenger",
        String(32),
        ForeignKey(versions.c.version),
        nullable=False,
        comment="Version rolled out.",
    ),
    Column(
        "champion",
        String(32),
        ForeignKey(versions.c.version),
        nullable=True,
        comment="Version that it replaces; null for a model's first version.",
    ),
    Column("state", String(16), nullable=False, comment="State of the rollout."),
    Column("step", Integer, nullable=False, comment="Index into the steps of its policy."),
    Column("policy_json", Text, nullable=False, comment="Policy declared at its start, canonical JSON."),
    Column("started_at_us", BigInteger, nullable=False, comment="When it started."),
    Column("step_started_at_us", BigInteger, nullable=False, comment="When its current step started."),
    Column("changed_at_us", BigInteger, nullable=False, comment="When its state or step last changed."),
    Column("reason", Text, nullable=False, comment="Why it is in this state, with numbers."),
    Column("actor", String(63), nullable=False, comment="Actor that started it: a user, or holdfast."),
    Column(
        "runtime",
        String(32),
        ForeignKey(runtimes.c.runtime),
        nullable=True,
        comment="Runtime pushed with the version, if any.",
    ),
    Column(
        "serving_config",
        String(32),
        ForeignKey(serving_configs.c.serving_config),
        nullable=True,
        comment="Serving config pushed with the version, if any.",
    ),
    one_of("state", RolloutState),
    CheckConstraint("challenger <> champion", name="two_versions"),
    Index("ix_rollouts_challenger", "challenger"),
    comment="One row per rollout. A model has at most one under way.",
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
    Column(
        "rollout_id",
        SERIAL,
        ForeignKey(rollouts.c.rollout_id),
        primary_key=True,
        comment="Rollout of the evidence.",
    ),
    Column("metric", String(63), primary_key=True, comment="Metric that is compared."),
    Column("challenger_units", BigInteger, nullable=False, comment="Units that the challenger served."),
    Column("challenger_total", Double, nullable=False, comment="Its bad requests, or its sum of scores."),
    Column("champion_units", BigInteger, nullable=False, comment="Units that the champion served."),
    Column("champion_total", Double, nullable=False, comment="Its bad requests, or its sum of scores."),
    Column("log_e", Double, nullable=False, comment="Natural logarithm of the largest e-value reached."),
    Column(
        "log_bound", Double, nullable=False, comment="Natural logarithm of the e-value that declares harm."
    ),
    Column("step_units", BigInteger, nullable=False, comment="Units of the challenger in the current step."),
    Column(
        "latency_bound_us",
        Double,
        nullable=True,
        comment="Latency above which a request is slow; only of metrics that compare latency.",
    ),
    Column("evidence_json", Text, nullable=False, comment="Sequential tests and what they remember, JSON."),
    Column("history_json", Text, nullable=False, comment="Seconds and log e-values for the chart, JSON."),
    Column("updated_at_us", BigInteger, nullable=False, comment="When it was last updated."),
    comment="Evidence of each rollout by metric. Units are those served, not the configured share.",
)

traffic_plans = Table(
    "traffic_plans",
    METADATA,
    Column("plan_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the plan; it rises."),
    Column("model", String(63), nullable=False, index=True, comment="Model of the plan."),
    Column(
        "champion",
        String(32),
        ForeignKey(versions.c.version),
        nullable=False,
        comment="Version that serves what the challenger does not.",
    ),
    Column(
        "challenger",
        String(32),
        ForeignKey(versions.c.version),
        nullable=True,
        comment="Version that is rolled out, if any.",
    ),
    Column(
        "share_ppm", Integer, nullable=False, comment="Challenger's share of the units, parts per million."
    ),
    Column(
        "previous",
        String(32),
        ForeignKey(versions.c.version),
        nullable=True,
        comment="Version that a rollback returns to, if any.",
    ),
    Column(
        "fallback",
        String(32),
        ForeignKey(versions.c.version),
        nullable=True,
        comment="Version that serves if no other can.",
    ),
    Column(
        "rollout_id",
        SERIAL,
        ForeignKey(rollouts.c.rollout_id),
        nullable=True,
        comment="Rollout that made the plan, if any.",
    ),
    Column("committed_at_us", BigInteger, nullable=False, comment="When the plan was written."),
    Column(
        "shadow",
        String(32),
        ForeignKey(versions.c.version),
        nullable=True,
        comment="Version that gets copies of requests, if any.",
    ),
    Column("shadow_ppm", Integer, nullable=False, comment="Share of requests copied, parts per million."),
    Column(
        "serving_config",
        String(32),
        ForeignKey(serving_configs.c.serving_config),
        nullable=True,
        comment="Serving config to apply; null keeps the current one.",
    ),
    Column(
        "runtime",
        String(32),
        ForeignKey(runtimes.c.runtime),
        nullable=True,
        comment="Runtime to serve with; null keeps the current one.",
    ),
    CheckConstraint("shadow_ppm BETWEEN 0 AND 1000000", name="shadow_ppm_in_range"),
    CheckConstraint("share_ppm BETWEEN 0 AND 1000000", name="share_ppm_in_range"),
    CheckConstraint("challenger IS NOT NULL OR share_ppm = 0", name="no_share_without_challenger"),
    CheckConstraint("challenger <> champion", name="two_versions"),
    Index("ix_traffic_plans_rollout_id", "rollout_id"),
    Index("ix_traffic_plans_champion", "champion"),
    comment="Append-only traffic plans. Servers follow the newest plan of their model.",
)

pushes = Table(
    "pushes",
    METADATA,
    Column(
        "rollout_id",
        SERIAL,
        ForeignKey(rollouts.c.rollout_id),
        primary_key=True,
        comment="Rollout of the push.",
    ),
    Column("model", String(63), nullable=False, index=True, comment="Model pushed."),
    Column("outcome", String(16), nullable=False, comment="Whether the push was good or bad."),
    Column("reason", Text, nullable=False, comment="Why it has this outcome, with numbers."),
    Column(
        "labelled_by", String(63), nullable=False, comment="Actor that set the outcome: a user, or holdfast."
    ),
    Column("labelled_at_us", BigInteger, nullable=False, comment="When the outcome was set."),
    Column(
        "requests", BigInteger, nullable=True, comment="Requests that the challenger served in the rollout."
    ),
    Column("bake_until_us", BigInteger, nullable=True, comment="End of the bake time after a promotion."),
    one_of("outcome", PushOutcome),
    comment="Outcome of each push. One that was not observed to its end is censored.",
)

webhooks = Table(
    "webhooks",
    METADATA,
    Column("model", String(63), primary_key=True, comment="Model that declares it."),
    Column("webhook", String(63), primary_key=True, comment="Name of the webhook."),
    Column("webhook_json", Text, nullable=False, comment="Declaration of the webhook, canonical JSON."),
    Column("declared_at_us", BigInteger, nullable=False, comment="When the control loop registered it."),
    comment="Webhooks that the newest control loop of each model was started with.",
)

webhook_responses = Table(
    "webhook_responses",
    METADATA,
    Column("rollout_id", SERIAL, ForeignKey(rollouts.c.rollout_id), primary_key=True, comment="The rollout."),
    Column("event", String(16), primary_key=True, comment="Transition for which the webhook was called."),
    Column("step", Integer, primary_key=True, comment="Step of the rollout."),
    Column("webhook", String(63), primary_key=True, comment="Name of the webhook."),
    Column("verdict", String(16), nullable=False, comment="Whether it consents."),
    Column("explanation", Text, nullable=False, comment="Reason that it gave, or why there is no response."),
    Column("requested_at_us", BigInteger, nullable=False, comment="When it was last requested."),
    Column("request_json", Text, nullable=False, comment="Body of the request, canonical JSON."),
    Column("attempts", Integer, nullable=False, comment="How often it was requested."),
    one_of("verdict", Verdict),
    comment="Responses of webhooks to the steps of a rollout. Each is requested until it responds.",
)

decisions = Table(
    "decisions",
    METADATA,
    Column(
        "event_id",
        BigInteger,
        ForeignKey(events.c.event_id),
        primary_key=True,
        autoincrement=False,
        comment="Event of the decision.",
    ),
    Column(
        "rollout_id",
        BigInteger,
        ForeignKey(rollouts.c.rollout_id),
        nullable=False,
        index=True,
        comment="Rollout decided about.",
    ),
    Column("kind", String(16), nullable=False, comment="Transition of the state machine."),
    Column(
        "evidence_json",
        Text,
        nullable=False,
        comment="Verdict on each metric with its numbers, canonical JSON.",
    ),
    comment="Evidence behind each decision about a rollout. The event explains it.",
)

drills = Table(
    "drills",
    METADATA,
    Column("drill_id", SERIAL, primary_key=True, autoincrement=True, comment="Number of the drill."),
    Column("kind", String(31), nullable=False, comment="What was exercised."),
    Column("model", String(63), nullable=False, index=True, comment="Model of the drill."),
    Column("verdict", String(16), nullable=False, comment="Whether it passed."),
    Column(
        "measured_duration_us",
        BigInteger,
        nullable=True,
        comment="Duration that the drill measures, such as that of a rollback; null without a result.",
    ),
    Column("evidence_json", Text, nullable=False, comment="Observations, canonical JSON."),
    Column("explanation", Text, nullable=False, comment="Why it has this verdict, with numbers."),
    Column("actor", String(63), nullable=False, comment="Actor that started it."),
    Column("started_at_us", BigInteger, nullable=False, comment="When it started."),
    Column("ended_at_us", BigInteger, nullable=False, comment="When it ended."),
    Column("expires_at_us", BigInteger, nullable=False, comment="Until when its verdict is valid."),
    one_of("verdict", Verdict),
    comment="Drills: what was exercised, the verdict, and until when it is valid.",
)
