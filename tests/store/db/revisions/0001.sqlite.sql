CREATE TABLE backouts (
    backout_id INTEGER NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    state VARCHAR(16) NOT NULL,
    plan_json TEXT NOT NULL,
    steps_done INTEGER NOT NULL,
    reason TEXT NOT NULL,
    actor VARCHAR(63) NOT NULL,
    requested_at_us BIGINT NOT NULL,
    changed_at_us BIGINT NOT NULL,
    CONSTRAINT pk_backouts PRIMARY KEY (backout_id),
    CONSTRAINT ck_backouts_state_known CHECK (state IN ('under_way', 'done'))
);

CREATE INDEX ix_backouts_feed_batch ON backouts (feed, batch);

CREATE INDEX ix_backouts_state ON backouts (state);

CREATE TABLE contracts (
    contract_hash VARCHAR(64) NOT NULL,
    contract_json TEXT NOT NULL,
    first_used_at_us BIGINT NOT NULL,
    CONSTRAINT pk_contracts PRIMARY KEY (contract_hash)
);

CREATE TABLE drills (
    drill_id INTEGER NOT NULL,
    kind VARCHAR(31) NOT NULL,
    model VARCHAR(63) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    measured_duration_us BIGINT,
    evidence_json TEXT NOT NULL,
    explanation TEXT NOT NULL,
    actor VARCHAR(63) NOT NULL,
    started_at_us BIGINT NOT NULL,
    ended_at_us BIGINT NOT NULL,
    expires_at_us BIGINT NOT NULL,
    CONSTRAINT pk_drills PRIMARY KEY (drill_id),
    CONSTRAINT ck_drills_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error'))
);

CREATE INDEX ix_drills_model ON drills (model);

CREATE TABLE event_cursors (
    reader VARCHAR(63) NOT NULL,
    event_id BIGINT NOT NULL,
    CONSTRAINT pk_event_cursors PRIMARY KEY (reader)
);

CREATE TABLE events (
    event_id INTEGER NOT NULL,
    at_us BIGINT NOT NULL,
    kind VARCHAR(63) NOT NULL,
    subject VARCHAR(127) NOT NULL,
    actor VARCHAR(63) NOT NULL,
    explanation TEXT NOT NULL,
    digest VARCHAR(64) NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (event_id)
);

CREATE INDEX ix_events_subject ON events (subject);

CREATE TABLE feeds (
    feed VARCHAR(63) NOT NULL,
    state VARCHAR(16) NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL,
    changed_at_us BIGINT NOT NULL,
    CONSTRAINT pk_feeds PRIMARY KEY (feed),
    CONSTRAINT ck_feeds_state_known CHECK (state IN ('flowing', 'suspect', 'refusing'))
);

CREATE TABLE labels (
    prediction_id VARCHAR(48) NOT NULL,
    value DOUBLE NOT NULL,
    source VARCHAR(63) NOT NULL,
    received_at_us BIGINT NOT NULL,
    joined INTEGER NOT NULL,
    CONSTRAINT pk_labels PRIMARY KEY (prediction_id),
    CONSTRAINT ck_labels_joined_is_boolean CHECK (joined IN (0, 1))
);

CREATE INDEX ix_labels_joined ON labels (joined);

CREATE TABLE leases (
    lease VARCHAR(63) NOT NULL,
    holder VARCHAR(63) NOT NULL,
    epoch BIGINT NOT NULL,
    renewed_at_us BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    CONSTRAINT pk_leases PRIMARY KEY (lease),
    CONSTRAINT ck_leases_epoch_positive CHECK (epoch >= 1)
);

CREATE TABLE log_positions (
    server VARCHAR(63) NOT NULL,
    segment INTEGER NOT NULL,
    collected_bytes BIGINT NOT NULL,
    predictions BIGINT NOT NULL,
    feedback BIGINT NOT NULL,
    rejected_labels BIGINT NOT NULL,
    CONSTRAINT pk_log_positions PRIMARY KEY (server, segment)
);

