"""What delivery with evidence needs: shadows, pauses, configurations and binaries, pushes with what became of them, drills,
hooks; and the story as a chain.
"""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# SQLite numbers rows by itself only in a column of type INTEGER; PostgreSQL needs 64 bits.
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the new tables, and the changed ones again with what they held."""
    for table, indexes in OLD:
        _put_aside(table, indexes)
    _create_binaries()
    _create_configurations()
    _create_drills()
    _create_events()
    _create_hooks()
    _create_probes()
    _create_shadow_files()
    _create_releases()
    _create_rollouts()
    _create_decisions()
    _create_hook_answers()
    _create_pushes()
    _create_rollout_evidence()
    _create_traffic_plans()
    _chain_events()
    _fill()
    for table, _ in OLD:
        op.drop_table(f"{table}_0002")


# Those that refer to others first: so they can be dropped in this order.
OLD = (
    ("rollout_evidence", ()),
    ("traffic_plans", ("ix_traffic_plans_model", "ix_traffic_plans_rollout", "ix_traffic_plans_champion")),
    ("rollouts", ("ix_rollouts_challenger", "uq_rollouts_one_under_way")),
    ("probes", ()),
    ("events", ("ix_events_subject",)),
)


def _put_aside(table: str, indexes: tuple[str, ...]) -> None:
    for index in indexes:
        op.drop_index(index, table)
    op.execute(f"ALTER TABLE {table} RENAME TO {table}_0002")
    if op.get_bind().dialect.name != "postgresql":
        return
    # There the names of constraints and of sequences outlive the rename.
    found = op.get_bind().execute(
        sa.text(
            "SELECT conname FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND contype <> 'n'"
        ),
        {"table": f"{table}_0002"},
    )
    for (name,) in found.fetchall():
        op.execute(f'ALTER TABLE {table}_0002 RENAME CONSTRAINT "{name}" TO "{name}_0002"')
    column = {"traffic_plans": "plan", "rollouts": "rollout", "events": "event"}.get(table)
    if column is not None:
        op.execute(f"ALTER SEQUENCE {table}_{column}_seq RENAME TO {table}_{column}_0002_seq")


def _fill() -> None:
    for statement in KEPT:
        op.execute(statement)
    if op.get_bind().dialect.name == "postgresql":
        for statement in NUMBERED_ON:
            op.execute(statement)


KEPT = (
    """
    INSERT INTO rollouts (rollout, model, challenger, champion, state, step, policy, started_us, step_started_us,
                          changed_us, reason, actor)
    SELECT rollout, model, challenger, champion, state, step, policy, started_us, step_started_us,
           changed_us, reason, actor
    FROM rollouts_0002
    """,
    """
    INSERT INTO rollout_evidence (rollout, metric, challenger_units, challenger_total, champion_units, champion_total,
                                  log_e, log_bound, state, updated_us)
    SELECT rollout, metric, challenger_units, challenger_total, champion_units, champion_total,
           log_e, log_bound, state, updated_us
    FROM rollout_evidence_0002
    """,
    """
    INSERT INTO traffic_plans (plan, model, champion, challenger, share_ppm, previous, fallback, rollout, committed_us,
                               shadow_ppm)
    SELECT plan, model, champion, challenger, share_ppm, previous, fallback, rollout, committed_us, 0
    FROM traffic_plans_0002
    """,
    """
    INSERT INTO probes (server, model, plan, intended, answered, verdict, explanation, probed_us)
    SELECT server, model, plan, intended, answered, verdict, explanation, probed_us FROM probes_0002
    """,
)

NUMBERED_ON = (
    "SELECT setval(pg_get_serial_sequence('rollouts', 'rollout'), coalesce(max(rollout), 0) + 1, false) FROM rollouts",
    "SELECT setval(pg_get_serial_sequence('traffic_plans', 'plan'), coalesce(max(plan), 0) + 1, false) FROM traffic_plans",
    "SELECT setval(pg_get_serial_sequence('events', 'event'), coalesce(max(event), 0) + 1, false) FROM events",
)


def _chain_events() -> None:
    """Every event gets the digest over the one before and itself."""
    bind = op.get_bind()
    add = sa.text(
        """
        INSERT INTO events (event, at_us, kind, subject, actor, explanation, digest)
        VALUES (:event, :at_us, :kind, :subject, :actor, :explanation, :digest)
        """
    )
    old = sa.text(
        """
        SELECT event, at_us, kind, subject, actor, explanation FROM events_0002
        WHERE event > :last ORDER BY event LIMIT 1000
        """
    )
    digest, last = "0" * 64, -1
    while read := bind.execute(old, {"last": last}).mappings().fetchall():
        rows = []
        for row in read:
            said = [row[name] for name in ("at_us", "kind", "subject", "actor", "explanation")]
            document = json.dumps(said, separators=(",", ":"), ensure_ascii=False)
            digest = hashlib.sha256((digest + document).encode()).hexdigest()
            rows.append({**row, "digest": digest})
        bind.execute(add, rows)
        last = int(rows[-1]["event"])


def _create_binaries() -> None:
    op.create_table(
        "binaries",
        sa.Column(
            "binary",
            sa.String(length=32),
            nullable=False,
            comment="b-<first 12 digits of the digest of its facts>",
        ),
        sa.Column(
            "facts", sa.Text(), nullable=False, comment="releases of what it is made of, canonical JSON"
        ),
        sa.Column(
            "command",
            sa.Text(),
            nullable=True,
            comment="how a server of it is started; null when nobody said",
        ),
        sa.Column("registered_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("binary", name="pk_binaries"),
        comment="What servers can be: the release of Holdfast with all that it runs on.",
    )


def _create_configurations() -> None:
    op.create_table(
        "configurations",
        sa.Column(
            "configuration", sa.String(length=32), nullable=False, comment="c-<first 12 digits of its digest>"
        ),
        sa.Column("document", sa.Text(), nullable=False, comment="the options of serving, canonical JSON"),
        sa.Column("registered_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("configuration", name="pk_configurations"),
        comment="With which options servers run.",
    )


def _create_drills() -> None:
    op.create_table(
        "drills",
        sa.Column("drill", SERIAL, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=31), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column(
            "took_us",
            sa.BigInteger(),
            nullable=True,
            comment="what the drill is timed by, such as traffic back",
        ),
        sa.Column("evidence", sa.Text(), nullable=False, comment="what was seen, canonical JSON"),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "expires_us", sa.BigInteger(), nullable=False, comment="until when it says that this works"
        ),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_drills_verdict_known"
        ),
        sa.PrimaryKeyConstraint("drill", name="pk_drills"),
        comment="What was exercised, when, and until when that is believed.",
    )
    op.create_index("ix_drills_model", "drills", ["model"], unique=False)


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("event", SERIAL, autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=63), nullable=False),
        sa.Column("subject", sa.String(length=127), nullable=False),
        sa.Column("actor", sa.String(length=63), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column(
            "digest",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 over the event before and this one",
        ),
        sa.PrimaryKeyConstraint("event", name="pk_events"),
        comment=(
            "What happened, in words; written in the transaction that did it. A chain: none can be "
            "changed unseen."
        ),
    )
    op.create_index("ix_events_subject", "events", ["subject"], unique=False)


def _create_hooks() -> None:
    op.create_table(
        "hooks",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("hook", sa.String(length=63), nullable=False),
        sa.Column("document", sa.Text(), nullable=False, comment="the hook as declared, canonical JSON"),
        sa.Column("declared_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "hook", name="pk_hooks"),
        comment="What the newest control loop of a model was started with.",
    )


def _create_probes() -> None:
    op.create_table(
        "probes",
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("plan", sa.BigInteger(), nullable=True, comment="the plan the server said it follows"),
        sa.Column("intended", sa.String(length=32), nullable=True),
        sa.Column(
            "answered",
            sa.String(length=32),
            nullable=True,
            comment="the version that answered the probe request",
        ),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("probed_us", sa.BigInteger(), nullable=False),
        sa.Column("binary", sa.String(length=32), nullable=True, comment="what the server said that it is"),
        sa.Column(
            "configuration",
            sa.String(length=32),
            nullable=True,
            comment="what the server said that it runs with",
        ),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_probes_verdict_known"
        ),
        sa.ForeignKeyConstraint(["server"], ["servers.server"], name="fk_probes_server"),
        sa.PrimaryKeyConstraint("server", "model", name="pk_probes"),
        comment="Declared against observed: the last probe of each server.",
    )


def _create_shadow_files() -> None:
    op.create_table(
        "shadow_files",
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False, comment="in which these answers were logged"),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("answered_low_us", sa.BigInteger(), nullable=False),
        sa.Column("answered_high_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server", "segment"],
            ["segments.server", "segments.segment"],
            name="fk_shadow_files_server_segment",
        ),
        sa.PrimaryKeyConstraint("path", name="pk_shadow_files"),
        comment="Collected answers of shadows as Parquet files.",
    )
    op.create_index("ix_shadow_files_server_segment", "shadow_files", ["server", "segment"], unique=False)


def _create_releases() -> None:
    op.create_table(
        "releases",
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("binary", sa.String(length=32), nullable=False),
        sa.Column("configuration", sa.String(length=32), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("judged_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_releases_verdict_known"
        ),
        sa.ForeignKeyConstraint(["binary"], ["binaries.binary"], name="fk_releases_binary"),
        sa.ForeignKeyConstraint(
            ["configuration"], ["configurations.configuration"], name="fk_releases_configuration"
        ),
        sa.ForeignKeyConstraint(["version"], ["versions.version"], name="fk_releases_version"),
        sa.PrimaryKeyConstraint("version", "binary", "configuration", name="pk_releases"),
        comment=(
            "Which version was tried with which binary and configuration: what was not tried together"
            " is not served."
        ),
    )


def _create_rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("rollout", SERIAL, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("challenger", sa.String(length=32), nullable=False),
        sa.Column(
            "champion", sa.String(length=32), nullable=True, comment="null for a model's first version"
        ),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False, comment="index into the policy's steps"),
        sa.Column(
            "policy",
            sa.Text(),
            nullable=False,
            comment="the policy as declared when the rollout began, canonical JSON",
        ),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("step_started_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="why it is in this state, in words and numbers"
        ),
        sa.Column(
            "actor",
            sa.String(length=63),
            nullable=False,
            comment="who brought it here: 'holdfast' or a person",
        ),
        sa.Column("binary", sa.String(length=32), nullable=True, comment="pushed together with it"),
        sa.Column("configuration", sa.String(length=32), nullable=True, comment="pushed together with it"),
        sa.CheckConstraint(
            "state IN ('pending', 'shadowing', 'canary', 'paused', 'verifying', 'promoted', "
            "'rolling_back', 'rolled_back', 'cancelled')",
            name="ck_rollouts_state_known",
        ),
        sa.CheckConstraint("challenger <> champion", name="ck_rollouts_two_versions"),
        sa.ForeignKeyConstraint(["binary"], ["binaries.binary"], name="fk_rollouts_binary"),
        sa.ForeignKeyConstraint(["challenger"], ["versions.version"], name="fk_rollouts_challenger"),
        sa.ForeignKeyConstraint(["champion"], ["versions.version"], name="fk_rollouts_champion"),
        sa.ForeignKeyConstraint(
            ["configuration"], ["configurations.configuration"], name="fk_rollouts_configuration"
        ),
        sa.PrimaryKeyConstraint("rollout", name="pk_rollouts"),
    )
    op.create_index("ix_rollouts_challenger", "rollouts", ["challenger"], unique=False)
    op.create_index(
        "uq_rollouts_one_under_way",
        "rollouts",
        ["model"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('cancelled', 'promoted', 'rolled_back')"),
        postgresql_where=sa.text("state NOT IN ('cancelled', 'promoted', 'rolled_back')"),
    )


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("event", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rollout", sa.BigInteger(), nullable=False),
        sa.Column(
            "kind",
            sa.String(length=16),
            nullable=False,
            comment="what was decided, as the state machine calls it",
        ),
        sa.Column(
            "evidence",
            sa.Text(),
            nullable=False,
            comment="the verdict on each metric with its numbers then, canonical JSON",
        ),
        sa.ForeignKeyConstraint(["event"], ["events.event"], name="fk_decisions_event"),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.rollout"], name="fk_decisions_rollout"),
        sa.PrimaryKeyConstraint("event", name="pk_decisions"),
        comment="What was known when a rollout was decided about; the event says why in words.",
    )
    op.create_index("ix_decisions_rollout", "decisions", ["rollout"], unique=False)


def _create_hook_answers() -> None:
    op.create_table(
        "hook_answers",
        sa.Column("rollout", SERIAL, nullable=False),
        sa.Column("event", sa.String(length=16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("hook", sa.String(length=63), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("explanation", sa.Text(), nullable=False),
        sa.Column("asked_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "question",
            sa.Text(),
            nullable=False,
            comment="what the hook is told of the decision, canonical JSON",
        ),
        sa.Column(
            "tries",
            sa.Integer(),
            nullable=False,
            comment="how often this question was asked without an answer",
        ),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'inconclusive', 'error')", name="ck_hook_answers_verdict_known"
        ),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.rollout"], name="fk_hook_answers_rollout"),
        sa.PrimaryKeyConstraint("rollout", "event", "step", "hook", name="pk_hook_answers"),
        comment="What hooks said of a step before it was taken; each is asked until it has answered.",
    )


def _create_pushes() -> None:
    op.create_table(
        "pushes",
        sa.Column("rollout", SERIAL, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="why it is called so, in words and numbers"),
        sa.Column("labelled_by", sa.String(length=63), nullable=False, comment="'holdfast' or a person"),
        sa.Column("labelled_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "requests", sa.BigInteger(), nullable=True, comment="that the challenger was sent until its end"
        ),
        sa.Column(
            "watch_until_us", sa.BigInteger(), nullable=True, comment="until when a promotion is watched"
        ),
        sa.CheckConstraint(
            "outcome IN ('open', 'good', 'bad', 'escaped', 'censored')", name="ck_pushes_outcome_known"
        ),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.rollout"], name="fk_pushes_rollout"),
        sa.PrimaryKeyConstraint("rollout", name="pk_pushes"),
        comment="The ledger of pushes. What was not seen to its end is censored, and not called good.",
    )
    op.create_index("ix_pushes_model", "pushes", ["model"], unique=False)


def _create_rollout_evidence() -> None:
    op.create_table(
        "rollout_evidence",
        sa.Column("rollout", SERIAL, nullable=False),
        sa.Column("metric", sa.String(length=63), nullable=False),
        sa.Column("challenger_units", sa.BigInteger(), nullable=False),
        sa.Column(
            "challenger_total", sa.Double(), nullable=False, comment="bad requests, or the sum of scores"
        ),
        sa.Column("champion_units", sa.BigInteger(), nullable=False),
        sa.Column("champion_total", sa.Double(), nullable=False),
        sa.Column(
            "log_e", sa.Double(), nullable=False, comment="natural logarithm of the largest e-value reached"
        ),
        sa.Column(
            "log_bound",
            sa.Double(),
            nullable=False,
            comment="the e-value at which harm is declared, natural logarithm",
        ),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="the sequential test's own state, canonical JSON"
        ),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.rollout"], name="fk_rollout_evidence_rollout"),
        sa.PrimaryKeyConstraint("rollout", "metric", name="pk_rollout_evidence"),
        comment="What is known about a running rollout. Counts are realised, never configured shares.",
    )


def _create_traffic_plans() -> None:
    op.create_table(
        "traffic_plans",
        sa.Column("plan", SERIAL, autoincrement=True, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("champion", sa.String(length=32), nullable=False),
        sa.Column("challenger", sa.String(length=32), nullable=True),
        sa.Column("share_ppm", sa.Integer(), nullable=False),
        sa.Column("previous", sa.String(length=32), nullable=True),
        sa.Column("fallback", sa.String(length=32), nullable=True),
        sa.Column("rollout", SERIAL, nullable=True),
        sa.Column("committed_us", sa.BigInteger(), nullable=False),
        sa.Column("shadow", sa.String(length=32), nullable=True),
        sa.Column("shadow_ppm", sa.Integer(), nullable=False),
        sa.Column("configuration", sa.String(length=32), nullable=True),
        sa.Column("binary", sa.String(length=32), nullable=True),
        sa.CheckConstraint("challenger <> champion", name="ck_traffic_plans_two_versions"),
        sa.CheckConstraint(
            "challenger IS NOT NULL OR share_ppm = 0", name="ck_traffic_plans_no_share_without_challenger"
        ),
        sa.CheckConstraint("shadow_ppm BETWEEN 0 AND 1000000", name="ck_traffic_plans_shadow_is_a_part"),
        sa.CheckConstraint("share_ppm BETWEEN 0 AND 1000000", name="ck_traffic_plans_share_is_a_part"),
        sa.ForeignKeyConstraint(["binary"], ["binaries.binary"], name="fk_traffic_plans_binary"),
        sa.ForeignKeyConstraint(["challenger"], ["versions.version"], name="fk_traffic_plans_challenger"),
        sa.ForeignKeyConstraint(["champion"], ["versions.version"], name="fk_traffic_plans_champion"),
        sa.ForeignKeyConstraint(
            ["configuration"], ["configurations.configuration"], name="fk_traffic_plans_configuration"
        ),
        sa.ForeignKeyConstraint(["fallback"], ["versions.version"], name="fk_traffic_plans_fallback"),
        sa.ForeignKeyConstraint(["previous"], ["versions.version"], name="fk_traffic_plans_previous"),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.rollout"], name="fk_traffic_plans_rollout"),
        sa.ForeignKeyConstraint(["shadow"], ["versions.version"], name="fk_traffic_plans_shadow"),
        sa.PrimaryKeyConstraint("plan", name="pk_traffic_plans"),
        comment="Append-only. The newest row of a model is what its servers must do.",
    )
    op.create_index("ix_traffic_plans_champion", "traffic_plans", ["champion"], unique=False)
    op.create_index("ix_traffic_plans_model", "traffic_plans", ["model"], unique=False)
    op.create_index("ix_traffic_plans_rollout", "traffic_plans", ["rollout"], unique=False)
