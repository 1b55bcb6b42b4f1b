"""Tables of models and rollouts: versions, gates, runtimes, traffic plans, pushes, webhooks and drills."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from holdfast.records import Verdict
from holdfast.rollout.model.pushes import PushOutcome
from holdfast.rollout.model.state_machine import RESTING
from holdfast.rollout.model.state_machine import State as RolloutState
from holdfast.store.db.schema.events import events
from holdfast.store.db.schema.metadata import (
    METADATA,
    key,
    listed,
    load_key,
    one_of,
    optional,
    partial_index,
    required,
    serial,
)
from holdfast.store.db.schema.snapshots import snapshots

versions = Table(
    "versions",
    METADATA,
    key("version", String(32), "v<number>-<first 8 digits of the digest>."),
    required("model", String(63), "Model of the version."),
    required("number", Integer, "Counts the versions of the model from 1."),
    required("digest", String(64), "SHA-256 of the ONNX file with metadata.", unique=True),
    required("bytes", BigInteger, "Size of the ONNX file."),
    required("snapshot", snapshots.c.snapshot, "Snapshot that it was trained on.", index=True),
    required("contract_hash", String(64), "Contract of its inputs."),
    required("features_hash", String(64), "SHA-256 of its features."),
    required("learner", String(63), "Algorithm that trained it."),
    required(
        "role", String(16), "A candidate may be rolled out; a heuristic is baseline and fallback version."
    ),
    required("state", String(16), "Whether it passed its gates."),
    required("created_at_us", BigInteger, "When it was registered."),
    optional("begun_at_us", BigInteger, "When its training began; null in versions of earlier releases."),
    optional(
        "training_digest",
        String(64),
        "SHA-256 of its file without the snapshot, and of its training and held-out rows; null if not known.",
    ),
    one_of("role", ("candidate", "heuristic")),
    one_of("state", ("registered", "qualified", "refused")),
    Index("uq_versions_model_number", "model", "number", unique=True),
    comment="Trained versions of models.",
)

untrained_loads = Table(
    "untrained_loads",
    METADATA,
    key("version", versions.c.version, "Version whose snapshot has the load."),
    *load_key(),
    required("rows_held_out", BigInteger, "Held-out rows of the version that are from the load."),
    comment="Loads of a version's snapshot that none of its training rows is from. Of other loads that is not known.",
)

gate_results = Table(
    "gate_results",
    METADATA,
    serial("gate_result_id", "Number of the result."),
    required("version", versions.c.version, "Version that was evaluated.", index=True),
    required("gate", String(63), "Name of the gate."),
    required("verdict", String(16), "Whether the version passed."),
    optional("observed", Double, "Observed value."),
    optional("low", Double, "Lower end of its confidence interval."),
    optional("high", Double, "Upper end of its confidence interval."),
    optional("bound", Double, "Limit of the gate."),
    required("explanation", Text, "Why, with numbers."),
    required("evaluated_at_us", BigInteger, "When it was evaluated."),
    one_of("verdict", Verdict),
    comment="Every verdict of every gate on every version.",
)

runtimes = Table(
    "runtimes",
    METADATA,
    key("runtime", String(32), "b-<first 12 digits of the digest of its packages>."),
    required("packages_json", Text, "Versions of Python and of its packages, canonical JSON."),
    optional("command", Text, "Command that starts a server of it; null if unknown."),
    required("registered_at_us", BigInteger, "When it was registered."),
    comment="Registered runtimes: sets of Python and package versions that serve.",
)

serving_configs = Table(
    "serving_configs",
    METADATA,
    key("serving_config", String(32), "c-<first 12 digits of its digest>."),
    required("config_json", Text, "Limits of a server, canonical JSON."),
    required("registered_at_us", BigInteger, "When it was registered."),
    comment="Registered limits of servers.",
)

compatibility_tests = Table(
    "compatibility_tests",
    METADATA,
    key("version", versions.c.version, "Version tested."),
    key("runtime", runtimes.c.runtime, "Runtime tested with."),
    key("serving_config", serving_configs.c.serving_config, "Serving config tested with."),
    required("verdict", String(16), "Whether the three work together."),
    required("explanation", Text, "Why, with numbers."),
    required("evaluated_at_us", BigInteger, "When they were tested."),
    one_of("verdict", Verdict),
    comment="Tests of a version with a runtime and a serving config. Only tested combinations serve.",
)

rollouts = Table(
    "rollouts",
    METADATA,
    serial("rollout_id", "Number of the rollout."),
    required("model", String(63), "Model rolled out."),
    required("challenger", versions.c.version, "Version rolled out.", index=True),
    optional("champion", versions.c.version, "Version that it replaces; null for a model's first version."),
    required("state", String(16), "State of the rollout."),
    required("step", Integer, "Index into the steps of its policy."),
    required("policy_json", Text, "Policy declared at its start, canonical JSON."),
    required("started_at_us", BigInteger, "When it started."),
    required("step_started_at_us", BigInteger, "When its current step started."),
    required("changed_at_us", BigInteger, "When its state or step last changed."),
    required("reason", Text, "Why it is in this state, with numbers."),
    required("actor", String(63), "Actor that started it: a user, or holdfast."),
    optional("runtime", runtimes.c.runtime, "Runtime pushed with the version, if any."),
    optional(
        "serving_config", serving_configs.c.serving_config, "Serving config pushed with the version, if any."
    ),
    one_of("state", RolloutState),
    CheckConstraint("challenger <> champion", name="two_versions"),
    partial_index(
        "uq_rollouts_one_under_way", "model", where=f"state NOT IN ({listed(sorted(RESTING))})", unique=True
    ),
    comment="One row per rollout. A model has at most one under way.",
)


queued_rollouts = Table(
    "queued_rollouts",
    METADATA,
    key("model", String(63), "Model to roll out."),
    required("version", versions.c.version, "Version that waits."),
    required("policy_json", Text, "Policy declared when it was requested, canonical JSON."),
    required("actor", String(63), "User that requested it."),
    required("queued_at_us", BigInteger, "When it was requested."),
    comment="The version of each model that is rolled out when the rollout under way ends. A newer one replaces it.",
)


rollout_evidence = Table(
    "rollout_evidence",
    METADATA,
    key("rollout_id", rollouts.c.rollout_id, "Rollout of the evidence."),
    key("metric", String(63), "Metric that is compared."),
    required("challenger_units", BigInteger, "Units that the challenger served."),
    required("challenger_total", Double, "Its bad requests, or its sum of scores."),
    required("champion_units", BigInteger, "Units that the champion served."),
    required("champion_total", Double, "Its bad requests, or its sum of scores."),
    required("log_e", Double, "Natural logarithm of the largest e-value reached."),
    required("log_bound", Double, "Natural logarithm of the e-value that declares harm."),
    required("step_units", BigInteger, "Units of the challenger in the current step."),
    optional(
        "latency_bound_us",
        Double,
        "Latency above which a request is slow; only of metrics that compare latency.",
    ),
    required("evidence_json", Text, "Sequential tests and what they remember, JSON."),
    required("history_json", Text, "Seconds and log e-values for the chart, JSON."),
    required("updated_at_us", BigInteger, "When it was last updated."),
    comment="Evidence of each rollout by metric. Units are those served, not the configured share.",
)

evidence_windows = Table(
    "evidence_windows",
    METADATA,
    key("rollout_id", rollouts.c.rollout_id, "Rollout of the requests."),
    key("minute_start_us", BigInteger, "Minute in which servers answered them, by their clocks."),
    key(
        "share_ppm",
        Integer,
        "Challenger's share under which they were answered; -1 if their records state none.",
    ),
    required("opened_at_us", BigInteger, "When the control loop opened the window."),
    required("closes_at_us", BigInteger, "When it is closed, with however few units it has."),
    required("units", Integer, "Different units that it has."),
    required("requests_json", Text, "Requests that are no evidence yet, JSON; units are hashes."),
    comment="Open windows of the tests of each rollout: what was collected and is not folded into its evidence yet.",
)

traffic_plans = Table(
    "traffic_plans",
    METADATA,
    serial("plan_id", "Number of the plan; it rises."),
    required("model", String(63), "Model of the plan.", index=True),
    required("champion", versions.c.version, "Version that serves what the challenger does not.", index=True),
    optional("challenger", versions.c.version, "Version that is rolled out, if any."),
    required("share_ppm", Integer, "Challenger's share of the units, parts per million."),
    optional("previous", versions.c.version, "Version that a rollback returns to, if any."),
    optional("fallback", versions.c.version, "Version that serves if no other can."),
    optional("rollout_id", rollouts.c.rollout_id, "Rollout that made the plan, if any."),
    required("committed_at_us", BigInteger, "When the plan was written."),
    optional("shadow", versions.c.version, "Version that gets copies of requests, if any."),
    required("shadow_ppm", Integer, "Share of requests copied, parts per million."),
    optional(
        "serving_config",
        serving_configs.c.serving_config,
        "Serving config to apply; null keeps the current one.",
    ),
    optional("runtime", runtimes.c.runtime, "Runtime to serve with; null keeps the current one."),
    CheckConstraint("shadow_ppm BETWEEN 0 AND 1000000", name="shadow_ppm_in_range"),
    CheckConstraint("share_ppm BETWEEN 0 AND 1000000", name="share_ppm_in_range"),
    CheckConstraint("challenger IS NOT NULL OR share_ppm = 0", name="no_share_without_challenger"),
    CheckConstraint("challenger <> champion", name="two_versions"),
    Index("ix_traffic_plans_rollout_id", "rollout_id"),
    comment="Append-only traffic plans. Servers follow the newest plan of their model.",
)

pushes = Table(
    "pushes",
    METADATA,
    key("rollout_id", rollouts.c.rollout_id, "Rollout of the push."),
    required("model", String(63), "Model pushed.", index=True),
    required("outcome", String(16), "Whether the push was good or bad."),
    required("reason", Text, "Why it has this outcome, with numbers."),
    required("labelled_by", String(63), "Actor that set the outcome: a user, or holdfast."),
    required("labelled_at_us", BigInteger, "When the outcome was set."),
    optional("requests", BigInteger, "Requests that the challenger served in the rollout."),
    optional("bake_until_us", BigInteger, "End of the bake time after a promotion."),
    one_of("outcome", PushOutcome),
    comment="Outcome of each push. One that was not observed to its end is censored.",
)

webhooks = Table(
    "webhooks",
    METADATA,
    key("model", String(63), "Model that declares it."),
    key("webhook", String(63), "Name of the webhook."),
    required("webhook_json", Text, "Declaration of the webhook, canonical JSON."),
    required("declared_at_us", BigInteger, "When the control loop registered it."),
    comment="Webhooks that the newest control loop of each model was started with.",
)

webhook_responses = Table(
    "webhook_responses",
    METADATA,
    key("rollout_id", rollouts.c.rollout_id, "The rollout."),
    key("event", String(16), "Transition for which the webhook was called."),
    key("step", Integer, "Step of the rollout."),
    key("webhook", String(63), "Name of the webhook."),
    required("verdict", String(16), "Whether it consents."),
    required("explanation", Text, "Reason that it gave, or why there is no response."),
    required("requested_at_us", BigInteger, "When it was last requested."),
    required("request_json", Text, "Body of the request, canonical JSON."),
    required("attempts", Integer, "How often it was requested."),
    one_of("verdict", Verdict),
    comment="Responses of webhooks to the steps of a rollout. Each is requested until it responds.",
)

decisions = Table(
    "decisions",
    METADATA,
    key("event_id", BigInteger, "Event of the decision."),
    required("rollout_id", BigInteger, "Rollout decided about.", index=True),
    required("kind", String(16), "Transition of the state machine."),
    required("evidence_json", Text, "Verdict on each metric with its numbers, canonical JSON."),
    ForeignKeyConstraint(["event_id"], [events.c.event_id]),
    ForeignKeyConstraint(["rollout_id"], [rollouts.c.rollout_id]),
    comment="Evidence behind each decision about a rollout. The event explains it.",
)

drills = Table(
    "drills",
    METADATA,
    serial("drill_id", "Number of the drill."),
    required("kind", String(31), "What was exercised."),
    required("model", String(63), "Model of the drill.", index=True),
    required("verdict", String(16), "Whether it passed."),
    optional(
        "measured_duration_us",
        BigInteger,
        "Duration that the drill measures, such as that of a rollback; null without a result.",
    ),
    required("evidence_json", Text, "Observations, canonical JSON."),
    required("explanation", Text, "Why it has this verdict, with numbers."),
    required("actor", String(63), "Actor that started it."),
    required("started_at_us", BigInteger, "When it started."),
    required("ended_at_us", BigInteger, "When it ended."),
    required("expires_at_us", BigInteger, "Until when its verdict is valid."),
    one_of("verdict", Verdict),
    comment="Drills: what was exercised, the verdict, and until when it is valid.",
)