CREATE TABLE request_counts (
    model VARCHAR(63) NOT NULL,
    version VARCHAR(32) NOT NULL,
    arm VARCHAR(16) NOT NULL,
    result VARCHAR(32) NOT NULL,
    minute_start_us BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    latency_sum_us BIGINT NOT NULL,
    latency_buckets_json TEXT NOT NULL,
    CONSTRAINT pk_request_counts PRIMARY KEY (model, version, arm, result, minute_start_us),
    CONSTRAINT ck_request_counts_arm_known CHECK (arm IN ('champion', 'challenger', 'fallback'))
);

CREATE TABLE runtimes (
    runtime VARCHAR(32) NOT NULL,
    packages_json TEXT NOT NULL,
    command TEXT,
    registered_at_us BIGINT NOT NULL,
    CONSTRAINT pk_runtimes PRIMARY KEY (runtime)
);

CREATE TABLE servers (
    server VARCHAR(63) NOT NULL,
    model VARCHAR(63) NOT NULL,
    address VARCHAR(255) NOT NULL,
    log_directory VARCHAR(255) NOT NULL,
    started_at_us BIGINT NOT NULL,
    CONSTRAINT pk_servers PRIMARY KEY (server)
);

CREATE TABLE serving_configs (
    serving_config VARCHAR(32) NOT NULL,
    config_json TEXT NOT NULL,
    registered_at_us BIGINT NOT NULL,
    CONSTRAINT pk_serving_configs PRIMARY KEY (serving_config)
);

CREATE TABLE table_versions (
    table_version INTEGER NOT NULL,
    committed_at_us BIGINT NOT NULL,
    reason VARCHAR(64) NOT NULL,
    CONSTRAINT pk_table_versions PRIMARY KEY (table_version)
);

CREATE TABLE traffic_comparisons (
    model VARCHAR(63) NOT NULL,
    version VARCHAR(32) NOT NULL,
    newest_prediction_at_us BIGINT NOT NULL,
    computed_at_us BIGINT NOT NULL,
    comparison_json TEXT NOT NULL,
    CONSTRAINT pk_traffic_comparisons PRIMARY KEY (model)
);

CREATE TABLE violations (
    violation_id INTEGER NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER,
    check_name VARCHAR(63) NOT NULL,
    subject VARCHAR(127) NOT NULL,
    level VARCHAR(16) NOT NULL,
    observed DOUBLE,
    bound DOUBLE,
    explanation TEXT NOT NULL,
    found_at_us BIGINT NOT NULL,
    accepted_at_us BIGINT,
    accepted_by VARCHAR(63),
    CONSTRAINT pk_violations PRIMARY KEY (violation_id),
    CONSTRAINT ck_violations_level_known CHECK (level IN ('warning', 'error', 'critical')),
    CONSTRAINT ck_violations_accepted_at_and_by CHECK ((accepted_at_us IS NULL) = (accepted_by IS NULL))
);

CREATE INDEX ix_violations_feed_batch ON violations (feed, batch);

CREATE TABLE webhooks (
    model VARCHAR(63) NOT NULL,
    webhook VARCHAR(63) NOT NULL,
    webhook_json TEXT NOT NULL,
    declared_at_us BIGINT NOT NULL,
    CONSTRAINT pk_webhooks PRIMARY KEY (model, webhook)
);

CREATE TABLE batches (
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    digest VARCHAR(64) NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    rows_received BIGINT NOT NULL,
    rows_loaded BIGINT NOT NULL,
    rows_quarantined BIGINT NOT NULL,
    event_time_min_us BIGINT,
    event_time_max_us BIGINT,
    table_version INTEGER NOT NULL,
    source TEXT NOT NULL,
    CONSTRAINT pk_batches PRIMARY KEY (feed, batch, epoch),
    CONSTRAINT ck_batches_state_known CHECK (state IN ('published', 'backed_out')),
    CONSTRAINT ck_batches_rows_add_up CHECK (rows_received = rows_loaded + rows_quarantined),
    CONSTRAINT ck_batches_epoch_not_negative CHECK (epoch >= 0),
    CONSTRAINT fk_batches_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_batches_feed_table_version ON batches (feed, table_version);

CREATE UNIQUE INDEX uq_batches_one_live_load ON batches (feed, batch) WHERE state = 'published';

CREATE UNIQUE INDEX uq_batches_one_live_load_of_a_content ON batches (feed, digest) WHERE state = 'published';

CREATE TABLE files (
    path VARCHAR(255) NOT NULL,
    table_name VARCHAR(63) NOT NULL,
    feed VARCHAR(63) NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    event_time_min_us BIGINT,
    event_time_max_us BIGINT,
    added_version INTEGER NOT NULL,
    removed_version INTEGER,
    CONSTRAINT pk_files PRIMARY KEY (path),
    CONSTRAINT ck_files_removed_after_added CHECK (removed_version IS NULL OR removed_version > added_version),
    CONSTRAINT fk_files_added_version FOREIGN KEY(added_version) REFERENCES table_versions (table_version),
    CONSTRAINT fk_files_removed_version FOREIGN KEY(removed_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_files_removed ON files (table_name, removed_version) WHERE removed_version IS NOT NULL;

CREATE INDEX ix_files_table_name_added_version ON files (table_name, added_version);

CREATE INDEX ix_files_table_name_event_time_max_us ON files (table_name, event_time_max_us);

CREATE TABLE online_definitions (
    aggregate VARCHAR(80) NOT NULL,
    feed VARCHAR(63) NOT NULL,
    definition_json TEXT NOT NULL,
    table_version INTEGER NOT NULL,
    CONSTRAINT pk_online_definitions PRIMARY KEY (aggregate),
    CONSTRAINT fk_online_definitions_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_online_definitions_feed ON online_definitions (feed);

CREATE TABLE online_features (
    aggregate VARCHAR(80) NOT NULL,
    entity VARCHAR(255) NOT NULL,
    known_at_us BIGINT NOT NULL,
    value DOUBLE,
    table_version INTEGER NOT NULL,
    CONSTRAINT pk_online_features PRIMARY KEY (aggregate, entity, known_at_us),
    CONSTRAINT fk_online_features_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_online_features_aggregate_table_version ON online_features (aggregate, table_version);

CREATE TABLE outcomes (
    outcome_id INTEGER NOT NULL,
    prediction_id VARCHAR(48) NOT NULL,
    model VARCHAR(63) NOT NULL,
    version VARCHAR(32) NOT NULL,
    arm VARCHAR(16) NOT NULL,
    rollout_id BIGINT,
    probability DOUBLE NOT NULL,
    label DOUBLE NOT NULL,
    event_time_us BIGINT NOT NULL,
    joined_at_us BIGINT NOT NULL,
    CONSTRAINT pk_outcomes PRIMARY KEY (outcome_id),
    CONSTRAINT ck_outcomes_arm_known CHECK (arm IN ('champion', 'challenger', 'fallback')),
    CONSTRAINT uq_outcomes_prediction_id UNIQUE (prediction_id),
    CONSTRAINT fk_outcomes_prediction_id FOREIGN KEY(prediction_id) REFERENCES labels (prediction_id)
);

CREATE INDEX ix_outcomes_model_version_event_time_us ON outcomes (model, version, event_time_us);

CREATE TABLE prediction_files (
    path VARCHAR(255) NOT NULL,
    model VARCHAR(63) NOT NULL,
    server VARCHAR(63) NOT NULL,
    segment INTEGER NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    predicted_at_min_us BIGINT NOT NULL,
    predicted_at_max_us BIGINT NOT NULL,
    record_number_min BIGINT NOT NULL,
    record_number_max BIGINT NOT NULL,
    CONSTRAINT pk_prediction_files PRIMARY KEY (path),
    CONSTRAINT fk_prediction_files_server_segment FOREIGN KEY(server, segment) REFERENCES log_positions (server, segment)
);

CREATE INDEX ix_prediction_files_server_segment ON prediction_files (server, segment);

CREATE TABLE probes (
    server VARCHAR(63) NOT NULL,
    model VARCHAR(63) NOT NULL,
    plan_id BIGINT,
    planned_version VARCHAR(32),
    observed_version VARCHAR(32),
    verdict VARCHAR(16) NOT NULL,
    explanation TEXT NOT NULL,
    probed_at_us BIGINT NOT NULL,
    runtime VARCHAR(32),
    serving_config VARCHAR(32),
    CONSTRAINT pk_probes PRIMARY KEY (server, model),
    CONSTRAINT ck_probes_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_probes_server FOREIGN KEY(server) REFERENCES servers (server)
);

CREATE TABLE shadow_files (
    path VARCHAR(255) NOT NULL,
    model VARCHAR(63) NOT NULL,
    server VARCHAR(63) NOT NULL,
    segment INTEGER NOT NULL,
    rows BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL,
    predicted_at_min_us BIGINT NOT NULL,
    predicted_at_max_us BIGINT NOT NULL,
    CONSTRAINT pk_shadow_files PRIMARY KEY (path),
    CONSTRAINT fk_shadow_files_server_segment FOREIGN KEY(server, segment) REFERENCES log_positions (server, segment)
);

CREATE INDEX ix_shadow_files_server_segment ON shadow_files (server, segment);

CREATE TABLE snapshots (
    snapshot VARCHAR(32) NOT NULL,
    table_version INTEGER NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    created_at_us BIGINT NOT NULL,
    CONSTRAINT pk_snapshots PRIMARY KEY (snapshot),
    CONSTRAINT fk_snapshots_table_version FOREIGN KEY(table_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_snapshots_table_version ON snapshots (table_version);

CREATE TABLE taints (
    kind VARCHAR(16) NOT NULL,
    subject VARCHAR(63) NOT NULL,
    backout_id INTEGER NOT NULL,
    tainted_at_us BIGINT NOT NULL,
    CONSTRAINT pk_taints PRIMARY KEY (kind, subject, backout_id),
    CONSTRAINT ck_taints_kind_known CHECK (kind IN ('snapshot', 'version')),
    CONSTRAINT fk_taints_backout_id FOREIGN KEY(backout_id) REFERENCES backouts (backout_id)
);

CREATE TABLE admissions (
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    rows_expected BIGINT,
    profile_json TEXT NOT NULL,
    rows_digest VARCHAR(64) NOT NULL,
    values_digest VARCHAR(64) NOT NULL,
    sequence_min BIGINT,
    sequence_max BIGINT,
    sequence_gaps BIGINT,
    group_name VARCHAR(63),
    event_time VARCHAR(63),
    CONSTRAINT pk_admissions PRIMARY KEY (feed, batch, epoch),
    CONSTRAINT fk_admissions_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch)
);

CREATE INDEX ix_admissions_feed_rows_digest ON admissions (feed, rows_digest);

CREATE INDEX ix_admissions_feed_values_digest ON admissions (feed, values_digest);

CREATE TABLE backout_batches (
    backout_id INTEGER NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    removed_version INTEGER,
    CONSTRAINT pk_backout_batches PRIMARY KEY (backout_id, feed, batch, epoch),
    CONSTRAINT fk_backout_batches_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_backout_batches_backout_id FOREIGN KEY(backout_id) REFERENCES backouts (backout_id),
    CONSTRAINT fk_backout_batches_removed_version FOREIGN KEY(removed_version) REFERENCES table_versions (table_version)
);

CREATE TABLE batch_references (
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    column_name VARCHAR(63) NOT NULL,
    to_feed VARCHAR(63) NOT NULL,
    to_key VARCHAR(63) NOT NULL,
    to_batch VARCHAR(63) NOT NULL,
    to_epoch INTEGER NOT NULL,
    lookback_start_us BIGINT,
    CONSTRAINT pk_batch_references PRIMARY KEY (feed, batch, epoch, column_name, to_feed, to_key, to_batch, to_epoch),
    CONSTRAINT fk_batch_references_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_batch_references_to_feed_to_batch_to_epoch FOREIGN KEY(to_feed, to_batch, to_epoch) REFERENCES batches (feed, batch, epoch)
);

CREATE INDEX ix_batch_references_to_feed_to_batch_to_epoch ON batch_references (to_feed, to_batch, to_epoch);

CREATE TABLE file_row_groups (
    path VARCHAR(255) NOT NULL,
    row_group INTEGER NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    rows BIGINT NOT NULL,
    removed_version INTEGER,
    CONSTRAINT pk_file_row_groups PRIMARY KEY (path, row_group),
    CONSTRAINT fk_file_row_groups_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_file_row_groups_path FOREIGN KEY(path) REFERENCES files (path),
    CONSTRAINT fk_file_row_groups_removed_version FOREIGN KEY(removed_version) REFERENCES table_versions (table_version)
);

CREATE INDEX ix_file_row_groups_feed_batch_epoch ON file_row_groups (feed, batch, epoch);

CREATE INDEX ix_file_row_groups_removed ON file_row_groups (removed_version) WHERE removed_version IS NOT NULL;

CREATE TABLE selections (
    snapshot VARCHAR(32) NOT NULL,
    selection_hash VARCHAR(64) NOT NULL,
    seed BIGINT NOT NULL,
    selection_json TEXT NOT NULL,
    removed_rows_json TEXT NOT NULL,
    rows_total BIGINT NOT NULL,
    rows_selected BIGINT NOT NULL,
    CONSTRAINT pk_selections PRIMARY KEY (snapshot, selection_hash),
    CONSTRAINT fk_selections_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE snapshot_incomplete_loads (
    snapshot VARCHAR(32) NOT NULL,
    feed VARCHAR(63) NOT NULL,
    batch VARCHAR(63) NOT NULL,
    epoch INTEGER NOT NULL,
    CONSTRAINT pk_snapshot_incomplete_loads PRIMARY KEY (snapshot, feed, batch, epoch),
    CONSTRAINT fk_snapshot_incomplete_loads_feed_batch_epoch FOREIGN KEY(feed, batch, epoch) REFERENCES batches (feed, batch, epoch),
    CONSTRAINT fk_snapshot_incomplete_loads_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE snapshot_slices (
    snapshot VARCHAR(32) NOT NULL,
    selection_hash VARCHAR(64) NOT NULL,
    column_name VARCHAR(63) NOT NULL,
    value VARCHAR(255) NOT NULL,
    rows_total BIGINT NOT NULL,
    rows_selected BIGINT NOT NULL,
    CONSTRAINT pk_snapshot_slices PRIMARY KEY (snapshot, selection_hash, column_name, value),
    CONSTRAINT fk_snapshot_slices_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE snapshot_tables (
    snapshot VARCHAR(32) NOT NULL,
    table_name VARCHAR(63) NOT NULL,
    rows BIGINT NOT NULL,
    files INTEGER NOT NULL,
    CONSTRAINT pk_snapshot_tables PRIMARY KEY (snapshot, table_name),
    CONSTRAINT fk_snapshot_tables_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE vacuumed_snapshots (
    snapshot VARCHAR(32) NOT NULL,
    vacuumed_at_us BIGINT NOT NULL,
    CONSTRAINT pk_vacuumed_snapshots PRIMARY KEY (snapshot),
    CONSTRAINT fk_vacuumed_snapshots_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE TABLE versions (
    version VARCHAR(32) NOT NULL,
    model VARCHAR(63) NOT NULL,
    number INTEGER NOT NULL,
    digest VARCHAR(64) NOT NULL,
    bytes BIGINT NOT NULL,
    snapshot VARCHAR(32) NOT NULL,
    contract_hash VARCHAR(64) NOT NULL,
    features_hash VARCHAR(64) NOT NULL,
    learner VARCHAR(63) NOT NULL,
    role VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    created_at_us BIGINT NOT NULL,
    CONSTRAINT pk_versions PRIMARY KEY (version),
    CONSTRAINT ck_versions_role_known CHECK (role IN ('candidate', 'heuristic')),
    CONSTRAINT ck_versions_state_known CHECK (state IN ('registered', 'qualified', 'refused')),
    CONSTRAINT uq_versions_digest UNIQUE (digest),
    CONSTRAINT fk_versions_snapshot FOREIGN KEY(snapshot) REFERENCES snapshots (snapshot)
);

CREATE INDEX ix_versions_snapshot ON versions (snapshot);

CREATE UNIQUE INDEX uq_versions_model_number ON versions (model, number);

CREATE TABLE compatibility_tests (
    version VARCHAR(32) NOT NULL,
    runtime VARCHAR(32) NOT NULL,
    serving_config VARCHAR(32) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    explanation TEXT NOT NULL,
    evaluated_at_us BIGINT NOT NULL,
    CONSTRAINT pk_compatibility_tests PRIMARY KEY (version, runtime, serving_config),
    CONSTRAINT ck_compatibility_tests_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_compatibility_tests_version FOREIGN KEY(version) REFERENCES versions (version),
    CONSTRAINT fk_compatibility_tests_runtime FOREIGN KEY(runtime) REFERENCES runtimes (runtime),
    CONSTRAINT fk_compatibility_tests_serving_config FOREIGN KEY(serving_config) REFERENCES serving_configs (serving_config)
);

CREATE TABLE gate_results (
    gate_result_id INTEGER NOT NULL,
    version VARCHAR(32) NOT NULL,
    gate VARCHAR(63) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    observed DOUBLE,
    low DOUBLE,
    high DOUBLE,
    bound DOUBLE,
    explanation TEXT NOT NULL,
    evaluated_at_us BIGINT NOT NULL,
    CONSTRAINT pk_gate_results PRIMARY KEY (gate_result_id),
    CONSTRAINT ck_gate_results_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_gate_results_version FOREIGN KEY(version) REFERENCES versions (version)
);

CREATE INDEX ix_gate_results_version ON gate_results (version);

CREATE TABLE rollouts (
    rollout_id INTEGER NOT NULL,
    model VARCHAR(63) NOT NULL,
    challenger VARCHAR(32) NOT NULL,
    champion VARCHAR(32),
    state VARCHAR(16) NOT NULL,
    step INTEGER NOT NULL,
    policy_json TEXT NOT NULL,
    started_at_us BIGINT NOT NULL,
    step_started_at_us BIGINT NOT NULL,
    changed_at_us BIGINT NOT NULL,
    reason TEXT NOT NULL,
    actor VARCHAR(63) NOT NULL,
    runtime VARCHAR(32),
    serving_config VARCHAR(32),
    CONSTRAINT pk_rollouts PRIMARY KEY (rollout_id),
    CONSTRAINT ck_rollouts_state_known CHECK (state IN ('pending', 'shadowing', 'canary', 'paused', 'verifying', 'promoted', 'rolling_back', 'rolled_back', 'cancelled')),
    CONSTRAINT ck_rollouts_two_versions CHECK (challenger <> champion),
    CONSTRAINT fk_rollouts_challenger FOREIGN KEY(challenger) REFERENCES versions (version),
    CONSTRAINT fk_rollouts_champion FOREIGN KEY(champion) REFERENCES versions (version),
    CONSTRAINT fk_rollouts_runtime FOREIGN KEY(runtime) REFERENCES runtimes (runtime),
    CONSTRAINT fk_rollouts_serving_config FOREIGN KEY(serving_config) REFERENCES serving_configs (serving_config)
);

CREATE INDEX ix_rollouts_challenger ON rollouts (challenger);

CREATE UNIQUE INDEX uq_rollouts_one_under_way ON rollouts (model) WHERE state NOT IN ('cancelled', 'promoted', 'rolled_back');

CREATE TABLE decisions (
    event_id BIGINT NOT NULL,
    rollout_id BIGINT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    evidence_json TEXT NOT NULL,
    CONSTRAINT pk_decisions PRIMARY KEY (event_id),
    CONSTRAINT fk_decisions_event_id FOREIGN KEY(event_id) REFERENCES events (event_id),
    CONSTRAINT fk_decisions_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

CREATE INDEX ix_decisions_rollout_id ON decisions (rollout_id);

CREATE TABLE pushes (
    rollout_id INTEGER NOT NULL,
    model VARCHAR(63) NOT NULL,
    outcome VARCHAR(16) NOT NULL,
    reason TEXT NOT NULL,
    labelled_by VARCHAR(63) NOT NULL,
    labelled_at_us BIGINT NOT NULL,
    requests BIGINT,
    bake_until_us BIGINT,
    CONSTRAINT pk_pushes PRIMARY KEY (rollout_id),
    CONSTRAINT ck_pushes_outcome_known CHECK (outcome IN ('open', 'good', 'bad', 'escaped', 'censored')),
    CONSTRAINT fk_pushes_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

CREATE INDEX ix_pushes_model ON pushes (model);

CREATE TABLE rollout_evidence (
    rollout_id INTEGER NOT NULL,
    metric VARCHAR(63) NOT NULL,
    challenger_units BIGINT NOT NULL,
    challenger_total DOUBLE NOT NULL,
    champion_units BIGINT NOT NULL,
    champion_total DOUBLE NOT NULL,
    log_e DOUBLE NOT NULL,
    log_bound DOUBLE NOT NULL,
    step_units BIGINT NOT NULL,
    latency_bound_us DOUBLE,
    evidence_json TEXT NOT NULL,
    history_json TEXT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    CONSTRAINT pk_rollout_evidence PRIMARY KEY (rollout_id, metric),
    CONSTRAINT fk_rollout_evidence_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);

CREATE TABLE traffic_plans (
    plan_id INTEGER NOT NULL,
    model VARCHAR(63) NOT NULL,
    champion VARCHAR(32) NOT NULL,
    challenger VARCHAR(32),
    share_ppm INTEGER NOT NULL,
    previous VARCHAR(32),
    fallback VARCHAR(32),
    rollout_id INTEGER,
    committed_at_us BIGINT NOT NULL,
    shadow VARCHAR(32),
    shadow_ppm INTEGER NOT NULL,
    serving_config VARCHAR(32),
    runtime VARCHAR(32),
    CONSTRAINT pk_traffic_plans PRIMARY KEY (plan_id),
    CONSTRAINT ck_traffic_plans_shadow_ppm_in_range CHECK (shadow_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT ck_traffic_plans_share_ppm_in_range CHECK (share_ppm BETWEEN 0 AND 1000000),
    CONSTRAINT ck_traffic_plans_no_share_without_challenger CHECK (challenger IS NOT NULL OR share_ppm = 0),
    CONSTRAINT ck_traffic_plans_two_versions CHECK (challenger <> champion),
    CONSTRAINT fk_traffic_plans_champion FOREIGN KEY(champion) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_challenger FOREIGN KEY(challenger) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_previous FOREIGN KEY(previous) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_fallback FOREIGN KEY(fallback) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id),
    CONSTRAINT fk_traffic_plans_shadow FOREIGN KEY(shadow) REFERENCES versions (version),
    CONSTRAINT fk_traffic_plans_serving_config FOREIGN KEY(serving_config) REFERENCES serving_configs (serving_config),
    CONSTRAINT fk_traffic_plans_runtime FOREIGN KEY(runtime) REFERENCES runtimes (runtime)
);

CREATE INDEX ix_traffic_plans_champion ON traffic_plans (champion);

CREATE INDEX ix_traffic_plans_model ON traffic_plans (model);

CREATE INDEX ix_traffic_plans_rollout_id ON traffic_plans (rollout_id);

CREATE TABLE webhook_responses (
    rollout_id INTEGER NOT NULL,
    event VARCHAR(16) NOT NULL,
    step INTEGER NOT NULL,
    webhook VARCHAR(63) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    explanation TEXT NOT NULL,
    requested_at_us BIGINT NOT NULL,
    request_json TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    CONSTRAINT pk_webhook_responses PRIMARY KEY (rollout_id, event, step, webhook),
    CONSTRAINT ck_webhook_responses_verdict_known CHECK (verdict IN ('pass', 'fail', 'inconclusive', 'error')),
    CONSTRAINT fk_webhook_responses_rollout_id FOREIGN KEY(rollout_id) REFERENCES rollouts (rollout_id)
);
